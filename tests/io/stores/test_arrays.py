"""Named arrays as one file: read by many threads at once."""

import gc
import itertools
import sys
from concurrent.futures import ThreadPoolExecutor

import numpy as np

from tomoseg.io.stores.arrays import npz_arrays, npz_bytes


class Ring:
    """Garbage that only the collector finds, and that takes a moment to go."""

    def __init__(self):
        self.me = self

    def __del__(self):
        for _ in range(50):
            pass


def test_threads_that_collect_garbage_do_not_disturb_each_other():
    arrays = {name: np.arange(6) for name in "abc"}
    content = npz_bytes(arrays)

    def read(_):
        rings = [Ring() for _ in range(5)]
        del rings
        return npz_arrays(content, "a file")

    thresholds, interval = gc.get_threshold(), sys.getswitchinterval()
    gc.set_threshold(50)
    sys.setswitchinterval(1e-6)
    try:
        with ThreadPoolExecutor(4) as pool:
            found = list(pool.map(read, itertools.repeat(0, 2000)))
    finally:
        gc.set_threshold(*thresholds)
        sys.setswitchinterval(interval)
    assert all(np.array_equal(each["c"], arrays["c"]) for each in found)
