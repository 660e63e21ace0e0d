"""Scores of a model on simulations and real data that it never saw, written into its card.

    python tests/benchmarks/shipped.py MODEL FOLDER [--data DATA]

FOLDER takes simulated tomograms of five voxel sizes (seeds 6008 to 6016) and the results. DATA
holds real sets: the two patches of plastic sections with masks of microtubules, and the crop with
one microtubule, whose axis was clicked by hand. Run it on a model before it is shipped.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tifffile

from tomoseg.core.coordinates import resample
from tomoseg.io.points.tables import read_filaments_csv
from tomoseg.nets.card import load_card
from tomoseg.nets.checkpoint import save_card

VOXEL_SIZES = (8, 10, 12, 14, 16)
PATCHES = ("3_0_25_54_25", "0_0_30_47_25")
AS_IS = {"clean": "{}", "trace": "{}", "pick": "{}"}


def main() -> None:
    """Score and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--data", type=Path)
    given = parser.parse_args()
    model, folder = given.model.resolve(), given.folder.resolve()
    said: dict[str, Any] = {"simulated_f1": simulated(model, folder)}
    if given.data:
        said["real"] = {
            **{name: patch(model, folder, given.data, name) for name in PATCHES},
            "14pf_MT": axis(model, folder, given.data / "cryoet" / "microtubule_14pf"),
        }
    card = load_card(model)
    save_card(model, card.model_copy(update={"scores": card.scores | {"unseen": said}}))
    print(json.dumps(said, indent=1))


def simulated(model: Path, folder: Path) -> dict[str, dict[str, float | None]]:
    """Return the F1 of every class for every voxel size, with the usual noise and defocus."""
    scores = {}
    for size in VOXEL_SIZES:
        seed = 6000 + size
        name = folder / "simulated" / f"simulated_{seed}.mrc"
        if not name.exists():
            shape = ("--shape", "96,320,320", "--density", 3)
            tomoseg("simulate", name.parent, "--seed", seed, "--voxel-size", size, *shape)
        output = run(name, folder / "results", {"segment.model": model, **AS_IS})
        truth = name.parent / "truth" / f"{name.stem}__labels.mrc"
        rows = json.loads(tomoseg("evaluate", "--json", output / "tomogram.zarr", truth))
        scores[f"{size} Å"] = {
            key: None if row["f1"] is None else round(row["f1"], 3) for key, row in rows.items()
        }
    return scores


def patch(model: Path, folder: Path, data: Path, name: str) -> dict[str, float | None]:
    """Return the scores of microtubules in a patch of a plastic section."""
    image = data / "cryoet" / "microtubule_masks" / "imgs" / f"{name}.tif"
    mask = tifffile.imread(image.parents[1] / "masks" / f"{name}_mask.tif")
    folder.mkdir(parents=True, exist_ok=True)
    truth = folder / f"{name}_truth.tif"
    tifffile.imwrite(truth, (mask > 0).astype(np.uint8))
    keys = {"segment.model": model, "source.voxel_size_angstrom": 25, **AS_IS}
    output = run(image, folder / "results", keys)
    said = tomoseg(
        "evaluate", "--json", "--classes", "microtubule", output / "tomogram.zarr", truth
    )
    row = json.loads(said)["microtubule"]
    return {key: row[key] for key in ("precision", "recall", "f1")}


def axis(model: Path, folder: Path, data: Path) -> dict[str, float]:
    """Return how many microtubules are found in the crop, and how far the clicked points are."""
    keys = {"segment.model": model, "source.contrast": "bright"}
    output = run(data / "14pf_MT.tif", folder / "results", keys)
    lines = read_filaments_csv((output / "filaments" / "14pf_MT__microtubule.csv").read_text())
    notes = json.loads((data / "axis_points.json").read_text())["14pf_MT.tif"]
    clicked = 10 * np.array(notes["clicked_axis_points"])
    if not lines:
        return {"filaments": 0}
    found = np.concatenate([resample(line.points_angstrom, 5) for line in lines])
    away = [float(np.linalg.norm(found - point, axis=1).min()) for point in clicked]
    return {"filaments": len(lines), "mean_distance_nm": round(np.mean(away) / 10, 2)}


def run(tomogram: Path, output: Path, keys: dict[str, object]) -> Path:
    """Process a tomogram; return its folder."""
    changes = [word for key, value in keys.items() for word in ("--set", f"{key}={value}")]
    tomoseg("run", tomogram, "--output", output, *changes)
    return output / tomogram.stem


def tomoseg(*words: object) -> str:
    """Run a command of tomoseg and return what it prints."""
    command = [sys.executable, "-m", "tomoseg.cli", *(str(word) for word in words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
