"""Servers that tests and benchmarks start: object storage and PostgreSQL, on loopback alone.

Each keeps its state below one folder and is gone, processes and all, when its block ends. A server
that is not installed raises ``Missing`` with the Debian packages or the module that brings it.
"""

from __future__ import annotations

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import pytest

KEY, SECRET = "TOMOTEST", "tomotestsecret"
CEPH = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph-authtool", "monmaptool")
POSTGRES = "/usr/lib/postgresql/*/bin"
START_SECONDS = 60
CLIENTS: list[dict[str, object]] = []


def hear_interrupts() -> None:
    """Let this process and those that it starts hear Ctrl-C.

    A shell that starts a command in the background, and nohup, have it and all its children ignore
    it; a test that stops what it started by SIGINT would wait for ever.
    """
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


class Missing(Exception):
    """A server is not installed here."""


@dataclass(frozen=True)
class ObjectStore:
    """A running S3 server.

    Parameters
    ----------
    kind
        The program that serves.
    environment
        What a client finds the server and its credentials by.
    halt, resume
        End its service, so that clients find nobody or no answer, and begin it again.
    """

    kind: str
    environment: Mapping[str, str]
    halt: Callable[[], None]
    resume: Callable[[], None]


@contextlib.contextmanager
def object_store(folder: Path) -> Iterator[ObjectStore]:
    """Start Ceph's gateway where it is installed, else moto; raise Missing if neither is."""
    has_ceph = all(shutil.which(name) for name in CEPH) and os.getuid() == 0
    with (ceph if has_ceph else moto)(folder) as store:
        yield store


@contextlib.contextmanager
def moto(folder: Path) -> Iterator[ObjectStore]:
    """Start moto's server; halted, it holds connections and answers nothing."""
    port = free_port()
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    folder.mkdir(parents=True, exist_ok=True)
    with running(command, folder / "moto.log") as process:
        wait_for_http(f"http://127.0.0.1:{port}/moto-api/", folder / "moto.log")
        yield ObjectStore(
            kind="moto",
            environment=client_environment(f"http://127.0.0.1:{port}"),
            halt=lambda: process.send_signal(signal.SIGSTOP),
            resume=lambda: process.send_signal(signal.SIGCONT),
        )


@contextlib.contextmanager
def ceph(folder: Path) -> Iterator[ObjectStore]:
    """Start a monitor, one OSD on a sparse file and the gateway; halted, connections are refused.

    Ceph's programs stay in the foreground (``-f``), so that they end with this block.
    """
    if not all(shutil.which(name) for name in CEPH):
        raise Missing("Ceph: apt-get install --no-install-recommends ceph-mon ceph-osd radosgw")
    port, monitor_port = free_port(), free_port()
    settings = _ceph_settings(folder, port, monitor_port)
    environment = {**os.environ, "CEPH_CONF": str(settings)}

    def do(*words: str) -> None:
        subprocess.run(words, env=environment, check=True, capture_output=True, timeout=120)

    def start(*words: str) -> contextlib.AbstractContextManager[subprocess.Popen[bytes]]:
        return running([*words, "-f"], folder / f"{words[0]}.log", environment)

    keyring, monmap = str(folder / "keyring"), str(folder / "monmap")
    caps = ("--cap", "mon", "allow *", "--cap", "osd", "allow *")
    address = f"[v2:127.0.0.1:{monitor_port}]"
    do("monmaptool", "--create", "--fsid", _fsid(settings), "--addv", "a", address, monmap)
    do("ceph-authtool", keyring, "--create-keyring", "--gen-key", "-n", "mon.", *caps[:3])
    for name in ("client.admin", "client.gateway", "osd.0"):
        do("ceph-authtool", keyring, "--gen-key", "-n", name, *caps)
    do("ceph-mon", "-i", "a", "--mkfs", "--keyring", keyring, "--monmap", monmap)
    gateway = ["radosgw", "-n", "client.gateway", "--no-mon-config"]
    with contextlib.ExitStack() as stack:
        stack.enter_context(start("ceph-mon", "-i", "a"))
        disk = str(uuid.uuid4())
        do("ceph", "osd", "new", disk)
        do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", disk)
        do("ceph", "osd", "crush", "add", "osd.0", "1.0", "root=default", "host=here")
        stack.enter_context(start("ceph-osd", "-i", "0"))
        serving = stack.enter_context(contextlib.ExitStack())

        def resume() -> None:
            serving.enter_context(start(*gateway))
            wait_for_http(f"http://127.0.0.1:{port}/", folder / "radosgw.log")

        resume()
        user = ("--uid", "test", "--display-name", "test", "--access-key", KEY)
        do("radosgw-admin", "user", "create", *user, "--secret-key", SECRET)
        yield ObjectStore(
            "Ceph", client_environment(f"http://127.0.0.1:{port}"), serving.close, resume
        )


