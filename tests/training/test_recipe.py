"""Training from a recipe: what is wrong is said before it begins, and it ends with a model."""

import json
from html import escape
from pathlib import Path

import mrcfile
import numpy as np
import pytest
import torch
import yaml

from tomoseg.analysis.intensity import DEFAULT_STEPS, as_dicts
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import FormatError, ModelError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.tables import filaments_csv
from tomoseg.nets.card import SHIPPED, SHIPPED_MODELS, load_card
from tomoseg.nets.checkpoint import load_network, save_card
from tomoseg.training.recipe import load_training_recipe, train_from, training_recipe

SHAPE = (12, 16, 16)
NETWORK = {
    "name": "tiny",
    "architecture": {"slices_in": 4, "slices_out": 2, "widths": [4, 8]},
    "classes": ["actin", "ribosome"],
    "voxel_size_angstrom": 10.0,
    "patch": [2, 16, 16],
    "batch": 1,
    "steps": 2,
    "device": "cpu",
    "precision": "float32",
}


PAINTED = {"kind": "painted", "tomograms": "a", "labels": "l.mrc"}


def save(path, voxels, voxel_size):
    path.parent.mkdir(parents=True, exist_ok=True)
    with mrcfile.new(path, voxels, overwrite=True) as file:
        file.voxel_size = voxel_size


@pytest.fixture
def annotated(tmp_path):
    """Return a function that writes a tomogram and its annotation."""

    def write(name, *, shape=SHAPE, voxel_size=10.0, labels=None, dtype=np.float32):
        rng = np.random.default_rng(len(name))
        painted = np.zeros(SHAPE, np.int8) if labels is None else labels
        if labels is None:
            painted[2:10, 2:7], painted[2:10, 9:14] = 1, 2
        image = rng.normal(100, 10, shape) - (5 * painted if painted.shape == shape else 0)
        save(tmp_path / f"{name}.mrc", image.astype(dtype), voxel_size)
        save(tmp_path / "truth" / f"{name}__labels.mrc", painted, 0.0)

    return write


@pytest.fixture
def recipe(tmp_path):
    """Return a function that makes a training's recipe."""

    def make(network=None, **changes):
        values = {"input": str(tmp_path), "output": str(tmp_path / "model"), **changes}
        return training_recipe({**values, "network": NETWORK | (network or {})})

    return make


# The recipe


def write(path, values):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(yaml.safe_dump(values))
    return path


def test_paths_are_relative_to_the_file(tmp_path):
    base = tmp_path / "recipes"
    tiles = {
        "kind": "tiles",
        "tomogram": "../t.mrc",
        "positives": "p.csv",
        "masks": "/abs/m.mrc",
    }
    points = {
        "kind": "points",
        "tomograms": "data",
        "table": "{folder}/{name}.star",
        "class": "actin",
        "radius_angstrom": 60,
        "background_table": "clicks/{name}.csv",
    }
    values = {
        "input": ["data", "/abs", "s3://bucket/run"],
        "labels": "painted/{name}.mrc",
        "annotations": [tiles, points],
        "output": "model",
        "network": NETWORK | {"init_from": "../old"},
    }
    recipe = load_training_recipe(write(base / "train.yaml", values))
    painted, cut, drawn = recipe.annotations
    assert painted.tomograms == (f"{base}/data", "/abs", "s3://bucket/run")
    assert painted.labels == f"{base}/painted/{{name}}.mrc"
    assert (cut.tomogram, cut.positives) == (f"{tmp_path}/t.mrc", f"{base}/p.csv")
    assert (cut.masks, cut.negatives) == ("/abs/m.mrc", None)
    assert drawn.tomograms == (f"{base}/data",)
    assert drawn.table == "{folder}/{name}.star"
    assert drawn.background_table == f"{base}/clicks/{{name}}.csv"
    assert recipe.output == f"{base}/model"
    assert recipe.network.init_from == tmp_path / "old"


