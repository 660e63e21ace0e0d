"""The networks of a recipe: what they look for, how each fits a tomogram and sees a box of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tomoseg.analysis import intensity
from tomoseg.analysis.compete import Calibration, Competitor
from tomoseg.analysis.particles import PickingSettings
from tomoseg.analysis.rescale import Rescaling
from tomoseg.analysis.view import LARGEST_RESCALING, NetworkView, can_be_rescaled, fits_unscaled
from tomoseg.core.blocks import Box
from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import ModelError, RequestError, ResourceError, UnfitWorkerError
from tomoseg.core.sampling import Sampling, Shape, as_shape
from tomoseg.io.stores import local_path
from tomoseg.nets.card import SHIPPED_MODELS, ModelCard, check_weights, load_card, model_folder
from tomoseg.nets.options import PredictionOptions
from tomoseg.pipeline.stages.terms import check_model, model_digest
from tomoseg.recipe.recipe import NetworkChoice, Recipe, SegmentSection

if TYPE_CHECKING:
    from tomoseg.nets.predict import Predictor


@dataclass(frozen=True)
class AppliedNetwork:
    """A network as a recipe applies it.

    Parameters
    ----------
    folder, card
        The model.
    classes
        Those of its classes that it is applied for, in the order of the card.
    weight
        How much its scores count beside those of others.
    """

    folder: Path
    card: ModelCard
    classes: tuple[str, ...]
    weight: float = 1.0

    @cached_property
    def digest(self) -> str:
        """What tells the model from others: :func:`model_digest` of its card."""
        return model_digest(self.card)

    @property
    def facts(self) -> dict[str, Any]:
        """What a manifest says of it."""
        card = self.card
        return {
            "name": card.name,
            "version": card.version,
            "weights_sha256": card.weights_sha256,
            "voxel_size_angstrom": card.voxel_size_angstrom,
            "classes": list(self.classes),
            "weight": self.weight,
            "calibration": {
                name: list(card.calibration[name])
                for name in self.classes
                if name in card.calibration
            },
        }

    @property
    def competitor(self) -> Competitor:
        """How it competes with others."""
        calibration = tuple(
            Calibration(*self.card.calibration.get(name, ())) for name in self.classes
        )
        return Competitor(self.classes, calibration, self.weight)


def load_networks(segment: SegmentSection) -> tuple[AppliedNetwork, ...]:
    """Read the cards of a recipe's networks and check their weights.

    Raises
    ------
    ModelError
        If a model is missing, not sound, or has not a class that it is applied for.
    RequestError
        If the networks have more classes together than labels can tell apart.
    """
    networks = tuple(_loaded(choice) for choice in segment.choices)
    classes = len(colours_of(networks))
    if classes >= NOT_ANNOTATED:
        raise RequestError(
            f"the networks have {classes} classes together; labels tell {NOT_ANNOTATED - 1} apart",
            remedy="Choose among them with segment.networks: [{model: ..., classes: [...]}]",
        )
    return networks


def _loaded(choice: NetworkChoice) -> AppliedNetwork:
    place = choice.model
    folder = model_folder(place) if place in SHIPPED_MODELS else local_path(place)
    card = load_card(folder)
    check_weights(folder, card)
    labels = sorted({card.label(name) for name in choice.classes or card.classes})
    classes = tuple(card.classes[label - 1] for label in labels)
    return AppliedNetwork(folder, card, classes, choice.weight)


def colours_of(networks: Sequence[AppliedNetwork]) -> dict[str, str]:
    """Return class → ``"#rrggbb"`` of all networks, in the order of the labels 1, 2, ….

    Classes are ordered by first appearance, and the first network that has one gives its colour.
    """
    colours: dict[str, str] = {}
    for network in networks:
        card = network.card
        for name in network.classes:
            colours.setdefault(name, card.colours[card.label(name) - 1])
    return colours


def learned_from_points(networks: Sequence[AppliedNetwork]) -> dict[str, PickingSettings]:
    """Return how the classes are picked that networks learned from points; the first one decides.

    Their labels are what was painted, which is smaller than the particle.
    """
    settings: dict[str, PickingSettings] = {}
    for network in networks:
        for name in network.classes:
            if radii := network.card.particles.get(name):
                settings.setdefault(name, PickingSettings("peaks", *radii))
    return settings


def network_sampling(sampling: Sampling, card: ModelCard, *, rescale: str) -> Sampling:
    """Return the grid on which a network works: the tomogram's own, or one at its voxel size.

    Raises
    ------
    ModelError
        If the voxel sizes differ and rescaling is off, or they differ too much for it.
    """
    voxel = sampling.voxel_angstrom
    wanted = card.voxel_size_angstrom
    if fits_unscaled(sampling, wanted, tolerance=card.voxel_size_tolerance):
        return sampling
    fact = f"voxel size {voxel:.4g} Å, but model {card.name} was trained at {wanted:.4g} Å"
    if rescale == "never":
        raise ModelError(fact, remedy="Set segment.rescale: auto, or choose another model.")
    ratio = wanted / voxel
    if not can_be_rescaled(sampling, wanted):
        remedy = (
            f"Set ingest.bin: {round(ratio)}."
            if ratio > 1
            else "Use a finer reconstruction, a smaller ingest.bin, or a model made for this size."
        )
        finest, coarsest = accepted_angstrom(card)
        raise ModelError(
            f"{fact}: more than {LARGEST_RESCALING} times apart is not rescaled, so that it takes "
            f"{finest:.3g} to {coarsest:.3g} Å",
            remedy=remedy,
        )
    return sampling.resampled(wanted)


def accepted_angstrom(card: ModelCard) -> tuple[float, float]:
    """Return the finest and the coarsest voxel size that a network is rescaled to, Å."""
    return (
        card.voxel_size_angstrom / LARGEST_RESCALING,
        card.voxel_size_angstrom * LARGEST_RESCALING,
    )


def check_fit(recipe: Recipe, card: ModelCard, source: Sampling) -> Sampling:
    """Return the network's grid for a tomogram, or say before any work why there is none.

    Raises
    ------
    ModelError
        If voxel size or contrast do not fit and the recipe does not allow to adapt them.
    """
    contrast_sign(recipe, card)
    stored = source.binned(recipe.ingest.bin)
    return network_sampling(stored, card, rescale=recipe.segment.rescale)


def contrast_sign(recipe: Recipe, card: ModelCard) -> float:
    """Return 1, or −1 where the tomogram must be inverted; raise ModelError if it may not be."""
    return intensity.contrast_sign(
        recipe.source.contrast, card.contrast, on_mismatch=recipe.segment.contrast_mismatch
    )


def halo_of(card: ModelCard, halo: Literal["default", "exact"] | int) -> Shape:
    """Return the voxels, zyx, that a network reads around a core."""
    if halo == "default":
        return card.halo
    if halo == "exact":
        return card.architecture.receptive_halo
    return card.architecture.halo(halo)


def halo_words(card: ModelCard, halo: Shape) -> str:
    """Say a halo, and what its card says that it costs."""
    share = card.disagreement(halo)
    if share is None:
        cost = "what blocks change was not measured"
    else:
        cost = (
            f"blocks change {share:.2g} of the labels, as measured"
            if share
            else "blocks change nothing"
        )
    return f"halo {'×'.join(map(str, halo))} voxels (zyx): {cost}"


@dataclass(frozen=True, eq=False)
class ReadBox:
    """Voxels of the stored tomogram, zyx, in its own dtype, and the box that they fill."""

    box: Box
    voxels: NDArray[Any]

    def part(self, box: Box) -> NDArray[Any]:
        """Return a view of the voxels of a box within this one."""
        return self.voxels[box.within(self.box).slices]


@dataclass(frozen=True)
class FittedNetwork:
    """All that a worker needs to see boxes of one tomogram with one network; pickles small.

    Networks differ in voxel size, halo, stride and intensity, but all see parts of the same
    voxels: a block is read once, as far as any of them :meth:`needs <needed>`.

    ``view`` is of the tomogram as it is stored.
    """

    applied: AppliedNetwork
    view: NetworkView
    halo: Shape
    options: PredictionOptions

    @property
    def halo_voxels(self) -> Shape:
        """Its halo in voxels of the tomogram, zyx, rounded up."""
        halo = np.multiply(self.halo, self.view.grid.voxel_size_angstrom)
        return as_shape(np.ceil(halo / self.view.stored.voxel_size_angstrom - 1e-6))

    def needed(self, box: Box) -> Box:
        """Return the voxels of the stored tomogram that a box of results depends on."""
        return self.view.needed(self._around(self._core(box)))

    def maps(self, box: Box, image: ReadBox, channels: Sequence[int]) -> NDArray[np.uint8]:
        """Return the network's own labels and, in bytes, scores of some of its channels.

        uint8, (1 + channels, z, y, x), as :meth:`Predictor.predict_maps`; only where the network
        is not rescaled. ``image`` holds what is :meth:`needed` at least.
        """
        read = self._around(box)
        volume, normaliser = self._given(read, image)
        return self.predictor().predict_maps(volume, box.within(read), channels, normaliser)

    def scores(self, box: Box, image: ReadBox) -> NDArray[np.float32]:
        """Return scores 0..1 on the tomogram's grid, (1 + its applied classes, z, y, x).

        ``image`` holds what is :meth:`needed` at least.
        """
        core = self._core(box)
        read = self._around(core)
        volume, normaliser = self._given(read, image)
        scores = self.predictor().predict_scores(volume, core.within(read), normaliser)
        card, classes = self.applied.card, self.applied.classes
        if classes != card.classes:
            scores = scores[[0, *(card.label(name) for name in classes)]]
        return self._back.apply(scores, core, box) if self.view.is_rescaled else scores

    def predictor(self) -> Predictor:
        """Return this process's network; torch is imported here, where a block is computed.

        Raises
        ------
        UnfitWorkerError
            If this process has another model, or cannot compute as the run does.
        """
        from tomoseg.nets.predict import cached_predictor

        folder, digest = self.applied.folder, self.applied.digest
        check = partial(check_model, folder, digest)
        try:
            return cached_predictor(folder, digest, self.options, check)
        except UnfitWorkerError:
            raise
        except (RequestError, ModelError, ResourceError) as error:
            raise UnfitWorkerError(error.message, remedy=error.remedy) from error

    def _core(self, box: Box) -> Box:
        """Return the box of the network's grid that a box of the tomogram's is made from."""
        return self._back.needed(box) if self.view.is_rescaled else box

    @property
    def _back(self) -> Rescaling:
        return Rescaling(self.view.grid, self.view.stored)

    def _around(self, core: Box) -> Box:
        """Return the box of the network's grid to read for a core."""
        # The halo counts from the cells that the core lies in, and a core may begin amid one.
        stride = self.applied.card.stride
        return core.aligned(stride).grow(self.halo).aligned(stride).clip(self.view.grid.shape)

    def _given(self, read: Box, image: ReadBox) -> tuple[NDArray[Any], intensity.Normaliser | None]:
        """Return a box as the predictor takes it, and what its device has to do to it."""
        if self.view.normaliser.is_clip_scale and not self.view.is_rescaled:
            return image.part(read), self.view.normaliser
        return self.view.seen(read, image.part), None
