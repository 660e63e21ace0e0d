"""Ingest: a tomogram from its file into sharded OME-Zarr, with statistics and a pyramid."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import partial
from typing import Any

import numpy as np

from tomoseg import intensity
from tomoseg.binning import bin_mean
from tomoseg.blocks import Block, BlockGrid
from tomoseg.errors import FormatError
from tomoseg.sampling import Sampling, Shape
from tomoseg.sources import open_source, unpacked
from tomoseg.stages.context import Context, Stage, pyramid, receipt_name
from tomoseg.stages.networks import check_fit
from tomoseg.stores import Ledger, Volume, fingerprint, write_image_metadata

HALVED = (2, 2, 2)


def _settings(context: Context) -> Any:
    return {
        "source": fingerprint(context.source_url),
        "url": context.source_url,
        "voxel_size_angstrom": context.recipe.source.voxel_size_angstrom,
        "maximum_not_finite": context.recipe.source.maximum_not_finite,
        "bin": context.recipe.ingest.bin,
        "blocks": context.recipe.blocks.shape,
    }


def _begin(context: Context) -> None:
    context.folder.remove("tomogram.zarr")


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    url = unpacked(context.source_url, context.records / "unpacked")
    recipe = context.recipe
    with open_source(url, voxel_size_angstrom=recipe.source.voxel_size_angstrom) as source:
        header = source.header
    for network in context.networks:
        check_fit(recipe, network.card, header.sampling)
    sampling = header.sampling.binned(recipe.ingest.bin)
    levels = pyramid(sampling)
    image = context.volume("0")
    if not image.exists:
        dtype = header.dtype if recipe.ingest.bin == 1 else "float32"
        image.create(sampling.shape, dtype, shard=recipe.blocks.shape)
    bins = header.sampling.bins(recipe.ingest.bin)
    copy = CopyBlock(url, recipe.source.voxel_size_angstrom, bins, image)
    strips = BlockGrid(sampling.shape, _strip(sampling.shape, recipe.blocks.shape))
    names = context.run_pass(ledger, "copy", copy, strips)
    moments = _moments(ledger, names, context)
    statistics = _statistics(context, ledger, moments, strips)
    for number, level in enumerate(levels[1:], start=1):
        _build_level(context, ledger, number, level)
    context.records.write_json("statistics.json", statistics.as_dict())
    write_image_metadata(context.image, context.name, levels, header)
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


@dataclass(frozen=True)
class CopyBlock:
    """Copy one strip of whole shards from the source, binned, and take its moments."""

    url: str
    voxel_size_angstrom: float | None
    bins: Shape
    image: Volume

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write the strip; the receipt holds its moments."""
        box = block.write.scaled(self.bins)
        with open_source(self.url, voxel_size_angstrom=self.voxel_size_angstrom) as source:
            voxels = source.read(box)
        if max(self.bins) > 1:
            voxels = bin_mean(voxels.astype(np.float32), self.bins)
        self.image.write(block.write, voxels)
        return asdict(intensity.moments(voxels))


def _moments(ledger: Ledger, names: Iterable[str], context: Context) -> intensity.Moments:
    """Merge the strips' moments in order and refuse what cannot be normalised."""
    total = intensity.merge_moments(_moments_of(ledger.read(name)) for name in names)
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


def _statistics(
    context: Context, ledger: Ledger, moments: intensity.Moments, strips: BlockGrid
) -> intensity.Statistics:
    """Take the histogram in a second pass: its range is known only after the first."""
    image = context.volume("0")
    bins = intensity.Bins.for_tomogram(moments, image.array().dtype)
    names = context.run_pass(
        ledger, "histogram", partial(_histogram, ledger=ledger, image=image, bins=bins), strips
    )
    counts = np.zeros(bins.number, np.int64)
    for name in names:
        counts += ledger.read_arrays(name)["counts"]
    return intensity.Statistics.of(moments, bins, counts)


def _histogram(
    block: Block, *, ledger: Ledger, image: Volume, bins: intensity.Bins
) -> Mapping[str, Any]:
    counts = intensity.histogram(image.read(block.write), bins)
    ledger.write_arrays(receipt_name("histogram", block), {"counts": counts})
    return {}


def _build_level(context: Context, ledger: Ledger, number: int, level: Sampling) -> None:
    finer, coarser = context.volume(str(number - 1)), context.volume(str(number))
    shard = context.recipe.blocks.shape
    if not coarser.exists:
        coarser.create(level.shape, str(finer.array().dtype), shard=shard)
    halve = partial(_halve, finer=finer, coarser=coarser)
    context.run_pass(ledger, f"level{number}", halve, BlockGrid(level.shape, shard))


def _halve(block: Block, *, finer: Volume, coarser: Volume) -> Mapping[str, Any]:
    voxels = finer.read(block.write.scaled(HALVED))
    means = bin_mean(voxels.astype(np.float32), HALVED)
    if np.issubdtype(voxels.dtype, np.integer):
        means = np.rint(means)
    coarser.write(block.write, means.astype(voxels.dtype))
    return {}


def _strip(shape: Shape, block: Shape) -> Shape:
    """Return blocks that span x: a source's rows are then read whole."""
    return (block[0], block[1], -(-shape[2] // block[2]) * block[2])


INGEST = Stage("ingest", (), _settings, _run, begin=_begin, arrays=lambda context: ("0",))
