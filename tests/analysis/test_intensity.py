"""Streamed statistics and the normalisation made from them."""

from __future__ import annotations

import json
import math
import pickle
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import pytest
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import Field, TypeAdapter, ValidationError
from scipy import ndimage
from skimage import exposure

from tomoseg.analysis.intensity import (
    DEFAULT_STEPS,
    Bins,
    Calibrate,
    ClipScale,
    Equalise,
    Gaussian,
    Invert,
    Moments,
    PercentileClip,
    Statistics,
    Step,
    Unsharp,
    ZScore,
    as_dicts,
    contrast_sign,
    histogram,
    merge_moments,
    moments,
    parse_steps,
    prepare,
    uniform_voxels,
    value_counts,
)
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.errors import FormatError, ModelError, RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

DATA = Path(__file__).resolve().parents[2] / ".." / "shared" / "data"
GRID = Sampling((40, 40, 40), (10.0, 10.0, 10.0))


def noise(shape: Shape = (20, 30, 40), dtype: str = "float32", seed: int = 0) -> NDArray[Any]:
    values = np.random.default_rng(seed).normal(40, 9, shape)
    return values.astype(dtype)


def statistics_of(volume: NDArray[Any], block_shape: Shape | None = None) -> Statistics:
    """Take statistics in blocks, as a stage does."""
    grid = BlockGrid(as_shape(volume.shape), block_shape or as_shape(volume.shape))
    blocks = [volume[block.write.slices] for block in grid]
    whole = merge_moments(moments(block) for block in blocks)
    bins = Bins.for_tomogram(whole, volume.dtype)
    return Statistics.of(whole, bins, sum(histogram(block, bins) for block in blocks))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "float16", "float32", "<f8"])
def test_moments_equal_numpy(dtype: str) -> None:
    volume = noise(dtype=dtype)
    found = statistics_of(volume, (7, 11, 13))
    exact = volume.astype(np.float64)
    assert found.count == volume.size
    assert (found.minimum, found.maximum) == (exact.min(), exact.max())
    assert found.mean == pytest.approx(exact.mean(), rel=1e-7)
    assert found.std == pytest.approx(exact.std(), rel=1e-7)
    assert found.counts.sum() == volume.size


@settings(max_examples=30)
@given(st.tuples(*[st.integers(3, 25)] * 3), st.integers(0, 99), st.sampled_from(["int16", "f4"]))
def test_statistics_do_not_depend_on_the_blocks(block: Shape, seed: int, dtype: str) -> None:
    volume = noise((11, 25, 16), dtype, seed)
    whole, found = statistics_of(volume), statistics_of(volume, block)
    assert whole.as_dict() == found.as_dict()


def test_merging_moments_far_from_zero_keeps_the_spread() -> None:
    volume = (noise() + 1e6).astype(np.float64)
    parts = [moments(plane) for plane in volume]
    merged = merge_moments(parts)
    assert merged.squares == pytest.approx(((volume - volume.mean()) ** 2).sum(), rel=1e-9)


def test_voxels_that_are_not_numbers_are_left_out() -> None:
    volume = noise()
    clean = volume.copy()
    volume[3], volume[4, 0], volume[5, 0] = np.nan, np.inf, -np.inf
    kept = clean[np.isfinite(volume)]
    found = statistics_of(volume, (2, 30, 40))
    assert found.not_finite == volume.size - kept.size == 1200 + 80
    assert (found.count, found.counts.sum()) == (kept.size, kept.size)
    assert found.mean == pytest.approx(kept.mean(dtype=np.float64), rel=1e-7)


