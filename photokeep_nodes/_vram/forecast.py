"""What will be needed next where no plan says so, guessed from what was needed before.

Work repeats: a folder of photos goes through one workflow, somebody tries a stage again and again. Least recently used
is at its worst there, since what comes round next is what was used longest ago. So the past moments that resemble the
present most, by the models leading up to them, are looked up, and what followed them is taken for what will follow now.
Found by simulation (``bench/vram_policies.py``) to be far better than averages of the gaps between a model's uses.

A use costs an append; everything else is done when room has to be made.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import deque
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

MEMORY = 256
"""How many changes from one model to another are remembered."""

HORIZON = 12
"""How many arrivals are foreseen."""

_LONGEST = 4  # models leading up to a moment that are compared
_TRUST = 4.0  # how much more a moment counts for every further model it has in common with the present
_MOMENTS = 8
_PRIOR = 0.1  # the weight of the guess that a model stays unused for as long as it has been


def new_log() -> deque[str]:
    """Return an empty record of uses.

    Whoever notes a use appends the model's key unless it is the last one already: a model leased a hundred times in a
    row, as for tiles, is one use. It starts with a key no model has, so that there always is a last one.
    """
    return deque([""], MEMORY)


class Forecast:
    """What may follow a moment.

    Args:
        log: keys as they were used, the latest last; see `new_log`.
        present: keys in use from this moment on, not yet in the log.

    Attributes:
        futures: what followed the moments most like this one, each with its weight; the weights sum up to 1. Empty
            where there is no such moment.
    """

    def __init__(self, log: Iterable[str], present: Sequence[str]) -> None:
        keys = list(log)
        for key in present:
            if keys[-1] != key:
                keys.append(key)
        self._now = now = len(keys) - 1
        self._uses: dict[str, list[int]] = {}
        for index, key in enumerate(keys):
            self._uses.setdefault(key, []).append(index)
        alike = [(self._common(keys, moment), moment) for moment in self._uses[keys[now]][:-1]]
        alike = sorted(alike, reverse=True)[:_MOMENTS]
        total = sum(_TRUST**length for length, _ in alike)
        self._moments = [(_TRUST**length / total, moment) for length, moment in alike]
        self.futures = [(weight, keys[moment + 1 : moment + 1 + HORIZON]) for weight, moment in self._moments]

    @staticmethod
    def _common(keys: Sequence[str], moment: int) -> int:
        """Count the models leading up to ``moment``, itself included, that also led up to the present."""
        length, now = 1, len(keys) - 1
        while length < min(_LONGEST, moment + 1) and keys[moment - length] == keys[now - length]:
            length += 1
        return length

    def next_use(self, key: str) -> float | None:
        """In how many uses ``key`` is expected; None if it was not used within memory, or no moment was like this one.

        The harmonic mean of the distances after each moment, since it is their inverse that a policy goes by. A moment
        after which it was not used counts as infinitely far.
        """
        uses = self._uses.get(key)
        if uses is None or not self._moments:
            return None
        nearness = _PRIOR / (self._now - uses[-1] + 1)
        for weight, moment in self._moments:
            index = bisect_right(uses, moment)
            if index < len(uses):
                nearness += weight / (uses[index] - moment)
        return (1 + _PRIOR) / nearness
