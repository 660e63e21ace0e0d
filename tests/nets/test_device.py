"""What differs between a CPU and a GPU. There is no GPU: a stand-in notes what is asked of it."""

from contextlib import contextmanager

import numpy as np
import pytest
import torch

from tomoseg.analysis import intensity
from tomoseg.analysis.intensity import ClipScale, Normaliser
from tomoseg.core.blocks import Box
from tomoseg.core.errors import ModelError
from tomoseg.nets import device as device_of
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.device import Cpu, Gpu, normalised
from tomoseg.nets.options import PredictionOptions
from tomoseg.nets.predict import Predictor

DTYPES = ("int8", "uint8", "int16", "uint16", "float16", "float32")
CLIPS = Normaliser((ClipScale(low=-60.0, high=90.5, shift=7.3, scale=1 / 21.7),), (), None)
SCALES = Normaliser((ClipScale(shift=-3.0, scale=-0.25),), (), None)


def stored(dtype):
    low, high = (-100, 101) if np.dtype(dtype).kind in "if" else (0, 202)
    return np.random.default_rng(0).integers(low, high, (5, 6, 7)).astype(dtype)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("normaliser", [CLIPS, SCALES], ids=["clips", "scales"])
def test_a_device_normalises_as_the_tomograms_normaliser_does(dtype, normaliser):
    voxels = stored(dtype)
    before = voxels.copy()
    found = normalised(torch.from_numpy(voxels), normaliser)
    expected = normaliser.points_applied(voxels)
    assert found.dtype == torch.float32
    np.testing.assert_array_max_ulp(found.numpy(), expected, maxulp=1)
    assert (voxels == before).all()
    assert expected.std() > 0.1


@pytest.mark.parametrize("dtype", ["float16", "float32"])
def test_what_is_not_finite_takes_the_fill_on_a_device_too(dtype):
    voxels = np.array([[[1, np.nan, np.inf, -np.inf, -200]]], dtype)
    normaliser = Normaliser((ClipScale(low=-100, high=100, shift=1, scale=2),), (), 0.25)
    found = normalised(torch.from_numpy(voxels), normaliser)
    assert found.flatten().tolist() == [0, 0.25, 0.25, 0.25, -202]
    assert (normaliser.points_applied(voxels) == found.numpy()).all()


def test_only_one_clip_and_scale_is_a_devices_work():
    assert CLIPS.is_clip_scale
    two = Normaliser((*CLIPS.points, *SCALES.points), (), None)
    filtered = Normaliser(CLIPS.points, (intensity.Gaussian(20.0),), None)
    curve = Normaliser((intensity.Curve(np.arange(2.0), np.arange(2.0)),), (), None)
    assert not any(one.is_clip_scale for one in (two, filtered, curve))


class StandIn:
    """CUDA as far as a predictor asks for it; work on a stream is done only where it must be.

    A copy is late: until somebody waits for an event recorded after it, its target holds the value
    77. ``notes`` holds each copy, event and wait in order.
    """

    def __init__(self):
        self.notes = []
        self.now = [Stream(self, "computing")]

    def empty(self, shape, *, dtype, device="cpu", pin_memory=False):
        self.notes.append("pin" if pin_memory else f"room on {device}")
        return torch.full(shape, 77, dtype=dtype)

    @contextmanager
    def stream(self, stream):
        self.now.append(stream)
        yield
        self.now.pop()


class Event:
    def __init__(self, stream, late):
        self.stream, self.late = stream, late

    def synchronize(self):
        self.stream.cuda.notes.append("host waits")
        for copy in self.late:
            copy()


class Stream:
    def __init__(self, cuda, name):
        self.cuda, self.name, self.late = cuda, name, []

    def record_event(self):
        self.cuda.notes.append(f"{self.name} records")
        return Event(self, list(self.late))

    def wait_event(self, event):
        self.cuda.notes.append(f"{self.name} waits for {event.stream.name}")
        for copy in event.late:
            copy()


