"""Masks: where results may lie, read from a file and stored once on the tomogram's grid.

    recipe      file     stored     labels, scores, filaments     particles
    outside        0          0     none                          none
    inside         1          1     all                           all
    unsure         2          2     all                           none

A mask lies on the source's grid or on one coarser by a whole factor; a voxel of the source takes
the value of the mask's voxel that it lies in. Where the tomogram is binned, a voxel is outside if
more than half of it is, and else unsure if more of it is unsure than inside.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from math import gcd
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.binning import read_finer
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.coordinates import Filament, Points
from tomoseg.core.errors import RequestError
from tomoseg.core.layout import WORK
from tomoseg.core.sampling import Sampling, Shape, as_shape
from tomoseg.io.stores import Ledger, Volume, fingerprint
from tomoseg.io.volumes.compressed import compression_of
from tomoseg.io.volumes.sources import (
    Found,
    are_above,
    as_labels,
    companion_url,
    open_source,
    unpack,
)
from tomoseg.io.volumes.turns import Axes
from tomoseg.pipeline.stages.context import Context
from tomoseg.recipe.source import MaskValues, SourceSection

MASK = f"{WORK}/mask"
OUTSIDE, INSIDE, UNSURE = range(3)
UNKNOWN = 255
# The voxel size of a mask does not matter, its grid is the tomogram's; many masks state none.
ANY_VOXEL = 10.0

Codes = NDArray[np.uint8]


@dataclass(frozen=True)
class MaskFile:
    """A mask as its file has it; pickles small.

    Parameters
    ----------
    url
        MRC, TIFF, PNG or OME-Zarr.
    values
        What its values mean.
    shape
        Its voxels, zyx.
    factors
        Voxels of the source, zyx, that one voxel of the mask covers.
    axes
        Of the mask, as of its tomogram.
    """

    url: str
    values: MaskValues
    shape: Shape
    factors: Shape
    axes: Axes = "zyx"

    def read(self, box: Box, bins: Shape = (1, 1, 1)) -> Codes:
        """Return the codes of a box of the stored tomogram, bins of so many source voxels zyx.

        Raises
        ------
        RequestError
            If the file has a value there that means nothing.
        """
        # What bin and mask voxel have in common need not be taken apart.
        common = [gcd(bin_, factor) for bin_, factor in zip(bins, self.factors, strict=True)]
        rest = as_shape(np.floor_divide(bins, common))
        factors = as_shape(np.floor_divide(self.factors, common))
        if max(rest) == 1:
            return read_finer(self._codes, box, factors, self.shape)
        out = np.empty(box.shape, np.uint8)
        for index in range(box.shape[0]):
            z = box.begin[0] + index
            plane = Box((z, *box.begin[1:]), (z + 1, *box.end[1:]))
            out[index] = _majority(
                read_finer(self._codes, plane.scaled(rest), factors, self.shape), rest
            )
        return out

    def check_values(self, block: Shape) -> None:
        """Read the whole mask by blocks; raise RequestError for a value that means nothing."""
        for part in BlockGrid(self.shape, block):
            self._codes(part.write)

    def _codes(self, box: Box) -> Codes:
        opened = open_source(self.url, voxel_size_angstrom=ANY_VOXEL, axes=self.axes)
        with opened as source:
            voxels = source.read(box)
        if self.values.threshold is not None:
            is_inside = are_above(voxels, self.values.threshold)
            return np.where(is_inside, INSIDE, OUTSIDE).astype(np.uint8)
        try:
            values = as_labels(voxels)
        except RequestError as error:
            raise RequestError(
                f"the mask {self.url}: {error.message}",
                remedy="Say above which value it is inside, with source.mask_values: "
                "{threshold: 0.5}.",
            ) from error
        table = np.full(256, UNKNOWN, np.uint8)
        for code, known in ((OUTSIDE, "outside"), (INSIDE, "inside"), (UNSURE, "unsure")):
            table[list(getattr(self.values, known))] = code
        codes = table[values]
        if (codes == UNKNOWN).any():
            raise RequestError(
                f"the mask {self.url} holds the value {values[codes == UNKNOWN].min()}; "
                f"known are {self.values}",
                remedy="Correct it, or say what it means with source.mask_values.",
            )
        return codes


def _majority(codes: Codes, bins: Shape) -> Codes:
    """Return the code of each bin of so many voxels zyx."""
    (nz, ny, nx), (z, y, x) = codes.shape, bins
    cells = codes.reshape(nz // z, z, ny // y, y, nx // x, x)
    inside, unsure = (
        (cells == code).sum(axis=(1, 3, 5), dtype=np.uint16) for code in (INSIDE, UNSURE)
    )
    found = np.where(unsure > inside, UNSURE, INSIDE)
    return np.where(2 * (inside + unsure) >= z * y * x, found, OUTSIDE).astype(np.uint8)


def mask_url(source: SourceSection, found: Found) -> str | None:
    """Return where a tomogram's mask is; None if the recipe names none."""
    return None if source.mask is None else companion_url(source.mask, found)


