"""Export: masks, filaments, particles and surfaces as files that other programs read."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Any

import pandas as pd

from tomoseg.formats import relion, tables
from tomoseg.formats.dialects import TomoContext
from tomoseg.formats.measures import measures_csv
from tomoseg.formats.star import write_star
from tomoseg.stages.context import Context, Stage
from tomoseg.stages.mask_files import write_masks, write_meshes
from tomoseg.stages.pick import read_particles, read_surroundings
from tomoseg.stages.sample import read_samples
from tomoseg.stages.trace import measured, read_filaments
from tomoseg.stores import Ledger

TOMOGRAMS = "tomograms.star"


def _settings(context: Context) -> Any:
    return {
        "export": context.recipe.export.model_dump(mode="json"),
        "bin": context.recipe.ingest.bin,
    }


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    files = [*write_masks(context), *write_meshes(context)]
    for name in context.recipe.trace or {}:
        files += _write_filaments(context, name)
    for name in context.recipe.pick or {}:
        files += _write_particles(context, name)
    for name in context.recipe.sample or {}:
        files += _write_surfaces(context, name)
    # Each class names the table of tomograms.
    return {"files": list(dict.fromkeys(files)), "notes": list(_tomogram(context).notes)}


def _tomogram(context: Context) -> TomoContext:
    export = context.recipe.export
    return TomoContext(
        tomo_name=context.name,
        sampling=context.header.sampling,
        tilt_series_pixel_size_angstrom=export.tilt_series_pixel_size_angstrom,
        tilt_series_size_xyz=export.tilt_series_size_xyz,
    )


def _write_filaments(context: Context, name: str) -> list[str]:
    found = read_filaments(context, name)
    table = relion.filaments_table(
        found,
        context=_tomogram(context),
        spacing_angstrom=context.recipe.export.spacing_angstrom.get(name),
    )
    text = tables.filaments_csv(found, context.header.sampling)
    stem = f"filaments/{context.name}__{name}"
    numbers = measures_csv(measured(context, name, found))
    context.folder.write(f"{stem}__measures.csv", numbers.encode())
    return [*_write_table(context, stem, table, text), f"{stem}__measures.csv"]


def _write_particles(context: Context, name: str) -> list[str]:
    found, sampling = read_particles(context, name), context.header.sampling
    text = tables.particles_csv([found], sampling)
    stem = f"particles/{context.name}__{name}"
    files = _write_surroundings(context, name, stem)
    if sampling.shape[0] > 1:
        table = relion.particles_table(found, context=_tomogram(context))
        return [*_write_table(context, stem, table, text), *files]
    micrograph = PurePosixPath(context.source_url).name
    picks = relion.micrograph_table(found, micrograph, sampling=sampling)
    # RELION expects the one table of such a file without a name.
    context.folder.write(f"{stem}.star", write_star({"": picks}).encode())
    context.folder.write(f"{stem}.csv", text.encode())
    return [f"{stem}.star", f"{stem}.csv", *files]


def _write_surroundings(context: Context, name: str, stem: str) -> list[str]:
    columns = read_surroundings(context, name)
    if columns is None:
        return []
    path = f"{stem}__surroundings.csv"
    context.folder.write(path, tables.surroundings_csv(name, columns).encode())
    return [path]


def _write_surfaces(context: Context, name: str) -> list[str]:
    found = read_samples(context, name)
    table = relion.particles_table(found.particles, context=_tomogram(context))
    columns = {key: value for key, value in vars(found).items() if key != "particles"}
    text = tables.particles_csv([found.particles], context.header.sampling, columns)
    return _write_table(context, f"surfaces/{context.name}__{name}", table, text)


def _write_table(context: Context, stem: str, table: pd.DataFrame, csv: str) -> list[str]:
    """Write a class's points for RELION, with the optimisation set that names them, and as CSV."""
    tomogram = _tomogram(context)
    folder, _, name = stem.rpartition("/")
    written = {
        f"{stem}.star": {"optics": relion.optics_table(tomogram), "particles": table},
        f"{stem}__optimisation_set.star": {
            "optimisation_set": relion.optimisation_set_table(
                f"{context.name}/{folder}/{name}.star", f"{context.name}/{TOMOGRAMS}"
            )
        },
        TOMOGRAMS: {"global": relion.tomograms_table([tomogram])},
    }
    for path, blocks in written.items():
        context.folder.write(path, write_star(blocks).encode())
    context.folder.write(f"{stem}.csv", csv.encode())
    return [*written, f"{stem}.csv"]


EXPORT = Stage("export", ("clean", "trace", "pick", "sample"), _settings, _run)
