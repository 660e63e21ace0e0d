"""What computes a network's passes: torch's own operations, or bytes (:mod:`tomoseg.nets.int8`)."""

from __future__ import annotations

import os
from pathlib import Path
from typing import get_args

import torch

from tomoseg.core.errors import RequestError
from tomoseg.nets.architecture import SegmentationNetwork
from tomoseg.nets.byte_lines import byte_lines
from tomoseg.nets.card import ModelCard
from tomoseg.nets.int8 import check_int8, int8_network
from tomoseg.nets.options import Engine, PredictionOptions


def with_engine(
    network: SegmentationNetwork, options: PredictionOptions, card: ModelCard, dtype: torch.dtype
) -> SegmentationNetwork:
    """Return a network as an engine computes it.

    Parameters
    ----------
    network
        In evaluation mode on its device, its norms folded, in ``dtype``; for int8 in float32, on
        the CPU.
    options
        Its engine is one of those of :func:`check_engine`, which raises if something is missing.
    card
        The network's card.
    dtype
        In which numbers are computed that are not bytes.

    Raises
    ------
    RequestError
        If the network is on a device where the engine does not compute, or it needs volumes that
        were not given.
    """
    volumes = options.calibration_volumes
    check_engine(options.engine)
    if options.engine == "torch":
        return network
    if volumes is None:
        raise RequestError("engine int8 needs calibration_volumes")
    if next(network.parameters()).device.type != "cpu":
        raise RequestError(
            "engine int8 computes on a CPU alone",
            remedy="Set segment.engine: torch, or compute.device: cpu.",
        )
    return int8_network(network, byte_lines(network, card, volumes, user_cache() / "int8"), dtype)


def check_engine(engine: Engine) -> None:
    """Tell before any work whether this machine can compute with an engine.

    Raises
    ------
    RequestError
        If there is no such engine.
    ResourceError
        If it needs a processor that is not there.
    """
    if engine not in get_args(Engine):
        raise RequestError(f"engine {engine!r} is none of {get_args(Engine)}")
    if engine == "int8":
        check_int8("Set segment.engine: torch.")


def user_cache() -> Path:
    """Return the folder of what this user's workers need not find twice; it may not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tomoseg"
