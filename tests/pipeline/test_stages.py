"""The stages on small tomograms: in blocks as in one piece, and read by other libraries."""

import mrcfile
import numpy as np
import pytest
import starfile
import zarr
from ome_zarr_models.v05 import Image, ImageLabel
from scipy import ndimage

from tomoseg.compute.runners import SerialRunner
from tomoseg.core.blocks import Box
from tomoseg.core.coordinates import resample
from tomoseg.core.errors import FormatError, ModelError
from tomoseg.core.sampling import Sampling
from tomoseg.io.stores import Folder, OmeZarrReader
from tomoseg.pipeline.session import plan_session
from tomoseg.pipeline.stages import run_stage
from tomoseg.pipeline.stages.context import RAW_LABELS
from tomoseg.pipeline.stages.networks import halo_of
from tomoseg.pipeline.stages.pick import read_particles
from tomoseg.pipeline.stages.trace import read_filaments
from tomoseg.recipe.recipe import recipe_from

WHOLE, BLOCKS = (64, 256, 256), (8, 16, 24)
TINY_SHAPE = (48, 96, 96)
ORIGIN_XYZ, START_XYZ = (-60.0, 24.0, 120.0), (-3, 5, 7)
EVERY_STAGE = ("ingest", "segment", "clean", "trace", "pick", "sample", "export", "report")
CLASSES = ("microtubule", "actin", "single_membrane", "double_membrane", "ribosome", "carbon_edge")


def write_mrc(path, voxels, *, voxel_angstrom=12.0, origin_xyz=(0, 0, 0), start_xyz=(0, 0, 0)):
    with mrcfile.new(path, overwrite=True) as file:
        file.set_data(voxels)
        file.voxel_size = voxel_angstrom
        file.header.origin = origin_xyz
        file.nstart = start_xyz
    return path


def context_for(model, tomogram, output, **sections):
    """Plan a recipe of one tomogram; float32, so that results can be compared bit by bit."""
    segment = {"model": str(model), "precision": "float32", **sections.pop("segment", {})}
    places = {"input": str(tomogram), "output": str(output)}
    session = plan_session(recipe_from({"session": places, "segment": segment, **sections}))
    (found,) = session.tomograms
    return session.context(found, SerialRunner(), lambda *progress: None)


def run(context, *stages):
    return {name: run_stage(context, name) for name in stages}


def stored(context, path):
    """Read an array with zarr alone."""
    return zarr.open_array(zarr.storage.LocalStore(context.image.path), path=path, mode="r")[:]


def plant(context, path, voxels):
    """Stand in for a stage: write a whole volume of bytes."""
    volume = context.volume(path)
    volume.create(voxels.shape, "uint8", shard=context.recipe.blocks.shape, is_labels=True)
    volume.write(Box.whole(voxels.shape), voxels.astype(np.uint8))
    for stage in ("segment", "clean"):
        context.records.write_json(f"{stage}.json", {"digest": "planted", "summary": {}})


def in_blocks(shape):
    return {"blocks": {"shape": shape}}


@pytest.fixture(scope="module")
def noise(tmp_path_factory):
    """A tomogram of int16 whose grey values differ from place to place."""
    rng = np.random.default_rng(7)
    smooth = ndimage.gaussian_filter(rng.normal(size=(21, 52, 60)), 2)
    voxels = (1000 * smooth + rng.normal(0, 40, smooth.shape)).astype(np.int16)
    return write_mrc(tmp_path_factory.mktemp("noise") / "noise.mrc", voxels)


TUBES_ANGSTROM = [((250, 150, 150), (300, 950, 1000)), ((120, 900, 150), (150, 150, 900))]
TUBE_ANGSTROM, BALL_ANGSTROM = 36.0, 50.0


