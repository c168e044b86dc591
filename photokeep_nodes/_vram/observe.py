"""Learn from a call while it runs: its peak, or that it ran out of memory."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Protocol

from .failures import is_out_of_memory
from .measure import CallPeak, device_name

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from .learnt import WorkingMemory


class Occupied(Protocol):
    """What is asked of a pool."""

    def occupancy(self, device: torch.device) -> tuple[int, int, int]:
        """See `VramPool.occupancy`."""


@contextmanager
def learning(
    pool: Occupied,
    memory: WorkingMemory,
    model: str,
    size: tuple[int, int],
    dtype: torch.dtype,
    device: torch.device,
    *,
    promised_bytes: int,
) -> Iterator[None]:
    """Measure the body, one call of ``model`` under its lease, and remember what it took.

    Only where nobody else used the device meanwhile, for else the peak is not the call's own: no second lease is out,
    none came and went, and nothing arrived or left.

    Args:
        pool: that the model is leased from.
        memory: where what was learnt goes.
        model: id in the catalogue.
        size: (height, width) of the tile, in pixels.
        dtype: in which it is computed.
        device: on which.
        promised_bytes: working memory that was set aside for the call.
    """
    key = (model, *size, str(dtype).removeprefix("torch."), device_name(device))
    before = pool.occupancy(device)
    peak = CallPeak(device)
    try:
        with peak:
            yield
    except BaseException as error:
        if is_out_of_memory(error):
            memory.ran_out(*key, promised_bytes)
        raise
    if peak.n_bytes is not None and before[0] <= 1 and pool.occupancy(device) == before:
        memory.observe(*key, peak.n_bytes)