def open_mask(url: str, about: SourceSection, tomogram: Sampling) -> MaskFile:
    """Read a mask's header and check that it lies on the tomogram's grid.

    Parameters
    ----------
    about
        What the recipe says of masks and axes.
    tomogram
        The source's own grid, upright, before binning.

    Raises
    ------
    RequestError, FormatError
        If there is no such file, or its shape is not that of the tomogram, whole or divided.
    """
    try:
        with open_source(url, voxel_size_angstrom=ANY_VOXEL, axes=about.axes) as source:
            shape = source.header.sampling.shape
    except RequestError as error:
        raise RequestError(
            f"the mask {url}: {error.message}", remedy="Put it there, or correct source.mask."
        ) from error
    factors = _factors(shape, tomogram)
    if factors is None:
        raise RequestError(
            f"the mask {url} has shape {shape}, the tomogram {tomogram.shape}",
            remedy="Make the mask on the tomogram's own grid, or bin that by a whole factor.",
        )
    return MaskFile(url, about.mask_values, shape, factors, about.axes)


def _factors(shape: Shape, tomogram: Sampling) -> Shape | None:
    """Return the binning that makes a shape of the tomogram's, a rest dropped or kept as a voxel.

    >>> _factors((25, 50, 51), Sampling((100, 200, 205), (1.0, 1.0, 1.0)))
    (4, 4, 4)
    """
    for is_rest_kept in (False, True):
        for factor in range(1, max(tomogram.shape) + 1):
            bins = tomogram.bins(factor)
            kept = as_shape(b - 1 if is_rest_kept else 0 for b in bins)
            if as_shape((np.array(tomogram.shape) + kept) // bins) == shape:
                return bins
    return None


def mask_settings(context: Context) -> Any:
    """Return what tells one mask from another, for a digest; None without one."""
    url = _url(context)
    return url and [fingerprint(url), context.recipe.source.mask_values.model_dump(mode="json")]


def _url(context: Context) -> str | None:
    return mask_url(context.recipe.source, Found(context.name, context.source_url))


def stored_mask(context: Context) -> Volume | None:
    """Return the volume of codes on the stored tomogram's grid; None without a mask."""
    return context.volume(MASK) if context.recipe.source.mask else None


def is_inside(box: Box, *, mask: Volume) -> NDArray[np.bool_]:
    """Tell which voxels of a box are not outside a stored mask."""
    return np.asarray(mask.read(box) != OUTSIDE)


def store_mask(context: Context, ledger: Ledger, source: Sampling) -> None:
    """Store the mask of a tomogram of some grid, if it has one, a block at a time.

    Raises
    ------
    RequestError, FormatError
        As :func:`open_mask` and :meth:`MaskFile.read`.
    """
    url, volume = _url(context), stored_mask(context)
    if url is None or volume is None:
        return
    shard, factor = context.recipe.blocks.shape, context.recipe.ingest.bin
    shape = source.binned(factor).shape
    url = unpack(url, context.records / "unpacked-mask")
    file = open_mask(url, context.recipe.source, source)
    if not volume.exists:
        volume.create(shape, "uint8", shard=shard, is_labels=True)
    work = StoreMask(file, source.bins(factor), volume)
    context.run_pass(ledger, "mask", work, BlockGrid(shape, shard))
    context.records.remove("unpacked-mask")


@dataclass(frozen=True)
class StoreMask:
    """Write one block of the mask on the stored tomogram's grid."""

    file: MaskFile
    bins: Shape
    volume: Volume

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the block; the receipt counts its voxels by code."""
        codes = self.file.read(block.write, self.bins)
        self.volume.write(block.write, codes)
        return {"voxels": np.bincount(codes.ravel(), minlength=3).tolist()}


def check_mask(source: SourceSection, found: Found, tomogram: Sampling, block: Shape) -> None:
    """Look through a tomogram's mask, values included; one that is compressed must only be there.

    Raises
    ------
    RequestError, FormatError
        As :func:`open_mask` and :meth:`MaskFile.check_values`.
    """
    url = mask_url(source, found)
    if url is None:
        return
    if compression_of(url):
        fingerprint(url)
        return
    open_mask(url, source, tomogram).check_values(block)


def codes_at(context: Context, points_angstrom: Points) -> Codes:
    """Return the mask's code of the voxel nearest to each point; INSIDE without a mask.

    Parameters
    ----------
    points_angstrom
        float64, shape (n, 3), zyx, Å.
    """
    volume, sampling = stored_mask(context), context.sampling()
    codes = np.full(len(points_angstrom), INSIDE, np.uint8)
    if volume is None or not len(codes):
        return codes
    nearest = np.floor(sampling.to_voxels(points_angstrom) + 0.5).astype(np.int64)
    voxels = nearest.clip(0, np.array(sampling.shape) - 1)
    blocks, owner = np.unique(voxels // context.recipe.blocks.shape, axis=0, return_inverse=True)
    for number in range(len(blocks)):
        mine = owner.reshape(-1) == number
        begin, end = voxels[mine].min(axis=0), voxels[mine].max(axis=0) + 1
        part = volume.read(Box(as_shape(begin), as_shape(end)))
        codes[mine] = part[tuple((voxels[mine] - begin).T)]
    return codes


def inside_parts(context: Context, line: Filament, *, minimum_angstrom: float) -> list[Filament]:
    """Return the parts of a filament that do not lie outside the mask, long enough ones alone.

    One that lies in the mask as a whole is returned as it is, however long.
    """
    is_kept = codes_at(context, line.points_angstrom) != OUTSIDE
    if is_kept.all():
        return [line]
    cuts = np.flatnonzero(np.diff(is_kept)) + 1
    runs = zip(np.split(line.points_angstrom, cuts), np.split(is_kept, cuts), strict=True)
    parts = [
        Filament(line.name, line.number, points, line.score)
        for points, kept in runs
        if kept[0] and len(points) > 1
    ]
    return [part for part in parts if part.length_angstrom >= minimum_angstrom]
