"""The ways to annotate, as a recipe says them."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, Self

from pydantic import BeforeValidator, ConfigDict, Field, model_validator

from tomoseg.core.bounds import Count, Length, Section
from tomoseg.core.errors import RequestError
from tomoseg.io.volumes.legend import BACKGROUND, UNKNOWN
from tomoseg.nets.card import ClassName
from tomoseg.recipe.recipe import absolute
from tomoseg.recipe.source import SourceSection

LabelValue = Annotated[int, Field(ge=0, le=255)]


def _one_or_many(value: Any) -> Any:
    return (value,) if isinstance(value, str) else value


Places = Annotated[tuple[str, ...], BeforeValidator(_one_or_many), Field(min_length=1)]


class AnnotationSection(Section):
    """What all ways to annotate have in common.

    Parameters
    ----------
    weight
        How much more often than others its tomograms are drawn. Left out it is 1, or what makes
        corrections of a model that is gone on from a third of all that is drawn.
    source
        What the tomograms' files do not say; what is left out is as in the whole recipe.
    """

    places: ClassVar[tuple[str, ...]] = ()
    """Keys that hold paths or URLs."""

    weight: Annotated[float, Field(gt=0, le=1e6)] | None = None
    source: SourceSection = SourceSection()

    def placed(self, base: Path) -> Self:
        """Return it with relative paths taken from a folder."""
        given = {key: getattr(self, key) for key in self.places if getattr(self, key) is not None}
        return self.model_copy(
            update={
                key: absolute(place, base)
                if isinstance(place, str)
                else tuple(absolute(item, base) for item in place)
                for key, place in given.items()
            }
        )

    def completed(
        self, classes: tuple[str, ...], source: SourceSection, *, weight: float = 1.0
    ) -> Self:
        """Return it with everything said that was left to the whole recipe."""
        own = {key: getattr(self.source, key) for key in self.source.model_fields_set}
        return self.model_copy(
            update={
                "weight": weight if self.weight is None else self.weight,
                "source": source.model_copy(update=own),
                **self._with_classes(classes),
            }
        )

    def _with_classes(self, classes: tuple[str, ...]) -> dict[str, Any]:
        """Return the fields that follow from the classes of the whole recipe."""
        return {}


class _Labelled(AnnotationSection):
    """An annotation whose labels come as voxels.

    Parameters
    ----------
    values
        What a value in the file stands for: a class, ``background`` or ``not_annotated``. Left
        out, 1.. are the classes in order. 0 is background and 255 not annotated unless said
        otherwise.
    threshold
        Instead: voxels above it are the one class, the others background; for masks whose edges
        are soft, or whose values are 0 and 255.
    classes
        What the annotator looked for: a 0 says that none of these is there, and nothing of
        others. Left out, the classes in ``values``, else all.
    """

    values: dict[LabelValue, str] | None = None
    threshold: Annotated[float, Field(ge=-1e9, le=1e9)] | None = None
    classes: tuple[ClassName, ...] = ()

    @model_validator(mode="after")
    def _values_are_judged(self) -> Self:
        if self.values is not None and self.threshold is not None:
            raise ValueError("values and threshold exclude each other")
        named = self._named
        if self.classes and not set(named) <= set(self.classes):
            raise ValueError(f"values name {', '.join(named)}, classes {', '.join(self.classes)}")
        return self

    @property
    def _named(self) -> list[str]:
        meanings = dict.fromkeys((self.values or {}).values())
        return [meaning for meaning in meanings if meaning not in (BACKGROUND, UNKNOWN)]

    def _with_classes(self, classes: tuple[str, ...]) -> dict[str, Any]:
        looked_for = self.classes or tuple(self._named) or classes
        if self.threshold is not None and len(looked_for) != 1:
            raise RequestError(
                f"threshold {self.threshold:g} tells one class from the background, but the "
                f"annotation is of {', '.join(looked_for)}",
                remedy=f"Say which it is: classes: [{looked_for[0]}].",
            )
        return {"classes": looked_for}


class PaintedAnnotation(_Labelled):
    """Label volumes on the grids of tomograms.

    Parameters
    ----------
    tomograms
        Files, folders or URLs.
    labels
        Where a tomogram's labels are, ``{folder}`` and ``{name}`` standing for those of the
        tomogram.
    slices
        First slice that is used and the one after the last; all if left out.
    """

    places = ("tomograms", "labels")

    kind: Literal["painted"] = "painted"
    tomograms: Places
    labels: str
    slices: tuple[Annotated[int, Field(ge=0, le=1_000_000)], Count] | None = None

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.slices and self.slices[0] >= self.slices[1]:
            raise ValueError(
                f"slices {list(self.slices)} hold none: the end is not after the begin"
            )
        return self


class TilesAnnotation(_Labelled):
    """Square tiles cut from slices of one tomogram: some with a mask, some with nothing.

    Parameters
    ----------
    tomogram
        A file or URL.
    positives, negatives
        Tables of the tiles' centres, in any format that picks come in.
    masks
        A stack, shape (positives, size, size): the nth mask belongs to the nth positive.
    size
        Edge of a tile, voxels of the tomogram.
    """

    places = ("tomogram", "positives", "masks", "negatives")

    kind: Literal["tiles"]
    tomogram: str
    positives: str
    masks: str
    negatives: str | None = None
    size: Annotated[int, Field(ge=8, le=4096)] = 64

    @property
    def tomograms(self) -> Places:
        """The one tomogram, as the other kinds name theirs."""
        return (self.tomogram,)


class PointsAnnotation(AnnotationSection):
    """Centres of particles, drawn as balls; as discs where a tomogram has one slice.

    Centre lines of filaments, in our own tables, are drawn as tubes.

    Parameters
    ----------
    tomograms
        Files, folders or URLs.
    table
        Where a tomogram's centres or lines are, ``{folder}`` and ``{name}`` as in ``labels``.
    class_name
        The particles' class; its key is ``class``.
    radius_angstrom
        Of the particle or filament, Å.
    core, rim
        The class is painted up to ``core`` of the radius; from there to ``rim`` of it nothing is
        said. Both below 1, so that there is background between particles that touch.
    elsewhere
        ``background`` where every particle was picked, ``unannotated`` where only some were.
    background_table
        Clicks on nothing: the background is painted up to the radius around them.
    contamination_table, contamination_class
        Clicks on what looks like a particle and is none, and the class that it makes.
    """

    model_config = ConfigDict(validate_by_name=True, validate_by_alias=True)
    places = ("tomograms", "table", "background_table", "contamination_table")

    kind: Literal["points"]
    tomograms: Places
    table: str
    class_name: ClassName = Field(alias="class")
    radius_angstrom: Length
    core: Annotated[float, Field(gt=0, le=1)] = 0.6
    rim: Annotated[float, Field(gt=0, le=4)] = 0.75
    elsewhere: Literal["background", "unannotated"] = "background"
    background_table: str | None = None
    contamination_table: str | None = None
    contamination_class: ClassName = "contamination"

    @model_validator(mode="after")
    def _check_rim(self) -> Self:
        if self.rim < self.core:
            raise ValueError(f"rim {self.rim} lies within core {self.core}")
        return self

    @property
    def label_radius_angstrom(self) -> float:
        """Radius of what a network labels that learned from it: halfway to the background, Å."""
        return (self.core + self.rim) / 2 * self.radius_angstrom

    @property
    def classes(self) -> tuple[str, ...]:
        """The classes that the annotator looked for."""
        more = (self.contamination_class,) if self.contamination_table else ()
        return (self.class_name, *more)


Annotation = Annotated[
    PaintedAnnotation | TilesAnnotation | PointsAnnotation, Field(discriminator="kind")
]
