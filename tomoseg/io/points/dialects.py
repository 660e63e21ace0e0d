"""What the dialects of other programs have in common: the points of tomograms and how they lie.

A dialect is one program's way of writing points down. Each stands in a module of its own, as a
class of the kind of :class:`Dialect`; :mod:`tomoseg.core.coordinates` is what they all write and
read.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Literal, Protocol

import numpy as np

from tomoseg.core.classes import FEATURES
from tomoseg.core.coordinates import Filament, Particles, Points, frames, resample
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling, Triple, xyz
from tomoseg.io.points.tilt_series import check_size, completed_size, size_note

SPACING_ANGSTROM = {
    name: one.spacing_angstrom for name, one in FEATURES.items() if one.spacing_angstrom
}
DEFAULT_SPACING_ANGSTROM = 82.0

Origin = Literal["corner", "centre"]

EVERY = "*"
# So many points that all lie within this share of every axis are counted in too small a unit.
_MANY, _CORNER = 10, 0.45


@dataclass(frozen=True)
class TomoContext:
    """What must be known of a tomogram to place points in it, for whichever program.

    Parameters
    ----------
    tomo_name
        Name of the tilt series, as in RELION's tomograms table.
    sampling
        Grid of the source tomogram.
    tilt_series_pixel_size_angstrom
        Pixel of the unbinned tilt series; None where the tomogram itself counts as unbinned.
    tilt_series_size_xyz
        Size of the unbinned tomogram in its pixels, rlnTomoSizeX/Y/Z; given if and only if the
        pixel size is. x and y are never computed from the binned shape, which was rounded; of two
        numbers z is the tomogram's thickness, which is not the tilt series'.
    centre_shift_pixels
        Added to size / 2, the centre that RELION 5 takes; -1 for programs that take size / 2 - 1.
    origin_angstrom
        Where the tomogram's own file puts its first voxel, zyx, Å
        (:attr:`tomoseg.core.sampling.Header.origin_angstrom`), for programs that place volumes by
        it; None where nobody asked the file.

    Raises
    ------
    RequestError
        If the name is not one word, the grid is not the source's, only one of pixel and size is
        given, or they are not those of this tomogram
        (:func:`tomoseg.io.points.tilt_series.check_size`).
    """

    tomo_name: str
    sampling: Sampling
    tilt_series_pixel_size_angstrom: float | None = None
    tilt_series_size_xyz: tuple[int, ...] | None = None
    centre_shift_pixels: float = 0.0
    origin_angstrom: Triple | None = None

    def __post_init__(self) -> None:
        """Check what RELION would misread."""
        if len(self.tomo_name.split()) != 1 or self.tomo_name != self.tomo_name.strip():
            raise RequestError(f"tomogram name {self.tomo_name!r} is not one word")
        if any(self.sampling.first_voxel_angstrom):
            raise RequestError(
                f"the grid begins at {self.sampling.first_voxel_angstrom} Å; the source's grid, "
                "which begins at 0, is needed"
            )
        if (self.tilt_series_pixel_size_angstrom is None) != (self.tilt_series_size_xyz is None):
            raise RequestError("pixel and size of the tilt series go together; one is missing")
        if self.pixel_angstrom <= 0 or min(self.size_xyz) <= 0:
            raise RequestError(
                f"pixel {self.pixel_angstrom} Å and size {self.size_xyz} must be positive"
            )
        # The slice of a micrograph has no thickness that could agree.
        if self.tilt_series_size_xyz and not self.sampling.is_flat:
            check_size(self.size_xyz, self.pixel_angstrom, self.sampling)

    @property
    def pixel_angstrom(self) -> float:
        """Pixel of the unbinned tilt series."""
        given = self.tilt_series_pixel_size_angstrom
        return self.sampling.voxel_angstrom if given is None else given

    @property
    def size_xyz(self) -> tuple[int, int, int]:
        """Size of the unbinned tomogram, in its pixels."""
        z, y, x = self.sampling.shape
        given = self.tilt_series_size_xyz
        return completed_size(given, self.pixel_angstrom, self.sampling) if given else (x, y, z)

    @property
    def notes(self) -> tuple[str, ...]:
        """What a person should know about the coordinates."""
        size, pixel, given = self.size_xyz, self.pixel_angstrom, self.tilt_series_size_xyz
        notes = [size_note(size, pixel, self.sampling)] if given else []
        if given and len(given) < len(size):
            notes.append(
                f"export.tilt_series_size_xyz has no z: {size[2]} pixels of {pixel:g} Å are taken, "
                "the tomogram's thickness"
            )
        if any(edge % 2 for edge in (size[:2] if self.sampling.is_flat else size)):
            notes.append(
                f"size {size} (xyz) is odd: programs that round its half differ by half a "
                f"pixel, {pixel / 2:g} Å"
            )
        return tuple(note for note in notes if note)

    def centred(self, points_angstrom: Points) -> Points:
        """Convert positions, shape (n, 3), zyx, Å, to RELION's, xyz, Å from the centre."""
        return xyz(points_angstrom) - self._centre_xyz_angstrom

    def from_centred(self, centred_xyz: Points) -> Points:
        """Undo :meth:`centred`."""
        return xyz(centred_xyz + self._centre_xyz_angstrom)

    @property
    def _centre_xyz_angstrom(self) -> Points:
        centre = np.array(self.size_xyz) / 2 + self.centre_shift_pixels
        return np.asarray(centre * self.pixel_angstrom)


