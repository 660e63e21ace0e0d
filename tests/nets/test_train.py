import json

import numpy as np
import pytest
import torch
from scipy import ndimage

from tomoseg.core.blocks import Box
from tomoseg.core.errors import ModelError, RequestError
from tomoseg.nets.augmentation import AugmentationSettings
from tomoseg.nets.card import Architecture
from tomoseg.nets.checkpoint import load_network, load_state
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.split import Region
from tomoseg.nets.state import best_score, start_state, update_average
from tomoseg.nets.train import rate_factor, train, uses_bfloat16
from tomoseg.nets.validation import confusion, f1_scores, halo_costs, mean_score

SLAB = Architecture(slices_in=4, slices_out=2, widths=(8, 16))
VOLUME = Architecture(kind="volume", widths=(8, 16))


class Blobs:
    """Dark and bright blobs in noise."""

    def __init__(self, name, seed, shape=(16, 64, 64)):
        rng = np.random.default_rng(seed)
        smooth = ndimage.gaussian_filter(rng.standard_normal(shape), 3)
        smooth /= smooth.std()
        self.name = self.tomogram = name
        self.shape = shape
        self.judged, self.weight = (1, 2), 1.0
        self.annotated = (Box.whole(shape),)
        self._labels = np.where(smooth > 1.2, 1, np.where(smooth < -1.2, 2, 0)).astype(np.uint8)
        signal = np.array([0.0, -2.0, 2.0])[self._labels]
        self._image = (signal + rng.standard_normal(shape)).astype(np.float32)

    def image(self, box):
        return self._image[box.slices]

    def labels(self, box):
        return self._labels[box.slices]


def make_settings(**changes):
    values = {
        "name": "blobs",
        "architecture": SLAB,
        "classes": ("dark", "bright"),
        "colours": ("#000000", "#ffffff"),
        "voxel_size_angstrom": 10.0,
        "patch": (2, 32, 32),
        "batch": 2,
        "steps": 4,
        "validation": ("v",),
        "precision": "float32",
        "device": "cpu",
    }
    return TrainingSettings(**(values | changes))


def volumes():
    return [Blobs("t", 1), Blobs("v", 2)]


@pytest.mark.parametrize(
    ("architecture", "patch", "precision"),
    [(SLAB, (2, 32, 32), "auto"), (VOLUME, (16, 32, 32), "float32")],
)
def test_a_network_learns_blobs_and_its_card_says_how_well(
    tmp_path, architecture, patch, precision
):
    settings = make_settings(
        architecture=architecture, patch=patch, precision=precision, steps=80, batch=4,
        learning_rate=1e-2, ema_decay=0.9,
    )  # fmt: skip
    card = train(volumes(), settings, output=tmp_path)
    assert card.scores["mean_f1"] > 0.7
    assert card.scores["volumes"] == ["v"]
    assert card.training["volumes"] == ["t"]
    assert card.training["steps"] == 80
    assert set(card.scores["halo_costs"]) == {"16", "32", "48", "64"}

    # What the card says is what anybody finds who applies the model.
    apart = volumes()[1]
    found = Predictor.open(tmp_path).predict_labels(
        apart.image(Box.whole(apart.shape)), Box.whole(apart.shape)
    )
    truth = apart.labels(Box.whole(apart.shape))
    for label, name in enumerate(card.classes, start=1):
        hits = 2 * ((found == label) & (truth == label)).sum()
        f1 = hits / ((found == label).sum() + (truth == label).sum())
        assert card.scores["f1"][name] == pytest.approx(f1, abs=2e-3)  # weights in float16

    lines = logged(tmp_path)
    assert lines[-1]["step"] == 80
    assert lines[-1]["is_best"] is True


def logged(folder):
    return [json.loads(line) for line in (folder / "training.jsonl").read_text().splitlines()]


class Killed(BaseException):
    pass


