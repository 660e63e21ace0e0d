"""Masks and surfaces of the classes as files of other programs.

    masks/<tomogram>__<class>.mrc, .tif, .zarr     0 and 1 on the source's grid; where source.axes
                                                   turns it, .mrc and .tif on that of the file
    copick/                                        an overlay: a mask a class, labels of them all
    meshes/<tomogram>__<class>.obj, .stl           surfaces, Å, on a grid of at most 2^27 voxels

Labels are read once, a strip of blocks at a time, and go to all files at once.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg import meshes
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.formats import copick
from tomoseg.formats.dialects import WriteOptions
from tomoseg.formats.meshes import place_of, write_obj, write_stl
from tomoseg.formats.mrc import MrcWriter
from tomoseg.formats.tiff_writer import TiffWriter
from tomoseg.sampling import Sampling, Shape
from tomoseg.sections import MaskFormat
from tomoseg.stages.context import Context
from tomoseg.stores import Volume, write_mask_metadata
from tomoseg.turns import Axes, file_box, file_header, file_voxels

# A surface of a larger grid is made of bins: 512³ voxels show what a figure can.
LARGEST_MESH_VOXELS = 2**27
# Comparing and writing waits for memory and disk; more at once take more memory.
WRITERS = 4
SUFFIXES = {"mrc": "mrc", "tiff": "tif", "ome_zarr": "zarr"}

Voxels = NDArray[np.uint8]
Flags = NDArray[np.bool_]


class Writer(Protocol):
    """What takes a volume a box at a time."""

    def write(self, box: Box, array: Voxels | Flags) -> None:
        """Write the voxels of a box of the source's grid."""


@dataclass(frozen=True)
class Target:
    """A file or group to write.

    Parameters
    ----------
    path, kind
        Where, and in which format.
    name, colours
        What it shows.
    label
        The label that it holds as 1; None for all labels as they are.
    """

    path: str
    kind: MaskFormat
    name: str
    colours: Mapping[int, str]
    label: int | None

    def select(self, labels: Voxels) -> Voxels | Flags:
        """Return what the file holds of some voxels: labels, or whether they are its own."""
        return labels if self.label is None else labels == self.label


def write_masks(context: Context) -> list[str]:
    """Write every class in the formats of ``export.masks`` and return the files."""
    kinds = context.recipe.export.masks
    targets = [
        Target(_place(context, name, kind), kind, name, {1: colour}, context.label(name))
        for name, colour in context.colours.items()
        for kind in kinds
    ]
    files = [target.path for target in targets]
    if "copick" in kinds:
        place = _overlay(context, "classes", multilabel=True)
        colours = dict(enumerate(context.colours.values(), start=1))
        targets.append(Target(place, "copick", "classes", colours, None))
        options = WriteOptions(colours=context.colours)
        content = json.dumps(copick.config([], options), indent=1)
        context.folder.write("copick/config.json", f"{content}\n".encode())
        files += [place, "copick/config.json"]
    if targets:
        _write(context, targets)
    return files


def write_meshes(context: Context) -> list[str]:
    """Write the surface of every class in the formats of ``export.meshes``; return the files.

    A micrograph has no surfaces.
    """
    kinds, stored = context.recipe.export.meshes, context.sampling
    if not kinds or stored.is_flat:
        return []
    factor = meshes.bins_for(stored.shape, LARGEST_MESH_VOXELS)
    grid = stored.binned(factor)
    volume = context.volume(context.label_path("semantic"))
    files = []
    for name in context.classes:
        read = _Shares(volume, context.label(name), factor)
        mesh = meshes.surface(read, grid, BlockGrid(grid.shape, context.recipe.blocks.shape))
        for kind in kinds:
            path = f"meshes/{context.name}__{name}.{kind}"
            write = write_obj if kind == "obj" else write_stl
            with context.folder.publishing(path) as file:
                write(file, mesh, name, origin=place_of(context.header))
            files.append(path)
    return files


@dataclass(frozen=True)
class _Shares:
    """Give the share of one label in each bin of a box."""

    volume: Volume
    label: int
    factor: int

    def __call__(self, box: Box) -> NDArray[np.float32]:
        bins = (self.factor,) * 3
        mask = self.volume.read(box.scaled(bins)) == self.label
        (z, y, x), f = box.shape, self.factor
        return np.asarray(mask.reshape(z, f, y, f, x, f).mean(axis=(1, 3, 5), dtype=np.float32))


def _place(context: Context, name: str, kind: MaskFormat) -> str:
    if kind == "copick":
        return _overlay(context, name, multilabel=False)
    return f"masks/{context.name}__{name}.{SUFFIXES[kind]}"


