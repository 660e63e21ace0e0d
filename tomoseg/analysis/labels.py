"""Connected components of a volume that is never held whole.

Law 7: each block is labelled on its own, its six outer planes are kept as a small sidecar, pairs
of labels that meet across planes are joined by union-find, and the object tables are merged with
the same result, so that no voxel is looked at a second time before the final relabelling.

    block 0        block 1               pairs of provisional ids    lookup
    1 1 0 2 2  |   1 0 0 2 2             offset of block 0 is 0      1→1 2→2
    0 0 0 0 2  |   1 1 0 0 0             offset of block 1 is 2      3→2 4→3
                                         (2, 3): 2 meets 1 + 2

Final ids follow the position of each object's first voxel in C order, so they do not depend on
the blocks.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from typing import Literal

import cc3d
import numpy as np
from numpy.typing import NDArray
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from tomoseg.core.columns import Columns, column
from tomoseg.core.sampling import Shape, as_shape

Connectivity = Literal[6, 26]
Labels = NDArray[np.uint32]
Mask = NDArray[np.bool_] | NDArray[np.uint8]
Ints = NDArray[np.int64]

AXES = "zyx"


@dataclass(frozen=True, eq=False)
class ObjectTable(Columns):
    """What is known of each object of a block or a volume; row ``i`` is label ``i + 1``.

    Parameters
    ----------
    voxels
        int64, shape (n,): size.
    centre_sum
        int64, shape (n, 3), zyx: sum of the volume indices of its voxels, exact.
    begin, end
        int64, shape (n, 3), zyx: half-open bounding box in the volume.
    first
        int64, shape (n,): smallest C-order index in the volume of a voxel.
    value
        int64, shape (n,): the value that its voxels have in the volume.
    """

    voxels: Ints = column(np.int64)
    centre_sum: Ints = column(np.int64, 3)
    begin: Ints = column(np.int64, 3)
    end: Ints = column(np.int64, 3)
    first: Ints = column(np.int64)
    value: Ints = column(np.int64)

    @property
    def centres(self) -> NDArray[np.float64]:
        """Centres of mass, float64, shape (n, 3), zyx, voxels."""
        return np.asarray(self.centre_sum / self.voxels[:, None])


@dataclass(frozen=True, eq=False)
class Merged:
    """The objects of a volume and how the blocks' labels map to them.

    Parameters
    ----------
    lookups
        uint32, shape (total + 1,): final id of each provisional id; 0 stays 0, and 0 also stands
        for an object that was dropped.
    offsets
        int64, shape (blocks + 1,): label ``l`` of block ``b`` has provisional id
        ``offsets[b] + l``.
    table
        The merged objects; row ``i`` is final id ``i + 1``.
    """

    lookups: Labels
    offsets: Ints
    table: ObjectTable

    def of_block(self, number: int) -> Labels:
        """Return uint32, shape (n + 1,): final id of each label of one block.

        ``lookup[labels]`` relabels the block.
        """
        begin, end = self.offsets[number], self.offsets[number + 1]
        lookup = self.lookups[begin : end + 1].copy()
        lookup[0] = 0
        return lookup

    def select(self, keep: NDArray[np.bool_]) -> Merged:
        """Drop the objects whose flag is false, and number the others 1..n in the same order."""
        renumber = np.concatenate([[0], np.cumsum(keep) * keep]).astype(np.uint32)
        return Merged(renumber[self.lookups], self.offsets, self.table.select(keep))


def local_components(volume: Mask, *, connectivity: Connectivity = 26) -> Labels:
    """Label the connected parts of one block.

    Parameters
    ----------
    volume
        bool or uint8, shape (z, y, x): 0 is background; parts of different values never join.
    connectivity
        6 joins voxels that share a face, 26 also those that share an edge or a corner.

    Returns
    -------
    uint32, shape (z, y, x): 0 is background, objects are 1..n.
    """
    values = np.ascontiguousarray(volume).view(np.uint8)
    # binary_image=True of cc3d 4.1.1 fails for dots at every other voxel along an odd axis.
    labels = cc3d.connected_components(values, connectivity=connectivity, out_dtype=np.uint32)
    return np.ascontiguousarray(labels)


def object_table(labels: Labels, volume: Mask, *, begin: Shape, volume_shape: Shape) -> ObjectTable:
    """Measure the objects of one block in the volume's frame.

    Parameters
    ----------
    labels
        uint32, shape (z, y, x), each of 1..n present, as from :func:`local_components`.
    volume
        What they are the parts of, as given to it.
    begin
        Place of the block's first voxel in the volume, zyx.
    volume_shape
        Shape of the volume, zyx.
    """
    starts, lengths = _runs(volume)
    row = labels.reshape(-1)[starts].astype(np.int64) - 1
    index = np.stack(np.unravel_index(starts, labels.shape), axis=1)
    last = index + np.outer(lengths - 1, (0, 0, 1))
    n = int(row.max(initial=-1)) + 1
    # Sums below 2^53 are exact as float64; the mean index of a run is that of its ends.
    voxels, *sums = (
        np.bincount(row, weights, n).astype(np.int64)
        for weights in (lengths, *((index + last).T * lengths))
    )
    low, high = np.full((n, 3), labels.size, np.int64), np.zeros((n, 3), np.int64)
    np.minimum.at(low, row, index)
    np.maximum.at(high, row, last + 1)
    first = np.full(n, labels.size, np.int64)
    np.minimum.at(first, row, starts)
    place = np.unravel_index(first, labels.shape)
    there = tuple(index + b for index, b in zip(place, begin, strict=True))
    return ObjectTable(
        voxels=voxels,
        centre_sum=np.stack(sums, axis=1) // 2 + voxels[:, None] * np.array(begin),
        begin=low + begin,
        end=high + begin,
        first=np.ravel_multi_index(there, volume_shape).astype(np.int64),
        value=volume[place].astype(np.int64),
    )


def faces(labels: Labels) -> dict[str, Labels]:
    """Return copies of the six outer planes: ``z0`` and ``z1`` (y, x), ``y0`` (z, x) and so on."""
    return {
        f"{name}{side}": np.take(labels, -side, axis=axis)
        for axis, name in enumerate(AXES)
        for side in (0, 1)
    }


def directions(connectivity: Connectivity) -> list[Shape]:
    """Return the steps zyx to the neighbours that come later in C order: 3 for 6, 13 for 26.

    Examples
    --------
    >>> directions(6)
    [(0, 0, 1), (0, 1, 0), (1, 0, 0)]
    """
    steps = [as_shape(step) for step in product((-1, 0, 1), repeat=3) if step > (0, 0, 0)]
    return [step for step in steps if connectivity == 26 or np.abs(step).sum() == 1]


def touching(
    faces_a: Mapping[str, Labels],
    faces_b: Mapping[str, Labels],
    direction: Shape,
    *,
    connectivity: Connectivity = 26,
) -> Ints:
    """Find the labels of two blocks that meet.

    Parameters
    ----------
    faces_a, faces_b
        Outer planes of the block at grid index ``i`` and of that at ``i + direction``.
    direction
        One of :func:`directions` for this connectivity.

    Returns
    -------
    int64, shape (k, 2), unique rows: label in a, label in b.
    """
    border_a, border_b = _border(faces_a, direction, 1), _border(faces_b, direction, -1)
    reach = [range(-1, 2) if connectivity == 26 and not d else range(1) for d in direction]
    pairs = []
    for shift in product(*reach):
        # Along an axis where the blocks do not step, voxel i of a meets i - 1, i and i + 1 of b.
        a = border_a[tuple(slice(max(0, -s), -s if s > 0 else None) for s in shift)].ravel()
        b = border_b[tuple(slice(max(0, s), s if s < 0 else None) for s in shift)].ravel()
        both = (a > 0) & (b > 0)
        pairs.append(a[both].astype(np.uint64) << np.uint64(32) | b[both])
    codes = np.unique(np.concatenate(pairs))
    return np.stack([codes >> np.uint64(32), codes & np.uint64(0xFFFFFFFF)], axis=1).astype(
        np.int64
    )


def provisional_offsets(tables: Sequence[ObjectTable]) -> Ints:
    """Return int64, shape (blocks + 1,): what to add to the labels of each block."""
    return np.concatenate([[0], np.cumsum([len(table) for table in tables], dtype=np.int64)])


def merge(tables: Sequence[ObjectTable], pairs: Ints) -> Merged:
    """Join the objects of all blocks.

    Parameters
    ----------
    tables
        One table a block, in the order of the blocks.
    pairs
        int64, shape (k, 2): provisional ids (label + the block's offset) that touch; those of one
        value are one object.

    Returns
    -------
    The merged objects, ids 1..n by the position of their first voxel.
    """
    pieces = ObjectTable.concatenate(tables)
    rows = np.asarray(pairs, np.int64).reshape(-1, 2) - 1
    here, there = pieces.value[rows].T
    owner = _owners(len(pieces), rows[here == there])
    joined = _gather(pieces, owner)
    order = np.argsort(joined.first)
    rank = np.empty_like(order)
    rank[order] = np.arange(len(order))
    return Merged(
        lookups=np.concatenate([[0], rank[owner] + 1]).astype(np.uint32),
        offsets=provisional_offsets(tables),
        table=joined.select(order),
    )


def _runs(volume: Mask) -> tuple[Ints, Ints]:
    """Return where in C order the runs of one value along x begin, and their lengths; not of 0.

    The voxels of a run are one object's: what is looked at for an object are its runs.
    """
    flat = np.ascontiguousarray(volume).reshape(-1).view(np.uint8)
    is_last = np.ones(flat.size, np.bool_)
    np.not_equal(flat[1:], flat[:-1], out=is_last[:-1])
    is_last[volume.shape[2] - 1 :: volume.shape[2]] = True
    ends = np.flatnonzero(is_last) + 1
    starts = np.concatenate([[0], ends[:-1]])
    kept = flat[starts] > 0
    return starts[kept], (ends - starts)[kept]


def _border(planes: Mapping[str, Labels], direction: Shape, sign: int) -> Labels:
    """Return the part of a block that lies next to its neighbour in a direction.

    It has three axes, of one voxel along each axis of the step. With sign -1 it is the part next
    to the neighbour in the opposite direction.
    """
    axis = next(axis for axis, step in enumerate(direction) if step)
    side = {a: int(step * sign > 0) for a, step in enumerate(direction) if step}
    border = np.expand_dims(planes[f"{AXES[axis]}{side[axis]}"], axis)
    for other, far in side.items():
        border = np.take(border, [-far], axis=other) if other != axis else border
    return border


def _owners(n: int, pairs: Ints) -> Ints:
    """Return, for each of 0..n-1, the number (0, 1, …) of the group that the pairs put it in."""
    owner = np.arange(n)
    # Only what occurs in a pair enters the graph: most objects touch no other block.
    paired = np.zeros(n, np.bool_)
    paired[pairs] = True
    members = np.flatnonzero(paired)
    if len(members):
        source, target = (np.cumsum(paired) - 1)[pairs.T]
        edges = np.ones(len(pairs), np.bool_), (source, target)
        graph = coo_array(edges, shape=(len(members), len(members)))
        _, group = connected_components(graph, directed=False)
        _, head = np.unique(group, return_index=True)
        owner[members] = members[head[group]]
    numbers = np.cumsum(owner == np.arange(n)) - 1
    return np.asarray(numbers[owner])


def _gather(pieces: ObjectTable, owner: Ints) -> ObjectTable:
    """Sum and bound the rows of each owner 0..n-1; none is without a row."""
    order = np.argsort(owner, kind="stable")
    starts = np.flatnonzero(np.diff(owner[order], prepend=-1))
    rows = pieces.select(order)
    if not len(rows):
        return rows
    return ObjectTable(
        voxels=np.add.reduceat(rows.voxels, starts),
        centre_sum=np.add.reduceat(rows.centre_sum, starts),
        begin=np.minimum.reduceat(rows.begin, starts),
        end=np.maximum.reduceat(rows.end, starts),
        first=np.minimum.reduceat(rows.first, starts),
        value=rows.value[starts],
    )
