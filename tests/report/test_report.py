"""The picture of a tomogram and the page of a session."""

from __future__ import annotations

import gc
import io
import tracemalloc
from html.parser import HTMLParser
from urllib.parse import unquote, urlsplit

import numpy as np
import pytest
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.image import imread

from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.report import panels
from tomoseg.report.page import session_page
from tomoseg.report.pictures import (
    TomogramPicture,
    tomogram_figure,
    tomogram_thumbnail,
)
from tomoseg.report.sheet import Projection, Slice, encoded
from tomoseg.report.summary import ClassSummary, SessionSummary

RED, BLUE = "#ff0000", "#0040ff"
VOID = ("area", "br", "hr", "img", "input", "link", "meta")


def picture(**changes):
    """A tomogram of 12×60×80 voxels of noise with a square of class 1 and a border of class 2."""
    draw = np.random.default_rng(0)
    grid = Sampling((12, 60, 80), (10.0, 10.0, 10.0))
    volume = draw.normal(size=grid.shape).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    labels[:, 10:30, 20:50] = 1
    labels[:, :, 76:] = 2
    values = {
        "name": "Position_1",
        "sampling": grid,
        "classes": (
            ClassSummary("microtubule", RED, 7200, 7200.0, 2, 0.09),
            ClassSummary("ribosome", BLUE, 2880, 2880.0, particles=1),
        ),
        "slices": tuple(Slice(z, volume[z], labels[z]) for z in (3, 6, 9)),
        "projection": Projection(4, 8, volume[4:8].mean(axis=0)),
        "side": Slice(30, volume[:, 30], labels[:, 30]),
        "filaments": (line((50, 100), (50, 600)), line((300, 100), (300, 700), number=2)),
        "particles": (Particles.at("ribosome", np.array([[60.0, 450.0, 400.0]])),),
    }
    return TomogramPicture(**(values | changes))


def line(begin, end, number=1, name="microtubule"):
    return Filament(name, number, np.array([(60.0, *begin), (60.0, *end)]))


def decoded(data, kind="png"):
    """Pixels as uint8 RGB, row 0 at the top."""
    pixels = imread(io.BytesIO(data), format=kind)
    if pixels.dtype != np.uint8:
        pixels = np.rint(pixels * 255).astype(np.uint8)
    return pixels[..., :3]


def has_colour(pixels, colour, tolerance=0):
    wanted = [int(colour[i : i + 2], 16) for i in (1, 3, 5)]
    return int((np.abs(pixels.astype(int) - wanted).max(axis=-1) <= tolerance).sum())


def is_grey(pixels):
    return bool((np.ptp(pixels.astype(int), axis=-1) == 0).all())


@pytest.fixture(scope="module")
def sheet():
    return decoded(tomogram_figure(picture()))


def test_sheet_has_the_size_that_its_grid_asks_for(sheet):
    # Two rows of panels 640 wide and 480 high (80 by 60 voxels), with margins and titles.
    assert sheet.shape == (2 * 480 + 40 + 15 + 2 * 30 + 24 + 92, 2032, 3)


def test_outlines_are_drawn_in_the_colours_of_the_classes(sheet):
    upper = sheet[122:602, 32:672]
    red, green, blue = np.moveaxis(upper.astype(int), -1, 0)
    # A tint of 28% moves the channels apart by 71, an outline by up to 255.
    rows, columns = np.nonzero(red - np.maximum(green, blue) > 100)
    assert len(rows) > 500
    assert (blue - red > 100).sum() > 500
    # The red box is at rows 10 to 30 of 60 from below, columns 20 to 50 of 80, 8 pixels a voxel.
    assert abs(480 - rows.max() - 10 * 8) <= 2 and abs(480 - rows.min() - 30 * 8) <= 2
    assert abs(columns.min() - 20 * 8) <= 2 and abs(columns.max() - 50 * 8) <= 2


