"""Filaments in numbers: what the export writes is what was traced, cut where the mask cuts it."""

import io

import mrcfile
import numpy as np
import pandas as pd
import pytest

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import class_summaries, run_stage
from tomoseg.recipe.recipe import recipe_from

SHAPE = (40, 60, 140)
VOXEL = 12.0


@pytest.fixture
def exported(tmp_path, tiny_model):
    """Trace two planted tubes of actin, 144 Å apart; return the context and its table."""

    def run(mask=None):
        with mrcfile.new(tmp_path / "tomo.mrc", overwrite=True) as file:
            file.set_data(np.random.default_rng(0).normal(size=SHAPE).astype(np.float32))
            file.voxel_size = VOXEL
        source = {}
        if mask is not None:
            with mrcfile.new(tmp_path / "mask.mrc", overwrite=True) as file:
                file.set_data(mask.astype(np.int8))
                file.voxel_size = VOXEL
            source = {"mask": str(tmp_path / "mask.mrc")}
        values = {
            "session": {"input": str(tmp_path / "tomo.mrc"), "output": str(tmp_path / "out")},
            "source": source,
            "segment": {"model": str(tiny_model), "score_maps": False},
            "trace": {"actin": {}},
            "pick": {},
            "export": {"masks": False},
        }
        session = plan_session(recipe_from(values))
        context = session.context(session.tomograms[0], SerialRunner(), lambda *done: None)
        run_stage(context, "ingest")
        labels = np.zeros(SHAPE, np.uint8)
        for row in (24, 36):
            away = np.hypot(*(np.indices(SHAPE[:2]) - np.array([20, row])[:, None, None]))
            labels[away <= 3] = context.label("actin")
        labels[:, :, :20] = 0
        volume = context.volume(context.label_path("semantic"))
        volume.create(SHAPE, "uint8", shard=context.recipe.blocks.shape, is_labels=True)
        volume.write(Box.whole(SHAPE), labels)
        counted = {name: {"voxels": 0, "volume_nm3": 0.0} for name in context.classes}
        for stage in ("segment", "clean"):
            context.records.write_json(
                f"{stage}.json", {"digest": "planted", "summary": {"classes": counted}}
            )
        for stage in ("trace", "pick", "sample", "export"):
            run_stage(context, stage)
        path = "filaments/tomo__actin__measures.csv"
        assert path in context.summary("export")["files"]
        return context, pd.read_csv(io.BytesIO(context.folder.read(path)))

    return run


def test_the_table_tells_of_what_was_planted(exported):
    context, table = exported()
    assert list(table["filament"]) == [1, 2]
    # From column 20 to the border: 120 voxels.
    np.testing.assert_allclose(table["length_angstrom"], 120 * VOXEL, atol=40)
    np.testing.assert_allclose(table["spacing_angstrom"], 12 * VOXEL, atol=10)
    assert (table["packed_share"] > 0.95).all()
    assert list(table["nearest_number"]) == [2, 1]
    assert (table["curvature_mean_per_um"] < 0.5).all()
    assert [sorted(ends) for ends in table[["start", "end"]].to_numpy()] == 2 * [
        ["border", "inside"]
    ]
    actin = next(one for one in class_summaries(context) if one.name == "actin")
    shares = table["length_angstrom"] / table["length_angstrom"].sum()
    assert actin.curvature_per_um == pytest.approx(
        shares @ table["curvature_mean_per_um"], rel=1e-4
    )
    assert actin.packed_share == pytest.approx(shares @ table["packed_share"], rel=1e-4)


def test_an_end_at_the_mask_is_cut_by_it(exported):
    mask = np.ones(SHAPE, bool)
    mask[:, :, 110:] = False
    mask[:, 30:, :] = False
    _, table = exported(mask)
    assert len(table) == 1
    assert sorted(table.loc[0, ["start", "end"]]) == ["border", "inside"]
    assert table.loc[0, "length_angstrom"] == pytest.approx(90 * VOXEL, abs=60)
    assert np.isnan(table.loc[0, "spacing_angstrom"])
