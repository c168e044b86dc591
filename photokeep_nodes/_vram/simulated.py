"""An accelerator that is not there: host memory with a capacity, a bus and faults, for tests and benchmarks.

Copies are real, so weights can be compared bit by bit; memory counts as free only when its last reference is gone, so a
leak shows; time on the bus is counted, not spent.
"""

from __future__ import annotations

import bisect
import threading
import weakref
from collections import deque
from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from collections.abc import Iterable

    from ..vram_manager import VramPool

_POISON = 0xA5


class VirtualClock:
    """Seconds that pass only when somebody says so; shared by a pool, as its ``clock``, and its devices.

    The thread that makes the clock lives by it: a copy it waits for moves the clock on. Copies in other threads go on
    in the background: they occupy the bus from the present moment and move nothing, so that the clock's own thread
    may compute meanwhile and finds out by `SimulatedDevice.await_copies` how much of the copy is left to wait for.
    """

    def __init__(self) -> None:
        self._now = 0.0
        self._owner = threading.get_ident()

    def __call__(self) -> float:
        """Return the present moment."""
        return self._now

    def advance(self, seconds: float) -> None:
        """Let time pass, as by computing."""
        self._now += seconds

    def advance_to(self, moment: float) -> float:
        """Wait until ``moment``; return the seconds that took, 0 if it is past."""
        waited = max(0.0, moment - self._now)
        self._now += waited
        return waited

    @property
    def in_foreground(self) -> bool:
        """Whether this thread is the one that lives by the clock."""
        return threading.get_ident() == self._owner


class FirstFit:
    """Address space given out from its beginning, where blocks cannot be moved: the sum of the holes may do where no
    single one does.

    Args:
        n_bytes: of it all.
    """

    def __init__(self, n_bytes: int) -> None:
        self._holes = [(0, n_bytes)]  # (begin, end), apart from each other, in order

    def take(self, n_bytes: int) -> int | None:
        """Return the address of a block, or None where no hole is large enough."""
        if not n_bytes:
            return 0
        for index, (begin, end) in enumerate(self._holes):
            if end - begin >= n_bytes:
                self._holes[index : index + 1] = [(begin + n_bytes, end)] if end - begin > n_bytes else []
                return begin
        return None

    def give_back(self, begin: int, n_bytes: int) -> None:
        """Make a hole where a block was, and join it with its neighbours."""
        if not n_bytes:
            return
        end = begin + n_bytes
        index = bisect.bisect(self._holes, (begin, end))
        after = index
        if index and self._holes[index - 1][1] == begin:
            index -= 1
            begin = self._holes[index][0]
        if after < len(self._holes) and self._holes[after][0] == end:
            end = self._holes[after][1]
            after += 1
        self._holes[index:after] = [(begin, end)]

    @property
    def largest(self) -> int:
        """Bytes of the largest hole."""
        return max((end - begin for begin, end in self._holes), default=0)


