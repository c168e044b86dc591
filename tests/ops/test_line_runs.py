"""Pieces of lines that lie on one straight line, across gaps."""

from __future__ import annotations

import cv2
import numpy as np
import pytest

from photokeep_nodes.ops.line_runs import Run, straight_runs


def runs(drawn: np.ndarray) -> tuple[list[float], list[float]]:
    """Length of the longest run, or its own, and straightness of each component, in the order of their labels."""
    found, own, straight = found_in(drawn)
    longest = own.copy()
    for run in found:
        longest[run.pieces] = np.maximum(longest[run.pieces], run.length)
    return longest[1:].tolist(), straight[1:].tolist()


def found_in(drawn: np.ndarray) -> tuple[list[Run], np.ndarray, np.ndarray]:
    number, labels = cv2.connectedComponents(drawn, connectivity=8)
    y, x = np.nonzero(labels)
    return straight_runs(x, y, labels[y, x], number, max(drawn.shape))


def lines(*ends: tuple[tuple[int, int], tuple[int, int]]) -> np.ndarray:
    drawn = np.zeros((300, 400), np.uint8)
    for start, end in ends:
        cv2.line(drawn, start, end, 1, 2)
    return drawn


def test_a_line_alone_is_as_long_as_it_is() -> None:
    (run,), (straight,) = runs(lines(((50, 100), (150, 120))))
    assert run == pytest.approx(np.hypot(100, 20), rel=0.05)
    assert straight > 0.9


@pytest.mark.parametrize("turn", [0.0, 0.6, 1.2, 1.8, 2.5])
def test_pieces_of_one_line_are_one_run_whichever_way_it_goes(turn: float) -> None:
    middle, along = np.array([200.0, 150.0]), np.array([np.cos(turn), np.sin(turn)])
    at = [(-130, -60), (-40, 10), (40, 130)]
    ends = [tuple(tuple(int(v) for v in np.round(middle + d * along)) for d in piece) for piece in at]
    found, _ = runs(lines(*ends))
    assert len(found) == 3
    for run in found:
        assert run == pytest.approx(260, rel=0.05)


@pytest.mark.parametrize(
    "other",
    [
        ((180, 130), (280, 130)),  # beside
        ((170, 100), (230, 180)),  # turned
        ((260, 100), (330, 100)),  # too far
    ],
    ids=["beside", "turned", "far"],
)
def test_what_does_not_continue_a_line_is_another_one(other: tuple[tuple[int, int], tuple[int, int]]) -> None:
    found, _ = runs(lines(((60, 100), (150, 100)), other))
    assert found[0] == pytest.approx(90, abs=6)


def test_a_few_crumbs_are_no_run() -> None:
    found, _ = runs(lines(*(((20 + 75 * i, 100), (34 + 75 * i, 100)) for i in range(5))))
    assert max(found) < 80


def test_a_bow_is_not_straight() -> None:
    drawn = np.zeros((300, 400), np.uint8)
    cv2.ellipse(drawn, (200, 150), (100, 80), 0, 0, 180, 1, 2)
    _, (straight,) = runs(drawn)
    assert straight == 0.0


def test_nothing_and_single_pixels() -> None:
    assert runs(np.zeros((20, 30), np.uint8)) == ([], [])
    drawn = np.zeros((20, 30), np.uint8)
    drawn[5, 7] = 1
    (run,), _ = runs(drawn)
    assert run < 2


def test_gaps_are_told_from_end_to_end() -> None:
    (run,), _, _ = found_in(lines(((60, 100), (150, 110)), ((190, 114), (300, 126))))
    ((x0, y0, x1, y1),) = run.gaps
    assert (x0, y0) == (pytest.approx(150, abs=4), pytest.approx(110, abs=3))
    assert (x1, y1) == (pytest.approx(190, abs=4), pytest.approx(114, abs=3))
    assert len(run.pieces) == 2
