import numpy as np
import pytest

from tomoseg.analysis.filaments.evidence import (
    SCALES,
    Scale,
    ValueRange,
    correlation_scale,
    guessed_scale,
)
from tomoseg.core.errors import RequestError


@pytest.mark.parametrize(
    ("name", "values", "scores"),
    [
        ("mask", [0, 1, 255], [0, 1, 1]),
        ("probability", [0.0, 0.25, 1.5], [0, 0.25, 1]),
        ("ais", [0, 51, 255], [0, 0.2, 1]),
        ("int8", [-128, 0, 127], [0, 0, 1]),
        ("logits", [-1000.0, 0.0, np.log(3), 1000.0], [0, 0.5, 0.75, 1]),
        ("probability", [np.nan, np.inf, -np.inf], [0, 1, 0]),
        ("logits", [np.nan, np.inf, -np.inf], [0, 1, 0]),
    ],
)
def test_what_values_mean(name, values, scores):
    found = SCALES[name].scores(np.array(values))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, scores, rtol=1e-6)


def test_a_range_of_no_width_is_a_threshold():
    assert Scale("range", 128, 128).scores(np.array([128, 129])).tolist() == [0, 1]


GREY = np.arange(100)


@pytest.mark.parametrize(
    ("values", "name"),
    [
        (np.array([0, 1], np.uint8), "mask"),
        (np.array([0, 255], np.uint8), "mask"),
        (np.array([0.0, 1.0], np.float32), "mask"),
        (np.array([0], np.int8), "mask"),
        (GREY.astype(np.int8), "int8"),
        (GREY.astype(np.uint8), "ais"),
        ((GREY / 100).astype(np.float32), "probability"),
    ],
)
def test_what_is_beyond_doubt_is_guessed(values, name):
    assert guessed_scale(ValueRange.of([values]), values.dtype).name == name


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.array([0, 1, 2, 3], np.uint8), "--label"),
        (np.linspace(-8, 8, 50, dtype=np.float32), "--scale"),
        (np.linspace(0, 200, 50, dtype=np.float32), "--scale"),
        (GREY.astype(np.int16), "--scale"),
        (np.array([-1, 0], np.int8), "--label"),
    ],
    ids=["classes", "logits or correlations", "fractions to 200", "int16", "minus one"],
)
def test_what_may_be_several_things_is_asked_for(values, message):
    with pytest.raises(RequestError, match=message):
        guessed_scale(ValueRange.of([values]), values.dtype)


def test_the_range_is_that_of_all_blocks():
    blocks = [np.array([1, 2]), np.array([0, np.nan, 7]), np.array([np.nan])]
    assert ValueRange.of(blocks) == ValueRange(0, 7, (0, 1, 2, 7))
    assert ValueRange.of([np.arange(21)]).values is None
    assert ValueRange.of([np.array([0, 0.5])]).values is None
    with pytest.raises(RequestError, match="no number"):
        ValueRange.of([np.array([np.nan])])


def test_correlations_are_scaled_by_their_own_noise_and_peaks():
    rng = np.random.default_rng(0)
    noise = rng.normal(0.1, 0.02, (40, 50, 50))
    noise.flat[:1000] = 0.6
    blocks = np.split(noise, 4)
    scale = correlation_scale(blocks, ValueRange.of(blocks))
    # Three deviations above the median of normal noise; one voxel in a hundred is a peak.
    assert scale.low == pytest.approx(0.16, abs=0.005)
    assert scale.high == pytest.approx(0.6, abs=0.005)


def test_correlations_without_peaks_are_refused():
    flat = np.linspace(0, 1, 1000)
    with pytest.raises(RequestError, match="no peaks"):
        correlation_scale([flat], ValueRange.of([flat]))
