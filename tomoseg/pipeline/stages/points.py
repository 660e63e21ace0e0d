"""Points of tomograms for other programs: gathered from results, and as files of a dialect.

Files of one class are called ``<class>``; where it has filaments and particles,
``<class>__filaments`` and ``<class>__particles``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from tomoseg.core.errors import RequestError
from tomoseg.core.layout import RECORDS
from tomoseg.core.sampling import Header
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import Known
from tomoseg.io.stores import Folder
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.pick import read_particles
from tomoseg.pipeline.stages.sample import read_samples
from tomoseg.pipeline.stages.trace import read_filaments
from tomoseg.recipe.export import ExportSection
from tomoseg.recipe.recipe import Recipe

COPICK = "copick"


@dataclass(frozen=True, eq=False)
class FoundPoints:
    """Points of one tomogram, and what was looked for, which may be more than was found.

    Parameters
    ----------
    points
        The tomogram with its filaments and particles.
    traced, picked
        Classes of filaments; of particles and of points on membranes.
    """

    points: TomogramPoints
    traced: tuple[str, ...]
    picked: tuple[str, ...]

    @property
    def name(self) -> str:
        """Name of the tomogram."""
        return self.points.context.tomo_name

    @property
    def classes(self) -> tuple[str, ...]:
        """All classes, once each."""
        return tuple(dict.fromkeys((*self.traced, *self.picked)))

    def select(self, classes: Iterable[str]) -> FoundPoints:
        """Return the points of some classes."""
        kept = set(classes)
        points = replace(
            self.points,
            filaments=[line for line in self.points.filaments if line.name in kept],
            particles=[table for table in self.points.particles if table.name in kept],
        )
        traced, picked = (
            tuple(name for name in names if name in kept) for names in (self.traced, self.picked)
        )
        return FoundPoints(points, traced, picked)

    def scoring(self, least: float) -> FoundPoints:
        """Return the points that score so much at least, and those whose score is unknown."""
        points = replace(
            self.points,
            filaments=[line for line in self.points.filaments if not line.score < least],
            particles=[table.select(~(table.scores < least)) for table in self.points.particles],
        )
        return replace(self, points=points)

    def flip_z(self) -> FoundPoints:
        """Return the points in the tomogram with its slices in the opposite order."""
        return replace(self, points=self.points.flip_z())


def tomo_context(name: str, header: Header, export: ExportSection) -> TomoContext:
    """Return what other programs must know of a tomogram."""
    return TomoContext(
        tomo_name=name,
        sampling=header.sampling,
        tilt_series_pixel_size_angstrom=export.tilt_series_pixel_size_angstrom,
        tilt_series_size_xyz=export.tilt_series_size_xyz,
        centre_shift_pixels=export.centre_shift_pixels,
        origin_angstrom=header.origin_angstrom,
    )


def write_options(recipe: Recipe, colours: Mapping[str, str]) -> WriteOptions:
    """Return how a recipe says that points are written."""
    export = recipe.export
    radii = {name: one.radius_angstrom for name, one in (recipe.trace or {}).items()}
    radii |= {name: one.radius_angstrom for name, one in (recipe.pick or {}).items()}
    return WriteOptions(
        spacing_angstrom=export.spacing_angstrom,
        radius_angstrom=radii,
        colours=colours,
        origin=export.dynamo_origin,
        tilt_range_degrees=export.tilt_range_degrees,
    )


def sampled_names(recipe: Recipe) -> dict[str, str]:
    """Return class → what points on its membranes are called: another name if it is picked too."""
    picked = recipe.pick or {}
    return {name: f"{name}_surface" if name in picked else name for name in recipe.sample or ()}


def found_points(results: Results) -> FoundPoints:
    """Return what was traced, picked and sampled in a tomogram."""
    traced, picked = tuple(results.recipe.trace or ()), tuple(results.recipe.pick or ())
    sampled = sampled_names(results.recipe)
    surfaces = [
        replace(read_samples(results, name).particles, name=called)
        for name, called in sampled.items()
    ]
    points = TomogramPoints(
        tomo_context(results.name, results.header(), results.recipe.export),
        [line for name in traced for line in read_filaments(results, name)],
        [*(read_particles(results, name) for name in picked), *surfaces],
    )
    return FoundPoints(points, traced, (*picked, *sampled.values()))


def point_digests(folder: Folder) -> list[str]:
    """Return under which digests the points of a tomogram, by its folder, were found."""
    records = (f"{RECORDS}/{stage}.json" for stage in ("trace", "pick", "sample"))
    return [folder.read_json(one)["digest"] for one in records if folder.exists(one)]


def tomogram_files(
    known: Known, found: FoundPoints, folder: str, options: WriteOptions
) -> dict[str, bytes]:
    """Return path → content of one tomogram's files in a folder.

    Raises
    ------
    RequestError
        If the program could not read the points.
    """
    dialect = known.dialect
    if dialect.scope == "class":
        return _class_files(known, [found], _inside(folder, f"{found.name}__"), options)
    # The folder itself is the overlay, which masks are part of.
    stem = folder if dialect.name == COPICK else _inside(folder, found.name)
    return dialect.write([found.points], stem, options)


def session_files(
    known: Known, found: Sequence[FoundPoints], folder: str, options: WriteOptions
) -> dict[str, bytes]:
    """Return path → content of the files that hold all tomograms together, by class.

    Raises
    ------
    RequestError
        If the program wants a file a tomogram, or could not read the points.
    """
    dialect = known.dialect
    if dialect.name == COPICK:
        return dialect.write([each.points for each in found], folder, options)
    if dialect.scope != "class":
        raise RequestError(
            f"{dialect.name} has a file a tomogram, not one of many",
            remedy="Leave out --together",
        )
    return _class_files(known, found, _inside(folder, ""), options)


def _inside(folder: str, name: str) -> str:
    return f"{folder}/{name}" if folder else name


def _class_files(
    known: Known, found: Sequence[FoundPoints], stem: str, options: WriteOptions
) -> dict[str, bytes]:
    files: dict[str, bytes] = {}
    for name, points in _parts(found, has_particles=known.has_particles):
        files |= known.dialect.write(points, f"{stem}{name}", options)
    return files


def _parts(
    found: Sequence[FoundPoints], *, has_particles: bool
) -> Iterator[tuple[str, list[TomogramPoints]]]:
    """Yield the filaments, then the particles of each class in all tomograms, with a name."""
    traced = dict.fromkeys(name for each in found for name in each.traced)
    picked = dict.fromkeys(name for each in found for name in each.picked if has_particles)
    for name in traced:
        chosen = [replace(each.select([name]).points, particles=()) for each in found]
        yield (f"{name}__filaments" if name in picked else name), chosen
    for name in picked:
        chosen = [replace(each.select([name]).points, filaments=()) for each in found]
        yield (f"{name}__particles" if name in traced else name), chosen