def test_little_must_be_said(annotated, tmp_path):
    annotated("t1", voxel_size=13.7)
    values = {"output": "models/mine", "classes": ["actin", "cilium"], "input": "t1.mrc"}
    recipe = load_training_recipe(write(tmp_path / "train.yaml", values))
    network = recipe.network
    assert (network.name, network.classes) == ("mine", ("actin", "cilium"))
    assert network.voxel_size_angstrom == pytest.approx(13.7)
    assert network.intensity == tuple(as_dicts(DEFAULT_STEPS))
    (painted,) = recipe.annotations
    assert painted.labels == "{folder}/truth/{name}__labels.mrc"
    assert (painted.classes, painted.weight) == (("actin", "cilium"), 1.0)


def test_what_is_given_stays():
    steps = [{"kind": "z_score"}]
    values = {"input": "a", "output": "b", "network": NETWORK | {"intensity": steps}}
    assert training_recipe(values).network.intensity == tuple(steps)
    assert training_recipe(values).network.name == "tiny"


def test_an_annotation_may_have_a_source_and_classes_of_its_own():
    painted = {"kind": "painted", "tomograms": "a", "labels": "l.mrc"}
    values = {
        "output": "b",
        "source": {"voxel_size_angstrom": 10.0, "contrast": "bright"},
        "network": NETWORK,
        "annotations": [
            painted | {"values": {1: "ribosome", 7: "not_annotated"}, "weight": 2},
            painted | {"classes": ["actin"], "source": {"voxel_size_angstrom": 12.0}},
        ],
    }
    one, two = training_recipe(values).annotations
    assert (one.classes, one.weight, one.source.voxel_size_angstrom) == (("ribosome",), 2.0, 10.0)
    assert (two.classes, two.weight, two.source.voxel_size_angstrom) == (("actin",), 1.0, 12.0)
    assert two.source.contrast == "bright"


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"inputs": "x"}, "inputs is not a known key"),
        ({"network": NETWORK | {"epochs": 3}}, r"network\.epochs is not a known key"),
        ({"network": NETWORK | {"architecture": {"depth": 3}}}, r"architecture\.depth is not"),
        ({"network": NETWORK | {"augmentation": {"nois": 3}}}, r"augmentation\.nois is not"),
        ({"network": NETWORK | {"batch": 0}}, r"network\.batch: .*not '0'"),
        ({"network": NETWORK | {"patch": [2, 16, 15]}}, r"patch \(2, 16, 15\) does not fit"),
        ({"network": NETWORK | {"steps": None}}, "a training must end"),
        ({"network": NETWORK | {"classes": ["a b"]}}, r"network\.classes\.0: "),
        ({"network": NETWORK | {"classes": "actin"}}, r"network\.classes: "),
        ({"network": None}, "network: "),
        ({"input": []}, r"annotations: .*at least 1"),
        ({"annotations": [{"kind": "drawn"}]}, r"annotations\.0: .*'painted', 'tiles', 'points'"),
        ({"annotations": [PAINTED | {"slice": 3}]}, r"annotations\.0\.painted\.slice is not a"),
        ({"annotations": [PAINTED | {"slices": [3, 3]}]}, r"slices \[3, 3\] hold none"),
        ({"annotations": [PAINTED | {"values": {256: "actin"}}]}, r"values\.256.*less than or eq"),
        (
            {"annotations": [PAINTED | {"values": {1: "actin"}, "classes": ["ribosome"]}]},
            "values name actin, classes ribosome",
        ),
        (
            {"annotations": [PAINTED | {"classes": ["cilium"]}]},
            "an annotation names cilium, but the classes are actin, ribosome",
        ),
        (
            {"input": [], "annotations": [PAINTED | {"classes": ["actin"]}]},
            "class ribosome is named in no annotation",
        ),
        ({"output": "s3://bucket/model"}, "output: .*folder on this machine"),
        ({"source": {"contrast": "inverted"}}, r"source\.contrast"),
        ({"source": {"mask": "m.mrc"}}, r"no source\.mask: paint 255"),
    ],
)
def test_what_is_wrong_in_a_recipe_is_named(tmp_path, changes, message):
    path = tmp_path / "train.yaml"
    path.write_text(yaml.safe_dump({"input": "a", "output": "b", "network": NETWORK} | changes))
    with pytest.raises(RequestError, match=message):
        load_training_recipe(path)


