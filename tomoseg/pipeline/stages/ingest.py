"""Ingest: a tomogram from its file into sharded OME-Zarr, with statistics and a pyramid.

A voxel of the source is read once: a task copies the blocks that make up one block of the next
coarser level, takes their statistics on the way and writes that block too. What is stored is looked
at again for the histogram of real numbers, whose range is known after the first look, and where
some voxels do not count: those that are empty, and those outside the mask. On the way nobody knows
which these are, since that needs the voxels around a block.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from functools import partial, reduce
from math import prod
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.analysis.binning import bin_mean
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.errors import StoreError
from tomoseg.core.layout import IMAGE
from tomoseg.core.sampling import Sampling, Shape
from tomoseg.io.stores import Ledger, Volume, fingerprint, write_image_metadata
from tomoseg.io.volumes.sources import open_source, unpack
from tomoseg.io.volumes.turns import Axes
from tomoseg.pipeline.stages.context import (
    HALVED,
    Context,
    Stage,
    halved_box,
    pair,
    pyramid,
    receipt_name,
)
from tomoseg.pipeline.stages.fit import check_recipe
from tomoseg.pipeline.stages.input_mask import is_inside, mask_settings, store_mask, stored_mask

# As float32 a few slices are little beside the voxels that they come from; an even number.
HALVED_SLICES = 8
EMPTY, OUTSIDE = "empty", "outside the mask"


def _settings(context: Context) -> Any:
    return {
        "source": fingerprint(context.source_url),
        "url": context.source_url,
        "voxel_size_angstrom": context.recipe.source.voxel_size_angstrom,
        "axes": context.recipe.source.axes,
        "integers": context.recipe.source.integers,
        "maximum_not_finite": context.recipe.source.maximum_not_finite,
        "bin": context.recipe.ingest.bin,
        "blocks": context.recipe.blocks.shape,
        "mask": mask_settings(context),
    }


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    begun = fingerprint(context.source_url)
    url = unpack(context.source_url, context.records / "unpacked")
    recipe = context.recipe
    said = recipe.source
    how: Any = {"voxel_size_angstrom": said.voxel_size_angstrom, "axes": said.axes}
    with open_source(url, **how, integers=said.integers) as source:
        header = source.header
    check_recipe(recipe, context.networks, context.name, header)
    sampling = header.sampling.binned(recipe.ingest.bin)
    levels = pyramid(sampling)
    dtype = header.dtype if recipe.ingest.bin == 1 else "float32"
    volumes = [_level(context, number, level, dtype) for number, level in enumerate(levels)]
    copy = CopyBlocks(
        url=url,
        **how,
        integers="unsigned" if header.dtype.startswith("u") else "signed",
        bins=header.sampling.bins(recipe.ingest.bin),
        strip=_strip(sampling.shape, recipe.blocks.shape),
        image=volumes[0],
        coarser=volumes[1] if len(levels) > 1 else None,
        ledger=ledger,
    )
    strips = BlockGrid(sampling.shape, pair(copy.strip))
    copied = context.run_pass(ledger, "copy", copy, strips)
    store_mask(context, ledger, header.sampling)
    statistics, left_out = _statistics(context, ledger, volumes[0], dtype, copied)
    for number, level in enumerate(levels[2:], start=2):
        halve = partial(_halve, finer=volumes[number - 1], coarser=volumes[number])
        grid = BlockGrid(level.shape, recipe.blocks.shape)
        context.run_pass(ledger, f"level{number}", halve, grid)
    context.records.write_json("statistics.json", statistics.as_dict())
    skewness = intensity.detail_skewness(volumes[0].read, sampling)
    write_image_metadata(context.staged / IMAGE, context.name, levels, header)
    context.records.remove("unpacked")
    if fingerprint(context.source_url) != begun:
        raise StoreError(
            f"{context.source_url} changed while it was read",
            remedy="Run it again once it is written completely",
        )
    return {
        "header": header.as_dict(),
        "source": begun,
        "levels": len(levels),
        "left_out": left_out,
        "detail_skewness": skewness,
        "measured_contrast": intensity.measured_contrast(skewness),
        "notes": [*header.notes, *_notes(statistics, left_out, sampling.shape, dtype)],
    }


def _notes(
    statistics: intensity.Statistics, left_out: Mapping[str, int], shape: Shape, dtype: str
) -> list[str]:
    """Return what was found in a tomogram's grey values that a person should know of."""
    voxels, not_finite = prod(shape), statistics.not_finite
    reasons = {EMPTY: "empty (one grey value all around, as in padding)", OUTSIDE: OUTSIDE}
    notes = [
        f"{_percent(left_out[why], voxels)} of the voxels are {said}: they do not count in the "
        "statistics of grey values"
        for why, said in reasons.items()
        if left_out[why]
    ]
    if not_finite:
        share = _percent(not_finite, voxels)
        notes.append(
            f"{not_finite:,} voxels ({share}) are not finite; they are treated as the mean"
        )
    greys, counts = statistics.greys, statistics.counts
    if intensity.is_counted(dtype) and intensity.looks_wrapped(greys, counts, dtype):
        other = "signed" if dtype.startswith("u") else "unsigned"
        notes.append(
            f"grey values lie at both ends of {dtype}, as if these integers were {other}: if they "
            f"are, set source.integers: {other} (for MRC files)"
        )
    return notes


