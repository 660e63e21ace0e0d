"""The service on one machine: its units, its installation, and the supervisor of ``up.py``."""

import contextlib
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from threading import Thread

import psutil
import pytest

WORKSTATION = Path(__file__).parents[2] / "deploy" / "workstation"
sys.path.insert(0, str(WORKSTATION))

import lines  # noqa: E402
import parts  # noqa: E402

UNITS = WORKSTATION / "systemd"
PYTHON = "/opt/tomoseg/bin/python"


def run(command, **options):
    return subprocess.run(command, capture_output=True, text=True, check=False, **options)


def until(condition, seconds=20.0):
    """Wait until a condition holds and return what it returned."""
    deadline = time.monotonic() + seconds
    while not (found := condition()):
        assert time.monotonic() < deadline, "it did not happen in time"
        time.sleep(0.05)
    return found


def lives(pid):
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def unit_of(part, *, gpus):
    if part.name.startswith("worker-"):
        return "tomoseg-gpu-worker@.service" if gpus else "tomoseg-worker@.service"
    return f"tomoseg-{part.name}.service"


def settings_of(unit, name):
    text = re.sub(r"\\\n\s*", "", (UNITS / unit).read_text())
    return re.findall(rf"^{name}=(.*)$", text, re.MULTILINE)


@pytest.mark.parametrize("gpu_threads", [0, 3])
def test_units_start_what_up_starts(gpu_threads):
    stack = parts.Stack(
        Path("/var/lib/tomoseg"),
        watch=Path("/etc/tomoseg/watch.yaml"),
        workers=2,
        gpu_threads=gpu_threads,
        has_prometheus=True,
    )
    for part in parts.parts(stack):
        unit = unit_of(part, gpus=gpu_threads)
        [command] = settings_of(unit, "ExecStart")
        number = part.name.rpartition("-")[2]
        started = shlex.split(command.replace("%i", number).replace("/usr/bin/", ""))
        mine = [PYTHON if word == sys.executable else word for word in part.command]
        installed = "/etc/tomoseg/monitoring/prometheus.yml"
        copied = "/var/lib/tomoseg/monitoring/prometheus.yml"
        mine = [word.replace(copied, installed) for word in mine]
        assert started == mine
        told = dict(line.split("=", 1) for line in settings_of(unit, "Environment"))
        told.pop("PREFECT_HOME", None)
        assert told == dict(part.environment)


def test_the_watch_alone_is_told_to_end_and_has_the_time_to():
    stack = parts.Stack(Path("/var/lib/tomoseg"), watch=Path("/etc/tomoseg/watch.yaml"))
    *before, watch = parts.parts(stack)
    every = "tomoseg-.service.d/every.conf"
    assert settings_of(every, "TimeoutStopSec") == [f"{watch.stop_seconds:g}"]
    assert settings_of(every, "KillMode") == ["mixed"]
    # What it needs to end its runs is stopped after it: here by the order, there by the units.
    assert watch.name == "watch"
    after = settings_of("tomoseg-watch.service", "After")[0].split()
    assert after == [f"tomoseg-{part.name}.service" for part in before if "worker" not in part.name]
    for unit in ("tomoseg-worker@.service", "tomoseg-gpu-worker@.service"):
        assert settings_of(unit, "Before") == ["tomoseg-watch.service"]


def test_every_unit_belongs_to_the_target():
    for unit in UNITS.glob("*.service"):
        assert settings_of(unit.name, "WantedBy") == ["tomoseg.target"]


@pytest.fixture
def staged(tmp_path):
    """Folder of the installed units; their Python is one that is here."""
    install = [WORKSTATION / "install.sh", "--root", tmp_path, "--gpus", "2", "--postgresql"]
    subprocess.run(["bash", *install], check=True, capture_output=True)
    units = tmp_path / "etc/systemd/system"
    for unit in units.glob("*.service"):
        text = unit.read_text().replace(PYTHON, sys.executable)
        unit.write_text(text.replace("/usr/bin/prometheus", sys.executable))
    return units


