"""What was looked for and not found is told, with the causes that a person can look into."""

import pytest

from tomoseg.analysis.filaments import tracing_defaults
from tomoseg.analysis.particles import PickingSettings
from tomoseg.pipeline.stages.findings import empty_notes
from tomoseg.recipe.recipe import Recipe
from tomoseg.recipe.source import SourceSection
from tomoseg.report.summary import ClassSummary

RECIPE = Recipe(
    trace={"actin": tracing_defaults("actin")}, pick={"ribosome": PickingSettings(threshold=0.9)}
)


def found(name, voxels, **counts):
    return ClassSummary(name, "#ff0000", voxels, float(voxels), **counts)


def notes(*classes, recipe=RECIPE):
    return empty_notes(classes, recipe, voxel_angstrom=13.48)


def test_what_was_found_needs_no_note():
    assert notes(found("actin", 9, filaments=1), found("ribosome", 9, particles=2)) == []
    # Of one class there may be none.
    assert notes(found("actin", 0, filaments=0), found("membrane", 9)) == []


@pytest.mark.parametrize(("contrast", "other"), [("dark", "bright"), ("bright", "dark")])
def test_an_empty_tomogram_names_the_keys_to_look_at(contrast, other):
    recipe = RECIPE.model_copy(update={"source": SourceSection(contrast=contrast)})
    (note,) = notes(found("actin", 0, filaments=0), recipe=recipe)
    assert f"source.contrast: {other}; measured: not clear" in note
    assert "13.48 Å (source.voxel_size_angstrom)" in note


def test_labels_without_objects_name_the_settings_that_leave_them_out():
    lines, particles = notes(
        found("actin", 1200, filaments=0, filament_length_um=0.0),
        found("ribosome", 500, particles=0),
    )
    assert lines.startswith("actin: 1,200 voxels are labelled and no filament was traced")
    assert "trace.actin.minimum_length_angstrom (400)" in lines
    assert "pick.ribosome.threshold (0.9)" in particles