def _percent(part: int, whole: int) -> str:
    return f"{100 * part / whole:.2g}%"


def _level(context: Context, number: int, level: Sampling, dtype: str) -> Volume:
    """Return a level's volume, created if it is not there."""
    volume = context.volume(str(number))
    if not volume.exists:
        volume.create(level.shape, dtype, shard=context.recipe.blocks.shape)
    return volume


@dataclass(frozen=True)
class CopyBlocks:
    """Copy whole shards from the source, binned, halve them, and take their statistics.

    Parameters
    ----------
    url, voxel_size_angstrom, axes, integers
        The source, and how it is read: what was told or found once is not looked for again.
    bins
        Voxels zyx of the source that make one of the image.
    strip
        Voxels zyx that are read and written at once: whole rows of shards.
    image, coarser
        Levels 0 and 1; a small or flat tomogram has no level 1.
    ledger
        Where the counts of short integers go.
    """

    url: str
    voxel_size_angstrom: float | None
    axes: Axes
    integers: Literal["signed", "unsigned"]
    bins: Shape
    strip: Shape
    image: Volume
    coarser: Volume | None
    ledger: Ledger

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the shards of a block; the receipt holds its moments, empty voxels included."""
        voxels = self._read(block.write)
        found = []
        for strip in BlockGrid(block.write.shape, self.strip):
            part = voxels[strip.write.slices]
            found.append(intensity.moments(part))
            self.image.write(strip.write.shift(block.write.begin), part)
        if self.coarser is not None:
            half = halved_box(block.write, self.coarser.shape)
            if half.size:
                self.coarser.write(
                    half, _halved(voxels[half.scaled(HALVED).within(block.write).slices])
                )
        if intensity.is_counted(voxels.dtype):
            counts = intensity.value_counts(voxels)
            self.ledger.write_arrays(receipt_name("copy", block), {"counts": counts})
        return {
            **asdict(intensity.merge_moments(found)),
            "may_be_empty": intensity.may_be_empty(voxels),
        }

    def _read(self, box: Box) -> NDArray[Any]:
        how: Any = {"voxel_size_angstrom": self.voxel_size_angstrom, "axes": self.axes}
        with open_source(self.url, **how, integers=self.integers) as source:
            voxels = source.read(box.scaled(self.bins))
        if max(self.bins) == 1:
            return voxels
        return bin_mean(voxels.astype(np.float32), self.bins)


@dataclass(frozen=True)
class CountBlock:
    """Take the moments of the voxels of one block that count, and count the others.

    Parameters
    ----------
    specimen
        Reads them.
    ledger
        Where the counts of short integers go.
    """

    specimen: intensity.Specimen
    ledger: Ledger

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the counts of values; the receipt holds the rest."""
        found = self.specimen.counted(block.write)
        if intensity.is_counted(found.voxels.dtype):
            counts = intensity.value_counts(found.voxels)
            self.ledger.write_arrays(receipt_name("count", block), {"counts": counts})
        moments = asdict(intensity.moments(found.voxels))
        return {**moments, EMPTY: found.empty, OUTSIDE: found.outside}


