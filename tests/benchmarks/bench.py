"""What the engine does on this machine, each figure a ratio against something in the same run.

    python tests/benchmarks/bench.py FOLDER [--only NAME] [--repeats 3]

simulates a tomogram of 128×512×512 voxels in FOLDER and writes a Markdown table, bench.md, with
the machine, versions and date. Peers that are not installed are left out and named: `pip install
-c constraints.txt -e '.[bench]'`. Torch and all else run on one core unless a row says otherwise.

end-to-end    a whole session, copy to masks, against the bare network on the same core
workers       two workers against one
prices        what score maps, mirror images and int8 take, labels alone taking 1
windows       blocks with a halo against MONAI's sliding windows: time, and what seams change
scheduler     a block's share of scheduling and of the driver's memory, at 10³ and 10⁴ empty blocks
components    ours over blocks, cc3d in memory, dask-image over the same blocks
tracer        ours against a skeleton of the same mask
surfaces      membranes sampled against a mesh of the same mask
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")

import cc3d
import numpy as np
import psutil
import torch
from large import write_tiled
from numpy.typing import NDArray
from prices import prices
from rows import Row, normalised, share, timed

from tomoseg.analysis import labels
from tomoseg.analysis.filaments import ridge_points, trace, tracing_defaults, tracing_halo
from tomoseg.analysis.filaments.ridge import RidgePoints
from tomoseg.analysis.surfaces import (
    SheetPoints,
    connected_surfaces,
    sample_surfaces,
    sheet_points,
    surface_defaults,
    surface_factor,
    surface_halo,
)
from tomoseg.compute.clusters import open_cluster
from tomoseg.compute.runners import open_runner
from tomoseg.core.blocks import Block, BlockGrid, Box
from tomoseg.core.sampling import Sampling
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import PRESETS, SHIPPED, SHIPPED_ACCURATE, ModelCard, model_folder
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.recipe.recipe import DEEP_BLOCK

SEED = 777
BEFORE_REPORT = ("ingest", "segment", "clean", "trace", "pick", "sample", "export")
NAME = f"simulated_{SEED:04}"
WINDOW = (96, 96, 96)
PEERS = ("monai", "dask-image", "scikit-image", "connected-components-3d")


def main() -> None:
    """Run the benchmarks asked for and write the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", choices=BENCHMARKS, action="append")
    parser.add_argument("--repeats", type=int, default=3)
    given = parser.parse_args()
    folder = given.folder.resolve()
    torch.set_num_threads(1)
    if not (folder / f"{NAME}.mrc").exists():
        tomoseg("simulate", folder, "--seed", SEED)
    lines = [*heading(), "| what | ours | other | ratio |", "|---|---|---|---|"]
    for name in given.only or BENCHMARKS:
        try:
            for row in BENCHMARKS[name](folder, given.repeats):
                print(row, flush=True)
                lines.append(str(row))
        except ModuleNotFoundError as error:
            lines.append(f"| {name} | left out: no {error.name} | | |")
            print(lines[-1], flush=True)
    (folder / "bench.md").write_text("\n".join(lines) + "\n")
    print(f"written to {folder / 'bench.md'}")


def heading() -> list[str]:
    """Return the machine, the versions and the date."""
    text = Path("/proc/cpuinfo").read_text() if Path("/proc/cpuinfo").exists() else ""
    models = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    cpu = models[0] if models else platform.processor()
    memory = psutil.virtual_memory().total / 2**30
    packages = ("tomoseg", "torch", "dask", "zarr", *PEERS)
    return [
        f"{datetime.now(UTC):%Y-%m-%d}: {os.cpu_count()} cores of {cpu}, {memory:.0f} GiB; "
        + ", ".join(f"{name} {known(name)}" for name in packages),
        "",
    ]


