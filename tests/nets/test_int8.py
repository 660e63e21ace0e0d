"""Engine int8: whole numbers that are summed exactly, measured on what no tomogram changes."""

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.nets.architecture import build_network, channels_last
from tomoseg.nets.byte_lines import ByteLine, byte_lines, measured_lines
from tomoseg.nets.card import SHIPPED, SHIPPED_ACCURATE, Architecture, ModelCard, model_folder
from tomoseg.nets.checkpoint import load_network, save_model
from tomoseg.nets.engines import with_engine
from tomoseg.nets.int8 import ByteConvolution, check_int8, whole_numbers
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.simulation import PhantomParameters, calibration, simulate, varied
from tomoseg.simulation.calibration import calibration_volumes

INT8 = PredictionOptions(engine="int8", calibration_volumes=calibration_volumes)
SLAB = Architecture(slices_in=6, slices_out=2, fold=2, widths=(4, 8), blocks_per_level=2)
FLAT = Architecture(fold=1, widths=(8,))
TILE = Architecture(kind="tile", widths=(6, 5), kernel=5)
VOLUME = Architecture(kind="volume", fold=2, widths=(4, 8))


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache of this test's own; without the processor's instructions it is skipped."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    try:
        check_int8("")
    except ResourceError as error:
        pytest.skip(str(error))
    return tmp_path / "tomoseg" / "int8"


@pytest.fixture
def small_calibration(monkeypatch):
    """One small simulation instead of three."""
    monkeypatch.setattr(calibration, "SHAPE", (16, 48, 48))
    monkeypatch.setattr(calibration, "SEEDS", (1,))


def make_model(architecture, **said):
    """Return a random network whose norms have seen noise, and its card."""
    torch.manual_seed(1)
    network = build_network(architecture, 3)
    for _ in range(20):
        network(torch.randn(4, architecture.slices_in, *([32] * architecture.dimensions)))
    if architecture.kind == "tile":
        network.head.weight.data *= 2  # answers of about 0 to 1, as those that are trained
        network.head.bias.data += 0.5  # halfway to every class, so that noise decides
    card = ModelCard(
        name="test", architecture=architecture, classes=("a", "b", "c"), colours=("#000000",) * 3,
        voxel_size_angstrom=10.0, halo=architecture.receptive_halo, stride=architecture.stride,
        intensity=({"kind": "z_score"},), **said,
    )  # fmt: skip
    return network, card


def predictor(architecture, engine="int8", **options):
    return Predictor(
        *make_model(architecture),
        PredictionOptions("cpu", engine=engine, calibration_volumes=calibration_volumes, **options),
    )


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


def some_bytes(*shape):
    return channels_last(torch.randint(0, 256, shape, dtype=torch.uint8))


def numbers_of(convolution, cells, line):
    """Return what a convolution of bytes stands for, in float64 and without oneDNN."""
    kernels, steps = whole_numbers(convolution.weight.detach())
    weight = kernels.double() * steps.double().view(-1, *[1] * (kernels.ndim - 1))
    given = (cells.double() - line.zero) * line.step
    operation = functional.conv2d if cells.ndim == 4 else functional.conv3d
    how = {"stride": convolution.stride, "padding": convolution.padding}
    return operation(given, weight, convolution.bias.detach().double(), **how)


@pytest.mark.parametrize(
    "convolution",
    [
        nn.Conv2d(16, 8, 3, padding=1),
        nn.Conv2d(5, 7, 2, stride=2),
        nn.Conv2d(3, 4, 1),
        nn.Conv2d(1, 6, 15, padding=7),
        nn.Conv3d(8, 8, 3, padding=1),
        nn.Conv3d(4, 6, 2, stride=2),
    ],
    ids=str,
)
@pytest.mark.parametrize("zero", [0, 130])
def test_bytes_are_convolved_exactly(convolution, zero):
    """Up to a tie of rounding; beyond the border lies the byte that stands for 0."""
    torch.manual_seed(0)
    line, out = ByteLine(0.02, 77), ByteLine(0.04, zero)
    cells = some_bytes(2, convolution.in_channels, *[10] * (convolution.weight.ndim - 2))
    expected = numbers_of(convolution, cells, line)
    with torch.inference_mode():
        found = ByteConvolution(convolution, line, out)(cells)
        numbers = ByteConvolution(convolution, line, torch.float32)(cells)
    assert (numbers - expected).abs().max() < 1e-4
    exact = expected / out.step + out.zero
    assert ((found - exact.clamp(0, 255)).abs() <= 0.5 + 1e-3).all()
    assert len(found.unique()) > 20


