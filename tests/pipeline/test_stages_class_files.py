"""Masks and surfaces for other programs: one volume of labels, read back from every format."""

from __future__ import annotations

import json
import os
import subprocess

import mrcfile
import numpy as np
import pytest
import tifffile
import trimesh
import zarr
from ome_zarr_models.v04.image_label import ImageLabelAttrs as LabelV04
from ome_zarr_models.v05 import Image as ImageV05

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.io.stores import Ledger
from tomoseg.io.volumes.sources import open_source
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import class_files, run_stage
from tomoseg.recipe.recipe import recipe_from

COPICK_PYTHON = os.environ.get("TOMOSEG_COPICK_PYTHON")
CLASSES = (
    "microtubule",
    "actin",
    "single_membrane",
    "double_membrane",
    "ribosome",
    "carbon_edge",
)
SHAPE = (21, 53, 61)


@pytest.fixture
def exported(tmp_path, tiny_model):
    """Export planted labels of a tomogram of odd size, 12 Å, origin not 0; return context, truth.

    Class 1 is a ball inside of the volume; the others are noise.
    """

    def run(*, bin_=1, **export):
        with mrcfile.new(tmp_path / "t1.mrc", overwrite=True) as file:
            file.set_data(np.random.default_rng(1).normal(size=SHAPE).astype(np.float32))
            file.voxel_size = 12.0
            file.header.origin = (1000.0, 200.0, -30.0)
        values = {
            "session": {"input": str(tmp_path / "t1.mrc"), "output": str(tmp_path / "out")},
            "ingest": {"bin": bin_},
            "segment": {"model": str(tiny_model)},
            "compute": {"runner": "serial"},
            "blocks": {"shape": (8, 16, 24)},
            "export": export,
            **{"clean": {}, "trace": {}, "pick": {}},
        }
        session = plan_session(recipe_from(values))
        context = session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)
        run_stage(context, "ingest")
        for name in ("clean", "trace", "pick", "sample"):
            context.records.write_json(f"{name}.json", {"digest": "planted", "summary": {}})
        shape = context.sampling().shape
        labels = np.random.default_rng(2).integers(0, 7, shape).astype(np.uint8)
        labels[labels == 1] = 0
        centre = np.array(shape) // 2
        away = np.linalg.norm(np.moveaxis(np.indices(shape), 0, -1) - centre, axis=-1)
        labels[away < 7 // bin_] = 1
        volume = context.volume(context.label_path("semantic"))
        volume.create(shape, "uint8", shard=(8, 16, 24), is_labels=True)
        volume.write(Box.whole(shape), labels)
        summary = run_stage(context, "export")["summary"]
        return context, on_source(labels, bin_), summary["files"]

    return run


def on_source(labels, bin_):
    """Repeat labels on the source's grid by the definition."""
    found = np.zeros(SHAPE, np.uint8)
    for place in np.ndindex(SHAPE):
        voxel = tuple(i // bin_ for i in place)
        if all(i < n for i, n in zip(voxel, labels.shape, strict=True)):
            found[place] = labels[voxel]
    return found


def opened(folder, format_):
    return zarr.open_group(str(folder.path), mode="r", zarr_format=format_)


@pytest.mark.parametrize("bin_", [1, 2])
def test_every_format_holds_the_same_mask(exported, bin_):
    context, labels, files = exported(bin_=bin_, masks=["mrc", "tiff", "ome_zarr"])
    assert len(files) == 18
    masks = context.folder / "masks"
    for value, name in enumerate(CLASSES, start=1):
        wanted = (labels == value).astype(np.uint8)
        with mrcfile.open(masks.path / f"t1__{name}.mrc") as file:
            np.testing.assert_array_equal(file.data, wanted)
            assert file.header.origin.x == 1000.0
        np.testing.assert_array_equal(tifffile.imread(masks.path / f"t1__{name}.tif"), wanted)
        group = opened(masks / f"t1__{name}.zarr", 3)
        np.testing.assert_array_equal(group["0"][:], wanted)
        (multiscale,) = ImageV05.from_zarr(group).ome_attributes.multiscales
        assert multiscale.datasets[0].coordinateTransformations[0].scale == [12.0] * 3
    for suffix in ("mrc", "tif", "zarr"):
        with open_source(f"{masks.url}/t1__actin.{suffix}") as source:
            assert source.header.sampling == context.header().sampling
            found = source.read(Box.whole(SHAPE))
        np.testing.assert_array_equal(found, labels == 2)


def test_an_overlay_of_copick_has_each_class_and_all_labels(exported):
    context, labels, files = exported(bin_=2, masks="copick")
    place = "copick/ExperimentRuns/t1/Segmentations/12.000_tomoseg_0_"
    assert sorted(files) == sorted(
        [
            *(f"{place}{name.replace('_', '-')}.zarr" for name in CLASSES),
            f"{place}classes-multilabel.zarr",
            "copick/config.json",
        ]
    )
    group = opened(context.folder / f"{place}classes-multilabel.zarr", 2)
    np.testing.assert_array_equal(group["0"][:], labels)
    about = LabelV04.model_validate(dict(group.attrs))
    (multiscale,) = about.multiscales
    assert multiscale.datasets[0].coordinateTransformations[0].scale == [12.0] * 3
    assert [row.label_value for row in about.image_label.colors] == [0, 1, 2, 3, 4, 5, 6]
    one = opened(context.folder / f"{place}single-membrane.zarr", 2)
    np.testing.assert_array_equal(one["0"][:], labels == 3)
    objects = context.folder.read_json("copick/config.json")["pickable_objects"]
    assert [(row["name"], row["label"]) for row in objects][2] == ("single-membrane", 3)


READ = """
import json, copick
(run,) = copick.from_file("config.json").runs
print(json.dumps([[s.name, s.is_multilabel, s.voxel_size, s.numpy().sum(axis=(1, 2)).tolist()]
                  for s in run.segmentations]))
"""


@pytest.mark.skipif(not COPICK_PYTHON, reason="TOMOSEG_COPICK_PYTHON names no interpreter")
def test_copick_reads_the_segmentations(exported):
    context, labels, _ = exported(bin_=2, masks="copick")
    ran = subprocess.run(
        [str(COPICK_PYTHON), "-c", READ],
        cwd=context.folder.path / "copick",
        env={"PATH": "/usr/bin:/bin"},
        capture_output=True,
        text=True,
        check=True,
    )
    found = {row[0]: row[1:] for row in json.loads(ran.stdout.splitlines()[-1])}
    assert found["classes"] == [True, 12.0, labels.sum(axis=(1, 2)).tolist()]
    assert found["actin"] == [False, 12.0, (labels == 2).sum(axis=(1, 2)).tolist()]
    assert len(found) == 7


@pytest.mark.parametrize("largest", [class_files.LARGEST_MESH_VOXELS, 20_000])
def test_surfaces_lie_on_the_tomogram(exported, monkeypatch, largest):
    monkeypatch.setattr(class_files, "LARGEST_MESH_VOXELS", largest)
    context, labels, files = exported(masks=[], meshes=["obj", "stl"])
    assert len(files) == 12
    centre = (np.argwhere(labels == 1).mean(axis=0) * 12)[::-1] + np.array([1000, 200, -30])
    for kind in ("obj", "stl"):
        path = context.folder.path / "meshes" / f"t1__microtubule.{kind}"
        found = trimesh.load_mesh(path)
        assert found.is_watertight
        # Bins of 2 blur a ball of 7 voxels.
        share = 0.1 if largest > 20_000 else 0.2
        assert found.volume == pytest.approx((labels == 1).sum() * 12**3, rel=share)
        np.testing.assert_allclose(found.center_mass, centre, atol=2.0)


def test_nothing_is_written_where_nothing_is_wanted(exported):
    context, _, files = exported(masks=False)
    assert files == [] and not context.folder.exists("masks")


def test_a_mask_written_again_replaces_the_one_that_was_there(exported):
    context, _, _ = exported(masks=["ome_zarr", "copick"])
    labels = context.volume(context.label_path("semantic"))
    labels.write(Box.whole(SHAPE), np.full(SHAPE, 2, np.uint8))
    context.records.remove("export.json")
    Ledger(context.records, "export", "").forget_all()
    run_stage(context, "export")
    assert opened(context.folder / "masks/t1__actin.zarr", 3)["0"][:].all()
    place = "copick/ExperimentRuns/t1/Segmentations/12.000_tomoseg_0_ribosome.zarr"
    assert not opened(context.folder / place, 2)["0"][:].any()
