"""Thin lines: how much each pixel stands out as part of one, and how likely that line is a scratch.

A scratch has *both* flanks on the same side of its brightness: an edge has one such flank, and a line that parts two
areas has unlike ones. A line is looked for in pieces on end, so that what is short or wavy (letters, fur) stays out,
and its contrast is weighed against that of all the other lines beside it, so that grass, hair and lattices do too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import cv2
import numpy as np

from .line_runs import straight_runs

if TYPE_CHECKING:
    from collections.abc import Iterator

    import numpy.typing as npt

    Plane = npt.NDArray[np.float32]
    Bytes = npt.NDArray[np.uint8]

_ORIENTATIONS = 16
_PIECE = 9  # length in pixels of the pieces of a line; it has two at least
_FLANK = 3.0  # pixels from a line's middle to its flanks: lines of 1 to 3 px have both
_BEYOND = 6.0  # and to where a flank must still look the same: outlines and folds shade off
_UNLIKE = 0.25  # of the difference between the two flanks is taken off the contrast ...
_UNEVEN = 1.0  # ... and all of the difference within each
_AROUND = 10  # half side in pixels of the windows beside a line whose own lines it must stand out of ...
_STAND_OUT = 2.0  # ... by this factor, even in the busiest: an outline is quiet on one side only
_CONTRAST = 0.035  # a line's contrast at which it is half believed, where there is nothing around

REACH = 2 * _AROUND + 2 * _PIECE + math.ceil(_BEYOND) + 2
"""Pixels around a pixel that ``look_along`` looks at."""

_WINDOWS = np.zeros((2 * _AROUND + 1, 2 * _AROUND + 1), np.uint8)
_WINDOWS[::_AROUND, ::_AROUND] = 1
_WINDOWS[_AROUND, _AROUND] = 0

_WEAK = 32  # of 255: how much a pixel must stand out to belong to a line
# How likely a line is a scratch, by logistic regression over lines that were drawn on photos and lines that were not:
# log-odds for its length and contrast, both as logarithms, for the share of its surroundings that lines fill, and for
# how much the directions of its pixels agree. Then lowered until about four fifths of what is marked are right.
_LENGTH_SIDE = 640.0  # longer side in pixels of the photo in which lengths are told
_NEAR = 9  # side in pixels of the square in which directions are compared
_ODDS_LENGTH, _ODDS_CONTRAST, _ODDS_DENSITY, _ODDS_AGREEMENT, _ODDS = 0.71, 1.5, -14.0, 2.0, -0.35
# A straight run over a good part of the photo is more than its pieces' lengths say; shares of the longer side.
_ODDS_RUN, _SHORT_RUN, _LONG_RUN = 2.2, 0.4, 0.6
_BRIDGE = 3  # pixels
_SURROUNDINGS = 0.127  # of the longer side: side of the square in which the share is taken
_TILE = 1024


@dataclass(frozen=True)
class Lines:
    """What is known of the lines at each pixel of one size, (H, W) each.

    Attributes:
        strength: how much it stands out, 0 to 255.
        contrast: in 255ths of the range of values.
        direction: index of the orientation in which it does.
    """

    strength: Bytes
    contrast: Bytes
    direction: Bytes

    @classmethod
    def none(cls, height: int, width: int) -> Lines:
        """Nothing anywhere."""
        return cls(*(np.zeros((height, width), np.uint8) for _ in range(3)))

    def raise_to(self, found: Lines) -> None:
        """Take over what stands out more on a reduced copy."""
        size = self.strength.shape
        for (rows, strength), (_, contrast), (_, direction) in zip(
            enlarged(found.strength, *size),
            enlarged(found.contrast, *size),
            enlarged(found.direction, *size, smooth=False),
            strict=True,
        ):
            more = strength > self.strength[rows]
            self.direction[rows][more] = direction[more]
            np.maximum(self.strength[rows], strength, out=self.strength[rows])
            np.maximum(self.contrast[rows], contrast, out=self.contrast[rows])


def look_along(tile: Plane) -> tuple[Plane, Plane, Bytes]:
    """How much each pixel stands out as part of a line, 0 to 1, its contrast in values, and its orientation."""
    bright, dark, contrast = np.zeros_like(tile), np.zeros_like(tile), np.zeros_like(tile)
    direction = np.zeros(tile.shape, np.uint8)
    for index in range(_ORIENTATIONS):
        _raise_along(tile, math.pi * index / _ORIENTATIONS, bright, dark)
        now = cv2.max(bright, dark)
        direction[now > contrast] = index
        contrast = np.asarray(now, np.float32)
    around = cv2.blur(bright + dark, (2 * _AROUND + 1, 2 * _AROUND + 1))
    # A dilation with eight points: the busiest of the windows that touch the line.
    busiest = cv2.dilate(around, _WINDOWS, borderType=cv2.BORDER_REPLICATE)
    stands_out = contrast / (_CONTRAST + _STAND_OUT * busiest)
    return np.asarray(stands_out / (1.0 + stands_out), np.float32), contrast, direction


def _raise_along(tile: Plane, angle: float, bright: Plane, dark: Plane) -> None:
    """Raise ``bright`` and ``dark`` to the contrast of a line in one direction, where there is one."""
    down, right = math.sin(angle), math.cos(angle)
    mean = np.asarray(cv2.filter2D(tile, -1, _piece(angle), borderType=cv2.BORDER_REPLICATE), np.float32)
    contrasts, uneven = [], np.zeros_like(tile)
    for side in (1.0, -1.0):
        flank = mean - _shifted(mean, side * right * _FLANK, -side * down * _FLANK)
        beyond = mean - _shifted(mean, side * right * _BEYOND, -side * down * _BEYOND)
        uneven += _UNEVEN * cv2.absdiff(flank, beyond)
        contrasts.append(flank)
    uneven += _UNLIKE * cv2.absdiff(*contrasts)
    least, most = cv2.min(*contrasts), cv2.max(*contrasts)
    for whole, contrast in ((bright, least), (dark, -most)):
        one = np.asarray(contrast - uneven, np.float32)
        # One neighbour is enough, so that a line is found up to its end.
        ahead = _shifted(one, down * _PIECE, right * _PIECE)
        behind = _shifted(one, -down * _PIECE, -right * _PIECE)
        np.maximum(whole, cv2.min(one, cv2.max(ahead, behind)), out=whole)


def _piece(angle: float) -> Plane:
    """Kernel that averages along a line of ``_PIECE`` pixels."""
    radius = _PIECE // 2
    kernel = np.zeros((2 * radius + 3, 2 * radius + 3), np.float32)
    for step in np.linspace(-radius, radius, 4 * _PIECE):
        x, y = radius + 1 + step * math.cos(angle), radius + 1 + step * math.sin(angle)
        column, row = math.floor(x), math.floor(y)
        for below, share in ((0, 1.0 - (y - row)), (1, y - row)):
            kernel[min(row + below, 2 * radius + 2), column] += share * (1.0 - (x - column))
            kernel[min(row + below, 2 * radius + 2), min(column + 1, 2 * radius + 2)] += share * (x - column)
    return np.asarray(kernel / kernel.sum(), np.float32)


def _shifted(image: Plane, down: float, right: float) -> Plane:
    """What lies ``down`` and ``right`` of each pixel, to whole pixels; the border is replicated."""
    rows, columns = round(down), round(right)
    height, width = image.shape
    padded = cv2.copyMakeBorder(
        image, max(0, -rows), max(0, rows), max(0, -columns), max(0, columns), cv2.BORDER_REPLICATE
    )
    top, left = max(0, rows), max(0, columns)
    return np.asarray(padded[top : top + height, left : left + width])


def enlarged(found: Bytes, height: int, width: int, *, smooth: bool = True) -> Iterator[tuple[slice, Bytes]]:
    """Bring what was found on a reduced copy to the photo's size, strip by strip: its rows, and its values there."""
    factor = 1
    while found.shape[0] * factor < height or found.shape[1] * factor < width:
        factor *= 2
    rows = max(1, _TILE // factor)
    for top in range(0, found.shape[0], rows):
        # With a row more on both sides, so that the strips meet without a step.
        first, last = max(0, top - 1), min(found.shape[0], top + rows + 1)
        strip = found[first:last]
        if factor > 1:
            size = (strip.shape[1] * factor, strip.shape[0] * factor)
            strip = cv2.resize(strip, size, interpolation=cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST).astype(
                np.uint8
            )
        at = slice(top * factor, min(height, (top + rows) * factor))
        start = (top - first) * factor
        yield at, strip[start : start + at.stop - at.start, :width]


def believe(lines: Lines) -> Bytes:
    """How likely the line that each pixel belongs to is a scratch, 0 to 255; 0 off lines."""
    marked = cv2.morphologyEx(
        (lines.strength > _WEAK).astype(np.uint8),
        cv2.MORPH_CLOSE,
        np.ones((3, 3), np.uint8),
        borderType=cv2.BORDER_REPLICATE,
    ).astype(np.uint8)
    number, labels, boxes, _ = cv2.connectedComponentsWithStats(marked, connectivity=8)
    at = np.flatnonzero(marked)
    label = labels.ravel()[at].astype(np.intp)
    area = np.bincount(label, minlength=number).clip(1)
    longer = max(marked.shape)
    side = max(3, round(_SURROUNDINGS * max(_LENGTH_SIDE * 0.8, longer)))
    dense = cv2.blur(255 * marked, (side, side), borderType=cv2.BORDER_REFLECT).astype(np.uint8)
    contrast, density, agreement = (
        np.bincount(label, plane.ravel()[at], minlength=number) / area / 255.0
        for plane in (lines.contrast, dense, _agreement(marked, lines.direction))
    )
    length = np.hypot(boxes[:, cv2.CC_STAT_WIDTH], boxes[:, cv2.CC_STAT_HEIGHT])
    length *= _LENGTH_SIDE / max(_LENGTH_SIDE, longer)
    odds = _ODDS + _ODDS_LENGTH * np.log(length.clip(1e-3)) + _ODDS_CONTRAST * np.log(contrast + 0.01)
    odds += _ODDS_DENSITY * density + _ODDS_AGREEMENT * agreement
    rows, columns = at // marked.shape[1], at % marked.shape[1]
    runs, own, straight = straight_runs(columns, rows, label, number, longer)
    alone = odds.copy()
    for run in runs:
        # Its pieces are judged together: grain hides one, and the next shows.
        together = float(np.average(alone[run.pieces], weights=own[run.pieces]))
        share = (run.length / longer - _SHORT_RUN) / (_LONG_RUN - _SHORT_RUN)
        more = np.maximum(alone[run.pieces], together) + _ODDS_RUN * min(1.0, share) * straight[run.pieces]
        if share > 0.0:
            odds[run.pieces] = np.maximum(odds[run.pieces], more)
    likely = np.round(255.0 / (1.0 + np.exp(-odds))).astype(np.uint8)
    scores = np.zeros(marked.shape, np.uint8)
    scores.ravel()[at] = likely[label]
    for run in runs:
        if run.length > _SHORT_RUN * longer:
            for gap in run.gaps:
                _bridge(scores, gap, int(likely[run.pieces].min()))
    return scores


def _bridge(scores: Bytes, gap: tuple[int, int, int, int], score: int) -> None:
    """Raise the scores between two pieces of one scratch, which goes on there unseen."""
    line = np.zeros_like(scores)
    cv2.line(line, gap[:2], gap[2:], score, _BRIDGE)
    np.maximum(scores, line, out=scores)


def _agreement(marked: Bytes, direction: Bytes) -> Bytes:
    """How much the directions of the line pixels about each pixel agree, 0 to 255."""
    result = np.zeros(marked.shape, np.uint8)
    margin = _NEAR // 2
    # Orientations half a turn apart are the same: the angle is doubled.
    angles = 2.0 * math.pi * np.arange(_ORIENTATIONS) / _ORIENTATIONS
    for top in range(0, len(marked), _TILE):
        first, last = max(0, top - margin), min(len(marked), top + _TILE + margin)
        here, pointing = marked[first:last].astype(np.float32), direction[first:last]
        x, y = (
            cv2.blur(here * table[pointing], (_NEAR, _NEAR))
            for table in (np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))
        )
        share = np.hypot(x, y) / np.maximum(cv2.blur(here, (_NEAR, _NEAR)), 1e-3)
        stop = min(len(marked), top + _TILE)
        result[top:stop] = np.minimum(255.0, 255.0 * share[top - first : stop - first])
    return result
