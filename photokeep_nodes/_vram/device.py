"""What the pool asks of a device, and the real one."""

from __future__ import annotations

from contextlib import nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import psutil
import torch

from .pressure import gauge

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from .pressure import Pressure

HEADROOM_BYTES = 512 * 2**20
"""Left free on an accelerator: its context, cuDNN's and cuBLAS' workspaces, rounding in the allocator."""

RAM_AT_EASE_BYTES = 4 * 2**30
"""Free RAM beyond which nobody is in need of it; a tenth of the machine's where that is less."""

_SMALL_BYTES = 2**20
"""Below this a copy is over before anybody misses Python's lock."""

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
        """Begin to fill ``target``, which ``allocate`` made, from host memory that stays as it is until it is done."""

    def finish_copies(self) -> None:
        """Wait for the copies this thread began; what they filled may be read anywhere from then on."""

    def mark(self, marks: Any) -> Any:
        """Note the work queued by this thread up to now, which may still read a model's weights: its lease ends.

        Args:
            marks: what this method returned for the model before, or None.
        """

    def wait_for(self, marks: Any) -> None:
        """Wait until the work that was marked is done; nothing else is waited for."""

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """Empty the list, which holds the last references; nothing reads what was in them any longer."""

    def empty_cache(self) -> None:
        """Give memory that the allocator keeps for reuse back to the system."""


class TorchDevice:
    """An accelerator as torch drives it.

    Args:
        device: with an index where its type has several.
    """

    def __init__(self, device: torch.device) -> None:
        self._device = device
        # Weights go up on a stream of their own, beside the kernels of whatever runs; `_on_copy_stream` says how.
        self._copies = torch.cuda.Stream(device) if device.type == "cuda" else None  # type: ignore[no-untyped-call]

    @property
    def device(self) -> torch.device:
        """See `Device`."""
        return self._device

    def capacity_bytes(self) -> int:
        """See `Device`: what the driver would still give and what torch's allocator holds already, with some left over.

        Other processes' memory is out of reach; a host's own models leave when it is asked.
        """
        return _capacity_bytes(gauge.read(self._device))

    def allocate(self, n_bytes: int) -> torch.UntypedStorage:
        """See `Device`."""
        try:
            with torch.inference_mode(mode=False), self._on_copy_stream():
                return torch.empty(n_bytes, dtype=torch.uint8, device=self._device).untyped_storage()
        except torch.OutOfMemoryError:
            raise
        except RuntimeError as error:
            if "out of memory" in str(error).lower():  # MPS has no type of its own for this
                raise torch.OutOfMemoryError(str(error)) from None
            raise

    def copy(self, source: torch.UntypedStorage, target: torch.UntypedStorage) -> None:
        """See `Device`."""
        with self._on_copy_stream():
            if source.nbytes() < _SMALL_BYTES:
                target.copy_(source, non_blocking=True)
                return
            # As tensors: torch copies storages without letting go of Python's lock, and what computes beside a prefetch
            # would stand still until each copy is done.
            with torch.inference_mode(mode=False):
                _as_tensor(target).copy_(_as_tensor(source), non_blocking=True)

    def finish_copies(self) -> None:
        """See `Device`. Once and not for each tensor: a thousand waits would cost more than the bytes."""
        if self._copies is not None:
            self._copies.synchronize()
        else:
            torch.accelerator.synchronize(self._device)

    def _on_copy_stream(self) -> AbstractContextManager[Any]:
        """Allocate and copy on the side stream alike.

        Memory for weights then comes from the stream's own share of the allocator, so that a block is never reused
        while a kernel on another stream still reads what was in it: `wait_for` comes before `free`.
        """
        return nullcontext() if self._copies is None else torch.cuda.stream(self._copies)

    def mark(self, marks: dict[int, torch.cuda.Event] | None) -> dict[int, torch.cuda.Event] | None:
        """See `Device`. On CUDA one event for each stream that used the model, recorded anew at each release."""
        if self._copies is None:
            return None
        stream = torch.cuda.current_stream(self._device)
        marks = {} if marks is None else marks
        try:
            event = marks.get(stream.stream_id)
            if event is None:
                event = marks[stream.stream_id] = torch.cuda.Event()  # type: ignore[no-untyped-call]
            event.record(stream)
        except RuntimeError:
            stream.synchronize()  # what cannot be marked is waited for; a lost device says so here
        return marks

    def wait_for(self, marks: dict[int, torch.cuda.Event] | None) -> None:
        """See `Device`. A prefetch that evicts must not wait for the stage that computes meanwhile."""
        if self._copies is None:
            torch.accelerator.synchronize(self._device)
        else:
            for event in tuple((marks or {}).values()):
                event.synchronize()

    def free(self, storages: list[torch.UntypedStorage]) -> None:
        """See `Device`."""
        storages.clear()

    def empty_cache(self) -> None:
        """See `Device`."""
        torch.accelerator.empty_cache()


def _capacity_bytes(seen: Pressure) -> int:
    # From what others use, read at one moment: an old figure of what is free beside a new one of what is reserved would
    # count twice what was allocated in between.
    return max(0, seen.total_bytes - seen.others_bytes - HEADROOM_BYTES)


def memory_overview(limit_bytes: int | None = None) -> list[dict[str, Any]]:
    """What a new pool could use of the host's memory and of each accelerator's, and how much others use there.

    Args:
        limit_bytes: the user's cap on accelerators.
    Returns:
        ``device``, ``budget_bytes``, ``total_bytes``, ``free_bytes``, ``others_bytes`` and ``source`` of each.
    """
    found = []
    for place in (torch.device("cpu"), *accelerators()):
        seen = gauge.read(place)
        budget = default_ram_budget_bytes() if place.type == "cpu" else _capacity_bytes(seen)
        if limit_bytes is not None and place.type != "cpu":
            budget = min(budget, limit_bytes)
        found.append({"device": str(place), "budget_bytes": budget, **asdict(seen)})
    return found


def _as_tensor(storage: torch.UntypedStorage) -> torch.Tensor:
    return torch.empty(0, dtype=torch.uint8, device=storage.device).set_(storage)


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


def accelerators() -> tuple[torch.device, ...]:
    """Every accelerator torch can use, the current one first."""
    found = torch.accelerator.current_accelerator(check_available=True)
    if found is None:
        return ()
    current = normalised(found)
    every = (torch.device(found.type, index) for index in range(torch.accelerator.device_count()))
    return (current, *(each for each in every if each != current))


def normalised(device: torch.device) -> torch.device:
    """Name ``device`` in the one way the pool uses as a key: "cuda" becomes "cuda:N", "cpu:0" becomes "cpu"."""
    if device.type == "cpu":
        return torch.device("cpu")
    if device.index is None:
        current = torch.accelerator.current_accelerator(check_available=True)
        index = torch.accelerator.current_device_index() if current is not None and current.type == device.type else 0
        return torch.device(device.type, index)
    return device
