"""Clean: smooth classes, fill holes, drop islands, and number the objects, over blocks.

Passes over the label volume, each of which reads one volume and writes another:

    segmented ─ smooth ─→ smoothed ─ fill ─→ filled ─ components ─→ tables, faces
                                                    └ relabel ───→ semantic, instances

Objects of all classes are parts of one volume, so that the cost does not grow with classes.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import cleanup, labels
from tomoseg.analysis.cleanup import CleaningSettings
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.layout import IMAGE, WORK
from tomoseg.core.overlap import overlapped
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import READERS, Ledger, Volume, write_label_metadata
from tomoseg.pipeline.stages.context import (
    HALVED,
    RAW_LABELS,
    Context,
    Stage,
    halved_box,
    pair,
    pyramid,
    receipt_name,
)
from tomoseg.pipeline.stages.input_mask import OUTSIDE, stored_mask

SMOOTHED = f"{WORK}/smoothed"
FILLED = f"{WORK}/filled"
IMAGES = {"semantic": "uint8", "instances": "uint32"}
OBJECTS = "objects"


def _settings(context: Context) -> Any:
    from dataclasses import asdict

    return {"classes": {name: asdict(settings) for name, settings in _cleaned(context).items()}}


def _cleaned(context: Context) -> dict[str, CleaningSettings]:
    """Return the settings of every class, in label order; a class left out is not changed."""
    given = context.recipe.clean or {}
    return {name: given.get(name, CleaningSettings()) for name in context.classes}


def _arrays(context: Context) -> tuple[str, ...]:
    levels = range(len(pyramid(context.sampling())))
    return tuple(context.label_path(name, n) for n in levels for name in IMAGES)


def _begin(context: Context) -> None:
    shard = context.recipe.blocks.shape
    for number, level in enumerate(pyramid(context.sampling())):
        for name, dtype in IMAGES.items():
            volume = context.volume(context.label_path(name, number))
            volume.create(level.shape, dtype, shard=shard, is_labels=True)


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    settings = _cleaned(context)
    grid = BlockGrid(context.sampling().shape, context.recipe.blocks.shape)
    source = context.volume(RAW_LABELS)
    if any(cleanup.smooths(one) for one in settings.values()):
        source = _smoothed(context, ledger, source, settings)
    if any(one.fill_holes_nm3 > 0 for one in settings.values()):
        source = _filled(context, ledger, source, settings)
    objects = Components(ledger, "objects", source, 26, {OBJECTS: None})
    joined = connected(context, ledger, objects, grid)[OBJECTS]
    kept = joined.select(_kept(context, joined.table, settings))
    _relabel(context, ledger, objects, kept, grid)
    classes = {name: kept.table.value == context.label(name) for name in settings}
    for name, rows in classes.items():
        table = kept.table.select(rows)
        context.records.write_arrays(
            f"objects/{name}.npz",
            {
                "ids": np.flatnonzero(rows) + 1,
                "centres": table.centres,
                "voxels": table.voxels,
            },
        )
    for path in (SMOOTHED, FILLED):
        context.staged.remove(f"{IMAGE}/{path}")
    return {
        "classes": {
            name: _found(context, kept.table.voxels[rows]) for name, rows in classes.items()
        }
    }


def _kept(
    context: Context, table: labels.ObjectTable, settings: Mapping[str, CleaningSettings]
) -> NDArray[np.bool_]:
    """Tell which objects stay, each by the settings of its class."""
    keep = np.zeros(len(table), np.bool_)
    for name, one in settings.items():
        rows = table.value == context.label(name)
        keep[rows] = cleanup.kept_objects(table.select(rows), one, context.sampling())
    return keep


def _found(context: Context, sizes: NDArray[np.int64]) -> dict[str, Any]:
    voxels = int(sizes.sum())
    return {
        "objects": len(sizes),
        "voxels": voxels,
        "volume_nm3": voxels * context.sampling().voxel_volume_nm3,
    }


def _smoothed(
    context: Context, ledger: Ledger, source: Volume, settings: Mapping[str, CleaningSettings]
) -> Volume:
    target = context.volume(SMOOTHED)
    if not target.exists:
        _create_work(context, target)
    sampling = context.sampling()
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
    volume.create(context.sampling().shape, "uint8", shard=shard, is_labels=True)


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
    sampling = context.sampling()
    grid = BlockGrid(sampling.shape, context.recipe.blocks.shape)
    holed = {name: context.label(name) for name, one in settings.items() if one.fill_holes_nm3 > 0}
    holes = Components(ledger, "holes", source, 6, holed)
    joined = {
        name: merged.select(
            cleanup.fillable_holes(merged.table, settings[name], sampling, sampling.shape)
        )
        for name, merged in connected(context, ledger, holes, grid).items()
    }
    send_lookups(ledger, "fill", joined, grid)
    work = partial(_fill, holes=holes, values=holed, target=target, mask=stored_mask(context))
    context.run_pass(ledger, "fill", work, grid)
    return target


def _fill(
    block: Block,
    *,
    holes: Components,
    values: Mapping[str, int],
    target: Volume,
    mask: Volume | None,
) -> Mapping[str, Any]:
    """Give a hole's background voxels to the class around it; what the mask cut stays cut."""
    before = holes.source.read(block.write)
    after = before.copy()
    allowed = _allowed(mask, block.write)
    lookups = holes.ledger.read_arrays(receipt_name("fill-lookup", block))
    for name, value in values.items():
        is_hole = lookups[name][holes.local(before, value)] > 0
        after[is_hole & (after == 0) & (True if allowed is None else allowed)] = value
    target.write(block.write, after)
    return {}


