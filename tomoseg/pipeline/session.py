"""A session: many tomograms through the stages, one failure not stopping the others."""

from __future__ import annotations

import logging
import os
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import asdict, dataclass, field
from functools import partial
from typing import Any

from tomoseg.compute.clusters import cluster_address, describe_workers, local_workers, runner_at
from tomoseg.compute.devices import share_heap
from tomoseg.compute.runners import Runner
from tomoseg.core.attempts import explaining
from tomoseg.core.blocks import BlockGrid
from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.events import at
from tomoseg.core.layout import IMAGE, IMPORTED, MANIFEST, OVERVIEW, TOGETHER
from tomoseg.core.sampling import Sampling
from tomoseg.core.version import code_version, environment
from tomoseg.io.discovery import discovered
from tomoseg.io.stores import Claim, Folder, claimed
from tomoseg.io.volumes.compressed import compression_of
from tomoseg.io.volumes.sources import Found, open_source
from tomoseg.pipeline.journal import Journal
from tomoseg.pipeline.progress import Progress, note_waiting, noting_progress
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages import STAGES, Context, class_summaries, run_stage
from tomoseg.pipeline.stages.findings import empty_notes
from tomoseg.pipeline.stages.networks import (
    AppliedNetwork,
    colours_of,
    learned_from_points,
    load_networks,
)
from tomoseg.pipeline.stages.publishing import sweep
from tomoseg.pipeline.stages.terms import kept_notes
from tomoseg.recipe.recipe import Recipe

# Starting workers takes some seconds; fewer blocks than this are done by then.
BLOCKS_FOR_WORKERS = 8
# Of each stage, in a manifest.
RECORDED = ("digest", "terms", "environment", "finished", "seconds", "summary")

log = logging.getLogger(__name__)

Records = dict[str, dict[str, Any]]
"""Of stages, by name."""
RunStage = Callable[[Found, str], dict[str, Any]]
"""Runs one stage of a tomogram and returns its record, or raises an error that names both."""


