"""What other systems evict, as policies of the memory pool, to compare with."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from photokeep_nodes._vram.policy import cheapest_cover

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from photokeep_nodes._vram.policy import Candidate


class SmallestFirst:
    """InvokeAI's model cache: what is idle leaves in order of size, until there is room."""

    def choose(self, candidates: Sequence[Candidate], need_bytes: int, _outlook: object) -> Sequence[Candidate]:
        """See `EvictionPolicy`."""
        return _until(sorted(candidates, key=lambda each: (each.n_bytes, each.key)), need_bytes)


class SmallestSum:
    """The ComponentsManager of diffusers: the subset that covers the need with the fewest bytes."""

    def choose(self, candidates: Sequence[Candidate], need_bytes: int, _outlook: object) -> Sequence[Candidate]:
        """See `EvictionPolicy`."""
        return cheapest_cover(candidates, [each.n_bytes for each in candidates], need_bytes)


class Gdsf:
    """Greedy-Dual-Size-Frequency (Cherkasova 1998), the cost of a model being its bytes.

    Its priority is the inflation at its last use plus the number of uses; what is evicted raises the inflation.
    """

    def __init__(self) -> None:
        self._inflation = 0.0
        self._uses: Counter[str] = Counter()
        self._priority: dict[str, float] = {}

    def used(self, keys: Iterable[str]) -> None:
        """Note a lease."""
        for key in keys:
            self._uses[key] += 1
            self._priority[key] = self._inflation + self._uses[key]

    def choose(self, candidates: Sequence[Candidate], need_bytes: int, _outlook: object) -> Sequence[Candidate]:
        """See `EvictionPolicy`."""
        chosen = _until(sorted(candidates, key=lambda each: (self._priority[each.key], each.key)), need_bytes)
        self._inflation = max((self._priority[each.key] for each in chosen), default=self._inflation)
        return chosen


def _until(candidates: Iterable[Candidate], need_bytes: int) -> list[Candidate]:
    chosen = []
    for candidate in candidates:
        if need_bytes <= 0:
            break
        chosen.append(candidate)
        need_bytes -= candidate.n_bytes
    return chosen