def known(package: str) -> str:
    """Return a package's version, or a dash."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "–"


# The whole session


def end_to_end(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare the voxels a second of a session with those of its network alone.

    The tomogram has 64×1024×1024 voxels; the network alone has them in memory, normalised.
    """
    source = tiled(folder)
    volume = normalised(source)
    points = ("trace={}", "pick={}")
    for model, settings, what in (
        (SHIPPED, points, "shipped, copy to masks"),
        (SHIPPED, (), "shipped, lines and particles too"),
        (SHIPPED_ACCURATE, points, "shipped-accurate, copy to masks"),
    ):
        keys = (f"segment.model={model}", *settings, "compute.runner=serial")
        predictor = Predictor.open(model_folder(model), PredictionOptions(device="cpu"))
        bare, rows = [], []
        for _ in range(repeats):
            began = time.monotonic()
            predictor.predict_labels(volume, Box.whole(volume.shape))
            bare.append(time.monotonic() - began)
            rows.append(session(folder, "end_to_end", *keys, source=source)["seconds"])
        network = statistics.median(bare)
        for stages, name in ((("segment",), "segment stage"), (BEFORE_REPORT, "to masks")):
            spent = [sum(row[stage] for stage in stages) for row in rows]
            rates = [volume.size / 1e6 / seconds for seconds in spent]
            yield Row(
                f"{what}: {name}, against the bare network",
                f"{statistics.median(rates):.3g} Mvoxel/s ({min(rates):.3g}–{max(rates):.3g})",
                f"{volume.size / 1e6 / network:.3g}",
                network / statistics.median(spent),
            )