class SimulatedDevice:
    """See `photokeep_nodes._vram.device.Device`.

    Args:
        capacity_bytes: what can be allocated in all.
        bytes_per_s: rate of the bus.
        latency_s: added to every copy.
        clock: what copies take time of; without one it is only summed up.
        fragmenting: whether a block needs a hole of its size, first fit, and not just so many free bytes.

    Attributes:
        allocations: calls so far.
        copies: calls so far.
        bytes_copied: to the device; there is no way back.
        bus_s: what the copies would have taken.
        peak_bytes: most that was allocated at one time.
        refused: how often there was not enough memory, or no hole.
        outside_bytes: set it to have another process take memory.
        failing_allocations: set it to have that many allocations fail, the next ones.
        failing_copies: the same for copies.
        doomed_allocations: set it to the numbers of the calls that are to fail, counted from 1.
        doomed_copies: the same for copies.
        lost: set it to have the device fall off the bus.
        emptied: how often its cache was.
    """

    def __init__(
        self,
        capacity_bytes: int,
        *,
        bytes_per_s: float = 16e9,
        latency_s: float = 10e-6,
        clock: VirtualClock | None = None,
        fragmenting: bool = True,
    ) -> None:
        self._capacity = capacity_bytes
        self._rate = bytes_per_s
        self._latency = latency_s
        self._clock = clock
        self._space = FirstFit(capacity_bytes) if fragmenting else None
        self._lock = threading.Lock()
        self._allocated = 0
        self._freed: deque[tuple[int, int, int]] = deque()  # a finalizer may run under the lock, so it only appends
        self._ready_at: dict[int, float] = {}  # by real address, of what was copied
        self._bus_free_at = 0.0
        self._begun = threading.local()  # when the copies that a thread began are done
        self.allocations = 0
        self.copies = 0
        self.bytes_copied = 0
        self.bus_s = 0.0
        self.peak_bytes = 0
        self.refused = 0
        self.outside_bytes = 0
        self.failing_allocations = 0
        self.failing_copies = 0
        self.doomed_allocations: frozenset[int] = frozenset()
        self.doomed_copies: frozenset[int] = frozenset()
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

    @property
    def largest_hole(self) -> int:
        """Bytes of the largest block that could be allocated if nothing were taken outside."""
        with self._lock:
            live = self._live()
            return self._capacity - live if self._space is None else self._space.largest

    def _live(self) -> int:
        while self._freed:
            begin, n_bytes, real = self._freed.popleft()
            self._allocated -= n_bytes
            self._ready_at.pop(real, None)
            if self._space is not None:
                self._space.give_back(begin, n_bytes)
        return self._allocated

    def capacity_bytes(self) -> int:
        """See `Device`."""
        return self._capacity - self.outside_bytes

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        """See `Device`."""
        with self._lock:
            self.allocations += 1
            self._check_alive()
            if self.failing_allocations > 0 or self.allocations in self.doomed_allocations:
                self.failing_allocations = max(0, self.failing_allocations - 1)
                raise torch.OutOfMemoryError("simulated: an allocation failed")
            fits = self._live() + n_bytes <= self._capacity - self.outside_bytes
            begin = None if not fits else 0 if self._space is None else self._space.take(n_bytes)
            if begin is None:
                self.refused += 1
                why = "no hole is large enough" if fits else f"{n_bytes} bytes more than {self._allocated} do not fit"
                raise torch.OutOfMemoryError(f"simulated: {why}")
            self._allocated += n_bytes
            self.peak_bytes = max(self.peak_bytes, self._allocated)
        memory = np.full(n_bytes, _POISON, dtype=np.uint8)
        block = begin, n_bytes, memory.ctypes.data
        weakref.finalize(memory, self._freed.append, block).atexit = False
        return torch.from_numpy(memory).untyped_storage()

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `Device`; the bytes are there at once, the time it takes is spent by who waits for it."""
        with self._lock:
            self.copies += 1
            self._check_alive()
            if self.failing_copies > 0 or self.copies in self.doomed_copies:
                self.failing_copies = max(0, self.failing_copies - 1)
                raise RuntimeError("simulated: the bus failed")
            seconds = self._latency + source.nbytes() / self._rate
            self.bytes_copied += source.nbytes()
            self.bus_s += seconds
            if self._clock is not None:
                self._bus_free_at = max(self._bus_free_at, self._clock()) + seconds  # one copy at a time
                self._ready_at[target.data_ptr()] = self._bus_free_at
                self._begun.done_at = self._bus_free_at
        target.copy_(source)

    def await_copies(self, tensors: Iterable[torch.Tensor]) -> float:
        """Wait, on the clock, until the memory of ``tensors`` is filled, as a kernel that reads it would.

        Returns:
            Seconds waited; 0 where the copies were done, or were none of this device's, or there is no clock.
        """
        addresses = [tensor.untyped_storage().data_ptr() for tensor in tensors]
        with self._lock:
            self._live()
            ready_at = max((self._ready_at.get(each, 0.0) for each in addresses), default=0.0)
        return 0.0 if self._clock is None else self._clock.advance_to(ready_at)

    def finish_copies(self) -> None:
        """See `Device`; in a thread that does not live by the clock it takes no time, see `await_copies`."""
        if self._clock is not None and self._clock.in_foreground:
            self._clock.advance_to(getattr(self._begun, "done_at", 0.0))

    def mark(self, marks: object) -> object:
        """See `Device`; all work is done at once."""
        return marks

    def wait_for(self, marks: object) -> None:
        """See `Device`."""

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """See `Device`."""
        storages.clear()
        self._check_alive()

    def empty_cache(self) -> None:
        """See `Device`; there is no cache, so only the calls are counted."""
        self.emptied += 1

    def _check_alive(self) -> None:
        if self.lost:
            raise RuntimeError("simulated: the device was lost")


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
