"""Clean: smooth classes, fill holes, drop islands, and number the objects, over blocks.

Passes over the label volume, each of which reads one volume and writes another:

    segmented ─ smooth ─→ smoothed ─ fill ─→ filled ─ components ─→ tables, faces
                                                    └ relabel ───→ semantic, <class> instances
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import cleanup, labels
from tomoseg.blocks import Block, BlockGrid, Box
from tomoseg.cleanup import CleaningSettings
from tomoseg.sampling import Sampling
from tomoseg.stages.context import RAW_LABELS, Context, Stage, pyramid, receipt_name
from tomoseg.stages.masks import OUTSIDE, stored_mask
from tomoseg.stores import Ledger, Volume, write_label_metadata

SMOOTHED = "work/smoothed"
FILLED = "work/filled"


def _settings(context: Context) -> Any:
    from dataclasses import asdict

    return {"classes": {name: asdict(settings) for name, settings in _cleaned(context).items()}}


def _cleaned(context: Context) -> dict[str, CleaningSettings]:
    """Return the settings of every class, in label order; a class left out is not changed."""
    given = context.recipe.clean or {}
    return {name: given.get(name, CleaningSettings()) for name in context.classes}


def _names(context: Context) -> tuple[str, ...]:
    return ("semantic", *context.classes)


def _arrays(context: Context) -> tuple[str, ...]:
    levels = range(len(pyramid(context.sampling)))
    return tuple(context.label_path(name, n) for n in levels for name in _names(context))


def _begin(context: Context) -> None:
    shard = context.recipe.blocks.shape
    for number, level in enumerate(pyramid(context.sampling)):
        for name in _names(context):
            dtype = "uint8" if name == "semantic" else "uint32"
            volume = context.volume(context.label_path(name, number))
            volume.create(level.shape, dtype, shard=shard, is_labels=True)
    for path in (SMOOTHED, FILLED):
        context.folder.remove(f"tomogram.zarr/{path}")


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    settings = _cleaned(context)
    grid = BlockGrid(context.sampling.shape, context.recipe.blocks.shape)
    source = context.volume(RAW_LABELS)
    if any(cleanup.smooths(one) for one in settings.values()):
        source = _smoothed(context, ledger, source, settings)
    if any(one.fill_holes_nm3 > 0 for one in settings.values()):
        source = _filled(context, ledger, source, settings)
    values = {name: context.label(name) for name in settings}
    joined = _connected(context, ledger, Components(ledger, "objects", source, values, 26), grid)
    kept = {
        name: merged.select(cleanup.kept_objects(merged.table, settings[name], context.sampling))
        for name, merged in joined.items()
    }
    _relabel(context, ledger, source, kept, grid)
    for name, merged in kept.items():
        context.records.write_arrays(
            f"objects/{name}.npz",
            {"centres": merged.table.centres, "voxels": merged.table.voxels},
        )
    for path in (SMOOTHED, FILLED):
        context.folder.remove(f"tomogram.zarr/{path}")
    return {"classes": {name: _found(context, merged) for name, merged in kept.items()}}


def _found(context: Context, merged: labels.Merged) -> dict[str, Any]:
    voxels = int(merged.table.voxels.sum())
    return {
        "objects": len(merged.table),
        "voxels": voxels,
        "volume_nm3": voxels * context.sampling.voxel_volume_nm3,
    }


def _smoothed(
    context: Context, ledger: Ledger, source: Volume, settings: Mapping[str, CleaningSettings]
) -> Volume:
    target = context.volume(SMOOTHED)
    if not target.exists:
        _create_work(context, target)
    sampling = context.sampling
    halos = [cleanup.cleaning_halo(one, sampling) for one in settings.values()]
    halo = tuple(np.max(halos, axis=0).tolist())
    grid = BlockGrid(sampling.shape, context.recipe.blocks.shape, halo=halo)
    rows = tuple((context.label(name), one) for name, one in settings.items())
    work = partial(
        _smooth,
        source=source,
        target=target,
        sampling=sampling,
        rows=rows,
        mask=stored_mask(context),
    )
    context.run_pass(ledger, "smooth", work, grid)
    return target


def _allowed(mask: Volume | None, box: Box) -> NDArray[np.bool_] | None:
    """Return where in a box objects may be; None for everywhere."""
    return None if mask is None else mask.read(box) != OUTSIDE


def _create_work(context: Context, volume: Volume) -> None:
    shard = context.recipe.blocks.shape
    volume.create(context.sampling.shape, "uint8", shard=shard, is_labels=True)


def _smooth(
    block: Block,
    *,
    source: Volume,
    target: Volume,
    sampling: Sampling,
    rows: tuple[tuple[int, CleaningSettings], ...],
    mask: Volume | None,
) -> Mapping[str, Any]:
    """Smooth each class; where two then meet, the one that was there stays, else the first."""
    before = source.read(block.read)
    core = before[block.core.slices]
    allowed = _allowed(mask, block.write)
    after = np.zeros_like(core)
    for value, settings in rows:
        smooth = cleanup.smooth_mask(
            before == value,
            block.core,
            begin=block.read.begin,
            sampling=sampling,
            settings=settings,
            allowed=allowed,
        )
        after[smooth & ((after == 0) | (core == value))] = value
    target.write(block.write, after)
    return {}


def _filled(
    context: Context, ledger: Ledger, source: Volume, settings: Mapping[str, CleaningSettings]
) -> Volume:
    target = context.volume(FILLED)
    if not target.exists:
        _create_work(context, target)
    sampling = context.sampling
    grid = BlockGrid(sampling.shape, context.recipe.blocks.shape)
    values = {name: context.label(name) for name, one in settings.items() if one.fill_holes_nm3 > 0}
    holes = Components(ledger, "holes", source, values, 6, is_inverted=True)
    joined = {
        name: merged.select(
            cleanup.fillable_holes(merged.table, settings[name], sampling, sampling.shape)
        )
        for name, merged in _connected(context, ledger, holes, grid).items()
    }
    _send_lookups(ledger, "fill", joined, grid)
    work = partial(_fill, holes=holes, target=target, mask=stored_mask(context))
    context.run_pass(ledger, "fill", work, grid)
    return target


def _fill(
    block: Block, *, holes: Components, target: Volume, mask: Volume | None
) -> Mapping[str, Any]:
    """Give a hole's background voxels to the class around it; what the mask cut stays cut."""
    before = holes.source.read(block.write)
    after = before.copy()
    allowed = _allowed(mask, block.write)
    lookups = holes.ledger.read_arrays(receipt_name("fill-lookup", block))
    for name, value in holes.values.items():
        is_hole = lookups[name][holes.local(before, value)] > 0
        after[is_hole & (after == 0) & (True if allowed is None else allowed)] = value
    target.write(block.write, after)
    return {}


