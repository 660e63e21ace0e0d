"""Folders, volumes and tomograms in object storage, against a server on this machine."""

import contextlib
import importlib.util
import os
import shlex
from dataclasses import asdict

import fsspec
import numpy as np
import pytest
import servers

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import ClaimError, RequestError, StoreError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.discovery import discover
from tomoseg.io.stores import (
    Folder,
    Ledger,
    OmeZarrReader,
    Volume,
    claimed,
    fingerprint,
    listing,
    living_owner,
    write_image_metadata,
)
from tomoseg.io.volumes.mrc import MrcWriter
from tomoseg.io.volumes.mrc_header import HEADER_BYTES
from tomoseg.io.volumes.sources import open_source
from tomoseg.pipeline.checkup import compare_session, lost_of
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import load_recipe, recipe_from
from tomoseg.service.usage import disk_of

if any(importlib.util.find_spec(name) is None for name in ("s3fs", "moto")):
    pytest.skip("s3fs or moto is not installed", allow_module_level=True)

from aiobotocore.client import AioBaseClient

GRID = Sampling((40, 64, 48), (13.68, 13.68, 13.68))


@pytest.fixture(scope="module")
def server():
    """Run an S3 server in this process."""
    from moto.server import ThreadedMotoServer

    running = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture(scope="module")
def client(server):
    """Another program's client; credentials and address come from the environment."""
    import boto3

    with servers.served_by(servers.client_environment(server)):
        yield boto3.session.Session().client("s3")


@pytest.fixture
def bucket(client, request):
    """An empty bucket of this test's own."""
    name = request.node.name.replace("_", "-")
    client.create_bucket(Bucket=name)
    return name


@pytest.fixture
def folder(bucket):
    return Folder(f"s3://{bucket}/session")


def keys(client, bucket):
    rows = client.list_objects_v2(Bucket=bucket).get("Contents", [])
    return [row["Key"] for row in rows]


def test_files_are_objects(client, bucket, folder):
    assert folder.names() == []
    folder.write("a/b.bin", b"123")
    folder.write_json("a/c.json", {"x": 1})
    assert keys(client, bucket) == ["session/a/b.bin", "session/a/c.json"]
    assert folder.read("a/b.bin") == b"123"
    assert folder.names() == ["a"]
    assert folder.names("a") == ["b.bin", "c.json"]
    assert list(listing(f"{folder.url}/a")) == [f"{folder.url}/a/b.bin", f"{folder.url}/a/c.json"]
    with pytest.raises(StoreError, match="there is no file s3://"):
        folder.read("a/d")
    with pytest.raises(RequestError, match="does not exist"):
        fingerprint(f"{folder.url}/d")


def test_what_others_write_is_seen_at_once(client, bucket, folder):
    folder.write("a/x", b"1")
    assert folder.names("a") == ["x"]
    assert not folder.exists("a/y")
    client.put_object(Bucket=bucket, Key="session/a/y", Body=b"2")
    assert folder.exists("a/y")
    assert folder.names("a") == ["x", "y"]
    client.delete_object(Bucket=bucket, Key="session/a/x")
    assert not folder.exists("a/x")
    assert folder.names("a") == ["y"]


def test_a_fingerprint_follows_the_etag(client, bucket, folder):
    client.put_object(Bucket=bucket, Key="session/a.mrc", Body=b"12345")
    first = fingerprint(f"{folder.url}/a.mrc")
    etag = client.head_object(Bucket=bucket, Key="session/a.mrc")["ETag"]
    assert first["size"] == 5
    assert etag in first["version"]
    client.put_object(Bucket=bucket, Key="session/a.mrc", Body=b"54321")
    assert fingerprint(f"{folder.url}/a.mrc") != first


def test_a_listing_tells_versions_as_a_look_at_each_file_does(client, bucket, folder):
    client.put_object(Bucket=bucket, Key="session/", Body=b"")
    client.put_object(Bucket=bucket, Key="session/a.mrc", Body=b"12345")
    client.put_object(Bucket=bucket, Key="session/deep/b.mrc", Body=b"1")
    file, deep = folder.entries()
    assert (deep.name, deep.is_folder) == ("deep", True)
    told = fingerprint(f"{folder.url}/a.mrc")
    assert (file.name, file.size, file.version) == ("a.mrc", told["size"], told["version"])
    assert folder.entries("nowhere") == []


def test_an_idle_look_costs_few_requests(client, bucket, tmp_path, monkeypatch):
    from datetime import UTC, datetime, timedelta

    import s3fs

    from tomoseg.service.watching.looks import look
    from tomoseg.service.watching.settings import load_watch

    content = b"\0" * HEADER_BYTES
    for number in range(5):
        client.put_object(Bucket=bucket, Key=f"in/s1/t{number}.mrc", Body=content)
    (tmp_path / "recipe.yaml").write_text("{}")
    (tmp_path / "watch.yaml").write_text(
        f"{{sessions: 's3://{bucket}/in/*', output: 's3://{bucket}/out/{{session}}', "
        "recipes: [{recipe: recipe.yaml}]}"
    )
    watch, now = load_watch(tmp_path / "watch.yaml"), datetime.now(UTC)
    for minutes in (0, 1):
        (one,) = look(watch, now + timedelta(minutes=minutes))
        assert one.problem == ""
    assert set(one.standings.values()) == {"incomplete"}
    (one,) = look(watch, now + timedelta(minutes=20))
    assert len(one.ready) == 5
    called = []
    call = s3fs.S3FileSystem._call_s3

    async def counted(self, method, *arguments, **keywords):
        called.append(getattr(method, "__name__", method))
        return await call(self, method, *arguments, **keywords)

    monkeypatch.setattr(s3fs.S3FileSystem, "_call_s3", counted)
    (again,) = look(watch, now + timedelta(minutes=21))
    assert again == one
    assert "put_object" not in called
    assert len(called) < 20, called


