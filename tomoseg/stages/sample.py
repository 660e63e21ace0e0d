"""Sample membranes: sheets over blocks, points on their surfaces in one piece."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.blocks import BlockGrid
from tomoseg.coordinates import Particles
from tomoseg.stages.context import Context, Stage
from tomoseg.stages.masks import INSIDE, codes_at
from tomoseg.stages.segment import evidence
from tomoseg.stages.trace import FindPoints
from tomoseg.stores import Ledger
from tomoseg.surfaces import (
    SheetPoints,
    SurfaceSamples,
    SurfaceSettings,
    sample_surfaces,
    sheet_points,
    surface_factor,
    surface_halo,
)

NM2 = 100.0


def _settings(context: Context) -> Any:
    return {name: asdict(one) for name, one in (context.recipe.sample or {}).items()}


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    summary = {}
    for name, settings in (context.recipe.sample or {}).items():
        sampled = _sample_class(context, ledger, name, settings)
        found = sampled.select(codes_at(context, sampled.particles.points_angstrom) == INSIDE)
        context.records.write_arrays(f"surfaces/{name}.npz", _as_arrays(found))
        summary[name] = {
            "surfaces": len(np.unique(found.surface)),
            "area_nm2": float(found.area_angstrom2.sum()) / NM2,
            "points": len(found.particles),
            "left_out": len(sampled.particles) - len(found.particles),
        }
    return summary


def _sample_class(
    context: Context, ledger: Ledger, name: str, settings: SurfaceSettings
) -> SurfaceSamples:
    sampling = context.sampling
    work = FindPoints(
        ledger, f"sheets-{name}", *evidence(context, name), sampling, settings, _sheets
    )
    grid = BlockGrid(
        sampling.shape,
        context.recipe.blocks.compact,
        halo=surface_halo(settings, sampling),
        stride=(surface_factor(settings, sampling),) * 3,
    )
    receipts = context.run_pass(ledger, work.label, work, grid)
    points = SheetPoints.concatenate(
        [SheetPoints.from_dict(arrays) for arrays in ledger.read_all_arrays(receipts)]
    )
    return sample_surfaces(points, name=name, sampling=sampling, settings=settings)


def _sheets(*block: Any, **how: Any) -> Mapping[str, NDArray[Any]]:
    return sheet_points(*block, **how).as_dict()


def _as_arrays(found: SurfaceSamples) -> dict[str, NDArray[Any]]:
    known = {key: value for key, value in vars(found).items() if key != "particles"}
    particles = found.particles
    return {
        "points_angstrom": particles.points_angstrom,
        "scores": particles.scores,
        "orientations": particles.orientations,
        **known,
    }


def read_samples(context: Context, name: str) -> SurfaceSamples:
    """Return the points sampled on the membranes of a class."""
    arrays = context.records.read_arrays(f"surfaces/{name}.npz")
    keys = ("points_angstrom", "scores", "orientations")
    particles = Particles(name, **{key: arrays.pop(key) for key in keys})
    return SurfaceSamples(particles, **arrays)


SAMPLE = Stage("sample", ("clean",), _settings, _run)