def test_a_killed_training_goes_on_as_if_undisturbed(tmp_path):
    # A state and a validation after every step.
    settings = make_settings(steps=6, validation_steps=1, checkpoint_minutes=1e-9)
    train(volumes(), settings, output=tmp_path / "quiet")

    def kill(progress):
        if progress.step == 3:
            raise Killed

    with pytest.raises(Killed):
        train(volumes(), settings, output=tmp_path / "killed", report=kill)
    _, record = load_state(tmp_path / "killed" / "training.safetensors")
    assert record["step"] == 2
    steps = []
    train(volumes(), settings, output=tmp_path / "killed", report=lambda p: steps.append(p.step))
    assert steps == [3, 4, 5, 6]

    curves = [
        {line["step"]: (line["loss"], line["f1"]) for line in logged(tmp_path / name)}
        for name in ("quiet", "killed")
    ]
    assert curves[0] == curves[1]
    quiet, told = load_state(tmp_path / "quiet" / "training.safetensors")
    killed, said = load_state(tmp_path / "killed" / "training.safetensors")
    assert told["best"] == said["best"] and told["stale"] == said["stale"]
    assert quiet.keys() == killed.keys()
    assert all(torch.equal(quiet[name], killed[name]) for name in quiet)
    assert best_score(tmp_path / "quiet") == best_score(tmp_path / "killed")


def test_a_training_that_other_code_began_says_so(tmp_path, monkeypatch, caplog):
    settings = make_settings(steps=2, validation_steps=1, checkpoint_minutes=1e-9)
    begun_by = []
    for steps, code in ((2, "1+old"), (3, "1+new"), (4, "1+new")):
        monkeypatch.setattr("tomoseg.nets.state.code_version", lambda code=code: code)
        caplog.clear()
        train(volumes(), settings.model_copy(update={"steps": steps}), output=tmp_path)
        _, record = load_state(tmp_path / "training.safetensors")
        begun_by.append(record["codes"])
        warned = [line for line in caplog.messages if "goes on with" in line]
        assert len(warned) == (steps == 3)
    assert begun_by == [["1+old"], ["1+old", "1+new"], ["1+old", "1+new"]]


def test_a_seed_gives_the_same_network_and_another_seed_another(tmp_path):
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(volumes(), make_settings(seed=seed), output=tmp_path / name)
    weights = [(tmp_path / name / "weights.safetensors").read_bytes() for name in "abc"]
    assert weights[0] == weights[1] != weights[2]


def test_a_training_that_no_longer_gets_better_ends_early(tmp_path):
    # Nothing is learnt at this rate, so that the second validation is no better than the first.
    settings = make_settings(
        steps=40, validation_steps=2, patience=3, learning_rate=1e-12, ema_decay=0.0,
        augmentation=AugmentationSettings.none(),
    )  # fmt: skip
    reports = []
    train(volumes(), settings, output=tmp_path, report=reports.append)
    assert reports[-1].step < 40
    assert [r.is_best for r in reports if r.mean_f1 is not None][-3:] == [False] * 3
    again = []
    train(volumes(), settings, output=tmp_path, report=again.append)
    assert again == []


@pytest.mark.parametrize(
    ("architecture", "patch", "expected"),
    [(VOLUME, (8, 32, 32), False), (VOLUME, (12, 32, 32), True), (SLAB, (2, 32, 32), True)],
)
def test_flat_patches_of_3d_networks_are_not_trained_in_bfloat16_on_a_cpu(
    architecture, patch, expected
):
    settings = make_settings(architecture=architecture, patch=patch, precision="bfloat16")
    assert uses_bfloat16(torch.device("cpu"), settings) == expected
    assert uses_bfloat16(torch.device("cuda"), settings)


def test_ten_validations_are_made_whatever_the_budget_and_the_time_left_is_told(tmp_path):
    reports = []
    train(volumes(), make_settings(steps=20), output=tmp_path / "a", report=reports.append)
    assert [r.step for r in reports if r.f1] == list(range(2, 21, 2))
    left = [r.seconds_left for r in reports]
    assert left[0] > 0 and left[-1] == 0


