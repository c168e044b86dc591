"""What every part of the pool stands on: its lock, its records, evicting, and taking leases back.

One lock guards the records; loads, copies, evictions and callbacks run outside of it, and nothing that may block or run
foreign code (but for the policy's choice) is called under it.
"""

from __future__ import annotations

import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from ..errors import LeaseTimeoutError, VramError
from .device import normalised
from .evict import carry_out
from .queue import WAIT_SLICE_S, AdmissionQueue
from .records import Ledger
from .state import PoolState

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

    from .device import Device
    from .policy import EvictionPolicy
    from .records import Departure, Grant


class PoolCore:
    """See `VramPool`, which adds the public half."""

    def __init__(
        self,
        policy: EvictionPolicy,
        ram_budget_bytes: int,
        budgets: dict[torch.device, int],
        open_device: Callable[[torch.device], Device],
        make_room: Callable[[int, torch.device], None] | None,
        clock: Callable[[], float],
    ) -> None:
        self.make_room = make_room
        self._budgets = budgets
        self._ram_bytes = ram_budget_bytes
        self._policy = policy
        self._open_device = open_device
        self._clock = clock
        self._refused_types: set[str] = set()
        self._inherited: list[PoolState] = []
        self._start_empty()

    def _start_empty(self) -> None:
        self._lock = threading.Lock()
        self._state = PoolState(self._lock, self._policy, self._clock, self._ram_bytes)
        self._queue = AdmissionQueue(self._state)
        self._changed = threading.Condition(self._lock)  # an eviction ended, or a lease of a closing pool
        self._tickets = count()
        self._lost: deque[Grant] = deque()
        self._closed = False
        self._default: torch.device | None = None

    def _forked(self, *, cuda_was_live: bool) -> None:
        """Begin anew in a forked child, which owns no leases (I12)."""
        old = self._state
        for grant in old.grants:
            grant.released = True
        self._refused_types |= {ledger.place.type for ledger in old.ledgers.values() if not ledger.is_host}
        if cuda_was_live:
            self._refused_types.add("cuda")
        # Kept for good: freeing the parent's device memory from here would call into a context that is not ours.
        self._inherited.append(old)
        self._start_empty()

    # -- taking back --------------------------------------------------------------------------------------------------

    def _leave(self, grant: Grant) -> None:
        with self._lock:
            if grant.released:
                self._state.counters.double_releases += 1
                return
            self._state.release(grant)
            if self._queue.waiters:
                self._queue.advance()
            if self._closed:
                self._changed.notify_all()
        if self._state.departures:
            self._work_off()

    def _lose(self, grant: Grant) -> None:
        self._lost.append(grant)  # a finalizer may run anywhere, even under the lock

    def _collect_lost(self) -> None:
        while self._lost:
            with self._lock:
                grant = self._lost.popleft() if self._lost else None
                if grant is not None and not grant.released:
                    self._state.counters.lost_leases += 1
                    self._state.release(grant)
                    self._queue.advance()
            self._work_off()

    # -- devices ------------------------------------------------------------------------------------------------------

    def _ledger(self, device: torch.device) -> Ledger:
        """Return the account of ``device``, opening it at its first use."""
        place = normalised(device)
        ledger = self._state.ledgers.get(place)
        if ledger is not None:
            return ledger
        if place.type in self._refused_types:
            raise VramError(
                f"this process was forked from one that used {place}, and cannot use it",
                hint="Start worker processes with the spawn method, or touch no accelerator before forking.",
            )
        try:
            device_ = self._open_device(place)
            budget = self._budgets[place] if place in self._budgets else device_.capacity_bytes()
        except (RuntimeError, AssertionError) as error:  # torch raises either for a device it was not built for
            raise VramError(f"{place} cannot be used: {error}", hint="Choose another device.") from error
        with self._lock:
            return self._state.ledgers.setdefault(place, Ledger(place, device_, budget))

    def _fund(self, grant: Grant) -> None:
        """Wait until the grant's bytes are free; only evictions stand in between, and this thread helps with those."""
        while True:
            self._work_off()
            with self._lock:
                if self._state.fund(grant):
                    return
                if not self._state.departures:
                    self._changed.wait(WAIT_SLICE_S)

    def _timeout(self, ledger: Ledger, message: str) -> LeaseTimeoutError:
        self._state.counters.timeouts += 1
        return LeaseTimeoutError(message, **self._state.complaint(ledger))

    # -- evicting -----------------------------------------------------------------------------------------------------

    def _work_off(self) -> None:
        """Carry out the evictions decided on. Whoever comes by helps: none depends on a thread that was interrupted."""
        state = self._state
        while state.departures:
            departure: Departure | None = None
            try:
                with self._lock:
                    if not state.departures:
                        return
                    departure = state.departures.popleft()
                carry_out(departure, state.ram)
                with self._lock:
                    state.finish_departure(departure)
                    departure = None
                    self._queue.advance()
                    self._changed.notify_all()
            except BaseException:
                if departure is not None:
                    with self._lock:
                        state.departures.appendleft(departure)  # doing it twice does no harm
                raise
