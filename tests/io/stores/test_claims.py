"""Claims: one run at a time on an output, wherever it lies."""

import getpass
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import asdict, replace
from datetime import UTC, datetime, timedelta

import pytest

from tomoseg.core.errors import ClaimError
from tomoseg.io.stores import Folder, Owner, claimed, living_owner
from tomoseg.io.stores import claims as module
from tomoseg.io.stores.lives import processes


def claims(folder):
    return folder.names(".tomoseg")


def placed(folder, number=1, *, seconds=0.0, **changes):
    """Put a claim of another machine into a folder, with its last sign of life so long ago."""
    seen = (datetime.now(UTC) - timedelta(seconds=seconds)).isoformat()
    began = (datetime.now(UTC) - timedelta(hours=3)).isoformat()
    owner = Owner("mia", "krios", 77, "tomoseg run -o there", "other boot", began, seen, 2.0)
    folder.write_json(f".tomoseg/claim-{number:06d}.json", asdict(replace(owner, **changes)))


def test_a_file_is_created_once(folder):
    assert folder.create("a/b", b"first")
    assert not folder.create("a/b", b"second")
    assert folder.read("a/b") == b"first"
    assert folder.names("a") == ["b"]


@pytest.mark.parametrize("is_there", [True, False])
def test_a_part_that_is_gone_means_that_another_was_first(tmp_path, monkeypatch, is_there):
    def swept(part, target):
        os.unlink(part)
        if is_there:
            target.write_bytes(b"theirs")
        raise FileNotFoundError(part)

    monkeypatch.setattr(os, "link", swept)
    with nullcontext() if is_there else pytest.raises(FileNotFoundError):
        assert not Folder(str(tmp_path)).create("claim", b"ours")
        assert (tmp_path / "claim").read_bytes() == b"theirs"


def test_of_many_that_create_at_once_one_succeeds(tmp_path):
    folder = Folder(str(tmp_path))
    with ThreadPoolExecutor(16) as pool:
        for i in range(20):
            gate = threading.Barrier(16)

            def create(me, name=f"x{i}", gate=gate):
                gate.wait()
                return folder.create(name, b"%d" % me * 1000)

            won = list(pool.map(create, range(16)))
            assert sum(won) == 1
            assert folder.read(f"x{i}") == b"%d" % won.index(True) * 1000


def test_a_file_system_without_hard_links(tmp_path, monkeypatch):
    def link(*_):
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", link)
    folder = Folder(str(tmp_path))
    assert folder.create("a", b"first")
    assert not folder.create("a", b"second")
    assert folder.read("a") == b"first"
    assert folder.names() == ["a"]


def test_the_second_is_refused_with_the_owners_name(folder):
    with (
        claimed(folder) as claim,
        pytest.raises(ClaimError, match="is being written by") as refused,
        claimed(folder),
    ):
        pass
    me = f"{getpass.getuser()}@{socket.gethostname()}, process {os.getpid()}"
    assert f"{me} (" in str(refused.value)
    assert "for 0 s, last sign of life 0 s ago" in str(refused.value)
    claim.check()


@pytest.mark.parametrize("ending", [None, ValueError, KeyboardInterrupt, SystemExit])
def test_it_is_released_however_the_run_ends(folder, ending):
    with pytest.raises(ending) if ending else nullcontext(), claimed(folder):
        assert living_owner(folder).pid == os.getpid()
        if ending:
            raise ending
    assert living_owner(folder) is None
    with claimed(folder):
        assert claims(folder) == ["claim-000002.json"]


@pytest.mark.parametrize(
    ("seconds", "changes", "is_alive"),
    [
        pytest.param(100, {}, True, id="silent for less than it may be"),
        pytest.param(140, {}, False, id="silent for longer"),
        pytest.param(140, {"silent_minutes": 5.0}, True, id="may be silent for longer"),
        pytest.param(0, {"is_released": True}, False, id="has ended"),
        pytest.param(0, {"pid": 2**22 + 1}, True, id="no such process here, but not from here"),
        pytest.param(0, {"pid": 2**22 + 1, "processes": processes()}, False, id="died here"),
        pytest.param(
            140, {"pid": os.getpid(), "processes": processes()}, False, id="number reused"
        ),
    ],
)
@pytest.mark.filterwarnings("ignore:.*taking over")
def test_who_is_taken_for_dead(folder, seconds, changes, is_alive):
    if changes.get("processes") == "":
        pytest.skip("no /proc on this machine")
    placed(folder, 41, seconds=seconds, **changes)
    assert (living_owner(folder) is not None) == is_alive
    if is_alive:
        with pytest.raises(ClaimError, match=r"mia@krios, process \d+ \(tomoseg run -o there\)"):
            claimed(folder).__enter__()
        assert claims(folder) == ["claim-000041.json"]
    else:
        with claimed(folder):
            assert claims(folder) == ["claim-000042.json"]