def test_image_and_labels_share_one_direction():
    image = np.zeros((60, 80), np.float32)
    image[10:30, 20:50] = 1  # where class 1 is
    cuts = tuple(Slice(cut.index, image, cut.labels) for cut in picture().slices)
    upper = decoded(tomogram_figure(picture(slices=cuts)))[122:602, 32:672]
    assert upper[480 - 20 * 8, 35 * 8].tolist() == [255, 184, 184]  # white under the tint
    assert upper[480 - 40 * 8, 35 * 8].tolist() == [0, 0, 0]


def test_bare_slice_stays_grey(sheet):
    lower = 480 + 30 + 24
    assert is_grey(sheet[122 + lower : 602 + lower, 33:671])


def test_empty_labels_leave_the_slices_grey():
    empty = tuple(
        Slice(cut.index, cut.image, np.zeros_like(cut.labels)) for cut in picture().slices
    )
    assert is_grey(decoded(tomogram_figure(picture(slices=empty)))[122:602, 33:671])


def test_each_filament_has_its_own_colour_where_it_runs(sheet):
    panel = sheet[122 + 534 : 602 + 534, 696:1336].astype(int)
    first, second = (np.rint(255 * np.array(c)) for c in panels.distinct_colours(2))
    # y = 50 and 300 Å: voxels 5 and 30, whose centres lie 5.5 and 30.5 voxels above the border.
    for y_voxel, colour in ((5.5, first), (30.5, second)):
        row = panel[round(480 - 8 * y_voxel), 120:440]
        assert (np.abs(row - colour).max(axis=-1) <= 2).mean() > 0.95
    assert has_colour(panel.astype(np.uint8), BLUE, 3) > 20  # the ring of the particle


@pytest.mark.parametrize("count", [2, 30, 200])
def test_colours_of_filaments_are_distinct_and_not_grey(count):
    colours = np.array(panels.distinct_colours(count))
    apart = np.abs(colours[:, None] - colours[None]).max(axis=-1)
    assert apart[~np.eye(count, dtype=bool)].min() > 0.005
    assert np.abs(np.diff(colours, axis=0)).max(axis=-1).min() > 0.3  # neighbours
    assert np.ptp(colours, axis=1).min() > 0.3


def test_contours_share_their_grid_and_are_let_go_without_the_garbage_collector():
    labels = np.zeros((400, 400), np.uint8)
    for value in range(1, 7):
        labels[50 * value : 50 * value + 30, 20:380] = value
    thumbnail = tomogram_thumbnail(picture())  # what is imported and remembered once
    assert thumbnail
    gc.collect()
    gc.disable()
    tracemalloc.start()
    try:
        figure = Figure()
        axes = figure.add_subplot()
        panels.draw_labels(axes, labels, colours=[RED, BLUE] * 3, pixel_nm=(1.0, 1.0))
        drawn, _ = tracemalloc.get_traced_memory()
        encoded(figure, "png")
        del figure, axes
        kept, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
        gc.enable()
    # A float64 image is 1.3 MB: two make the grid, and six classes have one and a mask each.
    assert drawn < 14e6
    assert kept < 2e6


def test_same_input_gives_same_bytes():
    assert tomogram_figure(picture()) == tomogram_figure(picture())
    assert tomogram_thumbnail(picture()) == tomogram_thumbnail(picture())


def test_a_persons_matplotlib_style_does_not_change_a_picture():
    plain = tomogram_figure(picture()), tomogram_thumbnail(picture())
    constrained = {"figure.constrained_layout.use": True}
    for name in ("dark_background", "ggplot", "seaborn-v0_8-poster", constrained):
        with style.context(name):
            assert (tomogram_figure(picture()), tomogram_thumbnail(picture())) == plain


def test_thumbnail_is_a_small_jpeg_with_the_outlines():
    data = tomogram_thumbnail(picture())
    assert data[:3] == b"\xff\xd8\xff"
    assert len(data) < 40_000
    pixels = decoded(data, "jpg")
    assert pixels.shape == (240, 320, 3)
    assert has_colour(pixels, RED, 90) > 50


def test_sheet_names_neither_date_nor_program_version():
    data = tomogram_figure(picture())
    assert b"tIME" not in data
    assert b"atplotlib" not in data