def _statistics(
    context: Context, ledger: Ledger, image: Volume, dtype: str, copied: Iterable[str]
) -> tuple[intensity.Statistics, dict[str, int]]:
    """Return the statistics of the voxels that count, and how many do not, by reason."""
    blocks = BlockGrid(image.shape, context.recipe.blocks.shape)
    names = list(copied)
    moments, told = _merged(ledger, names)
    not_finite, read = moments.not_finite, image.read
    if told["may_be_empty"] or context.recipe.source.mask:
        mask = stored_mask(context)
        inside = None if mask is None else partial(is_inside, mask=mask)
        specimen = intensity.Specimen(image.read, image.shape, inside)
        counted = list(context.run_pass(ledger, "count", CountBlock(specimen, ledger), blocks))
        moments_there, told_there = _merged(ledger, counted)
        # Where there is nothing else, nothing is padding.
        if told_there[EMPTY] < prod(image.shape):
            names, moments, told = counted, moments_there, told_there
            read = specimen.read_counted
    left_out = {why: told[why] for why in (EMPTY, OUTSIDE)}
    intensity.check_moments(moments, context.recipe.source.maximum_not_finite)
    bins = intensity.Bins.for_tomogram(moments, dtype)
    if intensity.is_counted(dtype):
        parts = (arrays["counts"] for arrays in ledger.read_all_arrays(names))
        counts = bins.of_values(reduce(np.add, parts), dtype)
    else:
        work = partial(_count, ledger=ledger, read=read, bins=bins)
        names = list(context.run_pass(ledger, "histogram", work, blocks))
        parts = (arrays["counts"] for arrays in ledger.read_all_arrays(names))
        counts = reduce(np.add, parts)
    # Those in padding are replaced as well.
    moments = replace(moments, not_finite=not_finite)
    return intensity.Statistics.of(moments, bins, counts, empty=told[EMPTY]), left_out


def _merged(ledger: Ledger, names: Iterable[str]) -> tuple[intensity.Moments, Counter[str]]:
    """Merge the moments of blocks in order; add up what else their receipts count."""
    total, told = intensity.Moments(), Counter[str]()
    known = {f.name for f in fields(intensity.Moments)}
    for receipt in ledger.read_all(names):
        total = total.merge(intensity.Moments(**{name: receipt[name] for name in known}))
        told.update({key: receipt.get(key, 0) for key in ("may_be_empty", EMPTY, OUTSIDE)})
    return total, told


def _count(
    block: Block,
    *,
    ledger: Ledger,
    read: Callable[[Box], NDArray[Any]],
    bins: intensity.Bins,
) -> Mapping[str, Any]:
    """Count real numbers in bins."""
    counts = intensity.histogram(read(block.write), bins)
    ledger.write_arrays(receipt_name("histogram", block), {"counts": counts})
    return {}


def _halve(block: Block, *, finer: Volume, coarser: Volume) -> Mapping[str, Any]:
    coarser.write(block.write, _halved(finer.read(block.write.scaled(HALVED))))
    return {}


def _halved(voxels: NDArray[Any]) -> NDArray[Any]:
    """Return the means of 2×2×2 voxels in the voxels' own type, a few slices at a time."""
    parts = []
    for begin in range(0, len(voxels), HALVED_SLICES):
        means = bin_mean(voxels[begin : begin + HALVED_SLICES].astype(np.float32), HALVED)
        if np.issubdtype(voxels.dtype, np.integer):
            np.rint(means, out=means)
        parts.append(means.astype(voxels.dtype))
    return np.concatenate(parts)


def _strip(shape: Shape, block: Shape) -> Shape:
    """Return blocks that span x: a source's rows are then read whole."""
    return (block[0], block[1], -(-shape[2] // block[2]) * block[2])


# Whatever is an array while it works is its own: nothing was there before.
INGEST = Stage("ingest", (), _settings, _run, owns=("",), arrays=lambda context: ("0",), share=0.03)
