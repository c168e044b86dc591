"""What every part of the pool stands on: its lock, its records, evicting, and taking leases back.

One lock guards the records; loads, copies, evictions and callbacks run outside of it, and nothing that may block or run
foreign code (but for the policy's choice) is called under it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from itertools import count
from typing import TYPE_CHECKING

from ..errors import LeaseTimeoutError, VramError
from .device import accelerators, normalised
from .evict import carry_out
from .failures import is_device_lost
from .placement import choose
from .queue import WAIT_SLICE_S, AdmissionQueue
from .records import Ledger
from .state import PoolState

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import torch

    from .device import Device
    from .guest import HostMemory
    from .policy import EvictionPolicy
    from .prefetch import Prefetcher
    from .records import Departure, Grant, ModelSource

_log = logging.getLogger(__name__)

_RECKON_EVERY_S = 0.25  # other processes' memory is asked for this often at most


class PoolCore:
    """See `VramPool`, which adds the public half."""

    _prefetcher: Prefetcher

    def __init__(
        self,
        policy: EvictionPolicy,
        ram_budget_bytes: int,
        budgets: dict[torch.device, int],
        open_device: Callable[[torch.device], Device],
        accelerators: Sequence[torch.device] | None,
        host_memory: HostMemory | None,
        clock: Callable[[], float],
    ) -> None:
        self.host_memory = host_memory
        self._budgets = budgets
        self._ram_bytes = ram_budget_bytes
        self._policy = policy
        self._open_device = open_device
        self._accelerators = None if accelerators is None else tuple(map(normalised, accelerators))
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
        self._mark(grant)
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
        if self._state.plans.plans:
            self._prefetcher.wake()

    def _mark(self, grant: Grant) -> None:
        """A lease ends when its work is queued, not when it is done: let evictions know what to wait for."""
        device = grant.ledger.device
        if device is None or grant.ledger.fenced:
            return
        try:
            for resident in grant.residents:
                resident.marks = device.mark(resident.marks)
        except RuntimeError as error:  # a lease ends all the same
            if is_device_lost(error):
                self._fence(grant.ledger, error)
            else:
                _log.exception("%s did not say what it still works on", grant.ledger.place)

    def _lose(self, grant: Grant) -> None:
        self._lost.append(grant)  # a finalizer may run anywhere, even under the lock

    def _collect_lost(self) -> None:
        for forgotten in tuple(self._lost):
            self._mark(forgotten)
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
        limit = self._budgets.get(place)
        try:
            device_ = self._open_device(place)
            budget = device_.capacity_bytes()
        except (RuntimeError, AssertionError, ValueError) as error:  # torch raises each for devices it cannot use
            raise VramError(f"{place} cannot be used: {error}", hint="Choose another device.") from error
        if limit is not None:
            budget = min(limit, budget)
        with self._lock:
            return self._state.ledgers.setdefault(place, Ledger(place, device_, budget, limit, self._clock()))

    @property
    def accelerators(self) -> tuple[torch.device, ...]:
        """Those the pool may choose among, failed ones included."""
        if self._accelerators is None:
            self._accelerators = accelerators()
        return self._accelerators

    def _place(
        self, sources: Sequence[ModelSource], working_bytes: int, among: Sequence[torch.device] | None = None
    ) -> Ledger:
        """Choose where a request goes that names no device; the CPU where no accelerator is left."""
        ledgers = []
        for place in self.accelerators if among is None else among:
            try:
                ledgers.append(self._ledger(place))
            except VramError as error:
                _log.debug("%s is passed over: %s", place, error.message)
        if len(ledgers) > 1:
            for ledger in ledgers:
                self._reckon(ledger)
        with self._lock:
            return choose(self._state, ledgers, sources, working_bytes) or self._state.ram

    def _reckon(self, ledger: Ledger, *, at_once: bool = False) -> None:
        """Bring a device's budget up to date with what other processes leave of it.

        Args:
            ledger: the device's.
            at_once: ask the device even if it was asked a moment ago.
        """
        device = ledger.device
        if device is None or ledger.fenced or (not at_once and self._clock() < ledger.checked_at + _RECKON_EVERY_S):
            return
        try:
            n_bytes = device.capacity_bytes()
        except RuntimeError as error:
            if not is_device_lost(error):
                raise
            self._fence(ledger, error)
            return
        with self._lock:
            ledger.checked_at = self._clock()
            ledger.budget_bytes = n_bytes if ledger.limit_bytes is None else min(n_bytes, ledger.limit_bytes)
            self._state.shrink(ledger)
            self._queue.advance()
        self._work_off()

    def _fence(self, ledger: Ledger, reason: object) -> None:
        """Use a device no more, whatever it was that failed (see `PoolState.fence`)."""
        if ledger.is_host:
            return
        with self._lock:
            self._state.fence(ledger, str(reason).partition("\n")[0])
            self._queue.advance()
        _log.error("%s failed and is no longer used: %s", ledger.place, ledger.fenced)
        self._work_off()

    def occupancy(self, device: torch.device) -> tuple[int, int, int]:
        """Say what goes on on ``device``, to be compared with a later answer: equal ones mean that nothing did.

        On the CPU, whose memory everything passes through, the leases of all devices count.

        Returns:
            Leases that are out; a number that grows with each new one; bytes charged.
        """
        place = normalised(device)
        with self._lock:
            state = self._state
            ledger = state.ledgers.get(place)
            if ledger is None:
                return (0, 0, 0)
            if ledger.is_host:
                return (len(state.grants), state.tick, ledger.used_bytes)
            newest = max((each.last_used for each in ledger.residents.values()), default=0)
            return (sum(grant.ledger is ledger for grant in state.grants), newest, ledger.used_bytes)

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
