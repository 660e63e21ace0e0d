"""OME-Zarr: what is written is valid and read back, and images of other programs are read."""

import numpy as np
import pytest
import zarr
from ome_zarr_models.v05 import Image, ImageLabel, Labels

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, StoreError, VoxelSizeError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.stores import (
    OmeZarrReader,
    Volume,
    label_names,
    write_image_metadata,
    write_label_metadata,
)
from tomoseg.io.stores.volumes import zarr_store

LEVEL = Sampling((8, 10, 12), (13.68, 13.68, 13.68))
SOURCE = Header(LEVEL, "int16", origin_angstrom=(-5.0, 0.5, 7.25), notes=("odd",))


@pytest.fixture
def image(folder):
    """A tomogram of two levels."""
    return written_image(folder, [LEVEL, LEVEL.binned(2)])


@pytest.fixture
def labelled(folder):
    """A tomogram of two levels with labels."""
    levels = [LEVEL, LEVEL.binned(2)]
    group = written_image(folder, levels)
    for name, colours in (("semantic", {1: "#ff0080", 2: "#00ff00"}), ("instances", {})):
        for number, level in enumerate(levels):
            labels = Volume(group, f"labels/{name}/{number}")
            labels.create(level.shape, "uint8", shard=(8, 8, 8))
        write_label_metadata(group, name, levels, colours)
    return group


def written_image(folder, levels):
    group = folder / "tomogram.zarr"
    for number, level in enumerate(levels):
        Volume(group, str(number)).create(level.shape, "int16", shard=(8, 8, 8))
    voxels = np.arange(960, dtype=np.int16).reshape(LEVEL.shape)
    Volume(group, "0").write(Box.whole(LEVEL.shape), voxels)
    write_image_metadata(group, "t1", levels, SOURCE)
    return group


def opened(group):
    """Open a group with zarr itself."""
    if group.is_local:
        return zarr.open_group(str(group.path), mode="r")
    return zarr.open_group(zarr.storage.FsspecStore.from_url(group.url), mode="r")


def test_images_are_valid_ome_zarr(image):
    model = Image.from_zarr(opened(image))
    (multiscale,) = model.ome_attributes.multiscales
    assert [axis.name for axis in multiscale.axes] == ["z", "y", "x"]
    assert {axis.unit for axis in multiscale.axes} == {"angstrom"}
    fine, coarse = (level.coordinateTransformations for level in multiscale.datasets)
    assert fine[0].scale == [13.68] * 3
    assert fine[1].translation == [0.0] * 3
    assert coarse[0].scale == [27.36] * 3
    assert coarse[1].translation == [6.84] * 3
    assert Header.from_dict(opened(image).attrs["tomoseg"]["source"]) == SOURCE


def test_labels_are_valid_ome_zarr(labelled):
    group = opened(labelled)
    Image.from_zarr(group)
    assert label_names(labelled) == ["instances", "semantic"]
    labels = Labels.from_zarr(group["labels"])
    assert sorted(labels.ome_attributes.labels) == ["instances", "semantic"]
    semantic = ImageLabel.from_zarr(group["labels/semantic"]).ome_attributes
    assert semantic.image_label.source.image == "../../"
    assert [(c.label_value, c.rgba) for c in semantic.image_label.colors] == [
        (0, (0, 0, 0, 0)),
        (1, (255, 0, 128, 255)),
        (2, (0, 255, 0, 255)),
    ]
    instances = ImageLabel.from_zarr(group["labels/instances"]).ome_attributes
    assert [c.label_value for c in instances.image_label.colors] == [0]


def test_a_group_without_labels_has_none(folder):
    assert label_names(folder) == []


def test_an_image_is_read_as_a_tomogram(image):
    reader = OmeZarrReader(image.url)
    assert reader.header.sampling == LEVEL
    assert reader.header.dtype == "int16"
    box = Box((1, 2, 3), (3, 3, 5))
    assert reader.read(box).tolist() == [[[147, 148]], [[267, 268]]]
    with pytest.raises(StoreError, match="leaves"):
        reader.read(Box((0, 0, 0), (9, 10, 12)))


