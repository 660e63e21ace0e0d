"""Empty parts of a tomogram, such as padding, count nowhere and are background."""

import warnings

import mrcfile
import numpy as np
import pytest
import zarr
from scipy import ndimage

from tomoseg.analysis import intensity
from tomoseg.analysis.intensity import Statistics
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.volumes.sources import Found
from tomoseg.nets.card import load_card
from tomoseg.nets.settings import TrainingSettings
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.pipeline.stages.segment import SegmentBlock, segment_block
from tomoseg.recipe.recipe import recipe_from
from tomoseg.recipe.source import SourceSection
from tomoseg.training.annotations.tomogram import SeenTomograms
from tomoseg.training.annotations.voxels import Memory

SHAPE = (12, 56, 200)
WHOLE, BLOCKS = (64, 256, 256), (8, 16, 24)


@pytest.fixture
def padded(tmp_path):
    """Noise whose columns from 60 on are 7, but for one voxel."""
    voxels = np.random.default_rng(3).normal(0, 100, SHAPE).astype(np.float32)
    voxels[:, :, 60:] = 7
    voxels[5, 20, 150] = 90
    with mrcfile.new(tmp_path / "padded.mrc") as file:
        file.set_data(voxels)
        file.voxel_size = 12.0
    return voxels


@pytest.fixture
def segmented(tmp_path, tiny_model, padded):
    """Segment the tomogram; return the context and the stage's summary."""

    def run(output, **sections):
        segment = {"model": str(tiny_model), "precision": "float32", **sections.pop("segment", {})}
        places = {"input": str(tmp_path / "padded.mrc"), "output": str(tmp_path / output)}
        session = plan_session(recipe_from({"session": places, "segment": segment, **sections}))
        context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
        run_stage(context, "ingest")
        return context, run_stage(context, "segment")["summary"]

    return run


def stored(context, path):
    return zarr.open_array(zarr.storage.LocalStore(context.image.path), path=path, mode="r")[:]


