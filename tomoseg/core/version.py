"""Which tomoseg this is: its release, a hash of its own files, and what it computes with.

The release is a constant that a person changes now and then; the hash changes with every line of
code, so that what other code made is never taken for this code's. Shipped models are not in it:
what a stage does with one is told by its card, which holds the digest of the weights.
"""

from __future__ import annotations

import hashlib
import platform
import re
from collections.abc import Iterator
from contextlib import suppress
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from importlib.resources.abc import Traversable
from pathlib import Path

from tomoseg import __version__

LIBRARIES = (
    "torch", "numpy", "scipy", "scikit-image", "connected-components-3d", "zarr", "numcodecs",
    "pandas", "matplotlib", "tifffile", "dask",
)  # fmt: skip
"""Those whose version may change a result."""


@cache
def code_version() -> str:
    """Return the release and the hash of the code: ``0.1.0+3f2a9c1b2d4e``."""
    return f"{__version__}+{source_hash(files('tomoseg'))[:12]}"


def source_hash(package: Traversable) -> str:
    """Return the SHA-256 of a package's modules: their paths in it, and their bytes.

    The package may be a folder, as installed or as checked out, or lie in an archive.
    """
    digest = hashlib.sha256()
    for name, module in sorted(_modules(package)):
        content = module.read_bytes()
        digest.update(f"{name} {len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _modules(package: Traversable, below: str = "") -> Iterator[tuple[str, Traversable]]:
    for item in package.iterdir():
        name = f"{below}{item.name}"
        if item.is_dir():
            # Caches, and the folders of editors.
            if item.name != "__pycache__" and not item.name.startswith("."):
                yield from _modules(item, f"{name}/")
        elif name.endswith((".py", ".pyc")):
            yield name, item


@cache
def git_commit() -> str:
    """Return the commit that the package is checked out at, for people: ``3f2a9c1b2d4e``.

    Empty where it is not checked out. What was changed since is told by the hash.
    """
    beside = Path(str(files("tomoseg"))).parent / ".git"
    with suppress(OSError, UnicodeDecodeError):
        git = beside
        if git.is_file():  # a worktree
            git = beside.parent / beside.read_text().partition(":")[2].strip()
        found = _resolved(git, (git / "HEAD").read_text().strip())
        return found[:12] if re.fullmatch("[0-9a-f]{40,64}", found) else ""
    return ""


def _resolved(git: Path, head: str) -> str:
    """Return the commit that a checkout's head names, by itself or as a branch."""
    kind, _, branch = head.partition(": ")
    if kind != "ref":
        return head
    shared = git / "commondir"
    common = git / shared.read_text().strip() if shared.is_file() else git
    for place in (git, common):
        if (place / branch).is_file():
            return (place / branch).read_text().strip()
    packed = (common / "packed-refs").read_text().splitlines()
    return next((line.split()[0] for line in packed if line.endswith(f" {branch}")), "")


def said_version() -> str:
    """Return the version for people: with the commit, where there is one."""
    commit = git_commit()
    return f"{code_version()} (git {commit})" if commit else code_version()


@cache
def environment() -> dict[str, str]:
    """Return all that may change a result beside the code, for a manifest.

    Nothing heavy is imported for it.
    """
    return {
        "tomoseg": code_version(),
        "git": git_commit(),
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processor": _processor(),
        **{name: _installed(name) for name in LIBRARIES},
    }


def _installed(name: str) -> str:
    try:
        return version(name)
    except PackageNotFoundError:
        return ""


def _processor() -> str:
    """Return the processor's name: Linux tells Python none."""
    with suppress(OSError), open("/proc/cpuinfo") as file:
        for line in file:
            if line.startswith("model name"):
                return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()
