import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import ModelError, RequestError, ResourceError, UnfitWorkerError
from tomoseg.nets import predict
from tomoseg.nets.architecture import SegmentationNetwork, build_network, byte_maps
from tomoseg.nets.card import PRESETS, Architecture, ModelCard
from tomoseg.nets.checkpoint import save_model
from tomoseg.nets.device import choose_dtype
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor, cached_predictor, pass_windows

SLAB = Architecture(slices_in=6, slices_out=2, fold=2, widths=(4, 8))
PLANE = Architecture(fold=1, widths=(4, 6))
MULTISLICE = Architecture(slices_in=3, fold=1, widths=(4, 8))
TILE = Architecture(kind="tile", widths=(6, 5), kernel=5)
TILE_OF_3_SLICES = Architecture(kind="tile", widths=(6, 5), kernel=5, slices_in=3)
VOLUME = Architecture(kind="volume", fold=2, widths=(4, 8))


def make_model(architecture):
    """Return a random network whose norms have seen noise, and its card."""
    torch.manual_seed(1)
    network = build_network(architecture, 3)
    image = torch.randn(4, architecture.slices_in, *([32] * architecture.dimensions))
    for _ in range(20):
        network(image)
    if architecture.kind == "tile":
        network.head.weight.data *= 8
        network.head.bias.data += 0.5  # halfway to every class, so that noise decides
    card = ModelCard(
        name="test",
        architecture=architecture,
        classes=("a", "b", "c"),
        colours=("#000000",) * 3,
        voxel_size_angstrom=10.0,
        halo=architecture.receptive_halo,
        stride=architecture.stride,
    )
    return network, card


def make_predictor(architecture, **options):
    batch = options.pop("batch", None)
    options = {"precision": "float32", "device": "cpu"} | options
    predictor = Predictor(*make_model(architecture), PredictionOptions(**options))
    predictor.batch = batch or predictor.batch
    return predictor


def noise(shape, seed=0):
    return np.random.default_rng(seed).standard_normal(shape, dtype=np.float32)


@pytest.mark.parametrize(
    ("architecture", "shape", "block", "tta"),
    [
        (SLAB, (9, 71, 45), (4, 24, 16), 8),
        (MULTISLICE, (5, 45, 31), (2, 16, 16), 4),
        (VOLUME, (25, 41, 30), (16, 16, 12), 8),
        (SLAB, (9, 71, 45), (4, 24, 16), 1),
        (SLAB, (3, 19, 10), (2, 8, 8), 1),
        (PLANE, (3, 45, 31), (1, 16, 16), 1),
        (PLANE, (1, 45, 31), (1, 16, 16), 1),
        (MULTISLICE, (5, 45, 31), (2, 16, 16), 1),
        (TILE, (2, 45, 31), (1, 16, 16), 1),
        (TILE, (1, 45, 31), (1, 8, 30), 1),
        (TILE_OF_3_SLICES, (4, 45, 31), (2, 16, 16), 1),
        (VOLUME, (25, 41, 30), (16, 16, 12), 1),
    ],
)
@pytest.mark.parametrize(("precision", "last_bits"), [("float32", 3e-6), ("bfloat16", 1e-2)])
def test_a_blocks_result_does_not_depend_on_the_blocks(
    architecture, shape, block, tta, precision, last_bits
):
    """The convolution library may sum in another order for another shape, hence last bits."""
    predictor = make_predictor(architecture, precision=precision, tta=tta)
    volume = noise(shape)
    whole = predictor.predict_scores(volume, Box.whole(shape))
    scores = np.empty_like(whole)
    labels = np.empty(shape, dtype=np.uint8)
    for part in BlockGrid(shape, block, predictor.card.halo, predictor.card.stride):
        read = volume[part.read.slices]
        scores[(slice(None), *part.write.slices)] = predictor.predict_scores(read, part.core)
        labels[part.write.slices] = predictor.predict_labels(read, part.core)
    np.testing.assert_allclose(scores, whole, rtol=0, atol=last_bits)
    ordered = np.sort(whole, axis=0)
    sure = ordered[-1] - ordered[-2] > 2 * last_bits
    expected = predictor.predict_labels(volume, Box.whole(shape))
    assert len(np.unique(expected)) == 4
    assert sure.mean() > 0.5
    assert (labels == expected)[sure].all()


