"""Whether a recipe fits a tomogram: all that its header decides, before any voxel is read.

What a stage would refuse after an hour is asked for here with the stage's own functions, so that
``validate`` knows it and a run fails in seconds.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from math import prod
from typing import Any

from tomoseg.analysis.filaments import working_factor
from tomoseg.analysis.particles import PickingSettings, basin_factor, picking_factor
from tomoseg.analysis.surfaces import surface_factor
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.points.dialects import TomogramPoints
from tomoseg.io.points.registry import DIALECTS
from tomoseg.pipeline.stages.networks import AppliedNetwork, check_fit, colours_of
from tomoseg.pipeline.stages.points import (
    FoundPoints,
    sampled_names,
    tomo_context,
    tomogram_files,
    write_options,
)
from tomoseg.recipe.recipe import Recipe

# Of a voxel at least the normalised float32 and the best score so far are held.
BLOCK_BYTES = 8
PICKING_FACTORS = {"peaks": picking_factor, "watershed": basin_factor}

Check = Callable[[], Any]


def check_recipe(
    recipe: Recipe, networks: Sequence[AppliedNetwork], name: str, header: Header
) -> tuple[str, ...]:
    """Check all that a recipe says against a tomogram's header.

    Parameters
    ----------
    recipe
        Resolved for the networks' classes.

    Returns
    -------
    What a person should know of the points that are written.

    Raises
    ------
    RequestError, ModelError
        With everything that does not fit, keys and remedies.
    """
    stored = header.sampling.binned(recipe.ingest.bin)
    checks: list[Check] = [
        *(partial(check_fit, recipe, one.card, header.sampling) for one in networks),
        partial(_check_memory, recipe, stored),
        *_of_classes(recipe, stored),
        partial(_check_points, recipe, networks, name, header),
    ]
    errors: list[TomosegError] = []
    for check in checks:
        try:
            check()
        except TomosegError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    if errors:
        *others, last = errors
        facts = "; ".join([*(str(error).rstrip(".") for error in others), last.message])
        raise RequestError(facts, remedy=last.remedy)
    return tomo_context(name, header, recipe.export).notes


def _of_classes(recipe: Recipe, stored: Sampling) -> Iterator[Check]:
    """Yield what has to hold of each class that is traced, picked or sampled."""
    grid = partial(_check_grid, recipe, stored)
    for name, tracing in (recipe.trace or {}).items():
        yield partial(_keyed, f"trace.{name}", partial(grid, working_factor, tracing))
    for name, picking in (recipe.pick or {}).items():
        yield partial(_keyed, f"pick.{name}", partial(_check_volumes, picking, stored))
        if picking.method in PICKING_FACTORS:
            factor = PICKING_FACTORS[picking.method]
            yield partial(_keyed, f"pick.{name}", partial(grid, factor, picking))
    for name, sampling in (recipe.sample or {}).items():
        yield partial(_keyed, f"sample.{name}", partial(grid, surface_factor, sampling))


def _check_grid(
    recipe: Recipe, stored: Sampling, factor_of: Callable[..., int], settings: Any
) -> None:
    """Bin the voxels as a class's settings want it, and see whether blocks are whole bins."""
    factor = factor_of(settings, stored)
    BlockGrid(stored.shape, recipe.blocks.compact, stride=(factor,) * 3)


def _keyed(key: str, check: Check) -> None:
    try:
        check()
    except RequestError as error:
        raise RequestError(f"{key}: {error.message}", remedy=error.remedy) from error


def _check_volumes(settings: PickingSettings, stored: Sampling) -> None:
    least, most = settings.volumes_nm3(stored)
    if least > most:
        raise RequestError(
            f"a least volume of {least:.4g} nm³ and a largest of {most:.4g} nm³ keep nothing",
            remedy="Correct minimum_volume_fraction or maximum_volume_nm3, or the radius of the "
            "ball that the fraction is of.",
        )


def _check_memory(recipe: Recipe, stored: Sampling) -> None:
    shape = [min(edges) for edges in zip(recipe.blocks.shape, stored.shape, strict=True)]
    needed, memory = prod(shape) * BLOCK_BYTES / (1 << 30), recipe.compute.memory_gib
    if needed > memory:
        raise RequestError(
            f"a block of {'×'.join(map(str, shape))} voxels (blocks.shape) takes more than "
            f"{needed:.3g} GiB, and compute.memory_gib is {memory:g}",
            remedy="Make blocks.shape smaller, or raise compute.memory_gib where there is more.",
        )


def _check_points(
    recipe: Recipe, networks: Sequence[AppliedNetwork], name: str, header: Header
) -> None:
    """Write a point of every class in every dialect, to see that the programs take the names."""
    context = tomo_context(name, header, recipe.export)
    first = header.sampling.to_angstrom([(0, 0, 0), (0, 0, 0.4)])
    traced, picked = tuple(recipe.trace or ()), tuple(recipe.pick or ())
    picked += tuple(sampled_names(recipe).values())
    points = TomogramPoints(
        context,
        [Filament(one, 1, first, score=1.0) for one in traced],
        [Particles.at(one, first[:1], first[:1, 0] + 1) for one in picked],
    )
    options = write_options(recipe, colours_of(networks))
    for dialect in recipe.export.dialects:
        known = partial(
            tomogram_files, DIALECTS[dialect], FoundPoints(points, traced, picked), "", options
        )
        _keyed(f"export.dialects: {dialect}", known)
