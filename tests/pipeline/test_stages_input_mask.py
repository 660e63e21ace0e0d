"""Masks: nothing lies outside, inside all stays bit for bit, and nothing unsure is picked."""

import gzip
import json

import mrcfile
import numpy as np
import pytest
import tifffile
import zarr
from scipy import ndimage

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.coordinates import Filament
from tomoseg.core.errors import RequestError
from tomoseg.core.sampling import Sampling
from tomoseg.pipeline.checks import check_session
from tomoseg.pipeline.session import plan_session, run_session
from tomoseg.pipeline.stages import run_stage, segment
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.pipeline.stages.input_mask import codes_at, inside_parts, open_mask
from tomoseg.recipe.recipe import recipe_from
from tomoseg.recipe.source import MaskValues, SourceSection
from tomoseg.service.status import session_status

SHAPE = (21, 52, 60)
WHOLE, BLOCKS = (64, 256, 256), (8, 16, 24)


def write_mrc(path, voxels):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.voxel_size = 12.0
    return path


@pytest.fixture
def noise(tmp_path):
    """A tomogram of 12 Å whose grey values differ from place to place."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.normal(size=SHAPE), 2)
    voxels = (1000 * smooth + rng.normal(0, 40, SHAPE)).astype(np.int16)
    return write_mrc(tmp_path / "noise.mrc", voxels)


@pytest.fixture
def session_of(tmp_path, tiny_model, noise):
    """Plan a recipe of the tomogram; float32, so that results can be compared bit by bit."""

    def plan(output="out", source=None, **sections):
        values = {
            "session": {"input": str(noise), "output": str(tmp_path / output)},
            "source": source or {},
            "segment": {"model": str(tiny_model), "precision": "float32"},
            "compute": {"runner": "serial"},
        }
        return plan_session(recipe_from(values | sections))

    return plan


@pytest.fixture
def context_of(session_of):
    def plan(*output, **sections):
        session = session_of(*output, **sections)
        return session.context(session.tomograms[0], SerialRunner(), lambda *progress: None)

    return plan


def stored(context, path):
    return zarr.open_array(zarr.storage.LocalStore(context.image.path), path=path, mode="r")[:]


def nearest(codes, factors, shape):
    """Return codes on a finer grid, by the definition."""
    places = [np.arange(n) // f for n, f in zip(shape, factors, strict=True)]
    clipped = [np.minimum(p, n - 1) for p, n in zip(places, codes.shape, strict=True)]
    return codes[np.ix_(*clipped)]


@pytest.mark.parametrize("suffix", ["mrc", "tif", "zarr"])
@pytest.mark.parametrize(
    ("factor", "is_rest_kept", "bin_"),
    [(1, False, 1), (2, False, 1), (3, True, 1), (4, False, 2), (2, True, 4), (3, False, 2)],
)
def test_a_mask_is_read_as_its_nearest_voxels(tmp_path, suffix, factor, is_rest_kept, bin_):
    tomogram = Sampling((26, 41, 46), (10.0,) * 3)
    shape = tuple(-(-n // factor) if is_rest_kept else n // factor for n in tomogram.shape)
    codes = np.random.default_rng(1).choice(3, shape, p=[0.5, 0.25, 0.25]).astype(np.int8)
    path = tmp_path / f"mask.{suffix}"
    if suffix == "mrc":
        write_mrc(path, codes)
    elif suffix == "tif":
        tifffile.imwrite(path, codes.astype(np.uint8), photometric="minisblack")
    else:
        write_zarr(path, codes)
    mask = open_mask(str(path), SourceSection(), tomogram)
    assert mask.factors == (factor,) * 3
    fine = nearest(codes, mask.factors, tomogram.shape)
    wanted = np.empty(tomogram.binned(bin_).shape, np.uint8)
    for voxel in np.ndindex(wanted.shape):
        cell = fine[tuple(slice(bin_ * i, bin_ * i + bin_) for i in voxel)]
        kept, unsure = (cell != 0).sum(), (cell == 2).sum()
        wanted[voxel] = 0 if 2 * kept < cell.size else 1 + (unsure > kept - unsure)
    for box in (Box.whole(wanted.shape), Box((1, 2, 3), (5, 9, 11))):
        assert np.array_equal(mask.read(box, (bin_,) * 3), wanted[box.slices])


def write_zarr(path, voxels):
    transform = [{"type": "scale", "scale": [1.0, 1.0, 1.0]}]
    axes = [{"name": name, "type": "space"} for name in "zyx"]
    levels = [{"path": "0", "coordinateTransformations": transform}]
    ome = {"version": "0.5", "multiscales": [{"axes": axes, "datasets": levels}]}
    group = zarr.open_group(str(path), mode="w", zarr_format=3, attributes={"ome": ome})
    group.create_array("0", data=voxels)


@pytest.mark.parametrize(
    ("voxels", "values", "message"),
    [
        (7, {}, r"value 7; known are 0 outside, 1 inside, 255 inside, 2 unsure\. .*mask_values"),
        (0.5, {}, r"values 0.5\.\.0.5 of float32 are not labels"),
        (1, {"inside": (9,), "outside": (0, 3)}, "value 1; known are 0 outside, 3 outside, 9"),
    ],
)
def test_values_that_mean_nothing_are_named(session_of, tmp_path, voxels, values, message):
    dtype = np.float32 if isinstance(voxels, float) else np.int8
    write_mrc(tmp_path / "mask.mrc", np.full(SHAPE, voxels, dtype))
    source = {"mask": "{folder}/mask.mrc", "mask_values": values}
    (check,) = check_session(session_of(source=source), reads_masks=True)
    with pytest.raises(RequestError, match=message):
        raise RequestError(check.problem)


@pytest.mark.parametrize("top", [1.0, 200])
def test_a_mask_with_soft_edges_is_read_above_a_threshold(tmp_path, top):
    voxels = np.zeros(SHAPE, np.float32 if top == 1 else np.uint8)
    voxels[5:] = top
    voxels[4] = top * 0.4
    path = write_mrc(tmp_path / "soft.mrc", voxels if top == 1 else voxels.view(np.int8))
    tomogram = Sampling(SHAPE, (12.0,) * 3)
    with pytest.raises(RequestError, match="mask_values"):
        open_mask(str(path), SourceSection(), tomogram).check_values(SHAPE)
    mask = open_mask(
        str(path),
        SourceSection(mask=str(path), mask_values=MaskValues(threshold=top / 2)),
        tomogram,
    )
    assert np.array_equal(mask.read(Box.whole(SHAPE)), voxels > top / 2)


def test_masks_that_are_missing_or_of_another_shape_are_named(session_of, tmp_path):
    write_mrc(tmp_path / "other.mrc", np.ones((21, 52, 59), np.int8))
    for name, message in (("none", "does not exist"), ("other", "shape (21, 52, 59), the tomo")):
        session = session_of(source={"mask": f"{{folder}}/{name}.mrc"})
        (check,) = check_session(session, reads_masks=True)
        assert f"{name}.mrc" in check.problem
        assert message in check.problem


def test_a_value_has_one_meaning():
    with pytest.raises(
        RequestError, match="a value means two things: 0 outside, 1 inside, 255 inside, 1 uns"
    ):
        recipe_from({"source": {"mask_values": {"unsure": (1,)}}})


@pytest.fixture
def lamella(tmp_path):
    """A mask binned by 2, 255 inside and 2 unsure; what it means on the tomogram's grid."""
    z, y, x = np.indices(tuple(n // 2 for n in SHAPE))
    values = np.where(x + y // 4 < 17, 255, 0)
    values[(values == 255) & (z < 3)] = 2
    tifffile.imwrite(tmp_path / "lamella.tif", values.astype(np.uint8), photometric="minisblack")
    source = {"mask": "{folder}/lamella.tif", "mask_values": {"inside": [255]}}
    return source, nearest(values, (2, 2, 2), SHAPE) > 0


def test_a_mask_decides_what_counts_and_where_results_lie(context_of, noise, lamella, monkeypatch):
    source, is_kept = lamella
    inside = mrcfile.read(noise)[is_kept].astype(float)
    with monkeypatch.context() as patch:
        patch.setattr(segment, "stored_mask", lambda context: None)
        free = context_of("free", source=source, blocks={"shape": BLOCKS})
        run_stage(free, "ingest")
        run_stage(free, "segment")
    assert stored(free, RAW_LABELS)[~is_kept].any()
    assert stored(free, "scores/ribosome")[~is_kept].any()
    for shape in (WHOLE, BLOCKS):
        masked = context_of(f"{shape[0]}", source=source, blocks={"shape": shape})
        told = run_stage(masked, "ingest")["summary"]
        summary = run_stage(masked, "segment")["summary"]
        labels = stored(masked, RAW_LABELS)
        assert np.array_equal(labels, np.where(is_kept, stored(free, RAW_LABELS), 0))
        assert np.bincount(labels.ravel(), minlength=7).tolist() == summary["voxels"]
        scores, whole = (stored(one, "scores/ribosome").astype(int) for one in (masked, free))
        assert np.abs(scores - np.where(is_kept, whole, 0)).max() <= 1
        assert not scores[~is_kept].any()
        statistics = masked.records.read_json("statistics.json")
        assert statistics["count"] == is_kept.sum()
        assert statistics["mean"] == np.float32(inside.mean())
        assert statistics["std"] == pytest.approx(inside.std(), rel=1e-6)
        share = f"{100 * np.mean(~is_kept):.2g}%"
        assert told["notes"] == [
            f"{share} of the voxels are outside the mask: they do not count in the statistics of "
            "grey values"
        ]
    wholly_outside = sum(not is_kept[b.write.slices].any() for b in BlockGrid(SHAPE, BLOCKS))
    assert summary["blocks"] == {"all": 36, "skipped": {"outside the mask": wholly_outside}}
    assert wholly_outside == 15


def test_skipped_blocks_are_told_everywhere(session_of, lamella, tmp_path):
    source, is_kept = lamella
    sections = {"clean": {}, "trace": {}, "pick": {}, "blocks": {"shape": BLOCKS}}
    session = session_of(source=source, **sections)
    run_session(session, lambda *progress: None)
    said = "15 of 36 blocks not predicted: 15 outside the mask"
    manifest = json.loads((tmp_path / "out" / "noise" / "manifest.json").read_text())
    assert manifest["stages"]["segment"]["summary"]["blocks"]["skipped"] == {"outside the mask": 15}
    assert said in (tmp_path / "out" / "index.html").read_text()
    assert said in session_status(str(tmp_path / "out"))["tomograms"][0]["say"]
    masks = tmp_path / "out" / "noise" / "masks"
    found = np.sum([mrcfile.read(path) for path in masks.iterdir()], axis=0)
    assert found[is_kept].any()
    assert not found[~is_kept].any()


def test_a_compressed_mask_is_unpacked_on_the_way(session_of, context_of, tmp_path):
    codes = np.random.default_rng(2).integers(0, 3, SHAPE).astype(np.int8)
    plain = write_mrc(tmp_path / "mask.mrc", codes)
    (tmp_path / "mask.mrc.gz").write_bytes(gzip.compress(plain.read_bytes()))
    plain.unlink()
    source = {"mask": "{folder}/mask.mrc.gz"}
    (check,) = check_session(session_of(source=source), reads_masks=True)
    assert check.problem == ""
    context = context_of(source=source, blocks={"shape": BLOCKS})
    run_stage(context, "ingest")
    assert np.array_equal(stored(context, "work/mask"), codes)
    assert not context.records.exists("unpacked-mask")


def test_another_mask_is_another_result(context_of, lamella, tmp_path):
    source, _ = lamella
    context = context_of(source=source)
    run_stage(context, "ingest")
    run_stage(context, "segment")
    assert run_stage(context_of(source=source), "segment")["is_reused"]
    values = {"inside": [2], "outside": [0, 255], "unsure": []}
    other = context_of(source=source | {"mask_values": values})
    assert not run_stage(other, "ingest")["is_reused"]
    assert not run_stage(other, "segment")["is_reused"]
    assert set(np.unique(stored(context, "work/mask"))) == {0, 1}


@pytest.fixture
def thirds(context_of, tmp_path):
    """A tomogram whose first 20 columns are inside, whose next are unsure, whose last outside."""
    codes = np.ones(SHAPE, np.int8)
    codes[:, :, 20:], codes[:, :, 40:] = 2, 0
    write_mrc(tmp_path / "mask.mrc", codes)
    pick = {"ribosome": {"radius_angstrom": 40.0, "surroundings_angstrom": 0}}
    mask = {"mask": "{folder}/mask.mrc"}
    trace = {"actin": {"radius_angstrom": 36.0, "minimum_length_angstrom": 240.0}}
    context = context_of(source=mask, pick=pick, trace=trace, blocks={"shape": (8, 16, 24)})
    run_stage(context, "ingest")
    return context


def test_particles_are_picked_inside_alone(thirds):
    centres = np.array([(10, 26, x) for x in (10, 30, 50)])
    places = np.moveaxis(np.indices(SHAPE), 0, -1)
    away = np.min([np.linalg.norm(places - centre, axis=-1) for centre in centres], axis=0)
    scores = thirds.volume("scores/ribosome")
    scores.create(SHAPE, "uint8", shard=(8, 16, 24), is_labels=True)
    scores.write(Box.whole(SHAPE), (255 * (away < 40 / 12)).astype(np.uint8))
    thirds.records.write_json("clean.json", {"digest": "planted", "summary": {}})
    found = run_stage(thirds, "pick")["summary"]["ribosome"]
    assert found == {"particles": 1, "left_out": {"outside the mask": 2}}
    (point,) = thirds.records.read_arrays("particles/ribosome.npz")["points_angstrom"] / 12
    assert np.linalg.norm(point - centres[0]) < 1


def test_filaments_end_at_the_mask(thirds):
    columns = np.array([5.0, 15, 25, 35, 39.4, 39.6, 45, 35, 37])
    points = 12 * np.stack([np.full(9, 10.0), np.full(9, 20.0), columns], axis=1)
    assert codes_at(thirds, points).tolist() == [1, 1, 2, 2, 2, 0, 0, 2, 2]
    line = Filament("actin", 3, points, 0.8)
    (part,) = inside_parts(thirds, line, minimum_angstrom=100.0)
    assert np.array_equal(part.points_angstrom, points[:5])
    assert (part.name, part.score) == ("actin", 0.8)
    inside = Filament("actin", 4, points[:2], 0.8)
    assert inside_parts(thirds, inside, minimum_angstrom=1000.0) == [inside]


def test_a_tube_that_leaves_the_mask_is_traced_to_its_edge(thirds):
    z, y, _ = np.indices(SHAPE)
    scores = thirds.volume("scores/actin")
    scores.create(SHAPE, "uint8", shard=(8, 16, 24), is_labels=True)
    tube = 255 * (np.hypot(z - 10, y - 26) < 3)
    scores.write(Box.whole(SHAPE), tube.astype(np.uint8))
    thirds.records.write_json("clean.json", {"digest": "planted", "summary": {}})
    summary = run_stage(thirds, "trace")["summary"]["actin"]
    columns = thirds.records.read_arrays("filaments/actin.npz")["points_angstrom"][:, 2] / 12
    assert summary["filaments"] == 1
    assert columns.min() < 5
    assert 35 < columns.max() < 39.5