@pytest.mark.parametrize(("tta", "axes"), [(4, (1, 2)), (8, (0, 1, 2))])
@pytest.mark.parametrize("architecture", [SLAB, VOLUME])
def test_averaging_mirror_images_follows_the_mirror(architecture, tta, axes):
    shape = (16, 32, 48)
    volume, whole = noise(shape), Box.whole(shape)
    alone, averaged = make_predictor(architecture), make_predictor(architecture, tta=tta)
    for axis in range(3):
        mirrored = np.flip(volume, axis)
        for predictor, follows in ((alone, False), (averaged, axis in axes)):
            scores = predictor.predict_scores(volume, whole)
            there = np.flip(predictor.predict_scores(mirrored, whole), axis + 1)
            assert np.allclose(scores, there, rtol=0, atol=1e-5) == follows


@pytest.mark.parametrize("architecture", [SLAB, TILE, VOLUME])
def test_less_than_the_exact_halo_shows(architecture):
    predictor = make_predictor(architecture)
    shape, stride = (24, 60, 60), predictor.card.stride
    volume = noise(shape)
    whole = predictor.predict_scores(volume, Box.whole(shape))
    less = tuple(max(0, h - s - 1) for h, s in zip(predictor.card.halo, stride, strict=True))
    block = next(iter(BlockGrid(shape, (8, 24, 24), less, stride)))
    scores = predictor.predict_scores(volume[block.read.slices], block.core)
    assert np.abs(scores - whole[(slice(None), *block.write.slices)]).max() > 3e-6


@settings(max_examples=25)
@given(data=st.data())
def test_any_core_is_cut_from_the_whole(data):
    shape = (7, 13, 10)
    edges = [sorted(data.draw(st.sets(st.integers(0, n), min_size=2, max_size=2))) for n in shape]
    core = Box(tuple(e[0] for e in edges), tuple(e[1] for e in edges))
    predictor = make_predictor(data.draw(st.sampled_from([SLAB, PLANE, TILE_OF_3_SLICES, VOLUME])))
    volume = noise(shape)
    whole = predictor.predict_scores(volume, Box.whole(shape))[(slice(None), *core.slices)]
    np.testing.assert_allclose(predictor.predict_scores(volume, core), whole, rtol=0, atol=3e-6)


@pytest.mark.parametrize("architecture", [SLAB, TILE, VOLUME])
def test_an_origin_off_the_stride_does_matter(architecture):
    """The reason for the law: without this, the tests above would prove nothing."""
    predictor = make_predictor(architecture)
    volume = noise((48, 120, 120))
    core = Box((20, 60, 60), (28, 68, 68))
    right = predictor.predict_labels(volume, core)
    shifted = predictor.predict_labels(volume[1:, 1:, 1:], core.shift((-1, -1, -1)))
    assert (right != shifted).any()


@pytest.mark.parametrize("architecture", [SLAB, TILE_OF_3_SLICES, VOLUME])
def test_scores_are_a_distribution_and_agree_with_labels(architecture):
    predictor = make_predictor(architecture)
    volume, core = noise((9, 20, 18)), Box((1, 2, 3), (8, 20, 17))
    scores = predictor.predict_scores(volume, core)
    assert scores.shape == (4, *core.shape)
    np.testing.assert_allclose(scores.sum(axis=0), 1, atol=1e-6)
    assert (scores.argmax(axis=0) == predictor.predict_labels(volume, core)).all()


def test_folding_and_casting_keep_the_networks_answer():
    network, card = make_model(SLAB)
    volume = noise((6, 16, 16))
    with torch.inference_mode():
        logits = network.eval()(torch.from_numpy(volume)[None])[0]
    scores = make_predictor(SLAB).predict_scores(volume, Box((2, 0, 0), (4, 16, 16)))
    np.testing.assert_allclose(scores, logits.softmax(0).numpy(), atol=1e-5)
    assert network.stem.norm.weight is not None  # the caller's network is left as it was
    assert card.weights_sha256 == ""


def test_batches_of_slabs_change_no_label():
    volume, core = noise((19, 16, 16)), Box((3, 0, 0), (19, 16, 16))
    one = make_predictor(SLAB, batch=1).predict_labels(volume, core)
    assert (make_predictor(SLAB, batch=3).predict_labels(volume, core) == one).all()


