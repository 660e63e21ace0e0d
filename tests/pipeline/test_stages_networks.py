"""Several networks through the stages: they compete in blocks as in one piece, each as it needs."""

import json
from dataclasses import replace

import mrcfile
import numpy as np
import pytest
import torch
import zarr
from scipy import ndimage

from tomoseg.analysis import intensity
from tomoseg.analysis.particles import PickingSettings
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import ModelError
from tomoseg.io.stores import Volume
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard, load_card
from tomoseg.nets.checkpoint import save_model
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.pipeline.stages.segment import segment_block
from tomoseg.recipe.recipe import recipe_from

WHOLE, BLOCKS = (64, 256, 256), (8, 32, 24)


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A tomogram of 12 Å whose grey values differ from place to place."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.normal(size=(21, 52, 60)), 2)
    voxels = (1000 * smooth + rng.normal(0, 40, smooth.shape)).astype(np.int16)
    path = tmp_path_factory.mktemp("noise") / "noise.mrc"
    with mrcfile.new(path) as file:
        file.set_data(voxels)
        file.voxel_size = 12.0
    return path


@pytest.fixture
def model(tmp_path):
    """Write models with random weights that differ in what is asked for."""

    def write(name, classes, architecture, *, seed=0, **changes):
        card = ModelCard(
            name=name,
            architecture=architecture,
            classes=classes,
            colours=tuple(f"#{seed:02x}000{label}" for label in range(len(classes))),
            halo=architecture.receptive_halo,
            stride=architecture.stride,
            **{"voxel_size_angstrom": 12.0, **changes},
            intensity=tuple(intensity.as_dicts(intensity.DEFAULT_STEPS)),
        )
        torch.manual_seed(seed)
        save_model(tmp_path / name, build_network(architecture, len(classes)), card)
        return {"model": str(tmp_path / name)}

    return write


SLAB = Architecture(slices_in=8, slices_out=4, widths=(8, 16))
FLAT = Architecture(slices_in=3, fold=1, widths=(8, 12))
SOLID = Architecture(kind="volume", widths=(8, 12))


def session_for(tomogram, output, networks, **sections):
    segment = {"networks": networks, "precision": "float32", "abstain": 0.3}
    segment |= sections.pop("segment", {})
    places = {"input": str(tomogram), "output": str(output)}
    sections = {"session": places, "segment": segment, "compute": {"runner": "serial"}} | sections
    return plan_session(recipe_from(sections))


def context_for(*places, **sections):
    session = session_for(*places, **sections)
    (found,) = session.tomograms
    return session.context(found, SerialRunner(), lambda *progress: None)


def stored(context, path):
    return zarr.open_array(zarr.storage.LocalStore(context.image.path), path=path, mode="r")[:]


def segmented(context):
    """Return the labels that the segment stage gives, and its record."""
    run_stage(context, "ingest")
    record = run_stage(context, "segment")
    return stored(context, RAW_LABELS), record


def test_networks_that_differ_in_everything_do_not_depend_on_the_blocks(tmp_path, model, noise):
    networks = [
        model("slab", ("actin", "ribosome"), SLAB, contrast="bright"),
        model("flat", ("carbon_edge",), FLAT, seed=1, voxel_size_angstrom=16.0),
        model("solid", ("ribosome", "actin"), SOLID, seed=2, voxel_size_angstrom=9.0),
    ]
    found = []
    for shape in (WHOLE, BLOCKS):
        context = context_for(
            noise, tmp_path / f"out{shape[0]}", networks, blocks={"shape": shape}, trace={}
        )
        labels, record = segmented(context)
        assert [one["voxel_angstrom"] for one in record["summary"]["networks"]] == [12, 16, 9]
        found.append((labels, stored(context, "scores/ribosome").astype(int)))
    (labels, scores), (block_labels, block_scores) = found
    assert np.unique(labels).tolist() == [0, 1, 2, 3]
    assert np.array_equal(labels, block_labels)
    # As with one network: a last bit may turn a rounding to 1/255.
    assert np.abs(scores - block_scores).max() <= 1


def test_one_network_that_competes_with_none_labels_what_it_is_sure_of(tmp_path, model, noise):
    network = model("slab", ("actin", "ribosome"), SLAB)
    context = context_for(noise, tmp_path / "out", [network])
    labels, _ = segmented(context)
    alone = context_for(
        noise, tmp_path / "alone", (), segment={"model": network["model"], "abstain": 0.5}
    )
    unsure, _ = segmented(alone)
    steps = intensity.parse_steps(intensity.as_dicts(intensity.DEFAULT_STEPS))
    statistics = intensity.Statistics.from_dict(context.records.read_json("statistics.json"))
    normaliser = intensity.prepare(steps, statistics, flip=False)
    volume = normaliser.apply(stored(context, "0"), context.sampling())
    predictor = Predictor.open(tmp_path / "slab", PredictionOptions(precision="float32"))
    scores = predictor.predict_scores(volume, Box.whole(volume.shape))
    assert np.array_equal(unsure, np.argmax(scores, axis=0))
    wanted = np.where(scores[1:].max(axis=0) > 0.3, 1 + np.argmax(scores[1:], axis=0), 0)
    assert np.array_equal(labels, wanted)
    assert not np.array_equal(labels, unsure)


