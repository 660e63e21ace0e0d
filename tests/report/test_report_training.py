"""The page of a training: its log, charts, examples and tables."""

from __future__ import annotations

import io
import json
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from matplotlib.image import imread

from tomoseg.core.errors import RequestError
from tomoseg.report.charts import LINE_OF_TEXT, Chart, Line
from tomoseg.report.examples import Example, example_pictures
from tomoseg.report.markup import rendered
from tomoseg.report.progress import ProgressLine, read_progress
from tomoseg.report.summary import ClassSummary
from tomoseg.report.training import TrainingSummary, training_page

RED, BLUE = "#ff0000", "#0040ff"
VOID = ("img", "meta")
NASTY = "<script>alert('1')</script>\"&.mrc"


def log(*lines):
    return "".join(
        json.dumps({"minutes": 1.0, "learning_rate": 0.1} | line) + "\n" for line in lines
    )


def test_log_of_an_undisturbed_training_is_read_as_it_is():
    lines = read_progress(log({"step": 4, "loss": 0.5, "f1": {}}, {"step": 8, "f1": {"a": None}}))
    assert lines[0] == ProgressLine(4, 1.0, 0.1, 0.5)
    assert lines[1] == ProgressLine(8, 1.0, 0.1, None, {"a": None})


def test_what_a_resumed_training_did_again_takes_the_place_of_the_old_lines():
    killed = log({"step": 4, "loss": 1}, {"step": 7, "loss": 2}, {"step": 9, "loss": 3})
    resumed = log({"step": 6, "loss": 4}, {"step": 9, "loss": 5})
    lines = read_progress(killed + '{"step": 10, "los\n' + resumed)
    assert [(line.step, line.loss) for line in lines] == [(4, 1), (6, 4), (9, 5)]


def test_two_lines_of_one_step_are_one():
    loss = {"step": 4, "loss": 1.0, "f1": {}, "mean_f1": None}
    f1 = {"step": 4, "loss": None, "f1": {"a": 0.5}, "mean_f1": 0.5, "minutes": 2.0}
    (line,) = read_progress(log(loss, f1))
    assert line == ProgressLine(4, 2.0, 0.1, 1.0, {"a": 0.5}, 0.5)
    (line,) = read_progress(log(f1, loss))
    assert (line.loss, line.mean_f1) == (1.0, 0.5)


# Charts


def chart_svg(chart):
    return rendered("chart.html", chart=chart)


def polylines(svg):
    found = re.findall(r'<polyline points="([^"]*)"', svg)
    return [[tuple(map(float, pair.split(","))) for pair in text.split()] for text in found]


def test_a_chart_puts_high_values_up_and_late_ones_to_the_right():
    (places,) = polylines(chart_svg(Chart("t", "x", (Line("a", ((0, 0.0), (5, 1.0), (10, 0.5))),))))
    (x0, y0), (x1, y1), (x2, y2) = places
    assert x1 - x0 == pytest.approx(x2 - x1)
    assert y0 - y1 == pytest.approx(2 * (y2 - y1))
    assert x0 < x1 and y1 < y0


@pytest.mark.parametrize(
    ("values", "logarithmic"), [((0.1, 1, 10), True), ((1, 2, 3), False), ((-1, 1, 90), False)]
)
def test_a_wide_range_of_positive_values_is_logarithmic(values, logarithmic):
    svg = chart_svg(Chart("t", "x", (Line("a", tuple(enumerate(values))),)))
    assert ("logarithmic" in svg) == logarithmic
    if logarithmic:
        ((_, first), (_, second), (_, third)) = polylines(svg)[0]
        assert first - second == pytest.approx(second - third)


@pytest.mark.parametrize("value", [0.0, 3.0, -2.0])
def test_one_point_alone_is_drawn(value):
    assert len(polylines(chart_svg(Chart("t", "x", (Line("a", ((7, value),)),))))) == 1


def test_a_chart_without_points_is_left_out():
    assert chart_svg(Chart("t", "x", (Line("a", ()),))) == ""


