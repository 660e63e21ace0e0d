"""What goes wrong in a night (``night.py``), and the words that must be said of it.

Each situation harms the service over a session of its own, and most undo it again. ``told`` holds
the place where it must be said, and an expression that is looked for there.
"""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from servers import running, wait_until
from stack import ROOT, Stack

from tomoseg.core.errors import TomosegError
from tomoseg.io.stores import Folder
from tomoseg.service.arrivals import DONE, SessionWork

TOMOGRAMS = 2
DONE_SECONDS = 300.0
AWAY_SECONDS = 60.0
MASKS = 6

CANCEL = """
import sys
from prefect.client.orchestration import get_client
from prefect.states import Cancelling
from prefect.client.schemas.filters import FlowRunFilter
names = FlowRunFilter.model_validate({"name": {"any_": [sys.argv[1]]}})
with get_client(sync_client=True) as client:
    for run in client.read_flow_runs(flow_run_filter=names):
        if not run.state.is_final():
            client.set_flow_run_state(run.id, Cancelling(), force=True)
            print("cancelled", run.id)
"""


class Skipped(Exception):
    """A situation that cannot be made on this machine, and why."""


@dataclass
class Night:
    """The service, what arrives in it, and where it says how it is.

    Parameters
    ----------
    extra
        What the commands of the situation in hand said: a place to look at, too.
    """

    home: Path
    stack: Stack
    contents: list[bytes]
    extra: str = ""

    def place(self, session: str) -> Path:
        """Return the folder of a session's tomograms."""
        return self.home / "in" / session

    def results(self, session: str) -> Path:
        """Return the folder of a session's results."""
        return self.home / "out" / session

    def arrive(self, session: str, tomograms: int = TOMOGRAMS) -> None:
        """Let a session arrive, whole from the first look on."""
        made = self.home / "made" / session
        made.mkdir(parents=True)
        for number in range(tomograms):
            (made / f"TS_{number:02}.mrc").write_bytes(self.contents[number])
        made.rename(self.place(session))

    def rows(self) -> list[dict[str, str]]:
        """Return the lines of the watch and its runs; each must be an object."""
        return [json.loads(line) for line in self.log("watch").splitlines()]

    def log(self, part: str) -> str:
        """Return the log of a part."""
        return (self.stack.state / "logs" / f"{part}.log").read_text()

    def stages(self, since: float = 0.0, session: str = "") -> list[tuple[str, ...]]:
        """Return session, tomogram and stage of each stage that was done since a time."""
        return [
            (row["session"], row["tomogram"], row["stage"])
            for row in self.rows()
            if row["logger"] == "tomoseg.pipeline.stages" and row["message"].startswith("done in")
            if datetime.fromisoformat(row["time"]).timestamp() >= since
            if session in ("", row["session"])
        ]

    def done(self, session: str) -> int:
        """Return how many tomograms of a session are done."""
        try:
            work = SessionWork.read(Folder(str(self.results(session))))
        except TomosegError:
            return 0
        return sum(row.state == DONE for row in work.tomograms.values())

    def masks(self, session: str) -> int:
        """Return how many masks of a session are there."""
        return len(list(self.results(session).glob("*/masks/*.mrc")))

    def until(self, condition: Callable[[], object], what: str, seconds: float = 240.0) -> None:
        """Wait until something is so."""
        wait_until(lambda: bool(condition()), f"not in time: {what}", seconds)

    def until_at_work(self, session: str) -> None:
        """Wait until the first stage of a session is done, and the last is not."""
        self.until(lambda: self.stages(session=session), f"{session} is at work")

    def until_done(self, session: str, tomograms: int = TOMOGRAMS) -> None:
        """Wait until all of a session is done."""
        self.until(lambda: self.done(session) == tomograms, f"{session} is done", DONE_SECONDS)

    def watch(self, *words: str) -> str:
        """Return what ``python -m flows.watch WATCH`` says with some options."""
        done = self.stack.said("-m", "flows.watch", str(self.home / "watch.yaml"), *words)
        return done.stdout + done.stderr

    def command(self, *words: str) -> str:
        """Return what ``tomoseg`` says."""
        done = self.stack.said("-m", "tomoseg.cli", *words)
        return done.stdout + done.stderr

    def metrics(self) -> str:
        """Return what the watch shows to Prometheus; nothing while it is away."""
        port = self.stack.parts()["watch"]["ports"][0]
        with suppress(OSError), urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics") as page:
            return str(page.read().decode())
        return ""

    def page(self, session: str) -> str:
        """Return the session's page; nothing where there is none."""
        page = self.results(session) / "index.html"
        return page.read_text() if page.exists() else ""


