"""Joining traces whose ends face each other."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from tomoseg.analysis.filaments.settings import TracingSettings
from tomoseg.core.coordinates import Points

# The direction of an end is taken over this many radii, after skipping the tip, which bends.
END_RADII = 4.0
SKIPPED_RADII = 0.7
# Lateral offset of two ends that are still one filament, in radii.
OFFSET_RADII = 0.8


@dataclass(frozen=True, eq=False)
class _Ends:
    """Both ends of every line: end ``2i`` is the first point of line ``i``, ``2i + 1`` its last."""

    places: Points
    outward: NDArray[np.float64]


def link(lines: list[Points], settings: TracingSettings) -> list[Points]:
    """Join lines end to end, each end once, cheapest first.

    Parameters
    ----------
    lines
        float64, shape (n ≥ 2, 3), zyx, Å each.

    Returns
    -------
    The joined lines, with a straight piece over each gap, in the order of their first members.
    """
    if not lines:
        return []
    partner = _partners(_ends(lines, settings), settings)
    joined, used = [], np.zeros(len(lines), dtype=bool)
    for first in range(len(lines)):
        if used[first]:
            continue
        chain = _chain(first, partner)
        used[[end // 2 for end in chain]] = True
        joined.append(np.concatenate([lines[e // 2][:: -1 if e % 2 else 1] for e in chain]))
    return joined


def _ends(lines: list[Points], settings: TracingSettings) -> _Ends:
    """Position and outward direction of both ends of every line."""
    places, outward = [], []
    for line in lines:
        for side in (line, line[::-1]):
            track = np.concatenate(
                [[0.0], np.cumsum(np.linalg.norm(np.diff(side, axis=0), axis=1))]
            )
            begin = min(SKIPPED_RADII * settings.radius_angstrom, track[-1] / 2)
            wanted = (begin, begin + END_RADII * settings.radius_angstrom)
            near, far = np.stack([np.interp(wanted, track, side[:, a]) for a in range(3)], axis=1)
            places.append(side[0])
            outward.append((near - far) / np.linalg.norm(near - far))
    return _Ends(np.array(places), np.array(outward))


def _partners(ends: _Ends, settings: TracingSettings) -> dict[int, int]:
    """Match ends one to one, cheapest first, never closing a chain into a ring."""
    pairs = cKDTree(ends.places).query_pairs(settings.link_angstrom, output_type="ndarray")
    pairs = pairs[pairs[:, 0] // 2 != pairs[:, 1] // 2]
    cost = _costs(ends, pairs, settings)
    allowed = np.flatnonzero(np.isfinite(cost))
    order = allowed[np.lexsort((pairs[allowed, 1], pairs[allowed, 0], cost[allowed]))]
    partner: dict[int, int] = {}
    for a, b in pairs[order].tolist():
        if a not in partner and b not in partner and b not in _chain(a // 2, partner, whole=True):
            partner[a], partner[b] = b, a
    return partner


def _costs(ends: _Ends, pairs: NDArray[np.int64], settings: TracingSettings) -> NDArray[np.float64]:
    """Cost of joining each pair of ends, infinite where it is not allowed.

    The offset allowed at distance L is 0.8 R + ½ tan θ (L − R): what a filament may bend away.
    """
    radius, tangent = settings.radius_angstrom, np.tan(np.deg2rad(settings.link_degrees))
    a, b = pairs.T
    between = ends.places[b] - ends.places[a]
    length = np.linalg.norm(between, axis=1)
    cosine = -(ends.outward[a] * ends.outward[b]).sum(axis=1)
    ahead = np.stack(
        [(between * ends.outward[a]).sum(axis=1), -(between * ends.outward[b]).sum(axis=1)]
    )
    offset = np.sqrt(np.maximum(length**2 - ahead**2, 0)).max(axis=0)
    bound = OFFSET_RADII * radius + tangent / 2 * (length - radius)
    facing = cosine >= np.cos(np.deg2rad(settings.link_degrees))
    allowed = facing & (offset <= bound) & (ahead.min(axis=0) >= -radius)
    cost = length / settings.link_angstrom + offset / bound + (1 - cosine)
    return np.where(allowed, cost, np.inf)


def _chain(line: int, partner: dict[int, int], *, whole: bool = False) -> list[int]:
    """Return the ends at which the lines of a chain are entered, from one end of it to the other.

    With ``whole`` both ends of every line are returned, in no meaningful order.
    """
    entry = 2 * line
    while entry in partner:
        entry = partner[entry] ^ 1
    chain = [entry]
    while chain[-1] ^ 1 in partner:
        chain.append(partner[chain[-1] ^ 1])
    return chain + [end ^ 1 for end in chain] if whole else chain