def test_removing_takes_no_name_as_a_pattern(client, bucket, folder):
    folder.write("rec_[1]/deep/x", b"1")
    folder.write("rec_1/x", b"1")
    folder.remove("rec_[1]")
    folder.remove("rec_[1]")
    assert keys(client, bucket) == ["session/rec_1/x"]


def test_what_fails_while_it_is_written_is_not_there(client, bucket, folder):
    with pytest.raises(KeyboardInterrupt), folder.publishing("a") as file:
        file.write(b"half")
        raise KeyboardInterrupt
    assert keys(client, bucket) == []


def test_receipts_in_object_storage(folder):
    ledger = Ledger(folder, "segment", "0" * 64)
    ledger.begin()
    ledger.write_arrays("b1", {"face": np.arange(3)})
    assert ledger.done() == set()
    ledger.write("b1", {"seconds": 1})
    assert ledger.done() == {"b1"}
    assert ledger.read_arrays("b1")["face"].tolist() == [0, 1, 2]
    ledger.forget_all()
    assert ledger.done() == set()
    assert not ledger.has_begun


def test_one_run_at_a_time_in_a_bucket(folder):
    assert folder.create("x", b"1")
    assert not folder.create("x", b"2")
    assert folder.create("x", b"1"), "our own write, tried again after its answer was lost"
    with claimed(folder):
        with pytest.raises(ClaimError, match=f"process {os.getpid()}"):
            claimed(folder).__enter__()
        dead = {**asdict(living_owner(folder)), "seen": "2026-01-01T00:00:00+00:00"}
    assert living_owner(folder) is None
    folder.write_json(".tomoseg/claim-000007.json", dead)
    with claimed(folder):
        assert folder.names(".tomoseg") == ["claim-000008.json"]
        assert living_owner(folder).pid == os.getpid()


def test_one_run_at_a_time_without_conditional_writes(folder, monkeypatch):
    system = fsspec.filesystem("s3", use_listings_cache=False)
    put = system.pipe_file
    refused = []

    def plain(path, data, mode="overwrite"):
        if mode == "create":
            refused.append(path)
            raise OSError(38, "A header you provided implies functionality not implemented")
        put(path, data)

    monkeypatch.setattr(system, "pipe_file", plain)
    with claimed(folder), pytest.raises(ClaimError, match=f"process {os.getpid()}"):
        claimed(folder).__enter__()
    assert living_owner(folder) is None
    assert len(refused) == 1


def test_volumes_are_objects_a_shard(client, bucket, folder):
    voxels = np.random.default_rng(0).integers(1, 99, GRID.shape, np.int16)
    group = folder / "t.zarr"
    volume = Volume(group, "0")
    volume.create(GRID.shape, "int16", shard=(32, 64, 32))
    for block in BlockGrid(GRID.shape, (32, 64, 32)):
        volume.write(block.write, voxels[block.write.slices])
    write_image_metadata(group, "t", [GRID], Header(GRID, "int16"))
    shards = [key for key in keys(client, bucket) if "/c/" in key]
    assert shards == [f"session/t.zarr/0/c/{z}/0/{x}" for z in (0, 1) for x in (0, 1)]
    reader = OmeZarrReader(group.url)
    assert reader.header.sampling == GRID
    box = Box((30, 1, 31), (34, 64, 33))
    assert np.array_equal(reader.read(box), voxels[box.slices])
    with pytest.raises(StoreError, match="would cut a shard"):
        volume.write(box, voxels[box.slices])


def test_a_tomogram_is_read_by_ranges(bucket, folder, monkeypatch):
    import s3fs

    voxels = np.random.default_rng(0).normal(size=GRID.shape).astype(np.float32)
    with (
        folder.publishing("t.mrc") as file,
        MrcWriter(file, Header(GRID, "float32"), np.float32, label="test") as writer,
    ):
        writer.write(Box.whole(GRID.shape), voxels)
    fetched = []
    fetch = s3fs.core.S3File._fetch_range

    def counted(self, start, end):
        content = fetch(self, start, end)
        fetched.append(len(content))
        return content

    monkeypatch.setattr(s3fs.core.S3File, "_fetch_range", counted)
    (found,) = discover([folder.url])
    assert (found.name, found.url) == ("t", f"s3://{bucket}/session/t.mrc")
    with open_source(found.url) as source:
        assert source.header.sampling == GRID
        assert sum(fetched) == HEADER_BYTES
        box = Box((10, 0, 0), (13, 64, 48))
        assert np.array_equal(source.read(box), voxels[box.slices])
    assert fetched == [HEADER_BYTES, box.size * 4]


