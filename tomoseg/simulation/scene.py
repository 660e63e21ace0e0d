"""Draw a scene: what is where in the sample, with its complete truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.simulation import shapes
from tomoseg.simulation.canvas import TRIES, Canvas, draw_place, is_free, label, occupy, stamp
from tomoseg.simulation.fibres import paint_filaments
from tomoseg.simulation.membranes import paint_membranes
from tomoseg.simulation.parameters import CLASSES, PhantomParameters

Points = NDArray[np.float64]

GOLD_DENSITY = 12.0
CARBON_DENSITY = 2.0
CARBON_THICKNESS_ANGSTROM = 160.0
CARBON_EDGE_ANGSTROM = 400.0
RIBOSOME_DENSITY = 1.35
CROWDING_KINDS = 24


@dataclass(frozen=True, eq=False)
class Scene:
    """A painted sample and its truth.

    Parameters
    ----------
    canvas
        Densities, labels and instances.
    filaments
        Microtubules, then actin, each numbered from 1.
    ribosomes
        Centres and orientations.
    gold_angstrom
        float64, shape (n, 3), zyx, Å: centres of the gold beads.
    """

    canvas: Canvas
    filaments: list[Filament]
    ribosomes: Particles
    gold_angstrom: Points


def draw_scene(parameters: PhantomParameters) -> Scene:
    """Paint everything, the largest first, since the later ones look for free places.

    Every kind has its own random stream, so that asking for one more ribosome does not move the
    microtubules.
    """
    canvas = Canvas.blank(parameters)
    streams = [np.random.default_rng([parameters.seed, kind]) for kind in range(8)]
    if parameters.carbon:
        paint_carbon(canvas, streams[0])
    paint_membranes(canvas, streams[1], name="double_membrane")
    microtubules = paint_filaments(canvas, streams[2], name="microtubule")
    paint_membranes(canvas, streams[3], name="single_membrane")
    actin = paint_filaments(canvas, streams[4], name="actin")
    ribosomes = paint_ribosomes(canvas, streams[5])
    gold = paint_gold(canvas, streams[6])
    paint_crowding(canvas, streams[7])
    return Scene(canvas, microtubules + actin, ribosomes, gold)


def paint_carbon(canvas: Canvas, draw: np.random.Generator) -> None:
    """Lay a carbon film with the rim of a hole on the sample's lower face.

    Labelled is the film's edge region, the 40 nm next to the rim, through its thickness.
    """
    slab = canvas.slab
    planes = min(round(CARBON_THICKNESS_ANGSTROM / canvas.voxel), slab.shape[0])
    box = Box(slab.begin, (slab.begin[0] + planes, *slab.end[1:]))
    depth = np.broadcast_to(draw_rim(canvas, draw), box.shape)
    grain = ndimage.gaussian_filter(draw.standard_normal(box.shape, dtype=np.float32), 0.7)
    film = shapes.soft(depth, 2 * canvas.voxel) * (1 + np.float32(1.2) * grain)
    canvas.heavy[box.slices] = np.float32(CARBON_DENSITY) * film
    edge = (depth > 0) & (depth < CARBON_EDGE_ANGSTROM)
    label(canvas, box.slices, inside=edge, name="carbon_edge")
    canvas.lumen[box.slices] |= depth > 0
    occupy(canvas, box, depth > 0)


def draw_rim(canvas: Canvas, draw: np.random.Generator) -> NDArray[np.float32]:
    """Draw a hole of 0.5 to 1 µm radius whose rim crosses the box.

    Returns
    -------
    float32, yx: how far each point lies outside the hole, Å; 70 to 90% of the box lie in it, seen
    along the line from its middle to the film.
    """
    size = np.array(canvas.parameters.shape[1:]) * canvas.voxel
    radius = draw.uniform(5000, 10000)
    turn = draw.uniform(0, 2 * np.pi)
    outward = np.array([np.sin(turn), np.cos(turn)])
    reach = np.abs(outward * size).sum() / 2
    centre = size / 2 + outward * (reach * draw.uniform(0.4, 0.8) - radius)
    y, x = (np.arange(n) * canvas.voxel for n in canvas.parameters.shape[1:])
    depth = np.hypot(y[:, None] - centre[0], x[None, :] - centre[1]) - radius
    return np.asarray(depth, dtype=np.float32)


def paint_ribosomes(canvas: Canvas, draw: np.random.Generator) -> Particles:
    """Place ribosomes in any orientation where they touch nothing."""
    centres, orientations = [], []
    for _ in range(canvas.parameters.count("ribosomes")):
        for _ in range(TRIES):
            centre, orientation = draw_place(canvas, draw), Rotation.random(None, draw).as_matrix()
            if paint_ribosome(canvas, centre, orientation):
                centres.append(centre)
                orientations.append(orientation)
                break
    found = Particles.at("ribosome", np.array(centres).reshape(-1, 3))
    return replace(found, orientations=np.array(orientations).reshape(-1, 3, 3))


def paint_ribosome(canvas: Canvas, centre: Points, orientation: Points) -> bool:
    """Paint one ribosome unless it touches something; tell whether it was painted."""
    reach = shapes.RIBOSOME_RADIUS_ANGSTROM + canvas.voxel
    box = shapes.box_around(centre, reach, canvas.voxel).intersect(canvas.slab)
    depth = shapes.ribosome_depth(centre, orientation, box=box, voxel=canvas.voxel)
    if not is_free(canvas, box, depth > 0):
        return False
    density = np.float32(RIBOSOME_DENSITY) * shapes.soft(depth, canvas.voxel)
    stamp(canvas, box.slices, density=density, inside=depth > 0, name="ribosome")
    occupy(canvas, box, depth > 0)
    return True


def paint_gold(canvas: Canvas, draw: np.random.Generator) -> Points:
    """Place gold beads, most of them on the sample's faces; they have no class."""
    centres: list[Points] = []
    faces = np.array([canvas.slab.begin[0], canvas.slab.end[0] - 1]) * canvas.voxel
    for _ in range(canvas.parameters.count("gold_beads")):
        for _ in range(TRIES):
            centre = draw_place(canvas, draw)
            if draw.random() < 0.7:
                centre[0] = draw.choice(faces)
            if paint_bead(canvas, centre):
                centres.append(centre)
                break
    return np.array(centres).reshape(-1, 3)


