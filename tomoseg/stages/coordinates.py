"""Trace filaments and pick particles: evidence over blocks, points in one piece."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg import particles
from tomoseg.blocks import Block, BlockGrid
from tomoseg.coordinates import Filament, Particles, numbered
from tomoseg.filaments import (
    RidgePoints,
    TracingSettings,
    ridge_points,
    trace,
    tracing_halo,
    working_factor,
)
from tomoseg.particles import PickingSettings
from tomoseg.sampling import Sampling
from tomoseg.stages.context import Context, Stage, receipt_name
from tomoseg.stages.masks import INSIDE, codes_at, inside_parts
from tomoseg.stages.segment import evidence, read_evidence
from tomoseg.stores import Ledger, Volume


def _trace_settings(context: Context) -> Any:
    return {name: asdict(one) for name, one in (context.recipe.trace or {}).items()}


def _trace(context: Context, ledger: Ledger) -> dict[str, Any]:
    found = {
        name: _trace_class(context, ledger, name, settings)
        for name, settings in (context.recipe.trace or {}).items()
    }
    for name, lines in found.items():
        context.records.write_arrays(f"filaments/{name}.npz", _as_arrays(lines))
    return {
        name: {
            "filaments": len(lines),
            "length_um": sum(line.length_angstrom for line in lines) / 1e4,
        }
        for name, lines in found.items()
    }


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
    sampling = context.sampling
    work = FindPoints(
        ledger, f"ridge-{name}", *evidence(context, name), sampling, settings, _ridges
    )
    grid = BlockGrid(
        sampling.shape,
        context.recipe.blocks.shape,
        halo=tracing_halo(settings, sampling),
        stride=(working_factor(settings, sampling),) * 3,
    )
    receipts = context.run_pass(ledger, work.label, work, grid)
    points = RidgePoints.concatenate(
        [RidgePoints.from_dict(ledger.read_arrays(receipt)) for receipt in receipts]
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


def read_filaments(context: Context, name: str) -> list[Filament]:
    """Return the traced filaments of a class."""
    arrays = context.records.read_arrays(f"filaments/{name}.npz")
    ends = np.cumsum(arrays["lengths"])[:-1]
    lines = np.split(arrays["points_angstrom"], ends) if len(arrays["lengths"]) else []
    return [
        Filament(name, number, points, float(score))
        for number, (points, score) in enumerate(zip(lines, arrays["scores"], strict=True), 1)
    ]


def _pick_settings(context: Context) -> Any:
    return {name: asdict(one) for name, one in (context.recipe.pick or {}).items()}


def _pick(context: Context, ledger: Ledger) -> dict[str, Any]:
    summary = {}
    for name, settings in (context.recipe.pick or {}).items():
        pick = _pick_components if settings.method == "components" else _pick_peaks
        picked = pick(context, ledger, name, settings)
        found = picked.select(codes_at(context, picked.points_angstrom) == INSIDE)
        context.records.write_arrays(
            f"particles/{name}.npz",
            {
                "points_angstrom": found.points_angstrom,
                "scores": found.scores,
                "orientations": found.orientations,
            },
        )
        summary[name] = {"particles": len(found), "left_out": len(picked) - len(found)}
    return summary


def _pick_peaks(
    context: Context, ledger: Ledger, name: str, settings: PickingSettings
) -> Particles:
    sampling = context.sampling
    work = FindPoints(ledger, f"peaks-{name}", *evidence(context, name), sampling, settings, _peaks)
    grid = BlockGrid(
        sampling.shape,
        context.recipe.blocks.shape,
        halo=particles.picking_halo(settings, sampling),
        stride=(particles.picking_factor(settings, sampling),) * 3,
    )
    receipts = context.run_pass(ledger, work.label, work, grid)
    found = [particles.Peaks(**ledger.read_arrays(receipt)) for receipt in receipts]
    return particles.pick_peaks(found, name=name, sampling=sampling, settings=settings)


def _peaks(*block: Any, **how: Any) -> Mapping[str, NDArray[Any]]:
    return vars(particles.candidate_peaks(*block, **how))


def _pick_components(
    context: Context, ledger: Ledger, name: str, settings: PickingSettings
) -> Particles:
    table = context.records.read_arrays(f"objects/{name}.npz")
    return particles.pick_components(
        table["centres"], table["voxels"], name=name, sampling=context.sampling, settings=settings
    )


def read_particles(context: Context, name: str) -> Particles:
    """Return the picked particles of a class."""
    return Particles(name, **context.records.read_arrays(f"particles/{name}.npz"))


TRACE = Stage("trace", ("clean",), _trace_settings, _trace)
PICK = Stage("pick", ("clean",), _pick_settings, _pick)
