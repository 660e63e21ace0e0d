"""GPUs: named by the batch system or counted, and one for each worker process."""

import os
import platform
import subprocess
import sys
from types import SimpleNamespace

import pytest

from tomoseg.compute.devices import VARIABLE, dask_setup, visible_gpus
from tomoseg.core.errors import ResourceError


class NVMLError(Exception):
    """As in pynvml."""


def driver(count=0, trouble=None):
    """A stand-in for NVIDIA's driver: there is none where these tests run."""

    def init():
        if trouble:
            raise trouble

    return SimpleNamespace(
        NVMLError=NVMLError,
        nvmlInit=init,
        nvmlDeviceGetCount=lambda: count,
        nvmlShutdown=lambda: None,
    )


@pytest.mark.parametrize(
    ("said", "gpus"),
    [
        ("2", ("2",)),
        ("4, 7", ("4", "7")),
        ("GPU-5ad1,MIG-77", ("GPU-5ad1", "MIG-77")),
        ("", ()),  # hidden on purpose: the driver is not asked
    ],
)
def test_the_variable_is_believed(monkeypatch, said, gpus):
    monkeypatch.setenv(VARIABLE, said)
    monkeypatch.setitem(sys.modules, "pynvml", driver(count=9))
    assert visible_gpus() == gpus


def test_without_it_the_driver_counts(monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", driver(count=3))
    assert visible_gpus() == ("0", "1", "2")


@pytest.mark.parametrize(
    ("module", "says"),
    [
        (None, r"pip install 'tomoseg\[cuda\]'"),
        (driver(trouble=NVMLError("Driver Not Loaded")), "Driver Not Loaded.*nvidia-smi"),
    ],
)
def test_what_cannot_be_counted_is_an_error(monkeypatch, module, says):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.setitem(sys.modules, "pynvml", module)
    with pytest.raises(ResourceError, match=says):
        visible_gpus()


@pytest.mark.parametrize(
    ("name", "said", "gpu"),
    [
        (1, "4,7", "7"),  # a worker of this machine
        ("SLURMCluster-12-0", "4,7", "4"),  # the first worker of job 12
        ("SLURMCluster-12", "5", "5"),  # its only one
    ],
)
def test_a_worker_gets_one_gpu(monkeypatch, name, said, gpu):
    monkeypatch.setenv(VARIABLE, said)
    nanny = SimpleNamespace(name=name, env={})
    dask_setup(nanny)
    assert nanny.env == {VARIABLE: gpu}


@pytest.mark.parametrize(("name", "said"), [(2, "4,7"), (0, "")])
def test_a_worker_too_many_gets_no_gpu(monkeypatch, name, said):
    monkeypatch.setenv(VARIABLE, said)
    nanny = SimpleNamespace(name=name, env={})
    with pytest.raises(ResourceError, match=f"worker {name} has no GPU"):
        dask_setup(nanny)
    assert nanny.env == {VARIABLE: ""}


FAULTS = """
import ctypes, resource, sys, threading
import numpy as np
from tomoseg.compute.devices import share_heap

library = ctypes.CDLL(None)
library.mallopt(-4, 0), library.mallopt(-1, 1 << 30)  # as a network's process has them
if sys.argv[1] == "shared":
    share_heap()
faults = []

def block():
    for turn in range(6):
        faults.append(resource.getrusage(resource.RUSAGE_SELF).ru_minflt)
        parts = [np.ones(20 << 20, np.uint8) for _ in range(4)]
        del parts

thread = threading.Thread(target=block)
thread.start()
thread.join()
print(faults[-1] - faults[2])
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not GNU's")
def test_threads_keep_the_memory_that_they_freed():
    def faults(way):
        command = [sys.executable, "-c", FAULTS, way]
        # What tests of workers leave in the environment.
        env = {k: v for k, v in os.environ.items() if not k.startswith("MALLOC_")}
        done = subprocess.run(command, check=True, capture_output=True, text=True, env=env)
        return int(done.stdout)

    assert faults("own") > 500
    assert faults("shared") < 50