@dataclass(frozen=True)
class Session:
    """A session that has been looked through but not begun.

    Parameters
    ----------
    recipe
        Resolved for the networks' classes.
    output
        Where results go.
    networks
        The model, or the networks that compete.
    tomograms
        What will be processed, by name.
    left_out
        Why, by the URL of what looks like one and is none.
    """

    recipe: Recipe
    output: Folder
    networks: tuple[AppliedNetwork, ...]
    tomograms: tuple[Found, ...]
    left_out: Mapping[str, str] = field(default_factory=dict)

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, in label order."""
        return tuple(colours_of(self.networks))

    def journal(self, ready: Sequence[Found] = ()) -> Journal:
        """Begin the session's journal; the caller holds the output.

        ``ready`` are tomograms that wait for a later run.
        """
        every = {found.name: found for found in (*ready, *self.tomograms)}
        tomograms = list(every.values())
        return Journal.begin(self.output, self.recipe, self.networks, tomograms, self.left_out)

    def results(self, found: Found) -> Results:
        """Return the results of one tomogram, of which there may be none yet."""
        colours = colours_of(self.networks)
        return Results(found.name, found.url, self.output / found.name, self.recipe, colours)

    def context(self, found: Found, runner: Runner, progress: Progress) -> Context:
        """Return what the stages of one tomogram need."""
        done = self.results(found)
        return Context(
            **vars(done),
            networks=self.networks,
            runner=runner,
            progress=noting_progress(progress, done.folder),
            waits=partial(note_waiting, done.folder),
        )

    def stages_on(self, runner: Runner, progress: Progress) -> RunStage:
        """Return what runs stages on a runner, in this process."""

        def run(found: Found, stage: str) -> dict[str, Any]:
            return guarded_stage(self.context(found, runner, progress), stage)

        return run


def plan_session(recipe: Recipe, tomograms: Sequence[Found] | None = None) -> Session:
    """Find the tomograms and the networks of a recipe; nothing is written.

    Parameters
    ----------
    recipe
        As loaded.
    tomograms
        Those that were found before; None looks for them.

    Raises
    ------
    RequestError
        If there is no output or nothing can be written there, no tomogram, or the recipe does not
        fit the networks.
    ModelError
        If a model is missing or not sound.
    """
    if not recipe.session.output:
        raise RequestError(
            "no output is given", remedy="Use --output, or session.output in the recipe."
        )
    output = Folder(recipe.session.output)
    _check_writable(output)
    networks = load_networks(recipe.segment)
    left_out: Mapping[str, str] = {}
    if tomograms is None:
        there = discovered(
            recipe.session.input,
            name_remove=recipe.session.tomogram_name_remove,
            companions=[recipe.source.mask] if recipe.source.mask else [],
        )
        tomograms, left_out = there.tomograms, there.left_out
    for taken in {one.name for one in tomograms} & {TOGETHER, IMPORTED}:
        raise RequestError(
            f"a tomogram cannot be called {taken}: a folder of the output is",
            remedy="Rename its file, or change session.tomogram_name_remove.",
        )
    for found in tomograms:
        _check_apart(found, output)
    is_deep = any(network.card.architecture.dimensions == 3 for network in networks)
    classes, learned = tuple(colours_of(networks)), learned_from_points(networks)
    recipe = recipe.resolved(classes, is_deep=is_deep, particles=learned)
    return Session(recipe, output, networks, tuple(tomograms), left_out)


def _check_writable(folder: Folder) -> None:
    """Refuse a local output where a file is in its place, or that may only be read."""
    if not folder.is_local:
        return
    place = folder.path
    while not os.path.lexists(place):
        place = place.parent
    if not place.is_dir():
        raise RequestError(
            f"{folder} cannot be a folder for results: {place} is a file",
            remedy="Choose another --output (session.output), or move the file.",
        )
    if not os.access(place, os.W_OK | os.X_OK):
        raise RequestError(
            f"nothing can be written into {folder}: {place} may only be read here",
            remedy="Choose another --output (session.output), or have it opened for writing.",
        )


def _check_apart(found: Found, output: Folder) -> None:
    """Refuse an output in a tomogram, and a tomogram where its own results would replace it."""
    copy = f"{output.url}/{found.name}/{IMAGE}/"
    for inner, outer in ((output.url, found.url), (found.url, copy)):
        if f"{inner}/".startswith(f"{outer.rstrip('/')}/"):
            raise RequestError(
                f"the output {output} and the tomogram {found.url} lie in each other",
                remedy="Choose another --output (session.output).",
                tomogram=found.name,
            )


@contextmanager
def session_address(session: Session) -> Iterator[str | None]:
    """Yield the scheduler's address that a recipe asks for, starting one if need be."""
    if not _needs_workers(session):
        yield None
        return
    with cluster_address(session.recipe.compute) as address:
        yield address


def where_blocks_run(session: Session) -> str:
    """Say on which cluster a session would run, for people; errors as to start it."""
    if not _needs_workers(session):
        return "this process"
    return describe_workers(session.recipe.compute)


def _needs_workers(session: Session) -> bool:
    compute = session.recipe.compute
    if compute.runner != "auto":
        return compute.runner == "dask"
    if compute.address is not None or compute.cluster != "local":
        return True
    return local_workers(compute) > 1 and _blocks(session) >= BLOCKS_FOR_WORKERS


def _blocks(session: Session) -> int:
    """Return how many blocks a session has; a tomogram that cannot be looked into counts as one."""
    grids = [_grid(session, found) for found in session.tomograms]
    shape = session.recipe.blocks.shape
    return sum(1 if grid is None else len(BlockGrid(grid.shape, shape)) for grid in grids)


def _grid(session: Session, found: Found) -> Sampling | None:
    if compression_of(found.url):
        return None
    about = session.recipe.source
    source = open_source(found.url, voxel_size_angstrom=about.voxel_size_angstrom, axes=about.axes)
    with suppress(TomosegError), explaining(), source as opened:
        return opened.header.sampling
    return None


def run_session(session: Session, progress: Progress) -> dict[str, Any]:
    """Process every tomogram of a session in this process.

    Returns
    -------
    What ``session.json`` holds: a row a tomogram with its state, counts and timings.

    Raises
    ------
    ClaimError
        If another run works on the output, or took it over because this one gave no sign of life.
    """
    share_heap()

    @contextmanager
    def opened(address: str | None, claim: Claim) -> Iterator[RunStage]:
        def watched(*done: Any) -> None:
            claim.check()
            progress(*done)

        with runner_at(address, session.recipe.compute) as runner:
            yield session.stages_on(runner, watched)

    return drive(session, uuid.uuid4().hex[:12], opened)


