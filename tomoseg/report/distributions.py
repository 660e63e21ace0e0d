"""How a number is spread over filaments or particles, and where each value lies in the sample."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.collections import LineCollection
from matplotlib.colors import ListedColormap, Normalize
from matplotlib.ticker import MaxNLocator
from numpy.typing import ArrayLike, NDArray

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.report.panels import INK

Limits = tuple[float | None, float | None]

BINS = 16


def draw_histograms(
    axes: Axes, values: Mapping[str, ArrayLike], *, colours: Mapping[str, str], title: str
) -> None:
    """Draw how a number is spread over the members of some classes, with each class's median.

    Parameters
    ----------
    values
        Class → numbers, shape (n,); those that are not finite are left out, and told as n.
    colours
        Class → colour.
    title
        What the number is, with its unit; written along the x axis.
    """
    known = {name: _finite(numbers) for name, numbers in values.items()}
    together = np.concatenate([np.zeros(0), *known.values()])
    edges = np.histogram_bin_edges(together, BINS).tolist()
    for name, numbers in known.items():
        label = f"{name.replace('_', ' ')} (n = {len(numbers)})"
        axes.hist(numbers, edges, color=colours[name], alpha=0.45, label=label)
        axes.hist(numbers, edges, color=colours[name], histtype="step", linewidth=1.5)
        if len(numbers):
            axes.axvline(np.median(numbers), color=colours[name], linestyle="--", linewidth=1.5)
    axes.set(xlabel=title, ylabel="number")
    axes.yaxis.set_major_locator(MaxNLocator(integer=True))
    # Above the plot, where it hides neither bar nor median.
    axes.legend(frameon=False, loc="lower left", bbox_to_anchor=(0, 1), ncols=2, borderaxespad=0)
    axes.spines[["top", "right"]].set_visible(False)


def draw_filaments(
    axes: Axes,
    filaments: Sequence[Filament],
    values: ArrayLike,
    *,
    title: str,
    limits: Limits = (None, None),
) -> None:
    """Draw filaments along z, each in the colour of its number; without one they are grey.

    Parameters
    ----------
    values
        A number a filament, shape (n,), NaN if it has none.
    title
        What the number is, with its unit; written beside the scale of colours.
    limits
        Values of the first and the last colour; None takes the lowest or highest that there is.
    """
    numbers = np.asarray(values, np.float64)
    lines = [filament.points_angstrom[:, :0:-1] / 10 for filament in filaments]
    rest = [line for line, number in zip(lines, numbers, strict=True) if not np.isfinite(number)]
    axes.add_collection(LineCollection(rest, colors="0.75", linewidths=2.5))
    told = [line for line, number in zip(lines, numbers, strict=True) if np.isfinite(number)]
    drawn = LineCollection(told, cmap="viridis", norm=Normalize(*limits), linewidths=3)
    drawn.set_array(_finite(numbers))
    axes.add_collection(drawn)
    _finish(axes, drawn, title)


def draw_particles(
    axes: Axes,
    particles: Particles,
    values: ArrayLike,
    *,
    title: str,
    limits: Limits = (None, None),
) -> None:
    """Draw particles along z, each in the colour of its number; without one they are empty rings.

    The parameters are those of :func:`draw_filaments`.
    """
    numbers = np.asarray(values, np.float64)
    is_known = np.isfinite(numbers)
    y, x = particles.points_angstrom[:, 1:].T / 10
    axes.scatter(x[~is_known], y[~is_known], s=50, facecolors="none", edgecolors="0.6")
    drawn = axes.scatter(
        x[is_known], y[is_known], c=numbers[is_known], s=60, cmap="viridis",
        norm=Normalize(*limits), edgecolors=INK, linewidths=0.6, zorder=3,
    )  # fmt: skip
    _finish(axes, drawn, title)


def draw_ground(axes: Axes, mask: NDArray[np.bool_], *, pixel_nm: float, colour: str) -> None:
    """Tint what a class covers, seen along z, under what is drawn on top.

    Parameters
    ----------
    mask
        bool, shape (z, y, x).
    """
    seen = np.ma.masked_equal(mask.any(axis=0), False)
    edges = [(np.arange(n + 1) - 0.5) * pixel_nm for n in mask.shape[:0:-1]]
    axes.pcolormesh(*edges, seen, cmap=ListedColormap([colour]), alpha=0.35, rasterized=True)


def _finite(values: ArrayLike) -> NDArray[np.float64]:
    numbers = np.asarray(values, np.float64)
    return numbers[np.isfinite(numbers)]


def _finish(axes: Axes, drawn: ScalarMappable, title: str) -> None:
    axes.autoscale_view()
    axes.set(aspect="equal", xlabel="x, nm", ylabel="y, nm")
    axes.figure.colorbar(drawn, ax=axes, label=title, shrink=0.8)
