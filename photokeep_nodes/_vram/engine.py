"""Granting leases: at once where the models are hot, else by turn."""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING

from ..errors import PoolClosedError, VramError
from .bring import PoolBringing
from .lease import Lease, copy_of
from .plan import PROMOTE_AHEAD
from .prefetch import Prefetcher
from .queue import AskAgainError, Patience
from .records import Grant, Request, Waiter

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .plan import Plan, PlanStep
    from .records import Ledger, ModelSource

_log = logging.getLogger(__name__)


class PoolEngine(PoolBringing):
    """See `VramPool`, which adds the public half."""

    def _start_empty(self) -> None:
        super()._start_empty()
        self._prefetcher = Prefetcher(self._bring_foreseen, lambda: bool(self._state.plans.plans))

    def _enter(self, lease: Lease) -> None:
        place = lease.place
        if place is None:
            ledger = self._place(lease.sources, lease.working_bytes)
        else:
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

    def _enter_slowly(self, lease: Lease, ledger: Ledger) -> None:
        started = self._clock()
        patience = Patience(lease, self._clock)
        sources = {source.key: source for source in lease.sources}
        request = Request(
            tuple(sources.values()), ledger, lease.working_bytes, threading.current_thread(), lease.priority
        )
        ticket = next(self._tickets)
        self._reckon(ledger)
        self._collect_lost()  # before the queue decides: for a lost lease of this thread it would be a nested request
        try:
            while True:
                with patience.stalled("turn"):
                    grant = self._await_turn(lease, request, ticket, patience)
                try:
                    self._deliver(grant, sources, patience)
                    break
                except AskAgainError:
                    self._leave(grant)
                    lease._grant = None
        finally:
            with self._lock:
                self._state.counters.stall_s += self._clock() - started
                for cause, seconds in patience.stalls_s.items():
                    self._state.counters.stalls_s[cause] += seconds
        self._work_off()

    def _deliver(self, grant: Grant, sources: Mapping[str, ModelSource], patience: Patience) -> None:
        """Bring everything that was granted where it was asked for."""
        with patience.stalled("eviction"):
            self._fund(grant)
        for resident in grant.arrivals:
            self._bring(grant, resident, sources[resident.entry.key], patience)
        for resident in grant.residents:
            if not resident.ready:
                with patience.stalled("other_thread"):
                    self._join(resident.flight, grant.ledger, patience)
        if grant.ledger.is_host or not grant.arrivals:  # else it was asked before each of them was copied
            self._ask_host(grant)
        with self._lock:
            self._state.settle(grant)

    def _await_turn(self, lease: Lease, request: Request, ticket: int, patience: Patience) -> Grant:
        waiter = Waiter(request, ticket, threading.Condition(self._lock))
        try:
            with self._lock:
                if self._closed:
                    raise PoolClosedError("the memory pool was shut down")
                if (error := self._state.back_off.refusal(source.key for source in request.sources)) is not None:
                    self._state.counters.refused_loads += 1
                    raise copy_of(error)
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
                        raise self._timeout(
                            request.ledger, f"{lease.names} could not be leased in {lease.timeout_s:g} s"
                        )
                patience.ask()
        except BaseException:
            with self._lock:
                self._queue.withdraw(waiter)
                lease._grant = waiter.grant  # admitted in the last moment: the lease gives it back
            raise

    # -- foreseeing ---------------------------------------------------------------------------------------------------

    def _begin_plan(self, plan: Plan) -> None:
        with self._lock:
            if self._closed:
                raise PoolClosedError("the memory pool was shut down")
            if plan.job_id in self._state.plans.plans:
                raise VramError(f"the pool has a plan for {plan.job_id} already")
            self._state.plans.plans[plan.job_id] = plan
        self._prefetcher.wake()

    def _move_plan(self, plan: Plan, position: int) -> None:
        with self._lock:
            plan.position = position
        self._prefetcher.wake()

    def _end_plan(self, plan: Plan) -> None:
        with self._lock:
            if self._state.plans.plans.get(plan.job_id) is plan:
                del self._state.plans.plans[plan.job_id]
        self._prefetcher.wake()

    def _bring_foreseen(self) -> bool:
        """Bring the model that the plans need soonest a tier nearer, if it takes nothing from anybody.

        Returns:
            Whether there was one.
        """
        with self._lock:
            coming = [] if self._closed else self._state.plans.ahead()
        return any(self._foresee(distance, step, source, plan) for distance, step, source, plan in coming)

    def _foresee(self, distance: int, step: PlanStep, source: ModelSource, plan: Plan) -> bool:
        try:
            ledger = self._place((source,), 0) if step.device is None else self._ledger(step.device)
        except VramError:  # the step itself will say why
            return False
        current = plan.current
        reserve = 0 if current is None else current.working_bytes
        # A host that manages the device is called by its own threads only, so nothing is promoted behind its back.
        host = self.host_memory
        kept_out = host is not None and host.manages(ledger.place) and not host.may_call_here()
        near = distance - 1 <= PROMOTE_AHEAD and not kept_out
        for target in dict.fromkeys((ledger, self._state.ram) if near else (self._state.ram,)):
            with self._lock:
                entry = self._state.entries.get(source.key)
                there = source.key in target.residents or (target.is_host and entry is not None and not entry.blank)
                if there or source.key in self._state.back_off:
                    return False
                # What the running step has not taken yet stays free for it.
                kept = max(0, reserve - target.working_bytes) if target is ledger else 0
                request = Request((source,), target, 0, threading.current_thread(), foreseen=True)
                grant = self._queue.admit_foreseen(request, distance, kept)
            if grant is not None:
                return self._carry_ahead(grant, source)
        return False

    def _carry_ahead(self, grant: Grant, source: ModelSource) -> bool:
        lease = Lease(self, (source,), grant.ledger.place, 0, None, self._check_open)
        try:
            self._deliver(grant, {source.key: source}, Patience(lease, self._clock))
        except AskAgainError:
            return False
        except BaseException as error:  # noqa: BLE001 - an interrupt means the main thread; who needs the model is told
            _log.debug("%s was not brought ahead: %s", source.key, error)
            return False
        finally:
            self._leave(grant)
        return True

    def _check_open(self) -> None:
        if self._closed:
            raise PoolClosedError("the memory pool was shut down")
