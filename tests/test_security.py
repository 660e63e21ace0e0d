"""What is true of the whole package: what it never calls, writes, tells or listens to."""

import ast
import json
import os
import shutil
import socket
import sys
import time
from pathlib import Path

import mrcfile
import psutil
import pytest
import yaml

import flows
import tomoseg
from tomoseg import cli
from tomoseg.compute.clusters import open_cluster
from tomoseg.io.volumes.sources import safe_name
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.recipe.recipe import recipe_from

PACKAGES = [Path(package.__file__).parent for package in (tomoseg, flows)]
SOURCES = {
    f"{folder.name}/{path.relative_to(folder)}": ast.parse(path.read_text(encoding="utf-8"))
    for folder in PACKAGES
    for path in sorted(folder.rglob("*.py"))
}

# What nothing may use, and what few may, with the reason.
BANNED_MODULES = {
    *("pickle", "cloudpickle", "dill", "shelve", "marshal", "joblib", "pty"),
    *("urllib.request", "http.client", "requests", "httpx", "aiohttp", "ftplib", "telnetlib"),
    "markupsafe",  # to call a text markup, which no template then escapes
}
MODULES = {
    "fsspec": {"tomoseg/io/stores/folders.py", "tomoseg/io/stores/systems.py"},
    "zarr": {"tomoseg/io/stores"},
    "jinja2": {"tomoseg/report/markup.py"},  # whose templates escape
    "ctypes": {"tomoseg/nets/device.py", "tomoseg/compute/devices.py"},  # to tune malloc
    "socket": {
        "tomoseg/io/stores/lives.py",
        "tomoseg/compute/monitoring/disks.py",
    },  # the host's name
    "subprocess": {"flows/serving.py"},  # this interpreter, on a run's id
    "tempfile": {"tomoseg/io/stores"},
    # To write, and for its errors.
    "yaml": {
        "tomoseg/recipe/plain_yaml.py",
        "tomoseg/recipe/recipe.py",
        "tomoseg/training/recipe.py",
    },
}
FILES = {
    "tomoseg/io/stores": "the door itself",
    "tomoseg/recipe/plain_yaml.py": "a recipe on this machine, that the command line names",
    "tomoseg/nets/byte_lines.py": "the cache of what int8 measured",
    "tomoseg/nets/card.py": "a model's folder, which load_networks checks",
    "tomoseg/nets/checkpoint.py": "a model's folder",
    "tomoseg/nets/train.py": "the folder of the model that is trained",
    "tomoseg/training/report.py": "the folder of the model that is trained",
    "tomoseg/core/version.py": "the checkout that the package lies in, and the processor's name",
}
OPENING = {"open", "read_text", "read_bytes", "write_text", "write_bytes", "open_array"}
# Methods of that name that open no file.
OURS = {"Predictor", "tomograms", "file", "array"}
BANNED_CALLS = {
    *("eval", "exec", "compile", "__import__", "os.system", "os.popen", "torch.load"),
    *("yaml.load", "yaml.full_load", "yaml.unsafe_load", "yaml.safe_load", "pd.read_pickle"),
}


