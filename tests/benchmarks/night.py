"""A night in the service's life: everything that goes wrong, one thing after the other.

    python tests/benchmarks/night.py FOLDER [--only WORDS ...]

starts deploy/workstation/up.py over tiny sessions and does to it what harms.py lists: kills,
renames, deletes, pauses, rotates. It prints, and writes as night.md, for each: where it was told
and after how many seconds (``tomoseg status``, ``--look``, the watch's /metrics, the session's
page, the logs; looked for, not assumed), masks lost and stages done twice (must be none), and how
many seconds after the harm was undone work went on. A row that is not as it must be says FAIL, and
then so does the exit status. ``--only`` takes the situations whose names have one of these words.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from harms import DONE_SECONDS, MASKS, NIGHT, ROOT, Night, Situation, Skipped, Stack
from soak import site


@dataclass(frozen=True)
class Row:
    """What came of a situation; ``seconds`` from the end of the harm to the next stage done."""

    situation: Situation
    told: dict[str, float | None] = field(default_factory=dict)
    lost: int = 0
    double: int = 0
    seconds: float = 0.0
    problem: str = ""

    @property
    def is_right(self) -> bool:
        """Tell whether all was said, and nothing is lost or double."""
        is_told = all(seconds is not None for seconds in self.told.values())
        return is_told and not (self.lost or self.double or self.problem)

    def line(self) -> str:
        """Return it as a line of a table."""
        told = ", ".join(
            f"{place} {'never' if after is None else f'{after:.0f} s'}"
            for place, after in self.told.items()
        )
        verdict = "right" if self.is_right else f"FAIL {self.problem}".strip()
        cells = (self.situation.name, told, self.lost, self.double, f"{self.seconds:.0f}", verdict)
        return f"| {' | '.join(map(str, cells))} |"


def undergone(night: Night, situation: Situation) -> Row:
    """Do the harm, see where it is told, undo it, and count what is lost and double."""
    session, night.extra = situation.session, ""
    if situation.is_at_work or situation.is_done:
        night.arrive(session)
        (night.until_done if situation.is_done else night.until_at_work)(session)
    row, began = Row(situation), time.time()
    logs = {"up": len(night.stack.log.read_text()), "log": len(night.log("watch"))}
    try:
        situation.harm(night, session)
        row = replace(row, told=told(night, situation, logs, began))
        situation.undo(night, session)
        ended = began if situation.undo is Situation.undo else time.time()
        if not night.place(session).exists():
            night.arrive(session)
        night.until(
            lambda: night.stages(ended, session) or night.done(session) == situation.tomograms,
            "work goes on", DONE_SECONDS,
        )  # fmt: skip
        row = replace(row, seconds=time.time() - ended)
        night.until_done(session)
    except (TimeoutError, OSError, subprocess.SubprocessError) as error:
        row = replace(row, problem=f"{error}".replace("\n", " ")[:120])
    counted = Counter(night.stages(session=session)).values()
    return replace(
        row,
        lost=MASKS * situation.tomograms - night.masks(session),
        double=sum(number > situation.again for number in counted),
    )


def told(
    night: Night, situation: Situation, logs: dict[str, int], began: float
) -> dict[str, float | None]:
    """Return after how many seconds each place said what it must; None where it never did."""
    session = situation.session
    places: dict[str, Callable[[], str]] = {
        "status": lambda: night.command("status", str(night.home / "out")),
        "look": lambda: night.watch("--look"),
        "metrics": night.metrics,
        "page": lambda: night.page(session),
        "log": lambda: night.log("watch")[logs["log"] :],
        "up": lambda: night.stack.log.read_text()[logs["up"] :],
        "commands": lambda: night.extra,
    }

    def seek(place: str) -> float | None:
        while True:
            if re.search(situation.told[place], places[place](), re.MULTILINE):
                return time.time() - began
            if time.time() - began > situation.seconds or place == "commands":
                return None
            time.sleep(0.5)

    with ThreadPoolExecutor() as pool:
        return dict(zip(situation.told, pool.map(seek, situation.told), strict=True))


def main() -> int:
    """Let the night pass, and tell."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.formatter_class = argparse.RawDescriptionHelpFormatter
    parser.add_argument("folder", type=Path)
    parser.add_argument("--only", nargs="+", default=[""], metavar="WORDS")
    given = parser.parse_args()
    home = given.folder.resolve()
    contents = site(home, 0)
    (home / "in").mkdir()
    watch = json.loads((home / "watch.yaml").read_text()) | {"pauses_seconds": [5, 10, 20]}
    (home / "watch.yaml").write_text(json.dumps(watch))
    stack = Stack(home, os.environ | {"PYTHONPATH": str(ROOT), "TMPDIR": str(home / "tmp")})
    rows = ["| situation | told | lost | double | goes on (s) | |", "|---|---|---|---|---|---|"]
    is_right = True
    with ExitStack() as after, stack.running(home / "watch.yaml"):
        after.callback(unmount, home)
        night = Night(home, stack, contents)
        for situation in NIGHT:
            if any(words in situation.name for words in given.only):
                try:
                    row = undergone(night, situation)
                except Skipped as reason:
                    rows.append(f"| {situation.name} | skipped: {reason} | | | | |")
                else:
                    rows.append(row.line())
                    is_right &= row.is_right
                print(rows[-1], flush=True)
    print("\n", *rows, sep="\n")
    (home / "night.md").write_text("\n".join(rows) + "\n")
    return 0 if is_right else 1


def unmount(home: Path) -> None:
    """Take away the disks that were mounted."""
    for folder in (home / "out").glob("*"):
        if folder.is_mount() and shutil.which("umount"):
            subprocess.run(["umount", "--lazy", folder], check=False)


if __name__ == "__main__":
    sys.exit(main())
