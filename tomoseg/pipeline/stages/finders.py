"""Points of one class found a block at a time: ridges, sheets, peaks and basins."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from tomoseg.core.blocks import Block, BlockGrid
from tomoseg.core.columns import Columns
from tomoseg.core.sampling import Sampling, Shape
from tomoseg.io.stores import Ledger, Volume
from tomoseg.pipeline.stages.context import Context, receipt_name
from tomoseg.pipeline.stages.segment import evidence, read_evidence

Table = TypeVar("Table", bound=Columns)


@dataclass(frozen=True)
class Finder(Generic[Table]):
    """What looks for points in one block.

    Parameters
    ----------
    label
        How its pass is called, before the class.
    find
        Takes the evidence and what :func:`find_points` gives it, and returns a table.
    table
        The kind of table.
    factor, halo
        Tell by settings and sampling on which bins it works, and what it needs around a block.
    """

    label: str
    find: Callable[..., Table]
    table: type[Table]
    factor: Callable[[Any, Sampling], int]
    halo: Callable[[Any, Sampling], Shape]


@dataclass(frozen=True)
class _FindInBlock:
    ledger: Ledger
    label: str
    volume: Volume
    value: int | None
    sampling: Sampling
    settings: Any
    find: Callable[..., Columns]

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write a block's sidecar; the receipt counts its points."""
        found = self.find(
            read_evidence(self.volume, self.value, block.read),
            block.core,
            begin=block.read.begin,
            sampling=self.sampling,
            settings=self.settings,
        )
        self.ledger.write_arrays(receipt_name(self.label, block), found.as_dict())
        return {"points": len(found)}


def find_points(
    context: Context, ledger: Ledger, finder: Finder[Table], name: str, settings: Any
) -> Table:
    """Return the points of a class that a finder finds in all blocks."""
    sampling = context.sampling()
    label = f"{finder.label}-{name}"
    work = _FindInBlock(ledger, label, *evidence(context, name), sampling, settings, finder.find)
    grid = BlockGrid(
        sampling.shape,
        context.recipe.blocks.compact,
        halo=finder.halo(settings, sampling),
        stride=(finder.factor(settings, sampling),) * 3,
    )
    receipts = context.run_pass(ledger, label, work, grid)
    tables = [finder.table.from_dict(arrays) for arrays in ledger.read_all_arrays(receipts)]
    return finder.table.concatenate(tables)
