"""The one reader of tables of RELION 3, 4 and 5, Warp and M, template matching and crYOLO in STAR.

    RELION 5         Å from the centre of the tomogram
    RELION 3 and 4   0-based pixels of the micrograph, or of the unbinned tilt series
    Warp, M          0-based pixels of the size that the row states; of WarpTools' stacks of tilts
                     that of the images, which are as coarse as the positions
    ts_template_match   shares 0..1 of the tomogram's size

Sources: RELION 4, ``particle_set.cpp``; RELION 5, ``rlnOrigin_to_rlnCoordinate_row``; WarpTools,
``ExportParticlesTiltseries.cs`` and ``TiltSeries.ReconstructParticleSeries.cs``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import numpy as np
import pandas as pd

from tomoseg.core.coordinates import Points
from tomoseg.core.errors import FormatError
from tomoseg.core.sampling import xyz
from tomoseg.io.points.dialects import ReadOptions, TomoContext, TomogramPoints
from tomoseg.io.points.owners import NAME_COLUMNS, find_owners, is_alike
from tomoseg.io.points.relion_columns import (
    SHIFTS,
    TUBE,
    check_columns,
    columns_of,
    shared_rows,
    turned_shifts,
    with_optics,
)
from tomoseg.io.points.rows import Rows, finite, points_of, said_of_merits, whole

CENTRED = [f"rlnCenteredCoordinate{axis}Angst" for axis in "XYZ"]
PIXELS = [f"rlnCoordinate{axis}" for axis in "XYZ"]
PIXEL_SHIFTS = [f"rlnOrigin{axis}" for axis in "XYZ"]
TOMOSTAR = ".tomostar"

_SERIES_PIXEL, _IMAGE_PIXEL = "rlnTomoTiltSeriesPixelSize", "rlnImagePixelSize"
_MICROGRAPH_PIXEL, _DETECTOR_PIXEL = "rlnMicrographPixelSize", "rlnDetectorPixelSize"
_STACKS = "rlnTomoSubTomosAre2DStacks"
# crYOLO's number of a filament, from 0.
_CRYOLO_FILAMENT = "filamentid"
# In this order; crYOLO's other block holds the vertices of its filaments.
_USUAL_BLOCKS = ("particles", "cryolo", "")
CHANGES = "--pixel-size changes it"


def read_relion(
    blocks: Mapping[str, pd.DataFrame],
    contexts: Sequence[TomoContext],
    name: str,
    options: ReadOptions,
    positions: Sequence[str] = (CENTRED[0], PIXELS[0]),
) -> list[TomogramPoints]:
    """Read the filaments, where tubes have ids, or the particles of tomograms.

    Parameters
    ----------
    blocks
        Tables of a STAR file; columns that are not known are ignored.
    contexts
        The tomograms.
    name
        The class, which no such table names.
    options
        What a person says of the table.
    positions
        Columns of x that are looked for, the first that is there counts.

    Returns
    -------
    An item a tomogram, with what was taken for granted in ``says``.

    Raises
    ------
    FormatError
        If no block has positions, or several and none is certain, a column is missing or holds no
        numbers, a tube's id is below 1, no row is of a tomogram given, or it cannot be told whose
        rows are whose.

    Notes
    -----
    In every dialect, position = coordinate · pixel − A(rlnTomoSubtomogram*) · shift and orientation
    = A(rlnTomoSubtomogram*) · A(rlnAngle*), where A maps the reference to the tomogram, the shift
    is rlnOrigin*Angst or, older than RELION 3.1, rlnOrigin* in pixels, and missing angles are 0.
    """
    block, said = chosen_block(blocks, positions, contexts, options)
    table = _with_tubes(with_optics(blocks[block], blocks.get("optics")), options)
    owners = find_owners(table, contexts, options)
    is_centred = next(column for column in positions if column in table) == CENTRED[0]
    if is_centred and options.pixel_size_angstrom is not None:
        raise FormatError(
            f"{CENTRED[0]} is in Å, and a pixel size is given", remedy="Leave out --pixel-size"
        )
    is_stacks = any(table.get(_STACKS, pd.Series([0])).iloc[0] == 1 for table in blocks.values())
    read = _centred if is_centred else _Pixels(table, options, is_stacks=is_stacks)
    parts: list[Rows] = []
    says = []
    for place, context in enumerate(contexts):
        rows = table[owners.places == place]
        points, unit = read(rows, context)
        number = np.full(len(rows), place, np.int64)
        parts.append(shared_rows(rows, number, points, helical=TUBE in table))
        merit = said_of_merits(parts[-1].scores)
        says.append(tuple(filter(None, (said, owners.says[place], unit, merit))))
    found = points_of(Rows.concatenate(parts), contexts, name)
    return [replace(one, says=each) for one, each in zip(found, says, strict=True)]


def chosen_block(
    blocks: Mapping[str, pd.DataFrame],
    columns: Sequence[str],
    contexts: Sequence[TomoContext],
    options: ReadOptions,
) -> tuple[str, str]:
    """Return the block that has one of the columns, and what to say of the choice.

    Of several it is ``particles``, crYOLO's ``cryolo`` or the one without a name, else the one that
    is called as the only tomogram given.

    Raises
    ------
    FormatError
        If there is none, or of several none is certain.
    """
    known = [name for name, table in blocks.items() if set(columns) & set(table)]
    if options.block is not None and options.block not in known:
        raise FormatError(
            f"no block with positions is called {options.block!r}; those that have are "
            f"{_listed(known) or 'none'}",
            remedy="Say another --block",
        )
    if not known:
        raise FormatError(
            f"no block has a column {' or '.join(columns)}",
            remedy="Give the table of the particles, of this program",
        )
    usual = [name for name in _USUAL_BLOCKS if name in known]
    own = [name for name in known if len(contexts) == 1 and is_alike(name, contexts[0].tomo_name)]
    if len(known) == 1:
        is_plain = len(blocks) == 1 and known[0] in _USUAL_BLOCKS
        return known[0], "" if is_plain else f"block data_{known[0]}"
    chosen = options.block if options.block is not None else next(iter([*usual, *own]), None)
    if chosen is None:
        raise FormatError(
            f"{len(known)} blocks have positions: {_listed(known)}", remedy="Say one with --block"
        )
    others = [name for name in known if name != chosen]
    return chosen, f"block data_{chosen}, not {_listed(others)} (--block takes another)"


def _listed(names: Sequence[str]) -> str:
    return ", ".join(f"data_{name}" for name in names[:5]) + (", …" if len(names) > 5 else "")


def _with_tubes(table: pd.DataFrame, options: ReadOptions) -> pd.DataFrame:
    """Return the table with tubes numbered as RELION does, or without any."""
    if not options.lines:
        return table.drop(columns=TUBE, errors="ignore")
    if TUBE in table or _CRYOLO_FILAMENT not in table:
        return table
    return table.assign(**{TUBE: 1 + whole(columns_of(table, [_CRYOLO_FILAMENT])[:, 0], "its id")})


def _shifts(rows: pd.DataFrame, pixel: Points) -> Points:
    """Return refined shifts in the tomogram's axes, shape (n, 3), xyz, Å."""
    if set(SHIFTS) & set(rows):
        return turned_shifts(rows, columns_of(rows, SHIFTS))
    return turned_shifts(rows, columns_of(rows, PIXEL_SHIFTS) * pixel)