@pytest.mark.parametrize(
    "changes",
    [
        pytest.param({"name": "a $x$ \n 試料 " + "long" * 90}, id="name that no font can draw"),
        pytest.param({"slices": picture().slices[:1]}, id="one slice"),
        pytest.param({"side": None, "filaments": (), "particles": ()}, id="nothing found"),
        pytest.param(
            {"projection": Projection(4, 8, np.full((60, 80), np.nan, np.float32))},
            id="projection without a number",
        ),
        pytest.param(
            {"projection": Projection(4, 8, np.zeros((60, 80), np.float32))}, id="flat projection"
        ),
    ],
)
def test_odd_input_is_drawn(changes):
    assert decoded(tomogram_figure(picture(**changes))).shape[1] == 2032


def test_grid_with_thick_slices_keeps_the_proportions_of_space():
    grid = Sampling((12, 60, 80), (50.0, 4.0, 8.0))
    # 60 × 4 by 80 × 8 Å is below the flattest panel of 2 to 1, so that the panel is 320 high.
    assert decoded(tomogram_figure(picture(sampling=grid))).shape[0] == 2 * 320 + 231


def test_large_slice_is_binned_before_it_is_drawn():
    image = np.arange(24, dtype=np.float32).reshape(4, 6)
    assert panels.binned(image, (2, 3)).tolist() == [[4.0, 7.0], [16.0, 19.0]]
    labels = np.array([[1, 0, 2, 2], [0, 0, 2, 1], [0, 0, 255, 255], [0, 0, 255, 255]], np.uint8)
    assert panels.binned_labels(labels, (2, 2), classes=2).tolist() == [[1, 2], [0, 0]]


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"slices": ()}, "0 slices"),
        ({"projection": Projection(0, 1, np.zeros((60, 79), np.float32))}, "60, 79"),
        ({"side": picture().slices[0]}, "12, 80"),
        ({"classes": picture().classes[:1]}, "label 2"),
        ({"filaments": (line((0, 0), (9, 9), name="actin"),)}, "actin"),
    ],
)
def test_what_does_not_fit_is_refused(changes, words):
    with pytest.raises(RequestError, match=words):
        picture(**changes)


