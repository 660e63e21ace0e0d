"""Watch sessions: segment what arrives, day and night.

    python -m flows.watch WATCH.yaml              serve for ever; PREFECT_API_URL names the server
    python -m flows.watch WATCH.yaml --look       say what is new, waiting, set aside; start nothing
    python -m flows.watch WATCH.yaml --once       look, and process what is ready in this process
    python -m flows.watch WATCH.yaml --again X    try again what was set aside, failed or is done
    python -m flows.watch WATCH.yaml --pause X    let a session wait, --resume X lets it go on

Looks run in this process, each session's run in one of its own; ``TOMOSEG_METRICS_ADDRESS`` says
where metrics are shown. Without a server, ``--once`` from a crontab does the same work (let
``seconds_between_looks`` say how often: a standstill is told by it). A look
comes sooner after a run's end and after the event ``tomoseg.look``, such as from a notification of
the object store. Told to end (SIGTERM, Ctrl-C), it ends its runs first: they go on where they were
at the next start. A run that is cancelled in Prefect pauses its session.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from datetime import UTC, datetime
from pathlib import Path

from tomoseg.compute.monitoring import begin, configure_logs
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.service.arrivals.presence import said_others
from tomoseg.service.watching.asking import pause, resume
from tomoseg.service.watching.looks import ask_again, look, orders, survey
from tomoseg.service.watching.sessions import presence_of, presences_of, sessions_of
from tomoseg.service.watching.settings import LimitsSection, Watch, load_watch
from tomoseg.service.watching.tables import standstill_of, table

EVENT = "tomoseg.look"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 done, 1 failed or needs a person, 2 the request was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.watch", description=__doc__, epilog=_keys()
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("watch", type=Path, help="the watch's YAML file")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--look", action="store_true", help="look once and start nothing")
    ways.add_argument("--once", action="store_true", help="look once and do the work here")
    ways.add_argument("--again", metavar="NAME", help="a tomogram, SESSION/TOMOGRAM or SESSION")
    ways.add_argument("--pause", metavar="SESSION", help="begin nothing of it; * and ? match")
    ways.add_argument("--resume", metavar="SESSION", help="let it go on")
    parser.add_argument("--why", default="", metavar="TEXT", help="why it is paused, for people")
    given = parser.parse_args(arguments)
    try:
        with explaining():
            configure_logs()
            watch = load_watch(given.watch, os.environ)
            if said := _asked(watch, given):
                print(said)
                return 0
            for line in said_others(presence_of(watch), presences_of(watch)):
                if not given.look or not line.startswith("this watch"):
                    print(line)
            if given.look or given.once:
                return _once(watch, is_working=given.once)
            sessions_of(watch)
            return _serve(watch, given.watch.resolve())
    except TomosegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1


def _asked(watch: Watch, given: argparse.Namespace) -> str:
    """Do what a person asks of a watch that may be running; say what was done, if anything was."""
    now = datetime.now(UTC)
    if given.again:
        return f"will be tried again: {' '.join(ask_again(watch, given.again, now))}"
    if given.pause:
        names = pause(look(watch, now), given.pause, now, given.why)
        return f"paused: {' '.join(names)}; --resume {given.pause} lets go on"
    if given.resume:
        return f"goes on: {' '.join(resume(look(watch, now), given.resume))}"
    return ""


def _keys() -> str:
    """Return what the watch's file may say, from where that is written."""
    return (
        f"The watch's file: {inspect.getdoc(Watch)}\n\nIts limits: {inspect.getdoc(LimitsSection)}"
    )


def _once(watch: Watch, *, is_working: bool) -> int:
    now = datetime.now(UTC)
    found = survey(watch, now, is_told=is_working)
    warnings = found.presence.warnings
    still = None if is_working else standstill_of(found.looks, now)
    print(table(found.looks, warnings, still=still, now=now))
    if not is_working:
        needs = any(one.needs_person for one in found.looks)
        return int(bool(warnings) or needs or still is not None)
    failed = bool(warnings) or any(one.problem for one in found.looks)
    for one in orders(found.looks, watch, now):
        failed |= not _work(watch, one.session.name)
    return int(failed)


def _work(watch: Watch, session: str) -> bool:
    """Process what is ready in one session in this process; tell whether nothing failed."""
    from tomoseg.service.watching.opening import cluster_of, opened_run, processing

    try:
        with opened_run(watch, session) as run, cluster_of(run) as (address, _):
            if run.session is None:
                if run.waits:
                    print(f"{session}: waits: {run.waits}")
                return True
            outcome = run.through(processing(run, address))
    except TomosegError as error:
        print(f"{session}: {error}", file=sys.stderr)
        return False
    if outcome.waits:
        print(f"{session}: waits: {outcome.waits}")
    for row in outcome.rows:
        why = f" - {row['error']}. {row['remedy']}".rstrip() if row["state"] == "failed" else ""
        print(f"{session}/{row['name']}: {row['state']}{why}")
    return outcome.error is None and all(row["state"] != "failed" for row in outcome.rows)


def _serve(watch: Watch, path: Path) -> int:
    from prefect.settings import PREFECT_API_URL

    from flows.serving import serve

    if not PREFECT_API_URL.value():
        raise RequestError(
            "no Prefect server is named",
            remedy="Start one (prefect server start) and set PREFECT_API_URL, or use --once.",
        )
    begin()
    return serve(watch, path)


if __name__ == "__main__":
    sys.exit(main())
