"""The model card: all that a network needs to be applied honestly. No torch in here."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Annotated, Any, Literal, Self

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from tomoseg.core.classes import NOT_ANNOTATED
from tomoseg.core.errors import ModelError, is_away
from tomoseg.core.sampling import Shape, as_shape

# The models that come with the program, by the names that recipes know.
SHIPPED, SHIPPED_ACCURATE = "shipped", "shipped-accurate"
_MODELS = Path(__file__).parents[1] / "models"
SHIPPED_MODELS = {
    SHIPPED: _MODELS / "six-features",
    SHIPPED_ACCURATE: _MODELS / "six-features-accurate",
}

CARD_NAME = "card.json"
WEIGHTS_NAME = "weights.safetensors"
TILE_POOL = 2
_CARD_BYTES = 1 << 20

Width = Annotated[int, Field(ge=1, le=1024)]
Colour = Annotated[str, Field(pattern=r"^#[0-9a-fA-F]{6}$")]
ClassName = Annotated[str, Field(pattern=r"^[A-Za-z][A-Za-z0-9_-]*$")]
Slope = Annotated[float, Field(gt=0)]
Length = Annotated[float, Field(gt=0)]
Share = Annotated[float, Field(ge=0, le=1)]
Halo = Annotated[int, Field(ge=0)]
Step = dict[str, Any]


class Architecture(BaseModel):
    """The numbers that define a network. The bounds keep a hostile card from eating the memory.

    Parameters
    ----------
    kind
        ``"slab"``: a 2D network that takes slices as channels and predicts several at once;
        with one slice in and one out it is the plain 2D U-Net. ``"volume"``: a 3D network.
        ``"tile"``: the few layers of large kernels of EMAN2's TomoSeg.
    slices_in, slices_out
        Slices that a slab network sees and predicts; a tile network predicts 1; 1 and 1 in a
        volume network.
    fold
        Edge of the squares (cubes in 3D) of voxels that the stem folds into channels; 1 is the
        classic U-Net. Not in a tile network.
    widths
        Channels at each level, and every level halves the resolution; in a tile network channels
        of each layer but the last one, which has one for each class.
    blocks_per_level
        Residual blocks at each level, on the way down and again on the way up. Not in a tile
        network.
    kernel
        Edge of a tile network's kernels, voxels, odd; the others have kernels of 3.

    Examples
    --------
    >>> slab = Architecture(slices_in=16, slices_out=8, fold=2, widths=(32, 64, 128, 256))
    >>> slab.stride, slab.receptive_halo
    ((8, 16, 16), (4, 94, 94))
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    kind: Literal["slab", "volume", "tile"] = "slab"
    slices_in: Annotated[int, Field(ge=1, le=128)] = 1
    slices_out: Annotated[int, Field(ge=1, le=128)] = 1
    fold: Literal[1, 2, 4] = 2
    widths: Annotated[tuple[Width, ...], Field(min_length=1, max_length=8)] = (32, 64, 128, 256)
    blocks_per_level: Annotated[int, Field(ge=1, le=8)] = 1
    kernel: Annotated[int, Field(ge=3, le=31)] = 3

    @model_validator(mode="after")
    def _check_slices(self) -> Self:
        if self.kind == "volume" and (self.slices_in, self.slices_out) != (1, 1):
            raise ValueError("a volume network has slices_in = slices_out = 1")
        if self.kind == "tile" and self.slices_out != 1:
            raise ValueError(f"a tile network predicts 1 slice, not slices_out {self.slices_out}")
        if self.slices_in < self.slices_out or (self.slices_in - self.slices_out) % 2:
            raise ValueError(
                f"slices_in {self.slices_in} must exceed slices_out {self.slices_out} by an "
                "even number: the same margin on both sides"
            )
        return self

    @model_validator(mode="after")
    def _check_kind(self) -> Self:
        if self.kernel % 2 == 0:
            raise ValueError(f"kernel {self.kernel} must be odd")
        if self.kind == "tile" and (self.fold, self.blocks_per_level) != (2, 1):
            raise ValueError("a tile network has no fold and no blocks_per_level: leave them out")
        if self.kind != "tile" and self.kernel != 3:
            raise ValueError(f"a {self.kind} network has kernels of 3, not {self.kernel}")
        return self

    @property
    def dimensions(self) -> Literal[2, 3]:
        """Axes along which the network convolves."""
        return 3 if self.kind == "volume" else 2

    @property
    def margin(self) -> int:
        """Slices that a 2D network sees on each side of those it predicts."""
        return (self.slices_in - self.slices_out) // 2

    @property
    def stride(self) -> Shape:
        """Voxels zyx that make one cell of the deepest level: reads begin at multiples of it."""
        cell = TILE_POOL if self.kind == "tile" else self.fold << (len(self.widths) - 1)
        return (self.slices_out if self.dimensions == 2 else cell, cell, cell)

    @property
    def receptive_halo(self) -> Shape:
        """Voxels zyx beyond a stride-aligned core that can change a result in it; exact."""
        if self.kind == "tile":
            return self.halo(self._tile_reach())
        return self.halo(self.fold * self._reach_cells())

    def halo(self, voxels: int) -> Shape:
        """Return a halo zyx of so many voxels along the convolved axes, exact along the others."""
        return (self.margin if self.dimensions == 2 else voxels, voxels, voxels)

    def _tile_reach(self) -> int:
        """Scaling up looks one pooled cell further, and so does each layer by half its kernel."""
        radius = self.kernel // 2
        return TILE_POOL * (1 + len(self.widths) * radius) + radius

    def _reach_cells(self) -> int:
        """Follow one aligned core of folded cells back through the network.

        ``begin..end`` is the interval of cells that is needed, at the level at hand: a residual
        block widens it by 2 (two convolutions of 3), up-sampling halves it, down-sampling
        doubles it, and a skip adds what its level needed on the way up.
        """
        core = 1 << (len(self.widths) - 1)
        blocks = 2 * self.blocks_per_level
        begin, end = 0, core
        skips = []
        for _ in self.widths[1:]:
            begin, end = begin - blocks, end + blocks
            skips.append((begin, end))
            begin, end = begin // 2, -(-end // 2)
        for skip_begin, skip_end in reversed(skips):
            begin, end = 2 * (begin - blocks), 2 * (end + blocks)
            begin, end = min(begin, skip_begin), max(end, skip_end)
        stem = 1
        return max(-begin, end - core) + blocks + stem


