"""What a session left in its output, read again without its networks."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.errors import RequestError
from tomoseg.core.layout import MANIFEST, SESSION
from tomoseg.io.stores import Folder
from tomoseg.pipeline.stages import Context
from tomoseg.recipe.recipe import recipe_from
from tomoseg.report.summary import DONE


def finished_rows(output: Folder) -> tuple[list[dict[str, Any]], tuple[str, ...]]:
    """Return the rows of ``session.json`` that have results, and the names of the others.

    Raises
    ------
    RequestError
        If there is no session.
    """
    if not output.exists(SESSION):
        raise RequestError(
            f"there is no session in {output}", remedy="Name the output folder of a run."
        )
    rows = output.read_json(SESSION)["tomograms"]
    done = [
        row for row in rows if row["state"] in DONE and output.exists(f"{row['name']}/{MANIFEST}")
    ]
    names = {row["name"] for row in done}
    return done, tuple(row["name"] for row in rows if row["name"] not in names)


def finished_context(output: Folder, name: str) -> Context:
    """Return a finished tomogram as its stages left it; it can be read, not gone on with."""
    manifest = (output / name).read_json(MANIFEST)
    return Context(
        name=name,
        source_url=manifest["source"]["url"],
        folder=output / name,
        recipe=recipe_from(manifest["recipe"]),
        networks=(),
        runner=SerialRunner(),
        progress=lambda *_: None,
    )


def chosen(known: Sequence[str], wanted: Sequence[str], what: str) -> list[str]:
    """Return the names that are wanted, all without any, in the order in which they are known.

    Raises
    ------
    RequestError
        If one is not known.

    Examples
    --------
    >>> chosen(["actin", "ribosome"], ["ribosome"], "class")
    ['ribosome']
    """
    unknown = [name for name in wanted if name not in known]
    if unknown:
        raise RequestError(
            f"there is no {what} {', '.join(unknown)}; there is {', '.join(known) or 'none'}",
            remedy=f"Choose one that there is, or leave out --{what}",
        )
    return [name for name in known if name in wanted or not wanted]


def colours_of(row: Mapping[str, Any]) -> dict[str, str]:
    """Return class → colour, in the order of the labels, from a row of ``session.json``."""
    return {one["name"]: one["colour"] for one in row["classes"]}
