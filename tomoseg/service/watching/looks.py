"""One look at all sessions: what is new, waiting, ready, done, set aside; and what to start."""

from __future__ import annotations

import logging
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import ClaimError, TomosegError
from tomoseg.core.events import at
from tomoseg.io.stores import digest, is_folder
from tomoseg.service.arrivals import (
    Account,
    Hindrance,
    SessionWork,
    Sights,
    Stand,
    Standing,
    Trouble,
    account_of,
    after,
    iso,
)
from tomoseg.service.arrivals.presence import Known, Presence, announced, check_home, read_presence
from tomoseg.service.watching.asking import try_again
from tomoseg.service.watching.changes import keep_sights, with_again
from tomoseg.service.watching.hindrances import hindrances_of, since, taken_by
from tomoseg.service.watching.losses import losses, turn_of
from tomoseg.service.watching.recipes import SessionRecipe, session_recipe
from tomoseg.service.watching.sessions import (
    FoundSessions,
    WatchedSession,
    find_sessions,
    presence_of,
    presences_of,
    remembered,
)
from tomoseg.service.watching.settings import Watch
from tomoseg.service.watching.sightings import (
    FORGOTTEN,
    entries_of,
    has_tomograms,
    seen_gone,
    seen_there,
)

COMPARED_AGAIN = timedelta(hours=1)
"""What could not be made again is not tried sooner."""

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class SessionLook:
    """What one look found out about one session.

    Parameters
    ----------
    place
        The session.
    recipe
        Its recipe, or what is wrong with it; None if the look failed, or nothing is there.
    account
        All that is known of its tomograms; if the look failed, from an earlier one.
    problem
        Why the look failed; the next one may not.
    """

    session: WatchedSession
    recipe: SessionRecipe | None = None
    account: Account = field(default_factory=Account)
    problem: str = ""

    @property
    def sights(self) -> Sights:
        """What looks saw of its tomograms."""
        return self.account.sights

    @property
    def work(self) -> SessionWork:
        """What runs did of them."""
        return self.account.work

    @property
    def stands(self) -> Mapping[str, Stand]:
        """Where each tomogram stands, by name."""
        return self.account.stands

    @property
    def is_at_work(self) -> bool:
        """Whether a run holds its output now."""
        return self.account.owner is not None

    @property
    def standings(self) -> dict[str, Standing]:
        """Where each tomogram stands, by name."""
        return {name: one.standing for name, one in self.stands.items()}

    def named(self, *wanted: Standing) -> list[str]:
        """Return the tomograms that stand so, those first that failed least and wait longest."""
        return self.account.named(*wanted)

    @property
    def hindrances(self) -> tuple[Hindrance, ...]:
        """What keeps it from being worked on now."""
        return self.sights.hindrances

    @property
    def is_held(self) -> bool:
        """Whether nothing of it may be begun now; of a wrong recipe, its run says so."""
        return any(each.kind != "recipe" for each in self.hindrances)

    @property
    def trouble(self) -> Trouble | None:
        """What stopped its last run, if that is not over."""
        trouble = self.work.trouble
        return trouble if trouble is not None and trouble.counts(self.sights) else None

    @property
    def needs_person(self) -> bool:
        """Whether something is wrong that does not pass by itself, or may not."""
        is_hindered = any(each.kind != "paused" for each in self.account.hindrances)
        return bool(self.problem) or is_hindered or bool(self.named(Standing.SET_ASIDE))

    @property
    def ready(self) -> list[str]:
        """Tomograms to begin, in order."""
        return self.named(Standing.READY)

    def comparable(self, now: datetime) -> list[str]:
        """Return tomograms that are done and have results to be compared with their records."""
        since = iso(now - COMPARED_AGAIN)
        return [
            name
            for name in self.named(Standing.DONE)
            if self.work.tomograms[name].seconds and self.sights.tomograms[name].again < since
        ]

    @property
    def _digest(self) -> str:
        return self.recipe.digest if self.recipe else ""

    def is_live(self, watch: Watch, now: datetime) -> bool:
        """Tell whether something came within the last hours."""
        since = iso(now - timedelta(hours=watch.live_hours))
        return any(seen.changed >= since for seen in self.sights.tomograms.values())

    def has_work(self, watch: Watch, now: datetime) -> bool:
        """Tell whether a run should be started: a wrong recipe's run says so, once."""
        if self.recipe is None or self.is_at_work or self.is_held or not self.stands:
            return False
        if trouble := self.trouble:
            is_over = now >= after(trouble.at, watch.pauses_seconds, trouble.number)
            return bool(self.ready) and is_over and not trouble.is_refusal
        return bool(self.ready) or self.recipe.error is not None

    @property
    def key(self) -> str:
        """Tells the run that is to be started from every other: by content, recipe and attempt."""
        rows = self.work.tomograms
        ready = [
            (name, one.size, one.version, one.again, rows[name].started if name in rows else "")
            for name, one in sorted(self.sights.tomograms.items())
            if name in self.ready
        ]
        trouble = self.work.trouble.at if self.work.trouble else ""
        values = [self.session.url, self.session.output, self._digest, ready, trouble]
        return f"{self.session.name}:{digest([*values, self.sights.again])[:32]}"


