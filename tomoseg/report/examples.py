"""One place of a tomogram as four pictures: image, annotation, prediction, errors.

┌───────────┬───────────┬───────────┬───────────┐
│ image     │ annotation│ prediction│ errors    │   ╱╱ not annotated: never counted
└───────────┴───────────┴───────────┴───────────┘
"""

from __future__ import annotations

import io
from dataclasses import dataclass
from typing import Any

import numpy as np
from matplotlib.image import imsave
from numpy.typing import NDArray
from scipy import ndimage

from tomoseg.analysis.metrics.voxels import UNANNOTATED, Counts, confusion
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Shape
from tomoseg.report.panels import Image, Labels, contrast_limits

Picture = NDArray[np.float32]

EDGE = 512
"""Pixels along an axis that a picture has at most; smaller places are enlarged up to it."""
TINT = 0.3
FALSE, MISSED, CONFUSED = "#ff4d2e", "#3b82f6", "#ffd400"
"""Colours of errors: a class where there is none, none where there is one, and another class."""
STRIPE = 6
# A lone wrong voxel in an empty tile must not make it the worst of all.
_LENIENCY = 0.01


@dataclass(frozen=True, eq=False, kw_only=True)
class Example:
    """A place in one slice with its annotation and what a network finds there.

    Parameters
    ----------
    volume, tomogram
        Names of the annotated volume and of the tomogram that it belongs to.
    begin
        First voxel zyx in the tomogram.
    image
        float32, shape (y, x); any grey values.
    truth
        uint8, the image's shape; 0 background, ``i`` the class ``i`` counted from 1, 255 not
        annotated.
    found
        uint8, the image's shape; 0 background, ``i`` the class ``i``.
    judged
        Labels that the annotator looked for. Another class that the network finds is no error.

    Raises
    ------
    RequestError
        If the shapes differ or are empty.
    """

    volume: str
    tomogram: str
    begin: Shape
    image: Image
    truth: Labels
    found: Labels
    judged: tuple[int, ...]

    def __post_init__(self) -> None:
        """Check that the three cover each other."""
        shapes = (self.image.shape, self.truth.shape, self.found.shape)
        if len(set(shapes)) > 1 or self.image.ndim != 2 or not self.image.size:
            raise RequestError(
                f"image, annotation and prediction of {shapes} pixels must be 2D and of one shape",
                tomogram=self.tomogram,
            )

    @property
    def place(self) -> str:
        """Where it lies, in words."""
        z, y, x = self.begin
        rows, columns = self.image.shape
        return f"z = {z}, y = {y}–{y + rows - 1}, x = {x}–{x + columns - 1}"

    @property
    def counted(self) -> Labels:
        """What was found, without the classes that nobody judged here."""
        return np.where(np.isin(self.found, self.judged), self.found, 0).astype(np.uint8)

    @property
    def annotated(self) -> NDArray[np.bool_]:
        """Where somebody looked."""
        return np.asarray(self.truth != UNANNOTATED)

    @property
    def wrong(self) -> NDArray[np.bool_]:
        """Where annotation and prediction differ."""
        return np.asarray(self.annotated & (self.counted != self.truth))

    @property
    def badness(self) -> float:
        """Wrong voxels over those that either calls a class and 1% of all annotated ones; ≤ 1."""
        classes = self.annotated & ((self.counted > 0) | (self.truth > 0))
        whole = classes.sum() + _LENIENCY * self.annotated.sum()
        return float(self.wrong.sum() / whole) if whole else 0.0

    def counts(self, classes: int) -> Counts:
        """Count annotated voxels as :func:`tomoseg.analysis.metrics.voxels.confusion` does."""
        return confusion(self.counted, self.truth, classes)


def example_pictures(example: Example, colours: tuple[str, ...]) -> dict[str, bytes]:
    """Draw a place four times.

    Parameters
    ----------
    example
        What to draw.
    colours
        ``"#rrggbb"`` a class.

    Returns
    -------
    Name → JPEG, in the order in which they stand in a row; y is upwards.
    """
    factor = max(1, EDGE // max(example.image.shape))
    grey = _enlarged(_grey(example.image), factor)
    truth, found = _enlarged(example.truth, factor), _enlarged(example.found, factor)
    unknown = truth == UNANNOTATED
    errors = _error_labels(example)
    pictures = {
        "image": grey,
        "annotation": _hatched(_tinted(grey, truth, colours), unknown),
        "prediction": _tinted(grey, found, colours),
        "errors": _hatched(
            _tinted(
                np.float32(0.75) * grey,
                _enlarged(errors, factor),
                (FALSE, MISSED, CONFUSED),
                tint=0.6,
            ),
            unknown,
        ),
    }
    return {name: _jpeg(picture) for name, picture in pictures.items()}


def _error_labels(example: Example) -> Labels:
    """Return 1 where a class is found wrongly, 2 where one is missed, 3 where it is another."""
    found, truth, wrong = example.counted > 0, example.truth > 0, example.wrong
    kinds = found.astype(np.uint8) + 2 * truth.astype(np.uint8)
    return np.where(wrong, kinds, 0).astype(np.uint8)


def _grey(image: Image) -> Picture:
    """Return RGB values 0..1, shape (y, x, 3)."""
    low, high = contrast_limits([image])
    values = np.nan_to_num(np.clip((image - low) / (high - low), 0, 1))
    return np.repeat(values[..., None], 3, axis=-1).astype(np.float32)


def _tinted(
    picture: Picture, labels: Labels, colours: tuple[str, ...], *, tint: float = TINT
) -> Picture:
    """Lay each class over a picture as a light tint with a sharp outline."""
    out = picture.copy()
    for label, colour in enumerate(colours, start=1):
        inside = labels == label
        core = ndimage.binary_erosion(inside, border_value=1)
        rgb = np.array([int(colour[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
        out[core] += tint * (rgb - out[core])
        out[inside & ~core] = rgb
    return out


def _hatched(picture: Picture, where: NDArray[np.bool_]) -> Picture:
    """Dim a part of a picture, with stripes."""
    rows, columns = (np.arange(size) for size in where.shape)
    light = np.where((rows[:, None] + columns) // STRIPE % 2, 0.35, 0.6).astype(np.float32)
    return np.where(where[..., None], light[..., None] * picture, picture)


def _enlarged(array: NDArray[Any], factor: int) -> NDArray[Any]:
    """Make each pixel a square."""
    return array.repeat(factor, axis=0).repeat(factor, axis=1)


def _jpeg(picture: Picture) -> bytes:
    pixels = np.rint(255 * picture[::-1]).astype(np.uint8)
    memory = io.BytesIO()
    # Full resolution of colours: an outline is one pixel wide.
    options = {"quality": 85, "subsampling": 0}
    imsave(memory, pixels, format="jpg", pil_kwargs=options)
    return memory.getvalue()
