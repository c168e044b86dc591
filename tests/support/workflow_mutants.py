"""Workflows with something changed that no editor would: parts swapped, dropped, doubled, or of another kind."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import random

ODD: tuple[Any, ...] = (
    None, True, False, 0, 1, -1, 2, -10, -20, 2**31, 2**63, 10**30, 0.5, -0.0, 1e308,
    "", "*", "1", "-10", "-20", "1:2", "\0", "a" * 300, "../../etc/passwd", "IMAGE", "COMBO", "Reroute",
    "PrimitiveNode", "LoadImage", "SaveImage", "image", "images.image0", "resize_type.width", "%date:yyyy%",
    "{a|b|{c", "\ud7ff",
    [], {}, [[]], [1, 2], ["1", 0], {"__value__": [1]}, {"nodes": []}, [None] * 7,
)  # fmt: skip
"""What a place in a workflow may be changed to."""


def mutant(raw: Any, randomness: random.Random, changes: int = 3) -> Any:
    """A copy of a JSON value with some random changes.

    Args:
        raw: lists, objects and scalars; not changed.
        randomness: what decides.
        changes: at most how many.
    """
    made = copy.deepcopy(raw)
    places = list(_places(made))
    for _ in range(randomness.randint(1, changes)):
        holder, key = randomness.choice(places)
        if not _holds(holder, key):
            continue
        kind = randomness.randrange(6)
        if kind == 0:
            holder[key] = copy.deepcopy(randomness.choice(ODD))
        elif kind == 1:
            del holder[key]
        elif kind == 2 and isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[randomness.randrange(len(holder))]))
        elif kind == 3:  # what stands elsewhere in the same file: ids that exist, types that are known
            other, there = randomness.choice(places)
            if _holds(other, there):
                holder[key] = copy.deepcopy(other[there])
        elif kind == 4 and isinstance(holder[key], int) and not isinstance(holder[key], bool):
            holder[key] += randomness.choice((-1, 1, 1000))
        elif kind == 5 and isinstance(holder, dict):
            holder[randomness.choice(("id", "type", "inputs", "links", "nodes", "mode", "widgets_values", "x"))] = (
                copy.deepcopy(randomness.choice(ODD))
            )
    return made


def _places(value: Any) -> Any:
    waiting = [value]
    while waiting:
        current = waiting.pop()
        if isinstance(current, dict):
            for key, each in current.items():
                yield current, key
                waiting.append(each)
        elif isinstance(current, list):
            for index, each in enumerate(current):
                yield current, index
                waiting.append(each)


def _holds(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)
