"""Which processes have ended for certain, seen from beside, from a reboot and from elsewhere."""

import os
import subprocess
import sys
from dataclasses import replace

import pytest

from tomoseg.io.stores import Life
from tomoseg.io.stores import lives as module

HERE = "boot-1 pid:[4026531836] machine-1"
NOBODY = 2**22 + 1


@pytest.mark.parametrize(
    ("host", "pid", "processes", "is_gone"),
    [
        pytest.param("krios", os.getpid(), HERE, False, id="it runs"),
        pytest.param("krios", NOBODY, HERE, True, id="it has ended"),
        pytest.param("krios", NOBODY, "boot-1 pid:[4026531836]", True, id="an older version's"),
        pytest.param("krios", 1, "boot-0 pid:[4026531836] machine-1", True, id="rebooted since"),
        pytest.param("krios", NOBODY, "boot-1 pid:[4026532000] machine-1", False, id="container"),
        pytest.param("arctica", 1, "boot-0 pid:[4026531836] machine-1", False, id="a copy"),
        pytest.param("krios", 1, "boot-0 pid:[4026531836] machine-2", False, id="one name, two"),
        pytest.param("krios", 1, "boot-0 pid:[4026531836]", False, id="machine not known"),
        pytest.param("krios", NOBODY, "", False, id="nothing is known"),
    ],
)
def test_what_has_ended_for_certain(monkeypatch, host, pid, processes, is_gone):
    monkeypatch.setattr(module, "processes", lambda: HERE)
    monkeypatch.setattr(module.socket, "gethostname", lambda: "krios")
    assert Life(host, pid, processes).is_gone == is_gone


def test_where_machines_have_no_name_another_boot_says_nothing(monkeypatch):
    monkeypatch.setattr(module, "processes", lambda: "boot-1 pid:[1]")
    here = Life.here()
    assert not replace(here, processes="boot-0 pid:[1]").is_gone


def test_a_process_that_ended_and_was_not_waited_for_is_gone():
    with subprocess.Popen([sys.executable, "-c", ""], stdout=subprocess.PIPE) as ended:
        ended.stdout.read()
        os.waitid(os.P_PID, ended.pid, os.WEXITED | os.WNOWAIT)
        assert Life.here(ended.pid).is_gone
    assert not Life.here().is_gone


@pytest.mark.parametrize("text", [None, "", "a flow run", "host:x:y", "host:", ":::"])
def test_what_is_no_process_is_none(text):
    assert Life.read(text) is None


def test_it_is_read_as_it_was_written():
    assert Life.read(str(Life.here())) == Life.here()