@dataclass(frozen=True, eq=False)
class TomogramPoints:
    """What a file says, or is to say, of one tomogram.

    Parameters
    ----------
    context
        The tomogram.
    filaments
        Its lines, of any classes; numbers are unique within a class.
    particles
        Its particles, an item a class.
    says
        How they were read: whose rows, which block, which unit, where that was not certain.
    """

    context: TomoContext
    filaments: Sequence[Filament] = ()
    particles: Sequence[Particles] = ()
    says: tuple[str, ...] = ()

    @property
    def points_angstrom(self) -> Points:
        """All points, float64, shape (n, 3), zyx, Å."""
        each = [line.points_angstrom for line in self.filaments]
        each += [table.points_angstrom for table in self.particles]
        return np.concatenate([np.empty((0, 3)), *each])

    @property
    def doubts(self) -> tuple[str, ...]:
        """What in the positions looks as if the unit or the tomogram were another one."""
        points, sampling = self.points_angstrom, self.context.sampling
        outside = int((~sampling.contains(points)).sum())
        if outside:
            return (
                f"{outside} of {len(points)} points lie outside the tomogram: is it the right "
                "one, and the unit?",
            )
        shape = np.array(sampling.shape)
        reach = (sampling.to_voxels(points) / shape)[:, shape > 1].max(initial=0.0)
        if len(points) < _MANY or reach > _CORNER:
            return ()
        return (f"all points lie in the first {reach:.0%} of every axis: is the unit right?",)

    def told(self, read_as: str = "") -> str:
        """Return in a line what was read: how many, whose, of which block, in which unit."""
        particles = sum(len(table) for table in self.particles)
        counted = ((len(self.filaments), "filaments"), (particles, "particles"))
        found = " and ".join(f"{number} {what}" for number, what in counted if number)
        dialect = f"read as {read_as}" if read_as else ""
        head = ", ".join(filter(None, (found or "no points", dialect)))
        name = self.context.tomo_name
        return "; ".join(filter(None, (f"{name}: {head}", *self.says, *self.doubts)))

    def named(self, old: str, new: str) -> TomogramPoints:
        """Return the points with one class called otherwise."""
        return replace(
            self,
            filaments=[replace(f, name=new) if f.name == old else f for f in self.filaments],
            particles=[replace(p, name=new) if p.name == old else p for p in self.particles],
        )

    def flip_z(self) -> TomogramPoints:
        """Return the points in the tomogram with its slices in the opposite order."""
        sampling = self.context.sampling
        return replace(
            self,
            filaments=[filament.flip_z(sampling) for filament in self.filaments],
            particles=[particles.flip_z(sampling) for particles in self.particles],
        )


