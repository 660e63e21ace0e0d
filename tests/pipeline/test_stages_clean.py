"""Cleaning in blocks equals cleaning the whole volume with scipy."""

import mrcfile
import numpy as np
import pytest
import zarr
from scipy import ndimage

from tomoseg.analysis import cleanup
from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.errors import RequestError, StoreError
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.recipe.recipe import recipe_from

WHOLE, BLOCKS = (64, 256, 256), (8, 16, 24)
CLASSES = ("microtubule", "actin", "single_membrane", "double_membrane", "ribosome", "carbon_edge")


def write_mrc(path, voxels):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.voxel_size = 12.0
    return path


def context_for(model, tomogram, output, **sections):
    """Plan a recipe of one tomogram."""
    places = {"input": str(tomogram), "output": str(output)}
    segment = {"model": str(model)}
    session = plan_session(recipe_from({"session": places, "segment": segment, **sections}))
    (found,) = session.tomograms
    return session.context(found, SerialRunner(), lambda *progress: None)


def cleaned(context, labels):
    """Clean labels that stand in for what a network found; return classes and objects."""
    run_stage(context, "ingest")
    volume = context.volume(RAW_LABELS)
    volume.create(labels.shape, "uint8", shard=context.recipe.blocks.shape, is_labels=True)
    volume.write(Box.whole(labels.shape), labels)
    context.records.write_json("segment.json", {"digest": "planted", "summary": {}})
    run_stage(context, "clean")
    store = zarr.storage.LocalStore(context.image.path)
    names = ("semantic", "instances")
    return [zarr.open_array(store, path=f"labels/{name}/0", mode="r")[:] for name in names]


def blobs(shape, seed):
    """Labels 1..6 in blobs with holes, bridges, specks, and blobs that the border cuts."""
    rng = np.random.default_rng(seed)
    fields = ndimage.gaussian_filter(rng.normal(size=(6, *shape)), (0, 1.6, 1.6, 1.6))
    labels = np.argmax(fields, axis=0).astype(np.uint8) + 1
    labels[fields.max(axis=0) < np.quantile(fields.max(axis=0), 0.55)] = 0
    labels[rng.random(shape) < 0.01] = 0
    return labels


CLEANING = {
    "microtubule": {"opening_angstrom": 15.0, "minimum_volume_nm3": 100.0},
    "actin": {"closing_angstrom": 25.0, "fill_holes_nm3": 400.0},
    "single_membrane": {"border_angstrom": 40.0, "minimum_volume_nm3": 30.0},
    "double_membrane": {"closing_angstrom": 13.0, "opening_angstrom": 13.0},
    "ribosome": {"fill_holes_nm3": 30.0},
}


def cleaned_whole(labels, sampling, settings, allowed):
    """Clean a whole volume with scipy; return the objects, their classes, and how many each has."""
    smooth = np.zeros_like(labels)
    for value, one in settings.items():
        mask = cleanup.smooth_mask(
            labels == value,
            Box.whole(labels.shape),
            begin=(0, 0, 0),
            sampling=sampling,
            settings=one,
            allowed=allowed,
        )
        # Where two classes meet, the one that was there stays, else the first.
        smooth[mask & ((smooth == 0) | (labels == value))] = value
    filled = smooth.copy()
    for value, one in settings.items():
        parts, _ = ndimage.label(smooth != value)
        for number, box in enumerate(ndimage.find_objects(parts), start=1):
            part, there = parts[box] == number, filled[box]
            ends = zip(box, labels.shape, strict=True)
            is_open = any(edge.start == 0 or edge.stop == size for edge, size in ends)
            if not is_open and part.sum() * sampling.voxel_volume_nm3 <= one.fill_holes_nm3:
                there[part & (there == 0) & allowed[box]] = value
    objects, counts = np.zeros(labels.shape, np.int64), []
    for value, one in settings.items():
        parts, count = ndimage.label(filled == value, np.ones((3, 3, 3)))
        sizes = np.bincount(parts.ravel(), minlength=count + 1) * sampling.voxel_volume_nm3
        kept = np.flatnonzero(sizes[1:] >= one.minimum_volume_nm3) + 1
        objects += np.where(np.isin(parts, kept), objects.max() + parts, 0)
        counts.append(len(kept))
    # Numbers go by the place of an object's first voxel, whatever its class.
    found, first, ids = np.unique(objects, return_index=True, return_inverse=True)
    ranks = np.zeros(len(found), np.int64)
    ranks[1:][np.argsort(first[1:])] = np.arange(1, len(found))
    return ranks[ids].reshape(labels.shape), filled * (objects > 0), counts


