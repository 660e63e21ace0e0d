"""Integers read with the wrong sign lie at both ends of their range."""

import numpy as np
import pytest

from tomoseg.analysis import intensity


@pytest.mark.parametrize("bits", [8, 16])
@pytest.mark.parametrize("kind", ["u", "i"])
@pytest.mark.parametrize("place", [0.2, 0.5, 0.7])
def test_only_the_wrong_sign_looks_wrapped(bits, kind, place):
    right = np.dtype(f"{kind}{bits // 8}")
    wrong = np.dtype(f"{'i' if kind == 'u' else 'u'}{bits // 8}")
    bounds, span = np.iinfo(right), 2**bits
    grey = np.random.default_rng(0).normal(bounds.min + place * span, span / 16, 20_000)
    grey = grey.round().clip(bounds.min, bounds.max).astype(right)
    assert not looks_wrapped(grey)
    # Where hardly a value lies beyond the middle, both readings are one.
    assert looks_wrapped(grey.view(wrong)) == (place == 0.5)


def looks_wrapped(grey):
    values, counts = np.unique(grey, return_counts=True)
    return intensity.looks_wrapped(values.astype(float), counts, grey.dtype)
