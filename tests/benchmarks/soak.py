"""A day in miniature: tiny tomograms arrive at the whole service on this machine, then none.

    python tests/benchmarks/soak.py FOLDER [--tomograms 200] [--minutes 6] [--sessions 2]

starts deploy/workstation/up.py, lets the tomograms arrive one after the other over most of the
minutes, and when these are over looks for a minute at a service that has nothing to do (what is
still waiting then is said, and not worked off). It prints, and writes as soak.md and soak.png:
seconds from a complete file to its work begun and done; for each process its memory, the slope of
it over the second half, open files and the processor's time in the quiet minute; and what is left
over of tasks in the scheduler and files in the temporary folder.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from urllib.request import urlopen

import psutil
import torch

from tomoseg.analysis import intensity
from tomoseg.core.classes import COLOURS
from tomoseg.io.stores import Folder
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.checkpoint import save_model
from tomoseg.service.arrivals import SessionWork
from tomoseg.simulation import PhantomParameters
from tomoseg.simulation.sessions import simulated_session

UP = Path(__file__).parents[2] / "deploy" / "workstation" / "up.py"
SAMPLE_SECONDS = 2.0
QUIET_SECONDS = 60.0
ARRIVING = 0.7  # of the minutes
OFFSET = 21000
RUNS = "flow runs"
MIB = 2**20


class Samples(threading.Thread):
    """Looks at the memory, open files and processor's time of each part, with its children."""

    def __init__(self, stack: Path) -> None:
        super().__init__(daemon=True)
        self._stack = stack
        self._ended = threading.Event()
        self._began = time.monotonic()
        self.rows: dict[str, list[tuple[float, float, int]]] = defaultdict(list)

    def run(self) -> None:
        """Sample until stopped."""
        while not self._ended.wait(SAMPLE_SECONDS):
            for part, processes in parts_of(self._stack).items():
                memory = sum(rss(one) for one in processes) / MIB
                files = sum(open_files(one) for one in processes)
                self.rows[part].append((time.monotonic() - self._began, memory, files))

    def stop(self) -> None:
        """Sample no more."""
        self._ended.set()
        self.join()


def parts_of(stack: Path) -> dict[str, list[psutil.Process]]:
    """Return the processes of each part; what the watch started are flow runs."""
    found: dict[str, list[psutil.Process]] = {}
    for name, told in json.loads(stack.read_text())["parts"].items():
        try:
            process = psutil.Process(told["pid"])
            children = process.children(recursive=True)
        except psutil.NoSuchProcess:
            continue
        if name == "watch":
            found[name], found[RUNS] = [process], children
        else:
            found[name] = [process, *children]
    return found


def rss(process: psutil.Process) -> int:
    """Return the memory of a process, none if it has ended."""
    try:
        return int(process.memory_info().rss)
    except psutil.Error:
        return 0


def open_files(process: psutil.Process) -> int:
    """Return how many files and sockets a process has open, none if it has ended."""
    try:
        return int(process.num_fds())
    except psutil.Error:
        return 0


def processor_seconds(processes: list[psutil.Process]) -> float:
    """Return the processor's time that processes have taken."""
    return sum(sum(one.cpu_times()[:2]) for one in processes if one.is_running())


def main() -> None:
    """Run the service through its day and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--tomograms", type=int, default=200)
    parser.add_argument("--minutes", type=float, default=6.0)
    parser.add_argument("--sessions", type=int, default=2)
    given = parser.parse_args()
    home = given.folder.resolve()
    contents = site(home, given.sessions)
    with service(home) as stack:
        samples = Samples(stack)
        samples.start()
        end = time.monotonic() + 60 * given.minutes
        arrive(home, contents, given, end)
        while time.monotonic() < end and ended(home, given.sessions) < given.tomograms:
            time.sleep(1)
        busy_seconds = samples.rows["scheduler"][-1][0]
        tasks = scheduler_tasks()
        idle = quiet(stack)
        samples.stop()
    left = sorted(os.listdir(home / "tmp"))
    lines = [
        *told_times(home, given),
        "",
        *told_parts(samples, idle, busy_seconds),
        "",
        f"Tasks in the scheduler: {tasks}; temporary files left: {left or 'none'}",
    ]
    print("\n".join(lines))
    (home / "soak.md").write_text("\n".join(lines) + "\n")
    plot(samples, home / "soak.png")


def site(home: Path, sessions: int) -> list[bytes]:
    """Make a network, the watch's file and empty sessions; return tomograms that may arrive."""
    architecture = Architecture(slices_in=8, slices_out=4, fold=2, widths=(8, 16))
    card = ModelCard(
        name="tiny",
        architecture=architecture,
        classes=tuple(COLOURS),
        colours=tuple(COLOURS.values()),
        voxel_size_angstrom=12.0,
        intensity=tuple(intensity.as_dicts(intensity.DEFAULT_STEPS)),
        halo=architecture.receptive_halo,
        stride=architecture.stride,
    )
    torch.manual_seed(0)
    (home / "model").mkdir(parents=True)
    save_model(home / "model", build_network(architecture, len(card.classes)), card)
    base = PhantomParameters(shape=(16, 64, 64), voxel_size_angstrom=12.0, seed=600)
    for _ in simulated_session(Folder(str(home / "made")), base, tomograms=4, density=3.0):
        pass
    (home / "tmp").mkdir()
    for number in range(sessions):
        (home / "in" / f"session_{number}").mkdir(parents=True)
    recipe = {
        "segment": {"model": str(home / "model"), "precision": "float32"},
        "trace": {"microtubule": {}},
        "pick": {"ribosome": {}},
    }
    (home / "recipe.yaml").write_text(json.dumps(recipe))
    watch = {
        "sessions": "in/*",
        "output": "out/{session}",
        "recipes": [{"recipe": "recipe.yaml"}],
        "seconds_between_looks": 5,
        "settle_seconds": 2,
    }
    (home / "watch.yaml").write_text(json.dumps(watch))
    return [path.read_bytes() for path in sorted((home / "made").glob("*.mrc"))]


