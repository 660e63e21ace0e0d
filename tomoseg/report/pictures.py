"""The overview picture of one tomogram: slices with outlines, traces, counts.

┌───────────────┬───────────────┬───────────────┐
│ xy slice      │ xy slice      │ xy slice      │   classes outlined
├───────────────┼───────────────┼───────────────┤
│ middle slice, │ projection,   │ xz slice      │
│ bare          │ filaments,    ├───────────────┤
│               │ particles     │ counts        │
└───────────────┴───────────────┴───────────────┘
"""

from __future__ import annotations

import io
import math
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.image import imsave
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox, IdentityTransform

from tomoseg.coordinates import Filament, Particles
from tomoseg.errors import RequestError
from tomoseg.report import panels
from tomoseg.report.panels import DOTS_PER_INCH, Image, Labels, Points, write
from tomoseg.report.summary import COUNTED, ClassSummary, counts, described
from tomoseg.sampling import Sampling

NOT_ANNOTATED = 255
LARGEST_IMAGE = 1000
"""Pixels along an axis above which a panel's image is binned."""
THUMBNAIL_IMAGE = 160
"""The same for a thumbnail: fewer than it has, since means show more than noise does."""

# The sheet, in pixels.
PANEL = 640
THUMBNAIL = 320
GAP = 24
MARGIN = 32
HEADING = 92
TITLE = 30
FOOTER = 40
WIDTH = 3 * PANEL + 2 * GAP + 2 * MARGIN
COLUMN_ENDS = (0.50, 0.65, 1.0)
"""Right ends of the columns of counts, as parts of the table's width."""

KEY = (
    "Outlines and tints: the classes. Circles: particles.",
    "Lines: filaments, each in a colour of its own; the dots at its ends have its class's.",
    "–: not looked for. Slices are counted from 0; y is upwards.",
)

Box = tuple[float, float, float, float]
"""Left, bottom, width, height, in pixels from the sheet's lower left."""


@dataclass(frozen=True, eq=False)
class Slice:
    """One slice of a tomogram with its labels.

    Parameters
    ----------
    index
        Voxel along the axis that is cut: z of an xy slice, y of an xz slice.
    image
        float32, shape (rows, columns): (y, x) or (z, x); any grey values.
    labels
        uint8, the image's shape; 0 background, ``i`` the class ``i`` counted from 1, 255 not
        annotated.

    Raises
    ------
    RequestError
        If the two do not have one shape.
    """

    index: int
    image: Image
    labels: Labels

    def __post_init__(self) -> None:
        """Check that labels and image cover each other."""
        if self.image.ndim != 2 or self.image.shape != self.labels.shape:
            raise RequestError(
                f"slice {self.index}: image {self.image.shape} and labels {self.labels.shape} "
                f"must be 2D and of one shape"
            )

    @property
    def highest_label(self) -> int:
        """Highest label of a class, 0 if there is none."""
        return int(self.labels[self.labels != NOT_ANNOTATED].max(initial=0))


@dataclass(frozen=True, eq=False)
class Projection:
    """The mean or minimum of some slices along z.

    Parameters
    ----------
    begin, end
        Voxels along z, half open.
    image
        float32, shape (y, x).
    """

    begin: int
    end: int
    image: Image


@dataclass(frozen=True, eq=False, kw_only=True)
class TomogramPicture:
    """All that the overview picture of a tomogram shows.

    Parameters
    ----------
    name
        Tomogram.
    sampling
        Grid of the slices, the projection and the counts.
    classes
        Names, colours and counts, in the order of the labels 1, 2, ….
    slices
        One to three xy slices, in the order of z.
    projection
        Ground for filaments and particles.
    side
        An xz slice, if there is one to show.
    filaments, particles
        All of the tomogram's; their names are names of classes.
    caption
        Provenance for the foot: version, model, recipe.

    Raises
    ------
    RequestError
        If a slice does not fit the grid, or a label, filament or particle has no class.
    """

    name: str
    sampling: Sampling
    classes: tuple[ClassSummary, ...]
    slices: tuple[Slice, ...]
    projection: Projection
    side: Slice | None = None
    filaments: tuple[Filament, ...] = ()
    particles: tuple[Particles, ...] = ()
    caption: str = ""

    def __post_init__(self) -> None:
        """Check shapes, labels and names."""
        if not 1 <= len(self.slices) <= 3:
            raise RequestError(f"{self.name}: {len(self.slices)} slices, not 1 to 3")
        depth, *plane = self.sampling.shape
        cuts = [(item.image, tuple(plane)) for item in self.slices]
        cuts.append((self.projection.image, tuple(plane)))
        if self.side is not None:
            cuts.append((self.side.image, (depth, plane[1])))
        for image, shape in cuts:
            if image.shape != shape:
                raise RequestError(f"{self.name}: slice {image.shape} in a plane of {shape} pixels")
        top = max(cut.highest_label for cut in (*self.slices, self.side or self.slices[0]))
        if top > len(self.classes):
            raise RequestError(f"{self.name}: label {top} among {len(self.classes)} classes")
        known = {item.name for item in self.classes}
        used = {item.name for item in self.filaments} | {item.name for item in self.particles}
        if used - known:
            raise RequestError(f"{self.name}: {sorted(used - known)} not among {sorted(known)}")


