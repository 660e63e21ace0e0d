"""Volumes whose file has y and z exchanged are read upright, with the right hand, and back."""

import json

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from hypothesis import given
from hypothesis import strategies as st
from scipy import ndimage

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.volumes.mrc import MrcReader
from tomoseg.io.volumes.sources import open_source
from tomoseg.io.volumes.turns import (
    file_box,
    file_header,
    file_voxels,
    told_unrotated,
    upright_header,
    upright_voxels,
)
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from

AXES = ("zyx", "rotx", "yzx")
FILE = np.arange(60).reshape(3, 4, 5)
HEADER = Header(
    Sampling(FILE.shape, (2.0, 3.0, 4.0)), "int64", (10.0, 20.0, 30.0), start_voxels=(1, 2, 3)
)
# Of x, y, z: IMOD's turn by -90° about x, and an exchange of y and z.
MATRICES = {
    "zyx": np.eye(3),
    "rotx": np.array([[1, 0, 0], [0, 0, 1], [0, -1, 0]]),
    "yzx": np.array([[1, 0, 0], [0, 0, 1], [0, 1, 0]]),
}


def positions(header):
    """Return where each voxel is, shape zyx + (3,), xyz, Å."""
    index = np.stack(np.indices(header.sampling.shape), axis=-1)
    return (index * header.sampling.voxel_size_angstrom + header.origin_angstrom)[..., ::-1]


@pytest.mark.parametrize("axes", AXES)
def test_every_voxel_is_where_the_matrix_puts_it(axes):
    upright, header = upright_voxels(FILE, axes), upright_header(HEADER, axes)
    assert upright.shape == header.sampling.shape
    there = dict(zip(FILE.ravel(), positions(HEADER).reshape(-1, 3), strict=True))
    for value, place in zip(upright.ravel(), positions(header).reshape(-1, 3), strict=True):
        np.testing.assert_allclose(place, MATRICES[axes] @ there[value])


@pytest.mark.parametrize(("axes", "hand"), [("zyx", 1), ("rotx", 1), ("yzx", -1)])
def test_the_hand_of_a_screw_is_kept_by_a_turn_alone(axes, hand):
    steps = np.array([(0, 4, 3), (1, 3, 4), (2, 2, 3), (3, 3, 2)])  # zyx

    def turning(points_zyx):
        a, b, c = np.diff(points_zyx[:, ::-1], axis=0)
        return np.sign(np.dot(a, np.cross(b, c)))

    volume = np.zeros((5, 6, 7), np.uint8)
    for number, place in enumerate(steps, start=1):
        volume[tuple(place)] = number
    upright = upright_voxels(volume, axes)
    found = np.array([np.argwhere(upright == number)[0] for number in (1, 2, 3, 4)])
    assert turning(found) == hand * turning(steps) != 0


@pytest.mark.parametrize("axes", AXES)
def test_the_way_back_is_the_way_there(axes):
    header = upright_header(HEADER, axes)
    back = file_header(header, axes)
    assert (back.sampling, back.start_voxels) == (HEADER.sampling, HEADER.start_voxels)
    assert back.origin_angstrom == HEADER.origin_angstrom
    assert np.array_equal(file_voxels(upright_voxels(FILE, axes), axes), FILE)


@given(st.data(), st.sampled_from(AXES))
def test_a_box_holds_the_same_voxels_in_the_file(data, axes):
    upright = upright_voxels(FILE, axes)
    ends = [sorted(data.draw(st.tuples(*[st.integers(0, n)] * 2))) for n in upright.shape]
    box = Box(tuple(end[0] for end in ends), tuple(end[1] for end in ends))
    part = FILE[file_box(box, axes, upright.shape).slices]
    assert np.array_equal(upright_voxels(part, axes), upright[box.slices])
    assert np.array_equal(file_voxels(upright[box.slices], axes), part)


@pytest.mark.parametrize(
    ("shape", "is_told"),
    [
        ((192, 48, 192), True),
        ((928, 300, 960), True),
        ((48, 192, 192), False),
        ((60, 59, 60), False),
        ((1, 40, 200), False),
        ((200, 180, 200), False),
    ],
)
def test_an_unrotated_volume_is_told(shape, is_told):
    note = told_unrotated(shape)
    assert bool(note) == is_told
    assert not is_told or ("unrotated" in note and "source.axes: rotx" in note)


