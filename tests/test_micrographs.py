"""Micrographs: tomograms of one slice, from clicks to coordinates that other programs read."""

from __future__ import annotations

import mrcfile
import numpy as np
import pytest
import starfile
import tifffile
from PIL import Image

from tomoseg.analysis.metrics import score_particles
from tomoseg.core.coordinates import Particles
from tomoseg.io.points.tables import read_particles_csv
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import IngestSection, recipe_from
from tomoseg.training.recipe import train_from, training_recipe

SHAPE = (240, 280)
PIXEL_ANGSTROM = 4.0
RADIUS_ANGSTROM = 40.0


def micrograph(seed):
    """Return uint16 pixels and the centres, shape (n, 2), yx, of dark discs in noise."""
    rng = np.random.default_rng(seed)
    radius = RADIUS_ANGSTROM / PIXEL_ANGSTROM
    places = np.indices((8, 9)).reshape(2, -1).T[rng.random(72) < 0.7]
    centres = places * 3 * radius + 1.5 * radius + rng.uniform(-3, 3, places.shape)
    y, x = np.indices(SHAPE)
    away = np.min([np.hypot(y - centre[0], x - centre[1]) for centre in centres], axis=0)
    image = rng.standard_normal(SHAPE) - np.clip(radius - away + 0.5, 0, 1)
    return np.round(32768 + 4000 * image).clip(0, 65535).astype(np.uint16), centres


@pytest.fixture(scope="module")
def picker(tmp_path_factory):
    """Folder of a 2D network trained on one micrograph by its particles' centres."""
    folder = tmp_path_factory.mktemp("picker")
    pixels, centres = micrograph(0)
    Image.fromarray(pixels).save(folder / "m0.png")
    rows = "".join(f"{x:.2f},{y:.2f}\n" for y, x in centres)
    (folder / "m0.csv").write_text(f"x_px,y_px\n{rows}")
    points = {
        "kind": "points",
        "tomograms": "m0.png",
        "table": "{folder}/{name}.csv",
        "class": "apoferritin",
        "radius_angstrom": RADIUS_ANGSTROM,
    }
    network = {
        "architecture": {"slices_in": 1, "slices_out": 1, "widths": [8, 16]},
        "patch": [1, 96, 96],
        "batch": 4,
        "steps": 60,
        "device": "cpu",
        "threads": 1,
        "precision": "float32",
    }
    values = {
        "output": "model",
        "classes": ["apoferritin"],
        "annotations": [points],
        "source": {"voxel_size_angstrom": PIXEL_ANGSTROM},
        "network": network,
    }
    train_from(training_recipe(values, base=folder))
    return folder / "model"


def recipe(picker, image, output, **source):
    pick = {"apoferritin": {"radius_angstrom": RADIUS_ANGSTROM}}
    return recipe_from(
        {
            "session": {"input": str(image), "output": str(output)},
            "source": source,
            "blocks": {"shape": (8, 128, 128)},
            "segment": {"model": str(picker), "precision": "float32"},
            "pick": pick,
            "compute": {"runner": "serial", "threads": 1},
        }
    )


def saved(folder, kind):
    """Save a micrograph as a kind of file; return its path, what its header lacks, its centres."""
    pixels, centres = micrograph(1)
    path = folder / f"m1{kind}"
    if kind == ".mrc":
        with mrcfile.new(path, pixels.astype(np.float32)) as file:
            file.voxel_size = PIXEL_ANGSTROM
        return path, {}, centres
    if kind == ".png":
        Image.fromarray(pixels).save(path)
    else:
        tifffile.imwrite(path, pixels, photometric="minisblack")
    return path, {"voxel_size_angstrom": PIXEL_ANGSTROM}, centres


@pytest.mark.parametrize("kind", [".png", ".mrc", ".tif"])
def test_a_micrograph_is_picked_from_end_to_end(picker, tmp_path, kind):
    path, source, centres = saved(tmp_path, kind)
    result = run_session(plan_session(recipe(picker, path, tmp_path / "out", **source)), progress)
    assert [row["state"] for row in result["tomograms"]] == ["done"]
    out = tmp_path / "out/m1"
    (found,) = read_particles_csv((out / "particles/m1__apoferritin.csv").read_text())
    truth = np.column_stack([np.zeros(len(centres)), centres]) * PIXEL_ANGSTROM
    score = score_particles(
        found, Particles.at("apoferritin", truth), tolerance_angstrom=RADIUS_ANGSTROM / 2
    )
    assert score.f1 > 0.97
    assert score.position_rms_angstrom < PIXEL_ANGSTROM
    table = starfile.read(out / "particles/m1__apoferritin.star")
    assert set(table["rlnMicrographName"]) == {path.name}
    np.testing.assert_allclose(
        table[["rlnCoordinateY", "rlnCoordinateX"]] * PIXEL_ANGSTROM,
        found.points_angstrom[:, 1:],
        atol=1e-5,
    )
    assert table["rlnAutopickFigureOfMerit"].between(0, 1).all()
    with mrcfile.open(out / "masks/m1__apoferritin.mrc") as mask:
        assert mask.data.squeeze().shape == SHAPE
        rows, columns = np.rint(centres).astype(int).T
        assert mask.data.squeeze()[rows, columns].mean() > 0.9
    with Image.open(out / "report/overview.png") as picture:
        assert min(picture.size) > 100


def test_a_micrograph_is_binned_in_its_plane_alone(picker, tmp_path):
    pixels, centres = micrograph(1)
    Image.fromarray(pixels.repeat(2, axis=0).repeat(2, axis=1)).save(tmp_path / "m1.png")
    fine = recipe(picker, tmp_path / "m1.png", tmp_path / "out", voxel_size_angstrom=2.0)
    binned = fine.model_copy(update={"ingest": IngestSection(bin=2)})
    run_session(plan_session(binned), progress)
    out = tmp_path / "out/m1"
    (found,) = read_particles_csv((out / "particles/m1__apoferritin.csv").read_text())
    # The centre of a pixel of 4 Å is 1 Å from that of the first of its four.
    truth = np.column_stack([np.zeros(len(centres)), centres * PIXEL_ANGSTROM + 1])
    score = score_particles(found, Particles.at("", truth), tolerance_angstrom=RADIUS_ANGSTROM / 2)
    assert score.f1 > 0.97 and score.position_rms_angstrom < PIXEL_ANGSTROM
    assert (found.points_angstrom[:, 0] == 0).all()
    with mrcfile.open(out / "masks/m1__apoferritin.mrc") as mask:
        assert mask.data.squeeze().shape == (2 * SHAPE[0], 2 * SHAPE[1])


def progress(*_):
    """Say nothing."""


def test_a_picture_without_its_pixel_size_is_a_problem_of_its_own(picker, tmp_path):
    path, _, _ = saved(tmp_path, ".png")
    (check,) = check_session(plan_session(recipe(picker, path, tmp_path / "out")))
    assert "source.voxel_size_angstrom" in check.problem
