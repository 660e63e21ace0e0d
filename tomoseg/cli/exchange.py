"""Commands that go between tomoseg and other programs: export points, import points and masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from tomoseg.core.errors import RequestError
from tomoseg.core.layout import IMPORTED

if TYPE_CHECKING:
    from tomoseg.exchange.imports import Imported

LIST = "list"
TomogramsOption = Annotated[
    list[str] | None, typer.Option("--tomogram", metavar="NAME", help="Only this; repeatable.")
]
BlockOption = Annotated[
    str | None, typer.Option(metavar="NAME", help="Of a STAR file of several blocks, this one.")
]
PixelSizeOption = Annotated[
    float | None,
    typer.Option(
        "--pixel-size", help="What a table of pixels counts in, Å, where it says another or none."
    ),
]
RowsOfOption = Annotated[
    str | None,
    typer.Option(
        "--rows-of", metavar="NAME", help="What the table calls the tomogram; * takes all rows."
    ),
]
IntoOption = Annotated[
    str,
    typer.Option(metavar="PLACE", help="OUTPUT/TOMOGRAM, OUTPUT, a tomogram, or a folder of them."),
]
DialectOption = Annotated[
    str | None,
    typer.Option(
        "--from",
        metavar="NAME",
        help="Dialect (tomoseg export --to list), picks or mask, where it is not certain.",
    ),
]
DocOption = Annotated[
    str | None,
    typer.Option(
        metavar="FILE",
        help="Says which number of a table (Dynamo, STOPGAP, AV3) is which tomogram; else the .doc "
        "beside it.",
    ),
]
MinimumScoreOption = Annotated[
    float | None,
    typer.Option("--minimum-score", help="Leave out filaments and particles that score less."),
]
SpacingOption = Annotated[
    list[str] | None,
    typer.Option(metavar="CLASS=Å", help="Distance of segments along filaments; repeatable."),
]


def export(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    output: Annotated[str | None, typer.Argument(help="Output of a session, path or URL.")] = None,
    to: Annotated[
        str, typer.Option("--to", metavar="NAME", help="The program's dialect; list says them all.")
    ] = LIST,
    classes: Annotated[
        list[str] | None, typer.Option("--class", metavar="NAME", help="Only this; repeatable.")
    ] = None,
    tomograms: TomogramsOption = None,
    into: Annotated[
        str | None,
        typer.Option(metavar="FOLDER", help="Folder or URL; else folders in the output."),
    ] = None,
    together: Annotated[
        bool, typer.Option("--together", help="A class of all tomograms in one file.")
    ] = False,
    imported: Annotated[
        bool, typer.Option("--imported", help="What was imported, not what was found.")
    ] = False,
    flip_z: Annotated[
        bool | None,
        typer.Option(help="The program has the slices in the opposite order; else as the recipe."),
    ] = None,
    spacing: SpacingOption = None,
    origin: Annotated[
        Literal["corner", "centre"] | None,
        typer.Option(help="From where Dynamo counts in the first voxel; else as the recipe."),
    ] = None,
    minimum_score: MinimumScoreOption = None,
) -> None:
    """Convert the filaments and particles of a finished session for another program.

    Nothing is computed again. Without --into, files stand in OUTPUT/TOMOGRAM/NAME, together in
    OUTPUT/session/NAME.
    """
    from tomoseg.exchange.exports import export_points
    from tomoseg.io.points.registry import DIALECTS
    from tomoseg.pipeline.exports import ExportRequest

    if to == LIST:
        for name, known in DIALECTS.items():
            typer.echo(f"{name:9} {known.about}")
        return
    if output is None:
        raise RequestError("no output of a session is given")
    request = ExportRequest(
        to=to,
        classes=tuple(classes or ()),
        tomograms=tuple(tomograms or ()),
        into=into,
        together=together,
        imported=imported,
        flip_z=flip_z,
        origin=origin,
        spacing_angstrom=_spacings(spacing or []),
        minimum_score=minimum_score,
    )
    done = export_points(output, request)
    for note in done.notes:
        typer.echo(note, err=True)
    for path in done.files:
        typer.echo(f"{done.folder}/{path}")
    typer.echo(f"{done.filaments} filaments, {done.particles} particles written as {to}")


def import_(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    file: Annotated[
        str, typer.Argument(help="Points in any dialect, or a volume: MRC, TIFF, OME-Zarr.")
    ],
    into: IntoOption,
    name: Annotated[str, typer.Option("--as", metavar="CLASS", help="Class that it becomes.")],
    dialect: DialectOption = None,
    only: Annotated[
        str | None, typer.Option(metavar="CLASS", help="Of a file of several classes, this one.")
    ] = None,
    tomograms: TomogramsOption = None,
    value: Annotated[
        int | None, typer.Option(help="Of a volume: the class is where it has this value.")
    ] = None,
    threshold: Annotated[
        float | None, typer.Option(help="Of a volume: the class is where it is above this.")
    ] = None,
    flip_z: Annotated[
        bool, typer.Option("--flip-z", help="The file's slices come in the opposite order.")
    ] = False,
    origin: Annotated[
        Literal["corner", "centre"],
        typer.Option(help="From where a table of Dynamo counts in the first voxel."),
    ] = "corner",
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Of a tomogram that does not say it, Å.")
    ] = None,
    block: BlockOption = None,
    pixel_size: PixelSizeOption = None,
    rows_of: RowsOfOption = None,
    doc: DocOption = None,
    filaments: Annotated[
        bool,
        typer.Option("--filaments", help="The points of a table were clicked along filaments."),
    ] = False,
) -> None:
    """Take another program's picks, traces or mask into a project.

    Points become tables, masks a label volume on the tomogram's grid, in a folder imported/ of the
    session's output or beside the tomogram. A class that is imported again is replaced.
    """
    from tomoseg.exchange.imports import ImportRequest, import_file
    from tomoseg.io.points.dialects import ReadOptions

    request = ImportRequest(
        url=file,
        into=into,
        name=name,
        dialect=dialect,
        only=only,
        tomograms=tuple(tomograms or ()),
        value=value,
        threshold=threshold,
        flip_z=flip_z,
        origin=origin,
        voxel_size_angstrom=voxel_size,
        options=ReadOptions(block, pixel_size, rows_of),
        doc=doc,
        filaments=filaments,
    )
    _say_imported(import_file(request), name)


def _say_imported(done: Imported, name: str) -> None:
    """Say what was read, where it stands now, and what to do with it."""
    for line in (*done.says, *(f"{done.home}/{path}" for path in done.files)):
        typer.echo(line)
    for line in _next_steps(done, name):
        typer.echo(line)


def _next_steps(done: Imported, name: str) -> list[str]:
    """Say what one can do with what was imported, as commands and lines of a recipe."""
    folder = f"{done.home}/{IMPORTED}"
    first = done.tomograms[0].removeprefix("file://")
    steps = []
    if done.is_session:
        steps.append(f"score the session against it: tomoseg evaluate {done.home} {folder}")
    if done.kind != "mask":
        steps.append(f"convert it: tomoseg export {done.home} --imported --class {name} --to NAME")
    if done.label is not None:
        steps.append(
            f"train on it: annotations: [{{kind: painted, tomograms: {first}, "
            f'labels: "{folder}/{{name}}__labels.mrc", values: {{{done.label}: {name}}}}}]'
        )
    steps += [
        f"train on it: annotations: [{{kind: points, tomograms: {first}, class: {name}, "
        f'radius_angstrom: RADIUS, table: "{folder}/{{name}}__{kind}.csv"}}]'
        for kind in ("filaments", "particles")
        if kind in done.kind
    ]
    return steps


def _spacings(given: list[str]) -> dict[str, float]:
    """Return class → spacing in Å."""
    found = {}
    for text in given:
        name, _, number = text.partition("=")
        try:
            found[name] = float(number)
        except ValueError as error:
            raise RequestError(f"--spacing {text} is not CLASS=Å") from error
    return found
