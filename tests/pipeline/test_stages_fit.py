"""What a header decides is known before any work, with the stages' own words."""

import pytest

from tomoseg.core.errors import RequestError, TomosegError
from tomoseg.core.sampling import Header, Sampling
from tomoseg.pipeline.stages.fit import check_recipe
from tomoseg.pipeline.stages.networks import load_networks
from tomoseg.recipe.recipe import recipe_from

CLASSES = ("microtubule", "ribosome", "single_membrane")
TOMOGRAM = Header(Sampling((64, 128, 128), (12.0, 12.0, 12.0)), "float32")
NOTHING = {"trace": {}, "pick": {}, "sample": {}}


@pytest.fixture
def checked(tiny_model):
    """Return a function that checks a recipe's sections against a tomogram."""

    def check(sections, header=TOMOGRAM, name="TS_01"):
        segment = {"model": str(tiny_model)}
        recipe = recipe_from({**NOTHING, "segment": segment, **sections})
        networks = load_networks(recipe.segment)
        return check_recipe(recipe, networks, name, header)

    return check


def test_a_recipe_that_fits_is_silent(checked):
    every = ["relion5", "relion4", "warp", "dynamo", "stopgap", "av3", "imod", "amira", "eman2",
             "copick", "portal", "csv", "tardis"]  # fmt: skip
    sections = {
        "trace": {"microtubule": {}},
        "pick": {"ribosome": {}},
        "sample": {"single_membrane": {}, "ribosome": {}},
        "export": {"dialects": every},
    }
    assert checked(sections) == ()
    assert checked({**sections, "sample": {}}, flat()) == ()


def flat():
    return Header(Sampling((1, 128, 128), (12.0, 12.0, 12.0)), "float32")


@pytest.mark.parametrize(
    ("sections", "message"),
    [
        ({"trace": {"actin": {"radius_angstrom": 9}}}, r"trace\.actin: .* 9.* 0\.75 voxels thick"),
        ({"pick": {"ribosome": {"radius_angstrom": 9}}}, r"pick\.ribosome: .* 0\.75 voxels"),
        (
            {"pick": {"ribosome": {"radius_angstrom": 15, "method": "watershed"}}},
            r"pick\.ribosome: .* needed for a watershed",
        ),
        (
            {"pick": {"ribosome": {"method": "components", "maximum_volume_nm3": 9}}},
            r"pick\.ribosome: a least volume of 2874 nm³ and a largest of 9 nm³ keep nothing",
        ),
        (
            {"sample": {"membrane": {"thickness_angstrom": 20}}},
            r"sample\.membrane: .* 1\.67 voxels",
        ),
        (
            {"trace": {"actin": {"radius_angstrom": 200}}, "blocks": {"shape": [9, 101, 33]}},
            r"trace\.actin: block \(9, 101, 33\) is not a multiple .* blocks\.shape",
        ),
        ({"ingest": {"bin": 16}}, "2.5 times apart is not rescaled, so that it takes 4.8 to 30 Å"),
        ({"ingest": {"bin": 2}, "trace": {"a": {"radius_angstrom": 20}}}, r"trace\.a: .* 0\.83"),
        (
            {"export": {"tilt_series_pixel_size_angstrom": 3, "tilt_series_size_xyz": [9, 9, 9]}},
            "they disagree in x, y, z",
        ),
    ],
)
def test_what_a_stage_would_refuse_is_refused_with_its_key(checked, sections, message):
    with pytest.raises(TomosegError, match=message) as caught:
        checked(sections)
    assert caught.value.remedy


def test_blocks_that_no_memory_holds_are_refused_as_far_as_a_tomogram_reaches(checked):
    sections = {"blocks": {"shape": [1024, 1024, 1024]}}
    assert checked(sections) == ()
    large = Header(Sampling((1024, 4096, 4096), (12.0, 12.0, 12.0)), "int8")
    with pytest.raises(RequestError, match=r"1024×1024×1024 .* 8 GiB, and compute.memory_gib is 4"):
        checked(sections, large)
    assert checked({**sections, "compute": {"memory_gib": 16}}, large) == ()


@pytest.mark.parametrize(
    ("dialect", "name", "message"),
    [
        ("imod", "x" * 80, "export.dialects: imod: .* longer than IMOD's"),
        ("copick", "_", "export.dialects: copick: .* cannot be the name of a copick object"),
        ("amira", 'a"b', "export.dialects: amira: .* cannot be a name in Amira"),
    ],
)
def test_names_that_a_program_cannot_read_are_refused(checked, dialect, name, message):
    sections = {"pick": {name: {}}, "export": {"dialects": [dialect]}}
    with pytest.raises(RequestError, match=message):
        checked(sections)


def test_a_name_that_is_no_run_of_copick_is_refused(checked):
    with pytest.raises(RequestError, match="cannot be the name of a copick run"):
        checked({"export": {"dialects": ["copick"]}}, name="TS/01")


def test_all_that_does_not_fit_is_told_at_once(checked):
    sections = {
        "ingest": {"bin": 4},
        "trace": {"actin": {"radius_angstrom": 9}},
        "pick": {"ribosome": {"radius_angstrom": 9}},
    }
    with pytest.raises(RequestError) as caught:
        checked(sections)
    for part in ("model tiny was trained", "trace.actin: ", "pick.ribosome: "):
        assert part in caught.value.message


def test_what_should_be_known_of_the_points_is_returned(checked):
    export = {"tilt_series_pixel_size_angstrom": 3, "tilt_series_size_xyz": [512, 512]}
    (note,) = checked({"export": export})
    assert "has no z: 256 pixels of 3 Å are taken" in note