@dataclass(frozen=True)
class Situation:
    """What goes wrong, and what must be said of it.

    Parameters
    ----------
    harm, undo
        Take the night and the session's name. Where nobody undoes it, work must go on by itself.
    told
        A place, and an expression that must be found there.
    seconds
        Within which.
    is_at_work, is_done
        Whether the session is in work, or done, when the harm comes; else it has not come.
    tomograms
        How many are done in the end.
    again
        How often a stage may have been done: twice where a person asked for it.
    """

    name: str
    harm: Callable[[Night, str], None]
    told: dict[str, str]
    undo: Callable[[Night, str], None] = lambda night, session: None
    seconds: float = 60.0
    is_at_work: bool = False
    is_done: bool = False
    tomograms: int = TOMOGRAMS
    again: int = 1

    @property
    def session(self) -> str:
        """The session's name: no situation meets the tomograms of another."""
        return re.sub(r"\W+", "_", self.name)


# --- what is done to it


def kill_watch(night: Night, _: str) -> None:
    """Kill the watch as the system does that runs out of memory."""
    night.stack.kill("watch")


def end_watch(night: Night, _: str) -> None:
    """End the watch as systemd does for an update."""
    night.stack.process("watch").terminate()


def kill_run(night: Night, _: str) -> None:
    """Kill the processes of runs, and not the watch."""
    for process in night.stack.process("watch").children(recursive=True):
        with suppress(psutil.NoSuchProcess):
            if {"flows.run", "prefect.engine"} & set(process.cmdline()):
                process.kill()


def rename_input(night: Night, session: str) -> None:
    """Take the input away for a minute, as a network drive that stumbles does."""
    (night.home / "in").rename(night.home / "in.away")


def rename_back(night: Night, session: str) -> None:
    """Give it back when the minute is over."""
    time.sleep(AWAY_SECONDS)
    (night.home / "in.away").rename(night.home / "in")


def delete_mask(night: Night, session: str) -> None:
    """Delete one result, and have it looked for."""
    next(night.results(session).glob("TS_01/masks/*.mrc")).unlink()
    night.extra = night.command("status", "--check", str(night.results(session)))


def again(night: Night, session: str) -> None:
    """Ask for the tomogram again."""
    night.extra = night.watch("--again", f"{session}/TS_01")
    night.until(lambda: night.masks(session) == MASKS * TOMOGRAMS, night.extra, DONE_SECONDS)


def run_by_hand(night: Night, session: str) -> None:
    """Do the obvious repair: one tomogram of the session."""
    night.extra = night.command(
        "run", str(night.place(session) / "TS_01.mrc"), "-o", str(night.results(session))
    )


def rotate_login(night: Night, _: str) -> None:
    """Do what deploy/README.md says for a new login, and ask Prefect with both."""
    old = night.stack.told()
    new = "tomoseg:" + renewed(night, "prefect-password").read_text()
    night.until(lambda: night.stack.told()["PREFECT_API_AUTH_STRING"] == new, "new service.env")
    night.until(lambda: all(part["works"] for part in night.stack.parts().values()), "all green")
    ask = "from prefect.client.orchestration import get_client as c;"
    ask += "print(c(sync_client=True).read_flows(limit=1) is not None)"
    night.extra = f"new: {night.stack.said('-c', ask).stdout}"
    done = subprocess.run(
        [sys.executable, "-c", ask], env=old, check=False, capture_output=True, text=True
    )
    night.extra += f"old: {'401' if '401' in done.stderr else done.stdout}"


