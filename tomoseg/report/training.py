"""The page of a training: how it went, what came out, and the places to look at, worst first."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from tomoseg.analysis.metrics.voxels import ClassScore, Counts, class_scores
from tomoseg.report.charts import Chart, Line
from tomoseg.report.examples import CONFUSED, FALSE, MISSED, Example, example_pictures
from tomoseg.report.markup import duration, rendered
from tomoseg.report.progress import ProgressLine
from tomoseg.report.summary import ClassSummary, count_noun

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

    def scores_at(self, example: Example) -> list[tuple[ClassSummary, float]]:
        """Return the classes that are or were found in a place, with their F1."""
        names = [item.name for item in self.classes]
        pairs = zip(self.classes, class_scores(example.counts(len(names)), names), strict=True)
        return [(item, score.f1) for item, score in pairs if not math.isnan(score.f1)]

    def unjudged_at(self, example: Example) -> list[str]:
        """Return the classes that nobody judged in a place."""
        labelled = enumerate(self.classes, start=1)
        return [item.name for label, item in labelled if label not in example.judged]


def training_page(training: TrainingSummary) -> str:
    """Write the page of a training, a whole HTML document, for ``training.html``."""
    errors = (("found, not annotated", FALSE), ("missed", MISSED), ("another class", CONFUSED))
    apart, seen = training.validation_examples, training.training_examples
    return rendered(
        "training.html",
        headline=f"{training.name} {training.version}: mean F1 {training.mean_f1:.3f}",
        boxes=_boxes(training),
        training=training,
        charts=_charts(training),
        class_rows=_class_rows(training),
        confusion_rows=_confusion_rows(training),
        examples=[
            ("Kept apart", len(apart), _worst(apart, VALIDATION_ROWS)),
            ("Trained on", len(seen), _worst(seen, TRAINING_ROWS)),
        ],
        key=(*training.labels[1:], *errors),
        example_pictures=example_pictures,
        colours=tuple(item.colour for item in training.classes),
        facts=(
            ("trained on", ", ".join(training.training_volumes)),
            ("kept apart in", ", ".join(training.validation_volumes)),
            *training.provenance,
        ),
    )


def _boxes(training: TrainingSummary) -> list[tuple[str, str, str]]:
    """Return kind, value and label of the few numbers to see first."""
    last = training.progress[-1] if training.progress else None
    annotated = training.background_voxels + sum(item.voxels for item in training.classes)
    return [
        ("done", f"{training.mean_f1:.3f}", "mean F1"),
        ("", duration(60 * last.minutes) if last else "–", "of training"),
        ("", count_noun(len(training.training_volumes), "volume"), "trained on"),
        ("", f"{annotated:,}", "voxels annotated there"),
        ("", count_noun(len(training.validation_volumes), "volume"), "with a part kept apart"),
        ("", f"{int(training.confusion.sum()):,}", "voxels judged there"),
    ]


def _charts(training: TrainingSummary) -> list[Chart]:
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
    return charts


def _f1_points(lines: Sequence[ProgressLine], name: str) -> tuple[tuple[float, float], ...]:
    scores = ((line.step, (line.f1 or {}).get(name)) for line in lines)
    return tuple((float(step), score) for step, score in scores if score is not None)


def _calibrated(slope: float, intercept: float) -> tuple[tuple[float, float], ...]:
    """Return calibrated over raw scores, σ(slope · logit(s) + intercept)."""
    scores = np.linspace(0.01, 0.99, 50)
    logits = slope * np.log(scores / (1 - scores)) + intercept
    values = 1 / (1 + np.exp(-logits))
    return tuple(zip(scores.tolist(), values.tolist(), strict=True))


def _class_rows(training: TrainingSummary) -> list[tuple[str, str, str, str, tuple[str, ...]]]:
    """Return name, colour, voxels to train on and to judge, and scores of each label."""
    present = f"{training.confusion[0].sum():,}"
    first = ("background", GREY, f"{training.background_voxels:,}", present, ("–", "–", "–"))
    rest = [
        (item.name, item.colour, f"{item.voxels:,}", f"{score.support:,}", _shares(score))
        for item, score in zip(training.classes, training.scores, strict=True)
    ]
    return [first, *rest]


def _shares(score: ClassScore) -> tuple[str, str, str]:
    return _share(score.precision), _share(score.recall), _share(score.f1)


def _share(value: float) -> str:
    return "–" if math.isnan(value) else f"{value:.3f}"


def _confusion_rows(
    training: TrainingSummary,
) -> list[tuple[str, str, list[tuple[str, str, str]]]]:
    """Return the voxels of each true class (rows) by what was found there (columns)."""
    pairs = zip(training.labels, training.confusion, strict=True)
    return [(name, colour, _confusion_cells(training, counts)) for (name, colour), counts in pairs]


def _confusion_cells(training: TrainingSummary, counts: Counts) -> list[tuple[str, str, str]]:
    """Return fill, share and count; a cell has its column's colour by its share of the row."""
    cells = []
    total = int(counts.sum())
    for (_, colour), count in zip(training.labels, counts.tolist(), strict=True):
        share = count / total if total else 0.0
        fill = f"{colour}{round(0.6 * 255 * share):02x}"
        cells.append((fill, f"{100 * share:.1f}%" if total else "–", f"{count:,}"))
    return cells


def _worst(examples: Sequence[Example], most: int) -> list[Example]:
    return sorted(examples, key=lambda example: -example.badness)[:most]
