"""Commands on sessions: run one, check one before, look at one."""

from __future__ import annotations

import json
import signal
import sys
from collections.abc import Collection
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tomoseg.cli.progress import progress
from tomoseg.cli.upkeep import add_disk, disk_lines, tell_attempts, tell_checked
from tomoseg.cli.words import DONE, SOME_FAILED, WRONG_REQUEST, complain

if TYPE_CHECKING:
    from tomoseg.recipe.recipe import Recipe

NAMED_IN_NOTES = 3


RecipeOption = Annotated[
    str | None, typer.Option("--recipe", "-r", help="YAML recipe; without one, sensible defaults.")
]
OutputOption = Annotated[
    str | None, typer.Option("--output", "-o", help="Folder or URL for the results.")
]
SetOption = Annotated[
    list[str] | None,
    typer.Option("--set", metavar="A.B=C", help="Change one key of the recipe; repeatable."),
]
DaskOption = Annotated[
    str | None,
    typer.Option("--dask", metavar="ADDRESS", help="Run on this Dask scheduler's workers."),
]


def run(
    tomograms: Annotated[
        list[str] | None, typer.Argument(help="MRC, TIFF, PNG or OME-Zarr files, folders or URLs.")
    ] = None,
    recipe: RecipeOption = None,
    output: OutputOption = None,
    set_: SetOption = None,
    dask: DaskOption = None,
    any_code: Annotated[
        bool, typer.Option("--any-code", help="Keep results that other versions made.")
    ] = False,
) -> None:
    """Segment, trace and pick: a session of tomograms in, results out.

    Finished blocks are kept: run the same command again and it does only what is missing.
    """
    from tomoseg.compute.monitoring.metrics import serve_metrics
    from tomoseg.pipeline.checks import check_session
    from tomoseg.pipeline.session import plan_session, run_session

    # A plain kill ends as Ctrl-C does: workers are stopped and the output is given free.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    changes = [*(set_ or ()), *(["session.results_of=any_code"] if any_code else ())]
    session = plan_session(_recipe(recipe, tomograms, output, changes, dask))
    check_session(session)
    serve_metrics()
    with progress([found.name for found in session.tomograms]) as show:
        result = run_session(session, show)
    _tell_result(result, {found.name for found in session.tomograms}, str(session.output))


def validate(
    recipe: Annotated[str, typer.Argument(help="YAML recipe.")],
    tomograms: Annotated[list[str] | None, typer.Argument(help="Instead of session.input.")] = None,
    output: OutputOption = None,
    set_: SetOption = None,
) -> None:
    """Check a recipe, its tomograms, their fit to the model and the disk, before any work."""
    from tomoseg.core.errors import RequestError
    from tomoseg.io.volumes.sources import kind_of
    from tomoseg.pipeline.checks import check_session, gigabytes
    from tomoseg.pipeline.session import plan_session, where_blocks_run
    from tomoseg.pipeline.stages.networks import accepted_angstrom, halo_of, halo_words

    if kind_of(recipe) is not None:
        raise RequestError(
            f"{recipe} is no recipe but a tomogram, by its name",
            remedy=f"Say tomoseg validate RECIPE {recipe}, or tomoseg info {recipe}.",
        )
    session = plan_session(_recipe(recipe, tomograms, output, set_, None))
    checks = check_session(session, reads_masks=True)
    for network in session.networks:
        halo = halo_words(network.card, halo_of(network.card, session.recipe.segment.halo))
        finest, coarsest = accepted_angstrom(network.card)
        typer.echo(
            f"model {network.card.name}: {', '.join(network.classes)}; "
            f"voxels of {finest:.3g} to {coarsest:.3g} Å; {halo}"
        )
    typer.echo(f"blocks run on {where_blocks_run(session)}")
    for check in checks:
        if check.problem:
            typer.echo(f"{check.name}: {check.problem}")
        elif check.sampling is None:
            typer.echo(f"{check.name}: {'; '.join(check.notes)}")
        else:
            z, y, x = check.sampling.shape
            sizes = ", ".join(f"{size:.4g}" for size in check.network_voxels_angstrom)
            typer.echo(
                f"{check.name}: {x}×{y}×{z} voxels (xyz) of {check.sampling.voxel_angstrom:.4g} Å, "
                f"{check.dtype}; network at {sizes} Å; "
                f"rlnTomoName {check.name}" + "".join(f"; {note}" for note in check.notes)
            )
    needed = sum(check.bytes_needed for check in checks)
    typer.echo(f"about {gigabytes(needed)} will be written to {session.output}")
    bad = sum(bool(check.problem) for check in checks)
    typer.echo(f"{len(checks) - bad} of {len(checks)} tomograms can be processed")
    raise typer.Exit(WRONG_REQUEST if bad else DONE)


