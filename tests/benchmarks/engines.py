"""What engines and options of prediction take, beside the plain pass of the same network."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from rows import Row, normalised, share, timed

from tomoseg.core.blocks import Box
from tomoseg.nets.card import SHIPPED, SHIPPED_ACCURATE, model_folder
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.simulation.calibration import calibration_volumes

PRICED: dict[str, tuple[dict[str, Any], tuple[int, ...]]] = {
    "one score map": ({}, (1,)),
    "six score maps": ({}, (1, 2, 3, 4, 5, 6)),
    "tta 4": ({"tta": 4}, ()),
    "tta 8": ({"tta": 8}, ()),
    "int8": ({"engine": "int8"}, ()),
    "int8, six score maps": ({"engine": "int8"}, (1, 2, 3, 4, 5, 6)),
}


def prices(path: Path, repeats: int, *, slices: int = 64) -> Iterator[Row]:
    """Compare options with labels alone, in bfloat16 where the processor has it."""
    volume = normalised(path)[:slices, :512, :512]
    whole = Box.whole(volume.shape)
    for model in (SHIPPED, SHIPPED_ACCURATE):
        folder = model_folder(model)
        plain = Predictor.open(folder, PredictionOptions(device="cpu"))
        expected = plain.predict_labels(volume, whole)
        spent, told = timed(lambda p=plain: p.predict_labels(volume, whole), repeats)
        for name, (options, channels) in PRICED.items():
            other = Predictor.open(
                folder, PredictionOptions("cpu", calibration_volumes=calibration_volumes, **options)
            )
            found = other.predict_maps(volume, whole, channels)[0]
            seconds, said = timed(
                lambda p=other, c=channels: p.predict_maps(volume, whole, c), repeats
            )
            what = f"{model}, {name}, {share(found != expected):.2g} of labels differ"
            yield Row(what, said, told, seconds / spent)


def engines(path: Path, repeats: int) -> Iterator[Row]:
    """Compare compiled passes with torch's operations one after the other."""
    volume = normalised(path)[:32]
    whole = Box.whole(volume.shape)
    for model in (SHIPPED, SHIPPED_ACCURATE):
        eager = Predictor.open(model_folder(model), PredictionOptions(device="cpu"))
        expected = eager.predict_labels(volume, whole)
        spent, told = timed(lambda p=eager: p.predict_labels(volume, whole), repeats)
        with tempfile.TemporaryDirectory() as cache:
            os.environ["TORCHINDUCTOR_CACHE_DIR"] = cache
            setups = []
            for _ in ("cold", "cached"):
                torch.compiler.reset()
                compiled = Predictor.open(
                    model_folder(model), PredictionOptions(device="cpu", engine="compiled")
                )
                began = sum(os.times()[:4])
                found = compiled.predict_labels(volume, whole)
                setups.append(sum(os.times()[:4]) - began)
            seconds, said = timed(lambda p=compiled: p.predict_labels(volume, whole), repeats)
        changed = share(found != expected)
        rate = volume.size / 1e6 / seconds
        what = f"{model}, compiled, {rate:.3g} Mvoxel/s, {changed:.2g} of labels differ"
        yield Row(what, said, told, spent / seconds)
        cold, cached = (max(setup - seconds, 0) for setup in setups)
        what = f"{model}, CPU seconds to compile a shape, from the cache against from nothing"
        yield Row(what, f"{cached:.2g} s", f"{cold:.2g} s", cold / max(cached, 0.01))
