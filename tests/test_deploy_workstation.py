"""The service on one machine: its units, its installation, and the supervisor of ``up.py``."""

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

import psutil
import pytest

WORKSTATION = Path(__file__).parents[1] / "deploy" / "workstation"
sys.path.insert(0, str(WORKSTATION))

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
from pathlib import Path
from parts import Part
import up

async def main(folder):
    (folder / "logs").mkdir()
    stop = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGINT, stop.set)
    up.adopt_orphans()
    up.LIVES_SECONDS = 0.1
    shell = lambda name, script, **more: Part(name, ("bash", "-c", script), **more)
    detached = "setsid sleep 1000 & echo $! >>children; "
    wanted = [
        shell("steady", "trap '' TERM; " + detached + "while true; do sleep 0.1; done"),
        shell("mortal", detached + "sleep 0.3; exit 3", after=("steady",)),
    ]
    up.STOP_SECONDS = 0.5
    await up.Supervisor(folder, wanted, dict(os.environ)).run(stop)

os.chdir(sys.argv[1])
asyncio.run(main(Path(sys.argv[1])))
"""


@pytest.fixture
def supervised(tmp_path):
    """Supervisor of a part that ignores SIGTERM and one that dies; both leave children behind."""
    process = subprocess.Popen(
        [sys.executable, "-c", SUPERVISED, tmp_path],
        env=os.environ | {"PYTHONPATH": f"{WORKSTATION}:{WORKSTATION.parents[1]}"},
        stdout=subprocess.PIPE,
        text=True,
    )
    yield process
    left = psutil.Process(process.pid).children(recursive=True) if process.poll() is None else []
    for one in (*left, process):
        one.kill()
    process.communicate()


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


def test_ctrl_c_leaves_no_process(supervised, tmp_path):
    until(lambda: started_twice(tmp_path))
    steady = stack_json(tmp_path)["steady"]["pid"]
    supervised.send_signal(signal.SIGINT)
    said, _ = supervised.communicate(timeout=20)
    assert supervised.returncode == 0
    assert "mortal ended (exit code 3), again in 1 s: see" in said
    assert not any(map(lives, [steady, *children(tmp_path)]))


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
