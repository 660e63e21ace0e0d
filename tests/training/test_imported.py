"""Points that came from another program are trained on, at the voxels where they lie."""

from __future__ import annotations

import sys
from itertools import pairwise

import mrcfile
import numpy as np
import pytest
import yaml

from tomoseg import cli
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.registry import DIALECTS
from tomoseg.nets.augmentation import AugmentationSettings
from tomoseg.nets.patches import PatchSource, take_census
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.split import Region
from tomoseg.training.annotations import annotated_volumes
from tomoseg.training.recipe import train_from, training_recipe

SHAPE, VOXEL = (14, 24, 30), 10.0
GRID = Sampling(SHAPE, (VOXEL,) * 3)
# In voxels, zyx: two particles, and a line with a bend whose points are far apart.
PARTICLES = np.array([(4, 5.25, 6), (9, 18, 24.5)])
LINE = np.array([(7.0, 4, 13), (7, 12, 13), (7, 12, 27)])
RADIUS = {"ribosome": 50.0, "microtubule": 40.0}
CORE, RIM = 0.6, 0.75
CLASSES = ("ribosome", "microtubule")
SLAB = {"slices_in": 6, "slices_out": 2, "widths": [4, 8]}


@pytest.fixture
def project(tmp_path):
    """A tomogram whose every voxel has its own value, and what RELION and TARDIS know of it."""
    values = np.arange(np.prod(SHAPE), dtype=np.float32).reshape(SHAPE)
    with mrcfile.new(tmp_path / "t1.mrc", values) as file:
        file.voxel_size = VOXEL
        file.header.origin = (100, 200, 300)
    context = TomoContext("t1", GRID)
    table = Particles.at("x", GRID.to_angstrom(PARTICLES))
    line = Filament("x", 1, GRID.to_angstrom(LINE))
    written = [
        ("relion5", TomogramPoints(context, particles=[table])),
        ("tardis", TomogramPoints(context, [line])),
    ]
    for dialect, points in written:
        files = DIALECTS[dialect].dialect.write([points], f"{tmp_path}/{dialect}", WriteOptions())
        for path, content in files.items():
            with open(path, "wb") as file:
                file.write(content)
    return tmp_path


@pytest.fixture
def annotations(project, monkeypatch, capsys):
    """Import both, and return what the command says of how to train on them."""
    said = []
    for file, name in (("relion5.star", "ribosome"), ("tardis.csv", "microtubule")):
        arguments = ["import", project / file, "--into", project / "t1.mrc", "--as", name]
        monkeypatch.setattr(sys, "argv", ["tomoseg", *map(str, arguments)])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert not end.value.code
        (line,) = (row for row in capsys.readouterr().out.splitlines() if "train on it" in row)
        (one,) = yaml.safe_load(line.partition("annotations: ")[2])
        assert one["radius_angstrom"] == "RADIUS"
        said.append(one | {"radius_angstrom": RADIUS[name]})
    return said


def expected(name):
    """Return the labels of one class: by the distance to its points or to its line."""
    voxels = np.indices(SHAPE).transpose(1, 2, 3, 0).astype(float)
    if name == "ribosome":
        away = np.min([np.linalg.norm(voxels - point, axis=-1) for point in PARTICLES], axis=0)
    else:
        away = np.min([to_segment(voxels, *ends) for ends in pairwise(LINE)], axis=0)
    angstrom, radius = away * VOXEL, RADIUS[name]
    inside, unsure = angstrom <= CORE * radius, angstrom <= RIM * radius
    return np.where(inside, CLASSES.index(name) + 1, np.where(unsure, 255, 0))


def to_segment(voxels, begin, end):
    along = (voxels - begin) @ (end - begin) / np.sum((end - begin) ** 2)
    nearest = begin + np.clip(along, 0, 1)[..., None] * (end - begin)
    return np.linalg.norm(voxels - nearest, axis=-1)


def recipe_of(project, annotations, **network):
    usual = {
        "name": "n", "architecture": SLAB, "classes": CLASSES, "voxel_size_angstrom": VOXEL,
        "patch": [2, 16, 16], "batch": 2, "steps": 2, "device": "cpu", "precision": "float32",
    }  # fmt: skip
    values = {"output": str(project / "model"), "annotations": annotations}
    return training_recipe({**values, "network": {**usual, **network}})


def volumes_of(recipe):
    return annotated_volumes(recipe.annotations, recipe.network, memory_gib=1.0)


def test_balls_and_tubes_lie_where_the_points_are(project, annotations):
    for volume, name in zip(volumes_of(recipe_of(project, annotations)), CLASSES, strict=True):
        labels, wanted = volume.labels(Box.whole(SHAPE)), expected(name)
        assert volume.judged == (CLASSES.index(name) + 1,)
        # A tube of balls a voxel apart is thinner by less than 10² / 8r Å.
        differ = labels != wanted
        assert (wanted == CLASSES.index(name) + 1).sum() > 50
        assert differ.sum() <= (0 if name == "ribosome" else 0.02 * (wanted > 0).sum())


@pytest.mark.parametrize(
    ("architecture", "slices", "reads"),
    [(SLAB, 2, 6), ({"kind": "volume", "widths": [4, 8]}, 4, 4)],
)
def test_a_network_sees_each_voxel_with_its_own_label(
    project, annotations, architecture, slices, reads
):
    steps = [{"kind": "z_score"}]
    network = {"architecture": architecture, "patch": [slices, 16, 16], "intensity": steps}
    recipe = recipe_of(project, annotations, **network)
    plain = {"augmentation": AugmentationSettings.none()}
    settings: TrainingSettings = recipe.network.model_copy(update=plain)
    volumes = volumes_of(recipe)
    census = take_census([Region(v, Box.whole(SHAPE)) for v in volumes], settings)
    whole = volumes[0].image(Box.whole(SHAPE)).ravel()
    step = (whole[-1] - whole[0]) / (whole.size - 1)
    wanted = [volume.labels(Box.whole(SHAPE)).ravel() for volume in volumes]
    seen = set()
    for number in range(20):
        batch = PatchSource(census, settings).batch(number)
        for image, labels, allowed in zip(batch.images, batch.labels, batch.allowed, strict=True):
            assert image.shape[0] == reads
            (judged,) = np.flatnonzero(~allowed[1:]) + 1
            # The value says which voxel it is; what is not annotated may lie outside.
            voxels = np.rint((image - whole[0]) / step).astype(int)
            known = labels != 255
            assert np.array_equal(wanted[judged - 1][voxels[known]], labels[known])
            seen |= set(np.unique(labels))
    assert seen >= {0, 1, 2}


def test_a_training_on_imported_points_ends_with_a_model(project, annotations):
    card = train_from(recipe_of(project, annotations))
    assert card.classes == CLASSES
    assert (project / "model" / "weights.safetensors").exists()


def test_another_class_is_not_taken_for_the_one_that_is_missing(project, annotations):
    path = project / "imported" / "t1__particles.csv"
    rows = path.read_text()
    path.write_text(rows.replace("ribosome,1", "vesicle,1").replace("ribosome,2", "virus,1"))
    with pytest.raises(RequestError, match=r"t1: .*holds vesicle, virus, and no ribosome"):
        volumes_of(recipe_of(project, annotations))
