"""Scores of results against truth, from files."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict
from typing import Any

import numpy as np

from tomoseg.blocks import BlockGrid
from tomoseg.coordinates import Filament, Particles
from tomoseg.errors import RequestError
from tomoseg.formats.tables import read_filaments_csv, read_particles_csv
from tomoseg.metrics import class_scores, confusion, score_filaments, score_particles
from tomoseg.phantom import CLASSES
from tomoseg.sources import as_labels, open_source
from tomoseg.stores import Folder, checked_url

FILAMENT_TOLERANCE = 100.0
PARTICLE_TOLERANCE = 70.0
ANY_VOXEL = 10.0

Scores = dict[str, dict[str, float | int | None]]


def evaluate_files(found: str, truth: str, *, tolerance_angstrom: float | None = None) -> Scores:
    """Score two label volumes, two filament tables or two particle tables.

    Parameters
    ----------
    found, truth
        Both volumes (MRC, TIFF, OME-Zarr) or both CSV tables of one kind.
    tolerance_angstrom
        Matches are at most this far apart; None is 100 Å for filaments and 70 Å, half a ribosome's
        radius, for particles.

    Returns
    -------
    Class → name of the score → value; None where it is not defined.

    Raises
    ------
    RequestError
        If the two do not fit each other.
    """
    if found.endswith(".csv") != truth.endswith(".csv"):
        raise RequestError(f"{found} and {truth} are not of one kind: two volumes or two CSV files")
    if not found.endswith(".csv"):
        return evaluate_labels(found, truth)
    a, b = _text(found), _text(truth)
    if _holds_filaments(a) != _holds_filaments(b):
        raise RequestError(f"of {found} and {truth} one holds filaments, the other does not")
    if _holds_filaments(a):
        tolerance = FILAMENT_TOLERANCE if tolerance_angstrom is None else tolerance_angstrom
        return evaluate_filaments(read_filaments_csv(a), read_filaments_csv(b), tolerance)
    tolerance = PARTICLE_TOLERANCE if tolerance_angstrom is None else tolerance_angstrom
    return evaluate_particles(read_particles_csv(a), read_particles_csv(b), tolerance)


def evaluate_labels(found: str, truth: str) -> Scores:
    """Score label volumes a few slices at a time; 255 in the truth is left out.

    The labels of a segmented tomogram are found in its ``tomogram.zarr`` by themselves.
    """
    with (
        open_source(_labels_in(found), voxel_size_angstrom=ANY_VOXEL) as a,
        open_source(_labels_in(truth), voxel_size_angstrom=ANY_VOXEL) as b,
    ):
        shape = b.header.sampling.shape
        if a.header.sampling.shape != shape:
            raise RequestError(f"{found} has shape {a.header.sampling.shape}, {truth} has {shape}")
        counts = np.zeros((1, 1), np.int64)
        for block in BlockGrid(shape, (16, shape[1], shape[2])):
            part = _confusion(a.read(block.write), b.read(block.write))
            size = max(len(counts), len(part))
            counts = _padded(counts, size) + _padded(part, size)
    names = [*CLASSES, *(f"class_{i}" for i in range(len(CLASSES) + 1, 256))]
    return {row.name: _plain(asdict(row)) for row in class_scores(counts, names[: len(counts) - 1])}


def evaluate_filaments(
    found: list[Filament], truth: list[Filament], tolerance_angstrom: float
) -> Scores:
    """Score centre lines class by class, over the classes of the result."""
    names = sorted({line.name for line in found} or {line.name for line in truth})
    return {
        name: _plain(
            asdict(
                score_filaments(
                    [line for line in found if line.name == name],
                    [line for line in truth if line.name == name],
                    tolerance_angstrom=tolerance_angstrom,
                )
            )
        )
        for name in names
    }


def evaluate_particles(
    found: list[Particles], truth: list[Particles], tolerance_angstrom: float
) -> Scores:
    """Score particles one to one, class by class, over the classes of the result."""
    none = np.zeros((0, 3))
    by_name = {table.name: table for table in truth}
    tables = {table.name: table for table in found} or {
        name: Particles.at(name, none) for name in by_name
    }
    return {
        name: _plain(
            asdict(
                score_particles(
                    table,
                    by_name.get(name, Particles.at(name, none)),
                    tolerance_angstrom=tolerance_angstrom,
                )
            )
        )
        for name, table in sorted(tables.items())
    }


def _confusion(found: np.ndarray[Any, Any], truth: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    a, b = as_labels(found), as_labels(truth)
    classes = max(int(a.max(initial=0)), int(b[b != 255].max(initial=0)))
    return confusion(a, b, classes)


def _padded(counts: np.ndarray[Any, Any], size: int) -> np.ndarray[Any, Any]:
    return np.pad(counts, (0, size - len(counts)))


def _labels_in(place: str) -> str:
    """Return the label image of a segmented tomogram, or the place itself."""
    if not Folder(place).exists("labels/semantic/zarr.json"):
        return place
    return f"{checked_url(place)}/labels/semantic"


def _text(place: str) -> str:
    folder, _, name = checked_url(place).rpartition("/")
    return Folder(folder).read(name).decode()


def _holds_filaments(table: str) -> bool:
    return "filament" in table.partition("\n")[0].strip().split(",")


def _plain(row: Mapping[str, Any]) -> dict[str, float | int | None]:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in row.items()
        if isinstance(value, int | float)
    }
