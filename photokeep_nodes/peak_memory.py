"""The peak of memory while something runs. Imports no torch: a run that needs none must stay without.

CUDA keeps one running maximum per device, and whoever wants the peak of his own stretch has to reset it. Stretches lie
inside each other (a tile's within its stage's) and beside each other (two threads), so nobody resets it behind
another's back: `cuda_laps` first folds what was reached so far into every stretch that is under way.
"""

from __future__ import annotations

import ctypes
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


class _MallInfo2(ctypes.Structure):
    """glibc's ``struct mallinfo2``."""

    _fields_ = tuple(
        (name, ctypes.c_size_t)
        for name in (
            "arena", "ordblks", "smblks", "hblks", "hblkhd", "usmblks", "fsmblks", "uordblks", "fordblks", "keepcost",
        )
    )  # fmt: skip


@cache
def _mallinfo2() -> Callable[[], _MallInfo2] | None:
    try:
        function = ctypes.CDLL(None).mallinfo2
    except (OSError, AttributeError, TypeError):  # Windows has no CDLL(None); macOS, musl and glibc before 2.33 no such
        return None
    function.restype = _MallInfo2
    function.argtypes = ()
    return function


def handed_out_bytes() -> int:
    """What the C library has handed out to this process and not been given back; 0 where it cannot be asked.

    Unlike the resident set it rises with every allocation, also with one that is served from memory which the library
    kept when somebody else freed it. Another allocator in the library's place is not seen.
    """
    ask = _mallinfo2()
    if ask is None:
        return 0
    books = ask()
    return int(books.uordblks + books.hblkhd)


class PeakSampler:
    """Looks at figures fifty times a second for the duration of a ``with`` body.

    What comes and goes between two looks is not seen, so the peaks are lower bounds.

    Args:
        reads: the figures, in bytes; the resident set where none is given.
    Attributes:
        start_bytes: the first figure at the beginning.
        peak_bytes: the highest value of the first figure.
    """

    def __init__(self, *reads: Callable[[], int]) -> None:
        self._reads = reads or (resident_bytes,)
        self._start = [0] * len(self._reads)
        self._peak = [0] * len(self._reads)
        self._lock = threading.Lock()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="photokeep-peak-memory", daemon=True)

    @property
    def start_bytes(self) -> int:
        """See the class."""
        return self._start[0]

    @property
    def peak_bytes(self) -> int:
        """See the class."""
        return self._peak[0]

    @property
    def grown_bytes(self) -> int:
        """How far that figure rose which rose most: each of them may miss what another sees."""
        return max(peak - start for peak, start in zip(self._peak, self._start, strict=True))

    def _watch(self) -> None:
        while not self._stop.wait(SAMPLE_INTERVAL_S):
            self._look()

    def _look(self) -> None:
        with self._lock:
            self._peak = [max(peak, read()) for peak, read in zip(self._peak, self._reads, strict=True)]

    def restart(self) -> None:
        """Forget what was seen so far, and begin a new stretch."""
        with self._lock:
            self._start = [read() for read in self._reads]
            self._peak = self._start.copy()

    def look(self) -> int:
        """Look once more, and return the highest value of the first figure."""
        self._look()
        return self.peak_bytes

    def __enter__(self) -> PeakSampler:
        self.restart()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._look()


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

    @property
    def grown_bytes(self) -> int:
        """How far it rose above what was held when it began."""
        return self.peak_bytes - self.start_bytes

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
