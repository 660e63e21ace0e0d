"""What differs between runners and between block shapes, in voxels.

    python tests/benchmarks/exactness.py TOMOGRAM FOLDER [--precision float32]

processes one tomogram serially, with one and two Dask workers, and with two other block shapes,
and compares labels, objects and coordinates with the serial run.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
from pathlib import Path

import numpy as np

from tomoseg.core.blocks import Box
from tomoseg.io.stores import Folder, Volume, label_names

RUNS = {
    "serial": ("compute.runner=serial",),
    "1 worker": ("compute.runner=dask", "compute.workers=1"),
    "2 workers": ("compute.runner=dask", "compute.workers=2"),
    "blocks 64×128×128": ("blocks.shape=[64,128,128]",),
    "blocks 16×192×320": ("blocks.shape=[16,192,320]",),
}


def main() -> None:
    """Run every variant and print what differs from the first."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("tomogram", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--precision", default="auto")
    given = parser.parse_args()
    results = {}
    for name, settings in RUNS.items():
        output = given.folder / name.replace(" ", "_")
        command = [sys.executable, "-m", "tomoseg.cli", "run", str(given.tomogram)]
        command += ["--output", str(output), "--set", f"segment.precision={given.precision}"]
        for setting in settings:
            command += ["--set", setting]
        subprocess.run(command, check=True, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
        results[name] = output / given.tomogram.stem
        print(f"{name}: {compared(results['serial'], results[name])}", flush=True)


def compared(first: Path, second: Path) -> str:
    """Say what differs between two results."""
    groups = [Folder(str(path / "tomogram.zarr")) for path in (first, second)]
    said = []
    for name in label_names(groups[0]):
        a, b = (Volume(group, f"labels/{name}/0") for group in groups)
        whole = Box.whole(a.shape)
        differ = np.count_nonzero(a.read(whole) != b.read(whole))
        if differ:
            said.append(f"{name} {differ} voxels ({differ / whole.size:.2g})")
    for table in sorted(first.glob("*/*.csv")):
        other = second / table.relative_to(first)
        if table.read_bytes() != other.read_bytes():
            said.append(f"{table.name} ({rows(table)} and {rows(other)} rows)")
    return "; ".join(said) or "nothing differs"


def rows(table: Path) -> int:
    """Return the number of rows of a table."""
    return len(table.read_text().splitlines()) - 1


if __name__ == "__main__":
    main()
