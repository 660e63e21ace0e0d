"""Writes cut in the middle: by a kill, by a power cut, by a bad copy."""

import os
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import StoreError
from tomoseg.io.stores import Folder, Ledger, Volume
from tomoseg.pipeline.stages.context import Step

SHAPE, SHARD = (16, 64, 80), (8, 64, 40)
FIRST = Box((0, 0, 0), SHARD)
WHOLE = Box.whole(SHAPE)
VOXELS = np.random.default_rng(0).integers(1, 999, SHAPE, np.int16)


@pytest.fixture
def volume(tmp_path):
    volume = Volume(Folder(str(tmp_path / "t.zarr")), "deep/0")
    volume.create(SHAPE, "int16", shard=SHARD)
    return volume


@dataclass(frozen=True)
class Copy:
    """Writes a block's voxels and a sidecar."""

    volume: Volume
    ledger: Ledger

    def __call__(self, block):
        self.volume.write(block.write, VOXELS[block.write.slices])
        self.ledger.write_arrays(block.name, {"sum": VOXELS[block.write.slices].sum()})
        return {}


@pytest.fixture
def disk(monkeypatch):
    """What is asked of the disk, in order: inodes that are to be there, names that are given."""
    asked = []
    replace, fsync = os.replace, os.fsync

    def renamed(source, target, **keys):
        asked.append(("named", os.stat(source).st_ino, Path(target)))
        replace(source, target, **keys)

    def synced(file):
        asked.append(("kept", os.fstat(file).st_ino, None))
        fsync(file)

    monkeypatch.setattr(os, "replace", renamed)
    monkeypatch.setattr(os, "fsync", synced)
    return asked


def test_what_a_receipt_stands_for_is_on_the_disk_before_it(tmp_path, volume, disk):
    """Else a power cut could leave the receipt and take the shard, or the folders it lies in."""
    grid = BlockGrid(SHAPE, (16, 64, 40))
    ledger = Ledger(Folder(str(tmp_path / ".tomoseg")), "copy", "0" * 64)
    step = Step(ledger, "copy", Copy(volume, ledger))
    disk.clear()
    for block in grid:
        step(block)
    names = [path for kind, _, path in disk if kind == "named"]
    assert [path.suffix for path in names] == ["", "", ".npz", ".json"] * 2
    awaited = {}
    for kind, inode, path in disk:
        if kind == "kept":
            for needed in awaited.values():
                needed.discard(inode)
            continue
        if path.suffix == ".json":
            assert not any(awaited.values())
        folders = [folder for folder in path.parents if folder.is_relative_to(tmp_path)]
        content = set() if path.suffix else {inode}
        awaited[path] = content | {folder.stat().st_ino for folder in folders[:1]}
        if not path.suffix:
            awaited[path] |= {folder.stat().st_ino for folder in folders}


def test_a_file_is_whole_before_it_has_its_name(tmp_path, disk):
    Folder(str(tmp_path)).write_json("a.json", {"x": 1})
    (first, inode, _), (second, same, path) = disk[:2]
    assert (first, second, inode, path) == ("kept", "named", same, tmp_path / "a.json")


@pytest.mark.parametrize("damage", ["empty", "stub", "half", "short", "zeros", "tail", "head"])
def test_a_shard_that_was_cut_is_never_read_as_zeros(volume, damage):
    volume.write(WHOLE, VOXELS)
    shard = volume.folder.path / "deep/0/c/0/0/0"
    whole = shard.read_bytes()
    half = len(whole) // 2
    damaged = {
        "empty": b"",
        "stub": whole[:50],
        "half": whole[:half],
        "short": whole[:-1],
        "zeros": bytes(len(whole)),
        "tail": whole[:half] + bytes(len(whole) - half),
        "head": bytes(half) + whole[half:],
    }
    shard.write_bytes(damaged[damage])
    with pytest.raises(StoreError, match=r"deep/0 between .* is cut or damaged: .*run again"):
        volume.read(WHOLE)
    # The others are as they were, and the block can be written anew.
    others = Box((8, 0, 0), SHAPE)
    assert np.array_equal(volume.read(others), VOXELS[others.slices])
    volume.write(FIRST, VOXELS[FIRST.slices])
    assert np.array_equal(volume.read(WHOLE), VOXELS)


def test_an_empty_block_has_no_shard_and_is_read_as_zeros(volume):
    volume.write(WHOLE, np.zeros(SHAPE, np.int16))
    assert not (volume.folder.path / "deep/0/c").exists()
    assert not volume.read(WHOLE).any()


@pytest.mark.parametrize("cut", [b'{"voxels": [1, 2', b"\0" * 30, b"\xff\xfe"])
def test_a_receipt_that_is_cut_makes_its_block_be_done_again(folder, cut):
    ledger = Ledger(folder, "segment", "0" * 64)
    ledger.write("b1", {"seconds": 1})
    ledger.write("b2", {"seconds": 2})
    folder.write(f"{ledger.place}/b1.json", cut)
    with pytest.raises(StoreError, match=r"the receipt of b1 was cut .* Run again"):
        ledger.read("b1")
    assert ledger.done() == {"b2"}
    with pytest.raises(StoreError, match="there is no file"):
        ledger.read("b1")
