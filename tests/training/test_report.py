"""The page of a training, from a model's folder and annotated volumes."""

from __future__ import annotations

import json
import re
from collections import Counter
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from tomoseg.core.blocks import Box
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import PRESETS, Architecture
from tomoseg.nets.checkpoint import load_network, save_model
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.nets.settings import TrainingSettings
from tomoseg.nets.train import LOG_NAME, train
from tomoseg.training import report as training_report
from tomoseg.training.report import write_training_report

SLAB = Architecture(slices_in=4, slices_out=2, widths=(8, 16))
SHAPE = (8, 48, 64)


@dataclass
class Squares:
    """Dark squares in noise, annotated in some boxes."""

    name: str
    seed: int
    annotated: tuple[Box, ...] = (Box.whole(SHAPE),)
    judged: tuple[int, ...] = (1, 2)
    weight: float = 1.0
    shape: tuple[int, int, int] = SHAPE

    def __post_init__(self):
        rng = np.random.default_rng(self.seed)
        truth = np.zeros(self.shape, np.uint8)
        for label in (1, 2):
            for z, y, x in rng.integers(0, np.subtract(self.shape, (2, 8, 8)), (6, 3)):
                truth[z : z + 3, y : y + 8, x : x + 8] = label
        signal = np.array([0.0, -3.0, 3.0])[truth]
        self._image = (signal + rng.standard_normal(self.shape)).astype(np.float32)
        self._labels = np.full_like(truth, 255)
        for box in self.annotated:
            self._labels[box.slices] = truth[box.slices]

    @property
    def tomogram(self):
        return self.name.split()[0]

    def image(self, box):
        return self._image[box.slices]

    def labels(self, box):
        return self._labels[box.slices]


def make_settings(**changes):
    values = {
        "name": "squares", "architecture": SLAB, "classes": ("dark", "bright"),
        "colours": ("#ff0000", "#0040ff"), "voxel_size_angstrom": 10.0, "patch": (2, 32, 32),
        "batch": 2, "steps": 4, "validation": ("v",), "precision": "float32", "device": "cpu",
        "threads": 1,
    }  # fmt: skip
    return TrainingSettings(**(values | changes))


@pytest.fixture
def untrained(tmp_path):
    """A folder as a training leaves it; the weights are random."""

    def write(settings, **scores):
        torch.manual_seed(0)
        network = build_network(settings.architecture, len(settings.classes))
        scores = {"mean_f1": 0.25, "confusion": [[8, 1, 1], [2, 3, 0], [4, 0, 1]]} | scores
        facts = {"voxels_per_label": [900, 40, 50], "steps": 3, "device": "cpu"}
        save_model(tmp_path, network, settings.card(facts, scores))
        line = {"step": 4, "minutes": 2.0, "learning_rate": 0.1, "loss": 0.5, "f1": {"dark": 0.5}}
        (tmp_path / LOG_NAME).write_text(json.dumps(line) + "\n")
        return tmp_path

    return write


def rows(page):
    """Place of each row: volume, z, y, x."""
    pattern = r'alt="errors of ([^,]*), z = (\d+), y = (\d+)–\d+, x = (\d+)–'
    found = re.findall(pattern, page.read_text(encoding="utf-8"))
    return [(name, *map(int, place)) for name, *place in found]


def test_the_page_of_a_real_training(tmp_path):
    settings = make_settings(steps=20, validation_steps=10, learning_rate=1e-2, ema_decay=0.9)
    volumes = [Squares("t", 1), Squares("v", 2)]
    card = train(volumes, settings, output=tmp_path)
    page = write_training_report(tmp_path, volumes, settings)
    assert page == tmp_path / "training.html"
    text = page.read_text(encoding="utf-8")
    assert f"squares 1: mean F1 {card.scores['mean_f1']:.3f}" in text
    assert f"{card.scores['f1']['dark']:.3f}</td>" in text
    assert f"{card.training['voxels_per_label'][1]:,}</td>" in text
    assert Counter(name for name, *_ in rows(page)) == {"v": 8, "t": 4}
    assert "voxels_per_label" not in text


def test_the_card_and_the_log_are_shown(untrained):
    settings = make_settings()
    page = write_training_report(untrained(settings), [Squares("t", 1), Squares("v", 2)], settings)
    text = page.read_text(encoding="utf-8")
    assert "squares 1: mean F1 0.250" in text
    assert "after step 3 of 4 was kept" in text
    assert ">900</td>" in text and ">40</td>" in text