@pytest.mark.parametrize("architecture", [SLAB, TILE])
def test_reduced_precision_changes_few_labels(architecture):
    volume = noise((16, 64, 64))
    core = Box.whole(volume.shape)
    exact = make_predictor(architecture)
    reduced = make_predictor(architecture, precision="bfloat16")
    difference = exact.predict_scores(volume, core) - reduced.predict_scores(volume, core)
    assert 0 < np.abs(difference).max() < 0.1
    changed = exact.predict_labels(volume, core) != reduced.predict_labels(volume, core)
    assert changed.mean() < 0.01


@pytest.mark.parametrize("architecture", [SLAB, PLANE, TILE])
def test_a_slice_too_large_for_one_pass_goes_window_by_window(architecture, monkeypatch):
    predictor = make_predictor(architecture)
    volume = noise((3, 150, 131))
    core = Box((0, 3, 10), (3, 140, 131))
    whole, labels = predictor.predict_scores(volume, core), predictor.predict_labels(volume, core)
    passes = []
    network = predictor._network
    predictor._network = Instead(
        network, lambda slabs: passes.append(slabs.shape) or network(slabs)
    )
    monkeypatch.setattr(predict, "PASS_NUMBERS", 8 * 60 * 60)
    scores = predictor.predict_scores(volume, core)
    np.testing.assert_allclose(scores, whole, rtol=0, atol=3e-6)
    assert (labels == predictor.predict_labels(volume, core)).mean() > 0.999
    halo, stride = predictor.card.halo[2], predictor.card.stride[2]
    assert max(shape[3] for shape in passes) <= 60 + 2 * (halo + 2 * stride)


def test_a_pass_over_an_8k_micrograph_is_bounded():
    """Windows hardly overlap, and slices of a tomogram pass whole."""
    for name in ("fast", "unet2d", "multislice", "tile"):
        card = make_model(SLAB)[1].model_copy(update={"architecture": PRESETS[name]})
        windows = [block.read.size for block in pass_windows((1, 8192, 8192), card)]
        assert max(windows) < 3000**2
        assert sum(windows) < 1.5 * 8192**2
        assert len(list(pass_windows((300, 1024, 1440), card))) == 1


def test_labels_are_the_first_of_the_highest():
    logits = torch.tensor([[0, 1, 2], [0, 3, 2], [1, 3, 0]]).float()[None]
    assert byte_maps(logits, ()).flatten().tolist() == [2, 1, 0]
    random = torch.randn(2, 7, 3, 4, 5)
    assert torch.equal(byte_maps(random, ())[:, 0].long(), random.argmax(dim=1))


@pytest.mark.parametrize("architecture", [SLAB, PLANE, MULTISLICE, TILE, VOLUME], ids=str)
def test_maps_are_labels_and_scores_in_bytes(architecture):
    torch.manual_seed(4)
    network = build_network(architecture, 3).eval()
    image = torch.randn(1, architecture.slices_in, *[16] * architecture.dimensions)
    with torch.inference_mode():
        logits, maps = network(image), network.maps(image, (3, 0))
    scores = logits.softmax(dim=1)
    assert torch.equal(maps[:, 0].long(), logits.argmax(dim=1))
    for found, channel in zip(maps[0, 1:].float(), (3, 0), strict=True):
        assert (found / 255 - scores[0, channel]).abs().max() <= 0.5 / 255 + 1e-6


def test_networks_share_their_device_one_block_at_a_time():
    """Blocks of several networks, from several threads: never two passes at once."""
    inside, most = [], []

    def watched(network):
        def forward(image):
            inside.append(1)
            most.append(len(inside))
            time.sleep(0.01)
            inside.pop()
            return network(image)

        return Instead(network, forward)

    predictors = [make_predictor(SLAB), make_predictor(PLANE)]
    for predictor in predictors:
        predictor._network = watched(predictor._network)
    volume = noise((8, 16, 16))
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(lambda p: p.predict_labels(volume, Box.whole(volume.shape)), predictors * 4))
    assert len(most) > 8
    assert max(most) == 1


class Instead(SegmentationNetwork):
    """A network that computes in another way."""

    def __init__(self, network, forward):
        super().__init__(network.architecture)
        self._instead = forward

    def forward(self, image):
        return self._instead(image)


def failing_above(network, slabs):
    """Return a network that has memory for so many slabs a pass."""

    def forward(image):
        if len(image) > slabs:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return network(image)

    return Instead(network, forward)