def workers(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare the segment stage on two workers with that on one, and say what blocks alone take.

    The first block of a worker loads torch and the network and takes memory that later ones find.
    """
    source = tiled(folder)
    found: dict[str, dict[int, list[float]]] = {
        what: {1: [], 2: []}
        for what in ("segment stage", "its blocks alone", "a block, but for each worker's first")
    }
    for _ in range(repeats):
        for count in (1, 2):
            keys = ("compute.runner=dask", f"compute.workers={count}", "trace={}", "pick={}")
            row = session(
                folder, "workers", *keys, f"segment.model={SHIPPED_ACCURATE}", source=source
            )
            receipts = (folder / "runs" / "workers").glob("*/.tomoseg/segment-*/predict/*/*.json")
            spent = sorted(json.loads(path.read_text())["seconds"] for path in receipts)
            warm = statistics.mean(spent[:-count])
            for seconds, figure in zip(
                found.values(),
                (row["seconds"]["segment"], sum(spent) / count, warm / count),
                strict=True,
            ):
                seconds[count].append(figure)
    for what, seconds in found.items():
        one, two = (statistics.median(seconds[count]) for count in (1, 2))
        yield Row(f"{what}, two workers against one", f"{two:.3g} s", f"{one:.3g} s", one / two)


def tiled(folder: Path) -> Path:
    """Return a tomogram of 64×1024×1024 voxels, made if it is not there."""
    path = folder / "tiled.mrc"
    if not path.exists():
        write_tiled(folder / f"{NAME}.mrc", path, (64, 1024, 1024))
    return path


def session(folder: Path, name: str, *settings: str, source: Path | None = None) -> dict[str, Any]:
    """Process a tomogram anew; return its row in session.json."""
    output = folder / "runs" / name
    subprocess.run(["rm", "-rf", str(output)], check=True)
    words = [word for setting in settings for word in ("--set", setting)]
    tomoseg("run", source or folder / f"{NAME}.mrc", "--output", output, *words)
    (row,) = json.loads((output / "session.json").read_text())["tomograms"]
    return dict(row)


# Blocks against windows


def windows(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare blocks with MONAI's windows: one 3D network, its weights and precision, one volume.

    Blocks of (128, 256, 256) with a halo of 32, as by default; windows of 96³ that overlap by half
    and are weighed by a Gaussian. The truth is the whole volume in one pass.
    """
    from monai.inferers import sliding_window_inference

    torch.manual_seed(0)
    architecture = PRESETS["volume"]
    classes = ("a", "b", "c", "d", "e", "f")
    network = build_network(architecture, len(classes)).eval()
    card = ModelCard(
        name="bench", architecture=architecture, classes=classes, colours=("#000000",) * 6,
        voxel_size_angstrom=12.0, halo=(32, 32, 32), stride=architecture.stride,
    )  # fmt: skip
    volume = np.ascontiguousarray(normalised(folder / f"{NAME}.mrc"))
    whole = Box.whole(volume.shape)
    grid = BlockGrid(volume.shape, DEEP_BLOCK, card.halo, card.stride)
    for precision in ("bfloat16", "float32"):
        run = Predictor(network, card, PredictionOptions(device="cpu", precision=precision))
        truth = run.predict_labels(volume, whole)
        image = torch.from_numpy(volume)[None, None].to(run.dtype)

        def blocks(run: Predictor = run) -> NDArray[np.uint8]:
            out = np.empty(volume.shape, np.uint8)
            for block in grid:
                out[block.write.slices] = run.predict_labels(volume[block.read.slices], block.core)
            return out

        def peer(run: Predictor = run, image: torch.Tensor = image) -> NDArray[np.uint8]:
            with torch.inference_mode():
                logits = sliding_window_inference(
                    image, WINDOW, 1, run._network, overlap=0.5, mode="gaussian"
                )
            return logits[0].max(dim=0).indices.to(torch.uint8).numpy()

        seams, others = (share(found() != truth) for found in (blocks, peer))
        (seconds, said), (spent, told) = timed(blocks, repeats), timed(peer, repeats)
        yield Row(f"3D network, {precision}, blocks against MONAI", said, told, spent / seconds)
        yield Row(
            f"voxels that seams change, {precision}", f"{seams:.2g}", f"{others:.2g}",
            others / max(seams, 1 / volume.size),
        )  # fmt: skip


# Scheduling


class Nothing:
    """The work of an empty block."""

    def __call__(self, item: Any, /) -> dict[str, Any]:
        """Do nothing."""
        return {"block": item}

    def name(self, item: Any, /) -> str:
        """Return the block's name."""
        return f"block-{item}"


def scheduler(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare scheduling of many blocks with that of a tenth as many."""
    del folder, repeats
    spent, grown = [], []
    with open_cluster(workers=1, memory_gib=2) as address, open_runner(address) as runner:
        list(runner.map(Nothing(), range(100)))
        for count in (1000, 10_000):
            process = psutil.Process()
            before, began = process.memory_info().rss, time.process_time()
            for _ in runner.map(Nothing(), range(count)):
                pass
            spent.append((time.process_time() - began) / count)
            grown.append((process.memory_info().rss - before) / count)
    few, many = spent
    yield Row(
        "driver and scheduler a block, at 10⁴ blocks and at 10³", f"{1e3 * many:.2g} CPU ms",
        f"{1e3 * few:.2g} CPU ms", few / many,
    )  # fmt: skip
    yield Row(
        "driver's memory a block, at 10⁴ blocks and at 10³", f"{grown[1]:.0f} bytes",
        f"{grown[0]:.0f} bytes", grown[1] / max(grown[0], 1),
    )  # fmt: skip


# Objects and lines


def components(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare objects over blocks with cc3d in memory and with dask-image."""
    mask = read_labels(folder)[:, :384, :384] > 0
    grid = BlockGrid(mask.shape, (32, 192, 192))

    def ours() -> int:
        tables, faces = [], {}
        for block in grid:
            volume, begin = mask[block.write.slices], block.write.begin
            part = labels.local_components(volume)
            table = labels.object_table(part, volume, begin=begin, volume_shape=mask.shape)
            tables.append(table)
            faces[block.index] = labels.faces(part)
        offsets = labels.provisional_offsets(tables)
        order = {block.index: n for n, block in enumerate(grid)}
        pairs = [
            labels.touching(faces[index], faces[other], step)
            + offsets[[order[index], order[other]]]
            for index in order
            for step in labels.directions(26)
            if (other := tuple(a + b for a, b in zip(index, step, strict=True))) in order
        ]
        return len(labels.merge(tables, np.concatenate(pairs)).table)

    seconds, said = timed(ours, repeats)
    spent, told = timed(lambda: cc3d.connected_components(mask, connectivity=26), repeats)
    count = int(cc3d.connected_components(mask, connectivity=26).max())
    assert ours() == count
    what = f"{count} objects, blocks of 32×192×192, sizes and places too"
    yield Row(f"{what}, against cc3d in memory", said, told, spent / seconds)
    import dask.array as da
    from dask_image.ndmeasure import label

    def peer() -> int:
        chunks = da.from_array(mask, chunks=(32, 192, 192))
        found, number = label(chunks, np.ones((3, 3, 3)))
        found.compute(scheduler="synchronous")
        return int(number.compute(scheduler="synchronous"))

    spent, told = timed(peer, 1)
    yield Row(f"{what}, against dask-image", said, told, spent / seconds)


def tracer(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare tracing with a skeleton of the same mask."""
    from skimage.morphology import skeletonize

    sampling = Sampling((128, 512, 512), (12.0, 12.0, 12.0))
    for label, name in ((1, "microtubule"), (2, "actin")):
        mask = read_labels(folder) == label
        settings = tracing_defaults(name)
        grid = BlockGrid(mask.shape, (64, 256, 256), tracing_halo(settings, sampling))

        def points(block: Block, mask: NDArray[np.bool_] = mask, given: Any = settings) -> Any:
            score = mask[block.read.slices].astype(np.float32)
            how = {"begin": block.read.begin, "sampling": sampling, "settings": given}
            return ridge_points(score, block.core, **how)

        def ours(name: str = name, given: Any = settings, grid: Any = grid) -> int:
            found = RidgePoints.concatenate([points(block) for block in grid])
            return len(trace(found, name=name, sampling=sampling, settings=given))

        seconds, said = timed(ours, repeats)
        spent, told = timed(lambda mask=mask: skeletonize(mask), repeats)
        rate = seconds / (mask.size / 1e6)
        what = f"{name} lines, {rate:.2g} s a Mvoxel, against a bare skeleton"
        yield Row(what, said, told, spent / seconds)


def surfaces(folder: Path, repeats: int) -> Iterator[Row]:
    """Compare sampling membranes with a mesh of the same mask, which knows no surface's side."""
    from skimage.measure import marching_cubes

    sampling = Sampling((128, 512, 512), (12.0, 12.0, 12.0))
    for label, name in ((3, "single_membrane"), (4, "double_membrane")):
        mask = read_labels(folder) == label
        settings = surface_defaults(name)
        stride = (surface_factor(settings, sampling),) * 3
        grid = BlockGrid(mask.shape, (64, 256, 256), surface_halo(settings, sampling), stride)

        def places(block: Block, mask: NDArray[np.bool_] = mask, given: Any = settings) -> Any:
            score = mask[block.read.slices].astype(np.float32)
            how = {"begin": block.read.begin, "sampling": sampling, "settings": given}
            return sheet_points(score, block.core, **how)

        def ours(name: str = name, given: Any = settings, grid: Any = grid) -> int:
            found = SheetPoints.concatenate([places(block) for block in grid])
            how = {"sampling": sampling, "settings": given}
            joined = connected_surfaces(found, **how)
            return int(sample_surfaces(joined, name=name, **how).surface.max(initial=0))

        seconds, said = timed(ours, repeats)
        spent, told = timed(lambda mask=mask: len(marching_cubes(mask, 0.5)[0]), repeats)
        rate = seconds / (mask.size / 1e6)
        what = f"{name} surfaces, {rate:.2g} s a Mvoxel, against a bare mesh's corners"
        yield Row(what, said, told, spent / seconds)


def read_labels(folder: Path) -> NDArray[np.uint8]:
    """Return the true labels."""
    import mrcfile

    return np.asarray(mrcfile.read(folder / "truth" / f"{NAME}__labels.mrc"), np.uint8)


def tomoseg(*words: object) -> None:
    """Run a command of tomoseg."""
    command = [sys.executable, "-m", "tomoseg.cli", *(str(word) for word in words)]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)


BENCHMARKS: dict[str, Callable[[Path, int], Iterator[Row]]] = {
    "end-to-end": end_to_end,
    "workers": workers,
    "prices": lambda folder, repeats: prices(folder / f"{NAME}.mrc", repeats),
    "windows": windows,
    "scheduler": scheduler,
    "components": components,
    "tracer": tracer,
    "surfaces": surfaces,
}

if __name__ == "__main__":
    main()
