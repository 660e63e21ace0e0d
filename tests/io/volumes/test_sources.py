"""Tomograms found by name and opened by kind."""

import bz2
import gzip

import mrcfile
import numpy as np
import pytest
import tifffile
from PIL import Image

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.stores import Folder, Volume, write_image_metadata
from tomoseg.io.volumes.sources import (
    Found,
    as_labels,
    companion_url,
    open_source,
    tomogram_name,
    unpack,
)

VOXELS = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
AMIRA = (
    b"# AmiraMesh BINARY-LITTLE-ENDIAN 3.0\n\ndefine Lattice 5 4 3\n\n"
    b"Parameters {\n    BoundingBox 0 48 0 36 0 24,\n}\n\nLattice { short Data } @1\n\n@1\n"
) + VOXELS.tobytes()


def touched(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"")


def mrc_bytes(tmp_path, voxel_size=12.0):
    path = tmp_path / "made_elsewhere.mrc"
    with mrcfile.new(path, VOXELS, overwrite=True) as file:
        file.voxel_size = voxel_size
    return path.read_bytes()


# Names


@pytest.mark.parametrize(
    ("file", "remove", "name"),
    [
        ("/d/TS_01.mrc", (), "TS_01"),
        ("/d/TS_01_10.00Apx.mrc", (), "TS_01_10.00Apx"),
        ("/d/rec_TS_01_10.00Apx.mrc", ("^rec_", r"_10\.00Apx$"), "TS_01"),
        ("/d/grid 2  pos 3.mrc", (), "grid_2_pos_3"),
        ("/d/a.mrc.gz", (), "a"),
        ("/d/A.MRC.GZ", (), "A"),
        ("/d/a.rec.bz2", ("a",), None),
        ("/d/x.a.mrc", ("^x",), None),
        ("s3://bucket/run/tomo.ome.zarr", (r"\.ome$",), "tomo"),
    ],
)
def test_a_name_is_the_stem_without_what_is_cut_out(file, remove, name):
    if name is not None:
        assert tomogram_name(file, remove) == name
    else:
        with pytest.raises(RequestError, match=r"Change session\.tomogram_name_remove"):
            tomogram_name(file, remove)


@pytest.mark.parametrize(
    ("pattern", "wanted"),
    [
        ("{folder}/truth/{name}__labels.mrc", "s3://b/run/truth/t1__labels.mrc"),
        ("/masks/{name}.mrc", "file:///masks/t1.mrc"),
        ("s3://other/one.mrc", "s3://other/one.mrc"),
    ],
)
def test_files_beside_a_tomogram(pattern, wanted):
    assert companion_url(pattern, Found("t1", "s3://b/run/tomo_t1.mrc")) == wanted


@pytest.mark.parametrize("pattern", ["{nam}.mrc", "{0}.mrc", "{name", "{name.x}", "{}"])
def test_other_words_in_braces_are_refused(pattern):
    with pytest.raises(RequestError, match=r"Use \{folder\} and \{name\}, nothing else"):
        companion_url(pattern, Found("t1", "file:///d/t1.mrc"))


# Opening


def test_every_kind_is_opened_from_every_store(tmp_path, folder):
    folder.write("a.mrc", mrc_bytes(tmp_path))
    tifffile.imwrite(tmp_path / "a.tif", VOXELS, photometric="minisblack")
    folder.write("b.TIFF", (tmp_path / "a.tif").read_bytes())
    grid = Sampling(VOXELS.shape, (12.0, 12.0, 12.0))
    volume = Volume(folder / "c.zarr", "0")
    volume.create(VOXELS.shape, "int16", shard=(4, 4, 8))
    volume.write(Box.whole(VOXELS.shape), VOXELS)
    write_image_metadata(folder / "c.zarr", "c", [grid], Header(grid, "int16"))
    folder.write("d.am", AMIRA)
    box = Box((1, 1, 2), (3, 4, 5))
    for name, override in (("a.mrc", None), ("b.TIFF", 12.0), ("c.zarr", None), ("d.am", None)):
        with open_source(f"{folder.url}/{name}", voxel_size_angstrom=override) as source:
            assert source.header.sampling == grid, name
            assert source.header.dtype == "int16", name
            assert np.array_equal(source.read(box), VOXELS[box.slices]), name


