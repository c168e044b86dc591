"""How much memory a stage takes at its peak."""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING

from photokeep_nodes.peak_memory import CudaStretch, PeakSampler, cuda_in_use, cuda_laps

if TYPE_CHECKING:
    from types import TracebackType


class PeakMemory:
    """Watches memory for the duration of a ``with`` body.

    On CUDA devices torch counts for us, and each one's own peak is added up; elsewhere the process's resident set is
    sampled fifty times a second.

    Args:
        sampler: one that is running already, for bodies that follow each other: starting one takes longer than many
            a stage. Without, there is one for this body.
    Attributes:
        peak_bytes: the highest value seen, once the body has ended.
    """

    def __init__(self, sampler: PeakSampler | None = None) -> None:
        self.peak_bytes = 0
        self._lent = sampler is not None
        self._resident = sampler or PeakSampler()
        self._stretches: list[CudaStretch] = []
        self._under_way = ExitStack()

    def __enter__(self) -> PeakMemory:
        if cuda_in_use():
            import torch

            self._stretches = [CudaStretch(index) for index in range(torch.cuda.device_count())]
        for stretch in self._stretches:
            self._under_way.enter_context(stretch)
        if self._lent:
            self._resident.restart()
        else:
            self._under_way.enter_context(self._resident)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._under_way.close()
        if self._stretches:
            self.peak_bytes = sum(stretch.peak_bytes for stretch in self._stretches)
        elif cuda_in_use():  # its first use was within this body
            import torch

            self.peak_bytes = sum(map(cuda_laps.since_first_use, range(torch.cuda.device_count())))
        else:
            self.peak_bytes = self._resident.look()
