"""The shipped models: sound, small, and good on what it never saw, simulated and real."""

import json
from itertools import pairwise
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import zarr

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.coordinates import resample
from tomoseg.evaluation import evaluate_filaments, evaluate_labels, evaluate_particles
from tomoseg.io.points.tables import read_filaments_csv, read_particles_csv
from tomoseg.io.stores import Folder
from tomoseg.nets.card import SHIPPED, SHIPPED_ACCURATE, SHIPPED_MODELS, load_card
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.recipe.recipe import recipe_from
from tomoseg.simulation import CLASSES, PhantomParameters
from tomoseg.simulation.sessions import simulated_session
from tomoseg.training.recipe import load_training_recipe

CRYOET = Path(__file__).resolve().parents[1] / ".." / "shared" / "data" / "cryoet"
UNSEEN = "simulated_7001"


def processed(tomogram, output, **sections):
    recipe = recipe_from(
        {"session": {"input": str(tomogram), "output": str(output)}, **sections}
    ).model_dump()
    result = run_session(plan_session(recipe_from(recipe)), lambda *progress: None)
    (row,) = result["tomograms"]
    assert row["state"] == "done", row
    return output / row["name"]


@pytest.fixture(scope="module")
def tomogram(tmp_path_factory):
    """A simulated tomogram of a seed outside the training."""
    folder = tmp_path_factory.mktemp("unseen")
    base = PhantomParameters(shape=(64, 192, 192), seed=7001)
    list(simulated_session(Folder(str(folder)), base, tomograms=1, density=3.0))
    return folder / f"{UNSEEN}.mrc"


@pytest.fixture(scope="module")
def unseen(tomogram, tmp_path_factory):
    """The tomogram, segmented: results and truth."""
    results = processed(tomogram, tmp_path_factory.mktemp("results"))
    return results, tomogram.parent / "truth" / f"{UNSEEN}__"


def labels_f1(results, truth):
    scores = evaluate_labels(str(results / "tomogram.zarr"), f"{truth}labels.mrc")
    return {name: row["f1"] for name, row in scores.items() if row["support"]}


@pytest.mark.parametrize("folder", SHIPPED_MODELS.values(), ids=SHIPPED_MODELS)
def test_a_model_is_small_and_says_where_it_comes_from(folder):
    card = load_card(folder)
    assert card.classes == CLASSES
    assert sum(path.stat().st_size for path in folder.iterdir()) < 10e6
    recipe = load_training_recipe(folder / "recipe.yaml")
    assert card.architecture == recipe.network.architecture
    assert set(recipe.network.validation).isdisjoint(card.training["volumes"])
    assert UNSEEN not in card.training["volumes"]
    assert card.disagreement(card.halo) < 1e-5
    assert min(card.scores["f1"].values()) > 0.5
    assert set(card.scores["unseen"]["simulated_f1"]["8 Å"]) == set(CLASSES)


@pytest.mark.parametrize("folder", SHIPPED_MODELS.values(), ids=SHIPPED_MODELS)
def test_a_card_says_what_every_halo_costs(folder):
    card = load_card(folder)
    assert {m.precision for m in card.halo_disagreement} == {"bfloat16", "float32"}
    for measured in card.halo_disagreement:
        assert measured.tomogram not in card.training["volumes"]
        halos, shares, times = zip(
            *((cost.halo, cost.voxels, cost.time_ratio) for cost in measured.costs), strict=True
        )
        assert halos == (0, 16, 32, 48, 64, 80, card.architecture.receptive_halo[2])
        assert all(more > less for more, less in pairwise(shares))
        assert (shares[-1], times[-1]) == (0, 1)
        assert times[0] < 0.8
        assert all(cost.foreground >= cost.voxels for cost in measured.costs)


@pytest.fixture(scope="module")
def wide(tomogram, tmp_path_factory):
    """A thin tomogram so wide that a block's exact halo ends within it: the other, mirrored."""
    voxels = mrcfile.read(tomogram)[28:36]
    path = tmp_path_factory.mktemp("wide") / "wide.mrc"
    with mrcfile.new(path) as file:
        file.set_data(np.pad(voxels, ((0, 0), (0, 128), (0, 128)), mode="reflect"))
        file.voxel_size = 12.0
    return path


@pytest.mark.parametrize("model", SHIPPED_MODELS)
def test_the_exact_halo_makes_blocks_invisible(model, wide, tmp_path):
    def segmented(halo, *shape):
        folder = tmp_path / f"{halo}-{shape[1]}"
        segment = {"model": model, "halo": halo, "precision": "float32", "score_maps": False}
        places = {"input": str(wide), "output": str(folder)}
        recipe = recipe_from({"session": places, "segment": segment, "blocks": {"shape": shape}})
        session = plan_session(recipe)
        context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
        run_stage(context, "ingest")
        run_stage(context, "segment")
        return zarr.open_array(Path(context.image.path) / RAW_LABELS, mode="r")[:]

    whole = segmented("exact", 8, 320, 320)
    assert len(np.unique(whole)) > 3
    assert np.array_equal(segmented("exact", 8, 192, 192), whole)
    assert not np.array_equal(segmented(16, 8, 192, 192), whole)


def test_labels_of_an_unseen_tomogram_are_good(unseen):
    f1 = labels_f1(*unseen)
    assert f1["microtubule"] > 0.75
    assert f1["ribosome"] > 0.7
    assert np.mean(list(f1.values())) > 0.6


def test_the_accurate_model_is_more_accurate(unseen, tomogram, tmp_path):
    alone = {"clean": {}, "trace": {}, "pick": {}}
    results = [
        processed(tomogram, tmp_path / model, segment={"model": model}, **alone)
        for model in (SHIPPED, SHIPPED_ACCURATE)
    ]
    fast, accurate = (np.mean(list(labels_f1(each, unseen[1]).values())) for each in results)
    assert accurate > fast


def test_lines_and_particles_of_an_unseen_tomogram_are_found(unseen):
    results, truth = unseen
    table = (results / "filaments" / f"{UNSEEN}__microtubule.csv").read_text()
    lines = read_filaments_csv(Path(f"{truth}filaments.csv").read_text())
    found = evaluate_filaments(read_filaments_csv(table), lines, 100.0)
    assert found["microtubule"]["f1"] > 0.8
    picks = (results / "particles" / f"{UNSEEN}__ribosome.csv").read_text()
    true_picks = read_particles_csv(Path(f"{truth}particles.csv").read_text())
    assert evaluate_particles(read_particles_csv(picks), true_picks, 70.0)["ribosome"]["f1"] > 0.7


@pytest.mark.skipif(not CRYOET.exists(), reason="the real data are not beside the project")
def test_the_microtubule_of_a_real_crop_is_traced(tmp_path):
    crop = CRYOET / "microtubule_14pf"
    results = processed(crop / "14pf_MT.tif", tmp_path / "out", source={"contrast": "bright"})
    table = (results / "filaments" / "14pf_MT__microtubule.csv").read_text()
    (line,) = read_filaments_csv(table)
    notes = json.loads((crop / "axis_points.json").read_text())["14pf_MT.tif"]
    clicked = 10 * np.array(notes["clicked_axis_points"])
    dense = resample(line.points_angstrom, 5.0)
    away = np.linalg.norm(dense[None] - clicked[:, None], axis=2).min(axis=1)
    assert away.max() < 60.0
    # The tube runs through the crop along y, from face to face.
    spanned = np.ptp(line.points_angstrom[:, 1]) / (135 * 10.52)
    assert spanned > 0.9
