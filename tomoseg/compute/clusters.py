"""Clusters that a recipe's ``compute`` section asks for: started, described, and reached.

What each library is told stands in one pure function (:func:`slurm_options`,
:func:`kubernetes_manifest`), so that a job script or a manifest can be read without a cluster.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from tomoseg.compute.devices import visible_gpus
from tomoseg.compute.monitoring import MODULE
from tomoseg.compute.monitoring.logs import log_environment
from tomoseg.compute.runners import Runner, open_runner
from tomoseg.compute.settings import ComputeSection, ElasticSection, KubernetesSection, SlurmSection
from tomoseg.compute.workers import quieten
from tomoseg.core.attempts import explaining
from tomoseg.core.errors import RequestError, ResourceError, TomosegError

# A scheduler holds receipts and the names of blocks, no voxels.
SCHEDULER_RESOURCES = {
    "requests": {"cpu": "1", "memory": "2Gi"},
    "limits": {"memory": "4Gi"},
}
GPU_RESOURCE = "nvidia.com/gpu"
DEATH_SECONDS = 300
GPU_WORKER: dict[str, Any] = {
    "resources": {"GPU": 1},
    "preload_nanny": ["tomoseg.compute.devices"],
}
PRELOAD = ("--preload", MODULE)
SCHEDULER_SETTINGS = {"distributed.scheduler.allowed-failures": 0}
"""The runner counts losses and sends lost blocks out again itself; Dask would kill more workers."""
SCHEDULER_ENVIRONMENT = {"DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES": "0"}
"""The same where a scheduler runs elsewhere."""
WORKER_ENVIRONMENT = {
    "MALLOC_TRIM_THRESHOLD_": str(1 << 30),
    "MALLOC_MMAP_MAX_": "0",
    "MALLOC_ARENA_MAX": "1",
    "OMP_NUM_THREADS": "1",
    "MKL_NUM_THREADS": "1",
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_WAIT_POLICY": "PASSIVE",
}
"""What must stand in a worker's environment before its interpreter starts.

Dask's nanny makes malloc give memory back after every block, and each activation of a network
then page-faults: 1.6 times slower. So does the heap that each thread has for itself, and blocks
run in threads: a third slower (:func:`tomoseg.compute.devices.share_heap`). OpenMP threads that
spin
starve their neighbours."""


@contextlib.contextmanager
def cluster_address(compute: ComputeSection) -> Iterator[str]:
    """Start the cluster of a recipe, or take the one at its address; yield the address.

    Raises
    ------
    ResourceError
        If the cluster's extra is not installed, or it cannot be started from here.
    RequestError
        If a file for TLS is missing or there are fewer GPUs than workers.
    """
    if compute.address is not None:
        yield compute.address
        return
    start = {"local": _local, "cuda": _local, "slurm": _slurm, "kubernetes": _kubernetes}
    with start[compute.cluster](compute) as address:
        yield address


@contextlib.contextmanager
def runner_at(address: str | None, compute: ComputeSection) -> Iterator[Runner]:
    """Yield a runner on a cluster's scheduler, or one in this process for None.

    Raises
    ------
    RequestError
        If the scheduler asks for a certificate and none is named.
    ResourceError
        If no scheduler answers.
    """
    _check_certificate(compute)
    with open_runner(
        address,
        stall_minutes=compute.stall_minutes,
        ahead=compute.blocks_ahead,
        security=security(compute.tls.model_dump()) if compute.tls else None,
    ) as runner:
        yield runner


def security(tls: Mapping[str, str]) -> Any:
    """Return Dask's security for the files ``ca``, ``cert`` and ``key``; nothing goes in the clear.

    Raises
    ------
    RequestError
        If a file is missing.
    """
    from distributed import Security

    for name, path in tls.items():
        if not Path(path).is_file():
            raise RequestError(f"compute.tls.{name}: there is no file {path}")
    pairs = {
        f"tls_{role}_{kind}": tls[kind]
        for role in ("scheduler", "worker", "client")
        for kind in ("cert", "key")
    }
    return Security(tls_ca_file=tls["ca"], require_encryption=True, **pairs)


def check_cluster(compute: ComputeSection) -> None:
    """Tell before any work whether a cluster could be started from here; errors as to start it."""
    if compute.cluster == "cuda":
        _gpu_workers(compute)
    if compute.cluster == "slurm":
        _library("dask_jobqueue", "slurm")
        if shutil.which("sbatch") is None:
            raise ResourceError(
                "there is no sbatch on this machine",
                remedy="Start the run on a host that submits jobs to SLURM.",
            )
    if compute.cluster == "kubernetes":
        _library("dask_kubernetes.operator", "kubernetes")
    if compute.tls is not None:
        security(compute.tls.model_dump())
    _check_certificate(compute)


def _check_certificate(compute: ComputeSection) -> None:
    """Where no files are named, Dask's own settings say what to show to a scheduler."""
    import dask

    address = compute.address or ""
    is_named = compute.tls or dask.config.get("distributed.comm.tls.client.cert", None)
    if address.startswith(("tls://", "wss://")) and not is_named:
        raise RequestError(
            f"{address} asks for a certificate",
            remedy="Name its files in compute.tls, or in Dask's settings by "
            "DASK_DISTRIBUTED__COMM__TLS__CA_FILE, __CLIENT__CERT and __CLIENT__KEY.",
        )


