"""Picking as a stage: limits, what lies around particles, and the same whatever the blocks."""

import io

import mrcfile
import numpy as np
import pandas as pd
import pytest

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.pipeline.stages.pick import read_particles
from tomoseg.recipe.recipe import recipe_from

SHAPE, VOXEL = (40, 64, 72), 12.0
WHOLE, BLOCKS = (64, 256, 256), (24, 40, 40)
CLASSES = ("microtubule", "actin", "single_membrane", "double_membrane", "ribosome", "carbon_edge")
# In a vesicle around its own place, beside it, far from it, and at the carbon.
VESICLE = INSIDE = (20, 20, 20)
BESIDE, FAR, AT_CARBON = (20, 20, 44), (32, 40, 66), (20, 54, 20)
RADIUS = 50.0


@pytest.fixture(scope="module")
def scene():
    """Labels: a vesicle of radius 14 voxels and a wall of 2, an open sheet, carbon, particles."""
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    labels = np.zeros(SHAPE, np.uint8)
    away = np.linalg.norm(places - np.array(VESICLE), axis=-1)
    labels[(away >= 14) & (away < 16)] = 3
    labels[:, 36:52, 10:13] = 4
    labels[:, 60:] = 6
    for centre in (INSIDE, BESIDE, FAR, AT_CARBON):
        labels[np.linalg.norm(places - np.array(centre), axis=-1) <= RADIUS / VOXEL] = 5
    return labels


@pytest.fixture
def picked(tmp_path, tiny_model, scene):
    """Pick the scene's particles from its labels."""

    def pick(blocks=WHOLE, **settings):
        given = {"surroundings_angstrom": 500.0, **settings}
        folder = tmp_path / f"{len(list(tmp_path.iterdir()))}"
        folder.mkdir()
        with mrcfile.new(folder / "tomo.mrc") as file:
            file.set_data(np.zeros(SHAPE, np.int8))
            file.voxel_size = VOXEL
        recipe = {
            "session": {"input": str(folder / "tomo.mrc"), "output": str(folder / "out")},
            "segment": {"model": str(tiny_model), "score_maps": False},
            "blocks": {"shape": blocks},
            "clean": {},
            "trace": {},
            "pick": {"ribosome": {"method": "watershed", "radius_angstrom": RADIUS, **given}},
            "export": {"masks": False},
        }
        session = plan_session(recipe_from(recipe))
        context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
        run_stage(context, "ingest")
        volume = context.volume(RAW_LABELS)
        volume.create(SHAPE, "uint8", shard=context.recipe.blocks.shape, is_labels=True)
        volume.write(Box.whole(SHAPE), scene)
        context.records.write_json("segment.json", {"digest": "planted", "summary": {}})
        for stage in ("clean", "trace", "pick", "sample", "export"):
            run_stage(context, stage)
        return context

    return pick


def surroundings(context):
    """Return the table beside the picks, indexed by where the particle is."""
    table = pd.read_csv(
        io.BytesIO(context.folder.read("particles/tomo__ribosome__surroundings.csv"))
    )
    points = np.rint(read_particles(context, "ribosome").points_angstrom / VOXEL).astype(int)
    assert table["particle"].tolist() == list(range(1, len(points) + 1))
    return table.set_index(pd.Index([tuple(p) for p in points.tolist()]))