def is_uniform(voxels, margin):
    """Tell where all values are one in a box around a voxel, by the definition."""
    size = [2 * m + 1 for m in margin]
    # The nearest voxel beyond the border is in the box already.
    low, high = (
        f(voxels, size, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return low == high


def test_empty_voxels_are_background_in_any_blocks(segmented, padded, monkeypatch, tiny_model):
    empty = intensity.empty_voxels(padded)
    assert 0.6 < empty.mean() < (140 / 200)  # all of the padding but around the one voxel
    with monkeypatch.context() as patch:
        read = intensity.read_filled
        patch.setattr(intensity, "uniform_voxels", lambda v, margin: np.zeros(v.shape, bool))
        patch.setattr(
            intensity, "read_filled", lambda *box: (read(*box)[0], np.zeros(box[1].shape, bool))
        )
        free, summary = segmented("free", blocks={"shape": BLOCKS})
        assert summary["blocks"]["skipped"] == {}
    context, _ = segmented("whole", blocks={"shape": WHOLE})
    margin = segment_block(context).margin
    assert margin == tuple(np.maximum(load_card(tiny_model).halo, (1, 16, 16)))
    empty |= is_uniform(np.where(empty, segment_block(context).fill, padded), margin)
    wanted = np.where(empty, 0, stored(free, RAW_LABELS))
    # The network says something of padding, which is dropped.
    assert stored(free, RAW_LABELS)[empty].any()
    assert np.array_equal(stored(context, RAW_LABELS), wanted)
    blocks, summary = segmented("blocks", blocks={"shape": BLOCKS})
    assert np.array_equal(stored(blocks, RAW_LABELS), wanted)
    assert not stored(blocks, "scores/ribosome")[empty].any()
    grid = BlockGrid(SHAPE, BLOCKS)
    skipped = sum(bool(empty[block.write.slices].all()) for block in grid)
    assert 0 < skipped < len(grid)
    assert summary["blocks"] == {"all": len(grid), "skipped": {"empty": skipped}}
    assert f"{skipped} of {len(grid)} blocks not predicted: {skipped} empty" in summary["notes"]
    assert np.bincount(wanted.ravel(), minlength=7).tolist() == summary["voxels"]


def test_skipped_blocks_are_not_predicted_and_resuming_changes_nothing(segmented, monkeypatch):
    predicted, seen = SegmentBlock.predicted, []

    def interrupted(work, write, image):
        seen.append(write)
        if len(seen) == 9:
            raise KeyboardInterrupt
        return predicted(work, write, image)

    monkeypatch.setattr(SegmentBlock, "predicted", interrupted)
    with pytest.raises(KeyboardInterrupt):
        segmented("out", blocks={"shape": BLOCKS})
    context, summary = segmented("out", blocks={"shape": BLOCKS})
    # One block was begun twice.
    assert len(seen) == summary["blocks"]["all"] - summary["blocks"]["skipped"]["empty"] + 1
    whole, _ = segmented("whole", blocks={"shape": WHOLE})
    assert np.array_equal(stored(context, RAW_LABELS), stored(whole, RAW_LABELS))


def test_without_a_halo_a_few_equal_voxels_are_not_empty(segmented):
    context, _ = segmented("out", segment={"halo": 0}, blocks={"shape": WHOLE})
    assert segment_block(context).margin[1:] == (16, 16)
    assert stored(context, RAW_LABELS)[:, :, :60].any()


@pytest.fixture
def ingested(tmp_path, tiny_model):
    """Ingest some voxels; return what is known of their grey values, and the summary."""

    def run(voxels, output="out", **sections):
        path = tmp_path / "tomo.mrc"
        # It warns of voxels that are no numbers.
        with warnings.catch_warnings(action="ignore"), mrcfile.new(path, overwrite=True) as file:
            file.set_data(voxels)
            file.voxel_size = 12.0
        places = {"input": str(tmp_path / "tomo.mrc"), "output": str(tmp_path / output)}
        values = {"session": places, "segment": {"model": str(tiny_model)}, **sections}
        session = plan_session(recipe_from(values))
        context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
        summary = run_stage(context, "ingest")["summary"]
        return Statistics.from_dict(context.records.read_json("statistics.json")), summary

    return run


@pytest.mark.parametrize("value", [0, 65535, 30000, np.nan])
@pytest.mark.parametrize("dtype", ["uint16", "float32"])
def test_grey_values_are_those_of_the_crop(ingested, dtype, value):
    if dtype == "uint16" and np.isnan(value):
        return
    crop = np.random.default_rng(1).normal(30000, 1000, (9, 64, 80)).astype(dtype)
    wanted, said = ingested(crop[1:, 2:, 3:], "crop")
    assert said["notes"] == []
    padded = np.full((9, 90, 101), value, dtype)
    padded[:, :64, :80] = crop
    padded[0], padded[:, :2], padded[:, :, :3] = value, value, value
    # The rim beside padding does not count, because it may be mixed with it.
    inside = crop[2:, 4:-2, 5:-2].astype(float)
    for number, shape in enumerate([WHOLE, BLOCKS, (9, 17, 131), (16, 9, 32)]):
        found, said = ingested(padded, f"{number}", blocks={"shape": shape}, trace={}, pick={})
        assert found.count == inside.size
        assert (found.minimum, found.maximum) == (inside.min(), inside.max())
        assert found.mean == np.float32(inside.mean())
        assert found.std == pytest.approx(inside.std(), rel=1e-6)
        assert found.counts.sum() == inside.size
        assert abs(found.mean - wanted.mean) < 0.02 * wanted.std
        assert abs(found.percentile(0.1) - wanted.percentile(0.1)) < 0.1 * wanted.std
        share = f"{100 * (1 - inside.size / padded.size):.2g}%"
        assert said["notes"][0] == (
            f"{share} of the voxels are empty (one grey value all around, as in padding): they do "
            "not count in the statistics of grey values"
        )
        assert said["left_out"] == {"empty": padded.size - inside.size, "outside the mask": 0}


def test_voxels_mixed_with_padding_do_not_count_when_binned(ingested):
    voxels = np.random.default_rng(1).normal(30000, 1000, (12, 100, 130)).astype(np.float32)
    voxels[:3], voxels[:, :, 99:] = 0, 0
    found, _ = ingested(voxels, ingest={"bin": 2}, blocks={"shape": BLOCKS})
    assert found.minimum > 28000


def test_a_tomogram_of_one_value_is_named_as_ever(ingested):
    found, said = ingested(np.full((4, 64, 64), 7, np.int16))
    assert (found.count, found.std, said["notes"]) == (4 * 64 * 64, 0, [])


def test_a_mask_around_nothing_is_named(ingested, tmp_path):
    voxels = np.zeros((4, 64, 80), np.float32)
    voxels[:, :, :40] = np.random.default_rng(1).normal(size=(4, 64, 40))
    with mrcfile.new(tmp_path / "mask_tomo.mrc") as file:
        file.set_data((np.indices(voxels.shape)[2] > 50).astype(np.int8))
    with pytest.raises(FormatError, match=r"no voxel is left that shows .* source\.mask"):
        ingested(voxels, source={"mask": "{folder}/mask_{name}.mrc"})


def test_a_training_takes_the_same_statistics(ingested, tmp_path):
    voxels = np.random.default_rng(1).normal(100, 9, (40, 60, 70)).astype(np.float32)
    voxels[:, 20:, :12] = np.nan
    voxels[3:5] = 0
    found, _ = ingested(voxels)
    grey = [{"kind": "percentile_clip"}, {"kind": "z_score"}]
    settings = TrainingSettings(
        name="n", classes=("a",), voxel_size_angstrom=12.0, steps=1, intensity=grey
    )
    tomograms = SeenTomograms(settings, Memory(1.0))
    place = Found("tomo", str(tmp_path / "tomo.mrc"))
    seen = tomograms.open(place, SourceSection()).voxels
    steps = intensity.parse_steps(settings.intensity)
    normaliser = intensity.prepare(steps, found)
    filled = np.where(intensity.empty_voxels(voxels), np.float32(found.fill), voxels)
    wanted = normaliser.apply(filled, Sampling(voxels.shape, (12.0,) * 3))
    assert np.array_equal(seen.read(Box.whole(voxels.shape)), wanted)
    assert np.abs(wanted[3:5]).max() < 0.1
