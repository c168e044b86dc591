"""What one call takes on its device beside what lies there already."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..peak_memory import CudaStretch, PeakSampler, handed_out_bytes, resident_bytes

if TYPE_CHECKING:
    from types import TracebackType


class CallPeak:
    """Measures the working memory of a ``with`` body on one device.

    CUDA's allocator counts, so that figure is exact. On MPS the allocator's figure is sampled, on the CPU what the C
    library has handed out and the process's resident set, of which the one that rose further counts: all are lower
    bounds, see `photokeep_nodes._vram.learnt.SAMPLED`. Other devices are not measured.

    Args:
        device: with an index where its type has several.
    Attributes:
        n_bytes: the peak above what was there at the start, once the body has ended; None where it is not measured.
    """

    def __init__(self, device: torch.device) -> None:
        self.n_bytes: int | None = None
        self._meter: CudaStretch | PeakSampler | None = None
        if device.type == "cuda":
            self._meter = CudaStretch(torch.cuda.current_device() if device.index is None else device.index)
        elif device.type == "mps":
            self._meter = PeakSampler(torch.mps.current_allocated_memory)
        elif device.type == "cpu":
            self._meter = PeakSampler(handed_out_bytes, resident_bytes)

    def __enter__(self) -> CallPeak:
        if self._meter is not None:
            self._meter.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._meter is not None:
            self._meter.__exit__(kind, error, traceback)
            self.n_bytes = self._meter.grown_bytes


def device_name(device: torch.device) -> str:
    """What kind of device this is, as learnt sizes are kept by: the card's name, else its type."""
    return str(torch.cuda.get_device_name(device)) if device.type == "cuda" else device.type