def tube(sampling, ends_angstrom, radius_angstrom):
    """Return scores 0..255 of a straight tube with soft walls, seen on a grid."""
    points = sampling.to_angstrom(np.stack(np.indices(sampling.shape), axis=-1).reshape(-1, 3))
    begin, end = np.array(ends_angstrom, float)
    share = ((points - begin) @ (end - begin) / np.sum((end - begin) ** 2)).clip(0, 1)
    away = np.linalg.norm(points - begin - share[:, None] * (end - begin), axis=1)
    score = ((radius_angstrom - away) / sampling.voxel_angstrom + 0.5).clip(0, 1)
    return np.rint(255 * score).reshape(sampling.shape).astype(np.uint8)


def balls(sampling, number):
    """Return scores 0..255 of balls at random places."""
    places = np.random.default_rng(5).uniform(60, np.array(sampling.shape) * 12 - 60, (number, 3))
    return np.max([tube(sampling, (p, p + 0.01), BALL_ANGSTROM) for p in places], axis=0)


@pytest.fixture(scope="module")
def scene(tiny_session):
    """Labels over a simulated tomogram: boxes of every class, two tubes, balls."""
    sampling = Sampling(TINY_SHAPE, (12.0,) * 3)
    labels = np.zeros(TINY_SHAPE, np.uint8)
    for number, begin in enumerate(np.random.default_rng(1).integers(0, (42, 84, 84), (24, 3))):
        labels[tuple(slice(b, b + 9) for b in begin)] = (1, 3, 4, 6)[number % 4]
    labels[balls(sampling, 12) > 127] = 5
    for ends in TUBES_ANGSTROM:
        labels[tube(sampling, ends, TUBE_ANGSTROM) > 127] = 2
    return labels


def finish(model, source, output, scene):
    """Take a tomogram through all stages, with the scene in place of what the model found."""
    context = context_for(
        model,
        source,
        output,
        segment={"score_maps": False},
        clean={"carbon_edge": {"minimum_volume_nm3": 50.0}},
        trace={"actin": {"radius_angstrom": TUBE_ANGSTROM}},
        pick={"ribosome": {"radius_angstrom": BALL_ANGSTROM}},
        **in_blocks((16, 48, 48)),
    )
    run(context, "ingest", "segment")
    context.volume(RAW_LABELS).write(Box.whole(scene.shape), scene)
    run(context, *EVERY_STAGE[2:])
    return context


@pytest.fixture(scope="module")
def finished(tmp_path_factory, tiny_model, tiny_session, scene):
    """A tomogram after all stages, in blocks, with an origin and a start."""
    folder = tmp_path_factory.mktemp("finished")
    voxels = np.asarray(mrcfile.read(tiny_session / "simulated_0500.mrc"))
    source = write_mrc(folder / "tomo.mrc", voxels, origin_xyz=ORIGIN_XYZ, start_xyz=START_XYZ)
    return finish(tiny_model, source, folder / "out", scene)


@pytest.mark.parametrize("dtype", ["int8", "int16", "uint16", "float16", "float32"])
def test_the_image_is_stored_bit_for_bit(tmp_path, tiny_model, dtype):
    rng = np.random.default_rng(0)
    bits = np.dtype(dtype).itemsize * 8
    if dtype.startswith("float"):
        voxels = rng.normal(size=(13, 37, 41)).astype(dtype)
    else:
        voxels = rng.integers(0, 2**bits, (13, 37, 41), dtype=f"uint{bits}").view(dtype)
    source = write_mrc(tmp_path / "tomo.mrc", voxels)
    context = context_for(tiny_model, source, tmp_path / "out", **in_blocks((8, 16, 16)))
    run(context, "ingest")
    found = stored(context, "0")
    assert found.dtype == dtype
    assert np.array_equal(found.view(f"uint{bits}"), voxels.view(f"uint{bits}"))


