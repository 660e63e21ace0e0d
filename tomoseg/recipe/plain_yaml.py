"""Plain values of YAML that others wrote: no objects, no bombs, no key twice, one kind of error."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml

from tomoseg.core.errors import RequestError

# A recipe has some KB; the parser reads 100 KB a second.
LARGEST_CHARACTERS = 2**17
# Each alias stands for all that it names: nine lines of nine aliases each are a billion values.
MOST_VALUES = 100_000
DEEPEST = 50
# The tag of "<<", which is no value of its own.
MERGE = "tag:yaml.org,2002:merge"


class RepeatedKeyError(yaml.YAMLError):
    """A mapping has a key twice, of which the last would win."""


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping in a YAML file; raise RequestError if there is none."""
    try:
        with path.open("rb") as file:
            content = file.read(4 * LARGEST_CHARACTERS + 1)
    except FileNotFoundError as error:
        raise RequestError(f"there is no recipe at {path}") from error
    except IsADirectoryError as error:
        raise RequestError(f"{path} is not a YAML file: {error}") from error
    return yaml_mapping(content, str(path))


def yaml_mapping(content: bytes, where: str) -> dict[str, Any]:
    """Return the mapping in the bytes of a YAML file, empty if there is nothing.

    Raises
    ------
    RequestError
        If they hold something else; ``where`` is what the error calls them.
    """
    try:
        values = yaml_values(content.decode())
    except RepeatedKeyError as error:
        raise RequestError(
            f"{where}: {error}", remedy="Keep one of them, with all that it is to hold."
        ) from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise RequestError(f"{where} is not a YAML file: {error}") from error
    if values is None:
        return {}
    if not isinstance(values, dict):
        raise RequestError(f"{where} holds no mapping of recipe keys")
    return values


def yaml_values(text: str) -> Any:
    """Return what a YAML document holds: mappings, lists, text, numbers, truths, dates, None.

    Raises
    ------
    yaml.YAMLError
        If it is no YAML, names a type of Python's, is longer than 128 Ki characters, nests more
        than 50 deep, or holds more than 100,000 values once its aliases are written out; a
        :class:`RepeatedKeyError` if a key stands twice in a mapping.
    """
    if len(text) > LARGEST_CHARACTERS:
        raise yaml.YAMLError(f"{len(text)} characters are more than {LARGEST_CHARACTERS}")
    loader = yaml.SafeLoader(text)
    try:
        node = loader.get_single_node()
        if node is None:
            return None
        _count(node, {}, 0)
        if repeated := list(_repeated(loader, node, set())):
            raise RepeatedKeyError("; ".join(repeated))
        return loader.construct_document(node)
    except RecursionError as error:
        raise yaml.YAMLError(f"it nests more than {DEEPEST} deep") from error
    # A date that is none, a number of too many digits.
    except (ValueError, OverflowError) as error:
        raise yaml.YAMLError(f"a value cannot be read: {error}") from error
    finally:
        loader.dispose()


def _count(node: yaml.Node, known: dict[int, int], depth: int) -> int:
    """Return how many values a node stands for, aliases written out."""
    if id(node) in known:
        return known[id(node)]
    if depth > DEEPEST:  # also where a node holds itself
        raise yaml.YAMLError(f"it nests more than {DEEPEST} deep")
    inner: list[yaml.Node] = []
    if isinstance(node, yaml.SequenceNode):
        inner = node.value
    elif isinstance(node, yaml.MappingNode):
        inner = [one for pair in node.value for one in pair]
    count = 1 + sum(_count(one, known, depth + 1) for one in inner)
    if count > MOST_VALUES:
        raise yaml.YAMLError(f"it holds more than {MOST_VALUES} values")
    known[id(node)] = count
    return count


def _repeated(loader: yaml.SafeLoader, node: yaml.Node, seen: set[int]) -> Iterator[str]:
    """Say which keys a mapping has twice, at any depth, and in which lines."""
    if id(node) in seen or isinstance(node, yaml.ScalarNode):
        return
    seen.add(id(node))
    lines: dict[str, list[int]] = {}
    for item in node.value:
        for inner in item if isinstance(node, yaml.MappingNode) else (item,):
            yield from _repeated(loader, inner, seen)
        if isinstance(node, yaml.MappingNode) and isinstance(item[0], yaml.ScalarNode):
            # What a recipe reads alike is alike: 1 and "1", yes and true.
            is_merge = item[0].tag == MERGE
            key = item[0].value if is_merge else str(loader.construct_object(item[0]))
            lines.setdefault(key, []).append(item[0].start_mark.line + 1)
    for key, found in lines.items():
        if len(found) > 1:
            yield f"the key {key} stands {len(found)} times, in lines {', '.join(map(str, found))}"