def is_in(name, places):
    return any(name == place or name.startswith(f"{place}/") for place in places)


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def imports(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module:
            yield node.module


def test_nothing_that_runs_what_it_reads_is_called():
    found = [
        f"{name}:{call.lineno} {ast.unparse(call.func)}"
        for name, tree in SOURCES.items()
        for call in calls(tree)
        if ast.unparse(call.func) in BANNED_CALLS
        or any(k.arg == "shell" and ast.unparse(k.value) != "False" for k in call.keywords)
        or (ast.unparse(call.func) == "np.load" and "allow_pickle=False" not in ast.unparse(call))
    ]
    assert found == []
    assert len(SOURCES) > 150


def test_modules_that_reach_out_stay_where_they_are_looked_after():
    found = {(name, module) for name, tree in SOURCES.items() for module in imports(tree)}
    assert [(name, module) for name, module in found if module in BANNED_MODULES] == []
    for module, places in MODULES.items():
        users = {name for name, used in found if used.partition(".")[0] == module}
        assert users
        assert {name for name in users if not is_in(name, places)} == set(), module


def test_every_file_is_opened_through_the_stores_but_for_those_named_here():
    found = {
        name: f"{call.lineno} {ast.unparse(call.func)}"
        for name, tree in SOURCES.items()
        for call in calls(tree)
        if ast.unparse(call.func).rpartition(".")[2] in OPENING
        and ast.unparse(call.func).split(".")[0] not in OURS
    }
    assert {name: call for name, call in found.items() if not is_in(name, FILES)} == {}


# Names

HOSTILE = (
    "=cmd|' calc'!A0",
    '<script>alert(1)</script>"onload="x',
    "a\nERROR forged\r| x | [y](http:z) ![p](q)",
    "gpj.\u202egnp\u2066x",
    "-rf",
    "CON",
    "a;rm $HOME `id`",
    "n" * 240,
    "é" * 110,
    "\x1b[2J\x07",
    "bad\udcff",
    "%2e%2e%2fx",
    "{name}",
)


@pytest.mark.parametrize("name", [*HOSTILE, "../../x", "..", "a/b", "C:\\x", "NUL.txt", "lpt1"])
def test_a_name_is_one_word_that_only_names(name):
    safe = safe_name(name)
    assert safe
    assert safe.isprintable()
    assert len(safe.split()) == 1
    assert len(safe.encode()) <= 120
    assert safe[0] not in "-=+@.~"
    assert not set(safe) & set("/\\\"'`<>|:*?$;&\n\r\0")
    assert safe.partition(".")[0].upper() not in ("CON", "NUL", "LPT1")
    assert safe_name(safe) == safe


def test_long_names_stay_apart():
    assert safe_name("n" * 200 + "1") != safe_name("n" * 200 + "2")


@pytest.fixture(scope="module")
def crop(tiny_session, tmp_path_factory):
    """A small tomogram that something is found in; its header's labels are hostile."""
    path = tmp_path_factory.mktemp("crop") / "crop.mrc"
    with mrcfile.open(tiny_session / "simulated_0500.mrc") as whole:
        voxels, size = whole.data[:16, :48, :48].copy(), whole.voxel_size.copy()
    with mrcfile.new(path, voxels) as file:
        file.voxel_size = size
        file.header.label[0] = b'<script>alert("x")</script> =cmd|x'
        file.header.nlabl = 1
    return path


EVERYTHING = {
    "clean": {},
    "trace": {"microtubule": {"minimum_length_angstrom": 0}},
    "pick": {"ribosome": {}},
    "export": {
        "masks": ["mrc", "tiff"],
        "meshes": ["obj"],
        "dialects": [
            *("relion5", "relion4", "warp", "dynamo", "stopgap", "imod", "amira", "eman2"),
            *("copick", "portal", "csv", "tardis"),
        ],
    },
    "blocks": {"shape": [16, 48, 48]},
    "compute": {"runner": "serial"},
}


def test_hostile_names_stay_names_in_all_that_is_written(crop, tiny_model, tmp_path):
    session, outside = tmp_path / "in", tmp_path / "outside"
    session.mkdir()
    outside.mkdir()
    for name in HOSTILE[:4]:
        shutil.copy(crop, session / f"{name.replace('/', '⧸')}.mrc")
    (session / "<img src=x onerror=y>|`.mrc").write_bytes(b"no volume")
    out = outside / "out"
    recipe = recipe_from(
        {
            "session": {"input": str(session), "output": str(out)},
            "segment": {"model": str(tiny_model)},
            **EVERYTHING,
        }
    )
    result = run_session(plan_session(recipe), lambda *_: None)
    states = sorted(row["state"] for row in result["tomograms"])
    assert states == ["done"] * 4 + ["failed"], result
    assert "error" not in result["together"], result["together"]
    assert os.listdir(outside) == ["out"]
    assert sorted(os.listdir(tmp_path)) == ["in", "outside"]
    texts = [path for path in out.rglob("*") if path.suffix in (".csv", ".star", ".html", ".doc")]
    assert {path.suffix for path in texts} == {".csv", ".star", ".html", ".doc"}
    for path in out.rglob("*"):
        assert str(path.relative_to(out)).isprintable()
    for path in texts:
        check_text(path, path.read_text(encoding="utf-8"))


def check_text(path, text):
    assert "<script" not in text
    assert "<img src=x" not in text
    assert "\u202e" not in text
    assert not {c for c in text if not c.isprintable()} - {"\n", "\t"}, path
    if path.suffix == ".csv":
        for cell in (cell for line in text.splitlines() for cell in line.split(",")):
            assert not cell.startswith(("=", "@", "+")), path
            assert not cell.startswith("-") or float(cell) <= 0
    if path.suffix == ".star":
        assert "forged" not in text or "ERROR_forged" in text


# Secrets, and who listens

PLANTED = {
    "AWS_SECRET_ACCESS_KEY": "planted-secret-of-aws",
    "AWS_SESSION_TOKEN": "planted-session-token",
    "PREFECT_API_AUTH_STRING": "admin:planted-of-prefect",
    "PREFECT_SERVER_API_AUTH_STRING": "admin:planted-of-prefect",
    "TOMOSEG_TOKEN": "planted-token-of-a-url",
}


def listeners(process):
    """Return address and port of everything that a process and its children listen to."""
    found = set()
    try:
        for one in [process, *process.children(recursive=True)]:
            for connection in one.net_connections(kind="inet"):
                if connection.status == psutil.CONN_LISTEN:
                    found.add((connection.laddr.ip, connection.laddr.port))
    except psutil.Error:  # one that ended meanwhile
        pass
    return found


def secrets_in(folder):
    """Return the files in which a planted secret stands; database and its journal too."""
    words = [secret.encode() for secret in PLANTED.values()] + [b"planted-of-prefect"]
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert files
    return [path for path in files if any(word in path.read_bytes() for word in words)]


def test_a_flow_tells_no_secret_and_listens_to_this_machine_alone(crop, tiny_model, tmp_path):
    session = tmp_path / "in"
    session.mkdir()
    shutil.copy(crop, session / "good.mrc")
    (session / "bad.mrc").write_bytes(crop.read_bytes()[:5000])
    values = {
        "session": {"input": str(session), "output": str(tmp_path / "out")},
        "segment": {"model": str(tiny_model)},
        **EVERYTHING,
        "export": {"masks": False},
        "compute": {"runner": "dask", "workers": 1},
    }
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(values))
    environment = {**os.environ, **PLANTED, "PREFECT_HOME": str(tmp_path / "prefect")}
    command = [sys.executable, "-m", "flows.session", str(tmp_path / "recipe.yaml")]
    heard = set()
    with (tmp_path / "said.txt").open("wb") as said:
        flow = psutil.Popen(
            command, env=environment, stdout=said, stderr=said, cwd=PACKAGES[0].parent
        )
        while flow.poll() is None:
            heard |= listeners(flow)
            time.sleep(0.2)
    told = (tmp_path / "said.txt").read_text()
    assert flow.returncode == 1, told
    rows = json.loads((tmp_path / "out" / "session.json").read_text())["tomograms"]
    assert [row["state"] for row in rows] == ["failed", "done"], told
    assert (tmp_path / "prefect" / "prefect.db").exists()
    assert secrets_in(tmp_path) == []
    assert {ip for ip, _ in heard} <= {"127.0.0.1", "::1"}
    assert len(heard) >= 3  # Prefect, scheduler, worker
    (tmp_path / "leak").write_text("planted-secret-of-aws")
    assert secrets_in(tmp_path) == [tmp_path / "leak"]