@pytest.mark.parametrize("block", [(8, 32, 64), (9, 17, 131)])
@pytest.mark.parametrize("dtype", ["int16", "float32"])
def test_levels_of_the_pyramid_are_means(tmp_path, tiny_model, dtype, block):
    voxels = np.random.default_rng(1).normal(0, 300, (9, 70, 261)).astype(dtype)
    source = write_mrc(tmp_path / "tomo.mrc", voxels)
    # Of these blocks some are of odd edges, in which nothing can be traced or picked.
    context = context_for(
        tiny_model, source, tmp_path / "out", trace={}, pick={}, **in_blocks(block)
    )
    assert run(context, "ingest")["ingest"]["summary"]["levels"] == 3
    for level, shape in ((1, (4, 35, 130)), (2, (2, 17, 65))):
        z, y, x = shape
        cells = voxels[: 2 * z, : 2 * y, : 2 * x].reshape(z, 2, y, 2, x, 2).astype(np.float64)
        means = cells.mean(axis=(1, 3, 5))
        found = stored(context, str(level))
        assert found.dtype == dtype
        wanted = np.rint(means) if dtype == "int16" else means
        assert np.allclose(found, wanted, rtol=1e-6, atol=1e-4)
        voxels = found


def test_statistics_do_not_depend_on_the_blocks(tmp_path, tiny_model, tiny_session):
    source = tiny_session / "simulated_0500.mrc"
    found = []
    for shape in (WHOLE, (8, 24, 40), (24, 96, 16)):
        context = context_for(tiny_model, source, tmp_path / str(shape[0]), **in_blocks(shape))
        run(context, "ingest")
        found.append(context.records.read_json("statistics.json"))
    assert found[0]["count"] == 48 * 96 * 96
    assert found[1] == found[2] == found[0]


def test_a_binned_tomogram_and_its_masks(tmp_path, tiny_model):
    voxels = np.random.default_rng(2).normal(size=(21, 36, 43)).astype(np.float32)
    source = write_mrc(tmp_path / "tomo.mrc", voxels, voxel_angstrom=6.0)
    bins = {"ingest": {"bin": 2}, "trace": {}, "pick": {}, **in_blocks((8, 8, 16))}
    context = context_for(tiny_model, source, tmp_path / "out", clean={}, **bins)
    run(context, "ingest", "segment", "clean", "trace", "pick", "sample", "export")
    image = stored(context, "0")
    assert image.shape == (10, 18, 21)
    means = voxels[:20, :36, :42].reshape(10, 2, 18, 2, 21, 2).mean(axis=(1, 3, 5))
    assert np.allclose(image, means, atol=1e-6)
    labels = stored(context, "labels/semantic/0")
    for label, name in enumerate(CLASSES, start=1):
        wanted = np.zeros(voxels.shape, np.int8)
        wanted[:20, :, :42] = np.kron(labels == label, np.ones((2, 2, 2)))
        path = tmp_path / "out" / "tomo" / "masks" / f"tomo__{name}.mrc"
        with mrcfile.open(path) as file:
            assert np.array_equal(file.data, wanted)
            assert file.voxel_size.x == pytest.approx(6.0)
    assert len(np.unique(labels)) > 2


def test_filaments_stay_in_place_when_the_tomogram_is_binned(tmp_path, tiny_model):
    source = write_mrc(tmp_path / "t.mrc", np.zeros((33, 65, 97), np.int8), voxel_angstrom=10)
    ends = ((160, 120, 150), (180, 500, 820))
    settings = {"radius_angstrom": 80.0, "minimum_length_angstrom": 300.0}
    lines = []
    for factor in (1, 2):
        context = context_for(
            tiny_model,
            source,
            tmp_path / str(factor),
            ingest={"bin": factor},
            trace={"microtubule": settings},
            **in_blocks((16, 32, 32)),
        )
        run(context, "ingest")
        plant(context, "scores/microtubule", tube(context.sampling(), ends, 80.0))
        run(context, "trace")
        (line,) = read_filaments(context, "microtubule")
        lines.append(resample(line.points_angstrom, 5.0))
    begin, end = np.array(ends, float)
    along = (end - begin) / np.linalg.norm(end - begin)
    for line in lines:
        away = np.linalg.norm(np.cross(line - begin, along), axis=1)
        assert away.max() < 10.0
    starts, stops = zip(*((line[0] @ along, line[-1] @ along) for line in lines), strict=True)
    assert np.ptp(starts) < 20.0
    assert np.ptp(stops) < 20.0