@pytest.mark.parametrize(("with_mask", "factor"), [(False, 1), (True, 1), (True, 2)])
def test_cleaning_in_blocks_equals_cleaning_the_whole(tmp_path, tiny_model, with_mask, factor):
    shape = (20, 44, 52)
    source_shape = tuple(factor * n for n in shape)
    grey = np.random.default_rng(0).integers(-9, 9, source_shape, np.int8)
    source = write_mrc(tmp_path / "tomo.mrc", grey)
    labels = blobs(shape, seed=3)
    allowed = np.indices(shape).sum(axis=0) % 60 > 12
    allowed &= np.random.default_rng(4).random(shape) > 0.02
    write_mrc(tmp_path / "tomo_lamella.mrc", np.kron(allowed, np.ones((factor,) * 3, np.int8)))
    mask = {"source": {"mask": "{folder}/{name}_lamella.mrc"}} if with_mask else {}
    found = []
    for blocks in (WHOLE, BLOCKS):
        context = context_for(
            tiny_model,
            source,
            tmp_path / f"{blocks[1]}",
            clean=CLEANING,
            ingest={"bin": factor},
            blocks={"shape": blocks},
            **mask,
        )
        found.append(cleaned(context, labels))
    given = context.recipe.clean
    settings = {
        label: given.get(name, cleanup.CleaningSettings())
        for label, name in enumerate(CLASSES, start=1)
    }
    ids, classes, counts = cleaned_whole(
        labels, context.sampling(), settings, allowed if with_mask else np.ones(shape, bool)
    )
    assert min(counts) > 1
    for semantic, instances in found:
        assert np.array_equal(instances, ids)
        assert np.array_equal(semantic, classes)
        if with_mask:
            assert not semantic[~allowed].any()
    rows = context.summary("clean")["classes"]
    assert [rows[name]["objects"] for name in CLASSES] == counts
    for label, name in enumerate(CLASSES, start=1):
        numbers = context.records.read_arrays(f"objects/{name}.npz")["ids"]
        assert np.array_equal(numbers, np.unique(ids[classes == label]))


def test_a_mask_of_another_grid_is_refused(tmp_path, tiny_model):
    labels = np.zeros((9, 10, 11), np.uint8)
    source = write_mrc(tmp_path / "tomo.mrc", labels.view(np.int8))
    write_mrc(tmp_path / "mask.mrc", np.ones((4, 5, 6), np.int8))
    mask = {"source": {"mask": str(tmp_path / "mask.mrc")}}
    context = context_for(tiny_model, source, tmp_path / "out", **mask)
    with pytest.raises(RequestError, match=r"shape \(4, 5, 6\).*\(9, 10, 11\)"):
        cleaned(context, labels)


def test_cleaning_needs_a_segmentation(tmp_path, tiny_model):
    source = write_mrc(tmp_path / "tomo.mrc", np.zeros((16, 32, 32), np.int8))
    with pytest.raises(StoreError, match=r"segment\.json"):
        run_stage(context_for(tiny_model, source, tmp_path), "clean")


@pytest.mark.parametrize("block", [(9, 32, 40), (8, 15, 200), (40, 200, 200)])
def test_of_every_coarser_level_of_labels_every_second_voxel_stands(tmp_path, tiny_model, block):
    shape = (19, 33, 161)
    source = write_mrc(tmp_path / "tomo.mrc", np.zeros(shape, np.int8))
    context = context_for(
        tiny_model, source, tmp_path / "out",
        clean={}, trace={}, pick={}, blocks={"shape": list(block)},
    )  # fmt: skip
    finest = cleaned(context, blobs(shape, seed=5))
    store = zarr.storage.LocalStore(context.image.path)
    for name, whole in zip(("semantic", "instances"), finest, strict=True):
        half = zarr.open_array(store, path=f"labels/{name}/1", mode="r")[:]
        assert half.shape == (9, 16, 80)
        np.testing.assert_array_equal(half, whole[:18:2, :32:2, :160:2])
        assert (half > 0).mean() > 0.1
