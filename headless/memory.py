"""How much memory a stage takes at its peak."""

from __future__ import annotations

import sys
import threading
from typing import TYPE_CHECKING

import psutil

if TYPE_CHECKING:
    from types import TracebackType

_INTERVAL_S = 0.02


class PeakMemory:
    """Watches memory for the duration of a ``with`` body.

    On CUDA devices torch counts for us, and each one's own peak is added up; elsewhere the process's resident set is
    sampled fifty times a second.

    Attributes:
        peak_bytes: the highest value seen.
    """

    def __init__(self) -> None:
        self.peak_bytes = 0
        self._stop = threading.Event()
        self._process = psutil.Process()
        self._thread = threading.Thread(target=self._watch, name="photokeep-peak-memory", daemon=True)

    def _sample(self) -> None:
        self.peak_bytes = max(self.peak_bytes, self._process.memory_info().rss)

    def _watch(self) -> None:
        while not self._stop.wait(_INTERVAL_S):
            self._sample()

    def __enter__(self) -> PeakMemory:
        if _cuda_in_use():
            import torch

            for index in range(torch.cuda.device_count()):
                torch.cuda.reset_peak_memory_stats(index)
        self._sample()
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._stop.set()
        self._thread.join()
        self._sample()
        if _cuda_in_use():
            import torch

            devices = range(torch.cuda.device_count())
            self.peak_bytes = sum(int(torch.cuda.max_memory_allocated(index)) for index in devices)


def _cuda_in_use() -> bool:
    torch = sys.modules.get("torch")  # a cached run never imports it, and then no CUDA can be in use
    return torch is not None and bool(torch.cuda.is_initialized())