@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
@pytest.mark.parametrize("voxel_angstrom", [12.0, 9.0, 15.0])
def test_labels_and_scores_do_not_depend_on_the_blocks(
    tmp_path, tiny_model, noise, voxel_angstrom, precision
):
    source = write_mrc(
        tmp_path / "tomo.mrc", np.asarray(mrcfile.read(noise)), voxel_angstrom=voxel_angstrom
    )
    found = []
    for shape in (WHOLE, BLOCKS):
        sections = {"segment": {"precision": precision}, **in_blocks(shape)}
        context = context_for(tiny_model, source, tmp_path / str(shape[0]), **sections)
        summary = run(context, "ingest", "segment")["segment"]["summary"]
        (network,), (computed,) = summary["networks"], summary["computed"]
        assert computed.startswith(precision)
        assert network["voxel_angstrom"] == pytest.approx(12.0)
        scores = [stored(context, f"scores/{name}").astype(int) for name in context.scored]
        found.append((stored(context, RAW_LABELS), np.stack(scores)))
    (labels, scores), (block_labels, block_scores) = found
    assert len(np.unique(labels)) > 2
    assert len(scores) == 3
    assert np.array_equal(labels, block_labels)
    # A convolution's last bit depends on the block's size: 1e-7 can turn a rounding to 1/255.
    apart = np.abs(scores - block_scores)
    assert apart.max() <= 1
    assert apart.mean() < 1e-4


def test_too_small_a_halo_shows(tmp_path, tiny_model, noise):
    """The test above can fail: without a halo in y and x, blocks are seen in the labels."""
    found = []
    for shape in (WHOLE, BLOCKS):
        halo = {"segment": {"halo": 0, "score_maps": False}}
        context = context_for(
            tiny_model, noise, tmp_path / str(shape[0]), **halo, **in_blocks(shape)
        )
        run(context, "ingest", "segment")
        found.append(stored(context, RAW_LABELS))
    assert not np.array_equal(*found)


def test_halos_in_words_and_voxels(finished):
    card = finished.networks[0].card.model_copy(update={"halo": (2, 8, 8)})
    assert halo_of(card, "default") == (2, 8, 8)
    assert halo_of(card, "exact") == card.architecture.receptive_halo
    assert halo_of(card, 5) == (card.architecture.margin, 5, 5)


def labels_of(context):
    run(context, "ingest", "segment")
    return stored(context, RAW_LABELS)


def test_an_inverted_tomogram_gives_the_same_labels(tmp_path, tiny_model, noise):
    voxels = np.asarray(mrcfile.read(noise))
    inverted = write_mrc(tmp_path / "inverted.mrc", -voxels)
    bright = {"source": {"contrast": "bright"}}
    one = labels_of(context_for(tiny_model, noise, tmp_path / "dark"))
    two = labels_of(context_for(tiny_model, inverted, tmp_path / "bright", **bright))
    unaware = labels_of(context_for(tiny_model, inverted, tmp_path / "unaware"))
    assert np.array_equal(one, two)
    assert not np.array_equal(one, unaware)


def test_contrast_that_may_not_be_flipped_is_an_error(tmp_path, tiny_model, noise):
    wrong = {"source": {"contrast": "bright"}, "segment": {"contrast_mismatch": "error"}}
    context = context_for(tiny_model, noise, tmp_path, **wrong)
    with pytest.raises(ModelError, match=r"bright in .*, and dark.* segment\.contrast_mismatch"):
        run(context, "ingest")
    assert not context.image.exists("0")