def foreign(place, *, rows, general=None, unit="angstrom", axes="zyx", version="0.5"):
    """Write an image as another program would, in the version's own layout."""
    format_ = 2 if version == "0.4" else 3
    group = zarr.open_group(str(place), mode="w", zarr_format=format_)
    shape = (2, 3, 4)[: len(axes)] + (1,) * (len(axes) - 3)
    array = group.create_array("level0", shape=shape, chunks=shape, dtype="uint8")
    array[:] = np.arange(np.prod(shape), dtype=np.uint8).reshape(shape)
    dataset = {"path": "level0", "coordinateTransformations": rows}
    axis = {"type": "space"} | ({"unit": unit} if unit else {})
    multiscale = {"axes": [{"name": name, **axis} for name in axes], "datasets": [dataset]}
    if rows is None:
        del dataset["coordinateTransformations"]
    if general is not None:
        multiscale["coordinateTransformations"] = general
    if version == "0.4":
        group.attrs["multiscales"] = [{"version": "0.4", **multiscale}]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [multiscale]}
    return str(place)


def scale(*values):
    return {"type": "scale", "scale": list(values)}


def translation(*values):
    return {"type": "translation", "translation": list(values)}


@pytest.mark.parametrize("version", ["0.4", "0.5"])
@pytest.mark.parametrize(
    ("unit", "rows", "general", "size", "origin"),
    [
        ("angstrom", [scale(8, 8, 8)], None, (8, 8, 8), (0, 0, 0)),
        ("nanometer", [scale(1.5, 1.5, 1.5)], None, (15, 15, 15), (0, 0, 0)),
        ("micrometer", [scale(0.002, 0.002, 0.002)], None, (20, 20, 20), (0, 0, 0)),
        ("nanometer", [scale(4, 2, 2), translation(1, 2, 3)], None, (40, 20, 20), (10, 20, 30)),
        # What holds for all levels is applied after a level's own, to its translation too.
        ("nanometer", [scale(1, 1, 1), translation(1, 2, 3)], [scale(2, 2, 2)],
         (20, 20, 20), (20, 40, 60)),
        ("angstrom", [scale(3, 3, 3)], [scale(2, 2, 2), translation(5, 6, 7)],
         (6, 6, 6), (5, 6, 7)),
        ("angstrom", None, [scale(9, 9, 9)], (9, 9, 9), (0, 0, 0)),
    ],
)  # fmt: skip
def test_images_of_other_programs_keep_their_units(
    tmp_path, version, unit, rows, general, size, origin
):
    url = foreign(tmp_path / "a.zarr", rows=rows, general=general, unit=unit, version=version)
    reader = OmeZarrReader(url)
    assert reader.header.sampling.voxel_size_angstrom == pytest.approx(size, rel=1e-12)
    assert reader.header.origin_angstrom == pytest.approx(origin, rel=1e-12)
    assert reader.read(Box((1, 2, 3), (2, 3, 4))).tolist() == [[[23]]]


def test_a_given_voxel_size_wins_and_leaves_the_origin_in_its_unit(tmp_path):
    rows = [scale(1, 1, 1), translation(1, 2, 3)]
    url = foreign(tmp_path / "a.zarr", rows=rows, unit="nanometer")
    header = OmeZarrReader(url, voxel_size_angstrom=7.5).header
    assert header.sampling.voxel_size_angstrom == (7.5, 7.5, 7.5)
    assert header.origin_angstrom == (10.0, 20.0, 30.0)


@pytest.mark.parametrize(
    ("rows", "unit"),
    [
        (None, "angstrom"),
        ([translation(1, 1, 1)], "angstrom"),
        ([scale(0, 0, 0)], "angstrom"),
        ([scale(8, 8, -8)], "angstrom"),
        ([scale(8, 8, 8)], None),
        ([scale(8, 8, 8)], "pixel"),
    ],
)
def test_a_voxel_size_is_never_guessed(tmp_path, rows, unit):
    url = foreign(tmp_path / "a.zarr", rows=rows, unit=unit)
    with pytest.raises(VoxelSizeError, match=r"Set source\.voxel_size_angstrom"):
        OmeZarrReader(url)
    assert OmeZarrReader(url, voxel_size_angstrom=8).header.sampling.voxel_angstrom == 8


