"""Which process somebody is, and whether it has ended for certain, as far as this one can tell."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class Life:
    """A process that others ask about.

    Parameters
    ----------
    host, pid
        Where it runs, and its number there.
    processes
        What tells this set of process numbers from others: the running system, such as those of a
        container, and the machine; empty where that is not known.
    """

    host: str
    pid: int
    processes: str

    @classmethod
    def here(cls, pid: int | None = None) -> Life:
        """Return this process, or another one beside it."""
        return cls(socket.gethostname(), os.getpid() if pid is None else pid, processes())

    @classmethod
    def read(cls, text: str | None) -> Life | None:
        """Read what ``str`` writes; None if it is nothing of the kind."""
        host, _, rest = (text or "").partition(":")
        pid, _, numbers = rest.partition(":")
        return cls(host, int(pid), numbers) if pid.isdecimal() else None

    @property
    def is_visible(self) -> bool:
        """Whether its number means the same process here."""
        ours = processes().split(" ")[:2]
        return self.processes != "" and self.processes.split(" ")[:2] == ours

    @property
    def is_gone(self) -> bool:
        """Whether it has ended for certain: it is not there, or its machine has begun anew."""
        if self.is_visible:
            return not _runs(self.pid)
        theirs, ours = self.processes.split(" "), processes().split(" ")
        # Copies of one machine may share what names it; then their hosts have names of their own.
        is_here = (self.host, theirs[2:]) == (socket.gethostname(), ours[2:]) and theirs[2:] != []
        return is_here and theirs[0] != ours[0]

    def __str__(self) -> str:
        """Return it as one word with its host and number first."""
        return f"{self.host}:{self.pid}:{self.processes}"


def processes() -> str:
    """Return the running system, its process namespace and the machine; empty if not known."""
    try:
        boot = Path("/proc/sys/kernel/random/boot_id").read_text("ascii").strip()
        known = f"{boot} {os.readlink('/proc/self/ns/pid')}"
    except OSError:
        return ""
    try:
        machine = Path("/etc/machine-id").read_text("ascii").strip()
    except (OSError, UnicodeDecodeError):
        machine = ""
    return f"{known} {machine}".strip()


def _runs(pid: int) -> bool:
    """Tell whether a process runs; one that ended and waits for its parent does not."""
    try:
        state = Path(f"/proc/{pid}/stat").read_text("ascii", "replace").rpartition(")")[2].split()
    except OSError:
        return False
    return state[0] not in ("Z", "X")