@pytest.mark.parametrize("kind", [nn.Conv2d, nn.Conv3d])
def test_what_stands_beside_a_convolution_is_added_in_full(kind):
    torch.manual_seed(0)
    convolution = kind(8, 8, 3, padding=1)
    line, beside, out = ByteLine(0.02, 0), ByteLine(0.01, 33), ByteLine(0.03, 0)
    cells, other = (some_bytes(1, 8, *[9] * (convolution.weight.ndim - 2)) for _ in range(2))
    exact = numbers_of(convolution, cells, line) + (other.double() - beside.zero) * beside.step
    with torch.inference_mode():
        found = ByteConvolution(convolution, line, out).beside(cells, other, beside)
    assert ((found - (exact.relu() / out.step).clamp(0, 255)).abs() <= 0.5 + 1e-3).all()
    assert len(found.unique()) > 20


def test_kernels_become_whole_numbers_with_a_step_for_each_output():
    weight = torch.tensor([[1.0, -0.5, 0.1], [0.0, 0.0, 0.0], [254.0, 2.0, -3.0]])
    kernels, steps = whole_numbers(weight)
    assert kernels.tolist() == [[127, -64, 13], [0, 0, 0], [127, 1, -2]]
    assert steps[[0, 2]].tolist() == pytest.approx([1 / 127, 2])


def test_a_line_holds_its_ends_and_zero():
    line = ByteLine.through(-3.1, 5.7)
    ends = torch.tensor([-3.1, 0.0, 5.7, 99.0, -99.0])
    found = line.numbers(line.bytes(ends))
    assert (found[:3] - ends[:3]).abs().max() <= line.step
    assert found[1] == 0
    assert line.bytes(ends)[3:].tolist() == [255, 0]
    assert 8.8 / 255 <= line.step < 8.8 / 255 * (1 + 1 / 64)


def test_last_bits_of_what_is_measured_change_no_line():
    """Another processor sums in another order, and shall find the same network."""
    ends = np.random.default_rng(0).uniform(0.1, 9, (200, 2))
    again = [ByteLine.through(-low * (1 + 1e-6), high) for low, high in ends]
    assert (
        sum(
            ByteLine.through(-low, high) != line
            for (low, high), line in zip(ends, again, strict=True)
        )
        <= 1
    )


def test_a_border_that_is_repeated_stays_so():
    """oneDNN's convolutions of bytes have zeros there, and tile networks were not trained so."""
    torch.manual_seed(3)
    repeated = nn.Conv2d(2, 3, 5, padding=2, padding_mode="replicate").requires_grad_(False)
    inside = nn.Conv2d(2, 3, 5).requires_grad_(False)
    inside.load_state_dict(repeated.state_dict())
    image, line = torch.randn(1, 2, 9, 11), ByteLine.through(-3.0, 3.0)
    around = line.bytes(functional.pad(image, (2, 2, 2, 2), mode="replicate"))
    found = ByteConvolution(repeated, line, torch.float32)(image)
    torch.testing.assert_close(found.double(), numbers_of(inside, around, line), rtol=0, atol=1e-5)


@pytest.mark.parametrize("architecture", [SLAB, FLAT, TILE, VOLUME], ids=str)
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_bytes_agree_with_numbers(architecture, precision, small_calibration):
    """Random weights on noise, where scores lie close together; 0.1% in a trained network."""
    shape = (16, 48, 48)
    volume, whole = noise(shape), Box.whole(shape)
    exact = predictor(architecture, "torch", precision="float32")
    found = predictor(architecture, precision=precision)
    difference = exact.predict_scores(volume, whole) - found.predict_scores(volume, whole)
    assert 1e-4 < np.abs(difference).max() < 0.25
    labels = exact.predict_labels(volume, whole)
    assert len(np.unique(labels)) == 4
    assert (labels != found.predict_labels(volume, whole)).mean() < 0.06


@pytest.mark.parametrize(
    ("architecture", "shape", "block", "tta"),
    [
        (SLAB, (5, 71, 85), (4, 24, 24), 1),
        (SLAB, (5, 71, 45), (4, 24, 16), 8),
        (TILE, (2, 45, 31), (1, 16, 16), 1),
        (VOLUME, (25, 41, 30), (16, 16, 12), 1),
    ],
)
def test_blocks_of_bytes_are_the_whole_to_the_bit(
    architecture, shape, block, tta, small_calibration
):
    found = predictor(architecture, precision="float32", tta=tta)
    volume = noise(shape)
    expected = found.predict_labels(volume, Box.whole(shape))
    assert len(np.unique(expected)) == 4
    for part in BlockGrid(shape, block, found.card.halo, found.card.stride):
        labels = found.predict_labels(volume[part.read.slices], part.core)
        assert (labels == expected[part.write.slices]).all()