def _overlay(context: Context, name: str, *, multilabel: bool) -> str:
    voxel = context.header.sampling.voxel_angstrom
    path = copick.segmentation_path(context.name, voxel, name, multilabel=multilabel)
    return f"copick/{path}"


def _write(context: Context, targets: Sequence[Target]) -> None:
    """Write all targets at once, a strip of blocks at a time."""
    volume = context.volume(context.label_path("semantic"))
    stored, source = context.sampling, context.header.sampling
    bins = source.bins(context.recipe.ingest.bin)
    depth, height, _ = context.recipe.blocks.shape
    with ExitStack() as stack:
        writers = [stack.enter_context(_opened(context, target)) for target in targets]
        pool = stack.enter_context(ThreadPoolExecutor(WRITERS))
        for block in BlockGrid(stored.shape, (depth, height, stored.shape[2])):
            box = _source_box(block, stored, source, bins)
            labels = _on_source(volume.read(block.write), box, bins)
            write = partial(_write_box, box=box, labels=labels)
            for _ in pool.map(write, targets, writers):
                pass


def _write_box(target: Target, writer: Writer, *, box: Box, labels: Voxels) -> None:
    writer.write(box, target.select(labels))


@dataclass(frozen=True)
class _Bytes:
    """Writes flags as the bytes 0 and 1."""

    volume: Volume

    def write(self, box: Box, array: Voxels | Flags) -> None:
        self.volume.write(box, array.view(np.uint8))


@dataclass(frozen=True)
class _InFile:
    """Writes boxes of the upright volume, of some shape, where the source's file has them."""

    writer: Writer
    axes: Axes
    upright: Shape

    def write(self, box: Box, array: Voxels | Flags) -> None:
        in_file = file_box(box, self.axes, self.upright)
        self.writer.write(in_file, file_voxels(array, self.axes))


@contextmanager
def _opened(context: Context, target: Target) -> Iterator[Writer]:
    """Yield a writer of one target, which appears when the block ends well."""
    axes = context.recipe.source.axes
    header = file_header(context.header, axes)
    if target.kind in ("ome_zarr", "copick"):
        with _opened_zarr(context, target) as volume:
            yield _Bytes(volume)
        return
    with context.folder.publishing(target.path) as file:
        if target.kind == "tiff":
            writer: Writer = TiffWriter(file, header.sampling, "uint8", shown=(0, 1))
            yield _InFile(writer, axes, context.header.sampling.shape)
            return
        with MrcWriter(file, header, "int8", label=f"mask of {target.name}") as writer:
            yield _InFile(writer, axes, context.header.sampling.shape)


@contextmanager
def _opened_zarr(context: Context, target: Target) -> Iterator[Volume]:
    """Yield the only level of a group whose metadata is written last."""
    group, kind = context.folder / target.path, target.kind
    shape, shard = context.header.sampling.shape, context.recipe.blocks.shape
    volume = Volume(group, "0")
    group.remove("zarr.json" if kind == "ome_zarr" else ".zattrs")
    if kind == "ome_zarr":
        volume.create(shape, "uint8", shard=shard, is_labels=True)
    else:
        volume.create_flat(shape, "uint8", chunk=shard)
    yield volume
    version = "0.5" if kind == "ome_zarr" else "0.4"
    sampling = context.header.sampling
    write_mask_metadata(group, target.name, sampling, target.colours, version=version)


def _source_box(
    block: Block, stored: Sampling, source: Sampling, bins: tuple[int, int, int]
) -> Box:
    """Return a block's voxels of the source, those that were too few for a last bin included.

    >>> grid = Sampling((4, 4, 4), (1.0, 1.0, 1.0))
    >>> (last,) = BlockGrid((2, 2, 2), (2, 2, 2))
    >>> _source_box(last, grid.binned(2), Sampling((5, 4, 4), (1.0, 1.0, 1.0)), (2, 2, 2)).end
    (5, 4, 4)
    """
    ends = zip(block.write.end, stored.shape, source.shape, bins, strict=True)
    z, y, x = (full if end == last else end * factor for end, last, full, factor in ends)
    return Box(block.write.scaled(bins).begin, (z, y, x))


def _on_source(voxels: Voxels, box: Box, bins: tuple[int, int, int]) -> Voxels:
    """Repeat each voxel over the source voxels of its bin; beyond the last bin there is nothing."""
    for axis, factor in enumerate(bins):
        if factor > 1:
            voxels = np.repeat(voxels, factor, axis=axis)
    if voxels.shape == box.shape:
        return voxels
    rest: list[Any] = [
        (0, size - there) for size, there in zip(box.shape, voxels.shape, strict=True)
    ]
    return np.pad(voxels, rest)