class Late(torch.Tensor):
    """A CPU tensor whose copies between host and device are late."""

    cuda = None

    def record_stream(self, stream):
        self.cuda.notes.append(f"kept for {stream.name}")

    @classmethod
    def __torch_function__(cls, func, types, args=(), kwargs=None):
        kwargs = dict(kwargs or {})
        name = func.__name__
        if kwargs.pop("non_blocking", False):
            return cls.later(name, *args)
        with torch._C.DisableTorchFunctionSubclass():
            return func(*args, **kwargs)

    @classmethod
    def later(cls, name, *args):
        stream = cls.cuda.now[-1]
        cls.cuda.notes.append(f"{name} on {stream.name}")
        source, target = (args[0], None) if name == "to" else (args[1], args[0])
        plain = torch.Tensor.as_subclass
        target = torch.full_like(plain(source, torch.Tensor), 77) if target is None else target
        ends = plain(target, torch.Tensor), plain(source, torch.Tensor)
        stream.late.append(torch.inference_mode()(lambda: ends[0].copy_(ends[1])))
        return target.as_subclass(Late)


@pytest.fixture
def cuda(monkeypatch):
    """A stand-in for CUDA, and tensors of it."""
    stand_in = StandIn()
    monkeypatch.setattr(Late, "cuda", stand_in)
    monkeypatch.setattr(torch.cuda, "Stream", lambda device: Stream(stand_in, "copies"))
    monkeypatch.setattr(torch.cuda, "stream", stand_in.stream)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: stand_in.now[-1])
    real = torch.empty
    monkeypatch.setattr(
        device_of.torch, "empty",
        lambda shape, **how: stand_in.empty(shape, **how).as_subclass(Late)
        if "pin_memory" in how or "device" in how
        else real(shape, **how),
    )  # fmt: skip
    return stand_in


def test_a_block_is_waited_for_on_its_way_in_and_out(cuda):
    gpu = Gpu(torch.device("cpu"))
    volume = stored("int16")
    with gpu.block(volume, CLIPS) as image:
        assert np.allclose(image.numpy(), CLIPS.points_applied(volume), atol=1e-6)
        cuda.notes.append("computes")
        results = gpu.empty(np.empty((1, 5, 6, 7), np.uint8))
        results[0] = torch.from_numpy(volume > 0).to(torch.uint8)
        fetched = gpu.fetched(results)
    assert (fetched()[0] == (volume > 0)).all()
    assert cuda.notes == [
        "pin", "to on copies", "copies records", "computing waits for copies",
        "kept for computing", "computes", "room on cpu",
        "computing records", "pin", "copies waits for computing", "copy_ on copies",
        "kept for copies", "copies records", "host waits",
    ]  # fmt: skip


def test_a_wait_that_is_missing_shows(cuda, monkeypatch):
    """The reason to trust the test above."""
    monkeypatch.setattr(Stream, "wait_event", lambda stream, event: None)
    with Gpu(torch.device("cpu")).block(stored("int16"), None) as image:
        assert (image == 77).all()
    monkeypatch.setattr(Event, "synchronize", lambda event: None)
    gpu = Gpu(torch.device("cpu"))
    with gpu.block(stored("int16"), None):
        fetched = gpu.fetched(gpu.empty(np.zeros(3, np.uint8)).zero_())
    assert (fetched() == 77).all()


def test_a_place_on_the_device_is_given_back_after_an_error(cuda):
    gpu = Gpu(torch.device("cpu"))
    for _ in range(3):
        with pytest.raises(ModelError, match="not finite"), gpu.block(np.full(3, np.nan), None):
            pytest.fail("a block of NaN was given")


def test_predictors_share_the_face_of_their_device():
    card = ModelCard(
        name="test", architecture=Architecture(widths=(4,)), classes=("a",), colours=("#000000",),
        voxel_size_angstrom=10.0, halo=Architecture(widths=(4,)).receptive_halo,
        stride=Architecture(widths=(4,)).stride,
    )  # fmt: skip
    torch.manual_seed(0)
    network = build_network(card.architecture, 1)
    one, other = (Predictor(network, card, PredictionOptions(device="cpu")) for _ in range(2))
    assert one._on is other._on
    assert isinstance(one._on, Cpu)
    volume, whole = stored("uint8"), Box.whole((5, 6, 7))
    expected = one.predict_maps(CLIPS.points_applied(volume), whole, (1,))
    assert (one.predict_maps(volume, whole, (1,), CLIPS) == expected).all()
    assert len(np.unique(expected[1])) > 3
