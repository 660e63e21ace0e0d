"""What a run shows in Prefect: progress, a table, pictures, links; nothing fails for want of it."""

from __future__ import annotations

import base64
import logging
import re
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Any
from uuid import UUID

from prefect.artifacts import (
    create_image_artifact,
    create_link_artifact,
    create_markdown_artifact,
    create_progress_artifact,
    update_progress_artifact,
)

from tomoseg.core.attempts import explaining
from tomoseg.core.errors import TomosegError
from tomoseg.core.layout import THUMBNAIL
from tomoseg.io.stores import Folder
from tomoseg.pipeline.stages import STAGES
from tomoseg.report.markup import markdown

SECONDS_BETWEEN = 1.0
PICTURE_BYTES = 200_000

log = logging.getLogger(__name__)


class Meter:
    """A run's progress, told at most once a second.

    Parameters
    ----------
    artifact
        Its id; None shows nothing.
    number
        Of tomograms.
    """

    def __init__(
        self, artifact: UUID | None, number: int, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._artifact = artifact
        self._number = number
        self._clock = clock
        self._shares: dict[str, float] = {}
        self._told = float("-inf")
        self._lock = threading.Lock()

    def __call__(self, name: str, label: str, done: int, number: int) -> None:
        """Take note of the blocks done in a tomogram's pass, ``label`` beginning with its stage."""
        stage = list(STAGES).index(label.partition(" ")[0])
        self._reach(name, (stage + done / max(1, number)) / len(STAGES))

    def end(self, name: str) -> None:
        """Take note that a tomogram has ended, whatever became of it."""
        self._reach(name, 1.0, is_due=True)

    @property
    def percent(self) -> float:
        """How much is done, 0..100."""
        return 100 * sum(self._shares.values()) / max(1, self._number)

    def _reach(self, name: str, share: float, *, is_due: bool = False) -> None:
        with self._lock:
            self._shares[name] = max(share, self._shares.get(name, 0.0))
            now = self._clock()
            if self._artifact is None or not (is_due or now - self._told >= SECONDS_BETWEEN):
                return
            self._told = now
            with quietly():
                update_progress_artifact(self._artifact, self.percent)


@contextmanager
def quietly() -> Iterator[None]:
    """Go on without what Prefect's server cannot be told: results do not depend on it."""
    try:
        with explaining():
            yield
    except TomosegError as error:
        log.warning("Prefect was not told: %s", error)


def progress_of(session: str, number: int) -> Meter:
    """Begin the progress of a run over so many tomograms."""
    artifact: Any = None
    with quietly():
        artifact = create_progress_artifact(
            0.0, key=artifact_key(session, "progress"), description=f"{session}: tomograms done"
        )
    return Meter(artifact, number)


def show_rows(session: str, rows: Iterable[dict[str, Any]], logs: dict[str, str]) -> None:
    """Show what became of each tomogram, with a link to the log of what failed."""
    table = ["| tomogram | state | seconds | why | log |", "|---|---|---|---|---|"]
    for row in rows:
        seconds = f"{sum(row.get('seconds', {}).values()):.0f}"
        link = f"[traceback]({logs[row['name']]})" if logs.get(row["name"]) else ""
        aside = f"set aside after {row['attempts']} attempts" if row.get("is_set_aside") else ""
        state = aside or row["state"]
        table.append(f"| {markdown(row['name'])} | {state} | {seconds} | {why(row)} | {link} |")
    with quietly():
        create_markdown_artifact(
            "\n".join(table),
            key=artifact_key(session, "tomograms"),
            description=f"{markdown(session)}: what became of each tomogram",
        )


def show_trouble(session: str, error: TomosegError) -> None:
    """Show what keeps a session from being processed, and the remedy."""
    lines = [f"## {markdown(session)} cannot be processed", markdown(error.message)]
    lines += [f"**Remedy:** {markdown(error.remedy)}"] if error.remedy else []
    with quietly():
        create_markdown_artifact(
            "\n\n".join(lines),
            key=artifact_key(session, "tomograms"),
            description=f"{markdown(session)}: what keeps it from being processed",
        )


def show_links(session: str, links: dict[str, str]) -> None:
    """Show links by their texts; those without an address are left out."""
    for text, url in links.items():
        if url:
            with quietly():
                create_link_artifact(
                    url,
                    link_text=text,
                    key=artifact_key(session, text),
                    description=markdown(f"{session}: {url}"),
                )


def show_picture(session: str, output: Folder, row: dict[str, Any]) -> None:
    """Show a tomogram's thumbnail, inside the artifact: a browser may not reach the store."""
    if not row.get("picture"):
        return
    with quietly():
        content = output.read(f"{row['name']}/{THUMBNAIL}")
        if len(content) <= PICTURE_BYTES:
            create_image_artifact(
                "data:image/jpeg;base64," + base64.b64encode(content).decode(),
                key=artifact_key(session, row["name"]),
                description=f"{session}: {row['name']}",
            )


def artifact_key(session: str, what: str) -> str:
    """Return an artifact's key: lower case, digits and dashes.

    >>> artifact_key("krios1/2026_11_21", "progress")
    'tomoseg-krios1-2026-11-21-progress'
    """
    return re.sub(r"[^a-z0-9]+", "-", f"tomoseg-{session}-{what}".lower()).strip("-")


def why(row: dict[str, Any]) -> str:
    """Return a row's error and remedy, or what was noted of it, for a table."""
    said = f"{row.get('error', '')} {row.get('remedy', '')}".strip()
    return markdown(said or "; ".join(row.get("notes", ())))
