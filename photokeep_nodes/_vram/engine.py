"""The pool's inner half: waiting, loading, copying and evicting around `PoolState`.

One lock guards the records; loads, copies, evictions and callbacks run outside of it, and nothing that may block or run
foreign code (but for the policy's choice) is called under it.
"""

from __future__ import annotations

import logging
import threading
from collections import deque
from contextlib import contextmanager
from itertools import count
from typing import TYPE_CHECKING

import torch

from ..errors import LeaseTimeoutError, PoolClosedError, VramError, VramExhaustedError
from .device import best_device, normalised
from .evict import carry_out
from .guest import ask
from .lease import copy_of
from .queue import WAIT_SLICE_S, AdmissionQueue, AskAgainError, Patience
from .records import Grant, Ledger, Request, Waiter
from .state import PoolState
from .weights import adopt, upload

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .device import Device
    from .guest import HostMemory
    from .lease import Lease
    from .policy import EvictionPolicy
    from .records import Departure, Entry, Flight, ModelSource, Resident
    from .weights import Instance, Master

_log = logging.getLogger(__name__)


class PoolEngine:
    """See `VramPool`, which adds the public half."""

    def __init__(
        self,
        policy: EvictionPolicy,
        ram_budget_bytes: int,
        budgets: dict[torch.device, int],
        open_device: Callable[[torch.device], Device],
        host_memory: HostMemory | None,
        clock: Callable[[], float],
    ) -> None:
        self.host_memory = host_memory
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

    # -- what a lease calls -------------------------------------------------------------------------------------------

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
        elif self.host_memory is not None:
            self._ask_host(grant)

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

    # -- admission ----------------------------------------------------------------------------------------------------

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
                    for resident in grant.arrivals:
                        self._bring(grant, resident, sources[resident.entry.key], patience)
                    for resident in grant.residents:
                        if not resident.ready:
                            self._join(resident.flight, ledger, patience)
                    if ledger.is_host or not grant.arrivals:  # else it was asked before each of them was copied
                        self._ask_host(grant)
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
                        raise self._timeout(request.ledger, f"{_names(lease)} could not be leased in time")
                patience.ask()
        except BaseException:
            with self._lock:
                self._queue.withdraw(waiter)
                lease._grant = waiter.grant  # admitted in the last moment: the lease gives it back
            raise

    def _timeout(self, ledger: Ledger, message: str) -> LeaseTimeoutError:
        self._state.counters.timeouts += 1
        return LeaseTimeoutError(message, **self._state.complaint(ledger))

    def _fund(self, grant: Grant) -> None:
        """Wait until the grant's bytes are free; only evictions stand in between, and this thread helps with those."""
        while True:
            self._work_off()
            with self._lock:
                if self._state.fund(grant):
                    return
                if not self._state.departures:
                    self._changed.wait(WAIT_SLICE_S)

    def _ask_host(self, grant: Grant, arriving: Resident | None = None) -> None:
        ask(self, grant.ledger, grant.working.held if grant.working else 0, arriving)

    def _join(self, flight: Flight, ledger: Ledger, patience: Patience) -> None:
        """Wait for what another thread is bringing."""
        with self._lock:
            self._state.counters.joined_loads += not flight.done
        while True:
            with self._lock:
                if flight.abandoned:
                    raise AskAgainError
                if flight.error is not None:
                    raise copy_of(flight.error)
                if flight.done:
                    return
                if not patience.wait(flight.landed):
                    raise self._timeout(ledger, f"another thread still loads {_names(patience.lease)}")
            patience.ask()

    # -- bringing -----------------------------------------------------------------------------------------------------

    @contextmanager
    def _blaming(self, grant: Grant, entry: Entry) -> Iterator[None]:
        """Tell those who wait for ``entry`` why it failed. Cancellation is not failure: they take over then."""
        try:
            yield
        except AskAgainError:
            raise
        except Exception as error:
            grant.failure = (entry, copy_of(error))
            with self._lock:
                self._state.counters.failed_loads += 1
            raise

    def _bring(self, grant: Grant, resident: Resident, source: ModelSource, patience: Patience) -> None:
        state, entry = self._state, resident.entry
        self._bring_home(grant, entry, source, patience)
        with self._lock:
            if resident.ready:  # on the host, who loaded it has handed it over
                return
            master = entry.master
            if master is None:
                raise AskAgainError
            original = state.take_instance(resident)
        if original is not None:
            with self._blaming(grant, entry):
                twin = self._clone(original, entry, master)
            with self._lock:
                if resident.ready:
                    return
                resident.instance = twin
        if resident.ledger.is_host:
            with self._lock:
                state.land(resident, [])
            return
        with self._lock:
            if not state.weigh(grant, resident.ledger, resident.charge, master.n_bytes):
                raise AskAgainError
            self._queue.advance()  # a model smaller than thought leaves room
        self._fund(grant)
        self._ask_host(grant, resident)
        with self._blaming(grant, entry):
            self._promote(resident, master)

    def _clone(self, original: Instance, entry: Entry, master: Master) -> Instance:
        try:
            return original.clone(master)
        except VramError:
            with self._lock:
                idle = [
                    each
                    for each in entry.residents.values()
                    if each.ready and not each.grants and not each.ledger.is_host
                ]
                for resident in idle:
                    self._state.evict(resident)
            if not idle:
                raise
        raise AskAgainError  # its only module comes home from the device where it was idle

    def _bring_home(self, grant: Grant, entry: Entry, source: ModelSource, patience: Patience) -> None:
        """Make sure that the weights are in RAM."""
        with self._lock:
            if entry.master is not None:
                return
            flight = entry.loading
        if flight is None:
            raise AskAgainError
        if entry not in grant.loads:
            self._join(flight, grant.ledger, patience)
            return
        started = self._clock()
        with self._blaming(grant, entry):
            master, instance = _load(source)
        with self._lock:
            self._state.sizes[entry.key] = entry.n_bytes = master.n_bytes
            fits = self._state.weigh(grant, self._state.ram, entry.charge, master.n_bytes)
        if not fits:
            instance.hollow()
            raise AskAgainError
        self._fund(grant)
        with self._lock:
            self._state.land_load(entry, master, instance, self._clock() - started)
            self._queue.advance()  # here too, on the host

    def _promote(self, resident: Resident, master: Master) -> None:
        instance, device = resident.instance, resident.ledger.device
        if instance is None or device is None:
            raise VramError(f"{resident.entry.key} has no module to promote")
        storages = self._upload(resident, master, device)
        try:
            instance.point_at(storages, master)
            with self._lock:
                self._state.land(resident, storages)
        except BaseException:
            if not resident.ready:
                instance.point_home(master)
                device.free(storages)
            raise

    def _upload(self, resident: Resident, master: Master, device: Device) -> list[torch.UntypedStorage]:
        key, place = resident.entry.key, resident.ledger.place
        try:
            try:
                return upload(master, device)
            except torch.OutOfMemoryError:
                _log.warning("%s has less memory than its budget says; evicting what is idle", place)
            with self._lock:
                self._state.shrink(resident.ledger, resident.ledger.budget_bytes)
            self._work_off()
            ask(self, resident.ledger, master.n_bytes, resident)
            device.empty_cache()
            return upload(master, device)
        except torch.OutOfMemoryError as error:
            with self._lock:
                complaint = self._state.complaint(resident.ledger)
            raise VramExhaustedError(
                f"{place} ran out of memory while {key} moved there: {error}", **complaint
            ) from None
        except RuntimeError as error:
            raise VramError(f"the weights of {key} could not be copied to {place}: {error}") from error

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


def _load(source: ModelSource) -> tuple[Master, Instance]:
    # Nodes may run in inference mode; weights born there could not be used outside of it.
    with torch.inference_mode(mode=False), torch.no_grad():
        return adopt(source.load())


def _names(lease: Lease) -> str:
    return ", ".join(source.key for source in lease.sources)
