"""What networks learn from a few minutes of annotation: one phantom to train on, another to test.

    python tests/benchmarks/training.py FOLDER networks     [--minutes 6.7] [--only NAME]
    python tests/benchmarks/training.py FOLDER tiles        [--feature NAME]
    python tests/benchmarks/training.py FOLDER corrections  [--minutes 3]

Phantoms of seeds 4002 (trained on) and 4003 (tested on), 128×512×512 at 12 Å, are simulated if
they are not there. An annotator is simulated too: what is given to a training is cut out of the
truth of the first phantom, and no more than the table says.

networks       the same five crops of 256×512 for every network; ten positive and a hundred
               negative tiles a feature for TomoSeg's tile networks, which then compete
tiles          ten positive and a hundred negative tiles of one feature, by the defaults of
               ``architecture: tile`` and of none; seconds are of one core
corrections    a first network, five tiles where it is wrong on the first phantom, a second network
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import mrcfile
import numpy as np
import yaml
from numpy.typing import NDArray

from tomoseg.analysis.metrics import class_scores, confusion, tolerant_counts, tolerant_f1
from tomoseg.core.blocks import Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.io.stores import Folder, Volume
from tomoseg.simulation import CLASSES

Labels = NDArray[np.uint8]
TRAIN, TEST = "simulated_4002", "simulated_4003"
TILE = 64
CROPS = 5
TOLERANCE_VOXELS = 2
FOLDED = {"slices_in": 1, "slices_out": 1, "fold": 2, "widths": [32, 64, 128, 256]}
NETWORKS: Mapping[str, Mapping[str, Any]] = {
    "classic multi-slice": {"architecture": "multislice", "patch": [1, 256, 256], "batch": 4},
    "2D": {"architecture": FOLDED, "patch": [1, 256, 256], "batch": 4},
    "multi-slice": {"architecture": FOLDED | {"slices_in": 5}, "patch": [1, 256, 256], "batch": 4},
    "slab": {"architecture": "fast", "patch": [8, 128, 128], "batch": 6},
    "3D": {"architecture": "volume", "patch": [48, 96, 96], "batch": 3},
}
TILE_NETWORK = {"architecture": "tile"}


def main() -> None:
    """Make the phantoms if need be, and do what is asked."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("what", choices=("networks", "tiles", "corrections"))
    parser.add_argument("--minutes", type=float, default=6.7)
    parser.add_argument("--only", action="append")
    parser.add_argument("--feature", choices=CLASSES, default="microtubule")
    given = parser.parse_args()
    folder = given.folder.resolve()
    if not (folder / f"{TEST}.mrc").exists():
        tomoseg("simulate", folder, "--tomograms", 2, "--seed", 4002)
    if given.what == "networks":
        networks(folder, given.minutes, given.only)
    elif given.what == "tiles":
        tiles(folder, given.feature)
    else:
        corrections(folder, given.minutes)


def networks(folder: Path, minutes: float, only: Sequence[str] | None) -> None:
    """Train every network for the same time, and the tile networks for it together."""
    labels = truth(folder, TRAIN)
    save(folder / "crops.mrc", crops(labels))
    for name, settings in NETWORKS.items():
        if not only or name in only:
            annotations = [painted(folder / "crops.mrc")]
            model, seconds = trained(folder, name, annotations, settings, minutes)
            tell(name, seconds, *tested(folder, name, {"segment.model": model}))
    if not only or "tile" in only:
        rivals, spent = [], 0.0
        for feature in CLASSES:
            given = [write_tiles(folder, labels, feature)]
            settings = {**TILE_NETWORK, "classes": [feature]}
            share = minutes / len(CLASSES)
            model, seconds = trained(folder, f"tile_{feature}", given, settings, share)
            rivals.append({"model": str(model)})
            spent += seconds
        tell("tile", spent, *tested(folder, "tile", {"segment.networks": json.dumps(rivals)}))


def tiles(folder: Path, feature: str) -> None:
    """Train TomoSeg's network and the usual one on the same few tiles, with defaults alone."""
    given = [write_tiles(folder, truth(folder, TRAIN), feature)]
    for name, network in (("tile", TILE_NETWORK), ("usual", {})):
        recipe = {"annotations": given, "network": {**network, "classes": [feature]}}
        model, seconds = train(folder, f"{name}_of_{feature}", recipe)
        keys = {"segment.model": model}
        tell(f"{name}, {feature}", seconds, *tested(folder, f"{name}_of_{feature}", keys))