def test_names_of_lines_that_end_together_do_not_overlap():
    lines = tuple(Line(f"class {i}", ((0, 0.5), (1, i / 1000))) for i in range(8))
    svg = chart_svg(Chart("t", "x", lines, (0.0, 1.0)))
    ys = [float(y) for y in re.findall(r'class="name" x="[\d.]+" y="([\d.]+)"', svg)]
    assert len(ys) == 8
    assert min(np.diff(ys)) >= LINE_OF_TEXT - 0.2
    assert max(ys) + 4 <= Chart.height


def test_the_mark_says_which_network_was_kept():
    line = Line("a", ((100, 0.0), (2000, 1.0)))
    assert "kept network: 1,500" in chart_svg(Chart("t", "x", (line,), mark=1500))
    assert "kept network" not in chart_svg(Chart("t", "x", (line,), mark=99))


# Examples


def example(**changes):
    """A tile of 8×8 with a class 1 above, a class 2 on the left below, and a bare rim."""
    truth = np.zeros((8, 8), np.uint8)
    truth[4:] = 1
    truth[:4, :3] = 2
    truth[:, 7] = 255
    values = {
        "volume": "TS_01 tiles.csv",
        "tomogram": "TS_01",
        "begin": (3, 16, 40),
        "image": np.arange(64, dtype=np.float32).reshape(8, 8),
        "truth": truth,
        "found": np.where(truth == 255, 1, truth).astype(np.uint8),
        "judged": (1, 2),
    }
    return Example(**(values | changes))


def with_errors():
    """3 voxels of class 1 missed, 2 of class 2 called 1, 4 of the background called 2."""
    found = example().found.copy()
    found[7, :3] = 0
    found[0, :2] = 1
    found[3, 3:7] = 2
    return example(found=found)


def test_only_annotated_voxels_are_counted():
    assert not example().wrong.any()
    assert example().badness == 0
    assert example().counts(2).tolist() == [[16, 0, 0], [0, 28, 0], [0, 0, 12]]
    assert with_errors().counts(2).tolist() == [[12, 0, 4], [3, 25, 0], [0, 2, 10]]
    # 28 + 12 voxels of classes in the annotation, 4 more in the prediction, 56 annotated.
    assert with_errors().badness == pytest.approx(9 / (44 + 0.56))


def test_a_class_that_nobody_judged_is_no_error():
    found = with_errors().found
    partly = example(found=found, truth=np.where(example().truth == 2, 0, example().truth),
                     judged=(1,))  # fmt: skip
    assert partly.counts(2).tolist() == [[26, 2, 0], [3, 25, 0], [0, 0, 0]]


def test_one_wrong_voxel_in_an_empty_tile_is_not_the_worst():
    empty = np.zeros((64, 64), np.uint8)
    dot = empty.copy()
    dot[5, 5] = 1
    image = np.zeros((64, 64), np.float32)
    lone = example(image=image, truth=empty, found=dot)
    assert 0 < lone.badness < with_errors().badness
    nowhere = example(image=image, truth=np.full_like(empty, 255), found=dot)
    assert nowhere.badness == 0


def decoded(jpeg):
    return imread(io.BytesIO(jpeg), format="jpg").astype(int)


def test_pictures_are_enlarged_and_their_rows_run_upwards():
    pictures = example_pictures(example(), (RED, BLUE))
    assert list(pictures) == ["image", "annotation", "prediction", "errors"]
    image = decoded(pictures["image"])
    assert image.shape == (512, 512, 3)
    assert image[0, -1, 0] > 240 and image[-1, 0, 0] < 15
    assert np.ptp(image, axis=-1).max() < 12  # grey, but for what JPEG adds


