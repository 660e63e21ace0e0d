"""The page of a training: how it went, what came out, and the places to look at, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.analysis.metrics.voxels import ClassScore, Counts, class_scores
from tomoseg.report.charts import Chart, Line, chart_svg
from tomoseg.report.examples import CONFUSED, FALSE, MISSED, Example, example_pictures
from tomoseg.report.markup import (
    document,
    duration,
    escaped,
    jpeg,
    plain,
    section,
    swatch,
    tally,
)
from tomoseg.report.progress import ProgressLine
from tomoseg.report.summary import ClassSummary, numbered

VALIDATION_ROWS, TRAINING_ROWS = 12, 4
GREY = "#8a929c"
"""Colour of the background in tables."""


@dataclass(frozen=True, eq=False, kw_only=True)
class TrainingSummary:
    """All that the page of a training shows.

    Parameters
    ----------
    name, version
        Of the model.
    mean_f1
        Of the network that was kept, over the classes that occur in the validation.
    classes
        Names and colours in the order of the labels 1, 2, …; voxels annotated for the training.
    background_voxels
        Voxels annotated as background for the training.
    confusion
        int64, shape (1 + classes, 1 + classes): voxels of the validation by truth (rows) and
        prediction of the network that was kept (columns), background first.
    training_volumes, validation_volumes
        Names of the annotated volumes.
    kept_step
        Step of the network that was kept.
    progress
        The log, from :func:`~tomoseg.report.progress.read_progress`.
    calibration
        Class → slope and intercept, as in the model's card.
    provenance
        Further facts, in the order to show.
    notes
        What speaks against the network.
    validation_examples, training_examples
        Places that the network that was kept has predicted; the worst ones are shown.
    """

    name: str
    version: str
    mean_f1: float
    classes: tuple[ClassSummary, ...]
    background_voxels: int
    confusion: Counts
    training_volumes: tuple[str, ...]
    validation_volumes: tuple[str, ...]
    kept_step: int
    progress: tuple[ProgressLine, ...]
    calibration: Mapping[str, tuple[float, float]]
    provenance: tuple[tuple[str, Any], ...] = ()
    notes: tuple[str, ...] = ()
    validation_examples: tuple[Example, ...] = ()
    training_examples: tuple[Example, ...] = ()

    @property
    def labels(self) -> tuple[tuple[str, str], ...]:
        """Name and colour of each label, background first."""
        return (("background", GREY), *((item.name, item.colour) for item in self.classes))

    @property
    def scores(self) -> list[ClassScore]:
        """Scores of each class."""
        return class_scores(self.confusion, [item.name for item in self.classes])


def training_page(training: TrainingSummary) -> str:
    """Write the page of a training, a whole HTML document, for ``training.html``."""
    body = f"""{_heading(training)}
{section("How it went", _curves(training), kind="charts")}
<h2>Scores on what was kept apart</h2>
<div class="tables">
<div class="scroll">{_class_table(training)}</div>
<div class="scroll">{_confusion_table(training)}</div>
</div>
{_rows(training, "Kept apart", training.validation_examples, most=VALIDATION_ROWS)}
{_rows(training, "Trained on", training.training_examples, most=TRAINING_ROWS)}
{_provenance(training)}"""
    return document(_headline(training), body, styles=("page.css", "training.css"))


def _headline(training: TrainingSummary) -> str:
    return f"{training.name} {training.version}: mean F1 {training.mean_f1:.3f}"


def _heading(training: TrainingSummary) -> str:
    last = training.progress[-1] if training.progress else None
    annotated = training.background_voxels + sum(item.voxels for item in training.classes)
    boxes = [
        ("done", f"{training.mean_f1:.3f}", "mean F1"),
        ("", duration(60 * last.minutes) if last else "–", "of training"),
        ("", numbered(len(training.training_volumes), "volume"), "trained on"),
        ("", f"{annotated:,}", "voxels annotated there"),
        ("", numbered(len(training.validation_volumes), "volume"), "with a part kept apart"),
        ("", f"{int(training.confusion.sum()):,}", "voxels judged there"),
    ]
    steps = f" of {last.step:,}" if last else ""
    notes = "".join(
        f'<p class="failed"><b>Note:</b> {escaped(note)}</p>' for note in training.notes
    )
    return f"""<header>
