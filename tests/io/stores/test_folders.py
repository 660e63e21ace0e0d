"""Folders, receipts and sharded volumes, on disk and in memory."""

import json
import os
import pickle

import fsspec
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError, StoreError
from tomoseg.io.stores import (
    Folder,
    Ledger,
    Volume,
    checked_url,
    digest,
    discard,
    fingerprint,
    free_bytes,
    inner_chunk,
    items_below,
    ledgers,
    listing,
    noted_writes,
    open_file,
    seals,
    transfer,
)

SHAPE = (10, 12, 9)
SHARD = (4, 6, 8)


@pytest.fixture
def local(tmp_path):
    return Folder(str(tmp_path / "local"))


# Folders


def test_a_file_comes_back_and_is_listed(folder):
    folder.write("a/b.bin", b"one")
    folder.write("a/b.bin", b"two")
    folder.write_json("a/c.json", {"å": [1, 2.5, None]})
    folder.write_arrays("a/d.npz", {"x": np.arange(3), "y": np.zeros((2, 2), bool)})
    assert folder.read("a/b.bin") == b"two"
    assert folder.read_json("a/c.json") == {"å": [1, 2.5, None]}
    arrays = folder.read_arrays("a/d.npz")
    assert arrays["x"].tolist() == [0, 1, 2]
    assert arrays["y"].dtype == bool
    assert folder.names() == ["a"]
    assert folder.names("a") == ["b.bin", "c.json", "d.npz"]
    assert folder.names("nowhere") == []
    assert folder.exists("a")
    assert folder.exists("a/b.bin")
    assert not folder.exists("a/b")
    assert (folder / "a").read("b.bin") == b"two"
    assert next(iter(listing((folder / "a").url))) == f"{folder.url}/a/b.bin"


def test_what_is_not_there_is_named(folder):
    folder.write("a/b", b"1")
    with pytest.raises(StoreError, match=r"there is no file .*/a/c$"):
        folder.read("a/c")
    with pytest.raises(StoreError, match=r"there is no file .*/a$"):
        folder.read("a")
    with pytest.raises(RequestError, match="nowhere does not exist"):
        open_file(f"{folder.url}/nowhere")
    with pytest.raises(RequestError, match="nowhere does not exist"):
        fingerprint(f"{folder.url}/nowhere")
    with pytest.raises(RequestError, match="nowhere is not a folder"):
        listing(f"{folder.url}/nowhere")
    folder.remove("nowhere")


def test_a_folder_for_a_file_is_a_wrong_request(tmp_path):
    with pytest.raises(RequestError, match="is a folder, not a file"):
        open_file(str(tmp_path))


def test_numbers_that_json_has_not_are_refused(folder):
    with pytest.raises(ValueError, match="JSON"):
        folder.write_json("a.json", {"score": float("nan")})
    assert not folder.exists("a.json")


def test_arrays_of_objects_are_not_loaded(folder):
    folder.write_arrays("a.npz", {"x": np.array([{}], dtype=object)})
    with pytest.raises(StoreError, match="objects are not read"):
        folder.read_arrays("a.npz")


@pytest.mark.parametrize(
    "name",
    ["with space", "hash#and?", "50%20", "größe", "a::b", "[1]", "*", "s3::memory"],
)
def test_names_are_taken_literally(folder, name):
    if "::" in name and not folder.is_local:
        pytest.skip("refused in object storage: it could be a chain of protocols")
    inner = folder / name
    inner.write("x", name.encode())
    inner.write("y", b"other")
    assert folder.names() == [name]
    assert inner.names() == ["x", "y"]
    assert inner.read("x") == name.encode()


@pytest.mark.parametrize(("removed", "kept"), [("rec_[1]", "rec_1"), ("rec_*", "rec_1")])
def test_removing_takes_no_name_as_a_pattern(folder, removed, kept):
    folder.write(f"{removed}/deep/x", b"1")
    folder.write(f"{kept}/x", b"1")
    folder.remove(removed)
    assert folder.names() == [kept]
    folder.remove(removed)
    assert folder.names() == [kept]


def test_what_fails_while_it_is_written_is_not_seen(folder):
    folder.write("a", b"old")
    with pytest.raises(KeyboardInterrupt), folder.publishing("a") as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    with pytest.raises(OSError, match="full"), folder.publishing("b") as file:
        file.write(b"half")
        raise OSError("full")
    assert folder.names() == ["a"]
    assert folder.read("a") == b"old"


