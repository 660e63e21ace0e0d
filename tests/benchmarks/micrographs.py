"""Particles picked on real micrographs, learned from the centres on one of them.

    python tests/benchmarks/micrographs.py DATA FOLDER

DATA holds three apoferritin micrographs (PNG, 1.5 Å a pixel) and tables of their centres; FOLDER
takes the model, the results, the scores and a picture a micrograph. One micrograph is trained on,
two are tested; neither the training's recipe nor the run's says anything of network or picking.

A pick is a hit within half a radius of a centre, one to one. Centres marked as cut by the border
count on neither side: not as missed, and picks on them or elsewhere within a radius of the border
are not false unless they hit a centre that counts.
"""

from __future__ import annotations

import argparse
import csv
import json
import time
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from scipy.spatial import cKDTree

from tomoseg.analysis.metrics import score_particles
from tomoseg.analysis.particles import near_border
from tomoseg.core.coordinates import Particles, Points
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.tables import read_particles_csv
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from
from tomoseg.training.recipe import train_from, training_recipe

matplotlib.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.patches import Circle

TRAINED, TESTED = "apoferritin_04.33.57", ("apoferritin_03.13.02", "apoferritin_05.24.39")
CLASS = "apoferritin"
PIXEL_ANGSTROM = 1.5
RADIUS_ANGSTROM = 60.0
TOLERANCE_ANGSTROM = RADIUS_ANGSTROM / 2
SOURCE = {"voxel_size_angstrom": PIXEL_ANGSTROM}
COLOURS = {"hit": "#2ca02c", "false": "#d62728", "missed": "#ffbf00", "not counted": "#7f7f7f"}


def main() -> None:
    """Train, pick, score and draw."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    given = parser.parse_args()
    data, folder = given.data.resolve(), given.folder.resolve()
    began = time.process_time()
    train(data, folder)
    print(f"trained in {time.process_time() - began:.0f} s of a core")
    scores = {}
    for name in (TRAINED, *TESTED):
        began = time.process_time()
        found = picked(data / f"{name}.png", folder)
        seconds = time.process_time() - began
        outcome = Outcome.of(found, *centres(data, name))
        scores[name] = {**outcome.scores, "seconds": seconds}
        part = "trained on" if name == TRAINED else "tested"
        print(f"{name} ({part})", {key: round(value, 3) for key, value in scores[name].items()})
        outcome.draw(data / f"{name}.png", folder / f"{name}.png")
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))


def train(data: Path, folder: Path) -> None:
    """Train on all centres of one micrograph, also those that the border cuts."""
    points = {
        "kind": "points",
        "tomograms": str(data / f"{TRAINED}.png"),
        "table": "{folder}/{name}_centres.csv",
        "class": CLASS,
        "radius_angstrom": RADIUS_ANGSTROM,
    }
    values = {"output": str(folder / "model"), "annotations": [points], "source": SOURCE}
    train_from(training_recipe({**values, "classes": [CLASS]}))


def picked(image: Path, folder: Path) -> Points:
    """Return the picks of a micrograph, shape (n, 3), zyx, Å."""
    output = folder / "run" / image.stem
    recipe = {
        "session": {"input": str(image), "output": str(output)},
        "source": SOURCE,
        "segment": {"model": str(folder / "model")},
        "compute": {"runner": "serial"},
    }
    run_session(plan_session(recipe_from(recipe)), lambda *_: None)
    table = output / image.stem / f"particles/{image.stem}__{CLASS}.csv"
    return np.concatenate(
        [np.empty((0, 3)), *(p.points_angstrom for p in read_particles_csv(table.read_text()))]
    )


def centres(data: Path, name: str) -> tuple[Points, Points, Sampling]:
    """Return the centres that count and those at the border, zyx, Å, and the micrograph's grid."""
    with Image.open(data / f"{name}.png") as image:
        grid = Sampling((1, image.height, image.width), (PIXEL_ANGSTROM,) * 3)
    with (data / f"{name}_centres.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    points = np.array([(0, float(row["y_px"]), float(row["x_px"])) for row in rows])
    is_cut = np.array([row["kind"] == "edge" for row in rows])
    angstrom = grid.to_angstrom(points)
    return angstrom[~is_cut], angstrom[is_cut], grid


@dataclass(frozen=True, eq=False)
class Outcome:
    """Picks and centres that count, and picks that do not; each (n, 3), zyx, Å."""

    found: Points
    truth: Points
    not_counted: Points

    @classmethod
    def of(cls, found: Points, truth: Points, edge: Points, grid: Sampling) -> Outcome:
        """Leave out what concerns the border."""
        hits = near(found, truth)
        counted = hits | ~(near(found, edge) | near_border(found, grid, RADIUS_ANGSTROM))
        return cls(found[counted], truth, found[~counted])

    @property
    def scores(self) -> dict[str, float]:
        """Precision, recall, F1, and the distance of hits from their centres."""
        found, truth = (Particles.at(CLASS, points) for points in (self.found, self.truth))
        score = score_particles(found, truth, tolerance_angstrom=TOLERANCE_ANGSTROM)
        return {
            "picks": len(found),
            "centres": len(truth),
            "precision": score.precision,
            "recall": score.recall,
            "f1": score.f1,
            "rms_pixels": score.position_rms_angstrom / PIXEL_ANGSTROM,
        }

    def draw(self, image: Path, picture: Path) -> None:
        """Draw a circle for each pick and for each centre that was missed."""
        with Image.open(image) as opened:
            pixels = np.asarray(opened, np.float32)
        low, high = np.percentile(pixels, (1, 99))
        hits = near(self.found, self.truth)
        circles = {
            "hit": self.found[hits],
            "false": self.found[~hits],
            "missed": self.truth[~near(self.truth, self.found)],
            "not counted": self.not_counted,
        }
        figure = plt.figure(figsize=(9, 9 * pixels.shape[0] / pixels.shape[1]), dpi=120)
        axes = figure.add_axes((0, 0, 1, 1))
        axes.imshow(pixels, cmap="gray", vmin=low, vmax=high)
        axes.set_axis_off()
        for kind, points in circles.items():
            for _, y, x in points / PIXEL_ANGSTROM:
                radius = RADIUS_ANGSTROM / PIXEL_ANGSTROM
                axes.add_patch(Circle((x, y), radius, fill=False, lw=1.5, ec=COLOURS[kind]))
        figure.savefig(picture)
        plt.close(figure)


def near(points: Points, others: Points) -> NDArray[np.bool_]:
    """Tell which points lie within the tolerance of any other."""
    if not len(others):
        return np.zeros(len(points), bool)
    return np.asarray(cKDTree(others).query(points)[0] <= TOLERANCE_ANGSTROM)


if __name__ == "__main__":
    main()
