"""The overview picture of one tomogram: slices with outlines, traces, counts.

┌───────────────┬───────────────┬───────────────┐
│ xy slice      │ xy slice      │ xy slice      │   classes outlined
├───────────────┼───────────────┼───────────────┤
│ middle slice, │ projection,   │ xz slice      │
│ bare          │ filaments,    ├───────────────┤
│               │ particles     │ counts        │
├───────────────┼───────────────┼───────────────┤
│ xy slice,     │ projection,   │ xz slice,     │   where membranes were sampled
│ normals       │ thickness     │ normals; areas│
└───────────────┴───────────────┴───────────────┘

Of one slice, such as a micrograph, the slice, the bare slice and the projection stand in one row
above the counts. An xz slice of too few rows to be seen is left out.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from tomoseg.analysis.surfaces import SurfaceSamples
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.report import panels
from tomoseg.report.membranes import Membranes, draw_membranes
from tomoseg.report.panels import Image, Labels, write
from tomoseg.report.sheet import (
    GAP,
    LARGEST_IMAGE,
    MARGIN,
    PANEL,
    TITLE,
    WIDTH,
    Box,
    Ground,
    Projection,
    Slice,
    cell,
    draw_ground,
    draw_swatch,
    encoded,
    in_plane_nm,
    new_figure,
    panel_height,
    write_title,
)
from tomoseg.report.summary import COUNTED, ClassSummary, counts, describe_grid

THUMBNAIL_IMAGE = 160
"""Pixels of a thumbnail's image: fewer than it has, since means show more than noise does."""

# In pixels.
THUMBNAIL = 320
HEADING = 92
SMALLEST_SIDE = 24
FOOTER = 40
COUNTS_ROW = 34
COLUMN_ENDS = (0.50, 0.65, 1.0)
"""Right ends of the columns of counts, as parts of the table's width."""

KEY = (
    "Outlines and tints: the classes. Circles: particles.",
    "Lines: filaments, each in a colour of its own; the dots at its ends have its class's.",
    "–: not looked for. Slices are counted from 0; y is upwards.",
)


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
    filaments, particles, surfaces
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
    surfaces: tuple[SurfaceSamples, ...] = ()
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
        sampled = [item.particles for item in self.surfaces]
        used = {item.name for item in self.filaments}
        used |= {item.name for item in (*self.particles, *sampled)}
        if used - known:
            raise RequestError(f"{self.name}: {sorted(used - known)} not among {sorted(known)}")


def tomogram_figure(picture: TomogramPicture) -> bytes:
    """Draw the overview picture.

    Returns
    -------
    A PNG, 2032 pixels wide; the same bytes for the same input, whatever the machine's settings.
    """
    picture = replace(picture, side=_seen_side(picture))
    grounds = [_ground(cut.image, cut.labels, picture) for cut in picture.slices]
    limits = panels.contrast_limits([ground.image for ground in grounds])
    tall = panel_height(grounds[0], PANEL)
    is_flat = len(grounds) == 1
    row = (_counts_height(picture) if is_flat else tall + TITLE) + GAP
    membranes = Membranes.of(picture.surfaces, picture.classes, picture.sampling)
    lower = FOOTER + TITLE / 2 + (tall + TITLE + GAP if membranes else 0)
    upper = lower + row
    places = (
        [cell(1, upper, tall), cell(2, upper, tall)]
        if is_flat
        else [cell(0, lower, tall), cell(1, lower, tall)]
    )
    figure = new_figure(WIDTH, upper + tall + TITLE + HEADING, colour="white")
    for column, (cut, ground) in enumerate(zip(picture.slices, grounds, strict=True)):
        axes = draw_ground(figure, ground, limits, box=cell(column, upper, tall))
        depth = picture.sampling.shape[0]
        of = f" of 0–{depth - 1}" if depth > 1 else ", the only slice"
        write_title(figure, axes, f"z = {cut.index}{of}")
        _outline(axes, ground, picture)
    middle = len(grounds) // 2
    bare = draw_ground(figure, grounds[middle], limits, box=places[0])
    write_title(figure, bare, f"z = {picture.slices[middle].index}, without outlines")
    _draw_traces(figure, picture, box=places[1])
    rest = cell(0, lower, row - GAP)
    if not is_flat:
        rest = _draw_side(figure, picture, limits, box=cell(2, lower, tall))
    _write_counts(figure, picture, box=rest)
    if membranes:
        cells = [cell(column, FOOTER + TITLE / 2, tall) for column in range(3)]
        cuts = picture.slices, picture.projection, picture.side
        draw_membranes(figure, membranes, cuts, limits=limits, boxes=cells)
    _write_heading(figure, picture)
    write(figure, picture.caption, at=(MARGIN, FOOTER / 2), size_px=14)
    return encoded(figure, "png")