def test_what_is_being_written_is_not_seen_before_it_is_whole(folder):
    with folder.publishing("a") as file:
        file.write(b"12345")
        file.flush()
        assert not folder.exists("a")
        file.seek(1)
        file.write(b"x")
    assert folder.read("a") == b"1x345"


def test_two_writers_of_one_file_do_not_mix(local):
    with local.publishing("a") as first:
        first.write(b"first")
        first.flush()
        with local.publishing("a") as second:
            second.write(b"second")
        assert local.read("a") == b"second"
    assert local.read("a") == b"first"
    assert local.names() == ["a"]


def test_a_reader_keeps_the_file_that_it_opened(local):
    local.write("a", b"old")
    with open_file(f"{local.url}/a") as reader:
        local.write("a", b"newer")
        assert reader.read() == b"old"
    assert local.read("a") == b"newer"


def test_a_folder_pickles_as_its_url(folder):
    assert pickle.loads(pickle.dumps(folder)) == folder


def test_free_space_is_that_of_the_disk_the_folder_will_be_on(tmp_path):
    assert free_bytes(Folder(str(tmp_path / "not" / "yet"))) == pytest.approx(
        os.statvfs(tmp_path).f_bavail * os.statvfs(tmp_path).f_frsize, rel=0.2
    )
    assert free_bytes(Folder("memory://x")) is None


def test_other_writers_are_seen_at_once(folder):
    assert folder.names("a") == []
    assert not folder.exists("a/x")
    system = fsspec.filesystem(folder.url.partition("://")[0])
    path = f"{folder.url.partition('://')[2]}/a/x"
    system.makedirs(path.rpartition("/")[0], exist_ok=True)
    system.pipe_file(path, b"1")
    assert folder.names("a") == ["x"]
    assert folder.exists("a/x")


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://169.254.169.254/latest", "a recipe must not reach a cloud's own services"),
        ("https://a.org/b.mrc", "nor the network at large"),
        ("simplecache::s3://bucket/key", "a chain can reach anything"),
        ("simplecache::http://a.org", "a chain"),
        ("zip://x::s3://bucket/key", "a chain"),
        ("s3://bucket/key::http://a.org", "a chain behind an allowed protocol"),
        ("file:///etc::zip://x", "a chain behind an allowed protocol"),
        ("gcs://bucket/key", "not a protocol that is supported"),
        ("S3://bucket/key", "protocols are lower case"),
        ("://x", "no protocol"),
    ],
)
def test_other_places_are_refused(url, reason):
    with pytest.raises(RequestError, match=r"Use a path or one of file://, s3://, memory://\."):
        checked_url(url)
    with pytest.raises(RequestError):
        Folder(url)
    with pytest.raises(RequestError):
        open_file(url)


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("s3://bucket/session/", "s3://bucket/session"),
        ("memory://a", "memory://a"),
        ("file:///data/x", "file:///data/x"),
        ("/data/x/../y", "file:///data/y"),
    ],
)
def test_places_become_urls(url, wanted):
    assert checked_url(url) == wanted


def test_a_plain_path_is_relative_to_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checked_url("a/b") == f"file://{tmp_path}/a/b"
    assert str(Folder("a/b")) == f"{tmp_path}/a/b"
    monkeypatch.setenv("HOME", str(tmp_path))
    assert checked_url("~/b") == f"file://{tmp_path}/b"


# Versions of files


def test_a_fingerprint_tells_versions_apart(folder):
    folder.write("a", b"12345")
    first = fingerprint(f"{folder.url}/a")
    assert first["size"] == 5
    assert fingerprint(f"{folder.url}/a") == first
    folder.write("a", b"54321")
    if folder.is_local:
        os.utime(folder.path / "a", (1, 1))
    second = fingerprint(f"{folder.url}/a")
    assert second["size"] == 5
    assert second != first
    json.dumps(second)


def test_a_fingerprint_of_a_folder_sees_every_file_in_it(folder):
    folder.write("z/zarr.json", b"{}")
    folder.write("z/0/c/0", b"123")
    seen = [fingerprint(f"{folder.url}/z")]
    assert seen[0]["size"] == 5
    folder.write("z/0/c/0", b"1234")
    seen.append(fingerprint(f"{folder.url}/z"))
    folder.write("z/0/c/1", b"")
    seen.append(fingerprint(f"{folder.url}/z"))
    folder.remove("z/0/c/1")
    seen.append(fingerprint(f"{folder.url}/z"))
    assert len({item["version"] for item in seen[:3]}) == 3
    assert seen[3] == seen[1]