def test_a_missing_recipe_is_named(tmp_path):
    with pytest.raises(RequestError, match=r"no recipe at .*none\.yaml"):
        load_training_recipe(tmp_path / "none.yaml")


# The recipe beside the model


@pytest.fixture
def project(tmp_path):
    """A folder with a recipe of every kind of annotation, and the recipe."""
    annotations = [
        PAINTED | {"tomograms": ["data"], "values": {1: "actin", 3: "background"}},
        PAINTED | {"tomograms": ["data"], "values": {1: "actin"}, "slices": [0, 4], "weight": 2},
        {
            "kind": "tiles",
            "tomogram": "data/t.mrc",
            "positives": "p.csv",
            "masks": "m.mrc",
            "classes": ["ribosome"],
        },
        {
            "kind": "points",
            "tomograms": "s3://bucket/run",
            "table": "{folder}/{name}.star",
            "class": "actin",
            "radius_angstrom": 60,
            "source": {"contrast": "bright"},
        },
    ]
    network = NETWORK | {"steps": None, "maximum_minutes": 3, "validation": ["t"], "version": "7"}
    values = {
        "output": "models/first",
        "annotations": annotations,
        "source": {"voxel_size_angstrom": 10.0},
        "network": network,
    }
    path = write(tmp_path / "project" / "train.yaml", values)
    return path.parent, load_training_recipe(path)


def save_first(folder, recipe):
    """Write what a finished training leaves: its card and its recipe."""
    write(folder / "recipe.yaml", yaml.safe_load(recipe.as_yaml()))
    save_card(folder, recipe.network.card({}, {}))


def test_the_recipe_beside_the_model_is_the_one_that_was_used(project):
    folder, recipe = project
    save_first(folder / "models" / "first", recipe)
    assert load_training_recipe(folder / "models" / "first" / "recipe.yaml") == recipe


def test_a_project_may_be_moved(project, tmp_path):
    folder, recipe = project
    save_first(folder / "models" / "first", recipe)
    moved = folder.rename(tmp_path / "moved")
    again = load_training_recipe(moved / "models" / "first" / "recipe.yaml")
    painted, _, tiles, points = again.annotations
    assert again.output == f"{moved}/models/first"
    assert (painted.tomograms, tiles.masks) == ((f"{moved}/data",), f"{moved}/m.mrc")
    assert points.tomograms == ("s3://bucket/run",)
    assert points.table == "{folder}/{name}.star"


@pytest.mark.parametrize(
    ("place", "said"),
    [
        ("/home/me/models/data", "../data"),
        ("/home/me/data", "../../data"),
        ("/home/you/data", "/home/you/data"),
        ("s3://bucket/run", "s3://bucket/run"),
    ],
)
def test_what_lies_far_from_a_model_stays_where_it_is(place, said):
    values = {"input": place, "output": "/home/me/models/mine", "network": NETWORK}
    written = yaml.safe_load(training_recipe(values).as_yaml())
    assert written["annotations"][0]["tomograms"] == [said]


def test_nothing_is_near_only_because_it_is_on_the_same_machine():
    values = {"input": "/data", "output": "/models/mine", "network": NETWORK}
    written = yaml.safe_load(training_recipe(values).as_yaml())
    assert written["annotations"][0]["tomograms"] == ["/data"]


# Going on from a model


def corrections(**changes):
    painted = {"kind": "painted", "tomograms": "new.mrc", "labels": "fixed.mrc"}
    return {"output": "second", "init_from": "models/first", "annotations": [painted], **changes}