@pytest.mark.parametrize("loss", ["dice_entropy", "log_squares"])
def test_a_tile_network_learns_from_tiles(tmp_path, loss):
    settings = make_settings(
        architecture={"kind": "tile", "widths": (8, 8), "kernel": 7}, patch=(1, 32, 32), batch=8,
        steps=80, learning_rate=1e-2, ema_decay=0.9, loss=loss, classes=("dark",),
        colours=("#000000",), boundary_weight=0.0,
    )  # fmt: skip
    one_class = volumes()
    for volume in one_class:
        volume._labels, volume.judged = (volume._labels == 1).astype(np.uint8), (1,)
    assert train(one_class, settings, output=tmp_path).scores["mean_f1"] > 0.6


def test_volumes_that_judge_one_class_each_make_a_network_of_both(tmp_path):
    split = [Blobs("t", 1), Blobs("t", 1), Blobs("v", 2)]
    for volume, label in zip(split[:2], (1, 2), strict=True):
        volume.name = f"t {label}"
        volume._labels, volume.judged = volume._labels * (volume._labels == label), (label,)
    settings = make_settings(steps=120, batch=4, learning_rate=1e-2, ema_decay=0.9)
    card = train(split, settings, output=tmp_path)
    assert min(card.scores["f1"].values()) > 0.6
    assert np.sum(card.scores["confusion"]) == card.scores["voxels"]
    assert all(slope > 0 for slope, _ in card.calibration.values())


def test_a_finished_training_is_not_done_again(tmp_path):
    first = train(volumes(), make_settings(), output=tmp_path)
    reports = []
    assert train(volumes(), make_settings(), output=tmp_path, report=reports.append) == first
    assert reports == []


def test_a_torn_model_does_not_count_as_best(tmp_path):
    train(volumes(), make_settings(), output=tmp_path)
    assert best_score(tmp_path) >= 0
    (tmp_path / "weights.safetensors").write_bytes(b"torn")
    assert best_score(tmp_path) == -1
    train(volumes(), make_settings(), output=tmp_path)
    assert best_score(tmp_path) >= 0


def test_a_folder_of_another_training_is_refused(tmp_path):
    train(volumes(), make_settings(), output=tmp_path)
    with pytest.raises(RequestError, match="other settings"):
        train(volumes(), make_settings(seed=1), output=tmp_path)
    (tmp_path / "training.safetensors").unlink()
    with pytest.raises(RequestError, match="already holds a model"):
        train(volumes(), make_settings(), output=tmp_path)


def test_time_alone_ends_a_training(tmp_path):
    settings = make_settings(steps=None, maximum_minutes=1e-6)
    assert train(volumes(), settings, output=tmp_path).training["steps"] == 1


def test_a_loss_that_is_no_number_stops_with_a_remedy(tmp_path):
    with pytest.raises(ModelError, match=r"the loss is .* Lower learning_rate"):
        settings = make_settings(steps=60).model_copy(update={"learning_rate": 1e30})
        train(volumes(), settings, output=tmp_path)


def test_a_training_starts_from_a_model(tmp_path):
    train(volumes(), make_settings(steps=30), output=tmp_path / "first")
    before, _ = load_network(tmp_path / "first")
    settings = make_settings(
        init_from=tmp_path / "first", steps=1, learning_rate=1e-12, classes=("x",) * 1,
        colours=("#000000",),
    )  # fmt: skip
    one_class = [Blobs("t", 1), Blobs("v", 2)]
    for volume in one_class:
        volume._labels, volume.judged = volume._labels.clip(max=1), (1,)
    train(one_class, settings, output=tmp_path / "second")
    after, _ = load_network(tmp_path / "second")
    torch.testing.assert_close(after.stem.conv.weight, before.stem.conv.weight)
    assert after.head.weight.shape != before.head.weight.shape
    other = make_settings(init_from=tmp_path / "first", architecture=VOLUME, patch=(8, 32, 32))
    with pytest.raises(ModelError, match="another architecture"):
        train(volumes(), other, output=tmp_path / "third")


