"""Points of a session, or what was imported, in another program's dialect."""

from __future__ import annotations

from tomoseg.core.errors import RequestError
from tomoseg.exchange.imported import read_imported
from tomoseg.exchange.tomograms import TomogramGroup, tomograms_at
from tomoseg.io.stores import Folder
from tomoseg.pipeline.exports import Chosen, Exported, ExportRequest, export_chosen, session_points
from tomoseg.pipeline.results import finished_results
from tomoseg.recipe.recipe import Recipe


def export_points(place: str, request: ExportRequest) -> Exported:
    """Convert the points of a finished session, or what was imported; no stage runs.

    Parameters
    ----------
    place
        The session's output, path or URL; of what was imported also the folder of the tomograms.

    Raises
    ------
    RequestError
        If there is no session, dialect, class or tomogram of that name, or the program could not
        read the points.
    """
    if request.imported:
        return export_chosen(_imported(place, request), request)
    return export_chosen(session_points(Folder(place), request.tomograms), request)


def _imported(place: str, request: ExportRequest) -> Chosen:
    group = tomograms_at(place, wanted=request.tomograms)
    found = [read_imported(group.home, one) for one in group.tomograms]
    kept = [each for each in found if each.classes]
    if not kept:
        raise RequestError(
            f"nothing was imported into {group.home}", remedy="Use tomoseg import first."
        )
    return Chosen(group.home, kept, _recipe_of(group), {}, group.left_out)


def _recipe_of(group: TomogramGroup) -> Recipe:
    """Return the recipe of a session, and of a folder of tomograms the defaults."""
    if not group.is_session:
        return Recipe(trace={}, pick={})
    return finished_results(group.home, group.tomograms[-1].name).recipe
