"""What arrives in a session, what becomes of it, and where each tomogram stands."""

from tomoseg.service.arrivals.accounts import Account, account_of
from tomoseg.service.arrivals.facts import (
    DONE,
    FAILED,
    REFUSED,
    RUNNING,
    SEEN,
    SPARED,
    WORKED,
    Hindrance,
    Seen,
    SessionWork,
    Sights,
    TomogramWork,
    Trouble,
    iso,
    observed,
    stopped,
)
from tomoseg.service.arrivals.standings import DIED, Stand, Standing, after, standing_of, stands
from tomoseg.service.arrivals.standstill import Looks, Standstill, looks_of, standstill

__all__ = [
    "DIED",
    "DONE",
    "FAILED",
    "REFUSED",
    "RUNNING",
    "SEEN",
    "SPARED",
    "WORKED",
    "Account",
    "Hindrance",
    "Looks",
    "Seen",
    "SessionWork",
    "Sights",
    "Stand",
    "Standing",
    "Standstill",
    "TomogramWork",
    "Trouble",
    "account_of",
    "after",
    "iso",
    "looks_of",
    "observed",
    "standing_of",
    "stands",
    "standstill",
    "stopped",
]
