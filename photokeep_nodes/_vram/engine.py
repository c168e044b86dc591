"""Granting leases: at once where the models are hot, else by turn."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

from ..errors import PoolClosedError
from .bring import PoolBringing
from .device import best_device
from .queue import AskAgainError, Patience
from .records import Grant, Request, Waiter

if TYPE_CHECKING:
    from .lease import Lease
    from .records import Ledger


class PoolEngine(PoolBringing):
    """See `VramPool`, which adds the public half."""

    def _enter(self, lease: Lease) -> None:
        place = lease.place
        if place is None:
            place = self._default = self._default or best_device()
        ledger = self._state.ledgers.get(place) or self._ledger(place)
        grant = lease._grant = Grant(threading.current_thread(), self._clock(), ledger)
        with self._lock:
            # Nobody overtakes the queue on this path.
            ready = not self._queue.waiters and self._state.grant_hot(grant, lease.sources, lease.working_bytes)
        if not ready:
            lease._grant = None
            self._enter_slowly(lease, ledger)
        elif lease.working_bytes:
            self._ask_host(grant)

    def _enter_slowly(self, lease: Lease, ledger: Ledger) -> None:
        started = self._clock()
        patience = Patience(lease, self._clock)
        sources = {source.key: source for source in lease.sources}
        request = Request(tuple(sources.values()), ledger, lease.working_bytes, threading.current_thread())
        ticket = next(self._tickets)
        self._collect_lost()  # before the queue decides: for a lost lease of this thread it would be a nested request
        try:
            while True:
                try:
                    grant = self._await_turn(lease, request, ticket, patience)
                    self._fund(grant)
                    self._ask_host(grant)
                    for resident in grant.arrivals:
                        self._bring(grant, resident, sources[resident.entry.key], patience)
                    for resident in grant.residents:
                        if not resident.ready:
                            self._join(resident.flight, ledger, patience)
                    with self._lock:
                        self._state.settle(grant)
                    break
                except AskAgainError:
                    if lease._grant is not None:
                        self._leave(lease._grant)
                        lease._grant = None
        finally:
            with self._lock:
                self._state.counters.stall_s += self._clock() - started
        self._work_off()

    def _await_turn(self, lease: Lease, request: Request, ticket: int, patience: Patience) -> Grant:
        waiter = Waiter(request, ticket, threading.Condition(self._lock))
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("the memory pool was shut down")
                self._queue.join(waiter)
                self._state.counters.waits += waiter.grant is None and waiter.error is None
            while True:
                self._work_off()
                self._collect_lost()
                with self._lock:
                    if waiter.grant is not None:
                        lease._grant = waiter.grant
                        return waiter.grant
                    if waiter.error is not None:
                        raise waiter.error
                    if not self._state.departures and not patience.wait(waiter.turn):
                        raise self._timeout(request.ledger, f"{lease.names} could not be leased in time")
                patience.ask()
        except BaseException:
            with self._lock:
                self._queue.withdraw(waiter)
                lease._grant = waiter.grant  # admitted in the last moment: the lease gives it back
            raise
