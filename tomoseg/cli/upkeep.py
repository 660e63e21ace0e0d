"""What ``tomoseg status`` says beside the state of sessions: checks, attempts, and disk."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import typer

from tomoseg.cli.words import DONE, SOME_FAILED

if TYPE_CHECKING:
    from tomoseg.pipeline.history import Attempt


def tell_checked(place: str, *, as_json: bool) -> int:
    """Say what is lost, cut or changed of what sessions recorded; return the exit code."""
    from tomoseg.pipeline.checkup import compare_session
    from tomoseg.report.summary import count_noun
    from tomoseg.service.status import outputs_at

    every = {name: list(compare_session(output)) for name, output in outputs_at(place).items()}
    rows = [one for found in every.values() for one in found]
    bad = [one for one in rows if not one.is_whole]
    number = sum(bool(one.name) for one in rows)
    headline = f"{count_noun(number, 'tomogram')} looked at: " + (
        f"{len(bad)} to make again" if bad else "all that is recorded stands"
    )
    if as_json:
        sessions = {name: [one.as_dict() for one in found] for name, found in every.items()}
        told = {"headline": headline, "to_make_again": len(bad), "sessions": sessions}
        typer.echo(json.dumps(told, indent=1))
    else:
        typer.echo(headline)
        for name, found in every.items():
            for one in found:
                if one.command or one.found.changed:
                    typer.echo(f"{name}: {one}")
    return SOME_FAILED if bad else DONE


def tell_attempts(place: str, since: str, *, as_json: bool) -> int:
    """Say what ended since a time, and why what failed did; return the exit code."""
    from tomoseg.pipeline.history import History, since_when, totals
    from tomoseg.report.summary import count_noun
    from tomoseg.service.status import outputs_at

    moment = since_when(since, datetime.now(UTC))
    every = {name: History.read(output).since(moment) for name, output in outputs_at(place).items()}
    counts = totals(one for ended in every.values() for one in ended)
    said = ", ".join(f"{number} {state}" for state, number in counts.items())
    headline = (
        f"since {_moment(moment.isoformat())}: {said}, in {count_noun(len(every), 'session')}"
    )
    if as_json:
        sessions = {name: [vars(one) for one in ended] for name, ended in every.items()}
        told = {
            "headline": headline,
            "since": moment.astimezone(UTC).isoformat(timespec="seconds"),
            "totals": counts,
            "sessions": sessions,
        }
        typer.echo(json.dumps(told, indent=1))
        return DONE
    typer.echo(headline)
    for name, ended in every.items():
        for one in ended:
            typer.echo(f"{name}: {_attempt(one)}")
    return DONE


def add_disk(state: dict[str, Any], place: str) -> None:
    """Measure how much disk each session takes, and put it into what ``status`` says."""
    from tomoseg.service.status import outputs_at
    from tomoseg.service.usage import disk_of

    bytes_of = {name: disk_of(output) for name, output in outputs_at(place).items()}
    for name, found in bytes_of.items():
        state.get("sessions", {}).get(name, state)["bytes"] = found
    if "sessions" in state:
        kinds = next(iter(bytes_of.values()), {})
        state["bytes"] = {kind: sum(found[kind] for found in bytes_of.values()) for kind in kinds}


def disk_lines(state: dict[str, Any]) -> Iterator[str]:
    """Say how much disk each session takes that was measured."""
    if "bytes" in state:
        yield disk_words(state["bytes"])
    for name, session in state.get("sessions", {}).items():
        yield f"{name}: {disk_words(session['bytes'])}"


def disk_words(found: dict[str, int]) -> str:
    """Return the bytes of a session for people.

    >>> disk_words({"results": 2_000_000_000, "work": 0, "total": 2_000_000_000})
    '2.0 GB on disk: results 2.0 GB'
    """
    from tomoseg.pipeline.checks import gigabytes

    parts = [f"{kind} {gigabytes(n)}" for kind, n in found.items() if n and kind != "total"]
    return f"{gigabytes(found['total'])} on disk: {', '.join(parts) or 'nothing'}"


def _attempt(one: Attempt) -> str:
    from tomoseg.pipeline.history import BAD
    from tomoseg.report.markup import duration

    where = f" in {one.stage}" if one.stage else ""
    why = f": {one.error.rstrip('.')}. {one.remedy}".rstrip() if one.state in BAD else ""
    mark = "! " if one.state in BAD else ""
    return (
        f"{mark}{_moment(one.finished)}, {one.tomogram or 'the whole session'}: {one.state}{where} "
        f"after {duration(one.seconds)}{why}"
    )


def _moment(text: str) -> str:
    from tomoseg.report.summary import readable

    return readable(datetime.fromisoformat(text).astimezone(UTC).isoformat())
