"""What the values of a volume of labels stand for."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import RequestError
from tomoseg.io.volumes.sources import are_above, as_labels

BACKGROUND = "background"
UNKNOWN = "not_annotated"
_NO_MEANING = -1


@dataclass(frozen=True, eq=False)
class Legend:
    """What the values of an annotation's voxels stand for.

    Parameters
    ----------
    labels
        int16, shape (256,): the label of each value, -1 where it has no meaning.
    above
        Instead: a threshold, and the label of what is above it; the rest is background.
    """

    labels: NDArray[np.int16]
    above: tuple[float, int] | None = None

    @classmethod
    def of(
        cls,
        values: Mapping[int, str] | None,
        own: Sequence[str],
        classes: Sequence[str],
        *,
        threshold: float | None = None,
    ) -> Legend:
        """Return the legend of an annotation that looked for ``own`` of all ``classes``.

        Where there is a threshold, they are one.
        """
        if threshold is not None:
            (name,) = own
            return cls(np.zeros(256, np.int16), (threshold, classes.index(name) + 1))
        meaning = {0: BACKGROUND, NOT_ANNOTATED: UNKNOWN}
        meaning |= dict(enumerate(own, start=1)) if values is None else values
        labels = np.full(256, _NO_MEANING, np.int16)
        known = {BACKGROUND: 0, UNKNOWN: NOT_ANNOTATED}
        for value, name in meaning.items():
            labels[value] = known[name] if name in known else classes.index(name) + 1
        return cls(labels)

    def read(self, voxels: NDArray[Any], place: str) -> NDArray[np.uint8]:
        """Return the labels that voxels of a file stand for.

        Raises
        ------
        RequestError
            If a value stands for nothing; ``place`` is the file that it names.
        """
        if self.above is not None:
            threshold, label = self.above
            return np.where(are_above(voxels, threshold), label, 0).astype(np.uint8)
        try:
            values = as_labels(voxels)
        except RequestError as error:
            raise RequestError(
                f"{place}: {error.message}",
                remedy="Say with threshold above which value the class is, such as threshold: 127 "
                "for a mask of 0 to 255 with soft edges, 0.5 for one of 0 to 1.",
            ) from error
        labels = self.labels[values]
        if labels.size and labels.min() == _NO_MEANING:
            value = int(values[labels == _NO_MEANING].min())
            known = ", ".join(str(known) for known in np.flatnonzero(self.labels != _NO_MEANING))
            raise RequestError(
                f"{place} holds the value {value}, which stands for no class; known are {known}",
                remedy="Name it in values or classes, or repaint; of a mask with soft edges, say "
                "with threshold above which value the class is.",
            )
        return labels.astype(np.uint8)
