"""What the out-of-memory ladder asks of the pool: places in order, room, a count of its rungs, and who holds what."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING, Any, Literal

from .books import HOST
from .engine import PoolEngine
from .guest import ask

if TYPE_CHECKING:
    from collections.abc import Callable, Collection, Iterator, Sequence
    from contextlib import AbstractContextManager

    import torch

    from .records import ModelSource


class PoolRelief(PoolEngine):
    """See `VramPool`, which adds the public half."""

    def by_fitness(
        self,
        sources: Callable[[torch.device], ModelSource | Sequence[ModelSource]],
        working_bytes: Callable[[torch.device, int], int],
        tile: int,
    ) -> Iterator[torch.device]:
        """Yield every accelerator, best first as things stand when the next is needed, and then the CPU."""
        left = list(self.accelerators)
        while left:
            wanted = sources(left[0])
            several = wanted if isinstance(wanted, (list, tuple)) else (wanted,)
            best = self._place(several, working_bytes(left[0], tile), left).place
            if best == HOST:
                break
            yield best
            left.remove(best)
        yield HOST

    def relieve(self, device: torch.device, keep: Collection[str] = ()) -> None:
        """Give up all that is idle on ``device``, a host's models too, but for the models ``keep``.

        What the device's allocator keeps for reuse goes as well.
        """
        ledger = self._ledger(device)
        with self._lock:
            self._state.shrink(ledger, ledger.budget_bytes, keep)
        self._work_off()
        gc.collect()  # tensors in reference cycles, such as those of an exception that went through
        ask(self, ledger, ledger.budget_bytes, keep=keep)
        if ledger.device is not None:
            ledger.device.empty_cache()
        self._reckon(ledger, at_once=True)

    def no_prefetch(self) -> AbstractContextManager[None]:
        """Bring nothing ahead for the duration of the body."""
        return self._prefetcher

    def note_rung(self, rung: Literal["memory_retries", "smaller_tiles", "moved_elsewhere"]) -> None:
        """Count a rung of the out-of-memory ladder."""
        with self._lock:
            setattr(self._state.counters, rung, getattr(self._state.counters, rung) + 1)

    def memory_report(self, device: torch.device) -> dict[str, Any]:
        """Return who holds what on ``device``, as the keyword arguments of an error."""
        ledger = self._ledger(device)
        with self._lock:
            return self._state.complaint(ledger)

    def fence(self, device: torch.device, reason: str) -> None:
        """Use ``device`` no more: it failed. What waits for it gets `DeviceLostError`; nothing on it is touched."""
        self._fence(self._ledger(device), reason)
