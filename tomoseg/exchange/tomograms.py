"""The tomograms that a place stands for: a session's, those of a folder, or one."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tomoseg.core.errors import VoxelSizeError
from tomoseg.core.layout import IMAGE, MANIFEST, SESSION
from tomoseg.core.sampling import Header
from tomoseg.io.discovery import discover
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.stores import Folder, checked_url, scratch_folder
from tomoseg.io.volumes.sources import Found, open_source, unpack
from tomoseg.io.volumes.turns import Axes
from tomoseg.pipeline.results import choose, finished_results, finished_rows
from tomoseg.pipeline.stages.points import tomo_context
from tomoseg.recipe.export import ExportSection


@dataclass(frozen=True)
class Tomogram:
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
class TomogramGroup:
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
    tomograms: tuple[Tomogram, ...]
    is_session: bool
    left_out: tuple[str, ...] = ()


def tomograms_at(
    place: str, *, wanted: Sequence[str] = (), voxel_size_angstrom: float | None = None
) -> TomogramGroup:
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
        names = choose([row["name"] for row in rows], wanted, "tomogram")
        tomograms = tuple(_finished(folder, name) for name in names)
        return TomogramGroup(folder, tomograms, is_session=True, left_out=left_out)
    if folder.exists(MANIFEST):
        home, _, name = folder.url.rpartition("/")
        return TomogramGroup(Folder(home), (_finished(Folder(home), name),), is_session=True)
    found = {one.name: one for one in discover([place])}
    names = choose(list(found), wanted, "tomogram")
    is_file = [one.url for one in found.values()] == [checked_url(place)]
    home = checked_url(place).rpartition("/")[0] if is_file else place
    opened = tuple(_opened(found[name], voxel_size_angstrom) for name in names)
    return TomogramGroup(Folder(home), opened, is_session=False)


def _finished(output: Folder, name: str) -> Tomogram:
    done = finished_results(output, name)
    recipe = done.recipe
    return Tomogram(name, done.source_url, done.header(), recipe.export, recipe.source.axes)


def _opened(found: Found, voxel_size_angstrom: float | None) -> Tomogram:
    with scratch_folder() as scratch:
        plain = unpack(found.url, Folder(scratch))
        try:
            with open_source(plain, voxel_size_angstrom=voxel_size_angstrom) as source:
                return Tomogram(found.name, found.url, source.header, ExportSection())
        except VoxelSizeError as error:
            raise VoxelSizeError(
                error.message, remedy="Use --voxel-size.", tomogram=found.name
            ) from error
