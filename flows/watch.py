"""Watch sessions: segment what arrives, day and night.

    python -m flows.watch WATCH.yaml              serve for ever; PREFECT_API_URL names the server
    python -m flows.watch WATCH.yaml --look       say what is new, waiting, set aside; start nothing
    python -m flows.watch WATCH.yaml --once       look, and process what is ready in this process
    python -m flows.watch WATCH.yaml --again X    try again what was set aside

Looks run in this process, each session's run in one of its own; ``TOMOSEG_METRICS_ADDRESS`` says
where metrics are shown. Without a server, ``--once`` from a crontab does the same work. A look
comes sooner after the event ``tomoseg.look``, such as from a notification of the object store.
"""

from __future__ import annotations

import argparse
import inspect
import os
import sys
from datetime import UTC, datetime
from pathlib import Path
from uuid import UUID

from tomoseg.attempts import explaining
from tomoseg.errors import RequestError, TomosegError
from tomoseg.monitoring import begin, configure_logs
from tomoseg.watching.looks import ask_again, look, orders
from tomoseg.watching.places import places_of
from tomoseg.watching.settings import LimitsSection, Watch, load_watch
from tomoseg.watching.tables import standstill_of, table

EVENT = "tomoseg.look"


def main(arguments: list[str] | None = None) -> int:
    """Run the command; return 0 done, 1 something failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.watch", description=__doc__, epilog=_keys()
    )
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("watch", type=Path, help="the watch's YAML file")
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument("--look", action="store_true", help="look once and start nothing")
    ways.add_argument("--once", action="store_true", help="look once and do the work here")
    ways.add_argument("--again", metavar="NAME", help="a tomogram, SESSION/TOMOGRAM or SESSION")
    given = parser.parse_args(arguments)
    try:
        with explaining():
            configure_logs()
            watch = load_watch(given.watch, os.environ)
            if given.again:
                print("will be tried again:", *ask_again(watch, given.again, datetime.now(UTC)))
                return 0
            if given.look or given.once:
                return _once(watch, is_working=given.once)
            places_of(watch)
            return _serve(watch, given.watch.resolve())
    except TomosegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1


def _keys() -> str:
    """Return what the watch's file may say, from where that is written."""
    return (
        f"The watch's file: {inspect.getdoc(Watch)}\n\nIts limits: {inspect.getdoc(LimitsSection)}"
    )


def _once(watch: Watch, *, is_working: bool) -> int:
    now = datetime.now(UTC)
    looks = look(watch, now)
    print(table(looks, still=standstill_of(looks, now), now=now))
    failed = any(one.problem for one in looks)
    for one in orders(looks, watch, now) if is_working else ():
        failed |= not _work(watch, one.place.name)
    return int(failed)


def _work(watch: Watch, session: str) -> bool:
    """Process what is ready in one session in this process; tell whether nothing failed."""
    from tomoseg.watching.work import cluster_of, opened_work, processing

    try:
        with opened_work(watch, session) as work, cluster_of(work) as (address, _):
            if work.session is None:
                return True
            outcome = work.through(processing(work, address))
    except TomosegError as error:
        print(f"{session}: {error}", file=sys.stderr)
        return False
    for row in outcome.rows:
        why = f" - {row['error']}. {row['remedy']}".rstrip() if row["state"] == "failed" else ""
        print(f"{session}/{row['name']}: {row['state']}{why}")
    return outcome.error is None and all(row["state"] != "failed" for row in outcome.rows)


def _serve(watch: Watch, path: Path) -> int:
    from prefect import serve
    from prefect.settings import PREFECT_API_URL

    from flows.deployments import deployments
    from flows.due import looking

    if not PREFECT_API_URL.value():
        raise RequestError(
            "no Prefect server is named",
            remedy="Start one (prefect server start) and set PREFECT_API_URL, or use --once.",
        )
    begin()
    looks, runs = deployments(watch, path)
    deployment = looks.apply()
    assert isinstance(deployment, UUID)
    with looking(deployment):
        serve(
            runs,
            limit=watch.limits.session_runs,
            pause_on_shutdown=False,
            print_starting_message=False,
        )
    return 0


if __name__ == "__main__":
    sys.exit(main())