@pytest.mark.parametrize("depth", [1, 2, 4, 12])
def test_few_slices_leave_no_empty_panel_and_no_scale_bar_over_a_title(depth, monkeypatch):
    seen = []
    monkeypatch.setattr(panels, "draw_scale_bar", lambda axes: seen.append(axes.bbox.height))
    titles = []
    monkeypatch.setattr(
        "tomoseg.report.pictures.write_title", lambda figure, axes, text: titles.append(text)
    )
    grid = Sampling((depth, 60, 80), (10.0, 10.0, 10.0))
    volume = np.random.default_rng(0).normal(size=grid.shape).astype(np.float32)
    labels = np.zeros(grid.shape, np.uint8)
    cuts = sorted({depth // 4, depth // 2, 3 * depth // 4})
    sheet = tomogram_figure(
        picture(
            sampling=grid,
            slices=tuple(Slice(z, volume[z], labels[z]) for z in cuts),
            projection=Projection(0, depth, volume.mean(axis=0)),
            side=Slice(30, volume[:, 30], labels[:, 30]),
        )
    )
    assert min(seen) >= 64  # the bar and its text are 42 pixels tall
    assert any("z upwards" in title for title in titles) == (depth >= 4)
    assert decoded(sheet).shape[0] < (900 if depth == 1 else 1200)


def test_slice_whose_labels_have_another_shape_is_refused():
    with pytest.raises(RequestError, match="one shape"):
        Slice(0, np.zeros((4, 5), np.float32), np.zeros((5, 4), np.uint8))


# The page


def entry(name, **changes):
    """A tomogram of session.json."""
    values = {
        "name": name,
        "state": "done",
        "error": None,
        "remedy": None,
        "sampling": Sampling((100, 200, 400), (10.0, 10.0, 10.0)).as_dict(),
        "classes": [
            {"name": "actin", "colour": RED, "voxels": 80000, "volume_nm3": 80000.0}
            | {"filaments": 3, "filament_length_um": 1.25, "particles": None},
        ],
        "seconds": {"ingest": 4.2, "segment": 68.0},
        "files": [f"{name}/masks/actin.mrc", f"{name}/filaments.star"],
        "picture": f"{name}/report/overview.png",
        "attempts": 2,  # a key that the page does not show
    }
    return values | changes


def session(*tomograms, **changes):
    values = {
        "version": "0.1.0",
        "started": "2026-01-31T22:10:04+00:00",
        "finished": "2026-01-31T23:31:44+00:00",
        "recipe": "recipe.yaml",
        "networks": [{"name": "six-features", "digest": "3f9a1c20", "f1": {"actin": 0.46}}],
        "tomograms": list(tomograms),
    }
    return SessionSummary.from_dict(values | changes)


class Page(HTMLParser):
    """Text, attributes and balance of a page, by the standard library's parser."""

    def __init__(self, text):
        super().__init__()
        self.links, self.sources, self.alternatives, self.ids = [], [], [], []
        self.tags, self.open, self.text = [], [], ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        found = dict(attrs)
        assert len(found) == len(attrs)
        self.tags.append(tag)
        self.links += [found["href"]] if "href" in found else []
        self.sources += [found["src"]] if "src" in found else []
        self.alternatives += [found["alt"]] if "alt" in found else []
        self.ids += [found["id"]] if "id" in found else []
        assert not [name for name in found if name.startswith("on")]
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        if "style" not in self.open:
            self.text += data


def test_page_tells_what_was_done_and_found():
    page = Page(session_page(session(entry("Position_1"), entry("P2", state="skipped"))))
    assert "1 of 2 tomograms done" in page.text
    assert "1 h 21 min" in page.text
    for words in ("voxel 10 Å", "80,000", "1.00", "3 filaments, 1.25 µm", "1 min 12 s"):
        assert words in page.text
    for words in ("0.1.0", "six-features", "3f9a1c20", '{"actin": 0.46}'):
        assert words in page.text
    assert "Failed" not in page.text


def test_page_tells_what_was_left_out():
    left_out = {"file:///in/P1_<b>.st": "a tilt series"}
    page = Page(session_page(session(entry("P1"), left_out=left_out)))
    assert "1 file left out: P1_<b>.st (a tilt series); to process one as a tomogram" in page.text
    assert "left out" not in Page(session_page(session(entry("P1")))).text


def test_what_an_earlier_run_did_counts_as_done():
    """As it does on the terminal: a run that goes on finds most of its tomograms there."""
    rows = [entry(f"P{n}", state="already there") for n in range(4)]
    page = Page(session_page(session(*rows, entry("P4"))))
    assert "5 of 5 tomograms done" in page.text
    assert page.text.count("5done") == 1


def test_failures_come_first_with_their_remedy():
    failed = entry("Bad", state="failed", error="voxel size 0", remedy="Give the size.", classes=[])
    page = Page(session_page(session(entry("Good"), failed, entry("Better"))))
    assert "2 of 3 tomograms done, 1 failed" in page.text
    order = [page.text.index(w) for w in ("Bad", "voxel size 0", "Give the size.", "Good")]
    assert order == sorted(order)


def test_networks_that_compete_are_told_apart():
    text = Page(session_page(session(networks=[{"name": "tubes"}, {"name": "edges"}]))).text
    assert "model 1: nametubes" in text
    assert "model 2: nameedges" in text


def test_failure_before_the_header_was_read_is_shown():
    failed = {"name": "Bad", "state": "failed"}
    text = Page(session_page(session(failed, finished=None))).text
    assert "No error was recorded." in text
    assert "not finished. This was so when this was written" in text


def test_a_page_claims_nothing_of_later():
    """A run that is killed writes it no more."""
    row = {"name": "a", "state": "running"}
    page = session_page(session(row, finished="", written="2026-01-31T22:15:00+00:00"))
    text = " ".join(Page(page).text.split())
    assert "Started 2026-01-31 22:10 UTC, not finished. This was so at 2026-01-31 22:15 UTC" in text
    assert "how it stands now, tomoseg status with this folder says" in text
    with pytest.raises(RequestError):
        session(written="soon")


NASTY = "<script>alert('1')</script>\"&.mrc"


def test_text_from_outside_is_escaped():
    changes = {"error": NASTY, "remedy": NASTY, "notes": [NASTY], "seconds": {NASTY: 1}}
    items = [entry(NASTY, state=state, **changes) for state in ("failed", NASTY)]
    items[0]["classes"][0]["name"] = NASTY
    text = session_page(
        session(*items, networks=[{NASTY: NASTY}], recipe=NASTY, version=NASTY), {NASTY: b"x"}
    )
    page = Page(text)
    assert "script" not in page.tags
    assert "<script" not in text
    assert page.text.count(NASTY) >= 15
    assert page.alternatives == [f"middle slice of {NASTY} with its classes outlined"]


@pytest.mark.parametrize(
    "path",
    ["a b/ü #1?.mrc", "//host.example/x", "javascript:alert(1)", "https://host.example/x", NASTY],
)
def test_links_are_relative_and_lead_to_the_file(path):
    page = Page(session_page(session(entry("P", files=[path], picture=path), recipe=path)))
    outward = [link for link in page.links if not link.startswith("#")]
    assert len(outward) == 3
    for link in outward:
        parts = urlsplit(link)
        assert (parts.scheme, parts.netloc, parts.query, parts.fragment) == ("", "", "", "")
        assert unquote(parts.path) == f"./{path}"


def test_links_inside_the_page_have_a_target():
    page = Page(session_page(session(entry("a"), entry("a b"), entry("c", state="failed"))))
    inward = [link[1:] for link in page.links if link.startswith("#")]
    assert inward == sorted(page.ids) == ["t0", "t1", "t2"]


def test_page_needs_nothing_from_outside():
    thumbnail = tomogram_thumbnail(picture())
    text = session_page(session(entry("P")), {"P": thumbnail})
    assert "http:" not in text and "https:" not in text and "url(" not in text
    page = Page(text)
    assert [source.split(",")[0] for source in page.sources] == ["data:image/jpeg;base64"]
    assert not {"script", "link", "iframe", "object"} & set(page.tags)


def test_page_of_two_hundred_tomograms_stays_small():
    many = session(*(entry(f"Position_{i}") for i in range(200)))
    assert len(session_page(many)) < 400_000
    pictures = {item.name: bytes(25_000) for item in many.tomograms}
    assert len(session_page(many, pictures)) < 8_000_000


def test_comparison_has_a_column_for_each_class_of_the_session():
    other = entry("b")
    other["classes"] = [{"name": "ribosome", "colour": BLUE, "particles": 1234}]
    text = session_page(session(entry("a"), other))
    row = text.split('href="#t0"')[1].split("</tr>")[0]
    assert "<td>1.25</td><td>–</td>" in row
    row = text.split('href="#t1"')[1].split("</tr>")[0]
    assert "<td>–</td><td>1,234</td>" in row


def test_what_another_recipe_measured_otherwise_has_its_own_unit():
    """A volume in a column of lengths looks like a length."""
    untraced = entry("a")
    untraced["classes"][0] |= {"filaments": None, "filament_length_um": None}
    text = session_page(session(untraced, entry("b")))
    assert "<small>µm of filament</small></th>" in text
    row = text.split('href="#t0"')[1].split("</tr>")[0]
    assert "<td>80,000<small>nm³</small></td>" in row
    row = text.split('href="#t1"')[1].split("</tr>")[0]
    assert "<td>1.25</td>" in row


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"started": "yesterday"}, "ISO 8601"),
        ({"started": None}, "started"),
        ({"tomograms": [{"name": "x"}]}, "state"),
        ({"tomograms": [entry("x", classes=[{"name": "a", "colour": "red;x:url(y)"}])]}, "rrggbb"),
    ],
)
def test_session_that_cannot_be_shown_is_refused(change, words):
    with pytest.raises(RequestError, match=words):
        session(**change)


def test_times_with_and_without_zone_can_be_compared():
    summary = session(finished="2026-01-31T22:10:14")
    assert summary.wall_seconds == 10
