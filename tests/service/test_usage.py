"""Bytes of a session: every file counts once, under what it is for."""

import json

import pytest

from tomoseg import cli
from tomoseg.core.errors import RequestError
from tomoseg.service.usage import disk_of

SIZES = {
    "session.json": 1,
    "session/relion5/actin.star": 2,
    "TS_01/masks/TS_01__actin.mrc": 4,
    "TS_01/tomogram.zarr/labels/semantic/0/c/0/0/0": 8,
    "TS_01/tomogram.zarr/work/segmented/c/0/0/0": 16,
    "TS_01/.tomoseg/segment-0123/predict/0/0-0-0.json": 32,
    ".tomoseg/claim-000001.json": 64,
    "TS_01/previous/2026-11-01-0123/masks/TS_01__actin.mrc": 128,
    "work/tomogram.zarr/c/0": 256,
}
FOUND = {"results": 15 + 256, "work": 16, "receipts": 96, "previous": 128, "total": 511}


def test_every_file_counts_once(folder):
    """Also of a tomogram that is called as one of the kinds."""
    for name, size in SIZES.items():
        folder.write(name, b"x" * size)
    assert disk_of(folder) == FOUND


def test_nothing_takes_nothing(folder):
    assert disk_of(folder)["total"] == 0


def tell(capsys, place, *options):
    with pytest.raises(SystemExit) as ended:
        cli.app(["status", str(place), *options])
    assert ended.value.code == 0
    return capsys.readouterr().out


@pytest.mark.parametrize("at", ["", "s1"])
def test_status_measures_it_when_asked(tmp_path, capsys, at):
    out = tmp_path / "out"
    for name in ("s1", "s2"):
        (out / name).mkdir(parents=True)
        (out / name / "session.json").write_text('{"started": "", "finished": "", "tomograms": []}')
    (out / "s2" / "big").write_bytes(b"x" * 2_000_000)
    assert tell(capsys, out / at).count(" on disk: ") == 0
    assert tell(capsys, out / at, "--disk").count(" on disk: ") == (1 if at else 3)
    said = json.loads(tell(capsys, out / at, "--disk", "--json"))
    own = (out / "s1" / "session.json").stat().st_size
    if at:
        assert said["bytes"]["total"] == own
    else:
        assert said["bytes"]["total"] == 2 * own + 2_000_000
        assert said["sessions"]["s2"]["bytes"]["results"] == own + 2_000_000


def test_questions_come_one_at_a_time(tmp_path):
    with pytest.raises(RequestError, match="different questions"):
        cli.app(["status", str(tmp_path), "--disk", "--check"])
