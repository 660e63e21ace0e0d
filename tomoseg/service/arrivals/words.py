"""What is known of a session in words: the same wherever a person asks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from tomoseg.io.stores import Folder, free_bytes
from tomoseg.report.markup import duration
from tomoseg.service.arrivals.facts import Hindrance
from tomoseg.service.arrivals.standings import Stand, Standing

SHORT = {
    "recipe": "refused",
    "unreadable": "cannot be looked at",
    "elsewhere": "served by another watch",
}
"""What a hindrance makes of a session, where its kind is no word for that."""
QUIET = (Standing.DONE, Standing.RUNNING, Standing.READY, Standing.SETTLING)
"""Where a tomogram needs no line of its own among many."""
OF_SESSION = (Standing.PAUSED, Standing.REFUSED)
"""Where it stands for what its session's line says."""
NAMED = 3


def tell_stand(stand: Stand, now: datetime) -> str:
    """Say why a tomogram stands where it does and what mends it; nothing where nothing is wrong."""
    why = sentence(stand.say, stand.remedy)
    tried = f"after {_attempts(stand)}" if stand.attempts else ""
    match stand.standing:
        case Standing.DONE:
            head = why = ""
        case Standing.SET_ASIDE:
            head = f"set aside {tried}"
        case Standing.RESTING:
            head = f"until {clock(stand.until, now)} {tried}".rstrip()
        case Standing.INCOMPLETE:
            head = f"unchanged for {age(stand.since, now)}"
        case Standing.SETTLING:
            head = f"last changed {age(stand.since, now)} ago"
        case _:
            head = since(stand.since, now)
    return ": ".join(part for part in (head, why) if part)


def tell_hindrance(hindrance: Hindrance, now: datetime, output: Folder | None = None) -> str:
    """Say what keeps a whole session from work, since when, and what mends it.

    What an error says of the disk of its output is old: the free space is measured now.
    """
    word = SHORT.get(hindrance.kind, hindrance.kind)
    why = sentence(hindrance.say, hindrance.remedy)
    if hindrance.is_full and output and (free := free_bytes(output)) is not None:
        why += f" Free there now: {free / 1e9:.3g} GB."
    return f"{word} {since(hindrance.since, now)}: {why}"


def line_of(name: str, state: str, say: str) -> str:
    """Say of one tomogram where it stands and why.

    >>> line_of("a", "set aside", "set aside after 3 attempts: broken"), line_of("b", "ready", "")
    ('a: set aside after 3 attempts: broken', 'b: ready')
    """
    parts = ("" if say.startswith(state) else state, say)
    return f"{name}: " + " - ".join(part for part in parts if part)


def tell_counts(counts: Mapping[Standing, int]) -> str:
    """Say how many tomograms stand where, those that are done or failed for good left out.

    >>> tell_counts({Standing.SETTLING: 2, Standing.RUNNING: 1, Standing.DONE: 7})
    '2 settling, 1 running'
    """
    ends = (Standing.DONE, Standing.SET_ASIDE, Standing.REFUSED)
    return ", ".join(f"{n} {each}" for each, n in counts.items() if n and each not in ends)


def names(all_names: Sequence[str]) -> str:
    """Name some of many.

    >>> names(["a", "b", "c", "d", "e"])
    'a, b, c and 2 more'
    """
    more = f" and {len(all_names) - NAMED} more" if len(all_names) > NAMED else ""
    return ", ".join(all_names[:NAMED]) + more


def sentence(say: str, remedy: str) -> str:
    """Put what is wrong and what mends it behind each other."""
    return ". ".join(part for part in (say, remedy) if part)


def since(moment: str, now: datetime) -> str:
    """Say since when, and how long that is.

    >>> since("2026-01-31T02:10:00+00:00", datetime.fromisoformat("2026-01-31T02:22:05+00:00"))
    'since 02:10 UTC (12 min 5 s)'
    """
    return f"since {clock(moment, now)} ({age(moment, now)})"


def age(moment: str, now: datetime) -> str:
    """Say how long ago a time is.

    >>> age("2026-01-31T02:10:00+00:00", datetime.fromisoformat("2026-02-05T05:22:05+00:00"))
    '5 days 3 h'
    """
    past = max(timedelta(), now - datetime.fromisoformat(moment))
    if past < timedelta(days=2):
        return duration(past.total_seconds())
    return f"{past.days} days {past.seconds // 3600} h"


def clock(moment: str, now: datetime) -> str:
    """Say a time that is near, or with its day if it is not.

    >>> clock("2026-01-31T02:10:00+00:00", datetime.fromisoformat("2026-02-02T02:22:05+00:00"))
    '2026-01-31 02:10 UTC'
    """
    then = datetime.fromisoformat(moment)
    is_near = abs(now - then) < timedelta(hours=12)
    return f"{then:%H:%M %Z}" if is_near else f"{then:%Y-%m-%d %H:%M %Z}"


def _attempts(stand: Stand) -> str:
    return f"{stand.attempts} attempt" + ("" if stand.attempts == 1 else "s")