def test_the_carbon_edge_takes_voxels_and_scores_from_the_microtubules(tmp_path, model, noise):
    tubes = model("tubes", ("microtubule",), SLAB)
    # Surer of every voxel than the tubes' network, once calibrated.
    edges = model("edges", ("carbon_edge",), FLAT, calibration={"carbon_edge": (1.0, 9.0)})
    how = {"pick": {}, "trace": {"microtubule": {}}}
    alone = context_for(noise, tmp_path / "alone", [tubes], **how)
    both = context_for(noise, tmp_path / "both", [tubes, edges], **how)
    assert (segmented(alone)[0] == 1).sum() > 1000
    labels, record = segmented(both)
    assert np.unique(labels).tolist() == [2]
    assert record["summary"]["voxels"] == [0, 0, labels.size]
    path = "scores/microtubule"
    assert stored(alone, path).max() > 128 >= stored(both, path).max()


def test_only_classes_that_are_asked_for_compete(tmp_path, model, noise):
    slab = model("slab", ("actin", "ribosome", "microtubule"), SLAB, seed=1)
    flat = model("flat", ("microtubule", "ribosome"), FLAT, seed=2)
    networks = [{**slab, "classes": ["microtubule", "actin"]}, flat]
    context = context_for(noise, tmp_path / "out", networks, trace={}, pick={})
    # First appearance, in the order of the cards; the colour is that of the first card.
    assert context.classes == ("actin", "microtubule", "ribosome")
    assert [context.label(name) for name in context.classes] == [1, 2, 3]
    assert list(dict(context.colours).values()) == ["#010000", "#010002", "#020001"]
    labels, _ = segmented(context)
    swapped = context_for(noise, tmp_path / "swapped", networks[::-1], trace={}, pick={})
    assert swapped.classes == ("microtubule", "ribosome", "actin")
    others, _ = segmented(swapped)
    # The same voxels win: 1, 2, 3 are 3, 1, 2 there.
    assert np.array_equal(np.array([0, 3, 1, 2])[labels], others)
    assert len(np.unique(labels)) > 2


@pytest.mark.parametrize("change", ["weight", "abstain", "calibration"])
def test_what_decides_the_competition_makes_it_run_again(tmp_path, model, noise, change):
    slab, flat = model("slab", ("actin",), SLAB), model("flat", ("ribosome",), FLAT)
    segmented(context_for(noise, tmp_path / "out", [slab, flat]))
    again = context_for(noise, tmp_path / "out", [slab, flat])
    assert segmented(again)[1]["is_reused"]
    segment = {"abstain": 0.25} if change == "abstain" else {}
    if change == "weight":
        slab["weight"] = 2.0
    if change == "calibration":
        path = tmp_path / "flat" / "card.json"
        card = json.loads(path.read_text()) | {"calibration": {"ribosome": [0.5, 0.0]}}
        path.write_text(json.dumps(card))
    changed = context_for(noise, tmp_path / "out", [slab, flat], segment=segment)
    assert not segmented(changed)[1]["is_reused"]


def test_a_measurement_written_into_a_card_makes_nothing_run_again(tmp_path, model, noise):
    slab = model("slab", ("actin",), SLAB)
    segmented(context_for(noise, tmp_path / "out", [slab]))
    path = tmp_path / "slab" / "card.json"
    cost = {"halo": 0, "voxels": 0.1, "foreground": 0.2, "time_ratio": 0.5}
    sizes = {"shape": [8, 64, 64], "block_shape": [8, 32, 32]}
    measured = {"tomogram": "t", "precision": "float32", **sizes, "costs": [cost]}
    path.write_text(json.dumps(json.loads(path.read_text()) | {"halo_disagreement": [measured]}))
    again = context_for(noise, tmp_path / "out", [slab])
    assert again.networks[0].card.halo_disagreement[0].costs[0].voxels == 0.1
    assert segmented(again)[1]["is_reused"]


def test_the_manifest_and_the_page_name_every_network(tmp_path, model, noise):
    slab = {**model("slab", ("actin", "ribosome"), SLAB), "weight": 2.0, "classes": ["ribosome"]}
    flat = model("flat", ("carbon_edge",), FLAT, calibration={"carbon_edge": (0.5, -1.0)})
    session = session_for(noise, tmp_path / "out", [slab, flat])
    (row,) = run_session(session, lambda *progress: None)["tomograms"]
    assert row["state"] == "done", row
    assert [item["name"] for item in row["classes"]] == ["ribosome", "carbon_edge"]
    manifest = json.loads((tmp_path / "out" / "noise" / "manifest.json").read_text())
    one, other = manifest["networks"]
    assert one["weights_sha256"] == load_card(tmp_path / "slab").weights_sha256
    assert (one["weight"], one["classes"], one["calibration"]) == (2.0, ["ribosome"], {})
    assert other["weights_sha256"] == load_card(tmp_path / "flat").weights_sha256
    assert other["calibration"] == {"carbon_edge": [0.5, -1.0]}
    page = (tmp_path / "out" / "index.html").read_text()
    assert one["weights_sha256"] in page
    assert other["weights_sha256"] in page
    masks = {path.name for path in (tmp_path / "out" / "noise" / "masks").iterdir()}
    assert masks == {"noise__ribosome.mrc", "noise__carbon_edge.mrc"}