# Receipts


def test_a_block_is_done_by_its_receipt_alone(folder):
    ledger = Ledger(folder, "segment", digest({"a": 1}))
    assert ledger.done() == set()
    assert not ledger.has_begun
    ledger.begin()
    assert ledger.has_begun
    ledger.write_arrays("z0y0x0", {"face": np.arange(4)})
    assert ledger.done() == set()
    ledger.write("z0y0x0", {"seconds": 1.5})
    assert ledger.done() == {"z0y0x0"}
    assert ledger.read("z0y0x0") == {"seconds": 1.5}
    assert ledger.read_arrays("z0y0x0")["face"].tolist() == [0, 1, 2, 3]


def test_receipts_in_folders_are_listed_a_folder_at_a_time(folder):
    ledger = Ledger(folder, "segment", digest(1))
    for name in ("a/0/0-1", "a/1/1-1", "a/1/1-2", "b/1/1-9"):
        ledger.write(name, {})
    assert ledger.done("a/1") == {"1-1", "1-2"}
    assert ledger.done("a") == ledger.done("c/1") == set()
    assert sorted(folder.files(ledger.place)) == ["0-1.json", "1-1.json", "1-2.json", "1-9.json"]
    assert list(folder.files("nothing")) == []


def test_a_receipt_that_was_cut_off_does_not_count(folder):
    ledger = Ledger(folder, "segment", digest(1))
    with pytest.raises(KeyboardInterrupt), folder.publishing(f"{ledger.place}/b1.json") as file:
        file.write(b'{"half":')
        raise KeyboardInterrupt
    assert ledger.done() == set()
    if folder.is_local:
        # What a writer leaves that was killed outright.
        (folder.path / ledger.place).mkdir(exist_ok=True)
        (folder.path / ledger.place / ".b1.json.0a1b2c3d").write_text('{"half":')
        assert ledger.done() == set()


def test_receipts_under_another_digest_do_not_count(folder):
    first = Ledger(folder, "clean", digest({"size": 1}))
    second = Ledger(folder, "clean", digest({"size": 2}))
    first.begin()
    first.write("b", {})
    assert second.done() == set()
    assert not second.has_begun


def test_a_stage_begun_anew_under_its_digest_has_a_folder_of_its_own(folder):
    """Else a receipt that a writer of before has in flight would count for voxels that are gone."""
    first = Ledger.of(folder, "clean", digest(1))
    first.begin()
    first.staged.write("tomogram.zarr/0/zarr.json", b"{}")
    Ledger.of(folder, "clean", digest(2)).forget_all()
    assert not folder.exists("staged/" + first.place)
    second = Ledger.of(folder, "clean", digest(1))
    first.write("b/0/0-0-0", {})
    assert first.place != second.place
    assert (list(first.blocks()), list(second.blocks())) == (["b/0/0-0-0"], [])
    assert not second.has_begun
    assert Ledger.of(folder, "clean", digest(3)).generation == 0
    second.begin()
    second.write("b/0/0-0-0", {})
    assert Ledger.of(folder, "clean", digest(1)) == second
    assert {ledger.place for ledger in ledgers(folder, "clean")} == {first.place, second.place}


def test_a_receipt_stands_for_what_its_block_wrote(folder):
    ledger = Ledger(folder, "clean", digest(1))
    volume = Volume(ledger.staged / "tomogram.zarr", "0")
    volume.create((4, 4, 8), "uint8", shard=(4, 4, 4))
    with noted_writes() as written:
        volume.write(Box((0, 0, 0), (4, 4, 4)), np.ones((4, 4, 4), np.uint8))
        volume.write(Box((0, 0, 4), (4, 4, 8)), np.zeros((4, 4, 4), np.uint8))
        with noted_writes():
            ledger.write_arrays("other", {})
        ledger.write_arrays("b/0/0-0-0", {"x": np.arange(3)})
        folder.write("elsewhere", b"1")
    files = ledger.own(written)
    assert files.keys() == {"staged/tomogram.zarr/0/c/0/0/0", "b/0/0-0-0.npz"}
    assert files["b/0/0-0-0.npz"] == folder.size(f"{ledger.place}/b/0/0-0-0.npz")
    ledger.write("b/0/0-0-0", {"written": files})
    assert list(ledger.lost(lambda name, size: True)) == []
    assert list(ledger.lost(lambda name, size: "npz" in name)) == ["b/0/0-0-0"]


