"""The tracer on score maps whose lines are known, beside a skeleton of the same masks (skan).

    python tests/benchmarks/tracing.py FOLDER [--only CASE] [--data DATA]

The score maps are those of an experiment that compared ways to trace: 160×480×480 voxels of 12 Å
with 60 to 90 filaments, among them bundles at 35 to 50 nm, crossings at 0.7 to 1.15 diameters and
gaps of 10 to 40 nm; blobs, sheets of membrane, a blur along z and correlated noise. Torn
sheets end sharply around each line, so that their rims are as straight as filaments. Each case adds
its rows to FOLDER/tracing.json; FOLDER/tracing.md is the table of all that are there. DATA holds
real sets: two patches with masks, a crop with clicked points, template-matching picks, a spindle.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from dataclasses import asdict
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
from numpy.typing import NDArray
from score_maps import VOXEL_ANGSTROM, Case, drawn

from tomoseg.analysis.filaments import (
    RidgePoints,
    TracingSettings,
    ridge_points,
    trace,
    tracing_halo,
    working_factor,
)
from tomoseg.analysis.metrics import score_filaments
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.coordinates import Filament
from tomoseg.core.sampling import Sampling

BLOCK = (160, 240, 240)
MASK_THRESHOLD = 0.5
COLUMNS = (
    "f1", "precision", "recall", "splits", "merges", "missed", "false",
    "position_rms_angstrom", "position_rms_radii",
    "direction_rms_degrees", "direction_median_degrees", "direction_p95_degrees",
)  # fmt: skip


CASES = {
    "microtubule-base": Case(),
    "microtubule-noise": Case(noise=1.7),
    "microtubule-hollow": Case(hollow=True),
    "actin-base": Case("actin"),
    "actin-noise": Case("actin", noise=1.7),
    "actin-torn-sheets": Case("actin", torn=True),
}


def main() -> None:
    """Run the cases asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=CASES, action="append")
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    given.folder.mkdir(parents=True, exist_ok=True)
    path = given.folder / "tracing.json"
    said = json.loads(path.read_text()) if path.exists() else {}
    for name in given.only or CASES:
        said[name] = compared(CASES[name])
        print(json.dumps({name: said[name]}, indent=1), flush=True)
        path.write_text(json.dumps(said, indent=1))
    (given.folder / "tracing.md").write_text(table(said))


def compared(case: Case) -> dict[str, Any]:
    """Trace a score map both ways; return the scores and the time of each."""
    lines, score = drawn(case)
    truth = [Filament(case.name, i, VOXEL_ANGSTROM * line) for i, line in enumerate(lines, 1)]
    said: dict[str, Any] = {"filaments": len(truth)}
    for way, work in (("ours", ridges), ("skan", skeleton)):
        began = time.process_time()
        found = work(score, case)
        seconds = time.process_time() - began
        result = score_filaments(found, truth, tolerance_angstrom=case.settings.radius_angstrom)
        said[way] = {
            "found": len(found),
            "seconds_per_mvoxel": seconds / (score.size / 1e6),
            **{key: asdict(result)[key] for key in COLUMNS},
        }
    return said


def table(said: dict[str, Any]) -> str:
    """Return the rows of all cases as Markdown."""
    heads = ["case", "by", "found", "s/Mvoxel", *COLUMNS]
    lines = [f"| {' | '.join(heads)} |", "|" + "---|" * len(heads)]
    for name, rows in said.items():
        for way in ("ours", "skan"):
            if way in rows:
                row = rows[way]
                number = f"{row['found']} of {rows['filaments']}"
                values = [f"{row[key]:.3g}" for key in ("seconds_per_mvoxel", *COLUMNS)]
                lines.append(f"| {' | '.join([name, way, number, *values])} |")
    return "\n".join(lines) + "\n"


# Two ways to trace


def ridges(score: NDArray[np.float32], case: Case) -> list[Filament]:
    """Trace with tomoseg, in blocks."""
    sampling = Sampling(score.shape, (VOXEL_ANGSTROM,) * 3)
    return traced(score, sampling, case.settings, case.name)


def traced(
    score: NDArray[np.float32], sampling: Sampling, settings: TracingSettings, name: str
) -> list[Filament]:
    """Find ridges block by block and follow them."""
    factor = working_factor(settings, sampling)
    grid = BlockGrid(score.shape, BLOCK, tracing_halo(settings, sampling), (factor,) * 3)
    parts = [
        ridge_points(
            score[block.read.slices], block.core,
            begin=block.read.begin, sampling=sampling, settings=settings,
        )
        for block in grid
    ]  # fmt: skip
    points = RidgePoints.concatenate(parts)
    return trace(points, name=name, sampling=sampling, settings=settings)


def skeleton(score: NDArray[np.float32], case: Case) -> list[Filament]:
    """Trace the branches of a skeleton that are as long as a filament must be."""
    from skan import Skeleton
    from skimage.morphology import skeletonize

    thin = skeletonize(score > MASK_THRESHOLD)
    graph = Skeleton(thin.astype(np.uint8), spacing=VOXEL_ANGSTROM)
    shortest = case.settings.minimum_length_angstrom
    long = np.flatnonzero(graph.path_lengths() >= shortest)
    return [
        Filament(case.name, number, VOXEL_ANGSTROM * graph.path_coordinates(branch).astype(float))
        for number, branch in enumerate(long, start=1)
    ]


if __name__ == "__main__":
    main()
