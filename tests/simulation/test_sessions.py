"""Simulated sessions on disk: tomograms, and truth that belongs to them."""

import hashlib
import json
from collections import Counter
from dataclasses import replace

import mrcfile
import numpy as np
import pytest

from tomoseg.io.discovery import discover
from tomoseg.io.points.tables import read_filaments_csv, read_particles_csv
from tomoseg.io.stores import Folder
from tomoseg.simulation import CLASSES, PhantomParameters, simulate, varied
from tomoseg.simulation.sessions import simulated_session

SHAPE, VOXEL_ANGSTROM = (48, 96, 96), 12.0
# Vesicles take most of the time where there is no room for them.
SMALL = PhantomParameters(
    shape=(16, 32, 32),
    tilt_step_degrees=20.0,
    single_membranes=0,
    double_membranes=0,
    carbon=False,
    crowding=0.0,
    seed=7,
)
TRUTH = ("__filaments.csv", "__instances.mrc", "__labels.mrc", "__particles.csv", ".json")


def digests(folder):
    files = [path for path in folder.rglob("*") if path.is_file()]
    return {
        str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
    }


def opened(path):
    with mrcfile.open(path) as file:
        return file.data.copy(), file.voxel_size.tolist()


def test_every_tomogram_has_its_truth(tiny_session):
    names = ["simulated_0500", "simulated_0501"]
    assert [found.name for found in discover([str(tiny_session)])] == names
    assert sorted(path.name for path in tiny_session.iterdir()) == [
        *(f"{n}.mrc" for n in names),
        "truth",
    ]
    truth = sorted(path.name for path in (tiny_session / "truth").iterdir())
    assert truth == sorted(f"{name}{suffix}" for name in names for suffix in TRUTH)


def test_volumes_are_on_one_grid_and_read_by_others(tiny_session):
    kinds = {".mrc": "float32", "__labels.mrc": "int8", "__instances.mrc": "int8"}
    for suffix, dtype in kinds.items():
        below = "" if suffix == ".mrc" else "truth/"
        path = tiny_session / f"{below}simulated_0500{suffix}"
        assert mrcfile.validate(path), path
        voxels, size = opened(path)
        assert voxels.shape == SHAPE
        assert voxels.dtype == dtype
        assert size == pytest.approx((VOXEL_ANGSTROM,) * 3)


def test_labels_instances_and_tables_tell_one_story(tiny_session):
    truth = tiny_session / "truth"
    labels, _ = opened(truth / "simulated_0500__labels.mrc")
    instances, _ = opened(truth / "simulated_0500__instances.mrc")
    assert np.array_equal(labels > 0, instances > 0)
    class_of = {int(n): set(labels[instances == n]) for n in np.unique(instances) if n}
    assert all(len(classes) == 1 for classes in class_of.values())
    about = json.loads((truth / "simulated_0500.json").read_text())
    assert list(about["classes"].values()) == list(CLASSES)
    assert set(np.unique(labels)) - {0} <= {int(label) for label in about["classes"]}
    lines = read_filaments_csv((truth / "simulated_0500__filaments.csv").read_text())
    (ribosomes,) = read_particles_csv((truth / "simulated_0500__particles.csv").read_text())
    objects = Counter(CLASSES[classes.pop() - 1] for classes in class_of.values())
    assert {line.name for line in lines} <= {"microtubule", "actin"}
    for name in ("microtubule", "actin"):
        assert len({line.number for line in lines if line.name == name}) >= objects[name] > 0
    assert len(ribosomes) >= objects["ribosome"]


def test_centres_lie_in_what_they_are_centres_of(tiny_session):
    truth = tiny_session / "truth"
    labels, _ = opened(truth / "simulated_0500__labels.mrc")
    (ribosomes,) = read_particles_csv((truth / "simulated_0500__particles.csv").read_text())
    for name, points in [("ribosome", ribosomes.points_angstrom)] + [
        (line.name, line.points_angstrom)
        for line in read_filaments_csv((truth / "simulated_0500__filaments.csv").read_text())
    ]:
        voxels = np.rint(points / VOXEL_ANGSTROM).astype(int)
        voxels = voxels[((voxels >= 0) & (voxels < SHAPE)).all(axis=1)]
        share = np.mean(labels[tuple(voxels.T)] == CLASSES.index(name) + 1)
        assert share > 0.8, name


def test_parameters_on_disk_make_the_tomogram_again(tmp_path):
    list(simulated_session(Folder(str(tmp_path)), SMALL, tomograms=1))
    about = json.loads((tmp_path / "truth" / "simulated_0007.json").read_text())
    values = about["parameters"] | {"shape": tuple(about["parameters"]["shape"])}
    assert PhantomParameters(**values) == varied(7, SMALL)
    again = simulate(PhantomParameters(**values))
    assert np.array_equal(opened(tmp_path / "simulated_0007.mrc")[0], again.tomogram)


def test_a_seed_makes_the_same_bytes_whatever_came_before(tmp_path):
    together, apart = tmp_path / "together", tmp_path / "apart"
    names = list(simulated_session(Folder(str(together)), SMALL, tomograms=2))
    assert names == ["simulated_0007", "simulated_0008"]
    for seed in (8, 7):
        list(simulated_session(Folder(str(apart)), replace(SMALL, seed=seed), tomograms=1))
    assert digests(together) == digests(apart)
    assert len(digests(together)) == 12
    assert digests(together)["simulated_0007.mrc"] != digests(together)["simulated_0008.mrc"]


def test_density_multiplies_every_kind_of_object(tmp_path, monkeypatch):
    asked = []
    phantom = simulate(SMALL)

    def recorded(parameters):
        asked.append(parameters)
        return phantom

    monkeypatch.setattr("tomoseg.simulation.sessions.simulate", recorded)
    large = PhantomParameters(shape=(64, 512, 512))
    for density in (0.5, 4.0):
        list(simulated_session(Folder(str(tmp_path)), large, tomograms=12, density=density))
    few, many = asked[:12], asked[12:]
    for kind in ("microtubules", "actin_filaments", "ribosomes", "single_membranes"):
        counts = [sum(parameters.count(kind) for parameters in part) for part in (few, many)]
        # Counts are drawn around the usual one: eight times as many, within the draw's spread.
        assert 5 < counts[1] / counts[0] < 13, kind


def test_objects_go_into_other_stores(folder):
    list(simulated_session(folder, SMALL, tomograms=1))
    assert folder.names() == ["simulated_0007.mrc", "truth"]
    assert len(folder.names("truth")) == 5


@pytest.mark.parametrize("fails_at", ["__labels.mrc", "__particles.csv", ".json", "0007.mrc"])
def test_a_tomogram_is_never_seen_without_its_truth(tmp_path, monkeypatch, fails_at):
    publishing = Folder.publishing

    def failing(self, name):
        if name.endswith(fails_at):
            raise OSError("the disk is full")
        return publishing(self, name)

    monkeypatch.setattr(Folder, "publishing", failing)
    with pytest.raises(OSError, match="full"):
        list(simulated_session(Folder(str(tmp_path)), SMALL, tomograms=1))
    assert not list(tmp_path.glob("*.mrc"))
