"""The stage that samples membranes: the same points for any blocks, as other programs read them."""

import mrcfile
import numpy as np
import pytest
import starfile

from tomoseg.analysis.filaments import RidgePoints
from tomoseg.analysis.surfaces import SheetPoints
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError
from tomoseg.io.points.dialects import READ_AS_IS, TomoContext
from tomoseg.io.points.relion_reader import read_relion
from tomoseg.io.points.tables import read_particles_csv
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import STAGES, run_stage
from tomoseg.pipeline.stages.sample import read_contacts, read_samples
from tomoseg.pipeline.stages.terms import settle
from tomoseg.recipe.recipe import load_recipe, recipe_from

SHAPE, VOXEL = (48, 72, 80), 12.0
RADIUS, CENTRE = 200.0, np.array([290.0, 430.0, 470.0])


def planted(folder, model, blocks, *, wall_x=1e4, **settings):
    """Ingest a tomogram and put the score map of a vesicle where the network's would be.

    A flat membrane stands across x at ``wall_x``, Å.
    """
    path = folder / "tomo.mrc"
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
        file.voxel_size = VOXEL
    sections = {
        "session": {"input": str(path), "output": str(folder / str(blocks[1]))},
        "segment": {"model": str(model), "precision": "float32"},
        "blocks": {"shape": blocks},
        "trace": {},
        "pick": {},
        "sample": {"single_membrane": {"spacing_angstrom": 60, **settings}},
        "export": {"masks": False},
    }
    session = plan_session(recipe_from(sections))
    (found,) = session.tomograms
    context = session.context(found, SerialRunner(), lambda *progress: None)
    run_stage(context, "ingest")
    away = np.indices(SHAPE) * VOXEL - CENTRE[:, None, None, None]
    distance = np.abs(np.linalg.norm(away, axis=0) - RADIUS)
    distance = np.minimum(distance, np.abs(away[2] + CENTRE[2] - wall_x))
    score = np.rint(255 * np.clip((30 - distance) / VOXEL + 0.5, 0, 1)).astype(np.uint8)
    volume = context.volume("scores/single_membrane")
    volume.create(SHAPE, "uint8", shard=blocks, is_labels=True)
    volume.write(Box.whole(SHAPE), score)
    for stage in ("segment", "clean", "trace", "pick"):
        context.records.write_json(f"{stage}.json", {"digest": "planted", "summary": {}})
    return context


def test_a_vesicle_is_sampled_in_any_blocks_and_exported(tmp_path, tiny_model):
    contexts = [
        planted(tmp_path, tiny_model, blocks)
        for blocks in ((48, 72, 80), (16, 24, 40), (8, 32, 16))
    ]
    summaries = [run_stage(each, "sample")["summary"]["single_membrane"] for each in contexts]
    assert summaries[0] == summaries[1] == summaries[2]
    assert summaries[0]["surfaces"] == 1
    assert summaries[0]["area_nm2"] == pytest.approx(4 * np.pi * 20**2, rel=0.03)
    one, *others = (read_samples(each, "single_membrane") for each in contexts)
    for other in others:
        np.testing.assert_array_equal(
            one.particles.points_angstrom, other.particles.points_angstrom
        )
        np.testing.assert_array_equal(one.particles.orientations, other.particles.orientations)
        np.testing.assert_array_equal(one.thickness_angstrom, other.thickness_angstrom)
    context = contexts[1]
    run_stage(context, "export")
    stem = "surfaces/tomo__single_membrane"
    path = tmp_path / "read.star"
    path.write_bytes(context.folder.read(f"{stem}.star"))
    tables = starfile.read(path, always_dict=True)
    place = TomoContext(tomo_name="tomo", sampling=context.header().sampling)
    [found] = read_relion(tables, [place], "single_membrane", READ_AS_IS)
    [back] = found.particles
    np.testing.assert_allclose(back.points_angstrom, one.particles.points_angstrom, atol=0.01)
    np.testing.assert_allclose(back.orientations, one.particles.orientations, atol=1e-4)
    # RELION's tilt is the angle of the outward normal with z.
    outward = back.points_angstrom - CENTRE
    tilt = np.degrees(np.arccos(outward[:, 0] / np.linalg.norm(outward, axis=1)))
    assert np.abs(tables["particles"]["rlnAngleTilt"] - tilt).max() < 4
    text = context.folder.read(f"{stem}.csv").decode()
    (table,) = read_particles_csv(text)
    np.testing.assert_allclose(table.points_angstrom, one.particles.points_angstrom, atol=1e-5)
    assert text.splitlines()[0].endswith(",zaxis_z,surface,area_angstrom2,thickness_angstrom")
    last = np.array(text.splitlines()[1].split(",")[-3:], float)
    known = [one.surface[0], one.area_angstrom2[0], one.thickness_angstrom[0]]
    np.testing.assert_allclose(last, known, rtol=1e-5)


