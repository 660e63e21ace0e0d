"""A large tomogram through every stage on this machine: seconds and memory of each.

    python tests/benchmarks/large.py FOLDER [--shape 512,2048,2048] [--workers 2] [--keep]

tiles a simulated tomogram, mirrored from tile to tile so that seams fit, into an int8 MRC file,
runs `tomoseg run` on it with Dask workers, and twice a second looks at the memory of the driver
and of each process below it. It prints, and writes as large.md, the time and the largest memory of
each stage and what was found. RSS counts the pages of libraries that processes share for each of
them, PSS shares them out. --keep leaves the results.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.sampling import Header, Sampling, Shape, as_shape
from tomoseg.io.volumes.mrc import MrcReader, MrcWriter
from tomoseg.pipeline.stages import STAGES

NAME = "large"
SPREADS = 4.0  # int8 spans the mean ± this many standard deviations
SECONDS = 0.5


def main() -> None:
    """Make the tomogram, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--shape", type=shape_of, default=(512, 2048, 2048), help="Z,Y,X")
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--tile", type=Path, help="an MRC file instead of a simulated one")
    parser.add_argument("--set", action="append", default=[], help="a key of the recipe")
    parser.add_argument("--keep", action="store_true")
    given = parser.parse_args()
    tile = given.tile or simulated(given.folder)
    source = given.folder / f"{NAME}.mrc"
    write_tiled(tile, source, given.shape)
    output = given.folder / "output"
    shutil.rmtree(output, ignore_errors=True)
    words = [f"compute.workers={given.workers}", *given.set]
    peaks, wall = watched_run(source, output, words)
    lines = [f"{prod(given.shape) / 1e6:.0f} Mvoxel {given.shape}, {given.workers} workers", ""]
    lines += [*table(output, peaks, prod(given.shape), wall), "", *found(output)]
    print("\n".join(lines))
    (given.folder / "large.md").write_text("\n".join(lines) + "\n")
    if not given.keep:
        shutil.rmtree(output)
        source.unlink()


def shape_of(text: str) -> Shape:
    """Read "512,2048,2048"."""
    return as_shape(int(word) for word in text.split(","))


# The tomogram


def simulated(folder: Path) -> Path:
    """Return a simulated tomogram of 128×512×512 voxels, made if it is not there."""
    path = folder / "simulated_0777.mrc"
    if not path.exists():
        command = [sys.executable, "-m", "tomoseg.cli", "simulate", str(folder), "--seed", "777"]
        subprocess.run(command, check=True)
    return path


def write_tiled(tile: Path, target: Path, shape: Shape) -> None:
    """Fill a file of int8 with a tile and its mirror images, a slab of 16 slices at a time."""
    target.parent.mkdir(parents=True, exist_ok=True)
    with tile.open("rb") as source, target.open("w+b") as file:
        reader = MrcReader(source)
        sampling = reader.header.sampling
        low, scale = grey_scale(reader)
        header = Header(Sampling(shape, sampling.voxel_size_angstrom), "int8")
        with MrcWriter(file, header, "int8", label="tiled") as writer:
            for block in BlockGrid(shape, (16, *shape[1:])):
                rows = mirrored(np.arange(block.write.begin[0], block.write.end[0]), sampling, 0)
                slab = reader.read(Box((min(rows), 0, 0), (max(rows) + 1, *sampling.shape[1:])))
                grey = np.clip((slab - low) * scale, -127, 127).astype(np.int8)
                y, x = (mirrored(np.arange(shape[a]), sampling, a) for a in (1, 2))
                writer.write(block.write, grey[np.ix_(rows - min(rows), y, x)])


def mirrored(index: NDArray[np.int64], sampling: Sampling, axis: int) -> NDArray[np.int64]:
    """Return the tile's index for each of the tiled volume's: 0 1 2 2 1 0 0 1 2 …"""
    size = sampling.shape[axis]
    place = index % (2 * size)
    return np.minimum(place, 2 * size - 1 - place)


