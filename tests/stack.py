"""The service of ``up.py``, seen from outside by tests and benchmarks."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import psutil
import servers

ROOT = Path(__file__).parents[1]
UP = ROOT / "deploy" / "workstation" / "up.py"


class Stack:
    """A service with its state in a folder, on ports of its own.

    Parameters
    ----------
    place
        Folder of its state and log.
    environment
        That it is started with, and every command beside it.
    """

    def __init__(self, place: Path, environment: Mapping[str, str]) -> None:
        self.state = place / "state"
        self.environment = dict(environment)
        self.log = place / "up.log"
        self.offset = servers.free_port() % 20000 + 10000

    @contextlib.contextmanager
    def running(self, watch: Path) -> Iterator[None]:
        """Run it until the block ends; what it said is told where the block fails."""
        command = [sys.executable, str(UP), str(watch), "--folder", str(self.state)]
        command += ["--workers", "2", "--memory-gib", "3", "--port-offset", str(self.offset)]
        with servers.running(command, self.log, self.environment) as process:
            began = time.monotonic()
            servers.wait_until(lambda: self.is_green(process), f"not green: {self.log}", 300)
            print(f"all green after {time.monotonic() - began:.0f} s")
            try:
                yield
            except BaseException:
                self.tell()
                raise
            process.send_signal(signal.SIGTERM)
            assert process.wait(120) == 0

    def tell(self) -> None:
        """Print the ends of all logs."""
        for log in [self.log, *sorted((self.state / "logs").glob("*.log"))]:
            print(f"== {log.name}", *log.read_text().splitlines()[-25:], sep="\n")

    def is_green(self, process: subprocess.Popen[bytes]) -> bool:
        """Tell whether all parts work."""
        assert process.poll() is None, self.log.read_text()
        return (self.state / "stack.json").exists() and all(
            part["works"] for part in self.parts().values()
        )

    def parts(self) -> dict[str, dict[str, Any]]:
        """Return what ``stack.json`` says of each part."""
        told: dict[str, dict[str, Any]] = json.loads((self.state / "stack.json").read_text())
        return told["parts"]

    def process(self, name: str) -> psutil.Process:
        """Return the process of a part."""
        return psutil.Process(self.parts()[name]["pid"])

    def kill(self, name: str, *, child: bool = False) -> None:
        """Kill a part; or what it started last."""
        process = self.process(name)
        # A nanny outlives its worker and starts it again.
        (process.children(recursive=True)[-1] if child else process).kill()

    def told(self) -> dict[str, str]:
        """Return the environment of who takes part."""
        lines = (self.state / "service.env").read_text().splitlines()
        told = dict(line.split("=", 1) for line in lines)
        return self.environment | {name: text.strip("'") for name, text in told.items()}

    def said(self, *words: str) -> subprocess.CompletedProcess[str]:
        """Run one of this project's commands beside the service, whatever becomes of it."""
        return subprocess.run(
            [sys.executable, *words],
            env=self.told(),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=False,
        )

    def asked(self, *words: str) -> str:
        """Return what a command prints that must succeed."""
        done = self.said(*words)
        assert done.returncode == 0, done.stderr
        return done.stdout
