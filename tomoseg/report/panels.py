"""What is drawn into one panel of a picture, on matplotlib axes whose units are nm.

Everything is said explicitly (fonts, sizes, interpolation), so that neither a person's
matplotlibrc nor another thread changes a picture.
"""

from __future__ import annotations

import colorsys
import math
from collections.abc import Sequence
from functools import cache

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties, get_font
from matplotlib.patheffects import withStroke
from matplotlib.transforms import IdentityTransform, blended_transform_factory
from numpy.typing import NDArray

Image = NDArray[np.float32]
Labels = NDArray[np.uint8]
Points = NDArray[np.float64]

DOTS_PER_INCH = 100
INK = "#1d232b"
FONT_FILES = tuple(
    f"{mpl.get_data_path()}/fonts/ttf/{name}.ttf" for name in ("DejaVuSans", "DejaVuSans-Bold")
)
VALUE_COLOURS = "plasma"
GOLDEN_ANGLE_TURNS = (3 - math.sqrt(5)) / 2


def binned(image: Image, factors: tuple[int, int]) -> Image:
    """Return means over ``factors`` rows and columns; a rest is dropped."""
    rows, columns = (n // factor for n, factor in zip(image.shape, factors, strict=True))
    cut = np.asarray(image, dtype=np.float32)[: rows * factors[0], : columns * factors[1]]
    tiles = cut.reshape(rows, factors[0], columns, factors[1])
    return np.asarray(tiles.mean(axis=(1, 3)), dtype=np.float32)


def binned_labels(labels: Labels, factors: tuple[int, int], *, classes: int) -> Labels:
    """Return the class that covers most of each tile, where classes cover a quarter of it.

    A quarter, and not half, so that a membrane cut across does not vanish from a small picture.
    """
    if factors == (1, 1):
        return labels
    cover = np.stack([binned(labels == value, factors) for value in range(1, classes + 1)])
    shown = cover.sum(axis=0) >= 0.25
    return np.where(shown, cover.argmax(axis=0) + 1, 0).astype(np.uint8)


def contrast_limits(images: Sequence[Image]) -> tuple[float, float]:
    """Return the grey values to show as black and white: percentiles 0.5 and 99.5 of all."""
    values = np.concatenate([image[np.isfinite(image)] for image in images])
    if not values.size:
        return 0.0, 1.0
    low, high = (float(value) for value in np.percentile(values, [0.5, 99.5]))
    return (low, high) if high > low else (low - 0.5, low + 0.5)


def distinct_colours(count: int) -> list[tuple[float, float, float]]:
    """Return RGB colours, 0..1, bright enough for grey ground; neighbours differ the most.

    Notes
    -----
    Hues advance by the golden angle, so that any number of them spreads evenly; lightness takes
    turns, so that two hues that come close after many steps still differ.
    """
    return [
        colorsys.hls_to_rgb((i * GOLDEN_ANGLE_TURNS) % 1.0, (0.58, 0.70, 0.48)[i % 3], 0.95)
        for i in range(count)
    ]


def draw_image(
    axes: Axes, image: Image, *, limits: tuple[float, float], pixel_nm: tuple[float, float]
) -> None:
    """Draw a grey image over its extent.

    Parameters
    ----------
    axes
        Where to draw; its limits become the image's extent, with the row axis upwards.
    image
        float32, shape (rows, columns).
    limits
        Values shown as black and white.
    pixel_nm
        Distance between rows and between columns, in nm. The corner is at (0, 0).
    """
    axes.imshow(
        image,
        cmap="gray",
        vmin=limits[0],
        vmax=limits[1],
        extent=_extent(image.shape, pixel_nm),
        origin="lower",
        interpolation="auto",
        aspect="auto",
    )
    axes.set_axis_off()
    axes.autoscale(False)  # what is drawn on top may reach over the border


def draw_labels(
    axes: Axes, labels: Labels, *, colours: Sequence[str], pixel_nm: tuple[float, float]
) -> None:
    """Draw each class as a light tint with a sharp outline, so that the image stays visible.

    Parameters
    ----------
    axes
        Where to draw.
    labels
        uint8, shape (rows, columns); 0 is background, ``i`` has the colour ``colours[i - 1]``.
    colours
        ``"#rrggbb"`` a class.
    pixel_nm
        Distance between rows and between columns, in nm.
    """
    # An empty border closes outlines that run into the edge of the volume.
    rows, columns = (
        (np.arange(-1, n + 1) + 0.5) * step for n, step in zip(labels.shape, pixel_nm, strict=True)
    )
    # Every contour keeps its float64 grid and values, and makes its own unless it is given them.
    grid = np.meshgrid(columns, rows)
    for value, colour in enumerate(colours, start=1):
        inside = np.pad(labels == value, 1).astype(np.float64)
        if not inside.any():
            continue
        axes.contourf(*grid, inside, levels=[0.5, 1.5], colors=[colour], alpha=0.28)
        axes.contour(*grid, inside, levels=[0.5], colors=[colour], linewidths=1.1)


def draw_lines(axes: Axes, lines: Sequence[Points]) -> None:
    """Draw each line, float64, shape (n ≥ 2, 2), x and y in nm, in a colour of its own."""
    axes.add_collection(LineCollection(lines, colors="black", linewidths=3.4, alpha=0.55))
    axes.add_collection(LineCollection(lines, colors=distinct_colours(len(lines)), linewidths=2.0))


def draw_dots(axes: Axes, points: Points, *, colour: str) -> None:
    """Draw small discs at points, float64, shape (n, 2), x and y in nm."""
    x, y = points.T
    axes.scatter(x, y, s=16, facecolors=colour, edgecolors="black", linewidths=0.6, zorder=3)


def draw_rings(axes: Axes, points: Points, *, colour: str) -> None:
    """Draw small circles around points, float64, shape (n, 2), x and y in nm."""
    x, y = points.T
    axes.scatter(x, y, s=42, facecolors="none", edgecolors=colour, linewidths=1.4, zorder=4)


def draw_normals(axes: Axes, points: Points, arrows: Points, *, colours: Points) -> None:
    """Draw dots with a line each.

    Parameters
    ----------
    points, arrows
        float64, shape (n, 2): where lines begin, and from there to where they end, x and y, nm.
    colours
        float64, shape (n, 3), RGB, 0..1.
    """
    lines = list(np.stack([points, points + arrows], axis=1))
    axes.add_collection(LineCollection(lines, colors="black", linewidths=3.4, alpha=0.55))
    axes.add_collection(LineCollection(lines, colors=list(colours), linewidths=2.0))
    x, y = points.T
    axes.scatter(x, y, s=18, c=colours, edgecolors="black", linewidths=0.5, zorder=3)


def draw_values(
    axes: Axes, points: Points, values: Points, *, limits: tuple[float, float], size_px: float
) -> None:
    """Draw discs in colours that stand for values, and the scale of colours.

    Parameters
    ----------
    points
        float64, shape (n, 2), x and y, nm.
    values
        float64, shape (n,).
    limits
        Values of the first and the last colour.
    size_px
        Diameter of a disc.
    """
    x, y = points.T
    shown = {"cmap": VALUE_COLOURS, "vmin": limits[0], "vmax": limits[1]}
    size = (size_px * 72 / DOTS_PER_INCH) ** 2
    axes.scatter(x, y, c=values, s=size, linewidths=0, zorder=3, **shown)  # type: ignore[arg-type]
    scale = axes.inset_axes((0.62, 0.035, 0.34, 0.02), transform=axes.transAxes)
    scale.imshow(np.linspace(*limits, 256)[None], aspect="auto", **shown)  # type: ignore[arg-type]
    scale.set_axis_off()
    for place, value, side in ((0.62, limits[0], "left"), (0.96, limits[1], "right")):
        axes.text(
            place,
            0.065,
            f"{value:.2f}",
            transform=axes.transAxes,
            color="white",
            horizontalalignment=side,
            path_effects=[withStroke(linewidth=3, foreground="black")],
            fontproperties=font(15),
        )


def draw_scale_bar(axes: Axes) -> None:
    """Draw a bar of a round length, a fifth of the panel's width at most, with its length."""
    low, high = axes.get_xlim()
    length_nm = _round_length((high - low) / 5)
    begin = low + (high - low) * 16 / axes.bbox.width
    place = blended_transform_factory(axes.transData, axes.transAxes)
    (bar,) = axes.plot(
        [begin, begin + length_nm],
        [16 / axes.bbox.height] * 2,
        transform=place,
        color="white",
        linewidth=4,
        solid_capstyle="butt",
    )
    bar.set_path_effects([withStroke(linewidth=6, foreground="black")])
    axes.text(
        begin,
        24 / axes.bbox.height,
        f"{length_nm / 1000:g} µm" if length_nm >= 1000 else f"{length_nm:g} nm",
        transform=place,
        color="white",
        path_effects=[withStroke(linewidth=3, foreground="black")],
        fontproperties=font(15),
    )


def write(
    figure: Figure,
    text: str,
    *,
    at: tuple[float, float],
    size_px: float,
    align: str = "left",
    bold: bool = False,
    longest: int = 120,
) -> None:
    """Write one line on a figure, its baseline at a point in pixels from the lower left."""
    figure.text(
        *at,
        drawable(text, longest=longest),
        transform=IdentityTransform(),
        fontproperties=font(size_px, bold=bold),
        color=INK,
        horizontalalignment=align,
        parse_math=False,
    )


def font(size_px: float, *, bold: bool = False) -> FontProperties:
    """Return the font that matplotlib brings along, found without a search of the machine's."""
    return FontProperties(fname=FONT_FILES[bold], size=size_px * 72 / DOTS_PER_INCH)


def drawable(text: str, *, longest: int) -> str:
    """Replace what the font cannot draw by "?" and cut the middle out of a text too long."""
    known = "".join(char if ord(char) in _glyphs() else "?" for char in text)
    half = longest // 2
    return known if len(known) <= longest else f"{known[:half]}…{known[-half:]}"


@cache
def _glyphs() -> frozenset[int]:
    return frozenset(get_font(FONT_FILES[0]).get_charmap())


def _extent(
    shape: tuple[int, ...], pixel_nm: tuple[float, float]
) -> tuple[float, float, float, float]:
    return 0.0, shape[1] * pixel_nm[1], 0.0, shape[0] * pixel_nm[0]


def _round_length(most: float) -> float:
    """Return the greatest of 1, 2, 5 × 10^k that is not above ``most``.

    >>> _round_length(187.0), _round_length(99.0)
    (100.0, 50.0)
    """
    power = 10.0 ** math.floor(math.log10(most))
    return max(step * power for step in (1, 2, 5) if step * power <= most * (1 + 1e-9))