def verified(units, *names):
    """What ``systemd-analyze verify`` complains of."""
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    command = ["systemd-analyze", "verify", "--man=no", *(f"./{name}" for name in names)]
    environment = os.environ | {"SYSTEMD_UNIT_PATH": f"{units}:"}
    done = run(command, cwd=units, env=environment)
    return "".join(line for line in done.stderr.splitlines(True) if "tomoseg" in line)


def test_systemd_understands_the_units(staged):
    names = [unit.name.replace("@.", "@0.") for unit in staged.glob("*.service")]
    assert len(names) == 6
    assert verified(staged, "tomoseg.target", *names) == ""


def test_systemd_would_tell_of_a_mistake(staged):
    for_all = staged / "tomoseg-.service.d/every.conf"
    for_all.write_text(for_all.read_text().replace("NoNewPrivileges", "NoNewPrivilege"))
    assert "Unknown key 'NoNewPrivilege'" in verified(staged, "tomoseg-watch.service")


@pytest.mark.parametrize("unit", ["tomoseg-prefect", "tomoseg-watch", "tomoseg-gpu-worker@0"])
def test_units_are_confined(staged, unit):
    if shutil.which("systemd-analyze") is None:
        pytest.skip("there is no systemd-analyze")
    command = ["systemd-analyze", "security", "--offline=true", "--threshold=25"]
    command += [f"--root={staged.parents[2]}", f"{unit}.service"]
    assert run(command).returncode == 0
    # Without the common part systemd judges it unsafe.
    shutil.rmtree(staged / "tomoseg-.service.d")
    assert run(command).returncode != 0


def test_an_installation_shows_secrets_to_their_owner_alone(staged):
    etc = staged.parents[1] / "tomoseg"
    password = (etc / "credentials/prefect-password").read_text()
    assert len(password) == 48
    for path in etc.rglob("*"):
        if path.is_file() and password in path.read_text():
            assert path.stat().st_mode & 0o777 == 0o600, path
    tls = (etc / "credentials/tls.env").read_text()
    assert "CA_FILE=/etc/tomoseg/credentials/ca.pem" in tls


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--workers", "11"], "the units give ports to 1 to 10"), (["--cpus", "2"], "install.sh [")],
)
def test_a_wrong_installation_is_refused(tmp_path, arguments, said):
    command = ["bash", WORKSTATION / "install.sh", "--root", tmp_path, *arguments]
    refused = run(command)
    assert refused.returncode == 2
    assert said in refused.stderr
    assert not list(tmp_path.iterdir())


SUPERVISED = """
import asyncio, os, signal, sys
from functools import partial
from pathlib import Path
from parts import Part, variables
import up

def shell(name, script, **more):
    return Part(name, ("bash", "-c", script), **more)

def of_children():
    detached = "setsid sleep 1000 & echo $! >>children; "
    stubborn = "trap '' TERM; " + detached + "while true; do sleep 0.1; done"
    yield shell("steady", stubborn, stop_seconds=0.5)
    yield shell("mortal", detached + "sleep 0.3; exit 3", after=("steady",))

def of_credentials():
    script = "trap 'echo $0 ends >>order; exit' TERM; echo $0 has $LOGIN >>order; "
    script += "while true; do sleep 0.05; done"
    for name, files, after in (
        ("server", ["login.env"], ()), ("other", [], ()), ("watch", ["login.env"], ("server",)),
    ):
        command = ("bash", "-c", script, name)
        yield Part(name, command, credentials=tuple(files), after=after)

def environment(folder):
    path = folder / "credentials" / "login.env"
    return os.environ | (variables(path.read_text()) if path.exists() else {})

async def main(folder, wanted):
    (folder / "logs").mkdir()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    up.adopt_orphans()
    up.LIVES_SECONDS, up.RENEW_SECONDS = 0.5, 0.1
    await up.Supervisor(folder, wanted, partial(environment, folder)).run(stop)

os.chdir(sys.argv[1])
asyncio.run(main(Path(sys.argv[1]), list(globals()[sys.argv[2]]())))
"""


