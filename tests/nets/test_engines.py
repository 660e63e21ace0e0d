"""Compiled networks: the same answers, the same laws, and what is said where they cannot be."""

import os

import numpy as np
import pytest
import torch

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.errors import RequestError, ResourceError
from tomoseg.nets import engines
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import PRESETS, SHIPPED, Architecture, ModelCard, load_card, model_folder
from tomoseg.nets.engines import CACHE_VARIABLE, cache_folder, check_engine
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor
from tomoseg.recipe.recipe import DEEP_BLOCK, BlocksSection

SLAB = Architecture(slices_in=6, slices_out=2, fold=2, widths=(4, 8))
SHAPE = (9, 96, 96)


def predictor(engine, **options):
    torch.manual_seed(1)
    network = build_network(SLAB, 3)
    for _ in range(20):
        network(torch.randn(4, SLAB.slices_in, 32, 32))
    card = ModelCard(
        name="test", architecture=SLAB, classes=("a", "b", "c"), colours=("#000000",) * 3,
        voxel_size_angstrom=10.0, halo=SLAB.receptive_halo, stride=SLAB.stride,
    )  # fmt: skip
    return Predictor(network, card, PredictionOptions(engine=engine, device="cpu", **options))


@pytest.fixture(scope="module")
def compiled(compiled_cache):
    return predictor("compiled", precision="bfloat16")


def noise(seed=0):
    return np.random.default_rng(seed).standard_normal(SHAPE, dtype=np.float32)


def test_a_compiled_network_agrees_with_its_own_operations(compiled, compiled_cache):
    """In bfloat16, whose rounding moves few labels of random weights on noise."""
    eager, volume, whole = predictor("torch", precision="bfloat16"), noise(), Box.whole(SHAPE)
    expected = eager.predict_maps(volume, whole, (0, 2))
    found = compiled.predict_maps(volume, whole, (0, 2))
    assert len(np.unique(expected[0])) == 4
    assert (found[0] != expected[0]).mean() < 2e-3
    assert np.abs(found[1:].astype(int) - expected[1:]).max() <= 4
    assert list(compiled_cache.rglob("*.so"))
    assert compiled_cache.stat().st_mode & 0o777 == 0o700


@pytest.mark.parametrize("block", [(4, 96, 96), (4, 48, 96)])
def test_compiled_blocks_are_the_whole(compiled, block):
    volume, card = noise(), compiled.card
    expected = compiled.predict_maps(volume, Box.whole(SHAPE), (0, 2))
    found = np.empty_like(expected)
    for part in BlockGrid(SHAPE, block, card.halo, card.stride):
        maps = compiled.predict_maps(volume[part.read.slices], part.core, (0, 2))
        found[(slice(None), *part.write.slices)] = maps
    assert (found == expected).all()


@pytest.mark.parametrize(
    ("size", "passes"),
    [
        ((1024, 1024), {(608, 608)}),
        ((1024, 1440), {(608, 608), (608, 704), (608, 512)}),
        ((2048, 2048), {(608, 608), (608, 704), (704, 608), (704, 704)}),
        ((4092, 5760), {(y, x) for y in (608, 704) for x in (608, 704, 224)}),
    ],
)
def test_few_shapes_of_a_tomogram_are_compiled(size, passes):
    """Halo 94, stride 16: a block between others reads 512 + 2 · 96, one at a border 512 + 96."""
    card = load_card(model_folder(SHIPPED))
    blocks = BlockGrid((64, *size), (32, 512, 512), card.halo, card.stride)
    shapes = {tuple(-(-n // 16) * 16 for n in block.read.shape[1:]) for block in blocks}
    assert shapes == passes


@pytest.mark.parametrize(
    ("size", "deep", "cost"), [((1000, 1024, 1024), 12, 1.37), ((300, 928, 960), 27, 1.77)]
)
def test_whole_slices_have_one_shape_and_deep_blocks_are_not_made_to(size, deep, cost):
    """What it would cost to shift reads at the border inward until all have one shape."""
    slabs, volumes = (load_card(model_folder(SHIPPED)).architecture, PRESETS["accurate"])
    shapes = {s[1:] for s in passes_of(size, BlocksSection().shape, slabs)}
    assert shapes == {size[1:]}
    found = passes_of(size, DEEP_BLOCK, volumes)
    assert len(set(found)) == deep
    one = np.max(found, axis=0)
    assert np.prod(one) * len(found) / np.prod(found, axis=1).sum() == pytest.approx(cost, abs=0.01)


def passes_of(size, block, architecture):
    """Return the shape in which each block is read, to whole strides."""
    grid = BlockGrid(size, block, architecture.receptive_halo, architecture.stride)
    reads = (part.read.aligned(architecture.stride) for part in grid)
    return [read.shape for read in reads]


def test_more_shapes_than_torch_expects_stay_compiled(compiled):
    """Beyond eight torch would go on without a word, uncompiled."""
    assert torch._dynamo.config.recompile_limit == engines.MOST_SHAPES
    assert torch._dynamo.config.fail_on_recompile_limit_hit


def test_an_engine_that_is_none_is_refused():
    with pytest.raises(RequestError, match="engine 'onnx' is none of"):
        predictor("onnx")


def test_no_compiler_is_an_error_with_a_remedy(compiled_cache, no_compiler):
    with pytest.raises(
        ResourceError, match=r"needs a C\+\+ compiler.*Install g\+\+ .*engine: torch"
    ):
        predictor("compiled")


def test_no_headers_are_an_error_with_a_remedy(compiled_cache, monkeypatch, tmp_path):
    monkeypatch.setattr(engines, "get_path", lambda _: str(tmp_path))
    with pytest.raises(ResourceError, match=r"no .*Python\.h\. Install python3-dev"):
        check_engine("compiled")


def test_the_cache_is_the_users_own(monkeypatch, tmp_path):
    monkeypatch.setenv(CACHE_VARIABLE, "")
    monkeypatch.delenv(CACHE_VARIABLE)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "tomoseg" / "compiled"
    assert os.environ[CACHE_VARIABLE] == str(cache_folder())
    cache_folder().chmod(0o777)
    with pytest.raises(ResourceError, match=f"others may write .* Set {CACHE_VARIABLE}"):
        cache_folder()


def test_a_cache_that_cannot_be_made_is_an_error(monkeypatch, tmp_path):
    (tmp_path / "file").touch()
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file" / "below"))
    with pytest.raises(ResourceError, match="cannot keep what it compiles"):
        cache_folder()
