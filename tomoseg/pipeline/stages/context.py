"""What every stage is given, and how it maps work over blocks with receipts."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.compute.runners import Runner
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.errors import StoreError
from tomoseg.core.events import untold, working
from tomoseg.core.layout import IMAGE, WORK
from tomoseg.core.sampling import Header, Sampling, Shape, as_shape
from tomoseg.io.stores import WRITTEN, Folder, Ledger, Volume, noted_writes
from tomoseg.pipeline.progress import Progress
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.networks import AppliedNetwork

if TYPE_CHECKING:
    from tomoseg.pipeline.stages.terms import Question, Terms

RAW_LABELS = f"{WORK}/segmented"
SMALLEST_LEVEL = 128
HALVED = (2, 2, 2)

log = logging.getLogger(__name__)


def pyramid(sampling: Sampling) -> list[Sampling]:
    """Return the grids of the levels: each bins the one before by 2, down to 128 voxels."""
    levels = [sampling]
    while max(levels[-1].shape) > SMALLEST_LEVEL and min(levels[-1].shape) > 1:
        levels.append(levels[-1].binned(2))
    return levels


def pair(shape: Shape) -> Shape:
    """Return two blocks along every axis: what one block of the next coarser level covers."""
    return as_shape(np.multiply(shape, HALVED))


def halved_box(box: Box, shape: Shape) -> Box:
    """Return the voxels of the next coarser level, of some shape, that begin in a box.

    >>> halved_box(Box((0, 0, 15), (5, 8, 21)), (2, 4, 10))
    Box(begin=(0, 0, 8), end=(2, 4, 10))
    """
    begin, end = (as_shape(-(-n // 2) for n in corner) for corner in (box.begin, box.end))
    return Box(begin, end).clip(shape)


@dataclass(frozen=True)
class Staging:
    """Where a stage writes while it works.

    Parameters
    ----------
    folder
        What stands here is published under the same names below the tomogram's folder.
    owns
        How the paths of the stage's own arrays begin; it reads all others where they are published.
    """

    folder: Folder
    owns: tuple[str, ...]


@dataclass(frozen=True)
class Context(Results):
    """What the stages of one tomogram need: its results so far, and who makes more of them.

    Parameters
    ----------
    networks
        The model, or the networks that compete.
    runner
        Where blocks run.
    progress
        Told of each finished block.
    waits
        Told, again and again, why no block is done.
    terms
        On which the stage that runs is made; None outside of one.
    staging
        Of the stage that works; None between stages.
    source_header
        The source's header while a stage works that comes after ingest: blocks need not read it.
    """

    networks: tuple[AppliedNetwork, ...]
    runner: Runner
    progress: Progress
    waits: Callable[[str], None] = untold
    terms: Terms | None = None
    staging: Staging | None = None
    source_header: Header | None = None

    def header(self) -> Header:
        """Return the source's header, once ingested."""
        return self.source_header or super().header()

    @property
    def staged(self) -> Folder:
        """Where a stage puts what it makes: :attr:`folder`, but unseen until the stage has ended.

        A late writer whose stage has ended, or was begun anew, finds other folders than these.
        """
        return self.folder if self.staging is None else self.staging.folder

    def volume(self, path: str) -> Volume:
        """Return an array of the tomogram's OME-Zarr group; a stage's own while it works."""
        is_own = self.staging is not None and path.startswith(self.staging.owns)
        return Volume(self.staged / IMAGE if is_own else self.image, path)

    def run_pass(
        self,
        ledger: Ledger,
        label: str,
        work: Callable[[Block], Mapping[str, Any]],
        grid: BlockGrid,
        *,
        on_device: bool = False,
        wanted: NDArray[np.bool_] | None = None,
        told: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Iterator[str]:
        """Do some work on every block that has no receipt yet.

        Parameters
        ----------
        ledger
            The stage's receipts.
        label
            Name of the pass within the stage.
        work
            Picklable; writes a block's shards and sidecars and returns what its receipt says.
        on_device
            Whether the work wants a GPU where workers have one.
        wanted
            bool, shape (blocks,): which have any work; None for all.
        told
            Called with each receipt, in any order. Only those of blocks done before are read.

        Returns
        -------
        The names of their receipts, in the order of the blocks, once.

        Notes
        -----
        What is held here are bytes a block, and the blocks in flight.
        """
        step = Step(ledger, label, work, is_fenced=self.staging is not None)
        if wanted is None:
            wanted = np.ones(len(grid), np.bool_)
        is_missing = wanted & ~step.done(grid)
        number, name = int(wanted.sum()), f"{ledger.stage} {label}"
        there = number - int(is_missing.sum())
        self.progress(self.name, name, there, number)
        if told is not None:
            done = compress(grid, wanted & ~is_missing)
            for receipt in ledger.read_all(receipt_name(label, block) for block in done):
                told(receipt)
        missing = compress(grid, is_missing)
        receipts = self.runner.map(step, missing, on_device=on_device, waits=self.waits)
        for finished, receipt in enumerate(receipts, start=there + 1):
            if told is not None:
                told(receipt)
            self.progress(self.name, name, finished, number)
        return (receipt_name(label, block) for block in compress(grid, wanted))


@dataclass(frozen=True)
class Piece:
    """A file to make that is no block of an array, or some that belong together.

    Parameters
    ----------
    name
        The path of the file, or what they have in common.
    make
        Picklable; writes into the context's ``staged`` and returns the paths there.
    """

    name: str
    make: Callable[[Context], Iterable[str]]


def receipt_name(label: str, block: Block | Piece) -> str:
    """Return the name of a block's receipt and sidecar in a pass: a folder for each z of the grid.

    >>> receipt_name("predict", BlockGrid((64, 64, 64), (32, 32, 32)).block((1, 0, 1)))
    'predict/1/1-0-1'
    """
    if isinstance(block, Piece):
        # As deep as of a block: a ledger lists its receipts so.
        return f"{label}/0/{block.name.replace('/', '-')}"
    return f"{label}/{block.index[0]}/{block.name}"


@dataclass(frozen=True)
class Step:
    """A pass's work on one block, or on one file, followed by its receipt.

    A block whose receipt stands is not worked on: a worker may be lost after it wrote the receipt
    and before it told, and the block is then sent out again. The receipt says what was written.

    Parameters
    ----------
    is_fenced
        Whether nothing is done, and nothing left, once the stage was given up or is published: its
        driver may be dead. It looks before the work, and again after the last write.
    """

    ledger: Ledger
    label: str
    work: Callable[[Any], Mapping[str, Any]]
    is_fenced: bool = False

    def name(self, block: Block | Piece) -> str:
        """Return what a block is called in errors and logs."""
        return f"{self.label}-{block.name}"

    def done(self, grid: BlockGrid) -> NDArray[np.bool_]:
        """Tell, bool of shape (blocks,), which have a receipt: one listing a layer of the grid."""
        depth, *layer = grid.counts
        flags = np.zeros((depth, *layer), np.bool_)
        for z in range(depth):
            names = self.ledger.done(f"{self.label}/{z}")
            for index in np.ndindex(*layer) if names else ():
                flags[z, *index] = grid.block((z, *index)).name in names
        return flags.ravel()

    def __call__(self, block: Block | Piece) -> dict[str, Any]:
        """Do the work, then write the receipt."""
        name = receipt_name(self.label, block)
        there = self.ledger.find(name)
        if there is not None:
            return there
        if self.is_fenced and not self.ledger.has_begun:
            raise StoreError(
                f"{self.ledger.place} was given up: another run works with other settings",
                remedy="Nothing is to be done: the block belongs to a run that has ended.",
            )
        try:
            return self._done(name, block)
        finally:
            if self.is_fenced:
                self.ledger.clear_late()

    def _done(self, name: str, block: Block | Piece) -> dict[str, Any]:
        begun = time.monotonic()
        names = {"stage": self.ledger.stage, "block": self.name(block)}
        voxels = block.write.size if isinstance(block, Block) else 0
        with working("block", voxels=voxels, **names), noted_writes() as written:
            receipt = dict(self.work(block))
            log.debug("done in %.2f s", time.monotonic() - begun)
        receipt["seconds"] = round(time.monotonic() - begun, 3)
        receipt[WRITTEN] = self.ledger.own(written)
        self.ledger.write(name, receipt)
        return receipt


@dataclass(frozen=True)
class Stage:
    """One stage of a tomogram.

    Parameters
    ----------
    name
        Its name, as in receipts and logs.
    needs
        Stages whose results it reads; their digests are part of its own.
    settings
        What else decides its result: sections of the recipe, hashes of inputs.
    owns
        How the paths of the arrays begin that it makes.
    begin
        Creates the stage's arrays, empty.
    arrays
        Paths of those arrays; if one is gone, the stage starts over.
    run
        Does the work and returns a small summary. It may be called again after a crash.
    question
        What workers are asked before it begins, if it applies networks.
    share
        Of the time of a tomogram, as measured on a large one with six classes: a first guess of
        how long a run still takes.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Context], Any]
    run: Callable[[Context, Ledger], dict[str, Any]]
    owns: tuple[str, ...] = ()
    begin: Callable[[Context], None] = lambda context: None
    arrays: Callable[[Context], tuple[str, ...]] = lambda context: ()
    question: Callable[[Context], Question] | None = None
    share: float = 0.0
