"""What can be known of a session before any work: headers, fit, cluster, engine, disk."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from typing import Any

from tomoseg.analysis import intensity
from tomoseg.analysis.intensity import Moments
from tomoseg.compute.clusters import check_cluster
from tomoseg.compute.settings import ComputeSection
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import FullDiskError, RequestError, TomosegError, VoxelSizeError
from tomoseg.core.layout import MANIFEST
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.stores import Folder, checked_url, free_bytes, scratch_folder
from tomoseg.io.volumes.compressed import compression_of
from tomoseg.io.volumes.sources import (
    ANY_VOXEL_ANGSTROM,
    Found,
    look_into,
    open_source,
    packed_header,
    told_missing,
    unpack,
)
from tomoseg.io.volumes.turns import Axes
from tomoseg.pipeline.session import Session
from tomoseg.pipeline.stages.fit import check_recipe
from tomoseg.pipeline.stages.input_mask import check_mask
from tomoseg.pipeline.stages.networks import check_fit
from tomoseg.recipe.recipe import Recipe
from tomoseg.recipe.source import SourceSection

# Pictures and tables of a tomogram, whatever its size.
PAGES_BYTES = 4 << 20


@dataclass(frozen=True)
class Check:
    """What ``validate`` found out about one tomogram; ``problem`` is empty if it can be done."""

    name: str
    url: str
    sampling: Sampling | None = None
    dtype: str = ""
    network_voxels_angstrom: tuple[float, ...] = ()
    bytes_needed: int = 0
    notes: tuple[str, ...] = ()
    problem: str = ""


def check_session(session: Session, *, reads_masks: bool = False) -> list[Check]:
    """Look at the cluster, every tomogram's header and fit, and the disk, before any work.

    Parameters
    ----------
    reads_masks
        Whether the tomograms' masks are read through as well, and samples of their voxels.

    Raises
    ------
    RequestError
        If the engine does not compute on the workers' device, or a process has more threads than
        there are cores.
    ResourceError
        If the cluster cannot be started from here, the engine needs what this machine, where the
        blocks run, has not, or the results will not fit on the disk.
    """
    check_cluster(session.recipe.compute)
    _check_threads(session.recipe)
    _check_engine(session.recipe)
    checks = [_checked(session, found) for found in session.tomograms]
    if reads_masks:
        checks = [_looked_into(session, check) for check in checks]
    needed = sum(check.bytes_needed for check in checks)
    free = free_bytes(session.output)
    if free is not None and needed > free:
        raise FullDiskError(
            f"about {gigabytes(needed)} are needed in {session.output}, {gigabytes(free)} are free",
            remedy="Free space, choose another output, or set ingest.bin.",
        )
    return checks


def _run_elsewhere(compute: ComputeSection) -> bool:
    return compute.address is not None or compute.cluster in ("slurm", "kubernetes")


def _check_threads(recipe: Recipe) -> None:
    """Refuse more threads in a process than this machine has cores, if blocks run here."""
    threads, cores = recipe.compute.threads, len(os.sched_getaffinity(0))
    if threads > cores and not _run_elsewhere(recipe.compute):
        raise RequestError(
            f"compute.threads: {threads} are more than the {cores} cores here, and each of the "
            "workers has so many",
            remedy="Set compute.threads: 1, which is best on a CPU, and more compute.workers.",
        )


def _check_engine(recipe: Recipe) -> None:
    """Look for what the engine needs, unless the blocks run on other machines."""
    compute, engine = recipe.compute, recipe.segment.engine
    if engine == "int8" and compute.worker_device == "cuda":
        raise RequestError(
            "segment.engine: int8 computes on a CPU alone",
            remedy="Set segment.engine: torch, or compute.device: cpu.",
        )
    if engine == "torch" or _run_elsewhere(compute):
        return
    from tomoseg.nets.engines import check_engine

    check_engine(engine)


def gigabytes(count: int) -> str:
    """Return a number of bytes for people.

    >>> gigabytes(1_600_000)
    '0.0016 GB'
    """
    return f"{count / 1e9:.2g} GB" if count < 1e9 else f"{count / 1e9:.1f} GB"


def _checked(session: Session, found: Found) -> Check:
    recipe = session.recipe
    try:
        with explaining():
            header, notes = _looked_at(found.url, recipe.source)
        if header is None:
            return Check(found.name, found.url, notes=notes)
        notes = (*notes, *check_recipe(recipe, session.networks, found.name, header))
        grids = [check_fit(recipe, one.card, header.sampling) for one in session.networks]
    except TomosegError as error:
        return Check(found.name, found.url, problem=str(error))
    return Check(
        found.name,
        found.url,
        header.sampling,
        header.dtype,
        tuple(grid.voxel_angstrom for grid in grids),
        0
        if session.output.exists(f"{found.name}/{MANIFEST}")
        else _bytes_needed(session, header.sampling, header.dtype),
        (*header.notes, *notes),
    )


def _looked_at(url: str, about: SourceSection) -> tuple[Header | None, tuple[str, ...]]:
    """Return a tomogram's header and what a little of its voxels shows.

    Of a compressed one only the beginning is unpacked; None where that does not tell a header.
    """
    size, axes = about.voxel_size_angstrom, about.axes
    if compression_of(url):
        header = packed_header(url, voxel_size_angstrom=size, axes=axes)
        return header, ("compressed: the whole is looked into when it is read",)
    opened = open_source(url, voxel_size_angstrom=size, axes=axes, integers=about.integers)
    with opened as source:
        header = source.header
    return header, told_voxels(url, look_into(url), about.maximum_not_finite)


def told_voxels(url: str, values: Moments, maximum_not_finite: float) -> tuple[str, ...]:
    """Say what is odd about a tomogram's voxels, of which some were looked at."""
    odd = (told_missing(url), _told_values(values, maximum_not_finite))
    return tuple(note for note in odd if note)


