"""A tomogram as the network sees it: normalised, on the network's grid."""

from __future__ import annotations

from dataclasses import dataclass, replace
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.analysis.view import LARGEST_RESCALING, NetworkView, can_be_rescaled, fits_unscaled
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError, TomosegError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.sources import Found, Source, open_source
from tomoseg.nets.settings import TrainingSettings
from tomoseg.recipe.source import SourceSection
from tomoseg.training.annotations.voxels import Memory, Voxels, strips


@dataclass(frozen=True, eq=False)
class SeenTomogram:
    """One tomogram of a training.

    Parameters
    ----------
    found
        Its name and place.
    sampling
        The grid of its file.
    grid
        The grid on which the network sees it.
    voxels
        float32, normalised, on ``grid``.
    """

    found: Found
    sampling: Sampling
    grid: Sampling
    voxels: Voxels

    @property
    def name(self) -> str:
        """Its name."""
        return self.found.name

    def nearest(self, axis: int, begin: int = 0, end: int | None = None) -> NDArray[np.int64]:
        """Return, for voxels of the network's grid, the file's nearest voxels along an axis."""
        place = np.zeros(((end or self.grid.shape[axis]) - begin, 3))
        place[:, axis] = np.arange(begin, begin + len(place))
        found = self.sampling.to_voxels(self.grid.to_angstrom(place))[:, axis]
        return np.rint(found).astype(np.int64).clip(0, self.sampling.shape[axis] - 1)


class SeenTomograms:
    """The tomograms of a training, each opened once.

    Parameters
    ----------
    settings
        Of the training: voxel size, contrast and intensity steps of the network.
    memory
        For what is kept.
    """

    def __init__(self, settings: TrainingSettings, memory: Memory) -> None:
        self.settings, self.memory = settings, memory
        self._steps = intensity.parse_steps(settings.intensity)
        self._open: dict[str, tuple[SourceSection, SeenTomogram]] = {}

    def open(self, found: Found, source: SourceSection) -> SeenTomogram:
        """Return a tomogram, its statistics taken.

        Raises
        ------
        RequestError
            If the same tomogram was opened with another description, or two have one name.
        FormatError, VoxelSizeError
            If it cannot be read, holds too few numbers, or is not of the network's voxel size.
        """
        if found.name not in self._open:
            try:
                self._open[found.name] = (source, self._opened(found, source))
            except TomosegError as error:
                raise error.within(tomogram=found.name) from error
        known, tomogram = self._open[found.name]
        if tomogram.found.url != found.url:
            raise RequestError(
                f"{tomogram.found.url} and {found.url} have one name",
                remedy="Rename one: a training tells tomograms by their names.",
                tomogram=found.name,
            )
        if known != source:
            raise RequestError(
                f"two annotations describe {found.url} by different source sections",
                remedy="Give both the same voxel size and contrast.",
                tomogram=found.name,
            )
        return tomogram

    def _opened(self, found: Found, section: SourceSection) -> SeenTomogram:
        settings = self.settings
        how: Any = {
            "voxel_size_angstrom": section.voxel_size_angstrom,
            "axes": section.axes,
            "integers": section.integers,
        }
        with open_source(found.url, **how) as source:
            sampling = source.header.sampling
            # What was found once is not looked for again.
            how["integers"] = "unsigned" if source.header.dtype.startswith("u") else "signed"
            grid = network_grid(sampling, settings.voxel_size_angstrom)
            statistics = _statistics(source, section.maximum_not_finite)
        sign = intensity.contrast_sign(section.contrast, settings.contrast, on_mismatch="flip")
        image = _Image(
            url=found.url,
            how=how,
            view=NetworkView(
                sampling, grid, intensity.prepare(self._steps, statistics, flip=sign < 0)
            ),
            fill=statistics.fill,
        )
        return SeenTomogram(
            found, sampling, grid, Voxels(grid.shape, np.float32, image, self.memory)
        )


@dataclass(frozen=True)
class _Image:
    """Reads boxes from a file as the stage segment does, filled where it is empty."""

    url: str
    how: dict[str, Any]
    view: NetworkView
    fill: float | None

    def __call__(self, box: Box) -> NDArray[np.float32]:
        """Return float32, ``box.shape``, of a box of the network's grid."""
        with open_source(self.url, **self.how) as source:

            def read(wanted: Box) -> NDArray[Any]:
                if self.fill is None:
                    return source.read(wanted)
                return intensity.read_filled(
                    source.read, wanted, self.view.stored.shape, self.fill
                )[0]

            return np.ascontiguousarray(self.view.seen(box, read))


def network_grid(sampling: Sampling, wanted_angstrom: float) -> Sampling:
    """Return the grid on which the network sees a tomogram: its own, or a resampled one.

    Raises
    ------
    VoxelSizeError
        If the voxel sizes are further apart than is resampled.
    """
    if fits_unscaled(sampling, wanted_angstrom):
        return sampling
    if not can_be_rescaled(sampling, wanted_angstrom):
        sizes = " × ".join(f"{size:.4g}" for size in dict.fromkeys(sampling.voxel_size_angstrom))
        raise VoxelSizeError(
            f"voxel size {sizes} Å and the network's {wanted_angstrom:.4g} Å are more than "
            f"{LARGEST_RESCALING} times apart",
            remedy="Correct source.voxel_size_angstrom or network.voxel_size_angstrom, or bin the "
            "tomogram; a network learns from one range of voxel sizes.",
        )
    return sampling.resampled(wanted_angstrom)


def _statistics(source: Source, maximum_not_finite: float) -> intensity.Statistics:
    """Take the statistics of a whole tomogram as the stage ingest does, in passes over slices."""
    shape = source.header.sampling.shape
    whole = [block.write for block in strips(shape)]
    specimen = intensity.Specimen(source.read, shape)
    moments, may_be_empty = intensity.Moments(), False
    for box in whole:
        voxels = source.read(box)
        moments = moments.merge(intensity.moments(voxels))
        may_be_empty |= intensity.may_be_empty(voxels)
    not_finite, read = moments.not_finite, source.read
    empty = sum(specimen.counted(box).empty for box in whole) if may_be_empty else 0
    # Where there is nothing else, nothing is padding.
    empty %= prod(shape)
    if empty:
        read = specimen.read_counted
        moments = intensity.merge_moments(intensity.moments(read(box)) for box in whole)
    intensity.check_moments(moments, maximum_not_finite)
    bins = intensity.Bins.for_tomogram(moments, source.header.dtype)
    counts = np.zeros(bins.number, np.int64)
    for box in whole:
        counts += intensity.histogram(read(box), bins)
    moments = replace(moments, not_finite=not_finite)
    return intensity.Statistics.of(moments, bins, counts, empty=empty)
