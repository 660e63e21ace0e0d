"""Receipts of finished blocks under a digest of everything that matters (law 3)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from numpy.typing import NDArray

from tomoseg.core.errors import AbsentError, StoreError
from tomoseg.core.overlap import overlapped
from tomoseg.io.stores.folders import Folder
from tomoseg.io.stores.moves import discard

BEGUN, PUBLISHING, REOPENED = "begun", "publishing", "reopened"
STAGED = "staged"
GENERATIONS = "generations.json"
WRITTEN = "written"
"""Entry of a receipt: name below the ledger's folder → bytes, of what its block wrote."""
READERS = 8
"""Requests at once: object storage takes some hundredths of a second for each."""


@dataclass(frozen=True)
class Ledger:
    """The receipts of one stage under one digest: ``<folder>/<stage>-<digest>/<block>.json``.

    A block's name may hold folders. Of many blocks it should: a listing is held as a whole.
    What blocks write for others than their own stage is staged until all of it is published::

        segment-0123456789abcdef/begun                          arrays have been created
                                 predict/0/0-1-1.json           receipts, sidecars
                                 publishing                     all is computed and goes out
        staged/segment-0123456789abcdef/tomogram.zarr/work/…    arrays, as in <tomogram>/

    Parameters
    ----------
    folder, stage, digest
        Where, of what, and under which settings.
    generation
        How often this stage was begun anew under this digest. Each has a folder of its own: what
        a writer of an earlier one has in flight does not get into this one.
    """

    folder: Folder
    stage: str
    digest: str
    generation: int = 0

    @classmethod
    def of(cls, folder: Folder, stage: str, digest: str) -> Ledger:
        """Return the ledger of the newest generation, begun or to be begun."""
        first = cls(folder, stage, digest)
        return replace(first, generation=_generations(folder).get(first.place, 0))

    @property
    def place(self) -> str:
        """Name of the folder of receipts."""
        name = f"{self.stage}-{self.digest[:16]}"
        return f"{name}-{self.generation}" if self.generation else name

    @property
    def staged(self) -> Folder:
        """What stands here is published under the same names below the tomogram's folder."""
        return self.folder / f"{STAGED}/{self.place}"

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
        except AbsentError:
            raise
        except StoreError as error:
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
        return self.has(BEGUN)

    def begin(self, **said: Any) -> None:
        """Record that the stage's arrays have been created, empty, and what else is said of it."""
        self.mark(BEGUN, {"digest": self.digest, **said})

    def forget_all(self) -> None:
        """Remove all receipts of this stage with what is staged: their voxels are about to go.

        Their folders are not used again.
        """
        old, generations = list(ledgers(self.folder, self.stage)), _generations(self.folder)
        for one in old:
            first = replace(one, generation=0).place
            generations[first] = max(generations.get(first, 0), one.generation + 1)
        if old:
            self.folder.write_json(GENERATIONS, generations)
        for one in old:
            one.remove()

    def blocks(self) -> Iterator[str]:
        """Yield the names of all finished blocks of all passes: a listing a layer of the grid."""
        for label in self._folders(""):
            for layer in self._folders(label):
                names = sorted(self.done(f"{label}/{layer}"))
                yield from (f"{label}/{layer}/{name}" for name in names)

    def remove(self) -> None:
        """Remove the mark that writers look for, then the receipts, then what is staged."""
        self.unmark(BEGUN)
        self.folder.remove(self.place)
        discard(self.folder, f"{STAGED}/{self.place}")

    def clear_late(self) -> None:
        """Remove what a writer may have left after the stage was given up or published.

        A writer that calls this after its last write leaves nothing: either it sees that here, or
        who gave up or published began to clear after that write.
        """
        if not self.has_begun:
            self.remove()
        elif self.folder.is_file(f"{self.stage}.json"):
            discard(self.folder, f"{STAGED}/{self.place}")

    def own(self, written: Mapping[str, int]) -> dict[str, int]:
        """Return of files, URL → bytes, the sidecars and what is staged, as ``staged/<path>``."""
        starts = {f"{self.folder.url}/{self.place}/": "", f"{self.staged.url}/": f"{STAGED}/"}
        return {
            url.replace(start, short, 1): size
            for url, size in written.items()
            for start, short in starts.items()
            if url.startswith(start)
        }

    def lost(self, is_there: Callable[[str, int], bool]) -> Iterator[str]:
        """Yield the blocks that have a receipt and of which something is gone.

        Parameters
        ----------
        is_there
            Tells of a name, as :meth:`own` gives them, and its bytes whether they stand.

        Raises
        ------
        StoreError
            As :meth:`read`.
        """

        def looked(block: str) -> str:
            written = self.read(block).get(WRITTEN, {})
            return "" if all(is_there(*each) for each in written.items()) else block

        return filter(None, overlapped(looked, self.blocks(), threads=READERS))

    def forget(self, block: str) -> None:
        """Have a block done again."""
        self.folder.remove(f"{self.place}/{block}.json")

    def has(self, mark: str) -> bool:
        """Tell whether a mark stands: ``begun``, ``publishing`` or ``reopened``."""
        return self.folder.is_file(f"{self.place}/{mark}")

    def mark(self, mark: str, values: Mapping[str, Any]) -> None:
        """Set a mark."""
        self.folder.write_json(f"{self.place}/{mark}", dict(values))

    def unmark(self, mark: str) -> None:
        """Take a mark away."""
        self.folder.remove(f"{self.place}/{mark}")

    def marked(self, mark: str) -> dict[str, Any]:
        """Return what a mark says."""
        return dict(self.folder.read_json(f"{self.place}/{mark}"))

    def _folders(self, below: str) -> list[str]:
        entries = self.folder.entries(f"{self.place}/{below}".rstrip("/"))
        return [entry.name for entry in entries if entry.is_folder]


def ledgers(folder: Folder, stage: str) -> Iterator[Ledger]:
    """Yield the ledgers of a stage that have a folder, whatever their digests."""
    for name in folder.names():
        if name.startswith(f"{stage}-"):
            digest_, _, number = name.removeprefix(f"{stage}-").partition("-")
            yield Ledger(folder, stage, digest_, int(number or 0))


def _generations(folder: Folder) -> dict[str, int]:
    try:
        return dict(folder.read_json(GENERATIONS))
    except AbsentError:
        return {}


def begun(folder: Folder, stage: str) -> Iterator[dict[str, Any]]:
    """Yield what :meth:`Ledger.begin` recorded of a stage, under each digest that is there."""
    for ledger in ledgers(folder, stage):
        with suppress(StoreError):
            yield ledger.marked(BEGUN)


def digest(values: Any) -> str:
    """Return the SHA-256 of values that JSON can hold, independent of key order."""
    text = json.dumps(values, sort_keys=True, separators=(",", ":"), default=str)
    return hashlib.sha256(text.encode()).hexdigest()
