"""How far a benchmark is, and how long it still takes: on stderr, and only where it takes more than two seconds."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TypeVar

from tqdm import tqdm

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

T = TypeVar("T")


def steps(items: Iterable[T], what: str, total: int | None = None) -> Iterator[T]:
    """Yield ``items``, with a bar and an estimate of the time left."""
    return iter(bar(what, total, items))


def bar(what: str, total: int | None = None, items: Iterable[T] | None = None) -> tqdm[T]:
    """Return a bar to be moved by hand, or over ``items``."""
    return tqdm(items, desc=what, total=total, file=sys.stderr, delay=2, leave=False, dynamic_ncols=True, smoothing=0.1)