@dataclass(frozen=True)
class Survey:
    """One look at all sessions.

    Parameters
    ----------
    looks
        A session each.
    presence
        What the watch has said of itself, with what is wrong with it as a whole.
    """

    looks: tuple[SessionLook, ...]
    presence: Presence


def look(watch: Watch, now: datetime) -> list[SessionLook]:
    """Look at every session, as :func:`survey` does."""
    return list(survey(watch, now).looks)


def survey(watch: Watch, now: datetime, *, is_told: bool = True) -> Survey:
    """Look at every session; what cannot be looked at now is told, and the others are.

    What was seen is written into the sessions' outputs, if it is news; of the watch itself a small
    file is written each time. A few of the results that are done are compared with what is
    recorded of them, and tomograms of which something is lost are ready again.

    Parameters
    ----------
    is_told
        Whether it counts as a look of the watch; not if a person only wants to know.

    Raises
    ------
    RequestError
        If the watch's places contradict each other.
    AwayError
        If the drive or the store of the results is away: nothing can be known then.
    """
    check_home(presence_of(watch))
    others = presences_of(watch)
    known = remembered(others)
    found = find_sessions(watch, known)
    looks = _compared(watch, [_guarded(watch, session, now) for session in found.sessions], now)
    told = {each.say: each for one in others for each in one.warnings}
    warnings = [
        told.get(say, Hindrance("gone", say, remedy, iso(now))) for say, remedy in found.warnings
    ]
    presence = replace(
        presence_of(watch),
        looked=iso(now),
        places=_remembered(looks, found, known, now),
        warnings=tuple(warnings),
    )
    try:
        with explaining():
            presence = announced(presence, others) if is_told else presence
    except TomosegError as error:
        log.warning("other watches do not learn of this one: %s", error)
    return Survey(tuple(looks), presence)


def _remembered(
    looks: Sequence[SessionLook], found: FoundSessions, known: Mapping[str, Known], now: datetime
) -> dict[str, Known]:
    """Return the sessions' folders to look at next time, whether they are found then or not.

    One that was removed is forgotten in the end, if nothing was to be done there and the others
    are found.
    """
    kept = {}
    for one in looks:
        name, gone = one.session.name, ""
        if name in found.missing:
            gone = known[name].gone or iso(now)
            is_old = now - datetime.fromisoformat(gone) >= FORGOTTEN
            if is_old and not found.warnings and not one.needs_person:
                continue
        kept[name] = Known(one.session.url, gone)
    return kept


def _compared(watch: Watch, looks: Sequence[SessionLook], now: datetime) -> list[SessionLook]:
    """Compare some results with what is recorded; return the looks, the lost ones ready again."""
    by_name = {one.session.name: one for one in looks}
    done = [
        (one.session.name, name)
        for one in looks
        if not (one.hindrances or one.is_at_work)
        for name in one.comparable(now)
    ]
    turn = turn_of(done, now, watch.seconds_between_looks)
    for session in dict.fromkeys(session for session, _ in turn):
        names = [name for of, name in turn if of == session]
        try:
            with explaining():
                by_name[session] = with_losses(by_name[session], names, now)
        except TomosegError as error:
            log.warning("session %s: its results were not compared: %s", session, error)
    return list(by_name.values())


def with_losses(
    one: SessionLook, names: Sequence[str], now: datetime, *, is_mine: bool = False
) -> SessionLook:
    """Compare tomograms that are done with their records; have those made again that lost some."""
    lost = losses(one.session.results, names)
    if not lost:
        return one
    return _standing(one, with_again(one.session, lost, now), one.work, now, is_mine=is_mine)


def _guarded(watch: Watch, session: WatchedSession, now: datetime) -> SessionLook:
    with at(session=session.name):
        try:
            with explaining():
                return look_at(watch, session, now)
        except TomosegError as error:
            log.warning("session %s: %s", session.name, error)
            return _unreadable(session, error, now)