def test_nothing_but_nan_is_an_error() -> None:
    with pytest.raises(FormatError, match="none of the 8 voxels"):
        statistics_of(np.full((2, 2, 2), np.nan, np.float32))


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
@pytest.mark.parametrize("q", [0, 0.1, 25, 50, 99.9, 100])
def test_percentiles_of_short_integers_are_exact(dtype: str, q: float) -> None:
    # 1,100 voxels: at 1,000 numpy takes 99.9% for rank 1,000 instead of 999, by rounding.
    volume = noise((11, 10, 10), dtype)
    assert statistics_of(volume, (3, 4, 5)).percentile(q) == np.percentile(
        volume, q, method="inverted_cdf"
    )


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16"])
def test_values_are_counted_as_the_histogram_counts_them(dtype: str) -> None:
    volume = noise(dtype=dtype)
    volume[0, 0, :2] = np.iinfo(dtype).min, np.iinfo(dtype).max
    values, known = np.unique(volume, return_counts=True)
    counts = value_counts(volume)
    assert counts.size == 2 ** (8 * volume.dtype.itemsize)
    assert np.array_equal(counts[values.astype(int) - np.iinfo(dtype).min], known)
    assert counts.sum() == volume.size
    for part in (volume, volume[1:]):
        bins = Bins.for_tomogram(moments(part), dtype)
        assert np.array_equal(bins.of_values(value_counts(part), dtype), histogram(part, bins))


def test_short_integers_have_a_bin_each() -> None:
    volume = np.array([[[-32768, 32767, 0, 0]]], np.int16)
    found = statistics_of(volume)
    assert len(found.counts) == 65536
    assert found.greys[found.counts > 0].tolist() == [-32768, 0, 32767]
    assert found.counts[32768] == 2


@pytest.mark.parametrize("q", [0.1, 1, 50, 99, 99.9])
def test_percentiles_of_real_numbers_are_right_to_a_bin(q: float) -> None:
    volume = noise()
    found = statistics_of(volume)
    width = (found.bins.high - found.bins.low) / found.bins.number
    assert width < volume.std() * 1e-3
    truth = np.percentile(volume, q, method="inverted_cdf")
    assert abs(found.percentile(q) - truth) <= width / 2 * (1 + 1e-3)


def test_an_outlier_does_not_coarsen_the_histogram() -> None:
    volume = noise((50, 50, 50))
    volume[0, 0, 0] = 1e7
    found = statistics_of(volume)
    assert found.maximum == 1e7
    assert found.percentile(50) == pytest.approx(40, abs=found.std / 1000)
    assert found.counts.sum() == volume.size


def test_statistics_survive_json() -> None:
    found = statistics_of(noise())
    text = json.dumps(found.as_dict())
    back = Statistics.from_dict(json.loads(text))
    assert len(text) < 200_000
    assert back.as_dict() == found.as_dict()
    np.testing.assert_array_equal(back.counts, found.counts)


@pytest.mark.parametrize("dtype", ["uint8", "float32"])
def test_default_steps_clip_and_scale(dtype: str) -> None:
    volume = noise(dtype=dtype)
    statistics = statistics_of(volume)
    low, high = statistics.percentile(0.1), statistics.percentile(99.9)
    clipped = np.clip(volume.astype(np.float64), low, high)
    wanted = (clipped - clipped.mean()) / clipped.std()
    found = prepare(DEFAULT_STEPS, statistics).apply(volume, GRID)
    assert found.dtype == np.float32
    # Real numbers stand at the centres of bins 7e-4 standard deviations wide.
    np.testing.assert_allclose(found, wanted, atol=2e-6 if dtype == "uint8" else 2e-4)


def test_plain_z_score_counts_outliers_beyond_the_histogram() -> None:
    volume = noise((50, 50, 50))
    volume[0, 0, 0] = 1e5
    found = prepare([ZScore()], statistics_of(volume)).apply(volume, GRID)
    exact = volume.astype(np.float64)
    np.testing.assert_allclose(found, (exact - exact.mean()) / exact.std(), rtol=1e-5, atol=1e-6)


def test_linear_steps_become_one_operation() -> None:
    volume = noise()
    steps = (PercentileClip(1, 99), Invert(), ZScore(), Calibrate(-2.0, 2.0))
    normaliser = prepare(steps, statistics_of(volume))
    assert len(normaliser.points) == 1
    low, high = np.percentile(volume, [1, 99])
    turned = -np.clip(volume.astype(np.float64), low, high)
    wanted = ((turned - turned.mean()) / turned.std() + 2) / 4
    np.testing.assert_allclose(normaliser.apply(volume, GRID), wanted, atol=5e-4)


