"""Scores of filaments and particles, from tables that other programs may have written."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import PurePosixPath
from typing import Any, TypeVar

import numpy as np

from tomoseg.analysis.metrics import (
    PickCounts,
    czii_counts,
    czii_score,
    generous_counts,
    score_filaments,
    score_particles,
)
from tomoseg.analysis.metrics.picks import CZII_RADIUS_SHARE
from tomoseg.core.coordinates import Filament, Particles, Points
from tomoseg.core.errors import FormatError, RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.evaluation.options import USUAL, Options, Scores, plain
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.picks import UNNAMED, read_points
from tomoseg.io.points.star import decoded, read_star
from tomoseg.io.points.tables import holds_filaments, read_filaments_csv, read_particles_csv
from tomoseg.io.stores import Folder, checked_url, read_file
from tomoseg.io.volumes.sources import open_source, tomogram_name

FILAMENT_TOLERANCE = 100.0
PARTICLE_TOLERANCE = 70.0
TOMOGRAMS = "tomograms.star"
Item = TypeVar("Item", Filament, Particles)
WEIGHTED_MEAN = "weighted_mean"
# Tomograms that are scored together are laid out this far apart: nothing matches across.
APART_ANGSTROM = 1e5


@dataclass(frozen=True, eq=False)
class Table:
    """Filaments or particles by the name of their tomogram, which is empty where nobody says it.

    Parameters
    ----------
    place
        Where it was read.
    filaments, particles
        One of the two; the other is None.
    classes
        Classes that were looked for; empty is those that were found.
    says
        How a table of another program was read, a line a tomogram.
    """

    place: str
    filaments: Mapping[str, Sequence[Filament]] | None = None
    particles: Mapping[str, Sequence[Particles]] | None = None
    classes: tuple[str, ...] = ()
    says: tuple[str, ...] = ()


def read_table(place: str, options: Options = USUAL) -> Table:
    """Read filaments or particles from CSV or STAR, particles of a tomogram from any table.

    Raises
    ------
    RequestError
        If positions are relative to a tomogram that is not known, or the class is not.
    FormatError
        If the table is not of a known kind.
    """
    content = _content(place)
    text = content.decode(errors="replace")
    if holds_filaments(text):
        return Table(place, filaments={"": read_filaments_csv(text)})
    if options.tomogram is not None:
        name = tomogram_name(checked_url(options.tomogram))
        return _read(place, content, [TomoContext(name, _sampling(options))], options)
    if place.lower().endswith(".star"):
        return _read(place, content, _contexts_beside(place), options)
    return Table(place, particles={"": _own_particles(place, text)})


def _read(place: str, content: bytes, contexts: Sequence[TomoContext], options: Options) -> Table:
    """Read a table of any program."""
    found = read_points(content, place, contexts)
    classes = {line.name for one in found for line in one.filaments}
    classes |= {table.name for one in found for table in one.particles}
    name = _class_of(place, options) if UNNAMED in classes else UNNAMED
    says = tuple(one.told() for one in found if one.says or one.doubts)
    if any(one.filaments for one in found):
        lines = {one.context.tomo_name: _named(one.filaments, name) for one in found}
        return Table(place, filaments=lines, says=says)
    picks = {one.context.tomo_name: _named(one.particles, name) for one in found}
    return Table(place, particles=picks, says=says)


def _named(items: Sequence[Item], name: str) -> list[Item]:
    """Return filaments or particles, of this class where their table names none."""
    return [replace(item, name=name) if item.name == UNNAMED else item for item in items]


def _own_particles(place: str, text: str) -> list[Particles]:
    try:
        return read_particles_csv(text)
    except FormatError as error:
        raise FormatError(
            f"{place}: {error.message}",
            remedy="Give --tomogram for a table of another program.",
        ) from error


def read_exported(place: str, kind: str, files: Mapping[str, Sequence[str]]) -> Table:
    """Read the CSV files of one kind, ``<tomogram>__<class>.csv``, of several tomograms.

    Parameters
    ----------
    place
        The folder they are from, for messages.
    kind
        ``"filaments"`` or ``"particles"``.
    files
        Tomogram → files.
    """
    classes = {_stem_end(file) for places in files.values() for file in places}
    texts = {name: [_text(file) for file in places] for name, places in files.items()}
    if kind == "filaments":
        lines = {
            name: [line for text in each for line in read_filaments_csv(text)]
            for name, each in texts.items()
        }
        return Table(place, filaments=lines, classes=tuple(sorted(classes)))
    picks = {
        name: [table for text in each for table in read_particles_csv(text)]
        for name, each in texts.items()
    }
    return Table(place, particles=picks, classes=tuple(sorted(classes)))


def evaluate_tables(found: Table, truth: Table, options: Options = USUAL) -> Scores:
    """Score a table against another, over the tomograms of the truth.

    Raises
    ------
    RequestError
        If one holds filaments and the other particles, or they have no tomogram in common.
    """
    places = found.place, truth.place
    if found.filaments is not None and truth.filaments is not None:
        lines = _paired(found.filaments, truth.filaments, places)
        step = _step(*lines)
        seen_lines, true_lines = (_lines(side, step) for side in lines)
        tolerance = options.tolerance(FILAMENT_TOLERANCE)
        return evaluate_filaments(seen_lines, true_lines, tolerance, classes=found.classes)
    if found.particles is None or truth.particles is None:
        raise RequestError(
            f"of {places[0]} and {places[1]} one holds filaments, the other does not"
        )
    picks = _paired(found.particles, truth.particles, places)
    step = _step(*picks)
    seen, true = (_picks(side, step) for side in picks)
    if options.czii is not None:
        return evaluate_czii(seen, true, options.czii)
    tolerance = options.tolerance(PARTICLE_TOLERANCE)
    return evaluate_particles(seen, true, tolerance, classes=found.classes)


def evaluate_filaments(
    found: Sequence[Filament],
    truth: Sequence[Filament],
    tolerance_angstrom: float,
    *,
    classes: Sequence[str] = (),
) -> Scores:
    """Score centre lines class by class, over the classes that were looked for or found."""
    names = classes or sorted({line.name for line in found} or {line.name for line in truth})
    return {
        name: plain(
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
    found: Sequence[Particles],
    truth: Sequence[Particles],
    tolerance_angstrom: float,
    *,
    classes: Sequence[str] = (),
) -> Scores:
    """Score particles one to one, class by class, over the classes looked for or found."""
    tables, true_tables = ({table.name: table for table in side} for side in (found, truth))
    return {
        name: plain(
            asdict(
                score_particles(
                    _of_class(tables, name),
                    _of_class(true_tables, name),
                    tolerance_angstrom=tolerance_angstrom,
                )
            )
        )
        for name in classes or sorted(tables or true_tables)
    }


def evaluate_czii(
    found: Sequence[Particles],
    truth: Sequence[Particles],
    particles: Mapping[str, tuple[float, float]],
) -> Scores:
    """Score particles as in the CZII challenge, by the rule that passes for it, and one to one.

    Parameters
    ----------
    particles
        Class → (radius in Å, weight). Underscores and hyphens in names are the same.

    Returns
    -------
    A row a class of the truth or of the result, and the weighted mean of the two F4: ``czii_f4``
    is the challenge's score (:func:`tomoseg.analysis.metrics.czii_counts`), ``generous_f4`` the
    other (:func:`tomoseg.analysis.metrics.generous_counts`); ``f1`` is of one-to-one matches within
    half a radius.

    Raises
    ------
    RequestError
        If the radius of a class is not given, or no class has a weight.
    """
    tables, true_tables = (
        {_hyphened(table.name): table for table in side} for side in (found, truth)
    )
    known = {_hyphened(name): row for name, row in particles.items()}
    names = sorted({*tables, *true_tables})
    unknown = [name for name in names if name not in known]
    if unknown:
        raise RequestError(
            f"of {', '.join(unknown)} no radius is known",
            remedy="Give --particle NAME=RADIUS,WEIGHT.",
        )
    rules: dict[str, dict[str, PickCounts]] = {"czii": {}, "generous": {}}
    scores: Scores = {}
    for name in names:
        sides = _of_class(tables, name), _of_class(true_tables, name)
        radius, weight = known[name]
        strict = score_particles(*sides, tolerance_angstrom=CZII_RADIUS_SHARE * radius)
        counts = czii_counts(*sides, radius_angstrom=radius)
        generous = generous_counts(*sides, radius_angstrom=radius)
        rules["czii"][name], rules["generous"][name] = counts, generous
        scores[name] = plain(
            {
                "czii_f4": counts.f4,
                "czii_precision": counts.precision,
                "czii_recall": counts.recall,
                "generous_f4": generous.f4,
                "f1": strict.f1,
                **asdict(counts),
                "weight": weight,
            }
        )
    weights = {name: known[name][1] for name in names}
    scores[WEIGHTED_MEAN] = {
        f"{rule}_f4": czii_score(counts, weights=weights) for rule, counts in rules.items()
    }
    return scores


def _hyphened(name: str) -> str:
    return name.replace("_", "-")


def _of_class(tables: Mapping[str, Particles], name: str) -> Particles:
    return tables.get(name) or Particles.at(name, np.zeros((0, 3)))


def _paired(
    found: Mapping[str, Sequence[Item]],
    truth: Mapping[str, Sequence[Item]],
    places: tuple[str, str],
) -> tuple[list[Sequence[Item]], list[Sequence[Item]]]:
    """Return what two tables hold of each tomogram of the truth, in the same order."""
    if len(found) == len(truth) == 1:
        return list(found.values()), list(truth.values())
    if truth and not set(found) & set(truth):
        raise RequestError(
            f"{places[0]} and {places[1]} have no tomogram in common: "
            f"{', '.join(found) or 'none'} and {', '.join(truth)}"
        )
    return [found.get(name, []) for name in truth], list(truth.values())


def _step(*sides: Sequence[Sequence[Filament | Particles]]) -> float:
    """Return how far apart tomograms must be laid for nothing to match across, Å."""
    points = [item.points_angstrom for side in sides for items in side for item in items]
    return 2 * max((float(np.abs(p).max(initial=0)) for p in points), default=0) + APART_ANGSTROM


def _lines(tomograms: Sequence[Sequence[Filament]], step: float) -> list[Filament]:
    """Lay the lines of all tomograms out in one space."""
    return [
        Filament(line.name, line.number, line.points_angstrom + number * step, line.score)
        for number, lines in enumerate(tomograms)
        for line in lines
    ]


def _picks(tomograms: Sequence[Sequence[Particles]], step: float) -> list[Particles]:
    """Lay the particles of all tomograms out in one space, one table a class."""
    points: dict[str, list[Points]] = {}
    for number, tables in enumerate(tomograms):
        for table in tables:
            points.setdefault(table.name, []).append(table.points_angstrom + number * step)
    return [Particles.at(name, np.concatenate(parts)) for name, parts in points.items()]


def _class_of(place: str, options: Options) -> str:
    """Return the class of a STAR file, which does not name it: ``<tomogram>__<class>.star``."""
    if len(options.classes) == 1:
        return options.classes[0]
    if "__" not in PurePosixPath(place).stem:
        raise RequestError(f"{place} does not say its class", remedy="Give --classes NAME.")
    return _stem_end(place)


def _stem_end(place: str) -> str:
    return PurePosixPath(place).stem.rpartition("__")[2]


def _contexts_beside(place: str) -> list[TomoContext]:
    """Return the tomograms in the table beside a STAR file."""
    folder, _, _ = checked_url(place).rpartition("/")
    for url in (folder, folder.rpartition("/")[0]):
        if Folder(url).exists(TOMOGRAMS):
            rows = read_star(_text(f"{url}/{TOMOGRAMS}"))
            return [_context(row) for row in rows["global"].to_dict("records")]
    raise RequestError(
        f"{place} has positions relative to the centre of a tomogram that is not known",
        remedy=f"Give --tomogram, or put {TOMOGRAMS} beside it.",
    )


def _context(row: Mapping[Any, Any]) -> TomoContext:
    """Return the unbinned tomogram of a row of RELION's table: its size fixes the centre."""
    x, y, z = (int(row[f"rlnTomoSize{axis}"]) for axis in "XYZ")
    pixel = float(row["rlnTomoTiltSeriesPixelSize"])
    return TomoContext(str(row["rlnTomoName"]), Sampling((z, y, x), (pixel, pixel, pixel)))


def _sampling(options: Options) -> Sampling:
    assert options.tomogram is not None
    with open_source(options.tomogram, voxel_size_angstrom=options.voxel_size_angstrom) as tomogram:
        return tomogram.header.sampling


def _text(place: str) -> str:
    return decoded(_content(place))


def _content(place: str) -> bytes:
    return read_file(place)
