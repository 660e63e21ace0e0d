"""How a training went, read from its log."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Self


@dataclass(frozen=True)
class ProgressLine:
    """Where a training stood, as one line of its log says.

    Parameters
    ----------
    step
        Steps done.
    minutes
        Time spent.
    learning_rate
        At this step.
    loss
        Mean since the line before; None if there was no step.
    f1
        Per class, of a validation; None where the class neither is nor was found, empty if there
        was no validation.
    mean_f1
        Over the classes that occur; None if there was no validation.
    """

    step: int
    minutes: float
    learning_rate: float
    loss: float | None = None
    f1: Mapping[str, float | None] | None = None
    mean_f1: float | None = None

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """Return the line that a mapping describes; further keys are ignored."""
        return cls(
            int(values["step"]),
            float(values["minutes"]),
            float(values["learning_rate"]),
            values.get("loss"),
            values.get("f1") or None,
            values.get("mean_f1"),
        )


def read_progress(log: str) -> tuple[ProgressLine, ...]:
    """Read a training's log, one JSON object a line.

    A training that was killed goes on from an earlier step, so that a line takes the place of
    those before it that stand at later steps. Lines of one step are one, and a line that was cut
    off by the kill is left out.

    >>> log = '''{"step": 4, "minutes": 1, "learning_rate": 0.1, "loss": 0.5}
    ... {"step": 6, "minutes": 2, "learning_rate": 0.1, "loss": 0.4}
    ... {"step": 5, "minu
    ... {"step": 5, "minutes": 1.5, "learning_rate": 0.1, "loss": 0.3}'''
    >>> [(line.step, line.loss) for line in read_progress(log)]
    [(4, 0.5), (5, 0.3)]
    """
    lines: list[ProgressLine] = []
    for text in log.splitlines():
        try:
            line = ProgressLine.from_dict(json.loads(text))
        except ValueError:  # cut off
            continue
        while lines and lines[-1].step > line.step:
            lines.pop()
        if lines and lines[-1].step == line.step:
            line = _merged(lines.pop(), line)
        lines.append(line)
    return tuple(lines)


def _merged(first: ProgressLine, second: ProgressLine) -> ProgressLine:
    """Return what two lines of one step say; the second one knows better."""
    return ProgressLine(
        second.step,
        second.minutes,
        second.learning_rate,
        first.loss if second.loss is None else second.loss,
        second.f1 or first.f1,
        first.mean_f1 if second.mean_f1 is None else second.mean_f1,
    )