def test_corrections_are_all_that_must_be_said(project):
    folder, first = project
    save_first(folder / "models" / "first", first)
    recipe = load_training_recipe(write(folder / "fix.yaml", corrections()))
    *kept, new = recipe.annotations
    assert tuple(kept) == first.annotations
    assert (new.tomograms, new.classes) == ((f"{folder}/new.mrc",), ("actin", "ribosome"))
    # A third of the draws: four others, one of which counts twice, have the rest.
    assert new.weight == pytest.approx((1 + 2 + 1 + 1) / 2)
    network = recipe.network
    assert network.init_from == folder / "models" / "first"
    assert (network.name, network.version) == ("second", "1")
    known = {"architecture", "classes", "colours", "voxel_size_angstrom", "contrast", "intensity"}
    cards = [settings.card({}, {}) for settings in (network, first.network)]
    assert cards[0].model_dump(include=known) == cards[1].model_dump(include=known)
    assert (network.patch, network.validation) == (first.network.patch, ("t",))
    # The recipe that is left beside the second model holds everything by itself.
    save_first(folder / "second", recipe)
    assert load_training_recipe(folder / "second" / "recipe.yaml") == recipe


def test_old_annotations_may_be_left_out_and_weights_given(project):
    folder, first = project
    save_first(folder / "models" / "first", first)
    path = folder / "fix.yaml"
    (new,) = load_training_recipe(write(path, corrections(keep_annotations=False))).annotations
    assert (new.tomograms, new.weight) == ((f"{folder}/new.mrc",), 1.0)
    heavy = corrections()
    heavy["annotations"][0]["weight"] = 10
    assert load_training_recipe(write(path, heavy)).annotations[-1].weight == 10.0


def test_a_class_may_be_added(project):
    folder, first = project
    save_first(folder / "models" / "first", first)
    classes = ["actin", "ribosome", "cilium"]
    recipe = load_training_recipe(write(folder / "fix.yaml", corrections(classes=classes)))
    assert recipe.network.classes == tuple(classes)
    assert [a.classes for a in recipe.annotations] == [
        *[("actin",)] * 2,
        ("ribosome",),
        ("actin",),
        tuple(classes),
    ]


def test_a_model_that_cannot_be_gone_on_from_is_named(project):
    folder, _ = project
    path = write(folder / "fix.yaml", corrections())
    with pytest.raises(RequestError, match=r"models/first cannot be kept.*keep_annotations: false"):
        load_training_recipe(path)
    with pytest.raises(ModelError, match=r"first/card\.json cannot be read"):
        load_training_recipe(write(path, corrections(keep_annotations=False)))


# Tomograms and annotations


def test_annotations_that_are_missing_or_do_not_fit_are_named(annotated, recipe, tmp_path):
    annotated("t1")
    labels = tmp_path / "truth" / "t1__labels.mrc"
    save(labels, np.zeros((12, 16, 15), np.int8), 0.0)
    with pytest.raises(RequestError, match=r"t1: .*shape \(12, 16, 15\) does not fit .*\(12, 16,"):
        train_from(recipe())
    labels.unlink()
    with pytest.raises(RequestError, match=r"t1__labels\.mrc does not exist"):
        train_from(recipe())
    with pytest.raises(RequestError, match=r"Use \{folder\} and \{name\}"):
        train_from(recipe(labels="{folder}/{tomogram}.mrc"))
    assert not (tmp_path / "model").exists()


@pytest.mark.parametrize(
    ("voxel_size", "override", "error", "message"),
    [
        (30.0, None, VoxelSizeError, r"t1: voxel size 30 Å .* 10 Å .*Correct source\.voxel_size"),
        (0.0, None, VoxelSizeError, r"t1: .*Set source\.voxel_size_angstrom"),
        (
            10.0,
            3.0,
            VoxelSizeError,
            r"t1: voxel size 3 Å and the network's 10 Å are more than 2\.5",
        ),
    ],
)
def test_voxel_sizes_must_be_near_the_networks(
    annotated, recipe, voxel_size, override, error, message
):
    annotated("t1", voxel_size=voxel_size)
    with pytest.raises(error, match=message):
        train_from(recipe(source={"voxel_size_angstrom": override}))


def test_there_must_be_tomograms(recipe):
    with pytest.raises(RequestError, match="no tomogram in"):
        train_from(recipe())


