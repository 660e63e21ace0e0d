"""Peak memory of driver and workers for a small and an eight times larger tomogram.

    python tests/benchmarks/memory.py FOLDER [--model MODEL]

simulates 128×512×512, tiles it to 256×1024×1024, processes both with one Dask worker, and prints
the largest resident memory of each process and the time of each stage.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import psutil

from tomoseg.core.blocks import BlockGrid
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes.mrc import MrcReader, MrcWriter


def main() -> None:
    """Make the tomograms, run, print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--model", default="shipped")
    given = parser.parse_args()
    small = given.folder / "input" / "simulated_0777.mrc"
    if not small.exists():
        subprocess.run(
            [sys.executable, "-m", "tomoseg.cli", "simulate", small.parent, "--seed", "777"],
            check=True,
        )
    large = small.with_name("tiled_0777.mrc")
    if not large.exists():
        tile(small, large)
    for path in (small, large):
        peaks, seconds = watched_run(path, given.folder / f"output_{path.stem}", given.model)
        print(f"{path.stem}: " + ", ".join(f"{k} {v / 2**20:.0f} MiB" for k, v in peaks.items()))
        print("   seconds: " + ", ".join(f"{k} {v:.1f}" for k, v in seconds.items()), flush=True)


def tile(small: Path, large: Path) -> None:
    """Write the tomogram twice along each axis, a few slices at a time."""
    with small.open("rb") as source, large.open("w+b") as target:
        reader = MrcReader(source)
        shape = tuple(2 * n for n in reader.header.sampling.shape)
        sampling = Sampling(shape, reader.header.sampling.voxel_size_angstrom)
        with MrcWriter(target, Header(sampling, "float32"), "float32", label="tiled") as writer:
            for block in BlockGrid(reader.header.sampling.shape, (16, *shape[1:])):
                voxels = np.tile(reader.read(block.write), (1, 2, 2))
                for shift in (0, shape[0] // 2):
                    wide = type(block.write)(
                        (block.write.begin[0] + shift, 0, 0),
                        (block.write.end[0] + shift, *shape[1:]),
                    )
                    writer.write(wide, voxels)


def watched_run(path: Path, output: Path, model: str) -> tuple[dict[str, int], dict[str, float]]:
    """Process one tomogram; return peak bytes of driver and worker, and seconds a stage."""
    command = [sys.executable, "-m", "tomoseg.cli", "run", path, "--output", output]
    settings = ("compute.runner=dask", "compute.workers=1", f"segment.model={model}")
    for setting in settings:
        command += ["--set", setting]
    process = psutil.Popen([str(part) for part in command], stderr=subprocess.DEVNULL)
    peaks = {"driver": 0, "worker": 0}
    while process.poll() is None:
        for kind, one in [("driver", process), *(("worker", c) for c in children(process))]:
            try:
                peaks[kind] = max(peaks[kind], one.memory_info().rss)
            except psutil.NoSuchProcess:
                continue
        time.sleep(0.05)
    if process.returncode:
        raise SystemExit(process.returncode)
    rows = json.loads((output / "session.json").read_text())["tomograms"]
    return peaks, rows[0]["seconds"]


def children(process: psutil.Process) -> list[psutil.Process]:
    """Return the processes below one; none if it has just ended."""
    try:
        return list(process.children(recursive=True))
    except psutil.NoSuchProcess:
        return []


if __name__ == "__main__":
    main()
