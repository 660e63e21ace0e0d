"""From a sample to a tomogram: projection, contrast transfer, noise, weighted back-projection.

    beam ↓ z     a detector pixel s of the image at tilt t sees the voxels (z, x) with
     ┌───────┐       s = x cos t + z sin t
     │ . . . │ → x   all measured from the middle; the tilt axis is y, so that every plane of
     └───────┘       constant y is projected by the same sparse matrix

What the box does not hold still shadows the tilted images: the sample is continued along x by its
mirror image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy import fft, sparse

from tomoseg.core.sampling import Shape
from tomoseg.simulation.parameters import PhantomParameters

Images = NDArray[np.float32]

WAVELENGTH_ANGSTROM = 0.0197
SPHERICAL_ABERRATION_ANGSTROM = 2.7e7
DOSE_PER_IMAGE = 3.0
"""Electrons per Å² in each image; the series is taken from low to high tilts."""
MEAN_FREE_PATH_ANGSTROM = 3000.0
MIRROR_MARGIN = 32
"""Pixels by which an image is mirrored at its border before a Fourier filter."""


@dataclass(frozen=True)
class Geometry:
    """The tilt series' geometry in voxels.

    Parameters
    ----------
    shape
        The volume, zyx.
    width
        Pixels of an image across the tilt axis; enough for every voxel at every tilt.
    """

    shape: Shape
    width: int

    @classmethod
    def of(cls, parameters: PhantomParameters) -> Geometry:
        """Return the geometry of a tilt series."""
        nz, _, nx = parameters.shape
        tilts = np.deg2rad(parameters.tilts_degrees)
        widest = (nx * np.cos(tilts) + nz * np.abs(np.sin(tilts))).max()
        return cls(parameters.shape, int(np.ceil(widest)) + 4)


def image_sample(
    matter: Images, heavy: Images, parameters: PhantomParameters
) -> NDArray[np.float32]:
    """Take a tilt series of a sample and reconstruct it.

    Parameters
    ----------
    matter, heavy
        float32, zyx: relative density of the specimen, and of gold and carbon on top of it.

    Returns
    -------
    float32, zyx, of the same shape: mean 0, standard deviation 1, dense matter dark.
    """
    geometry = Geometry.of(parameters)
    draw = np.random.default_rng([parameters.seed, 0x1A])
    density = (matter + heavy).transpose(0, 2, 1).reshape(-1, matter.shape[1])
    noise_sigma = signal_sigma(matter, parameters) / np.sqrt(parameters.snr)
    tilts = parameters.tilts_degrees
    images = np.empty((len(tilts), geometry.width, matter.shape[1]), dtype=np.float32)
    for i, dose in enumerate(doses(tilts)):
        projection = projector(geometry, tilts[i]) @ density
        shift = draw.normal(0, parameters.jitter_angstrom, 2)
        image = transfer(projection, parameters, dose=dose, shift_angstrom=shift)
        noise = noise_sigma * noise_growth(parameters.slab_angstrom, tilts[i])
        image += np.float32(noise) * draw.standard_normal(image.shape, dtype=np.float32)
        images[i] = ramp_filtered(image)
    return normalised(back_projected(images, tilts, geometry))


def projector(geometry: Geometry, tilt_degrees: float) -> sparse.csr_array:
    """Return the matrix, (width, nz · nx), that projects a zx-plane at a tilt.

    Each voxel's density is shared linearly between the two pixels next to its shadow, so that
    no mass is lost.
    """
    nz, _, nx = geometry.shape
    cos, sin = np.cos(np.deg2rad(tilt_degrees)), np.sin(np.deg2rad(tilt_degrees))
    half = (geometry.width + nz * abs(sin)) / 2 / cos
    beyond = int(np.ceil(half - nx / 2)) + 2
    x = np.arange(-beyond, nx + beyond)
    z = np.arange(nz)[:, None]
    shadow = (x - (nx - 1) / 2) * cos + (z - (nz - 1) / 2) * sin + (geometry.width - 1) / 2
    column = np.broadcast_to(z * nx + mirrored(x, nx), shadow.shape)
    return _linear(shadow, column, (geometry.width, nz * nx))


def back_projected(
    images: Images, tilts_degrees: NDArray[np.float64], geometry: Geometry
) -> NDArray[np.float32]:
    """Smear filtered images, shape (tilts, width, y), back into a volume, zyx."""
    nz, ny, nx = geometry.shape
    x, z = np.arange(nx) - (nx - 1) / 2, np.arange(nz)[:, None] - (nz - 1) / 2
    voxel = np.arange(nz * nx).reshape(nz, nx)
    volume = np.zeros((nz * nx, ny), dtype=np.float32)
    for image, tilt in zip(images, np.deg2rad(tilts_degrees), strict=True):
        shadow = x * np.cos(tilt) + z * np.sin(tilt) + (geometry.width - 1) / 2
        volume += _linear(shadow, voxel, (geometry.width, nz * nx)).T @ image
    return np.ascontiguousarray(volume.reshape(nz, nx, ny).transpose(0, 2, 1))


def mirrored(index: NDArray[np.intp], length: int) -> NDArray[np.intp]:
    """Fold indices beyond an axis back into it.

    Examples
    --------
    >>> mirrored(np.array([-2, -1, 0, 2, 3, 4]), 3).tolist()
    [1, 0, 0, 2, 2, 1]
    """
    folded = index % (2 * length)
    return np.where(folded < length, folded, 2 * length - 1 - folded)


def doses(tilts_degrees: NDArray[np.float64]) -> NDArray[np.float64]:
    """Dose that has fallen on the sample by the middle of each image, electrons per Å²."""
    order = np.argsort(np.argsort(np.abs(tilts_degrees), kind="stable"), kind="stable")
    return np.asarray((order + 0.5) * DOSE_PER_IMAGE)


def noise_growth(slab_angstrom: float, tilt_degrees: float) -> float:
    """Return the noise at a tilt over that at 0°.

    Notes
    -----
    Electrons lost on the longer way through the slab leave relative shot noise of the inverse
    root of exp(−t / (Λ cos tilt)), with an inelastic mean free path Λ of 300 nm at 300 kV.
    """
    longer = 1 / np.cos(np.deg2rad(tilt_degrees)) - 1
    return float(np.exp(slab_angstrom * longer / MEAN_FREE_PATH_ANGSTROM / 2))


def contrast_transfer(k: Images, parameters: PhantomParameters) -> Images:
    """Return the transfer at spatial frequencies k in 1/Å; positive where dense matter is dark.

    Notes
    -----
    sin(χ + asin(A)) with χ = π λ Δf k² − π/2 Cs λ³ k⁴ at 300 kV, Cs 2.7 mm (Rohou and Grigorieff,
    "CTFFIND4", J. Struct. Biol. 192, 2015).
    """
    squared = k**2
    chi = np.pi * WAVELENGTH_ANGSTROM * (parameters.defocus_um * 1e4) * squared
    chi = chi - np.pi / 2 * SPHERICAL_ABERRATION_ANGSTROM * WAVELENGTH_ANGSTROM**3 * squared**2
    return np.asarray(np.sin(chi + np.arcsin(parameters.amplitude_contrast)), dtype=np.float32)


def dose_filter(k: Images, dose: float) -> Images:
    """Return what radiation damage leaves of a signal at frequencies k in 1/Å.

    Notes
    -----
    exp(−dose / (2 Nc)) with the critical dose Nc = 0.245 k^−1.665 + 2.81 electrons per Å² (Grant
    and Grigorieff, eLife 4, 2015).
    """
    critical = 0.245 * np.maximum(k, 1e-6) ** -1.665 + 2.81
    return np.asarray(np.exp(-dose / 2 / critical), dtype=np.float32)


def transfer(
    projection: Images,
    parameters: PhantomParameters,
    *,
    dose: float,
    shift_angstrom: NDArray[np.float64],
) -> Images:
    """Turn a projection of density, shape (width, y), into a noise-free image, shifted."""
    padded = np.pad(projection, MIRROR_MARGIN, mode="symmetric")
    kx = fft.fftfreq(padded.shape[0], parameters.voxel_size_angstrom)[:, None]
    ky = fft.rfftfreq(padded.shape[1], parameters.voxel_size_angstrom)[None, :]
    k = np.hypot(kx, ky).astype(np.float32)
    phase = np.exp(-2j * np.pi * (kx * shift_angstrom[0] + ky * shift_angstrom[1]))
    filtered = -contrast_transfer(k, parameters) * dose_filter(k, dose)
    spectrum = fft.rfft2(padded) * (filtered * phase).astype(np.complex64)
    return _unpadded(fft.irfft2(spectrum, s=padded.shape))


def signal_sigma(matter: Images, parameters: PhantomParameters) -> float:
    """Return the standard deviation of the untilted, noise-free specimen; 1 if it is empty."""
    untilted = np.ascontiguousarray(matter.sum(axis=0).T)
    image = transfer(untilted, parameters, dose=DOSE_PER_IMAGE / 2, shift_angstrom=np.zeros(2))
    return float(image.std()) or 1.0


def ramp_filtered(image: Images) -> Images:
    """Weight an image, shape (width, y), by |k| across the tilt axis.

    It rolls off as a Gaussian from 0.4 cycles a pixel on, as IMOD's radial filter does. Noise then
    is about as white as in a real tomogram of this voxel size.
    """
    padded = np.pad(image, ((MIRROR_MARGIN, MIRROR_MARGIN), (0, 0)), mode="symmetric")
    k = fft.rfftfreq(padded.shape[0])
    weight = k * np.exp(-((np.maximum(k - 0.4, 0) / 0.05) ** 2) / 2)
    spectrum = fft.rfft(padded, axis=0) * weight[:, None].astype(np.float32)
    filtered = fft.irfft(spectrum, n=padded.shape[0], axis=0)
    return np.asarray(filtered[MIRROR_MARGIN:-MIRROR_MARGIN], dtype=np.float32)


def normalised(volume: NDArray[np.float32]) -> NDArray[np.float32]:
    """Shift and scale a volume in place to mean 0 and standard deviation 1."""
    volume -= np.float32(volume.mean(dtype=np.float64))
    volume /= np.float32(volume.std(dtype=np.float64))
    return volume


def _unpadded(image: Images) -> Images:
    inner = slice(MIRROR_MARGIN, -MIRROR_MARGIN)
    return np.ascontiguousarray(image[inner, inner], dtype=np.float32)


def _linear(
    shadow: NDArray[np.float64], column: NDArray[np.intp], shape: tuple[int, int]
) -> sparse.csr_array:
    """Matrix that shares column j between the rows on both sides of its shadow."""
    low = np.floor(shadow).astype(np.int32)
    high_share = (shadow - low).astype(np.float32)
    rows = np.concatenate([low.ravel(), low.ravel() + 1])
    columns = np.concatenate([column.ravel(), column.ravel()])
    shares = np.concatenate([1 - high_share.ravel(), high_share.ravel()])
    seen = (rows >= 0) & (rows < shape[0])
    entries = (shares[seen], (rows[seen], columns[seen]))
    return sparse.csr_array(entries, shape=shape, dtype=np.float32)
