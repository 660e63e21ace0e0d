"""Draw a scene: what is where in the sample, with its complete truth."""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage
from scipy.spatial.transform import Rotation

from tomoseg.blocks import Box
from tomoseg.coordinates import Filament, Particles
from tomoseg.phantom import shapes
from tomoseg.phantom.canvas import TRIES, Canvas, is_free, label, occupy, stamp
from tomoseg.phantom.fibres import paint_filaments
from tomoseg.phantom.membranes import paint_membranes
from tomoseg.phantom.parameters import CLASSES, PhantomParameters

Points = NDArray[np.float64]

GOLD_DENSITY = 12.0
CARBON_DENSITY = 1.3
CARBON_THICKNESS_ANGSTROM = 160.0
CARBON_EDGE_ANGSTROM = 400.0
RIBOSOME_DENSITY = 1.35


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

    The rim is an arc of a circle of 0.5 to 1 µm radius. The film covers what lies outside the
    circle; labelled is its edge region, the 40 nm next to the rim, through the film's thickness.
    """
    plane = np.array(canvas.parameters.shape[1:]) * canvas.voxel
    radius = draw.uniform(5000, 10000)
    turn = draw.uniform(0, 2 * np.pi)
    outward = np.array([np.sin(turn), np.cos(turn)])
    # The rim crosses the box where 70 to 90% of it lie in the hole, seen along the outward axis.
    reach = np.abs(outward * plane).sum() / 2
    centre = plane / 2 + outward * (reach * draw.uniform(0.4, 0.8) - radius)
    begin = canvas.slab.begin[0]
    planes = max(2, round(CARBON_THICKNESS_ANGSTROM / canvas.voxel))
    box = Box(
        (begin, 0, 0), (min(begin + planes, canvas.slab.end[0]), *canvas.parameters.shape[1:])
    )
    y, x = (
        np.arange(n) * canvas.voxel - c
        for n, c in zip(canvas.parameters.shape[1:], centre, strict=True)
    )
    depth = (np.hypot(y[:, None], x[None, :]) - radius).astype(np.float32)
    grain = ndimage.gaussian_filter(draw.standard_normal(box.shape, dtype=np.float32), 0.7)
    film = shapes.soft(depth, 2 * canvas.voxel)[None] * (1 + np.float32(1.2) * grain)
    canvas.heavy[box.slices] = np.float32(CARBON_DENSITY) * film
    edge = np.broadcast_to((depth > 0) & (depth < CARBON_EDGE_ANGSTROM), box.shape)
    label(canvas, box.slices, inside=edge, name="carbon_edge")
    film_region = np.broadcast_to(depth > 0, box.shape)
    canvas.lumen[box.slices] |= film_region
    occupy(canvas, box, film_region)


def paint_ribosomes(canvas: Canvas, draw: np.random.Generator) -> Particles:
    """Place ribosomes in any orientation where they touch nothing."""
    centres, orientations = [], []
    reach = shapes.RIBOSOME_RADIUS_ANGSTROM + canvas.voxel
    for _ in range(canvas.parameters.count("ribosomes")):
        orientation = Rotation.random(None, draw).as_matrix()
        for _ in range(TRIES):
            centre = draw_place(canvas, draw)
            box = shapes.ball_box(centre, reach, canvas.voxel).intersect(canvas.slab)
            depth = shapes.ribosome_depth(centre, orientation, box=box, voxel=canvas.voxel)
            inside = depth > 0
            if is_free(canvas, box, inside):
                density = np.float32(RIBOSOME_DENSITY) * shapes.soft(depth, canvas.voxel)
                stamp(canvas, box.slices, density=density, inside=inside, name="ribosome")
                occupy(canvas, box, inside)
                centres.append(centre)
                orientations.append(orientation)
                break
    found = Particles.at("ribosome", np.array(centres).reshape(-1, 3))
    return replace(found, orientations=np.array(orientations).reshape(-1, 3, 3))


def paint_gold(canvas: Canvas, draw: np.random.Generator) -> Points:
    """Place gold beads, most of them on the sample's faces; they have no class."""
    centres = []
    reach = shapes.GOLD_RADIUS_ANGSTROM + canvas.voxel
    faces = np.array([canvas.slab.begin[0], canvas.slab.end[0] - 1]) * canvas.voxel
    for _ in range(canvas.parameters.count("gold_beads")):
        for _ in range(TRIES):
            centre = draw_place(canvas, draw)
            if draw.random() < 0.7:
                centre[0] = draw.choice(faces)
            box = shapes.ball_box(centre, reach, canvas.voxel).clip(canvas.parameters.shape)
            depth = shapes.GOLD_RADIUS_ANGSTROM - shapes.ball_distance(centre, box, canvas.voxel)
            if is_free(canvas, box, depth > 0):
                bead = np.float32(GOLD_DENSITY) * shapes.soft(depth, canvas.voxel)
                canvas.heavy[box.slices] = np.maximum(canvas.heavy[box.slices], bead)
                occupy(canvas, box, depth > 0)
                centres.append(centre)
                break
    return np.array(centres).reshape(-1, 3)


def paint_crowding(canvas: Canvas, draw: np.random.Generator) -> None:
    """Fill the cytosol with small proteins of 3 to 8 nm; those that touch a membrane sit on it."""
    kinds = 24
    blobs = [
        shapes.blob(draw, diameter, canvas.voxel) * np.float32(draw.uniform(0.5, 1.0))
        for diameter in draw.uniform(30, 80, kinds)
    ]
    margin = max(len(blob) for blob in blobs) // 2
    slab = canvas.slab
    crowd = np.zeros([n + 2 * margin for n in slab.shape], dtype=np.float32)
    volume = sum(float((blob > 0).sum()) for blob in blobs) / kinds
    number = round(canvas.parameters.crowding * slab.size / volume / kinds)
    for blob in blobs:
        centres = np.unique(draw.integers(0, slab.size, number))
        places = np.stack(np.unravel_index(centres, slab.shape)) + margin
        flat = np.ravel_multi_index(tuple(places), crowd.shape)
        # One offset of the blob at a time, so that no index repeats within an addition.
        for offset in np.argwhere(blob > 0):
            shift = np.array(offset) - len(blob) // 2
            step = (shift[0] * crowd.shape[1] + shift[1]) * crowd.shape[2] + shift[2]
            crowd.reshape(-1)[flat + step] += blob[tuple(offset)]
    membranes = [CLASSES.index(name) + 1 for name in ("single_membrane", "double_membrane")]
    is_open = np.isin(canvas.labels[slab.slices], [0, *membranes]) & ~canvas.lumen[slab.slices]
    inner = crowd[margin:-margin, margin:-margin, margin:-margin]
    canvas.matter[slab.slices] += inner * is_open


def draw_place(canvas: Canvas, draw: np.random.Generator) -> Points:
    """Draw a point of the sample, zyx, Å."""
    slab = canvas.slab
    return draw.uniform(np.array(slab.begin), np.array(slab.end) - 1.0) * canvas.voxel