def test_a_class_that_a_network_does_not_know(tmp_path, model, noise):
    slab = {**model("slab", ("actin",), SLAB), "classes": ["ribosome"]}
    with pytest.raises(ModelError, match="slab has no class 'ribosome', only actin"):
        session_for(noise, tmp_path / "out", [slab])


def test_every_network_must_fit_the_tomogram(tmp_path, model, noise):
    networks = [
        model("slab", ("actin",), SLAB),
        model("far", ("ribosome",), FLAT, voxel_size_angstrom=40.0),
    ]
    (check,) = check_session(session_for(noise, tmp_path / "out", networks))
    assert "model far was trained at 40 Å" in check.problem
    with pytest.raises(ModelError, match="model far"):
        run_stage(context_for(noise, tmp_path / "out", networks), "ingest")


def test_weights_of_every_network_are_checked_before_any_work(tmp_path, model, noise):
    networks = [model("slab", ("actin",), SLAB), model("flat", ("ribosome",), FLAT)]
    (tmp_path / "flat" / "weights.safetensors").write_bytes(b"other")
    with pytest.raises(ModelError, match=r"flat.weights\.safetensors .*Fetch"):
        session_for(noise, tmp_path / "out", networks)


def test_networks_of_several_voxel_sizes_share_one_read_of_a_block(
    tmp_path, model, noise, monkeypatch
):
    networks = [
        model("slab", ("actin",), SLAB),
        model("flat", ("carbon_edge",), FLAT, seed=1, voxel_size_angstrom=16.0),
        model("solid", ("ribosome",), SOLID, seed=2, voxel_size_angstrom=9.0),
    ]
    context = context_for(noise, tmp_path / "out", networks, blocks={"shape": (8, 32, 24)})
    run_stage(context, "ingest")
    read, boxes = Volume.read, []

    def counted(volume, box):
        boxes.append((volume.path, box))
        return read(volume, box)

    monkeypatch.setattr(Volume, "read", counted)
    run_stage(context, "segment")
    grid = BlockGrid(context.sampling().shape, (8, 32, 24))
    assert [path for path, _ in boxes] == ["0"] * len(grid)
    for (_, box), block in zip(boxes, grid, strict=True):
        assert all(box.contains(one.needed(block.write)) for one in segment_block(context).networks)


def test_a_run_says_what_speaks_against_its_network(noise, model, tmp_path):
    architecture = Architecture(slices_in=1, widths=(4, 8))
    network = model(
        "doubtful", ("actin", "ribosome"), architecture,
        doubts=("actin: F1 0.025",), training={"voxels_per_label": [9990, 5, 5]},
    )  # fmt: skip
    _, record = segmented(
        context_for(noise, tmp_path / "out", (), segment={**network, "abstain": 0.5})
    )
    summary = record["summary"]
    first, *others = summary["notes"]
    assert first == "network doubtful: actin: F1 0.025"
    # Random weights label most of the voxels as one class or another.
    shares = np.array(summary["voxels"][1:]) / sum(summary["voxels"])
    covering = [name for name, n in zip(("actin", "ribosome"), shares, strict=True) if n > 0.1005]
    assert covering
    assert [note.split()[0] for note in others] == covering


def test_what_a_network_learned_from_points_is_picked_as_it_was_painted(noise, model, tmp_path):
    architecture = Architecture(slices_in=1, widths=(4, 8))
    painted = {"ferritin": (60.0, 40.5)}
    classes = ("ferritin", "contamination", "ribosome")
    network = model("points", classes, architecture, particles=painted)

    def planned(**sections):
        places = {"input": str(noise), "output": str(tmp_path / "out")}
        values = {"session": places, "segment": network, **sections}
        return plan_session(recipe_from(values)).recipe.pick

    ferritin = PickingSettings(radius_angstrom=60.0, label_radius_angstrom=40.5)
    assert planned() == {"ferritin": ferritin, "ribosome": PickingSettings()}
    assert planned(pick={}) == {}
    given = {"ferritin": {"threshold": 0.6}, "contamination": {}}
    assert planned(pick=given) == {
        "ferritin": replace(ferritin, threshold=0.6),
        "contamination": PickingSettings(),
    }
    given = {"ferritin": {"radius_angstrom": 55.0, "label_radius_angstrom": 55.0}}
    assert planned(pick=given)["ferritin"].label_angstrom == 55.0
