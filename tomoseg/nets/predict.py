"""Prediction of one block, in numpy terms: a normalised box in, labels or scores of its core out.

Law 1, a block's result does not depend on the blocks, rests on three things here:

    read box   |0 . . . . . . 8 . . . . . .16 . . . .21|0 0 0|     stride 8, border at 21
    slabs      |      0       |      1      |      2         |     always at multiples of it
                                                       └ zeros beyond the true border alone

The slabs (or cells) of every block lie on the same grid, because reads begin at multiples of the
stride; zeros stand only where the tomogram ends; and every pass has the same batch size, because
another one may change the last bits. A slice too large for one pass, such as a micrograph, is
predicted window by window, each with the exact halo.
"""

from __future__ import annotations

import copy
import threading
from collections.abc import Callable, Iterator, Sequence
from itertools import combinations
from math import ceil, isqrt
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from tomoseg.analysis.intensity import Normaliser
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.core.sampling import Shape, as_shape
from tomoseg.nets.architecture import SegmentationNetwork, fold_norms, set_channels_last
from tomoseg.nets.card import ModelCard
from tomoseg.nets.checkpoint import load_network
from tomoseg.nets.device import choose_device, choose_dtype, device_of, keep_freed_memory
from tomoseg.nets.engines import check_engine, with_engine
from tomoseg.nets.options import PredictionOptions

Network = Callable[[Tensor], Tensor]

# Numbers that the widest layer of one slab may hold in a pass: 512 MiB in float32, of which a
# handful are alive at once. Slices of some 1500² to 2000² voxels then pass whole.
PASS_NUMBERS = 1 << 27

MIRRORED_AXES = {4: (-2, -1), 8: (-3, -2, -1)}

USUAL = PredictionOptions()

_CACHE: dict[tuple[Path, str, PredictionOptions], Predictor] = {}
_CACHE_LOCK = threading.Lock()


