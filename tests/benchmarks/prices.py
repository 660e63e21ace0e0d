"""What options of prediction take, beside the plain pass of the same network."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

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
