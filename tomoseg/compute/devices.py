"""What this machine gives a process: GPUs, one for each worker, and a heap.

Dask's nannies load this module (``dask worker --preload-nanny tomoseg.compute.devices``) and call
:func:`dask_setup` before they start their worker.
"""

from __future__ import annotations

import contextlib
import ctypes
import os
from typing import Any

from tomoseg.core.errors import ResourceError

# Of malloc.h.
M_ARENA_MAX = -8
VARIABLE = "CUDA_VISIBLE_DEVICES"


def visible_gpus() -> tuple[str, ...]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them.

    A batch system or a person says it with that variable; without it NVIDIA's driver is asked.
    No context is made on any GPU.

    Raises
    ------
    ResourceError
        If nvidia-ml-py is needed and not installed, or there is no driver.
    """
    named = os.environ.get(VARIABLE)
    if named is not None:
        return tuple(part.strip() for part in named.split(",") if part.strip())
    try:
        import pynvml
    except ImportError as error:
        raise ResourceError(
            "GPUs cannot be counted without nvidia-ml-py",
            remedy="Run: pip install 'tomoseg[cuda]', or set CUDA_VISIBLE_DEVICES.",
        ) from error
    try:
        pynvml.nvmlInit()
        count = pynvml.nvmlDeviceGetCount()
        pynvml.nvmlShutdown()
    except pynvml.NVMLError as error:
        raise ResourceError(
            f"NVIDIA's driver does not answer ({error})",
            remedy="Look at nvidia-smi, or set compute.cluster: local.",
        ) from error
    return tuple(str(index) for index in range(count))


def share_heap() -> None:
    """Let the threads of this process that are still to come take memory from one heap.

    Else each has its own, which gives back what a network's activations took after every block: to
    take it again costs a third of the time of a fast network. Where the C library is not GNU's
    nothing happens.
    """
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def dask_setup(nanny: Any) -> None:
    """Give the worker of a nanny one GPU: the only one, or that with the number its name ends in.

    Raises
    ------
    ResourceError
        If there are fewer GPUs than workers; the worker then sees none, rather than another's.
    """
    nanny.env[VARIABLE] = ""
    gpus = visible_gpus()
    number = int(str(nanny.name).rpartition("-")[2]) if len(gpus) > 1 else 0
    if number >= len(gpus):
        raise ResourceError(
            f"worker {nanny.name} has no GPU: there are {len(gpus)}",
            remedy="Start one worker for each GPU.",
        )
    nanny.env[VARIABLE] = gpus[number]


def memory_bytes() -> dict[str, tuple[int, int]]:
    """Return what is used, by all processes, and what there is of each visible GPU's memory.

    Names are those of :func:`visible_gpus`; nothing is returned where no GPU can be asked.
    """
    try:
        gpus = visible_gpus()
        import pynvml
    except (ResourceError, ImportError):
        return {}
    try:
        pynvml.nvmlInit()
        infos = {gpu: pynvml.nvmlDeviceGetMemoryInfo(_handle(gpu)) for gpu in gpus}
        pynvml.nvmlShutdown()
    except pynvml.NVMLError:
        return {}
    return {gpu: (int(info.used), int(info.total)) for gpu, info in infos.items()}


def _handle(gpu: str) -> Any:
    import pynvml

    if gpu.isdecimal():
        return pynvml.nvmlDeviceGetHandleByIndex(int(gpu))
    return pynvml.nvmlDeviceGetHandleByUUID(gpu)
