"""The free space of file systems, as it is when Prometheus asks: one sample each."""

from __future__ import annotations

import os
import shutil
import socket
from collections.abc import Iterator
from pathlib import Path

from prometheus_client.core import GaugeMetricFamily


class Disks:
    """Collects the file systems of some folders, by where they are mounted.

    Folders of one file system are one sample, however many and whatever they are for; of those of
    several processes ``host`` and ``mount`` tell it. One that is away keeps what it last had: an
    alert is not ended by that.
    """

    def __init__(self) -> None:
        self._last: dict[str, tuple[int, int]] = {}

    def add(self, folder: str | os.PathLike[str]) -> None:
        """Show the file system where a folder is or will be, from now on."""
        mount = mount_of(folder)
        if mount not in self._last and _device(mount) not in map(_device, self._last):
            self._last[mount] = _usage(mount)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the free bytes and the size of each."""
        labels, host = ("host", "mount"), socket.gethostname()
        free = GaugeMetricFamily("tomoseg_disk_free_bytes", "Free now.", labels=labels)
        size = GaugeMetricFamily("tomoseg_disk_size_bytes", "There are.", labels=labels)
        for mount, last in list(self._last.items()):
            there = self._last[mount] = _usage(mount) if os.path.ismount(mount) else last
            free.add_metric((host, mount), there[0])
            size.add_metric((host, mount), there[1])
        yield free
        yield size


def mount_of(folder: str | os.PathLike[str]) -> str:
    """Return where the file system is mounted on which a folder is or will be."""
    place = Path(os.path.realpath(folder))
    while not (place.exists() and place.is_mount()) and place != place.parent:
        place = place.parent
    return str(place)


def _usage(mount: str) -> tuple[int, int]:
    usage = shutil.disk_usage(mount)
    return usage.free, usage.total


def _device(mount: str) -> int | str:
    """Return what tells a file system from another; its place if that is away."""
    try:
        return os.stat(mount).st_dev
    except OSError:
        return mount
