"""What computes a network's passes: torch's operations, one after the other, or something faster.

``int8`` is in :mod:`tomoseg.nets.int8`.

A compiled pass fuses what stands between convolutions: fewer trips to memory, the same sums, and
with the shipped networks on a CPU the same labels. It is compiled once for every shape of a pass
and kept in a folder of the user's, so that other workers and later sessions load it. Which shapes
there are follows from the blocks:

    |0        512       1024|      cores of 512, halo 94, stride 16, along y or x
    |0 . . . . . 608|              read boxes are clipped at the border, so that both ends
              |416 . . . 1024|     have one shape, 608, and all blocks between another, 704

So a tomogram whose size is a multiple of the blocks' has one shape for two blocks along an axis,
two for more, and at most four along both; another size adds one an axis, nine in all. The default
blocks of a 2D network hold whole slices, which have one shape. Those of a 3D network have 12 in
1000×1024×1024 voxels and 27 in 300×928×960: one shape for all, reads at the border shifted inward,
would be 1.4 and 1.8 times the voxels, for ever, where compiling takes 15 CPU seconds a shape, once.
A pass for any shape (``dynamic=True``) took 1.3 times as long as torch's own operations.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path
from stat import S_IWOTH
from sysconfig import get_path
from typing import Any, get_args

import torch
from torch import Tensor

from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.nets.architecture import SegmentationNetwork
from tomoseg.nets.byte_lines import byte_lines
from tomoseg.nets.card import ModelCard
from tomoseg.nets.int8 import check_int8, int8_network
from tomoseg.nets.options import Engine, PredictionOptions

# Of one process: labels with and without score maps, of some tomograms' sizes. Beyond, it is an
# error: torch would silently go on uncompiled.
MOST_SHAPES = 256
CACHE_VARIABLE = "TORCHINDUCTOR_CACHE_DIR"
_EAGER = "or set segment.engine: torch"


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
    engine, volumes = options.engine, options.calibration_volumes
    check_engine(engine)
    if engine == "int8":
        if volumes is None:
            raise RequestError("engine int8 needs calibration_volumes")
        if next(network.parameters()).device.type != "cpu":
            raise RequestError(
                "engine int8 computes on a CPU alone",
                remedy="Set segment.engine: torch, or compute.device: cpu.",
            )
        return int8_network(
            network, byte_lines(network, card, volumes, user_cache() / "int8"), dtype
        )
    if engine == "torch":
        return network
    from torch._dynamo import config

    config.recompile_limit = MOST_SHAPES
    config.fail_on_recompile_limit_hit = True
    return CompiledNetwork(network)


def check_engine(engine: Engine) -> None:
    """Tell before any work whether this machine can compute with an engine.

    Raises
    ------
    RequestError
        If there is no such engine.
    ResourceError
        If it needs a compiler, Python's headers, a folder or a processor that are not there.
    """
    if engine not in get_args(Engine):
        raise RequestError(f"engine {engine!r} is none of {get_args(Engine)}")
    if engine == "compiled":
        cache_folder()
        _check_compiler()
    if engine == "int8":
        check_int8("Set segment.engine: torch.")


def _check_compiler() -> None:
    from torch._inductor.cpp_builder import get_cpp_compiler
    from torch._inductor.exc import InvalidCxxCompiler

    try:
        get_cpp_compiler()
    except InvalidCxxCompiler as error:
        raise ResourceError(
            "engine compiled needs a C++ compiler, and there is none here",
            remedy=f"Install g++ or point CXX at a compiler, {_EAGER}.",
        ) from error
    header = Path(get_path("include")) / "Python.h"
    if not header.exists():
        raise ResourceError(
            f"engine compiled needs Python's headers, and there is no {header}",
            remedy=f"Install python3-dev, {_EAGER}.",
        )


def cache_folder() -> Path:
    """Return the folder of compiled passes, and make it: only this user may write there.

    What lies in it is run, so it is not in a folder that others can write to, as torch's own
    choice is. ``TORCHINDUCTOR_CACHE_DIR`` names another.

    Raises
    ------
    ResourceError
        If it cannot be made, or belongs to somebody else.
    """
    folder = Path(os.environ.setdefault(CACHE_VARIABLE, str(user_cache() / "compiled")))
    remedy = f"Set {CACHE_VARIABLE} to a folder that you alone can write to, {_EAGER}."
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        status = folder.stat()
    except OSError as error:
        raise ResourceError(
            f"engine compiled cannot keep what it compiles: {error}", remedy=remedy
        ) from error
    if status.st_uid != os.getuid() or status.st_mode & S_IWOTH:
        raise ResourceError(
            f"engine compiled would run what others may write into {folder}", remedy=remedy
        )
    return folder


def user_cache() -> Path:
    """Return the folder of what this user's workers need not find twice; it may not be there."""
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "tomoseg"


class CompiledNetwork(SegmentationNetwork):
    """A network whose passes are compiled, for each shape at its first.

    Parameters
    ----------
    network
        In evaluation mode, on its device, in its precision.
    """

    def __init__(self, network: SegmentationNetwork) -> None:
        super().__init__(network.architecture)
        # With threads of its own the compiler would outnumber the cores that workers share.
        options: dict[str, Any] = {"compile_threads": 1}
        self._forward = torch.compile(network.forward, dynamic=False, options=options)
        self._maps = torch.compile(network.maps, dynamic=False, options=options)

    def forward(self, image: Tensor) -> Tensor:
        """Return logits as :meth:`SegmentationNetwork.forward` says."""
        return self._forward(image)

    def maps(self, image: Tensor, channels: Sequence[int] = ()) -> Tensor:
        """Return bytes as :meth:`SegmentationNetwork.maps` says."""
        return self._maps(image, tuple(channels))
