"""What `vram_gpu` measures on: a CUDA device, or a stand-in that takes real time and needs none."""

from __future__ import annotations

import statistics
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import torch

from photokeep_nodes._vram.device import TorchDevice
from photokeep_nodes._vram.simulated import SimulatedDevice

if TYPE_CHECKING:
    from collections.abc import Callable

    from photokeep_nodes._vram.device import Device

SMALL_BYTES = 4096


class Hardware(Protocol):
    """An accelerator, apart from the pool."""

    place: torch.device

    def open(self, place: torch.device) -> Device:
        """Return what the pool drives it by."""

    def free_bytes(self) -> int:
        """Memory nobody uses."""

    def allocated_bytes(self) -> int:
        """Memory that live tensors of this process take."""

    def peak_bytes(self) -> int:
        """Most that was allocated since `reset_peak`."""

    def reset_peak(self) -> None:
        """Forget the peak up to now."""

    def synchronize(self) -> None:
        """Wait for all work."""

    def copies(self, n_bytes: int, *, pinned: bool, times: int) -> list[float]:
        """Seconds of each of ``times`` copies of one block of host memory to the device."""

    def small_copy_s(self, times: int) -> float:
        """Seconds that a copy of next to nothing takes, when many follow each other."""

    def compute(self, seconds: float) -> None:
        """Keep the device busy for about so long, and wait for it."""

    def copies_to_host(self, work: Callable[[], object]) -> int | None:
        """Copies from the device to the host while ``work`` runs; None where nothing can tell."""

    def tidy(self) -> None:
        """Give back what is kept for reuse."""


class CudaHardware:
    """The current CUDA device."""

    def __init__(self, side: int = 4096) -> None:
        self.place = torch.device("cuda", torch.cuda.current_device())
        self._left = torch.randn(side, side, dtype=torch.float16, device=self.place) / side
        self._right = torch.randn_like(self._left)
        self._out = torch.empty_like(self._left)
        self._multiply(50)  # the first calls make workspaces, which stay, and wake the clocks
        started = time.perf_counter()
        self._multiply(200)
        self._unit_s = (time.perf_counter() - started) / 200

    def open(self, place: torch.device) -> Device:
        """See `Hardware`."""
        return TorchDevice(place)

    def free_bytes(self) -> int:
        """See `Hardware`."""
        free, _ = torch.cuda.mem_get_info(self.place)
        return int(free)

    def allocated_bytes(self) -> int:
        """See `Hardware`."""
        return int(torch.cuda.memory_allocated(self.place))

    def peak_bytes(self) -> int:
        """See `Hardware`."""
        return int(torch.cuda.max_memory_allocated(self.place))

    def reset_peak(self) -> None:
        """See `Hardware`."""
        torch.cuda.reset_peak_memory_stats(self.place)

    def synchronize(self) -> None:
        """See `Hardware`."""
        torch.cuda.synchronize(self.place)

    def copies(self, n_bytes: int, *, pinned: bool, times: int) -> list[float]:
        """See `Hardware`. The memory is written first, or the page faults would be timed."""
        source = torch.full((n_bytes,), 7, dtype=torch.uint8)
        if pinned:
            source = source.pin_memory()
        target = torch.empty(n_bytes, dtype=torch.uint8, device=self.place)
        taken = []
        for _ in range(times + 1):
            self.synchronize()
            started = time.perf_counter()
            target.copy_(source, non_blocking=True)
            self.synchronize()
            taken.append(time.perf_counter() - started)
        return taken[1:]  # the first one makes staging buffers

    def small_copy_s(self, times: int) -> float:
        """See `Hardware`."""
        source = torch.full((SMALL_BYTES,), 7, dtype=torch.uint8)
        target = torch.empty(SMALL_BYTES, dtype=torch.uint8, device=self.place)
        self.synchronize()
        started = time.perf_counter()
        for _ in range(times):
            target.copy_(source, non_blocking=True)
        self.synchronize()
        return (time.perf_counter() - started) / times

    def compute(self, seconds: float) -> None:
        """See `Hardware`: on the stream that is current, in portions, as the layers of a network are queued."""
        left = max(1, round(seconds / self._unit_s))
        while left > 0:
            self._multiply(min(left, 32))
            left -= 32

    def _multiply(self, times: int) -> None:
        for _ in range(times):
            torch.mm(self._left, self._right, out=self._out)
        torch.cuda.current_stream(self.place).synchronize()

    def copies_to_host(self, work: Callable[[], object]) -> int | None:
        """See `Hardware`. A copy made on purpose shows whether the profiler sees any."""
        return self._profiled(work) if self._profiled(self._left.cpu) else None

    def _profiled(self, work: Callable[[], object]) -> int:
        from torch.profiler import ProfilerActivity, profile

        with profile(activities=[ProfilerActivity.CPU, ProfilerActivity.CUDA]) as seen:
            work()
            self.synchronize()
        return sum("DtoH" in event.name for event in seen.events())

    def tidy(self) -> None:
        """See `Hardware`."""
        torch.cuda.empty_cache()


