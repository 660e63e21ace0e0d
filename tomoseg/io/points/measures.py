"""A CSV table of filaments in numbers, a row a filament."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, fields

import pandas as pd

from tomoseg.analysis.filaments import FilamentMeasures

MEASURE_COLUMNS = ["class", "filament", *(item.name for item in fields(FilamentMeasures)[2:])]


def measures_csv(measures: Sequence[FilamentMeasures]) -> str:
    """Return the fields of :class:`FilamentMeasures`, a row a filament; what is unknown is empty.

    The columns ``class`` and ``filament`` are those of the filaments' own table.
    """
    table = pd.DataFrame([asdict(one) for one in measures])
    table = table.rename(columns={"name": "class", "number": "filament"})
    text: str = table.reindex(columns=MEASURE_COLUMNS).to_csv(
        index=False, float_format="%.6g", lineterminator="\n"
    )
    return text
