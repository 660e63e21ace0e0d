"""Boxes of voxels and the grid of blocks that tiles a volume.

Every region is half open. A block *writes* its core and *reads* the core grown by the halo,
clipped (never padded) at the volume's border:

    volume    |0 . . . . . . . . . . . . . . . . . . 20|     shape 20, block 8, halo 3, stride 4
    write     |0 . . . . . . 8| . . . . . . 16| . . .20|     cores tile the volume exactly once
    read  0   |0 . . . . . . . . . . .12|                    halo 3 is rounded up to 4
    read  1             |4 . . . . . . . . . . . . . .20|    begins at a multiple of the stride
    read  2                             |12 . . . . .20|

Law 1: a network that folds ``stride`` voxels into one must see the same folding in every block,
hence read boxes that begin at multiples of the stride.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import product
from math import prod

import numpy as np

from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape, as_shape


@dataclass(frozen=True, order=True)
class Box:
    """A half-open region of voxels, ``begin`` ≤ voxel < ``end``, zyx.

    Examples
    --------
    >>> Box((0, 0, 0), (4, 4, 4)).grow((1, 1, 1)).clip((8, 8, 8))
    Box(begin=(0, 0, 0), end=(5, 5, 5))
    """

    begin: Shape
    end: Shape

    @classmethod
    def whole(cls, shape: Shape) -> Box:
        """Return the box of a whole volume."""
        return cls((0, 0, 0), as_shape(shape))

    @property
    def shape(self) -> Shape:
        """Edge lengths, 0 where the box is empty."""
        return as_shape(max(0, e - b) for b, e in zip(self.begin, self.end, strict=True))

    @property
    def size(self) -> int:
        """Number of voxels."""
        return prod(self.shape)

    @property
    def slices(self) -> tuple[slice, slice, slice]:
        """The box as an index into an array of the volume's frame."""
        z, y, x = (slice(b, e) for b, e in zip(self.begin, self.end, strict=True))
        return z, y, x

    def grow(self, margin: Shape) -> Box:
        """Return the box with ``margin`` voxels more on both sides of each axis."""
        return Box(
            as_shape(b - m for b, m in zip(self.begin, margin, strict=True)),
            as_shape(e + m for e, m in zip(self.end, margin, strict=True)),
        )

    def clip(self, shape: Shape) -> Box:
        """Return the part of the box that lies in a volume of this shape."""
        return self.intersect(Box.whole(shape))

    def intersect(self, other: Box) -> Box:
        """Return the common part; a box of size 0 if there is none."""
        begin = as_shape(max(a, b) for a, b in zip(self.begin, other.begin, strict=True))
        # No end before a begin: as a slice, an end below 0 would count from the array's end.
        ends = zip(begin, self.end, other.end, strict=True)
        return Box(begin, as_shape(max(b, min(one, two)) for b, one, two in ends))

    def joined(self, other: Box) -> Box:
        """Return the smallest box that contains both."""
        return Box(
            as_shape(min(a, b) for a, b in zip(self.begin, other.begin, strict=True)),
            as_shape(max(a, b) for a, b in zip(self.end, other.end, strict=True)),
        )

    def contains(self, other: Box) -> bool:
        """Tell whether every voxel of the other box is in this one."""
        return other.size == 0 or self.intersect(other) == other

    def shift(self, offset: Shape) -> Box:
        """Return the box moved by ``offset`` voxels."""
        return Box(
            as_shape(b + o for b, o in zip(self.begin, offset, strict=True)),
            as_shape(e + o for e, o in zip(self.end, offset, strict=True)),
        )

    def scaled(self, bins: Shape) -> Box:
        """Return the voxels that the box's bins, of so many voxels zyx each, are made of."""
        return Box(
            as_shape(b * n for b, n in zip(self.begin, bins, strict=True)),
            as_shape(e * n for e, n in zip(self.end, bins, strict=True)),
        )

    def within(self, outer: Box) -> Box:
        """Return this box in the frame whose voxel (0, 0, 0) is ``outer.begin``."""
        return self.shift(as_shape(-b for b in outer.begin))

    def aligned(self, stride: Shape) -> Box:
        """Return the smallest box around this one that begins and ends at multiples of stride."""
        return Box(
            as_shape(b // s * s for b, s in zip(self.begin, stride, strict=True)),
            as_shape(-(-e // s) * s for e, s in zip(self.end, stride, strict=True)),
        )


@dataclass(frozen=True)
class Block:
    """One task's share of a volume: what it writes and what it must read for that.

    ``index`` is the place in the grid, zyx; ``write`` lies within ``read``.
    """

    index: Shape
    write: Box
    read: Box

    @property
    def name(self) -> str:
        """Stable name, such as ``"0-3-12"``: grid index zyx."""
        return "-".join(str(i) for i in self.index)

    @property
    def core(self) -> Box:
        """The write box in the frame of the array that was read."""
        return self.write.within(self.read)


@dataclass(frozen=True)
class BlockGrid:
    """Blocks that tile a volume; iterating goes in C order of the grid index.

    Parameters
    ----------
    shape
        The volume, voxels zyx.
    block_shape
        Core of a block, voxels zyx; the last ones along an axis are clipped.
    halo
        Voxels that a block reads beyond its core, before rounding up to the stride.
    stride
        Read boxes begin at multiples of this. It must divide ``block_shape`` unless one block
        covers the axis.

    Raises
    ------
    RequestError
        If a length is not positive or the block is not a multiple of the stride.

    Examples
    --------
    >>> grid = BlockGrid((20, 8, 8), (8, 8, 8), halo=(3, 0, 0), stride=(4, 1, 1))
    >>> [(b.write.begin[0], b.write.end[0], b.read.begin[0], b.read.end[0]) for b in grid]
    [(0, 8, 0, 12), (8, 16, 4, 20), (16, 20, 12, 20)]
    """

    shape: Shape
    block_shape: Shape
    halo: Shape = (0, 0, 0)
    stride: Shape = (1, 1, 1)

    def __post_init__(self) -> None:
        """Check lengths and the alignment of blocks."""
        for field in ("shape", "block_shape", "halo", "stride"):
            object.__setattr__(self, field, as_shape(getattr(self, field)))
        if min(self.shape + self.block_shape + self.stride) < 1 or min(self.halo) < 0:
            raise RequestError(
                f"blocks of {self.block_shape} with halo {self.halo} and stride {self.stride} "
                f"cannot tile {self.shape}: lengths must be positive"
            )
        for n, size, step in zip(self.shape, self.block_shape, self.stride, strict=True):
            if size < n and size % step:
                raise RequestError(
                    f"block {self.block_shape} is not a multiple of the network's stride "
                    f"{self.stride}",
                    remedy="Choose blocks.shape as a multiple of it.",
                )

    @property
    def counts(self) -> Shape:
        """Number of blocks along z, y, x."""
        return as_shape(-(-n // b) for n, b in zip(self.shape, self.block_shape, strict=True))

    def __len__(self) -> int:
        """Return the number of blocks."""
        return prod(self.counts)

    def __iter__(self) -> Iterator[Block]:
        """Yield the blocks in C order, one at a time."""
        for index in np.ndindex(self.counts):
            yield self.block(as_shape(index))

    def block(self, index: Shape) -> Block:
        """Return the block at a grid index, zyx."""
        begin = as_shape(i * b for i, b in zip(index, self.block_shape, strict=True))
        end = as_shape(b + s for b, s in zip(begin, self.block_shape, strict=True))
        write = Box(begin, end).clip(self.shape)
        read = write.grow(self.halo).aligned(self.stride).clip(self.shape)
        return Block(as_shape(index), write, read)

    def inside(self, box: Box) -> Iterator[Block]:
        """Yield the blocks whose core begins in a box, in C order.

        >>> line = BlockGrid((1, 1, 20), (1, 1, 4))
        >>> [block.index[2] for block in line.inside(Box((0, 0, 8), (1, 1, 17)))]
        [2, 3, 4]
        """
        edges = zip(box.begin, box.end, self.block_shape, strict=True)
        runs = [range(-(-begin // size), -(-end // size)) for begin, end, size in edges]
        for index in product(*runs):
            yield self.block(as_shape(index))

    def neighbour(self, block: Block, axis: int) -> Block | None:
        """Return the next block along an axis, or None at the volume's end."""
        index = list(block.index)
        index[axis] += 1
        return self.block(as_shape(index)) if index[axis] < self.counts[axis] else None