def test_a_truncated_annotation_is_refused(annotated, recipe, tmp_path):
    annotated("t1")
    labels = tmp_path / "truth" / "t1__labels.mrc"
    labels.write_bytes(labels.read_bytes()[:-100])
    with pytest.raises(FormatError):
        train_from(recipe())


@pytest.fixture
def seen(monkeypatch):
    """Catch the volumes that a training would be given, and those that its page is."""
    given, shown = [], []
    monkeypatch.setattr("tomoseg.nets.train.train", lambda volumes, *_, **__: given.extend(volumes))
    monkeypatch.setattr(
        "tomoseg.training.report.write_training_report",
        lambda _, volumes, __: shown.extend(volumes),
    )
    monkeypatch.setattr("tomoseg.training.recipe._judged", lambda card, *_: card)
    yield given
    assert shown == given


@pytest.mark.parametrize("contrast", ["dark", "bright"])
def test_the_network_sees_normalised_voxels_with_protein_dark(annotated, recipe, seen, contrast):
    annotated("t1", dtype=np.int16)
    train_from(recipe(source={"contrast": contrast}))
    (volume,) = seen
    assert (volume.name, volume.shape) == ("t1", SHAPE)
    whole = volume.image(Box.whole(SHAPE))
    assert whole.dtype == np.float32
    assert whole.mean() == pytest.approx(0, abs=0.05)
    assert whole.std() == pytest.approx(1, abs=0.05)
    protein = volume.labels(Box.whole(SHAPE)) > 0
    assert bool(whole[protein].mean() < whole[~protein].mean()) is (contrast == "dark")
    box = Box((3, 4, 5), (9, 10, 16))
    assert np.array_equal(volume.image(box), whole[box.slices])
    assert np.array_equal(volume.labels(box), volume.labels(Box.whole(SHAPE))[box.slices])


def test_minus_one_is_not_annotated(annotated, recipe, seen):
    labels = np.full(SHAPE, -1, np.int8)
    labels[:, :8] = 1
    annotated("t1", labels=labels)
    train_from(recipe())
    found = seen[0].labels(Box.whole(SHAPE))
    assert found.dtype == np.uint8
    assert set(np.unique(found[:, :8])) == {1}
    assert set(np.unique(found[:, 8:])) == {255}


def test_numbers_of_objects_are_no_annotation(annotated, recipe):
    annotated("t1", labels=np.full(SHAPE, 257, np.int16))
    with pytest.raises(RequestError, match=r"t1: .*are not labels"):
        train_from(recipe())


# The whole way


def test_a_training_ends_with_a_model_and_goes_on_when_called_again(annotated, recipe, tmp_path):
    annotated("t1")
    annotated("held_out")
    told = []
    settings = {"validation": ["held_out"]}
    card = train_from(recipe(settings), report=told.append)
    assert told[-1].step == 2
    assert told[-1].mean_f1 == pytest.approx(card.scores["mean_f1"])
    _, loaded = load_network(tmp_path / "model")
    assert loaded == card
    assert card.classes == ("actin", "ribosome")
    assert card.intensity == tuple(as_dicts(DEFAULT_STEPS))
    assert "halo_costs" in card.scores
    assert "held_out" in (tmp_path / "model" / "training.html").read_text()
    beside = load_training_recipe(tmp_path / "model" / "recipe.yaml")
    assert beside.network == recipe(settings).network
    # What is put into the folder later is not part of this training.
    assert beside.annotations[0].tomograms == (f"{tmp_path}/held_out.mrc", f"{tmp_path}/t1.mrc")
    weights = Path(tmp_path / "model" / "weights.safetensors").read_bytes()

    told.clear()
    again = train_from(recipe(settings), report=told.append)
    assert again == card
    assert all(progress.step == 2 for progress in told)
    assert Path(tmp_path / "model" / "weights.safetensors").read_bytes() == weights

    told.clear()
    train_from(recipe(settings | {"steps": 4}), report=told.append)
    assert {progress.step for progress in told} <= {2, 3, 4}
    assert told[-1].step == 4
    log = (tmp_path / "model" / "training.jsonl").read_text().splitlines()
    assert [json.loads(row)["step"] for row in log][-1] == 4
    with pytest.raises(RequestError):
        train_from(recipe(settings | {"batch": 3}))


