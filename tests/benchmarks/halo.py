"""What a halo costs a model: voxels that blocks label otherwise than the whole volume, and time.

    python tests/benchmarks/halo.py MODEL FOLDER [--tomogram FILE] [--precision float32]
                                    [--region 32,512,512] [--block 256]

predicts the middle of a tomogram that the model never saw, whole and in blocks that reach through
all its slices, with halos from 0 to the exact one, and writes into the model's card what differs.
Without FILE a tomogram is simulated in FOLDER; the other one in the cards of the shipped models is
made by ``tomoseg simulate FOLDER --seed 778 --density 3 --shape 32,512,512``. Four blocks in a
square have as many seams to a voxel as blocks of twice their edge in an endless plane: by default
512, the usual ones.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.io.volumes.sources import open_source
from tomoseg.nets.card import HaloCost, HaloDisagreement, ModelCard, load_card
from tomoseg.nets.checkpoint import save_card
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor

Precision = Literal["bfloat16", "float32"]

SEED = 777
NAME = f"simulated_{SEED:04}"
HALOS = (0, 16, 32, 48, 64, 80, 96)
PRECISIONS: tuple[Precision, ...] = ("bfloat16", "float32")


def main() -> None:
    """Measure, print the table and write the card."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model", type=Path)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tomogram", type=Path)
    parser.add_argument("--precision", choices=PRECISIONS, action="append")
    parser.add_argument("--region", default="32,512,512")
    parser.add_argument("--block", type=int, default=256)
    given = parser.parse_args()
    tomogram = given.tomogram or simulated(given.folder)
    region = as_shape(int(size) for size in given.region.split(","))
    volume = normalised(tomogram, load_card(given.model), region)
    grid = BlockGrid(region, (region[0], given.block, given.block))
    for precision in given.precision or PRECISIONS:
        predictor = Predictor.open(
            given.model, PredictionOptions(device="cpu", precision=precision)
        )
        found = HaloDisagreement(
            tomogram=tomogram.stem,
            precision=precision,
            shape=region,
            block_shape=grid.block_shape,
            costs=measured(predictor, volume, grid),
        )
        print(found.tomogram, precision, *found.costs, sep="\n  ", flush=True)
        write(given.model, found)


def write(model: Path, found: HaloDisagreement) -> None:
    """Put a measurement into the card, in place of an older one of the same."""
    card = load_card(model)
    same = (found.tomogram, found.precision)
    others = [m for m in card.halo_disagreement if (m.tomogram, m.precision) != same]
    save_card(model, card.model_copy(update={"halo_disagreement": (*others, found)}))


def simulated(folder: Path) -> Path:
    """Return a simulated tomogram of a seed outside every training."""
    place = folder / f"{NAME}.mrc"
    if not place.exists():
        words = (sys.executable, "-m", "tomoseg.cli", "simulate", folder, "--seed", str(SEED))
        subprocess.run(words, check=True)
    return place


def normalised(tomogram: Path, card: ModelCard, region: Shape) -> NDArray[np.float32]:
    """Return the middle of a tomogram as the network sees it, with the whole one's statistics."""
    with open_source(str(tomogram)) as source:
        sampling = source.header.sampling
        voxels = source.read(Box.whole(sampling.shape))
    moments = intensity.moments(voxels)
    bins = intensity.Bins.for_tomogram(moments, voxels.dtype)
    statistics = intensity.Statistics.of(moments, bins, intensity.histogram(voxels, bins))
    begin = as_shape((np.array(sampling.shape) - region) // 2)
    middle = Box(begin, as_shape(np.add(begin, region)))
    steps = intensity.parse_steps(card.intensity)
    return intensity.prepare(steps, statistics).apply(voxels, sampling)[middle.slices]


def measured(
    predictor: Predictor, volume: NDArray[np.float32], grid: BlockGrid
) -> tuple[HaloCost, ...]:
    """Return what each halo costs, the exact one last."""
    whole = predictor.predict_labels(volume, Box.whole(grid.shape))
    exact = predictor.card.architecture.receptive_halo[2]
    halos = [halo for halo in HALOS if halo < exact] + [exact]
    found = {halo: blockwise(predictor, volume, grid, halo) for halo in halos}
    slowest = found[exact][1]
    return tuple(
        HaloCost(
            halo=halo,
            voxels=float((labels != whole).mean()),
            foreground=float((labels != whole).sum() / np.count_nonzero(labels | whole)),
            time_ratio=round(seconds / slowest, 3),
        )
        for halo, (labels, seconds) in found.items()
    )


def blockwise(
    predictor: Predictor, volume: NDArray[np.float32], grid: BlockGrid, halo: int
) -> tuple[NDArray[np.uint8], float]:
    """Predict block by block; return labels, uint8, and seconds of the processor."""
    card = predictor.card
    labels = np.empty(grid.shape, np.uint8)
    begin = time.process_time()
    margin = card.architecture.halo(halo)
    for block in BlockGrid(grid.shape, grid.block_shape, margin, card.stride):
        part = volume[block.read.slices]
        labels[block.write.slices] = predictor.predict_labels(part, block.core)
    return labels, time.process_time() - begin


if __name__ == "__main__":
    main()