<h1>{escaped(_headline(training))}</h1>
<p>The network after step {training.kept_step:,}{steps} was kept: it was the best one on voxels
that no training step saw.</p>
{f'<div class="failures">{notes}</div>' if notes else ""}
{tally(boxes)}
</header>"""


def _curves(training: TrainingSummary) -> str:
    lines = training.progress
    colours = {item.name: item.colour for item in training.classes}
    rates = tuple((float(line.step), line.learning_rate) for line in lines)
    highest = max((rate for _, rate in rates), default=0.0)
    losses = tuple((float(line.step), line.loss) for line in lines if line.loss is not None)
    f1 = tuple(
        Line(name, _f1_points(lines, name), colour, dotted=True) for name, colour in colours.items()
    )
    means = tuple((float(line.step), line.mean_f1) for line in lines if line.mean_f1 is not None)
    kept = float(training.kept_step)
    charts = [
        Chart("F1 on what was kept apart", "step", (*f1, Line("mean", means)), (0.0, 1.0), kept),
        Chart("Loss", "step", (Line("", losses),), mark=kept),
        Chart("Learning rate", "step", (Line("", rates),), (0.0, highest), kept),
    ]
    calibrated = tuple(
        Line(name, _calibrated(*training.calibration[name]), colour)
        for name, colour in colours.items()
        if name in training.calibration
    )
    if calibrated:
        equal = Line("", ((0.0, 0.0), (1.0, 1.0)), GREY)
        title = "How often a class is right, by its score"
        charts.append(Chart(title, "score of the network", (equal, *calibrated), (0.0, 1.0)))
    return "".join(chart_svg(chart) for chart in charts)


def _f1_points(lines: Sequence[ProgressLine], name: str) -> tuple[tuple[float, float], ...]:
    scores = ((line.step, (line.f1 or {}).get(name)) for line in lines)
    return tuple((float(step), score) for step, score in scores if score is not None)


def _calibrated(slope: float, intercept: float) -> tuple[tuple[float, float], ...]:
    """Return calibrated over raw scores, σ(slope · logit(s) + intercept)."""
    scores = np.linspace(0.01, 0.99, 50)
    logits = slope * np.log(scores / (1 - scores)) + intercept
    values = 1 / (1 + np.exp(-logits))
    return tuple(zip(scores.tolist(), values.tolist(), strict=True))


def _class_table(training: TrainingSummary) -> str:
    names = ("class", "voxels to train on", "voxels to judge", "precision", "recall", "F1")
    heads = "".join(f'<th scope="col">{name}</th>' for name in names)
    present = int(training.confusion[0].sum())
    lines = [("background", GREY, training.background_voxels, present, ("–", "–", "–"))]
    lines += [
        (item.name, item.colour, item.voxels, score.support, _shares(score))
        for item, score in zip(training.classes, training.scores, strict=True)
    ]
    rows = "".join(
        f'<tr><th scope="row">{swatch(colour)}{escaped(name)}</th><td>{trained:,}</td>'
        f"<td>{judged:,}</td>" + "".join(f"<td>{share}</td>" for share in shares) + "</tr>\n"
        for name, colour, trained, judged, shares in lines
    )
    return (
        f'<table class="fitting">\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody></table>'
    )


def _shares(score: ClassScore) -> tuple[str, str, str]:
    return _share(score.precision), _share(score.recall), _share(score.f1)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _confusion_table(training: TrainingSummary) -> str:
    """Write the voxels of each true class (rows) by what was found there (columns)."""
    heads = "".join(
        f'<th scope="col">{swatch(colour)}{escaped(name)}</th>' for name, colour in training.labels
    )
    rows = "".join(
        f'<tr><th scope="row">{swatch(colour)}{escaped(name)}</th>'
        + _confusion_cells(training, counts)
        + "</tr>\n"
        for (name, colour), counts in zip(training.labels, training.confusion, strict=True)
    )
    return f"""<table class="fitting confusion">