@dataclass(frozen=True)
class Components:
    """The connected parts of a label volume, or of what some of its classes leave free.

    Labelling a block is repeatable, so its labels are computed again where they are needed and
    never stored.

    Parameters
    ----------
    ledger, label
        Where tables and faces are kept, and under what name.
    source
        The label volume.
    connectivity
        As in :func:`tomoseg.analysis.labels.local_components`.
    parts
        Name → the class whose background is looked at, or None for the objects of all classes.
    """

    ledger: Ledger
    label: str
    source: Volume
    connectivity: labels.Connectivity
    parts: Mapping[str, int | None]

    def local(self, voxels: NDArray[np.uint8], value: int | None) -> NDArray[np.uint32]:
        """Label one block."""
        return labels.local_components(_of(voxels, value), connectivity=self.connectivity)

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Keep a block's tables and outer planes."""
        voxels = self.source.read(block.write)
        columns: dict[str, NDArray[Any]] = {}
        planes: dict[str, NDArray[Any]] = {}
        for name, value in self.parts.items():
            found = self.local(voxels, value)
            table = labels.object_table(
                found,
                _of(voxels, value),
                begin=block.write.begin,
                volume_shape=self.source.shape,
            )
            columns |= {f"{name}.{key}": column for key, column in table.as_dict().items()}
            if len(table):
                planes |= {f"{name}.{key}": plane for key, plane in labels.faces(found).items()}
        self.ledger.write_arrays(receipt_name(self.label, block), columns)
        self.ledger.write_arrays(receipt_name(f"{self.label}-faces", block), planes)
        return {}

    def tables(self, grid: BlockGrid) -> dict[str, list[labels.ObjectTable]]:
        """Return what is known of the objects of each part, a table a block."""
        found: dict[str, list[labels.ObjectTable]] = {name: [] for name in self.parts}
        names = (receipt_name(self.label, block) for block in grid)
        for arrays in map(self._by_part, self.ledger.read_all_arrays(names)):
            for name, columns in arrays.items():
                found[name].append(labels.ObjectTable.from_dict(columns))
        return found

    def planes(self, block: Block) -> dict[str, dict[str, NDArray[Any]]]:
        """Return the outer planes of each part in a block; none where there are no objects."""
        return self._by_part(self.ledger.read_arrays(receipt_name(f"{self.label}-faces", block)))

    def _by_part(self, columns: Mapping[str, NDArray[Any]]) -> dict[str, dict[str, NDArray[Any]]]:
        arrays: dict[str, dict[str, NDArray[Any]]] = {name: {} for name in self.parts}
        for key, column in columns.items():
            name, _, part = key.rpartition(".")
            arrays[name][part] = column
        return arrays


def _of(voxels: NDArray[np.uint8], value: int | None) -> NDArray[np.uint8] | NDArray[np.bool_]:
    return voxels if value is None else voxels != value


def connected(
    context: Context, ledger: Ledger, components: Components, grid: BlockGrid
) -> dict[str, labels.Merged]:
    """Label every block, then join what touches across faces, edges and corners."""
    context.run_pass(ledger, components.label, components, grid)
    work = partial(_meet, components=components, grid=grid)
    met = context.run_pass(ledger, f"{components.label}-meet", work, grid)
    tables = components.tables(grid)
    offsets = {name: labels.provisional_offsets(rows) for name, rows in tables.items()}
    pairs = {name: [np.zeros((0, 2), np.int64)] for name in tables}
    for arrays in ledger.read_all_arrays(met):
        for key, found in arrays.items():
            name, here, there = key.rsplit(".", 2)
            pairs[name].append(found + offsets[name][[int(here), int(there)]])
    return {name: labels.merge(rows, np.concatenate(pairs[name])) for name, rows in tables.items()}