def status(
    output: Annotated[
        str, typer.Argument(help="Output of a session, or a folder of such outputs.")
    ],
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
    check: Annotated[
        bool, typer.Option("--check", help="Compare what is recorded with what is there.")
    ] = False,
    since: Annotated[
        str | None,
        typer.Option("--since", metavar="7d", help="What ended since: 7d, 12h or a date; and why."),
    ] = None,
    disk: Annotated[
        bool, typer.Option("--disk", help="Measure how much disk each session takes; may be slow.")
    ] = False,
) -> None:
    """Say what is done, what failed and why, what is still to do, and whether it keeps up.

    Ends with 1 if something failed or needs a person.
    """
    from tomoseg.core.errors import RequestError
    from tomoseg.service.status import lines_of, status_of

    if check + disk + (since is not None) > 1:
        raise RequestError("--check, --since and --disk answer different questions: give one")
    if check:
        raise typer.Exit(tell_checked(output, as_json=as_json))
    if since is not None:
        raise typer.Exit(tell_attempts(output, since, as_json=as_json))
    state = status_of(output)
    if disk:
        add_disk(state, output)
    if as_json:
        typer.echo(json.dumps(state, indent=1))
    else:
        for line in lines_of(state):
            typer.echo(line)
        for line in disk_lines(state) if disk else ():
            typer.echo(line)
    raise typer.Exit(DONE if state["is_well"] else SOME_FAILED)


def _recipe(
    path: str | None,
    tomograms: list[str] | None,
    output: str | None,
    changes: list[str] | None,
    dask: str | None,
) -> Recipe:
    from tomoseg.recipe.recipe import load_recipe

    given: dict[str, Any] = {"session": {}, "compute": {}}
    if tomograms:
        given["session"]["input"] = tomograms
    if output:
        given["session"]["output"] = output
    if dask:
        given["compute"] = {"runner": "dask", "address": dask}
    return load_recipe(path, changes or (), given=given)


def _tell_result(result: dict[str, Any], begun: Collection[str], output: str) -> None:
    from tomoseg.pipeline.journal import KEPT_NOTES, summarise

    # What was noted of others in earlier runs was said then.
    rows = [
        row
        if row["name"] in begun
        else {**row, "notes": [n for n in row.get("notes", ()) if n.startswith(KEPT_NOTES)]}
        for row in result["tomograms"]
    ]
    said, failed = summarise(result, begun)
    for line in _noted(rows):
        complain(line)
    together = result["together"]
    if "error" in together:
        complain(f"session/: {together['error']}. {together['remedy']}".rstrip())
    if together.get("files") and together["left_out"]:
        complain(f"left out of session/: {', '.join(together['left_out'])}")
    typer.echo(f"{said}; look at {output}/index.html")
    raise typer.Exit(SOME_FAILED if failed else DONE)


def _noted(rows: list[dict[str, Any]]) -> list[str]:
    """Return a line for each note, and one alone for what was noted of several tomograms."""
    names: dict[str, list[str]] = {}
    for row in rows:
        for note in row.get("notes", ()):
            names.setdefault(note, []).append(row["name"])
    lines = []
    for note, noted in names.items():
        more = f" and {len(noted) - NAMED_IN_NOTES} more" if len(noted) > NAMED_IN_NOTES else ""
        lines.append(f"note: {', '.join(noted[:NAMED_IN_NOTES])}{more}: {note}")
    return lines