def _told_values(values: Moments, maximum_not_finite: float) -> str:
    share = values.not_finite / max(1, values.count + values.not_finite)
    if share > maximum_not_finite:
        return (
            f"{100 * share:.3g}% of the voxels looked at are NaN or infinite; a tomogram with more "
            f"than {100 * maximum_not_finite:.3g}% of them is refused "
            "(source.maximum_not_finite)"
        )
    is_plain = values.minimum == values.maximum
    return f"every voxel looked at is {values.minimum:g}" if is_plain else ""


def _looked_into(session: Session, check: Check) -> Check:
    """Read a tomogram's mask through and a sample of its voxels, where its grid is known."""
    if check.sampling is None:
        return check
    source, found = session.recipe.source, Found(check.name, check.url)
    how: Any = {
        "voxel_size_angstrom": source.voxel_size_angstrom,
        "axes": source.axes,
        "integers": source.integers,
    }
    try:
        with explaining():
            check_mask(source, found, check.sampling, session.recipe.blocks.shape)
            if compression_of(check.url):
                return check
            with open_source(check.url, **how) as opened:
                skewness = intensity.detail_skewness(opened.read, check.sampling)
    except TomosegError as error:
        return Check(check.name, check.url, problem=str(error))
    notes = intensity.contrast_notes(skewness, source.contrast)
    return replace(check, notes=(*check.notes, *notes))


def _bytes_needed(session: Session, source: Sampling, dtype: str) -> int:
    """Estimate what a tomogram's results take: labels compress at least tenfold, files do not."""
    import numpy as np

    voxels = float(np.prod(source.shape))
    stored = float(np.prod(source.binned(session.recipe.ingest.bin).shape))
    classes = len(session.classes)
    sizes = {"mrc": 1.0, "tiff": 1.0, "ome_zarr": 0.1, "copick": 0.2}
    masks = voxels * classes * sum(sizes[kind] for kind in session.recipe.export.masks)
    labels = stored * (2 + 4 * classes) / 10
    return int(stored * np.dtype(dtype).itemsize * 8 / 7 + labels + stored + masks) + PAGES_BYTES


@dataclass(frozen=True)
class Look:
    """What a file holds, whether or not its voxel size is known.

    Parameters
    ----------
    header
        Its voxel size means nothing where there is a problem.
    values
        Of some of its voxels.
    notes
        What is odd about them.
    problem
        Why its voxel size is not known; None if it is.
    """

    header: Header
    values: Moments
    notes: tuple[str, ...]
    problem: VoxelSizeError | None = None


def look_at_file(url: str, voxel_size_angstrom: float | None = None, axes: Axes = "zyx") -> Look:
    """Look at a tomogram; a compressed one is unpacked into a temporary folder first."""
    with scratch_folder() as scratch:
        plain = unpack(checked_url(url), Folder(scratch))
        header, problem = _header_at_least(plain, voxel_size_angstrom, axes)
        values = look_into(plain)
        odd = told_voxels(plain, values, SourceSection().maximum_not_finite)
        return Look(header, values, (*header.notes, *odd), problem)


def _header_at_least(
    url: str, voxel_size_angstrom: float | None, axes: Axes
) -> tuple[Header, VoxelSizeError | None]:
    try:
        with open_source(url, voxel_size_angstrom=voxel_size_angstrom, axes=axes) as source:
            return source.header, None
    except VoxelSizeError as error:
        if voxel_size_angstrom is not None:
            raise
        problem = error
    with open_source(url, voxel_size_angstrom=ANY_VOXEL_ANGSTROM, axes=axes) as source:
        # Nobody gave the size that one of the notes tells of.
        notes = tuple(n for n in source.header.notes if not n.startswith("voxel size "))
        return replace(source.header, notes=notes), problem