def renew_certificates(night: Night, _: str) -> None:
    """Do what deploy/README.md says where a key may have been copied."""
    renewed(night, "ca.pem")


def renewed(night: Night, name: str) -> Path:
    """Delete a file of the credentials, and run what makes it anew; return the file."""
    file = night.stack.state / "credentials" / name
    file.unlink()
    script = ROOT / "deploy" / "credentials.sh"
    subprocess.run(["bash", script, file.parent], check=True, capture_output=True)
    return file


def wrong_key(night: Night, session: str) -> None:
    """Let a session come with a recipe that has a wrong key."""
    night.place(session).mkdir()
    (night.place(session) / "tomoseg.yaml").write_text("segment: {modle: x}\n")
    move_in(night, session)


def right_key(night: Night, session: str) -> None:
    """Mend the recipe."""
    (night.place(session) / "tomoseg.yaml").unlink()


def grow(night: Night, session: str) -> None:
    """Let the last file of a session come in part."""
    night.place(session).mkdir()
    move_in(night, session)
    half = night.contents[1][: len(night.contents[1]) // 2]
    (night.place(session) / "TS_01.mrc").write_bytes(half)


def grow_up(night: Night, session: str) -> None:
    """Let the rest of it come."""
    (night.place(session) / "TS_01.mrc").write_bytes(night.contents[1])


def move_in(night: Night, session: str) -> None:
    """Put the tomograms into a session's folder that is there."""
    for number in range(TOMOGRAMS):
        (night.place(session) / f"TS_{number:02}.mrc").write_bytes(night.contents[number])


def fill_disk(night: Night, session: str) -> None:
    """Give a session's results a disk that is too small."""
    night.results(session).mkdir(parents=True)
    mount(night.results(session), "size=1m")
    night.arrive(session)


def mount(folder: Path, options: str) -> None:
    """Mount memory as a disk, or mount it anew with another size."""
    command = ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)]
    done = subprocess.run(command, check=False, capture_output=True, text=True)
    if done.returncode:
        raise Skipped(f"no disk can be mounted here: {done.stderr.strip()}")


def free_disk(night: Night, session: str) -> None:
    """Give it room."""
    mount(night.results(session), "remount,size=500m")


def pause_by_file(night: Night, session: str) -> None:
    """Pause a session by a file beside its tomograms."""
    night.place(session).mkdir()
    (night.place(session) / "tomoseg.pause").touch()
    move_in(night, session)


def resume_by_file(night: Night, session: str) -> None:
    """Take the file away."""
    (night.place(session) / "tomoseg.pause").unlink()


def pause_by_name(night: Night, session: str) -> None:
    """Pause a session in work by the watch's command."""
    night.extra = night.watch("--pause", session)


def resume_by_name(night: Night, session: str) -> None:
    """Let it go on."""
    night.extra = night.watch("--resume", session)


def cancel(night: Night, session: str) -> None:
    """Cancel a session's run in Prefect."""
    night.extra = night.stack.said("-c", CANCEL, session).stdout


def second_watch(night: Night, session: str) -> None:
    """Let another watch, of other folders, serve the same output for half a minute."""
    file = night.home / "second.yaml"
    values = json.loads((night.home / "watch.yaml").read_text())
    file.write_text(json.dumps(values | {"sessions": "in/s*"}))
    log = night.home / "second.log"
    told = night.stack.told() | {"TOMOSEG_METRICS_ADDRESS": "", "PYTHONPATH": str(ROOT)}
    with running([sys.executable, "-m", "flows.watch", str(file)], log, told):
        time.sleep(30)
    night.extra = log.read_text()


