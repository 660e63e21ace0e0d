"""The version: of the very files, wherever they lie; the commit only where it is ours."""

import shutil
import subprocess
import sys
import zipfile
from importlib.metadata import version as installed
from importlib.resources import files
from pathlib import Path

import pytest

import tomoseg
from tomoseg.core import version
from tomoseg.core.version import code_version, environment, git_commit, source_hash

PACKAGE = Path(tomoseg.__file__).parent


@pytest.fixture
def package(tmp_path):
    """A small package with a module below, a cache and data."""
    folder = tmp_path / "place" / "package"
    (folder / "below" / "__pycache__").mkdir(parents=True)
    (folder / "__init__.py").write_text('__version__ = "1"\n')
    (folder / "below" / "code.py").write_text("ANSWER = 42\n")
    (folder / "below" / "__pycache__" / "code.pyc").write_bytes(b"anything")
    (folder / "page.css").write_text("body {}")
    return folder


def test_the_hash_is_of_modules_their_names_and_bytes(package):
    before = source_hash(package)
    (package / "below" / "__pycache__" / "code.pyc").write_bytes(b"else")
    (package / "page.css").write_text("body { margin: 0 }")
    assert source_hash(package) == before
    (package / "below" / "code.py").write_text("ANSWER = 43\n")
    changed = source_hash(package)
    (package / "below" / "code.py").rename(package / "below" / "cod.py")
    renamed = source_hash(package)
    (package / "new.py").touch()
    assert len({before, changed, renamed, source_hash(package)}) == 4


def test_the_hash_is_the_same_in_another_place_and_in_an_archive(package, tmp_path, monkeypatch):
    before = source_hash(package)
    copied = shutil.copytree(package, tmp_path / "copy")
    assert source_hash(copied) == before
    archive = tmp_path / "zipped.zip"
    with zipfile.ZipFile(archive, "w") as file:
        for path in sorted(package.rglob("*"), reverse=True):
            file.write(path, Path("zipped") / path.relative_to(package))
    monkeypatch.syspath_prepend(str(archive))
    assert source_hash(files("zipped")) == before
    monkeypatch.delitem(sys.modules, "zipped")


def test_modules_without_their_source_count_too(package):
    before = source_hash(package)
    (package / "below" / "compiled.pyc").write_bytes(b"1")
    first = source_hash(package)
    (package / "below" / "compiled.pyc").write_bytes(b"2")
    assert len({before, first, source_hash(package)}) == 3


def test_the_version_is_the_release_and_the_hash_of_this_package():
    assert code_version() == f"{tomoseg.__version__}+{source_hash(PACKAGE)[:12]}"


@pytest.fixture
def commit_of(monkeypatch):
    def ask(package):
        monkeypatch.setattr(version, "files", lambda name: package)
        git_commit.cache_clear()
        return git_commit()

    yield ask
    git_commit.cache_clear()


def test_the_commit_is_that_of_a_checkout(package, commit_of):
    """Whether a branch's commit stands by itself or packed, of a worktree or without a branch."""
    git = shutil.which("git")
    if git is None:
        pytest.skip("git is not installed")
    place = package.parent

    def run(*words):
        names = ("-c", "user.name=a", "-c", "user.email=a@b.c")
        return subprocess.run(
            [git, *names, *words], cwd=place, check=True, capture_output=True, text=True
        ).stdout.strip()

    run("init", "--quiet")
    assert commit_of(package) == ""
    run("add", ".")
    run("commit", "--quiet", "--message=x")
    head = run("rev-parse", "HEAD")[:12]
    assert commit_of(package) == head
    run("pack-refs", "--all")
    assert commit_of(package) == head
    run("worktree", "add", "--quiet", "beside")
    assert commit_of(place / "beside" / package.name) == head
    run("checkout", "--quiet", "--detach")
    assert commit_of(package) == head


def test_where_nothing_is_checked_out_there_is_no_commit(package, commit_of):
    assert commit_of(package) == ""
    (package.parent / ".git").mkdir()
    (package.parent / ".git" / "HEAD").write_text("ref: ../../elsewhere")
    assert commit_of(package) == ""


def test_what_else_may_change_a_result_is_said():
    said = environment()
    assert said["tomoseg"] == code_version()
    assert said["torch"] == installed("torch")
    assert said["numpy"] == installed("numpy")
    assert said["python"] == "{}.{}.{}".format(*sys.version_info[:3])
    assert said["platform"]
    assert said["processor"]


def test_a_library_that_is_not_there_has_no_version():
    assert version._installed("no-such-library-here") == ""