def test_a_name_is_asked_about_once(folder, monkeypatch):
    """Each request takes some hundredths of a second, and a session asks thousands of times."""
    asked = []
    honest = AioBaseClient._make_api_call

    async def noted(self, operation, given):
        asked.append(operation)
        return await honest(self, operation, given)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", noted)

    def asks(what):
        asked.clear()
        with contextlib.suppress(StoreError):
            what()
        return asked

    for name in ("a.json", "b/c/d.json", "b/c/e.json", "b.json"):
        folder.write_json(name, {})
    for name in ("a.json", "b", "b/c/d.json", "none", "b/none"):
        assert asks(lambda name=name: folder.exists(name)) == ["ListObjectsV2"]
        assert asks(lambda name=name: folder.is_file(name)) == ["HeadObject"]
        assert asks(lambda name=name: folder.size(name)) == ["HeadObject"]
        assert asks(lambda name=name: folder.read(name)) == ["GetObject"]
    there = [folder.exists(name) for name in ("a.json", "b", "b/c", "a", "b/c/", "none")]
    assert there == [True, True, True, False, True, False]
    assert asks(lambda: folder.remove("none")) == ["ListObjectsV2"]
    assert asks(lambda: folder.remove("a.json")) == ["ListObjectsV2", "DeleteObject"]
    assert asks(lambda: folder.remove("b")) == ["ListObjectsV2"] * 2 + ["DeleteObjects"]
    assert folder.names() == ["b.json"]


def test_a_name_is_found_and_removed_over_many_pages(folder, monkeypatch):
    honest = AioBaseClient._make_api_call

    async def two_a_page(self, operation, given):
        pages = {"MaxKeys": 2} if operation == "ListObjectsV2" else {}
        return await honest(self, operation, given | pages)

    monkeypatch.setattr(AioBaseClient, "_make_api_call", two_a_page)
    others = [f"b-{n}.json" for n in range(5)]
    for name in (*others, "b", *(f"b/{n}/x" for n in range(5))):
        folder.write(name, b"1")
    assert [folder.exists(name) for name in ("b", "b/4", "b-4.json", "b-")] == [True] * 3 + [False]
    folder.remove("b")
    assert not folder.exists("b")
    assert folder.names() == others


def test_what_a_store_does_not_remove_is_told(folder, monkeypatch):
    folder.write("a/b", b"1")
    honest = AioBaseClient._make_api_call
    error = {"Key": "session/a/b", "Message": "No"}

    async def refused(self, operation, given):
        if operation != "DeleteObjects":
            return await honest(self, operation, given)
        return {"Errors": [error]}

    monkeypatch.setattr(AioBaseClient, "_make_api_call", refused)
    for code, kind in (("AccessDenied", PermissionError), ("InternalError", OSError)):
        error["Code"] = code
        with pytest.raises(kind, match=r"No: .*/session/a/b") as raised:
            folder.remove("a")
        assert type(raised.value) is kind
        assert folder.exists("a/b")


def test_a_session_runs_from_a_bucket_into_a_bucket(client, bucket, tiny_model, tiny_session):
    name = "simulated_0500"
    client.upload_file(str(tiny_session / f"{name}.mrc"), bucket, f"krios/{name}.mrc")
    recipe = recipe_from(
        {
            "session": {"input": f"s3://{bucket}/krios", "output": f"s3://{bucket}/results"},
            "segment": {"model": str(tiny_model)},
            "compute": {"runner": "serial"},
        }
    )
    for state in ("done", "already there"):
        result = run_session(plan_session(recipe), lambda *progress: None)
        (row,) = result["tomograms"]
        assert row["state"] == state, row
    results = Folder(f"s3://{bucket}/results")
    assert all(results.exists(path) for path in [*row["files"], row["picture"], "index.html"])
    stored = OmeZarrReader(f"{results.url}/{name}/tomogram.zarr")
    with open_source(str(tiny_session / f"{name}.mrc")) as source:
        whole = Box.whole(source.header.sampling.shape)
        np.testing.assert_array_equal(stored.read(whole), source.read(whole))
    disk = disk_of(results)
    listed = client.get_paginator("list_objects_v2").paginate(Bucket=bucket, Prefix="results/")
    assert disk["total"] == sum(item["Size"] for page in listed for item in page["Contents"])
    assert all(disk[kind] > 0 for kind in ("results", "work", "receipts"))
    assert all(one.is_whole for one in compare_session(results))
    results.remove(lost := f"{name}/masks/{name}__actin.mrc")
    assert lost_of(results, name) == [lost.removeprefix(f"{name}/")]
    (one,) = (one for one in compare_session(results) if not one.is_whole)
    words = shlex.split(one.command)
    assert words[2] == f"s3://{bucket}/krios/{name}.mrc"
    again = load_recipe(words[words.index("-r") + 1])
    run_session(plan_session(again), lambda *progress: None)
    assert results.exists(lost)
