"""How much memory a device has left, and how much of it somebody else uses.

On NVIDIA cards the driver's management library (NVML) is asked, which sees every process; the card is found by its
UUID, because CUDA_VISIBLE_DEVICES renumbers cards for CUDA and not for NVML. Parts of a card (MIG) have UUIDs of their
own. Everything else, and a card that NVML cannot or may not tell about, is asked through torch, whose figure of free
memory is the driver's too. Memory that the CPU or an Apple GPU uses is the machine's, and psutil knows about it. torch
is imported by whoever asks about its devices, and not by a list of the cards.
"""

from __future__ import annotations

import logging
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import psutil

from ..peak_memory import resident_bytes
from . import fork

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

_log = logging.getLogger(__name__)

REREAD_AFTER_S = 0.25
"""A figure younger than this is good enough."""

_SAME_CARD = (
    0.1  # two libraries' totals of one card differ by what the driver keeps to itself; a MIG part's by far more
)


@dataclass(frozen=True)
class Pressure:
    """A device's memory at one moment.

    Attributes:
        total_bytes: all there is.
        free_bytes: what the driver, or the machine, would still give.
        others_bytes: what neither is free nor belongs to torch's allocator in this process: other processes, and what
            the driver itself takes.
        source: who says so: "nvml", "torch" or "system".
    """

    total_bytes: int
    free_bytes: int
    others_bytes: int
    source: str


