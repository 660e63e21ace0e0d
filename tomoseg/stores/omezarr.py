"""OME-Zarr 0.5: the metadata of images and labels, and reading an image as a tomogram."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from tomoseg.blocks import Box
from tomoseg.calibration import calibrate
from tomoseg.errors import FormatError, VoxelSizeError
from tomoseg.sampling import Header, Sampling, Triple, as_shape
from tomoseg.stores.folders import Folder
from tomoseg.stores.limits import DAMAGED_METADATA, check_sizes
from tomoseg.stores.unpacking import bounded
from tomoseg.stores.volumes import Volume, zarr_store

ANGSTROM_PER_UNIT = {
    "angstrom": 1.0,
    "nanometer": 10.0,
    "micrometer": 1e4,
    "picometer": 0.01,
    "meter": 1e10,
}


def write_image_metadata(group: Folder, name: str, levels: list[Sampling], source: Header) -> None:
    """Publish an OME-Zarr 0.5 multiscale image; the source's header goes beside it."""
    attributes = {
        "ome": {"version": "0.5", "multiscales": [_multiscale(name, levels)]},
        "tomoseg": {"source": source.as_dict()},
    }
    _write_group(group, attributes)


def write_label_metadata(
    group: Folder, name: str, levels: list[Sampling], colours: Mapping[int, str]
) -> None:
    """Publish one label image below an OME-Zarr image and add it to the list of labels."""
    attributes = {
        "ome": {
            "version": "0.5",
            "multiscales": [_multiscale(name, levels)],
            "image-label": {"source": {"image": "../../"}, "colors": _colours(colours)},
        }
    }
    _write_group(group / "labels" / name, attributes)
    known = set(label_names(group)) | {name}
    _write_group(group / "labels", {"ome": {"version": "0.5", "labels": sorted(known)}})


def write_mask_metadata(
    group: Folder, name: str, grid: Sampling, colours: Mapping[int, str], *, version: str = "0.5"
) -> None:
    """Publish one level of labels by itself, as an image that says that it is labels.

    ``version`` is 0.5, or 0.4 for a group of zarr v2.
    """
    label = {"version": version, "colors": _colours(colours)}
    multiscale = _multiscale(name, [grid])
    if version == "0.4":
        group.write_json(".zgroup", {"zarr_format": 2})
        both = {"multiscales": [{"version": "0.4"} | multiscale], "image-label": label}
        group.write_json(".zattrs", both)
        return
    ome = {"version": version, "multiscales": [multiscale], "image-label": label}
    _write_group(group, {"ome": ome})


def label_names(group: Folder) -> list[str]:
    """Return the names of the published label images."""
    if not group.exists("labels/zarr.json"):
        return []
    attributes = group.read_json("labels/zarr.json").get("attributes", {})
    return list(attributes.get("ome", {}).get("labels", []))


def _colours(colours: Mapping[int, str]) -> list[dict[str, Any]]:
    # The background is always told: readers want a list of colours, and not an empty one.
    return [{"label-value": 0, "rgba": [0, 0, 0, 0]}] + [
        {"label-value": value, "rgba": [*bytes.fromhex(colour.lstrip("#")), 255]}
        for value, colour in colours.items()
    ]


def _write_group(folder: Folder, attributes: dict[str, Any]) -> None:
    folder.write_json(
        "zarr.json", {"zarr_format": 3, "node_type": "group", "attributes": attributes}
    )


def _multiscale(name: str, levels: list[Sampling]) -> dict[str, Any]:
    axes = [{"name": axis, "type": "space", "unit": "angstrom"} for axis in "zyx"]
    datasets = [
        {
            "path": str(number),
            "coordinateTransformations": [
                {"type": "scale", "scale": list(level.voxel_size_angstrom)},
                {"type": "translation", "translation": list(level.first_voxel_angstrom)},
            ],
        }
        for number, level in enumerate(levels)
    ]
    return {"name": name, "axes": axes, "datasets": datasets}


class OmeZarrReader:
    """Read level 0 of an OME-Zarr image (0.4 or 0.5) as a tomogram.

    Raises
    ------
    FormatError
        If it is no OME-Zarr image of three spatial axes z, y, x.
    VoxelSizeError
        If the scale is missing or not to be believed and there is no override.
    """

    def __init__(self, url: str, *, voxel_size_angstrom: float | None = None) -> None:
        self._folder = Folder(url)
        self._path, self.header = _ome_header(self._folder, voxel_size_angstrom)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box, zyx."""
        return Volume(self._folder, self._path).read(box)


def _ome_header(folder: Folder, override: float | None) -> tuple[str, Header]:
    multiscale = _multiscale_of(folder)
    try:
        names = [axis["name"] for axis in multiscale["axes"]]
        if names != ["z", "y", "x"]:
            raise FormatError(f"{folder} has axes {names}, not z, y, x")
        units = [_angstrom_per(axis.get("unit"), override) for axis in multiscale["axes"]]
        dataset = multiscale["datasets"][0]
        # What holds for all levels comes after what holds for this one.
        rows = [
            *dataset.get("coordinateTransformations", []),
            *multiscale.get("coordinateTransformations", []),
        ]
        scale, shift = _transformations(rows, units)
        array = Volume(folder, str(dataset["path"])).array()
        check_sizes(array, folder)
        bounded(array)  # refuses here, before any work, how its chunks are packed
        shape = as_shape(array.shape)
    except DAMAGED_METADATA as error:
        raise FormatError(f"{folder} has OME-Zarr metadata that is not valid: {error!r}") from error
    notes: list[str] = []
    voxel = calibrate(scale, override, notes=notes, may_differ=True)
    header = Header(
        Sampling(shape, voxel), str(array.dtype), origin_angstrom=shift, notes=tuple(notes)
    )
    return str(dataset["path"]), header


def _multiscale_of(folder: Folder) -> dict[str, Any]:
    try:
        attributes = dict(zarr.open_group(zarr_store(folder), mode="r").attrs)
    except (FileNotFoundError, *DAMAGED_METADATA) as error:
        raise FormatError(f"{folder} is not a zarr group") from error
    ome = cast(dict[str, Any], attributes.get("ome", attributes))
    try:
        return cast(dict[str, Any], ome["multiscales"][0])
    except (KeyError, IndexError, TypeError) as error:
        raise FormatError(f"{folder} is not an OME-Zarr image: no multiscales metadata") from error


def _angstrom_per(unit: str | None, override: float | None) -> float:
    if unit not in ANGSTROM_PER_UNIT:
        if override is not None:
            return 1.0
        raise VoxelSizeError(
            f"the axes' unit {unit!r} is not a length",
            remedy="Set source.voxel_size_angstrom.",
        )
    return ANGSTROM_PER_UNIT[unit]


def _transformations(
    rows: list[dict[str, Any]], units: list[float]
) -> tuple[Triple | None, Triple]:
    """Return voxel size and position of the first voxel, zyx, Å, after all rows in order.

    A scale that follows a translation scales it too.
    """
    scale, shift = np.ones(3), np.zeros(3)
    for row in rows:
        values = np.array(row[row["type"]], np.float64)
        if row["type"] == "scale":
            scale, shift = scale * values, shift * values
        elif row["type"] == "translation":
            shift = shift + values
        else:
            raise ValueError(f"a transformation of type {row['type']}")
    is_scaled = any(row["type"] == "scale" for row in rows)
    return _angstrom(scale, units) if is_scaled else None, _angstrom(shift, units)


def _angstrom(values: NDArray[np.float64], units: list[float]) -> Triple:
    z, y, x = (float(value) * unit for value, unit in zip(values, units, strict=True))
    return z, y, x
