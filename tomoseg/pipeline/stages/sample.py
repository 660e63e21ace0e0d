"""Sample membranes: sheets over blocks, points on their surfaces in one piece."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis.surfaces import (
    Contacts,
    SheetPoints,
    Surfaces,
    SurfaceSamples,
    SurfaceSettings,
    connected_surfaces,
    contacts,
    sample_surfaces,
    sheet_points,
    surface_factor,
    surface_halo,
)
from tomoseg.core.coordinates import Particles
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.finders import Finder, find_points
from tomoseg.pipeline.stages.input_mask import INSIDE, codes_at

NM2 = 100.0
SHEETS = Finder("sheets", sheet_points, SheetPoints, surface_factor, surface_halo)


def _settings(context: Context) -> Any:
    classes = {name: asdict(one) for name, one in (context.recipe.sample or {}).items()}
    return {"columns": SheetPoints.names(), "classes": classes}


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    wanted = context.recipe.sample or {}
    summary: dict[str, Any] = {}
    near: dict[str, Surfaces] = {}
    for name, settings in wanted.items():
        found = _connected(context, ledger, name, settings)
        summary[name] = _sample(context, name, found, settings)
        if any(one.contact_angstrom for one in wanted.values()):
            codes = codes_at(context, found.places.points_angstrom)
            near[name] = found.select(codes == INSIDE)
    for name, settings in wanted.items():
        if settings.contact_angstrom:
            table = contacts(name, near, within_angstrom=settings.contact_angstrom)
            context.records.write_arrays(f"contacts/{name}.npz", table.as_dict())
            summary[name]["contacts"] = len(table)
    return summary


def _sample(
    context: Context, name: str, found: Surfaces, settings: SurfaceSettings
) -> dict[str, Any]:
    """Write the points of a class's surfaces that the mask allows; return their numbers."""
    whole = sample_surfaces(found, name=name, sampling=context.sampling(), settings=settings)
    kept = whole.select(codes_at(context, whole.particles.points_angstrom) == INSIDE)
    context.records.write_arrays(f"surfaces/{name}.npz", _as_arrays(kept))
    area = float(kept.area_angstrom2.sum())
    thickness = float((kept.thickness_angstrom * kept.area_angstrom2).sum())
    return {
        "surfaces": len(np.unique(kept.surface)),
        "area_nm2": area / NM2,
        "thickness_nm": thickness / area / 10 if area else None,
        "points": len(kept.particles),
        "left_out": len(whole.particles) - len(kept.particles),
    }


def _connected(context: Context, ledger: Ledger, name: str, settings: SurfaceSettings) -> Surfaces:
    points = find_points(context, ledger, SHEETS, name, settings)
    return connected_surfaces(points, sampling=context.sampling(), settings=settings)


def _as_arrays(found: SurfaceSamples) -> dict[str, NDArray[Any]]:
    known = {key: value for key, value in vars(found).items() if key != "particles"}
    particles = found.particles
    return {
        "points_angstrom": particles.points_angstrom,
        "scores": particles.scores,
        "orientations": particles.orientations,
        **known,
    }


def read_samples(results: Results, name: str) -> SurfaceSamples:
    """Return the points sampled on the membranes of a class."""
    arrays = results.records.read_arrays(f"surfaces/{name}.npz")
    keys = ("points_angstrom", "scores", "orientations")
    particles = Particles(name, **{key: arrays.pop(key) for key in keys})
    return SurfaceSamples(particles, **arrays)


def read_contacts(results: Results, name: str) -> Contacts | None:
    """Return which surfaces are near those of a class; None if not looked."""
    if not (results.recipe.sample or {})[name].contact_angstrom:
        return None
    return Contacts.from_dict(results.records.read_arrays(f"contacts/{name}.npz"))


SAMPLE = Stage("sample", ("clean",), _settings, _run)
