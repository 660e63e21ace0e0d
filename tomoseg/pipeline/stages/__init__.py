"""The stages of a tomogram, in order, once for the command line, for Python and for flows."""

from __future__ import annotations

import logging
import time
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

from tomoseg.core.errors import StoreError
from tomoseg.core.events import working
from tomoseg.core.version import environment
from tomoseg.io.stores import Ledger, digest, noted_writes
from tomoseg.pipeline.stages.clean import CLEAN
from tomoseg.pipeline.stages.context import Context, Stage, Staging
from tomoseg.pipeline.stages.export import EXPORT
from tomoseg.pipeline.stages.ingest import INGEST
from tomoseg.pipeline.stages.pick import PICK
from tomoseg.pipeline.stages.picture import REPORT, class_summaries
from tomoseg.pipeline.stages.previous import begin_anew, retire
from tomoseg.pipeline.stages.publishing import (
    can_go_on,
    conclude,
    is_concluded,
    is_whole,
    publish,
    reopen,
)
from tomoseg.pipeline.stages.sample import SAMPLE
from tomoseg.pipeline.stages.segment import SEGMENT
from tomoseg.pipeline.stages.terms import settle
from tomoseg.pipeline.stages.trace import TRACE

__all__ = ["STAGES", "Context", "Stage", "class_summaries", "run_stage"]

STAGES: dict[str, Stage] = {
    stage.name: stage for stage in (INGEST, SEGMENT, CLEAN, TRACE, PICK, SAMPLE, EXPORT, REPORT)
}

log = logging.getLogger(__name__)


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
    stage, record = STAGES[name], _record_there(context, name)
    terms, facts = settle(context, stage, record)
    header = context.header() if stage.needs else None
    context, wanted = replace(context, terms=terms, source_header=header), digest(facts)
    ledger = Ledger.of(context.records, name, wanted)
    if record is not None and record["digest"] == wanted:
        if is_whole(context, ledger, record):
            return {**record, "is_reused": True}
        reopen(context, ledger, record)
    elif record is not None:
        retire(context, name, STAGES)
    else:
        # One that is cut would pass for that of a finished stage.
        context.records.remove(f"{name}.json")
    if not is_concluded(ledger):
        ledger = _computed(context, stage, ledger)
    return {**publish(context, ledger), "is_reused": False}


def _computed(context: Context, stage: Stage, ledger: Ledger) -> Ledger:
    """Do what is missing of a stage and return its ledger, from which it can be published."""
    assert context.terms is not None
    begun, terms = time.monotonic(), context.terms.as_dict()
    work = replace(context, staging=Staging(ledger.staged, stage.owns))
    if not can_go_on(work, ledger, stage):
        begin_anew(context, name=stage.name, stages=STAGES)
        ledger = Ledger.of(ledger.folder, ledger.stage, ledger.digest)
        work = replace(context, staging=Staging(ledger.staged, stage.owns))
        stage.begin(work)
        ledger.begin(terms=terms)
    with working("stage", tomogram=context.name, stage=stage.name), noted_writes() as written:
        summary = stage.run(work, ledger)
        log.info("done in %.1f s", time.monotonic() - begun)
    record = {
        "stage": stage.name,
        "digest": ledger.digest,
        "terms": terms,
        "environment": environment(),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "seconds": round(time.monotonic() - begun, 2),
        "summary": summary,
    }
    conclude(context, ledger, record, written)
    return ledger


def _record_there(context: Context, name: str) -> dict[str, Any] | None:
    """Return what was recorded of a finished stage; None if nothing was, or it is cut."""
    try:
        return context.record(name)
    except StoreError:
        return None
