"""What a session left in its output, read again without its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tomoseg.core.classes import COLOURS
from tomoseg.core.errors import RequestError
from tomoseg.core.layout import IMAGE, MANIFEST, RECORDS, SESSION
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.stores import Folder, Volume
from tomoseg.recipe.recipe import Recipe, recipe_from
from tomoseg.report.summary import DONE

GREY = "#808080"


@dataclass(frozen=True)
class Results:
    """The results of one tomogram; nothing is read before it is asked for.

    Parameters
    ----------
    name, source_url
        The tomogram.
    folder
        Where they lie: ``<output>/<name>``.
    recipe
        That they are of, resolved for the networks' classes.
    colours
        Class → ``"#rrggbb"``, in label order.
    """

    name: str
    source_url: str
    folder: Folder
    recipe: Recipe
    colours: Mapping[str, str]

    @property
    def image(self) -> Folder:
        """The OME-Zarr group."""
        return self.folder / IMAGE

    @property
    def records(self) -> Folder:
        """Receipts and summaries of stages."""
        return self.folder / RECORDS

    def volume(self, path: str) -> Volume:
        """Return an array of the tomogram's OME-Zarr group."""
        return Volume(self.image, path)

    def record(self, stage: str) -> dict[str, Any]:
        """Return what was recorded of a finished stage; raise StoreError if it has not run."""
        return dict(self.records.read_json(f"{stage}.json"))

    def summary(self, stage: str) -> dict[str, Any]:
        """Return the summary that a finished stage gave."""
        return dict(self.record(stage)["summary"])

    def header(self) -> Header:
        """Return the source's header, once ingested."""
        return Header.from_dict(self.summary("ingest")["header"])

    def sampling(self) -> Sampling:
        """Return the grid of the stored tomogram, once ingested."""
        return self.header().sampling.binned(self.recipe.ingest.bin)

    def label_path(self, name: str, level: int = 0) -> str:
        """Return the array of a label image."""
        return f"labels/{name}/{level}"

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in label order."""
        return tuple(self.colours)

    def label(self, name: str) -> int:
        """Return the label of a class."""
        return self.classes.index(name) + 1

    @property
    def scored(self) -> tuple[str, ...]:
        """Classes whose score maps are kept: traced, picked or sampled ones, in label order."""
        recipe = self.recipe
        wanted = {*(recipe.trace or ()), *(recipe.pick or ()), *(recipe.sample or ())}
        kept = wanted if self.recipe.segment.score_maps else set()
        return tuple(name for name in self.classes if name in kept)


def finished_rows(output: Folder) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the rows of ``session.json`` that have results, and the names of the others.

    Raises
    ------
    RequestError
        If there is no session.
    """
    if not output.exists(SESSION):
        raise RequestError(
            f"there is no session in {output}", remedy="Name the output folder of a run."
        )
    rows = output.read_json(SESSION)["tomograms"]
    done = [
        row for row in rows if row["state"] in DONE and output.exists(f"{row['name']}/{MANIFEST}")
    ]
    names = {row["name"] for row in done}
    return done, tuple(row["name"] for row in rows if row["name"] not in names)


def finished_results(output: Folder, name: str) -> Results:
    """Return a finished tomogram as its stages left it."""
    manifest = (output / name).read_json(MANIFEST)
    # Manifests of earlier versions name classes without colours.
    colours = manifest.get("colours") or {n: COLOURS.get(n, GREY) for n in manifest["classes"]}
    return Results(
        name, manifest["source"]["url"], output / name, recipe_from(manifest["recipe"]), colours
    )


def choose(known: Sequence[str], wanted: Sequence[str], what: str) -> list[str]:
    """Return the names that are wanted, all without any, in the order in which they are known.

    Raises
    ------
    RequestError
        If one is not known.

    Examples
    --------
    >>> choose(["actin", "ribosome"], ["ribosome"], "class")
    ['ribosome']
    """
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RequestError(
            f"there is no {what} {', '.join(unknown)}; there is {', '.join(known) or 'none'}",
            remedy=f"Choose one that there is, or leave out --{what}",
        )
    return [name for name in known if name in wanted or not wanted]
