"""The commands that trace filaments and sample membranes from what another program found."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomoseg.cli.exchange import BlockOption, PixelSizeOption, RowsOfOption
from tomoseg.cli.progress import progress
from tomoseg.core.classes import FILAMENTS
from tomoseg.core.errors import RequestError

if TYPE_CHECKING:
    from tomoseg.analysis.filaments import TracingSettings
    from tomoseg.exchange.membranes import Sampled
    from tomoseg.exchange.tracing import Traced
    from tomoseg.recipe.recipe import Recipe

# Classes whose radius need not be said.

ScaleOption = Annotated[
    str | None,
    typer.Option(
        metavar="WHAT",
        help="What the volume's values are: mask, probability (0 to 1), ais (0 to 255), int8 "
        "(0 to 127), logits, correlation, or LOW,HIGH: nothing there and certainly something.",
    ),
]
LabelOption = Annotated[
    int | None, typer.Option(help="Of a volume of labels, the one that is meant.")
]
VoxelSizeOption = Annotated[
    float | None, typer.Option("--voxel-size", help="Override the file's voxel size, Å.")
]


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
    scale: ScaleOption = None,
    label: LabelOption = None,
    hollow: Annotated[
        bool, typer.Option("--hollow", help="The walls of the filaments are marked, not all.")
    ] = False,
    voxel_size: VoxelSizeOption = None,
    tomogram: Annotated[
        str | None, typer.Option(help="Tomogram that a table of picks belongs to.")
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="YAML recipe with a section trace; source.axes counts too."
        ),
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
    from tomoseg.exchange.tracing import TraceRequest, trace_file, write_traced
    from tomoseg.io.points.dialects import ReadOptions
    from tomoseg.io.stores import Folder
    from tomoseg.recipe.recipe import load_recipe

    changes = [f"trace.{name}.radius_angstrom={radius}"] if radius is not None else []
    changes += [f"trace.{name}.hollow=true"] if hollow else []
    changes += [f"trace.{name}={{}}"] if not changes and name in FILAMENTS else []
    given = load_recipe(recipe, [*changes, *(set_ or [])])
    request = TraceRequest(
        url=file,
        name=name,
        settings=_settings(name, given),
        block_shape=given.blocks.compact,
        scale=scale,
        label=label,
        voxel_size_angstrom=voxel_size,
        tomogram=tomogram,
        options=ReadOptions(block, pixel_size, rows_of),
        axes=given.source.axes,
    )
    with progress() as show:
        traced = trace_file(request, show)
    _say_traced(traced, f"{output}/{write_traced(traced, request, Folder(output))[0]}")


def _settings(name: str, given: Recipe) -> TracingSettings:
    """Return how a class is traced."""
    settings = (given.trace or {}).get(name)
    if settings is None:
        raise RequestError(
            f"how thick a {name} is must be said",
            remedy=f"Use --radius, or --as {' or --as '.join(FILAMENTS)}",
        )
    return settings


def _say_traced(traced: Traced, place: str) -> None:
    """Say how the file was read, what was found in it, and where the lines are."""
    for note, value in traced.notes.items():
        typer.echo(f"{note.replace('_', ' ')}: {value}")
    length = sum(line.length_angstrom for line in traced.filaments) / 1e4
    typer.echo(f"{len(traced.filaments)} filaments, {length:.2f} µm: {place}")


def sample(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    file: Annotated[str, typer.Argument(help="Volume (MRC, TIFF, OME-Zarr).")],
    output: Annotated[str, typer.Option("--output", "-o", help="Folder or URL for the points.")],
    name: Annotated[
        str, typer.Option("--as", metavar="CLASS", help="Class of the membranes.")
    ] = "membrane",
    spacing: Annotated[
        float | None, typer.Option(help="Least distance of points on a membrane, Å; usually 100.")
    ] = None,
    thickness: Annotated[
        float | None,
        typer.Option(help="Of the membrane as it is marked, Å; 60, and 260 if it is a double one."),
    ] = None,
    scale: ScaleOption = None,
    label: LabelOption = None,
    voxel_size: VoxelSizeOption = None,
    to: Annotated[
        list[str] | None,
        typer.Option("--to", metavar="NAME", help="Another program's dialect too; repeatable."),
    ] = None,
    recipe: Annotated[
        Path | None,
        typer.Option(
            "--recipe", "-r", help="YAML recipe with a section sample; source.axes counts too."
        ),
    ] = None,
    set_: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="A.B=C", help="As sample.CLASS.threshold=0.3; repeatable."),
    ] = None,
) -> None:
    """Sample the membranes of another program's mask or score map: points with outward normals.

    Points are written as CSV, with the area and the thickness of the membrane at each, and for
    RELION 5; beside them a record of how the file was read.
    """
    from tomoseg.analysis.surfaces import surface_defaults
    from tomoseg.exchange.membranes import SampleRequest, sample_file, write_sampled
    from tomoseg.io.stores import Folder
    from tomoseg.recipe.recipe import load_recipe

    changes = [f"sample.{name}.spacing_angstrom={spacing}"] if spacing is not None else []
    changes += [f"sample.{name}.thickness_angstrom={thickness}"] if thickness is not None else []
    given = load_recipe(recipe, [*changes, *(set_ or [])])
    request = SampleRequest(
        url=file,
        name=name,
        settings=(given.sample or {}).get(name) or surface_defaults(name),
        block_shape=given.blocks.compact,
        scale=scale,
        label=label,
        voxel_size_angstrom=voxel_size,
        dialects=tuple(to or ()),
        axes=given.source.axes,
    )
    with progress() as show:
        sampled = sample_file(request, show)
    _say_sampled(sampled, f"{output}/{write_sampled(sampled, request, Folder(output))[0]}")


def _say_sampled(sampled: Sampled, place: str) -> None:
    """Say how the file was read, what was found in it, and where the points are."""
    for note, value in sampled.notes.items():
        typer.echo(f"{note.replace('_', ' ')}: {value}")
    found = sampled.samples
    area = found.area_angstrom2.sum()
    typer.echo(
        f"{found.surface.max(initial=0)} surfaces, {area / 100:.0f} nm², "
        f"{len(found.particles)} points: {place}"
    )
    if not len(found.particles):
        typer.echo(
            "no membrane was found: is --thickness that of the mark, the voxel size right, and "
            "minimum_area_nm2 (--set) small enough?"
        )
