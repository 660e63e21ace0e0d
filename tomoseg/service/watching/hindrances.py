"""What keeps a whole session from being worked on: gone, paused, a wrong recipe, another watch."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from tomoseg.core.redaction import one_line, redacted
from tomoseg.io.stores import Entry, Folder, checked_url
from tomoseg.service.arrivals import Hindrance, SessionWork, Sights, Standing, find_stands, iso
from tomoseg.service.arrivals.presence import Presence
from tomoseg.service.watching.recipes import SessionRecipe
from tomoseg.service.watching.sessions import WatchedSession
from tomoseg.service.watching.settings import Watch

PAUSE = "tomoseg.pause"
"""Beside the tomograms, it lets the session wait; its text is the reason."""
LARGEST_REASON_BYTES = 4096


def taken_by(session: WatchedSession, other: Presence) -> Hindrance | None:
    """Return what hinders if another watch serves an output from another folder."""
    for name, known in other.places.items():
        output = checked_url(other.output.replace("{session}", name))
        if output == session.output and known.url != session.url:
            return Hindrance(
                "elsewhere",
                f"another watch serves {session.results}, from {known.url}: {other}",
                "Give one of them another output or other sessions, or end it.",
                other.owner.began,
            )
    return None


def hindrances_of(
    watch: Watch,
    session: WatchedSession,
    known: tuple[Sights, SessionWork],
    recipe: SessionRecipe | None,
    entries: Sequence[Entry],
    now: datetime,
) -> tuple[Hindrance, ...]:
    """Return what keeps a session from being worked on; what was known before keeps its time."""
    sights, work = known
    found = find_pause(watch, session, sights, entries, now)
    where = find_stands(sights, work, now).values()
    is_waited_for = any(one.standing == Standing.GONE for one in where)
    if recipe is None and is_waited_for and not found:
        say = f"no tomogram is there any more: {session.url} is empty or gone"
        meant = f"python -m flows.watch {watch.file} --pause {session.name}"
        remedy = f"Mount its drive or put it back; if it is meant so: {meant}"
        found.append(Hindrance("gone", say, remedy, iso(now)))
    if recipe is not None and recipe.error is not None:
        found.append(Hindrance("recipe", recipe.error.message, recipe.error.remedy, iso(now)))
    return since(found, sights)


def find_pause(
    watch: Watch, session: WatchedSession, sights: Sights, entries: Sequence[Entry], now: datetime
) -> list[Hindrance]:
    """Return what says that a person lets a session wait: a file beside it, or a command."""
    for entry in entries:
        if entry.name == PAUSE:
            content = b""
            if entry.size <= LARGEST_REASON_BYTES:
                content = Folder(session.url).read(PAUSE)
            why = one_line(redacted(content.decode(errors="replace").strip()))
            remedy = f"To go on, remove {session.url}/{PAUSE}."
            return [Hindrance("paused", why or f"there is a {PAUSE}", remedy, iso(now))]
    if sights.paused:
        remedy = f"To go on: python -m flows.watch {watch.file} --resume {session.name}"
        return [
            Hindrance("paused", sights.why_paused or "a person asked for it", remedy, sights.paused)
        ]
    return []


def since(found: Sequence[Hindrance], old: Sights) -> tuple[Hindrance, ...]:
    """Return hindrances with the time at which they were first found."""
    known = {(each.kind, each.say): each for each in old.hindrances}
    return tuple(
        replace(each, since=known[each.kind, each.say].since)
        if (each.kind, each.say) in known
        else each
        for each in found
    )