def test_a_second_training_begins_where_the_first_ended(annotated, recipe, tmp_path, monkeypatch):
    monkeypatch.setattr("tomoseg.training.report.write_training_report", lambda *_: None)
    annotated("t1")
    annotated("held_out")
    first = train_from(recipe({"validation": ["held_out"]}, output=str(tmp_path / "first")))
    wrong = np.full(SHAPE, -1, np.int8)
    wrong[4, 2:7] = 0
    save(tmp_path / "fixed.mrc", wrong, 0.0)
    fix = {"kind": "painted", "tomograms": "t1.mrc", "labels": "fixed.mrc"}
    corrected = training_recipe(
        {
            "output": "second",
            "init_from": "first",
            "annotations": [fix],
            "network": {"steps": 1, "learning_rate": 1e-9, "batch": 1, "device": "cpu"},
        },
        base=tmp_path,
    )
    card = train_from(corrected)
    assert card.training["volumes"] == ["t1", "t1 (2)"]
    assert card.scores["volumes"] == ["held_out"]
    weights = [load_network(tmp_path / name)[0].state_dict() for name in ("first", "second")]
    for name, before in weights[0].items():
        if before.is_floating_point() and "running" not in name:
            assert torch.allclose(before, weights[1][name], atol=1e-6), name
    assert first.classes == card.classes


def test_of_several_processes_the_first_alone_writes(annotated, recipe, tmp_path, monkeypatch):
    annotated("t1")
    monkeypatch.setattr("tomoseg.nets.train.train", lambda *_, **__: None)
    monkeypatch.setattr("tomoseg.training.recipe._judged", lambda card, *_: card)
    monkeypatch.setattr("tomoseg.training.report.write_training_report", lambda *_: None)
    beside = tmp_path / "model" / "recipe.yaml"
    for rank, is_written in (("1", False), ("0", True)):
        monkeypatch.setenv("RANK", rank)
        train_from(recipe())
        assert beside.exists() is is_written


def test_simulated_sessions_are_ready_to_train_on(tiny_session, seen, tmp_path):
    network = NETWORK | {"voxel_size_angstrom": 12.0}
    del network["classes"]
    train_from(
        training_recipe(
            {"input": str(tiny_session), "output": str(tmp_path / "model"), "network": network}
        )
    )
    assert [volume.name for volume in seen] == ["simulated_0500", "simulated_0501"]
    for volume in seen:
        labels = volume.labels(Box.whole(volume.shape))
        assert volume.judged == (1, 2, 3, 4, 5, 6)
        assert {0, 2, 4, 5} <= set(np.unique(labels)) <= set(range(7))
        assert volume.annotated[0].size == labels.size


def test_a_training_goes_on_from_the_shipped_model_without_its_tomograms(annotated, tmp_path):
    annotated("a", voxel_size=12.0)
    recipe = training_recipe(
        {"init_from": "shipped", "output": "mine", "input": str(tmp_path / "a.mrc")}, base=tmp_path
    )
    card = load_card(SHIPPED_MODELS[SHIPPED])
    assert recipe.network.init_from == SHIPPED_MODELS[SHIPPED]
    assert recipe.network.architecture == card.architecture
    assert recipe.network.classes == card.classes
    assert len(recipe.annotations) == 1


def test_a_network_that_is_not_asked_for_is_chosen_and_written_down(annotated, tmp_path):
    labels = np.full(SHAPE, 255, np.int16)
    for z in (2, 9):
        labels[z], labels[z, 2:7, 2:7], labels[z, 9:14, 9:14] = 0, 1, 2
    annotated("a", labels=labels)
    given = {k: v for k, v in NETWORK.items() if k not in ("architecture", "patch", "batch")}
    values = {"input": str(tmp_path / "a.mrc"), "output": "mine", "network": given | {"steps": 1}}
    card = train_from(training_recipe(values, base=tmp_path))
    assert (card.architecture.slices_in, card.architecture.slices_out) == (5, 1)
    used = load_training_recipe(tmp_path / "mine" / "recipe.yaml")
    assert used.network.architecture == card.architecture


