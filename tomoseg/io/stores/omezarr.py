"""OME-Zarr 0.5: the metadata of images and labels, and reading an image as a tomogram."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, cast

import numpy as np
import zarr
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.errors import FormatError, VoxelSizeError
from tomoseg.core.sampling import Header, Sampling, Shape, Triple, as_shape
from tomoseg.io.stores.folders import Folder
from tomoseg.io.stores.limits import DAMAGED_METADATA, check_sizes
from tomoseg.io.stores.unpacking import bound_chunks
from tomoseg.io.stores.volumes import Volume, zarr_store
from tomoseg.io.voxel_size import decide_voxel_size

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
    """Read level 0 of an OME-Zarr image, or an array without its metadata, as a tomogram.

    Other axes than z, y, x are left out where they have one place.

    Raises
    ------
    FormatError
        If it is no OME-Zarr image, or has more than one volume.
    VoxelSizeError
        If the scale is missing or not to be believed and there is no override.
    """

    def __init__(self, url: str, *, voxel_size_angstrom: float | None = None) -> None:
        folder = Folder(url)
        try:
            self._volume, self.header = _opened(folder, voxel_size_angstrom)
        except DAMAGED_METADATA as error:
            raise FormatError(
                f"{folder} has OME-Zarr metadata that is not valid: {error!r}"
            ) from error

    def read(self, box: Box) -> NDArray[Any]:
        """Return the voxels of a box, zyx.

        Raises
        ------
        StoreError
            If the array went away meanwhile: chunks that are not there read as the fill value.
        """
        voxels = self._volume.read(box)
        _ = self._volume.array()
        return voxels

    def told_missing(self) -> str:
        """Say that shards have no file, as where a copy was cut short; empty if all have."""
        missing, wanted = self._volume.missing()
        if missing < 1:
            return ""
        return (
            f"{missing} of {wanted} chunks of the array are not there and read as its fill value; "
            "copy it again if they should be"
        )


def _opened(folder: Folder, override: float | None) -> tuple[Volume, Header]:
    multiscale = _multiscale_of(folder)
    path, names = "", None
    scale: Triple | None = None
    shift: Triple = (0.0, 0.0, 0.0)
    if multiscale is not None:
        names = [_name(axis) for axis in multiscale.get("axes", "tczyx")]
        axes = _volume_axes(names, folder)
        dataset = multiscale["datasets"][0]
        path = str(dataset["path"])
        # What holds for all levels comes after what holds for this one.
        rows = [
            *dataset.get("coordinateTransformations", []),
            *multiscale.get("coordinateTransformations", []),
        ]
        units = [_unit(multiscale["axes"][axis]) for axis in axes] if rows else []
        scale, shift = _transformations(rows, axes, [_angstrom_per(u, override) for u in units])
    array = Volume(folder, path).array()
    check_sizes(array, folder)
    bound_chunks(array)  # refuses here, before any work, how its chunks are packed
    axes = _single_volume(array, names, folder)
    volume = Volume(folder, path, axes)
    notes: list[str] = []
    voxel = decide_voxel_size(scale, override, notes=notes, may_differ=True)
    sampling = Sampling(volume.shape, voxel)
    dtype = np.dtype(array.dtype).name
    return volume, Header(sampling, dtype, origin_angstrom=shift, notes=tuple(notes))


def _name(axis: Any) -> str:
    """Return an axis' name; versions before 0.4 have nothing else."""
    return str(axis if isinstance(axis, str) else axis["name"])


def _unit(axis: Any) -> str | None:
    return None if isinstance(axis, str) else axis.get("unit")


def _volume_axes(names: Sequence[str], folder: Folder) -> Shape:
    """Return where z, y and x are among the axes, in this order."""
    if [name for name in names if name in "zyx"] != ["z", "y", "x"]:
        raise FormatError(
            f"{folder} has axes {list(names)}, not z, y, x",
            remedy="Store it again with these axes, in this order",
        )
    return as_shape(names.index(axis) for axis in "zyx")


def _single_volume(array: zarr.Array[Any], names: Sequence[str] | None, folder: Folder) -> Shape:
    """Return which axes are z, y, x; refuse an array of several volumes."""
    if names is None:
        known: Any = getattr(array.metadata, "dimension_names", None) or ()
        is_named = all(isinstance(name, str) for name in known) and {*"zyx"} <= {*known}
        names = known if is_named else [*"abtczyx"[-array.ndim :]]
    axes = _volume_axes(names, folder)
    if len(names) != array.ndim:
        raise FormatError(f"{folder} has axes {list(names)}, but its array {array.ndim}")
    for axis, (name, size) in enumerate(zip(names, array.shape, strict=True)):
        if axis not in axes and size != 1:
            raise FormatError(
                f"{folder} has {size} places along the axis {name!r}; one volume is read",
                remedy="Store one volume by itself",
            )
    return axes


def _multiscale_of(folder: Folder) -> dict[str, Any] | None:
    """Return what describes the image; None for an array."""
    try:
        node = zarr.open(zarr_store(folder), mode="r")
    except (FileNotFoundError, *DAMAGED_METADATA) as error:
        raise FormatError(f"{folder} is neither a zarr group nor an array") from error
    if isinstance(node, zarr.Array):
        return None
    attributes = dict(node.attrs)
    ome = cast(dict[str, Any], attributes.get("ome", attributes))
    try:
        return cast(dict[str, Any], ome["multiscales"][0])
    except (KeyError, IndexError, TypeError) as error:
        arrays = ", ".join(f"{folder}/{name}" for name in folder.names() if "." not in name)
        raise FormatError(
            f"{folder} is not an OME-Zarr image: no multiscales metadata",
            remedy=f"Name an array in it, if one is the tomogram: {arrays}" if arrays else "",
        ) from error


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
    rows: list[dict[str, Any]], axes: Shape, units: list[float]
) -> tuple[Triple | None, Triple]:
    """Return voxel size and position of the first voxel, zyx, Å, after all rows in order.

    A scale that follows a translation scales it too. ``axes`` tells which values are of z, y, x.
    """
    scale, shift = np.ones(3), np.zeros(3)
    for row in rows:
        values = np.array(row[row["type"]], np.float64)[list(axes)]
        if row["type"] == "scale":
            scale, shift = scale * values, shift * values
        elif row["type"] == "translation":
            shift = shift + values
        else:
            raise ValueError(f"a transformation of type {row['type']}")
    is_scaled = any(row["type"] == "scale" for row in rows)
    return _angstrom(scale, units) if is_scaled else None, _angstrom(shift, units)


def _angstrom(values: NDArray[np.float64], units: list[float]) -> Triple:
    z, y, x = (float(value) * unit for value, unit in zip(values, units or (1.0,) * 3, strict=True))
    return z, y, x
