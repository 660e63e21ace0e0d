"""A session's recipe: beside its tomograms, or by a rule of the watch."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tomoseg.compute.settings import without_scheduler
from tomoseg.core.errors import RequestError, StoreError
from tomoseg.io.stores import Entry, Folder, checked_url, digest, is_folder
from tomoseg.nets.card import SHIPPED_MODELS
from tomoseg.recipe.plain_yaml import yaml_mapping
from tomoseg.recipe.recipe import Recipe, load_recipe, recipe_from
from tomoseg.service.watching.sessions import WatchedSession, check_root, is_match
from tomoseg.service.watching.settings import Watch, at_scheduler

OWN = "tomoseg.yaml"
WITHOUT_EFFECT: dict[str, Any] = {
    "compute": True,
    "session": {"output", "results_of", "keep_previous"},
}
"""Keys that change no result."""


@dataclass(frozen=True)
class SessionRecipe:
    """The recipe of a session, or why there is none.

    Parameters
    ----------
    digest
        Of all that it says of results; of a wrong recipe, of what is wrong. It is not of the code:
        what arrived and is done stays done where tomoseg is upgraded.
    recipe
        With the session's input and output, and where its blocks run.
    error
        What is wrong with it.
    """

    digest: str
    recipe: Recipe | None = None
    error: RequestError | None = None

    @property
    def right(self) -> Recipe:
        """The recipe; raise what is wrong with it."""
        if self.recipe is None:
            assert self.error is not None
            raise self.error
        return self.recipe


def session_recipe(
    watch: Watch, session: WatchedSession, entries: Sequence[Entry]
) -> SessionRecipe:
    """Return a session's recipe: ``tomoseg.yaml`` in its folder, or that of the first rule.

    A session's own recipe says nothing of where blocks run: who may write tomograms could start
    programs. What it names must lie below the watch's roots.
    """
    try:
        recipe = _recipe(watch, session, any(entry.name == OWN for entry in entries))
    except RequestError as error:
        return SessionRecipe(digest(str(error)), error=error)
    # Without defaults: a new version has other keys, and what is done stays done.
    decisive = recipe.model_dump(mode="json", exclude=WITHOUT_EFFECT, exclude_defaults=True)
    return SessionRecipe(digest(decisive), recipe)


def missing_model(recipe: SessionRecipe | None) -> str:
    """Return the URL of a model that a recipe names and that is not there; empty if all are."""
    if recipe is None or recipe.recipe is None:
        return ""
    models = [choice.model for choice in recipe.recipe.segment.choices]
    places = (checked_url(model) for model in models if model not in SHIPPED_MODELS)
    return next((place for place in places if not is_folder(place)), "")


def _recipe(watch: Watch, session: WatchedSession, is_own: bool) -> Recipe:
    rule = next((rule for rule in watch.recipes if is_match(session.url, rule.sessions)), None)
    if rule is None and not is_own:
        raise RequestError(
            f"no recipe is known for {session.url}",
            remedy=f"Put a {OWN} beside the tomograms, or a rule into the watch's file.",
        )
    given = load_recipe(rule.recipe) if rule else Recipe()
    if is_own:
        values = _own_values(session)
        _check_places(recipe_from(values), session, watch)
    else:
        values = given.model_dump(mode="json")
    compute = (watch.compute or given.compute).model_dump(mode="json")
    values["compute"] = at_scheduler(compute, watch.scheduler)
    names = {**(values.get("session") or {}), "input": session.url, "output": session.output}
    recipe = recipe_from({**values, "session": names})
    # The watch's own section names its scheduler as well.
    is_at_scheduler = watch.scheduler is not None and watch.compute is not None
    return recipe.saying(without_scheduler(compute) if is_at_scheduler else compute)


def _own_values(session: WatchedSession) -> dict[str, Any]:
    name = f"{session.url}/{OWN}"
    try:
        values = yaml_mapping(Folder(session.url).read(OWN), name)
    except StoreError as error:
        raise RequestError(error.message) from error
    if "compute" in values:
        raise RequestError(
            f"{name}: a session's own recipe cannot say where blocks run",
            remedy="Remove compute there; set it in the watch's file or in a rule's recipe.",
        )
    _place_beside(values, session)
    return values


def _place_beside(values: dict[str, Any], session: WatchedSession) -> None:
    """Take relative places of a recipe from the session's folder, in place."""
    segment, source = values.get("segment"), values.get("source")
    networks = segment.get("networks") if isinstance(segment, Mapping) else None
    holders = [(segment, "model"), (source, "mask")]
    holders += [(one, "model") for one in networks] if isinstance(networks, list) else []
    for holder, key in holders:
        if isinstance(holder, dict) and isinstance(holder.get(key), str):
            holder[key] = _beside(holder[key], session)


def _beside(name: str, session: WatchedSession) -> str:
    is_placed = "://" in name or name in SHIPPED_MODELS or name.startswith("{folder}")
    return name if is_placed or Path(name).is_absolute() else f"{session.url}/{name}"


def _check_places(recipe: Recipe, session: WatchedSession, watch: Watch) -> None:
    models = [choice.model for choice in recipe.segment.choices]
    named = [model for model in models if model not in SHIPPED_MODELS]
    if recipe.source.mask:
        named.append(recipe.source.mask.replace("{folder}", session.url).replace("{name}", "name"))
    for name in named:
        check_root(name, watch.roots)