@dataclass(frozen=True)
class Components:
    """The connected parts of some classes of one label volume, or of what they leave free.

    Labelling a block is repeatable, so its labels are computed again where they are needed and
    never stored.
    """

    ledger: Ledger
    label: str
    source: Volume
    values: Mapping[str, int]
    connectivity: labels.Connectivity
    is_inverted: bool = False

    def local(self, voxels: NDArray[np.uint8], value: int) -> NDArray[np.uint32]:
        """Label one block of one class."""
        mask = voxels != value if self.is_inverted else voxels == value
        return labels.local_components(mask, connectivity=self.connectivity)

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Keep a block's tables and outer planes."""
        voxels = self.source.read(block.write)
        columns: dict[str, NDArray[Any]] = {}
        planes: dict[str, NDArray[Any]] = {}
        for name, value in self.values.items():
            found = self.local(voxels, value)
            table = labels.object_table(
                found, begin=block.write.begin, volume_shape=self.source.shape
            )
            columns |= {f"{name}.{key}": column for key, column in table.as_arrays().items()}
            if len(table):
                planes |= {f"{name}.{key}": plane for key, plane in labels.faces(found).items()}
        self.ledger.write_arrays(receipt_name(self.label, block), columns)
        self.ledger.write_arrays(receipt_name(f"{self.label}-faces", block), planes)
        return {}

    def tables(self, block: Block) -> dict[str, labels.ObjectTable]:
        """Return what is known of the objects of each class in a block."""
        columns = self._read(self.label, block)
        return {name: labels.ObjectTable.from_arrays(columns[name]) for name in self.values}

    def planes(self, block: Block) -> dict[str, dict[str, NDArray[Any]]]:
        """Return the outer planes of each class in a block; none where there are no objects."""
        return self._read(f"{self.label}-faces", block)

    def _read(self, label: str, block: Block) -> dict[str, dict[str, NDArray[Any]]]:
        arrays: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in self.values}
        for key, column in self.ledger.read_arrays(receipt_name(label, block)).items():
            name, _, part = key.rpartition(".")
            arrays[name][part] = column
        return arrays