def _meet(block: Block, *, components: Components, grid: BlockGrid) -> Mapping[str, Any]:
    """Find which labels of a block touch which of its later neighbours.

    An entry ``<part>.<number of this block>.<number of the other>`` holds local label pairs.
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


def send_lookups(
    ledger: Ledger, label: str, merged: Mapping[str, labels.Merged], grid: BlockGrid
) -> None:
    """Put each block's table from local to final ids where its task finds it."""

    def send(numbered: tuple[int, Block]) -> None:
        number, block = numbered
        tables = {name: one.of_block(number) for name, one in merged.items()}
        ledger.write_arrays(receipt_name(f"{label}-lookup", block), tables)

    for _ in overlapped(send, enumerate(grid), threads=READERS):
        pass


def _relabel(
    context: Context,
    ledger: Ledger,
    objects: Components,
    kept: labels.Merged,
    grid: BlockGrid,
) -> None:
    send_lookups(ledger, "relabel", {OBJECTS: kept}, grid)
    levels = pyramid(context.sampling())
    images = [
        tuple(context.volume(context.label_path(name, n)) for name in IMAGES)
        for n in range(len(levels))
    ]
    work = Relabel(objects, grid, images[0], images[1] if len(levels) > 1 else None)
    context.run_pass(ledger, "relabel", work, BlockGrid(grid.shape, pair(grid.block_shape)))
    for number, level in enumerate(levels[2:], start=2):
        thin = partial(_thin, pairs=tuple(zip(images[number - 1], images[number], strict=True)))
        context.run_pass(ledger, f"level{number}", thin, BlockGrid(level.shape, grid.block_shape))
    colours = dict(enumerate(context.colours.values(), start=1))
    write_label_metadata(context.staged / IMAGE, "semantic", levels, colours)
    write_label_metadata(context.staged / IMAGE, "instances", levels, {})


@dataclass(frozen=True)
class Relabel:
    """Write the final ids of objects and the classes of those that were kept, with their level 1.

    Labels have no mean: of every coarser level, every second voxel stands.

    Parameters
    ----------
    objects, grid
        The objects and the blocks in which they were found.
    finest, coarser
        Label images in the order of ``IMAGES``, of levels 0 and 1; a small or flat tomogram has no
        level 1.
    """

    objects: Components
    grid: BlockGrid
    finest: tuple[Volume, ...]
    coarser: tuple[Volume, ...] | None

    def __call__(self, cell: Block) -> Mapping[str, Any]:
        """Write the blocks of a cell, which are one block of the coarser level."""
        if self.coarser is None:
            for block in self.grid.inside(cell.write):
                self._write(block)
            return {}
        half = halved_box(cell.write, self.coarser[0].shape)
        thinned: list[NDArray[Any]] = [np.zeros(half.shape, dtype) for dtype in IMAGES.values()]
        for block in self.grid.inside(cell.write):
            places = halved_box(block.write, half.end)
            for number, whole in enumerate(self._write(block)):
                there = _every_second(whole, block.write, places)
                thinned[number][places.within(half).slices] = there
        for volume, voxels in zip(self.coarser, thinned, strict=True) if half.size else ():
            volume.write(half, voxels)
        return {}

    def _write(self, block: Block) -> tuple[NDArray[Any], ...]:
        voxels = self.objects.source.read(block.write)
        lookup = self.objects.ledger.read_arrays(receipt_name("relabel-lookup", block))[OBJECTS]
        ids = lookup[self.objects.local(voxels, None)]
        kept = voxels * (ids > 0)
        for volume, found in zip(self.finest, (kept, ids), strict=True):
            volume.write(block.write, found)
        return kept, ids


def _every_second(voxels: NDArray[Any], box: Box, places: Box) -> NDArray[Any]:
    """Return of the voxels of a box those that stand in places of the next coarser level."""
    z, y, x = places.scaled(HALVED).within(box).slices
    return voxels[z.start : z.stop : 2, y.start : y.stop : 2, x.start : x.stop : 2]


def _thin(block: Block, *, pairs: tuple[tuple[Volume, Volume], ...]) -> Mapping[str, Any]:
    box = block.write.scaled(HALVED)
    for finer, coarser in pairs:
        voxels = _every_second(finer.read(box), box, block.write)
        coarser.write(block.write, np.ascontiguousarray(voxels))
    return {}


OWNS = ("labels/", SMOOTHED, FILLED)
CLEAN = Stage(
    "clean", ("segment",), _settings, _run, OWNS, begin=_begin, arrays=_arrays, share=0.09
)