def match_nothing(night: Night, session: str) -> None:
    """Look with a pattern that matches nothing."""
    file = night.home / "nothing.yaml"
    values = json.loads((night.home / "watch.yaml").read_text())
    file.write_text(json.dumps(values | {"sessions": "nope/*"}))
    done = night.stack.said("-m", "flows.watch", str(file), "--look")
    night.extra = done.stdout + done.stderr


def stop_workers(night: Night, session: str) -> None:
    """Freeze all workers."""
    signal_workers(night, signal.SIGSTOP)


def resume_workers(night: Night, session: str) -> None:
    """Thaw them."""
    signal_workers(night, signal.SIGCONT)


def signal_workers(night: Night, number: signal.Signals) -> None:
    """Send a signal to all workers and what they started."""
    for name in night.stack.parts():
        if name.startswith("worker-"):
            process = night.stack.process(name)
            for one in (process, *process.children(recursive=True)):
                one.send_signal(number)


SHOWN = r"^tomoseg_sessions\{state=\"%s\"\} [1-9]"
STANDS_STILL = {
    "status": r"STANDSTILL", "look": r"STANDSTILL",
    "metrics": r"^tomoseg_standstill_seconds [1-9]", "log": r"standstill",
}  # fmt: skip
PAUSED = {"status": r": paused|[1-9] paused", "look": r"paused since", "metrics": SHOWN % "paused"}
GONE = {
    "status": r"\bgone\b", "look": r"\bgone\b", "metrics": r"^tomoseg_missing_places [1-9]",
    "log": r"\bgone\b",
}  # fmt: skip
NIGHT = (
    Situation("the watch killed", kill_watch, {"up": "watch ended"}, is_at_work=True),
    Situation(
        "the watch ended", end_watch, {"up": "watch ended", "log": "told to end"}, is_at_work=True
    ),
    Situation(
        "a run killed", kill_run, {"log": r"code: -9|killed by|without a word"}, is_at_work=True
    ),
    Situation("the input renamed", rename_input, GONE, rename_back, is_at_work=True),
    Situation(
        "a mask deleted", delete_mask, {"commands": r"masks/\S+\.mrc|missing|gone"}, again,
        is_done=True, again=2,
    ),
    Situation(
        "run by hand", run_by_hand, {"status": r"run_by_hand: 2 of 2 ", "page": r"TS_00"},
        is_done=True, again=2,
    ),
    Situation(
        "the login rotated", rotate_login,
        {"up": "credentials changed", "commands": r"new: True\s+old: 401"}, is_at_work=True,
    ),
    Situation(
        "the certificates renewed", renew_certificates, {"up": r"credentials changed \(ca\.pem"},
        is_at_work=True,
    ),
    Situation(
        "a wrong recipe key", wrong_key,
        dict.fromkeys(("status", "look", "log"), r"modle is not a known key")
        | {"metrics": SHOWN % "refused"}, right_key,
    ),
    Situation(
        "a copy still growing", grow,
        dict.fromkeys(("status", "look"), r"TS_01\b.*(bytes|incomplete|shorter|ends)")
        | {"metrics": r"^tomoseg_incomplete_age_seconds [1-9]"}, grow_up,
    ),
    Situation(
        "a full disk", fill_disk,
        dict.fromkeys(("status", "look"), r"disk|[Ff]ree space") | {"metrics": SHOWN % "stopped"},
        free_disk,
    ),
    Situation("paused by a file", pause_by_file, PAUSED, resume_by_file),
    Situation("paused by name", pause_by_name, PAUSED, resume_by_name, is_at_work=True),
    Situation("cancelled in Prefect", cancel, PAUSED, resume_by_name, is_at_work=True),
    Situation("a second watch", second_watch, {"commands": r"another watch|serves this output"}),
    Situation("nothing matches", match_nothing, {"commands": r"finds nothing"}),
    Situation(
        "frozen workers", stop_workers, STANDS_STILL, resume_workers, is_at_work=True
    ),
)  # fmt: skip
