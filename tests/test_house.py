"""The page that says where things are is true of the code."""

import ast
import re
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PAGE = (ROOT / "docs/house.md").read_text()
PATHS = sorted(set(re.findall(r"`([a-z_]+/[a-z_0-9/]*(?:\.py)?)`", PAGE)))
NAMED = re.findall(r"`([A-Za-z_.]+)` (?:in|of)\s+`([a-z_0-9/]+\.py)`", PAGE)


def test_rooms_are_those_of_the_code_in_the_order_of_imports():
    listed = re.findall(r"^\| `tomoseg/([a-z]+)/`", PAGE, re.MULTILINE)
    rooms = {path.parent.name for path in ROOT.glob("tomoseg/*/__init__.py")}
    assert set(listed) == rooms
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]
    floors = next(one["layers"] for one in settings["contracts"] if one["type"] == "layers")
    floor_of = {
        room.strip().removeprefix("tomoseg."): number
        for number, floor in enumerate(floors)
        for room in floor.split("|")
    }
    assert [floor_of[room] for room in listed] == sorted(floor_of[room] for room in listed)


@pytest.mark.parametrize("path", [path for path in PATHS if path.count("/") > 1 or "." in path])
def test_a_path_is_there(path):
    assert (ROOT / path).exists()


@pytest.mark.parametrize(("name", "path"), NAMED)
def test_a_name_stands_in_its_file(name, path):
    tree = ast.parse((ROOT / path).read_text())
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.ClassDef):
            found.add(node.name)
        elif isinstance(node, ast.Assign | ast.AnnAssign):
            targets = node.targets if isinstance(node, ast.Assign) else [node.target]
            found |= {target.id for target in targets if isinstance(target, ast.Name)}
    assert name.rpartition(".")[2] in found


def test_the_page_names_something():
    assert len(PATHS) > 30
    assert len(NAMED) > 10