@settings(max_examples=80)
@given(
    st.lists(
        st.tuples(*[st.floats(-3, 3)] * 3, st.sampled_from([-2.0, -0.5, 0.3, 1.0])), max_size=3
    )
)
def test_joined_operations_equal_one_after_another(
    rows: list[tuple[float, float, float, float]],
) -> None:
    """Limits overlap here; those that do not would need grey values that never occur."""
    values = np.linspace(-9, 9, 101)
    joined, one_by_one = ClipScale(), values.copy()
    for a, b, shift, scale in rows:
        middle, reach = float(np.median(one_by_one)), 0.1 + abs(a - b)
        operation = ClipScale(middle - reach, middle + reach, shift, scale)
        operation.apply(one_by_one)
        joined = joined.then(operation)
    joined.apply(values)
    np.testing.assert_allclose(values, one_by_one, atol=1e-12)


def test_flip_acts_before_everything() -> None:
    volume = noise()
    statistics = statistics_of(volume)
    flipped = prepare((PercentileClip(0.0, 90.0), ZScore()), statistics, flip=True)
    turned = prepare((PercentileClip(0.0, 90.0), ZScore()), statistics_of(-volume))
    np.testing.assert_allclose(flipped.apply(volume, GRID), turned.apply(-volume, GRID), atol=1e-3)


def test_equalise_follows_skimage() -> None:
    volume = noise()
    found = prepare([Equalise(128)], statistics_of(volume)).apply(volume, GRID)
    np.testing.assert_allclose(found, exposure.equalize_hist(volume, 128), atol=2e-3)


def test_z_score_after_equalise_knows_the_equalised_greys() -> None:
    volume = noise()
    found = prepare([Equalise(), ZScore()], statistics_of(volume)).apply(volume, GRID)
    assert found.mean() == pytest.approx(0, abs=1e-3)
    assert found.std() == pytest.approx(1, abs=1e-3)


def test_not_finite_voxels_become_the_mean() -> None:
    volume = noise()
    volume[2, 3, 4], volume[5, 6, 7], volume[8, 9, 10] = np.nan, np.inf, -np.inf
    statistics = statistics_of(volume)
    raw = prepare([], statistics).apply(volume, GRID)
    scored = prepare(DEFAULT_STEPS, statistics).apply(volume, GRID)
    for place in [(2, 3, 4), (5, 6, 7), (8, 9, 10)]:
        assert raw[place] == np.float32(statistics.mean)
        assert scored[place] == pytest.approx(0, abs=1e-6)
    assert np.isfinite(scored).all()


@pytest.mark.parametrize(
    "steps",
    [
        DEFAULT_STEPS,
        (Equalise(64), Calibrate(0.1, 0.7)),
        (PercentileClip(), ZScore(), Gaussian(12.0)),
        (ZScore(), Gaussian(9.0), Unsharp(14.0, 0.7), Invert()),
    ],
    ids=["clip and z-score", "curve", "blur", "two filters"],
)
@pytest.mark.parametrize("block_shape", [(40, 40, 40), (13, 40, 17), (8, 8, 8)], ids=str)
def test_a_voxel_does_not_depend_on_its_block(steps: tuple[Step, ...], block_shape: Shape) -> None:
    sampling = Sampling((40, 40, 40), (20.0, 10.0, 12.5))
    volume = noise(sampling.shape)
    volume[:3, :3, :3] = np.nan
    normaliser = prepare(steps, statistics_of(volume))
    whole = normaliser.apply(volume, sampling)
    for block in BlockGrid(sampling.shape, block_shape, halo=normaliser.halo(sampling)):
        found = normaliser.apply(volume[block.read.slices], sampling)[block.core.slices]
        np.testing.assert_array_equal(found, whole[block.write.slices])