<thead><tr><th scope="col">annotated ↓ found →</th>{heads}</tr></thead>
<tbody>
{rows}</tbody></table>"""


def _confusion_cells(training: TrainingSummary, counts: Counts) -> str:
    """Write one row; a cell is filled with its column's colour by its share of the row."""
    cells = []
    total = int(counts.sum())
    for (_, colour), count in zip(training.labels, counts.tolist(), strict=True):
        share = count / total if total else 0.0
        strength = f"{round(0.6 * 255 * share):02x}"
        text = f"{100 * share:.1f}%" if total else "–"
        fill = f"background:{colour}{strength}"
        cells.append(f'<td style="{fill}">{text}<small>{count:,}</small></td>')
    return "".join(cells)


def _rows(training: TrainingSummary, title: str, examples: Sequence[Example], *, most: int) -> str:
    """Write a row of pictures for each of the worst examples, the very worst one first."""
    if not examples:
        return ""
    shown = sorted(examples, key=lambda example: -example.badness)[:most]
    body = "".join(_row(training, example) for example in shown)
    heading = f"{title}: {len(shown)} of {numbered(len(examples), 'place')}, the worst first"
    return f'<h2>{heading}</h2>\n{_key(training)}\n<div class="rows">\n{body}</div>'


def _key(training: TrainingSummary) -> str:
    errors = (("found, not annotated", FALSE), ("missed", MISSED), ("another class", CONFUSED))
    colours = (*((item.name, item.colour) for item in training.classes), *errors)
    items = "".join(
        f'<span class="item">{swatch(colour)}{escaped(name)}</span> ' for name, colour in colours
    )
    return f"""<p class="key">{items}<span class="faint">Striped: not annotated, and not counted.
y is upwards.</span></p>"""


def _row(training: TrainingSummary, example: Example) -> str:
    colours = tuple(item.colour for item in training.classes)
    place = _place(example)
    images = "".join(
        f"<div>{jpeg(picture, alternative=f'{name} of {example.volume}, {place}')}{name}</div>"
        for name, picture in example_pictures(example, colours).items()
    )
    name = escaped(example.tomogram)
    if example.volume != example.tomogram:
        name += f" ({escaped(example.volume)})"
    wrong, annotated = int(example.wrong.sum()), int(example.annotated.sum())
    return f"""<figure>
<figcaption><b>{name}</b>, {place}{_row_scores(training, example)}
<span class="scores">{wrong:,} of {annotated:,} voxels wrong</span></figcaption>
<div class="panels">{images}</div>
</figure>
"""


def _place(example: Example) -> str:
    z, y, x = example.begin
    rows, columns = example.image.shape
    return f"z = {z}, y = {y}–{y + rows - 1}, x = {x}–{x + columns - 1}"


def _row_scores(training: TrainingSummary, example: Example) -> str:
    """Write the F1 of the classes that are or were found here, and which ones nobody judged."""
    names = [item.name for item in training.classes]
    scores = class_scores(example.counts(len(names)), names)
    parts = [
        f'<span class="scores">{swatch(item.colour)}{escaped(item.name)} {score.f1:.3f}</span>'
        for item, score in zip(training.classes, scores, strict=True)
        if not math.isnan(score.f1)
    ]
    unjudged = [name for label, name in enumerate(names, start=1) if label not in example.judged]
    if unjudged:
        parts.append(f'<span class="scores">not judged: {escaped(", ".join(unjudged))}</span>')
    return "\n".join(parts)


def _provenance(training: TrainingSummary) -> str:
    facts = (
        ("trained on", ", ".join(training.training_volumes)),
        ("kept apart in", ", ".join(training.validation_volumes)),
        *training.provenance,
    )
    lines = "".join(
        f"<dt>{escaped(name)}</dt><dd>{escaped(plain(value))}</dd>\n" for name, value in facts
    )
    return f"<footer>\n<dl>\n{lines}</dl>\n</footer>"
