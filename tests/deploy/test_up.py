"""The foreground stack on real processes: it starts, is closed to others, heals, and is gone."""

import base64
import importlib.util
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from pathlib import Path

import psutil
import pytest

from tomoseg.compute.clusters import runner_at
from tomoseg.compute.settings import ComputeSection

ROOT = Path(__file__).parents[2]
UP = ROOT / "deploy" / "workstation" / "up.py"
CREDENTIALS = ROOT / "deploy" / "credentials.sh"
PARTS = {"prefect", "scheduler", "worker-0", "worker-1", "watch"}
STAND_IN = """
import os, time, urllib.request
print("watch of", os.environ["PREFECT_API_URL"], os.environ["TOMOSEG_SCHEDULER"], flush=True)
time.sleep(1000)
"""

pytestmark = [
    pytest.mark.skipif(shutil.which("openssl") is None, reason="there is no openssl"),
    pytest.mark.filterwarnings(
        "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
    ),
]


class Echo:
    """Says in which process an item was."""

    def name(self, item):
        return f"item-{item}"

    def __call__(self, item):
        return {"item": item, "pid": os.getpid()}


class Stack:
    """A running ``up.py``."""

    def __init__(self, folder, offset, process):
        self.folder, self.offset, self.process = folder, offset, process

    def parts(self):
        try:
            return json.loads((self.folder / "stack.json").read_text())["parts"]
        except OSError:
            return {}

    def until(self, condition, seconds=240.0):
        """Wait until a condition on the parts holds; what they say stands in the error."""
        deadline = time.monotonic() + seconds
        while not condition(self.parts()):
            assert self.process.poll() is None, "up.py ended"
            assert time.monotonic() < deadline, self.said()
            time.sleep(0.1)

    def said(self):
        logs = sorted((self.folder / "logs").glob("*.log"))
        return "\n".join(f"--- {log}\n{log.read_text()[-2000:]}" for log in logs)

    def works(self, *names):
        self.until(lambda parts: all(parts.get(name, {}).get("works") for name in names))

    def environment(self):
        text = (self.folder / "service.env").read_text()
        return dict(line.split("=", 1) for line in text.splitlines())

    def ask(self, path, *, password=None, data=None, **headers):
        """Status and headers of an answer of Prefect's."""
        url = f"http://127.0.0.1:{self.offset + 4200}/api{path}"
        if password is not None:
            login = base64.b64encode(f"tomoseg:{password}".encode()).decode()
            headers["Authorization"] = f"Basic {login}"
        request = urllib.request.Request(url, data=data, headers=headers)
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return answer.status, answer.headers
        except urllib.error.HTTPError as refused:
            return refused.code, refused.headers

    def workers(self):
        """How many workers the scheduler knows."""
        url = f"http://127.0.0.1:{self.offset + 8787}/json/counts.json"
        try:
            with urllib.request.urlopen(url, timeout=10) as answer:
                return json.load(answer)["workers"]
        except OSError:
            return 0


def free_offset():
    """An offset at which no port is taken."""
    wanted = (4200, 8786, 8787, 8800, 8801, 9108)
    for offset in range(11000 + os.getpid() % 997, 50000, 997):
        try:
            for port in wanted:
                socket.create_server(("127.0.0.1", port + offset)).close()
            return offset
        except OSError:
            continue
    raise AssertionError("no ports are free")


@pytest.fixture(scope="module")
def stack(tmp_path_factory):
    """The whole stack with two workers and a watch over a folder without sessions."""
    folder = tmp_path_factory.mktemp("stack")
    (folder / "sessions").mkdir()
    watch = folder / "watch.yaml"
    watch.write_text("sessions: sessions/*\noutput: results/{session}\n")
    path = [str(ROOT)]
    if importlib.util.find_spec("flows.watch") is None:
        (folder / "flows").mkdir()
        (folder / "flows/__init__.py").touch()
        (folder / "flows/watch.py").write_text(STAND_IN)
        path.insert(0, str(folder))
    offset = free_offset()
    options = ["--folder", folder / "state", "--workers", 2, "--memory-gib", 1]
    process = subprocess.Popen(
        [sys.executable, UP, watch, *map(str, options), "--port-offset", str(offset)],
        env=os.environ | {"PYTHONPATH": os.pathsep.join(path)},
        cwd=folder,
    )
    yield Stack(folder / "state", offset, process)
    process.terminate()
    process.wait(timeout=60)


def test_workers_take_work_from_who_shows_a_certificate(stack):
    stack.works("scheduler", "worker-0", "worker-1")
    credentials = stack.folder / "credentials"
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client-key.pem"}
    compute = ComputeSection(
        address=stack.environment()["TOMOSEG_SCHEDULER"],
        tls={name: str(credentials / file) for name, file in files.items()},
    )
    assert compute.address == f"tls://127.0.0.1:{stack.offset + 8786}"
    with runner_at(compute.address, compute) as runner:
        receipts = list(runner.map(Echo(), range(8)))
    assert sorted(receipt["item"] for receipt in receipts) == list(range(8))
    mine = psutil.Process(stack.process.pid).children(recursive=True)
    assert {receipt["pid"] for receipt in receipts} <= {process.pid for process in mine}


