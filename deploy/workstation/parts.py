"""The parts of a service on one machine: what each is started with and when it works.

``deploy/workstation/systemd`` starts the same; ``tests/deploy/test_workstation.py`` holds them
together.
"""

from __future__ import annotations

import importlib.util
import os
import re
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from tomoseg.compute.devices import visible_gpus
from tomoseg.compute.settings import GPU_THREADS
from tomoseg.core.errors import ResourceError

HERE = Path(__file__).parent
MONITORING = HERE.parent / "monitoring"
PREFECT, SCHEDULER, DASHBOARD, WORKER, PROMETHEUS, WATCH = 4200, 8786, 8787, 8800, 9090, 9108
"""Ports, the first of the workers' dashboards."""
LOGIN = ("prefect-server.env", "prefect-client.env")
CERTIFICATES = (
    "tls.env",
    "ca.pem",
    *(f"{name}{end}" for name in ("scheduler", "worker", "client") for end in (".pem", "-key.pem")),
)
"""Files of credentials.sh that a part reads when it starts."""


@dataclass(frozen=True)
class Part:
    """A process that is kept alive.

    Parameters
    ----------
    name, command
        Its name, and its program with arguments.
    ports
        Where it listens, the one that other parts use first.
    health
        A URL that answers 200 once the part works; without one it must only live on.
    environment
        Variables of its own.
    after
        Parts that must work before it is started.
    credentials
        Files of the credentials' folder: after a change it is started again.
    stop_seconds
        So long it may take to end; then it is killed.
    page
        Where people look.
    """

    name: str
    command: tuple[str, ...]
    ports: tuple[int, ...] = ()
    health: str | None = None
    environment: tuple[tuple[str, str], ...] = ()
    after: tuple[str, ...] = ()
    credentials: tuple[str, ...] = ()
    stop_seconds: float = 15.0
    page: str = ""


@dataclass(frozen=True)
class Stack:
    """What is asked for.

    Parameters
    ----------
    folder
        All state: database, logs, credentials, spilled blocks.
    watch
        The file of the watch; None leaves the watch out.
    workers, gpu_threads, memory_gib
        Worker processes; blocks in work on a GPU each, 0 without GPUs; the memory of each.
    offset
        Added to every port.
    """

    folder: Path
    watch: Path | None = None
    workers: int = 1
    gpu_threads: int = 0
    memory_gib: float = 4.0
    offset: int = 0
    has_prometheus: bool = False


def parts(stack: Stack) -> tuple[Part, ...]:
    """Return all parts, in the order in which they are started."""
    found = [_prefect(stack), _scheduler(stack)]
    found += [_worker(stack, number) for number in range(stack.workers)]
    if stack.watch is not None:
        found.append(_watch(stack, stack.watch))
    if stack.has_prometheus:
        found.append(_prometheus(stack))
    return tuple(found)


def _prefect(stack: Stack) -> Part:
    port = PREFECT + stack.offset
    url = f"http://127.0.0.1:{port}"
    command = (sys.executable, "-m", "prefect", "server", "start")
    return Part(
        "prefect",
        (*command, "--host", "127.0.0.1", "--port", str(port)),
        ports=(port,),
        health=f"{url}/api/health",
        credentials=LOGIN,
        page=url,
    )


def _scheduler(stack: Stack) -> Part:
    port, dashboard = SCHEDULER + stack.offset, DASHBOARD + stack.offset
    command = (sys.executable, "-m", "distributed.cli.dask_scheduler", "--protocol", "tls")
    listens = ("--host", "127.0.0.1", "--port", str(port))
    return Part(
        "scheduler",
        (*command, *listens, "--dashboard-address", f"127.0.0.1:{dashboard}"),
        ports=(port, dashboard),
        health=f"http://127.0.0.1:{dashboard}/health",
        credentials=CERTIFICATES,
        page=f"http://127.0.0.1:{dashboard}/status",
    )


