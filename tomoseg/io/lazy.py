"""Stored tomograms as lazy xarray arrays, for notebooks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import StoreError
from tomoseg.core.layout import IMAGE
from tomoseg.core.sampling import Sampling, as_shape
from tomoseg.io.stores import Folder, OmeZarrReader, Volume, label_names

if TYPE_CHECKING:
    import xarray


def open_tomogram(place: str, *, labels: str | None = None, level: int = 0) -> xarray.DataArray:
    """Open a processed tomogram without reading it.

    Parameters
    ----------
    place
        ``<output>/<tomogram>``, or its ``tomogram.zarr``, as a path or URL.
    labels
        ``"semantic"`` for the classes, by number; ``"instances"`` for the objects; None for the
        tomogram itself.
    level
        Of the pyramid: each halves the one before.

    Returns
    -------
    Dims z, y, x with coordinates in Å; a Dask array of one chunk a shard.

    Raises
    ------
    StoreError
        If there is no such tomogram, label image or level.

    Examples
    --------
    >>> middle = open_tomogram("out/TS_01").sel(z=300, method="nearest")  # doctest: +SKIP
    """
    import dask.array
    import xarray

    folder = Folder(place)
    group = folder if folder.exists("zarr.json") else folder / IMAGE
    if labels is not None and labels not in label_names(group):
        raise StoreError(f"{group} has no labels {labels!r}, only {label_names(group)}")
    volume = Volume(group, str(level) if labels is None else f"labels/{labels}/{level}")
    array = volume.array()
    chunks = dask.array.core.normalize_chunks(array.shards or array.chunks, array.shape)
    stored = OmeZarrReader(group.url)
    grid = _grid(stored.header.sampling, stored.header.origin_angstrom, level)
    centres = grid.to_angstrom([[i, i, i] for i in range(max(array.shape))])
    return xarray.DataArray(
        dask.array.map_blocks(_read, volume=volume, chunks=chunks, dtype=array.dtype),
        dims=("z", "y", "x"),
        coords={
            name: (name, centres[:size, axis], {"units": "angstrom"})
            for axis, (name, size) in enumerate(zip("zyx", array.shape, strict=True))
        },
        name=labels or "density",
    )


def _read(volume: Volume, block_info: Any) -> NDArray[Any]:
    begins, ends = zip(*block_info[None]["array-location"], strict=True)
    return volume.read(Box(as_shape(begins), as_shape(ends)))


def _grid(stored: Sampling, first: tuple[float, float, float], level: int) -> Sampling:
    whole = Sampling(stored.shape, stored.voxel_size_angstrom, first)
    return whole.binned(2**level)