def test_an_array_is_moved_whole_and_replaces_what_was_there(folder):
    for place, value in (("new", 1), ("old", 2)):
        volume = Volume(folder / place, "a/0")
        volume.create((4, 4, 8), "uint8", shard=(4, 4, 4))
        if place == "new":
            wanted = seals(folder / "new", "a/0")
        volume.write(Box.whole((4, 4, 8)), np.full((4, 4, 8), value, np.uint8))
    volume = Volume(folder / "new", "a/0")
    half = np.ones((4, 4, 8), np.uint8)
    half[..., 4:] = 0
    volume.write(Box.whole((4, 4, 8)), half)
    assert seals(folder / "new", "a/0") != wanted
    wanted = seals(folder / "new", "a/0")
    assert set(wanted) == {"", "c/0"}
    assert next(items_below(folder / "new")) == "a/0"
    transfer(folder / "new", "a/0", folder / "old")
    discard(folder / "new", "a/0")
    assert seals(folder / "old", "a/0") == wanted
    assert not (folder / "new").exists("a/0")
    transfer(folder / "new", "a/0", folder / "old")
    assert seals(folder / "old", "a/0") == wanted


def test_forgetting_takes_all_receipts_of_the_stage_and_no_others(folder):
    ledgers = [Ledger(folder, stage, digest(i)) for stage in ("clean", "segment") for i in (1, 2)]
    for ledger in ledgers:
        ledger.begin()
        ledger.write("b", {})
    folder.write_json("clean.json", {})
    ledgers[0].forget_all()
    assert [bool(ledger.done()) for ledger in ledgers] == [False, False, True, True]
    assert [ledger.has_begun for ledger in ledgers] == [False, False, True, True]
    assert folder.exists("clean.json")


@pytest.mark.parametrize(
    ("a", "b", "same"),
    [
        ({"x": 1, "y": 2}, {"y": 2, "x": 1}, True),
        ({"x": (1, 2)}, {"x": [1, 2]}, True),
        ({"x": 1}, {"x": 1.5}, False),
        ({"x": [1, 2]}, {"x": [2, 1]}, False),
        ({"x": None}, {}, False),
        ({"x": 1}, {"x": "1"}, False),
    ],
)
def test_a_digest_depends_on_values_not_on_their_order(a, b, same):
    assert (digest(a) == digest(b)) is same


# Volumes


@pytest.fixture(scope="module")
def numbers(tmp_path_factory):
    """A volume in which every voxel is another number, and these."""
    values = np.arange(np.prod(SHAPE), dtype=np.int32).reshape(SHAPE)
    volume = Volume(Folder(str(tmp_path_factory.mktemp("numbers"))), "a/0")
    volume.create(SHAPE, "int32", shard=SHARD)
    volume.write(Box.whole(SHAPE), values)
    return volume, values


boxes = st.tuples(*(st.tuples(st.integers(-1, n + 1), st.integers(-1, n + 1)) for n in SHAPE)).map(
    lambda axes: Box(tuple(a for a, _ in axes), tuple(b for _, b in axes))
)
# Of boxes drawn evenly very few are unions of shards.
unions = st.tuples(
    *(
        st.tuples(st.sampled_from([*range(0, n, s)]), st.sampled_from([*range(s, n, s), n]))
        for n, s in zip(SHAPE, SHARD, strict=True)
    )
).map(lambda axes: Box(tuple(a for a, _ in axes), tuple(b for _, b in axes)))


def is_union_of_shards(box):
    """Say by the voxels of every shard: each is in the box as a whole or not at all."""
    if not Box.whole(SHAPE).contains(box) or min(np.subtract(box.end, box.begin)) < 1:
        return False
    inside = np.zeros(SHAPE, bool)
    inside[box.slices] = True
    shares = [inside[block.write.slices] for block in BlockGrid(SHAPE, SHARD)]
    return all(share.all() or not share.any() for share in shares)


