"""Clusters: what SLURM and Kubernetes are told, and workers that come from such a job script."""

import inspect
import json
import os
import re
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

from tomoseg.compute.clusters import (
    WORKER_ENVIRONMENT,
    check_cluster,
    cluster_address,
    describe_workers,
    kubernetes_manifest,
    runner_at,
    slurm_options,
)
from tomoseg.compute.settings import ComputeSection
from tomoseg.core.errors import RequestError, ResourceError

SLURM = {"interface": "lo", "protocol": "tcp"}
PODS = {"image": "registry.facility.org/tomoseg:1.0", "protocol": "tcp"}
SECRET = "hunter2-hunter2"

# Dask leaves a socket of a closed cluster to the garbage collector.
pytestmark = pytest.mark.filterwarnings(
    "ignore:Exception ignored in. <socket:pytest.PytestUnraisableExceptionWarning"
)


@dataclass(frozen=True)
class Look:
    """Say where an item runs; each waits until so many items have begun, at once."""

    folder: Path
    together: int = 1

    def name(self, item):
        return f"item-{item}"

    def __call__(self, item):
        (self.folder / str(item)).touch()
        deadline = time.monotonic() + 120
        while len(list(self.folder.iterdir())) < self.together:
            if time.monotonic() > deadline:
                # Of a kind that is not tried again.
                raise ResourceError(f"fewer than {self.together} items run at once")
            time.sleep(0.02)
        names = ("CUDA_VISIBLE_DEVICES", *WORKER_ENVIRONMENT)
        return {"pid": os.getpid(), **{name: os.environ.get(name) for name in names}}


def compute_of(**keys):
    return ComputeSection.model_validate(keys)


def job_script(compute):
    """The script that dask-jobqueue would hand to sbatch."""
    jobqueue = pytest.importorskip("dask_jobqueue")
    with jobqueue.SLURMCluster(**slurm_options(compute, compute.slurm)) as cluster:
        return cluster.job_script()


def option(script, name):
    """The value of an option of the worker's command."""
    return re.search(rf"distributed\.cli\.dask_worker .*{name} (\S+)", script)[1]


@pytest.fixture
def secrets(monkeypatch):
    for name in ("AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN", "PREFECT_API_KEY"):
        monkeypatch.setenv(name, SECRET)


@pytest.fixture(scope="module")
def tls(tmp_path_factory):
    """Files of a certificate that lasts as long as the tests."""
    from distributed.security import Security

    pytest.importorskip("cryptography")
    folder = tmp_path_factory.mktemp("tls")
    temporary = Security.temporary()
    texts = {
        "ca": temporary.tls_ca_file,
        "cert": temporary.tls_worker_cert,
        "key": temporary.tls_worker_key,
    }
    for name, text in texts.items():
        (folder / f"{name}.pem").write_text(text)
    return {name: str(folder / f"{name}.pem") for name in texts}


@pytest.fixture
def slurm_here(tmp_path, monkeypatch):
    """A SLURM of two commands, which runs a job at once and on this machine."""
    commands = {
        "sbatch": f"""
            copy=$(mktemp {tmp_path}/job-XXXXXX); cp "$1" $copy
            setsid bash $copy >$copy.log 2>&1 &
            echo "Submitted batch job $!" """,
        "scancel": 'kill -- "-$1"',
    }
    folder = tmp_path / "bin"
    folder.mkdir()
    for name, lines in commands.items():
        (folder / name).write_text(f"#!/usr/bin/env bash\n{lines}\n")
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")


