"""Sharded zarr arrays whose shards have one writer each (law 2)."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, cast

import numpy as np
import zarr
from numcodecs import Blosc
from numpy.typing import NDArray
from zarr.buffer import cpu
from zarr.codecs import BloscCodec

from tomoseg.core.blocks import Box
from tomoseg.core.errors import StoreError
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.io.stores.folders import Folder
from tomoseg.io.stores.unpacking import bound_chunks
from tomoseg.io.stores.written import is_noting, note_write

LARGEST_CHUNK = (64, 128, 128)
_METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class Voxels(cpu.NDBuffer):
    """What zarr writes; it asks of every chunk whether that is empty, and leaves out those."""

    def all_equal(self, other: Any, equal_nan: bool = True) -> bool:
        """Tell whether every voxel is 0, where that is asked; -0.0 is another number.

        zarr's own way, to compare with the number, takes longer than to pack labels.
        """
        if other is None or other != 0:
            return super().all_equal(other, equal_nan)
        voxels = self.as_numpy_array()
        return not voxels.view(f"u{voxels.itemsize}").any()


PROTOTYPE = cpu.buffer_prototype._replace(nd_buffer=Voxels)


@dataclass(frozen=True)
class Volume:
    """A sharded zarr v3 array, opened anew for each use so that the value pickles.

    Parameters
    ----------
    folder
        The OME-Zarr group's folder.
    path
        The array below it, such as ``"0"`` or ``"labels/semantic/0"``.
    axes
        Which of an array's axes are z, y, x, in this order; all others have one place. Only
        arrays that others made have any but three.
    """

    folder: Folder
    path: str
    axes: Shape = (0, 1, 2)

    def create_flat(self, shape: Shape, dtype: str, *, chunk: Shape) -> None:
        """Create labels as zarr v2 has them, in chunks of a file each, replacing what was there.

        For programs that do not read v3; a chunk is then what :meth:`write` takes for a shard.
        """
        self.folder.remove(self.path)
        zarr.create_array(
            zarr_store(self.folder),
            name=self.path,
            shape=shape,
            dtype=dtype,
            chunks=chunk,
            compressors=Blosc(cname="zstd", clevel=3),
            fill_value=0,
            zarr_format=2,
            chunk_key_encoding={"name": "v2", "separator": "/"},
        )

    def create(self, shape: Shape, dtype: str, *, shard: Shape, is_labels: bool = False) -> None:
        """Create the array empty, replacing what was there."""
        self.folder.remove(self.path)
        zarr.create_array(
            zarr_store(self.folder),
            name=self.path,
            shape=shape,
            dtype=dtype,
            chunks=inner_chunk(shard),
            shards=shard,
            compressors=_codec(dtype, is_labels=is_labels),
            fill_value=0,
            dimension_names=("z", "y", "x"),
        )
        self.folder.settle([f"{self.path}/zarr.json"])

    def array(self, mode: str = "r") -> zarr.Array[Any]:
        """Open the zarr array.

        Raises
        ------
        StoreError
            If it is not there.
        """
        store = zarr_store(self.folder)
        # Asked for any format, zarr looks for both: six more requests each time.
        for known in (3, 2):
            with contextlib.suppress(FileNotFoundError):
                return zarr.open_array(
                    store, path=self.path, mode=cast(Any, mode), zarr_format=cast(Any, known)
                )
        raise StoreError(f"{self.folder}/{self.path} does not exist")

    @property
    def exists(self) -> bool:
        """Whether the array's metadata is there."""
        return self.folder.is_file(f"{self.path}/zarr.json")

    @property
    def shape(self) -> Shape:
        """Voxels zyx."""
        return self._zyx(self.array())

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box.

        Raises
        ------
        StoreError
            If the box leaves the array (zarr would hand out fewer voxels, or others), or a shard is
            cut or becomes more than it should.
        FormatError
            If its chunks are packed in a way that is not read.
        """
        array = bound_chunks(self.array())
        if not Box.whole(self._zyx(array)).contains(box):
            raise StoreError(
                f"box {box.begin}..{box.end} leaves {self.path} of shape {array.shape}"
            )
        place = [slice(0, 1)] * array.ndim
        for axis, voxels_along in zip(self.axes, box.slices, strict=True):
            place[axis] = voxels_along
        try:
            voxels = np.asarray(array[tuple(place)])
        except (ValueError, RuntimeError) as error:
            raise self._damaged(box, str(error)) from error
        # zarr takes a shard of no bytes for one that was never written.
        if self.folder.has_empty(self._shard_names(array, place)):
            raise self._damaged(box, "it has no bytes")
        others = tuple(axis for axis in range(array.ndim) if axis not in self.axes)
        return voxels.astype(voxels.dtype.newbyteorder("="), copy=False).squeeze(others)

    def _zyx(self, array: zarr.Array[Any]) -> Shape:
        return as_shape(array.shape[axis] for axis in self.axes)

    def missing(self) -> tuple[int, int]:
        """Return how many shards have no file, and of how many: those read as the fill value."""
        array = self.array()
        shard = array.shards or array.chunks
        wanted = prod(-(-size // step) for size, step in zip(array.shape, shard, strict=True))
        files = self.folder.files(self.path)
        return wanted - sum(name.rpartition("/")[2] not in _METADATA for name in files), wanted

    def write(self, box: Box, voxels: NDArray[Any]) -> None:
        """Write a union of whole shards; they outlast a power cut.

        Raises
        ------
        StoreError
            If the box cuts a shard: two tasks could then lose each other's voxels.
        """
        array = self.array("r+")
        shard = array.shards or array.chunks
        for begin, end, step, size in zip(box.begin, box.end, shard, array.shape, strict=True):
            if begin % step or (end % step and end != size) or not 0 <= begin < end <= size:
                raise StoreError(
                    f"writing {box.begin}..{box.end} into {self.path} of shape {array.shape} "
                    f"would cut a shard of {tuple(shard)}"
                )
        if voxels.shape != box.shape or voxels.dtype != array.dtype:
            raise StoreError(
                f"{voxels.dtype} voxels of shape {voxels.shape} do not fit "
                f"{array.dtype} box {box.shape} of {self.path}"
            )
        names = list(self._shard_names(array, box.slices))
        # zarr reads shards that the volume's end cuts before it writes them, and that as usual.
        is_cut = any(end % step for end, step in zip(box.end, shard, strict=True))
        prototype = None if is_cut else PROTOTYPE
        try:
            array.set_basic_selection(box.slices, voxels, prototype=prototype)
        except (ValueError, RuntimeError):
            # zarr reads the shards that it is to replace; one that a power cut tore must not stay.
            for name in names:
                self.folder.remove(name)
            array.set_basic_selection(box.slices, voxels, prototype=prototype)
        self.folder.settle(names)
        for name in names if is_noting() else ():
            stored = self.folder.size(name)
            if stored is not None:
                note_write(f"{self.folder.url}/{name}", stored)

    def _shard_names(self, array: zarr.Array[Any], place: Iterable[slice]) -> Iterator[str]:
        """Yield the files of the shards that a box touches, whether they are there or not."""
        shard = array.shards or array.chunks
        runs = [
            range(one.start // step, -(-one.stop // step))
            for one, step in zip(place, shard, strict=True)
        ]
        for index in product(*runs):
            yield f"{self.path}/{array.metadata.encode_chunk_key(index)}"

    def _damaged(self, box: Box, reason: str) -> StoreError:
        return StoreError(
            f"a shard of {self.folder}/{self.path} between {box.begin} and {box.end} is cut or "
            f"damaged: {reason}",
            remedy="If it is a result, remove the array and run again: it is made anew.",
        )


def inner_chunk(shard: Shape) -> Shape:
    """Return the chunk inside a shard: the largest divisors of its edges up to 64, 128 and 128.

    Smaller ones are read at half the speed.

    Examples
    --------
    >>> inner_chunk((128, 256, 96))
    (64, 128, 96)
    """
    return as_shape(
        max(d for d in range(1, min(n, most) + 1) if n % d == 0)
        for n, most in zip(shard, LARGEST_CHUNK, strict=True)
    )


def _codec(dtype: str, *, is_labels: bool) -> BloscCodec | None:
    """Return how chunks are packed: noise in floats gets 7% smaller at half the speed, so not."""
    if is_labels:
        return BloscCodec(cname="zstd", clevel=1, shuffle="shuffle")
    if np.dtype(dtype).kind == "f":
        return None
    return BloscCodec(cname="lz4", clevel=3, shuffle="shuffle")


def zarr_store(folder: Folder) -> Any:
    """Return the zarr store of a folder."""
    if folder.is_local:
        return zarr.storage.LocalStore(folder.path)
    # s3fs would ask how large each object is before it reads it: it may want it in parts at once.
    options = {"max_concurrency": 1} if folder.url.startswith("s3://") else {}
    return zarr.storage.FsspecStore.from_url(folder.url, storage_options=options)