def test_classes_have_their_colours_and_what_nobody_looked_at_is_dimmed():
    bright = example(image=np.arange(64, dtype=np.float32).reshape(8, 8) + 500)
    pictures = {name: decoded(jpeg) for name, jpeg in example_pictures(bright, (RED, BLUE)).items()}
    upper, lower = np.s_[:256, :448], np.s_[256:, :192]
    for name in ("annotation", "prediction"):
        red = pictures[name][upper][..., 0] - pictures[name][upper][..., 2]
        blue = pictures[name][lower][..., 2] - pictures[name][lower][..., 0]
        assert red.mean() > 20 and blue.mean() > 20
    plain, dimmed = pictures["image"][:, 460:], pictures["annotation"][:, 460:]
    assert dimmed.mean() < 0.65 * plain.mean()
    assert np.ptp(dimmed[40], axis=0).max() > 20  # stripes


def test_errors_are_shown_by_kind():
    errors = decoded(example_pictures(with_errors(), (RED, BLUE))["errors"])
    assert (errors[:64, :192] @ (-1, 0, 1)).mean() > 80  # missed: blue
    assert (errors[256:320, 192:448] @ (2, -1, -1)).mean() > 160  # found alone: red
    assert (errors[448:, :128] @ (1, 1, -2)).mean() > 160  # another class: yellow
    right = errors[330:440, 200:440]
    assert np.ptp(right, axis=-1).max() < 12


@pytest.mark.parametrize("shape", [(513, 700), (1, 9)])
def test_a_place_of_any_shape_is_drawn(shape):
    odd = np.zeros(shape, np.uint8)
    noise = np.full(shape, np.nan, np.float32)
    pictures = example_pictures(example(image=noise, truth=odd, found=odd), (RED, BLUE))
    rows, columns, _ = decoded(pictures["errors"]).shape
    assert rows / columns == shape[0] / shape[1]


@pytest.mark.parametrize(
    "changes",
    [{"found": np.zeros((8, 9), np.uint8)}, {"image": np.zeros((8, 8, 1), np.float32)}],
)
def test_an_example_whose_parts_do_not_fit_is_refused(changes):
    with pytest.raises(RequestError, match="one shape"):
        example(**changes)


# The page


def training(**changes):
    values = {
        "name": "two-classes",
        "version": "3",
        "mean_f1": 0.7421,
        "classes": (ClassSummary("actin", RED, 1234), ClassSummary("ribosome", BLUE, 56789)),
        "background_voxels": 1_000_000,
        "confusion": np.array([[900, 60, 40], [30, 70, 0], [50, 0, 150]], np.int64),
        "training_volumes": ("TS_01", "TS_02"),
        "validation_volumes": ("TS_03",),
        "kept_step": 80,
        "progress": tuple(
            ProgressLine(step, step / 40, 0.1, 1 / step, {"actin": 0.5, "ribosome": 0.25}, 0.375)
            for step in (40, 80, 120)
        ),
        "calibration": {},
        "provenance": (("device", "cpu"), ("settings", {"batch": 4})),
        "validation_examples": (example(volume="good"), with_errors()),
    }
    return TrainingSummary(**(values | changes))


class Page(HTMLParser):
    """Text, attributes and balance of a page, by the standard library's parser."""

    def __init__(self, text):
        super().__init__()
        self.sources, self.alternatives, self.tags, self.open, self.text = [], [], [], [], ""
        self.cells = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs)
        assert not [name for name in found if name.startswith("on")]
        self.tags.append(tag)
        self.sources += [found["src"]] if "src" in found else []
        self.alternatives += [found["alt"]] if "alt" in found else []
        if tag == "tr":
            self.cells.append([])
        if tag in ("td", "th"):
            self.cells[-1].append("")
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data
        if {"td", "th"} & set(self.open):
            self.cells[-1][-1] += data


def test_the_page_says_what_came_out_of_how_much_work():
    page = Page(training_page(training()))
    assert "two-classes 3: mean F1 0.742" in page.text
    assert "after step 80 of 120 was kept" in page.text
    assert "1,058,023" in page.text  # annotated voxels
    assert "3 min 0 s" in page.text
    for words in ("TS_01, TS_02", "TS_03", "device", '{"batch": 4}'):
        assert words in page.text
    assert page.tags.count("svg") == 3
    assert "kept network: 80" in page.text


