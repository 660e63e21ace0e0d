"""The page of a session: failures first, then one line a tomogram, then a card a tomogram."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from math import prod
from pathlib import PurePosixPath

from tomoseg.core.lookalikes import told_left_out
from tomoseg.report.markup import (
    document,
    duration,
    escaped,
    jpeg,
    link,
    plain,
    section,
    swatch,
    tally,
)
from tomoseg.report.summary import (
    COUNTED,
    DONE,
    ClassSummary,
    SessionSummary,
    TomogramSummary,
    counts,
    course,
    described,
    numbered,
    readable,
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
    failures = "".join(
        _failure(number, item)
        for number, item in enumerate(session.tomograms)
        if item.state == FAILED
    )
    cards = "".join(
        _card(number, item, (thumbnails or {}).get(item.name))
        for number, item in enumerate(session.tomograms)
        if item.state != FAILED
    )
    body = f"""{_heading(session)}
{section("Failed", failures, kind="failures")}
{_comparison(session.tomograms)}
{section("Each result", cards, kind="cards")}
{_provenance(session)}"""
    return document(_headline(session), body)


def _headline(session: SessionSummary) -> str:
    failed = sum(item.state == FAILED for item in session.tomograms)
    text = f"{session.done} of {numbered(len(session.tomograms), 'tomogram')} done"
    return f"{text}, {failed} failed" if failed else text


def _heading(session: SessionSummary) -> str:
    states = Counter({"done": session.done, FAILED: 0})
    states.update(item.state for item in session.tomograms if item.state not in DONE)
    boxes = [(state if number else "", str(number), state) for state, number in states.items()]
    if session.wall_seconds is not None:
        boxes.append(("", duration(session.wall_seconds), "wall time"))
    when = f"at {readable(session.written)}" if session.written else "when this was written"
    end = f"finished {readable(session.finished)}" if session.finished else "not finished"
    left_out = told_left_out(session.left_out)
    return f"""<header>
<h1>{escaped(_headline(session))}</h1>
<p>Started {readable(session.started)}, {end}. This was so {when}; how it stands now,
<code>tomoseg status</code> with this folder says.</p>
{f"<p>{escaped(left_out)}.</p>" if left_out else ""}
{tally(boxes)}
</header>"""


def _failure(number: int, item: TomogramSummary) -> str:
    """Say of a failure which tomogram, what went wrong, and what to do."""
    parts = [
        f"<p>{escaped(item.error or 'No error was recorded.')}</p>",
        f"<p><b>What to do:</b> {escaped(item.remedy)}</p>" if item.remedy else "",
        *_remarks(item),
        _timings(item),
        _files(item),
    ]
    return _article(number, item, parts)


def _comparison(tomograms: Iterable[TomogramSummary]) -> str:
    """Write one line a tomogram with the one number a class that compares best."""
    known = {found.name: found for item in tomograms for found in item.classes}
    heads = "".join(
        f'<th scope="col">{swatch(found.colour)}{escaped(name)}'
        f"<small>{_measured(found)[1]}</small></th>"
        for name, found in known.items()
    )
    units = {name: _measured(found)[1] for name, found in known.items()}
    lines = "".join(_line(number, item, units) for number, item in enumerate(tomograms))
    return f"""<h2>All tomograms</h2>
<div class="scroll"><table class="session">
<thead><tr><th scope="col">Tomogram</th><th scope="col">State</th>{heads}<th scope="col">Time</th>
</tr></thead>
<tbody>
{lines}</tbody>
</table></div>"""


def _line(number: int, item: TomogramSummary, units: Mapping[str, str]) -> str:
    found = {one.name: one for one in item.classes}
    cells = "".join(f"<td>{_cell(found.get(name), unit)}</td>" for name, unit in units.items())
    time = duration(sum(seconds for _, seconds in item.seconds)) if item.seconds else "–"
    return (
        f'<tr><th scope="row"><a href="#t{number}">{escaped(item.name)}</a></th>'
        f"<td>{_state(item)}</td>{cells}<td>{time}</td></tr>\n"
    )


def _cell(found: ClassSummary | None, unit: str) -> str:
    """Return a class's number; with its unit where another recipe measured it otherwise."""
    if found is None:
        return "–"
    number, own = _measured(found)
    return number if own == unit else f"{number}<small>{own}</small>"