@contextlib.contextmanager
def supervising(folder, kind):
    """Supervisor of stand-in parts of a kind, in a process of its own."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, folder, kind],
        env=os.environ | {"PYTHONPATH": f"{WORKSTATION}:{WORKSTATION.parents[1]}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        yield process
    finally:
        is_over = process.poll() is not None
        left = [] if is_over else psutil.Process(process.pid).children(recursive=True)
        for one in (*left, process):
            one.kill()
        process.communicate()


@pytest.fixture
def supervised(tmp_path):
    """Supervisor of a part that ignores SIGTERM and one that dies; both leave children behind."""
    with supervising(tmp_path, "of_children") as process:
        yield process


def children(folder):
    """Processes that the parts detached from themselves."""
    return [int(pid) for pid in (folder / "children").read_text().split()]


def stack_json(folder):
    return json.loads((folder / "stack.json").read_text())["parts"]


def started_twice(folder):
    try:
        return stack_json(folder)["mortal"]["starts"] >= 2
    except OSError:
        return False


def test_a_part_that_dies_is_started_again_without_its_children(supervised, tmp_path):
    until(lambda: started_twice(tmp_path))
    of_steady, first, *_ = until(lambda: len(children(tmp_path)) >= 3 and children(tmp_path))
    assert not lives(first)
    assert lives(of_steady)
    assert stack_json(tmp_path)["steady"]["starts"] == 1


ORPHANED = """
import os, subprocess, threading
import up

up.adopt_orphans()
kept = subprocess.Popen(["sleep", "100"])
for _ in range(10):
    thread = threading.Thread(target=os.system, args=("sleep 100 & sleep 100 &",))
    thread.start()
    thread.join()
    up.end_orphans({kept.pid})
assert kept.poll() is None
up.end_orphans(set())
try:
    os.waitpid(-1, os.WNOHANG)
except ChildProcessError:
    print("none is left")
