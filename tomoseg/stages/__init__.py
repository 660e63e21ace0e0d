"""The stages of a tomogram, in order, once for the command line, for Python and for flows."""

from __future__ import annotations

import logging
import time
from datetime import UTC, datetime
from typing import Any

from tomoseg import __version__
from tomoseg.errors import StoreError
from tomoseg.events import working
from tomoseg.stages.clean import CLEAN
from tomoseg.stages.context import Context, Stage
from tomoseg.stages.export import EXPORT
from tomoseg.stages.ingest import INGEST
from tomoseg.stages.pick import PICK
from tomoseg.stages.picture import REPORT, class_summaries
from tomoseg.stages.sample import SAMPLE
from tomoseg.stages.segment import SEGMENT
from tomoseg.stages.trace import TRACE
from tomoseg.stores import Ledger, digest

__all__ = ["STAGES", "Context", "Stage", "class_summaries", "digest_of", "run_stage"]

STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (INGEST, SEGMENT, CLEAN, TRACE, PICK, SAMPLE, EXPORT, REPORT)
}

log = logging.getLogger(__name__)


def digest_of(context: Context, name: str) -> str:
    """Return the digest of everything that decides a stage's result.

    The stages that it needs count with the digests under which they really ran: if the source
    changes on the way, what was made from the old one does not pass for what the new one gives.

    Raises
    ------
    StoreError
        If a stage that it needs has not run.
    """
    stage = STAGES[name]
    return digest(
        {
            "stage": name,
            "version": __version__,
            "settings": stage.settings(context),
            "needs": {need: context.record(need)["digest"] for need in stage.needs},
        }
    )


def run_stage(context: Context, name: str) -> dict[str, Any]:
    """Run one stage of a tomogram, or find it done.

    Returns
    -------
    The stage's record: its digest, summary, wall time, and whether it was there already.

    Raises
    ------
    TomosegError
        With the tomogram's name; finished blocks stay and are not computed again.
    """
    stage = STAGES[name]
    wanted = digest_of(context, name)
    record = _record_there(context, name)
    if record is not None and record["digest"] == wanted and _stands(context, stage, record):
        return {**record, "is_reused": True}
    ledger = Ledger(context.records, name, wanted)
    begun = time.monotonic()
    context.records.remove(f"{name}.json")
    if not (ledger.has_begun and _has_arrays(context, stage)):
        ledger.forget_all()
        stage.begin(context)
        ledger.begin()
    with working("stage", tomogram=context.name, stage=name):
        summary = stage.run(context, ledger)
        log.info("done in %.1f s", time.monotonic() - begun)
    record = {
        "stage": name,
        "digest": wanted,
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begun, 2),
        "summary": summary,
    }
    context.records.write_json(f"{name}.json", record)
    return {**record, "is_reused": False}


def _record_there(context: Context, name: str) -> dict[str, Any] | None:
    """Return what was recorded of a finished stage; None if nothing was, or it is cut."""
    try:
        return context.record(name)
    except StoreError:
        return None


def _has_arrays(context: Context, stage: Stage) -> bool:
    return all(context.volume(path).exists for path in stage.arrays(context))


def _stands(context: Context, stage: Stage, record: dict[str, Any]) -> bool:
    """Tell whether a finished stage's results are still there."""
    files = record["summary"].get("files", [])
    return _has_arrays(context, stage) and all(context.folder.exists(path) for path in files)
