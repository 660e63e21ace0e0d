"""The six features that tomoseg's networks tell apart, and what is usual for each: here alone."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Kind = Literal["filament", "particle", "membrane", "film"]

NOT_ANNOTATED = 255
"""A label of annotations: nobody looked."""


@dataclass(frozen=True)
class Feature:
    """A class of voxels, as cells have it.

    Parameters
    ----------
    name
        Of the class.
    kind
        Filaments are traced, particles picked, unless a recipe says otherwise.
    colour
        ``"#rrggbb"``.
    minimum_volume_nm3
        What is smaller is no object of the class.
    spacing_angstrom
        Of segments along a filament.
    """

    name: str
    kind: Kind
    colour: str
    minimum_volume_nm3: float
    spacing_angstrom: float | None = None


# Okabe and Ito's palette, which survives the common kinds of colour blindness; the ribosome
# keeps the colour that the CZII challenge gave it. The spacings are the length of a tubulin dimer
# and the rise of one actin subunit.
FEATURES = {
    one.name: one
    for one in (
        Feature("microtubule", "filament", "#56b4e9", 10_000.0, 82.0),
        Feature("actin", "filament", "#e69f00", 500.0, 27.5),
        Feature("single_membrane", "membrane", "#f0e442", 3_000.0),
        Feature("double_membrane", "membrane", "#d55e00", 10_000.0),
        Feature("ribosome", "particle", "#005c31", 1_500.0),
        Feature("carbon_edge", "film", "#cc79a7", 100_000.0),
    )
}
"""By name, in the order of their labels."""

COLOURS = {name: one.colour for name, one in FEATURES.items()}

FILAMENTS, PARTICLES = (
    tuple(name for name, one in FEATURES.items() if one.kind == kind)
    for kind in ("filament", "particle")
)


def is_actin(name: str) -> bool:
    """Tell whether a class, of whoever's network, is actin by its name.

    >>> is_actin("F-actin")
    True
    """
    return "actin" in name.lower()


def is_membrane(name: str) -> bool:
    """Tell whether a class, of whoever's network, is a membrane by its name.

    >>> is_membrane("inner_membrane")
    True
    """
    return name.endswith("membrane")