def _worker(stack: Stack, number: int) -> Part:
    """Return a worker: its name ends in the number of its GPU (:mod:`tomoseg.compute.devices`)."""
    dashboard = WORKER + number + stack.offset
    command = [sys.executable, "-m", "distributed.cli.dask_worker", "--protocol", "tls"]
    command += [f"tls://127.0.0.1:{SCHEDULER + stack.offset}", "--host", "127.0.0.1"]
    command += ["--dashboard-address", f"127.0.0.1:{dashboard}", "--name", f"workstation-{number}"]
    command += ["--nthreads", str(stack.gpu_threads or 1)]
    command += ["--memory-limit", f"{stack.memory_gib * (stack.gpu_threads or 1):g}GiB"]
    command += ["--local-directory", str(stack.folder / "spill" / str(number))]
    command += ["--death-timeout", "120"]
    if stack.gpu_threads:
        command += ["--resources", "GPU=1", "--preload-nanny", "tomoseg.compute.devices"]
        command += ["--preload-nanny", "tomoseg.compute.monitoring"]
    return Part(
        f"worker-{number}",
        tuple(command),
        ports=(dashboard,),
        health=f"http://127.0.0.1:{dashboard}/health",
        after=("scheduler",),
        credentials=CERTIFICATES,
    )


def _watch(stack: Stack, file: Path) -> Part:
    return Part(
        "watch",
        (sys.executable, "-m", "flows.watch", str(file)),
        ports=(WATCH + stack.offset,),
        environment=(("TOMOSEG_METRICS_ADDRESS", f"127.0.0.1:{WATCH + stack.offset}"),),
        after=("prefect", "scheduler"),
        credentials=(*LOGIN, *CERTIFICATES),
        # Its runs are ended in order, and what they had begun is told.
        stop_seconds=60.0,
    )


def _prometheus(stack: Stack) -> Part:
    port = PROMETHEUS + stack.offset
    url = f"http://127.0.0.1:{port}"
    return Part(
        "prometheus",
        (
            "prometheus",
            f"--config.file={stack.folder / 'monitoring' / 'prometheus.yml'}",
            f"--storage.tsdb.path={stack.folder / 'prometheus'}",
            f"--web.listen-address=127.0.0.1:{port}",
        ),
        ports=(port,),
        health=f"{url}/-/ready",
        page=url,
    )


def environment(stack: Stack, given: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Return what all parts are told: a person's environment, and ours over it.

    ``PREFECT_SERVER_DATABASE_CONNECTION_URL`` is a person's: without it there is an SQLite file.
    """
    ours = variables((HERE.parent / "common.env").read_text())
    ours |= variables(moved((HERE / "workstation.env").read_text(), stack.offset))
    for name in ("tls", "prefect-server", "prefect-client"):
        ours |= variables((stack.folder / "credentials" / f"{name}.env").read_text())
    if importlib.util.find_spec("tomoseg.compute.monitoring") is None:
        ours = {name: text for name, text in ours.items() if not name.endswith("__PRELOAD")}
    ours["PREFECT_HOME"] = str(stack.folder / "prefect")
    # A facility's proxy would be asked for 127.0.0.1 too.
    ours["no_proxy"] = ours["NO_PROXY"] = f"127.0.0.1,localhost,{given.get('no_proxy', '')}"
    return {**given, **ours}


def variables(text: str) -> dict[str, str]:
    r"""Read lines of ``NAME=value``.

    >>> variables("# why\nA=1\nB=x=y\n")
    {'A': '1', 'B': 'x=y'}
    """
    lines = [line for line in text.splitlines() if line and not line.startswith("#")]
    return {name: value for name, _, value in (line.partition("=") for line in lines)}


def moved(text: str, offset: int) -> str:
    """Move the ports of all loopback addresses in a text.

    >>> moved("http://127.0.0.1:4200/api", 10000)
    'http://127.0.0.1:14200/api'
    """
    return re.sub(r"\b127\.0\.0\.1:(\d+)", lambda at: f"127.0.0.1:{int(at[1]) + offset}", text)


def default_workers(memory_gib: float) -> tuple[int, int]:
    """Return how many workers this machine carries, and the threads of each on its GPU or 0."""
    try:
        gpus = len(visible_gpus())
    except ResourceError:
        gpus = 0
    if gpus:
        return gpus, GPU_THREADS
    here_gib = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30
    return max(1, min(len(os.sched_getaffinity(0)), int(here_gib / memory_gib))), 0
