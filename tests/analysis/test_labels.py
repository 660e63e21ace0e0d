"""Labels of blocks, merged, against the labels of the whole volume."""

from __future__ import annotations

import pickle
from itertools import product

import cc3d
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.analysis.labels import (
    Connectivity,
    Merged,
    ObjectTable,
    directions,
    faces,
    local_components,
    merge,
    object_table,
    provisional_offsets,
    touching,
)
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.sampling import Shape, as_shape

Volume = NDArray[np.uint32]


def blockwise(
    mask: NDArray[np.bool_] | NDArray[np.uint8], block_shape: Shape, connectivity: Connectivity
) -> tuple[Volume, Merged]:
    """Label a volume in blocks, as a stage does."""
    grid = BlockGrid(as_shape(mask.shape), block_shape)
    blocks = list(grid)
    number = {block.index: i for i, block in enumerate(blocks)}
    local = [local_components(mask[b.write.slices], connectivity=connectivity) for b in blocks]
    tables = [
        object_table(labels, mask[b.write.slices], begin=b.write.begin, volume_shape=grid.shape)
        for labels, b in zip(local, blocks, strict=True)
    ]
    offsets, planes = provisional_offsets(tables), [faces(labels) for labels in local]
    pairs = [np.zeros((0, 2), np.int64)]
    for (i, block), step in product(enumerate(blocks), directions(connectivity)):
        j = number.get(as_shape(np.add(block.index, step)))
        if j is not None:
            met = touching(planes[i], planes[j], step, connectivity=connectivity)
            pairs.append(met + offsets[[i, j]])
    merged = merge(tables, np.concatenate(pairs))
    out = np.zeros(mask.shape, np.uint32)
    for i, block in enumerate(blocks):
        out[block.write.slices] = merged.of_block(i)[local[i]]
    return out, merged


def same_up_to_renaming(one: NDArray[np.generic], other: NDArray[np.generic]) -> bool:
    pairs = np.unique(np.stack([one.ravel(), other.ravel()]), axis=1)
    return all(len(np.unique(row)) == pairs.shape[1] for row in pairs)


def by_first_voxel(labels: NDArray[np.integer]) -> NDArray[np.integer]:
    """Rename labels by the place of their first voxel: the oracle for ids."""
    flat = labels.ravel()
    seen = list(dict.fromkeys(flat[flat > 0].tolist()))
    return np.array([seen.index(v) + 1 if v else 0 for v in flat]).reshape(labels.shape)


shapes = st.tuples(*[st.integers(1, 9)] * 3)
connectivities = st.sampled_from([6, 26])


@settings(max_examples=150)
@given(shapes, shapes, connectivities, st.sampled_from([0.1, 0.3, 0.5, 0.7]), st.integers(0, 9999))
def test_labels_do_not_depend_on_the_blocks(
    shape: Shape, block: Shape, connectivity: Connectivity, density: float, seed: int
) -> None:
    mask = np.random.default_rng(seed).random(shape) < density
    found, _ = blockwise(mask, block, connectivity)
    structure = ndimage.generate_binary_structure(3, 3 if connectivity == 26 else 1)
    whole, _ = ndimage.label(mask, structure)
    assert same_up_to_renaming(found, whole)
    np.testing.assert_array_equal(found, by_first_voxel(whole))


@pytest.mark.parametrize("connectivity", [6, 26])
@pytest.mark.parametrize(
    "block_shape",
    [(48, 48, 48), (16, 16, 16), (13, 17, 48), (1, 48, 48), (48, 1, 9)],
    ids=["one block", "exact", "last ones clipped", "planes", "thin"],
)
def test_larger_volume_equals_cc3d(block_shape: Shape, connectivity: Connectivity) -> None:
    mask = ndimage.gaussian_filter(np.random.default_rng(1).normal(size=(48, 48, 48)), 1) > 0.12
    found, merged = blockwise(mask, block_shape, connectivity)
    whole = cc3d.connected_components(mask, connectivity=connectivity)
    assert same_up_to_renaming(found, whole)
    assert len(merged.table) == whole.max()


@settings(max_examples=60)
@given(shapes, shapes, st.integers(0, 9999))
def test_merged_table_counts_the_voxels(shape: Shape, block: Shape, seed: int) -> None:
    mask = np.random.default_rng(seed).random(shape) < 0.35
    labels, merged = blockwise(mask, block, 26)
    table = merged.table
    assert len(table) == labels.max()
    for i in range(len(table)):
        where = np.argwhere(labels == i + 1)
        assert table.voxels[i] == len(where)
        np.testing.assert_array_equal(table.centre_sum[i], where.sum(axis=0))
        np.testing.assert_allclose(table.centres[i], where.mean(axis=0), rtol=1e-14)
        np.testing.assert_array_equal(table.begin[i], where.min(axis=0))
        np.testing.assert_array_equal(table.end[i], where.max(axis=0) + 1)
        assert table.first[i] == np.flatnonzero(labels == i + 1)[0]


