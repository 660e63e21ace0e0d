"""The command that traces filaments from what another program found."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomoseg.cli.exchange import BlockOption, PixelSizeOption, RowsOfOption
from tomoseg.cli.progress import progress
from tomoseg.errors import RequestError

if TYPE_CHECKING:
    from tomoseg.filaments import TracingSettings
    from tomoseg.sampling import Shape
    from tomoseg.tracing import Traced

# Classes whose radius need not be said.
KNOWN = ("microtubule", "actin")


def trace(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    file: Annotated[
        str, typer.Argument(help="Volume (MRC, TIFF, OME-Zarr) or picks (STAR, CSV, CBOX).")
    ],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or URL for the lines.")],
    name: Annotated[
        str, typer.Option("--as", metavar="CLASS", help="Class of the filaments.")
    ] = "filament",
    radius: Annotated[
        float | None,
        typer.Option(help="Outer radius of the filaments, Å; microtubules 125, actin 35."),
    ] = None,
    scale: Annotated[
        str | None,
        typer.Option(
            metavar="WHAT",
            help="What the volume's values are: mask, probability (0 to 1), ais (0 to 255), int8 "
            "(0 to 127), logits, correlation, or LOW,HIGH: no filament and certainly one.",
        ),
    ] = None,
    label: Annotated[
        int | None, typer.Option(help="Of a volume of labels, the one to trace.")
    ] = None,
    hollow: Annotated[
        bool, typer.Option("--hollow", help="The walls of the filaments are marked, not all.")
    ] = False,
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Override the file's voxel size, Å.")
    ] = None,
    tomogram: Annotated[
        str | None, typer.Option(help="Tomogram that a table of picks belongs to.")
    ] = None,
    recipe: Annotated[
        Path | None, typer.Option("--recipe", "-r", help="YAML recipe with a section trace.")
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="As trace.CLASS.gap_angstrom=100; repeatable."),
    ] = None,
    block: BlockOption = None,
    pixel_size: PixelSizeOption = None,
    rows_of: RowsOfOption = None,
) -> None:
    """Trace filaments in another program's mask, score map or correlation map, or through picks.

    Lines are written as CSV and, where the tomogram's size is known, for RELION 5; beside them
    what they measure, and a record of how the file was read.
    """
    from tomoseg.formats.dialects import ReadOptions
    from tomoseg.stores import Folder
    from tomoseg.tracing import TraceRequest, trace_file, write_traced

    changes = [f"trace.{name}.radius_angstrom={radius}"] if radius is not None else []
    changes += [f"trace.{name}.hollow=true"] if hollow else []
    changes += [f"trace.{name}={{}}"] if not changes and name in KNOWN else []
    settings, block_shape = _settings(name, recipe, [*changes, *(set_ or [])])
    request = TraceRequest(
        url=file,
        name=name,
        settings=settings,
        block_shape=block_shape,
        scale=scale,
        label=label,
        voxel_size_angstrom=voxel_size,
        tomogram=tomogram,
        options=ReadOptions(block, pixel_size, rows_of),
    )
    with progress() as show:
        traced = trace_file(request, show)
    _say_traced(traced, f"{output}/{write_traced(traced, request, Folder(output))[0]}")


def _settings(
    name: str, recipe: Path | None, changes: Sequence[str]
) -> tuple[TracingSettings, Shape]:
    """Return how a class is traced, and the shape of a block."""
    from tomoseg.recipe import load_recipe

    given = load_recipe(recipe, changes)
    settings = (given.trace or {}).get(name)
    if settings is None:
        raise RequestError(
            f"how thick a {name} is must be said",
            remedy=f"Use --radius, or --as {' or --as '.join(KNOWN)}",
        )
    return settings, given.blocks.compact


def _say_traced(traced: Traced, place: str) -> None:
    """Say how the file was read, what was found in it, and where the lines are."""
    for note, value in traced.notes.items():
        typer.echo(f"{note.replace('_', ' ')}: {value}")
    length = sum(line.length_angstrom for line in traced.filaments) / 1e4
    typer.echo(f"{len(traced.filaments)} filaments, {length:.2f} µm: {place}")
