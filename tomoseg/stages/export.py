"""Export: masks, surfaces, filaments and particles as files that other programs read.

    filaments/, particles/, surfaces/    a class a file: RELION 5 and CSV, what it measures
    <dialect>/                           points for the other programs of ``export.dialects``

CSV stays as the tomogram is where ``export.flip_z`` mirrors what other programs get.
"""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from tomoseg.coordinates import Particles
from tomoseg.formats import relion, tables
from tomoseg.formats.dialects import TomoContext
from tomoseg.formats.measures import measures_csv
from tomoseg.formats.registry import DIALECTS
from tomoseg.formats.star import write_star
from tomoseg.stages.context import Context, Stage
from tomoseg.stages.mask_files import write_masks, write_meshes
from tomoseg.stages.pick import read_particles, read_surroundings
from tomoseg.stages.points import (
    FoundPoints,
    found_points,
    tomo_context,
    tomogram_files,
    write_options,
)
from tomoseg.stages.sample import read_contacts, read_samples
from tomoseg.stages.trace import measured, read_filaments
from tomoseg.stores import Ledger

TOMOGRAMS = "tomograms.star"
# Dialects whose files stand by what they hold, not in a folder of their own.
AT_HOME = (RELION, CSV) = ("relion5", "csv")


def _settings(context: Context) -> Any:
    return {
        "export": context.recipe.export.model_dump(mode="json"),
        "bin": context.recipe.ingest.bin,
    }


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    found = found_points(context)
    files = [*write_masks(context), *write_meshes(context)]
    for name in context.recipe.trace or {}:
        files += _write_filaments(context, name)
    for name in context.recipe.pick or {}:
        files += _write_particles(context, name)
    for name in context.recipe.sample or {}:
        files += _write_surfaces(context, name)
    files += _write_dialects(context, found.flip_z() if context.recipe.export.flip_z else found)
    notes = [*found.points.context.notes, *_notes(context, found)]
    # Each class names the table of tomograms, and masks of copick its configuration.
    return {"files": list(dict.fromkeys(files)), "notes": notes}


def _notes(context: Context, found: FoundPoints) -> list[str]:
    """Say which particles a dialect has no place for."""
    return [
        f"{name} has no place for particles: {', '.join(found.picked)} left out"
        for name in context.recipe.export.dialects
        if found.picked and not DIALECTS[name].has_particles
    ]


def _write_dialects(context: Context, seen: FoundPoints) -> list[str]:
    """Write the dialects that have a folder of their own."""
    options = write_options(context.recipe, context.colours)
    written: list[str] = []
    for name in context.recipe.export.dialects:
        if name in AT_HOME:
            continue
        files = tomogram_files(DIALECTS[name], seen, name, options)
        for path, content in files.items():
            context.folder.write(path, content)
        written += files
    return written


def _tomogram(context: Context) -> TomoContext:
    return tomo_context(context.name, context.header, context.recipe.export)


def _particles_table(context: Context, found: Particles) -> pd.DataFrame:
    sampling = context.header.sampling
    seen = found.flip_z(sampling) if context.recipe.export.flip_z else found
    return relion.particles_table(seen, context=_tomogram(context))


def _write_filaments(context: Context, name: str) -> list[str]:
    found, export = read_filaments(context, name), context.recipe.export
    sampling = context.header.sampling
    table = relion.filaments_table(
        [line.flip_z(sampling) for line in found] if export.flip_z else found,
        context=_tomogram(context),
        spacing_angstrom=export.spacing_angstrom.get(name),
    )
    text = tables.filaments_csv(found, sampling)
    stem = f"filaments/{context.name}__{name}"
    numbers = measures_csv(measured(context, name, found))
    context.folder.write(f"{stem}__measures.csv", numbers.encode())
    written = [*_write_relion(context, stem, table), *_write_csv(context, stem, text)]
    return [*written, f"{stem}__measures.csv"]


def _write_particles(context: Context, name: str) -> list[str]:
    found, sampling = read_particles(context, name), context.header.sampling
    stem = f"particles/{context.name}__{name}"
    files = _write_csv(context, stem, tables.particles_csv([found], sampling))
    files += _write_surroundings(context, name, stem)
    if not sampling.is_flat:
        return [*_write_relion(context, stem, _particles_table(context, found)), *files]
    if RELION not in context.recipe.export.dialects:
        return files
    micrograph = PurePosixPath(context.source_url).name
    picks = relion.micrograph_table(found, micrograph, sampling=sampling)
    # RELION expects the one table of such a file without a name.
    context.folder.write(f"{stem}.star", write_star({"": picks}).encode())
    return [f"{stem}.star", *files]


def _write_surroundings(context: Context, name: str, stem: str) -> list[str]:
    columns = read_surroundings(context, name)
    if columns is None:
        return []
    path = f"{stem}__surroundings.csv"
    context.folder.write(path, tables.surroundings_csv(name, columns).encode())
    return [path]


def _write_surfaces(context: Context, name: str) -> list[str]:
    found = read_samples(context, name)
    columns = {key: value for key, value in vars(found).items() if key != "particles"}
    text = tables.particles_csv([found.particles], context.header.sampling, columns)
    table = _particles_table(context, found.particles)
    stem = f"surfaces/{context.name}__{name}"
    files = [*_write_relion(context, stem, table), *_write_csv(context, stem, text)]
    near = read_contacts(context, name)
    if near is not None:
        numbers = tables.contacts_csv(name, near.as_dict())
        context.folder.write(f"{stem}__contacts.csv", numbers.encode())
        files.append(f"{stem}__contacts.csv")
    return files


def _write_relion(context: Context, stem: str, table: pd.DataFrame) -> list[str]:
    """Write a class's points for RELION, with the optimisation set that names them."""
    if RELION not in context.recipe.export.dialects:
        return []
    tomogram = _tomogram(context)
    written = {
        f"{stem}.star": {"optics": relion.optics_table(tomogram), "particles": table},
        f"{stem}__optimisation_set.star": {
            "optimisation_set": relion.optimisation_set_table(
                f"{context.name}/{stem}.star", f"{context.name}/{TOMOGRAMS}"
            )
        },
        TOMOGRAMS: {"global": relion.tomograms_table([tomogram])},
    }
    for path, blocks in written.items():
        context.folder.write(path, write_star(blocks).encode())
    return list(written)


def _write_csv(context: Context, stem: str, text: str) -> list[str]:
    if CSV not in context.recipe.export.dialects:
        return []
    context.folder.write(f"{stem}.csv", text.encode())
    return [f"{stem}.csv"]


EXPORT = Stage("export", ("clean", "trace", "pick", "sample"), _settings, _run)
