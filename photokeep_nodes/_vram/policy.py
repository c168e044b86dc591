"""Which residents make room: the one decision a policy takes."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Candidate:
    """Something that may be evicted now.

    Attributes:
        key: the model's.
        n_bytes: what evicting it frees on the tier in question.
        last_used: tick of its last lease; larger is more recent.
        warm: whether it stays in RAM, so that its way back is a copy and not a load.
        load_s: measured seconds of its last load from disk.
    """

    key: str
    n_bytes: int
    last_used: int
    warm: bool
    load_s: float


class EvictionPolicy(Protocol):
    """Chooses what to evict.

    Called under the pool's lock: it must neither block nor call the pool.
    """

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> Sequence[Candidate]:
        """Pick candidates worth at least ``need_bytes``; fewer or none where they cannot give that much."""


class LruPolicy:
    """Least recently used first, sparing what turns out not to be needed."""

    def choose(self, candidates: Sequence[Candidate], need_bytes: int) -> Sequence[Candidate]:
        """See `EvictionPolicy`."""
        chosen: list[Candidate] = []
        surplus = -need_bytes
        for candidate in sorted(candidates, key=lambda each: (each.last_used, each.key)):
            if surplus >= 0:
                break
            chosen.append(candidate)
            surplus += candidate.n_bytes
        if surplus < 0:
            return ()
        # A large victim at the end often makes small ones before it needless; keep the most recent of those.
        for candidate in reversed(chosen[:-1]):
            if candidate.n_bytes <= surplus:
                surplus -= candidate.n_bytes
                chosen.remove(candidate)
        return chosen