def test_the_command_line_tells_no_secret(tmp_path, monkeypatch, capsys, caplog):
    place = "s3://key:planted-token-of-a-url@bucket/in"
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(f"session: {{input: '{place}'}}\naws_secret_access_key: planted-of-aws\n")
    for name, value in PLANTED.items():
        monkeypatch.setenv(name, value)
    for arguments in (
        ["run", place, "-o", str(tmp_path / "out")],
        ["run", str(tmp_path), "-o", place],
        ["validate", str(recipe)],
        ["info", place],
        ["run", "x", "--set", f"source.mask='{place}", "-o", str(tmp_path / "out")],
        ["run", "x", "--set", "compute.slurm.environment=[AWS_SECRET_ACCESS_KEY=planted]"],
        ["status", str(tmp_path / "planted-secret-of-aws")],
    ):
        monkeypatch.setattr(sys, "argv", ["tomoseg", *arguments])
        with pytest.raises(SystemExit) as end:
            cli.main()
        assert end.value.code == 2, arguments
    said = "".join(capsys.readouterr()) + caplog.text
    assert said.count("holds credentials") >= 3
    assert "planted" not in said
    assert not (tmp_path / "out").exists()


def test_a_cluster_of_this_machine_listens_to_it_alone():
    before = listeners(psutil.Process())
    with open_cluster(workers=1, memory_gib=1.0):
        heard = listeners(psutil.Process()) - before
    assert len(heard) >= 2
    assert {ip for ip, _ in heard} == {"127.0.0.1"}


def test_the_ear_hears():
    with socket.create_server(("0.0.0.0", 0)) as server:
        assert ("0.0.0.0", server.getsockname()[1]) in listeners(psutil.Process())
