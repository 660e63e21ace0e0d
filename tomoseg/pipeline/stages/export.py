"""Export: masks, surfaces, filaments and particles as files that other programs read.

    filaments/, particles/, surfaces/    a class a file: RELION 5 and CSV, what it measures
    <dialect>/                           points for the other programs of ``export.dialects``

CSV stays as the tomogram is where ``export.flip_z`` mirrors what other programs get.
Each mask, mesh, class of points and dialect is made by itself, with a receipt.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from functools import partial
from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from tomoseg.core.coordinates import Particles
from tomoseg.io.points import relion, tables
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.measures import measures_csv
from tomoseg.io.points.registry import DIALECTS
from tomoseg.io.points.star import write_star
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.stages.class_files import mask_pieces, mesh_pieces
from tomoseg.pipeline.stages.context import Context, Piece, Stage
from tomoseg.pipeline.stages.files import make_files
from tomoseg.pipeline.stages.pick import read_particles, read_surroundings
from tomoseg.pipeline.stages.points import (
    FoundPoints,
    found_points,
    tomo_context,
    tomogram_files,
    write_options,
)
from tomoseg.pipeline.stages.sample import read_contacts, read_samples
from tomoseg.pipeline.stages.trace import measure_filaments, read_filaments

TOMOGRAMS = "tomograms.star"
# Dialects whose files stand by what they hold, not in a folder of their own.
AT_HOME = (RELION, CSV) = ("relion5", "csv")


def _settings(context: Context) -> Any:
    return {
        "export": context.recipe.export.model_dump(mode="json"),
        "bin": context.recipe.ingest.bin,
    }


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    files = make_files(context, ledger, list(_pieces(context)))
    found = found_points(context)
    return {"files": files, "notes": [*found.points.context.notes, *_notes(context, found)]}


def _pieces(context: Context) -> Iterator[Piece]:
    recipe, dialects = context.recipe, context.recipe.export.dialects
    yield from mask_pieces(context)
    yield from mesh_pieces(context)
    kinds = {
        "filaments": (recipe.trace, _write_filaments),
        "particles": (recipe.pick, _write_particles),
        "surfaces": (recipe.sample, _write_surfaces),
    }
    for folder, (classes, write) in kinds.items():
        for name in classes or {}:
            stem = f"{folder}/{context.name}__{name}"
            yield Piece(stem, partial(write, name=name, stem=stem))
    has_tables = recipe.trace or recipe.sample or (recipe.pick and not context.sampling().is_flat)
    if RELION in dialects and has_tables:
        yield Piece(TOMOGRAMS, _write_tomograms)
    for name in dialects:
        if name not in AT_HOME:
            yield Piece(name, partial(_write_dialect, name=name))


def _notes(context: Context, found: FoundPoints) -> list[str]:
    """Say which particles a dialect has no place for."""
    return [
        f"{name} has no place for particles: {', '.join(found.picked)} left out"
        for name in context.recipe.export.dialects
        if found.picked and not DIALECTS[name].has_particles
    ]


def _write_dialect(context: Context, *, name: str) -> list[str]:
    """Write a dialect that has a folder of its own."""
    found, options = found_points(context), write_options(context.recipe, context.colours)
    seen = found.flip_z() if context.recipe.export.flip_z else found
    return _written(context, tomogram_files(DIALECTS[name], seen, name, options))


def _write_tomograms(context: Context) -> list[str]:
    table = relion.tomograms_table([_tomogram(context)])
    return _written(context, {TOMOGRAMS: write_star({"global": table}).encode()})


def _written(context: Context, files: Mapping[str, bytes]) -> list[str]:
    for path, content in files.items():
        context.staged.write(path, content)
    return list(files)


def _tomogram(context: Context) -> TomoContext:
    return tomo_context(context.name, context.header(), context.recipe.export)


def _particles_table(context: Context, found: Particles) -> pd.DataFrame:
    sampling = context.header().sampling
    seen = found.flip_z(sampling) if context.recipe.export.flip_z else found
    return relion.particles_table(seen, context=_tomogram(context))


def _write_filaments(context: Context, *, name: str, stem: str) -> list[str]:
    found, export = read_filaments(context, name), context.recipe.export
    sampling = context.header().sampling
    table = relion.filaments_table(
        [line.flip_z(sampling) for line in found] if export.flip_z else found,
        context=_tomogram(context),
        spacing_angstrom=export.spacing_angstrom.get(name),
    )
    files = {
        **_relion_files(context, stem, table),
        **_csv_files(context, stem, tables.filaments_csv(found, sampling)),
        f"{stem}__measures.csv": measures_csv(measure_filaments(context, name, found)).encode(),
    }
    return _written(context, files)


def _write_particles(context: Context, *, name: str, stem: str) -> list[str]:
    found, sampling = read_particles(context, name), context.header().sampling
    if not sampling.is_flat:
        files = _relion_files(context, stem, _particles_table(context, found))
    elif RELION in context.recipe.export.dialects:
        micrograph = PurePosixPath(context.source_url).name
        picks = relion.micrograph_table(found, micrograph, sampling=sampling)
        # RELION expects the one table of such a file without a name.
        files = {f"{stem}.star": write_star({"": picks}).encode()}
    else:
        files = {}
    files |= _csv_files(context, stem, tables.particles_csv([found], sampling))
    columns = read_surroundings(context, name)
    if columns is not None:
        files[f"{stem}__surroundings.csv"] = tables.surroundings_csv(name, columns).encode()
    return _written(context, files)


def _write_surfaces(context: Context, *, name: str, stem: str) -> list[str]:
    found = read_samples(context, name)
    columns = {key: value for key, value in vars(found).items() if key != "particles"}
    text = tables.particles_csv([found.particles], context.header().sampling, columns)
    table = _particles_table(context, found.particles)
    files = {**_relion_files(context, stem, table), **_csv_files(context, stem, text)}
    near = read_contacts(context, name)
    if near is not None:
        files[f"{stem}__contacts.csv"] = tables.contacts_csv(name, near.as_dict()).encode()
    return _written(context, files)


def _relion_files(context: Context, stem: str, table: pd.DataFrame) -> dict[str, bytes]:
    """Return a class's points for RELION, with the optimisation set that names them."""
    if RELION not in context.recipe.export.dialects:
        return {}
    blocks = {
        f"{stem}.star": {"optics": relion.optics_table(_tomogram(context)), "particles": table},
        f"{stem}__optimisation_set.star": {
            "optimisation_set": relion.optimisation_set_table(
                f"{context.name}/{stem}.star", f"{context.name}/{TOMOGRAMS}"
            )
        },
    }
    return {path: write_star(one).encode() for path, one in blocks.items()}


def _csv_files(context: Context, stem: str, text: str) -> dict[str, bytes]:
    return {f"{stem}.csv": text.encode()} if CSV in context.recipe.export.dialects else {}


EXPORT = Stage("export", ("clean", "trace", "pick", "sample"), _settings, _run, share=0.08)