def test_out_of_memory_halves_the_batch_and_says_so():
    volume, core = noise((16, 16, 16)), Box.whole((16, 16, 16))
    expected = make_predictor(SLAB, batch=2).predict_labels(volume, core)
    predictor = make_predictor(SLAB, batch=8)
    predictor._network = failing_above(predictor._network, 2)
    assert (predictor.predict_labels(volume, core) == expected).all()
    assert predictor.events == [
        "device out of memory: batch halved to 4",
        "device out of memory: batch halved to 2",
    ]


@pytest.mark.parametrize("architecture", [SLAB, VOLUME])
def test_no_memory_for_one_pass_is_an_error_with_a_remedy(architecture):
    predictor = make_predictor(architecture)
    predictor._network = failing_above(predictor._network, 0)
    with pytest.raises(ResourceError, match=r"not enough memory .* Choose smaller blocks"):
        predictor.predict_labels(noise((8, 16, 16)), Box.whole((8, 16, 16)))


@pytest.mark.parametrize(
    ("core", "value", "error", "reason"),
    [
        (Box((0, 0, 0), (9, 8, 8)), 0.0, RequestError, "not in a volume"),
        (Box((2, 2, 2), (2, 4, 4)), 0.0, RequestError, "not in a volume"),
        (Box((0, 0, 0), (8, 8, 8)), np.nan, ModelError, "not finite"),
        (Box((0, 0, 0), (8, 8, 8)), np.inf, ModelError, "not finite"),
    ],
)
def test_impossible_requests_are_refused(core, value, error, reason):
    volume = noise((8, 8, 8))
    volume[0, 0, 0] += value
    with pytest.raises(error, match=reason):
        make_predictor(SLAB).predict_labels(volume, core)


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"device": "tpu"}, "no device 'tpu'"),
        ({"precision": "float16"}, "no fast float16"),
        ({"precision": "int8"}, "none of"),
    ],
)
def test_impossible_devices_are_refused(options, reason):
    with pytest.raises(RequestError, match=reason):
        make_predictor(SLAB, **options)


def test_precision_follows_the_hardware(monkeypatch):
    cpu = torch.device("cpu")
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx2": True})
    assert choose_dtype(cpu, "auto") == torch.float32
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {"avx512_bf16": True})
    assert choose_dtype(cpu, "auto") == torch.bfloat16


def cached(folder, digest="of the run", check=lambda card: None):
    return cached_predictor(folder, digest, PredictionOptions(device="cpu"), check)


def test_threads_share_one_predictor_and_its_answers(tmp_path):
    network, card = make_model(SLAB)
    save_model(tmp_path, network, card)
    volume = noise((12, 16, 16))
    volume.setflags(write=False)
    cores = [Box((z, 0, 0), (z + 2, 16, 16)) for z in range(0, 12, 2)] * 3

    def predict(core):
        return cached(tmp_path).predict_labels(volume, core)

    with ThreadPoolExecutor(4) as pool:
        labels = list(pool.map(predict, cores))
    whole = cached(tmp_path).predict_labels(volume, Box.whole(volume.shape))
    assert all((part == whole[core.slices]).all() for part, core in zip(labels, cores, strict=True))


def test_a_model_is_read_once_by_those_who_mean_it(tmp_path):
    network, card = make_model(SLAB)
    save_model(tmp_path, network, card)
    first = cached(tmp_path)
    network.head.bias.data += 1
    save_model(tmp_path, network, card)
    assert cached(tmp_path) is first
    assert cached(tmp_path, "of the next run") is not first
    (tmp_path / "card.json").unlink()
    assert cached(tmp_path) is first


def test_another_model_than_is_meant_is_not_kept(tmp_path):
    network, card = make_model(SLAB)
    save_model(tmp_path, network, card)

    def refuse(card):
        raise UnfitWorkerError("another")

    with pytest.raises(UnfitWorkerError):
        cached(tmp_path, check=refuse)
    assert cached(tmp_path, check=lambda card: None)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device here")
@pytest.mark.parametrize("architecture", [SLAB, TILE, VOLUME])
def test_a_gpu_agrees_with_the_cpu(architecture):
    volume, core = noise((32, 128, 128)), Box.whole((32, 128, 128))
    expected = make_predictor(architecture).predict_scores(volume, core)
    found = make_predictor(architecture, device="cuda", precision="auto")
    assert found.dtype in (torch.bfloat16, torch.float16)
    assert np.abs(found.predict_scores(volume, core) - expected).max() < 0.1
