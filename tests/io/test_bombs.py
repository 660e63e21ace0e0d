"""Small files that announce or become what no machine holds are refused in little memory.

Each is read in a process of its own that may take 512 MiB more than it has when it begins.
"""

import bz2
import gzip
import io
import os
import re
import resource
import signal
import struct
import subprocess
import sys
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import tifffile
from numcodecs import Blosc, Zstd

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import TomosegError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.dynamo import Dynamo
from tomoseg.io.points.imod import Imod
from tomoseg.io.points.star import read_star
from tomoseg.io.stores import (
    Folder,
    OmeZarrReader,
    Volume,
    read_file,
    scratch_folder,
    write_image_metadata,
)
from tomoseg.io.stores.arrays import npz_arrays
from tomoseg.io.volumes.amira_lattice import AmiraReader
from tomoseg.io.volumes.compressed import decompress
from tomoseg.io.volumes.em import read_em, write_em
from tomoseg.io.volumes.mrc import MrcReader
from tomoseg.io.volumes.mrc_header import AXES, COUNTS, FIELDS
from tomoseg.io.volumes.png import PngReader
from tomoseg.io.volumes.sources import unpack as unpacked_url
from tomoseg.io.volumes.tiff import TiffReader
from tomoseg.recipe.plain_yaml import yaml_mapping

ROOM_BYTES = 2**29
MIB = 2**20
GRID = Sampling((6, 20, 24), (10.0, 10.0, 10.0))
TEN_TERABYTES = (30_000, 20_000, 20_000)


def zeros_deflated(mib, *, wbits):
    """Return the deflated zeros of some MiB: the packed form of one, many times."""
    packer = zlib.compressobj(9, zlib.DEFLATED, wbits)
    head = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    again = packer.compress(bytes(MIB)) + packer.flush(zlib.Z_FULL_FLUSH)
    return head + again * (mib - 1) + packer.flush()


def mrc():
    fields = np.zeros((), FIELDS)
    fields[COUNTS], fields["mode"], fields[AXES] = TEN_TERABYTES[::-1], 0, (1, 2, 3)
    fields["map"], fields["machst"] = b"MAP ", (0x44, 0x44, 0, 0)
    return fields.tobytes() + bytes(100)


def em():
    return write_em(np.zeros((2, 2, 2), np.float32))[:4] + struct.pack("<3i", *TEN_TERABYTES).ljust(
        600, b"\0"
    )


def lattice():
    z, y, x = TEN_TERABYTES
    head = f"# AmiraMesh BINARY-LITTLE-ENDIAN 3.0\ndefine Lattice {x} {y} {z}\n"
    return head.encode() + b"Lattice { byte Data } @1\n\n@1\n" + bytes(100)


def png(columns, rows):
    chunk = b"IHDR" + struct.pack(">IIBBBBB", columns, rows, 8, 0, 0, 0, 0)
    body = struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    return b"\x89PNG\r\n\x1a\n" + body + bytes(100)


def tiff(**how):
    file = io.BytesIO()
    tifffile.imwrite(file, np.zeros((64, 64), np.uint8), resolution=(1, 1), metadata=None, **how)
    return bytearray(file.getvalue())


def with_tag(data, code, value):
    """Return a little-endian TIFF whose tag, one number, is another."""
    (offset,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, offset)
    for at in range(offset + 2, offset + 2 + 12 * count, 12):
        if struct.unpack_from("<H", data, at) == (code,):
            struct.pack_into("<HII", data, at + 2, 4, 1, value)
            return bytes(data)
    raise LookupError(code)


def large_tiff():
    return with_tag(bytearray(with_tag(tiff(), 257, 2**31)), 256, 2**31)


def packed_page_of_a_few_bytes():
    page = with_tag(tiff(compression="deflate"), 257, 2**14)
    return with_tag(bytearray(with_tag(bytearray(page), 278, 2**14)), 256, 2**15)


def tiff_bomb():
    data = tiff(compression="deflate")
    bomb = zeros_deflated(4096, wbits=15)
    data = bytearray(with_tag(bytearray(with_tag(data, 273, len(data))), 279, len(bomb)))
    return bytes(data) + bomb


def entities():
    laughs = '<!DOCTYPE x [<!ENTITY a "ha"><!ENTITY b "&a;&a;">]><OME>&b;</OME>'
    return bytes(tiff(description=laughs))


def npz(shape, content):
    header = f"{{'descr': '<f8', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        start = b"\x93NUMPY\x01\x00" + struct.pack("<H", len(header)) + header.encode()
        archive.writestr("a.npy", start + content)
    return file.getvalue()


def npz_bomb():
    """Return a member that says it is of 160 bytes, and is of a GiB."""
    data, bomb = npz("(4,)", bytes(32)), zeros_deflated(1024, wbits=-15)
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        packed = archive.infolist()[0].compress_size
    at = data.index(b"a.npy") + len("a.npy")
    small, large = struct.pack("<I", packed), struct.pack("<I", len(bomb))
    data = data[:at].replace(small, large) + bomb + data[at + packed :].replace(small, large)
    directory, end = data.rindex(b"PK\x01\x02"), data.rindex(b"PK\x05\x06")
    return data[: end + 16] + struct.pack("<I", directory) + data[end + 20 :]