def _measured(found: ClassSummary) -> tuple[str, str]:
    """Return the number that says most about a class, and its unit."""
    if found.filament_length_um is not None:
        return f"{found.filament_length_um:,.2f}", "µm of filament"
    if found.particles is not None:
        return f"{found.particles:,}", "particles"
    if found.surface_area_nm2 is not None:
        return f"{found.surface_area_nm2 / 1e6:,.3f}", "µm² of membrane"
    return f"{found.volume_nm3:,.0f}", "nm³"


def _card(number: int, item: TomogramSummary, thumbnail: bytes | None) -> str:
    parts = [
        *_remarks(item),
        _picture(item, thumbnail),
        _classes(item),
        _timings(item),
        _files(item),
    ]
    return _article(number, item, parts)


def _article(number: int, item: TomogramSummary, parts: Iterable[str]) -> str:
    body = "\n".join(part for part in parts if part)
    return f"""<article id="t{number}">
<header><h3>{escaped(item.name)}</h3>{_state(item)}</header>
{body}
</article>
"""


def _remarks(item: TomogramSummary) -> list[str]:
    """Write the grid and what was odd."""
    grid = [described(item.sampling)] if item.sampling else []
    return [f"<p>{escaped(text)}</p>" for text in (*grid, *(f"Note: {n}" for n in item.notes))]


def _picture(item: TomogramSummary, thumbnail: bytes | None) -> str:
    """Link to the picture, through its thumbnail if there is one."""
    inside = "picture"
    if thumbnail is not None:
        alternative = f"middle slice of {item.name} with its classes outlined"
        inside = jpeg(thumbnail, alternative=alternative)
    return f'<a href="{link(item.picture)}">{inside}</a>' if item.picture else ""


def _classes(item: TomogramSummary) -> str:
    if not item.classes or item.sampling is None:
        return ""
    heads = "".join(f'<th scope="col">{text}</th>' for text in ("class", *COUNTED))
    total = prod(item.sampling.shape)
    rows = "".join(
        f'<tr><th scope="row">{swatch(found.colour)}{escaped(found.name)}</th>'
        + "".join(f"<td>{text}</td>" for text in _cells(found, total))
        + "</tr>\n"
        for found in item.classes
    )
    return f"<table>\n<thead><tr>{heads}</tr></thead>\n<tbody>\n{rows}</tbody>\n</table>"


def _cells(found: ClassSummary, total: int) -> tuple[str, str, str]:
    volume, part, objects = counts(found, total)
    return volume, part, ", ".join(filter(None, (objects, course(found))))


def _timings(item: TomogramSummary) -> str:
    if not item.seconds:
        return ""
    stages = ", ".join(f"{escaped(stage)} {duration(seconds)}" for stage, seconds in item.seconds)
    total = duration(sum(seconds for _, seconds in item.seconds))
    return f'<p class="faint">{total}: {stages}</p>'


def _files(item: TomogramSummary) -> str:
    links = "\n".join(
        f'<a href="{link(path)}">{escaped(PurePosixPath(path).name)}</a>' for path in item.files
    )
    return f'<p class="files">{links}</p>' if links else ""


def _provenance(session: SessionSummary) -> str:
    """Say what made these results."""
    recipe = f'<a href="{link(session.recipe)}">{escaped(session.recipe)}</a>'
    rows = [("tomoseg", escaped(session.version))]
    rows += [("recipe", recipe)] if session.recipe else []
    for number, network in enumerate(session.networks, start=1):
        title = "model" if len(session.networks) == 1 else f"model {number}"
        rows += [(f"{title}: {key}", escaped(plain(value))) for key, value in network.items()]
    lines = "".join(f"<dt>{escaped(key)}</dt><dd>{value}</dd>\n" for key, value in rows)
    return f"<footer>\n<dl>\n{lines}</dl>\n</footer>"


def _state(item: TomogramSummary) -> str:
    return f'<span class="state {escaped(item.state)}">{escaped(item.state)}</span>'
