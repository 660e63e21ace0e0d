"""What every stage is given, and how it maps work over blocks with receipts."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

from tomoseg.blocks import Block
from tomoseg.recipe import Recipe
from tomoseg.runners import Runner
from tomoseg.sampling import Header, Sampling
from tomoseg.stages.networks import AppliedNetwork, colours_of
from tomoseg.stores import Folder, Ledger, Volume

Progress = Callable[[str, str, int, int], None]
"""Called with tomogram, stage and pass, the blocks done and all blocks."""

RAW_LABELS = "work/segmented"
SMALLEST_LEVEL = 128


def pyramid(sampling: Sampling) -> list[Sampling]:
    """Return the grids of the levels: each bins the one before by 2, down to 128 voxels."""
    levels = [sampling]
    while max(levels[-1].shape) > SMALLEST_LEVEL and min(levels[-1].shape) > 1:
        levels.append(levels[-1].binned(2))
    return levels


@dataclass(frozen=True)
class Context:
    """One tomogram on its way through the stages.

    Parameters
    ----------
    name, source_url
        The tomogram.
    folder
        Its results: ``<output>/<name>``.
    recipe
        The recipe, resolved for the networks' classes.
    networks
        The model, or the networks that compete.
    runner
        Where blocks run.
    progress
        Told of each finished block.
    """

    name: str
    source_url: str
    folder: Folder
    recipe: Recipe
    networks: tuple[AppliedNetwork, ...]
    runner: Runner
    progress: Progress

    @property
    def image(self) -> Folder:
        """The OME-Zarr group."""
        return self.folder / "tomogram.zarr"

    @property
    def records(self) -> Folder:
        """Receipts and summaries of stages."""
        return self.folder / ".tomoseg"

    def volume(self, path: str) -> Volume:
        """Return an array of the tomogram's OME-Zarr group."""
        return Volume(self.image, path)

    def record(self, stage: str) -> dict[str, Any]:
        """Return what was recorded of a finished stage; raise StoreError if it has not run."""
        return dict(self.records.read_json(f"{stage}.json"))

    def summary(self, stage: str) -> dict[str, Any]:
        """Return the summary that a finished stage gave."""
        return dict(self.record(stage)["summary"])

    @property
    def header(self) -> Header:
        """The source's header, once ingested."""
        return Header.from_dict(self.summary("ingest")["header"])

    @property
    def sampling(self) -> Sampling:
        """The grid of the stored tomogram, once ingested."""
        return self.header.sampling.binned(self.recipe.ingest.bin)

    def label_path(self, name: str, level: int = 0) -> str:
        """Return the array of a label image."""
        return f"labels/{name}/{level}"

    @property
    def colours(self) -> dict[str, str]:
        """Class → ``"#rrggbb"``, in label order."""
        return colours_of(self.networks)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in label order."""
        return tuple(self.colours)

    def label(self, name: str) -> int:
        """Return the label of a class."""
        return self.classes.index(name) + 1

    @property
    def scored(self) -> tuple[str, ...]:
        """Classes whose score maps are kept: traced, picked or sampled ones, in label order."""
        recipe = self.recipe
        wanted = {*(recipe.trace or ()), *(recipe.pick or ()), *(recipe.sample or ())}
        kept = wanted if self.recipe.segment.score_maps else set()
        return tuple(name for name in self.classes if name in kept)

    def run_pass(
        self,
        ledger: Ledger,
        label: str,
        work: Callable[[Block], Mapping[str, Any]],
        blocks: Iterable[Block],
        *,
        on_device: bool = False,
    ) -> list[str]:
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

        Returns
        -------
        The receipts' names, in the order of the blocks.
        """
        step = Step(ledger, label, work)
        done = ledger.done()
        blocks = list(blocks)
        missing = [block for block in blocks if step.name(block) not in done]
        there = len(blocks) - len(missing)
        self.progress(self.name, f"{ledger.stage} {label}", there, len(blocks))
        receipts = self.runner.map(step, missing, on_device=on_device)
        for finished, _ in enumerate(receipts, start=there + 1):
            self.progress(self.name, f"{ledger.stage} {label}", finished, len(blocks))
        return [step.name(block) for block in blocks]


@dataclass(frozen=True)
class Step:
    """A pass's work on one block, followed by its receipt.

    A block whose receipt stands is not worked on: a worker may be lost after it wrote the receipt
    and before it told, and the block is then sent out again.
    """

    ledger: Ledger
    label: str
    work: Callable[[Block], Mapping[str, Any]]

    def name(self, block: Block) -> str:
        """Return the receipt's name."""
        return f"{self.label}-{block.name}"

    def __call__(self, block: Block) -> dict[str, Any]:
        """Do the work, then write the receipt."""
        there = self.ledger.find(self.name(block))
        if there is not None:
            return there
        begun = time.monotonic()
        receipt = dict(self.work(block))
        receipt["seconds"] = round(time.monotonic() - begun, 3)
        self.ledger.write(self.name(block), receipt)
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
    begin
        Creates the stage's arrays, empty.
    arrays
        Paths of those arrays; if one is gone, the stage starts over.
    run
        Does the work and returns a small summary. It may be called again after a crash.
    """

    name: str
    needs: tuple[str, ...]
    settings: Callable[[Context], Any]
    run: Callable[[Context, Ledger], dict[str, Any]]
    begin: Callable[[Context], None] = lambda context: None
    arrays: Callable[[Context], tuple[str, ...]] = lambda context: ()