@pytest.mark.parametrize("model", [SHIPPED, SHIPPED_ACCURATE])
def test_few_labels_of_the_shipped_networks_change(model):
    """On a simulation that nothing was measured on: 0.15 and 0.2%, bfloat16 0.02 and 0.05%."""
    tomogram = simulate(varied(77, PhantomParameters(shape=(32, 128, 128), seed=77))).tomogram
    tomogram = np.clip(tomogram, *np.percentile(tomogram, (0.1, 99.9))).astype(np.float32)
    volume = (tomogram - tomogram.mean()) / tomogram.std()
    exact, found = (
        Predictor.open(
            model_folder(model),
            PredictionOptions(
                "cpu", precision, engine=engine, calibration_volumes=calibration_volumes
            ),
        )
        for engine, precision in (("torch", "float32"), ("int8", "auto"))
    )
    whole = Box.whole(volume.shape)
    labels = exact.predict_labels(volume, whole)
    assert len(np.unique(labels)) > 4
    assert 0 < (labels != found.predict_labels(volume, whole)).mean() < 3e-3


def test_lines_are_measured_once_and_kept(cache, tmp_path, small_calibration, monkeypatch):
    network, card = load_network(saved(tmp_path))
    first = byte_lines(network.eval(), card, calibration_volumes, cache)
    (kept,) = cache.iterdir()
    assert {name: ByteLine(**line) for name, line in json.loads(kept.read_text()).items()} == first
    assert list(first) == [n for n, m in network.named_modules() if isinstance(m, nn.Conv2d)]
    with monkeypatch.context() as patch:
        patch.setattr(calibration, "simulate", None)
        assert byte_lines(network, card, calibration_volumes, cache) == first
    for damaged in ("", "{}", "[]", '{"stem.conv": {"step": 1}}', '{"stem.conv": 3}'):
        kept.write_text(damaged)
        assert byte_lines(network, card, calibration_volumes, cache) == first
    changed = card.model_copy(update={"voxel_size_angstrom": 13.0})
    assert byte_lines(network, changed, calibration_volumes, cache) != first
    assert len(list(cache.iterdir())) == 2


def test_where_nothing_can_be_kept_the_lines_are_the_same(tmp_path, small_calibration, cache):
    network, card = load_network(saved(tmp_path))
    network.eval()
    (tmp_path / "file").touch()
    assert byte_lines(
        network, card, calibration_volumes, tmp_path / "file" / "below"
    ) == byte_lines(network, card, calibration_volumes, cache)


def saved(folder):
    save_model(folder, *make_model(SLAB))
    return folder


def test_lines_hold_what_the_network_sees():
    """Of one image by hand: a convolution's line reaches as far as its input."""
    network = make_model(FLAT)[0].eval()
    volume = noise((3, 16, 16))
    seen = []
    handle = network.head.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    lines = measured_lines(network, [volume])
    handle.remove()
    assert len(seen) == 3
    for name, low, high in (
        ("stem.conv", volume.min(), volume.max()),
        ("head", 0, max(float(cells.detach().max()) for cells in seen)),
    ):
        assert lines[name] == ByteLine.through(low, high)


@pytest.mark.parametrize(
    ("said", "sign", "angstrom"), [({}, 1, 10.0), ({"contrast": "bright"}, -1, 10.0)]
)
def test_the_simulation_is_as_the_card_says(said, sign, angstrom, small_calibration, monkeypatch):
    seen = []
    real = calibration.simulate
    monkeypatch.setattr(calibration, "simulate", lambda given: seen.append(given) or real(given))
    (volume,) = calibration_volumes(make_model(FLAT, **said)[1])
    (given,) = seen
    assert given.voxel_size_angstrom == angstrom
    assert (volume.mean(), volume.std()) == pytest.approx((0, 1), abs=1e-4)
    assert np.corrcoef(volume.ravel(), real(given).tomogram.ravel())[0, 1] == pytest.approx(sign)


def test_a_voxel_size_that_cannot_be_simulated_takes_the_nearest(small_calibration):
    card = make_model(FLAT)[1].model_copy(update={"voxel_size_angstrom": 2.0})
    nearest = card.model_copy(update={"voxel_size_angstrom": 8.0})
    assert np.array_equal(*(next(calibration_volumes(one)) for one in (card, nearest)))


def test_a_processor_without_the_instructions_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    with pytest.raises(ResourceError, match=r"one of avx512_vnni.* Set segment\.engine: torch"):
        predictor(SLAB)


def test_a_gpu_is_refused():
    network, card = make_model(SLAB)
    with pytest.raises(RequestError, match=r"on a CPU alone.*engine: torch"):
        with_engine(network.to("meta"), INT8, card, torch.bfloat16)


def test_the_volumes_that_bytes_are_measured_on_must_be_given():
    network, card = make_model(SLAB)
    with pytest.raises(RequestError, match="needs calibration_volumes"):
        with_engine(network, replace(INT8, calibration_volumes=None), card, torch.bfloat16)
