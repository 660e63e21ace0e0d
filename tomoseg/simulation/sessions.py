"""Simulated sessions on disk: tomograms as MRC files, and the truth beside them.

OUT/<name>.mrc                        tomogram, float32, protein dark
OUT/truth/<name>__labels.mrc          class of each voxel, 0 background
OUT/truth/<name>__instances.mrc       object of each voxel, 0 background
OUT/truth/<name>__filaments.csv       centre lines, Å and voxels
OUT/truth/<name>__particles.csv       centres and orientations
OUT/truth/<name>.json                 parameters and classes
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tomoseg.core.blocks import Box
from tomoseg.core.sampling import Header
from tomoseg.io.points import tables
from tomoseg.io.stores import Folder
from tomoseg.io.volumes.mrc import MrcWriter, label_type
from tomoseg.simulation import CLASSES, Phantom, PhantomParameters, simulate, varied, widely_varied
from tomoseg.simulation.parameters import DENSITY_PER_UM3


def simulated_session(
    output: Folder,
    base: PhantomParameters,
    *,
    tomograms: int,
    density: float = 1.0,
    wide: bool = False,
) -> Iterator[str]:
    """Simulate tomograms of one family and write them with their truth.

    Parameters
    ----------
    output
        Where they are written.
    base
        The family's centre; tomogram ``i`` has the seed ``base.seed + i``.
    tomograms
        How many.
    density
        Factor on the usual number of objects of every kind.
    wide
        Whether voxel size, tilts and contrast vary too: see
        :func:`tomoseg.simulation.widely_varied`.

    Yields
    ------
    The name of each tomogram, once it is written.
    """
    counts: dict[str, Any] = {
        name: max(1, round(density * base.usual_count(name))) for name in DENSITY_PER_UM3
    }
    dense = replace(base, **counts) if density != 1.0 else base
    vary = widely_varied if wide else varied
    for seed in range(base.seed, base.seed + tomograms):
        name = f"simulated_{seed:04d}"
        _write(output, name, simulate(vary(seed, dense)))
        yield name


def _write(output: Folder, name: str, phantom: Phantom) -> None:
    sampling = phantom.parameters.sampling
    stem = f"truth/{name}"
    _write_mrc(output, f"{stem}__labels.mrc", Header(sampling, "int8"), phantom.labels)
    _write_mrc(output, f"{stem}__instances.mrc", Header(sampling, "int16"), phantom.instances)
    lines = tables.filaments_csv(phantom.filaments, sampling)
    output.write(f"{stem}__filaments.csv", lines.encode())
    output.write(
        f"{stem}__particles.csv", tables.particles_csv([phantom.particles], sampling).encode()
    )
    output.write_json(
        f"{stem}.json",
        {
            "parameters": asdict(phantom.parameters),
            "classes": {label: one for label, one in enumerate(CLASSES, start=1)},
            "gold_angstrom_zyx": phantom.gold_angstrom.tolist(),
        },
    )
    # The tomogram comes last: where it is, its truth is complete.
    _write_mrc(output, f"{name}.mrc", Header(sampling, "float32"), phantom.tomogram)


def _write_mrc(output: Folder, path: str, header: Header, voxels: NDArray[Any]) -> None:
    is_real = np.issubdtype(voxels.dtype, np.floating)
    dtype = np.dtype(np.float32) if is_real else label_type(int(voxels.max()))
    with (
        output.publishing(path) as file,
        MrcWriter(file, header, dtype, label="simulated") as writer,
    ):
        writer.write(Box.whole(header.sampling.shape), voxels)
