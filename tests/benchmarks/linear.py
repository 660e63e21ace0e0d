"""What a block costs the driver, from hundreds of blocks to 10⁵, with a network that does nothing.

    python tests/benchmarks/linear.py FOLDER [--blocks 200,1600,102400] [--workers 1]

runs a pass of the real stages (ledger, steps, Dask runner) whose work on a block is nothing but
its receipt, and then the same pass again, which finds everything done. It prints, and writes as
linear.md, the CPU milliseconds a block of the driver with its scheduler, the wall time, how much
the driver's memory grew, the most tasks that the scheduler held at once, and what the second run
took. Receipts go to FOLDER/receipts and are removed at the end.
"""

from __future__ import annotations

import argparse
import gc
import shutil
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil

from tomoseg.compute.runners import Runner, open_runner
from tomoseg.compute.workers import quieten
from tomoseg.core.blocks import Block, BlockGrid
from tomoseg.core.sampling import Shape
from tomoseg.io.stores import Folder, Ledger
from tomoseg.pipeline.stages import Context
from tomoseg.recipe.recipe import recipe_from

EDGE = 8  # voxels; what a block holds does not matter
LAYERS = 50  # blocks along z at most


@dataclass(frozen=True)
class Nothing:
    """The network of an empty block."""

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Return what a receipt of a block says, whatever the block."""
        return {"voxels": [block.write.size, 0], "events": [], "skipped": ""}


def main() -> None:
    """Run each number of blocks and print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--blocks", default="200,1600,102400")
    parser.add_argument("--workers", type=int, default=1)
    given = parser.parse_args()
    lines = [
        "| blocks | CPU ms a block | wall s | driver's growth, bytes a block | tasks held "
        "| all done found in s, and grew by |",
        "|---|---|---|---|---|---|",
    ]
    quieten()
    from distributed import LocalCluster  # reads what quieten said

    from tomoseg.compute.monitoring.spans import forget_spans

    with (
        LocalCluster(
            n_workers=given.workers, threads_per_worker=1, host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
        ) as cluster,
        open_runner(str(cluster.scheduler_address)) as runner,
    ):  # fmt: skip
        forget_spans(cluster.scheduler)
        watch = Watch(cluster.scheduler)
        one_pass(given.folder, runner, watch, grid_of(100))
        for words in given.blocks.split(","):
            grid = grid_of(int(words))
            first = one_pass(given.folder, runner, watch, grid)
            second = one_pass(given.folder, runner, watch, grid)
            shutil.rmtree(given.folder / "receipts")
            lines.append(row(len(grid), first, second))
            print(lines[-1], flush=True)
    (given.folder / "linear.md").write_text("\n".join(lines) + "\n")


def grid_of(blocks: int) -> BlockGrid:
    """Return a grid of about so many blocks.

    >>> len(grid_of(102400)), grid_of(200).counts
    (102400, (8, 5, 5))
    """
    depth = max(n for n in range(1, LAYERS + 1) if blocks % n == 0 and n**3 <= 4 * blocks)
    rows = max(n for n in range(1, round((blocks // depth) ** 0.5) + 1) if blocks // depth % n == 0)
    shape: Shape = (EDGE * depth, EDGE * rows, EDGE * (blocks // depth // rows))
    return BlockGrid(shape, (EDGE, EDGE, EDGE))


@dataclass
class Watch:
    """Counts what the scheduler, which is in this process, holds while blocks finish."""

    scheduler: Any
    most_tasks: int = 0
    finished: int = 0

    def __call__(self, tomogram: str, work: str, done: int, total: int) -> None:
        """Look at the scheduler; this is the progress that a pass reports."""
        self.most_tasks = max(self.most_tasks, len(self.scheduler.tasks))
        self.finished = done


@dataclass(frozen=True)
class Spent:
    """What a pass cost the driver."""

    cpu_seconds: float
    wall_seconds: float
    bytes_grown: int
    most_tasks: int


def one_pass(folder: Path, runner: Runner, watch: Watch, grid: BlockGrid) -> Spent:
    """Run a pass that does nothing over all blocks; read no receipt."""
    context = Context(
        name="empty", source_url="", folder=Folder(str(folder)), recipe=recipe_from({}),
        colours={}, networks=(), runner=runner, progress=watch,
    )  # fmt: skip
    ledger = Ledger(Folder(str(folder / "receipts")), "segment", f"{len(grid):016}")
    gc.collect()
    process, watch.most_tasks = psutil.Process(), 0
    before, cpu, wall = process.memory_info().rss, time.process_time(), time.monotonic()
    context.run_pass(ledger, "predict", Nothing(), grid, on_device=True)
    spent = time.process_time() - cpu, time.monotonic() - wall
    gc.collect()
    assert watch.finished == len(grid)
    return Spent(*spent, process.memory_info().rss - before, watch.most_tasks)


def row(blocks: int, first: Spent, second: Spent) -> str:
    """Return a line of the table."""
    return (
        f"| {blocks:,} | {1e3 * first.cpu_seconds / blocks:.2f} | {first.wall_seconds:.1f} "
        f"| {first.bytes_grown / blocks:.1f} | {first.most_tasks} "
        f"| {second.wall_seconds:.2f}, {second.bytes_grown / blocks:.1f} bytes a block |"
    )


if __name__ == "__main__":
    main()
