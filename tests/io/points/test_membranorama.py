"""Sessions of Membranorama: a real one beside its membrane, and files that mean harm."""

from __future__ import annotations

import gzip
import io
from pathlib import Path

import mrcfile
import numpy as np
import pytest
from scipy.spatial import cKDTree

from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import Sampling
from tomoseg.io.points.dialects import TomoContext
from tomoseg.io.points.membranorama import read_membranorama
from tomoseg.io.points.picks import read_points
from tomoseg.io.volumes.mrc import MrcReader

DATA = Path(__file__).resolve().parents[3] / ".." / "shared" / "data" / "cryoet/membrane_labels"
REAL = pytest.mark.skipif(not DATA.is_dir(), reason="shared real data are not on this machine")

GRID = Sampling((20, 30, 40), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID, origin_angstrom=(300.0, 200.0, 100.0))
SESSION = """<?xml version="1.0" encoding="{encoding}"?>
<Session><PointGroups>
<Group Name="dimer"><Point ID="1" Position="110,220,330"/>
<Point ID="2" Position="{second}"/></Group>
<Group Name="other"></Group>
</PointGroups></Session>"""


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_positions_are_relative_to_the_origin_of_the_header(encoding: str) -> None:
    data = SESSION.format(encoding=encoding, second="100.5,200,300").encode(encoding)
    [found] = read_points(data, "a.XML", [CONTEXT])
    dimer, other = found.particles
    assert (dimer.name, other.name, len(other)) == ("dimer", "other", 0)
    assert dimer.points_angstrom.tolist() == [[30, 20, 10], [0, 0, 0.5]]
    assert found.says[-1] == (
        "positions in Å from the header's origin, which is 100, 200, 300 (xyz)"
    )


def test_an_unknown_origin_is_asked_for() -> None:
    data = SESSION.format(encoding="utf-8", second="1,2,3").encode()
    with pytest.raises(FormatError, match="origin of the tomogram's header, which is not known"):
        read_membranorama(data, TomoContext("TS_01", GRID))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (SESSION.format(encoding="utf-8", second="1,2"), r"point 2 has the position '1,2'"),
        (SESSION.format(encoding="utf-8", second="1,2,nan"), "point 2 has the position '1,2,nan'"),
        ("<a><Point Position='1,2,3'/></a>", "no group of points"),
        ("<a>", "this is no XML"),
        ("", "this is no XML"),
        ('<!DOCTYPE a [<!ENTITY b "c">]><a>&b;</a>', "has a DOCTYPE"),
        ('<!DOCTYPE a SYSTEM "file:///etc/hostname"><a/>', "has a DOCTYPE"),
        ("<a>&b;</a>", "this is no XML"),
    ],
)
def test_what_is_no_session_is_refused(content: str, message: str) -> None:
    with pytest.raises(FormatError, match=message):
        read_membranorama(content.encode(), CONTEXT)


@REAL
def test_real_particles_lie_on_their_membrane() -> None:
    raw = gzip.decompress((DATA / "T1S4M8_crop.mrc.gz").read_bytes())
    header = MrcReader(io.BytesIO(raw)).header
    context = TomoContext("T1S4M8", header.sampling, origin_angstrom=header.origin_angstrom)
    found = read_membranorama((DATA / "T1S4M8.xml").read_bytes(), context)
    assert [len(group) for group in found.particles] == [9, 6, 1, 1]
    with mrcfile.open(DATA / "T1S4M8_crop.mrc.gz") as file:
        membrane = np.argwhere(file.data > 0)
    points = np.concatenate([group.points_angstrom for group in found.particles])
    away, _ = cKDTree(membrane).query(header.sampling.to_voxels(points))
    assert away.max() < 2.3