def test_who_was_taken_over_stops_and_leaves_the_other_alone(folder):
    with pytest.raises(ClaimError, match="was taken over by mia@krios"), claimed(folder) as claim:
        placed(folder, 2)
        claim.check()  # not yet: nothing was looked at
        claim.renew()
        claim.check()
    assert living_owner(folder).host == "krios"


def test_signs_of_life_are_given_by_themselves(folder):
    with claimed(folder, silent_minutes=0.01) as claim:
        first = living_owner(folder).seen
        for _ in range(200):
            if living_owner(folder).seen > first:
                break
            module.threading.Event().wait(0.05)
        assert living_owner(folder).seen > first
        placed(folder, 2)
        with pytest.raises(ClaimError, match="taken over"):
            for _ in range(200):
                module.threading.Event().wait(0.05)
                claim.check()


def test_after_a_long_sleep_it_looks_before_it_goes_on(folder):
    with pytest.raises(ClaimError, match="taken over"), claimed(folder) as claim:
        placed(folder, 2)
        slept = (datetime.now(UTC) - timedelta(minutes=3)).isoformat()
        claim._owner = replace(claim._owner, seen=slept)
        claim.check()


def test_a_store_that_does_not_answer_stops_nobody(folder, monkeypatch, caplog):
    def gone(*_):
        raise OSError(5, "Input/output error")

    with claimed(folder) as claim:
        monkeypatch.setattr(Folder, "write", gone)
        claim.renew()
        claim.check()
        assert "no sign of life could be written" in caplog.text
    # What cannot be written at the end is removed.
    assert claims(folder) == []


def test_of_two_that_take_over_at_once_one_holds(folder, monkeypatch):
    """The slower saw the dead claim too, and comes when the faster has begun, or has ended."""
    placed(folder, 3, seconds=999)
    highest = module._highest
    dead = highest(folder)
    with claimed(folder):
        seen = iter([dead])
        monkeypatch.setattr(module, "_highest", lambda f: next(seen, None) or highest(f))
        with pytest.raises(ClaimError, match=f"process {os.getpid()}"):
            claimed(folder).__enter__()
        assert claims(folder) == ["claim-000004.json"]
    with claimed(folder):
        seen = iter([dead])
        with pytest.raises(ClaimError):
            claimed(folder).__enter__()
        assert living_owner(folder).pid == os.getpid()


def test_what_the_dead_left_half_written_goes_with_them(tmp_path):
    folder = Folder(str(tmp_path))
    parts = [".session.json.0123abcd", "a/.tomoseg/x/.0-1-1.npz.788fe99a"]
    parts.append(f"a/tomogram.zarr/0/c/0/0/0.{'5' * 32}.partial")
    whole = ["a/.zattrs", "a/.0123abcd", "a/b.partial"]
    for name in (*parts, *whole):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"x")
    placed(folder, seconds=140)
    with claimed(folder):
        assert [name for name in (*parts, *whole) if (tmp_path / name).exists()] == whole


def test_a_claim_cut_in_the_middle_is_passed_over(folder):
    folder.write(".tomoseg/claim-000005.json", b'{"user": "mi')
    folder.write(".tomoseg/claim-notes.txt", b"")
    assert living_owner(folder) is None
    with claimed(folder):
        assert "claim-000006.json" in claims(folder)
        assert "claim-000005.json" not in claims(folder)


def test_of_many_processes_one_begins(tmp_path):
    code = (
        "import sys\n"
        "from tomoseg.core.errors import ClaimError\n"
        "from tomoseg.io.stores import Folder, claimed\n"
        "sys.stdin.readline()\n"
        "try:\n"
        "    with claimed(Folder(sys.argv[1])):\n"
        "        print('holds', flush=True)\n"
        "        sys.stdin.readline()\n"
        "except ClaimError:\n"
        "    print('refused', flush=True)\n"
    )
    runs = [
        subprocess.Popen(
            [sys.executable, "-c", code, str(tmp_path)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(4)
    ]
    for run in runs:
        run.stdin.write("go\n")
        run.stdin.flush()
    said = sorted(run.stdout.readline().strip() for run in runs)
    for run in runs:
        run.communicate("end\n")
    assert said == ["holds", "refused", "refused", "refused"]
