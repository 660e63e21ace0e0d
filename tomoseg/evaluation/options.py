"""What a person may say of a comparison, and the form of its result."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Scores = dict[str, dict[str, float | int | None]]
"""Class → name of the score → value; None where it is not defined."""


@dataclass(frozen=True)
class Options:
    """How a result is compared with the truth.

    Parameters
    ----------
    tolerance_angstrom
        How far off still counts as found; None is 100 Å for filaments, 70 Å (half a ribosome's
        radius) for particles and two voxels for the surfaces of labels.
    voxel_size_angstrom
        Of both volumes, instead of what their headers say.
    classes
        Names of labels 1, 2, … of the truth, and of a result that has no names of its own; or the
        one class of a table that names none. Empty takes what the files say.
    values
        Value → class, ``background`` or ``not_annotated``, in volumes that do not say their classes
        themselves, instead of labels 1, 2, ….
    threshold
        In such volumes the one class is above it, the rest is background.
    instances
        Whether the volumes hold objects, each with a number of its own, not classes.
    czii
        Class → (radius in Å, weight), for scores as in the CZII challenge; None for one-to-one
        matches within the tolerance.
    tomogram
        The tomogram of tables whose positions are relative to its centre or in its voxels; None
        takes the table of tomograms beside them.
    """

    tolerance_angstrom: float | None = None
    voxel_size_angstrom: float | None = None
    classes: tuple[str, ...] = ()
    values: Mapping[int, str] | None = None
    threshold: float | None = None
    instances: bool = False
    czii: Mapping[str, tuple[float, float]] | None = None
    tomogram: str | None = None

    def tolerance(self, usual_angstrom: float) -> float:
        """Return the tolerance that was given, or the usual one, Å."""
        given = self.tolerance_angstrom
        return usual_angstrom if given is None else given


USUAL = Options()


def plain(row: Mapping[str, Any]) -> dict[str, float | int | None]:
    """Return the numbers of a row, None where they are not defined."""
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
        if isinstance(value, int | float)
    }
