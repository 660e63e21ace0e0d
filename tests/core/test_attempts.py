"""What went wrong, by kind: what passes by itself is told from damage."""

import errno
import gzip
import io
from pathlib import Path

import numpy as np
import PIL.Image
import pytest
import tifffile
import zarr
from botocore.exceptions import ClientError, EndpointConnectionError, ReadTimeoutError

from tomoseg.core.attempts import can_pass, explaining
from tomoseg.core.blocks import Box
from tomoseg.core.errors import (
    AwayError,
    BlockError,
    FullDiskError,
    MissingError,
    ResourceError,
    StoreError,
)
from tomoseg.io.stores import Volume
from tomoseg.io.volumes.sources import open_source, packed_header
from tomoseg.nets.card import load_card


@pytest.mark.parametrize(
    ("error", "kind"),
    [
        (OSError(errno.ESTALE, "stale"), AwayError),
        (OSError(errno.EIO, "input/output"), AwayError),
        (OSError(errno.ENOTCONN, "not connected"), AwayError),
        (TimeoutError("no answer"), AwayError),
        (ConnectionResetError("by peer"), AwayError),
        (EndpointConnectionError(endpoint_url="http://store"), AwayError),
        (ReadTimeoutError(endpoint_url="http://store"), AwayError),
        (ClientError({"Error": {"Code": "403"}}, "GetObject"), StoreError),
        (PermissionError(errno.EACCES, "denied"), StoreError),
        (OSError("damaged"), StoreError),
        (OSError(errno.ENOSPC, "full"), FullDiskError),
        (OSError(errno.EDQUOT, "quota"), FullDiskError),
        (MemoryError("no more"), ResourceError),
        (ZeroDivisionError("by zero"), BlockError),
    ],
)
def test_each_failure_has_its_kind(error, kind):
    with pytest.raises(kind) as caught, explaining():
        raise error
    assert type(caught.value) is kind
    assert can_pass(caught.value) == (kind in (AwayError, StoreError, BlockError))


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.EPERM])
def test_a_folder_that_may_not_be_written_has_a_remedy_for_services(number):
    with pytest.raises(StoreError, match=r"\[Errno .*ReadWritePaths") as caught, explaining():
        raise OSError(number, "not here")
    assert can_pass(caught.value)


def test_an_array_that_goes_away_while_it_is_read_is_no_zeros(tmp_path, monkeypatch):
    """Chunks that are not there read as zeros: those of a folder that is gone must not."""
    path = tmp_path / "a.zarr"
    zarr.save_array(path, np.ones((4, 4, 4), np.float32))
    honest = Volume.read

    def late(volume, box):
        path.rename(tmp_path / "away")
        try:
            return honest(volume, box)
        except StoreError:
            return np.zeros(box.shape, np.float32)

    with open_source(str(path), voxel_size_angstrom=10.0) as source:
        monkeypatch.setattr(Volume, "read", late)
        with pytest.raises(StoreError, match="does not exist"):
            source.read(Box((0, 0, 0), (4, 4, 4)))
    with (
        pytest.raises(MissingError, match=r"a\.zarr does not exist"),
        open_source(str(path), voxel_size_angstrom=10.0),
    ):
        pass


def stale(*values):
    raise OSError(errno.ESTALE, "Stale file handle")


@pytest.mark.parametrize("kind", ["mrc", "png", "tif", "mrc.gz", "model"])
def test_a_drive_that_stumbles_is_no_damage_of_a_file(tmp_path, tiny_model, kind, monkeypatch):
    path = tmp_path / f"a.{kind}"
    if kind == "model":
        monkeypatch.setattr(Path, "read_bytes", stale)
        with pytest.raises(AwayError, match="Stale"), explaining():
            load_card(tiny_model)
        return
    pixels = np.arange(64 * 64, dtype=np.uint8).reshape(64, 64)
    if kind == "png":
        PIL.Image.fromarray(pixels).save(path)
    elif kind == "tif":
        tifffile.imwrite(path, pixels[np.newaxis])
    else:
        path.write_bytes(gzip.compress(bytes(2048)) if kind == "mrc.gz" else bytes(2048))

    class Stale(io.BytesIO):
        def read(self, count=-1):
            return stale()

        def readinto(self, buffer):
            return stale()

    monkeypatch.setattr(
        "tomoseg.io.volumes.sources.open_file", lambda url: Stale(path.read_bytes())
    )
    with pytest.raises(AwayError, match="Stale"), explaining():
        if kind == "mrc.gz":
            packed_header(str(path))
        else:
            with open_source(str(path), voxel_size_angstrom=10.0) as source:
                source.read(Box((0, 0, 0), (1, 64, 64)))
