"""What containers, Kubernetes and SLURM are told: schemas, lint, rendering, and our own rules."""

import importlib.util
import json
import re
import shutil
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
import yaml

from tomoseg.compute.clusters import SCHEDULER_ENVIRONMENT, WORKER_ENVIRONMENT, slurm_options
from tomoseg.recipe.recipe import load_recipe

DEPLOY = Path(__file__).parents[2] / "deploy"
COMPOSE = DEPLOY / "compose"
KUBERNETES = DEPLOY / "kubernetes"
BIN = Path(sys.executable).parent
FILES = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and "local" not in path.parts)


def run(*command, **options):
    done = subprocess.run(
        [str(word) for word in command], capture_output=True, text=True, check=False, **options
    )
    return done.returncode, done.stdout + done.stderr


def tool(name):
    """Path of a validator; the test is skipped without it."""
    found = shutil.which(BIN / name) or shutil.which(name)
    return found or pytest.skip(f"there is no {name}")


def documents(path):
    return [one for one in yaml.safe_load_all(path.read_text()) if one]


# --- every file


def test_no_secret_stands_in_a_file():
    literal = re.compile(
        r"(?im)(password|secret_access_key|auth_string|token)[\"']?\s*[=:]\s*[\"']?[\w+/-]{8,}[\"']?$"
    )
    assert literal.search("POSTGRES_PASSWORD=hunter2-hunter2")
    assert literal.search("password: hunter2-hunter2")
    key = "-----BEGIN"
    for path in FILES:
        text = path.read_text()
        assert not literal.search(text), path
        assert key not in text, path


def test_what_listens_is_on_loopback_unless_it_is_told():
    """Only within a container's or pod's own network does anything listen everywhere."""
    for path in FILES:
        text = path.read_text()
        # A rule of a policy, not an address.
        everywhere = re.findall(r"0\.0\.0\.0(?!/0)|\[::\]", text)
        is_told = path.is_relative_to(COMPOSE) or path.is_relative_to(KUBERNETES)
        assert is_told or not everywhere, path