def drive(
    session: Session,
    run: str,
    opened: Callable[[str | None, Claim], AbstractContextManager[RunStage]],
) -> dict[str, Any]:
    """Hold a session's output and take its tomograms through the stages, one after the other.

    Parameters
    ----------
    run
        Names the run in logs.
    opened
        Given the scheduler's address, None for this process, and the claim on the output: yields
        what runs a stage.

    Returns
    -------
    As of :func:`run_session`, with its errors.
    """
    names = {"run": run, "session": str(session.output)}
    with explaining(), claimed(session.output) as claim, at(**names):
        journal = session.journal()
        journal.tell_lost()
        with (
            session_address(session) as address,
            opened(address, claim) as run_stage,
            journal.stopping(claim.check),
        ):
            for found in session.tomograms:
                journal.note({"name": found.name, "state": "running"})
                records = Records()
                try:
                    row = process_tomogram(session, found, run_stage, records)
                except TomosegError as error:
                    row = failed_row(found.name, error, records)
                claim.check()
                journal.note(row)
        return journal.finish()


def process_tomogram(
    session: Session, found: Found, run_stage: RunStage, records: Records
) -> dict[str, Any]:
    """Take one tomogram through all stages, fill in their records and return its row."""
    for stage in STAGES:
        records[stage] = run_stage(found, stage)
    with explaining():
        return _finished_row(session, session.results(found), records)


def guarded_stage(context: Context, name: str) -> dict[str, Any]:
    """Run a stage; every failure comes out as a :class:`TomosegError` that names the tomogram."""
    try:
        with at(tomogram=context.name, stage=name), explaining():
            return run_stage(context, name)
    except TomosegError as error:
        raise error.within(tomogram=context.name) from error


def _finished_row(session: Session, done: Results, records: Records) -> dict[str, Any]:
    """Write the manifest of a tomogram whose stages are done, and return its row."""
    classes = class_summaries(done)
    sampling = done.header().sampling
    files = [path for record in records.values() for path in record["summary"].get("files", [])]
    row = {
        "name": done.name,
        "state": "already there" if all(r["is_reused"] for r in records.values()) else "done",
        "sampling": sampling.as_dict(),
        "classes": [asdict(item) for item in classes],
        "seconds": {name: record["seconds"] for name, record in records.items()},
        "blocks": records["segment"]["summary"]["blocks"],
        "files": [f"{done.name}/{path}" for path in [*files, MANIFEST]],
        "picture": f"{done.name}/{OVERVIEW}",
        "computed": records["segment"]["summary"]["computed"],
        "notes": [
            *kept_notes(records),
            *(note for r in records.values() for note in r["summary"].get("notes", [])),
            *empty_notes(
                classes,
                done.recipe,
                voxel_angstrom=sampling.voxel_angstrom,
                measured_contrast=records["ingest"]["summary"]["measured_contrast"],
            ),
        ],
    }
    sweep(done.folder)
    done.folder.write_json(
        MANIFEST,
        {
            "tomoseg": code_version(),
            "environment": environment(),
            "tomogram": done.name,
            "source": {"url": done.source_url, **records["ingest"]["summary"]["source"]},
            "classes": list(done.classes),
            "colours": dict(done.colours),
            "networks": [network.facts for network in session.networks],
            "recipe": done.recipe.lasting(),
            "stages": {
                name: {key: record[key] for key in RECORDED if key in record}
                for name, record in records.items()
            },
        },
    )
    return row


def failed_row(name: str, error: TomosegError, records: Records) -> dict[str, Any]:
    """Return the row of a tomogram that failed, with the remedy."""
    with at(tomogram=name):
        log.error("failed: %s", error)
    place = f"block {error.block}: " if error.block else ""
    return {
        "name": name,
        "state": "failed",
        "stage": next((stage for stage in STAGES if stage not in records), ""),
        "error": f"{place}{error.message}",
        "remedy": error.remedy,
        "seconds": {stage: record["seconds"] for stage, record in records.items()},
    }