def test_a_job_on_processors(secrets):
    slurm = SLURM | {
        "partition": "cryo",
        "account": "em-facility",
        "walltime_hours": 30.5,
        "cores": 8,
        "directives": ["--constraint=icelake"],
        "environment": ["module load gcc"],
        "python": "/software/tomoseg/bin/python",
        "log_folder": "/tmp",
    }
    script = job_script(compute_of(cluster="slurm", memory_gib=3, threads=2, slurm=slurm))
    directives = {line.removeprefix("#SBATCH ") for line in script.split("\n") if "#SBATCH" in line}
    assert directives == {
        "-J tomoseg",
        "-p cryo",
        "-A em-facility",
        "-t 30:30:00",
        "-n 1",
        "--cpus-per-task=8",
        "--mem=12G",
        "--constraint=icelake",
        "-e /tmp/tomoseg-%J.err",
        "-o /tmp/tomoseg-%J.out",
    }
    assert (option(script, "--nworkers"), option(script, "--nthreads")) == ("4", "1")
    assert option(script, "--memory-limit") == "3.00GiB"
    assert option(script, "--interface") == "lo"
    assert "\n/software/tomoseg/bin/python -m distributed.cli.dask_worker tcp://127" in script
    assert script.index("module load gcc") < script.index("export OMP_NUM_THREADS=1\n")
    for name, value in WORKER_ENVIRONMENT.items():
        assert f"\nexport {name}={value}\n" in script
    assert SECRET not in script
    assert "GPU" not in script


def test_a_job_on_gpus():
    slurm = SLURM | {"cores": 16, "gpus": 4, "gpu_type": "a100"}
    script = job_script(compute_of(cluster="slurm", memory_gib=4, slurm=slurm))
    assert "#SBATCH --gres=gpu:a100:4\n" in script
    assert "#SBATCH --cpus-per-task=16\n" in script
    assert "#SBATCH --mem=48G\n" in script
    # A process a GPU; one block is read, one computed, one written.
    assert (option(script, "--nworkers"), option(script, "--nthreads")) == ("4", "3")
    assert option(script, "--memory-limit") == "12.00GiB"
    assert option(script, "--resources") == "GPU=1"
    assert option(script, "--preload-nanny") == "tomoseg.compute.devices"


def test_tls_goes_into_a_job_as_paths(tls):
    compute = compute_of(cluster="slurm", slurm=SLURM | {"protocol": "tls"}, tls=tls)
    script = job_script(compute)
    assert "dask_worker tls://127.0.0.1:" in script
    assert option(script, "--protocol") == "tls://"
    assert option(script, "--tls-ca-file") == tls["ca"]
    assert (option(script, "--tls-cert"), option(script, "--tls-key")) == (tls["cert"], tls["key"])
    for path in tls.values():
        assert Path(path).read_text().split("\n")[1] not in script


def test_workers_of_a_job_have_a_gpu_each(slurm_here, tmp_path, tls):
    """The job script really runs, under TLS: its two workers see one of the job's GPUs each."""
    folder = tmp_path / "items"
    folder.mkdir()
    slurm = SLURM | {
        "protocol": "tls",
        "gpus": 2,
        "environment": [f"export PYTHONPATH={Path.cwd()}", "export CUDA_VISIBLE_DEVICES=4,7"],
    }
    compute = compute_of(cluster="slurm", memory_gib=0.5, stall_minutes=5, slurm=slurm, tls=tls)
    with cluster_address(compute) as address, runner_at(address, compute) as runner:
        assert address.startswith("tls://127.0.0.1:")
        receipts = list(runner.map(Look(folder, together=6), range(6), on_device=True))
    # All six ran at once: on each worker three.
    assert {receipt["CUDA_VISIBLE_DEVICES"] for receipt in receipts} == {"4", "7"}
    assert len({receipt["pid"] for receipt in receipts}) == 2
    for receipt in receipts:
        assert {name: receipt[name] for name in WORKER_ENVIRONMENT} == WORKER_ENVIRONMENT


def test_elastic_jobs_come_with_the_work(slurm_here, tmp_path):
    """No job runs before there are blocks, and blocks enough are in flight for all jobs."""
    folder = tmp_path / "items"
    folder.mkdir()
    slurm = SLURM | {
        "cores": 1,
        "jobs": {"minimum": 0, "maximum": 3},
        "environment": [f"export PYTHONPATH={Path.cwd()}"],
    }
    compute = compute_of(cluster="slurm", memory_gib=0.5, stall_minutes=5, slurm=slurm)
    assert compute.blocks_ahead == 6
    with cluster_address(compute) as address, runner_at(address, compute) as runner:
        assert not list(tmp_path.glob("job-*.log"))
        receipts = list(runner.map(Look(folder, together=3), range(3)))
    assert len({receipt["pid"] for receipt in receipts}) == 3