def test_common_settings_are_those_of_the_code():
    common = (DEPLOY / "common.env").read_text().splitlines()
    values = dict(line.split("=", 1) for line in common if line and not line.startswith("#"))
    assert {name: values[name] for name in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT
    assert {name: values[name] for name in SCHEDULER_ENVIRONMENT} == SCHEDULER_ENVIRONMENT
    preloads = {text for name, text in values.items() if name.endswith("__PRELOAD")}
    assert preloads == {"tomoseg.compute.monitoring"}
    settings = (KUBERNETES / "base/settings.env").read_text().splitlines()
    assert settings == [line for line in common if not line.startswith("#")]


def test_every_module_that_a_command_starts_is_there():
    named = {
        module
        for path in FILES
        for module in re.findall(
            r"-m[, \n-]+((?:distributed|prefect|flows)[\w.]*)", path.read_text()
        )
    }
    assert named >= {"prefect", "distributed.cli.dask_scheduler", "distributed.cli.dask_worker"}
    for module in named - {"flows.watch"}:
        assert importlib.util.find_spec(module), module


@pytest.mark.parametrize(
    "script", [path for path in FILES if path.suffix in (".sh", ".sbatch")], ids=lambda at: at.name
)
def test_shell_scripts_are_clean(script):
    assert run(tool("shellcheck"), script) == (0, "")
    assert script.stat().st_mode & 0o100 or script.suffix == ".sbatch"


def test_shellcheck_would_tell_of_a_mistake(tmp_path):
    (tmp_path / "bad.sh").write_text("#!/usr/bin/env bash\nrm -r $1/*\n")
    assert run(tool("shellcheck"), tmp_path / "bad.sh")[0] == 1


def test_yaml_is_clean(tmp_path):
    lint = [tool("yamllint"), "--strict", "--config-file", DEPLOY / ".yamllint"]
    own = [path for path in FILES if path.suffix in (".yaml", ".yml")]
    own = [path for path in own if not path.is_relative_to(DEPLOY / "monitoring")]
    assert run(*lint, *own) == (0, "")
    (tmp_path / "twice.yaml").write_text("---\na: 1\na: 2\n")
    assert "duplication" in run(*lint, tmp_path / "twice.yaml")[1]


# --- containers


def compose_check(path):
    # On the schema that the validator brings along.
    return run(tool("check-jsonschema"), "--builtin-schema", "vendor.compose-spec", path)


@pytest.mark.parametrize("name", ["compose.yaml", "compose.gpu.yaml"])
def test_compose_files_fit_their_schema(name):
    code, said = compose_check(COMPOSE / name)
    assert code == 0, said


def test_a_wrong_compose_file_is_rejected(tmp_path):
    text = (COMPOSE / "compose.yaml").read_text().replace("healthcheck:", "helthcheck:")
    (tmp_path / "compose.yaml").write_text(text)
    assert compose_check(tmp_path / "compose.yaml")[0] == 1


@pytest.fixture(scope="module")
def services():
    [compose] = documents(COMPOSE / "compose.yaml")
    return compose["services"]


def test_published_ports_are_on_the_hosts_loopback(services):
    ports = [port for service in services.values() for port in service.get("ports", [])]
    assert len(ports) == 6
    assert all(re.fullmatch(r"127\.0\.0\.1:\d+:\d+", port) for port in ports)


def test_services_are_confined_and_limited(services):
    for name, service in services.items():
        assert service["cap_drop"] == ["ALL"], name
        assert service["security_opt"] == ["no-new-privileges:true"], name
        assert service["read_only"] or name == "postgres", name
        assert re.search(r":[\w.-]*\d|:local", service["image"]), name
        if name != "buckets":
            assert service["deploy"]["resources"]["limits"]["memory"], name
            is_well = service.get("healthcheck") or service["environment"]["HEALTH_URL"]
            assert is_well, name


def test_only_who_needs_a_secret_gets_it(services):
    given = {
        name: {Path(file).name for file in service.get("env_file", [])} - {"common.env"}
        for name, service in services.items()
    }
    assert given == {
        "postgres": {"postgres.env"},
        "prefect": {"prefect-server.env", "postgres.env"},
        "scheduler": {"tls.env"},
        "worker": {"tls.env", "s3.env"},
        "watch": {"tls.env", "prefect-client.env", "s3.env"},
        "minio": {"s3.env"},
        "buckets": {"s3.env"},
        "prometheus": set(),
        "grafana": {"grafana.env"},
    }


def test_what_compose_names_is_made_beforehand(services, tmp_path):
    if not (DEPLOY / "monitoring/prometheus.yml").exists():
        pytest.skip("deploy/monitoring is not here")
    code, said = run("bash", COMPOSE / "prepare.sh", tmp_path)
    assert code == 0, said
    files = {file for service in services.values() for file in service.get("env_file", [])}
    for file in (file for file in files if file.startswith("local/")):
        made = tmp_path / file.removeprefix("local/")
        assert made.stat().st_mode & 0o777 == 0o600
        assert all(re.fullmatch(r"\w+=\S+", line) for line in made.read_text().splitlines())
    assert not (tmp_path / "seen/ca-key.pem").exists()
    before = (tmp_path / "postgres.env").read_text()
    targets = (tmp_path / "prometheus.yml").read_text()
    assert "scheduler:8787" in targets
    assert not re.search(r"^[^#]*127\.0\.0\.1", targets, re.MULTILINE)
    run("bash", COMPOSE / "prepare.sh", tmp_path)
    assert (tmp_path / "postgres.env").read_text() == before


def test_the_image_is_clean(tmp_path):
    dockerfile = COMPOSE / "Dockerfile"
    assert run(tool("hadolint"), dockerfile) == (0, "")
    (tmp_path / "Dockerfile").write_text("FROM python:latest\nRUN cd /tmp\n")
    assert "DL3007" in run(tool("hadolint"), tmp_path / "Dockerfile")[1]


def test_the_image_is_not_roots_and_has_the_tested_torch():
    text = (COMPOSE / "Dockerfile").read_text()
    assert text.rindex("USER 10001:10001") > text.rindex("FROM ")
    constraints = (DEPLOY.parent / "constraints.txt").read_text()
    [torch] = re.findall(r"torch==[\d.]+", text)
    assert f"\n{torch}\n" in constraints


def test_the_image_gets_what_it_copies_and_no_more():
    ignored = (COMPOSE / "Dockerfile.dockerignore").read_text().split()
    kept = {line[1:] for line in ignored if line.startswith("!")}
    copied = re.findall(r"^COPY (?!--from)(.+) \S+$", (COMPOSE / "Dockerfile").read_text(), re.M)
    assert kept == {word for line in copied for word in line.split()}
    assert all((DEPLOY.parent / name).exists() for name in kept)


# --- Kubernetes


@pytest.fixture(scope="module", params=["base", "cpu"])
def rendered(request, tmp_path_factory):
    """All resources, as kustomize renders them."""
    code, said = run(tool("kubectl"), "kustomize", KUBERNETES / request.param)
    assert code == 0, said
    path = tmp_path_factory.mktemp("kubernetes") / "all.yaml"
    path.write_text(said)
    return path


def builtin(path):
    """A file of the resources that Kubernetes itself knows."""
    known = [one for one in documents(path) if "kubernetes.dask.org" not in one["apiVersion"]]
    file = path.with_name("builtin.yaml")
    file.write_text(yaml.safe_dump_all(known))
    return file


def test_resources_fit_the_schema_of_kubernetes(rendered):
    code, said = run(tool("kubernetes-validate"), "--strict", builtin(rendered))
    assert code == 0, said


def test_a_wrong_resource_is_rejected(rendered, tmp_path):
    text = builtin(rendered).read_text().replace("readinessProbe:", "readynessProbe:")
    (tmp_path / "wrong.yaml").write_text(text)
    assert run(tool("kubernetes-validate"), "--strict", tmp_path / "wrong.yaml")[0] != 0


@cache
def dask_schemas():
    """Schemas of the operator's own resources, from its package."""
    operator = importlib.util.find_spec("dask_kubernetes")
    if operator is None:
        pytest.skip("there is no dask-kubernetes")
    folder = Path(operator.origin).parent / "operator/deployment/helm/dask-kubernetes-operator/crds"
    files = [folder / f"{name}.yaml" for name in ("daskcluster", "daskautoscaler")]
    found = [yaml.load(path.read_text(), yaml.CSafeLoader)["spec"] for path in files]
    return {one["names"]["kind"]: one["versions"][0]["schema"]["openAPIV3Schema"] for one in found}


def problems(resource, schema):
    import jsonschema

    closed = json.loads(json.dumps(schema), object_hook=_closed)
    closed["additionalProperties"] = True
    return [error.message for error in jsonschema.Draft7Validator(closed).iter_errors(resource)]


def _closed(node):
    """Refuse what Kubernetes would drop without a word."""
    is_object = isinstance(node.get("properties"), dict) and node.get("type") == "object"
    if is_object and not node.get("x-kubernetes-preserve-unknown-fields"):
        node.setdefault("additionalProperties", False)
    return node


def test_dask_resources_fit_the_operators_schema(rendered):
    schemas = dask_schemas()
    ours = [one for one in documents(rendered) if "kubernetes.dask.org" in one["apiVersion"]]
    assert {one["kind"] for one in ours} == {"DaskCluster", "DaskAutoscaler"}
    for resource in ours:
        assert problems(resource, schemas[resource["kind"]]) == []
    [cluster] = [one for one in ours if one["kind"] == "DaskCluster"]
    cluster["spec"]["worker"]["spec"]["containers"][0]["livenesProbe"] = {}
    cluster["spec"]["worker"]["replicas"] = "many"
    assert len(problems(cluster, schemas["DaskCluster"])) == 2


def pod_specs(path):
    """Every pod that the resources ask for, by name."""
    for one in documents(path):
        if one["kind"] in ("Deployment", "StatefulSet"):
            yield one["metadata"]["name"], one["spec"]["template"]["spec"]
        if one["kind"] == "DaskCluster":
            yield "scheduler", one["spec"]["scheduler"]["spec"]
            yield "worker", one["spec"]["worker"]["spec"]


def test_pods_are_confined_limited_and_looked_after(rendered):
    pods = dict(pod_specs(rendered))
    assert set(pods) == {"postgres", "prefect", "scheduler", "worker", "watch"}
    for name, pod in pods.items():
        assert pod["securityContext"]["runAsNonRoot"], name
        assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert pod["automountServiceAccountToken"] is False, name
        [container] = pod["containers"]
        assert container["securityContext"] == {
            "allowPrivilegeEscalation": False,
            "readOnlyRootFilesystem": True,
            "capabilities": {"drop": ["ALL"]},
        }, name
        assert container["livenessProbe"], name
        resources = container["resources"]
        assert resources["requests"]["cpu"], name
        assert resources["limits"]["memory"], name
        assert not container["image"].endswith(":latest"), name
        mounted = {mount["name"] for mount in container["volumeMounts"]}
        claimed = {"data"} if name == "postgres" else set()
        assert mounted == {volume["name"] for volume in pod["volumes"]} | claimed, name


def test_secrets_are_named_and_not_held(rendered):
    assert not [one for one in documents(rendered) if one["kind"] == "Secret"]
    text = rendered.read_text()
    readme = (DEPLOY / "README.md").read_text()
    named = set(re.findall(r"secret(?:Ref|KeyRef):\s+(?:key: \S+\s+)?name: (\S+)", text))
    named |= set(re.findall(r"secretName: (\S+)", text))
    assert named == {"postgres", "prefect", "s3", "tls"}
    for name in named:
        assert f"create secret generic {name} " in readme


def test_a_gpu_pod_is_asked_for_only_where_there_are_gpus(rendered):
    worker = dict(pod_specs(rendered))["worker"]["containers"][0]
    has_gpu = "nvidia.com/gpu" in worker["resources"]["limits"]
    assert has_gpu == ("--resources=GPU=1" in worker["args"])
    assert has_gpu == ("--nthreads=3" in worker["args"])


def policies(path):
    return [one for one in documents(path) if one["kind"] == "NetworkPolicy"]


def test_nothing_is_reached_but_by_who_needs_it(rendered):
    rules = {one["metadata"]["name"]: one["spec"] for one in policies(rendered)}
    assert rules["nothing-unless-said"] == {"podSelector": {}, "policyTypes": ["Ingress", "Egress"]}

    def admitted(name):
        return {
            json.dumps(peer.get("podSelector", peer.get("namespaceSelector"))["matchLabels"])
            for rule in rules[name]["ingress"]
            for peer in rule["from"]
        }

    assert admitted("postgres") == {'{"app": "prefect"}'}
    assert admitted("prefect") == {'{"app": "watch"}'}
    assert admitted("dask") == {
        '{"dask.org/cluster-name": "tomoseg"}',
        '{"app": "watch"}',
        '{"kubernetes.io/metadata.name": "dask-operator"}',
        '{"kubernetes.io/metadata.name": "monitoring"}',
    }
    assert "egress" not in rules["postgres"]


# --- SLURM


def slurm_recipe(*changes):
    return load_recipe(DEPLOY / "slurm/recipe.yaml", list(changes))


def test_the_slurm_recipe_asks_for_jobs_with_gpus():
    compute = slurm_recipe("compute.tls=null", "compute.slurm.protocol=tcp").compute
    options = slurm_options(compute, compute.slurm)
    assert options["job_extra_directives"] == ["--gres=gpu:4"]
    assert (options["processes"], options["queue"], options["walltime"]) == (4, "gpu", "08:00:00")
    # Four workers, three blocks each, 8 GiB a block.
    assert options["memory"] == "96.000 GiB"
    secured = slurm_recipe().compute
    assert secured.tls.key == str(DEPLOY / "slurm/credentials/worker-key.pem")


def test_one_node_with_gpus_needs_no_other_jobs():
    script = (DEPLOY / "slurm/session.sbatch").read_text()
    changes = re.findall(r"--set (compute\.\S+)", script)
    compute = slurm_recipe(*changes).compute
    assert (compute.cluster, compute.slurm, compute.tls) == ("cuda", None, None)


STAND_IN = """#!/usr/bin/env bash
printf '%s|' "$@" >>"$(dirname "$0")/called"; echo >>"$(dirname "$0")/called"
[ "$1" != "$REFUSED" ]
"""


@pytest.mark.parametrize("refused", ["nothing", "validate"])
def test_a_batch_script_runs_a_session_once_its_recipe_is_checked(tmp_path, refused):
    stand_in = tmp_path / "tomoseg"
    stand_in.write_text(STAND_IN)
    stand_in.chmod(0o755)
    script = [
        "bash",
        DEPLOY / "slurm/session.sbatch",
        "my recipe.yaml",
        "TS 1.mrc",
        "--output",
        "out",
    ]
    environment = {"PATH": "/usr/bin:/bin", "TOMOSEG": str(stand_in), "REFUSED": refused}
    code, _ = run(*script, env=environment)
    called = (tmp_path / "called").read_text().splitlines()
    assert called[0] == "validate|my recipe.yaml|TS 1.mrc|--output|out|"
    if refused == "validate":
        assert (code, len(called)) == (1, 1)
    else:
        assert (code, called[1]) == (0, "run|--recipe|my recipe.yaml|TS 1.mrc|--output|out|")


def test_slurm_reads_the_directives_of_the_batch_script():
    text = (DEPLOY / "slurm/session.sbatch").read_text()
    lines = text.splitlines()
    directives = [number for number, line in enumerate(lines) if line.startswith("#SBATCH")]
    first_command = next(n for n, line in enumerate(lines) if line and not line.startswith("#"))
    assert len(directives) == 8
    assert max(directives) < first_command