def test_contacts_are_the_same_for_any_blocks_and_exported(tmp_path, tiny_model):
    tables = []
    for blocks in ((48, 72, 80), (16, 24, 40)):
        context = planted(tmp_path, tiny_model, blocks, wall_x=800.0, contact_angstrom=200)
        summary = run_stage(context, "sample")["summary"]["single_membrane"]
        assert (summary["surfaces"], summary["contacts"]) == (2, 2)
        run_stage(context, "export")
        path = "surfaces/tomo__single_membrane__contacts.csv"
        assert path in context.summary("export")["files"]
        tables.append(context.folder.read(path))
    assert tables[0] == tables[1]
    heads, *lines = tables[0].decode().splitlines()
    assert heads == "class,surface,other_class,other_surface,area_angstrom2,nearest_angstrom"
    # The wall is the larger: 130 Å from the vesicle, which has a cap of 70 Å and it a disc.
    areas = [float(line.split(",")[4]) for line in lines]
    disc, cap = np.pi * ((RADIUS + 200) ** 2 - (RADIUS + 130) ** 2), 2 * np.pi * RADIUS * 70
    assert areas == [pytest.approx(disc, rel=0.05), pytest.approx(cap, rel=0.07)]
    assert [line.split(",")[:4] for line in lines] == [
        ["single_membrane", "1", "single_membrane", "2"],
        ["single_membrane", "2", "single_membrane", "1"],
    ]


def test_contacts_are_told_if_they_are_asked_for(tmp_path, tiny_model):
    context = planted(tmp_path, tiny_model, (48, 72, 80), wall_x=800.0)
    assert "contacts" not in run_stage(context, "sample")["summary"]["single_membrane"]
    run_stage(context, "export")
    assert not context.folder.exists("surfaces/tomo__single_membrane__contacts.csv")
    assert read_contacts(context, "single_membrane") is None
    with pytest.raises(RequestError, match=r"single_membrane\.contact_angstrom: .*not '-1'"):
        recipe_from({"sample": {"single_membrane": {"contact_angstrom": -1}}})


def test_membranes_are_sampled_if_a_recipe_names_them():
    classes = ("single_membrane", "double_membrane")
    assert load_recipe(None).resolved(classes).sample == {}
    recipe = recipe_from({"sample": {"double_membrane": {"spacing_angstrom": 80}}})
    (settings,) = recipe.resolved(classes).sample.values()
    assert (settings.thickness_angstrom, settings.spacing_angstrom) == (260, 80)
    with pytest.raises(RequestError, match="sample names wall"):
        recipe_from({"sample": {"wall": None}}).resolved(classes)
    with pytest.raises(RequestError, match="spacing"):
        recipe_from({"sample": {"single_membrane": {"spacing": 80}}})


@pytest.mark.parametrize(("stage", "table"), [("trace", RidgePoints), ("sample", SheetPoints)])
def test_sidecars_that_lack_a_column_are_not_those_of_this_code(
    tmp_path, tiny_model, monkeypatch, stage, table
):
    context = planted(tmp_path, tiny_model, (48, 72, 80))
    _, now = settle(context, STAGES[stage], None)
    assert settle(context, STAGES[stage], None)[1] == now
    monkeypatch.setattr(table, "names", classmethod(lambda cls: ["index", "strength"]))
    assert settle(context, STAGES[stage], None)[1] != now
