"""Simulated tomograms with complete truth, since what the project ships it must make itself."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.simulation.imaging import image_sample
from tomoseg.simulation.parameters import CLASSES, PhantomParameters, varied, widely_varied
from tomoseg.simulation.scene import draw_scene

__all__ = ["CLASSES", "Phantom", "PhantomParameters", "simulate", "varied", "widely_varied"]


@dataclass(frozen=True, eq=False)
class Phantom:
    """A simulated tomogram and its truth.

    Parameters
    ----------
    parameters
        What it was made from.
    tomogram
        float32, zyx: mean 0, standard deviation 1; protein is dark.
    labels
        uint8, zyx: 0 is background, k is ``CLASSES[k - 1]``. Microtubules are labelled with their
        lumen, double membranes with the space between both bilayers, and of the carbon film only
        the 40 nm next to its rim.
    instances
        uint32, zyx: objects counted from 1 over all classes, 0 is background.
    objects
        Class of each object, in the order of its number in ``instances``; the k-th microtubule
        here is the filament of that class numbered k, the k-th ribosome is particle k − 1.
    filaments
        Centre lines of microtubules and actin, clipped to the volume, ids from 1 in each class.
    particles
        Centres and orientations of the ribosomes.
    gold_angstrom
        float64, shape (n, 3), zyx, Å: centres of the gold beads, which have no class.
    """

    parameters: PhantomParameters
    tomogram: NDArray[np.float32]
    labels: NDArray[np.uint8]
    instances: NDArray[np.uint32]
    objects: tuple[str, ...]
    filaments: list[Filament]
    particles: Particles
    gold_angstrom: NDArray[np.float64]


def simulate(parameters: PhantomParameters) -> Phantom:
    """Draw a scene, take its tilt series and reconstruct it."""
    scene = draw_scene(parameters)
    canvas = scene.canvas
    return Phantom(
        parameters,
        image_sample(canvas.matter, canvas.heavy, parameters),
        canvas.labels,
        canvas.instances,
        tuple(canvas.objects),
        scene.filaments,
        scene.ribosomes,
        scene.gold_angstrom,
    )