def test_score_maps_change_no_label(tmp_path, tiny_model, noise):
    found = {}
    for kept in (True, False):
        context = context_for(tiny_model, noise, tmp_path / str(kept), segment={"score_maps": kept})
        found[kept] = labels_of(context)
        names = {path.name for path in (context.image.path / "scores").glob("[a-z]*/")}
        assert names == ({"microtubule", "actin", "ribosome"} if kept else set())
    assert np.array_equal(found[True], found[False])


def test_labels_and_instances_agree(finished):
    semantic = stored(finished, "labels/semantic/0")
    instances = stored(finished, "labels/instances/0")
    assert np.array_equal(instances > 0, semantic > 0)
    found = []
    for label, name in enumerate(CLASSES, start=1):
        ids = np.unique(instances[semantic == label]).tolist()
        assert finished.summary("clean")["classes"][name]["objects"] == len(ids)
        found += ids
    assert sorted(found) == list(range(1, len(found) + 1))
    assert len(found) > 10


def test_masks_are_the_labels_on_the_grid_of_the_source(finished):
    semantic = stored(finished, "labels/semantic/0")
    for label, name in enumerate(CLASSES, start=1):
        path = finished.folder.path / "masks" / f"tomo__{name}.mrc"
        assert mrcfile.validate(path)
        with mrcfile.open(path) as file:
            assert file.data.dtype == np.int8
            assert np.array_equal(file.data, semantic == label)
            assert tuple(file.header.origin.item()) == pytest.approx(ORIGIN_XYZ)
            assert tuple(file.nstart.item()) == START_XYZ
            assert tuple(file.voxel_size.item()) == pytest.approx((12.0,) * 3)


def test_star_files_hold_what_was_traced_and_picked(finished):
    folder = finished.folder.path
    lines = read_filaments(finished, "actin")
    table = starfile.read(folder / "filaments" / "tomo__actin.star")["particles"]
    assert len(lines) == 2
    assert set(table["rlnHelicalTubeID"]) == {line.number for line in lines}
    first = table[table["rlnHelicalTubeID"] == 1].iloc[0]
    centre_xyz = np.array([96, 96, 48]) / 2 * 12.0
    place = [first[f"rlnCenteredCoordinate{axis}Angst"] for axis in "XYZ"] + centre_xyz
    away = np.linalg.norm(resample(lines[0].points_angstrom, 1.0)[:, ::-1] - place, axis=1)
    assert away.min() < 1.0
    found = read_particles(finished, "ribosome")
    table = starfile.read(folder / "particles" / "tomo__ribosome.star")["particles"]
    points = table[[f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]].to_numpy()
    assert len(found) > 6
    assert np.allclose(points + centre_xyz, found.points_angstrom[:, ::-1], atol=1e-3)
    named = starfile.read(folder / "particles" / "tomo__ribosome__optimisation_set.star")
    for path in np.ravel(list(named.values()) if isinstance(named, dict) else named.to_numpy()):
        assert (folder.parent / str(path)).is_file()


def test_the_output_is_valid_ome_zarr(finished):
    group = zarr.open_group(finished.image.path, mode="r")
    image = Image.from_zarr(group)
    assert [axis.unit for axis in image.ome_attributes.multiscales[0].axes] == ["angstrom"] * 3
    assert sorted(group["labels"].attrs["ome"]["labels"]) == ["instances", "semantic"]
    for name in ("semantic", "instances"):
        label = ImageLabel.from_zarr(group[f"labels/{name}"])
        datasets = label.ome_attributes.multiscales[0].datasets
        assert len(datasets) == len(image.ome_attributes.multiscales[0].datasets)
        scale, translation = datasets[0].coordinateTransformations
        assert list(scale.scale) == [12.0] * 3
        assert list(translation.translation) == [0.0] * 3
    again = OmeZarrReader(finished.image.url).header
    assert again.sampling == finished.sampling()


