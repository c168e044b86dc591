"""What the pool asks of a device, and the real one."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import psutil
import torch

HEADROOM_BYTES = 512 * 2**20
"""Left free on an accelerator: its context, cuDNN's and cuBLAS' workspaces, rounding in the allocator."""

RAM_AT_EASE_BYTES = 4 * 2**30
"""Free RAM beyond which nobody is in need of it; a tenth of the machine's where that is less."""

_CGROUP_LIMIT = Path("/sys/fs/cgroup/memory.max")


class Device(Protocol):
    """Memory that weights can be copied into.

    The pool calls these outside its lock and from any thread. Nothing here copies from the device to the host.
    """

    @property
    def device(self) -> torch.device:
        """Where tensors in this memory are, as torch names it."""

    def capacity_bytes(self) -> int:
        """How much the pool may use while nobody set a budget, what it uses already included."""

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        """Return uninitialised memory.

        Raises:
            torch.OutOfMemoryError: there is not enough.
        """

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """Fill ``target``, which ``allocate`` made, from host memory; done when it returns."""

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """Wait for work that may still read ``storages``, then empty the list, which holds the last references."""

    def empty_cache(self) -> None:
        """Give memory that the allocator keeps for reuse back to the system."""


class TorchDevice:
    """An accelerator as torch drives it.

    Args:
        device: with an index where its type has several.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device

    @property
    def device(self) -> torch.device:
        """See `Device`."""
        return self._device

    def capacity_bytes(self) -> int:
        """See `Device`. Other processes' memory is out of reach; a host's own models leave when it is asked."""
        if self._device.type == "mps":
            total = torch.mps.recommended_max_memory()
        else:
            free, _ = torch.accelerator.get_memory_info(self._device)
            total = free + torch.accelerator.memory_reserved(self._device)
        return max(0, int(total) - HEADROOM_BYTES)

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        """See `Device`."""
        try:
            with torch.inference_mode(mode=False):
                return torch.empty(n_bytes, dtype=torch.uint8, device=self._device).untyped_storage()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "out of memory" in str(error).lower():  # MPS has no type of its own for this
                raise torch.OutOfMemoryError(str(error)) from None
            raise

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `Device`."""
        target.copy_(source, non_blocking=False)

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """See `Device`."""
        # A lease ends when its kernels are queued, not when they are done. On one stream the allocator's reuse is
        # ordered behind them; a caller's side stream is not, and evictions are rare enough to wait for everything.
        try:
            torch.accelerator.synchronize(self._device)
        finally:
            storages.clear()

    def empty_cache(self) -> None:
        """See `Device`."""
        torch.accelerator.empty_cache()


def default_ram_budget_bytes() -> int:
    """Half of the memory this process may use: the machine's, or its container's where that is less."""
    total = int(psutil.virtual_memory().total)
    try:
        limit = int(_CGROUP_LIMIT.read_text())
    except (OSError, ValueError):  # no control groups here, or "max"
        return total // 2
    return min(total, limit) // 2


def ram_shortfall_bytes() -> int:
    """How much RAM the machine lacks for being at ease; zero or less where it does not."""
    memory = psutil.virtual_memory()
    return min(RAM_AT_EASE_BYTES, int(memory.total) // 10) - int(memory.available)


def best_device() -> torch.device:
    """The accelerator torch found, or the CPU."""
    found = torch.accelerator.current_accelerator(check_available=True)
    return normalised(found) if found is not None else torch.device("cpu")


def normalised(device: torch.device) -> torch.device:
    """Name ``device`` in the one way the pool uses as a key: "cuda" becomes "cuda:N", "cpu:0" becomes "cpu"."""
    if device.type == "cpu":
        return torch.device("cpu")
    if device.index is None:
        current = torch.accelerator.current_accelerator(check_available=True)
        index = torch.accelerator.current_device_index() if current is not None and current.type == device.type else 0
        return torch.device(device.type, index)
    return device
