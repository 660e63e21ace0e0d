"""What several test files share: an empty folder, a model with random weights, a small session."""

import uuid

import fsspec
import pytest
import servers
import torch
from hypothesis import settings

from tomoseg.analysis import intensity
from tomoseg.core.classes import COLOURS
from tomoseg.io.stores import Folder
from tomoseg.nets.architecture import build_network
from tomoseg.nets.card import Architecture, ModelCard
from tomoseg.nets.checkpoint import save_model
from tomoseg.simulation import PhantomParameters
from tomoseg.simulation.sessions import simulated_session

# A busy machine is no defect: what an example computes is judged, not how fast.
settings.register_profile("tomoseg", deadline=None)
settings.load_profile("tomoseg")

TINY_SHAPE = (48, 96, 96)
TINY_VOXEL_ANGSTROM = 12.0


def pytest_configure():
    """Stop what tests start however they were started themselves."""
    servers.hear_interrupts()


def pytest_collection_modifyitems(items):
    """Begin with the file that takes longest, so that no process works on it alone in the end."""
    items.sort(key=lambda item: item.path.name != "test_service.py")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory):
    """Folder of a slab model of the usual six classes; its weights are random."""
    architecture = Architecture(slices_in=8, slices_out=4, fold=2, widths=(8, 16))
    card = ModelCard(
        name="tiny",
        architecture=architecture,
        classes=tuple(COLOURS),
        colours=tuple(COLOURS.values()),
        voxel_size_angstrom=TINY_VOXEL_ANGSTROM,
        intensity=tuple(intensity.as_dicts(intensity.DEFAULT_STEPS)),
        halo=architecture.receptive_halo,
        stride=architecture.stride,
    )
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("tiny_model")
    save_model(folder, build_network(architecture, len(card.classes)), card)
    return folder


@pytest.fixture(scope="session")
def tiny_session(tmp_path_factory):
    """Folder of two simulated tomograms, simulated_0500 and simulated_0501, and their truth."""
    folder = tmp_path_factory.mktemp("tiny_session")
    base = PhantomParameters(shape=TINY_SHAPE, voxel_size_angstrom=TINY_VOXEL_ANGSTROM, seed=500)
    for _ in simulated_session(Folder(str(folder)), base, tomograms=2, density=3.0):
        pass
    return folder


@pytest.fixture(params=["local", "memory"])
def folder(request, tmp_path):
    """An empty folder on disk and one that is not on disk."""
    if request.param == "local":
        yield Folder(str(tmp_path / "folder"))
        return
    place = Folder(f"memory://{uuid.uuid4().hex}")
    yield place
    fsspec.filesystem("memory").store.clear()
