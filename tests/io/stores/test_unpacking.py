"""Chunks of zarr arrays: all usual ways to pack them are read, and none becomes too much."""

import json

import numcodecs
import numpy as np
import pytest
import zarr
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, StoreError
from tomoseg.io.stores import Folder, Volume

SHAPE = (8, 24, 40)
VOXELS = np.random.default_rng(5).integers(-99, 99, SHAPE).astype(np.int16)
CHUNK = (4, 16, 16)
CHUNK_BYTES = 4 * 16 * 16 * 2

V2 = {
    "none": None,
    "blosc": numcodecs.Blosc(cname="lz4"),
    "blosc zstd": numcodecs.Blosc(cname="zstd", shuffle=numcodecs.Blosc.BITSHUFFLE),
    "zstd": numcodecs.Zstd(checksum=True),
    "lz4": numcodecs.LZ4(),
    "gzip": numcodecs.GZip(),
    "zlib": numcodecs.Zlib(),
    "bz2": numcodecs.BZ2(),
}
V3 = {"none": None, "blosc": BloscCodec(), "zstd": ZstdCodec(), "gzip": GzipCodec()}


def stored(folder, **how):
    """An array of another program's making."""
    array = zarr.create_array(str(folder / "0"), shape=SHAPE, dtype="int16", chunks=CHUNK, **how)
    array[:] = VOXELS
    return Volume(Folder(str(folder)), "0")


def is_read(volume):
    """Whether all and some of its voxels are what was written."""
    some = Box((3, 7, 20), (6, 24, 33))
    whole = np.array_equal(volume.read(Box.whole(SHAPE)), VOXELS)
    return whole and np.array_equal(volume.read(some), VOXELS[some.slices])


@pytest.mark.parametrize("name", V2)
def test_chunks_of_v2_are_read(tmp_path, name):
    assert is_read(stored(tmp_path, zarr_format=2, compressors=V2[name], order="F"))


@pytest.mark.parametrize("is_sharded", [True, False])
@pytest.mark.parametrize("name", V3)
def test_chunks_of_v3_are_read(tmp_path, name, is_sharded):
    shards = (8, 32, 48) if is_sharded else None
    turned = [zarr.codecs.TransposeCodec(order=(2, 0, 1))]
    assert is_read(stored(tmp_path, compressors=V3[name], shards=shards, filters=turned))


def test_a_sum_behind_what_is_packed_is_checked(tmp_path):
    volume = stored(tmp_path, compressors=[GzipCodec(), zarr.codecs.Crc32cCodec()])
    assert is_read(volume)
    chunk = tmp_path / "0/c/0/0/0"
    chunk.write_bytes(chunk.read_bytes()[:-1] + b"\0")
    with pytest.raises(StoreError, match="is cut or damaged"):
        volume.read(Box.whole(CHUNK))


@pytest.mark.filterwarnings("ignore:Numcodecs codecs are not")
def test_codecs_that_version_3_does_not_name_are_read(tmp_path):
    assert is_read(stored(tmp_path, compressors=zarr.codecs.numcodecs.Zlib(level=1)))


def zstd_stream(data):
    """Pack without saying how long it is, as programs do that write as they read."""
    frame = bytearray(numcodecs.Zstd().encode(data))
    magic, descriptor = frame[:4], frame[4]
    size_bytes = (1 if descriptor & 0x20 else 0, 2, 4, 8)[descriptor >> 6]
    assert descriptor & 0x20
    # One segment of known size becomes a window of 2 MiB and no size.
    return bytes(magic + bytes([descriptor & 0x04, 11 << 3]) + frame[5 + size_bytes :])


def packed(name, data):
    if name == "zstd stream":
        return zstd_stream(data)
    return V2[name].encode(data)


@pytest.mark.parametrize("name", [*sorted(set(V2) - {"none"}), "zstd stream"])
@pytest.mark.parametrize("count", [1, CHUNK_BYTES - 1, CHUNK_BYTES, CHUNK_BYTES + 1, 2**20])
def test_a_chunk_becomes_what_it_should_or_nothing(tmp_path, name, count):
    volume = stored(tmp_path, zarr_format=2, compressors=V2[name.removesuffix(" stream")])
    (tmp_path / "0/0.0.0").write_bytes(packed(name, bytes([0xA5]) * count))
    if count == CHUNK_BYTES:
        assert (volume.read(Box.whole(CHUNK)).view("u1") == 0xA5).all()
    else:
        with pytest.raises(StoreError, match="is cut or damaged"):
            volume.read(Box.whole(CHUNK))


@pytest.mark.parametrize("name", sorted(set(V2) - {"none"}))
def test_a_chunk_that_is_cut_is_told(tmp_path, name):
    volume = stored(tmp_path, zarr_format=2, compressors=V2[name])
    chunk = tmp_path / "0/0.0.0"
    for count in (1, 3, 17):
        chunk.write_bytes(packed(name, VOXELS[:4, :16, :16].tobytes())[:-count])
        with pytest.raises(StoreError, match="is cut or damaged"):
            volume.read(Box.whole(CHUNK))


def changed(folder, **values):
    path = folder / "0/.zarray"
    path.write_text(json.dumps(json.loads(path.read_text()) | values))


@pytest.mark.parametrize(
    ("values", "name"),
    [
        ({"compressor": {"id": "lzma"}}, "lzma"),
        ({"compressor": {"id": "crc32"}}, "crc32"),
        ({"filters": [{"id": "zlib"}]}, "zlib"),
        ({"filters": [{"id": "delta", "dtype": "<i2"}]}, "delta"),
    ],
)
def test_what_is_packed_otherwise_is_refused_by_name(tmp_path, values, name):
    volume = stored(tmp_path, zarr_format=2, compressors=None)
    changed(tmp_path, **values)
    with pytest.raises(FormatError, match=f"packed by '{name}' are not read"):
        volume.read(Box.whole(CHUNK))


@pytest.mark.parametrize("packers", [[GzipCodec(), GzipCodec()], [GzipCodec(), ZstdCodec()]])
def test_what_is_packed_twice_is_refused(tmp_path, packers):
    volume = stored(tmp_path, compressors=packers)
    with pytest.raises(FormatError, match="are not read"):
        volume.read(Box.whole(CHUNK))


@pytest.mark.filterwarnings("ignore:Combining a `sharding_indexed`")
def test_a_shard_or_its_index_is_not_packed_again(tmp_path):
    volume = stored(tmp_path, shards=(8, 32, 48))
    path = tmp_path / "0/zarr.json"
    values = json.loads(path.read_text())
    gzip = {"name": "gzip", "configuration": {"level": 1}}
    [shard] = values["codecs"]
    path.write_text(json.dumps(values | {"codecs": [shard, gzip]}))
    with pytest.raises(FormatError, match="packed by 'gzip' are not read"):
        volume.read(Box.whole(CHUNK))
    shard["configuration"]["index_codecs"].append(gzip)
    path.write_text(json.dumps(values))
    with pytest.raises(FormatError, match="packed by 'gzip' are not read"):
        volume.read(Box.whole(CHUNK))
