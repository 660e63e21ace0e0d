"""Report: the overview picture of a tomogram, from a few slices."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import BlockGrid, Box
from tomoseg.core.layout import OVERVIEW, THUMBNAIL
from tomoseg.core.version import code_version
from tomoseg.io.stores import Ledger
from tomoseg.pipeline.results import Results
from tomoseg.pipeline.stages.context import Context, Piece, Stage
from tomoseg.pipeline.stages.files import make_files
from tomoseg.pipeline.stages.pick import read_particles
from tomoseg.pipeline.stages.sample import read_samples
from tomoseg.pipeline.stages.trace import read_filaments
from tomoseg.report.pictures import TomogramPicture, tomogram_figure, tomogram_thumbnail
from tomoseg.report.sheet import Projection, Slice
from tomoseg.report.summary import ClassSummary

PROJECTED_NM = 60.0


def _settings(context: Context) -> Any:
    return {"colours": context.colours, "name": context.name}


def class_summaries(results: Results) -> tuple[ClassSummary, ...]:
    """Return what was found of each class, from the stages' summaries."""
    cleaned = results.summary("clean")["classes"]
    traced, picked = results.summary("trace"), results.summary("pick")
    sampled = results.summary("sample")
    return tuple(
        ClassSummary(
            name=name,
            colour=colour,
            voxels=cleaned[name]["voxels"],
            volume_nm3=cleaned[name]["volume_nm3"],
            filaments=traced.get(name, {}).get("filaments"),
            filament_length_um=traced.get(name, {}).get("length_um"),
            curvature_per_um=traced.get(name, {}).get("curvature_per_um"),
            packed_share=traced.get(name, {}).get("packed_share"),
            particles=picked.get(name, {}).get("particles"),
            surfaces=sampled.get(name, {}).get("surfaces"),
            surface_area_nm2=sampled.get(name, {}).get("area_nm2"),
            surface_thickness_nm=sampled.get(name, {}).get("thickness_nm"),
        )
        for name, colour in results.colours.items()
    )


def _picture(context: Context) -> TomogramPicture:
    sampling, recipe = context.sampling(), context.recipe
    depth, height, _ = sampling.shape
    cuts = sorted({depth // 4, depth // 2, 3 * depth // 4})
    half = max(1, round(PROJECTED_NM * 5 / sampling.voxel_size_angstrom[0]))
    begin, end = max(0, depth // 2 - half), min(depth, depth // 2 + half)
    computed = ", ".join(context.summary("segment").get("computed", ())) or "nothing predicted"
    lines = [line for name in recipe.trace or () for line in read_filaments(context, name)]
    return TomogramPicture(
        name=context.name,
        sampling=sampling,
        classes=class_summaries(context),
        slices=tuple(_cut(context, 0, z) for z in cuts),
        projection=Projection(begin, end, _mean(context, begin, end)),
        side=_cut(context, 1, height // 2),
        filaments=tuple(lines),
        particles=tuple(read_particles(context, name) for name in recipe.pick or ()),
        surfaces=tuple(read_samples(context, name) for name in recipe.sample or ()),
        caption=f"tomoseg {code_version()} · {_made_by(context)} · {computed}",
    )


def _made_by(context: Context) -> str:
    if len(context.networks) > 1:
        return f"{len(context.networks)} networks"
    card = context.networks[0].card
    return f"model {card.name} {card.version}"


def _cut(context: Context, axis: int, index: int) -> Slice:
    """Read one plane across an axis."""
    whole = Box.whole(context.sampling().shape)
    begin, end = list(whole.begin), list(whole.end)
    begin[axis], end[axis] = index, index + 1
    box = Box((begin[0], begin[1], begin[2]), (end[0], end[1], end[2]))
    image = _finite(context.volume("0").read(box))
    found = context.volume(context.label_path("semantic")).read(box)
    return Slice(index, image.squeeze(axis), found.squeeze(axis))


def _mean(context: Context, begin: int, end: int) -> NDArray[np.float32]:
    """Return the mean of some slices' numbers, read a block at a time."""
    _, height, width = context.sampling().shape
    slab = Box((begin, 0, 0), (end, height, width))
    volume = context.volume("0")
    total = np.zeros((height, width), np.float32)
    count = np.zeros((height, width), np.uint16)
    for block in BlockGrid(context.sampling().shape, context.recipe.blocks.shape):
        box = block.write.intersect(slab)
        for plane in volume.read(box) if box.size else ():
            is_number = np.isfinite(plane)
            total[box.slices[1:]] += np.where(is_number, plane, 0)
            count[box.slices[1:]] += is_number
    with np.errstate(invalid="ignore"):
        return _finite(total / count)


def _finite(voxels: NDArray[Any]) -> NDArray[np.float32]:
    """Return float32 with voxels that are not numbers at the plane's mean."""
    values = voxels.astype(np.float32)
    is_number = np.isfinite(values)
    if not is_number.all():
        values[~is_number] = values[is_number].mean() if is_number.any() else 0
    return values


def _draw(context: Context) -> list[str]:
    picture = _picture(context)
    context.staged.write(OVERVIEW, tomogram_figure(picture))
    context.staged.write(THUMBNAIL, tomogram_thumbnail(picture))
    return [OVERVIEW]


def _run(context: Context, ledger: Ledger) -> dict[str, Any]:
    return {"files": make_files(context, ledger, [Piece(OVERVIEW, _draw)])}


REPORT = Stage("report", ("clean", "trace", "pick", "sample"), _settings, _run, share=0.01)