def paint_bead(canvas: Canvas, centre: Points) -> bool:
    """Paint one gold bead unless it touches something; tell whether it was painted."""
    reach = shapes.GOLD_RADIUS_ANGSTROM + canvas.voxel
    box = shapes.box_around(centre, reach, canvas.voxel).clip(canvas.parameters.shape)
    depth = shapes.GOLD_RADIUS_ANGSTROM - shapes.ball_distance(centre, box, canvas.voxel)
    if not is_free(canvas, box, depth > 0):
        return False
    bead = np.float32(GOLD_DENSITY) * shapes.soft(depth, canvas.voxel)
    canvas.heavy[box.slices] = np.maximum(canvas.heavy[box.slices], bead)
    occupy(canvas, box, depth > 0)
    return True


def paint_crowding(canvas: Canvas, draw: np.random.Generator) -> None:
    """Fill the cytosol with small proteins of 3 to 8 nm; those that touch a membrane sit on it."""
    slab = canvas.slab
    blobs = [
        shapes.blob(draw, diameter, canvas.voxel) * np.float32(draw.uniform(0.5, 1.0))
        for diameter in draw.uniform(30, 80, CROWDING_KINDS)
    ]
    volume = sum(np.count_nonzero(blob) for blob in blobs)
    number = round(canvas.parameters.crowding * slab.size / volume)
    margin = max(len(blob) for blob in blobs) // 2
    crowd = np.zeros([n + 2 * margin for n in slab.shape], dtype=np.float32)
    for blob in blobs:
        places = np.unique(draw.integers(0, slab.size, number))
        add_blobs(crowd, blob, np.stack(np.unravel_index(places, slab.shape)) + margin)
    membranes = [CLASSES.index(name) + 1 for name in ("single_membrane", "double_membrane")]
    is_open = np.isin(canvas.labels[slab.slices], [0, *membranes]) & ~canvas.lumen[slab.slices]
    canvas.matter[slab.slices] += crowd[(slice(margin, -margin),) * 3] * is_open


def add_blobs(
    crowd: NDArray[np.float32], blob: NDArray[np.float32], places: NDArray[np.intp]
) -> None:
    """Add copies of a blob around distinct places, shape (3, n), away from the volume's border."""
    flat = crowd.reshape(-1)
    centres = np.ravel_multi_index(tuple(places), crowd.shape)
    # One offset of the blob at a time, so that no index repeats within an addition.
    half = len(blob) // 2
    for z, y, x in np.argwhere(blob > 0):
        step = ((z - half) * crowd.shape[1] + y - half) * crowd.shape[2] + x - half
        flat[centres + step] += blob[z, y, x]
