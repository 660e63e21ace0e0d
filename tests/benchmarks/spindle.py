"""What the tracer finds in the spindle tomogram, against the three lines that came with it.

    python tests/benchmarks/spindle.py DATA

DATA holds the shared real data. The volume is 256×256×8 voxels of 92.8 Å, so that a microtubule is
2.7 voxels thick, and its three lines have two to four corners, all in one plane. The evidence is
made without a network: what is brighter, or darker, than its surroundings. Chance is told by the
same lines mirrored, which lie on nothing.

No tracer can be judged by these lines: straight from corner to corner they run through chromosomes
and vesicles, one turns by 97° at a point, and the volume is along them as it is anywhere
(``evidence_on_lines`` beside ``evidence_anywhere``). They show that the files are read.
"""

from __future__ import annotations

import argparse
import json
import re
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from tracing import traced

from tomoseg.analysis.filaments import tracing_defaults
from tomoseg.analysis.metrics import score_filaments
from tomoseg.core.coordinates import Filament, resample
from tomoseg.core.sampling import Sampling

TOLERANCE_ANGSTROM = 250.0


def main() -> None:
    """Trace and score."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    folder = parser.parse_args().data / "cryoet" / "spindle"
    volume, sampling = read_volume((folder / "am3D.am").read_bytes())
    truth = read_lines((folder / "am3D.CorrelationLines.am").read_text())
    width = sampling.voxel_size_angstrom[2] * (sampling.shape[2] - 1)
    mirrored = [
        replace(line, points_angstrom=line.points_angstrom * [1, 1, -1] + [0, 0, width])
        for line in truth
    ]
    said = {}
    for name, sign in (("bright", 1), ("dark", -1)):
        score = evidence(sign * volume)
        found = traced(score, sampling, tracing_defaults("microtubule"), name)
        places = [sampling.to_voxels(resample(line.points_angstrom, 50.0)) for line in truth]
        along = ndimage.map_coordinates(score, np.concatenate(places).T, order=1)
        scores = [
            score_filaments(found, lines, tolerance_angstrom=TOLERANCE_ANGSTROM)
            for lines in (truth, mirrored)
        ]
        said[name] = {
            "found": len(found),
            "length_um": round(sum(line.length_angstrom for line in found) / 1e4, 2),
            "recall": round(scores[0].recall, 3),
            "missed": scores[0].missed,
            "recall_of_mirrored": round(scores[1].recall, 3),
            "evidence_on_lines": round(float(along.mean()), 3),
            "evidence_anywhere": round(float(score.mean()), 3),
        }
    print(json.dumps(said, indent=1))


def evidence(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return 0..1: how far a voxel stands out of what is around it, up to three deviations."""
    fine = ndimage.gaussian_filter(volume, 0.7) - ndimage.gaussian_filter(volume, 4)
    return np.clip(fine / (3 * fine.std()), 0, 1)


def read_volume(content: bytes) -> tuple[NDArray[np.float32], Sampling]:
    """Read the bytes of an AmiraMesh lattice; its bounding box joins the centres of voxels."""
    x, y, z = map(int, re.search(rb"define Lattice (\d+) (\d+) (\d+)", content).groups())
    box = re.search(rb"\n\s*BoundingBox ([^,]+),", content).group(1).split()
    low, high = np.array(box, float).reshape(3, 2)[::-1].T
    size = (high - low) / (np.array([z, y, x]) - 1)
    begin = content.rindex(b"\n@1\n") + 4
    voxels = np.frombuffer(content, np.uint8, z * y * x, begin).reshape(z, y, x)
    return voxels.astype(np.float32), Sampling((z, y, x), tuple(size), tuple(low))


def read_lines(text: str) -> list[Filament]:
    """Read the edges of an AmiraMesh spatial graph, Å, zyx; points that repeat are left out."""
    counts, points = (
        np.array(re.search(rf"\n@{n}\n([-+\de. \n]+)", text).group(1).split(), float)
        for n in (3, 4)
    )
    ends = np.cumsum(counts.astype(int))[:-1]
    lines = []
    for number, line in enumerate(np.split(points.reshape(-1, 3)[:, ::-1], ends), start=1):
        moved = np.append(True, np.abs(np.diff(line, axis=0)).max(axis=1) > 0)
        lines.append(Filament("line", number, line[moved]))
    return lines


if __name__ == "__main__":
    main()
