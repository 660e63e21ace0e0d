"""What was looked for and not found, with the likely causes: an empty result is never silent."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from tomoseg.analysis.particles import PickingSettings
from tomoseg.recipe.recipe import Recipe
from tomoseg.report.summary import ClassSummary


def empty_notes(
    classes: Sequence[ClassSummary],
    recipe: Recipe,
    *,
    voxel_angstrom: float,
    measured_contrast: str | None = None,
) -> list[str]:
    """Return a note of each kind of thing that was looked for and not found.

    Parameters
    ----------
    classes
        What was found.
    recipe
        As resolved for the networks.
    voxel_angstrom
        Of the tomogram.
    measured_contrast
        ``"dark"`` or ``"bright"``, what protein was measured to be; None if that is not clear.
    """
    if not any(found.voxels for found in classes):
        other = "bright" if recipe.source.contrast == "dark" else "dark"
        return [
            "nothing was found: no voxel has a label. Likely causes: protein is "
            f"{other} here, not {recipe.source.contrast} (source.contrast: {other}; measured: "
            f"{measured_contrast or 'not clear'}); voxels are "
            f"not {voxel_angstrom:.4g} Å (source.voxel_size_angstrom); the network has never seen "
            "the like: look at report/overview.png, and train on a few slices (tomoseg train)"
        ]
    return [*_without_lines(classes, recipe), *_without_particles(classes, recipe)]


def _without_lines(classes: Iterable[ClassSummary], recipe: Recipe) -> list[str]:
    return [
        f"{found.name}: {found.voxels:,} voxels are labelled and no filament was traced. Likely "
        f"causes: pieces shorter than trace.{found.name}.minimum_length_angstrom "
        f"({settings.minimum_length_angstrom:g}) or further apart than gap_angstrom "
        f"({settings.gap_angstrom:g}); another radius than {settings.radius_angstrom:g} Å "
        "(radius_angstrom)"
        for found in classes
        if found.filaments == 0 and found.voxels
        for settings in [(recipe.trace or {})[found.name]]
    ]


def _without_particles(classes: Iterable[ClassSummary], recipe: Recipe) -> list[str]:
    return [
        f"{found.name}: {found.voxels:,} voxels are labelled and no particle was picked. Likely "
        f"causes: {_limit(found.name, settings)}; another radius than "
        f"{settings.radius_angstrom:g} Å (radius_angstrom), or labels of another size "
        "(label_radius_angstrom)"
        for found in classes
        if found.particles == 0 and found.voxels
        for settings in [(recipe.pick or {})[found.name]]
    ]


def _limit(name: str, settings: PickingSettings) -> str:
    if settings.method == "peaks":
        return f"scores below pick.{name}.threshold ({settings.threshold:g})"
    return f"objects beyond the limits of pick.{name}, method {settings.method}"
