"""Trace filaments from what another program found: a mask, a map of scores, a table of picks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.filaments import (
    RidgePoints,
    TracingSettings,
    measure,
    ridge_points,
    trace,
    tracing_halo,
    working_factor,
)
from tomoseg.analysis.filaments.pick_axes import PickTubes, between_picks, pick_axes
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.coordinates import Filament, Particles, numbered
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape
from tomoseg.core.version import code_version
from tomoseg.exchange.evidence import open_unpacked, opened_evidence
from tomoseg.io.points import relion, tables
from tomoseg.io.points.dialects import (
    READ_AS_IS,
    ReadOptions,
    TomoContext,
    TomogramPoints,
)
from tomoseg.io.points.measures import measures_csv
from tomoseg.io.points.picks import named_tomograms, read_points
from tomoseg.io.points.star import write_star
from tomoseg.io.stores import Folder, read_file
from tomoseg.io.volumes.sources import safe_name, tomogram_name
from tomoseg.io.volumes.turns import Axes

TABLES = (".star", ".csv", ".tsv", ".txt", ".cbox")
# Of the score map that picks are drawn in.
PICK_BLOCK = (128, 128, 128)

Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class TraceRequest:
    """What to trace, and as what.

    Parameters
    ----------
    url
        A volume (MRC, TIFF, OME-Zarr) or a table of picks (STAR, CSV, CBOX).
    name
        Class of the filaments.
    settings
        How they are traced.
    block_shape
        Voxels of a volume that are looked at in one piece.
    scale
        What a volume's values mean: a name of :data:`tomoseg.analysis.filaments.evidence.SCALES`,
        ``correlation``, or ``LOW,HIGH``; None guesses where that is beyond doubt.
    label
        Of a volume of labels, the one to trace.
    voxel_size_angstrom
        Instead of the volume's own; of picks, the size of the pixels that they are counted in.
    tomogram
        The tomogram that picks lie in: its grid and its name. Without it nothing is written that
        needs its size.
    options
        What a table of picks in STAR does not say itself.
    axes
        Which of the volume's or the tomogram's are which, as ``source.axes`` says.
    """

    url: str
    name: str
    settings: TracingSettings
    block_shape: Shape
    scale: str | None = None
    label: int | None = None
    voxel_size_angstrom: float | None = None
    tomogram: str | None = None
    options: ReadOptions = READ_AS_IS
    axes: Axes = "zyx"

    @property
    def is_table(self) -> bool:
        """Whether this is a table of picks."""
        return PurePosixPath(self.url.lower()).suffix in TABLES


@dataclass(frozen=True)
class Traced:
    """What was traced, and how the evidence was read.

    Parameters
    ----------
    stem
        Name of the tomogram.
    filaments
        Longest first.
    sampling
        Grid of the tomogram; None if only its picks are known.
    notes
        How the evidence was read, for people and for the record.
    """

    stem: str
    filaments: list[Filament]
    sampling: Sampling | None
    notes: dict[str, Any]


def trace_file(request: TraceRequest, progress: Progress) -> Traced:
    """Trace the filaments that a file is evidence of.

    Raises
    ------
    RequestError
        If what its values mean must be said, or a pick's pixel size is not known.
    FormatError, VoxelSizeError
        As the reader of the file says.
    """
    if request.is_table:
        if request.scale or request.label is not None:
            raise RequestError(
                f"{request.url} is a table of picks: --scale and --label are for volumes"
            )
        return _from_picks(request, progress)
    if request.tomogram is not None:
        raise RequestError(f"{request.url} is a volume: --tomogram is for tables of picks")
    return _from_volume(request, progress)


def write_traced(traced: Traced, request: TraceRequest, output: Folder) -> list[str]:
    """Write the lines as CSV, in numbers, and for RELION 5 where the tomogram's size is known.

    Returns
    -------
    Paths in the output.
    """
    stem = f"{traced.stem}__{request.name}"
    # Positions in voxels are counted in voxels of 1 Å where the tomogram's are not known.
    grid = traced.sampling or Sampling((1, 1, 1), (1.0, 1.0, 1.0))
    is_inside = _anywhere if traced.sampling is None else traced.sampling.contains
    found = measure(traced.filaments, is_inside, radius_angstrom=request.settings.radius_angstrom)
    texts = {
        f"{stem}.csv": tables.filaments_csv(traced.filaments, grid),
        f"{stem}__measures.csv": measures_csv(found),
    }
    if traced.sampling is not None:
        tomogram = TomoContext(traced.stem, traced.sampling)
        table = relion.filaments_table(traced.filaments, context=tomogram)
        blocks = {"optics": relion.optics_table(tomogram), "particles": table}
        texts[f"{stem}.star"] = write_star(blocks)
    for path, text in texts.items():
        output.write(path, text.encode())
    output.write_json(
        f"{stem}__trace.json",
        {
            "tomoseg": code_version(),
            "source": request.url,
            "class": request.name,
            "settings": asdict(request.settings),
            **traced.notes,
        },
    )
    return [*texts, f"{stem}__trace.json"]


def _anywhere(points: NDArray[np.float64]) -> NDArray[np.bool_]:
    return np.ones(len(points), np.bool_)


def _from_volume(request: TraceRequest, progress: Progress) -> Traced:
    with opened_evidence(
        request.url,
        scale=request.scale,
        label=request.label,
        block_shape=request.block_shape,
        voxel_size_angstrom=request.voxel_size_angstrom,
        axes=request.axes,
    ) as evidence:
        sampling = evidence.header.sampling
        found = _by_blocks(evidence.read, sampling, request, progress)
        notes: dict[str, Any] = {"read_as": asdict(evidence.scale), "sampling": sampling.as_dict()}
        if evidence.header.notes:
            notes["note"] = "; ".join(evidence.header.notes)
    return Traced(tomogram_name(request.url), found, sampling, notes)


def _from_picks(request: TraceRequest, progress: Progress) -> Traced:
    data = read_file(request.url)
    if request.tomogram is None:
        room, found = None, _unplaced(data, request)
        stem = found.context.tomo_name
    else:
        stem = tomogram_name(request.tomogram)
        with open_unpacked(request.tomogram, request.voxel_size_angstrom, request.axes) as source:
            room = source.header.sampling
        found = _placed(data, request, TomoContext(stem, room))
    picks = _together(found.particles, request)
    radius = request.settings.radius_angstrom
    axes = pick_axes(picks, radius)
    notes = {"table": found.told(), "picks": len(picks), "directions_from": axes.known_from}
    if not len(axes.points_angstrom):
        return Traced(stem, [], room, notes)
    tubes = PickTubes.of(axes, request.settings, room)
    lines = [
        between_picks(line, axes.points_angstrom, radius)
        for line in _by_blocks(tubes.read, tubes.sampling, request, progress, block=PICK_BLOCK)
    ]
    shortest = request.settings.minimum_length_angstrom
    long = [line for line in lines if line.length_angstrom >= shortest]
    return Traced(stem, numbered(sorted(long, key=lambda one: -one.length_angstrom)), room, notes)


def _placed(data: bytes, request: TraceRequest, context: TomoContext) -> TomogramPoints:
    """Read picks of a tomogram, those of filaments too: their lines are traced anew."""
    options = replace(request.options, lines=False)
    return read_points(data, request.url, [context], options)[0]


def _unplaced(data: bytes, request: TraceRequest) -> TomogramPoints:
    """Read picks whose tomogram is not given, if they say by themselves where they are.

    They do if they come out the same on any two grids.
    """
    names = named_tomograms(data, request.url)
    rows_of = request.options.rows_of
    if len(names) > 1 and rows_of is None:
        raise RequestError(
            f"{request.url} has picks of {len(names)} tomograms: {', '.join(names[:5])}",
            remedy="Say with --tomogram or --rows-of which one to trace",
        )
    given = request.voxel_size_angstrom
    rows_of = rows_of or next(iter(names), None)
    name = safe_name(rows_of) if rows_of else tomogram_name(request.url)
    every = replace(request, options=replace(request.options, rows_of=rows_of))
    grids = [Sampling((n,) * 3, (given or float(n),) * 3) for n in (2, 4)]
    found, other = (_placed(data, every, TomoContext(name, grid)) for grid in grids)
    if not np.array_equal(found.points_angstrom, other.points_angstrom):
        raise RequestError(
            f"{request.url} counts positions from the tomogram's centre or in its voxels",
            remedy="Give the --tomogram"
            + ("" if given else ", or the --voxel-size if they are voxels from its first one"),
        )
    return found


def _together(found: Sequence[Particles], request: TraceRequest) -> Particles:
    """Return the picks of the class, or all if the table does not name it."""
    named = [one for one in found if one.name == request.name]
    if not named and len(found) > 1:
        raise RequestError(
            f"{request.url} has picks of {', '.join(one.name for one in found)}",
            remedy="Name one of them with --as",
        )
    (picks,) = named or found
    return picks


def _by_blocks(
    read: Callable[[Box], NDArray[np.float32]],
    sampling: Sampling,
    request: TraceRequest,
    progress: Progress,
    *,
    block: Shape | None = None,
) -> list[Filament]:
    """Find ridges a block at a time, then follow them."""
    settings = request.settings
    factor = working_factor(settings, sampling)
    grid = BlockGrid(
        sampling.shape,
        block or request.block_shape,
        halo=tracing_halo(settings, sampling),
        stride=(factor,) * 3,
    )
    parts = []
    for done, one in enumerate(grid, start=1):
        score = read(one.read)
        if score.any():
            parts.append(
                ridge_points(
                    score, one.core, begin=one.read.begin, sampling=sampling, settings=settings
                )
            )
        progress(PurePosixPath(request.url).name, "trace", done, len(grid))
    points = RidgePoints.concatenate(parts)
    return trace(points, name=request.name, sampling=sampling, settings=settings)
