"""What a session did, as plain values read from its ``session.json``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import MISSING, dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, Self

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling


@dataclass(frozen=True)
class ClassSummary:
    """What was found of one class in one tomogram.

    Parameters
    ----------
    name
        Class, such as ``"microtubule"``.
    colour
        ``"#rrggbb"``.
    voxels
        Number of voxels with this label.
    volume_nm3
        The same in nm³.
    filaments
        Number of traced filaments; None if the class is not traced.
    filament_length_um
        Their total length in µm; None if the class is not traced.
    curvature_per_um, packed_share
        Mean over that length of the curvature, 1/µm, and the part of it, 0..1, with another
        filament side by side; None if there is no filament.
    particles
        Number of particles; None if the class is not picked.
    surfaces
        Number of connected membrane surfaces; None if the class is not sampled.
    surface_area_nm2, surface_thickness_nm
        Their total area, None if the class is not sampled, and mean thickness, None if there is
        none.

    Raises
    ------
    RequestError
        If the colour is not of that form.
    """

    name: str
    colour: str
    voxels: int = 0
    volume_nm3: float = 0.0
    filaments: int | None = None
    filament_length_um: float | None = None
    curvature_per_um: float | None = None
    packed_share: float | None = None
    particles: int | None = None
    surfaces: int | None = None
    surface_area_nm2: float | None = None
    surface_thickness_nm: float | None = None

    def __post_init__(self) -> None:
        """Check the colour: it goes into a style sheet as it is."""
        if not re.fullmatch(r"#[0-9a-fA-F]{6}", self.colour):
            raise RequestError(
                f"colour {self.colour!r} of class {self.name!r} is not of the form #rrggbb",
                remedy="Write it as six hexadecimal digits after a #.",
            )

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the summary that a mapping describes; further keys are ignored."""
        return cls(**_known(cls, values))