@dataclass(frozen=True, eq=False)
class _Ground:
    """An image and its labels as drawn, binned to what a panel can show."""

    image: Image
    labels: Labels
    pixel_nm: tuple[float, float]

    @property
    def extent_nm(self) -> tuple[float, float]:
        """Height and width."""
        rows, columns = self.image.shape
        return rows * self.pixel_nm[0], columns * self.pixel_nm[1]


def tomogram_figure(picture: TomogramPicture) -> bytes:
    """Draw the overview picture.

    Returns
    -------
    A PNG, 2032 pixels wide; the same bytes for the same input, whatever the machine's settings.
    """
    grounds = [_ground(cut.image, cut.labels, picture) for cut in picture.slices]
    limits = panels.contrast_limits([ground.image for ground in grounds])
    tall = _panel_height(grounds[0], PANEL)
    lower = FOOTER + TITLE / 2
    upper = lower + tall + TITLE + GAP
    figure = _figure(WIDTH, upper + tall + TITLE + HEADING, colour="white")
    for column, (cut, ground) in enumerate(zip(picture.slices, grounds, strict=True)):
        axes = _panel(figure, ground, limits, box=_cell(column, upper, tall))
        _title(figure, axes, f"z = {cut.index} of 0–{picture.sampling.shape[0] - 1}")
        _outline(axes, ground, picture)
    middle = len(grounds) // 2
    bare = _panel(figure, grounds[middle], limits, box=_cell(0, lower, tall))
    _title(figure, bare, f"z = {picture.slices[middle].index}, without outlines")
    _draw_traces(figure, picture, box=_cell(1, lower, tall))
    rest = _draw_side(figure, picture, limits, box=_cell(2, lower, tall))
    _write_counts(figure, picture, box=rest)
    _write_heading(figure, picture)
    write(figure, picture.caption, at=(MARGIN, FOOTER / 2), size_px=14)
    return _encoded(figure, "png")


def tomogram_thumbnail(picture: TomogramPicture) -> bytes:
    """Draw the middle slice with its outlines, small enough to embed in a page.

    Returns
    -------
    A JPEG, 320 pixels wide.
    """
    cut = picture.slices[len(picture.slices) // 2]
    ground = _ground(cut.image, cut.labels, picture, largest=THUMBNAIL_IMAGE)
    tall = _panel_height(ground, THUMBNAIL)
    figure = _figure(THUMBNAIL, tall, colour="black")
    limits = panels.contrast_limits([ground.image])
    axes = _panel(figure, ground, limits, box=(0, 0, THUMBNAIL, tall))
    _outline(axes, ground, picture)
    return _encoded(figure, "jpg", quality=60, optimize=1)


def _ground(
    image: Image,
    labels: Labels | None,
    picture: TomogramPicture,
    *,
    axis: int = 0,
    largest: int = LARGEST_IMAGE,
) -> _Ground:
    """Bin what is larger than a panel shows; ``axis`` is the one that was cut."""
    sizes = [size / 10 for i, size in enumerate(picture.sampling.voxel_size_angstrom) if i != axis]
    rows, columns = (math.ceil(n / largest) for n in image.shape)
    empty = np.zeros(image.shape, np.uint8) if labels is None else labels
    return _Ground(
        image=panels.binned(image, (rows, columns)),
        labels=panels.binned_labels(empty, (rows, columns), classes=len(picture.classes)),
        pixel_nm=(sizes[0] * rows, sizes[1] * columns),
    )


def _figure(width_px: float, height_px: float, *, colour: str) -> Figure:
    size = (width_px / DOTS_PER_INCH, round(height_px) / DOTS_PER_INCH)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor=colour)
    figure.set_layout_engine("none")
    return figure


def _panel(figure: Figure, ground: _Ground, limits: tuple[float, float], *, box: Box) -> Axes:
    """Draw a grey image with a scale bar, as large as the box allows, at the box's top."""
    high, wide = ground.extent_nm
    left, bottom, width, height = box
    scale = min(width / wide, height / high)
    fitted = Bbox.from_bounds(left, bottom + height - high * scale, wide * scale, high * scale)
    axes = figure.add_axes(fitted.transformed(figure.transFigure.inverted()).bounds)
    panels.draw_image(axes, ground.image, limits=limits, pixel_nm=ground.pixel_nm)
    panels.draw_scale_bar(axes)
    return axes


def _outline(axes: Axes, ground: _Ground, picture: TomogramPicture) -> None:
    colours = [item.colour for item in picture.classes]
    panels.draw_labels(axes, ground.labels, colours=colours, pixel_nm=ground.pixel_nm)


