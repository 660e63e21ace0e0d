"""The Prefect flow over a session: a task a tomogram and stage, Dask's blocks below it.

    python -m flows.session [RECIPE] [--input PLACE] [--output PLACE] [--set a.b=c ...]

needs no server: Prefect starts an embedded one. Run it again and it does only what is missing.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from prefect import flow, task
from prefect.artifacts import create_link_artifact, create_markdown_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.logging import get_run_logger
from prefect.runtime import flow_run
from prefect.states import Completed, Failed

from flows.artifacts import why
from tomoseg.compute.clusters import runner_at
from tomoseg.core.attempts import can_pass
from tomoseg.core.errors import BlockError, RequestError, TomosegError
from tomoseg.core.layout import PAGE
from tomoseg.io.stores import Claim
from tomoseg.io.volumes.sources import Found
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.journal import summarise
from tomoseg.pipeline.session import RunStage, Session, drive, plan_session
from tomoseg.recipe.recipe import Recipe, load_recipe, recipe_from
from tomoseg.report.markup import markdown


def _may_pass(_task: Any, _run: Any, state: State[Any]) -> bool:
    """Tell whether a failed task is worth another try: storage yes, a wrong input no."""
    error = state.result(raise_on_failure=False)
    return isinstance(error, TomosegError) and can_pass(error)


@task(
    task_run_name="{found.name} {stage}",
    cache_policy=NO_CACHE,
    retries=2,
    retry_delay_seconds=[10, 60],
    retry_condition_fn=_may_pass,
    persist_result=False,
)
def process_stage(found: Found, stage: str, run_stage: RunStage) -> dict[str, Any]:
    """Run one stage of one tomogram; finished blocks are not computed again."""
    log = get_run_logger()
    try:
        record = run_stage(found, stage)
    except TomosegError as error:
        unexpected = isinstance(error, BlockError)
        log.error("%s: %s failed: %s", found.name, stage, error, exc_info=unexpected)
        raise
    if record["is_reused"]:
        log.info("already done")
    return record


@flow(name="tomoseg session", validate_parameters=False, persist_result=False)
def process_session(values: dict[str, Any]) -> State[Any]:
    """Take every tomogram of a session through the stages; a failure stops only its tomogram.

    A session whose output another run holds fails at once.

    Parameters
    ----------
    values
        The recipe as plain values (``Recipe.model_dump(mode="json")``).
    """
    session = plan_session(recipe_from(values))
    check_session(session)

    @contextmanager
    def opened(address: str | None, claim: Claim) -> Iterator[RunStage]:
        with runner_at(address, session.recipe.compute) as runner:
            run_stage = session.stages_on(runner, lambda *progress: claim.check())
            yield partial(process_stage, run_stage=run_stage)

    return _said(session, drive(session, str(flow_run.get_id() or ""), opened))


def _said(session: Session, result: dict[str, Any]) -> State[Any]:
    output = session.output
    rows = result["tomograms"]
    table = ["| tomogram | state | what to know |", "|---|---|---|"]
    table += [f"| {markdown(row['name'])} | {row['state']} | {why(row)} |" for row in rows]
    create_markdown_artifact("\n".join(table), key="tomoseg-session")
    create_link_artifact(f"{output.url}/{PAGE}", link_text="report", key="tomoseg-report")
    names = {found.name for found in session.tomograms}
    said, failed = summarise(result, names)
    said += f"; look at {output}/{PAGE}"
    return Failed(message=said) if failed else Completed(message=said)


def main(arguments: list[str] | None = None) -> int:
    """Run the flow on a recipe file; return 0 done, 1 some failed, 2 the request was wrong."""
    parser = argparse.ArgumentParser(
        prog="python -m flows.session", description="Process a session of tomograms with Prefect."
    )
    parser.add_argument("recipe", nargs="?", help="YAML recipe; without one, the defaults")
    parser.add_argument("--input", help="instead of session.input")
    parser.add_argument("--output", help="instead of session.output")
    parser.add_argument("--set", action="append", default=[], metavar="A.B=C", dest="changes")
    given = parser.parse_args(arguments)
    try:
        places = {"input": given.input, "output": given.output}
        named = {key: place for key, place in places.items() if place}
        recipe: Recipe = load_recipe(given.recipe, given.changes, given={"session": named})
        check_session(plan_session(recipe))
    except TomosegError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2 if isinstance(error, RequestError) else 1
    print("starting the embedded Prefect server, unless PREFECT_API_URL names one")
    state = process_session(recipe.model_dump(mode="json"), return_state=True)
    print(state.message)
    return 0 if state.is_completed() else 1


if __name__ == "__main__":
    sys.exit(main())