def imod(count):
    line = Filament("actin", 1, GRID.to_angstrom([(1, 2, 3), (2, 6, 9)]))
    context = TomoContext("a", GRID)
    (data,) = Imod().write([TomogramPoints(context, [line])], "a", WriteOptions()).values()
    at = data.index(b"CONT") + 4
    return data[:at] + struct.pack(">i", count) + data[at + 4 :]


def zarr_image(**changes):
    folder = Folder("memory://bomb")
    Volume(folder, "0").create((4, 16, 16), "uint8", shard=(4, 16, 16))
    write_image_metadata(folder, "x", [Sampling((4, 16, 16), (10.0,) * 3)], Header(GRID, "uint8"))
    values = folder.read_json("0/zarr.json")
    if "shape" in changes:
        values["shape"] = changes["shape"]
    if "shard" in changes:
        values["chunk_grid"]["configuration"]["chunk_shape"] = changes["shard"]
    if "chunk" in changes:
        values["codecs"][0]["configuration"]["chunk_shape"] = changes["chunk"]
    folder.write_json("0/zarr.json", values)
    OmeZarrReader(folder.url).read(Box((0, 0, 0), (1, 1, 1)))


def zstd_zeros(mib):
    """Return one frame that does not say how long it is: blocks of one byte, 128 KiB times."""
    repeated = struct.pack("<I", 2**17 << 3 | 1 << 1)[:3] + b"\0"
    last = struct.pack("<I", 2**17 << 3 | 1 << 1 | 1)[:3] + b"\0"
    return bytes.fromhex("28b52ffd0058") + repeated * (8 * mib - 1) + last


def blosc_zeros(size):
    """Return a KiB that says it is so many bytes."""
    chunk = bytearray(Blosc().encode(bytes(1024)))
    return bytes(chunk[:4] + struct.pack("<I", size) + chunk[8:])


def zarr_chunk(name, chunk):
    """Read a chunk of a KiB that becomes a GiB."""
    folder = Folder("memory://chunk")
    Volume(folder, "0").create_flat((4, 16, 16), "uint8", chunk=(4, 16, 16))
    values = folder.read_json("0/.zarray") | {"compressor": {"id": name}}
    folder.write_json("0/.zarray", values)
    folder.write("0/0/0/0", chunk)
    return Volume(folder, "0").read(Box((0, 0, 0), (1, 1, 1)))


def volume(reader, data):
    source = reader(io.BytesIO(data), voxel_size_angstrom=10.0)
    source.read(Box.whole(source.header.sampling.shape))


class Sink(io.RawIOBase):
    """Counts what it is given."""

    taken = 0

    def write(self, part):
        """Count and forget."""
        self.taken += len(part)
        assert self.taken <= 2**20
        return len(part)


def unpacked(data, kind):
    decompress(io.BytesIO(data), Sink(), kind, most_bytes=2**20)


def packed_mrc():
    """A tomogram of a few voxels, and 256 MiB behind them."""
    with scratch_folder() as scratch:
        folder, header = Folder(scratch), bytearray(mrc())
        struct.pack_into("<3i", header, 0, 4, 4, 4)
        folder.write(
            "a.mrc.gz", gzip.compress(bytes(header[:1024])) + zeros_deflated(256, wbits=31)
        )
        try:
            unpacked_url(f"{folder.url}/a.mrc.gz", folder / "spool")
        finally:
            assert folder.names("spool") == []


def dynamo(text):
    Dynamo().read(text.encode(), [TomoContext("a", GRID)], name="x")


def read_too_much():
    folder = Folder("memory://large")
    folder.write("a.star", bytes(2000))
    read_file(f"{folder.url}/a.star", largest=1999)