def _connected(
    context: Context, ledger: Ledger, components: Components, grid: BlockGrid
) -> dict[str, labels.Merged]:
    """Label every block, then join what touches across faces, edges and corners."""
    context.run_pass(ledger, components.label, components, grid)
    work = partial(_meet, components=components, grid=grid)
    met = context.run_pass(ledger, f"{components.label}-meet", work, grid)
    tables: dict[str, list[labels.ObjectTable]] = {name: [] for name in components.values}
    for block in grid:
        for name, table in components.tables(block).items():
            tables[name].append(table)
    offsets = {name: labels.provisional_offsets(rows) for name, rows in tables.items()}
    pairs = {name: [np.zeros((0, 2), np.int64)] for name in tables}
    for receipt in met:
        for key, found in ledger.read_arrays(receipt).items():
            name, here, there = key.rsplit(".", 2)
            pairs[name].append(found + offsets[name][[int(here), int(there)]])
    return {name: labels.merge(rows, np.concatenate(pairs[name])) for name, rows in tables.items()}


def _meet(block: Block, *, components: Components, grid: BlockGrid) -> Mapping[str, Any]:
    """Find which labels of a block touch which of its later neighbours.

    An entry ``<class>.<number of this block>.<number of the other>`` holds local label pairs.
    """
    arrays: dict[str, NDArray[Any]] = {}
    mine = components.planes(block)
    for step in labels.directions(components.connectivity):
        index = _moved(block, step)
        if not all(0 <= i < n for i, n in zip(index, grid.counts, strict=True)):
            continue
        others = components.planes(grid.block(index))
        here, there = (int(np.ravel_multi_index(i, grid.counts)) for i in (block.index, index))
        for name, planes in mine.items():
            if not (planes and others[name]):
                continue
            pairs = labels.touching(
                planes, others[name], step, connectivity=components.connectivity
            )
            if len(pairs):
                arrays[f"{name}.{here}.{there}"] = pairs
    components.ledger.write_arrays(receipt_name(f"{components.label}-meet", block), arrays)
    return {}


def _moved(block: Block, step: tuple[int, int, int]) -> tuple[int, int, int]:
    z, y, x = (i + s for i, s in zip(block.index, step, strict=True))
    return z, y, x


def _send_lookups(
    ledger: Ledger, label: str, merged: Mapping[str, labels.Merged], grid: BlockGrid
) -> None:
    """Put each block's table from local to final ids where its task finds it."""
    for number, block in enumerate(grid):
        tables = {name: one.of_block(number) for name, one in merged.items()}
        ledger.write_arrays(receipt_name(f"{label}-lookup", block), tables)


def _relabel(
    context: Context,
    ledger: Ledger,
    source: Volume,
    kept: Mapping[str, labels.Merged],
    grid: BlockGrid,
) -> None:
    _send_lookups(ledger, "relabel", kept, grid)
    values = {name: context.label(name) for name in kept}
    work = RelabelBlock(
        Components(ledger, "objects", source, values, 26),
        context.volume(context.label_path("semantic")),
        {name: context.volume(context.label_path(name)) for name in kept},
    )
    context.run_pass(ledger, "relabel", work, grid)
    levels = pyramid(context.sampling)
    for number, level in enumerate(levels[1:], start=1):
        _build_level(context, ledger, number, level)
    colours = dict(enumerate(context.colours.values(), start=1))
    write_label_metadata(context.image, "semantic", levels, colours)
    for name in kept:
        write_label_metadata(context.image, name, levels, {})


def _build_level(context: Context, ledger: Ledger, number: int, level: Sampling) -> None:
    """Write a level of every label image: labels have no mean, so every second voxel stands."""
    pairs = tuple(
        (
            context.volume(context.label_path(name, number - 1)),
            context.volume(context.label_path(name, number)),
        )
        for name in _names(context)
    )
    grid = BlockGrid(level.shape, context.recipe.blocks.shape)
    context.run_pass(ledger, f"level{number}", partial(_thin, pairs=pairs), grid)


def _thin(block: Block, *, pairs: tuple[tuple[Volume, Volume], ...]) -> Mapping[str, Any]:
    box = block.write.scaled((2, 2, 2))
    for finer, coarser in pairs:
        coarser.write(block.write, np.ascontiguousarray(finer.read(box)[::2, ::2, ::2]))
    return {}


@dataclass(frozen=True)
class RelabelBlock:
    """Write final ids of every class, and the label image of what was kept."""

    components: Components
    semantic: Volume
    instances: Mapping[str, Volume]

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write one block of every label volume."""
        parts = self.components
        voxels = parts.source.read(block.write)
        lookups = parts.ledger.read_arrays(receipt_name("relabel-lookup", block))
        semantic = np.zeros_like(voxels)
        for name, value in parts.values.items():
            ids = lookups[name][parts.local(voxels, value)]
            self.instances[name].write(block.write, ids)
            semantic[ids > 0] = value
        self.semantic.write(block.write, semantic)
        return {}


CLEAN = Stage("clean", ("segment",), _settings, _run, begin=_begin, arrays=_arrays)