def _centred(rows: pd.DataFrame, context: TomoContext) -> tuple[Points, str]:
    check_columns(rows, CENTRED)
    x, y, z = context.size_xyz
    centred = columns_of(rows, CENTRED) - _shifts(rows, np.array(context.pixel_angstrom))
    return context.from_centred(centred), (
        f"Å from the centre of {x}×{y}×{z} pixels of {context.pixel_angstrom:g} Å"
    )


class _Pixels:
    """Positions in pixels, whose size is told once for the whole table.

    A particle's image may be binned, its position is not, but in the stacks of WarpTools: there
    rlnTomoTiltSeriesPixelSize is that of the tilts, and positions are as coarse as the images.
    """

    def __init__(self, table: pd.DataFrame, options: ReadOptions, *, is_stacks: bool) -> None:
        self.given = options.pixel_size_angstrom
        self.is_flat = PIXELS[2] not in table
        names = next((table[column] for column in NAME_COLUMNS if column in table), ())
        first = str(next(iter(names), ""))
        self.is_warp = first.endswith(TOMOSTAR) or is_stacks
        self.is_series = "rlnTomoName" in table and not first.endswith(TOMOSTAR)
        self.column = next((column for column in self._stating() if column in table), None)
        self.is_shares = self.given is None and self.column is None and _are_shares(table)

    def _stating(self) -> tuple[str, ...]:
        """Return the columns that state the size, the first that is there counts."""
        if self.is_flat:
            return (_MICROGRAPH_PIXEL,)
        image = (_IMAGE_PIXEL,) if self.is_warp else ()
        return (*image, _SERIES_PIXEL, "rlnPixelSize", _MICROGRAPH_PIXEL, _DETECTOR_PIXEL)

    def __call__(self, rows: pd.DataFrame, context: TomoContext) -> tuple[Points, str]:
        """Return positions, shape (n, 3), zyx, Å, and what a pixel was taken to be."""
        check_columns(rows, PIXELS[:2])
        slices = context.sampling.shape[0]
        if self.is_flat and slices > 1:
            raise FormatError(
                f"there is no {PIXELS[2]}, and the tomogram has {slices} slices",
                remedy="Give positions in three dimensions",
            )
        pixel, said = self._size(rows, context)
        points = columns_of(rows, PIXELS) * pixel - _shifts(rows, pixel)
        if self.is_flat:
            points[:, 2] = 0
        return xyz(points), said

    def _size(self, rows: pd.DataFrame, context: TomoContext) -> tuple[Points, str]:
        """Return the pixel of each row, xyz, Å, and what to say of it."""
        voxels = xyz(np.array([context.sampling.voxel_size_angstrom]))
        if self.given is not None:
            return np.full((1, 3), self.given), f"pixels of {self.given:g} Å, as --pixel-size says"
        if self.is_shares:
            return voxels * context.sampling.shape[::-1], (
                "positions 0..1 taken as shares of the tomogram's size, as Warp's template "
                f"matching writes them ({CHANGES})"
            )
        if self.column is not None:
            return self._stated(rows, self.column)
        if self.is_series and context.tilt_series_pixel_size_angstrom is not None:
            return np.full((1, 3), context.pixel_angstrom), (
                f"pixels taken as the tilt series' of {context.pixel_angstrom:g} Å, as the recipe "
                f"says (no pixel size in the table; {CHANGES})"
            )
        own = "micrograph's" if context.sampling.is_flat else "tomogram's voxels"
        return voxels, (
            f"pixels taken as this {own} of {context.sampling.voxel_angstrom:g} Å (no pixel size "
            f"in the table; {CHANGES})"
        )

    def _stated(self, rows: pd.DataFrame, column: str) -> tuple[Points, str]:
        size = columns_of(rows, [column])
        if column == _DETECTOR_PIXEL:
            # µm on the detector; what states Å there, states no or a magnification of 10,000.
            with np.errstate(divide="ignore", invalid="ignore"):
                size = 1e4 * size / columns_of(rows, ["rlnMagnification"], 1e4)
        if not (np.isfinite(size) & (size > 0)).all():
            raise FormatError(
                f"{column}, the pixel size, is not positive in every row",
                remedy="Correct the table, or import it with --pixel-size",
            )
        sizes = "/".join(f"{one:g}" for one in np.unique(size)[:3])
        return size, f"pixels of {sizes or '?'} Å ({column}; {CHANGES})"


def _are_shares(table: pd.DataFrame) -> bool:
    """Tell whether all positions are 0..1 and some broken: no particles lie in one corner voxel."""
    if not len(table) or not set(PIXELS) <= set(table):
        return False
    values = finite(columns_of(table, PIXELS), "a position")
    return bool(((values >= 0) & (values <= 1)).all() and (values % 1 != 0).any())