@contextmanager
def service(home: Path) -> Iterator[Path]:
    """Run the service until the block ends; yield the file that says how it stands."""
    stack = home / "state" / "stack.json"
    command = [sys.executable, str(UP), str(home / "watch.yaml"), "--folder", str(stack.parent)]
    command += ["--workers", "2", "--memory-gib", "2", "--port-offset", str(OFFSET)]
    with (home / "up.log").open("w") as log:
        variables = os.environ | {"TMPDIR": str(home / "tmp")}
        process = subprocess.Popen(command, stdout=log, stderr=log, env=variables)
    try:
        until_green(stack, process)
        yield stack
    finally:
        process.terminate()
        process.wait(60)


def until_green(stack: Path, process: subprocess.Popen[bytes]) -> None:
    """Wait until all parts work."""
    for _ in range(1800):
        if process.poll() is not None:
            break
        told = json.loads(stack.read_text())["parts"].values() if stack.exists() else [{}]
        if all(part.get("works") for part in told):
            return
        time.sleep(0.1)
    raise SystemExit(f"the service does not start: see {stack.parent.parent / 'up.log'}")


def arrive(home: Path, contents: list[bytes], given: argparse.Namespace, end: float) -> None:
    """Let the tomograms arrive, evenly, in all sessions."""
    began = time.monotonic()
    pause = ARRIVING * (end - began) / given.tomograms
    for number in range(given.tomograms):
        time.sleep(max(0.0, began + number * pause - time.monotonic()))
        place = home / "in" / f"session_{number % given.sessions}"
        content = contents[number % len(contents)]
        (place / f"tomogram_{number:03}.mrc").write_bytes(content)


def work(home: Path, sessions: int) -> list[SessionWork]:
    """Return what became of the tomograms."""
    return [SessionWork.read(Folder(str(home / "out" / f"session_{n}"))) for n in range(sessions)]


def ended(home: Path, sessions: int) -> int:
    """Return how many tomograms have ended."""
    rows = [row for one in work(home, sessions) for row in one.tomograms.values()]
    return sum(bool(row.finished) for row in rows)


def scheduler_tasks() -> int:
    """Return how many tasks the scheduler holds."""
    page = urlopen(f"http://127.0.0.1:{8787 + OFFSET}/metrics", timeout=10).read().decode()
    lines = [line for line in page.splitlines() if line.startswith("dask_scheduler_tasks{")]
    return round(sum(float(line.split()[-1]) for line in lines))


def quiet(stack: Path) -> dict[str, float]:
    """Return the processor's time of each part in a minute without arrivals, in percent."""
    before = {part: processor_seconds(all_) for part, all_ in parts_of(stack).items()}
    time.sleep(QUIET_SECONDS)
    after = {part: processor_seconds(all_) for part, all_ in parts_of(stack).items()}
    return {part: 100 * (after[part] - before.get(part, 0.0)) / QUIET_SECONDS for part in after}


def told_times(home: Path, given: argparse.Namespace) -> list[str]:
    """Return how many were done, and how long it took after their files were complete."""
    rows = [row for one in work(home, given.sessions) for row in one.tomograms.values()]
    done = [row for row in rows if row.state == "done"]
    lines = [
        f"{len(done)} of {given.tomograms} tomograms done, {len(rows) - len(done)} in work or "
        f"failed, in {given.minutes:g} minutes; one arrived every "
        f"{60 * ARRIVING * given.minutes / given.tomograms:.1f} s",
        "",
        "| seconds from a complete file to | median | worst |",
        "|---|---|---|",
    ]
    for word, field in (("work begun", "started"), ("work done", "finished")):
        seconds = [
            (
                datetime.fromisoformat(getattr(row, field)) - datetime.fromisoformat(row.complete)
            ).total_seconds()
            for row in done
        ]
        lines.append(f"| {word} | {statistics.median(seconds):.1f} | {max(seconds):.1f} |")
    return lines


def told_parts(samples: Samples, idle: dict[str, float], busy_seconds: float) -> list[str]:
    """Return a line a part: memory, its slope over the second half of the work, files, idle."""
    lines = [
        "| part | memory MiB, middle and end of work | MiB an hour | open files, middle and end "
        "| % of a core in the quiet minute |",
        "|---|---|---|---|---|",
    ]
    for part, rows in samples.rows.items():
        late = [row for row in rows if busy_seconds / 2 <= row[0] <= busy_seconds]
        if part == RUNS or len(late) < 2:
            peak = max((row[1] for row in rows), default=0.0)
            lines.append(f"| {part} | at most {peak:.0f} | | | |")
            continue
        slope = statistics.linear_regression([r[0] for r in late], [r[1] for r in late]).slope
        lines.append(
            f"| {part} | {late[0][1]:.0f}, {late[-1][1]:.0f} | {3600 * slope:+.0f} "
            f"| {late[0][2]}, {late[-1][2]} | {idle.get(part, 0.0):.1f} |"
        )
    return lines


def plot(samples: Samples, path: Path) -> None:
    """Draw the memory of each part over time."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    figure, axes = pyplot.subplots(figsize=(10, 6))
    for part, rows in samples.rows.items():
        axes.plot([row[0] / 60 for row in rows], [row[1] for row in rows], label=part)
    axes.set_xlabel("minutes")
    axes.set_ylabel("memory, MiB")
    axes.set_ylim(bottom=0)
    axes.legend()
    figure.savefig(path, dpi=100)


if __name__ == "__main__":
    main()
