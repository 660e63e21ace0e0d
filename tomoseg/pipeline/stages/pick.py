"""Pick particles: evidence over blocks, limits in one piece, and what lies around each."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import particles
from tomoseg.analysis.particles import PickingSettings, Picks
from tomoseg.analysis.particles.surroundings import neighbours
from tomoseg.core.coordinates import Particles
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.finders import Finder, find_points
from tomoseg.pipeline.stages.input_mask import INSIDE, codes_at
from tomoseg.pipeline.stages.surroundings import Around, look_around

Table = dict[str, NDArray[Any]]
NEIGHBOURHOOD_RADII = 3
PEAKS = Finder(
    "peaks",
    particles.candidate_peaks,
    particles.Peaks,
    particles.picking_factor,
    particles.picking_halo,
)
BASINS = Finder(
    "basins",
    particles.candidate_basins,
    particles.Basins,
    particles.basin_factor,
    particles.basin_halo,
)


def _settings(context: Context) -> Any:
    return {name: asdict(one) for name, one in _picked(context).items()}


def _picked(context: Context) -> Mapping[str, PickingSettings]:
    return context.recipe.pick or {}


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    found = {name: _inside(context, ledger, name, one) for name, one in _picked(context).items()}
    points = [picks.particles.points_angstrom for picks in found.values()]
    around = look_around(context, ledger, np.concatenate([np.zeros((0, 3)), *points]))
    ends = np.cumsum([len(picks) for picks in found.values()])
    summary: dict[str, Any] = {}
    for (name, settings), end in zip(_picked(context).items(), ends.tolist(), strict=True):
        rows = np.arange(end - len(found[name]), end)
        summary[name] = _finish(context, name, found[name], around.select(rows), settings)
    return {**summary, "notes": [note for name in summary if (note := _note(name, summary[name]))]}


def _inside(context: Context, ledger: Ledger, name: str, settings: PickingSettings) -> Picks:
    """Pick a class's particles and keep those that the mask allows."""
    picks = PICKERS[settings.method](context, ledger, name, settings)
    codes = codes_at(context, picks.particles.points_angstrom)
    return picks.select(codes == INSIDE, "outside the mask")


def _finish(
    context: Context, name: str, picks: Picks, around: Around, settings: PickingSettings
) -> dict[str, Any]:
    """Leave out what is near other classes, and all but the best; write the rest."""
    for other, angstrom in settings.exclude.items():
        is_far = ~(around.objects[other].nearest.angstrom < angstrom)
        picks = picks.select(is_far, f"nearer than {angstrom:g} Å to {other}")
        around = around.select(np.flatnonzero(is_far))
    if settings.top_n is not None:
        is_best = particles.are_best(picks.particles, settings.top_n)
        picks = picks.select(is_best, f"beyond the best {settings.top_n}")
        around = around.select(np.flatnonzero(is_best))
    found = picks.particles
    arrays = {
        "points_angstrom": found.points_angstrom,
        "scores": found.scores,
        "orientations": found.orientations,
    }
    context.records.write_arrays(f"particles/{name}.npz", arrays)
    summary: dict[str, Any] = {"particles": len(found), "left_out": dict(picks.left_out)}
    if settings.surroundings_angstrom:
        table = _table(picks, around, settings)
        context.records.write_arrays(f"surroundings/{name}.npz", table)
        near = {m: int(np.isfinite(table[f"{m}_angstrom"]).sum()) for m in around.membranes}
        summary["near"] = near
    return summary


def _table(picks: Picks, around: Around, settings: PickingSettings) -> Table:
    """Return what is known of each particle's surroundings, columns of shape (n,)."""
    points = picks.particles.points_angstrom
    counts, nearest = neighbours(points, NEIGHBOURHOOD_RADII * settings.radius_angstrom)
    return {
        "volume_nm3": picks.volumes_nm3,
        "neighbours": counts,
        "neighbour_angstrom": nearest,
        **around.table(settings.surroundings_angstrom),
    }


def _note(name: str, summary: Mapping[str, Any]) -> str:
    """Return what was left out of a class, if anything.

    >>> _note("ribosome", {"left_out": {"too small": 3, "at the border": 2}})
    'ribosome: 5 left out, 3 too small, 2 at the border'
    >>> _note("ribosome", {"left_out": {}})
    ''
    """
    left_out = summary["left_out"]
    reasons = ", ".join(f"{number} {reason}" for reason, number in left_out.items())
    return f"{name}: {sum(left_out.values())} left out, {reasons}" if left_out else ""


def _pick_peaks(context: Context, ledger: Ledger, name: str, settings: PickingSettings) -> Picks:
    found = find_points(context, ledger, PEAKS, name, settings)
    return particles.pick_peaks(found, name=name, sampling=context.sampling(), settings=settings)


def _pick_basins(context: Context, ledger: Ledger, name: str, settings: PickingSettings) -> Picks:
    found = find_points(context, ledger, BASINS, name, settings)
    return particles.pick_basins(found, name=name, sampling=context.sampling(), settings=settings)


def _pick_components(
    context: Context, ledger: Ledger, name: str, settings: PickingSettings
) -> Picks:
    table = context.records.read_arrays(f"objects/{name}.npz")
    return particles.pick_components(
        table["centres"], table["voxels"], name=name, sampling=context.sampling(), settings=settings
    )


PICKERS: dict[str, Callable[[Context, Ledger, str, PickingSettings], Picks]] = {
    "peaks": _pick_peaks,
    "watershed": _pick_basins,
    "components": _pick_components,
}


def read_particles(results: Results, name: str) -> Particles:
    """Return the picked particles of a class."""
    return Particles(name, **results.records.read_arrays(f"particles/{name}.npz"))


def read_surroundings(context: Context, name: str) -> Table | None:
    """Return what lies around the picked particles of a class, by column; None if not looked."""
    if not _picked(context)[name].surroundings_angstrom:
        return None
    return context.records.read_arrays(f"surroundings/{name}.npz")


PICK = Stage("pick", ("clean",), _settings, _run, share=0.06)