def tomogram_thumbnail(picture: TomogramPicture) -> bytes:
    """Draw the middle slice with its outlines, small enough to embed in a page.

    Returns
    -------
    A JPEG, 320 pixels wide.
    """
    cut = picture.slices[len(picture.slices) // 2]
    ground = _ground(cut.image, cut.labels, picture, largest=THUMBNAIL_IMAGE)
    tall = panel_height(ground, THUMBNAIL)
    figure = new_figure(THUMBNAIL, tall, colour="black")
    limits = panels.contrast_limits([ground.image])
    axes = draw_ground(figure, ground, limits, box=(0, 0, THUMBNAIL, tall))
    _outline(axes, ground, picture)
    return encoded(figure, "jpg", quality=60, optimize=1)


def _ground(
    image: Image,
    labels: Labels | None,
    picture: TomogramPicture,
    *,
    axis: int = 0,
    largest: int = LARGEST_IMAGE,
) -> Ground:
    classes = len(picture.classes)
    return Ground.of(image, labels, picture.sampling, classes=classes, axis=axis, largest=largest)


def _outline(axes: Axes, ground: Ground, picture: TomogramPicture) -> None:
    colours = [item.colour for item in picture.classes]
    panels.draw_labels(axes, ground.labels, colours=colours, pixel_nm=ground.pixel_nm)


def _draw_traces(figure: Figure, picture: TomogramPicture, *, box: Box) -> None:
    """Draw the projection with every filament and particle of the tomogram."""
    ground = _ground(picture.projection.image, None, picture)
    axes = draw_ground(figure, ground, panels.contrast_limits([ground.image]), box=box)
    begin, last = picture.projection.begin, picture.projection.end - 1
    z = f"z = {begin}–{last} projected" if last > begin else f"z = {begin}"
    write_title(figure, axes, f"{z}; filaments and particles of every z")
    lines = [in_plane_nm(line.points_angstrom, picture.sampling) for line in picture.filaments]
    panels.draw_lines(axes, lines)
    for item in picture.classes:
        pairs = zip(lines, picture.filaments, strict=True)
        ends = [line[[0, -1]] for line, filament in pairs if filament.name == item.name]
        if ends:
            panels.draw_dots(axes, np.concatenate(ends), colour=item.colour)
        for found in picture.particles:
            if found.name == item.name:
                points = in_plane_nm(found.points_angstrom, picture.sampling)
                panels.draw_rings(axes, points, colour=item.colour)


def _seen_side(picture: TomogramPicture) -> Slice | None:
    """Return the xz slice if it is tall enough to be seen at the width of a panel."""
    if picture.side is None:
        return None
    high, wide = _ground(picture.side.image, None, picture, axis=1).extent_nm
    return picture.side if PANEL * high / wide >= SMALLEST_SIDE else None


def _counts_height(picture: TomogramPicture) -> float:
    return COUNTS_ROW * (len(picture.classes) + 2) + 18.0 * len(KEY)


def _draw_side(
    figure: Figure, picture: TomogramPicture, limits: tuple[float, float], *, box: Box
) -> Box:
    """Draw the xz slice in the box's upper half, if there is one, and return the box left."""
    left, bottom, width, height = box
    if picture.side is None:
        return box
    ground = _ground(picture.side.image, picture.side.labels, picture, axis=1)
    upper = (left, bottom + height * 0.55, width, height * 0.45)
    axes = draw_ground(figure, ground, limits, box=upper)
    write_title(
        figure, axes, f"y = {picture.side.index} of 0–{picture.sampling.shape[1] - 1}, z upwards"
    )
    _outline(axes, ground, picture)
    return left, bottom, width, axes.bbox.y0 - bottom - GAP / 2


def _write_counts(figure: Figure, picture: TomogramPicture, *, box: Box) -> None:
    """Write a table of the classes with their colours, and how to read the picture below it."""
    left, bottom, width, height = box
    for number, text in enumerate(reversed(KEY)):
        write(figure, text, at=(left, bottom + 18 * number), size_px=13)
    step = min(float(COUNTS_ROW), (height - 18 * len(KEY)) / (len(picture.classes) + 2))
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
            draw_swatch(figure, colour, at=(left, line), size_px=size)


def _write_heading(figure: Figure, picture: TomogramPicture) -> None:
    """Write the name and the grid at the top."""
    top = figure.bbox.height
    write(figure, picture.name, at=(MARGIN, top - 40), size_px=26, bold=True, longest=96)
    write(figure, describe_grid(picture.sampling), at=(MARGIN, top - 66), size_px=16)
