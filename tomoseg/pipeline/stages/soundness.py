"""Whether a result that has not the size that was written is cut, or was edited by a person."""

from __future__ import annotations

import os

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, StoreError
from tomoseg.core.sampling import as_shape
from tomoseg.io.stores import Folder, Volume, open_file
from tomoseg.io.volumes.sources import ANY_VOXEL_ANGSTROM, kind_of, open_source

# How files end that people edit or look at and that are no text; a text ends with its last line.
ENDS = {".mod": b"IEOF", ".png": b"IEND\xaeB`\x82", ".jpg": b"\xff\xd9"}
TAIL_BYTES = 64


def is_sound(folder: Folder, name: str, *, is_less: bool) -> bool:
    """Tell whether a file is whole.

    Shards and volumes must be readable. Of others one that ``is_less`` than was written must end
    as such files do; a text that was cut after a whole line passes for edited.
    """
    if "/c/" in name:
        return _is_readable(folder, name)
    url = f"{folder.url}/{name}"
    if kind_of(name) in ("mrc", "tiff"):
        try:
            with open_source(url, voxel_size_angstrom=ANY_VOXEL_ANGSTROM) as source:
                return bool(source.header)
        except FormatError:
            return False
    if not is_less:
        return True
    with open_file(url) as file:
        file.seek(-min(TAIL_BYTES, file.seek(0, os.SEEK_END)), os.SEEK_END)
        tail = file.read()
    end = next((end for suffix, end in ENDS.items() if name.endswith(suffix)), b"\n")
    return tail.endswith(end) and (end != b"\n" or b"\0" not in tail)


def _is_readable(folder: Folder, name: str) -> bool:
    """Tell whether a file is a shard of labels or grey values that is not cut."""
    path, _, key = name.rpartition("/c/")
    volume = Volume(folder, path)
    array = volume.array()
    shard = array.shards or array.chunks
    begin = [int(index) * step for index, step in zip(key.split("/"), shard, strict=True)]
    box = Box(as_shape(begin), as_shape(b + step for b, step in zip(begin, shard, strict=True)))
    try:
        volume.read(box.clip(as_shape(array.shape)))
    except StoreError:
        return False
    return True
