"""The tomograms that a place stands for: a session's, those of a folder, or one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.errors import RequestError, VoxelSizeError
from tomoseg.core.layout import IMAGE, MANIFEST, SESSION
from tomoseg.core.sampling import Header
from tomoseg.io.discovery import discover
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.stores import Folder, checked_url, scratch_folder
from tomoseg.io.volumes.sources import Found, open_source, unpacked
from tomoseg.io.volumes.turns import Axes
from tomoseg.pipeline.stages import Context
from tomoseg.pipeline.stages.points import tomo_context
from tomoseg.recipe.export import ExportSection
from tomoseg.recipe.recipe import recipe_from
from tomoseg.report.summary import DONE


@dataclass(frozen=True)
class Place:
    """A tomogram that points and masks belong to.

    Parameters
    ----------
    name, url
        The tomogram.
    header
        What its file says.
    export
        What a session's recipe says of its tilt series.
    axes
        Of its file, and of masks on the file's grid.
    """

    name: str
    url: str
    header: Header
    export: ExportSection
    axes: Axes = "zyx"

    @property
    def context(self) -> TomoContext:
        """What other programs must know of it."""
        return tomo_context(self.name, self.header, self.export)


@dataclass(frozen=True)
class Places:
    """Tomograms, and the folder that belongs to all of them.

    Parameters
    ----------
    home
        Output of the session, or the folder of the tomograms.
    tomograms
        By name.
    is_session
        Whether there are results.
    left_out
        Tomograms of the session that have none.
    """

    home: Folder
    tomograms: tuple[Place, ...]
    is_session: bool
    left_out: tuple[str, ...] = ()


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


def places_at(
    place: str, *, wanted: Sequence[str] = (), voxel_size_angstrom: float | None = None
) -> Places:
    """Return the tomograms of a session's output, of one of its tomograms, of a folder or a file.

    Parameters
    ----------
    place
        Path or URL.
    wanted
        Names of tomograms; all without any.
    voxel_size_angstrom
        Of tomograms that are no session's, instead of what their headers say.

    Raises
    ------
    RequestError
        If there is no tomogram, or one that is wanted is not among them.
    VoxelSizeError
        If a header does not say the voxel size.
    """
    folder = Folder(place.removesuffix("/"))
    tomogram = folder.url.removesuffix(f"/{IMAGE}")
    if tomogram != folder.url and Folder(tomogram).exists(MANIFEST):
        folder = Folder(tomogram)
    if folder.exists(SESSION):
        rows, left_out = finished_rows(folder)
        names = chosen([row["name"] for row in rows], wanted, "tomogram")
        tomograms = tuple(_finished(folder, name) for name in names)
        return Places(folder, tomograms, is_session=True, left_out=left_out)
    if folder.exists(MANIFEST):
        home, _, name = folder.url.rpartition("/")
        return Places(Folder(home), (_finished(Folder(home), name),), is_session=True)
    found = {one.name: one for one in discover([place])}
    names = chosen(list(found), wanted, "tomogram")
    is_file = [one.url for one in found.values()] == [checked_url(place)]
    home = checked_url(place).rpartition("/")[0] if is_file else place
    opened = tuple(_opened(found[name], voxel_size_angstrom) for name in names)
    return Places(Folder(home), opened, is_session=False)


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


def _finished(output: Folder, name: str) -> Place:
    context = finished_context(output, name)
    recipe = context.recipe
    return Place(name, context.source_url, context.header, recipe.export, recipe.source.axes)


def _opened(found: Found, voxel_size_angstrom: float | None) -> Place:
    with scratch_folder() as scratch:
        plain = unpacked(found.url, Folder(scratch))
        try:
            with open_source(plain, voxel_size_angstrom=voxel_size_angstrom) as source:
                return Place(found.name, found.url, source.header, ExportSection())
        except VoxelSizeError as error:
            raise VoxelSizeError(
                error.message, remedy="Use --voxel-size.", tomogram=found.name
            ) from error
