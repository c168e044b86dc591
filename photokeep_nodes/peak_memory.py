"""The peak of memory while something runs. Imports no torch: a run that needs none must stay without.

CUDA keeps one running maximum per device, and whoever wants the peak of his own stretch has to reset it. Stretches lie
inside each other (a tile's within its stage's) and beside each other (two threads), so nobody resets it behind
another's back: `cuda_laps` first folds what was reached so far into every stretch that is under way.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import cache
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from collections.abc import Callable
    from types import TracebackType

SAMPLE_INTERVAL_S = 0.02


@cache
def _process(_pid: int) -> psutil.Process:
    return psutil.Process()


def resident_bytes() -> int:
    """Resident set of this process."""
    return int(_process(os.getpid()).memory_info().rss)  # by number: a forked child is another process


class PeakSampler:
    """Looks at a figure fifty times a second for the duration of a ``with`` body.

    What comes and goes between two looks is not seen, so the peak is a lower bound.

    Args:
        read: the figure, in bytes.
    Attributes:
        start_bytes: the first value.
        peak_bytes: the highest value seen.
    """

    def __init__(self, read: Callable[[], int] = resident_bytes) -> None:
        self.start_bytes = 0
        self.peak_bytes = 0
        self._read = read
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="photokeep-peak-memory", daemon=True)

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            self.peak_bytes = max(self.peak_bytes, self._read())

    def __enter__(self) -> PeakSampler:
        self.start_bytes = self.peak_bytes = self._read()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self.peak_bytes = max(self.peak_bytes, self._read())


class CudaStretch:
    """What one CUDA device's allocator held at most while a stretch of work was under way.

    Args:
        index: the device's.
    Attributes:
        start_bytes: held when it began.
        peak_bytes: held at most; complete once the stretch has ended.
    """

    def __init__(self, index: int) -> None:
        self.index = index
        self.start_bytes = 0
        self.peak_bytes = 0

    def __enter__(self) -> CudaStretch:
        cuda_laps.begin(self)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        cuda_laps.end(self)


class CudaLaps:
    """Shares torch's one running maximum per device among all stretches under way.

    An allocation that another thread makes and frees between the reading and the reset is lost to all; that is a few
    instructions, and torch offers no exchange of the two in one.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: dict[int, list[CudaStretch]] = {}
        self._highest: dict[int, int] = {}

    def since_first_use(self, index: int) -> int:
        """Most that the allocator of device ``index`` has held in this process."""
        with self._lock:
            self._lap(index)
            return self._highest[index]

    def begin(self, stretch: CudaStretch) -> None:
        """Start counting for ``stretch``."""
        import torch

        with self._lock:
            self._lap(stretch.index)
            stretch.start_bytes = stretch.peak_bytes = int(torch.cuda.memory_allocated(stretch.index))
            self._open.setdefault(stretch.index, []).append(stretch)

    def end(self, stretch: CudaStretch) -> None:
        """Complete the peak of ``stretch``."""
        with self._lock:
            self._lap(stretch.index)
            self._open[stretch.index].remove(stretch)

    def _lap(self, index: int) -> None:
        import torch

        reached = int(torch.cuda.max_memory_allocated(index))
        torch.cuda.reset_peak_memory_stats(index)
        self._highest[index] = max(self._highest.get(index, 0), reached)
        for stretch in self._open.get(index, ()):
            stretch.peak_bytes = max(stretch.peak_bytes, reached)


cuda_laps = CudaLaps()
"""The one of this process; everything that resets torch's maximum goes through it."""


def cuda_in_use() -> bool:
    """Whether torch was imported and has begun to use CUDA."""
    torch = sys.modules.get("torch")
    return torch is not None and bool(torch.cuda.is_initialized())
