"""Cleaning in blocks against cleaning of the whole volume and against scipy and skimage."""

from __future__ import annotations

from dataclasses import asdict
from itertools import product
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from scipy import ndimage

from tomoseg.analysis import labels
from tomoseg.analysis.cleanup import (
    CleaningSettings,
    cleaning_halo,
    fillable_holes,
    kept_objects,
    smooth_mask,
    smooths,
)
from tomoseg.analysis.labels import Connectivity, Merged
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Shape, as_shape

Mask = NDArray[np.bool_]
SHAPE = (18, 22, 26)


def blobs(shape: Shape = SHAPE, seed: int = 0) -> Mask:
    field = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.3)
    return np.asarray(field > 0.3 * field.std())


def smoothed(mask: Mask, sampling: Sampling, how: CleaningSettings, block: Shape) -> Mask:
    out = np.zeros_like(mask)
    for b in BlockGrid(sampling.shape, block, halo=cleaning_halo(how, sampling)):
        out[b.write.slices] = smooth_mask(
            mask[b.read.slices], b.core, begin=b.read.begin, sampling=sampling, settings=how
        )
    return out


def joined(mask: Mask, block: Shape, connectivity: Connectivity) -> tuple[Merged, Any]:
    """Merge the objects of all blocks; also return the lookup of a block's final ids."""
    grid = BlockGrid(as_shape(mask.shape), block)
    local = {
        b.index: labels.local_components(mask[b.write.slices], connectivity=connectivity)
        for b in grid
    }
    tables = [
        labels.object_table(
            local[b.index], mask[b.write.slices], begin=b.write.begin, volume_shape=grid.shape
        )
        for b in grid
    ]
    offset = dict(zip(local, labels.provisional_offsets(tables)[:-1], strict=True))
    pairs = [np.zeros((0, 2), np.int64)]
    for index, step in product(local, labels.directions(connectivity)):
        other = as_shape(np.add(index, step))
        if other in local:
            planes = labels.faces(local[index]), labels.faces(local[other])
            met = labels.touching(*planes, step, connectivity=connectivity)
            pairs.append(met + np.array([offset[index], offset[other]]))
    return labels.merge(tables, np.concatenate(pairs)), (grid, list(local.values()))


def selected(merged: Merged, keep: Mask, blocks: Any) -> Mask:
    grid, local = blocks
    out = np.zeros(grid.shape, np.bool_)
    chosen = merged.select(keep)
    for i, block in enumerate(grid):
        out[block.write.slices] = chosen.of_block(i)[local[i]] > 0
    return out


def cleaned(mask: Mask, sampling: Sampling, how: CleaningSettings, block: Shape) -> Mask:
    """Clean a volume in blocks: smooth, fill, drop."""
    mask = smoothed(mask, sampling, how, block)
    holes, blocks = joined(~mask, block, 6)
    mask = mask | selected(
        holes, fillable_holes(holes.table, how, sampling, sampling.shape), blocks
    )
    objects, blocks = joined(mask, block, 26)
    return selected(objects, kept_objects(objects.table, how, sampling), blocks)


def ball(radius: float, sizes: Any) -> Mask:
    """Every offset within the radius, written down the plain way."""
    reach = [int(radius / size + 1) for size in sizes]
    grid = np.stack(np.meshgrid(*[np.arange(-n, n + 1) for n in reach], indexing="ij"), axis=-1)
    distances = np.linalg.norm(grid * np.array(sizes), axis=-1)
    return np.asarray(distances <= radius + 1e-6)


@settings(max_examples=40)
@given(
    radius=st.sampled_from([5.0, 10.0, 13.2, 20.0, 26.4, 31.0]),
    sizes=st.sampled_from([(10.0, 10.0, 10.0), (20.0, 10.0, 10.0), (4.4,) * 3, (50.0, 7.0, 9.0)]),
    shape=st.tuples(*[st.integers(1, 14)] * 3),
    seed=st.integers(0, 99),
)
def test_opening_and_closing_equal_scipy(
    radius: float, sizes: Any, shape: Shape, seed: int
) -> None:
    mask = blobs(shape, seed)
    sampling, structure = Sampling(shape, sizes), ball(radius, sizes)
    whole = {"begin": (0, 0, 0), "sampling": sampling}

    opened = smooth_mask(
        mask, Box.whole(shape), settings=CleaningSettings(opening_angstrom=radius), **whole
    )
    eroded = ndimage.binary_erosion(mask, structure, border_value=1)
    np.testing.assert_array_equal(opened, ndimage.binary_dilation(eroded, structure))

    closed = smooth_mask(
        mask, Box.whole(shape), settings=CleaningSettings(closing_angstrom=radius), **whole
    )
    wide = np.pad(mask, 8)
    far = ndimage.binary_closing(wide, structure)[8:-8, 8:-8, 8:-8]
    np.testing.assert_array_equal(closed, far)


