"""Several processes that train one network, each on its own GPU (or share of the cores).

    torchrun --nproc-per-node 4 -m tomoseg.cli train RECIPE

Every process draws its own batches and computes their gradients, which are averaged at every step;
the first alone validates, writes and reports.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta

import torch
from torch import Tensor, distributed, nn
from torch.nn.parallel import DistributedDataParallel

# The others wait while the first validates a large volume.
_PATIENCE = timedelta(hours=2)


@dataclass(frozen=True)
class World:
    """All processes of a training, and which of them this is."""

    rank: int = 0
    size: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process validates, writes and reports."""
        return self.rank == 0

    def device(self, name: str) -> str:
        """Return the device of this process: with several, its own GPU of those of the machine."""
        if self.size > 1 and name in ("auto", "cuda") and torch.cuda.is_available():
            return f"cuda:{os.environ.get('LOCAL_RANK', self.rank)}"
        return name

    def wrapped(self, network: nn.Module) -> nn.Module:
        """Return the network such that gradients are averaged over the processes."""
        if self.size == 1:
            return network
        return DistributedDataParallel(network)

    def agreed(self, value: float, device: torch.device) -> float:
        """Return the value of the first process in all of them."""
        if self.size == 1:
            return value
        shared: Tensor = torch.tensor([value], dtype=torch.float64, device=device)
        distributed.broadcast(shared, src=0)
        return float(shared)


@contextmanager
def joined() -> Iterator[World]:
    """Join the processes that torchrun started; alone without it."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield World()
        return
    backend = "cpu:gloo,cuda:nccl" if torch.cuda.is_available() else "gloo"
    distributed.init_process_group(backend, timeout=_PATIENCE)
    try:
        yield World(distributed.get_rank(), distributed.get_world_size())
    finally:
        distributed.destroy_process_group()
