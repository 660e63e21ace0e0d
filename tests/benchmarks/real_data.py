"""Scores on real data that others annotated, with the split that each set came with.

    python tests/benchmarks/real_data.py DATA FOLDER [--only NAME]

DATA holds the sets as they were published; FOLDER takes recipes, models, results and a picture a
set. The recipes of serial sections have no ``network``: that is what anybody gets. Only the
training slices are ever seen by a training, its choice of the best step included.

isbi2012       neuronal membranes, serial sections: train 0-14, test 15-19
mitochondria   SBEM of brain: train 0-14, test 15-19
vnc            membranes, mitochondria, synapses, serial sections: train 0-9, test 10-13
microtubules   plastic sections: train one patch, test the other
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import tifffile
import yaml
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.io.stores import Folder, Volume

matplotlib.use("Agg")
Labels = NDArray[np.uint8]
COLOURS = ["#d55e00", "#56b4e9", "#f0e442"]


@dataclass(frozen=True)
class RealSet:
    """One annotated set.

    Parameters
    ----------
    image, test_image
        Files below DATA; without the second the test slices are in the first.
    labels
        Reads DATA and returns the labels of ``image`` and of ``test_image``, zyx.
    test_from
        First test slice, where both are one file.
    voxel_angstrom
        Of the image plane.
    network
        Keys of the recipe's ``network``, where the usual one takes longer than a first look.
    """

    image: str
    labels: Callable[[Path], tuple[Labels, Labels]]
    classes: tuple[str, ...]
    voxel_angstrom: float
    test_from: int = 0
    test_image: str = ""
    network: Mapping[str, Any] = field(default_factory=dict)


def main() -> None:
    """Train and test every set, print the scores, draw the pictures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=SETS, action="append")
    given = parser.parse_args()
    for name in given.only or SETS:
        tried(name, SETS[name], given.data.resolve(), given.folder.resolve() / name)


def tried(name: str, real: RealSet, data: Path, folder: Path) -> None:
    """Train on one part of a set, apply to the other, score, draw."""
    folder.mkdir(parents=True, exist_ok=True)
    training, test = real.labels(data)
    shared = training is test
    unseen = np.arange(len(training)) >= real.test_from if shared else np.zeros(len(training), bool)
    painted, truth = training.copy(), test.copy()
    painted[unseen] = NOT_ANNOTATED
    truth[~unseen if shared else np.zeros(len(test), bool)] = NOT_ANNOTATED
    for kind, labels in (("painted", painted), ("truth", truth)):
        tifffile.imwrite(folder / f"{kind}.tif", labels)
    image = data / real.image
    recipe = {
        "input": str(image),
        "labels": "painted.tif",
        "output": "model",
        "classes": list(real.classes),
        "source": {"voxel_size_angstrom": real.voxel_angstrom},
    }
    if real.network:
        recipe["network"] = dict(real.network)
    (folder / "train.yaml").write_text(yaml.safe_dump(recipe, sort_keys=False))
    minutes = cpu_minutes(lambda: tomoseg("train", folder / "train.yaml"))
    tested = data / (real.test_image or real.image)
    scores = applied(folder, tested, real)
    print(f"{name}: trained {minutes:.1f} min of a core in this call")
    for label, row in scores.items():
        print("   ", label, " ".join(f"{k} {v:.3f}" for k, v in row.items() if k != "support"))
    (folder / "scores.json").write_text(json.dumps(scores, indent=1))
    slices = [z for z in range(len(truth)) if (truth[z] != NOT_ANNOTATED).any()]
    z = max(slices, key=lambda z: np.count_nonzero(truth[z] % NOT_ANNOTATED))
    draw(folder / "picture.png", tifffile.imread(tested)[z], truth[z], found(folder, tested, z))


def applied(folder: Path, image: Path, real: RealSet) -> dict[str, Any]:
    """Segment with the trained model and score the test slices."""
    keys = {"segment.model": folder / "model", "source.voxel_size_angstrom": real.voxel_angstrom}
    keys |= {"clean": "{}", "trace": "{}", "pick": "{}"}
    changes = [part for key, value in keys.items() for part in ("--set", f"{key}={value}")]
    tomoseg("run", image, "--output", folder / "run", *changes)
    result = folder / "run" / image.stem / "tomogram.zarr"
    said = tomoseg("evaluate", "--json", result, folder / "truth.tif")
    return dict(json.loads(said))