WIDE = "data_a\n\nloop_\n" + "".join(f"_c{n}\n" for n in range(1_000_000)) + "1 " * 1_000_000 + "\n"
BLOCKS = "".join(f"data_{n}\n" for n in range(300_000))
CASES = {
    "MRC header": (lambda: volume(MrcReader, mrc()), "need 12000000001024"),
    "EM header": (lambda: read_em(em()), "need 48000000000000 bytes"),
    "Amira header": (lambda: volume(AmiraReader, lattice()), "its voxels need 1200000000"),
    "PNG header": (lambda: volume(PngReader, png(10**6, 10**7)), "1 to 268435456 are read"),
    "PNG of few bytes": (lambda: volume(PngReader, png(2**14, 2**14)), "cannot be in a file"),
    "TIFF header": (lambda: volume(TiffReader, large_tiff()), r"voxels need|directories"),
    "TIFF page of few bytes": (
        lambda: volume(TiffReader, packed_page_of_a_few_bytes()),
        "cannot become more than 4096 times",
    ),
    "TIFF page that grows": (lambda: volume(TiffReader, tiff_bomb()), "more than its 4096 bytes"),
    "TIFF text that grows": (lambda: volume(TiffReader, entities()), "has definitions"),
    "gzip": (lambda: unpacked(zeros_deflated(4096, wbits=31), "gzip"), "more than the 1048576"),
    "bzip2": (lambda: unpacked(bz2.compress(bytes(64 * MIB)), "bzip2"), "more than the 1048576"),
    "MRC in gzip": (packed_mrc, "more than the 16778304 bytes"),
    "npz header": (lambda: npz_arrays(npz(f"({10**12},)", b""), "x"),
                   "announces 8000000000"),
    "npz that grows": (lambda: npz_arrays(npz_bomb(), "x"), "cut or damaged"),
    "IMOD count": (
        lambda: Imod().read(imod(2**31 - 1), [TomoContext("a", GRID)], name="x"),
        "25769803764 bytes are said to follow",
    ),
    "IMOD negative count": (
        lambda: Imod().read(imod(-5), [TomoContext("a", GRID)], name="x"), "-60 bytes are said"
    ),
    "STAR columns": (lambda: read_star(WIDE), "1000000 columns; 1000 are read"),
    "STAR blocks": (lambda: read_star(BLOCKS), "more than 10000 blocks"),
    "Dynamo lines": (lambda: dynamo("1\n" * 4_000_000), "has 1 columns"),
    "table": (read_too_much, "larger than 1999 bytes, the most"),
    "YAML": (lambda: yaml_mapping(b"a: " + b"[" * 2**20, "x"), "more than 131072"),
    "zarr array": (lambda: zarr_image(shape=TEN_TERABYTES), "8796093022208 are read at most"),
    "zarr chunk": (
        lambda: zarr_image(shard=[4096] * 3, chunk=[2048] * 3), "a chunk is announced with 858993"
    ),
    "zarr shard": (
        lambda: zarr_image(shard=[1024] * 3, chunk=[1] * 3), "a shard is announced with 1073741824"
    ),
    "zlib chunk": (
        lambda: zarr_chunk("zlib", zeros_deflated(1024, wbits=15)), "more or less than its 1024"
    ),
    "gzip chunk": (
        lambda: zarr_chunk("gzip", zeros_deflated(1024, wbits=31)), "more or less than its 1024"
    ),
    "bzip2 chunk": (
        lambda: zarr_chunk("bz2", bz2.compress(bytes(64 * MIB)) * 16), "more or less than its 1024"
    ),
    "zstd chunk": (lambda: zarr_chunk("zstd", zstd_zeros(1024)), "buffer is too small"),
    "blosc chunk": (lambda: zarr_chunk("blosc", blosc_zeros(2**30)), "buffer too small"),
}  # fmt: skip


@pytest.mark.skipif(sys.platform != "linux", reason="memory is bounded as Linux does it")
def test_no_bomb_takes_more_than_its_room():
    # Each thread's heap would else be 64 MiB of addresses, of which hardly any is memory.
    one_heap = os.environ | {"MALLOC_ARENA_MAX": "1", "OMP_NUM_THREADS": "1"}
    run = subprocess.run(
        [sys.executable, __file__],
        capture_output=True, text=True, check=False, timeout=800, env=one_heap,
    )  # fmt: skip
    told = dict(line.split("\t") for line in run.stdout.splitlines())
    assert told == dict.fromkeys(CASES, "refused"), run.stderr


def test_the_bombs_are_real():
    """What is refused above would else be unpacked."""
    assert len(gzip.decompress(gzip.compress(bytes(MIB)))) == MIB
    unpacker = zlib.decompressobj(31)
    assert unpacker.decompress(zeros_deflated(4, wbits=31), 3 * MIB) == bytes(3 * MIB)
    volume(TiffReader, bytes(tiff(compression="deflate")))
    zarr_image()
    assert not zarr_chunk("zlib", zlib.compress(bytes(1024))).any()
    assert Zstd().decode(zstd_zeros(4)) == bytes(4 * MIB)
    assert set(npz_arrays(npz("(4,)", bytes(32)), "x")) == {"a"}


def main():
    """Read every bomb with little room, and tell how it ended."""
    for name, (read, says) in CASES.items():
        child = os.fork()
        if child == 0:
            tell(name, read, says)
            os._exit(0)
        os.waitpid(child, 0)


def tell(name, read, says):
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))
    signal.alarm(100)  # what waits for memory for ever is killed, and has told nothing
    try:
        read()
        end = "read"
    except TomosegError as error:
        end = "refused" if re.search(says, str(error)) else f"{error}"
    except Exception as error:  # noqa: BLE001 - that is what is looked for
        end = f"{type(error).__name__} {error}"
    print(f"{name}\t{end}", flush=True)


if __name__ == "__main__":
    main()
