"""Who may go next: requests that have to wait, in the order they came. The queue is used under the pool's lock."""

from __future__ import annotations

import bisect
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import DeviceLostError, LeaseNestedError, PoolClosedError, VramError, VramExhaustedError
from .records import Ledger, Phase, Request, Waiter
from .report import human

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterator

    from .lease import Lease
    from .records import Grant
    from .room import Holder
    from .state import PoolState

BYPASS_LIMIT = 8
"""How many later requests may be let past one that waits for the same tier (I8)."""

WAIT_SLICE_S = 0.5
"""Longest single wait: a lease lost to garbage collection is noticed, and Ctrl-C is heard on every platform."""

POLL_S = 0.1
"""The same where a caller wants to be asked whether to go on."""


class AskAgainError(Exception):
    """The request has to be admitted anew: a model is larger than was thought, or who was bringing it gave up."""


class Patience:
    """How long one lease may wait, and whom to ask whether to go on."""

    def __init__(self, lease: Lease, clock: Callable[[], float]) -> None:
        self.lease = lease
        self._clock = clock
        self._deadline = None if lease.timeout_s is None else clock() + lease.timeout_s
        self.stalls_s: dict[str, float] = {}

    @contextmanager
    def stalled(self, cause: str) -> Iterator[None]:
        """Count the body's time towards ``cause``, one of `STALL_CAUSES`. Such bodies do not lie inside each other."""
        started = self._clock()
        try:
            yield
        finally:
            self.stalls_s[cause] = self.stalls_s.get(cause, 0.0) + self._clock() - started

    def wait(self, condition: threading.Condition) -> bool:
        """Wait a slice; False, at once, when time is up. Called with the condition's lock held."""
        slice_s = WAIT_SLICE_S if self.lease.check_interrupted is None else POLL_S
        if self._deadline is not None:
            left = self._deadline - self._clock()
            if left <= 0:
                return False
            slice_s = min(slice_s, left)
        condition.wait(slice_s)
        return True

    def ask(self) -> None:
        """Let the caller end the wait by raising; called without the lock."""
        if self.lease.check_interrupted is not None:
            self.lease.check_interrupted()


