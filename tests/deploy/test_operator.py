"""Kubernetes' scheduler and worker as processes: TLS, and what Dask's operator asks them."""

import asyncio
import contextlib
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import distributed
import pytest
import yaml
from servers import free_port, running, wait_for_http, wait_until

from tomoseg.compute.clusters import security
from tomoseg.core.version import code_version

DEPLOY = Path(__file__).parents[2] / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
SEEN_AT = "/run/credentials"
NAME = "tomoseg-default-worker-7"

for program in ("openssl", "kubectl"):
    if shutil.which(program) is None:
        pytest.skip(f"there is no {program}", allow_module_level=True)


@pytest.fixture(scope="module")
def credentials(tmp_path_factory):
    folder = tmp_path_factory.mktemp("credentials")
    subprocess.run(["bash", DEPLOY / "credentials.sh", folder], check=True, capture_output=True)
    return folder


def test_dask_is_told_where_the_secret_is_mounted(tmp_path):
    command = ["bash", DEPLOY / "credentials.sh", tmp_path, SEEN_AT]
    subprocess.run(command, check=True, capture_output=True)
    assert (KUBERNETES / "base/tls.env").read_text() == (tmp_path / "tls.env").read_text()


@pytest.fixture(scope="module")
def pods():
    """The scheduler's and the worker's pod, as the operator gets them."""
    command = ["kubectl", "kustomize", KUBERNETES / "cpu"]
    rendered = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    documents = [one for one in yaml.safe_load_all(rendered) if one]
    settings = {one["metadata"]["name"]: one["data"] for one in documents if "data" in one}
    [cluster] = [one["spec"] for one in documents if one["kind"] == "DaskCluster"]
    return settings, {name: cluster[name]["spec"] for name in ("scheduler", "worker")}


@contextlib.contextmanager
def process_of(pods, name, here, log):
    """Run a pod's container on this machine, on loopback, where ``here`` stands for the cluster."""
    settings, specs = pods
    [container] = specs[name]["containers"]
    mounts = {one["name"]: one["mountPath"] for one in container["volumeMounts"]}
    [volume] = [one["name"] for one in specs[name]["volumes"] if "secret" in one]
    assert mounts[volume] == SEEN_AT

    def moved(text):
        for there, where in here.items():
            text = text.replace(there, where)
        return text

    told = [one["configMapRef"]["name"] for one in container["envFrom"] if "configMapRef" in one]
    environment = {key: text for one in told for key, text in settings[one].items()}
    environment |= {one["name"]: one["value"] for one in container["env"]}
    environment = {key: moved(text) for key, text in environment.items()}
    command = [sys.executable, *map(moved, container["args"][1:])]
    with running(command, log, os.environ | environment) as process:
        yield process


@pytest.fixture
def here(credentials, tmp_path):
    return {
        SEEN_AT: str(credentials),
        "/tmp/spill": str(tmp_path / "spill"),
        "0.0.0.0": "127.0.0.1",
        "tomoseg-scheduler": "127.0.0.1",
        "8786": str(free_port()),
        "8787": str(free_port()),
        "8800": str(free_port()),
        "$(DASK_WORKER_NAME)": NAME,
    }


def test_workers_come_and_go_by_http_while_they_speak_tls(
    pods, here, credentials, tmp_path, monkeypatch
):
    controller = pytest.importorskip("dask_kubernetes.operator.controller.controller")
    asked = []

    async def address_of(service, namespace, port_name="tcp-comm", **_):
        asked.append(port_name)
        return f"tcp://127.0.0.1:{here['8787']}"

    monkeypatch.setattr(controller, "get_scheduler_address", address_of)
    at = f"tls://127.0.0.1:{here['8786']}"
    files = {"ca": "ca.pem", "cert": "client.pem", "key": "client-key.pem"}
    tls = {name: str(credentials / file) for name, file in files.items()}

    def spans_kept(dask_scheduler):
        return len(dask_scheduler.extensions["spans"].spans)

    logs = {name: tmp_path / f"{name}.log" for name in ("scheduler", "worker")}
    with process_of(pods, "scheduler", here, logs["scheduler"]):
        wait_for_http(f"http://127.0.0.1:{here['8787']}/health", logs["scheduler"])
        wanted = controller.get_desired_workers("tomoseg-scheduler", "tomoseg")
        assert asyncio.run(wanted) == 0
        with (
            process_of(pods, "worker", here, logs["worker"]) as worker,
            distributed.Client(at, security=security(tls)) as client,
        ):
            assert client.submit(os.getpid).result(timeout=60) != os.getpid()
            assert client.submit(code_version).result(timeout=60) == code_version()
            assert all(place.startswith("tls://") for place in client.scheduler_info()["workers"])
            assert client.run_on_scheduler(spans_kept) == 0
            retired = []

            def is_retired():
                """Ask as the operator does, again and again: a result may not be let go of yet."""
                asking = controller.retire_workers(
                    1, "tomoseg-scheduler", "tomoseg-default", "tomoseg", logging.getLogger()
                )
                retired.extend(asyncio.run(asking))
                return retired

            wait_until(is_retired, "no worker is retired")
            assert retired == [NAME]
            assert worker.wait(timeout=60) == 0
    assert set(asked) == {"http-dashboard"}
