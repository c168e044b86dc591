"""An accelerator that is not there: host memory with a capacity, a bus and faults, for tests and benchmarks.

Copies are real, so weights can be compared bit by bit; memory counts as free only when its last reference is gone, so a
leak shows; time on the bus is counted, not spent.
"""

from __future__ import annotations

import threading
import weakref
from collections import deque

import numpy as np
import torch

_POISON = 0xA5


class SimulatedDevice:
    """See `photokeep_nodes._vram_device.Device`.

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
            if self.failing_copies > 0:
                self.failing_copies -= 1
                raise RuntimeError("simulated: the bus failed")
            self.bytes_copied += source.nbytes()
            self.bus_s += self._latency + source.nbytes() / self._rate
        target.copy_(source)

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """See `Device`."""
        storages.clear()

    def empty_cache(self) -> None:
        """See `Device`; there is no cache, so only the calls are counted."""
        self.emptied += 1
