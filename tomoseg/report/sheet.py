"""A sheet of panels: how large they are, where they stand, and what is a panel's ground."""

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

from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.report import panels
from tomoseg.report.panels import DOTS_PER_INCH, Image, Labels, Points, write

LARGEST_IMAGE = 1000
"""Pixels along an axis above which a panel's image is binned."""

# The sheet, in pixels.
PANEL = 640
GAP = 24
MARGIN = 32
TITLE = 30
SCALED = 64
"""Least height of a panel with a scale bar."""
WIDTH = 3 * PANEL + 2 * GAP + 2 * MARGIN

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


@dataclass(frozen=True, eq=False)
class Ground:
    """An image and its labels as drawn, binned to what a panel can show."""

    image: Image
    labels: Labels
    pixel_nm: tuple[float, float]

    @classmethod
    def of(
        cls,
        image: Image,
        labels: Labels | None,
        sampling: Sampling,
        *,
        classes: int = 0,
        axis: int = 0,
        largest: int = LARGEST_IMAGE,
    ) -> Ground:
        """Bin what is larger than a panel shows; ``axis`` is the one that was cut."""
        sizes = [size / 10 for i, size in enumerate(sampling.voxel_size_angstrom) if i != axis]
        rows, columns = (math.ceil(n / largest) for n in image.shape)
        empty = np.zeros(image.shape, np.uint8) if labels is None else labels
        return cls(
            image=panels.binned(image, (rows, columns)),
            labels=panels.binned_labels(empty, (rows, columns), classes=classes),
            pixel_nm=(sizes[0] * rows, sizes[1] * columns),
        )

    @property
    def extent_nm(self) -> tuple[float, float]:
        """Height and width."""
        rows, columns = self.image.shape
        return rows * self.pixel_nm[0], columns * self.pixel_nm[1]


def new_figure(width_px: float, height_px: float, *, colour: str) -> Figure:
    """Return an empty sheet."""
    size = (width_px / DOTS_PER_INCH, round(height_px) / DOTS_PER_INCH)
    figure = Figure(figsize=size, dpi=DOTS_PER_INCH, facecolor=colour)
    figure.set_layout_engine("none")
    return figure


def cell(column: int, bottom: float, height: float) -> Box:
    """Return the place of a panel in one of the three columns."""
    return MARGIN + column * (PANEL + GAP), bottom, PANEL, height


def panel_height(ground: Ground, width: float) -> float:
    """Return the height of a slice drawn at a width, kept between wide and tall limits."""
    high, wide = ground.extent_nm
    return width * min(max(high / wide, 0.5), 1.5)


def draw_ground(figure: Figure, ground: Ground, limits: tuple[float, float], *, box: Box) -> Axes:
    """Draw a grey image with a scale bar, as large as the box allows, at the box's top."""
    high, wide = ground.extent_nm
    left, bottom, width, height = box
    scale = min(width / wide, height / high)
    fitted = Bbox.from_bounds(left, bottom + height - high * scale, wide * scale, high * scale)
    axes = figure.add_axes(fitted.transformed(figure.transFigure.inverted()).bounds)
    panels.draw_image(axes, ground.image, limits=limits, pixel_nm=ground.pixel_nm)
    if axes.bbox.height >= SCALED:  # else its text would cover the panel, or the title above it
        panels.draw_scale_bar(axes)
    return axes


def write_title(figure: Figure, axes: Axes, text: str) -> None:
    """Write what a panel shows above it."""
    write(figure, text, at=(axes.bbox.x0, axes.bbox.y1 + 8), size_px=16)


def draw_swatch(figure: Figure, colour: str, *, at: tuple[float, float], size_px: float) -> None:
    """Draw a small square of a class's colour at the left of a line of text."""
    square = Rectangle((at[0], at[1] - 0.1 * size_px), size_px, size_px, color=colour, linewidth=0)
    square.set_transform(IdentityTransform())
    figure.add_artist(square)


def in_plane_nm(points_angstrom: Points, sampling: Sampling, *, axis: int = 0) -> Points:
    """Return places seen along an axis, shape (n, 2), in nm from the volume's corner.

    They are across and up: x and y along z, x and z along y.
    """
    corner_voxels = sampling.to_voxels(points_angstrom) + 0.5
    nm = corner_voxels * sampling.voxel_size_angstrom / 10
    return np.asarray(np.delete(nm, axis, axis=1)[:, ::-1])


def encoded(figure: Figure, kind: str, **options: int) -> bytes:
    """Draw a sheet and return the file's bytes, which hold no date and no version of a library."""
    canvas = FigureCanvasAgg(figure)
    canvas.draw()  # type: ignore[no-untyped-call]
    pixels = np.asarray(canvas.buffer_rgba())  # type: ignore[no-untyped-call]
    figure.clear()  # what was drawn refers to itself, and would wait for the garbage collector
    memory = io.BytesIO()
    named = {"Software": "tomoseg"} if kind == "png" else None
    imsave(memory, pixels, format=kind, origin="upper", metadata=named, pil_kwargs=options)
    return memory.getvalue()