def test_the_network_that_was_chosen_is_said_with_the_reason(annotated, tmp_path):
    labels = np.full(SHAPE, 255, np.int16)
    labels[::5, 2:7, 2:7], labels[::5, 9:14, 9:14] = 1, 2
    annotated("a", labels=labels)
    network = {"steps": 1, "classes": NETWORK["classes"], "batch": 1}
    values = {"input": str(tmp_path / "a.mrc"), "output": "mine", "network": network}
    said = []
    card = train_from(training_recipe(values, base=tmp_path), say=said.append)
    # The painted objects are in every fifth slice alone.
    labels, words = said
    assert labels == "painted: labels {folder}/truth/{name}__labels.mrc"
    assert words.startswith("network: slab, slices_in 1, slices_out 1 because 1 slice at a time: ")
    assert words.endswith("serial sections; network.architecture changes it")
    assert card.training["network"] == words
    assert escape(words) in (tmp_path / "mine" / "training.html").read_text()


def test_what_was_learned_from_points_is_on_the_card(annotated, tmp_path):
    annotated("a")
    (tmp_path / "a.csv").write_text("x,y,z,figure_of_merit\n4,5,3,0.5\n10,11,9,0.2\n")
    points = {"kind": "points", "tomograms": "a.mrc", "table": "a.csv", "class": "ribosome",
              "radius_angstrom": 40.0}  # fmt: skip
    network = NETWORK | {"classes": ["ribosome"]}
    values = {"annotations": [points], "output": "mine", "network": network}
    card = train_from(training_recipe(values, base=tmp_path))
    assert card.particles == {"ribosome": (40.0, pytest.approx(27.0))}
    assert load_card(tmp_path / "mine") == card


def test_what_is_drawn_along_lines_is_no_particle(annotated, tmp_path):
    annotated("a")
    (tmp_path / "a.csv").write_text(
        filaments_csv(
            [Filament("actin", 1, np.array([[20.0, 30, 40], [80, 90, 100]]))],
            Sampling(SHAPE, (10.0,) * 3),
        )
    )
    points = {"kind": "points", "tomograms": "a.mrc", "table": "a.csv", "class": "actin",
              "radius_angstrom": 40.0}  # fmt: skip
    network = NETWORK | {"classes": ["actin"]}
    values = {"annotations": [points], "output": "mine", "network": network}
    assert train_from(training_recipe(values, base=tmp_path)).particles == {}


def test_a_network_that_has_learnt_nothing_is_told(annotated, tmp_path, caplog):
    annotated("a")
    values = {"input": str(tmp_path / "a.mrc"), "output": "mine", "network": NETWORK}
    card = train_from(training_recipe(values, base=tmp_path))
    assert any("below 0.3" in doubt for doubt in card.doubts)
    for doubt in card.doubts:
        assert f"tiny: {doubt}" in caplog.messages
        assert escape(doubt) in (tmp_path / "mine" / "training.html").read_text()


def test_classes_that_going_on_would_drop_are_told(annotated, tmp_path, caplog):
    annotated("a")
    first = {"input": str(tmp_path / "a.mrc"), "output": "first", "network": NETWORK}
    train_from(training_recipe(first, base=tmp_path))
    labels = np.zeros(SHAPE, np.int16)
    labels[::2, 2:7, 2:7] = 1
    annotated("b", labels=labels)
    values = {"input": str(tmp_path / "b.mrc"), "output": "second", "classes": ["actin"],
              "init_from": "first", "keep_annotations": False,
              "network": {"steps": 1, "device": "cpu"}}  # fmt: skip
    card = train_from(training_recipe(values, base=tmp_path))
    (said,) = [text for text in caplog.messages if text.startswith("init_from")]
    assert "tiny also knows ribosome; second will forget them" in said
    assert escape(said) in (tmp_path / "second" / "training.html").read_text()
    assert card.classes == ("actin",)