class AdmissionQueue:
    """First come, first served, priority counted in, with a bounded number of exceptions.

    A request that fits into what is free may pass one that waits for more, `BYPASS_LIMIT` times; it may not evict for
    that, since those bytes are what the earlier one waits for. A thread that already holds a lease is exempt: it must
    not wait at all, or the two could wait for each other (I7).

    Attributes:
        waiters: by rank.
    """

    def __init__(self, state: PoolState) -> None:
        self._state = state
        self.waiters: list[Waiter] = []

    def join(self, waiter: Waiter) -> None:
        """Queue up by rank, and be admitted at once if possible."""
        bisect.insort(self.waiters, waiter, key=lambda each: each.rank)
        self.advance()

    def withdraw(self, waiter: Waiter) -> None:
        """Leave the queue, as after a timeout."""
        if waiter in self.waiters:
            self.waiters.remove(waiter)
            self.advance()

    def refuse_all(self) -> None:
        """End every wait: the pool closes."""
        for waiter in self.waiters:
            waiter.error = PoolClosedError("the memory pool was shut down")
            waiter.turn.notify()
        self.waiters.clear()

    def advance(self) -> None:
        """Admit every waiter that may go now; called whenever bytes or models may have come free."""
        blocked: list[Waiter] = []
        for waiter in tuple(self.waiters):
            try:
                through = self._consider(waiter, blocked)
            except Exception as error:  # noqa: BLE001 - it is the waiter's, not of whoever comes by
                waiter.error, through = error, True
            if through:
                self.waiters.remove(waiter)
                waiter.turn.notify()
            else:
                blocked.append(waiter)

    def admit_foreseen(self, request: Request, distance: float, reserve_bytes: int) -> Grant | None:
        """Admit what a plan will need, if nobody is kept from anything by it.

        Args:
            request: what to bring.
            distance: in how many steps it will be needed; what is needed sooner stays.
            reserve_bytes: left free on the request's ledger for the step in hand.
        Returns:
            None if it would have to wait, or to push out what was needed sooner or came only just now.
        """
        state = self._state
        if self.waiters:
            return None
        try:
            needs = self._needs(request)
        except VramError:
            return None
        if needs is None or request.ledger.fenced:
            return None
        needs[request.ledger] = needs.get(request.ledger, 0) + reserve_bytes
        spared = {
            entry.key for entry in state.entries.values() if state.is_young(entry) or state.use_within(entry, distance)
        }
        victims = self._victims(request, needs, spared)
        return None if victims is None else state.admit(request, victims)

    def _consider(self, waiter: Waiter, blocked: list[Waiter]) -> bool:
        """Admit ``waiter`` if it may go.

        Raises:
            VramExhaustedError: it never can.
            DeviceLostError: its device is fenced off.
            LeaseNestedError: it would have to wait, and its thread holds a lease.
        """
        state, request = self._state, waiter.request
        if request.ledger.fenced:
            raise lost(request.ledger)
        needs = self._needs(request)
        if needs is None:
            waiter.waits_for = frozenset((request.ledger, state.ram))
            return False
        waiter.waits_for = frozenset(
            each for each, n_bytes in needs.items() if each.committed_bytes + n_bytes > each.budget_bytes
        )
        nested = any(grant.thread is request.thread for grant in state.grants)
        rivals = [other for other in blocked if other.waits_for & needs.keys()]
        # Before anything is chosen to leave: a policy takes its time, and a blocked queue is looked through often.
        if rivals and not nested and (waiter.waits_for or any(rival.bypassed >= BYPASS_LIMIT for rival in rivals)):
            waiter.waits_for |= frozenset().union(*(rival.waits_for & needs.keys() for rival in rivals))
            return False
        victims = self._victims(request, needs)
        if victims is None:
            if nested:
                complaint = state.complaint(request.ledger)
                complaint["hint"] = f"Lease both at once: pool.lease([a, b]).\n{complaint['hint']}"
                raise LeaseNestedError(
                    f"a lease of {_names(request)} inside another lease of the same thread would have to wait",
                    **complaint,
                )
            return False  # it fits, so what stands in the way is leased or leaving
        for rival in rivals:
            rival.bypassed += 1
        waiter.grant = state.admit(request, victims)
        return True

    def _needs(self, request: Request) -> dict[Ledger, int] | None:
        """Sum up what is not there yet, by ledger; None while an eviction or a stale load has to end first.

        Raises:
            VramExhaustedError: more than a whole budget.
        """
        state, ledger = self._state, request.ledger
        whole = request.working_bytes  # what the request pins on its own ledger, resident or not
        missing = request.working_bytes
        load = in_ram = 0  # to be loaded; to be in RAM at one time
        passing = False
        for source in request.sources:
            entry = state.entries.get(source.key)
            size = entry.n_bytes if entry is not None else state.size_of(source)
            whole += size
            if entry is not None and (resident := entry.residents.get(ledger)) and resident.phase is not Phase.LEAVING:
                passing |= entry.stale
                continue
            in_ram += size
            if not ledger.is_host:
                missing += size
            if entry is None or (entry.master is None and entry.loading is None):
                load += size
            if entry is not None:
                leaving = any(each.phase is Phase.LEAVING for each in entry.residents.values())
                passing |= entry.stale or entry.charge.leaving or leaving
        if whole > ledger.budget_bytes:
            raise self._exhausted(request, ledger, whole)
        if passing:
            return None
        needs = {ledger: missing}
        if load:
            if in_ram > state.ram.budget_bytes:
                raise self._exhausted(request, state.ram, in_ram)
            needs[state.ram] = needs.get(state.ram, 0) + load
        return needs

    def _victims(self, request: Request, needs: dict[Ledger, int], spared: Collection[str] = ()) -> list[Holder] | None:
        """Choose what has to leave; None where not enough may."""
        state = self._state
        keys = {source.key for source in request.sources}
        victims: list[Holder] = []
        # RAM first: a model that leaves both tiers is then dropped from the device, with no way home to take.
        for ledger in sorted(needs, key=lambda each: not each.is_host):
            if not needs[ledger]:
                continue  # nothing new on this tier, even if its budget was lowered meanwhile
            # RAM may let go of the request's own models where they are hot on the device.
            keep = keys if not ledger.is_host or request.ledger.is_host else keys - request.ledger.residents.keys()
            chosen = state.victims(ledger, needs[ledger], keep.union(spared), request)
            if chosen is None:
                return None
            victims += chosen
        return victims

    def _exhausted(self, request: Request, ledger: Ledger, n_bytes: int) -> VramExhaustedError:
        error = VramExhaustedError(
            f"{_names(request)} with {human(request.working_bytes)} of working memory needs {human(n_bytes)} on "
            f"{ledger.place}, whose budget is {human(ledger.budget_bytes)}",
            need_bytes=n_bytes,
            budget_bytes=ledger.budget_bytes,
            **self._state.complaint(ledger),
        )
        what = "RAM budget" if ledger.is_host else "VRAM budget"
        error.hint = f"Use smaller tiles, another device or a larger {what}.\n{error.hint}"
        return error


def lost(ledger: Ledger) -> DeviceLostError:
    """What to answer who asks for a device that failed."""
    return DeviceLostError(
        f"{ledger.place} failed and is no longer used: {ledger.fenced}",
        hint="Choose another device; restart the program to use this one again.",
        device=str(ledger.place),
    )


def _names(request: Request) -> str:
    return ", ".join(source.key for source in request.sources)
