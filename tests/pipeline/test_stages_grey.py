"""What is guessed of grey values, contrast and sign, is said where a person looks."""

import mrcfile
import numpy as np
import pytest
from scipy import ndimage

from tomoseg.compute.runners import SerialRunner
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.recipe.recipe import recipe_from
from tomoseg.service.status import session_status


@pytest.fixture
def session_of(tmp_path, tiny_model):
    """Write some voxels, as bytes without statistics where they are bytes; plan their session."""

    def plan(voxels, **source):
        with mrcfile.new(tmp_path / "tomo.mrc", overwrite=True) as file:
            file.set_data(voxels.view(np.int8) if voxels.dtype == np.uint8 else voxels)
            file.voxel_size = 12.0
            if voxels.itemsize == 1:
                file.header.dmin = file.header.dmax = 0
        values = {
            "session": {"input": str(tmp_path / "tomo.mrc"), "output": str(tmp_path / "out")},
            "source": source,
            "segment": {"model": str(tiny_model)},
            "compute": {"runner": "serial"},
        }
        return plan_session(recipe_from(values))

    return plan


def ingested(session):
    context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
    summary = run_stage(context, "ingest")["summary"]
    return summary, context.records.read_json("statistics.json")


def test_bright_protein_under_dark_is_told_everywhere(session_of, tmp_path):
    rng = np.random.default_rng(8)
    blobs = ndimage.gaussian_filter((rng.uniform(size=(16, 96, 96)) < 1e-3).astype(np.float32), 4)
    voxels = (2000 * blobs + rng.normal(size=blobs.shape)).astype(np.float32)
    session = session_of(voxels)
    said = "protein looks bright (skewness of details +"
    (check,) = check_session(session, reads_masks=True)
    assert said in check.notes[-1]
    run_session(session, lambda *progress: None)
    assert said in session_status(str(tmp_path / "out"))["tomograms"][0]["say"]
    assert said in (tmp_path / "out" / "index.html").read_text()
    # What the note advises ends it, though nothing is ingested again.
    session = session_of(voxels, contrast="bright")
    assert check_session(session, reads_masks=True)[0].notes == ()
    run_session(session, lambda *progress: None)
    assert said not in (tmp_path / "out" / "index.html").read_text()


@pytest.mark.parametrize("dtype", ["uint8", "int8"])
def test_bytes_are_stored_with_the_sign_that_fits(session_of, dtype):
    mean = 128 if dtype == "uint8" else 0
    grey = np.random.default_rng(0).normal(mean, 20, (8, 40, 40)).round().astype(dtype)
    session = session_of(grey)
    (check,) = check_session(session)
    summary, statistics = ingested(session)
    assert summary["header"]["dtype"] == check.dtype == dtype
    assert statistics["mean"] == pytest.approx(grey.mean())
    assert summary["notes"] == list(check.notes)
    assert "the header does not say" in check.notes[0]
    other = "signed" if dtype == "uint8" else "unsigned"
    summary, statistics = ingested(session_of(grey, integers=other))
    assert statistics["mean"] == pytest.approx(grey.view(f"{other[0].replace('s', 'i')}1").mean())
    # It is as was asked for, and yet looks wrong.
    (note,) = summary["notes"]
    assert note.startswith("grey values lie at both ends of ")


def test_integers_of_16_bits_that_a_header_declares_wrongly_are_told(session_of):
    grey = np.random.default_rng(0).normal(33_000, 900, (8, 40, 40)).round().astype(np.uint16)
    summary, _ = ingested(session_of(grey.view(np.int16)))
    said = "set source.integers: unsigned (for MRC files)"
    assert summary["notes"][0].endswith(said)
    summary, statistics = ingested(session_of(grey.view(np.int16), integers="unsigned"))
    assert statistics["mean"] == pytest.approx(grey.mean())
    assert summary["notes"] == []