def test_a_network_of_fewer_slices_starts_as_the_middle_ones(tmp_path):
    wide = Architecture(slices_in=6, slices_out=6, widths=(8, 16))
    first = make_settings(architecture=wide, patch=(6, 32, 32), steps=2)
    train(volumes(), first, output=tmp_path / "first")
    settings = make_settings(
        architecture=wide.model_copy(update={"slices_out": 2}), init_from=tmp_path / "first"
    )
    state = start_state(settings, tmp_path / "second", torch.device("cpu"))
    image = torch.randn(1, 6, 32, 32)
    with torch.no_grad():
        six = load_network(tmp_path / "first")[0].eval()(image)
        torch.testing.assert_close(state.network.eval()(image), six[:, :, 2:4])
    more = settings.model_copy(update={"architecture": wide, "init_from": tmp_path / "two"})
    train(volumes(), settings.model_copy(update={"steps": 1}), output=tmp_path / "two")
    with pytest.raises(ModelError, match="another architecture"):
        train(volumes(), more, output=tmp_path / "third")


def test_f1_is_counted_voxel_by_voxel():
    counts = np.array([[5, 1, 0, 0], [2, 3, 0, 0], [0, 4, 0, 0], [0, 0, 0, 0]])
    f1 = f1_scores(counts, ("a", "b", "c"))
    assert f1 == {"a": pytest.approx(6 / (6 + 5 + 2)), "b": 0.0, "c": None}
    assert mean_score(counts, f1) == pytest.approx(3 / 13)
    counts[0, 3] = 1  # found, but not in the annotation: it has no part in the mean
    assert mean_score(counts, f1_scores(counts, ("a", "b", "c"))) == pytest.approx(3 / 13)
    assert mean_score(np.zeros((2, 2), np.int64), {"a": None}) == 0.0


def test_confusion_leaves_out_what_is_not_annotated(tmp_path):
    train(volumes(), make_settings(steps=1), output=tmp_path)
    predictor = Predictor.open(tmp_path, PredictionOptions(device="cpu"))
    volume = Blobs("v", 3)
    volume._labels[:, :10] = 255
    whole = Box.whole(volume.shape)
    region = type("Region", (), {"volume": volume})
    counts = confusion(predictor, [(region, whole, whole)])
    found = predictor.predict_labels(volume.image(whole), whole)
    assert counts.sum() == (volume._labels != 255).sum()
    assert counts[1, 2] == ((volume._labels == 1) & (found == 2)).sum()


def test_halo_costs_fall_to_nothing_at_the_exact_halo(tmp_path):
    deep = Architecture(slices_in=4, slices_out=2, widths=(8, 8, 8), blocks_per_level=2)
    settings = make_settings(architecture=deep, steps=10)
    train(volumes(), settings, output=tmp_path)
    predictor = Predictor.open(tmp_path, PredictionOptions(device="cpu", precision="float32"))
    assert deep.receptive_halo == (1, 82, 82)
    volume = Blobs("wide", 5, (4, 256, 256))
    costs = halo_costs(predictor, Region(volume, Box.whole(volume.shape)))
    # The network sees 82 voxels far; at 64 voxels and fewer some labels may change.
    assert list(costs) == ["16", "32", "48", "64"]
    assert costs["16"] > 0
    assert costs["16"] >= costs["64"]


def test_an_image_with_nan_is_an_error_that_names_the_tomogram(tmp_path):
    training = Blobs("t", 1)
    training._image[:] = np.nan
    with pytest.raises(RequestError, match=r"^t: .*not finite"):
        train([training, Blobs("v", 2)], make_settings(), output=tmp_path)


def test_the_average_forgets_the_start_and_copies_counters():
    average = {"w": torch.zeros(1), "n": torch.tensor(0)}
    for step in range(200):
        update_average(average, {"w": torch.ones(1), "n": torch.tensor(step)}, 0.9, step)
    assert float(average["w"]) > 0.999
    assert int(average["n"]) == 199


def test_the_rate_rises_and_falls():
    rates = [rate_factor(f) for f in np.linspace(0, 1, 101)]
    peak = int(np.argmax(rates))
    assert peak == 5
    assert (np.diff(rates[: peak + 1]) > 0).all()
    assert (np.diff(rates[peak:]) < 0).all()
