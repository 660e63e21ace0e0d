"""Only what may be opened is: protocols, roots, credentials, names that lead out of a folder."""

import os

import pytest

from tomoseg.core.errors import RequestError, StoreError, TomosegError
from tomoseg.exchange.exports import export_points
from tomoseg.exchange.imports import ImportRequest, import_file
from tomoseg.io.discovery import discover
from tomoseg.io.stores import Folder, checked_url, listing, open_file, scratch_folder
from tomoseg.io.volumes.sources import Found, companion_url
from tomoseg.pipeline.checks import look_at_file
from tomoseg.pipeline.exports import ExportRequest
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages.networks import load_networks
from tomoseg.recipe.recipe import recipe_from
from tomoseg.service.status import session_status
from tomoseg.training.recipe import training_recipe

FORBIDDEN = (
    "http://169.254.169.254/latest/meta-data/",
    "https://a.org/a.mrc",
    "simplecache::s3://bucket/a.mrc",
    "s3://bucket/a.mrc::http://a.org",
    "s3://key:hunter22@bucket/a.mrc",
    "s3://bucket/../other/a.mrc",
    "file://host/etc/passwd",
    "ftp://a.org/a.mrc",
    "/data/a\0.mrc",
)


def recipe(**sections):
    session = {"output": "/nowhere/out", "input": ["/nowhere"], **sections.pop("session", {})}
    return recipe_from({"session": session, **sections})


ENTRANCES = {
    "input": lambda url: plan_session(recipe(session={"input": [url]})),
    "output": lambda url: plan_session(recipe(session={"output": url}), []),
    "mask": lambda url: companion_url(url, Found("a", "file:///a.mrc")),
    "model": lambda url: load_networks(recipe(segment={"model": url}).segment),
    "competing model": lambda url: load_networks(
        recipe(segment={"networks": [{"model": url}]}).segment
    ),
    "info": look_at_file,
    "status": session_status,
    "export": lambda url: export_points(url, ExportRequest(to="csv")),
    "import": lambda url: import_file(ImportRequest(url=url, into="/nowhere", name="a")),
    "import into": lambda url: import_file(ImportRequest(url="a.csv", into=url, name="a")),
    "folder": Folder,
    "file": open_file,
    "listing": listing,
    "discover": lambda url: discover([url]),
    "model to go on from": lambda url: training_recipe(
        {"output": "x", "init_from": url, "classes": ["a"]}
    ),
}


@pytest.mark.parametrize("url", FORBIDDEN)
@pytest.mark.parametrize("entrance", ENTRANCES)
def test_nothing_but_files_and_s3_is_opened(entrance, url, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(TomosegError) as caught:
        ENTRANCES[entrance](url)
    if entrance != "import":  # which looks at the tomogram first
        assert isinstance(caught.value, RequestError)
    assert "hunter22" not in str(caught.value)
    assert "cannot be read" not in str(caught.value)  # it was not even tried


@pytest.mark.parametrize(
    "pattern",
    [
        "{name.__class__}",
        "{folder!r}",
        "{name:>99999999999}",
        "{0}",
        "{",
        "{other}/x.mrc",
    ],
)
def test_a_companion_is_named_by_folder_and_name_alone(pattern):
    with pytest.raises(RequestError, match=r"Use \{folder\} and \{name\}, nothing else"):
        companion_url(pattern, Found("a", "file:///d/a.mrc"))


@pytest.mark.parametrize("name", ["../x", "a/../../x", "/etc/passwd", "a\0b", ".."])
def test_no_name_leads_out_of_a_folder(folder, name):
    folder.write("inside", b"1")
    inner = folder / "inner"
    for use in (
        lambda: inner.read(name),
        lambda: inner.write(name, b"x"),
        lambda: inner.create(name, b"x"),
        lambda: inner.exists(name),
        lambda: inner.remove(name),
        lambda: inner.names(name),
        lambda: inner / name,
        lambda: list(inner.files(name)),
    ):
        with pytest.raises(StoreError, match="is no name of a file in"):
            use()
    assert folder.names() == ["inside"]


@pytest.fixture
def roots(tmp_path, monkeypatch):
    """Two roots, a folder and a prefix; beside them a folder with a secret."""
    for name in ("data", "secret", "data-too"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "a.mrc").write_bytes(b"x")
    monkeypatch.setenv("TOMOSEG_ROOTS", f"{tmp_path}/data, s3://sessions/krios")
    return tmp_path


@pytest.mark.parametrize(
    "place",
    [
        "{root}/secret/a.mrc",
        "{root}/data/../secret/a.mrc",
        "file://{root}/data/../secret/a.mrc",
        "file:////{root}/secret",
        "{root}/data-too/a.mrc",
        "{root}",
        "/etc/passwd",
        "s3://sessions/krios2/a.mrc",
        "s3://sessions",
        "memory://x",
    ],
)
def test_nothing_outside_the_roots_is_opened(roots, place):
    with pytest.raises(RequestError, match=r"outside the folders .*or extend TOMOSEG_ROOTS"):
        checked_url(place.format(root=roots))


@pytest.mark.parametrize(
    "place",
    ["{root}/data", "file://{root}/data/a.mrc", "s3://sessions/krios/x", "s3://sessions/krios"],
)
def test_roots_themselves_and_what_is_in_them_is_opened(roots, place):
    assert checked_url(place.format(root=roots))


def test_a_link_does_not_lead_out_of_a_root(roots):
    (roots / "data" / "link.mrc").symlink_to(roots / "secret" / "a.mrc")
    with pytest.raises(RequestError, match="outside the folders"):
        open_file(f"file://{roots}/data/link.mrc")
    # It is refused for itself: the session's other tomograms are processed.
    found = {one.name: one.url for one in discover([f"{roots}/data"])}
    assert set(found) == {"a", "link"}
    with pytest.raises(RequestError, match="outside the folders"):
        look_at_file(found["link"])


def test_a_scratch_folder_may_be_opened_while_it_is_there(roots):
    with scratch_folder() as scratch:
        folder = Folder(scratch)
        folder.write("a", b"1")
        assert (folder / "b").names() == []
    with pytest.raises(RequestError, match="outside the folders"):
        Folder(scratch)
    assert not os.path.exists(scratch.removeprefix("file://"))


def test_without_roots_every_file_may_be_opened(monkeypatch, tmp_path):
    monkeypatch.setenv("TOMOSEG_ROOTS", " , ")
    assert checked_url(str(tmp_path)) == f"file://{tmp_path}"
