"""The whole service on this machine, in the foreground, for trying it out.

    python deploy/workstation/up.py [WATCH.yaml] [--folder STATE] [--workers N] [--prometheus]

Prefect's server, a Dask scheduler, workers and the watch start on the loopback interface, with a
login and TLS; a part that dies is started again, and Ctrl-C stops all of them. ``STATE/stack.json``
says what runs where; ``set -a; . STATE/service.env`` lets another shell take part.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import ctypes
import fcntl
import hashlib
import http.client
import json
import os
import shlex
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Sequence
from pathlib import Path
from threading import Thread
from typing import IO, Any

import psutil
from lines import copy_lines
from parts import HERE, MONITORING, Part, Stack, default_workers, environment, moved, parts

PR_SET_CHILD_SUBREAPER = 36
LOOK_SECONDS = 0.25
RENEW_SECONDS = 1.0
LAST_WORDS_SECONDS = 2.0
STEADY_SECONDS = 60.0
PAUSE_SECONDS = (1.0, 30.0)
LIVES_SECONDS = 3.0
NO_PROXY = urllib.request.build_opener(urllib.request.ProxyHandler({}))


class Supervisor:
    """Keeps parts alive and says how they are.

    Parameters
    ----------
    folder
        Of logs and of ``stack.json``.
    wanted
        The parts, in order; stopped in the opposite one.
    variables
        Gives the environment of all of them, anew for each start.
    """

    def __init__(
        self, folder: Path, wanted: Sequence[Part], variables: Callable[[], dict[str, str]]
    ) -> None:
        self._folder = folder
        self._parts = wanted
        self._variables = variables
        self._works = {part.name: asyncio.Event() for part in wanted}
        self._running: dict[str, subprocess.Popen[bytes]] = {}
        self._starts = {part.name: 0 for part in wanted}
        self._written: dict[str, Thread] = {}
        self._given: dict[str, dict[str, str]] = {}
        self._began = time.monotonic()

    async def run(self, stop: asyncio.Event) -> None:
        """Keep all parts until ``stop``; then leave no process."""
        kept = {part.name: asyncio.create_task(self._keep(part)) for part in self._parts}
        all_green = asyncio.create_task(self._announce())
        ends = asyncio.create_task(stop.wait())
        before = self._credentials()
        while not any(task.done() for task in (ends, *kept.values())):
            await asyncio.wait(
                [ends, *kept.values()], timeout=RENEW_SECONDS, return_when="FIRST_COMPLETED"
            )
            now = self._credentials()
            if before and not now:
                say("credentials are missing: run credentials.sh; what runs goes on with the old")
            # Between the two looks credentials.sh may have been half through.
            if now and now == before and not ends.done():
                await self._renew(kept, now)
            before = now
        say("stopping")
        await _cancelled([*kept.values(), ends, all_green])
        for task in kept.values():
            if not task.cancelled():
                task.result()

    async def _renew(self, kept: dict[str, asyncio.Task[None]], now: dict[str, str]) -> None:
        """Stop the parts whose credentials are others now, the last first, and start them again."""
        changed = {
            part: [name for name in part.credentials if given[name] != now[name]]
            for part in self._parts
            if (given := self._given.get(part.name))
        }
        outdated = [part for part, names in changed.items() if names]
        if outdated:
            files = sorted({name for names in changed.values() for name in names})
            order = ", ".join(part.name for part in outdated)
            say(f"credentials changed ({', '.join(files)}): starting {order} again")
            await _cancelled([kept[part.name] for part in outdated])
            kept |= {part.name: asyncio.create_task(self._keep(part)) for part in outdated}

    def _credentials(self) -> dict[str, str] | None:
        """Return digests of all parts' credentials; None while a file is missing or empty."""
        folder = self._folder / "credentials"
        try:
            found = {
                name: (folder / name).read_bytes()
                for part in self._parts
                for name in part.credentials
            }
        except OSError:
            return None
        digests = {name: hashlib.sha256(content).hexdigest() for name, content in found.items()}
        return digests if all(found.values()) else None

    async def _announce(self) -> None:
        for works in self._works.values():
            await works.wait()
        say(f"all green after {time.monotonic() - self._began:.0f} s; Ctrl-C stops everything")

    async def _keep(self, part: Part) -> None:
        pause, longest = PAUSE_SECONDS
        while True:
            for name in part.after:
                await self._works[name].wait()
            while (given := self._credentials()) is None:
                await asyncio.sleep(RENEW_SECONDS)
            began = time.monotonic()
            self._given[part.name] = given
            self._start(part)
            looking = asyncio.create_task(self._look(part))
            try:
                while self._running[part.name].poll() is None:
                    await asyncio.sleep(LOOK_SECONDS)
            finally:
                looking.cancel()
                ended = await self._end(part)
            if time.monotonic() - began > STEADY_SECONDS:
                pause = PAUSE_SECONDS[0]
            say(f"{part.name} ended ({ended}), again in {pause:g} s: see {self._log(part)}")
            await asyncio.sleep(pause)
            pause = min(2 * pause, longest)

    def _start(self, part: Part) -> None:
        # Should this process be killed, the system ends its children.
        lifeline = ("setpriv", "--pdeathsig", "TERM") if shutil.which("setpriv") else ()
        source, end = os.pipe()
        written = Thread(target=copy_lines, args=(source, self._log(part), part.name), daemon=True)
        written.start()
        self._written[part.name] = written
        with open(end, "wb") as log:
            self._running[part.name] = subprocess.Popen(
                [*lifeline, *part.command],
                env=self._variables() | dict(part.environment),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._starts[part.name] += 1
        self._tell()

    async def _end(self, part: Part) -> str:
        """Stop a part with all that it started; return what it ended with."""
        process = self._running[part.name]
        self._works[part.name].clear()
        if process.poll() is None:
            # The part itself tells its children to end, each in its turn.
            process.terminate()
            await _ended(process, part.stop_seconds)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        del self._running[part.name], self._given[part.name]
        end_orphans({one.pid for one in self._running.values()})
        await asyncio.to_thread(self._written[part.name].join, LAST_WORDS_SECONDS)
        self._tell()
        return signal.Signals(-code).name if code < 0 else f"exit code {code}"

    async def _look(self, part: Part) -> None:
        born = time.monotonic()
        while True:
            if part.health is None:
                works = time.monotonic() - born > LIVES_SECONDS
            else:
                works = await asyncio.to_thread(answers, part.health)
            if works != self._works[part.name].is_set():
                self._note(part, works=works)
            await asyncio.sleep(20 * LOOK_SECONDS if works else LOOK_SECONDS)

    def _note(self, part: Part, *, works: bool) -> None:
        if works:
            self._works[part.name].set()
            say(f"{part.name} works  {part.page}".rstrip())
        else:
            self._works[part.name].clear()
            say(f"{part.name} does not answer: see {self._log(part)}")
        self._tell()

    def _log(self, part: Part) -> Path:
        return self._folder / "logs" / f"{part.name}.log"

    def _tell(self) -> None:
        """Write ``stack.json`` anew."""
        told = {
            part.name: {
                "pid": self._running[part.name].pid if part.name in self._running else None,
                "works": self._works[part.name].is_set(),
                "starts": self._starts[part.name],
                "ports": part.ports,
                "page": part.page,
                "log": str(self._log(part)),
            }
            for part in self._parts
        }
        new = self._folder / "stack.json.new"
        new.write_text(json.dumps({"pid": os.getpid(), "parts": told}, indent=2))
        new.replace(self._folder / "stack.json")


async def _cancelled(tasks: Sequence[asyncio.Task[Any]]) -> None:
    """Cancel tasks one after the other, the last first, each once the one before has ended."""
    for task in reversed(tasks):
        task.cancel()
        await asyncio.wait([task])


async def _ended(process: subprocess.Popen[bytes], seconds: float) -> None:
    for _ in range(int(seconds / LOOK_SECONDS)):
        if process.poll() is not None:
            return
        await asyncio.sleep(LOOK_SECONDS)


def answers(url: str) -> bool:
    """Tell whether a URL answers 200 within five seconds."""
    try:
        with NO_PROXY.open(url, timeout=5) as response:
            return bool(response.status == 200)
    except (OSError, http.client.HTTPException):
        return False


def adopt_orphans() -> None:
    """Become the parent of all processes below this one whose own parent dies."""
    ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def end_orphans(kept: set[int]) -> None:
    """Kill the children of this process but those kept, and theirs, which then come here."""
    while found := {one.pid for one in psutil.Process().children()} - kept:
        for pid in found:
            with contextlib.suppress(ProcessLookupError, ChildProcessError):
                os.kill(pid, signal.SIGKILL)
                os.waitpid(pid, 0)


def say(line: str) -> None:
    """Print a line with the time."""
    print(time.strftime("%H:%M:%S"), line, flush=True)


def prepare(stack: Stack) -> None:
    """Make the folders and credentials of a stack."""
    folder = stack.folder
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    for name in ("logs", "prefect", "spill"):
        (folder / name).mkdir(exist_ok=True)
    for log in (folder / "logs").glob("*.log"):
        log.replace(log.with_suffix(".log.1"))
    script = HERE.parent / "credentials.sh"
    subprocess.run(["bash", script, folder / "credentials"], check=True, stdout=subprocess.DEVNULL)
    if stack.has_prometheus:
        shutil.copytree(MONITORING, folder / "monitoring", dirs_exist_ok=True)
        settings = folder / "monitoring" / "prometheus.yml"
        settings.write_text(moved(settings.read_text(), stack.offset))


def write_environment(stack: Stack) -> dict[str, str]:
    """Return the environment of a stack's parts, and write it for those who take part."""
    variables = environment(stack)
    ours = {name: text for name, text in variables.items() if os.environ.get(name) != text}
    lines = [f"{name}={shlex.quote(text)}\n" for name, text in sorted(ours.items())]
    new = stack.folder / "service.env.new"
    new.touch(mode=0o600)
    new.write_text("".join(lines))
    new.replace(stack.folder / "service.env")
    return variables


def taken_ports(wanted: Sequence[Part]) -> list[str]:
    """Name the ports that another process has."""
    taken = []
    for name, port in [(part.name, port) for part in wanted for port in part.ports]:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                taken.append(f"{port} of {name}")
    return taken


async def supervise(stack: Stack) -> None:
    """Run a stack until this process is told to stop."""
    stop = asyncio.Event()
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
        # nohup lets it outlive its terminal.
        if signal.getsignal(number) is not signal.SIG_IGN:
            asyncio.get_running_loop().add_signal_handler(number, stop.set)
    prepare(stack)
    adopt_orphans()
    await Supervisor(stack.folder, parts(stack), lambda: write_environment(stack)).run(stop)


def main(arguments: list[str] | None = None) -> int:
    """Run the stack; return 0 when it was told to stop, 2 if it cannot start."""
    stack = stack_of(arguments)
    stack.folder.mkdir(parents=True, exist_ok=True)
    with (stack.folder / "lock").open("w") as lock:
        if hindrance := _hindrance(stack, lock):
            print(f"error: {hindrance}", file=sys.stderr)
            return 2
        password = stack.folder / "credentials" / "prefect-password"
        say(f"state in {stack.folder}; log in as tomoseg:PASSWORD, which stands in {password}")
        asyncio.run(supervise(stack))
    return 0


def _hindrance(stack: Stack, lock: IO[str]) -> str | None:
    """Say why a stack cannot start; if it can, the lock is held."""
    if stack.watch is not None and not stack.watch.is_file():
        return f"there is no file {stack.watch}"
    for program in ("openssl", *(["prometheus"] if stack.has_prometheus else [])):
        if shutil.which(program) is None:
            return f"there is no {program} here: install it, as with apt install {program}"
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return f"another stack runs in {stack.folder}: stop it, or give another --folder"
    if taken := taken_ports(parts(stack)):
        return f"ports are taken: {', '.join(taken)}; give --port-offset 10000"
    return None


def stack_of(arguments: list[str] | None) -> Stack:
    """Read the command line."""
    parser = argparse.ArgumentParser(prog="up.py", description=(__doc__ or "").split("\n\n")[0])
    parser.add_argument("watch", nargs="?", type=Path, metavar="WATCH.yaml")
    parser.add_argument("--folder", type=Path, default=Path(".tomoseg"), help="of all state")
    parser.add_argument("--workers", type=int, help="instead of one a GPU, or one a core")
    parser.add_argument("--memory-gib", type=float, default=4.0, help="for each block in work")
    parser.add_argument("--port-offset", type=int, default=0, help="added to every port")
    parser.add_argument(
        "--prometheus", action="store_true", help="Prometheus too, which must be installed"
    )
    given: Any = parser.parse_args(arguments)
    workers, gpu_threads = default_workers(given.memory_gib)
    return Stack(
        given.folder.resolve(),
        watch=given.watch and given.watch.resolve(),
        workers=workers if given.workers is None else given.workers,
        gpu_threads=gpu_threads,
        memory_gib=given.memory_gib,
        offset=given.port_offset,
        has_prometheus=given.prometheus,
    )


if __name__ == "__main__":
    sys.exit(main())
