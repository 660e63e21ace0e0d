"""The folder of what came from other programs, laid out as the truth of simulations is.

    imported/<tomogram>__filaments.csv    lines of any classes
    imported/<tomogram>__particles.csv    particles of any classes
    imported/<tomogram>__labels.mrc       masks: a label a class, on the tomogram's grid
    imported/<tomogram>.json              the labels' classes, and where each class came from

It stands in a session's output or in the folder of the tomograms. ``tomoseg evaluate OUTPUT
OUTPUT/imported`` scores a session against it, annotations of a training name its files by
``{name}``, and ``tomoseg export --imported`` converts it. A class that is imported again takes its
own place.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.layout import IMPORTED
from tomoseg.exchange.tomograms import Tomogram
from tomoseg.io.points import tables
from tomoseg.io.points.dialects import TomogramPoints
from tomoseg.io.stores import Folder
from tomoseg.io.volumes.mrc import MrcWriter
from tomoseg.io.volumes.sources import open_source
from tomoseg.nets.card import ClassName
from tomoseg.pipeline.stages.points import FoundPoints
from tomoseg.training.annotations.voxels import strips

# Of int8, which every program reads.
LARGEST_LABEL = 127

_CLASS_NAME: TypeAdapter[str] = TypeAdapter(ClassName)


def checked_class(name: str) -> str:
    """Return a name that a class can have, and a file of it.

    Raises
    ------
    RequestError
        If it is none.
    """
    try:
        return _CLASS_NAME.validate_python(name)
    except ValidationError as error:
        raise RequestError(
            f"{name!r} cannot be the name of a class",
            remedy="Use letters, digits, - and _, a letter first.",
        ) from error


def read_imported(home: Folder, tomogram: Tomogram) -> FoundPoints:
    """Return the points that were imported into a tomogram; none where nothing was.

    Raises
    ------
    FormatError
        If a table was damaged since.
    RequestError
        If a class in it has a name that none can have.
    """
    filaments, particles = _filaments(home, tomogram), _particles(home, tomogram)
    traced = tuple(dict.fromkeys(checked_class(line.name) for line in filaments))
    picked = tuple(checked_class(table.name) for table in particles)
    return FoundPoints(TomogramPoints(tomogram.context, filaments, particles), traced, picked)


def write_points(home: Folder, tomogram: Tomogram, points: TomogramPoints) -> list[str]:
    """Put the points of a class into a tomogram's tables; return the paths of these."""
    written: dict[str, str] = {}
    sampling = tomogram.header.sampling
    if points.filaments:
        name = points.filaments[0].name
        kept = [line for line in _filaments(home, tomogram) if line.name != name]
        text = tables.filaments_csv([*kept, *points.filaments], sampling)
        written[_path(tomogram, "filaments.csv")] = text
    if any(len(table) for table in points.particles):
        names = {table.name for table in points.particles}
        others = [table for table in _particles(home, tomogram) if table.name not in names]
        text = tables.particles_csv([*others, *points.particles], sampling)
        written[_path(tomogram, "particles.csv")] = text
    for path, text in written.items():
        home.write(path, text.encode())
    return list(written)


def write_mask(
    home: Folder, tomogram: Tomogram, name: str, read: Callable[[Box], NDArray[np.bool_]]
) -> tuple[str, int]:
    """Put a class into a tomogram's label volume, where it wins over other classes.

    Parameters
    ----------
    read
        Gives, for a box of the tomogram's grid, where the class is.

    Returns
    -------
    The volume's path, and the label of the class.

    Raises
    ------
    RequestError
        If there are too many classes.
    FormatError
        If a volume that stands there is of another grid.
    """
    label, path = _label(home, tomogram, name), _path(tomogram, "labels.mrc")
    there = _labels_there(home, tomogram, path)

    def labels(box: Box) -> NDArray[np.int8]:
        old = there(box)
        others = np.where(old == label, 0, old)
        return np.where(read(box), label, others).astype(np.int8)

    shape = tomogram.header.sampling.shape
    with (
        home.publishing(path) as file,
        MrcWriter(file, tomogram.header, np.int8, label="imported labels") as writer,
    ):
        for block in strips(shape):
            writer.write(block.write, labels(block.write))
    return path, label


def note_import(home: Folder, tomogram: Tomogram, name: str, facts: dict[str, Any]) -> None:
    """Write down where the points or the mask of a class came from."""
    known = _known(home, tomogram)
    known["imports"][f"{name} {facts['kind']}"] = facts
    home.write_json(_about(tomogram), known)


def _label(home: Folder, tomogram: Tomogram, name: str) -> int:
    """Return the label of a class, which is written down before a voxel has it."""
    known = _known(home, tomogram)
    classes: dict[str, str] = known["classes"]
    for number, one in classes.items():
        if one == name:
            return int(number)
    label = len(classes) + 1
    if label > LARGEST_LABEL:
        raise RequestError(f"{tomogram.name} has {LARGEST_LABEL} imported masks; no more fit")
    classes[str(label)] = name
    home.write_json(_about(tomogram), known)
    return label


def _labels_there(home: Folder, tomogram: Tomogram, path: str) -> Callable[[Box], NDArray[Any]]:
    """Return what reads the labels that stand there, 0 where there are none yet."""
    if not home.exists(path):
        return lambda box: np.zeros(box.shape, np.int8)
    url, sampling = f"{home.url}/{path}", tomogram.header.sampling

    def read(box: Box) -> NDArray[Any]:
        with open_source(url, voxel_size_angstrom=sampling.voxel_angstrom) as source:
            return source.read(box)

    with open_source(url, voxel_size_angstrom=sampling.voxel_angstrom) as source:
        if source.header.sampling.shape != sampling.shape:
            raise FormatError(
                f"{url} has shape {source.header.sampling.shape}, the tomogram {sampling.shape}",
                remedy="Remove it: it was made for another tomogram.",
            )
    return read


def _known(home: Folder, tomogram: Tomogram) -> dict[str, Any]:
    if not home.exists(_about(tomogram)):
        return {"classes": {}, "imports": {}}
    return dict(home.read_json(_about(tomogram)))


def _about(tomogram: Tomogram) -> str:
    return f"{IMPORTED}/{tomogram.name}.json"


def _path(tomogram: Tomogram, ending: str) -> str:
    return f"{IMPORTED}/{tomogram.name}__{ending}"


def _filaments(home: Folder, tomogram: Tomogram) -> Sequence[Filament]:
    path = _path(tomogram, "filaments.csv")
    return tables.read_filaments_csv(home.read(path).decode()) if home.exists(path) else []


def _particles(home: Folder, tomogram: Tomogram) -> Sequence[Particles]:
    path = _path(tomogram, "particles.csv")
    return tables.read_particles_csv(home.read(path).decode()) if home.exists(path) else []
