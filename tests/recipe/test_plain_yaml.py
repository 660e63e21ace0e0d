"""YAML of others: plain values or one error, and no bomb."""

import time

import pytest
import yaml

from tomoseg.core.errors import RequestError
from tomoseg.recipe.plain_yaml import yaml_mapping, yaml_values
from tomoseg.recipe.recipe import load_recipe

LAUGHS = "a0: &a0 [x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 10)
)


@pytest.mark.parametrize(
    ("text", "fact"),
    [
        pytest.param(LAUGHS, "more than 100000 values", id="billion laughs"),
        pytest.param("a: &a [*a]\n", "nests more than 50", id="a list in itself"),
        pytest.param("a: &a {b: *a}\n", "nests more than 50", id="a mapping in itself"),
        pytest.param("a: " + "[" * 60 + "]" * 60, "nests more than 50", id="deep"),
        pytest.param("a: " + "[" * 1000, "YAML file", id="deeper than the parser"),
        pytest.param("a: " + "x" * 2**19, "characters are more than", id="long"),
        pytest.param("a: 2001-99-99", "a value cannot be read", id="no date"),
        pytest.param("a: 0b" + "1" * 99 + "2", "0b|YAML|mapping", id="no number"),
        pytest.param("a: !!python/object/apply:os.getcwd []", "could not determine", id="a call"),
        pytest.param("a: !!python/name:os.system", "could not determine", id="a function"),
        pytest.param("- a", "no mapping", id="a list"),
        pytest.param("a: 1\n---\nb: 1", "YAML file", id="two documents"),
        pytest.param("a: \x07", "YAML file", id="a control character"),
    ],
)
def test_what_is_no_recipe_is_refused_soon(text, fact, tmp_path):
    (tmp_path / "recipe.yaml").write_text(text)
    began = time.process_time()
    if fact == "0b|YAML|mapping":
        assert isinstance(yaml_values(text)["a"], str)
        return
    with pytest.raises(RequestError, match=fact):
        load_recipe(tmp_path / "recipe.yaml")
    assert time.process_time() - began < 2


def test_aliases_that_name_a_value_are_read():
    text = "base: &b {x: 1, y: [1, 2]}\nmore: {<<: *b, y: 3}\nlist: [*b, *b]\n"
    base = {"x": 1, "y": [1, 2]}
    assert yaml_mapping(text.encode(), "x") == {
        "base": base, "more": {"x": 1, "y": 3}, "list": [base, base]
    }  # fmt: skip


def test_nothing_is_an_empty_recipe():
    assert yaml_mapping(b"# only this\n", "x") == {}


def test_a_change_on_the_command_line_is_no_bomb_either():
    with pytest.raises(RequestError, match="is not a YAML value"):
        load_recipe(None, ["segment.abstain=" + "[" * 60 + "]" * 60])
    with pytest.raises(yaml.YAMLError):
        yaml_values("'")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\nb: 2\na: 3\n", "the key a stands 2 times, in lines 1, 3"),
        ("a:\n  b: 1\n  b: 1\n", "the key b stands 2 times, in lines 2, 3"),
        ("a: [{b: 1}, {c: 1, c: 2}]", "the key c stands 2 times, in lines 1, 1"),
        ("a: {1: x, '1': y}", "the key 1 stands 2 times"),
        ("yes: 1\ntrue: 2\n", "the key True stands 2 times"),
        ("a: {<<: {b: 1}, c: 1, c: 2}", "the key c stands"),
        ("a: 1\na: 2\nb: 1\nb: 2\n", "the key a .*; the key b .* lines 3, 4"),
    ],
)
def test_a_key_that_stands_twice_is_refused_with_its_lines(text, message):
    with pytest.raises(RequestError, match=f"there: {message}"):
        yaml_mapping(text.encode(), "there")


def test_what_an_alias_or_a_merge_repeats_is_no_repetition():
    text = "a: &x {b: 1}\nc: *x\nd: {<<: *x, b: 2}\n"
    assert yaml_mapping(text.encode(), "there") == {"a": {"b": 1}, "c": {"b": 1}, "d": {"b": 2}}