def test_tracing_and_picking_do_not_depend_on_the_blocks(tmp_path, tiny_model):
    source = write_mrc(tmp_path / "tomo.mrc", np.zeros((28, 60, 68), np.int8))
    settings = {
        "trace": {"actin": {"radius_angstrom": TUBE_ANGSTROM}},
        "pick": {
            "ribosome": {"radius_angstrom": BALL_ANGSTROM},
            "carbon_edge": {"radius_angstrom": BALL_ANGSTROM, "method": "components"},
        },
        "clean": {},
    }
    grid = Sampling((28, 60, 68), (12.0,) * 3)
    ends = [((100, 60, 60), (230, 640, 700)), ((170, 640, 80), (150, 80, 740))]
    tubes = np.maximum(*(tube(grid, line, TUBE_ANGSTROM) for line in ends))
    spots = balls(grid, 12)
    found = []
    for blocks in (WHOLE, (16, 24, 16), (8, 32, 32)):
        context = context_for(
            tiny_model, source, tmp_path / f"{blocks[1]}", **settings, **in_blocks(blocks)
        )
        run(context, "ingest")
        plant(context, "scores/actin", tubes)
        plant(context, "scores/ribosome", spots)
        plant(context, RAW_LABELS, 6 * (spots > 127))
        run(context, "clean", "trace", "pick")
        lines = read_filaments(context, "actin")
        picked = [read_particles(context, name) for name in ("ribosome", "carbon_edge")]
        found.append(
            [
                *(line.points_angstrom for line in lines),
                *(part.points_angstrom for part in picked),
                *(part.scores for part in picked),
            ]
        )
        assert len(lines) == 2
        assert min(len(part) for part in picked) > 5
    for other in found[1:]:
        assert len(other) == len(found[0])
        for one, two in zip(found[0], other, strict=True):
            assert np.array_equal(one, two, equal_nan=True)


@pytest.mark.parametrize(("bad", "is_refused"), [(3, False), (30, True)])
def test_voxels_that_are_no_numbers(tmp_path, tiny_model, bad, is_refused):
    voxels = np.random.default_rng(0).normal(size=(10, 20, 30)).astype(np.float32)
    voxels.ravel()[np.linspace(0, voxels.size - 1, bad).astype(int)] = np.nan
    source = tmp_path / "tomo.mrc"
    with pytest.warns(RuntimeWarning, match="NaN"):
        write_mrc(source, voxels)
    limit = {"source": {"maximum_not_finite": 0.001}}
    context = context_for(tiny_model, source, tmp_path / "out", **limit, **in_blocks(BLOCKS))
    if is_refused:
        with pytest.raises(FormatError, match=r"source\.maximum_not_finite"):
            run(context, "ingest")
        return
    records = run(context, *EVERY_STAGE)
    (note,) = records["ingest"]["summary"]["notes"]
    assert note.startswith("3 voxels (0.05%) are not finite")
    assert np.array_equal(stored(context, "0"), voxels, equal_nan=True)
    assert records["segment"]["summary"]["voxels"]


def test_results_go_to_object_storage(tiny_model, finished, scene):
    """memory:// goes the way of s3://: fsspec, no local paths."""
    url = "memory://test-stages"
    context = finish(tiny_model, finished.source_url, url, scene)
    try:
        files = finished.summary("export")["files"]
        assert len(files) > 8
        for path in files:
            assert context.folder.read(path) == finished.folder.read(path)
        labels = context.volume("labels/semantic/0").read(Box.whole(TINY_SHAPE))
        assert np.array_equal(labels, stored(finished, "labels/semantic/0"))
        assert all(run_stage(context, name)["is_reused"] for name in EVERY_STAGE)
    finally:
        Folder(url).remove("tomo")
