"""The command line. Heavy imports stand inside the commands, so that ``--help`` answers at once.

Exit codes: 0 done, 1 some tomograms failed, 2 the request was wrong.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from tomoseg import __version__
from tomoseg.errors import FormatError, ModelError, RequestError, TomosegError, VoxelSizeError
from tomoseg.runners import explaining

if TYPE_CHECKING:
    from tomoseg.evaluation import Scores
    from tomoseg.nets.settings import TrainingProgress
    from tomoseg.recipe import Recipe

app = typer.Typer(
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    help="Tomograms in; segmentations, traced filaments and particle coordinates out.",
    epilog="Exit codes: 0 done, 1 some tomograms failed, 2 the request was wrong.",
)

DONE, SOME_FAILED, WRONG_REQUEST = 0, 1, 2
PLAIN_SECONDS = 10.0

RecipeOption = Annotated[
    Path | None, typer.Option("--recipe", "-r", help="YAML recipe; without one, sensible defaults.")
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


def main() -> None:
    """Run the command line; errors of ours become one message and an exit code."""
    try:
        with explaining():
            app()
    except TomosegError as error:
        typer.echo(f"error: {error}", err=True)
        is_request = isinstance(error, RequestError | FormatError | ModelError)
        sys.exit(WRONG_REQUEST if is_request else SOME_FAILED)


def _version(value: bool) -> None:
    if value:
        typer.echo(f"tomoseg {__version__}")
        raise typer.Exit


@app.callback()
def configure(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="Say the version.")
    ] = False,
    verbose: Annotated[bool, typer.Option("--verbose", "-v", help="Log more.")] = False,
) -> None:
    """Set up logging for all commands."""
    logging.basicConfig(
        level=logging.WARNING, format="%(asctime)s %(levelname)s %(name)s: %(message)s"
    )
    logging.getLogger("tomoseg").setLevel(logging.DEBUG if verbose else logging.WARNING)


@app.command()
def run(
    tomograms: Annotated[
        list[str] | None, typer.Argument(help="MRC, TIFF, PNG or OME-Zarr files, folders or URLs.")
    ] = None,
    recipe: RecipeOption = None,
    output: OutputOption = None,
    set_: SetOption = None,
    dask: DaskOption = None,
) -> None:
    """Segment, trace and pick: a session of tomograms in, results out.

    Finished blocks are kept: run the same command again and it does only what is missing.
    """
    from tomoseg.session import check_session, plan_session, run_session

    # A plain kill ends as Ctrl-C does: workers are stopped and the output is given free.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    session = plan_session(_recipe(recipe, tomograms, output, set_, dask))
    check_session(session)
    with _progress() as progress:
        result = run_session(session, progress)
    _tell_result(result, str(session.output))


@app.command()
def validate(
    recipe: Annotated[Path, typer.Argument(help="YAML recipe.")],
    tomograms: Annotated[list[str] | None, typer.Argument(help="Instead of session.input.")] = None,
    output: OutputOption = None,
    set_: SetOption = None,
) -> None:
    """Check a recipe, its tomograms, their fit to the model and the disk, before any work."""
    from tomoseg.session import check_session, gigabytes, plan_session, where_blocks_run

    session = plan_session(_recipe(recipe, tomograms, output, set_, None))
    checks = check_session(session, reads_masks=True)
    for network in session.networks:
        typer.echo(f"model {network.card.name}: {', '.join(network.classes)}")
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


@app.command()
def status(
    output: Annotated[str, typer.Argument(help="Output of a session.")],
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Say what is done, what failed and why, and what is still to do."""
    from tomoseg.status import session_status

    state = session_status(output)
    if as_json:
        typer.echo(json.dumps(state, indent=1))
    else:
        typer.echo(f"{state['headline']}")
        for row in state["tomograms"]:
            typer.echo(
                f"{row['name']}: {row['state']}" + (f" - {row['say']}" if row["say"] else "")
            )
    raise typer.Exit(SOME_FAILED if state["failed"] else DONE)


@app.command()
def info(
    file: Annotated[str, typer.Argument(help="MRC, TIFF or OME-Zarr file, path or URL.")],
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Override the file's voxel size, Å.")
    ] = None,
) -> None:
    """Say what a tomogram's header says, and how it would be read."""
    from tomoseg.session import source_header

    try:
        header = source_header(file, voxel_size)
    except VoxelSizeError as error:
        raise VoxelSizeError(error.message, remedy="Use --voxel-size.", tomogram=file) from error
    except FormatError as error:
        raise error.within(tomogram=file) from error
    z, y, x = header.sampling.shape
    vz, vy, vx = header.sampling.voxel_size_angstrom
    oz, oy, ox = header.origin_angstrom
    sz, sy, sx = header.start_voxels
    typer.echo(f"voxels (xyz)      {x} × {y} × {z}")
    typer.echo(f"voxel size (xyz)  {vx:.6g} × {vy:.6g} × {vz:.6g} Å")
    typer.echo(f"extent (xyz)      {x * vx / 10:.5g} × {y * vy / 10:.5g} × {z * vz / 10:.5g} nm")
    typer.echo(f"type              {header.dtype}")
    typer.echo(f"origin (xyz)      {ox:.6g}, {oy:.6g}, {oz:.6g} Å")
    typer.echo(f"start (xyz)       {sx}, {sy}, {sz} voxels")
    for note in header.notes:
        typer.echo(f"note              {note}")


