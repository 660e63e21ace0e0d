"""Files that a stage makes, each with a receipt as a block has one (law 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.events import untold
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.stages.context import Context, Piece, Step, receipt_name

FILES = "files"
"""The pass, in receipts and logs."""


@dataclass(frozen=True)
class MakeFiles:
    """Makes a piece, on any worker."""

    context: Context

    def __call__(self, piece: Piece) -> Mapping[str, Any]:
        """Write its files; their paths are what the receipt says."""
        return {"files": list(piece.make(self.context))}


def make_files(context: Context, ledger: Ledger, pieces: Sequence[Piece]) -> list[str]:
    """Make every piece that has no receipt yet; return the files of all of them, in order.

    Pieces must not share a file: any number of them may be made at once.
    """
    alone = replace(context, runner=SerialRunner(), progress=untold, waits=untold)
    step = Step(ledger, FILES, MakeFiles(alone), is_fenced=context.staging is not None)
    names = [receipt_name(FILES, piece) for piece in pieces]
    missing = [
        piece for piece, name in zip(pieces, names, strict=True) if ledger.find(name) is None
    ]
    label, there = f"{ledger.stage} {FILES}", len(pieces) - len(missing)
    context.progress(context.name, label, there, len(pieces))
    receipts = context.runner.map(step, missing, waits=context.waits)
    for done, _ in enumerate(receipts, start=there + 1):
        context.progress(context.name, label, done, len(pieces))
    return [path for receipt in ledger.read_all(names) for path in receipt["files"]]