@dataclass(frozen=True)
class TomogramSummary:
    """What became of one tomogram.

    Parameters
    ----------
    name
        Tomogram.
    state
        ``"done"``, ``"failed"``, ``"skipped"`` (already there) or another word of the session's.
    error, remedy
        What went wrong and what to do about it, where something did.
    sampling
        Grid of the source; None if not even its header could be read.
    classes
        What was found, in the order of the labels 1, 2, ….
    seconds
        Stage → wall time in seconds, in the order of the stages.
    files
        Results, as paths relative to the page.
    picture
        The overview picture, as a path relative to the page.
    notes
        What was odd and how it was dealt with.
    """

    name: str
    state: str
    error: str = ""
    remedy: str = ""
    sampling: Sampling | None = None
    classes: tuple[ClassSummary, ...] = ()
    seconds: tuple[tuple[str, float], ...] = ()
    files: tuple[str, ...] = ()
    picture: str = ""
    notes: tuple[str, ...] = ()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the summary that a mapping describes; further keys are ignored."""
        known = _known(cls, values)
        if "sampling" in known:
            known["sampling"] = Sampling.from_dict(known["sampling"])
        classes = known.get("classes", ())
        known["classes"] = tuple(ClassSummary.from_dict(item) for item in classes)
        known["seconds"] = tuple(known.get("seconds", {}).items())
        for key in ("files", "notes"):
            known[key] = tuple(known.get(key, ()))
        return cls(**known)


@dataclass(frozen=True)
class SessionSummary:
    """What became of a session.

    Parameters
    ----------
    version
        Of tomoseg.
    started, finished, written
        ISO 8601 times; ``finished`` is empty while the session runs, and ``written`` is when this
        was so.
    recipe
        The recipe, as a path relative to the page.
    networks
        What is known of each network (name, hash, classes, weight, …), in the order to show.
    tomograms
        In the order of the session.
    left_out
        Files that are no tomograms: why, by URL.

    Raises
    ------
    RequestError
        If a time is not ISO 8601.
    """

    version: str
    started: str
    finished: str = ""
    recipe: str = ""
    networks: tuple[Mapping[str, Any], ...] = ()
    tomograms: tuple[TomogramSummary, ...] = ()
    written: str = ""
    left_out: Mapping[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Check that the times can be read."""
        for moment in (self.started, self.finished or self.started, self.written or self.started):
            _moment(moment)

    @property
    def done(self) -> int:
        """Tomograms that have results, whichever run made them."""
        return sum(item.state in DONE for item in self.tomograms)

    @property
    def wall_seconds(self) -> float | None:
        """Time from start to finish in seconds; None while the session runs."""
        if not self.finished:
            return None
        return (_moment(self.finished) - _moment(self.started)).total_seconds()

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the summary that a ``session.json`` describes; further keys are ignored.

        Raises
        ------
        RequestError
            If a key without a default is missing, a colour or a time is malformed.
        """
        known = _known(cls, values)
        known["networks"] = tuple(known.get("networks", ()))
        tomograms = known.get("tomograms", ())
        known["tomograms"] = tuple(TomogramSummary.from_dict(item) for item in tomograms)
        return cls(**known)


DONE = ("done", "already there")
"""States of tomograms that have results; the second needed no work of the last run."""

COUNTED = ("nm³", "volume %", "objects")
"""Headings of :func:`counts`."""


def counts(found: ClassSummary, total_voxels: int) -> tuple[str, str, str]:
    """Return a class's volume, part of the whole volume, and objects as text.

    A class whose objects were not looked for has a dash, which is not the same as 0.

    >>> counts(ClassSummary("actin", "#ffb000", 10, 1250.0, 3, 0.815), 1000)
    ('1,250', '1.00', '3 filaments, 0.81 µm')
    """
    objects = []
    if found.filaments is not None:
        objects.append(count_noun(found.filaments, "filament"))
    if found.filament_length_um is not None:
        objects.append(f"{found.filament_length_um:,.2f} µm")
    if found.particles is not None:
        objects.append(count_noun(found.particles, "particle"))
    if found.surfaces is not None:
        objects.append(count_noun(found.surfaces, "surface"))
    if found.surface_area_nm2 is not None:
        objects.append(f"{found.surface_area_nm2 / 1e6:,.3f} µm²")
    part = 100 * found.voxels / total_voxels
    return f"{found.volume_nm3:,.0f}", f"{part:.2f}", ", ".join(objects) or "–"


def course(found: ClassSummary) -> str:
    """Return how a class's filaments run or how thick its membranes are; empty if not known.

    >>> course(ClassSummary("actin", "#ffb000", curvature_per_um=0.412, packed_share=0.25))
    'curvature 0.41 per µm, 25% side by side'
    >>> course(ClassSummary("single_membrane", "#ffb000", surface_thickness_nm=6.18))
    '6.2 nm thick'
    """
    words = []
    if found.curvature_per_um is not None and found.packed_share is not None:
        bend, packed = found.curvature_per_um, 100 * found.packed_share
        words.append(f"curvature {bend:.2f} per µm, {packed:.0f}% side by side")
    if found.surface_thickness_nm is not None:
        words.append(f"{found.surface_thickness_nm:.1f} nm thick")
    return ", ".join(words)


def count_noun(count: int, noun: str) -> str:
    """Return a count with its noun.

    >>> count_noun(1, "tomogram"), count_noun(1200, "tomogram")
    ('1 tomogram', '1,200 tomograms')
    """
    return f"{count:,} {noun}" if count == 1 else f"{count:,} {noun}s"


def describe_grid(sampling: Sampling) -> str:
    """Return voxel size, number of voxels and extent of a grid in words, in the order xyz.

    >>> describe_grid(Sampling((100, 200, 400), (10.0, 10.0, 10.0)))
    'voxel 10 Å, 400 × 200 × 100 voxels (x × y × z), 400 × 200 × 100 nm'
    """
    sizes = sampling.voxel_size_angstrom[::-1]
    voxel = f"{sizes[0]:.4g}"
    if len(set(sizes)) > 1:
        voxel = " × ".join(f"{size:.4g}" for size in sizes)
    shape = sampling.shape[::-1]
    voxels = " × ".join(str(n) for n in shape)
    extent = " × ".join(f"{n * size / 10:.0f}" for n, size in zip(shape, sizes, strict=True))
    return f"voxel {voxel} Å, {voxels} voxels (x × y × z), {extent} nm"


def readable(moment: str) -> str:
    """Return an ISO 8601 time as people write it.

    >>> readable("2026-01-31T23:59:59.25+00:00")
    '2026-01-31 23:59 UTC'
    """
    return f"{_moment(moment):%Y-%m-%d %H:%M %Z}"


def _known(
    kind: type[ClassSummary | TomogramSummary | SessionSummary], values: Mapping[str, Any]
) -> dict[str, Any]:
    """Keep the fields of a summary; null is as good as absent.

    A session's file may say more than a page shows, so further keys are no mistake.
    """
    known = {f.name: values[f.name] for f in fields(kind) if values.get(f.name) is not None}
    needed = [f.name for f in fields(kind) if f.default is f.default_factory is MISSING]
    missing = [name for name in needed if name not in known]
    if missing:
        raise RequestError(
            f"{kind.__name__}: {', '.join(missing)} missing among {sorted(values)}",
            remedy="Write session.json with the version of tomoseg that reads it.",
        )
    return known


def _moment(text: str) -> datetime:
    """Read a time; one without a zone is taken as UTC."""
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        raise RequestError(
            f"time {text!r} is not ISO 8601", remedy="Write it as 2026-01-31T23:59:59+00:00."
        ) from error
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