# With thousands of floating-point operations for each voxel, six classes counted, halo not.
PRESETS: Mapping[str, Architecture] = MappingProxyType(
    {
        # 18: the shipped network for a CPU.
        "fast": Architecture(slices_in=16, slices_out=8, widths=(48, 96, 160, 256)),
        # 111: sees as far in z as in y and x, which flat membranes need.
        "accurate": Architecture(kind="volume", widths=(48, 96, 160, 256)),
        # 353: the classic 2D U-Net, slice by slice. Folding 2 is 5 times cheaper.
        "unet2d": Architecture(fold=1, widths=(32, 64, 128, 256, 512)),
        # 356: the same with two slices on each side. Folding 2 is 5 times cheaper.
        "multislice": Architecture(slices_in=5, fold=1, widths=(32, 64, 128, 256, 512)),
        # 53: 3D.
        "volume": Architecture(kind="volume", widths=(32, 64, 128, 256)),
        # 275 with one class: EMAN2's TomoSeg, kernels and widths as there, and neighbours against
        # the noise.
        "tile": Architecture(kind="tile", slices_in=5, widths=(40, 40), kernel=15),
    }
)


def _preset(value: object) -> object:
    """Return the architecture of a preset's name, and anything else as it is."""
    if not isinstance(value, str):
        return value
    if value not in PRESETS:
        raise ValueError(f"architecture {value!r} is none of {', '.join(PRESETS)}")
    return PRESETS[value]