@app.command()
def simulate(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    output: Annotated[str, typer.Argument(help="Folder for tomograms and truth.")],
    tomograms: Annotated[int, typer.Option(help="How many.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first; the next ones count up.")] = 0,
    shape: Annotated[str, typer.Option(help="Voxels, z,y,x.")] = "128,512,512",
    voxel_size: Annotated[float, typer.Option(help="Å, 8 to 16.")] = 12.0,
    thickness: Annotated[
        float | None, typer.Option(help="Of the sample, Å; without it 80% of the box.")
    ] = None,
    snr: Annotated[float | None, typer.Option(help="Of the untilted image.")] = None,
    density: Annotated[float, typer.Option(help="Factor on the usual number of objects.")] = 1.0,
    defocus: Annotated[float | None, typer.Option(help="µm.")] = None,
    tilt_max: Annotated[float, typer.Option(help="Degrees.")] = 60.0,
    tilt_step: Annotated[float, typer.Option(help="Degrees.")] = 3.0,
    wide: Annotated[
        bool, typer.Option("--wide", help="Vary voxel size (8 to 16 Å), tilts and contrast too.")
    ] = False,
) -> None:
    """Simulate tomograms with complete truth: labels, instances, centre lines, particles.

    The tomograms are of one family: SNR, defocus, thickness and numbers of objects vary around
    what is given here; with --wide, voxel size, tilts and contrast vary too.
    """
    from tomoseg.phantom import PhantomParameters
    from tomoseg.simulation import simulated_session
    from tomoseg.stores import Folder

    usual = PhantomParameters()
    base = PhantomParameters(
        shape=_triple(shape),
        voxel_size_angstrom=voxel_size,
        thickness_angstrom=thickness,
        snr=usual.snr if snr is None else snr,
        defocus_um=usual.defocus_um if defocus is None else defocus,
        tilt_max_degrees=tilt_max,
        tilt_step_degrees=tilt_step,
        seed=seed,
    )
    folder = Folder(output)
    for name in simulated_session(folder, base, tomograms=tomograms, density=density, wide=wide):
        typer.echo(f"{folder}/{name}.mrc")


@app.command()
def train(recipe: Annotated[Path, typer.Argument(help="YAML recipe of a training.")]) -> None:
    """Train a network from annotated tomograms; killed and called again, it goes on."""
    # Threads of torch that spin while they wait starve each other on a busy machine; it must be
    # known before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tomoseg.training import load_training_recipe, train_from

    settings = load_training_recipe(recipe)
    card = train_from(settings, report=lambda progress: typer.echo(_training_line(progress)))
    if os.environ.get("RANK", "0") == "0":  # torchrun starts several
        typer.echo(f"model {card.name} in {settings.output}: mean F1 {card.scores['mean_f1']:.3f}")


def _training_line(progress: TrainingProgress) -> str:
    line = f"{100 * progress.fraction:5.1f}%{progress.minutes:6.1f} min"
    if progress.seconds_left is not None:
        line += f", {progress.seconds_left / 60:.1f} left"
    line += f"  step {progress.step}"
    if progress.loss is not None:
        line += f"  loss {progress.loss:.4f}"
    if progress.mean_f1 is not None:
        scores = ", ".join(f"{name} {_number(f1)}" for name, f1 in progress.f1.items())
        kept = " (kept)" if progress.is_best else ""
        line += f"  mean F1 {progress.mean_f1:.3f}{kept}: {scores}"
    return line


