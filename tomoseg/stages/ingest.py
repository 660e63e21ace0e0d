"""Ingest: a tomogram from its file into sharded OME-Zarr, with statistics and a pyramid.

A voxel of the source is read once: a task copies the blocks that make up one block of the next
coarser level, takes their statistics on the way and writes that block too. Only the histogram of
real numbers asks for a second look, because its range is known after the first.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial, reduce
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import intensity
from tomoseg.binning import bin_mean
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.errors import FormatError
from tomoseg.sampling import Sampling, Shape
from tomoseg.sources import open_source, unpacked
from tomoseg.stages.context import (
    HALVED,
    IMAGE,
    Context,
    Stage,
    halved_box,
    pair,
    pyramid,
    receipt_name,
)
from tomoseg.stages.networks import check_fit
from tomoseg.stores import Ledger, Volume, fingerprint, write_image_metadata

# As float32 a few slices are little beside the voxels that they come from; an even number.
HALVED_SLICES = 8


def _settings(context: Context) -> Any:
    return {
        "source": fingerprint(context.source_url),
        "url": context.source_url,
        "voxel_size_angstrom": context.recipe.source.voxel_size_angstrom,
        "maximum_not_finite": context.recipe.source.maximum_not_finite,
        "bin": context.recipe.ingest.bin,
        "blocks": context.recipe.blocks.shape,
    }


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    url = unpacked(context.source_url, context.records / "unpacked")
    recipe = context.recipe
    with open_source(url, voxel_size_angstrom=recipe.source.voxel_size_angstrom) as source:
        header = source.header
    for network in context.networks:
        check_fit(recipe, network.card, header.sampling)
    sampling = header.sampling.binned(recipe.ingest.bin)
    levels = pyramid(sampling)
    dtype = header.dtype if recipe.ingest.bin == 1 else "float32"
    volumes = [_level(context, number, level, dtype) for number, level in enumerate(levels)]
    copy = CopyBlocks(
        url=url,
        voxel_size_angstrom=recipe.source.voxel_size_angstrom,
        bins=header.sampling.bins(recipe.ingest.bin),
        strip=_strip(sampling.shape, recipe.blocks.shape),
        image=volumes[0],
        coarser=volumes[1] if len(levels) > 1 else None,
        ledger=ledger,
    )
    strips = BlockGrid(sampling.shape, pair(copy.strip))
    names = list(context.run_pass(ledger, "copy", copy, strips))
    moments = _moments(ledger, names, context)
    bins = intensity.Bins.for_tomogram(moments, dtype)
    if intensity.is_counted(dtype):
        parts = (arrays["counts"] for arrays in ledger.read_all_arrays(names))
        counts = bins.of_values(reduce(np.add, parts), dtype)
    else:
        counts = _histogram(context, ledger, volumes[0], bins)
    statistics = intensity.Statistics.of(moments, bins, counts)
    for number, level in enumerate(levels[2:], start=2):
        halve = partial(_halve, finer=volumes[number - 1], coarser=volumes[number])
        grid = BlockGrid(level.shape, recipe.blocks.shape)
        context.run_pass(ledger, f"level{number}", halve, grid)
    context.records.write_json("statistics.json", statistics.as_dict())
    write_image_metadata(context.staged / IMAGE, context.name, levels, header)
    context.records.remove("unpacked")
    return {
        "header": header.as_dict(),
        "source": fingerprint(context.source_url),
        "levels": len(levels),
        "notes": [*header.notes, *_notes(moments)],
    }


def _notes(moments: intensity.Moments) -> list[str]:
    if not moments.not_finite:
        return []
    share = moments.not_finite / (moments.count + moments.not_finite)
    return [
        f"{moments.not_finite:,} voxels ({100 * share:.2g}%) are not finite; "
        "they are treated as the mean"
    ]


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
    url, voxel_size_angstrom
        The source.
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
    bins: Shape
    strip: Shape
    image: Volume
    coarser: Volume | None
    ledger: Ledger

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the shards of a block; the receipt holds its moments."""
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
        return asdict(intensity.merge_moments(found))

    def _read(self, box: Box) -> NDArray[Any]:
        with open_source(self.url, voxel_size_angstrom=self.voxel_size_angstrom) as source:
            voxels = source.read(box.scaled(self.bins))
        if max(self.bins) == 1:
            return voxels
        return bin_mean(voxels.astype(np.float32), self.bins)


def _moments(ledger: Ledger, names: Iterable[str], context: Context) -> intensity.Moments:
    """Merge the strips' moments in order and refuse what cannot be normalised."""
    total = intensity.merge_moments(map(_moments_of, ledger.read_all(names)))
    share = total.not_finite / max(1, total.count + total.not_finite)
    limit = context.recipe.source.maximum_not_finite
    if total.count == 0 or share > limit:
        raise FormatError(
            f"{100 * share:.3g}% of the voxels are NaN or infinite, more than {100 * limit:.3g}%",
            remedy="Repair the tomogram, or raise source.maximum_not_finite.",
        )
    return total


def _moments_of(receipt: Mapping[str, Any]) -> intensity.Moments:
    return intensity.Moments(**{f.name: receipt[f.name] for f in fields(intensity.Moments)})


def _histogram(
    context: Context, ledger: Ledger, image: Volume, bins: intensity.Bins
) -> NDArray[np.int64]:
    """Count real numbers in a second pass."""
    blocks = BlockGrid(image.shape, context.recipe.blocks.shape)
    work = partial(_count, ledger=ledger, image=image, bins=bins)
    names = context.run_pass(ledger, "histogram", work, blocks)
    counts = np.zeros(bins.number, np.int64)
    for arrays in ledger.read_all_arrays(names):
        counts += arrays["counts"]
    return counts


def _count(
    block: Block, *, ledger: Ledger, image: Volume, bins: intensity.Bins
) -> Mapping[str, Any]:
    counts = intensity.histogram(image.read(block.write), bins)
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
INGEST = Stage("ingest", (), _settings, _run, owns=("",), arrays=lambda context: ("0",))