def test_filters_use_physical_widths() -> None:
    sampling = Sampling((9, 40, 40), (30.0, 10.0, 20.0))
    volume = noise(sampling.shape)
    normaliser = prepare([Gaussian(15.0), Unsharp(15.0, 2.0)], statistics_of(volume))
    blurred = ndimage.gaussian_filter(volume, [0.5, 1.5, 0.75], mode="nearest")
    wanted = 3 * blurred - 2 * ndimage.gaussian_filter(blurred, [0.5, 1.5, 0.75], mode="nearest")
    assert normaliser.halo(sampling) == (4, 12, 6)
    np.testing.assert_allclose(normaliser.apply(volume, sampling), wanted, rtol=1e-5)


@pytest.mark.parametrize("late", [ZScore(), PercentileClip(), Equalise()], ids=lambda s: s.kind)
def test_statistics_after_a_filter_are_refused(late: Step) -> None:
    with pytest.raises(RequestError, match=f"step {late.kind} after gaussian"):
        prepare([Gaussian(10.0), late], statistics_of(noise()))


@pytest.mark.parametrize("value", [0.0, 0.1, 1e6])
@pytest.mark.parametrize("dtype", ["<f4", "<f8"])
def test_z_score_of_a_constant_is_refused(value: float, dtype: str) -> None:
    """The mean of many 0.1 is not quite 0.1, which must not pass for a spread."""
    statistics = statistics_of(np.full((9, 9, 9), value, dtype), (4, 5, 6))
    for steps in (DEFAULT_STEPS, [ZScore()]):
        with pytest.raises(FormatError, match="spread is 0"):
            prepare(steps, statistics)


def test_clip_that_leaves_one_grey_value_is_refused() -> None:
    volume = np.zeros((20, 20, 20), np.float32)
    volume[0, 0, 0] = 0.7
    with pytest.raises(FormatError, match="spread is 0"):
        prepare((PercentileClip(1, 99), ZScore()), statistics_of(volume))


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32", ">f4"])
def test_the_block_handed_in_is_not_changed(dtype: str) -> None:
    volume = noise(dtype=dtype)
    before = volume.copy()
    prepare(DEFAULT_STEPS, statistics_of(volume)).apply(volume[::2], GRID)
    np.testing.assert_array_equal(volume, before)


def test_a_normaliser_crosses_processes() -> None:
    volume = noise()
    normaliser = prepare((Equalise(), Gaussian(10.0)), statistics_of(volume))
    twin = pickle.loads(pickle.dumps(normaliser))
    np.testing.assert_array_equal(twin.apply(volume, GRID), normaliser.apply(volume, GRID))


ALL_STEPS: tuple[Step, ...] = (
    Invert(),
    PercentileClip(1.0, 98.0),
    Calibrate(3.0, 90.0),
    Equalise(99),
    ZScore(),
    Gaussian(8.0),
    Unsharp(20.0, 0.5),
)


def test_steps_survive_json() -> None:
    assert parse_steps(json.loads(json.dumps(as_dicts(ALL_STEPS)))) == ALL_STEPS


def test_steps_stand_in_a_pydantic_recipe() -> None:
    recipe = TypeAdapter(list[Annotated[Step, Field(discriminator="kind")]])
    assert tuple(recipe.validate_python(as_dicts(ALL_STEPS))) == ALL_STEPS
    with pytest.raises(ValidationError, match="sigma_voxels"):
        recipe.validate_python([{"kind": "gaussian", "sigma_angstrom": 3, "sigma_voxels": 3}])