@pytest.mark.parametrize(
    ("a", "b", "step", "connectivity", "joined"),
    [
        ((1, 1, 1), (0, 1, 1), (1, 0, 0), 6, True),
        ((1, 1, 1), (0, 0, 1), (1, 0, 0), 6, False),
        ((1, 1, 1), (0, 0, 0), (1, 0, 0), 26, True),
        ((1, 0, 1), (0, 1, 0), (1, 0, 0), 26, True),
        ((1, 1, 0), (0, 0, 1), (1, 1, 0), 26, True),
        ((1, 0, 0), (0, 1, 1), (1, -1, 0), 26, True),
        ((1, 1, 1), (0, 0, 0), (1, 1, 1), 26, True),
        ((1, 0, 0), (0, 1, 1), (1, -1, -1), 26, True),
        ((0, 0, 1), (0, 0, 0), (1, 0, 0), 26, False),
    ],
    ids=[
        "face",
        "face diagonal is not 6-connected",
        "corner across a face",
        "corner the other way",
        "across an edge",
        "across a falling edge",
        "across a corner",
        "across a falling corner",
        "not at the face",
    ],
)
def test_two_voxels_meet(
    a: Shape, b: Shape, step: Shape, connectivity: Connectivity, joined: bool
) -> None:
    one, other = np.zeros((2, 2, 2, 2), np.uint32)
    one[a], other[b] = 3, 5
    pairs = touching(faces(one), faces(other), step, connectivity=connectivity)
    assert pairs.tolist() == ([[3, 5]] if joined else [])


def test_directions_reach_every_neighbour_once() -> None:
    steps = directions(26)
    both = {*steps, *(as_shape(-d for d in step) for step in steps)}
    assert len(steps) == 13
    assert both == set(product((-1, 0, 1), repeat=3)) - {(0, 0, 0)}


def test_large_labels_survive_the_pairing() -> None:
    one = np.full((1, 1, 1), 2**32 - 1, np.uint32)
    assert touching(faces(one), faces(one - 1), (0, 0, 1)).tolist() == [[2**32 - 1, 2**32 - 2]]


@pytest.mark.parametrize("shape", [(1, 1, 3), (1, 5, 5), (3, 3, 3), (4, 4, 4)], ids=str)
def test_dots_at_every_other_voxel_are_all_counted(shape: Shape) -> None:
    mask = np.zeros(shape, np.bool_)
    mask[::2, ::2, ::2] = True
    assert local_components(mask).max() == mask.sum()


def test_fortran_ordered_mask_gives_the_same_labels() -> None:
    mask = np.random.default_rng(2).random((6, 7, 8)) < 0.3
    np.testing.assert_array_equal(local_components(np.asfortranarray(mask)), local_components(mask))


def test_empty_volume_has_no_object() -> None:
    labels, merged = blockwise(np.zeros((5, 5, 5), np.bool_), (2, 3, 4), 26)
    assert labels.max() == 0
    assert len(merged.table) == 0
    assert len(merge([], np.zeros((0, 2), np.int64)).table) == 0


def test_dropped_objects_are_relabelled_away() -> None:
    mask = np.zeros((1, 1, 9), np.bool_)
    mask[0, 0, [0, 2, 3, 5, 7, 8]] = True
    labels, merged = blockwise(mask, (1, 1, 4), 26)
    kept = merged.select(merged.table.voxels > 1)
    assert labels.tolist() == [[[1, 0, 2, 2, 0, 3, 0, 4, 4]]]
    found = [kept.of_block(i).tolist() for i in range(3)]
    assert found == [[0, 0, 1], [0, 0, 2], [0, 2]]
    assert kept.table.voxels.tolist() == [2, 2]


@pytest.mark.parametrize("connectivity", [6, 26])
def test_parts_of_different_values_never_join(connectivity: Connectivity) -> None:
    """Blocks of a volume of three values give what each value alone gives."""
    volume = np.random.default_rng(8).integers(0, 4, (11, 13, 15), np.uint8)
    ids, merged = blockwise(volume, (4, 5, 6), connectivity)
    for value in (1, 2, 3):
        alone, table = blockwise(volume == value, (11, 13, 15), connectivity)
        rows = np.flatnonzero(merged.table.value == value)
        assert np.array_equal(np.isin(ids, rows + 1), volume == value)
        assert np.array_equal(merged.table.voxels[rows], table.table.voxels)
        assert np.array_equal(
            np.searchsorted(rows + 1, ids) * (volume == value) + (volume == value), alone
        )


def test_table_survives_a_sidecar(tmp_path_factory: pytest.TempPathFactory) -> None:
    volume = np.random.default_rng(3).integers(0, 4, (5, 6, 7), np.uint8)
    labels = local_components(volume)
    table = object_table(labels, volume, begin=(10, 20, 30), volume_shape=(50, 50, 50))
    path = tmp_path_factory.mktemp("sidecar") / "block.npz"
    np.savez(path, **table.as_dict(), **faces(labels))
    with np.load(path) as arrays:
        back = ObjectTable.from_dict(arrays)
    for name, values in table.as_dict().items():
        np.testing.assert_array_equal(getattr(back, name), values)
    assert len(pickle.loads(pickle.dumps(table))) == len(table)