def _unreadable(session: WatchedSession, error: TomosegError, now: datetime) -> SessionLook:
    """Return what was known before of a session that could not be looked at, and write down why."""
    one = SessionLook(session, problem=str(error))
    try:
        with explaining():
            old, work = Sights.read(session.results), SessionWork.read(session.results)
            one = _standing(one, old, work, now)
            if not isinstance(error, ClaimError):
                kept = [each for each in old.hindrances if each.kind == "paused"]
                found = [Hindrance("unreadable", error.message, error.remedy, iso(now))]
                hindrances = (*kept, *since(found, old))
                sights = replace(old, hindrances=hindrances, free_since="")
                one = _standing(one, sights, work, now)
                if sights != old:
                    keep_sights(session, old, sights)
    except TomosegError as other:
        log.warning("session %s: nor is it known what was: %s", session.name, other)
    return one


def look_at(
    watch: Watch, session: WatchedSession, now: datetime, *, is_mine: bool = False
) -> SessionLook:
    """Look at one session.

    Parameters
    ----------
    is_mine
        Whether the caller holds the output: then nobody else is at work.

    Raises
    ------
    RequestError
        If two tomograms have one name.
    ClaimError
        If another watch looks at the same moment.
    StoreError
        If the store does not answer.
    """
    output, entries = session.results, entries_of(session)
    old, work = Sights.read(output), SessionWork.read(output)
    if work.trouble is not None and work.trouble.missing and is_folder(work.trouble.missing):
        work = replace(work, trouble=None)
    watching = presence_of(watch).url
    if old.watch not in ("", watching):
        other = read_presence(old.watch)
        is_other_alive = other is not None and other.is_alive
        if other is not None and is_other_alive and (taken := taken_by(session, other)):
            return SessionLook(session, account=Account(Sights(hindrances=(taken,))))
        # A run may be on another host than its watch.
        watching = old.watch if is_mine or is_other_alive else watching
    recipe, sights = None, old
    if old.tomograms and not has_tomograms(entries):
        sights = seen_gone(old, now)
    else:
        recipe = session_recipe(watch, session, entries)
        sights = seen_there(watch, session, (old, work), recipe, entries, now)
    sights = replace(
        sights,
        recipe=old.recipe if recipe is None else recipe.digest,
        pauses_seconds=watch.pauses_seconds,
        watch=watching,
    )
    hindrances = hindrances_of(watch, session, (sights, work), recipe, entries, now)
    sights = replace(sights, hindrances=hindrances)
    sights = replace(sights, free_since=_free_since(old, sights, now))
    if sights != old:
        keep_sights(session, old, sights)
    return _standing(SessionLook(session, recipe), sights, work, now, is_mine=is_mine)


def _standing(
    one: SessionLook, sights: Sights, work: SessionWork, now: datetime, *, is_mine: bool = False
) -> SessionLook:
    """Return a look with where each tomogram stands."""
    found = account_of(one.session.results, sights, work, now, is_mine=is_mine)
    return replace(one, account=found)


def _free_since(old: Sights, new: Sights, now: datetime) -> str:
    """Return since when nothing hinders a session, with the recipe that it has."""
    if new.hindrances:
        return ""
    return old.free_since if old.free_since and old.recipe == new.recipe else iso(now)


def orders(
    looks: Sequence[SessionLook], watch: Watch, now: datetime, busy: Collection[str] = ()
) -> list[SessionLook]:
    """Return the sessions to start now: live ones first, then those that wait longest.

    Parameters
    ----------
    busy
        Names of sessions with a run that has been started and has not ended.
    """
    at_work = {one.session.name for one in looks if one.is_at_work} | set(busy)
    waiting = [one for one in looks if one.has_work(watch, now) and one.session.name not in at_work]

    def turn(one: SessionLook) -> tuple[bool, str]:
        complete = [one.sights.tomograms[name].complete for name in one.ready]
        return not one.is_live(watch, now), min(complete, default="")

    return sorted(waiting, key=turn)[: max(0, watch.limits.session_runs - len(at_work))]


def ask_again(watch: Watch, pattern: str, now: datetime) -> list[str]:
    """Have tomograms tried again, whatever became of them; return the names of what was asked for.

    Of what is done, only what is lost or cut is made again.

    Parameters
    ----------
    pattern
        ``SESSION`` for all of it, ``SESSION/TOMOGRAM`` or ``TOMOGRAM``; ``*`` and ``?`` match.

    Raises
    ------
    RequestError
        If nothing of that name is known, or all of it is running or settling.
    """
    return try_again(look(watch, now), pattern, now)


def counts(one: SessionLook) -> dict[str, int]:
    """Return how many tomograms of a session stand where."""
    return {str(each): number for each, number in one.account.counts.items()}