def describe_workers(compute: ComputeSection) -> str:
    """Say on what workers the blocks of a session would run, for people.

    >>> describe_workers(ComputeSection(address="tcp://10.0.0.1:8786"))
    'the Dask scheduler at tcp://10.0.0.1:8786'
    >>> describe_workers(ComputeSection(workers=2))
    '2 worker processes of this machine, 4 GiB each'
    """
    if compute.address is not None:
        return f"the Dask scheduler at {compute.address}"
    each = f"{compute.worker_gib:g} GiB each"
    if compute.slurm is not None:
        return _slurm_described(compute, compute.slurm)
    if compute.kubernetes is not None:
        pods = compute.kubernetes
        gpu = f"{pods.gpus} GPU, " if pods.gpus else ""
        return (
            f"Kubernetes: {_number(pods.pods, 'pods')} of {pods.image} in namespace "
            f"{pods.namespace or 'of the context'}, {gpu}{each}"
        )
    if compute.cluster == "cuda":
        return f"{_gpu_workers(compute)} worker processes, one a GPU of this machine, {each}"
    return f"{local_workers(compute)} worker processes of this machine, {each}"


def local_workers(compute: ComputeSection) -> int:
    """Return how many worker processes this machine gets without GPUs: one a core, unless said."""
    return compute.workers or len(os.sched_getaffinity(0))


def _slurm_described(compute: ComputeSection, slurm: SlurmSection) -> str:
    partition = f" in partition {slurm.partition}" if slurm.partition else ""
    gpus = f"{slurm.gpus} GPUs, " if slurm.gpus else ""
    return (
        f"SLURM: {_number(slurm.jobs, 'jobs')}{partition}, each of {slurm.cores} cores, "
        f"{gpus}{_job_gib(compute):g} GiB and {_walltime(slurm)}; "
        f"{slurm.protocol} on {slurm.interface}"
    )


def _number(number: int | ElasticSection, noun: str) -> str:
    if isinstance(number, int):
        return f"{number} {noun}"
    return f"{number.minimum} to {number.maximum} {noun}"


def _gpu_workers(compute: ComputeSection) -> int:
    gpus = len(visible_gpus())
    workers = compute.workers or gpus
    if not gpus:
        raise ResourceError(
            "no GPU is visible here",
            remedy="Look at CUDA_VISIBLE_DEVICES, or set compute.cluster: local.",
        )
    if workers > gpus:
        raise RequestError(
            f"compute.workers is {workers}, but {gpus} GPUs are visible here",
            remedy="Leave out compute.workers: there is one a GPU.",
        )
    return workers


def _local(compute: ComputeSection) -> contextlib.AbstractContextManager[str]:
    has_gpus = compute.has_gpus
    return open_cluster(
        workers=_gpu_workers(compute) if has_gpus else local_workers(compute),
        memory_gib=compute.worker_gib,
        gpu_threads=compute.worker_threads if has_gpus else 0,
    )