class Predictor:
    """A network on its device, ready to predict blocks from several threads.

    Parameters
    ----------
    network
        Trained network; it is copied, its batch norms are folded and its weights cast.
    card
        The model's card.
    options
        How it is computed.

    Attributes
    ----------
    batch
        Slabs in one pass: 1 on a CPU, 8 on a GPU. A volume network takes one block a pass.
    events
        What had to be changed on the way, such as a halved batch, for the manifest.
    said
        In which numbers and on what it computes, for receipts.

    Raises
    ------
    RequestError
        If there is no such device or it cannot compute in the precision.
    ResourceError
        If what the engine needs is not there.
    """

    def __init__(
        self,
        network: SegmentationNetwork,
        card: ModelCard,
        options: PredictionOptions = USUAL,
    ) -> None:
        self.card = card
        self.device, self.dtype = resolve_device(options)
        self._on = device_of(self.device)
        self.batch = self._on.batch
        self.events: list[str] = []
        if self.device.type == "cpu":
            torch.set_num_threads(options.threads)
            keep_freed_memory()
        dtype = torch.float32 if options.engine == "int8" else self.dtype
        prepared = _prepared(network, self.device, dtype)
        self._network = with_engine(prepared, options, card, self.dtype)
        self.said = describe_numbers(self.device, self.dtype, options.engine)
        if options.tta > 1:
            self._network = MirrorAveraged(self._network, MIRRORED_AXES[options.tta])

    @classmethod
    def open(cls, folder: Path, options: PredictionOptions = USUAL) -> Predictor:
        """Load a model's folder; raise ModelError if it is not sound."""
        return cls(*load_network(folder), options)

    def predict_labels(self, volume: NDArray[np.float32], core: Box) -> NDArray[np.uint8]:
        """Return the class with the highest score at every voxel of the core.

        Parameters
        ----------
        volume
            float32, zyx, normalised as the card says: the read box, clipped at the tomogram's
            border, beginning at a multiple of ``card.stride``.
        core
            Region to predict, in the frame of ``volume``.

        Returns
        -------
        NDArray
            uint8, ``core.shape``; 0 is background, class i of the card is i + 1.

        Raises
        ------
        RequestError
            If the core does not lie in the volume.
        ModelError
            If the volume holds values that are not finite.
        ResourceError
            If the device's memory does not hold even one pass.
        """
        return self.predict_maps(volume, core, ()).reshape(core.shape)

    def predict_maps(
        self,
        volume: NDArray[Any],
        core: Box,
        channels: Sequence[int],
        normaliser: Normaliser | None = None,
    ) -> NDArray[np.uint8]:
        """Return labels, and scores of some channels in bytes: all that a device need give out.

        With a ``normaliser`` the volume is as it is stored, as :meth:`Device.block` says.

        Returns
        -------
        NDArray
            uint8, (1 + channels, *core.shape): labels as of :meth:`predict_labels`, then scores of
            these channels of :meth:`predict_scores`, 255 standing for 1.
        """
        out = np.empty((1 + len(channels), *core.shape), dtype=np.uint8)
        return self._predict(
            volume, core, out, lambda image: self._network.maps(image, channels), normaliser
        )

    def predict_scores(
        self, volume: NDArray[Any], core: Box, normaliser: Normaliser | None = None
    ) -> NDArray[np.float32]:
        """Return softmax scores 0..1, float32, shape (1 + classes, *core.shape).

        Channel 0 is the background. Parameters and errors as in :meth:`predict_labels` and
        :meth:`predict_maps`.
        """
        out = np.empty((1 + len(self.card.classes), *core.shape), dtype=np.float32)
        return self._predict(
            volume, core, out, lambda image: self._network(image).float().softmax(dim=1), normaliser
        )

    def _predict(
        self,
        volume: NDArray[Any],
        core: Box,
        out: NDArray[Any],
        network: Network,
        normaliser: Normaliser | None,
    ) -> NDArray[Any]:
        """Return (channels, *core.shape), like ``out``, of what a function of passes gives."""
        _check_request(volume, core)
        is_volume = self.card.architecture.dimensions == 3
        passes = self._volume_pass if is_volume else self._slab_passes
        with self._on.block(volume, normaliser) as image:
            results = self._on.empty(out)
            for window in pass_windows(as_shape(volume.shape), self.card):
                part = window.write.intersect(core)
                if part.size:
                    inside = part.within(window.read)
                    for box, values in passes(image[window.read.slices], inside, network):
                        there = box.shift(window.read.begin).within(core)
                        results[(slice(None), *there.slices)] = values
            fetched = self._on.fetched(results)
        return fetched()

    def _slab_passes(
        self, image: Tensor, core: Box, network: Network
    ) -> Iterator[tuple[Box, Tensor]]:
        depth = self.card.architecture.slices_out
        (first, top, left), (last, bottom, right) = core.begin, core.end
        starts = list(range(first // depth * depth, last, depth))
        while starts:
            group = starts[: self.batch]
            try:
                found = network(self._slabs(image, group))
            except torch.OutOfMemoryError as error:
                self._halve_batch(error)
                continue
            for start, slab in zip(group, found, strict=False):
                low, high = max(start, first), min(start + depth, last)
                box = Box((low, top, left), (high, bottom, right))
                yield box, slab[:, low - start : high - start, top:bottom, left:right]
            starts = starts[len(group) :]

    def _slabs(self, image: Tensor, starts: list[int]) -> Tensor:
        """Gather slabs (batch, slices_in, y, x), zeros beyond the border and in a short batch."""
        architecture = self.card.architecture
        slices, height, width = image.shape
        rows, columns = (
            _round_up(size, step)
            for size, step in zip((height, width), architecture.stride[1:], strict=True)
        )
        shape = (self.batch, architecture.slices_in, rows, columns)
        slabs = torch.zeros(shape, dtype=self.dtype, device=self.device)
        for slab, start in zip(slabs, starts, strict=False):
            begin = start - architecture.margin
            low, high = max(begin, 0), min(begin + architecture.slices_in, slices)
            slab[low - begin : high - begin, :height, :width] = image[low:high]
        return slabs

    def _volume_pass(
        self, image: Tensor, core: Box, network: Network
    ) -> Iterator[tuple[Box, Tensor]]:
        stride = self.card.architecture.stride
        margins = [-size % step for size, step in zip(image.shape, stride, strict=True)]
        after = [part for margin in reversed(margins) for part in (0, margin)]
        padded = functional.pad(image.to(self.dtype), after)
        try:
            found = network(padded[None, None])
        except torch.OutOfMemoryError as error:
            raise _out_of_memory(self.device, tuple(image.shape)) from error
        yield core, found[(0, slice(None), *core.slices)]

    def _halve_batch(self, error: torch.OutOfMemoryError) -> None:
        if self.batch == 1:
            raise _out_of_memory(self.device, self.card.architecture.stride) from error
        self.batch //= 2
        self.events.append(f"device out of memory: batch halved to {self.batch}")
        torch.cuda.empty_cache()


class MirrorAveraged(SegmentationNetwork):
    """The mean of a network's logits over mirror images of its input.

    What is mirrored is a whole pass, which begins and ends at multiples of the stride: the cells
    of every image lie on one grid, and a block's result still does not depend on the blocks.

    Parameters
    ----------
    network
        Takes and gives tensors whose last three axes are z, y, x.
    axes
        Subsets of these that may be mirrored, as negative numbers.
    """

    def __init__(self, network: SegmentationNetwork, axes: tuple[int, ...]) -> None:
        super().__init__(network.architecture)
        self.network = network
        self.axes = axes

    def forward(self, image: Tensor) -> Tensor:
        """Return float32 logits, shaped as the network's."""
        subsets = [axes for n in range(len(self.axes) + 1) for axes in combinations(self.axes, n)]
        images = (self.network(image.flip(axes)).flip(axes).float() for axes in subsets)
        return cast(Tensor, sum(images)) / len(subsets)


def pass_windows(shape: Shape, card: ModelCard) -> BlockGrid:
    """Return the windows of a volume, voxels zyx, that are predicted one after the other.

    A 2D network takes whole slices or, where ``PASS_NUMBERS`` do not suffice, about equal parts
    of them. A volume network takes all at once: the recipe bounds its blocks along every axis.
    """
    architecture = card.architecture
    if architecture.dimensions == 3:
        return BlockGrid(shape, shape)
    slices, height, width = shape
    cell = 1 if architecture.kind == "tile" else architecture.fold**2
    features = architecture.widths[0] / cell
    logits = architecture.slices_out * (1 + len(card.classes))
    area = int(PASS_NUMBERS / max(features, logits, architecture.slices_in))
    if height * width <= area:
        return BlockGrid(shape, shape)
    rows, columns = (
        _round_up(ceil(size / ceil(size / isqrt(area))), step)
        for size, step in zip((height, width), architecture.stride[1:], strict=True)
    )
    # All slices are in every window: the margins of a slab come from its neighbours.
    stride = (1, *architecture.stride[1:])
    return BlockGrid(shape, (slices, rows, columns), architecture.receptive_halo, stride)


def resolve_device(options: PredictionOptions) -> tuple[torch.device, torch.dtype]:
    """Return the device and the precision that these options mean on this machine.

    Raises
    ------
    RequestError
        If there is no such device or it cannot compute in the precision.
    ResourceError
        If what the engine needs is not there.
    """
    check_engine(options.engine)
    is_bytes = (options.device, options.engine) == ("auto", "int8")
    device = choose_device("cpu" if is_bytes else options.device)
    return device, choose_dtype(device, options.precision)


def describe_numbers(device: torch.device, dtype: torch.dtype, engine: str) -> str:
    """Say in which numbers, on what and by which engine networks are computed.

    >>> describe_numbers(torch.device("cpu"), torch.bfloat16, "int8").split(" on ")[0]
    'int8 and bfloat16'
    """
    numbers = str(dtype).removeprefix("torch.")
    numbers = f"int8 and {numbers}" if engine == "int8" else numbers
    if device.type == "cuda":
        return f"{numbers} on {torch.cuda.get_device_name(device)}"
    return f"{numbers} on {device.type} {torch.backends.cpu.get_cpu_capability()}"


def cached_predictor(
    folder: Path, digest: str, options: PredictionOptions, check: Callable[[ModelCard], None]
) -> Predictor:
    """Return this process's predictor for a model, loaded once and shared by its threads.

    Parameters
    ----------
    digest
        Of the model that is meant, whatever may lie in the folder by now.
    check
        Told of the card that is loaded; raises if that is another model, which is not kept.
    """
    key = folder, digest, options
    with _CACHE_LOCK:
        if key not in _CACHE:
            found = Predictor.open(folder, options)
            check(found.card)
            _CACHE[key] = found
        return _CACHE[key]


def _prepared(
    network: SegmentationNetwork, device: torch.device, dtype: torch.dtype
) -> SegmentationNetwork:
    network = copy.deepcopy(network).requires_grad_(False).eval()
    fold_norms(network)
    network = network.to(device=device, dtype=dtype)
    set_channels_last(network)
    return network


def _check_request(volume: NDArray[Any], core: Box) -> None:
    if volume.ndim != 3 or core.size == 0 or not Box.whole(volume.shape).contains(core):
        raise RequestError(f"core {core.begin}..{core.end} is not in a volume of {volume.shape}")


def _out_of_memory(device: torch.device, shape: tuple[int, ...]) -> ResourceError:
    return ResourceError(
        f"{device} has not enough memory for one pass over {shape} voxels",
        remedy="Choose smaller blocks.",
    )


def _round_up(size: int, step: int) -> int:
    return -(-size // step) * step