def corrections(folder: Path, minutes: float) -> None:
    """Correct a network where it is wrong, and train on."""
    labels = truth(folder, TRAIN)
    save(folder / "crops.mrc", crops(labels))
    first, seconds = trained(
        folder, "first", [painted(folder / "crops.mrc")], NETWORKS["multi-slice"], minutes
    )
    tell("before", seconds, *tested(folder, "first", {"segment.model": first}))
    seen = applied(folder, "first_again", TRAIN, {"segment.model": first})
    save(folder / "corrections.mrc", corrected(labels, result_of(seen)))
    recipe = {"init_from": str(first), "annotations": [painted(folder / "corrections.mrc")]}
    budget = {"steps": None, "maximum_minutes": minutes, "learning_rate": 1e-3}
    second, seconds = train(folder, "second", {**recipe, "network": budget})
    tell("after", seconds, *tested(folder, "second", {"segment.model": second}))


# What an annotator gives


def crops(labels: Labels) -> Labels:
    """Keep five crops of half a slice, chosen one by one to show a bit of every class."""
    out = np.full_like(labels, NOT_ANNOTATED)
    half = labels.shape[1] // 2
    rows = (slice(None, half), slice(half, None))
    places = [(z, each) for z in range(0, len(labels), 4) for each in rows]
    counts = [
        np.bincount(labels[place].ravel(), minlength=1 + len(CLASSES))[1:] for place in places
    ]
    free, seen = set(range(len(places))), np.zeros(len(CLASSES))
    for _ in range(CROPS):
        best = max(sorted(free), key=lambda n: np.log(100 + seen + counts[n]).sum())
        seen += counts[best]
        out[places[best]] = labels[places[best]]
        free = {n for n in free if abs(places[n][0] - places[best][0]) >= 8}
    return out


def write_tiles(folder: Path, labels: Labels, feature: str) -> dict[str, Any]:
    """Write ten positive tiles and a hundred negative ones; return the annotation."""
    rng = np.random.default_rng(1)
    mask = labels == 1 + CLASSES.index(feature)
    places = rng.permutation(np.argwhere(mask))
    positive = list(islice(tiles_at(places, mask, wanted=True), 10))
    anywhere = rng.integers(0, labels.shape, (4000, 3))
    negative = list(islice(tiles_at(anywhere, mask, wanted=False), 100))
    stem = folder / f"tiles_{feature}"
    for kind, centres in (("positives", positive), ("negatives", negative)):
        rows = "\n".join(f"{x},{y},{z}" for z, y, x in centres)
        stem.with_name(f"{stem.name}_{kind}.csv").write_text(f"x,y,z\n{rows}\n")
    masks = np.stack([mask[tile(centre)][0] for centre in positive])
    save(stem.with_name(f"{stem.name}_masks.mrc"), masks.astype(np.int8))
    return {
        "kind": "tiles",
        "tomogram": str(folder / f"{TRAIN}.mrc"),
        "positives": f"{stem}_positives.csv",
        "masks": f"{stem}_masks.mrc",
        "negatives": f"{stem}_negatives.csv",
        "classes": [feature],
    }


