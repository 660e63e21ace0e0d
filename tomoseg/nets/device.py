"""Where passes are computed: all that differs between a CPU and a GPU.

    thread 1   read ─ pin ─ copy ─ compute ─────── copy back ─ write
    thread 2            read ─ pin ─ copy ─ (waits) ─ compute ─────── copy back ─ write

On a GPU the voxels arrive as they are stored, are normalised there, and leave as bytes; copies run
on a stream of their own, through pinned memory that torch keeps for the next block, while another
block is computed. Two blocks are on the device at once, one computed and one that arrives.

What a CPU computes, and every order of calls below, is tested; no GPU ever ran it. CUDA graphs are
left out on paper: a pass takes milliseconds, its launches some hundred microseconds.
"""

from __future__ import annotations

import contextlib
import ctypes
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, Protocol, get_args

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tomoseg.analysis.intensity import ClipScale, Normaliser
from tomoseg.core.errors import ModelError, RequestError
from tomoseg.nets.options import Precision

Results = Callable[[], NDArray[Any]]
"""Waits for results that are on their way and returns them."""

# Of malloc.h.
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4

_DEVICES: dict[str, Device] = {}
_DEVICES_LOCK = threading.Lock()


class Device(Protocol):
    """What a predictor asks of a device, which all networks of a process share.

    One block computes while other threads read the next and write the last; of several networks
    too, because they share the device's memory.
    """

    batch: int
    """Slabs in one pass."""

    def block(
        self, volume: NDArray[Any], normaliser: Normaliser | None
    ) -> contextlib.AbstractContextManager[Tensor]:
        """Give the image of a block, float32 on the device, while no other block computes.

        Parameters
        ----------
        volume
            Normalised, float32; or as it is stored, in any real dtype.
        normaliser
            Of what is as it is stored: one that is a single clip and scale.

        Raises
        ------
        ModelError
            If the image holds values that are not finite.
        """

    def empty(self, out: NDArray[Any]) -> Tensor:
        """Return room for results of the shape and type of an array that will hold them."""

    def fetched(self, results: Tensor) -> Results:
        """Send results on their way to the host; called while the block computes."""


class Cpu:
    """A processor: what it computes is in its memory already."""

    batch = 1

    def __init__(self) -> None:
        self._guard = threading.Lock()

    @contextmanager
    def block(self, volume: NDArray[Any], normaliser: Normaliser | None) -> Iterator[Tensor]:
        """Give a block's image as :meth:`Device.block` says."""
        image = volume if normaliser is None else normaliser.points_applied(volume)
        # One sum is enough: it is finite only if every voxel is.
        _check_finite(bool(np.isfinite(image.sum(dtype=np.float64))))
        with self._guard, torch.inference_mode():
            yield torch.from_numpy(np.require(image, np.float32, ["C", "W"]))

    def empty(self, out: NDArray[Any]) -> Tensor:
        """Return the array itself, as a tensor."""
        return torch.from_numpy(out)

    def fetched(self, results: Tensor) -> Results:
        """Return what is there."""
        return results.numpy