def test_the_table_tells_what_lies_around_each_particle(picked):
    context = picked()
    table = surroundings(context)
    assert set(table.index) == {INSIDE, BESIDE, FAR, AT_CARBON}
    # The wall's nearest voxels lie 14 voxels from the middle; from beside at 20 + 15.
    assert table.loc[[INSIDE], "single_membrane_angstrom"].item() == pytest.approx(-168)
    assert table.loc[[BESIDE], "single_membrane_angstrom"].item() == pytest.approx(108)
    sides = [table.loc[[p], "single_membrane_side"].item() for p in (INSIDE, BESIDE, AT_CARBON)]
    assert sides == [-1, 1, 1]
    ids = context.volume(context.label_path("instances")).read(Box.whole(SHAPE))
    vesicle = ids[INSIDE[0] + 14, *INSIDE[1:]]
    assert vesicle > 0
    inside = [table.loc[[p], "inside_single_membrane"].item() for p in (INSIDE, BESIDE)]
    assert inside == [vesicle, 0]
    # The sheet reaches the border: it has no side. Its nearest voxel is at (20, 51, 20 - 8).
    assert set(table["double_membrane_side"]) == {0}
    carbon = table.loc[[AT_CARBON], "double_membrane_angstrom"].item()
    assert carbon == pytest.approx(12 * np.hypot(3, 8), abs=0.01)
    apart = 24 * VOXEL
    assert table.loc[[INSIDE], "neighbour_angstrom"].item() == pytest.approx(apart, abs=0.1)
    assert set(table["neighbours"]) == {0}
    for place in table.index:
        assert table.loc[[place], "in_ribosome"].item() == ids[place] > 0
    assert not table[[f"in_{name}" for name in CLASSES if name != "ribosome"]].any(axis=None)
    # The smoothing takes a layer of so small a ball.
    np.testing.assert_allclose(table["volume_nm3"], 4 / 3 * np.pi * 5**3, rtol=0.2)
    assert context.summary("pick")["ribosome"]["left_out"] == {}


def test_membranes_are_looked_for_as_far_as_asked(picked):
    table = surroundings(picked(surroundings_angstrom=150.0))
    seen = table["single_membrane_angstrom"].notna()
    assert table.index[seen].tolist() == [BESIDE]
    assert table.loc[[INSIDE], "inside_single_membrane"].item() > 0


def test_particles_near_another_class_are_left_out(picked):
    context = picked(exclude={"carbon_edge": 100.0, "double_membrane": 40.0})
    assert AT_CARBON not in surroundings(context).index
    summary = context.summary("pick")
    assert summary["ribosome"]["particles"] == 3
    assert summary["ribosome"]["left_out"] == {"nearer than 100 Å to carbon_edge": 1}
    assert summary["notes"] == ["ribosome: 1 left out, 1 nearer than 100 Å to carbon_edge"]
    # From the carbon's first voxels the particle is 72 Å away: not nearer than that.
    assert len(read_particles(picked(exclude={"carbon_edge": 72.0}), "ribosome")) == 4


def test_the_table_may_be_left_out(picked):
    context = picked(surroundings_angstrom=0.0, exclude={"carbon_edge": 100.0}, top_n=2)
    assert context.summary("pick")["ribosome"] == {
        "particles": 2,
        "left_out": {"nearer than 100 Å to carbon_edge": 1, "beyond the best 2": 1},
    }
    assert not context.folder.exists("particles/tomo__ribosome__surroundings.csv")


def test_blocks_leave_no_trace(picked):
    settings = {"exclude": {"carbon_edge": 100.0}, "border": "drop"}
    whole, parts = (picked(blocks, **settings) for blocks in (WHOLE, BLOCKS))
    assert len(read_particles(whole, "ribosome")) == 3
    for name in ("tomo__ribosome.csv", "tomo__ribosome__surroundings.csv"):
        assert whole.folder.read(f"particles/{name}") == parts.folder.read(f"particles/{name}")
    assert whole.summary("pick") == parts.summary("pick")


def test_no_particles_have_a_table_without_rows(picked):
    context = picked(minimum_volume_nm3=1e6)
    assert len(surroundings(context)) == 0
    assert context.summary("pick")["ribosome"]["left_out"] == {"too small": 4}


def test_a_class_that_no_model_has_cannot_be_excluded(picked):
    with pytest.raises(RequestError, match=r"pick\.exclude names ice"):
        picked(exclude={"ice": 100.0})
