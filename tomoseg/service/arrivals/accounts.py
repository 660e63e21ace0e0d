"""All that is known of a watched session at one moment: looks, status and metrics tell it alike."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Literal

from tomoseg.io.stores import Folder, Owner, living_owner
from tomoseg.pipeline.progress import PassProgress, read_progress
from tomoseg.service.arrivals.facts import Hindrance, SessionWork, Sights
from tomoseg.service.arrivals.standings import Stand, Standing, find_stands


@dataclass(frozen=True)
class Account:
    """What is known of a session.

    Parameters
    ----------
    sights, works
        By looks, and by runs.
    stands
        Where each tomogram stands, by name.
    owner
        Who is at work.
    moved
        When somebody last began to work, or ended a block or a tomogram, ISO 8601; in a session
        that was stopped, when it was. Empty if nobody ever was at work.
    progress
        How far each tomogram in work is, by name.
    """

    sights: Sights = field(default_factory=Sights)
    work: SessionWork = field(default_factory=SessionWork)
    stands: Mapping[str, Stand] = field(default_factory=dict)
    owner: Owner | None = None
    moved: str = ""
    progress: Mapping[str, PassProgress] = field(default_factory=dict)

    @property
    def hindrances(self) -> tuple[Hindrance, ...]:
        """What keeps the session from being worked on, as looks or its last run found it."""
        trouble = self.work.trouble
        if trouble is None or not trouble.counts(self.sights):
            return self.sights.hindrances
        kind: Literal["recipe", "stopped"] = "recipe" if trouble.is_refusal else "stopped"
        if kind in {each.kind for each in self.sights.hindrances}:
            return self.sights.hindrances
        since = trouble.since or trouble.at
        told = Hindrance(kind, trouble.error, trouble.remedy, since, trouble.is_full)
        return (*self.sights.hindrances, told)

    @property
    def stop(self) -> Hindrance | None:
        """What stopped its last run, if that is tried again."""
        return next((each for each in self.hindrances if each.kind == "stopped"), None)

    @property
    def counts(self) -> dict[Standing, int]:
        """How many tomograms stand where."""
        found = Counter(one.standing for one in self.stands.values())
        return {each: found[each] for each in Standing}

    @property
    def is_moving(self) -> bool:
        """Whether a run is at work, and not only trying again what stopped the last."""
        is_trying = self.owner is not None and self.stop is None
        return is_trying or self.counts[Standing.RUNNING] > 0

    def named(self, *wanted: Standing) -> list[str]:
        """Return the tomograms that stand so, those first that failed least and wait longest."""
        seen = self.sights.tomograms
        names = [name for name, one in self.stands.items() if one.standing in wanted]
        return sorted(
            names, key=lambda name: (self.stands[name].attempts, seen[name].complete, name)
        )


def account_of(
    output: Folder, sights: Sights, work: SessionWork, now: datetime, *, is_mine: bool = False
) -> Account:
    """Return the account of a session from what is known of it and who holds its output.

    Parameters
    ----------
    is_mine
        Whether the caller holds the output: nobody else is at work, and it tries what is ready
        whatever stopped the run before it.
    """
    if is_mine:
        return Account(sights, work, find_stands(sights, replace(work, trouble=None), now))
    where = find_stands(sights, work, now)
    is_pending = any(one.standing != Standing.DONE for one in where.values())
    owner = living_owner(output) if is_pending else None
    if owner is not None:
        where = find_stands(sights, work, now, is_at_work=True)
    found = Account(sights, work, where, owner)
    running = found.named(Standing.RUNNING)
    progress = {name: one for name in running if (one := read_progress(output / name))}
    found = replace(found, progress=progress)
    return replace(found, moved=_moved(found))


def _moved(account: Account) -> str:
    """Return the last sign of work on a session; none after what stopped it is one."""
    if account.stop is not None and not account.named(Standing.RUNNING):
        return account.stop.since
    signs = [each.ended for each in account.work.tomograms.values()]
    if account.owner is not None:
        signs.append(account.owner.began)
        signs += [one.at for one in account.progress.values()]
    return max(signs, default="")