def test_rows_show_what_the_model_predicts_there(untrained, monkeypatch):
    settings = make_settings()
    folder = untrained(settings)
    volumes = [Squares("t", 1), Squares("v", 2)]
    seen = []
    monkeypatch.setattr(
        training_report, "training_page", lambda summary: seen.append(summary) or "page"
    )
    write_training_report(folder, volumes, settings)
    (summary,) = seen
    assert len(summary.validation_examples) == 8  # one a slice
    whole = Box.whole(SHAPE)
    predictor = Predictor.open(folder, PredictionOptions(device="cpu"))
    found = predictor.predict_labels(volumes[1].image(whole), whole)
    for example in summary.validation_examples:
        z = example.begin[0]
        assert (example.found == found[z]).all()
        assert (example.image == volumes[1]._image[z]).all()
        assert (example.truth == volumes[1]._labels[z]).all()


@pytest.mark.parametrize("preset", ["volume", "tile"])
def test_every_kind_of_network_has_a_page(untrained, preset):
    small = PRESETS[preset].model_copy(update={"widths": (8, 8)})
    settings = make_settings(architecture=small, patch=None)
    page = write_training_report(untrained(settings), [Squares("t", 1), Squares("v", 2)], settings)
    assert len(rows(page)) == 8 + 4


def test_places_of_tiles_are_tiles(untrained):
    tiles = tuple(
        Box((z, y, x), (z + 1, y + 16, x + 16))
        for z in range(8) for y in (0, 16, 32) for x in (0, 16, 32, 48)
    )  # fmt: skip
    apart = Squares("v tiles.csv", 2, annotated=tiles)
    settings = make_settings()
    page = write_training_report(untrained(settings), [Squares("t", 1), apart], settings)
    shown = [place for name, *place in rows(page) if name == "v tiles.csv"]
    assert len(shown) == 12
    assert len(set(map(tuple, shown))) == 12
    assert {tuple(place) for place in shown} <= {box.begin for box in tiles}


@pytest.mark.parametrize(
    ("painted", "empty", "chosen"),
    [(30, 10, (6, 2)), (3, 10, (3, 5)), (30, 0, (8, 0)), (30, 1, (7, 1)), (2, 1, (2, 1))],
)
def test_a_quarter_of_the_places_has_no_class(painted, empty, chosen):
    truths = [np.array([[[255, 0, 1]]])] * painted + [np.array([[[255, 0]]])] * empty
    places = [training_report._Crop(None, None, truth.astype(np.uint8)) for truth in truths]
    found = Counter(place.is_painted for place in training_report._chosen(places, 8))
    assert (found[True], found[False]) == chosen


def test_few_annotated_slices_are_all_found(untrained):
    slices = tuple(Box((z, 0, 0), (z + 1, *SHAPE[1:])) for z in (2, 7))
    settings = make_settings()
    volumes = [Squares("t", 1, annotated=slices), Squares("v", 2, annotated=slices[1:])]
    page = write_training_report(untrained(settings), volumes, settings)
    assert sorted(rows(page)) == [("t", 2, 0, 0), ("t", 7, 0, 0), ("v", 7, 0, 0)]


def test_a_wide_slice_is_cut_into_equal_parts():
    wide = Squares("w", 1, annotated=(Box((1, 10, 0), (2, 40, 60)), Box((0, 0, 0), (0, 0, 0))))
    region = training_report.Region(wide, Box((0, 0, 0), (8, 48, 50)))
    windows = list(training_report._windows(region, 20))
    assert [box.shape for box in windows[:2]] == [(1, 15, 17), (1, 15, 17)]
    assert sum(box.size for box in windows) == 30 * 50
    assert all(max(box.shape) <= 20 for box in windows)


def test_the_same_training_has_the_same_page(untrained):
    settings = make_settings()
    folder = untrained(settings)
    volumes = [Squares("t", 1), Squares("v", 2)]
    first = write_training_report(folder, volumes, settings).read_bytes()
    assert write_training_report(folder, volumes, settings).read_bytes() == first


def test_the_model_stays_as_it_is(untrained):
    settings = make_settings()
    folder = untrained(settings)
    _, before = load_network(folder)
    write_training_report(folder, [Squares("t", 1), Squares("v", 2)], settings)
    assert load_network(folder)[1] == before
