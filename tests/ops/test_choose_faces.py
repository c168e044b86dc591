"""Choosing among faces by number, size and score."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops.choose_faces import choose, parse_numbers

if TYPE_CHECKING:
    from photokeep_nodes.ops.detect_faces import Face


def face(height: float, score: float = 0.9) -> Face:
    return {"box": [0.0, 0.0, height, height], "score": score, "landmarks": [[0.0, 0.0]] * 5}


CROWD = [face(90), face(80, 0.6), face(40), face(20, 0.99)]


@pytest.mark.parametrize(
    ("wanted", "kept"),
    [
        ({}, [0, 1, 2, 3]),
        ({"largest": 1}, [0]),
        ({"largest": 9}, [0, 1, 2, 3]),
        ({"numbers": {2, 4, 77}}, [1, 3]),
        ({"min_size": 40}, [0, 1, 2]),
        ({"max_size": 40}, [2, 3]),
        ({"min_score": 0.7}, [0, 2, 3]),
        ({"largest": 1, "max_size": 85}, [1]),
        ({"numbers": {1}, "max_size": 85}, []),
    ],
)
def test_what_is_kept(wanted: dict, kept: list[int]) -> None:
    assert choose(CROWD, **wanted) == [CROWD[i] for i in kept]


def test_the_order_stays_even_where_it_is_not_by_size() -> None:
    shuffled = [CROWD[2], CROWD[0], CROWD[3], CROWD[1]]
    assert choose(shuffled, largest=2) == [CROWD[0], CROWD[1]]
    assert choose([], largest=2) == []


@pytest.mark.parametrize(
    ("text", "numbers"),
    [("1", {1}), ("1, 3", {1, 3}), ("2-5, 8", {2, 3, 4, 5, 8}), (" 7 ;8 9 ", {7, 8, 9}), ("2 - 3", {2, 3})],
)
def test_numbers_are_read(text: str, numbers: set[int]) -> None:
    assert parse_numbers(text) == numbers


@pytest.mark.parametrize("text", ["", " ", "0", "x", "1,,2", "3-1", "-2", "1-", "1-999999", "1.5", "²"])
def test_other_texts_are_refused(text: str) -> None:
    with pytest.raises(NodeInputError, match="does not number faces"):
        parse_numbers(text)