@dataclass(frozen=True)
class DryRates:
    """Of the stand-in: bytes/s and seconds."""

    pageable: float = 400e6
    pinned: float = 800e6
    latency_s: float = 20e-6


class _SlowBus(SimulatedDevice):
    def __init__(self, capacity_bytes: int, rates: DryRates) -> None:
        super().__init__(capacity_bytes, bytes_per_s=rates.pageable, latency_s=rates.latency_s)
        self._rates = rates

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `SimulatedDevice`; other threads run meanwhile."""
        super().copy(source, target)
        time.sleep(self._rates.latency_s + source.nbytes() / self._rates.pageable)


class DryHardware:
    """A stand-in for tests: host memory behind a bus that takes real time."""

    def __init__(self, capacity_bytes: int, rates: DryRates | None = None) -> None:
        self.place = torch.device("cuda", 0)
        self.rates = rates or DryRates()
        self.device = _SlowBus(capacity_bytes, self.rates)
        self._capacity = capacity_bytes

    def open(self, place: torch.device) -> Device:  # noqa: ARG002
        """See `Hardware`."""
        return self.device

    def free_bytes(self) -> int:
        """See `Hardware`."""
        return self._capacity - self.device.live_bytes

    def allocated_bytes(self) -> int:
        """See `Hardware`."""
        return self.device.live_bytes

    def peak_bytes(self) -> int:
        """See `Hardware`."""
        return self.device.peak_bytes

    def reset_peak(self) -> None:
        """See `Hardware`."""
        self.device.peak_bytes = self.device.live_bytes

    def synchronize(self) -> None:
        """See `Hardware`."""

    def copies(self, n_bytes: int, *, pinned: bool, times: int) -> list[float]:
        """See `Hardware`."""
        return [n_bytes / (self.rates.pinned if pinned else self.rates.pageable)] * times

    def small_copy_s(self, times: int) -> float:  # noqa: ARG002
        """See `Hardware`."""
        return self.rates.latency_s

    def compute(self, seconds: float) -> None:
        """See `Hardware`."""
        time.sleep(seconds)

    def copies_to_host(self, work: Callable[[], object]) -> int | None:
        """See `Hardware`: there is no way back."""
        work()
        return 0

    def tidy(self) -> None:
        """See `Hardware`."""


@dataclass(frozen=True)
class Rates:
    """What a machine's bus gives, host to device.

    Attributes:
        pageable: bytes/s out of plain memory.
        pinned: bytes/s out of page-locked memory.
        latency_s: of each copy, however small.
    """

    pageable: float
    pinned: float
    latency_s: float


def calibrate(hardware: Hardware, n_bytes: int, times: int = 7) -> Rates:
    """Measure the bus by one large copy, the median of several."""
    pageable, pinned = (
        n_bytes / statistics.median(hardware.copies(n_bytes, pinned=locked, times=times)) for locked in (False, True)
    )
    return Rates(pageable, pinned, hardware.small_copy_s(500))