def _title(figure: Figure, axes: Axes, text: str) -> None:
    """Write what a panel shows above it."""
    write(figure, text, at=(axes.bbox.x0, axes.bbox.y1 + 8), size_px=16)


def _draw_traces(figure: Figure, picture: TomogramPicture, *, box: Box) -> None:
    """Draw the projection with every filament and particle of the tomogram."""
    ground = _ground(picture.projection.image, None, picture)
    axes = _panel(figure, ground, panels.contrast_limits([ground.image]), box=box)
    begin, last = picture.projection.begin, picture.projection.end - 1
    _title(figure, axes, f"z = {begin}–{last} projected; filaments and particles of every z")
    lines = [_plane_nm(line.points_angstrom, picture.sampling) for line in picture.filaments]
    panels.draw_lines(axes, lines)
    for item in picture.classes:
        pairs = zip(lines, picture.filaments, strict=True)
        ends = [line[[0, -1]] for line, filament in pairs if filament.name == item.name]
        if ends:
            panels.draw_dots(axes, np.concatenate(ends), colour=item.colour)
        for found in picture.particles:
            if found.name == item.name:
                points = _plane_nm(found.points_angstrom, picture.sampling)
                panels.draw_rings(axes, points, colour=item.colour)


def _draw_side(
    figure: Figure, picture: TomogramPicture, limits: tuple[float, float], *, box: Box
) -> Box:
    """Draw the xz slice in the box's upper half, if there is one, and return the box left."""
    left, bottom, width, height = box
    if picture.side is None:
        return box
    ground = _ground(picture.side.image, picture.side.labels, picture, axis=1)
    upper = (left, bottom + height * 0.55, width, height * 0.45)
    axes = _panel(figure, ground, limits, box=upper)
    _title(
        figure, axes, f"y = {picture.side.index} of 0–{picture.sampling.shape[1] - 1}, z upwards"
    )
    _outline(axes, ground, picture)
    return left, bottom, width, axes.bbox.y0 - bottom - GAP / 2


def _write_counts(figure: Figure, picture: TomogramPicture, *, box: Box) -> None:
    """Write a table of the classes with their colours, and how to read the picture below it."""
    left, bottom, width, height = box
    for number, text in enumerate(reversed(KEY)):
        write(figure, text, at=(left, bottom + 18 * number), size_px=13)
    step = min(34.0, (height - 18 * len(KEY)) / (len(picture.classes) + 2))
    size = min(15.0, 0.6 * step)
    total = math.prod(picture.sampling.shape)
    rows = [("class", *COUNTED), *((item.name, *counts(item, total)) for item in picture.classes)]
    for number, row in enumerate(rows):
        line = bottom + height - (number + 1) * step
        write(figure, row[0], at=(left + 26, line), size_px=size, bold=number == 0, longest=22)
        for text, end in zip(row[1:], COLUMN_ENDS, strict=True):
            place = (left + end * width, line)
            write(figure, text, at=place, size_px=size, align="right", bold=number == 0)
        if number:
            colour = picture.classes[number - 1].colour
            corner = (left, line - 0.1 * size)
            swatch = Rectangle(corner, size, size, facecolor=colour, linewidth=0)
            swatch.set_transform(IdentityTransform())
            figure.add_artist(swatch)


def _write_heading(figure: Figure, picture: TomogramPicture) -> None:
    """Write the name and the grid at the top."""
    top = figure.bbox.height
    write(figure, picture.name, at=(MARGIN, top - 40), size_px=26, bold=True, longest=96)
    write(figure, described(picture.sampling), at=(MARGIN, top - 66), size_px=16)


def _plane_nm(points_angstrom: Points, sampling: Sampling) -> Points:
    """Return x and y from the volume's corner in nm, shape (n, 2), of zyx points in Å."""
    corner_voxels = sampling.to_voxels(points_angstrom) + 0.5
    return (corner_voxels * sampling.voxel_size_angstrom)[:, :0:-1] / 10


def _panel_height(ground: _Ground, width: float) -> float:
    """Return the height of a slice drawn at a width, kept between wide and tall limits."""
    high, wide = ground.extent_nm
    return width * min(max(high / wide, 0.5), 1.5)


def _cell(column: int, bottom: float, height: float) -> Box:
    return MARGIN + column * (PANEL + GAP), bottom, PANEL, height


def _encoded(figure: Figure, kind: str, **options: int) -> bytes:
    """Draw a sheet and return the file's bytes, which hold no date and no version of a library."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    figure.clear()  # what was drawn refers to itself, and would wait for the garbage collector
    memory = io.BytesIO()
    named = {"Software": "tomoseg"} if kind == "png" else None
    imsave(memory, pixels, format=kind, origin="upper", metadata=named, pil_kwargs=options)
    return memory.getvalue()