def tiles_at(
    centres: NDArray[np.int64], mask: NDArray[np.bool_], *, wanted: bool
) -> Iterator[NDArray[np.int64]]:
    """Yield centres of tiles that lie inside, apart from each other, with the feature or not."""
    kept: list[NDArray[np.int64]] = []
    for centre in centres:
        inside = (centre[1:] >= TILE // 2).all()
        inside &= (centre[1:] + TILE // 2 <= np.array(mask.shape[1:])).all()
        apart = all(abs(centre - other).max() >= TILE // 4 for other in kept)
        if inside and apart and bool(mask[tile(centre)].any()) == wanted:
            kept.append(centre)
            yield centre


def tile(centre: NDArray[np.int64]) -> tuple[slice, ...]:
    """Return the voxels of a tile of one slice."""
    z, *plane = (int(n) for n in centre)
    return (slice(z, z + 1), *(slice(n - TILE // 2, n + TILE // 2) for n in plane))


def corrected(labels: Labels, found: Labels, count: int = 5) -> Labels:
    """Keep the five tiles with most wrong voxels, no two of them nearer than a tile."""
    wrong = (labels != found).astype(np.int32)
    rows = wrong.shape[1] // TILE, TILE, wrong.shape[2] // TILE, TILE
    errors = wrong.reshape(len(wrong), *rows).sum(axis=(2, 4))
    out = np.full_like(labels, NOT_ANNOTATED)
    for _ in range(count):
        z, row, column = np.unravel_index(errors.argmax(), errors.shape)
        place = tile(np.array([z, (row + 0.5) * TILE, (column + 0.5) * TILE], np.int64))
        out[place] = labels[place]
        errors[max(z - TILE // 4, 0) : z + TILE // 4, row, column] = 0
    return out


def painted(labels: Path) -> dict[str, Any]:
    """Return the annotation of the first phantom by a label volume."""
    tomogram = str(labels.parent / f"{TRAIN}.mrc")
    return {"kind": "painted", "tomograms": [tomogram], "labels": str(labels)}


# Training, applying, scoring


def trained(
    folder: Path,
    name: str,
    annotations: list[dict[str, Any]],
    settings: Mapping[str, Any],
    minutes: float,
) -> tuple[Path, float]:
    """Train a network from nothing for so many minutes."""
    network = {"classes": list(CLASSES), "steps": None, "maximum_minutes": minutes, **settings}
    return train(folder, name, {"annotations": annotations, "network": network})


def train(folder: Path, name: str, recipe: Mapping[str, Any]) -> tuple[Path, float]:
    """Train by a recipe; return the model and the seconds of a core, validation included."""
    model = folder / "models" / name
    path = folder / f"{name}.yaml"
    values = {"output": str(model), **recipe}
    values["network"] = {"threads": 1, "seed": 1, **values["network"]}
    path.write_text(yaml.safe_dump(values, sort_keys=False))
    began = core_seconds()
    print(tomoseg("train", path).splitlines()[-1])
    return model, core_seconds() - began


def core_seconds() -> float:
    """Return the seconds of cores that processes took which have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def tested(
    folder: Path, name: str, keys: Mapping[str, object]
) -> tuple[dict[str, tuple[float, float]], float]:
    """Score the second phantom: class → voxel F1 and F1 within two voxels; and Mvoxel/s."""
    output = applied(folder, name, TEST, keys)
    found, true = result_of(output), truth(folder, TEST)
    classes = json.loads((output / TEST / "manifest.json").read_text())["classes"]
    told = {}
    for label, feature in enumerate(classes, start=1):
        pair = found == label, true == 1 + CLASSES.index(feature)
        exact = class_scores(confusion(*(one.astype(np.uint8) for one in pair), 1), [feature])[0].f1
        whole = Box.whole(true.shape)
        near = tolerant_f1(tolerant_counts(*pair, whole, tolerance_voxels=TOLERANCE_VOXELS))
        told[feature] = (exact, near)
    row = json.loads((output / "session.json").read_text())["tomograms"][0]
    return told, true.size / 1e6 / row["seconds"]["segment"]


def applied(folder: Path, name: str, tomogram: str, keys: Mapping[str, object]) -> Path:
    """Segment a phantom on one core; return the output."""
    output = folder / "runs" / name
    changes = {"clean": "{}", "trace": "{}", "pick": "{}", "compute.runner": "serial", **keys}
    words = [word for key, value in changes.items() for word in ("--set", f"{key}={value}")]
    tomoseg("run", folder / f"{tomogram}.mrc", "--output", output, *words)
    return output


def result_of(output: Path) -> Labels:
    """Return the labels of the only tomogram in an output."""
    (zarr,) = output.glob("*/tomogram.zarr")
    volume = Volume(Folder(str(zarr)), "labels/semantic/0")
    return np.asarray(volume.read(Box.whole(volume.shape)), np.uint8)


def truth(folder: Path, name: str) -> Labels:
    """Return the true labels of a phantom."""
    return np.asarray(mrcfile.read(folder / "truth" / f"{name}__labels.mrc"), np.uint8)


def save(path: Path, labels: NDArray[Any]) -> None:
    """Write a label volume as MRC, 255 and all."""
    with mrcfile.new(path, labels.astype(np.uint16), overwrite=True) as file:
        file.voxel_size = 12.0


def tell(name: str, seconds: float, scores: Mapping[str, tuple[float, float]], rate: float) -> None:
    """Print a row of the table."""
    print(f"{name}: trained {seconds:.0f} s, applied at {rate:.2f} Mvoxel/s")
    for feature, (exact, near) in scores.items():
        print(f"    {feature:16} {exact:.3f} / {near:.3f}", flush=True)


def tomoseg(*words: object) -> str:
    """Run a command of tomoseg and return what it prints."""
    command = [sys.executable, "-m", "tomoseg.cli", *(str(word) for word in words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


if __name__ == "__main__":
    main()
