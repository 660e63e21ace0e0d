"""What the bytes of engine ``int8`` stand for: one of 256 values on a line, for each convolution.

The lines are measured once, on simulated tomograms at the voxel size of the model's card and
normalised as it says, never on the tomogram that is segmented: a model always becomes the same
network, and a block's result does not depend on the blocks (law 1). They are rounded, so that
processors that sum in another order find the same, and kept in a folder of the user's.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from pydantic import TypeAdapter, ValidationError
from torch import Tensor, nn
from torch.nn import functional

from tomoseg.core.version import code_version
from tomoseg.nets.architecture import SegmentationNetwork
from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.options import CalibrationVolumes


@dataclass(frozen=True)
class ByteLine:
    """What bytes stand for: ``(byte − zero) · step``."""

    step: float
    zero: int

    @classmethod
    def through(cls, low: float, high: float) -> ByteLine:
        """Return the line that reaches from low ≤ 0 to high ≥ 0, its step rounded up by ≤ 1/64.

        >>> ByteLine.through(0.0, 63.5)
        ByteLine(step=0.25, zero=0)
        """
        mantissa, exponent = math.frexp(max(high - low, 1e-6) / 255)
        step = math.ldexp(math.ceil(128 * mantissa) / 128, exponent)
        return cls(step, round(-low / step))

    def bytes(self, numbers: Tensor) -> Tensor:
        """Return the nearest bytes, uint8; numbers beyond the line become its ends."""
        cells = numbers.float().mul(1 / self.step).add_(self.zero)
        return cells.round_().clamp_(0, 255).to(torch.uint8)

    def numbers(self, cells: Tensor, dtype: torch.dtype = torch.float32) -> Tensor:
        """Return what bytes stand for."""
        return cells.to(dtype).sub_(self.zero).mul_(self.step)


_KEPT = TypeAdapter(dict[str, ByteLine])


def byte_lines(
    network: SegmentationNetwork, card: ModelCard, volumes: CalibrationVolumes, folder: Path
) -> dict[str, ByteLine]:
    """Return the line of the input of each convolution, by its name.

    Parameters
    ----------
    network
        In float32, in evaluation mode, its norms folded.
    card
        Its card. Without the digest of weights that were saved nothing is kept.
    volumes
        Always gives the same for one card.
    folder
        Where lines are kept; if nothing can be kept there, they are measured again.
    """
    path = folder / f"{_digest(card)}.json"
    names = [name for name, _ in _convolutions(network)]
    with contextlib.suppress(OSError, ValidationError):
        lines = _KEPT.validate_json(path.read_bytes())
        if list(lines) == names:
            return lines
    lines = measured_lines(network, volumes(card))
    if card.weights_sha256:
        with contextlib.suppress(OSError):
            _keep(path, lines)
    return lines


def measured_lines(
    network: SegmentationNetwork, volumes: Iterable[NDArray[np.float32]]
) -> dict[str, ByteLine]:
    """Return lines that hold all that the convolutions see of normalised volumes, zyx."""
    ends: dict[str, tuple[float, float]] = {}

    def seen(name: str, cells: Tensor) -> None:
        low, high = ends.get(name, (0.0, 0.0))
        ends[name] = min(low, float(cells.min())), max(high, float(cells.max()))

    hooks = [
        convolution.register_forward_pre_hook(lambda _, given, name=name: seen(name, given[0]))
        for name, convolution in _convolutions(network)
    ]
    with torch.inference_mode():
        for volume in volumes:
            for image in passes(torch.from_numpy(volume), network.architecture):
                network(image)
    for hook in hooks:
        hook.remove()
    return {name: ByteLine.through(*ends[name]) for name, _ in _convolutions(network)}


def passes(volume: Tensor, architecture: Architecture) -> Iterator[Tensor]:
    """Yield images of a volume, zyx, as a network takes them; the slabs of a 2D one lie inside."""
    after = [
        part
        for size, step in zip(volume.shape[::-1], architecture.stride[::-1], strict=True)
        for part in (0, -size % step)
    ]
    if architecture.dimensions == 3:
        yield functional.pad(volume, after)[None, None]
        return
    wide, thick = functional.pad(volume, after[:4]), architecture.slices_in
    for begin in range(0, max(1, len(volume) - thick + 1), thick):
        slab = wide[begin : begin + thick]
        yield functional.pad(slab, [0, 0, 0, 0, 0, thick - len(slab)])[None]


def _convolutions(network: nn.Module) -> list[tuple[str, nn.Module]]:
    kinds = (nn.Conv2d, nn.Conv3d)
    return [(name, one) for name, one in network.named_modules() if isinstance(one, kinds)]


def _digest(card: ModelCard) -> str:
    """Return a digest of all that the lines depend on."""
    said = card.model_dump(
        mode="json",
        include={"architecture", "voxel_size_angstrom", "contrast", "intensity", "weights_sha256"},
    )
    facts = [said, code_version(), torch.__version__]
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()


def _keep(path: Path, lines: Mapping[str, ByteLine]) -> None:
    """Write lines so that no other worker ever sees half of them."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    partial = path.with_name(f"{path.name}.{os.getpid()}")
    partial.write_bytes(_KEPT.dump_json(dict(lines)))
    partial.replace(path)