def written(path, voxels, origin=(0, 0, 0)):
    with mrcfile.new(path, voxels, overwrite=True) as file:
        file.voxel_size = 12.0
        file.header.origin = origin
    return str(path)


def test_a_file_is_opened_upright(tmp_path):
    path = written(tmp_path / "a.mrc", FILE.astype(np.int16), origin=(5, 6, 7))
    with open_source(path, axes="rotx") as source:
        assert source.header.sampling.shape == (4, 3, 5)
        assert source.header.origin_angstrom == (-(6 + 3 * 12.0), 7.0, 5.0)
        assert any("read with source.axes: rotx" in note for note in source.header.notes)
        box = Box((1, 0, 2), (4, 2, 5))
        assert np.array_equal(source.read(box), upright_voxels(FILE, "rotx")[box.slices])


@pytest.fixture(scope="module")
def runs(tiny_model, tmp_path_factory):
    """One tomogram upright, and turned as IMOD's tilt writes it; with a mask; their outputs."""
    folder = tmp_path_factory.mktemp("turned")
    noise = np.random.default_rng(0).normal(size=(32, 64, 72))
    upright = ndimage.gaussian_filter(noise, 1.5).astype(np.float32)
    mask = np.ones(upright.shape, np.int8)
    mask[:, :30, :40] = mask[:9, 50:] = 0
    outputs = {}
    for axes in ("zyx", "rotx"):
        (folder / axes).mkdir()
        written(folder / axes / "TS_01.mrc", file_voxels(upright, axes), origin=(5, 6, 7))
        written(folder / axes / "TS_01_mask.mrc", file_voxels(mask, axes))
        outputs[axes] = folder / f"out_{axes}"
        values = {
            "session": {"input": str(folder / axes), "output": str(outputs[axes])},
            "source": {"mask": "{folder}/{name}_mask.mrc", "axes": axes},
            "blocks": {"shape": (24, 48, 96)},
            "segment": {"model": str(tiny_model), "precision": "float32", "score_maps": False},
            "trace": {},
            "pick": {},
            "export": {"masks": ["mrc", "tiff", "ome_zarr"]},
            "compute": {"runner": "serial"},
        }
        session = plan_session(recipe_from(values))
        assert [check.problem for check in check_session(session, reads_masks=True)] == [""]
        (row,) = run_session(session, lambda *progress: None)["tomograms"]
        assert row["state"] == "done"
    return folder, outputs


def test_a_turned_tomogram_and_its_mask_are_segmented_as_the_upright_one(runs):
    _, outputs = runs
    upright, turned = (
        zarr.open_array(output / "TS_01/tomogram.zarr/labels/semantic/0", mode="r")[:]
        for output in outputs.values()
    )
    assert upright.any()
    assert np.array_equal(upright, turned)


def test_exported_masks_overlay_the_file_and_those_of_zarr_the_points(runs):
    folder, outputs = runs
    masks = outputs["rotx"] / "TS_01/masks"
    label = zarr.open_array(outputs["zyx"] / "TS_01/tomogram.zarr/labels/semantic/0", mode="r")[:]
    names = [path.name.removesuffix(".mrc") for path in sorted(masks.glob("*.mrc"))]
    classes = json.loads((outputs["rotx"] / "TS_01/manifest.json").read_text())["classes"]
    assert sorted(f"TS_01__{name}" for name in classes) == names
    for number, name in enumerate((f"TS_01__{name}" for name in classes), start=1):
        upright = zarr.open_array(masks / f"{name}.zarr/0", mode="r")[:]
        assert np.array_equal(upright, label == number)
        in_file = file_voxels(upright, "rotx")
        assert np.array_equal(mrcfile.read(masks / f"{name}.mrc"), in_file)
        assert np.array_equal(tifffile.imread(masks / f"{name}.tif"), in_file)
        ours, source = (headed(path) for path in (masks / f"{name}.mrc", folder / "rotx/TS_01.mrc"))
        assert ours.sampling == source.sampling
        assert ours.origin_angstrom == source.origin_angstrom == (7.0, 6.0, 5.0)


def headed(path):
    with path.open("rb") as file:
        return MrcReader(file).header


def test_the_axes_are_a_note_of_the_tomogram(runs):
    _, outputs = runs
    (row,) = json.loads((outputs["rotx"] / "session.json").read_text())["tomograms"]
    assert any("source.axes: rotx" in note for note in row["notes"])
