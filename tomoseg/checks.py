"""What can be known of a session before any work: headers, fit, cluster, engine, disk."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

from tomoseg import intensity
from tomoseg.attempts import explaining
from tomoseg.clusters import check_cluster
from tomoseg.errors import RequestError, ResourceError, TomosegError
from tomoseg.formats.compressed import compression_of
from tomoseg.recipe import Recipe
from tomoseg.sampling import Header, Sampling
from tomoseg.session import Session
from tomoseg.sources import Found, open_source, unpacked
from tomoseg.stages.masks import check_mask
from tomoseg.stages.networks import check_fit
from tomoseg.stores import Folder, checked_url, free_bytes, scratch_folder

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
        If the engine does not compute on the workers' device.
    ResourceError
        If the cluster cannot be started from here, the engine needs what this machine, where the
        blocks run, has not, or the results will not fit on the disk.
    """
    check_cluster(session.recipe.compute)
    _check_engine(session.recipe)
    checks = [_checked(session, found) for found in session.tomograms]
    if reads_masks:
        checks = [_looked_into(session, check) for check in checks]
    needed = sum(check.bytes_needed for check in checks)
    free = free_bytes(session.output)
    if free is not None and needed > free:
        raise ResourceError(
            f"about {gigabytes(needed)} are needed in {session.output}, {gigabytes(free)} are free",
            remedy="Free space, choose another output, or set ingest.bin.",
        )
    return checks


def _check_engine(recipe: Recipe) -> None:
    """Look for what the engine needs, unless the blocks run on other machines."""
    compute, engine = recipe.compute, recipe.segment.engine
    if engine == "int8" and compute.worker_device == "cuda":
        raise RequestError(
            "segment.engine: int8 computes on a CPU alone",
            remedy="Set segment.engine: torch, or compute.device: cpu.",
        )
    if engine == "torch" or compute.address or compute.cluster in ("slurm", "kubernetes"):
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
    if compression_of(found.url):
        return Check(found.name, found.url, notes=("compressed: looked into when it is read",))
    recipe = session.recipe
    override = recipe.source.voxel_size_angstrom
    try:
        opened = open_source(
            found.url, voxel_size_angstrom=override, integers=recipe.source.integers
        )
        with explaining(), opened as source:
            header = source.header
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
        if session.output.exists(f"{found.name}/manifest.json")
        else _bytes_needed(session, header.sampling, header.dtype),
        header.notes,
    )


def _looked_into(session: Session, check: Check) -> Check:
    """Read a tomogram's mask through and a sample of its voxels, where its grid is known."""
    if check.sampling is None:
        return check
    source, found = session.recipe.source, Found(check.name, check.url)
    how: Any = {"voxel_size_angstrom": source.voxel_size_angstrom, "integers": source.integers}
    try:
        with explaining():
            check_mask(source, found, check.sampling, session.recipe.blocks.shape)
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


def source_header(url: str, voxel_size_angstrom: float | None = None) -> Header:
    """Read a tomogram's header; a compressed one is unpacked into a temporary folder first."""
    with scratch_folder() as scratch:
        plain = unpacked(checked_url(url), Folder(scratch))
        with open_source(plain, voxel_size_angstrom=voxel_size_angstrom) as source:
            return source.header
