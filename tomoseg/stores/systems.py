"""File systems as fsspec and the operating system have them."""

from __future__ import annotations

import errno
import os
from pathlib import Path
from typing import Any

import fsspec


def located(url: str) -> tuple[Any, str]:
    """Return the file system and the path of a checked URL.

    The protocol is taken literally: fsspec's own parser follows ``::`` wherever it stands, also
    in a folder's name. Other processes write into the same folders, so no listing is remembered.
    """
    protocol, _, path = url.partition("://")
    return fsspec.filesystem(protocol, use_listings_cache=False), path


def sync(place: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk.

    Some network file systems know no such thing for folders.
    """
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):
            raise
    finally:
        os.close(descriptor)