def grey_scale(reader: MrcReader) -> tuple[float, float]:
    """Return mean and scale that take grey values to ±127, from the middle slices."""
    depth, *plane = reader.header.sampling.shape
    middle = Box((depth // 2, 0, 0), (min(depth, depth // 2 + 8), *plane))
    voxels = reader.read(middle).astype(np.float64)
    return float(voxels.mean()), 127 / (SPREADS * float(voxels.std()))


# The run


@dataclass
class Peak:
    """Largest bytes seen of a kind of process in a stage."""

    rss: int = 0
    pss: int = 0

    def note(self, process: psutil.Process) -> None:
        """Look at a process, if it is still there."""
        try:
            self.rss = max(self.rss, process.memory_info().rss)
            self.pss = max(self.pss, pss(process.pid))
        except (psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            return


@dataclass
class Peaks:
    """Peaks of the driver and of the largest of the processes below it, by stage."""

    driver: dict[str, Peak] = field(default_factory=lambda: defaultdict(Peak))
    worker: dict[str, Peak] = field(default_factory=lambda: defaultdict(Peak))


def watched_run(source: Path, output: Path, settings: list[str]) -> tuple[Peaks, float]:
    """Process a tomogram on Dask workers; return peaks and wall seconds."""
    words = [word for one in ("compute.runner=dask", *settings) for word in ("--set", one)]
    command = [sys.executable, "-m", "tomoseg.cli", "run", str(source), "--output", str(output)]
    peaks, began = Peaks(), time.monotonic()
    with (output.parent / "large.log").open("wb") as log:
        process = psutil.Popen([*command, *words], stdout=log, stderr=log)
        while process.poll() is None:
            stage = stage_at_work(output / NAME)
            peaks.driver[stage].note(process)
            for child in children(process):
                peaks.worker[stage].note(child)
            time.sleep(SECONDS)
    if process.returncode:
        raise SystemExit(f"tomoseg run failed, see {output.parent / 'large.log'}")
    return peaks, time.monotonic() - began


def stage_at_work(folder: Path) -> str:
    """Return the first stage that has no record yet."""
    records = folder / ".tomoseg"
    return next((name for name in STAGES if not (records / f"{name}.json").exists()), "")


def children(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes below one; none if it has just ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


def pss(pid: int) -> int:
    """Return a process's proportional share of memory in bytes; 0 where Linux does not tell."""
    try:
        text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    except PermissionError:
        return 0
    return next((int(row.split()[1]) << 10 for row in text.splitlines() if "Pss:" in row), 0)


# The table


def table(output: Path, peaks: Peaks, voxels: int, wall: float) -> Iterator[str]:
    """Yield the lines of the table."""
    (row,) = json.loads((output / "session.json").read_text())["tomograms"]
    if row["state"] != "done":
        raise SystemExit(f"{row}")
    yield "| stage | seconds | Mvoxel/s | driver GB, RSS (PSS) | worker GB, RSS (PSS) |"
    yield "|---|---|---|---|---|"
    for stage, seconds in row["seconds"].items():
        sizes = (gigabytes(kind.get(stage)) for kind in (peaks.driver, peaks.worker))
        rate = voxels / 1e6 / max(seconds, 0.01)
        yield f"| {stage} | {seconds:.1f} | {rate:.3g} | {' | '.join(sizes)} |"
    total = sum(row["seconds"].values())
    yield f"| all stages | {total:.1f} | {voxels / 1e6 / total:.3g} | | |"
    yield f"| with start and end | {wall:.1f} | {voxels / 1e6 / wall:.3g} | | |"


def gigabytes(peak: Peak | None) -> str:
    """Return a peak in GB; a dash if the stage passed between two looks."""
    return f"{peak.rss / 1e9:.2f} ({peak.pss / 1e9:.2f})" if peak else "–"


def found(output: Path) -> Iterator[str]:
    """Yield what was found, a line a class."""
    records: dict[str, Any] = {
        stage: json.loads((output / NAME / ".tomoseg" / f"{stage}.json").read_text())["summary"]
        for stage in ("clean", "trace", "pick")
    }
    yield "| class | objects | filaments | particles |"
    yield "|---|---|---|---|"
    for name, one in records["clean"]["classes"].items():
        lines = records["trace"].get(name, {}).get("filaments", "–")
        picks = records["pick"].get(name, {}).get("particles", "–")
        yield f"| {name} | {one['objects']} | {lines} | {picks} |"


if __name__ == "__main__":
    main()