HOW = [
    CleaningSettings(),
    CleaningSettings(opening_angstrom=12.0),
    CleaningSettings(closing_angstrom=15.0, border_angstrom=21.0),
    CleaningSettings(minimum_volume_nm3=60.0, fill_holes_nm3=4.0),
    CleaningSettings(30.0, 100.0, 10.0, 10.0, 10.0),
]


@pytest.mark.parametrize("how", HOW, ids=["nothing", "open", "close", "tables", "everything"])
@pytest.mark.parametrize("sizes", [(10.0, 10.0, 10.0), (20.0, 9.0, 9.0)], ids=["cubes", "flat"])
@pytest.mark.parametrize("block", [(5, 22, 7), (9, 11, 13), (1, 8, 26)], ids=str)
def test_blocks_give_the_result_of_the_whole(
    block: Shape, sizes: Any, how: CleaningSettings
) -> None:
    sampling = Sampling(SHAPE, sizes)
    for seed in range(3):
        mask = blobs(seed=seed)
        whole = cleaned(mask, sampling, how, SHAPE)
        np.testing.assert_array_equal(cleaned(mask, sampling, how, block), whole)


@pytest.mark.parametrize("seed", range(4))
def test_holes_and_islands_equal_scipy(seed: int) -> None:
    mask, sampling = blobs(seed=seed) ^ (np.random.default_rng(seed).random(SHAPE) < 0.1), 10.0
    grid = Sampling(SHAPE, (sampling,) * 3)
    filled = cleaned(mask, grid, CleaningSettings(fill_holes_nm3=1e9), (7, 8, 9))
    np.testing.assert_array_equal(filled, ndimage.binary_fill_holes(mask))
    found, _ = ndimage.label(mask, np.ones((3, 3, 3)))
    large = np.bincount(found.ravel()) >= 20
    large[0] = False
    kept = cleaned(mask, grid, CleaningSettings(minimum_volume_nm3=20.0), (7, 8, 9))
    np.testing.assert_array_equal(kept, large[found])


@pytest.mark.parametrize(
    ("volume_nm3", "kept"),
    [(0.0, True), (8.0, True), (8.0001, False)],
    ids=["no limit", "just large enough", "too small"],
)
def test_an_island_of_8_nm3(volume_nm3: float, kept: bool) -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[4:6, 4:6, 4:6] = True
    how = CleaningSettings(minimum_volume_nm3=volume_nm3)
    found = cleaned(mask, Sampling(SHAPE, (10.0,) * 3), how, (5, 5, 5))
    assert found.any() == kept


@pytest.mark.parametrize(
    ("hole", "filled"),
    [
        (Box((8, 8, 8), (10, 10, 10)), True),
        (Box((8, 8, 8), (10, 10, 11)), False),
        (Box((0, 8, 8), (2, 10, 10)), False),
        (Box((8, 20, 8), (10, 22, 10)), False),
    ],
    ids=["just small enough", "too large", "open at the first face", "open at the last face"],
)
def test_a_hole_of_8_nm3(hole: Box, filled: bool) -> None:
    mask = np.ones(SHAPE, np.bool_)
    mask[hole.slices] = False
    how = CleaningSettings(fill_holes_nm3=8.0)
    found = cleaned(mask, Sampling(SHAPE, (10.0,) * 3), how, (9, 9, 9))
    assert found[hole.slices].all() == filled


def test_hole_that_leaks_by_an_edge_alone_is_filled() -> None:
    """Background is 6-connected where objects are 26-connected, else a wall would leak."""
    mask = np.zeros((1, 5, 5), np.bool_)
    mask[0, [1, 1, 2, 2, 3, 3], [2, 3, 1, 3, 1, 2]] = True
    volume = np.concatenate([np.ones_like(mask), mask, np.ones_like(mask)])
    how = CleaningSettings(fill_holes_nm3=1e9)
    found = cleaned(volume, Sampling((3, 5, 5), (10.0,) * 3), how, (3, 2, 2))
    assert found[1, 2, 2]


