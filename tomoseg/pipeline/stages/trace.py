"""Trace filaments: evidence over blocks, lines in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
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
from tomoseg.core.blocks import Block, BlockGrid
from tomoseg.core.coordinates import Filament, Points, numbered
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import Ledger, Volume
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.context import Context, Stage, receipt_name
from tomoseg.pipeline.stages.input_mask import OUTSIDE, codes_at, inside_parts
from tomoseg.pipeline.stages.segment import evidence, read_evidence


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
        found = measured(context, name, lines)
        weights = [one.length_angstrom / length for one in found]
        summary["curvature_per_um"] = np.dot(weights, [one.curvature_mean_per_um for one in found])
        summary["packed_share"] = np.dot(weights, [one.packed_share for one in found])
    return summary


def measured(context: Context, name: str, lines: list[Filament]) -> list[FilamentMeasures]:
    """Measure the filaments of a class; what ends at the volume or at its mask is cut there."""

    def is_inside(points: Points) -> NDArray[np.bool_]:
        inside: NDArray[np.bool_] = context.header().sampling.contains(points)
        inside[inside] = codes_at(context, points[inside]) != OUTSIDE
        return inside

    settings = (context.recipe.trace or {})[name]
    return measure(lines, is_inside, radius_angstrom=settings.radius_angstrom)


@dataclass(frozen=True)
class FindPoints:
    """Look for points of one class in one block and keep them as a sidecar."""

    ledger: Ledger
    label: str
    volume: Volume
    value: int | None
    sampling: Sampling
    settings: Any
    find: Callable[..., Mapping[str, NDArray[Any]]]

    def __call__(self, block: Block) -> Mapping[str, Any]:
        """Write a block's sidecar; the receipt counts its points."""
        arrays = self.find(
            read_evidence(self.volume, self.value, block.read),
            block.core,
            begin=block.read.begin,
            sampling=self.sampling,
            settings=self.settings,
        )
        self.ledger.write_arrays(receipt_name(self.label, block), arrays)
        return {"points": len(next(iter(arrays.values())))}


def _trace_class(
    context: Context, ledger: Ledger, name: str, settings: TracingSettings
) -> list[Filament]:
    sampling = context.sampling()
    work = FindPoints(
        ledger, f"ridge-{name}", *evidence(context, name), sampling, settings, _ridges
    )
    grid = BlockGrid(
        sampling.shape,
        context.recipe.blocks.compact,
        halo=tracing_halo(settings, sampling),
        stride=(working_factor(settings, sampling),) * 3,
    )
    receipts = context.run_pass(ledger, work.label, work, grid)
    points = RidgePoints.concatenate(
        [RidgePoints.from_dict(arrays) for arrays in ledger.read_all_arrays(receipts)]
    )
    lines = trace(points, name=name, sampling=sampling, settings=settings)
    shortest = settings.minimum_length_angstrom
    parts = [p for line in lines for p in inside_parts(context, line, minimum_angstrom=shortest)]
    return numbered(sorted(parts, key=lambda part: -part.length_angstrom))


def _ridges(*block: Any, **how: Any) -> Mapping[str, NDArray[Any]]:
    return ridge_points(*block, **how).as_dict()


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