@pytest.mark.parametrize(
    ("rows", "axes", "message"),
    [
        ([scale(1, 1)], "zyx", "not valid"),
        ([{"type": "scale", "path": "scales"}], "zyx", "not valid"),
        ([{"type": "affine", "affine": [1, 1, 1]}], "zyx", "transformation of type affine"),
        ([scale(8, 8, 8)], "xyz", r"axes \['x', 'y', 'z'\], not z, y, x"),
        ([scale(8, 8)], "yx", r"axes \['y', 'x'\], not z, y, x"),
        ([scale(1, 8, 8, 8)], "czyx", r"2 places along the axis 'c'; one volume is read"),
    ],
)
def test_images_that_are_not_understood_are_refused(tmp_path, rows, axes, message):
    with pytest.raises(FormatError, match=message):
        OmeZarrReader(foreign(tmp_path / "a.zarr", rows=rows, axes=axes))


def damaged(place, how):
    """Make something that is no OME-Zarr image."""
    if how == "missing":
        return
    if how == "a file":
        place.write_text("no zarr")
        return
    if how == "an array":
        zarr.create_array(str(place), shape=(2, 2, 2), chunks=(2, 2, 2), dtype="u1")
        return
    group = zarr.open_group(str(place), mode="w")
    if how == "bad JSON":
        (place / "zarr.json").write_text("{")
    elif how == "no level":
        group.attrs["ome"] = {"multiscales": [{"axes": [], "datasets": []}]}
    elif how == "axes of 0.3":
        group.attrs["ome"] = {"multiscales": [{"axes": ["z", "y", "x"], "datasets": []}]}


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ("missing", "is neither a zarr group nor an array"),
        ("a file", "is neither a zarr group nor an array"),
        ("an array", r"states no voxel size. Set source\.voxel_size_angstrom"),
        ("bad JSON", "is neither a zarr group nor an array"),
        ("a plain group", "is not an OME-Zarr image: no multiscales metadata"),
        ("no level", r"has axes \[\]"),
        ("axes of 0.3", "OME-Zarr metadata that is not valid"),
    ],
)
def test_what_is_no_image_is_refused(tmp_path, how, message):
    damaged(tmp_path / "a.zarr", how)
    with pytest.raises(FormatError, match=message):
        OmeZarrReader(str(tmp_path / "a.zarr"))


VOXELS = np.arange(24, dtype=np.float32).reshape(2, 3, 4)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("axes", ["tczyx", "czyx", "tzyx", "zcyx"])
def test_axes_of_one_place_are_left_out(tmp_path, axes, version):
    shape = tuple(dict(z=2, y=3, x=4).get(axis, 1) for axis in axes)
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=version)
    array = group.create_array(
        "s0", shape=shape, chunks=tuple(map(min, shape, (2,) * 5)), dtype="f4"
    )
    array[...] = VOXELS.reshape(shape)
    units = {axis: {"type": "space", "unit": "nanometer"} for axis in "zyx"}
    sizes = [{"z": 2.0, "y": 1.0, "x": 1.5}.get(axis, 7.0) for axis in axes]
    image = {
        "axes": [{"name": axis, **units.get(axis, {"type": "other"})} for axis in axes],
        "datasets": [{"path": "s0", "coordinateTransformations": [scale(*sizes)]}],
    }
    if version == 2:
        group.attrs["multiscales"] = [image]
    else:
        group.attrs["ome"] = {"version": "0.5", "multiscales": [image]}
    reader = OmeZarrReader(str(tmp_path / "a.zarr"))
    assert reader.header.sampling == Sampling((2, 3, 4), (20.0, 10.0, 15.0))
    assert np.array_equal(reader.read(Box((0, 1, 1), (2, 3, 4))), VOXELS[:, 1:, 1:])
    with pytest.raises(StoreError, match="leaves"):
        reader.read(Box((0, 0, 0), (3, 3, 4)))


