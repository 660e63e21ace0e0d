"""Stored tomograms as lazy arrays."""

import pickle

import numpy as np
import pytest

import tomoseg
from tomoseg.core.blocks import Box
from tomoseg.core.errors import StoreError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.stores import Volume, write_image_metadata, write_label_metadata

GRID = Sampling((8, 10, 12), (10.0, 12.0, 14.0))
VOXELS = np.arange(960, dtype=np.int16).reshape(GRID.shape)
LABELS = (VOXELS % 3).astype(np.uint8)


@pytest.fixture
def place(folder):
    """A session's tomogram of two levels, with labels."""
    group = folder / "TS_01" / "tomogram.zarr"
    levels = [GRID, GRID.binned(2)]
    for path, voxels in (("0", VOXELS), ("1", VOXELS[::2, ::2, ::2])):
        for name, each in ((path, voxels), (f"labels/semantic/{path}", LABELS[: len(voxels)])):
            part = each[tuple(slice(0, n) for n in voxels.shape)]
            volume = Volume(group, name)
            volume.create(part.shape, str(part.dtype), shard=(4, 4, 8))
            volume.write(Box.whole(part.shape), part)
    write_image_metadata(group, "TS_01", levels, Header(GRID, "int16"))
    write_label_metadata(group, "semantic", levels, {1: "#ff0000", 2: "#00ff00"})
    return (folder / "TS_01").url


def test_voxels_and_labels_are_what_was_stored(place):
    tomogram = tomoseg.open_tomogram(place)
    assert tomogram.dtype == np.int16
    assert tomogram.chunks == ((4, 4), (4, 4, 2), (8, 4))
    assert (tomogram.values == VOXELS).all()
    assert (tomoseg.open_tomogram(place, labels="semantic").values == LABELS).all()


def test_voxels_are_found_by_angstrom(place):
    whole = tomoseg.open_tomogram(place)
    assert whole.sel(z=20.0, y=36.0, x=42.0, method="nearest").values == VOXELS[2, 3, 3]
    halved = tomoseg.open_tomogram(place, level=1)
    assert halved.shape == (4, 5, 6)
    assert halved.z.values[:2].tolist() == [5.0, 25.0]
    assert halved.x.values[0] == 7.0


def test_they_travel_to_other_processes(place):
    again = pickle.loads(pickle.dumps(tomoseg.open_tomogram(place)[1:3]))
    assert (again.values == VOXELS[1:3]).all()


def test_a_shard_that_is_cut_is_told_and_not_read_as_zeros(place, folder):
    (shard,) = folder.names("TS_01/tomogram.zarr/0/c/1/2")[:1]
    folder.write(f"TS_01/tomogram.zarr/0/c/1/2/{shard}", b"cut")
    tomogram = tomoseg.open_tomogram(place)
    assert (tomogram[:4].values == VOXELS[:4]).all()
    with pytest.raises(StoreError, match="is cut or damaged"):
        tomogram.compute()


def test_what_is_not_there_is_refused(place):
    with pytest.raises(StoreError, match=r"no labels 'actin', only \['semantic'\]"):
        tomoseg.open_tomogram(place, labels="actin")
    with pytest.raises(StoreError, match="does not exist"):
        tomoseg.open_tomogram(place, level=2)
