"""What a simulated tomogram shows and how it is imaged."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Annotated, Any, ClassVar

import numpy as np
from numpy.typing import NDArray
from pydantic import ConfigDict, Field

from tomoseg.core.bounds import CLOSED, SettingError, check_bounds
from tomoseg.core.classes import FEATURES
from tomoseg.core.errors import VoxelSizeError
from tomoseg.core.sampling import Sampling

CLASSES = tuple(FEATURES)

Side = Annotated[int, Field(ge=16, le=100_000)]
Objects = Annotated[int, Field(ge=0, le=100_000)]

# Objects in a cubic micrometre of sample: a crowded edge of a cell, thinned out so that a box
# holds some of each. Yeast cytosol has about twice the ribosomes.
DENSITY_PER_UM3 = {
    "microtubules": 260.0,
    "actin_filaments": 1300.0,
    "single_membranes": 220.0,
    "double_membranes": 40.0,
    "ribosomes": 2500.0,
    "gold_beads": 200.0,
}


@dataclass(frozen=True)
class PhantomParameters:
    """A simulated tomogram in numbers.

    Parameters
    ----------
    shape
        Voxels along z, y, x. The beam runs along z, the tilt axis along y.
    voxel_size_angstrom
        Edge length of a voxel, Å, 8 to 16.
    thickness_angstrom
        Thickness of the sample, Å, centred in the box; None is 80% of the box.
    snr
        Variance of the signal over the variance of the noise in a pixel of the untilted image.
        Signal is the contrast-transferred projection of all matter but gold and carbon, which
        would otherwise set the scale alone.
    defocus_um
        Underfocus of every image, µm.
    tilt_max_degrees, tilt_step_degrees
        The tilt series goes from −max to +max in this step.
    amplitude_contrast
        Share of the contrast that does not oscillate with frequency. Thin ice has 0.07 to
        0.1; the default is more, because tomograms at 10 Å are treated so that low frequencies
        keep more, and show the walls of microtubules with fringes no stronger than this leaves.
    jitter_angstrom
        Standard deviation of the shift that alignment leaves in an image, per axis, Å.
    microtubules, actin_filaments, single_membranes, double_membranes, ribosomes, gold_beads
        How many are attempted; None is the usual density times the sample's volume, at least 1.
        What finds no free place is left out.
    carbon
        Whether the rim of a hole in the carbon film crosses the box.
    crowding
        Share of the cytosol's volume taken by small unlabelled proteins.
    seed
        Same parameters, same voxels, bit for bit.

    Raises
    ------
    SettingError
        If a number is out of its bounds, or two contradict each other.
    VoxelSizeError
        If the voxel size lies outside 8..16 Å.
    """

    __pydantic_config__: ClassVar[ConfigDict] = CLOSED

    shape: tuple[Side, Side, Side] = (128, 512, 512)
    voxel_size_angstrom: float = 12.0
    thickness_angstrom: Annotated[float, Field(ge=100)] | None = None
    snr: Annotated[float, Field(ge=1e-4, le=1e4)] = 0.5
    defocus_um: Annotated[float, Field(ge=0.2, le=20)] = 4.0
    tilt_max_degrees: Annotated[float, Field(ge=1, le=75)] = 60.0
    tilt_step_degrees: Annotated[float, Field(ge=0.5)] = 3.0
    amplitude_contrast: Annotated[float, Field(ge=0, le=1)] = 0.3
    jitter_angstrom: Annotated[float, Field(ge=0, le=100)] = 5.0
    microtubules: Objects | None = None
    actin_filaments: Objects | None = None
    single_membranes: Objects | None = None
    double_membranes: Objects | None = None
    ribosomes: Objects | None = None
    gold_beads: Objects | None = None
    carbon: bool = True
    crowding: Annotated[float, Field(ge=0, le=0.3)] = 0.12
    seed: Annotated[int, Field(ge=0, lt=1 << 63)] = 0

    def __post_init__(self) -> None:
        """Check bounds, and the sample and the tilts against what holds them."""
        if not 8 <= self.voxel_size_angstrom <= 16:
            raise VoxelSizeError(
                f"voxel_size_angstrom is {self.voxel_size_angstrom}, not in 8..16",
                remedy="Simulate at 8 to 16 Å and rescale.",
            )
        check_bounds(self)
        object.__setattr__(self, "shape", tuple(int(n) for n in self.shape))
        box = self.shape[0] * self.voxel_size_angstrom
        if self.slab_angstrom > box:
            raise SettingError(
                f"thickness_angstrom {self.slab_angstrom:g} is more than the box has, {box:g} Å",
                remedy="Simulate a thinner sample or more planes.",
            )
        if self.tilt_step_degrees > self.tilt_max_degrees:
            raise SettingError(
                f"tilt_step_degrees {self.tilt_step_degrees:g} is above tilt_max_degrees "
                f"{self.tilt_max_degrees:g}",
                remedy="Lower the step.",
            )

    @property
    def sampling(self) -> Sampling:
        """The tomogram's grid; the centre of its first voxel is at 0 Å."""
        return Sampling(self.shape, (self.voxel_size_angstrom,) * 3)

    @property
    def slab_angstrom(self) -> float:
        """Thickness of the sample, Å."""
        if self.thickness_angstrom is not None:
            return self.thickness_angstrom
        return 0.8 * self.shape[0] * self.voxel_size_angstrom

    @property
    def slab_planes(self) -> tuple[int, int]:
        """First plane of the sample and the one after its last."""
        planes = max(1, round(self.slab_angstrom / self.voxel_size_angstrom))
        begin = (self.shape[0] - planes) // 2
        return begin, begin + planes

    @property
    def tilts_degrees(self) -> NDArray[np.float64]:
        """Tilt angles in rising order, symmetric about 0, degrees."""
        steps = int(self.tilt_max_degrees / self.tilt_step_degrees + 1e-9)
        return np.asarray(np.arange(-steps, steps + 1) * self.tilt_step_degrees)

    def count(self, name: str) -> int:
        """Return how many objects are attempted, ``name`` being one of the fields."""
        given: int | None = getattr(self, name)
        return max(1, round(self.usual_count(name))) if given is None else given

    def usual_count(self, name: str) -> float:
        """Return the usual density of an object times the sample's volume."""
        area_um2 = self.shape[1] * self.shape[2] * (self.voxel_size_angstrom * 1e-4) ** 2
        return DENSITY_PER_UM3[name] * area_um2 * self.slab_angstrom * 1e-4


