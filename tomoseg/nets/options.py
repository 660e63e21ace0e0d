"""How networks are computed: one value, from the recipe down to the device."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.nets.card import ModelCard

Precision = Literal["auto", "float32", "bfloat16", "float16"]
Engine = Literal["torch", "int8"]
Mirrored = Literal[1, 4, 8]
CalibrationVolumes = Callable[[ModelCard], Iterator[NDArray[np.float32]]]


@dataclass(frozen=True)
class PredictionOptions:
    """How a network is computed; picklable, and a key to what was opened.

    Parameters
    ----------
    device
        ``"auto"`` takes the first GPU if there is one, otherwise the CPU.
    precision
        ``"auto"`` takes bfloat16 where the hardware computes in it, otherwise float16 on a GPU
        and float32 on a CPU.
    threads
        Threads of torch in this process, on a CPU.
    tta
        How many mirror images of every pass are predicted and averaged, which takes as many times
        longer: 1 is none, 4 mirrors x and y, 8 all axes.
    engine
        ``"torch"``, or ``"int8"`` on a CPU.
    calibration_volumes
        Gives the volumes, zyx, normalised as a card says, on which ``"int8"`` measures what its
        bytes stand for; nothing else needs them.
    """

    device: str = "auto"
    precision: Precision = "auto"
    threads: int = 1
    tta: Mirrored = 1
    engine: Engine = "torch"
    calibration_volumes: CalibrationVolumes | None = None
