"""Boxes and block grids against sets of voxels written out one by one."""

from __future__ import annotations

from itertools import product

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape, as_shape

corners = st.tuples(*[st.integers(-6, 12)] * 3)
lengths = st.tuples(*[st.integers(0, 7)] * 3)
boxes = st.builds(lambda begin, size: Box(begin, as_shape(np.add(begin, size))), corners, lengths)
margins = st.tuples(*[st.integers(0, 4)] * 3)
volumes = st.tuples(*[st.integers(1, 14)] * 3)


def voxels(box: Box) -> set[Shape]:
    return set(product(*[range(b, e) for b, e in zip(box.begin, box.end, strict=True)]))


@given(boxes, boxes)
def test_intersection_and_containment_are_those_of_sets(one: Box, other: Box) -> None:
    both = one.intersect(other)
    assert voxels(both) == voxels(one) & voxels(other)
    assert both.size == len(voxels(both))
    assert one.contains(other) == (voxels(other) <= voxels(one))


@given(boxes, volumes)
def test_clipping_keeps_what_is_in_the_volume(box: Box, shape: Shape) -> None:
    assert voxels(box.clip(shape)) == voxels(box) & voxels(Box.whole(shape))


@given(boxes, margins)
def test_growing_adds_the_margin_on_both_sides(box: Box, margin: Shape) -> None:
    assume(box.size > 0)
    steps = product(*[range(-m, m + 1) for m in margin])
    wanted = {as_shape(np.add(v, s)) for s in steps for v in (box.begin, np.subtract(box.end, 1))}
    grown = box.grow(margin)
    assert wanted <= voxels(grown)
    assert grown.shape == as_shape(np.add(box.shape, 2 * np.array(margin)))


@given(boxes, st.tuples(*[st.integers(1, 5)] * 3))
def test_alignment_is_the_smallest_that_contains(box: Box, stride: Shape) -> None:
    assume(box.size > 0)
    out = box.aligned(stride)
    assert out.contains(box)
    edges = np.array([out.begin, out.end])
    assert (edges % stride == 0).all()
    assert (np.abs(edges - [box.begin, box.end]) < stride).all()


@given(boxes, boxes)
def test_frames_there_and_back(box: Box, outer: Box) -> None:
    assert box.within(outer).shift(outer.begin) == box
    assert outer.within(outer).begin == (0, 0, 0)


@given(boxes, volumes)
def test_slices_pick_the_voxels_of_the_box(box: Box, shape: Shape) -> None:
    inside = box.clip(shape)
    indices = np.moveaxis(np.indices(shape), 0, -1)[inside.slices].reshape(-1, 3)
    assert set(map(as_shape, indices)) == voxels(inside)


def edges_of(box: Box) -> NDArray[np.int64]:
    return np.array([box.begin, box.end])


@st.composite
def block_grids(draw: st.DrawFn) -> BlockGrid:
    stride = draw(st.tuples(*[st.sampled_from([1, 2, 4])] * 3))
    times = draw(st.tuples(*[st.integers(1, 4)] * 3))
    shape = draw(st.tuples(*[st.integers(1, 20)] * 3))
    halo = draw(st.tuples(*[st.integers(0, 6)] * 3))
    return BlockGrid(shape, as_shape(np.multiply(stride, times)), halo=halo, stride=stride)


@given(block_grids())
def test_write_boxes_cover_each_voxel_exactly_once(grid: BlockGrid) -> None:
    written = np.zeros(grid.shape, np.int64)
    for block in grid:
        assert block.write.size > 0
        written[block.write.slices] += 1
    assert (written == 1).all()
    assert len(grid) == len(list(grid)) == np.prod(grid.counts)


@given(block_grids())
def test_read_boxes_hold_the_halo_start_at_the_stride_and_stay_inside(grid: BlockGrid) -> None:
    for block in grid:
        assert block.read.contains(block.write.grow(grid.halo).clip(grid.shape))
        assert Box.whole(grid.shape).contains(block.read)
        assert (np.array(block.read.begin) % grid.stride == 0).all()
        ends = np.array(block.read.end)
        assert ((ends % grid.stride == 0) | (ends == grid.shape)).all()
        surplus = np.abs(np.subtract(edges_of(block.read), edges_of(block.write)))
        assert (surplus < np.add(grid.halo, grid.stride)).all()


@given(block_grids())
def test_the_core_of_what_was_read_is_what_is_written(grid: BlockGrid) -> None:
    volume = np.arange(np.prod(grid.shape)).reshape(grid.shape)
    out = np.zeros_like(volume)
    for block in grid:
        out[block.write.slices] = volume[block.read.slices][block.core.slices]
    np.testing.assert_array_equal(out, volume)


@given(block_grids())
def test_blocks_come_in_c_order_with_unique_names(grid: BlockGrid) -> None:
    blocks = list(grid)
    assert [b.index for b in blocks] == sorted(b.index for b in blocks)
    assert len({b.name for b in blocks}) == len(blocks)
    assert all(grid.block(b.index) == b for b in blocks)


@given(block_grids(), st.integers(0, 2))
def test_neighbours_touch(grid: BlockGrid, axis: int) -> None:
    for block in grid:
        other = grid.neighbour(block, axis)
        if other is None:
            assert block.write.end[axis] == grid.shape[axis]
        else:
            assert other.write.begin[axis] == block.write.end[axis]
            assert other.index[axis] == block.index[axis] + 1


@pytest.mark.parametrize(
    ("shape", "block", "halo", "stride"),
    [
        ((0, 8, 8), (4, 4, 4), (0, 0, 0), (1, 1, 1)),
        ((8, 8, 8), (4, 0, 4), (0, 0, 0), (1, 1, 1)),
        ((8, 8, 8), (4, 4, 4), (0, -1, 0), (1, 1, 1)),
        ((8, 8, 8), (4, 4, 4), (0, 0, 0), (1, 1, 0)),
        ((8, 8, 8), (4, 6, 4), (0, 0, 0), (4, 4, 4)),
    ],
    ids=["no voxel", "no block", "negative halo", "no stride", "block off the stride"],
)
def test_impossible_grids_are_refused(
    shape: Shape, block: Shape, halo: Shape, stride: Shape
) -> None:
    with pytest.raises(RequestError):
        BlockGrid(shape, block, halo=halo, stride=stride)


def test_one_block_for_an_axis_need_not_be_a_multiple_of_the_stride() -> None:
    grid = BlockGrid((8, 30, 8), (4, 30, 4), stride=(4, 4, 4))
    assert [b.read.shape[1] for b in grid] == [30] * 4


def test_the_voxels_of_a_box_of_bins() -> None:
    assert Box((0, 3, 4), (1, 5, 6)).scaled((1, 2, 4)) == Box((0, 6, 16), (1, 10, 24))