"""


def test_orphans_of_threads_that_have_ended_are_ended_and_no_others():
    """A thread that ended while its children were read once ended the supervisor."""
    done = subprocess.run(
        [sys.executable, "-c", ORPHANED],
        env=os.environ | {"PYTHONPATH": f"{WORKSTATION}:{WORKSTATION.parents[1]}"},
        capture_output=True, text=True, check=False, timeout=100,
    )  # fmt: skip
    assert done.stderr == ""
    assert done.stdout == "none is left\n"


def test_ctrl_c_leaves_no_process(supervised, tmp_path):
    until(lambda: started_twice(tmp_path))
    steady = stack_json(tmp_path)["steady"]["pid"]
    supervised.send_signal(signal.SIGINT)
    said, _ = supervised.communicate(timeout=20)
    assert supervised.returncode == 0
    assert "mortal ended (exit code 3), again in 1 s: see" in said
    assert not any(map(lives, [steady, *children(tmp_path)]))


def test_new_credentials_end_their_parts_the_last_first_and_start_them_again(tmp_path):
    login = tmp_path / "credentials" / "login.env"
    login.parent.mkdir()
    login.write_text("LOGIN=old\n")
    order = tmp_path / "order"

    def lines():
        return order.read_text().splitlines() if order.exists() else []

    with supervising(tmp_path, "of_credentials") as process:
        first = until(lambda: len(lines()) == 3 and lines())
        assert set(first) == {"server has old", "other has old", "watch has old"}
        login.unlink()
        time.sleep(0.5)
        # Nothing is stopped for credentials that are not whole.
        login.touch()
        time.sleep(0.5)
        assert lines() == first
        login.write_text("LOGIN=new\n")
        until(lambda: len(lines()) == 7)
        assert lines()[3:] == ["watch ends", "server ends", "server has new", "watch has new"]
        until(lambda: stack_json(tmp_path)["watch"]["works"])
        starts = {name: part["starts"] for name, part in stack_json(tmp_path).items()}
        assert starts == {"server": 2, "other": 1, "watch": 2}
        process.send_signal(signal.SIGINT)
        said, _ = process.communicate(timeout=20)
    assert process.returncode == 0
    assert said.count("credentials changed (login.env): starting server, watch again") == 1
    assert said.count("credentials changed") == 1
    assert said.count("credentials are missing: run credentials.sh") == 1


@pytest.mark.skipif(shutil.which("setpriv") is None, reason="there is no setpriv")
def test_parts_end_when_their_supervisor_is_killed(supervised, tmp_path):
    until(lambda: started_twice(tmp_path))
    mortal = until(lambda: stack_json(tmp_path)["mortal"]["pid"])
    steady = stack_json(tmp_path)["steady"]["pid"]
    try:
        supervised.kill()
        until(lambda: not lives(mortal))
    finally:
        # It ignores SIGTERM, and who would use SIGKILL is dead.
        for pid in filter(lives, (steady, *children(tmp_path))):
            os.kill(pid, signal.SIGKILL)


def up(*arguments):
    command = [sys.executable, WORKSTATION / "up.py", *map(str, arguments)]
    environment = os.environ | {"PYTHONPATH": str(WORKSTATION.parents[1])}
    return run(command, env=environment)


def test_what_hinders_a_start_is_told(tmp_path):
    import socket

    refused = up(tmp_path / "watch.yaml", "--folder", tmp_path / "state")
    assert refused.returncode == 2
    assert refused.stderr == f"error: there is no file {tmp_path / 'watch.yaml'}\n"
    with socket.create_server(("127.0.0.1", 0)) as other:
        offset = other.getsockname()[1] - parts.PREFECT
        refused = up("--folder", tmp_path / "state", "--port-offset", offset)
    assert refused.returncode == 2
    assert f"ports are taken: {offset + 4200} of prefect" in refused.stderr


def copied(tmp_path, *pieces):
    """What a log holds after a part wrote these pieces, one write each."""
    log = tmp_path / "part.log"
    source, end = os.pipe()
    thread = Thread(target=lines.copy_lines, args=(source, log, "part"))
    thread.start()
    for piece in pieces:
        os.write(end, piece)
        time.sleep(0.02)
    os.close(end)
    thread.join(20)
    assert log.read_bytes().endswith(b"\n")
    return [json.loads(line) for line in log.read_text().splitlines()]


def test_each_line_of_a_log_is_an_object_whatever_a_part_says(tmp_path):
    ours = {"message": "done", "tomogram": "TS_1"}
    line = json.dumps(ours).encode()
    banner = b"\n ___ \n| _ \\ \x1b[1m\n\n"
    trace = b"Traceback (most recent call last):\n", b"  File x\n", b"ValueError: \xff\n"
    rows = copied(tmp_path, banner, line[:9], line[9:] + b"\n", *trace, b"[1]\n" + line + b"\n{")
    assert [row["message"] for row in rows] == [
        " ___ \n| _ \\ \x1b[1m",
        "done",
        "Traceback (most recent call last):\n  File x\nValueError: \\xff\n[1]",
        "done",
        "{",
    ]
    assert rows[1] == ours
    assert {row["logger"] for row in rows[::2]} == {"output.part"}


def test_a_line_without_an_end_takes_bounded_memory(tmp_path, monkeypatch):
    monkeypatch.setattr(lines, "LONGEST_BYTES", 1000)
    rows = copied(tmp_path, *[b"x" * 600] * 5)
    assert sum(len(row["message"]) for row in rows) == 3000
    assert max(len(row["message"]) for row in rows) <= 1800
