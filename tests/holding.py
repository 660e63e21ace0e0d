"""Preload of Dask's workers: blocks wait at a moment of their work until a test lets them go on.

A test writes ``wanted/<block>``, a moment and a gate, into the folder that a variable of the
environment names. The first block of that name waits there once: ``held/<block>`` says that it
does, ``gates/<gate>`` lets it go on, ``over/<block>`` says what became of it.
"""

import os
import threading
import time
from pathlib import Path

import zarr

from tomoseg.io.stores import Ledger
from tomoseg.pipeline.stages.context import Step
from tomoseg.pipeline.stages.segment import SegmentBlock

VARIABLE = "TOMOSEG_TEST_HOLDING"
MOMENTS = ("begin", "shard", "file", "receipt")
"""The step has looked; an array is open; a shard's file has yet no name; all but the receipt."""
_asked: dict[str, tuple[str, str]] = {}
_here = threading.local()


def hold(block, moment):
    """Wait, if this is what a test asked for."""
    if _asked.get(block, ("", ""))[0] != moment:
        return
    _, gate = _asked.pop(block)
    (_place() / "held" / block).touch()
    while not (_place() / "gates" / gate).exists():
        time.sleep(0.01)


def holding(call, moment):
    """Return a function that waits before it does what it did."""

    def wrapped(*args, **kwargs):
        hold(getattr(_here, "block", ""), moment)
        return call(*args, **kwargs)

    return wrapped


def named(step):
    """Return a step that knows which block it works on; of one that waited it tells the end."""

    def wrapped(self, block):
        wanted = _place() / "wanted" / block.name
        if self.label != "predict" or not wanted.exists():
            return step(self, block)
        _here.block, said = block.name, "well"
        _asked[block.name] = tuple(wanted.read_text().split())
        wanted.unlink()
        try:
            return step(self, block)
        except BaseException as error:
            said = f"{type(error).__name__}: {error}"
            raise
        finally:
            _here.block = ""
            (_place() / "over" / block.name).write_text(said)

    return wrapped


def renaming(replace):
    """Return what waits before a shard of labels gets its name; zarr does that in its threads."""

    def wrapped(self, target):
        parts = Path(target).parts
        if self.suffix == ".partial" and "segmented" in parts:
            hold("-".join(parts[-3:]), "file")
        return replace(self, target)

    return wrapped


def _place():
    return Path(os.environ[VARIABLE])


def dask_setup(worker):
    """Have this worker's blocks wait."""
    Step.__call__ = named(Step.__call__)
    SegmentBlock.__call__ = holding(SegmentBlock.__call__, "begin")
    zarr.Array.set_basic_selection = holding(zarr.Array.set_basic_selection, "shard")
    Ledger.write = holding(Ledger.write, "receipt")
    Path.replace = renaming(Path.replace)
