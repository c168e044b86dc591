"""Straight runs: grain and glare tear a scratch into pieces, which still lie on one straight line.

A scratch runs on where the subject's own lines end: from the wall over the coat into the grass. So how long the whole
run is says more than how long each of its pieces is.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import numpy.typing as npt

    Floats = npt.NDArray[np.float64]
    Ints = npt.NDArray[np.intp]

_MOST = 400  # pieces that are looked at, the longest first: pairs are compared
_LEAST = 0.03  # of the photo's longer side: length of the shortest piece that counts
_SLIM = 0.08  # a piece's spread across over its length, beside a pixel
_BESIDE, _BEND = 2.0, 0.04  # pixels, and share of the distance, that a piece may lie off another's line
_TURN = 0.14  # radians between the directions of two pieces, and more where a piece is short
_GAP = 0.2  # of the longer side
_FILLED = 0.5  # share of a run that its pieces cover
_SINGLE = 1.2  # pixels of spread across that a line of one to three pixels has
_WAVY = 0.02  # spread across over length at which a piece is half straight


@dataclass(frozen=True)
class _Pieces:
    """Middle, direction in radians, half length and spread across of each component."""

    x: Floats
    y: Floats
    angle: Floats
    half: Floats
    across: Floats


def straight_runs(x: Ints, y: Ints, label: Ints, number: int, longer: int) -> tuple[Floats, Floats]:
    """How long the straight run is that each component belongs to.

    Args:
        x: columns of the marked pixels, (N,).
        y: their rows.
        label: component of each.
        number: of components, (N,) < number.
        longer: side of the photo in pixels.
    Returns:
        For each component the length in pixels of its run, its own where it is alone, and how straight it is itself,
        0 to 1.
    """
    pieces = _pieces(x.astype(np.float64), y.astype(np.float64), label, number)
    length = 2.0 * pieces.half
    runs = length.copy()
    longest = np.argsort(-length)[:_MOST]
    slim = pieces.across < _SLIM * length + 1.0
    chosen = longest[(length[longest] >= _LEAST * longer) & slim[longest]]
    for first in chosen:
        members, extent = _along(pieces, chosen, int(first), _GAP * longer)
        if length[members].sum() > _FILLED * extent:
            runs[members] = np.maximum(runs[members], extent)
    straight = 1.0 - np.clip((pieces.across - _SINGLE) / (_WAVY * length + 1.0), 0.0, 1.0)
    return runs, straight


def _pieces(x: Floats, y: Floats, label: Ints, number: int) -> _Pieces:
    count = np.bincount(label, minlength=number).clip(1)

    def mean(values: Floats) -> Floats:
        return np.asarray(np.bincount(label, values, minlength=number) / count)

    mx, my = mean(x), mean(y)
    xx, yy, xy = mean(x * x) - mx * mx, mean(y * y) - my * my, mean(x * y) - mx * my
    middle, spread = (xx + yy) / 2.0, np.sqrt(((xx - yy) / 2.0) ** 2 + xy * xy)
    return _Pieces(
        mx,
        my,
        0.5 * np.arctan2(2.0 * xy, xx - yy),
        # Evenly filled, a line of half length h has the variance h² / 3.
        np.sqrt(3.0 * np.maximum(middle + spread, 0.0)),
        np.sqrt(np.maximum(middle - spread, 0.08)),
    )


def _along(pieces: _Pieces, chosen: Ints, first: int, gap: float) -> tuple[Ints, float]:
    """The pieces that lie on one line with ``first``, no two of them further apart than ``gap``, and their extent."""
    right, down = math.cos(pieces.angle[first]), math.sin(pieces.angle[first])
    dx, dy = pieces.x[chosen] - pieces.x[first], pieces.y[chosen] - pieces.y[first]
    ahead, beside = dx * right + dy * down, np.abs(dy * right - dx * down)
    turn = np.abs((pieces.angle[chosen] - pieces.angle[first] + math.pi / 2.0) % math.pi - math.pi / 2.0)
    fits = (beside < _BESIDE + _BEND * np.abs(ahead)) & (turn < _TURN + 2.0 / np.maximum(pieces.half[chosen], 1.0))
    fits |= chosen == first
    members, ahead = chosen[fits], ahead[fits]
    begin, end = ahead - pieces.half[members], ahead + pieces.half[members]
    order = np.argsort(begin)
    members, begin, end = members[order], begin[order], np.maximum.accumulate(end[order])
    broken = np.flatnonzero(begin[1:] - end[:-1] > gap) + 1
    where = int(np.flatnonzero(members == first)[0])
    group = slice(broken[broken <= where].max(initial=0), broken[broken > where].min(initial=len(members)))
    return members[group], float(end[group].max() - begin[group].min())
