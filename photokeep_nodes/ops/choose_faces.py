"""Choose among faces by number, size and score; plain data, no tensors."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Container, Sequence

    from .detect_faces import Face

_MOST_NUMBERS = 100_000


def parse_numbers(text: str) -> frozenset[int]:
    """Read "1, 3-5" as {1, 3, 4, 5}.

    Raises:
        NodeInputError: it is nothing of the kind.
    """
    found: set[int] = set()
    for part in re.split(r"\s*[,;\s]\s*", re.sub(r"\s*-\s*", "-", text.strip())):
        match = re.fullmatch(r"(\d{1,6})(?:-(\d{1,6}))?", part, re.ASCII)
        first, last = (int(match[1]), int(match[2] or match[1])) if match else (0, 0)
        if not 1 <= first <= last <= _MOST_NUMBERS:
            raise NodeInputError(
                f"{text!r} does not number faces", hint='Write numbers from 1 on, such as "1", "1, 3" or "2-5, 8".'
            )
        found.update(range(first, last + 1))
    return frozenset(found)


def height_of(face: Face) -> float:
    """Height of a face's box in pixels."""
    return face["box"][3] - face["box"][1]


def choose(
    faces: Sequence[Face],
    *,
    numbers: Container[int] | None = None,
    largest: int | None = None,
    min_size: int = 0,
    max_size: int = 0,
    min_score: float = 0.0,
) -> list[Face]:
    """Keep some of the faces of one photo, in their order.

    Args:
        faces: of the photo; those without a number have that of their place, from 1.
        numbers: keep these; None keeps all.
        largest: keep so many of those that pass, by the area of their boxes; None keeps all.
        min_size: least height in pixels.
        max_size: greatest height; 0 sets no limit.
        min_score: least score.
    """
    passing = [
        face
        for place, face in enumerate(faces, 1)
        if (numbers is None or face.get("number", place) in numbers)
        and height_of(face) >= min_size
        and (max_size == 0 or height_of(face) <= max_size)
        and face["score"] >= min_score
    ]
    if largest is None:
        return passing
    by_area = sorted(
        range(len(passing)),
        key=lambda i: (passing[i]["box"][2] - passing[i]["box"][0]) * height_of(passing[i]),
        reverse=True,
    )
    return [passing[i] for i in sorted(by_area[:largest])]