class PressureGauge:
    """Reads devices, each at most four times a second. Safe to use from any thread.

    Args:
        clock: monotonic seconds.
    """

    def __init__(self, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._begin()
        fork.watch(self)

    def _begin(self) -> None:
        self._lock = threading.Lock()
        self._last: dict[torch.device, tuple[float, Pressure]] = {}
        self._nvml: Any = None
        self._nvml_tried = False
        self._told: set[str] = set()

    def _forked(self, *, cuda_was_live: bool) -> None:  # noqa: ARG002 - NVML itself does not survive a fork either
        self._begin()

    def read(self, device: torch.device) -> Pressure:
        """Look at ``device``, or remember the last look if that was a moment ago.

        Args:
            device: with an index where its type has several.
        Raises:
            RuntimeError, AssertionError: torch knows no such device, and it was never read before.
        """
        with self._lock:
            now = self._clock()
            at, last = self._last.get(device, (now, None))
            if last is not None and now - at < REREAD_AFTER_S:
                return last
            try:
                found = self._look(device)
            except (RuntimeError, AssertionError) as error:
                if last is None:
                    raise
                self._tell(f"{device} cannot be read, so its last figures stand: {error}")
                found = last
            self._last[device] = (now, found)
            return found

    def _look(self, device: torch.device) -> Pressure:
        if device.type == "cpu":
            machine = psutil.virtual_memory()
            return _pressure(machine.total, machine.available, resident_bytes(), "system")
        if device.type == "mps":
            return self._look_at_mps()
        import torch

        ours = int(torch.accelerator.memory_reserved(device))
        if device.type == "cuda" and torch.version.cuda is not None:
            found = self._look_through_nvml(device)
            if found is not None:
                return _pressure(*found, ours, "nvml")
        free, total = torch.accelerator.get_memory_info(device)
        return _pressure(total, free, ours, "torch")

    @staticmethod
    def _look_at_mps() -> Pressure:
        import torch

        total = int(torch.mps.recommended_max_memory())
        ours = int(torch.mps.driver_allocated_memory())
        # The GPU shares the machine's memory: what other programs use is gone for it, too.
        return _pressure(total, min(total - ours, psutil.virtual_memory().available), ours, "system")

    def _look_through_nvml(self, device: torch.device) -> tuple[int, int] | None:
        """Total and free bytes, or None."""
        nvml = self._library()
        if nvml is None:
            return None
        import torch

        properties: Any = torch.cuda.get_device_properties(device)
        try:
            memory = nvml.nvmlDeviceGetMemoryInfo(_handle(nvml, str(properties.uuid)))
            total, free = int(memory.total), int(memory.free)
        except Exception as error:  # noqa: BLE001 - a library of the driver's, in any state: it must not end a run
            self._tell(f"NVML tells nothing about {device}, so torch is asked: {error}")
            return None
        if abs(total - properties.total_memory) > _SAME_CARD * total:
            self._tell(f"NVML tells about the whole card and {device} is a part of it, so torch is asked")
            return None
        return total, free

    def nvidia_devices(self) -> list[dict[str, Any]]:
        """Every NVIDIA card NVML sees, whatever CUDA_VISIBLE_DEVICES says, with the processes on it; without torch.

        Returns:
            ``name``, ``uuid``, ``driver``, ``total_bytes``, ``free_bytes`` and ``processes`` (``pid``, ``name``,
            ``used_bytes``, None where the driver does not say) of each; empty without a driver.
        """
        with self._lock:
            nvml = self._library()
            if nvml is None:
                return []
            try:
                handles = [nvml.nvmlDeviceGetHandleByIndex(index) for index in range(nvml.nvmlDeviceGetCount())]
                return [_described(nvml, handle) for handle in handles]
            except Exception as error:  # noqa: BLE001 - as above
                self._tell(f"NVML could not list the cards: {error}")
                return []

    def _library(self) -> Any:
        """NVML, initialised once; None where it cannot be."""
        if not self._nvml_tried:
            self._nvml_tried = True
            try:
                import pynvml

                pynvml.nvmlInit()
                self._nvml = pynvml
            except Exception as error:  # noqa: BLE001 - no driver, no library, a broken one: all the same here
                self._tell(f"NVML cannot be used: {error}")
        return self._nvml

    def _tell(self, message: str) -> None:
        if message not in self._told:
            self._told.add(message)
            _log.info("%s", message)


def _pressure(total: int, free: int, ours: int, source: str) -> Pressure:
    free = max(0, int(free))
    return Pressure(int(total), free, max(0, int(total) - free - ours), source)


def _handle(nvml: Any, uuid: str) -> Any:
    """The card or the part of a card that CUDA calls ``uuid``; CUDA leaves out which of the two it is.

    Raises:
        NVMLError: there is neither.
    """
    try:
        return nvml.nvmlDeviceGetHandleByUUID(f"GPU-{uuid}".encode())
    except nvml.NVMLError:
        return nvml.nvmlDeviceGetHandleByUUID(f"MIG-{uuid}".encode())


def _described(nvml: Any, handle: Any) -> dict[str, Any]:
    memory = nvml.nvmlDeviceGetMemoryInfo(handle)
    return {
        "name": _text(nvml.nvmlDeviceGetName(handle)),
        "uuid": _text(nvml.nvmlDeviceGetUUID(handle)),
        "driver": _text(nvml.nvmlSystemGetDriverVersion()),
        "total_bytes": int(memory.total),
        "free_bytes": int(memory.free),
        "processes": _processes(nvml, handle),
    }


def _processes(nvml: Any, handle: Any) -> list[dict[str, Any]]:
    found: dict[int, int | None] = {}
    for listed in (nvml.nvmlDeviceGetComputeRunningProcesses, nvml.nvmlDeviceGetGraphicsRunningProcesses):
        try:
            found |= {int(each.pid): each.usedGpuMemory for each in listed(handle)}
        except nvml.NVMLError:  # not on this card, or not for this user
            continue
    return [{"pid": pid, "name": _process_name(pid), "used_bytes": used} for pid, used in sorted(found.items())]


def _process_name(pid: int) -> str:
    try:
        return str(psutil.Process(pid).name())
    except psutil.Error:  # ended meanwhile, or outside this container
        return ""


def _text(value: object) -> str:
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


gauge = PressureGauge()
"""The one of this process."""
