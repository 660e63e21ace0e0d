"""Commands on networks: train one, score what it found."""

from __future__ import annotations

import json
import os
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from tomoseg.cli.words import number
from tomoseg.core.errors import RequestError

if TYPE_CHECKING:
    from tomoseg.evaluation import Scores
    from tomoseg.nets.settings import TrainingProgress

ParticlesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--particle",
        metavar="NAME=RADIUS[,WEIGHT]",
        help="Radius in Å and weight for that, beside the challenge's own; repeatable.",
    ),
]
ValuesOption = Annotated[
    list[str] | None,
    typer.Option(
        "--value",
        metavar="N=CLASS",
        help="What a value of a volume is: a class, background, not_annotated; repeatable.",
    ),
]


def train(recipe: Annotated[Path, typer.Argument(help="YAML recipe of a training.")]) -> None:
    """Train a network from annotated tomograms; killed and called again, it goes on."""
    # Threads of torch that spin while they wait starve each other on a busy machine; it must be
    # known before torch is imported.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    from tomoseg.training.recipe import DEFAULT_LABELS, load_training_recipe, train_from

    settings = load_training_recipe(recipe)
    if any(getattr(one, "labels", "") == DEFAULT_LABELS for one in settings.annotations):
        typer.echo(f"labels are read from {DEFAULT_LABELS}; the recipe's key labels names others")
    card = train_from(
        settings, report=lambda progress: typer.echo(_training_line(progress)), say=typer.echo
    )
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
        scores = ", ".join(f"{name} {number(f1)}" for name, f1 in progress.f1.items())
        kept = " (kept)" if progress.is_best else ""
        line += f"  mean F1 {progress.mean_f1:.3f}{kept}: {scores}"
    return line


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
    particles: ParticlesOption = None,
    classes: Annotated[
        str | None, typer.Option(metavar="A,B", help="Names of labels 1, 2, … or of a STAR file.")
    ] = None,
    values: ValuesOption = None,
    threshold: Annotated[
        float | None,
        typer.Option(help="Of masks with soft edges: the class is where it is above this."),
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
        values=_values(values) if values else None,
        threshold=threshold,
        instances=instances,
        czii=_czii_particles(particles or []) if czii or particles else None,
        tomogram=tomogram,
    )
    if is_folder(found) and is_folder(truth):
        parts = evaluate_folders(found, truth, options)
        table = "\n\n".join(f"{kind}\n{_table(scores)}" for kind, scores in parts.items())
        typer.echo(json.dumps(parts, indent=1) if as_json else table)
        return
    scores = evaluate_files(found, truth, options, say=partial(typer.echo, err=True))
    typer.echo(json.dumps(scores, indent=1) if as_json else _table(scores))


def _values(given: list[str]) -> dict[int, str]:
    """Return what values stand for."""
    meant = {}
    for text in given:
        value, _, name = text.partition("=")
        if not value.isdecimal() or int(value) > 255 or not name:
            raise RequestError(f"--value {text} is not N=CLASS with a value N of 0 to 255")
        meant[int(value)] = name
    return meant


def _czii_particles(given: list[str]) -> dict[str, tuple[float, float]]:
    """Return radius and weight of the challenge's particles and of those that are given."""
    from tomoseg.analysis.metrics import CZII_RADII_ANGSTROM, CZII_WEIGHTS

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
    columns = [[name, *(number(row.get(key)) for key in keys)] for name, row in scores.items()]
    widths = [max(map(len, column)) for column in columns]
    lines = zip(["", *keys], *columns, strict=True)
    return "\n".join(
        "  ".join(
            [line[0].ljust(head), *(c.rjust(w) for c, w in zip(line[1:], widths, strict=True))]
        )
        for line in lines
    )