@contextlib.contextmanager
def open_cluster(*, workers: int, memory_gib: float, gpu_threads: int = 0) -> Iterator[str]:
    """Start worker processes on the loopback interface; yield the scheduler's address.

    Parameters
    ----------
    workers, memory_gib
        Their number, and the memory that each may use.
    gpu_threads
        0 for workers of one thread. Else each has so many threads and a GPU of its own, the i-th
        that is visible here, and announces it as the resource ``GPU: 1``.
    """
    quieten()
    from distributed import LocalCluster

    from tomoseg.compute.monitoring.spans import forget_spans

    with (
        _worker_settings(),
        LocalCluster(
            n_workers=workers,
            threads_per_worker=gpu_threads or 1,
            memory_limit=int(memory_gib * 2**30),
            host="127.0.0.1",
            dashboard_address="127.0.0.1:0",
            preload=[MODULE],
            **(GPU_WORKER if gpu_threads else {}),
        ) as cluster,
    ):
        forget_spans(cluster.scheduler)
        yield str(cluster.scheduler_address)


@contextlib.contextmanager
def _worker_settings() -> Iterator[None]:
    """Hand the environment to the nannies of this machine; without any worker, fail soon."""
    import dask

    with dask.config.set(
        {
            "distributed.nanny.pre-spawn-environ": WORKER_ENVIRONMENT,
            "distributed.scheduler.no-workers-timeout": "5 minutes",
            **SCHEDULER_SETTINGS,
        }
    ):
        yield


def slurm_options(compute: ComputeSection, slurm: SlurmSection) -> dict[str, Any]:
    """Return what ``dask_jobqueue.SLURMCluster`` is told; TLS goes in as paths of files.

    A worker process has a GPU, or ``compute.threads`` cores for one block: processes of a job
    share its memory evenly.
    """
    processes = compute.job_processes
    gpu_type = f"{slurm.gpu_type}:" if slurm.gpu_type else ""
    gres = [f"--gres=gpu:{gpu_type}{slurm.gpus}"] if slurm.gpus else []
    # Dashboards answer whoever asks: on the loopback interface alone.
    worker = ["--dashboard-address", "127.0.0.1:0", *PRELOAD]
    gpu_worker = ["--resources", "GPU=1", "--preload-nanny", "tomoseg.compute.devices"]
    variables = {**WORKER_ENVIRONMENT, **log_environment()}
    exports = [f"export {name}={value}" for name, value in variables.items()]
    return {
        "queue": slurm.partition,
        "account": slurm.account,
        "walltime": _walltime(slurm),
        "cores": processes * compute.worker_threads,
        "job_cpu": slurm.cores,
        "memory": f"{_job_gib(compute):.3f} GiB",
        "processes": processes,
        "interface": slurm.interface,
        "protocol": f"{slurm.protocol}://",
        "security": security(compute.tls.model_dump()) if compute.tls else None,
        "job_name": "tomoseg",
        "job_extra_directives": [*gres, *slurm.directives],
        # Last, so that a person's lines cannot undo them by accident.
        "job_script_prologue": [*slurm.environment, *exports],
        "worker_extra_args": [*worker, *(gpu_worker if slurm.gpus else [])],
        "python": slurm.python,
        "log_directory": slurm.log_folder,
        "death_timeout": DEATH_SECONDS,
        "scheduler_options": {"dashboard_address": "127.0.0.1:0"},
    }


def _job_gib(compute: ComputeSection) -> float:
    return compute.job_processes * compute.worker_gib


def _walltime(slurm: SlurmSection) -> str:
    minutes = max(1, round(slurm.walltime_hours * 60))
    return f"{minutes // 60:02d}:{minutes % 60:02d}:00"


@contextlib.contextmanager
def _slurm(compute: ComputeSection) -> Iterator[str]:
    assert compute.slurm is not None
    check_cluster(compute)
    slurm, options = compute.slurm, slurm_options(compute, compute.slurm)
    jobqueue = _library("dask_jobqueue", "slurm")
    from tomoseg.compute.monitoring.spans import forget_spans

    with _started("SLURM", lambda: jobqueue.SLURMCluster(**options)) as cluster:
        forget_spans(cluster.scheduler)
        if isinstance(slurm.jobs, int):
            cluster.scale(jobs=slurm.jobs)
        else:
            cluster.adapt(minimum_jobs=slurm.jobs.minimum, maximum_jobs=slurm.jobs.maximum)
        yield str(cluster.scheduler_address)


