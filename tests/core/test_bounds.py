"""Numbers of recipes: each has its bounds in its type, and all that is wrong is told at once."""

import pickle
import types
import typing
from dataclasses import dataclass, is_dataclass
from typing import Annotated

import annotated_types
import pytest
from pydantic import BaseModel, Field
from pydantic.fields import FieldInfo

from tomoseg.analysis.cleanup import CleaningSettings
from tomoseg.analysis.filaments import TracingSettings
from tomoseg.analysis.particles import PickingSettings
from tomoseg.analysis.surfaces import SurfaceSettings
from tomoseg.core.bounds import SettingError, check_bounds
from tomoseg.core.errors import RequestError
from tomoseg.recipe.recipe import Recipe, recipe_from
from tomoseg.service.watching.settings import Watch
from tomoseg.training.recipe import TrainingRecipe

LOWER, UPPER = (annotated_types.Ge, annotated_types.Gt), (annotated_types.Le, annotated_types.Lt)


def flat(metadata):
    """Yield the bounds among what is annotated to a type."""
    for item in metadata:
        if isinstance(item, FieldInfo):
            yield from flat(item.metadata)
        else:
            yield from item if isinstance(item, annotated_types.GroupedMetadata) else (item,)


def numbers(hint, where, bounds=()):
    """Yield where a type has a number, and the bounds that are known of it."""
    if isinstance(hint, type) and (issubclass(hint, BaseModel) or is_dataclass(hint)):
        if issubclass(hint, BaseModel):
            inner = {n: Annotated[f.annotation, f] for n, f in hint.model_fields.items()}
        else:
            inner = typing.get_type_hints(hint, include_extras=True)
        for name, kind in inner.items():
            yield from numbers(kind, f"{where}.{name}")
    elif hint in (int, float):
        yield where, bounds
    elif typing.get_origin(hint) is Annotated:
        kind, *metadata = typing.get_args(hint)
        yield from numbers(kind, where, (*bounds, *flat(metadata)))
    elif typing.get_origin(hint) not in (None, typing.Literal, typing.ClassVar):
        is_union = typing.get_origin(hint) in (typing.Union, types.UnionType)
        for kind in typing.get_args(hint):
            yield from numbers(kind, where, bounds if is_union else ())


@pytest.mark.parametrize("model", [Recipe, TrainingRecipe, Watch])
def test_every_number_of_a_recipe_has_two_bounds(model):
    found = list(numbers(model, model.__name__))
    assert len(found) > 15
    for where, bounds in found:
        assert any(isinstance(one, LOWER) for one in bounds), f"{where} has no lower bound"
        assert any(isinstance(one, UPPER) for one in bounds), f"{where} has no upper bound"


def test_a_number_without_a_bound_is_found():
    @dataclass(frozen=True)
    class Loose:
        count: Annotated[int, Field(ge=1)] | None = None

    ((where, bounds),) = numbers(Loose, "loose")
    assert where == "loose.count"
    assert any(isinstance(one, LOWER) for one in bounds)
    assert not any(isinstance(one, UPPER) for one in bounds)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e30, "wide"])
@pytest.mark.parametrize(
    ("section", "key"),
    [
        ("trace", "radius_angstrom"),
        ("trace", "seed_threshold"),
        ("pick", "label_radius_angstrom"),
        ("pick", "threshold"),
        ("sample", "thickness_angstrom"),
        ("sample", "minimum_area_nm2"),
        ("clean", "minimum_volume_nm3"),
    ],
)
def test_numbers_of_a_class_are_named_by_their_dotted_keys(section, key, value):
    with pytest.raises(RequestError, match=rf"{section}\.actin\.{key}: .*not '") as caught:
        recipe_from({section: {"actin": {key: value}}})
    assert "Correct these keys" in caught.value.remedy


@pytest.mark.parametrize("key", ["source.voxel_size_angstrom", "segment.abstain"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -1.0, 1e30])
def test_numbers_of_a_section_are_named_by_their_dotted_keys(key, value):
    section, _, name = key.partition(".")
    with pytest.raises(RequestError, match=rf"{section}\.{name}: "):
        recipe_from({section: {name: value}})


def test_what_is_wrong_in_classes_is_told_beside_all_else():
    values = {
        "ingest": {"bin": 99},
        "trace": {"actin": {"follow_threshold": 0.9}, "microtubule": {"gap_angstrom": -1}},
        "pick": {"ribosome": {"maximum_volume_nm3": 9, "radius": 3}},
    }
    with pytest.raises(RequestError) as caught:
        recipe_from(values)
    for part in (
        "ingest.bin: Input should be less than or equal to 16, not '99'",
        "trace.actin: follow_threshold 0.9 is above seed_threshold 0.5",
        "trace.microtubule.gap_angstrom: ",
        "pick.ribosome.radius is not a known key",
    ):
        assert part in caught.value.message


@pytest.mark.parametrize(
    "kind", [CleaningSettings, TracingSettings, PickingSettings, SurfaceSettings]
)
def test_settings_that_a_program_makes_are_checked_like_those_of_a_recipe(kind):
    number = next(n for n, h in typing.get_type_hints(kind).items() if h is float)
    with pytest.raises(SettingError, match=f"{number}: .*finite"):
        kind(**{number: float("nan")})
    check_bounds(kind())


def test_what_is_wrong_with_a_setting_crosses_processes():
    with pytest.raises(SettingError) as caught:
        TracingSettings(radius_angstrom=0)
    again = pickle.loads(pickle.dumps(caught.value))
    assert isinstance(again, SettingError)
    assert str(again) == str(caught.value)
