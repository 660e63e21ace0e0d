"""File systems as fsspec and the operating system have them."""

from __future__ import annotations

import contextlib
import errno
import glob
import os
import secrets
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec

REMOVALS = 10
"""Of a folder into which somebody writes."""


def located(url: str) -> tuple[Any, str]:
    """Return the file system and the path of a checked URL.

    The protocol is taken literally: fsspec's own parser follows ``::`` wherever it stands, also
    in a folder's name. Other processes write into the same folders, so no listing is remembered.
    """
    protocol, _, path = url.partition("://")
    return fsspec.filesystem(protocol, use_listings_cache=False), path


def has_file(system: Any, path: str) -> bool:
    """Tell whether a file of that name stands; of an object one request.

    fsspec asks about what is no object once more, whether it is a folder.
    """
    return _headed(system, path) is not None if _is_s3(system) else bool(system.isfile(path))


def file_size(system: Any, path: str) -> int | None:
    """Return the bytes of a file, None if it is not there; of an object one request."""
    if _is_s3(system):
        found = _headed(system, path)
        return None if found is None else int(found["ContentLength"])
    try:
        return int(system.info(path)["size"])
    except FileNotFoundError:
        return None


def has_any(system: Any, path: str) -> bool:
    """Tell whether a file or a folder of that name stands; of objects one request."""
    return any(_standing(system, path)) if _is_s3(system) else bool(system.exists(path))


def remove_objects(system: Any, path: str) -> None:
    """Remove an object and all below it, if they are there: a request more than thousands."""
    if not _is_s3(system):
        # Such systems take a name as a pattern: "[1]" must not remove what is called "1".
        with contextlib.suppress(FileNotFoundError):
            system.rm(glob.escape(path), recursive=True)
        return
    is_file, is_folder = _standing(system, path)
    bucket, key, _ = system.split_path(path)
    if is_file:
        system.call_s3("delete_object", system.kwargs, Bucket=bucket, Key=key)
    for page in _pages(system, bucket, Prefix=f"{key}/") if is_folder else ():
        below = [{"Key": item["Key"]} for item in page.get("Contents", ())]
        answer = system.call_s3("delete_objects", system.kwargs, Bucket=bucket,
                                Delete={"Objects": below, "Quiet": True})  # fmt: skip
        for error in answer.get("Errors", ()):
            number = errno.EACCES if error.get("Code") == "AccessDenied" else errno.EIO
            raise OSError(number, f"{error.get('Message')}: {bucket}/{error['Key']}")


def _is_s3(system: Any) -> bool:
    """Tell whether requests can be made as S3 has them; of all else fsspec's own ways are used."""
    return hasattr(system, "call_s3")


def _headed(system: Any, path: str) -> Any | None:
    bucket, key, _ = system.split_path(path)
    try:
        return system.call_s3("head_object", system.kwargs, Bucket=bucket, Key=key)
    except FileNotFoundError:
        return None


def _standing(system: Any, path: str) -> tuple[bool, bool]:
    """Tell whether an object, and a folder of objects, of that name stand."""
    bucket, key, _ = system.split_path(path)
    is_file = False
    for page in _pages(system, bucket, Prefix=key, Delimiter="/"):
        is_file |= any(item["Key"] == key for item in page.get("Contents", ()))
        if any(item["Prefix"] == f"{key}/" for item in page.get("CommonPrefixes", ())):
            return is_file, True
    return is_file, False


def _pages(system: Any, bucket: str, **what: str) -> Iterator[Any]:
    while True:
        page = system.call_s3("list_objects_v2", system.kwargs, Bucket=bucket, **what)
        yield page
        if not page.get("IsTruncated"):
            return
        what["ContinuationToken"] = page["NextContinuationToken"]


def remove_tree(place: Path) -> None:
    """Remove a file or a folder, if it is there, also while others write into it and tidy up."""
    for left in reversed(range(REMOVALS)):
        if not os.path.lexists(place):
            return
        try:
            if place.is_dir() and not place.is_symlink():
                shutil.rmtree(place)
            else:
                place.unlink()
        except OSError as error:
            if not left or error.errno not in (errno.ENOENT, errno.ENOTEMPTY):
                raise


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


def part_of(target: Path) -> Path:
    """Return a name of a writer's own beside a file, which ``Folder.remove_parts`` knows."""
    return target.with_name(f".{target.name}.{secrets.token_hex(4)}")


def linked(target: Path, content: bytes) -> bool:
    """Create a local file with its whole content at once; without hard links, by creating it."""
    target.parent.mkdir(parents=True, exist_ok=True)
    part = part_of(target)
    try:
        part.write_bytes(content)
        try:
            sync(part)
            os.link(part, target)
        except FileExistsError:
            return False
        except FileNotFoundError:
            # Who created it first may have removed our part with those of the dead.
            if not target.exists():
                raise
            return False
        except OSError as error:
            if error.errno not in (errno.EPERM, errno.ENOTSUP, errno.ENOSYS):
                raise
            with target.open("xb") as file:
                file.write(content)
        sync(target.parent)
    except FileExistsError:
        return False
    finally:
        part.unlink(missing_ok=True)
    return True