def test_killed_parts_come_back(stack):
    stack.works("scheduler", "worker-0", "worker-1")
    killed = {name: stack.parts()[name] for name in ("scheduler", "worker-0")}
    for part in killed.values():
        os.kill(part["pid"], signal.SIGKILL)
    stack.until(lambda parts: all(parts[one]["starts"] > killed[one]["starts"] for one in killed))
    stack.works("scheduler", "worker-0", "worker-1")
    stack.until(lambda _: stack.workers() == 2)
    assert all(stack.parts()[name]["pid"] != killed[name]["pid"] for name in killed)


def test_everything_listens_on_loopback_alone(stack):
    stack.works(*PARTS)
    assert set(stack.parts()) == PARTS
    processes = psutil.Process(stack.process.pid).children(recursive=True)
    listening = [
        one.laddr
        for process in processes
        for one in process.net_connections("inet")
        if one.status == psutil.CONN_LISTEN
    ]
    assert {at.port - stack.offset for at in listening} >= {4200, 8786, 8787, 8800, 8801}
    assert {at.ip for at in listening} == {"127.0.0.1"}


def test_prefect_lets_in_who_has_the_password(stack):
    stack.works("prefect")
    password = (stack.folder / "credentials/prefect-password").read_text()
    assert stack.ask("/health")[0] == 200
    assert stack.ask("/admin/version")[0] == 401
    assert stack.ask("/admin/version", password="guessed")[0] == 401
    assert stack.ask("/admin/version", password=password)[0] == 200


def test_no_web_page_drives_prefect(stack):
    stack.works("prefect")
    password = (stack.folder / "credentials/prefect-password").read_text()
    allowed = "Access-Control-Allow-Origin"
    _, own = stack.ask("/health", Origin=f"http://127.0.0.1:{stack.offset + 4200}")
    _, other = stack.ask("/health", Origin="http://evil.example.org")
    assert own[allowed] == f"http://127.0.0.1:{stack.offset + 4200}"
    assert allowed not in other
    # Somebody else's form could make the browser send the login along, but has no token.
    json_body = {"Content-Type": "application/json"}
    assert stack.ask("/flows/", password=password, data=b'{"name": "x"}', **json_body)[0] == 403


def test_secrets_are_shown_to_their_owner_alone(stack):
    stack.works(*PARTS)
    password = (stack.folder / "credentials/prefect-password").read_text()
    assert stack.folder.stat().st_mode & 0o777 == 0o700
    texts = [stack.folder / "stack.json", *(stack.folder / "logs").iterdir()]
    assert not any(password in path.read_text() for path in texts)
    assert (stack.folder / "service.env").stat().st_mode & 0o777 == 0o600
    processes = psutil.Process(stack.process.pid).children(recursive=True)
    assert not any(password in " ".join(process.cmdline()) for process in processes)


def test_a_new_login_counts_as_the_documents_say(stack):
    stack.works(*PARTS)
    before = stack.parts()
    credentials = stack.folder / "credentials"
    password = credentials / "prefect-password"
    old = password.read_text()
    password.unlink()
    subprocess.run(["bash", CREDENTIALS, credentials], check=True, capture_output=True)
    again = ("prefect", "watch")
    stack.until(lambda parts: all(parts[one]["starts"] > before[one]["starts"] for one in again))
    stack.works(*PARTS)
    assert stack.ask("/admin/version", password=old)[0] == 401
    assert stack.ask("/admin/version", password=password.read_text())[0] == 200
    told = stack.environment()["PREFECT_API_AUTH_STRING"]
    assert told == f"tomoseg:{password.read_text()}"
    others = PARTS - set(again)
    assert all(stack.parts()[one]["pid"] == before[one]["pid"] for one in others)


def test_every_line_of_every_log_is_one_json_object(stack):
    stack.works(*PARTS)
    logs = sorted((stack.folder / "logs").glob("*.log"))
    assert len(logs) == len(PARTS)
    rows = [json.loads(line) for log in logs for line in log.read_text().splitlines()]
    assert all(isinstance(row, dict) and row["message"] for row in rows)
    # Prefect's server greets, and its greeting is a message.
    assert any("prefect config set" in row["message"] for row in rows)


def test_ctrl_c_stops_everything(stack):
    stack.works(*PARTS)
    processes = psutil.Process(stack.process.pid).children(recursive=True)
    stack.process.send_signal(signal.SIGINT)
    assert stack.process.wait(timeout=60) == 0
    assert not [process for process in processes if process.is_running()]
    for part in stack.parts().values():
        assert part["pid"] is None
        for port in part["ports"]:
            with pytest.raises(ConnectionRefusedError):
                socket.create_connection(("127.0.0.1", port), timeout=5)
