"""Files damaged on purpose: a reader accepts one or refuses it by name, soon and in little room.

    python tests/benchmarks/fuzz.py [--inputs N] [--seconds S] [--seed N] [READER ...]

Each input is a sound file with one or some parts flipped, cut, repeated, moved, or replaced by
numbers and words that readers stumble over. What is counted as a failure: an exception that is no
TomosegError, more than two seconds, or more memory than 1 GiB beyond the start. Failing inputs are
kept. tests/io/test_fuzz.py runs a few hundred of each.
"""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import logging
import os
import random
import resource
import signal
import struct
import sys
import tempfile
import time
import warnings
from collections.abc import Callable
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np
import tifffile
from numcodecs import get_codec
from PIL import Image

from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import Filament, Particles
from tomoseg.core.errors import TomosegError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.io.points.dialects import TomoContext, TomogramPoints, WriteOptions
from tomoseg.io.points.picks import read_picks
from tomoseg.io.points.registry import DIALECTS, dialect_of
from tomoseg.io.points.star import decoded, read_star
from tomoseg.io.stores import Folder, OmeZarrReader, Volume, write_image_metadata
from tomoseg.io.stores.arrays import npz_arrays, npz_bytes
from tomoseg.io.stores.unpacking import UNPACKS
from tomoseg.io.volumes.amira_lattice import AmiraReader
from tomoseg.io.volumes.compressed import decompress
from tomoseg.io.volumes.em import read_em
from tomoseg.io.volumes.mrc import MrcReader, MrcWriter
from tomoseg.io.volumes.png import PngReader
from tomoseg.io.volumes.tiff import TiffReader
from tomoseg.nets.card import Architecture, ModelCard, load_card
from tomoseg.recipe.plain_yaml import yaml_mapping
from tomoseg.recipe.recipe import Recipe, load_recipe
from tomoseg.training.recipe import training_recipe

LONGEST_SECONDS = 2.0
ROOM_BYTES = 2**30

GRID = Sampling((6, 20, 24), (10.0, 10.0, 10.0))
CONTEXT = TomoContext("TS_01", GRID, 2.5, (96, 80, 24), origin_angstrom=(0.0, 0.0, 0.0))
VOXELS = (np.arange(6 * 20 * 24, dtype=np.int16) % 251).reshape(6, 20, 24)
LINE = Filament("actin", 3, GRID.to_angstrom([(1, 2, 3), (2, 6, 9), (3, 12, 20)]), 0.5)
SPOTS = Particles.at("ribosome", GRID.to_angstrom([(0, 0, 0), (5, 9, 9)]), np.array([0.25, 0.75]))
BOUNDS = (0, 1, 2, 255, 2**15, 2**16 - 1, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1)
WORDS = (
    b"nan", b"-inf", b"1e400", b"9" * 400, b"0x", b"\0", b"\xff\xfe", b"\r", b"\n\n", b"{}", b"[[",
    b"null", b"true", b'"', b"'", b"../../x", b"data_", b"loop_", b"_rlnTomoName", b"&a ", b"*a",
    b"<<: ", b"!!python/object:os.system ", b"!!binary x", b"2001-99-99", b"@1", b"@2", b"Lattice",
    b"<!ENTITY a 'b'>", b"\xf0\x9f\x98\x80", "\u202e".encode(), b"1_0", b"-0", b"~", b": ", b"- ",
)  # fmt: skip


@dataclass(frozen=True)
class Target:
    """A reader, and sound files for it."""

    seeds: tuple[bytes, ...]
    read: Callable[[bytes], object]


def mutated(target: Target, seed: int) -> bytes:
    """Return a damaged file; the same for the same seed."""
    rng = random.Random(seed)
    data = bytearray(rng.choice(target.seeds))
    for _ in range(rng.choice((1, 1, 2, 3, 8))):
        at, length = rng.randrange(len(data) + 1), min(rng.choice((1, 2, 4, 16, 200)), len(data))
        part = bytes(data[at : at + length])
        match rng.randrange(9):
            case 0:
                data[at : at + 1] = bytes([rng.randrange(256)])
            case 1:
                data[at : at + 4] = struct.pack(rng.choice("<>") + "I", rng.choice(BOUNDS) % 2**32)
            case 2:
                data[at : at + 8] = struct.pack(rng.choice("<>") + "Q", rng.choice(BOUNDS))
            case 3:
                del data[at : at + length]
            case 4:
                data[at:at] = part * rng.choice((1, 2, 50))
            case 5:
                del data[at:]
            case 6:
                data[at : at + rng.choice((0, length))] = rng.choice(WORDS)
            case 7:
                data[at : at + length] = str(rng.choice((-1, 1)) * rng.choice(BOUNDS)).encode()
            case 8:
                other = rng.choice(target.seeds)
                data[at:] = other[min(at, len(other)) :]
    return bytes(data)


