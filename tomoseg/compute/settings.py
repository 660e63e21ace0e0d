"""Where blocks run, as a recipe says: the section ``compute``."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Annotated, Any, Literal, Self

from pydantic import AfterValidator, Field, model_validator

from tomoseg.core.bounds import Cores, Minutes, Section

# One block is read, one computed and one written at a time on a GPU.
GPU_THREADS = 3
SECRET = re.compile(r"(secret|token|passw|credential|access_key)\w*\s*=", re.IGNORECASE)
# Directives that have keys of their own, by their long and short names.
KEPT_DIRECTIVES = re.compile(
    r"--(partition|account|time|mem|cpus-per-task|gres|gpus\S*|ntasks)\b|-[pAtcnG]\b"
)


Jobs = Annotated[int, Field(ge=1, le=10_000)]


def _line(text: str) -> str:
    if not text.strip() or "\n" in text:
        raise ValueError("must be one line of text")
    if SECRET.search(text):
        raise ValueError("holds a secret: keep it in a file or a store that the workers read")
    return text


def _directive(text: str) -> str:
    if not text.startswith("-"):
        raise ValueError("must begin with a dash, as in --constraint=a100")
    if KEPT_DIRECTIVES.match(text):
        raise ValueError("contradicts a key of compute.slurm: set that key")
    return text


Word = Annotated[str, Field(pattern=r"^[\w.,:@/+-]+$")]
Line = Annotated[str, AfterValidator(_line)]
Directive = Annotated[str, AfterValidator(_line), AfterValidator(_directive)]


class ElasticSection(Section):
    """As many as there is work for, between two bounds."""

    minimum: int = Field(default=0, ge=0, le=10_000)
    maximum: Jobs

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.minimum >= self.maximum:
            raise ValueError(f"minimum {self.minimum} must be below maximum {self.maximum}")
        return self


class TlsSection(Section):
    """Files in PEM that scheduler, workers and this process show each other; never their text.

    All of them read the files at these paths, so they must lie where workers see them.
    """

    ca: str
    cert: str
    key: str


class SlurmSection(Section):
    """Workers as SLURM jobs; the scheduler runs in this process, on the same network.

    Parameters
    ----------
    interface
        Network interface of scheduler and workers, such as ``ib0``.
    protocol
        ``tls``, with ``compute.tls``; or ``tcp``, on a network that is trusted.
    jobs
        How many, or ``{minimum, maximum}`` after the work there is.
    cores, gpus
        Of one job. A job has a worker process a GPU; without GPUs one for each ``compute.threads``
        cores.
    gpu_type
        As the cluster calls it in ``--gres=gpu:TYPE:N``.
    walltime_hours
        Of one job; its blocks in work go to others when it ends.
    directives
        More lines after ``#SBATCH``, such as ``--constraint=skylake``.
    environment
        Lines of shell before the worker starts, such as ``module load cuda``.
    python
        The Python of the workers; without one, that of this process.
    log_folder
        Where jobs log; it must exist for the nodes.
    """

    interface: Word
    protocol: Literal["tcp", "tls"]
    partition: Word | None = None
    account: Word | None = None
    walltime_hours: float = Field(default=4.0, gt=0, le=24 * 365)
    jobs: Jobs | ElasticSection = 1
    cores: Cores = 4
    gpus: int = Field(default=0, ge=0, le=16)
    gpu_type: Word | None = None
    directives: tuple[Directive, ...] = ()
    environment: tuple[Line, ...] = ()
    python: Line | None = None
    log_folder: Line | None = None

    @model_validator(mode="after")
    def _fits(self) -> Self:
        if self.gpu_type and not self.gpus:
            raise ValueError(f"gpu_type {self.gpu_type} needs gpus: 1 or more")
        if self.cores < self.gpus:
            raise ValueError(f"{self.gpus} gpus need as many cores, not {self.cores}")
        return self


class KubernetesSection(Section):
    """Workers as pods, a process each, kept by Dask's operator.

    Parameters
    ----------
    image
        Holds this version of tomoseg.
    protocol
        ``tcp``: the operator speaks no TLS; let a network policy or a mesh guard the namespace.
    service
        How this process reaches the scheduler: ``ClusterIP`` from within, or forwarded;
        ``NodePort`` and ``LoadBalancer`` open it to others.
    pods
        How many, or ``{minimum, maximum}`` after the work there is.
    cores
        Of one pod; without a number ``compute.threads``, and four with a GPU.
    gpus
        Of one pod.
    environment
        Names and values of variables.
    secrets
        Names of Kubernetes secrets whose entries become variables, for object storage.
    claims
        Persistent volume claim → the folder at which pods see it.
    node_selector, tolerations
        As in a pod's specification.
    """

    image: Word
    protocol: Literal["tcp"]
    namespace: Annotated[str, Field(pattern=r"^[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?$")] | None = None
    service: Literal["ClusterIP", "NodePort", "LoadBalancer"] = "ClusterIP"
    service_account: Word | None = None
    pods: Jobs | ElasticSection = 1
    cores: Cores | None = None
    gpus: Literal[0, 1] = 0
    environment: dict[Word, str] = Field(default_factory=dict)
    secrets: tuple[Word, ...] = ()
    claims: dict[Word, Annotated[str, Field(pattern="^/")]] = Field(default_factory=dict)
    node_selector: dict[str, str] = Field(default_factory=dict)
    tolerations: tuple[dict[str, str], ...] = ()

    @model_validator(mode="after")
    def _no_secrets(self) -> Self:
        for name in self.environment:
            if SECRET.search(f"{name}="):
                raise ValueError(f"environment.{name} is a secret: name a Kubernetes secret")
        return self


class ComputeSection(Section):
    """Where blocks run.

    Parameters
    ----------
    runner
        ``serial``, in this process; ``dask``, on workers of a cluster or at ``address``; ``auto``,
        on workers of this machine where there are cores and blocks enough for it to pay.
    cluster
        ``local``, processes of this machine; ``cuda``, one process for each of its GPUs; both on
        the loopback interface. ``slurm`` and ``kubernetes``, as their sections say.
    address
        Of a Dask scheduler that runs already, instead of a cluster. Best started with
        ``DASK_DISTRIBUTED__SCHEDULER__ALLOWED_FAILURES=0``, as those that are started here: a block
        that kills its workers is then named after three, else after five.
    workers
        Processes of this machine; without a number as many as there are cores, or GPUs.
    memory_gib
        For each block in work: a worker has one, on a GPU three (read, computed, written). Without
        workers this process has two, one read or written while the other is computed.
    threads
        torch threads in a process; one a worker is best on a CPU.
    device
        ``auto``, ``cpu`` or ``cuda``.
    stall_minutes
        A stage in which no block ends for so long has failed; waiting for jobs counts.
    slurm, kubernetes
        Settings of these clusters.
    tls
        Files for ``slurm`` and for ``tls://`` addresses; for these Dask's own settings may name
        them instead (``DASK_DISTRIBUTED__COMM__TLS__CLIENT__CERT`` and its kin).
    """

    runner: Literal["auto", "serial", "dask"] = "auto"
    cluster: Literal["local", "cuda", "slurm", "kubernetes"] = "local"
    address: (
        Annotated[str, Field(pattern=r"^(tcp|tls|ws|wss|ucxx?|inproc)://|^[^:/]+:\d+$")] | None
    ) = None
    workers: Cores | None = None
    memory_gib: float = Field(default=4.0, gt=0.25, le=4096)
    threads: Cores = 1
    device: Literal["auto", "cpu", "cuda"] = "auto"
    stall_minutes: Minutes = 60.0
    slurm: SlurmSection | None = None
    kubernetes: KubernetesSection | None = None
    tls: TlsSection | None = None

    @model_validator(mode="after")
    def _agrees(self) -> Self:
        for wrong in self._contradictions():
            raise ValueError(wrong)
        return self

    def _contradictions(self) -> list[str]:
        elsewhere = self.cluster in ("slurm", "kubernetes")
        given = {"slurm": self.slurm, "kubernetes": self.kubernetes}
        found = {
            "address and cluster exclude each other: leave one out": self.address
            and self.cluster != "local",
            "runner: serial has no workers: leave out address and cluster": self.runner == "serial"
            and (self.address or self.cluster != "local"),
            f"workers are processes of this machine: set jobs or pods of {self.cluster}": elsewhere
            and self.workers,
            f"cluster: {self.cluster} has GPUs, device: cpu forbids them": self.device == "cpu"
            and self.has_gpus,
            f"device: cuda needs GPUs: set gpus of {self.cluster}": self.device == "cuda"
            and elsewhere
            and not self.has_gpus,
            "tls is for cluster: slurm with protocol: tls and for addresses of tls://": (
                self._is_encrypted != bool(self.tls)
                # Dask's own settings may name the files for an address.
                and not (self._is_encrypted and self.address)
            ),
            f"threads: {self.threads} are more than the cores of a job": self.slurm
            and not self.slurm.gpus
            and self.threads > self.slurm.cores,
            f"threads: {self.threads} are more than the cores of a pod": self.kubernetes
            and self.threads > (self.kubernetes.cores or self.threads),
        } | {
            f"cluster: {name} and the section {name} need each other": (self.cluster == name)
            != (section is not None)
            for name, section in given.items()
        }
        return [message for message, is_wrong in found.items() if is_wrong]

    @property
    def _is_encrypted(self) -> bool:
        if self.slurm is not None:
            return self.slurm.protocol == "tls"
        return bool(self.address and self.address.startswith(("tls://", "wss://")))

    @property
    def has_gpus(self) -> bool:
        """Whether each worker of the cluster has a GPU of its own."""
        section = self.slurm or self.kubernetes
        return self.cluster == "cuda" or bool(section and section.gpus)

    @property
    def worker_device(self) -> str:
        """Device of the networks: where GPUs were asked for, to compute without is an error."""
        return "cuda" if self.has_gpus else self.device

    @property
    def worker_threads(self) -> int:
        """Blocks in work in one worker process."""
        return GPU_THREADS if self.has_gpus else 1

    @property
    def worker_gib(self) -> float:
        """Memory of one worker process."""
        return self.memory_gib * self.worker_threads

    @property
    def job_processes(self) -> int:
        """Worker processes in one SLURM job; elsewhere one."""
        if self.slurm is None:
            return 1
        return self.slurm.gpus or self.slurm.cores // self.threads

    @property
    def blocks_ahead(self) -> int:
        """Blocks in flight that all jobs or pods need, even those that still wait in a queue."""
        if self.slurm is not None:
            workers = most(self.slurm.jobs) * self.job_processes
        elif self.kubernetes is not None:
            workers = most(self.kubernetes.pods)
        else:
            return 0
        return workers * (self.worker_threads + 1)


def without_scheduler(compute: Mapping[str, Any]) -> dict[str, Any]:
    """Return a compute section without a scheduler that runs already, and what goes with it.

    >>> without_scheduler({"runner": "dask", "address": "tls://10.0.0.1:8786", "threads": 2})
    {'threads': 2}
    """
    return {key: value for key, value in compute.items() if key not in ("runner", "address", "tls")}


def most(number: int | ElasticSection) -> int:
    """Return the greatest number of jobs or pods that there may be.

    >>> most(3), most(ElasticSection(minimum=0, maximum=16))
    (3, 16)
    """
    return number if isinstance(number, int) else number.maximum