def kubernetes_manifest(
    compute: ComputeSection, pods: KubernetesSection, *, name: str
) -> dict[str, Any]:
    """Return the ``DaskCluster`` resource: secrets and claims by name, never their content.

    Raises
    ------
    ResourceError
        If dask-kubernetes is not installed.
    """
    operator = _library("dask_kubernetes.operator", "kubernetes")
    manifest: dict[str, Any] = operator.make_cluster_spec(
        name,
        image=pods.image,
        n_workers=pods.pods if isinstance(pods.pods, int) else pods.pods.minimum,
        resources=_pod_resources(compute, pods),
        env={
            **log_environment(),
            **pods.environment,
            **WORKER_ENVIRONMENT,
            **SCHEDULER_ENVIRONMENT,
        },
        worker_command=_worker_command(compute),
        scheduler_service_type=pods.service,
    )
    worker, scheduler = manifest["spec"]["worker"]["spec"], manifest["spec"]["scheduler"]["spec"]
    # make_cluster_spec asks for the same for both, but a scheduler computes no block.
    scheduler["containers"][0]["resources"] = SCHEDULER_RESOURCES
    if pods.service_account:
        worker["serviceAccountName"] = pods.service_account
    worker["nodeSelector"] = dict(pods.node_selector)
    worker["tolerations"] = [dict(toleration) for toleration in pods.tolerations]
    worker["volumes"] = [
        {"name": claim, "persistentVolumeClaim": {"claimName": claim}} for claim in pods.claims
    ]
    worker["containers"][0] |= {
        "envFrom": [{"secretRef": {"name": secret}} for secret in pods.secrets],
        "volumeMounts": [{"name": n, "mountPath": path} for n, path in pods.claims.items()],
    }
    return manifest


def _pod_resources(compute: ComputeSection, pods: KubernetesSection) -> dict[str, dict[str, str]]:
    """Return requests and limits alike, but for cores: a limit on those only throttles."""
    memory = {"memory": f"{round(compute.worker_gib * 1024)}Mi"}
    gpu = {GPU_RESOURCE: str(pods.gpus)} if pods.gpus else {}
    cores = pods.cores or (compute.worker_threads + 1 if pods.gpus else compute.threads)
    return {"requests": {"cpu": str(cores), **memory, **gpu}, "limits": {**memory, **gpu}}


def _worker_command(compute: ComputeSection) -> list[str]:
    command = ["python", "-m", "distributed.cli.dask_worker", *PRELOAD]
    command += ["--nthreads", str(compute.worker_threads)]
    command += ["--memory-limit", f"{round(compute.worker_gib * 1024)}MiB"]
    return [*command, "--resources", "GPU=1"] if compute.has_gpus else command


@contextlib.contextmanager
def _kubernetes(compute: ComputeSection) -> Iterator[str]:
    assert compute.kubernetes is not None
    pods = compute.kubernetes
    manifest = kubernetes_manifest(compute, pods, name=f"tomoseg-{uuid.uuid4().hex[:8]}")
    operator = _library("dask_kubernetes.operator", "kubernetes")

    def start() -> Any:
        return operator.KubeCluster(
            namespace=pods.namespace, custom_cluster_spec=manifest, quiet=True
        )

    with _started("Kubernetes", start) as cluster:
        if isinstance(pods.pods, ElasticSection):
            cluster.adapt(minimum=pods.pods.minimum, maximum=pods.pods.maximum)
        yield str(cluster.scheduler_address)


@contextlib.contextmanager
def _started(name: str, start: Callable[[], Any]) -> Iterator[Any]:
    """Start a cluster and close it in the end, jobs and pods with it."""
    quieten()
    import dask

    try:
        with explaining(), dask.config.set(SCHEDULER_SETTINGS):
            cluster = start()
    except TomosegError as error:
        raise ResourceError(
            f"the cluster could not be started on {name}: {error.message}",
            remedy=error.remedy or f"Correct compute.{name.lower()}, or ask who runs the cluster.",
        ) from error
    with cluster:
        yield cluster


def _library(module: str, extra: str) -> ModuleType:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ResourceError(
            f"compute.cluster: {extra} needs {module.partition('.')[0].replace('_', '-')}",
            remedy=f"Run: pip install 'tomoseg[{extra}]'.",
        ) from error
