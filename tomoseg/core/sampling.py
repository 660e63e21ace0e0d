"""Grids of voxels in space: every conversion between voxels and ångström, once.

Index order is zyx, 0-based. Voxel ``i`` covers ``[i - 1/2, i + 1/2)`` and its centre is at ``i``.
A position in ångström is relative to the centre of the *source's* first voxel; a grid made from
the source by binning or rescaling has its own first voxel at ``first_voxel_angstrom``.

    source voxels    |   0   |   1   |   2   |   3   |     voxel 10 Å, first voxel at 0 Å
    binned by 2      |       0       |       1       |     voxel 20 Å, first voxel at 5 Å
    ångström            0   5   10   15   20  25   30
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tomoseg.core.errors import RequestError

Shape = tuple[int, int, int]
Triple = tuple[float, float, float]


@dataclass(frozen=True)
class Sampling:
    """A regular grid of voxels.

    Parameters
    ----------
    shape
        Voxels along z, y, x.
    voxel_size_angstrom
        Edge lengths of a voxel along z, y, x, in Å.
    first_voxel_angstrom
        Position of the centre of voxel (0, 0, 0) in the source's frame, zyx, in Å.

    Raises
    ------
    RequestError
        If a length is not positive and finite, a position not finite, or a shape empty.

    Examples
    --------
    >>> grid = Sampling((100, 250, 240), (10.0, 10.0, 10.0))
    >>> grid.to_angstrom([(40, 100.5, 60.25)]).tolist()
    [[400.0, 1005.0, 602.5]]
    >>> grid.binned(2).to_angstrom([(0, 0, 0)]).tolist()
    [[5.0, 5.0, 5.0]]
    """

    shape: Shape
    voxel_size_angstrom: Triple
    first_voxel_angstrom: Triple = (0.0, 0.0, 0.0)

    def __post_init__(self) -> None:
        """Check lengths and coerce to plain tuples."""
        object.__setattr__(self, "shape", as_shape(self.shape))
        object.__setattr__(self, "voxel_size_angstrom", _floats(self.voxel_size_angstrom))
        object.__setattr__(self, "first_voxel_angstrom", _floats(self.first_voxel_angstrom))
        if min(self.shape) < 1:
            raise RequestError(f"a grid of shape {self.shape} holds no voxel")
        sizes = np.array(self.voxel_size_angstrom)
        if not (np.isfinite(sizes).all() and (sizes > 0).all()):
            raise RequestError(
                f"voxel size {self.voxel_size_angstrom} Å is not positive and finite"
            )
        if not np.isfinite(self.first_voxel_angstrom).all():
            raise RequestError(f"first voxel at {self.first_voxel_angstrom} Å is nowhere")

    @property
    def voxel_angstrom(self) -> float:
        """Mean edge length of a voxel, in Å."""
        return float(np.mean(self.voxel_size_angstrom))

    @property
    def voxel_volume_nm3(self) -> float:
        """Volume of one voxel in nm³."""
        return float(np.prod(self.voxel_size_angstrom)) / 1000.0

    def to_angstrom(self, voxels: ArrayLike) -> NDArray[np.float64]:
        """Convert voxel positions, shape (n, 3), zyx, to Å in the source's frame."""
        points = np.asarray(voxels, dtype=np.float64)
        return points * self.voxel_size_angstrom + self.first_voxel_angstrom

    def to_voxels(self, points_angstrom: ArrayLike) -> NDArray[np.float64]:
        """Convert positions in Å, shape (n, 3), zyx, to voxels of this grid."""
        points = np.asarray(points_angstrom, dtype=np.float64)
        return (points - self.first_voxel_angstrom) / self.voxel_size_angstrom

    def contains(self, points_angstrom: ArrayLike) -> NDArray[np.bool_]:
        """Tell, for points of shape (n, 3), zyx, Å, which lie in a voxel of this grid."""
        voxels = self.to_voxels(points_angstrom)
        inside = (voxels >= -0.5) & (voxels < np.array(self.shape) - 0.5)
        return np.asarray(inside.all(axis=-1))

    @property
    def is_flat(self) -> bool:
        """Whether this is a micrograph: one slice, whose thickness means nothing."""
        return self.shape[0] == 1

    def bins(self, factor: int) -> Shape:
        """Return the voxels zyx that make a bin: the only slice of a micrograph is left alone."""
        return (1 if self.is_flat else factor, factor, factor)

    def binned(self, factor: int) -> Sampling:
        """Return the grid whose voxels are means of :meth:`bins` voxels; a rest is dropped."""
        largest = min(self.shape[1:] if self.is_flat else self.shape)
        if factor < 1 or factor > largest:
            raise RequestError(
                f"cannot bin {self.shape} voxels by {factor}: the factor must lie in 1..{largest}"
            )
        bins = np.array(self.bins(factor))
        shift = (bins - 1) / 2 * self.voxel_size_angstrom
        return Sampling(
            shape=as_shape(self.shape // bins),
            voxel_size_angstrom=_floats(size * factor for size in self.voxel_size_angstrom),
            first_voxel_angstrom=_floats(self.first_voxel_angstrom + shift),
        )

    def resampled(self, voxel_angstrom: float) -> Sampling:
        """Return a grid of cubic voxels over the same extent.

        The low corner of the first voxel stays where it is; the number of voxels is rounded up,
        so that the new grid covers every voxel of this one. The only slice of a micrograph stays
        one slice where it is.
        """
        if not 0 < voxel_angstrom < np.inf:
            raise RequestError(f"voxel size {voxel_angstrom} Å is not positive and finite")
        size = np.array(self.voxel_size_angstrom)
        extent = np.array(self.shape) * size
        z, y, x = self.first_voxel_angstrom + (voxel_angstrom - size) / 2
        slices, rows, columns = np.ceil(extent / voxel_angstrom - 1e-6)
        if self.is_flat:
            z, slices = self.first_voxel_angstrom[0], 1
        return Sampling(
            shape=as_shape((slices, rows, columns)),
            voxel_size_angstrom=(voxel_angstrom,) * 3,
            first_voxel_angstrom=_floats((z, y, x)),
        )

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        return {
            "shape": list(self.shape),
            "voxel_size_angstrom": list(self.voxel_size_angstrom),
            "first_voxel_angstrom": list(self.first_voxel_angstrom),
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Sampling:
        """Return the grid that :meth:`as_dict` described."""
        return cls(**{key: tuple(value) for key, value in values.items()})


@dataclass(frozen=True)
class Header:
    """What a tomogram's file says about itself, before any voxel is read.

    Parameters
    ----------
    sampling
        Grid in zyx order, whatever the order in the file.
    dtype
        Numpy name of the voxels' type as they are handed out, such as ``"float32"``.
    origin_angstrom
        Where the file puts the centre of its first voxel, zyx, Å; kept beside the grid, used only
        where a format carries absolute coordinates.
    start_voxels
        The file's NSTART or equivalent, zyx.
    notes
        What was odd about the file and how it was read, for the manifest.
    has_imods_origin
        Whether the file states its origin with the opposite sign, as IMOD does without a flag.
    """

    sampling: Sampling
    dtype: str
    origin_angstrom: Triple = (0.0, 0.0, 0.0)
    start_voxels: Shape = (0, 0, 0)
    notes: tuple[str, ...] = field(default=())
    has_imods_origin: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return plain lists, for JSON."""
        return {
            "sampling": self.sampling.as_dict(),
            "dtype": self.dtype,
            "origin_angstrom": list(self.origin_angstrom),
            "start_voxels": list(self.start_voxels),
            "notes": list(self.notes),
            "has_imods_origin": self.has_imods_origin,
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> Header:
        """Return the header that :meth:`as_dict` described."""
        return cls(
            sampling=Sampling.from_dict(values["sampling"]),
            dtype=values["dtype"],
            origin_angstrom=_floats(values["origin_angstrom"]),
            start_voxels=as_shape(values["start_voxels"]),
            notes=tuple(values["notes"]),
            # Earlier versions did not say it.
            has_imods_origin=values.get("has_imods_origin", False),
        )


def xyz(zyx: ArrayLike) -> NDArray[np.float64]:
    """Reverse the last axis: zyx to xyz, and back."""
    return np.asarray(zyx, dtype=np.float64)[..., ::-1].copy()


def as_shape(values: Iterable[Any]) -> Shape:
    """Return three integers as a tuple."""
    z, y, x = (int(value) for value in values)
    return z, y, x


def _floats(values: Iterable[Any]) -> Triple:
    z, y, x = (float(value) for value in values)
    return z, y, x