def _ceph_settings(folder: Path, port: int, monitor_port: int) -> Path:
    for name in ("mon", "osd", "gateway", "run"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    text = f"""
        [global]
        fsid = {uuid.uuid4()}
        mon host = v2:127.0.0.1:{monitor_port}
        keyring = {folder}/keyring
        public addr = 127.0.0.1
        public network = 127.0.0.0/8
        cluster network = 127.0.0.0/8
        ms bind msgr1 = false
        run dir = {folder}/run
        admin socket = {folder}/run/$name.sock
        pid file = {folder}/run/$name.pid
        log file = {folder}/$name.log
        osd pool default size = 1
        osd pool default min size = 1
        osd pool default pg num = 4
        osd pool default pg autoscale mode = off
        osd crush chooseleaf type = 0
        osd memory target = 939524096
        osd objectstore = bluestore
        bluestore block create = true
        bluestore block size = 4294967296
        mon allow pool size one = true
        mon max pg per osd = 1000
        mon data avail warn = 2
        mon data avail crit = 1
        [mon.a]
        mon data = {folder}/mon
        [osd.0]
        osd data = {folder}/osd
        [client.gateway]
        rgw data = {folder}/gateway
        rgw frontends = beast endpoint=127.0.0.1:{port}
        rgw dynamic resharding = false
    """
    settings = folder / "ceph.conf"
    settings.write_text("\n".join(line.strip() for line in text.splitlines()))
    return settings


def _fsid(settings: Path) -> str:
    (line,) = (line for line in settings.read_text().splitlines() if line.startswith("fsid"))
    return line.rpartition(" ")[2]


@contextlib.contextmanager
def served_by(environment: Mapping[str, str]) -> Iterator[pytest.MonkeyPatch]:
    """Lead this process's clients of object storage to a server, and to no earlier one.

    s3fs remembers its clients by what they were asked for, which is not the server's address. Those
    of earlier servers are kept: one that is let go complains that it was not closed.
    """
    import s3fs

    CLIENTS.append({})
    with pytest.MonkeyPatch.context() as patch:
        for name, text in environment.items():
            patch.setenv(name, text)
        patch.setattr(s3fs.S3FileSystem, "_cache", CLIENTS[-1])
        yield patch


def client_environment(url: str) -> dict[str, str]:
    """Return what clients find a server of object storage and its credentials by."""
    return {
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": SECRET,
        "AWS_DEFAULT_REGION": "us-east-1",
        "AWS_ENDPOINT_URL": url,
        "NO_PROXY": "127.0.0.1",
    }


@contextlib.contextmanager
def postgres(folder: Path) -> Iterator[str]:
    """Start PostgreSQL with an empty database and yield its address for asyncpg.

    PostgreSQL does not run as root: then it runs as the user that its package makes.
    """
    programs = sorted(Path("/").glob(f"{POSTGRES[1:]}/initdb"))
    if not programs:
        raise Missing("PostgreSQL: apt-get install --no-install-recommends postgresql")
    home = programs[-1].parent
    folder.mkdir(parents=True, exist_ok=True)
    user = "postgres" if os.getuid() == 0 else None
    if user:
        os.chown(folder, pwd.getpwnam(user).pw_uid, -1)
    state, port = folder / "state", free_port()
    secret = folder / "password"
    secret.write_text(SECRET)
    secret.chmod(0o644)
    subprocess.run(
        [home / "initdb", "-D", state, "-U", "tomoseg", "-A", "scram-sha-256", "--pwfile", secret],
        check=True,
        capture_output=True,
        user=user,
        cwd="/",
        timeout=120,
    )
    words = ["-p", str(port), "-c", "listen_addresses=127.0.0.1", "-k", str(folder)]
    log = folder / "postgres.log"
    with running([str(home / "postgres"), "-D", str(state), *words], log, user=user):
        ready = [str(home / "pg_isready"), "-h", "127.0.0.1", "-p", str(port)]
        wait_until(
            lambda: subprocess.call(ready, stdout=subprocess.DEVNULL) == 0, f"no PostgreSQL: {log}"
        )
        yield f"postgresql+asyncpg://tomoseg:{SECRET}@127.0.0.1:{port}/postgres"


@contextlib.contextmanager
def running(
    command: list[str],
    log: Path,
    environment: Mapping[str, str] | None = None,
    user: str | None = None,
) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program and end it, and all that it started, with the block."""
    with log.open("ab") as written:
        process = subprocess.Popen(
            command,
            stdout=written,
            stderr=subprocess.STDOUT,
            env=environment,
            user=user,
            cwd="/",
            start_new_session=True,
        )
    try:
        yield process
    finally:
        for number in (signal.SIGCONT, signal.SIGTERM):
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, number)
        try:
            process.wait(20)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()


def free_port() -> int:
    """Return a port of loopback that nobody has just now."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for_http(url: str, log: Path) -> None:
    """Wait until a server answers, whatever it says."""

    def answers() -> bool:
        try:
            urllib.request.urlopen(url, timeout=2).close()
        except urllib.error.HTTPError:
            return True
        except OSError:
            return False
        return True

    wait_until(answers, f"{url} does not answer: {log}")


def wait_until(is_true: Callable[[], bool], failure: str, seconds: float = START_SECONDS) -> None:
    """Look ten times a second; raise TimeoutError with what is said if it stays false."""
    end = time.monotonic() + seconds
    while not is_true():
        if time.monotonic() > end:
            raise TimeoutError(failure)
        time.sleep(0.1)