@pytest.mark.parametrize(
    ("step", "words"),
    [
        ({"kind": "blur"}, "'blur' is not known"),
        ({"low": 3}, "None is not known"),
        ({"kind": "gaussian", "sigma": 3}, r"unknown keys \['sigma'\] and lacks \['sigma_angst"),
        ({"kind": "gaussian", "sigma_angstrom": "wide"}, "'wide', not a finite number"),
        ({"kind": "gaussian", "sigma_angstrom": float("nan")}, "nan, not a finite number"),
        ({"kind": "gaussian", "sigma_angstrom": 0}, "step gaussian: sigma_angst.* greater than 0"),
        (
            {"kind": "unsharp", "sigma_angstrom": 9, "amount": -1},
            "step unsharp: amount: .*to 0, not '-1'",
        ),
        ({"kind": "percentile_clip", "low": 99, "high": 1}, "low 99 must be below high 1"),
        ({"kind": "percentile_clip", "high": 101}, "high: .*equal to 100, not '101'"),
        ({"kind": "calibrate", "black": 2, "white": 2}, "must differ, and both are 2"),
        ({"kind": "equalise", "bins": 1}, "bins: .*equal to 2"),
        ({"kind": "equalise", "bins": 2.5}, "bins: .*valid integer, not '2.5'"),
    ],
)
def test_bad_steps_are_named(step: dict[str, Any], words: str) -> None:
    with pytest.raises(RequestError, match=words):
        parse_steps([step])


@pytest.mark.parametrize(
    ("declared", "expected", "on_mismatch", "sign"),
    [
        ("dark", "dark", "error", 1.0),
        ("bright", "bright", "flip", 1.0),
        ("bright", "dark", "flip", -1.0),
        ("dark", "bright", "flip", -1.0),
    ],
)
def test_contrast_sign(declared: Any, expected: Any, on_mismatch: Any, sign: float) -> None:
    assert contrast_sign(declared, expected, on_mismatch=on_mismatch) == sign


def test_wrong_contrast_names_both_and_the_remedy() -> None:
    with pytest.raises(ModelError, match=r"bright in the tomogram, and dark .*flip"):
        contrast_sign("bright", "dark")


def test_moments_of_nothing_are_neutral() -> None:
    some = moments(noise())
    assert merge_moments([Moments(), some, Moments(not_finite=2)]) == merge_moments(
        [some, Moments(not_finite=2)]
    )


@given(
    shape=st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 24)),
    margin=st.tuples(st.integers(0, 1), st.integers(0, 4), st.integers(0, 7)),
    block=st.tuples(st.integers(1, 2), st.integers(2, 5), st.integers(3, 13)),
    odd=st.lists(st.tuples(*[st.floats(0, 0.999)] * 3), max_size=4),
    value=st.sampled_from([0.0, 2.5, math.nan, math.inf]),
)
def test_empty_voxels_are_those_with_one_value_around_them(
    shape: Shape, margin: Shape, block: Shape, odd: list[Any], value: float
) -> None:
    volume = np.full(shape, value, np.float32)
    volume[..., shape[2] // 2 :] = 7
    for place in odd:
        volume[tuple((np.array(place) * shape).astype(int))] = 1
    wanted = np.empty(shape, bool)
    for voxel in np.ndindex(shape):
        sides = zip(voxel, margin, strict=True)
        near = volume[tuple(slice(max(0, i - m), i + m + 1) for i, m in sides)]
        wanted[voxel] = len(np.unique(near)) == 1
    for part in BlockGrid(shape, block, halo=margin):
        found = uniform_voxels(volume[part.read.slices], margin)
        assert np.array_equal(found[part.core.slices], wanted[part.write.slices])


def test_real_tomogram_is_normalised() -> None:
    folder = DATA / "cryoet" / "microtubule_14pf"
    files = sorted(folder.glob("*.tif*"))
    if not files:
        pytest.skip("the shared real data are not here")
    volume = tifffile.imread(files[0])
    statistics = statistics_of(volume, (16, 64, 64))
    clipped = np.clip(volume, *np.percentile(volume, [0.1, 99.9], method="inverted_cdf"))
    found = prepare(DEFAULT_STEPS, statistics).apply(volume, GRID)
    wanted = (clipped - clipped.mean()) / clipped.std()
    np.testing.assert_allclose(found, wanted, atol=2e-6)
