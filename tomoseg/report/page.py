"""The page of a session: failures first, then one line a tomogram, then a card a tomogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

from tomoseg.core.lookalikes import told_left_out
from tomoseg.report.markup import duration, rendered
from tomoseg.report.summary import (
    COUNTED,
    DONE,
    ClassSummary,
    SessionSummary,
    TomogramSummary,
    count_noun,
)

FAILED = "failed"


def session_page(session: SessionSummary, thumbnails: Mapping[str, bytes] | None = None) -> str:
    """Write the page of a session.

    Parameters
    ----------
    session
        What its ``session.json`` says.
    thumbnails
        Tomogram → JPEG to embed in its card. Links lead to the full pictures.

    Returns
    -------
    A whole HTML document, for ``index.html`` beside the folders of the tomograms.
    """
    tomograms = list(enumerate(session.tomograms))
    known = {found.name: found for _, item in tomograms for found in item.classes}
    return rendered(
        "session.html",
        headline=_headline(session),
        boxes=_boxes(session),
        session=session,
        left_out=told_left_out(session.left_out),
        failures=[(number, item) for number, item in tomograms if item.state == FAILED],
        results=[(number, item) for number, item in tomograms if item.state != FAILED],
        lines=[(number, item, _cells(item, known)) for number, item in tomograms],
        columns=[(found.colour, name, _measured(found)[1]) for name, found in known.items()],
        counted=COUNTED,
        thumbnails=thumbnails or {},
        file_name=lambda path: PurePosixPath(path).name,
    )


def _headline(session: SessionSummary) -> str:
    failed = sum(item.state == FAILED for item in session.tomograms)
    text = f"{session.done} of {count_noun(len(session.tomograms), 'tomogram')} done"
    return f"{text}, {failed} failed" if failed else text


def _boxes(session: SessionSummary) -> list[tuple[str, str, str]]:
    """Return kind, value and label of the few numbers to see first."""
    states = Counter({"done": session.done, FAILED: 0})
    states.update(item.state for item in session.tomograms if item.state not in DONE)
    boxes = [(state if number else "", str(number), state) for state, number in states.items()]
    if session.wall_seconds is not None:
        boxes.append(("", duration(session.wall_seconds), "wall time"))
    return boxes


def _cells(item: TomogramSummary, known: Mapping[str, ClassSummary]) -> Iterable[tuple[str, str]]:
    """Yield each class's number, and its unit where another recipe measured it otherwise."""
    found = {one.name: one for one in item.classes}
    for name, first in known.items():
        number, unit = _measured(found[name]) if name in found else ("–", "")
        yield number, "" if unit == _measured(first)[1] else unit


def _measured(found: ClassSummary) -> tuple[str, str]:
    """Return the number that says most about a class, and its unit."""
    if found.filament_length_um is not None:
        return f"{found.filament_length_um:,.2f}", "µm of filament"
    if found.particles is not None:
        return f"{found.particles:,}", "particles"
    if found.surface_area_nm2 is not None:
        return f"{found.surface_area_nm2 / 1e6:,.3f}", "µm² of membrane"
    return f"{found.volume_nm3:,.0f}", "nm³"