def test_tables_hold_the_scores_worked_out_by_hand():
    rows = Page(training_page(training())).cells
    assert ["background", "1,000,000", "1,000", "–", "–", "–"] in rows
    # actin: 70 of 130 found are right, 70 of 100 are found
    assert ["actin", "1,234", "100", "0.538", "0.700", "0.609"] in rows
    assert ["ribosome", "56,789", "200", "0.789", "0.750", "0.769"] in rows
    assert ["actin", "30.0%30", "70.0%70", "0.0%0"] in rows
    assert ["ribosome", "25.0%50", "0.0%0", "75.0%150"] in rows


def test_what_speaks_against_the_network_stands_above_all():
    counts = np.array([[9, 0, 0], [0, 5, 0], [0, 0, 0]], np.int64)
    page = Page(training_page(training(confusion=counts, notes=("actin: F1 <0.3",))))
    assert page.text.index("actin: F1 <0.3") < page.text.index("mean F1", 60)
    assert ["ribosome", "56,789", "0", "–", "–", "–"] in page.cells
    assert '<div class="failures">' not in training_page(training())


def test_the_worst_rows_come_first_and_the_best_are_left_out():
    worse = with_errors().found.copy()
    worse[4:] = 0
    examples = [with_errors(), *(example(volume=f"fine {i}") for i in range(14))]
    examples.insert(9, example(volume="worst", tomogram="TS_09", found=worse))
    page = Page(training_page(training(validation_examples=tuple(examples))))
    assert "Kept apart: 12 of 16 places, the worst first" in page.text
    assert len(page.alternatives) == 12 * 4
    assert page.alternatives[0] == "image of worst, z = 3, y = 16–23, x = 40–47"
    assert page.alternatives[4].startswith("image of TS_01 tiles.csv")
    assert page.alternatives[7].startswith("errors of TS_01 tiles.csv")
    assert page.text.index("TS_09 (worst)") < page.text.index("TS_01 (TS_01 tiles.csv)")
    assert "9 of 56 voxels wrong" in page.text
    # 25 hits, 2 false, 3 missed of class 1; 10 hits, 4 false, 2 missed of class 2
    assert "actin 0.909" in page.text and "ribosome 0.769" in page.text


def test_rows_of_what_was_trained_on_are_their_own():
    page = Page(training_page(training(training_examples=(example(judged=(2,)),) * 6)))
    assert page.text.index("Kept apart: 2 of 2 places") < page.text.index("Trained on: 4 of 6")
    assert page.text.count("not judged: actin") == 4


def test_calibration_is_drawn_where_the_card_has_one():
    page = Page(training_page(training(calibration={"actin": (1.0, 0.0)})))
    assert page.tags.count("svg") == 4
    assert "by its score" in page.text


def test_a_training_without_a_log_or_examples_has_a_page():
    page = Page(training_page(training(progress=(), validation_examples=())))
    assert "svg" not in page.tags and "img" not in page.tags


def test_names_from_outside_are_escaped():
    hostile = {"volume": NASTY, "tomogram": NASTY + "2"}
    text = training_page(
        training(
            name=NASTY, version=NASTY, classes=(ClassSummary(NASTY, RED), ClassSummary("b", BLUE)),
            training_volumes=(NASTY,), validation_volumes=(NASTY,), calibration={NASTY: (1, 0)},
            provenance=((NASTY, NASTY),), validation_examples=(example(**hostile, judged=(2,)),),
            confusion=np.zeros((3, 3), np.int64),
        )
    )  # fmt: skip
    page = Page(text)
    assert "script" not in page.tags and "<script" not in text
    assert page.text.count(NASTY) >= 10
    assert page.alternatives[0].startswith(f"image of {NASTY}")


def test_the_page_needs_nothing_from_outside():
    text = training_page(training())
    assert "http:" not in text and "https:" not in text and "url(" not in text
    page = Page(text)
    assert {source.split(",")[0] for source in page.sources} == {"data:image/jpeg;base64"}
    assert not {"script", "link", "iframe", "object", "a"} & set(page.tags)