def test_an_object_that_the_border_cuts_is_not_eroded_but_a_speck_is() -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[:4, 5:15, 5:15] = True
    mask[0, 19, 20] = True
    sampling = Sampling(SHAPE, (10.0,) * 3)
    found = smoothed(mask, sampling, CleaningSettings(opening_angstrom=20.0), SHAPE)
    assert found[0, 10, 10] and found[0, 5:15, 9].all()
    assert not found[0, 19, 20]


def test_closing_fills_a_gap_but_not_towards_the_border() -> None:
    mask = np.zeros(SHAPE, np.bool_)
    mask[:, :, 3:8] = mask[:, :, 10:15] = True
    sampling = Sampling(SHAPE, (10.0,) * 3)
    found = smoothed(mask, sampling, CleaningSettings(closing_angstrom=30.0), SHAPE)
    assert found[9, 11, 8:10].all()
    assert not found[:, :, :3].any()


@pytest.mark.parametrize(
    ("border_angstrom", "cut"),
    [(0, (0, 0, 0)), (5, (0, 0, 0)), (5.1, (0, 1, 1)), (15, (1, 1, 1)), (45, (2, 4, 4))],
)
def test_border_is_measured_to_voxel_centres(border_angstrom: float, cut: Shape) -> None:
    mask = np.ones(SHAPE, np.bool_)
    how = CleaningSettings(border_angstrom=border_angstrom)
    found = smoothed(mask, Sampling(SHAPE, (20.0, 10.0, 10.0)), how, (5, 6, 7))
    where = np.argwhere(found)
    assert tuple(where.min(axis=0)) == cut
    assert tuple(where.max(axis=0)) == tuple(np.array(SHAPE) - cut - 1)


def test_border_wider_than_the_tomogram_leaves_nothing() -> None:
    mask = np.ones(SHAPE, np.bool_)
    how = CleaningSettings(border_angstrom=500.0)
    assert not smoothed(mask, Sampling(SHAPE, (10.0,) * 3), how, (5, 6, 7)).any()


def test_only_what_is_allowed_stays() -> None:
    mask, allowed = np.ones((2, *SHAPE), np.bool_)
    allowed[:, :, 13:] = False
    found = smooth_mask(
        mask[:, :, 3:],
        Box((0, 0, 2), (18, 22, 23)),
        begin=(0, 0, 3),
        sampling=Sampling(SHAPE, (10.0,) * 3),
        settings=CleaningSettings(closing_angstrom=10.0),
        allowed=allowed[:, :, 5:],
    )
    np.testing.assert_array_equal(found, allowed[:, :, 5:])


def test_mask_handed_in_is_not_changed() -> None:
    mask = blobs()
    before = mask.copy()
    cleaned(mask, Sampling(SHAPE, (10.0,) * 3), HOW[-1], (9, 9, 9))
    np.testing.assert_array_equal(mask, before)


@pytest.mark.parametrize(
    ("how", "halo"),
    [
        (CleaningSettings(minimum_volume_nm3=9.0, border_angstrom=99.0), (0, 0, 0)),
        (CleaningSettings(opening_angstrom=30.0), (2, 6, 6)),
        (CleaningSettings(opening_angstrom=30.0, closing_angstrom=45.0), (6, 14, 14)),
    ],
    ids=["no neighbourhood", "one", "both add up"],
)
def test_halo(how: CleaningSettings, halo: Shape) -> None:
    assert cleaning_halo(how, Sampling(SHAPE, (20.0, 10.0, 10.0))) == halo


@pytest.mark.parametrize(
    ("how", "anything"),
    [
        (CleaningSettings(minimum_volume_nm3=9.0, fill_holes_nm3=3.0), False),
        (CleaningSettings(opening_angstrom=1.0), True),
        (CleaningSettings(closing_angstrom=1.0), True),
        (CleaningSettings(border_angstrom=1.0), True),
    ],
)
def test_smooths(how: CleaningSettings, anything: bool) -> None:
    assert smooths(how) == anything


@pytest.mark.parametrize("name", list(asdict(CleaningSettings())))
@pytest.mark.parametrize("value", [-1.0, float("nan"), float("inf")])
def test_bad_settings_are_named(name: str, value: float) -> None:
    with pytest.raises(RequestError, match=f"{name}: .* not '{value}'"):
        CleaningSettings(**{name: value})


def test_settings_stand_in_a_pydantic_recipe() -> None:
    recipe = TypeAdapter(CleaningSettings)
    assert recipe.validate_python({"opening_angstrom": 20}) == CleaningSettings(opening_angstrom=20)
    with pytest.raises(ValidationError, match="opening_voxels"):
        recipe.validate_python({"opening_voxels": 2})