def test_an_image_of_every_kind_is_one_slice(tmp_path):
    image = VOXELS[0].astype(np.uint16)
    Image.fromarray(image).save(tmp_path / "a.png")
    tifffile.imwrite(tmp_path / "a.tif", image, photometric="minisblack")
    with mrcfile.new(tmp_path / "a.mrc", image) as file:
        file.voxel_size = 3.0
    with mrcfile.new(tmp_path / "b.mrc", image) as file:
        file.voxel_size = (3.0, 3.0, 0.0)  # as motion correction leaves it
    for name, override in (("a.png", 3.0), ("a.tif", 3.0), ("a.mrc", None), ("b.mrc", None)):
        with open_source(str(tmp_path / name), voxel_size_angstrom=override) as source:
            assert source.header.sampling == Sampling((1, 4, 5), (3.0, 3.0, 3.0)), name
            assert np.array_equal(source.read(Box.whole((1, 4, 5)))[0], image), name


def test_a_file_is_closed_when_it_is_done_with(tmp_path):
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(tmp_path))
    with open_source(str(tmp_path / "a.mrc")) as source:
        source.read(Box.whole(VOXELS.shape))
    with pytest.raises(ValueError, match="closed"):
        source.read(Box.whole(VOXELS.shape))


def test_opening_says_what_is_wrong(tmp_path):
    with pytest.raises(RequestError, match="does not exist"), open_source(str(tmp_path / "a.mrc")):
        pass
    (tmp_path / "a.mrc").write_bytes(mrc_bytes(tmp_path, voxel_size=0.0))
    with (
        pytest.raises(VoxelSizeError, match=r"source\.voxel_size_angstrom"),
        open_source(str(tmp_path / "a.mrc")) as source,
    ):
        _ = source.header
    (tmp_path / "a.mrc.gz").write_bytes(b"")
    with (
        pytest.raises(FormatError, match="has not been unpacked"),
        open_source(str(tmp_path / "a.mrc.gz")),
    ):
        pass


# Compressed files


@pytest.mark.parametrize(("suffix", "pack"), [(".gz", gzip.compress), (".BZ2", bz2.compress)])
def test_a_compressed_tomogram_is_unpacked_once(tmp_path, folder, suffix, pack):
    plain = mrc_bytes(tmp_path)
    folder.write(f"in/a.mrc{suffix}", pack(plain))
    spool = folder / "spool"
    url = unpack(f"{folder.url}/in/a.mrc{suffix}", spool)
    assert url == f"{spool.url}/a.mrc"
    assert spool.read("a.mrc") == plain
    with open_source(url) as source:
        assert np.array_equal(source.read(Box.whole(VOXELS.shape)), VOXELS)
    folder.remove("in")
    assert unpack(f"{folder.url}/in/a.mrc{suffix}", spool) == url


def test_what_is_not_compressed_stays_where_it_is(tmp_path):
    spool = Folder(str(tmp_path / "spool"))
    assert unpack("s3://b/a.mrc", spool) == "s3://b/a.mrc"
    assert spool.names() == []


def test_a_truncated_archive_leaves_nothing(tmp_path, folder):
    folder.write("a.mrc.gz", gzip.compress(mrc_bytes(tmp_path))[:-20])
    with pytest.raises(FormatError, match="truncated"):
        unpack(f"{folder.url}/a.mrc.gz", folder / "spool")
    assert folder.names("spool") == []


# Labels


@pytest.mark.parametrize(
    ("values", "dtype", "wanted"),
    [
        ([0, 1, 127, -1], "int8", [0, 1, 127, 255]),
        ([0, 200, 255], "uint8", [0, 200, 255]),
        ([0, 3, 255], "int16", [0, 3, 255]),
        ([0.0, 2.0], "float32", [0, 2]),
        ([False, True], "bool", [0, 1]),
    ],
)
def test_labels_of_any_type(values, dtype, wanted):
    labels = as_labels(np.array(values, dtype))
    assert labels.dtype == np.uint8
    assert labels.tolist() == wanted


@pytest.mark.parametrize(
    ("values", "dtype", "reason"),
    [
        ([0, 256], "int16", "an object's number would become a class"),
        ([0, -1], "int16", "-1 stands for 255 in int8 alone"),
        ([0, 0.5], "float32", "a tomogram, not labels"),
        ([0, -2.0], "float32", "a tomogram, not labels"),
        ([0, np.nan], "float32", "a tomogram, not labels"),
    ],
)
def test_what_is_no_label_is_refused(values, dtype, reason):
    with pytest.raises(RequestError, match="are not labels"):
        as_labels(np.array(values, dtype))