def accepted(target: Target, data: bytes) -> bool:
    """Read a file; tell whether it was accepted. Whatever is no refusal by name is raised."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            target.read(data)
        except TomosegError:
            return False
    return True


@cache
def targets() -> dict[str, Target]:
    """Return all readers by name."""
    return {
        **_volumes(),
        **_points(),
        "star": Target(_written("relion5", "stopgap"), lambda data: read_star(decoded(data))),
        "guess": Target(_written("relion4", "eman2", "amira", "csv"), _guess),
        "picks": Target((_BOX, _CBOX, *_written("relion4", "csv")), _picks),
        "recipe": Target((Recipe().as_yaml().encode(), _RECIPE), _recipe),
        "training": Target((_TRAINING,), _training),
        "card": Target((_card(),), _read_card),
        "npz": Target((npz_bytes({"a": VOXELS, "b": np.ones(3)}),), lambda d: npz_arrays(d, "x")),
        "zarr": Target(_zarr_seeds(), _zarr),
        "chunk": Target(_chunk_seeds(), _chunk),
        "shard": Target(_shard_seeds(), _shard),
        "packed": Target(_packed_seeds(), _unpack),
    }


def _volumes() -> dict[str, Target]:
    tiffs = (
        _tiff(imagej=True, metadata={"unit": "nm", "spacing": 1.0, "axes": "ZYX"}),
        _tiff(ome=True, metadata={"axes": "ZYX", "PhysicalSizeX": 0.01, "PhysicalSizeY": 0.01}),
        _tiff(compression="deflate"),
        _tiff(compression="lzma", tile=(16, 16)),
        _tiff(byteorder=">", bigtiff=True),
    )
    picture = io.BytesIO()
    Image.fromarray(VOXELS[0].astype(np.uint8)).save(picture, "png")
    return {
        "mrc": Target((_mrc(np.int16), _mrc(np.float32), _mrc(np.int8)), _reading(MrcReader)),
        "tiff": Target(tiffs, _reading(TiffReader)),
        "png": Target((picture.getvalue(),), _reading(PngReader)),
        "lattice": Target((_LATTICE,), _reading(AmiraReader)),
        "em": Target(_written("av3"), read_em),
    }


def _points() -> dict[str, Target]:
    names = [name for name in DIALECTS if name != "copick"]
    return {name: Target(_written(name), _reading_points(name)) for name in [*names, "copick"]}


def _reading(reader: type) -> Callable[[bytes], object]:
    def read(data: bytes) -> object:
        for size in (None, 10.0):
            source = reader(io.BytesIO(data), voxel_size_angstrom=size)
            try:
                shape = source.header.sampling.shape
            except TomosegError:
                continue
            source.read(Box((0, 0, 0), tuple(min(n, 24) for n in shape)))
            return None
        source = reader(io.BytesIO(data), voxel_size_angstrom=10.0)
        return source.header

    return read


def _reading_points(name: str) -> Callable[[bytes], object]:
    dialect = DIALECTS[name].dialect
    return lambda data: dialect.read(data, [CONTEXT], name="found")


def _written(*names: str) -> tuple[bytes, ...]:
    """Return what dialects write: lines and particles, each alone."""
    found = []
    for name in names:
        dialect = DIALECTS[name].dialect
        options = WriteOptions(radius_angstrom={"ribosome": 120.0}, colours={})
        lines, spots = TomogramPoints(CONTEXT, [LINE]), TomogramPoints(CONTEXT, [], [SPOTS])
        for points in (lines, spots) if DIALECTS[name].has_particles else (lines,):
            files = dialect.write([points], "x/y", options)
            found += [content for path, content in files.items() if _is_table(path)]
    return tuple(dict.fromkeys(found))


def _is_table(path: str) -> bool:
    others = (".doc", "config.json", "_tomograms.star", "_set.star", "point.json", "Point.json")
    return not path.endswith(others)


def _mrc(dtype: type) -> bytes:
    file = io.BytesIO()
    with MrcWriter(file, Header(GRID, np.dtype(dtype).name), dtype, label="x") as writer:
        writer.write(Box.whole(GRID.shape), VOXELS.astype(dtype))
    return file.getvalue()


def _tiff(**how: object) -> bytes:
    file = io.BytesIO()
    tifffile.imwrite(file, VOXELS.astype(np.uint8), resolution=(1, 1), **how)
    return file.getvalue()


_LATTICE = (
    b"# AmiraMesh BINARY-LITTLE-ENDIAN 3.0\n\ndefine Lattice 24 20 6\n\nParameters {\n"
    b' Units { Coordinates "nm" }\n BoundingBox 0 23 0 19 0 5,\n CoordType "uniform"\n}\n'
    b"Lattice { short Data } @1\n\n# Data section follows\n@1\n" + VOXELS.tobytes()
)
_BOX = b"10\t12\t4\t4\n2\t3\t4\t4\n"
_CBOX = (
    b"data_global\n\n_cbox_format_version 1.0\n\ndata_cryolo\n\nloop_\n_CoordinateX #1\n"
    b"_CoordinateY #2\n_CoordinateZ #3\n_Width #4\n_Height #5\n_Depth #6\n_Confidence #7\n"
    b"1 2 3 4 4 4 0.5\n5 6 1 4 4 4 0.9\n"
)
_RECIPE = b"""\
session: {input: [a.mrc, s3://b/c], output: out, tomogram_name_remove: ["^rec_"]}
source: &s {voxel_size_angstrom: 10.0, mask: "{folder}/{name}.mrc"}
blocks: {shape: [16, 256, 256]}
trace: {actin: {radius_angstrom: 35}}
pick: {ribosome: {radius_angstrom: 120}}
compute: {runner: dask, address: "tcp://127.0.0.1:8786", tls: null}
export: {masks: [mrc, tiff], dialects: relion5}
"""
_TRAINING = b"""\
output: model
classes: [tube, ribosome]
annotations:
- {kind: painted, tomograms: [none/a.mrc], labels: "none/{name}.mrc", values: {1: tube}}
- {kind: points, tomograms: none/b.mrc, table: none/b.star, class: ribosome, radius_angstrom: 120}
- {kind: tiles, tomogram: none/c.mrc, positives: none/p.box, masks: none/m.mrc, size: 32}
network: {voxel_size_angstrom: 10.0, patch: [8, 32, 32]}
"""


def _picks(data: bytes) -> None:
    for name in ("a.star", "a.cbox", "a.box", "a.csv"):
        accepted(Target((), lambda d, n=name: read_picks(d, n, GRID, tomogram="TS_01")), data)


def _guess(data: bytes) -> None:
    for suffix in (".star", ".csv", ".json", ".am"):
        accepted(Target((), lambda d, s=suffix: dialect_of(d, f"a{s}")), data)


@cache
def _place() -> Path:
    folder = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    return Path(tempfile.mkdtemp(prefix="tomoseg-fuzz-", dir=folder))


def _recipe(data: bytes) -> None:
    path = _place() / f"recipe-{os.getpid()}.yaml"
    path.write_bytes(data)
    load_recipe(path, given={"session": {"output": "x"}})


def _training(data: bytes) -> None:
    training_recipe(yaml_mapping(data, "x"), base=_place())


def _card() -> bytes:
    architecture = Architecture(slices_in=4, slices_out=2, widths=(4, 8))
    card = ModelCard(
        name="test",
        architecture=architecture,
        classes=("tube", "ribosome"),
        colours=("#ff0000", "#00ff00"),
        voxel_size_angstrom=10.0,
        halo=architecture.receptive_halo,
        stride=architecture.stride,
    )
    return card.model_dump_json(indent=1).encode()


def _read_card(data: bytes) -> None:
    (_place() / "card.json").write_bytes(data)
    load_card(_place())


# The two files of an image's metadata follow each other, with their lengths before.
def _zarr_seeds() -> tuple[bytes, ...]:
    folder = Folder("memory://fuzz-seed")
    Volume(folder, "0").create((4, 16, 16), "uint8", shard=(4, 16, 16))
    write_image_metadata(folder, "x", [Sampling((4, 16, 16), (10.0,) * 3)], Header(GRID, "uint8"))
    names = ("zarr.json", "0/zarr.json")
    found = [folder.read(name) for name in names]
    return (found[0] + b"\n---\n" + found[1],)


def _zarr(data: bytes) -> None:
    root, _, array = data.partition(b"\n---\n")
    folder = Folder("memory://fuzz")
    for name, content in (("zarr.json", root), ("0/zarr.json", array)):
        folder.write(name, content)
    source = OmeZarrReader(folder.url)
    source.read(Box((0, 0, 0), tuple(min(n, 4) for n in source.header.sampling.shape)))


def _chunk_seeds() -> tuple[bytes, ...]:
    return tuple(
        bytes([number]) + get_codec({"id": name}).encode(VOXELS.tobytes())
        for number, name in enumerate(UNPACKS)
    )


def _chunk(data: bytes) -> None:
    folder, names = Folder("memory://fuzz-chunk"), list(UNPACKS)
    Volume(folder, "0").create_flat(VOXELS.shape, "int16", chunk=VOXELS.shape)
    packer = {"id": names[(data or b"\0")[0] % len(names)]}
    folder.write_json("0/.zarray", folder.read_json("0/.zarray") | {"compressor": packer})
    folder.write("0/0/0/0", data[1:])
    Volume(folder, "0").read(Box.whole(VOXELS.shape))


def _shard_seeds() -> tuple[bytes, ...]:
    return tuple(bytes([kind]) + _sharded(kind)[1] for kind in (0, 1))


@cache
def _sharded(is_labels: int) -> tuple[bytes, bytes]:
    """Return an array's metadata and its one shard."""
    folder = Folder(f"memory://fuzz-shard-{is_labels}")
    volume = Volume(folder, "0")
    volume.create((64, 128, 256), "uint8", shard=(64, 128, 256), is_labels=bool(is_labels))
    voxels = (np.arange(2**21, dtype=np.uint32) // 77).astype(np.uint8).reshape(64, 128, 256)
    volume.write(Box.whole(voxels.shape), voxels)
    return folder.read("0/zarr.json"), folder.read("0/c/0/0/0")


def _shard(data: bytes) -> None:
    folder = Folder("memory://fuzz-shard")
    folder.write("0/zarr.json", _sharded((data or b"\0")[0] % 2)[0])
    folder.write("0/c/0/0/0", data[1:])
    Volume(folder, "0").read(Box((0, 0, 0), (2, 2, 256)))


def _packed_seeds() -> tuple[bytes, ...]:
    import bz2
    import gzip

    raw = VOXELS.tobytes()
    return (b"g" + gzip.compress(raw, mtime=0), b"b" + bz2.compress(raw))


def _unpack(data: bytes) -> None:
    kind = "gzip" if data[:1] == b"g" else "bzip2"
    decompress(io.BytesIO(data[1:]), io.BytesIO(), kind, most_bytes=2**20)


class TooLongError(BaseException):
    """Out of time; no reader catches it."""


def _out_of_time(*_: object) -> None:
    raise TooLongError(f"more than {LONGEST_SECONDS} s")


@contextmanager
def _in_time():
    signal.setitimer(signal.ITIMER_REAL, LONGEST_SECONDS)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _bound_memory() -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    most = pages * resource.getpagesize() + ROOM_BYTES
    resource.setrlimit(resource.RLIMIT_AS, (most, most))


def _attack(name: str, seeds: range, seconds: float, keep: Path) -> dict[str, object]:
    target, counts = targets()[name], {"accepted": 0, "refused": 0}
    slowest, failures, kinds = 0.0, 0, set()
    end = time.monotonic() + seconds
    done = 0
    for seed in seeds:
        if done % 256 == 0 and time.monotonic() > end:
            break
        data, began = mutated(target, seed), time.perf_counter()
        try:
            with _in_time():
                counts["accepted" if accepted(target, data) else "refused"] += 1
        except (Exception, TooLongError) as error:  # noqa: BLE001 - that is what is looked for
            failures += 1
            kind = f"{type(error).__name__}: {str(error)[:100]}"
            if kind not in kinds and len(kinds) < 20:
                kinds.add(kind)
                digest = hashlib.sha256(data).hexdigest()[:12]
                (keep / f"{name}-{digest}").write_bytes(data)
                print(f"{name}: seed {seed}, kept as {name}-{digest}: {kind}", file=sys.stderr)
        slowest = max(slowest, time.perf_counter() - began)
        done += 1
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    return {
        "reader": name,
        "inputs": done,
        **counts,
        "failures": failures,
        "slowest_ms": round(1000 * slowest),
        "peak_mib": round(peak),
        "next_seed": seeds.start + done,
    }


def main() -> int:
    """Attack the readers, each in a process of its own; return 1 if one failed."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("readers", nargs="*", help=", ".join(targets()))
    parser.add_argument("--inputs", type=int, default=100_000, help="of each reader")
    parser.add_argument("--seconds", type=float, default=3600, help="at most, of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--keep", type=Path, default=Path("fuzz-failures"))
    given = parser.parse_args()
    given.keep.mkdir(parents=True, exist_ok=True)
    signal.signal(signal.SIGALRM, _out_of_time)
    logging.disable()
    failed = 0
    for name in given.readers or targets():
        if (child := os.fork()) == 0:
            _bound_memory()
            seeds = range(given.seed, given.seed + given.inputs)
            row = _attack(name, seeds, given.seconds, given.keep)
            print(json.dumps(row), flush=True)
            os._exit(bool(row["failures"]))
        _, status = os.waitpid(child, 0)
        if status and not os.WIFEXITED(status):
            print(f"{name}: killed by signal {os.WTERMSIG(status)}", file=sys.stderr)
        failed |= status != 0
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