def varied(seed: int, base: PhantomParameters) -> PhantomParameters:
    """Return a tomogram of the same family, for training on more than one kind.

    Shape, voxel size, tilt series and jitter stay. SNR, defocus, thickness, crowding, the
    presence of carbon and all counts are drawn around those of ``base``; a kind of object that
    ``base`` has is attempted at least once.
    """
    draw = np.random.default_rng([seed, 0x7A])
    box = base.shape[0] * base.voxel_size_angstrom
    counts: dict[str, Any] = {
        name: max(min(1, base.count(name)), int(draw.poisson(base.count(name))))
        for name in DENSITY_PER_UM3
    }
    return replace(
        base,
        seed=seed,
        snr=base.snr * float(np.exp(draw.uniform(-0.6, 0.6))),
        defocus_um=float(np.clip(base.defocus_um * draw.uniform(0.6, 1.4), 0.2, 20)),
        thickness_angstrom=float(np.clip(base.slab_angstrom * draw.uniform(0.75, 1.15), 100, box)),
        crowding=float(np.clip(base.crowding * draw.uniform(0.5, 1.5), 0, 0.3)),
        carbon=base.carbon and bool(draw.random() < 0.6),
        **counts,
    )


def widely_varied(seed: int, base: PhantomParameters) -> PhantomParameters:
    """Return a tomogram of some other microscope, for networks that must carry over.

    As :func:`varied`, and besides: voxel size 8 to 16 Å (the shape in voxels stays, so that the
    sample is another piece), SNR down to a fifth and up to twice that of ``base``, defocus 2 to
    7 µm, amplitude contrast 0.08 to 0.4, tilts to 50 to 65° in steps of 2 or 3°, jitter 2 to 12 Å.
    """
    draw = np.random.default_rng([seed, 0x7B])
    voxel = float(np.exp(draw.uniform(np.log(8), np.log(16))))
    ratio = voxel / base.voxel_size_angstrom
    thickness = base.thickness_angstrom
    given = {name: getattr(base, name) for name in DENSITY_PER_UM3}
    counts: dict[str, Any] = {
        name: None if number is None else round(number * ratio**3) for name, number in given.items()
    }
    other = replace(
        base,
        voxel_size_angstrom=voxel,
        thickness_angstrom=None if thickness is None else thickness * ratio,
        tilt_max_degrees=float(draw.uniform(50, 65)),
        tilt_step_degrees=float(draw.choice((2.0, 3.0))),
        amplitude_contrast=float(draw.uniform(0.08, 0.4)),
        jitter_angstrom=float(draw.uniform(2, 12)),
        **counts,
    )
    snr, defocus = (
        base.snr * float(np.exp(draw.uniform(np.log(0.2), np.log(2)))),
        draw.uniform(2, 7),
    )
    return replace(varied(seed, other), snr=snr, defocus_um=float(defocus))
