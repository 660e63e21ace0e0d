"""Receipts of finished blocks under a digest of everything that matters (law 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from tomoseg.errors import StoreError
from tomoseg.overlap import overlapped
from tomoseg.stores.folders import Folder

BEGUN = "begun"
READERS = 8
"""Requests at once: object storage takes some hundredths of a second for each."""


@dataclass(frozen=True)
class Ledger:
    """The receipts of one stage under one digest: ``<folder>/<stage>-<digest>/<block>.json``.

    A block's name may hold folders. Of many blocks it should: a listing is held as a whole.
    """

    folder: Folder
    stage: str
    digest: str

    @property
    def place(self) -> str:
        """Name of the folder of receipts."""
        return f"{self.stage}-{self.digest[:16]}"

    def done(self, below: str = "") -> set[str]:
        """Return the names, there, of finished blocks in one folder of receipts: one listing.

        A receipt of no bytes is what a power cut leaves of a file just written; it does not count.
        """
        sizes = self.folder.sizes(f"{self.place}/{below}".rstrip("/"))
        return {
            name.removesuffix(".json")
            for name, size in sizes.items()
            if name.endswith(".json") and size
        }

    def write(self, block: str, receipt: Mapping[str, Any]) -> None:
        """Record that everything of a block has been written."""
        self.folder.write_json(f"{self.place}/{block}.json", dict(receipt))

    def read(self, block: str) -> dict[str, Any]:
        """Return a block's receipt; one that is cut is removed, so that its block is done again.

        Raises
        ------
        StoreError
            If it is not there, or was cut.
        """
        name = f"{self.place}/{block}.json"
        try:
            return dict(self.folder.read_json(name))
        except StoreError as error:
            if not self.folder.exists(name):
                raise
            self.folder.remove(name)
            raise StoreError(
                f"the receipt of {block} was cut ({error.message}) and is removed",
                remedy="Run again: that block alone is done again.",
            ) from error

    def find(self, block: str) -> dict[str, Any] | None:
        """Return a block's receipt; None if it is not finished or its receipt is cut."""
        try:
            return self.read(block)
        except StoreError:
            return None

    def write_arrays(self, block: str, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Write a block's sidecar; the receipt must follow it."""
        self.folder.write_arrays(f"{self.place}/{block}.npz", arrays)

    def read_arrays(self, block: str) -> dict[str, NDArray[Any]]:
        """Return a block's sidecar."""
        return self.folder.read_arrays(f"{self.place}/{block}.npz")

    def read_all(self, blocks: Iterable[str]) -> Iterator[dict[str, Any]]:
        """Yield the receipts of blocks in order, several read at once; errors as of one."""
        return overlapped(self.read, blocks, threads=READERS)

    def read_all_arrays(self, blocks: Iterable[str]) -> Iterator[dict[str, NDArray[Any]]]:
        """Yield the sidecars of blocks in order, several read at once."""
        return overlapped(self.read_arrays, blocks, threads=READERS)

    @property
    def has_begun(self) -> bool:
        """Whether the stage's arrays were created under this digest."""
        return self.folder.exists(f"{self.place}/{BEGUN}")

    def begin(self) -> None:
        """Record that the stage's arrays have been created, empty."""
        self.folder.write_json(f"{self.place}/{BEGUN}", {"digest": self.digest})

    def forget_all(self) -> None:
        """Remove all receipts of this stage: the voxels that they stand for are about to go."""
        for name in self.folder.names():
            if name.startswith(f"{self.stage}-"):
                self.folder.remove(name)


def digest(values: Any) -> str:
    """Return the SHA-256 of values that JSON can hold, independent of key order."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
