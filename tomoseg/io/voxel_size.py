"""Voxel sizes as files state them: taken as they are, overridden, or refused; never guessed."""

from __future__ import annotations

import math

from tomoseg.core.errors import VoxelSizeError
from tomoseg.core.sampling import Triple

OVERRIDE = "source.voxel_size_angstrom"
SMALLEST_ANGSTROM = 0.1
LARGEST_ANGSTROM = 1000.0
EQUAL_WITHIN = 1e-3


def decide_voxel_size(
    stated_angstrom: Triple | None,
    override_angstrom: float | None,
    *,
    notes: list[str],
    may_differ: bool = False,
) -> Triple:
    """Decide on the voxel size of a file.

    Parameters
    ----------
    stated_angstrom
        What the file says along z, y, x, in Å; None if it says nothing.
    override_angstrom
        What the person says, in Å; it wins over everything.
    notes
        Told where the two differ.
    may_differ
        Whether the format states each axis on purpose, so that unequal sizes are meant.

    Returns
    -------
    zyx, Å, the same for all axes (unless they ``may_differ``), rounded to seven digits: headers
    hold lengths as float32, and 13.680000085 is meant as 13.68.

    Raises
    ------
    VoxelSizeError
        If the size is missing, not positive and finite, exactly 1, unequal beyond 1e-3, or
        outside 0.1..1000 Å.
    """
    if override_angstrom is not None:
        _refuse_absurd((override_angstrom,) * 3, f"{OVERRIDE} is")
        _note_difference(stated_angstrom, override_angstrom, notes)
        return (float(override_angstrom),) * 3
    if stated_angstrom is None:
        raise _unknown("the file states no voxel size")
    _refuse_absurd(stated_angstrom, "the file's voxel size is")
    if max(stated_angstrom) > min(stated_angstrom) * (1 + EQUAL_WITHIN):
        if may_differ:
            return stated_angstrom
        raise _unknown(
            f"the file's voxel size {_listed(stated_angstrom)} Å (zyx) is not the same along the "
            f"three axes within {EQUAL_WITHIN}"
        )
    size = float(f"{sum(stated_angstrom) / 3:.7g}")
    if size == 1.0:
        raise _unknown(
            "the file's voxel size is exactly 1 Å, which programs write when they do not know it"
        )
    return (size,) * 3


def _note_difference(stated: Triple | None, override: float, notes: list[str]) -> None:
    if stated is None:
        notes.append(f"voxel size {override:g} Å was given; the file states none")
    elif not all(abs(size - override) <= EQUAL_WITHIN * override for size in stated):
        notes.append(f"voxel size {override:g} Å was given; the file states {_listed(stated)} Å")


def _refuse_absurd(sizes: Triple, subject: str) -> None:
    if not all(math.isfinite(s) and SMALLEST_ANGSTROM <= s <= LARGEST_ANGSTROM for s in sizes):
        raise _unknown(
            f"{subject} {_listed(sizes)} Å (zyx), outside "
            f"{SMALLEST_ANGSTROM:g}..{LARGEST_ANGSTROM:g} Å"
        )


def _listed(sizes: Triple) -> str:
    return " × ".join(f"{size:.6g}" for size in sizes)


def _unknown(fact: str) -> VoxelSizeError:
    return VoxelSizeError(fact, remedy=f"Set {OVERRIDE} to the true voxel size")
