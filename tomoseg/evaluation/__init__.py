"""Scores of results against truth, from files: volumes, tables, or whole folders of both."""

from __future__ import annotations

import logging
from collections.abc import Callable

from tomoseg.core.errors import RequestError
from tomoseg.core.layout import IMAGE, MANIFEST
from tomoseg.evaluation.clicks import read_pair
from tomoseg.evaluation.options import USUAL, Options, Scores
from tomoseg.evaluation.tables import (
    evaluate_czii,
    evaluate_filaments,
    evaluate_particles,
    evaluate_tables,
    read_exported,
)
from tomoseg.evaluation.volumes import evaluate_instances, evaluate_label_pairs, evaluate_labels
from tomoseg.io.stores import Folder
from tomoseg.io.volumes.sources import EM_SUFFIXES, MRC_SUFFIXES, TIFF_SUFFIXES, ZARR_SUFFIXES

log = logging.getLogger(__name__)

__all__ = [
    "Options",
    "Scores",
    "evaluate_czii",
    "evaluate_filaments",
    "evaluate_files",
    "evaluate_folders",
    "evaluate_instances",
    "evaluate_label_pairs",
    "evaluate_labels",
    "evaluate_particles",
    "evaluate_tables",
    "is_folder",
]

OTHER_TABLES = ("__measures.csv", "__surroundings.csv", "__contacts.csv")
TABLE_SUFFIXES = (".csv", ".tsv", ".txt", ".coords", ".star", ".box", ".cbox")


def is_folder(place: str) -> bool:
    """Tell whether a place is a folder of results or truth, not a volume or a table."""
    known = TABLE_SUFFIXES + MRC_SUFFIXES + TIFF_SUFFIXES + ZARR_SUFFIXES + EM_SUFFIXES
    return not place.lower().rstrip("/").endswith(known) and ".zarr/" not in place


def evaluate_files(
    found: str,
    truth: str,
    options: Options = USUAL,
    *,
    say: Callable[[str], object] = log.info,
) -> Scores:
    """Score two label volumes, two volumes of objects, or two tables of filaments or particles.

    Parameters
    ----------
    found, truth
        Both volumes (MRC, TIFF, OME-Zarr) or both tables of one kind: CSV or STAR, and with
        ``options.tomogram`` particles of any program that is read.
    options
        How they are compared.
    say
        Is told how tables of other programs were read.

    Raises
    ------
    RequestError
        If the two do not fit each other, or have nothing in common.
    """
    are_tables = [place.lower().endswith(TABLE_SUFFIXES) for place in (found, truth)]
    if are_tables[0] != are_tables[1]:
        raise RequestError(f"{found} and {truth} are not of one kind: two volumes, or two tables")
    if all(are_tables):
        tables = read_pair(found, truth, options)
        for table in tables:
            for line in table.says:
                say(f"{table.place}: {line}")
        scores = evaluate_tables(*tables, options)
    else:
        evaluate = evaluate_instances if options.instances else evaluate_labels
        scores = evaluate(found, truth, options)
    if not scores:
        raise RequestError(
            f"nothing is compared: {found} and {truth} have no class in common",
            remedy="Check that these are the files; name their class with --classes.",
        )
    return scores


def evaluate_folders(found: str, truth: str, options: Options = USUAL) -> dict[str, Scores]:
    """Score the tomograms of a session together: what is counted is pooled over them.

    Parameters
    ----------
    found
        Output of a session: ``<name>/tomogram.zarr``, ``<name>/filaments``, ``<name>/particles``.
    truth
        A folder with ``<name>__labels.*``, ``<name>__filaments.csv`` or ``<name>__particles.csv``,
        as simulations have it.

    Returns
    -------
    ``"labels"``, ``"filaments"`` and ``"particles"``, as far as there is truth, with the scores of
    each: of the tomograms that have results and truth.

    Raises
    ------
    RequestError
        If no tomogram has both.
    """
    done, truths = Folder(found), Folder(truth)
    scores: dict[str, Scores] = {}
    if labels := _true_places(done, truths, "labels"):
        pairs = [(f"{done.url}/{name}/{IMAGE}", place) for name, place in labels.items()]
        scores["labels"] = evaluate_label_pairs(pairs, options)
    for kind in ("filaments", "particles"):
        if places := _true_places(done, truths, kind):
            exported = {name: _csv_files(done / name / kind) for name in places}
            seen = read_exported(str(done), kind, exported)
            true = read_exported(str(truths), kind, {n: [place] for n, place in places.items()})
            scores[kind] = evaluate_tables(seen, true, options)
    if not scores:
        raise RequestError(
            f"no tomogram of {done} has its truth in {truths}",
            remedy="Truth is called <name>__labels.mrc, <name>__filaments.csv or "
            "<name>__particles.csv.",
        )
    return scores


def _true_places(done: Folder, truths: Folder, kind: str) -> dict[str, str]:
    """Return where the truth of one kind is, by tomogram, of those that have results."""
    parts = [(file, *file.rpartition("__")) for file in truths.names()]
    return {
        name: f"{truths.url}/{file}"
        for file, name, _, rest in parts
        if rest.partition(".")[0] == kind and done.exists(f"{name}/{MANIFEST}")
    }


def _csv_files(folder: Folder) -> list[str]:
    """Return the tables of points; beside them stand others, of what these measure."""
    tables = [name for name in folder.names() if name.endswith(".csv")]
    return [f"{folder.url}/{name}" for name in tables if not name.endswith(OTHER_TABLES)]