def test_each_gpu_of_this_machine_has_a_worker(monkeypatch, tmp_path):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "4,7")
    compute = compute_of(cluster="cuda", memory_gib=0.5, stall_minutes=5)
    with cluster_address(compute) as address, runner_at(address, compute) as runner:
        assert address.startswith("tcp://127.0.0.1:")
        receipts = list(runner.map(Look(tmp_path, together=6), range(6), on_device=True))
    assert {receipt["CUDA_VISIBLE_DEVICES"] for receipt in receipts} == {"4", "7"}


@pytest.mark.parametrize(
    ("gpus", "workers", "error", "says"),
    [("", None, ResourceError, "no GPU is visible"), ("4", 2, RequestError, "workers is 2, but 1")],
)
def test_gpus_that_are_not_there(monkeypatch, gpus, workers, error, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", gpus)
    compute = compute_of(cluster="cuda", workers=workers)
    for begin in (lambda: check_cluster(compute), lambda: describe_workers(compute)):
        with pytest.raises(error, match=says):
            begin()
    with pytest.raises(error, match=says), cluster_address(compute):
        pass


def containers(manifest):
    specs = (manifest["spec"][part]["spec"] for part in ("worker", "scheduler"))
    return [container for spec in specs for container in spec["containers"]]


def test_pods_on_gpus(secrets):
    pytest.importorskip("dask_kubernetes")
    pods = PODS | {
        "gpus": 1,
        "pods": {"minimum": 1, "maximum": 8},
        "service_account": "tomoseg",
        "secrets": ["s3-keys"],
        "claims": {"tomograms": "/data"},
        "environment": {"AWS_ENDPOINT_URL": "https://s3.facility.org", "OMP_NUM_THREADS": "64"},
        "node_selector": {"gpu": "a100"},
        "tolerations": [{"key": "nvidia.com/gpu", "operator": "Exists"}],
    }
    compute = compute_of(cluster="kubernetes", kubernetes=pods)
    manifest = kubernetes_manifest(compute, compute.kubernetes, name="tomoseg-1")
    assert (manifest["kind"], manifest["metadata"]["name"]) == ("DaskCluster", "tomoseg-1")
    assert manifest["spec"]["worker"]["replicas"] == 1
    worker, scheduler = containers(manifest)
    assert worker["image"] == scheduler["image"] == PODS["image"]
    command = " ".join(worker["args"])
    assert "--nthreads 3 --memory-limit 12288MiB --resources GPU=1 --name" in command
    assert worker["resources"] == {
        "requests": {"cpu": "4", "memory": "12288Mi", "nvidia.com/gpu": "1"},
        "limits": {"memory": "12288Mi", "nvidia.com/gpu": "1"},
    }
    assert "nvidia.com/gpu" not in json.dumps(scheduler["resources"])
    environment = {one["name"]: one["value"] for one in worker["env"]}
    assert WORKER_ENVIRONMENT.items() <= environment.items()
    allowed = {"name": "DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES", "value": "0"}
    assert allowed in scheduler["env"]
    assert environment["AWS_ENDPOINT_URL"] == "https://s3.facility.org"
    assert worker["envFrom"] == [{"secretRef": {"name": "s3-keys"}}]
    assert worker["volumeMounts"] == [{"name": "tomograms", "mountPath": "/data"}]
    pod = manifest["spec"]["worker"]["spec"]
    assert pod["volumes"][0]["persistentVolumeClaim"] == {"claimName": "tomograms"}
    assert (pod["serviceAccountName"], pod["nodeSelector"]) == ("tomoseg", {"gpu": "a100"})
    assert manifest["spec"]["scheduler"]["service"]["type"] == "ClusterIP"
    assert SECRET not in json.dumps(manifest)


def test_pods_on_processors():
    pytest.importorskip("dask_kubernetes")
    compute = compute_of(cluster="kubernetes", threads=2, kubernetes=PODS | {"pods": 5})
    manifest = kubernetes_manifest(compute, compute.kubernetes, name="tomoseg-1")
    assert manifest["spec"]["worker"]["replicas"] == 5
    worker, _ = containers(manifest)
    assert worker["resources"]["requests"] == {"cpu": "2", "memory": "4096Mi"}
    assert "GPU" not in json.dumps(manifest)
    assert worker["args"][worker["args"].index("--nthreads") + 1] == "1"


def test_pods_are_asked_for_and_given_back(monkeypatch):
    """The operator's cluster takes what it is told; one that it cannot make is a named error."""
    operator = pytest.importorskip("dask_kubernetes.operator")
    real, log = operator.KubeCluster, []

    class Cluster:
        scheduler_address = "tcp://127.0.0.1:41000"

        def __init__(self, **keys):
            inspect.signature(real).bind(**keys)
            log.append((keys["namespace"], keys["custom_cluster_spec"]["kind"]))
            if keys["namespace"] == "closed":
                raise PermissionError("pods is forbidden")

        def adapt(self, **bounds):
            inspect.signature(real.adapt).bind(self, **bounds)
            log.append(bounds)

        def __enter__(self):
            return self

        def __exit__(self, *error):
            log.append("closed")

    monkeypatch.setattr(operator, "KubeCluster", Cluster)
    pods = PODS | {"namespace": "em", "pods": {"minimum": 0, "maximum": 4}}
    with cluster_address(compute_of(cluster="kubernetes", kubernetes=pods)) as address:
        assert address == Cluster.scheduler_address
    assert log == [("em", "DaskCluster"), {"minimum": 0, "maximum": 4}, "closed"]
    compute = compute_of(cluster="kubernetes", kubernetes=pods | {"namespace": "closed"})
    with (
        pytest.raises(ResourceError, match=r"not be started on Kubernetes: .*pods is forbidden"),
        cluster_address(compute),
    ):
        pass


def test_an_interface_that_is_not_there_is_named(slurm_here):
    compute = compute_of(cluster="slurm", slurm=SLURM | {"interface": "ib9"})
    with pytest.raises(ResourceError, match="ib9"), cluster_address(compute):
        pass


@pytest.mark.parametrize(
    ("module", "keys"),
    [
        ("dask_jobqueue", {"cluster": "slurm", "slurm": SLURM}),
        ("dask_kubernetes.operator", {"cluster": "kubernetes", "kubernetes": PODS}),
    ],
)
def test_a_missing_extra_is_told_before_any_work(monkeypatch, module, keys):
    monkeypatch.setitem(sys.modules, module, None)
    compute = compute_of(**keys)
    says = rf"pip install 'tomoseg\[{keys['cluster']}\]'"
    with pytest.raises(ResourceError, match=says):
        check_cluster(compute)
    with pytest.raises(ResourceError, match=says), cluster_address(compute):
        pass


def test_what_is_missing_here_is_told_before_any_work(monkeypatch, tmp_path, tls):
    monkeypatch.setitem(sys.modules, "dask_jobqueue", SimpleNamespace())
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(ResourceError, match="no sbatch"):
        check_cluster(compute_of(cluster="slurm", slurm=SLURM))
    missing = tls | {"key": str(tmp_path / "no.pem")}
    with pytest.raises(RequestError, match=r"compute\.tls\.key: .*no\.pem"):
        check_cluster(compute_of(address="tls://10.0.0.1:8786", tls=missing))
    with pytest.raises(RequestError, match="8786 asks for a certificate"):
        check_cluster(compute_of(address="tls://10.0.0.1:8786"))


@pytest.mark.parametrize(
    ("keys", "says"),
    [
        (
            {"cluster": "slurm", "slurm": SLURM | {"jobs": 3, "partition": "cryo", "gpus": 2}},
            "SLURM: 3 jobs in partition cryo, each of 4 cores, 2 GPUs, 24 GiB and 04:00:00; "
            "tcp on lo",
        ),
        (
            {"cluster": "kubernetes", "kubernetes": PODS | {"pods": {"maximum": 9}}},
            f"Kubernetes: 0 to 9 pods of {PODS['image']} in namespace of the context, 4 GiB each",
        ),
        ({"cluster": "cuda"}, "2 worker processes, one a GPU of this machine, 12 GiB each"),
    ],
)
def test_clusters_are_described(monkeypatch, keys, says):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert describe_workers(compute_of(**keys)) == says
