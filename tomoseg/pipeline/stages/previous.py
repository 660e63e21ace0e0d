"""Results of an earlier run: told before they are replaced, kept where that is asked for.

A stage that is made again under other settings takes along all that was made from it: nothing of
the earlier run then lies beside what is new. Only what a run wrote is touched.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from tomoseg.core.errors import StoreError
from tomoseg.core.layout import IMAGE, MANIFEST, PREVIOUS, RECORDS
from tomoseg.io.stores import Folder, Ledger, discard, transfer
from tomoseg.pipeline.stages.context import Context, Stage
from tomoseg.pipeline.stages.terms import Terms

# Where blocks run and where results go change none; these are not told as reasons.
_WITHOUT_EFFECT = ("session", "compute")
_REASONS = 4

log = logging.getLogger(__name__)


def retire(context: Context, name: str, stages: Mapping[str, Stage]) -> None:
    """Say that a stage is made again under other settings, and clear away what is replaced.

    Parameters
    ----------
    name
        The stage, of which there is a record.
    stages
        All of them, in order.
    """
    record = context.record(name)
    again = [one for one in _following(name, stages) if context.records.exists(f"{one}.json")]
    when = record.get("finished", "")[:10]
    place = f"{PREVIOUS}/{when}-{record['digest'][:8]}"
    is_kept = context.recipe.session.keep_previous
    log.warning(
        "%s: %s will be made again: %s; results of %s are %s",
        context.name,
        ", ".join(again),
        _reason(context, record),
        when,
        f"kept under {place}" if is_kept else "replaced (session.keep_previous: true keeps them)",
    )
    _clear(context.folder, MANIFEST, place if is_kept else "")
    # The record that shows that there is something to clear goes last.
    for one in reversed(again):
        for item in _written(context, stages[one]):
            _clear(context.folder, item, place if is_kept else "")
        Ledger(context.records, one, "").forget_all()
        _clear(context.folder, f"{RECORDS}/{one}.json", place if is_kept else "")


def begin_anew(context: Context, *, name: str, stages: Mapping[str, Stage]) -> None:
    """Forget all that was begun of a stage, and of what is made from it and is not finished.

    A late writer of the latter may have read what other settings made meanwhile.
    """
    for one in _following(name, stages):
        if one == name or not context.records.exists(f"{one}.json"):
            Ledger(context.records, one, "").forget_all()


def _following(name: str, stages: Mapping[str, Stage]) -> Iterator[str]:
    """Yield a stage and all that are made from it, in order."""
    found = {name}
    for one, stage in stages.items():
        if one in found or found & set(stage.needs):
            found.add(one)
            yield one


def _written(context: Context, stage: Stage) -> list[str]:
    """Return the arrays and files of a finished stage, by their names in the tomogram's folder."""
    record = context.record(stage.name)
    if "published" not in record:
        arrays = ("",) if stage.owns == ("",) else stage.arrays(context)
        files = record["summary"].get("files", ())
        return [*(f"{IMAGE}/{path}".rstrip("/") for path in arrays), *files]
    published = record["published"]
    names = [name for kind in ("arrays", "files", "written") for name in published[kind]]
    return list(dict.fromkeys([*names, *record["summary"].get("files", ())]))


def _clear(folder: Folder, name: str, kept: str) -> None:
    """Remove a file or an array, or put it below a folder."""
    if kept:
        transfer(folder, name, folder / kept)
    discard(folder, name)


def _reason(context: Context, record: Mapping[str, Any]) -> str:
    """Say what differs from the run that wrote the manifest, by the keys of the recipe."""
    unlike = Terms.from_dict(record).unlike(context.terms) if context.terms else ""
    if unlike:
        return f"made with {unlike}"
    try:
        before = context.folder.read_json(MANIFEST)
    except StoreError:
        return "settings differ from those of a run that was not finished"
    keys = differing(before["recipe"], context.recipe.model_dump(mode="json"))
    return differ(keys) if keys else "the source, a mask or a model differs"


def differing(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Return the dotted keys of two recipes, as plain values, that differ and decide results."""
    old, new = dict(_flat(before)), dict(_flat(now))
    keys = [key for key in dict.fromkeys((*old, *new)) if old.get(key) != new.get(key)]
    return [key for key in keys if not key.startswith(_WITHOUT_EFFECT)]


def differ(keys: Sequence[str]) -> str:
    """Say that some keys differ.

    >>> differ(["segment.model"])
    'segment.model differs'
    """
    more = f" and {len(keys) - _REASONS} more keys" if len(keys) > _REASONS else ""
    return f"{', '.join(keys[:_REASONS])}{more} differ{'s' if len(keys) == 1 else ''}"


def _flat(values: Any, above: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the keys of nested sections as dotted keys.

    >>> dict(_flat({"pick": {"ribosome": {"threshold": 0.4}}, "clean": {}}))
    {'pick.ribosome.threshold': 0.4}
    """
    for key, value in values.items():
        name = f"{above}.{key}".lstrip(".")
        if isinstance(value, dict):
            yield from _flat(value, name)
        else:
            yield name, value
