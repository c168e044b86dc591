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
_BESIDE, _BEND = 2.0, 0.02  # pixels, and share of the distance, that a piece may lie off another's line
_TURN = 0.1  # radians between the directions of two pieces, and more where a piece is short
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


@dataclass(frozen=True)
class Run:
    """Components that lie on one straight line.

    Attributes:
        pieces: their labels, from one end of the run to the other; one at least.
        length: of the run from end to end, in pixels.
        gaps: from each piece to the next: x0, y0, x1, y1 in pixels.
    """

    pieces: Ints
    length: float
    gaps: tuple[tuple[int, int, int, int], ...]


def straight_runs(x: Ints, y: Ints, label: Ints, number: int, longer: int) -> tuple[list[Run], Floats, Floats]:
    """Find the straight runs among the components of marked pixels.

    Args:
        x: columns of the marked pixels, (N,).
        y: their rows.
        label: component of each.
        number: of components, (N,) < number.
        longer: side of the photo in pixels.
    Returns:
        The runs; how long each component is itself, in pixels, and how straight, 0 to 1.
    """
    pieces = _pieces(x.astype(np.float64), y.astype(np.float64), label, number)
    length = 2.0 * pieces.half
    longest = np.argsort(-length)[:_MOST]
    slim = pieces.across < _SLIM * length + 1.0
    chosen = longest[(length[longest] >= _LEAST * longer) & slim[longest]]
    runs: dict[tuple[int, ...], Run] = {}
    for first in chosen:
        run = _along(pieces, chosen, int(first), _GAP * longer)
        if length[run.pieces].sum() > _FILLED * run.length:
            runs.setdefault(tuple(sorted(run.pieces.tolist())), run)
    straight = 1.0 - np.clip((pieces.across - _SINGLE) / (_WAVY * length + 1.0), 0.0, 1.0)
    return list(runs.values()), length, straight


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


def _along(pieces: _Pieces, chosen: Ints, first: int, widest: float) -> Run:
    """The pieces that lie on one line with ``first``, none of them further than ``widest`` from those before it."""
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
    broken = np.flatnonzero(begin[1:] - end[:-1] > widest) + 1
    where = int(np.flatnonzero(members == first)[0])
    group = slice(broken[broken <= where].max(initial=0), broken[broken > where].min(initial=len(members)))
    members, begin, end = members[group], begin[group], end[group]
    gaps = [
        (*_end(pieces, before, right, down), *_end(pieces, after, -right, -down))
        for before, after, gap in zip(members[:-1], members[1:], begin[1:] - end[:-1], strict=True)
        if gap > 0.0
    ]
    return Run(members, float(end.max() - begin.min()), tuple(gaps))


def _end(pieces: _Pieces, piece: int, right: float, down: float) -> tuple[int, int]:
    """Where a piece ends in that direction."""
    x, y = math.cos(pieces.angle[piece]), math.sin(pieces.angle[piece])
    along = math.copysign(pieces.half[piece], x * right + y * down)
    return round(pieces.x[piece] + along * x), round(pieces.y[piece] + along * y)