@pytest.mark.parametrize("dtype", [">f4", ">u2", ">i2", "<u2"])
def test_the_byte_order_of_a_zarr_v2_array_is_its_own_affair(tmp_path, dtype):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", shape=(2, 3, 4), chunks=(2, 2, 2), dtype=dtype)[:] = VOXELS
    dataset = {"path": "0", "coordinateTransformations": [scale(8, 8, 8)]}
    axes = [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"]
    group.attrs["multiscales"] = [{"axes": axes, "datasets": [dataset]}]
    reader = OmeZarrReader(str(tmp_path / "a.zarr"))
    voxels = reader.read(Box.whole((2, 3, 4)))
    assert reader.header.dtype == np.dtype(dtype).name
    assert voxels.dtype == np.dtype(reader.header.dtype) and voxels.dtype.isnative
    assert np.array_equal(voxels, VOXELS)


@pytest.mark.parametrize("version", [2, 3])
@pytest.mark.parametrize("separator", ["/", "."])
@pytest.mark.parametrize("shape", [(2, 3, 4), (1, 1, 2, 3, 4)])
def test_an_array_without_metadata_is_read_with_a_given_voxel_size(
    tmp_path, version, separator, shape
):
    kind = "v2" if version == 2 else "default"
    array = zarr.create_array(
        str(tmp_path / "a.zarr"), shape=shape, chunks=tuple(min(2, n) for n in shape), dtype="f4",
        zarr_format=version, chunk_key_encoding={"name": kind, "separator": separator},
    )  # fmt: skip
    array[...] = VOXELS.reshape(shape)
    with pytest.raises(VoxelSizeError, match=r"Set source\.voxel_size_angstrom"):
        OmeZarrReader(str(tmp_path / "a.zarr"))
    reader = OmeZarrReader(str(tmp_path / "a.zarr"), voxel_size_angstrom=9)
    assert reader.header.sampling == Sampling((2, 3, 4), (9.0, 9.0, 9.0))
    assert np.array_equal(reader.read(Box.whole((2, 3, 4))), VOXELS)


@pytest.mark.parametrize("version", [2, 3])
def test_chunks_that_are_not_there_are_told(folder, version):
    kind = "v2" if version == 2 else "default"
    store = zarr_store(folder / "a.zarr")
    array = zarr.create_array(
        store, shape=(4, 6, 5), chunks=(2, 2, 5), dtype="f4", zarr_format=version,
        chunk_key_encoding={"name": kind, "separator": "/"},
    )  # fmt: skip
    array[...] = 7
    url = f"{folder.url}/a.zarr"
    assert OmeZarrReader(url, voxel_size_angstrom=9).told_missing() == ""
    (folder / "a.zarr").remove("c/1/2/0" if version == 3 else "1/2/0")
    told = OmeZarrReader(url, voxel_size_angstrom=9).told_missing()
    assert told.startswith("1 of 6 chunks of the array are not there")


def test_images_of_early_versions_have_no_scale(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w", zarr_format=2)
    group.create_array("0", shape=(1, 1, 2, 3, 4), chunks=(1, 1, 2, 3, 4), dtype="u1")[...] = 3
    group.attrs["multiscales"] = [{"version": "0.1", "datasets": [{"path": "0"}]}]
    with pytest.raises(VoxelSizeError, match=r"Set source\.voxel_size_angstrom"):
        OmeZarrReader(str(tmp_path / "a.zarr"))
    reader = OmeZarrReader(str(tmp_path / "a.zarr"), voxel_size_angstrom=9)
    assert reader.header.sampling.shape == (2, 3, 4)


def test_a_group_of_arrays_names_them(tmp_path):
    group = zarr.open_group(str(tmp_path / "a.zarr"), mode="w")
    group.create_array("raw", shape=(2, 3, 4), chunks=(2, 3, 4), dtype="u1")
    with pytest.raises(FormatError, match=r"Name an array in it.*a\.zarr/raw"):
        OmeZarrReader(str(tmp_path / "a.zarr"))


@pytest.mark.parametrize(("shape", "says"), [((3, 2, 3, 4), "3 places along the axis 'c'"),
                                             ((3, 4), r"axes \['y', 'x'\]")])  # fmt: skip
def test_an_array_that_is_not_one_volume_is_refused(tmp_path, shape, says):
    zarr.create_array(str(tmp_path / "a.zarr"), shape=shape, chunks=shape, dtype="u1")
    with pytest.raises(FormatError, match=says):
        OmeZarrReader(str(tmp_path / "a.zarr"), voxel_size_angstrom=9)
