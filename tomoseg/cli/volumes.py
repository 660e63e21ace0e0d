"""Commands on volumes: say what a file holds, simulate tomograms."""

from __future__ import annotations

from typing import Annotated, Literal

import typer

from tomoseg.core.errors import FormatError, RequestError, VoxelSizeError


def info(
    file: Annotated[str, typer.Argument(help="MRC, TIFF or OME-Zarr file, path or URL.")],
    voxel_size: Annotated[
        float | None, typer.Option("--voxel-size", help="Override the file's voxel size, Å.")
    ] = None,
    axes: Annotated[
        Literal["zyx", "rotx", "yzx"],
        typer.Option(help="Which axes of the file are which, as source.axes says in a recipe."),
    ] = "zyx",
) -> None:
    """Say what a tomogram's header and some of its voxels say, and how it would be read."""
    from tomoseg.pipeline.checks import look_at_file

    try:
        look = look_at_file(file, voxel_size, axes)
    except FormatError as error:
        raise error.within(tomogram=file) from error
    header, values = look.header, look.values
    z, y, x = header.sampling.shape
    depth = z if axes == "zyx" else y
    vz, vy, vx = header.sampling.voxel_size_angstrom
    oz, oy, ox = header.origin_angstrom
    sz, sy, sx = header.start_voxels
    typer.echo(f"voxels (xyz)      {x} × {y} × {z}")
    if look.problem:
        typer.echo("voxel size (xyz)  unknown")
    else:
        size = f"{x * vx / 10:.5g} × {y * vy / 10:.5g} × {z * vz / 10:.5g}"
        typer.echo(f"voxel size (xyz)  {vx:.6g} × {vy:.6g} × {vz:.6g} Å")
        typer.echo(f"extent (xyz)      {size} nm")
    typer.echo(f"type              {header.dtype}")
    typer.echo(f"origin (xyz)      {ox:.6g}, {oy:.6g}, {oz:.6g} Å")
    typer.echo(f"start (xyz)       {sx}, {sy}, {sz} voxels")
    typer.echo(
        f"values            {values.minimum:.5g} to {values.maximum:.5g}, mean {values.mean:.5g}, "
        f"spread {(values.squares / max(1, values.count)) ** 0.5:.5g}, "
        f"in {min(depth, 3)} of {depth} slices"
    )
    for note in look.notes:
        typer.echo(f"note              {note}")
    if look.problem:
        raise VoxelSizeError(
            look.problem.message,
            remedy="Use --voxel-size; in a recipe, source.voxel_size_angstrom.",
            tomogram=file,
        )


def simulate(  # noqa: PLR0913, PLR0917 - each is an option on the command line
    output: Annotated[str, typer.Argument(help="Folder for tomograms and truth.")],
    tomograms: Annotated[int, typer.Option(help="How many.", min=1)] = 1,
    seed: Annotated[int, typer.Option(help="Seed of the first; the next ones count up.")] = 0,
    shape: Annotated[str, typer.Option(help="Voxels, z,y,x.")] = "128,512,512",
    voxel_size: Annotated[float, typer.Option(help="Å, 8 to 16.")] = 12.0,
    thickness: Annotated[
        float | None, typer.Option(help="Of the sample, Å; without it 80% of the box.")
    ] = None,
    snr: Annotated[float | None, typer.Option(help="Of the untilted image.")] = None,
    density: Annotated[float, typer.Option(help="Factor on the usual number of objects.")] = 1.0,
    defocus: Annotated[float | None, typer.Option(help="µm.")] = None,
    tilt_max: Annotated[float, typer.Option(help="Degrees.")] = 60.0,
    tilt_step: Annotated[float, typer.Option(help="Degrees.")] = 3.0,
    wide: Annotated[
        bool, typer.Option("--wide", help="Vary voxel size (8 to 16 Å), tilts and contrast too.")
    ] = False,
) -> None:
    """Simulate tomograms with complete truth: labels, instances, centre lines, particles.

    The tomograms are of one family: SNR, defocus, thickness and numbers of objects vary around
    what is given here; with --wide, voxel size, tilts and contrast vary too.
    """
    from tomoseg.io.stores import Folder
    from tomoseg.simulation import PhantomParameters
    from tomoseg.simulation.sessions import simulated_session

    usual = PhantomParameters()
    base = PhantomParameters(
        shape=_triple(shape),
        voxel_size_angstrom=voxel_size,
        thickness_angstrom=thickness,
        snr=usual.snr if snr is None else snr,
        defocus_um=usual.defocus_um if defocus is None else defocus,
        tilt_max_degrees=tilt_max,
        tilt_step_degrees=tilt_step,
        seed=seed,
    )
    folder = Folder(output)
    for name in simulated_session(folder, base, tomograms=tomograms, density=density, wide=wide):
        typer.echo(f"{folder}/{name}.mrc")


def _triple(text: str) -> tuple[int, int, int]:
    try:
        z, y, x = (int(part) for part in text.replace("x", ",").split(","))
    except ValueError as error:
        raise RequestError(f"--shape {text} is not three integers z,y,x") from error
    return z, y, x
