"""Empty parts of a tomogram, such as padding, are background, and whole blocks not predicted."""

import mrcfile
import numpy as np
import pytest
import zarr
from scipy import ndimage

from tomoseg import intensity
from tomoseg.blocks import BlockGrid
from tomoseg.nets.card import load_card
from tomoseg.recipe import recipe_from
from tomoseg.runners import SerialRunner
from tomoseg.session import plan_session
from tomoseg.stages import run_stage
from tomoseg.stages.context import RAW_LABELS
from tomoseg.stages.segment import SegmentBlock, segment_block

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


def is_empty(voxels, margin):
    """Tell where all values are one in a box around a voxel, by the definition."""
    size = [2 * m + 1 for m in margin]
    # The nearest voxel beyond the border is in the box already.
    low, high = (
        f(voxels, size, mode="nearest") for f in (ndimage.minimum_filter, ndimage.maximum_filter)
    )
    return low == high


def test_empty_voxels_are_background_in_any_blocks(segmented, padded, monkeypatch, tiny_model):
    with monkeypatch.context() as patch:
        patch.setattr(intensity, "uniform_voxels", lambda v, margin: np.zeros(v.shape, bool))
        free, summary = segmented("free", blocks={"shape": BLOCKS})
        assert summary["blocks"]["skipped"] == {}
    context, _ = segmented("whole", blocks={"shape": WHOLE})
    margin = segment_block(context).margin
    assert margin == tuple(np.maximum(load_card(tiny_model).halo, (1, 16, 16)))
    empty = is_empty(padded, margin)
    wanted = np.where(empty, 0, stored(free, RAW_LABELS))
    # The network says something of padding, which is dropped.
    assert stored(free, RAW_LABELS)[empty].any()
    assert wanted[:, :, 60:].any()
    assert np.array_equal(stored(context, RAW_LABELS), wanted)
    blocks, summary = segmented("blocks", blocks={"shape": BLOCKS})
    assert np.array_equal(stored(blocks, RAW_LABELS), wanted)
    assert not stored(blocks, "scores/ribosome")[empty].any()
    grid = BlockGrid(SHAPE, BLOCKS)
    skipped = sum(bool(empty[block.write.slices].all()) for block in grid)
    assert 0 < skipped < len(grid)
    assert summary["blocks"] == {"all": len(grid), "skipped": {"empty": skipped}}
    assert summary["notes"] == [f"{skipped} of {len(grid)} blocks not predicted: {skipped} empty"]
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
