"""Trace filaments: evidence over blocks, lines in one piece."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.filaments import (
    FilamentMeasures,
    RidgePoints,
    TracingSettings,
    measure,
    ridge_points,
    trace,
    tracing_halo,
    working_factor,
)
from tomoseg.core.coordinates import Filament, Points, numbered
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.finders import Finder, find_points
from tomoseg.pipeline.stages.input_mask import OUTSIDE, codes_at, inside_parts

RIDGES = Finder("ridge", ridge_points, RidgePoints, working_factor, tracing_halo)


def _trace_settings(context: Context) -> Any:
    classes = {name: asdict(one) for name, one in (context.recipe.trace or {}).items()}
    return {"columns": RidgePoints.names(), "classes": classes}


def _trace(context: Context, ledger: Ledger) -> dict[str, Any]:
    found = {
        name: _trace_class(context, ledger, name, settings)
        for name, settings in (context.recipe.trace or {}).items()
    }
    for name, lines in found.items():
        context.records.write_arrays(f"filaments/{name}.npz", _as_arrays(lines))
    return {name: _summary(context, name, lines) for name, lines in found.items()}


def _summary(context: Context, name: str, lines: list[Filament]) -> dict[str, Any]:
    """Return number and total length of filaments, and means over their length."""
    length = sum(line.length_angstrom for line in lines)
    summary: dict[str, Any] = {"filaments": len(lines), "length_um": length / 1e4}
    if lines:
        found = measure_filaments(context, name, lines)
        weights = [one.length_angstrom / length for one in found]
        summary["curvature_per_um"] = np.dot(weights, [one.curvature_mean_per_um for one in found])
        summary["packed_share"] = np.dot(weights, [one.packed_share for one in found])
    return summary


def measure_filaments(context: Context, name: str, lines: list[Filament]) -> list[FilamentMeasures]:
    """Measure the filaments of a class; what ends at the volume or at its mask is cut there."""

    def is_inside(points: Points) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = context.header().sampling.contains(points)
        inside[inside] = codes_at(context, points[inside]) != OUTSIDE
        return inside

    settings = (context.recipe.trace or {})[name]
    return measure(lines, is_inside, radius_angstrom=settings.radius_angstrom)


def _trace_class(
    context: Context, ledger: Ledger, name: str, settings: TracingSettings
) -> list[Filament]:
    points = find_points(context, ledger, RIDGES, name, settings)
    lines = trace(points, name=name, sampling=context.sampling(), settings=settings)
    shortest = settings.minimum_length_angstrom
    parts = [p for line in lines for p in inside_parts(context, line, minimum_angstrom=shortest)]
    return numbered(sorted(parts, key=lambda part: -part.length_angstrom))


def _as_arrays(lines: list[Filament]) -> dict[str, np.ndarray[Any, Any]]:
    points = [line.points_angstrom for line in lines]
    return {
        "points_angstrom": np.concatenate([np.zeros((0, 3)), *points]),
        "lengths": np.array([len(p) for p in points], np.int64),
        "scores": np.array([line.score for line in lines], np.float64),
    }


def read_filaments(results: Results, name: str) -> list[Filament]:
    """Return the traced filaments of a class."""
    arrays = results.records.read_arrays(f"filaments/{name}.npz")
    ends = np.cumsum(arrays["lengths"])[:-1]
    lines = np.split(arrays["points_angstrom"], ends) if len(arrays["lengths"]) else []
    return [
        Filament(name, number, points, float(score))
        for number, (points, score) in enumerate(zip(lines, arrays["scores"], strict=True), 1)
    ]


TRACE = Stage("trace", ("clean",), _trace_settings, _trace, share=0.32)
