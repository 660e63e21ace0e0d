"""The recipe: what is wrong is named, what is left out is filled in, what is written is read."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest
import yaml

from tomoseg.analysis.cleanup import CleaningSettings
from tomoseg.analysis.filaments import TracingSettings, tracing_defaults
from tomoseg.analysis.particles import PickingSettings
from tomoseg.core.errors import RequestError
from tomoseg.recipe.recipe import Recipe, load_recipe, recipe_from

CLASSES = ("microtubule", "actin", "single_membrane", "ribosome")


@pytest.fixture
def written(tmp_path):
    """Return a function that writes a recipe into a folder of its own."""

    def write(text):
        path = tmp_path / "recipes" / "recipe.yaml"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
        return path

    return write


def test_a_recipe_may_be_left_out():
    assert load_recipe(None) == Recipe()


def test_an_empty_file_is_the_default_recipe(written):
    assert load_recipe(written("# nothing yet\n")) == Recipe()


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"sesion": {}}, "sesion is not a known key"),
        ({"session": {"inputs": []}}, r"session\.inputs is not a known key"),
        ({"export": {"dpi": 3}}, r"export\.dpi is not a known key"),
        ({"trace": {"actin": {"radius": 35}}}, r"trace\.actin\.radius is not a known key"),
        ({"clean": {"actin": {"smooth": 35}}}, r"clean\.actin\.smooth is not a known key"),
        ({"pick": {"ribosome": {"size": 35}}}, r"pick\.ribosome\.size is not a known key"),
        ({"source": {"voxel_size_angstrom": 0}}, r"source\.voxel_size_angstrom: .* not '0'"),
        ({"source": {"voxel_size_angstrom": "big"}}, r"voxel_size_angstrom: .* not 'big'"),
        ({"source": {"contrast": "inverted"}}, r"source\.contrast: .*'dark' or 'bright'"),
        ({"blocks": {"shape": [64, 256]}}, r"blocks\.shape"),
        (
            {"blocks": {"shape": [64, 256, 7]}},
            r"blocks\.shape\.2: .*greater than or equal to 8, not '7'",
        ),
        ({"ingest": {"bin": 0}}, r"ingest\.bin: .*greater than or equal to 1"),
        ({"segment": {"halo": "small"}}, r"segment\.halo"),
        ({"segment": {"halo": -8}}, r"segment\.halo"),
        ({"compute": {"workers": 0}}, r"compute\.workers"),
        ({"export": {"spacing_angstrom": {"actin": "wide"}}}, r"spacing_angstrom\.actin: .*'wide'"),
        ({"export": {"spacing_angstrom": {"actin": 0}}}, r"spacing_angstrom\.actin"),
        ({"export": {"tilt_series_size_xyz": [4092, 5760, 0]}}, "tilt_series_size_xyz"),
        (
            {"trace": {"actin": {"turn_degrees": 120}}},
            r"trace\.actin\.turn_degrees: .*less than 90, not '120'",
        ),
        ({"trace": ["actin"]}, "trace: .*dictionary"),
        ({"trace": {"actin": 35}}, r"trace\.actin"),
        (
            {"segment": {"engine": "compiled"}},
            r"segment\.engine: Input should be 'torch' or 'int8', not 'compiled'",
        ),
        ({"session": 5}, "session: "),
    ],
)
def test_what_is_wrong_is_named(values, message):
    with pytest.raises(RequestError, match=message):
        recipe_from(values)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (
            {"export": {"tilt_series_pixel_size_angstrom": 3}},
            "tilt_series_size_xyz is missing",
        ),
        (
            {"export": {"tilt_series_size_xyz": [9, 9]}},
            "pixel_size_angstrom is missing",
        ),
        ({"export": {"tilt_series_size_xyz": [9]}}, r"tilt_series_size_xyz: .*at least 2 items"),
        ({"export": {"tilt_range_degrees": [60, -60]}}, r"export: .* 60 to -60 must rise"),
        ({"source": {"mask_values": {"inside": [3]}}}, "source: mask_values are those of a mask"),
        ({"pick": {"ribosome": {"exclude": {"ribosome": 9}}}}, "pick: .* names ribosome itself"),
        ({"segment": {"engine": "int8", "precision": "bfloat16"}}, "segment: .*computes in bytes"),
        (
            {"segment": {"networks": [{"model": "/a"}, {"model": "/a", "classes": ["x"]}]}},
            "segment: networks has /a twice for the same classes",
        ),
    ],
)
def test_pairs_that_contradict_each_other_are_told(values, message):
    with pytest.raises(RequestError, match=message):
        recipe_from(values)


def test_one_model_may_compete_twice_for_different_classes():
    networks = [{"model": "/a", "classes": ["x"]}, {"model": "/a", "classes": ["y"], "weight": 2}]
    assert len(recipe_from({"segment": {"networks": networks}}).segment.choices) == 2


SLURM = {"interface": "ib0", "protocol": "tcp"}
PODS = {"image": "tomoseg:1.0", "protocol": "tcp"}
TLS = {"ca": "ca.pem", "cert": "cert.pem", "key": "key.pem"}


@pytest.mark.parametrize(
    ("compute", "message"),
    [
        ({"cluster": "lsf"}, r"compute\.cluster: .*'local'"),
        ({"cluster": "slurm"}, "cluster: slurm and the section slurm need each other"),
        ({"slurm": SLURM}, "cluster: slurm and the section slurm need each other"),
        ({"cluster": "kubernetes", "slurm": SLURM}, "need each other"),
        (
            {"cluster": "slurm", "slurm": SLURM, "address": "tcp://10.0.0.1:8786"},
            "address and cluster exclude each other",
        ),
        ({"cluster": "cuda", "address": "tcp://10.0.0.1:8786"}, "exclude each other"),
        ({"runner": "serial", "cluster": "cuda"}, "serial has no workers"),
        ({"runner": "serial", "address": "tcp://10.0.0.1:8786"}, "serial has no workers"),
        ({"cluster": "slurm", "slurm": SLURM, "workers": 4}, "set jobs or pods of slurm"),
        ({"cluster": "cuda", "device": "cpu"}, "device: cpu forbids"),
        ({"cluster": "slurm", "slurm": SLURM, "device": "cuda"}, "set gpus of slurm"),
        ({"cluster": "slurm", "slurm": SLURM, "threads": 5}, "more than the cores of a job"),
        (
            {"cluster": "kubernetes", "kubernetes": PODS | {"cores": 2}, "threads": 5},
            "more than the cores of a pod",
        ),
        ({"tls": TLS}, "tls is for"),
        ({"cluster": "slurm", "slurm": SLURM, "tls": TLS}, "tls is for"),
        ({"cluster": "slurm", "slurm": SLURM | {"protocol": "tls"}}, "tls is for"),
        ({"cluster": "kubernetes", "kubernetes": PODS, "tls": TLS}, "tls is for"),
        ({"address": "tcp://10.0.0.1:8786", "tls": TLS}, "tls is for"),
        ({"address": "tcp://10.0.0.1:8786", "tls": {"ca": "ca.pem"}}, r"compute\.tls\.cert"),
        ({"address": "10.0.0.1"}, r"compute\.address"),
    ],
)
def test_compute_settings_that_contradict_each_other(compute, message):
    with pytest.raises(RequestError, match=message):
        recipe_from({"compute": compute})


@pytest.mark.parametrize(
    ("cluster", "keys", "message"),
    [
        ("slurm", {"interface": None}, r"slurm\.interface"),
        ("slurm", {"protocol": "http"}, r"slurm\.protocol"),
        ("slurm", {"queue": "gpu"}, r"slurm\.queue is not a known key"),
        ("slurm", {"partition": "gpu\n#SBATCH --exclusive"}, r"slurm\.partition"),
        ("slurm", {"walltime_hours": 0}, r"slurm\.walltime_hours"),
        ("slurm", {"jobs": 0}, r"slurm\.jobs"),
        ("slurm", {"jobs": {"minimum": 4, "maximum": 4}}, "minimum 4 must be below maximum 4"),
        ("slurm", {"gpus": -1}, r"slurm\.gpus"),
        ("slurm", {"gpus": 8}, "8 gpus need as many cores, not 4"),
        ("slurm", {"gpu_type": "a100"}, "gpu_type a100 needs gpus"),
        ("slurm", {"directives": ["constraint=a100"]}, "must begin with a dash"),
        ("slurm", {"directives": ["--mem=4G"]}, "contradicts a key of compute.slurm"),
        ("slurm", {"directives": ["-p gpu"]}, "contradicts a key of compute.slurm"),
        ("slurm", {"environment": ["a\nb"]}, "must be one line"),
        ("slurm", {"environment": ["export AWS_SECRET_ACCESS_KEY=x"]}, "holds a secret"),
        ("kubernetes", {"image": None}, r"kubernetes\.image"),
        ("kubernetes", {"protocol": "tls"}, r"kubernetes\.protocol"),
        ("kubernetes", {"namespace": "Em_1"}, r"kubernetes\.namespace"),
        ("kubernetes", {"gpus": 2}, r"kubernetes\.gpus"),
        ("kubernetes", {"claims": {"tomograms": "data"}}, r"claims\.tomograms"),
        ("kubernetes", {"environment": {"S3_TOKEN": "x"}}, r"environment\.S3_TOKEN is a secret"),
    ],
)
def test_clusters_are_not_told_nonsense(cluster, keys, message):
    section = {"slurm": SLURM, "kubernetes": PODS}[cluster] | keys
    # A key of None is one that is left out.
    section = {key: value for key, value in section.items() if value is not None}
    with pytest.raises(RequestError, match=message):
        recipe_from({"compute": {"cluster": cluster, cluster: section}})


def test_a_recipe_with_a_cluster_is_read_as_it_was_written(tmp_path):
    slurm = SLURM | {"protocol": "tls", "jobs": {"maximum": 8}, "log_folder": "logs"}
    path = tmp_path / "recipe.yaml"
    path.write_text(json.dumps({"compute": {"cluster": "slurm", "slurm": slurm, "tls": TLS}}))
    recipe = load_recipe(path)
    assert recipe.compute.tls.key == str(tmp_path / "key.pem")
    assert recipe.compute.slurm.log_folder == str(tmp_path / "logs")
    path.write_text(recipe.as_yaml())
    assert load_recipe(path) == recipe


def test_all_that_is_wrong_is_told_at_once():
    with pytest.raises(RequestError) as caught:
        recipe_from({"sesion": {}, "ingest": {"bin": 99, "bins": 2}})
    for part in ("sesion is not", "ingest.bins is not", "ingest.bin: "):
        assert part in caught.value.message


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("session: [", r"recipe\.yaml is not a YAML file: "),
        ("- session", r"recipe\.yaml holds no mapping"),
        ("session", r"recipe\.yaml holds no mapping"),
        ("session: !!python/object/apply:os.getcwd []", r"recipe\.yaml is not a YAML file"),
    ],
)
def test_files_that_are_no_recipe(written, text, message):
    with pytest.raises(RequestError, match=message):
        load_recipe(written(text))


def test_files_that_cannot_be_read(tmp_path):
    with pytest.raises(RequestError, match=r"there is no recipe at .*none\.yaml"):
        load_recipe(tmp_path / "none.yaml")
    with pytest.raises(RequestError, match="is not a YAML file"):
        load_recipe(tmp_path)
    (tmp_path / "binary.yaml").write_bytes(b"\xff\xfe\x00\x81")
    with pytest.raises(RequestError, match="is not a YAML file"):
        load_recipe(tmp_path / "binary.yaml")


@pytest.mark.parametrize(
    ("change", "section", "key", "value"),
    [
        ("ingest.bin=2", "ingest", "bin", 2),
        ("source.voxel_size_angstrom=13.48", "source", "voxel_size_angstrom", 13.48),
        ("source.contrast=bright", "source", "contrast", "bright"),
        ("export.masks=no", "export", "masks", ()),
        ("export.masks=tiff", "export", "masks", ("tiff",)),
        ("export.masks=[tiff, mrc, tiff]", "export", "masks", ("tiff", "mrc")),
        ("export.meshes=[stl]", "export", "meshes", ("stl",)),
        ("blocks.shape=[32, 64, 128]", "blocks", "shape", (32, 64, 128)),
        ("session.tomogram_name_remove=['^a=b']", "session", "tomogram_name_remove", ("^a=b",)),
        ("segment.halo=48", "segment", "halo", 48),
        ("segment.halo=exact", "segment", "halo", "exact"),
    ],
)
def test_single_keys_are_changed(change, section, key, value):
    recipe = load_recipe(None, [change])
    assert getattr(getattr(recipe, section), key) == value
    defaults = Recipe().model_dump()
    changed = recipe.model_dump()
    assert changed.pop(section) != defaults.pop(section)
    assert changed == defaults


def test_changes_go_deep_and_stand_above_the_file(written):
    path = written("trace: {actin: {gap_angstrom: 90}}\nsource: {voxel_size_angstrom: 4}\n")
    changes = ["ingest.bin=2", "trace.actin.radius_angstrom=40", "ingest.bin=3"]
    recipe = load_recipe(path, [*changes, "source.voxel_size_angstrom=null"])
    assert recipe.ingest.bin == 3
    assert recipe.source.voxel_size_angstrom is None
    assert recipe.trace["actin"].radius_angstrom == 40
    assert recipe.trace["actin"].gap_angstrom == 90


def test_what_is_given_stands_above_all(written):
    path = written("compute: {workers: 3}\n")
    recipe = load_recipe(path, ["compute.runner=serial"], given={"compute": {"runner": "dask"}})
    assert (recipe.compute.runner, recipe.compute.workers) == ("dask", 3)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("ingest.bin", "--set ingest.bin is not of the form a.b=value"),
        ("=3", "is not of the form"),
        ("ingest.bin.deep=3", "ingest.bin.deep=3: bin is not a section"),
        ("ingest.bin=[", r"'\[' is not a YAML value"),
        ("ingest.bins=3", "ingest.bins is not a known key"),
        ("bin=3", "bin is not a known key"),
    ],
)
def test_changes_that_are_wrong(written, change, message):
    with pytest.raises(RequestError, match=message):
        load_recipe(written("ingest: {bin: 2}"), [change])


def test_paths_in_a_file_are_relative_to_it_others_to_the_working_directory(
    written, tmp_path, monkeypatch
):
    path = written(
        "session: {input: [data, /else/where, s3://bucket/run], output: ../out}\n"
        "segment: {model: models/mine}\n"
        "source: {mask: masks/one.mrc}\n"
    )
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    recipe = load_recipe(Path("..") / "recipes" / "recipe.yaml")
    base = tmp_path / "recipes"
    assert recipe.session.input == (f"{base}/data", "/else/where", "s3://bucket/run")
    assert Path(recipe.session.output).resolve() == tmp_path / "out"
    assert recipe.segment.model == f"{base}/models/mine"
    assert recipe.source.mask == f"{base}/masks/one.mrc"
    changed = load_recipe(path, ["session.output=there"], given={"session": {"input": ["x.mrc"]}})
    assert changed.session.output == f"{tmp_path}/cwd/there"
    assert changed.session.input == (f"{tmp_path}/cwd/x.mrc",)
    assert changed.segment.model == f"{base}/models/mine"


def test_paths_of_networks_are_relative_like_that_of_a_model(written, tmp_path, monkeypatch):
    networks = "segment: {networks: [{model: mine, weight: 2, classes: [actin]}, {model: shipped}]}"
    recipe = load_recipe(written(networks))
    assert [one.model for one in recipe.segment.networks] == [f"{tmp_path}/recipes/mine", "shipped"]
    assert [one.weight for one in recipe.segment.choices] == [2, 1]
    assert [one.classes for one in recipe.segment.choices] == [("actin",), None]
    monkeypatch.chdir(tmp_path)
    recipe = load_recipe(None, ["segment.networks=[{model: theirs}]"])
    assert recipe.segment.networks[0].model == f"{tmp_path}/theirs"


def test_one_model_is_one_network_that_competes_with_none():
    (choice,) = recipe_from({"segment": {"model": "/mine"}}).segment.choices
    assert (choice.model, choice.weight, choice.classes) == ("/mine", 1.0, None)


@pytest.mark.parametrize(
    ("segment", "message"),
    [
        ({"model": "/a", "networks": [{"model": "/b"}]}, "segment: .*model and networks exclude"),
        ({"model": "/a", "abstain": 0.3}, "segment: .*abstain is for networks"),
        ({"networks": [{"weight": 2}]}, r"segment\.networks\.0\.model: Field required"),
        ({"networks": [{"model": "/a", "weight": 0}]}, r"networks\.0\.weight: .* than 0, not '0'"),
        ({"networks": [{"model": "/a", "classes": []}]}, r"networks\.0\.classes: .* at least 1"),
        ({"networks": [{"model": "/a", "halo": 3}]}, r"networks\.0\.halo is not a known key"),
        ({"networks": "/a"}, r"segment\.networks: "),
        ({"networks": [{"model": "/a"}], "abstain": 1.0}, r"segment\.abstain: .* less than 1"),
    ],
)
def test_networks_that_are_wrong(segment, message):
    with pytest.raises(RequestError, match=message):
        recipe_from({"segment": segment})


@pytest.mark.parametrize("place", ["shipped", "s3://bucket/model"])
def test_models_that_are_no_path_stay(written, place):
    assert load_recipe(written(f"segment: {{model: '{place}'}}")).segment.model == place


def test_a_mask_beside_the_tomogram_stays(written):
    recipe = load_recipe(written("source: {mask: '{folder}/{name}_mask.mrc'}"))
    assert recipe.source.mask == "{folder}/{name}_mask.mrc"


def test_one_input_needs_no_list(written, tmp_path):
    recipe = load_recipe(written("session: {input: data}"))
    assert recipe.session.input == (f"{tmp_path}/recipes/data",)


# What is left out


@pytest.mark.parametrize("given", [{"radius_angstrom": 40.0}, {}, None])
def test_a_traced_class_takes_what_is_left_out_from_its_own_defaults(given):
    settings = recipe_from({"trace": {"actin": given}}).trace["actin"]
    wanted = asdict(tracing_defaults("actin")) | (given or {})
    assert asdict(settings) == wanted
    assert settings.gap_angstrom == 80.0 != TracingSettings().gap_angstrom


def test_sections_left_out_take_the_defaults_of_the_models_classes():
    recipe = Recipe().resolved(CLASSES)
    assert set(recipe.clean) == set(CLASSES)
    assert recipe.clean["microtubule"].minimum_volume_nm3 == 10_000
    assert recipe.trace == {name: tracing_defaults(name) for name in ("microtubule", "actin")}
    assert recipe.pick == {"ribosome": PickingSettings()}
    other = Recipe().resolved(("vesicle",))
    assert other.clean == {"vesicle": CleaningSettings()}
    assert other.trace == {}
    assert other.pick == {}


def test_sections_given_stay_as_they_are():
    given = recipe_from({"clean": {}, "trace": {"single_membrane": {}}, "pick": {}})
    resolved = given.resolved(CLASSES)
    assert resolved.clean == {}
    assert set(resolved.trace) == {"single_membrane"}
    assert resolved.pick == {}
    assert resolved.resolved(CLASSES) == resolved


def test_blocks_are_flat_but_for_3d_networks():
    assert Recipe().resolved(CLASSES).blocks.shape == (16, 1024, 1024)
    assert Recipe().resolved(CLASSES, is_deep=True).blocks.shape == (128, 256, 256)
    given = recipe_from({"blocks": {"shape": [8, 16, 32]}}).resolved(CLASSES, is_deep=True)
    assert given.blocks.shape == given.blocks.compact == (8, 16, 32)


@pytest.mark.parametrize(
    ("values", "key"),
    [
        ({"clean": {"vesicle": {}}}, "clean"),
        ({"trace": {"vesicle": {}}}, "trace"),
        ({"pick": {"vesicle": {}}}, "pick"),
        ({"export": {"spacing_angstrom": {"vesicle": 40}}}, r"export\.spacing_angstrom"),
    ],
)
def test_a_class_that_the_model_has_not_is_refused(values, key):
    recipe = recipe_from(values)
    with pytest.raises(RequestError, match=f"{key} names vesicle, but the model has micro"):
        recipe.resolved(CLASSES)


# There and back


@pytest.mark.parametrize("is_resolved", [False, True])
def test_what_is_written_is_read_back(written, is_resolved):
    recipe = recipe_from(
        {
            "session": {"input": ["/a", "s3://b/c"], "output": "/ö", "tomogram_name_remove": "^r"}
            | {"tomogram_name_remove": ["^r", "x: y"]},
            "source": {"voxel_size_angstrom": 13.481, "mask": "{folder}/m.mrc"},
            "trace": {"actin": {"radius_angstrom": 33.3}},
            "segment": {"halo": 32, "networks": [{"model": "/a"}, {"model": "/b", "weight": 2}]},
            "export": {
                "tilt_series_size_xyz": [4092, 5760, 2000],
                "tilt_series_pixel_size_angstrom": 1.35,
                "spacing_angstrom": {"actin": 27},
            },
        }
    )
    recipe = recipe.resolved(CLASSES) if is_resolved else recipe
    assert load_recipe(written(recipe.as_yaml())) == recipe


def test_the_file_says_every_key_in_the_order_of_the_sections():
    values = yaml.safe_load(Recipe().resolved(CLASSES).as_yaml())
    assert list(values) == list(Recipe.model_fields)
    assert values["trace"]["actin"]["gap_angstrom"] == 80.0
    assert values["blocks"]["shape"] == list(Recipe().blocks.shape)


def test_secrets_are_not_written(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_ACCESS_KEY_ID", "FSSPEC_S3_SECRET"):
        monkeypatch.setenv(name, "hunter2")
    assert "hunter2" not in load_recipe(None).as_yaml()
    for section in ("session", "source", "compute"):
        with pytest.raises(RequestError, match="secret is not a known key"):
            recipe_from({section: {"secret": "hunter2"}})


def test_a_recipe_cannot_be_changed():
    with pytest.raises(ValueError, match="frozen"):
        Recipe().ingest.bin = 3


def test_masks_as_they_were_told_before_are_the_default():
    assert load_recipe(None, ["export.masks=true"]) == Recipe()
    with pytest.raises(RequestError, match=r"export\.masks\.1"):
        load_recipe(None, ["export.masks=[mrc, png]"])


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("{}", None),
        ("compute: {threads: 2, address: 'tcp://mine:1'}", "tcp://mine:1"),
        # Files for a scheduler that only the command names.
        ("compute: {tls: {ca: ca.pem, cert: c.pem, key: k.pem}}", None),
    ],
)
def test_a_scheduler_of_one_run_is_not_written(written, text, address):
    one_run = {"runner": "dask", "address": "tls://once:8786"}
    recipe = load_recipe(written(text), given={"compute": one_run}).resolved(CLASSES)
    assert recipe.compute.address == "tls://once:8786"
    again = load_recipe(written(recipe.as_yaml()))
    assert again.compute.address == address
    assert again.compute.runner == "auto"
    assert recipe_from(recipe.lasting()) == again


def test_a_scheduler_that_an_earlier_version_wrote_can_be_left_out(written):
    text = "compute: {runner: dask, address: 'tls://gone:1', tls: {ca: a, cert: b, key: c}}"
    assert load_recipe(written(text), ["compute={}"]) == Recipe()


def test_what_is_written_can_be_used_from_anywhere(tmp_path, written, monkeypatch):
    """Also of a recipe that Python code made, with places relative to the working directory."""
    monkeypatch.chdir(tmp_path)
    values = {
        "session": {"input": ["in", "s3://bucket/run"], "output": "out"},
        "source": {"mask": "{folder}/{name}_mask.mrc"},
        "segment": {"networks": [{"model": "mine"}, {"model": "shipped"}]},
    }
    again = load_recipe(written(recipe_from(values).as_yaml()))
    assert again.session.input == (f"{tmp_path}/in", "s3://bucket/run")
    assert again.session.output == f"{tmp_path}/out"
    assert again.source.mask == "{folder}/{name}_mask.mrc"
    assert [one.model for one in again.segment.networks] == [f"{tmp_path}/mine", "shipped"]


def test_a_recipe_in_a_store_is_read_from_there(folder):
    """As of a session whose output is there; its own relative places are beside it."""
    folder.write("recipe.yaml", b"session: {input: [in, /data], output: 's3://b/out'}")
    recipe = load_recipe(f"{folder.url}/recipe.yaml")
    assert recipe.session.input == (f"{folder.url}/in", "/data")
    assert recipe.session.output == "s3://b/out"
    with pytest.raises(RequestError, match=r"none\.yaml"):
        load_recipe(f"{folder.url}/none.yaml")


def test_a_manifest_is_the_recipe_that_it_holds(written):
    recipe = recipe_from({"ingest": {"bin": 2}})
    manifest = {"tomogram": "a", "stages": {}, "recipe": recipe.lasting(), "tomoseg": "0"}
    assert load_recipe(written(json.dumps(manifest))) == recipe
    with pytest.raises(RequestError, match="tomogram is not a known key"):
        load_recipe(written(json.dumps({"tomogram": "a", "stages": {}})))