class Gpu:
    """A CUDA device with a stream of its own for copies.

    Every tensor that crosses streams is waited for, by an event, and recorded there, so that torch
    does not give its memory away before that stream has done with it.
    """

    batch = 8

    def __init__(self, device: torch.device) -> None:
        self._device = device
        self._copies = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._guard = threading.Lock()
        self._places = threading.BoundedSemaphore(2)

    @contextmanager
    def block(self, volume: NDArray[Any], normaliser: Normaliser | None) -> Iterator[Tensor]:
        """Give a block's image as :meth:`Device.block` says."""
        with self._places:
            pinned = self._pinned(torch.from_numpy(np.require(volume, requirements=["C", "W"])))
            with torch.cuda.stream(self._copies):
                voxels = pinned.to(self._device, non_blocking=True)
                arrived = self._copies.record_event()
            with self._guard, torch.inference_mode():
                computing = torch.cuda.current_stream(self._device)
                computing.wait_event(arrived)
                voxels.record_stream(computing)
                image = normalised(voxels, normaliser)
                _check_finite(bool(torch.isfinite(image).all()))
                yield image

    def empty(self, out: NDArray[Any]) -> Tensor:
        """Return room on the device."""
        return torch.empty(out.shape, dtype=torch.from_numpy(out).dtype, device=self._device)

    def fetched(self, results: Tensor) -> Results:
        """Copy results once they are computed; the next block may compute meanwhile."""
        computed = torch.cuda.current_stream(self._device).record_event()
        pinned = self._room(results)
        with torch.cuda.stream(self._copies):
            self._copies.wait_event(computed)
            pinned.copy_(results, non_blocking=True)
            results.record_stream(self._copies)
            arrived = self._copies.record_event()

        def wait() -> NDArray[Any]:
            arrived.synchronize()
            return pinned.numpy()

        return wait

    def _pinned(self, voxels: Tensor) -> Tensor:
        return self._room(voxels).copy_(voxels)

    def _room(self, like: Tensor) -> Tensor:
        return torch.empty(like.shape, dtype=like.dtype, pin_memory=True)


def normalised(voxels: Tensor, normaliser: Normaliser | None) -> Tensor:
    """Return voxels of any real type as float32, as a normaliser of one clip and scale says.

    The same operations in the same order as :meth:`Normaliser.points_applied`.
    """
    grey = voxels.to(torch.float32)
    if normaliser is None:
        return grey
    (points,) = normaliser.points
    assert isinstance(points, ClipScale) and normaliser.is_clip_scale
    image = grey.clamp(points.low, points.high) if points.clips else grey.clone()
    image.sub_(points.shift).mul_(points.scale)
    return image if normaliser.fill is None else image.where(grey.isfinite(), normaliser.fill)


def device_of(device: torch.device) -> Device:
    """Return this process's one face of a device."""
    with _DEVICES_LOCK:
        if str(device) not in _DEVICES:
            _DEVICES[str(device)] = Gpu(device) if device.type == "cuda" else Cpu()
        return _DEVICES[str(device)]


def choose_device(name: str) -> torch.device:
    """Return the device of a name; ``"auto"`` is the first GPU or else the CPU."""
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cpu" or (name.startswith("cuda") and torch.cuda.is_available()):
        return torch.device(name)
    raise RequestError(f"there is no device {name!r} here", remedy="Use auto, cpu or cuda.")


def choose_dtype(device: torch.device, precision: Precision) -> torch.dtype:
    """Return the type in which a device computes fastest, or the one asked for."""
    if precision not in get_args(Precision):
        raise RequestError(f"precision {precision!r} is none of {get_args(Precision)}")
    if precision == "auto":
        return _fastest_dtype(device)
    if precision == "float16" and device.type == "cpu":
        raise RequestError("a CPU has no fast float16", remedy="Use bfloat16, float32 or auto.")
    dtypes = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    return dtypes[precision]


def _fastest_dtype(device: torch.device) -> torch.dtype:
    if device.type == "cuda":
        return torch.bfloat16 if torch.cuda.is_bf16_supported() else torch.float16
    able = torch.cpu.get_capabilities()
    # Without these instructions bfloat16 is emulated, slower than float32.
    return torch.bfloat16 if able.get("avx512_bf16") or able.get("amx_bf16") else torch.float32


def keep_freed_memory() -> None:
    """Let this process keep what it frees: else each activation of a network page-faults.

    Dask's nanny asks for the contrary; a network on a CPU then takes 1.6 times as long. Where the
    C library is not GNU's nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        library = ctypes.CDLL(None)
        library.mallopt(M_MMAP_MAX, 0)
        library.mallopt(M_TRIM_THRESHOLD, 1 << 30)


def _check_finite(is_finite: bool) -> None:
    if not is_finite:
        raise ModelError(
            "the normalised volume holds values that are not finite",
            remedy="Check the tomogram for NaN and the recipe's intensity steps.",
        )