@settings(max_examples=150)
@given(box=st.one_of(boxes, unions))
def test_only_unions_of_whole_shards_are_written(numbers, box):
    volume, values = numbers
    size = tuple(max(0, b - a) for a, b in zip(box.begin, box.end, strict=True))
    if is_union_of_shards(box):
        volume.write(box, values[box.slices])
    else:
        with pytest.raises(StoreError, match=r"would cut a shard of \(4, 6, 8\)"):
            volume.write(box, np.full(size, -1, np.int32))
    assert np.array_equal(volume.read(Box.whole(SHAPE)), values)


@settings(max_examples=100)
@given(box=boxes)
def test_any_box_inside_is_read_and_no_other(numbers, box):
    volume, values = numbers
    if Box.whole(SHAPE).contains(box):
        assert np.array_equal(volume.read(box), values[box.slices])
    else:
        with pytest.raises(StoreError, match="leaves a/0 of shape"):
            volume.read(box)


@pytest.mark.parametrize(
    ("voxels", "reason"),
    [
        (np.zeros(SHARD, np.int64), "another type"),
        (np.zeros(SHARD, np.float32), "another type"),
        (np.zeros((4, 6, 7), np.int32), "another shape"),
        (np.zeros((1, *SHARD), np.int32), "numpy would broadcast it"),
        (np.zeros((1, 1, 1), np.int32), "numpy would broadcast it"),
    ],
)
def test_voxels_that_do_not_fit_are_refused(numbers, voxels, reason):
    volume, values = numbers
    with pytest.raises(StoreError, match="do not fit int32 box"):
        volume.write(Box((0, 0, 0), SHARD), voxels)
    assert np.array_equal(volume.read(Box.whole(SHAPE)), values)


def test_creating_anew_empties_the_volume(folder):
    volume = Volume(folder, "labels/semantic/0")
    assert not volume.exists
    with pytest.raises(StoreError, match="labels/semantic/0 does not exist"):
        volume.read(Box.whole(SHAPE))
    volume.create(SHAPE, "uint8", shard=SHARD, is_labels=True)
    volume.write(Box.whole(SHAPE), np.ones(SHAPE, np.uint8))
    assert volume.read(Box((9, 11, 8), SHAPE)).tolist() == [[[1]]]
    volume.create((4, 5, 6), "uint16", shard=(8, 8, 8))
    assert volume.exists
    assert volume.shape == (4, 5, 6)
    assert not volume.read(Box.whole((4, 5, 6))).any()


def test_chunks_of_zeros_are_not_stored_and_minus_zero_is_a_number(local):
    volume = Volume(local, "0")
    volume.create((8, 8, 256), "float32", shard=(8, 8, 256))
    voxels = np.zeros((8, 8, 256), np.float32)
    voxels[..., :128] = -0.0
    volume.write(Box.whole(voxels.shape), voxels)
    found = volume.read(Box.whole(voxels.shape))
    assert np.array_equal(np.signbit(found), np.signbit(voxels))
    (shard,) = (
        file for file in (local.path / "0").rglob("*") if "c" in file.parts and file.is_file()
    )
    assert 8 * 8 * 128 * 4 <= shard.stat().st_size < 1.1 * 8 * 8 * 128 * 4


def test_other_programs_see_whole_shards_of_inner_chunks(local):
    volume = Volume(local, "0")
    volume.create((70, 300, 256), "float32", shard=(64, 256, 96))
    array = zarr.open_array(str(local.path / "0"), mode="r")
    assert array.metadata.zarr_format == 3
    assert array.shards == (64, 256, 96)
    assert array.chunks == (64, 128, 96)
    assert array.metadata.dimension_names == ("z", "y", "x")
    voxels = np.random.default_rng(0).random((64, 256, 96), np.float32)
    volume.write(Box((0, 0, 96), (64, 256, 192)), voxels)
    assert np.array_equal(array[:64, :256, 96:192], voxels)
    written = [path for path in (local.path / "0" / "c").rglob("*") if path.is_file()]
    assert [str(path.relative_to(local.path / "0")) for path in written] == ["c/0/0/1"]


@given(shard=st.tuples(*[st.integers(1, 300)] * 3))
def test_inner_chunks_divide_the_shard(shard):
    for whole, part, most in zip(shard, inner_chunk(shard), (64, 128, 128), strict=True):
        assert part <= most
        assert whole % part == 0
        assert not any(whole % wider == 0 for wider in range(part + 1, most + 1))
