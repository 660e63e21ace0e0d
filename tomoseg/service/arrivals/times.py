"""When what happened to the tomograms of a watched session, for what counts them."""

from __future__ import annotations

from dataclasses import asdict
from datetime import datetime

from tomoseg.compute.monitoring.capacity import State, Times, times_of
from tomoseg.service.arrivals.accounts import Account
from tomoseg.service.arrivals.standings import Standing

STATES: dict[Standing, State] = {
    Standing.READY: "waiting",
    Standing.PAUSED: "paused",
    Standing.GONE: "gone",
    Standing.RESTING: "waiting",
    Standing.RUNNING: "running",
    Standing.DONE: "done",
    Standing.SET_ASIDE: "set aside",
    Standing.REFUSED: "refused",
}
"""What is not complete has not arrived yet."""
BEGUN = (Standing.RUNNING, Standing.DONE, Standing.SET_ASIDE)


def account_times(account: Account, session: str = "") -> list[Times]:
    """Return when what happened to the tomograms of a session that are complete.

    Where the whole session is gone, what waited still does: it comes back with its drive.
    """
    is_gone = any(each.kind == "gone" for each in account.hindrances)
    rows = []
    for name, stand in account.stands.items():
        complete, standing = account.sights.tomograms[name].complete, stand.standing
        if standing in STATES and complete:
            worked = asdict(account.work.tomograms[name]) if standing in BEGUN else {}
            state = "waiting" if is_gone and standing == Standing.GONE else STATES[standing]
            rows.append({**worked, "name": name, "state": state, "complete": complete})
    return times_of(rows, session)


def incomplete_since(account: Account) -> list[datetime]:
    """Return when each of the files last grew that are not whole and grow no more."""
    seen = account.sights.tomograms
    return [
        datetime.fromisoformat(seen[name].changed)
        for name in account.named(Standing.INCOMPLETE, Standing.GONE)
        if seen[name].waits and not seen[name].complete
    ]
