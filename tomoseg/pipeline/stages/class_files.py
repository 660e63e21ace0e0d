"""Masks and surfaces of the classes as files of other programs.

    masks/<tomogram>__<class>.mrc, .tif, .zarr     0 and 1 on the source's grid; where source.axes
                                                   turns it, .mrc and .tif on that of the file
    copick/                                        an overlay: a mask a class, labels of them all
    meshes/<tomogram>__<class>.obj, .stl           surfaces, Å, on a grid of at most 2^27 voxels

Each is made by itself, on any worker: labels are read a strip of blocks at a time.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import meshes
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.sampling import Sampling, Shape
from tomoseg.io.points import copick
from tomoseg.io.points.dialects import WriteOptions
from tomoseg.io.stores import Volume, write_mask_metadata
from tomoseg.io.volumes.meshes import place_of, write_obj, write_stl
from tomoseg.io.volumes.mrc import MrcWriter
from tomoseg.io.volumes.tiff_writer import TiffWriter
from tomoseg.io.volumes.turns import Axes, file_box, file_header, file_voxels
from tomoseg.pipeline.stages.context import Context, Piece
from tomoseg.recipe.export import MaskFormat

# A surface of a larger grid is made of bins: 512³ voxels show what a figure can.
LARGEST_MESH_VOXELS = 2**27
COPICK_CONFIG = "copick/config.json"
MESH_WRITERS = {"obj": write_obj, "stl": write_stl}
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


def mask_pieces(context: Context) -> Iterator[Piece]:
    """Yield every class in the formats of ``export.masks``."""
    export = context.recipe.export
    targets = [
        Target(_place(context, name, kind), kind, name, {1: colour}, context.label(name))
        for name, colour in context.colours.items()
        for kind in export.masks
    ]
    if "copick" in export.masks:
        place = _overlay(context, "classes", multilabel=True)
        colours = dict(enumerate(context.colours.values(), start=1))
        targets.append(Target(place, "copick", "classes", colours, None))
        # An overlay has one configuration: of its points, if there are any.
        if "copick" not in export.dialects:
            yield Piece(COPICK_CONFIG, _write_config)
    for target in targets:
        yield Piece(target.path, partial(_write_mask, target=target))


def mesh_pieces(context: Context) -> Iterator[Piece]:
    """Yield the surface of every class, in all formats of ``export.meshes``.

    A micrograph has no surfaces.
    """
    kinds = context.recipe.export.meshes
    for name in context.classes if kinds and not context.sampling().is_flat else ():
        stem = f"meshes/{context.name}__{name}"
        yield Piece(stem, partial(_write_meshes, name=name, stem=stem))


def _write_config(context: Context) -> list[str]:
    content = json.dumps(copick.config([], WriteOptions(colours=context.colours)), indent=1)
    context.staged.write(COPICK_CONFIG, f"{content}\n".encode())
    return [COPICK_CONFIG]


def _write_meshes(context: Context, *, name: str, stem: str) -> list[str]:
    stored = context.sampling()
    factor = meshes.bins_for(stored.shape, LARGEST_MESH_VOXELS)
    grid = stored.binned(factor)
    read = _Shares(context.volume(context.label_path("semantic")), context.label(name), factor)
    mesh = meshes.surface(read, grid, BlockGrid(grid.shape, context.recipe.blocks.shape))
    files = {f"{stem}.{kind}": MESH_WRITERS[kind] for kind in context.recipe.export.meshes}
    for path, write in files.items():
        with context.staged.publishing(path) as file:
            write(file, mesh, name, origin=place_of(context.header()))
    return list(files)


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
    voxel = context.header().sampling.voxel_angstrom
    path = copick.segmentation_path(context.name, voxel, name, multilabel=multilabel)
    return f"copick/{path}"


def _write_mask(context: Context, *, target: Target) -> list[str]:
    volume = context.volume(context.label_path("semantic"))
    stored, source = context.sampling(), context.header().sampling
    bins = source.bins(context.recipe.ingest.bin)
    depth, height, _ = context.recipe.blocks.shape
    with _opened(context, target) as writer:
        for block in BlockGrid(stored.shape, (depth, height, stored.shape[2])):
            box = _source_box(block, stored, source, bins)
            labels = _on_source(volume.read(block.write), box, bins)
            writer.write(box, target.select(labels))
    return [target.path]


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
    header = file_header(context.header(), axes)
    if target.kind in ("ome_zarr", "copick"):
        with _opened_zarr(context, target) as volume:
            yield _Bytes(volume)
        return
    with context.staged.publishing(target.path) as file:
        if target.kind == "tiff":
            writer: Writer = TiffWriter(file, header.sampling, "uint8", shown=(0, 1))
            yield _InFile(writer, axes, context.header().sampling.shape)
            return
        with MrcWriter(file, header, "int8", label=f"mask of {target.name}") as writer:
            yield _InFile(writer, axes, context.header().sampling.shape)


@contextmanager
def _opened_zarr(context: Context, target: Target) -> Iterator[Volume]:
    """Yield the only level of a group whose metadata is written last."""
    group, kind = context.staged / target.path, target.kind
    shape, shard = context.header().sampling.shape, context.recipe.blocks.shape
    volume = Volume(group, "0")
    group.remove("zarr.json" if kind == "ome_zarr" else ".zattrs")
    if kind == "ome_zarr":
        volume.create(shape, "uint8", shard=shard, is_labels=True)
    else:
        volume.create_flat(shape, "uint8", chunk=shard)
    yield volume
    version = "0.5" if kind == "ome_zarr" else "0.4"
    sampling = context.header().sampling
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
