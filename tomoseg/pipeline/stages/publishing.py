"""Publishing: what a stage computed goes out at once, and is looked after from then on.

While a stage works, all that its blocks write lies under its digest
(:mod:`tomoseg.io.stores.ledger`), where no other run writes and nobody looks. When all of it is
there, the driver moves it to where people find it and then writes the stage's record, the one last
small write. A writer that comes late, because its driver was killed, finds no array to write into.
Every step may be killed and is gone on with by the next run::

    begun ─→ blocks ─→ publishing ─→ <stage>.json          something lost of what is recorded:
      ↑                                    │ reopened      moved back, and its blocks done again
      └────────────────────────────────────┘
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

from tomoseg.core.errors import ClaimError
from tomoseg.core.layout import PROGRESS, RECORDS
from tomoseg.io.stores import (
    Folder,
    Ledger,
    discard,
    is_array,
    items_below,
    ledgers,
    seals,
    stands,
    transfer,
)
from tomoseg.io.stores.ledger import PUBLISHING, REOPENED, STAGED
from tomoseg.io.stores.moves import METADATA
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.standing import EDITED, WRITTEN, condition, states

log = logging.getLogger(__name__)


def conclude(
    context: Context, ledger: Ledger, record: Mapping[str, Any], written: Mapping[str, int]
) -> None:
    """Note that all of a stage is computed: what is staged goes out, whoever is killed.

    Parameters
    ----------
    record
        The stage's record; what is published is added, with what tells whether it still stands.
    written
        URL → bytes of what the driver wrote, of which that counts which stands in its place.
    """
    items = list(items_below(ledger.staged))
    arrays = {item: seals(ledger.staged, item) for item in items if is_array(ledger.staged, item)}
    files = [item for item in items if item not in arrays and not _is_known(context, ledger, item)]
    start = f"{context.folder.url}/"
    names = (url.removeprefix(start) for url in written if url.startswith(start))
    inside = (PROGRESS, *(f"{RECORDS}/{place}/" for place in (ledger.place, STAGED)))
    kept = [name for name in names if not name.startswith(inside) and context.folder.exists(name)]
    sizes = {name: ledger.staged.size(name) for name in files}
    sizes |= {name: context.folder.size(name) for name in kept}
    # Of what is in a group several stages tell.
    sizes = {name: size for name, size in sizes.items() if not name.endswith(METADATA)}
    published = {"arrays": arrays, "files": files, "written": kept, "sizes": sizes}
    ledger.mark(PUBLISHING, {"record": {**record, "published": published}, "moved": 0})
    ledger.unmark(REOPENED)


def publish(context: Context, ledger: Ledger) -> dict[str, Any]:
    """Move what is staged to where people find it, then write the stage's record and return it.

    A group's metadata comes after its arrays. Before each move the run's claim is looked at, as
    after each block. A driver that is frozen after such a look and wakes when its successor is done
    finds nothing staged to move, and the successor's record in place of its own.

    Raises
    ------
    ClaimError
        If another run has published the stage.
    """
    values = ledger.marked(PUBLISHING)
    record = dict(values["record"])
    items = [*record["published"]["arrays"], *record["published"]["files"]]
    for number, item in enumerate(items):
        context.progress(context.name, f"{ledger.stage} publish", number, len(items))
        if number < values["moved"]:
            continue
        transfer(ledger.staged, item, context.folder)
        if not ledger.folder.is_local:
            ledger.mark(PUBLISHING, {**values, "moved": number + 1})
            discard(ledger.staged, item)
    context.progress(context.name, f"{ledger.stage} publish", len(items), len(items))
    if not context.records.create_json(f"{ledger.stage}.json", record):
        raise ClaimError(
            f"{ledger.stage} was published by another run meanwhile",
            remedy="Let the other run finish; finished blocks are kept.",
        )
    ledger.unmark(PUBLISHING)
    discard(context.records, f"{STAGED}/{ledger.place}")
    return record


def sweep(folder: Folder) -> None:
    """Remove from a tomogram's folder what late and killed writers left; no block may be at work.

    What belongs to a stage that is not finished stays: it is gone on with.
    """
    records = folder / RECORDS
    names = records.names()
    for stage in {name.partition("-")[0] for name in names if "-" in name}:
        record = f"{stage}.json"
        if record not in names:
            continue
        standing = Ledger.of(records, stage, records.read_json(record)["digest"]).place
        for ledger in ledgers(records, stage):
            if ledger.place != standing:
                ledger.remove()
            discard(records, f"{STAGED}/{ledger.place}")
    folder.remove_parts()


def is_concluded(ledger: Ledger) -> bool:
    """Tell whether a stage is computed and was killed while it was published."""
    return ledger.has(PUBLISHING) and not ledger.has(REOPENED)


def is_whole(context: Context, ledger: Ledger, record: Mapping[str, Any]) -> bool:
    """Tell whether everything that is recorded of a finished stage still stands.

    What a person put there is told and left alone.
    """
    found = condition(context.folder, record, lambda: ledger)
    for path in found.changed:
        log.warning("%s: %s is not what the run wrote; it is left as it is", context.name, path)
    return found.is_whole


def reopen(context: Context, ledger: Ledger, record: Mapping[str, Any]) -> None:
    """Have a finished stage go on, since something of it is lost."""
    ledger.mark(REOPENED, record.get("published", {}))
    context.records.remove(f"{ledger.stage}.json")
    ledger.unmark(PUBLISHING)


def can_go_on(context: Context, ledger: Ledger, stage: Stage) -> bool:
    """Bring a stage into the state in which its passes do what is missing; or tell that it cannot.

    What was published of a stage that is opened again is staged again. Receipts of blocks whose
    shards or sidecars are gone are removed.
    """
    if not ledger.has_begun:
        return False
    if ledger.has(REOPENED):
        published = ledger.marked(REOPENED)
        for item in (*published.get("arrays", ()), *published.get("files", ())):
            if not stands(ledger.staged, item):
                ledger.staged.remove(item)
                transfer(context.folder, item, ledger.staged)
            discard(context.folder, item)
    if not all(context.volume(path).exists for path in stage.arrays(context)):
        return False
    of_staged, of_ledger = states(ledger.staged), states(ledger.folder / ledger.place)

    def is_there(name: str, size: int) -> bool:
        path = name.removeprefix(f"{STAGED}/")
        if path == name:
            return of_ledger(name, size) == WRITTEN
        return of_staged(path, size) in (WRITTEN, EDITED)

    for block in ledger.lost(is_there):
        ledger.forget(block)
    return True


def _is_known(context: Context, ledger: Ledger, item: str) -> bool:
    """Tell whether a group without attributes, made beside an array, is published with some."""
    if not item.endswith("/zarr.json") or ledger.staged.read_json(item).get("attributes"):
        return False
    there = context.folder
    return there.exists(item) and bool(there.read_json(item).get("attributes"))
