"""An accelerator that is not there: host memory with a capacity, a bus and faults, for tests and benchmarks.

Copies are real, so weights can be compared bit by bit; memory counts as free only when its last reference is gone, so a
leak shows; time on the bus is counted, not spent.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from ..vram_manager import VramPool

_POISON = 0xA5


class SimulatedDevice:
    """See `photokeep_nodes._vram.device.Device`.

    Args:
        capacity_bytes: what can be allocated in all.
        bytes_per_s: rate of the bus.
        latency_s: added to every copy.

    Attributes:
        bytes_copied: to the device; there is no way back.
        bus_s: what the copies would have taken.
        peak_bytes: most that was allocated at one time.
        outside_bytes: set it to have another process take memory.
        failing_allocations: set it to have that many allocations fail.
        failing_copies: the same for copies.
        lost: set it to have the device fall off the bus.
    """

    def __init__(self, capacity_bytes: int, *, bytes_per_s: float = 16e9, latency_s: float = 10e-6) -> None:
        self._capacity = capacity_bytes
        self._rate = bytes_per_s
        self._latency = latency_s
        self._lock = threading.Lock()
        self._allocated = 0
        self._freed: deque[int] = deque()  # a finalizer may run under the lock, so it only appends
        self.bytes_copied = 0
        self.bus_s = 0.0
        self.peak_bytes = 0
        self.outside_bytes = 0
        self.failing_allocations = 0
        self.failing_copies = 0
        self.lost = False
        self.emptied = 0

    @property
    def device(self) -> torch.device:
        """See `Device`: this memory is the host's."""
        return torch.device("cpu")

    @property
    def live_bytes(self) -> int:
        """Bytes allocated that something still refers to."""
        with self._lock:
            return self._live()

    def _live(self) -> int:
        while self._freed:
            self._allocated -= self._freed.popleft()
        return self._allocated

    def capacity_bytes(self) -> int:
        """See `Device`."""
        return self._capacity - self.outside_bytes

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        """See `Device`."""
        with self._lock:
            if self.failing_allocations > 0:
                self.failing_allocations -= 1
                raise torch.OutOfMemoryError("simulated: an allocation failed")
            if self._live() + n_bytes > self._capacity - self.outside_bytes:
                raise torch.OutOfMemoryError(f"simulated: {n_bytes} bytes more than {self._allocated} do not fit")
            self._allocated += n_bytes
            self.peak_bytes = max(self.peak_bytes, self._allocated)
        memory = np.full(n_bytes, _POISON, dtype=np.uint8)
        weakref.finalize(memory, self._freed.append, n_bytes).atexit = False
        return torch.from_numpy(memory).untyped_storage()

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `Device`."""
        with self._lock:
            if self.lost:
                raise RuntimeError("simulated: the device was lost")
            if self.failing_copies > 0:
                self.failing_copies -= 1
                raise RuntimeError("simulated: the bus failed")
            self.bytes_copied += source.nbytes()
            self.bus_s += self._latency + source.nbytes() / self._rate
        target.copy_(source)

    def finish_copies(self) -> None:
        """See `Device`; a copy is done when it returns."""

    def mark(self, marks: object) -> object:
        """See `Device`; all work is done at once."""
        return marks

    def wait_for(self, marks: object) -> None:
        """See `Device`."""

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """See `Device`."""
        storages.clear()
        if self.lost:
            raise RuntimeError("simulated: the device was lost")

    def empty_cache(self) -> None:
        """See `Device`; there is no cache, so only the calls are counted."""
        self.emptied += 1


def audit(pool: VramPool, *, resting: bool = True) -> list[str]:
    """Check a pool's books against each other and against its simulated devices.

    Args:
        pool: its accelerators are `SimulatedDevice`.
        resting: whether nothing is on its way; then the charges have to equal what is really there (I4).
    Returns:
        What is wrong, one line each.
    """
    problems: list[str] = []
    with pool._lock:
        state = pool._state
        entries = [*state.entries.values(), *state.detached]
        for ledger in state.ledgers.values():
            used, committed, budget = ledger.used_bytes, ledger.committed_bytes, ledger.budget_bytes
            if not ledger.overdrawn and max(used, committed) > budget:
                problems.append(f"I1 {ledger.place}: used {used}, committed {committed}, budget {budget}")
            known = {grant.working for grant in state.grants if grant.working and grant.ledger is ledger}
            if ledger.is_host:
                known |= {each.charge for each in entries if each.master is not None or each.loading is not None}
            else:
                known |= {each.residents[ledger].charge for each in entries if ledger in each.residents}
            if known != ledger.charges:
                problems.append(f"I6 {ledger.place}: {len(ledger.charges)} charges, {len(known)} holders")
            if resting and isinstance(ledger.device, SimulatedDevice):
                weights = sum(each.residents[ledger].charge.held for each in entries if ledger in each.residents)
                if weights != ledger.device.live_bytes:
                    problems.append(f"I4 {ledger.place}: {weights} charged, {ledger.device.live_bytes} there")
        for entry in entries:
            there = sum(storage.nbytes() for storage in entry.master.storages) if entry.master else 0
            if resting and entry.charge.held != there:
                problems.append(f"I4 {entry.key}: {entry.charge.held} charged in RAM, {there} there")
            pins = {grant for each in entry.residents.values() for grant in each.grants} | entry.transit
            if not pins <= state.grants:
                problems.append(f"I6 {entry.key}: pinned by a lease that is over")
            if resting and (entry.transit or entry.in_flight or entry.blank):
                problems.append(f"I6 {entry.key}: left on its way")
        if resting and (state.departures or pool._queue.waiters):
            problems.append("I6: evictions or requests were left behind")
    return problems
