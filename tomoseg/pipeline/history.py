"""What was tried in a session and what became of it, beside its results.

``.tomoseg/attempts.json`` has an entry for each time that a tomogram was worked on. A success does
not erase what failed before it, and what was found done is no attempt. Whoever holds the output's
claim writes it, through :class:`tomoseg.pipeline.journal.Journal`.
"""

from __future__ import annotations

import logging
import re
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Self

from tomoseg.core.errors import RequestError, StoreError, TomosegError
from tomoseg.core.layout import ATTEMPTS
from tomoseg.io.stores import Folder

MOST, MOST_DAYS = 2000, 400
"""Attempts that are kept, and for how long."""
RUNNING, DONE, FAILED, REFUSED = "running", "done", "failed", "refused"
STOPPED, DIED = "stopped", "died"
BAD = (FAILED, REFUSED, DIED)
WHY_DIED = "its run ended without a word: it was killed, or its machine went down"

_SPAN = re.compile(r"(\d{1,4})\s*(min|h|d|w)")
_UNITS = {"min": "minutes", "h": "hours", "d": "days", "w": "weeks"}

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Attempt:
    """One time that a tomogram was worked on; times are ISO 8601, UTC.

    Parameters
    ----------
    tomogram
        Its name; empty for what stopped the whole session.
    started
        When it was begun.
    run
        As log lines name it.
    finished
        When it ended; of one that died, its last sign of life; empty while it runs.
    state
        ``running``, ``done``, ``failed``, ``refused`` (only another recipe or file helps),
        ``stopped`` (it waits again) or ``died`` (its run ended without a word).
    stage
        In which it failed.
    error, remedy
        Of a failure.
    seconds
        From begin to end.
    """

    tomogram: str
    started: str
    run: str = ""
    finished: str = ""
    state: str = RUNNING
    stage: str = ""
    error: str = ""
    remedy: str = ""
    seconds: float = 0.0

    def __post_init__(self) -> None:
        """Check that times are times: they are compared."""
        for moment in filter(None, (self.started, self.finished)):
            datetime.fromisoformat(moment)

    def ended(self, finished: str, state: str, **said: str) -> Self:
        """Return it as it ended."""
        span = datetime.fromisoformat(finished) - datetime.fromisoformat(self.started)
        return replace(
            self, finished=finished, state=state, seconds=max(0.0, span.total_seconds()), **said
        )


@dataclass(frozen=True)
class History:
    """The attempts of a session, those that began first first."""

    attempts: tuple[Attempt, ...] = ()

    @classmethod
    def read(cls, output: Folder) -> Self:
        """Read it from an output; of what was cut nothing is known, and that is told."""
        if not output.exists(ATTEMPTS):
            return cls()
        names = [f.name for f in fields(Attempt)]
        try:
            rows = output.read_json(ATTEMPTS)["attempts"]
            known = [{name: row[name] for name in names if name in row} for row in rows]
            return cls(tuple(Attempt(**row) for row in known))
        except (StoreError, KeyError, TypeError, ValueError) as error:
            log.warning("%s/%s cannot be read, and begins anew: %s", output, ATTEMPTS, error)
            return cls()

    def write(self, output: Folder, now: datetime) -> None:
        """Write the newest of it; the caller holds the claim on the output."""
        oldest = _iso(now - timedelta(days=MOST_DAYS))
        kept = [asdict(one) for one in self.attempts[-MOST:] if one.started >= oldest]
        output.write_json(ATTEMPTS, {"attempts": kept})

    def closed(self, last_sign: Callable[[str], str]) -> Self:
        """Return it with what still runs by its word as died: its run does not any more.

        Parameters
        ----------
        last_sign
            Returns when a tomogram was last known to be worked on; empty if that is not known.
        """

        def ended(one: Attempt) -> Attempt:
            if one.finished:
                return one
            return one.ended(max(last_sign(one.tomogram), one.started), DIED, error=WHY_DIED)

        return replace(self, attempts=tuple(map(ended, self.attempts)))

    def noted(self, row: Mapping[str, Any], run: str, now: datetime) -> Self:
        """Return it after a tomogram's row of ``session.json`` has changed: begun or ended."""
        name, state = row["name"], row["state"]
        open_ = [one for one in self.attempts if one.tomogram == name and not one.finished]
        others = tuple(one for one in self.attempts if one not in open_)
        if state == RUNNING:
            return replace(self, attempts=(*others, Attempt(name, _iso(now), run)))
        if not open_ or state == "already there":
            return replace(self, attempts=others)
        state = STOPPED if state == "waiting" else state
        said = {key: str(row.get(key, "")) for key in ("stage", "error", "remedy")}
        return replace(self, attempts=(*others, open_[-1].ended(_iso(now), state, **said)))

    def stopped(self, error: TomosegError, run: str, now: datetime, *, is_refusal: bool) -> Self:
        """Return it with what stopped the whole session; of the same again, only the last time."""
        state, last = (REFUSED if is_refusal else FAILED), self.attempts[-1:]
        is_again = bool(last) and (last[0].tomogram, last[0].error) == ("", error.message)
        begun = last[0] if is_again else Attempt("", _iso(now), run)
        others = self.attempts[:-1] if is_again else self.attempts
        ended = begun.ended(_iso(now), state, error=error.message, remedy=error.remedy)
        return replace(self, attempts=(*others, ended))

    def since(self, moment: datetime) -> tuple[Attempt, ...]:
        """Return what ended since then, what failed first, the last first."""
        begin = _iso(moment)
        ended = [one for one in self.attempts if one.finished >= begin]
        ended.sort(key=lambda one: one.finished, reverse=True)
        return tuple(sorted(ended, key=lambda one: one.state not in BAD))


def totals(attempts: Iterable[Attempt]) -> dict[str, int]:
    """Return how many attempts ended how, what failed among them even if it is none.

    >>> totals([Attempt("a", "", state="done"), Attempt("b", "", state="died")])
    {'done': 1, 'failed': 0, 'died': 1}
    """
    return {DONE: 0, FAILED: 0, **Counter(one.state for one in attempts)}


def since_when(text: str, now: datetime) -> datetime:
    """Return the moment that ``7d``, ``12h``, ``30min``, ``2w`` or a date stands for.

    Raises
    ------
    RequestError
        If it is none of these, or lies in the future.

    Examples
    --------
    >>> since_when("36h", datetime(2026, 11, 30, 12, tzinfo=UTC)).isoformat()
    '2026-11-29T00:00:00+00:00'
    """
    if span := _SPAN.fullmatch(text.strip()):
        return now - timedelta(**{_UNITS[span[2]]: int(span[1])})
    try:
        moment = datetime.fromisoformat(text.strip())
    except ValueError as error:
        raise RequestError(
            f"--since {text!r} is no time",
            remedy="Say 7d, 12h, 30min, 2w, or a date such as 2026-11-20.",
        ) from error
    moment = moment if moment.tzinfo else moment.astimezone()
    if moment > now:
        raise RequestError(f"--since {text}: that time has not come", remedy="Name a time before.")
    return moment


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat(timespec="seconds")
