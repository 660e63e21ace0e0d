"""Sample membranes of another program's mask or map of scores: points, normals, area, thickness."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from tomoseg.analysis.surfaces import (
    SheetPoints,
    SurfaceSamples,
    SurfaceSettings,
    connected_surfaces,
    sample_surfaces,
    sheet_points,
    surface_factor,
    surface_halo,
)
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Header, Sampling, Shape
from tomoseg.core.version import code_version
from tomoseg.exchange.evidence import ReadScores, opened_evidence
from tomoseg.io.points import relion, tables
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import DIALECTS
from tomoseg.io.points.star import write_star
from tomoseg.io.stores import Folder
from tomoseg.io.volumes.sources import tomogram_name
from tomoseg.io.volumes.turns import Axes

# These are always written.
AT_HOME = ("relion5", "csv")

Progress = Callable[[str, str, int, int], None]


@dataclass(frozen=True)
class SampleRequest:
    """What to sample, and as what.

    Parameters
    ----------
    url
        A volume (MRC, TIFF, OME-Zarr).
    name
        Class of the membranes.
    settings
        How they are sampled.
    block_shape
        Voxels that are looked at in one piece.
    scale, label
        What its values mean, see :func:`tomoseg.exchange.evidence.opened_evidence`.
    voxel_size_angstrom
        Instead of the volume's own.
    dialects
        To be written beside RELION 5's and CSV.
    axes
        Which of the volume's are which, as ``source.axes`` says.

    Raises
    ------
    RequestError
        If there is no such dialect, or it has no place for points on membranes.
    """

    url: str
    name: str
    settings: SurfaceSettings
    block_shape: Shape
    scale: str | None = None
    label: int | None = None
    voxel_size_angstrom: float | None = None
    dialects: tuple[str, ...] = ()
    axes: Axes = "zyx"

    def __post_init__(self) -> None:
        """Check the dialects before any work."""
        able = [name for name, known in DIALECTS.items() if known.has_particles]
        for name in self.dialects:
            if name not in able:
                raise RequestError(
                    f"{name} is no dialect that has points of membranes",
                    remedy=f"Choose one of {', '.join(able)}",
                )


@dataclass(frozen=True)
class Sampled:
    """What was sampled, and how the volume was read.

    Parameters
    ----------
    stem
        Name of the tomogram.
    samples
        The points, surface by surface, largest first.
    header
        Of the volume.
    notes
        How it was read, for people and for the record.
    """

    stem: str
    samples: SurfaceSamples
    header: Header
    notes: dict[str, Any]


def sample_file(request: SampleRequest, progress: Progress) -> Sampled:
    """Sample the membranes that a file is evidence of.

    Raises
    ------
    RequestError
        If what its values mean must be said, or the membrane is thinner than its grid can show.
    FormatError, VoxelSizeError
        As the reader of the file says.
    """
    with opened_evidence(
        request.url,
        scale=request.scale,
        label=request.label,
        block_shape=request.block_shape,
        voxel_size_angstrom=request.voxel_size_angstrom,
        axes=request.axes,
    ) as evidence:
        samples = _by_blocks(evidence.read, evidence.header.sampling, request, progress)
        notes = {
            "read_as": asdict(evidence.scale),
            "sampling": evidence.header.sampling.as_dict(),
            "origin_angstrom": list(evidence.header.origin_angstrom),
        }
        if evidence.header.notes:
            notes["note"] = "; ".join(evidence.header.notes)
        return Sampled(tomogram_name(request.url), samples, evidence.header, notes)


def write_sampled(sampled: Sampled, request: SampleRequest, output: Folder) -> list[str]:
    """Write the points as CSV with what is known of each, for RELION 5 and as was asked.

    Returns
    -------
    Paths in the output.
    """
    stem = f"{sampled.stem}__{request.name}"
    header, found = sampled.header, sampled.samples
    context = TomoContext(sampled.stem, header.sampling, origin_angstrom=header.origin_angstrom)
    further = {key: value for key, value in vars(found).items() if key != "particles"}
    blocks = {
        "optics": relion.optics_table(context),
        "particles": relion.particles_table(found.particles, context=context),
    }
    files = {
        f"{stem}.csv": tables.particles_csv([found.particles], header.sampling, further).encode(),
        f"{stem}.star": write_star(blocks).encode(),
    }
    points = [TomogramPoints(context, particles=[found.particles])]
    for name in request.dialects:
        if name not in AT_HOME:
            files |= DIALECTS[name].dialect.write(points, f"{name}/{stem}", WriteOptions())
    for path, content in files.items():
        output.write(path, content)
    output.write_json(
        f"{stem}__sample.json",
        {
            "tomoseg": code_version(),
            "source": request.url,
            "class": request.name,
            "settings": asdict(request.settings),
            **sampled.notes,
        },
    )
    return [*files, f"{stem}__sample.json"]


def _by_blocks(
    read: ReadScores, sampling: Sampling, request: SampleRequest, progress: Progress
) -> SurfaceSamples:
    """Find the middle of the sheets a block at a time, then join and sample them."""
    settings = request.settings
    grid = BlockGrid(
        sampling.shape,
        request.block_shape,
        halo=surface_halo(settings, sampling),
        stride=(surface_factor(settings, sampling),) * 3,
    )
    parts = []
    for done, one in enumerate(grid, start=1):
        score = read(one.read)
        if np.any(score):
            parts.append(
                sheet_points(
                    score, one.core, begin=one.read.begin, sampling=sampling, settings=settings
                )
            )
        progress(PurePosixPath(request.url).name, "sample", done, len(grid))
    points = SheetPoints.concatenate(parts or [SheetPoints.none()])
    found = connected_surfaces(points, sampling=sampling, settings=settings)
    return sample_surfaces(found, name=request.name, sampling=sampling, settings=settings)