@app.command()
def evaluate(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    found: Annotated[
        str, typer.Argument(metavar="FOUND", help="A volume, a table, or a session's folder.")
    ],
    truth: Annotated[str, typer.Argument(metavar="TRUTH", help="The same of what is true.")],
    tolerance: Annotated[
        float | None,
        typer.Option(
            help="Å that still count as found; filaments 100, particles 70, surfaces two voxels."
        ),
    ] = None,
    instances: Annotated[
        bool, typer.Option("--instances", help="The volumes hold objects, not classes.")
    ] = False,
    czii: Annotated[
        bool, typer.Option("--czii", help="Score particles as the CZII challenge does.")
    ] = False,
    particles: Annotated[
        list[str] | None,
        typer.Option(
            "--particle",
            metavar="NAME=RADIUS[,WEIGHT]",
            help="Radius in Å and weight for that, beside the challenge's own; repeatable.",
        ),
    ] = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Names of labels 1, 2, … or of a STAR file.")
    ] = None,
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Override the files' voxel size, Å.")
    ] = None,
    tomogram: Annotated[
        str | None, typer.Option(help="Tomogram that a table counts its positions in.")
    ] = None,
    as_json: Annotated[bool, typer.Option("--json", help="Say it as JSON.")] = False,
) -> None:
    """Score labels, objects, filaments or particles against truth.

    Volumes: precision, recall, F1, Dice, IoU and surface Dice of each class.

    With --instances: average precision of objects.

    Filaments (CSV, STAR): F1 of centre lines, splits, merges, coverage.

    Particles (CSV, STAR): F1 of one-to-one matches; with --czii also F4.

    A session's folder and a folder of truth: all of it, pooled.
    """
    from tomoseg.evaluation import Options, evaluate_files, evaluate_folders, is_folder

    options = Options(
        tolerance_angstrom=tolerance,
        voxel_size_angstrom=voxel_size,
        classes=tuple(classes.split(",")) if classes else (),
        instances=instances,
        czii=_czii_particles(particles or []) if czii or particles else None,
        tomogram=tomogram,
    )
    if is_folder(found) and is_folder(truth):
        parts = evaluate_folders(found, truth, options)
        table = "\n\n".join(f"{kind}\n{_table(scores)}" for kind, scores in parts.items())
        typer.echo(json.dumps(parts, indent=1) if as_json else table)
        return
    scores = evaluate_files(found, truth, options)
    typer.echo(json.dumps(scores, indent=1) if as_json else _table(scores))


def _czii_particles(given: list[str]) -> dict[str, tuple[float, float]]:
    """Return radius and weight of the challenge's particles and of those that are given."""
    from tomoseg.metrics import CZII_RADII_ANGSTROM, CZII_WEIGHTS

    known = {name: (radius, CZII_WEIGHTS[name]) for name, radius in CZII_RADII_ANGSTROM.items()}
    for text in given:
        name, _, numbers = text.partition("=")
        radius, _, weight = numbers.partition(",")
        try:
            known[name] = float(radius), float(weight or 1)
        except ValueError as error:
            raise RequestError(f"--particle {text} is not NAME=RADIUS[,WEIGHT]") from error
    return known


def _table(scores: Scores) -> str:
    """Return a line a score and a column a class, aligned."""
    keys = list(dict.fromkeys(key for row in scores.values() for key in row))
    head = max((len(key) for key in keys), default=0)
    columns = [[name, *(_number(row.get(key)) for key in keys)] for name, row in scores.items()]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(["", *keys], *columns, strict=True)
    return "\n".join(
        "  ".join(
            [line[0].ljust(head), *(c.rjust(w) for c, w in zip(line[1:], widths, strict=True))]
        )
        for line in lines
    )


def _number(value: float | int | None) -> str:
    if value is None:
        return "-"
    return str(value) if isinstance(value, int) else f"{value:.3f}"


def _recipe(
    path: Path | None,
    tomograms: list[str] | None,
    output: str | None,
    changes: list[str] | None,
    dask: str | None,
) -> Recipe:
    from tomoseg.recipe import load_recipe

    given: dict[str, Any] = {"session": {}, "compute": {}}
    if tomograms:
        given["session"]["input"] = tomograms
    if output:
        given["session"]["output"] = output
    if dask:
        given["compute"] = {"runner": "dask", "address": dask}
    return load_recipe(path, changes or (), given=given)


def _triple(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise RequestError(f"--shape {text} is not three integers z,y,x") from error
    return z, y, x


def _tell_result(result: dict[str, Any], output: str) -> None:
    rows = result["tomograms"]
    failed = [row for row in rows if row["state"] == "failed"]
    for row in failed:
        typer.echo(f"failed: {row['name']}: {row['error']}. {row['remedy']}".rstrip(), err=True)
    typer.echo(
        f"{len(rows) - len(failed)} of {len(rows)} tomograms done; look at {output}/index.html"
    )
    raise typer.Exit(SOME_FAILED if failed else DONE)


@contextmanager
def _progress() -> Iterator[Any]:
    """Yield a function that shows blocks done: a bar on a terminal, plain lines otherwise."""
    if not sys.stderr.isatty():
        yield _PlainProgress()
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
    )
    with Progress(*columns, console=Console(stderr=True)) as bars:
        bar = bars.add_task("", total=None)

        def show(tomogram: str, work: str, done: int, total: int) -> None:
            bars.update(bar, description=f"{tomogram}: {work}", completed=done, total=total)

        yield show


class _PlainProgress:
    """Says where a run is: each stage of a tomogram once, then at most every ten seconds."""

    def __init__(self) -> None:
        self._stage = ""
        self._said = 0.0

    def __call__(self, tomogram: str, work: str, done: int, total: int) -> None:
        stage = f"{tomogram} {work.split(maxsplit=1)[0]}"
        if stage == self._stage and time.monotonic() - self._said < PLAIN_SECONDS:
            return
        self._stage, self._said = stage, time.monotonic()
        typer.echo(f"{tomogram}: {work}, {done} of {total} blocks", err=True)


if __name__ == "__main__":
    main()