def cpu_minutes(work: Callable[[], object]) -> float:
    """Do something in other processes; return the minutes of a core that they took."""
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    work()
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return (after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime) / 60


def tomoseg(*words: object) -> str:
    """Run a command of tomoseg and return what it prints."""
    command = [sys.executable, "-m", "tomoseg.cli", *(str(word) for word in words)]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout


def found(folder: Path, image: Path, z: int) -> Labels:
    """Return one slice of the result."""
    volume = Volume(Folder(str(folder / "run" / image.stem / "tomogram.zarr")), "labels/semantic/0")
    _, height, width = volume.shape
    return np.asarray(volume.read(Box((z, 0, 0), (z + 1, height, width))))[0]


def draw(path: Path, image: NDArray[Any], truth: Labels, result: Labels) -> None:
    """Draw image, truth, result and what differs (orange found in vain, blue missed)."""
    from matplotlib import pyplot
    from matplotlib.colors import ListedColormap

    classes = ListedColormap(["#00000000", *COLOURS])
    missed = (truth != result) & (truth > 0) & (truth != NOT_ANNOTATED)
    vain = (truth != result) & (result > 0) & (truth != NOT_ANNOTATED)
    errors = np.select([missed, vain], [2, 1])
    figure, axes = pyplot.subplots(1, 4, figsize=(20, 5.4), layout="constrained")
    over = (None, np.where(truth == NOT_ANNOTATED, 0, truth), result, errors)
    titles = ("image", "annotation", "prediction", "errors: orange in vain, blue missed")
    for axis, labels, title in zip(axes, over, titles, strict=True):
        axis.imshow(image, cmap="gray")
        if labels is not None:
            axis.imshow(labels, cmap=classes, vmin=0, vmax=3, alpha=0.6, interpolation="nearest")
        axis.set_title(title)
        axis.axis("off")
    figure.savefig(path, dpi=60)
    pyplot.close(figure)


def isbi(data: Path) -> tuple[Labels, Labels]:
    """Membranes are 0 in the file."""
    labels = (read(data, "isbi2012/membranes_00-19.tif") == 0).astype(np.uint8)
    return labels, labels


def mitochondria(data: Path) -> tuple[Labels, Labels]:
    """Mitochondria are 1 in the file."""
    labels = read(data, "mitochondria/labels.tif").astype(np.uint8)
    return labels, labels


def vnc(data: Path) -> tuple[Labels, Labels]:
    """Three masks with soft edges; the rarer class lies above the more frequent one."""
    labels = np.zeros((14, 768, 768), np.uint8)
    for label, name in enumerate(("membranes", "mitochondria", "synapses"), start=1):
        labels[read(data, f"vnc/{name}_00-13.tif") > 127] = label
    return labels, labels


def microtubules(data: Path) -> tuple[Labels, Labels]:
    """Train on the clearer patch, test on the other."""
    folder = data / "cryoet" / "microtubule_masks" / "masks"
    masks = (tifffile.imread(folder / f"{name}_mask.tif") for name in (CLEARER, OTHER))
    first, second = (np.asarray(mask > 0, np.uint8) for mask in masks)
    return first, second


def read(data: Path, name: str) -> NDArray[Any]:
    """Read a stack of the volume EM sets."""
    return np.asarray(tifffile.imread(data / "volume_em" / name))


CLEARER, OTHER = "3_0_25_54_25", "0_0_30_47_25"
SETS = {
    "isbi2012": RealSet(
        "volume_em/isbi2012/volume_00-19.tif", isbi, ("membrane",), 40.0, test_from=15
    ),
    "mitochondria": RealSet(
        "volume_em/mitochondria/volume.tif", mitochondria, ("mitochondrion",), 100.0, test_from=15
    ),
    "vnc": RealSet(
        "volume_em/vnc/raw_00-13.tif", vnc, ("membrane", "mitochondrion", "synapse"), 46.0,
        test_from=10,
    ),
    "microtubules": RealSet(
        f"cryoet/microtubule_masks/imgs/{CLEARER}.tif", microtubules, ("microtubule",), 25.0,
        test_image=f"cryoet/microtubule_masks/imgs/{OTHER}.tif",
        network={
            "architecture": {"slices_in": 5, "slices_out": 1, "fold": 1, "widths": [24, 48, 96]},
            "patch": [1, 96, 96], "batch": 12, "steps": 500,
        },
    ),
}  # fmt: skip

if __name__ == "__main__":
    main()
