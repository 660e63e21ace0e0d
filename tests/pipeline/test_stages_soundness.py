"""What of another size than was written is whole all the same."""

import mrcfile
import numpy as np
import pytest

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import Volume
from tomoseg.io.volumes.tiff_writer import TiffWriter
from tomoseg.pipeline.stages.soundness import is_sound


@pytest.mark.parametrize(
    ("name", "whole"),
    [
        ("t.star", b"data_\n\nloop_\n_a #1\n1\n"),
        ("t.csv", b"a,b\n10,20\n"),
        ("t.json", b'{\n "a": 1\n}\n'),
        ("t.mod", b"IMODV1.2" + bytes(90) + b"IEOF"),
        ("t.png", b"\x89PNG" + bytes(90) + b"IEND\xaeB`\x82"),
        ("t.jpg", b"\xff\xd8" + bytes(90) + b"\xff\xd9"),
    ],
)
def test_what_ends_as_it_should_is_whole(folder, name, whole):
    folder.write(name, whole)
    assert is_sound(folder, name, is_less=True)
    for cut in (1, len(whole) // 2, len(whole) - 1):
        folder.write(name, whole[:cut])
        assert not is_sound(folder, name, is_less=True), cut


def test_a_volume_is_whole_if_it_has_what_its_header_says(folder, tmp_path):
    with mrcfile.new(tmp_path / "a.mrc") as file:
        file.set_data(np.zeros((4, 8, 8), np.int16))
        file.voxel_size = 10.0
    whole = (tmp_path / "a.mrc").read_bytes()
    folder.write("a.mrc", whole)
    assert is_sound(folder, "a.mrc", is_less=False)
    folder.write("a.mrc", whole[:-1])
    assert not is_sound(folder, "a.mrc", is_less=True)
    grid = Sampling((40, 64, 64), (10.0, 10.0, 10.0))
    with folder.publishing("a.tif") as file:
        TiffWriter(file, grid, "uint8", shown=(0, 1))
    assert is_sound(folder, "a.tif", is_less=True)
    folder.write("a.tif", folder.read("a.tif")[:100_000])
    assert not is_sound(folder, "a.tif", is_less=True)


def test_other_bytes_count_as_whole_unless_they_are_less(folder):
    folder.write("t.npz", b"PK" + bytes(9))
    assert is_sound(folder, "t.npz", is_less=False)
    assert not is_sound(folder, "t.npz", is_less=True)


@pytest.mark.parametrize("place", ["tomogram.zarr", "masks/t__actin.zarr"])
def test_a_shard_is_whole_if_it_can_be_read(folder, place):
    """Also of masks, which lie in volumes of their own."""
    volume = Volume(folder / place, "labels/0")
    volume.create((8, 16, 16), "uint8", shard=(8, 16, 16), is_labels=True)
    voxels = np.random.default_rng(0).integers(0, 9, (8, 16, 16), np.uint8)
    volume.write(Box.whole(voxels.shape), voxels)
    name = f"{place}/labels/0/c/0/0/0"
    assert is_sound(folder, name, is_less=True)
    folder.write(name, folder.read(name)[:-9])
    assert not is_sound(folder, name, is_less=False)