@dataclass(frozen=True)
class ReadOptions:
    """What a person may say of a table that does not say it itself, or says it wrongly.

    Parameters
    ----------
    block
        Name of the block of a STAR file that is read.
    pixel_size_angstrom
        What positions in pixels are counted in.
    rows_of
        Whose rows are taken, as the table calls the tomogram; :data:`EVERY` takes all rows.
    file
        Name of the table, which tells whose rows are that name no tomogram.
    lines
        Whether the rows of one tube are joined to a filament; else they are particles.

    Raises
    ------
    RequestError
        If the pixel size is not positive.
    """

    block: str | None = None
    pixel_size_angstrom: float | None = None
    rows_of: str | None = None
    file: str = ""
    lines: bool = True

    def __post_init__(self) -> None:
        """Check what a person said."""
        size = self.pixel_size_angstrom
        if size is not None and not 0 < size < float("inf"):
            raise RequestError(f"a pixel of {size:g} Å is none", remedy="Give a positive size in Å")


READ_AS_IS = ReadOptions()


@dataclass(frozen=True)
class WriteOptions:
    """What a person may choose of how points are written.

    Parameters
    ----------
    spacing_angstrom
        Class → distance of segments along its filaments, Å; others take
        :data:`SPACING_ANGSTROM`.
    radius_angstrom
        Class → radius of its particles or filaments, Å, for programs that draw them.
    colours
        Class → ``"#rrggbb"``, in the order of the labels, for programs that draw them.
    origin
        From where Dynamo's tables count: from the corner of the first voxel, whose centre then
        is at 0.5, as Dynamo itself does, or from its centre, as many converters do.
    tilt_range_degrees
        First and last angle of the tilt series: the missing wedge in Dynamo's tables.
    """

    spacing_angstrom: Mapping[str, float] = field(default_factory=dict)
    radius_angstrom: Mapping[str, float] = field(default_factory=dict)
    colours: Mapping[str, str] = field(default_factory=dict)
    origin: Origin = "corner"
    tilt_range_degrees: tuple[float, float] = (-60.0, 60.0)


class Dialect(Protocol):
    """One program's way of writing points down."""

    name: str
    """As in ``tomoseg export --to NAME`` and in recipes."""

    scope: Literal["class", "tomogram"]
    """What a file holds: one class in any number of tomograms, or one tomogram with any number of
    classes. ``write`` is given no more than that."""

    def write(
        self, points: Sequence[TomogramPoints], stem: str, options: WriteOptions
    ) -> dict[str, bytes]:
        """Return path → content of the files, whose paths begin with ``stem``.

        Raises
        ------
        RequestError
            If the program could not read the points.
        """

    def read(
        self, data: bytes, contexts: Sequence[TomoContext], *, name: str
    ) -> list[TomogramPoints]:
        """Return what a file of the program says of the tomograms given.

        ``name`` is the class, where the file names none.

        Raises
        ------
        FormatError
            If the file is not of this dialect, lacks something or contradicts itself.
        """


def the_tomogram(contexts: Sequence[TomoContext], program: str) -> TomoContext:
    """Return the one tomogram that a file which names none can be of.

    Raises
    ------
    RequestError
        If there is none or several.
    """
    if len(contexts) != 1:
        raise RequestError(
            f"a file of {program} is of one tomogram and does not name it; {len(contexts)} were "
            "given",
            remedy="Give the tomogram that the file belongs to",
        )
    return contexts[0]


def by_class(filaments: Sequence[Filament]) -> dict[str, list[Filament]]:
    """Return the filaments of each class, in the order given."""
    classes: dict[str, list[Filament]] = {}
    for filament in filaments:
        classes.setdefault(filament.name, []).append(filament)
    return classes


def segments(
    filament: Filament, spacing_angstrom: float | None = None
) -> tuple[Points, Points, Points]:
    """Sample a filament at equal distances along it.

    Parameters
    ----------
    filament
        A line.
    spacing_angstrom
        Distance along it, Å; None takes that of its class (:data:`SPACING_ANGSTROM`).

    Returns
    -------
    Points, float64, shape (n, 3), zyx, Å; distance along the line, (n,), Å; frames, (n, 3, 3),
    xyz, whose z column is the direction and whose x column is carried along without twist.
    """
    spacing = spacing_angstrom
    if spacing is None:
        spacing = SPACING_ANGSTROM.get(filament.name, DEFAULT_SPACING_ANGSTROM)
    points = resample(filament.points_angstrom, spacing)
    # A line shorter than the spacing has one segment; its direction is that of the whole line.
    line = points if len(points) > 1 else filament.points_angstrom[[0, -1]]
    return points, spacing * np.arange(len(points), dtype=np.float64), frames(line)[: len(points)]