# In settings: a preset's name or the numbers. A card always holds the numbers.
ArchitectureChoice = Annotated[Architecture, BeforeValidator(_preset)]


class HaloCost(BaseModel):
    """What blocks that are read with one halo cost, beside the whole volume at once.

    Parameters
    ----------
    halo
        Voxels along the axes of the network, before they are rounded up to its stride; exact
        along the others.
    voxels
        Share of all voxels that are labelled otherwise.
    foreground
        Share of the voxels that have a class in either result.
    time_ratio
        Time of a processor's core over that with the exact halo.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    halo: Halo
    voxels: Share
    foreground: Share
    time_ratio: Annotated[float, Field(gt=0)]


class HaloDisagreement(BaseModel):
    """How far the labels of blocks are from those of the whole volume, by halo.

    Parameters
    ----------
    tomogram
        What was predicted; no part of the training.
    precision
        In which the network computed.
    shape, block_shape
        Region of the tomogram and cores of the blocks, voxels zyx.
    costs
        In ascending halos; the last is exact.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    tomogram: str
    precision: Literal["float32", "bfloat16", "float16"]
    shape: Shape
    block_shape: Shape
    costs: Annotated[tuple[HaloCost, ...], Field(min_length=1)]


class ModelCard(BaseModel):
    """What a network is, what it was trained on, and how it must be applied.

    Parameters
    ----------
    name, version
        Name of the model and its version.
    architecture
        Numbers from which the network is built.
    classes
        Foreground classes; class i has label i + 1, background is 0.
    colours
        ``"#rrggbb"`` for each class.
    voxel_size_angstrom
        Voxel edge of the training data, Å.
    voxel_size_tolerance
        Relative range of voxel sizes in which the model may be applied without rescaling.
    contrast
        Whether protein is ``"dark"`` or ``"bright"`` in what the network expects.
    intensity
        Normalisation steps in order, as ``tomoseg.analysis.intensity`` reads them.
    halo
        Voxels zyx to read beyond a core. At least ``architecture.receptive_halo`` makes a
        block's result exact; what a smaller one costs is in ``halo_disagreement``.
    stride
        Voxels zyx; reads begin at multiples of it. Follows from the architecture.
    training, scores
        Provenance of the weights, and what they reached on data kept apart.
    calibration
        (slope, intercept) of classes: of the voxels with score s, the share sigmoid(slope ·
        logit(s) + intercept) has the class. Measured on data kept apart; (1, 0) where missing.
    halo_disagreement
        What smaller halos cost, by tomogram and precision, as ``tests/benchmarks/halo.py`` measures
        it. ``scores["halo_costs"]`` is a first look at the end of the training, on small blocks.
    particles
        (radius, label radius) in Å of classes learned from points: of the particle, and of the ball
        that a network labels which was shown its core and nothing of its rim.
    doubts
        What speaks against the network, in sentences; empty where nothing does.
    weights_sha256
        Digest of the weights file; empty until the weights are saved.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: Annotated[str, Field(min_length=1)]
    version: str = "1"
    architecture: Architecture
    classes: Annotated[tuple[ClassName, ...], Field(min_length=1, max_length=NOT_ANNOTATED - 1)]
    colours: tuple[Colour, ...]
    voxel_size_angstrom: Annotated[float, Field(gt=0)]
    voxel_size_tolerance: Annotated[float, Field(ge=0, lt=1)] = 0.1
    contrast: Literal["dark", "bright"] = "dark"
    intensity: tuple[Step, ...] = ()
    halo: tuple[Halo, Halo, Halo]
    stride: Shape
    training: dict[str, Any] = {}
    scores: dict[str, Any] = {}
    calibration: dict[ClassName, tuple[Slope, float]] = {}
    halo_disagreement: tuple[HaloDisagreement, ...] = ()
    particles: dict[ClassName, tuple[Length, Length]] = {}
    doubts: tuple[str, ...] = ()
    weights_sha256: Annotated[str, Field(pattern=r"^([0-9a-f]{64})?$")] = ""

    @model_validator(mode="after")
    def _check_agreement(self) -> Self:
        check_classes(self.classes, self.colours)
        if self.stride != self.architecture.stride:
            raise ValueError(
                f"stride {self.stride} is not that of the architecture, {self.architecture.stride}"
            )
        unknown = sorted(self.calibration.keys() - set(self.classes))
        if unknown:
            raise ValueError(f"calibration of {unknown}, which are not among the classes")
        return self

    def disagreement(self, halo: Shape) -> float | None:
        """Return the largest measured share of voxels that blocks with a halo, zyx, change.

        0 if the halo is exact, None if no halo that reads as far was measured.
        """
        if self._read_margin(halo) == self._read_margin(self.architecture.receptive_halo):
            return 0.0
        shares = [
            cost.voxels
            for measured in self.halo_disagreement
            for cost in measured.costs
            if self._read_margin(halo) == self._read_margin(self.architecture.halo(cost.halo))
        ]
        return max(shares, default=None)

    def _read_margin(self, halo: Shape) -> Shape:
        """Return the voxels that are read for a halo: whole cells, and none that has no effect."""
        reach = self.architecture.receptive_halo
        needed = zip(halo, reach, self.stride, strict=True)
        return as_shape(-(-min(have, need) // step) * step for have, need, step in needed)

    def label(self, name: str) -> int:
        """Return the label of a class.

        Raises
        ------
        ModelError
            If the model does not know the class.
        """
        if name not in self.classes:
            raise ModelError(
                f"model {self.name} has no class {name!r}, only {', '.join(self.classes)}"
            )
        return self.classes.index(name) + 1


def check_classes(classes: tuple[str, ...], colours: tuple[str, ...]) -> None:
    """Check that classes differ and that each has a colour; raise ValueError if not."""
    if len(set(classes)) != len(classes):
        raise ValueError(f"classes {classes} are not all different")
    if len(colours) != len(classes):
        raise ValueError(f"{len(classes)} classes need as many colours, not {len(colours)}")


def model_folder(place: str) -> Path:
    """Return the folder of a model that a recipe names."""
    return SHIPPED_MODELS.get(place) or Path(place)


def load_card(folder: Path) -> ModelCard:
    """Read and check a model's card, without torch.

    Raises
    ------
    ModelError
        If there is no card, or it is too large, no JSON, or says something impossible.
    """
    path = folder / CARD_NAME
    try:
        if path.stat().st_size > _CARD_BYTES:
            raise ModelError(f"{path} is larger than {_CARD_BYTES} bytes: not a model card")
        return ModelCard.model_validate_json(path.read_bytes())
    except OSError as error:
        if is_away(error):
            raise
        raise ModelError(
            f"{path} cannot be read: {error.strerror}",
            remedy="Name a folder that holds card.json and weights.safetensors.",
        ) from error
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in first["loc"]) or "the card"
        raise ModelError(
            f"{path} is not a valid model card: {place}: {first['msg']} "
            f"({error.error_count()} problems)"
        ) from error


def check_weights(folder: Path, card: ModelCard) -> None:
    """Check that the weights are there and are those of the card, without torch.

    Raises
    ------
    ModelError
        If they are missing or have another digest.
    """
    path = folder / WEIGHTS_NAME
    try:
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        if is_away(error):
            raise
        raise ModelError(
            f"weights {path} cannot be read: {error.strerror}", remedy="Fetch the model again."
        ) from error
    refuse_other_weights(path, found, card)


def refuse_other_weights(path: Path, sha256: str, card: ModelCard) -> None:
    """Raise ModelError if a digest is not the card's."""
    if sha256 != card.weights_sha256:
        raise ModelError(
            f"weights {path} have SHA-256 {sha256}, the card says "
            f"{card.weights_sha256 or 'nothing'}",
            remedy="Fetch card.json and weights.safetensors again, together.",
        )
