"""What the operating system's file systems do while others write."""

import os

import pytest

from tomoseg.io.stores.systems import REMOVALS, remove_tree


def busy(monkeypatch, folder, times):
    """Have somebody write into a folder each time that it is to be removed."""
    rmdir, left = os.rmdir, [times]

    def late(path, *, dir_fd=None):
        if left[0]:
            left[0] -= 1
            (folder / f"late{left[0]}").touch()
        rmdir(path, dir_fd=dir_fd)

    monkeypatch.setattr(os, "rmdir", late)


def test_a_folder_is_removed_while_somebody_writes_into_it(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    (folder / "b").mkdir(parents=True)
    (folder / "b" / "x").touch()
    busy(monkeypatch, folder, 3)
    remove_tree(folder)
    assert not folder.exists()


def test_who_never_stops_writing_is_told(tmp_path, monkeypatch):
    folder = tmp_path / "a"
    folder.mkdir()
    busy(monkeypatch, folder, REMOVALS)
    with pytest.raises(OSError, match="not empty"):
        remove_tree(folder)


def test_a_link_goes_and_what_it_leads_to_stays(tmp_path):
    (tmp_path / "there").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "there")
    remove_tree(tmp_path / "link")
    remove_tree(tmp_path / "nothing")
    assert [one.name for one in tmp_path.iterdir()] == ["there"]
