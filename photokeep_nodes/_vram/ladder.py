"""The out-of-memory ladder: what is tried, in which order, when a model call does not fit.

Give up what is only kept for later and try again; smaller tiles; another accelerator; the CPU; then a typed error that
says what was tried and who holds the memory. A device that fails altogether is fenced off on the way.
"""

from __future__ import annotations

import logging
from contextlib import ExitStack
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from ..errors import DeviceLostError, VramExhaustedError
from .failures import is_device_lost, is_out_of_memory, let_go

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    import torch

    from .lease import Lease
    from .relief import PoolRelief

R = TypeVar("R")

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Rung:
    """One attempt that failed.

    Attributes:
        device: where.
        tile: side in pixels; 0 where the call has no tiles.
        why: what the allocator, the pool or the device said, in one line.
        keys: the models that were asked for.
        kind: "memory" if an allocator refused, "budget" if the pool did, "lost" if the device failed.
    """

    device: torch.device
    tile: int
    keys: tuple[str, ...]
    why: str
    kind: str

    def line(self) -> str:
        """The attempt in words."""
        where = f"{self.device} with tiles of {self.tile} px" if self.tile else str(self.device)
        return f"{where}: {self.why}"


def climb_down(
    pool: PoolRelief,
    lease: Callable[[torch.device, int], Lease],
    call: Callable[[Lease, int], R],
    *,
    tiles: Sequence[int],
    devices: Iterator[torch.device],
) -> R:
    """Run ``call`` under a lease on the highest rung that holds.

    Args:
        pool: whose leases they are.
        lease: asks for a lease on a device for calls of a tile.
        call: the work. It may be called several times, so it must not build on what an earlier call left behind.
        tiles: sides to try on each device, largest first.
        devices: places to try, best first; asked for the next only when one is given up.
    Returns:
        What ``call`` returned.
    Raises:
        VramExhaustedError: no rung holds; ``context["tried"]`` lists them.
        DeviceLostError: every device failed.
    """
    tried: list[Rung] = []
    with ExitStack() as short_of_memory:
        for device in devices:
            if tried:
                pool.note_rung("moved_elsewhere")
                _log.warning("going on with %s, after %s", device, tried[-1].line())
            relieved, index = False, 0
            while index < len(tiles):
                failed = _attempt(pool, lease, call, device, tiles[index])
                if not isinstance(failed, Rung):
                    return failed[0]
                if not tried:
                    short_of_memory.enter_context(pool.no_prefetch())
                tried.append(failed)
                if failed.kind == "lost":
                    break
                if failed.kind == "memory" and not relieved:
                    relieved = True
                    pool.relieve(device, failed.keys)
                    pool.note_rung("memory_retries")
                    continue
                index += 1
                if index < len(tiles):
                    pool.note_rung("smaller_tiles")
                    _log.info("trying tiles of %d px, after %s", tiles[index], tried[-1].line())
    raise _given_up(pool, tried)


def _attempt(
    pool: PoolRelief,
    lease: Callable[[torch.device, int], Lease],
    call: Callable[[Lease, int], R],
    device: torch.device,
    tile: int,
) -> tuple[R] | Rung:
    """Try one rung.

    Returns:
        The result in a tuple, or why there is none. The failed call's frames are empty then, and its lease is over.
    """
    held = lease(device, tile)
    try:
        with held:
            return (call(held, tile),)
    except Exception as error:
        if isinstance(error, VramExhaustedError):
            kind = "budget"
        elif isinstance(error, DeviceLostError):
            kind = "lost"
        elif is_out_of_memory(error):
            kind = "memory"
        elif device.type != "cpu" and is_device_lost(error):
            kind = "lost"
            pool.fence(device, str(error))
        else:
            raise
        said = getattr(error, "message", str(error)).partition("\n")[0]
        let_go(error)
    return Rung(device, tile, tuple(source.key for source in held.sources), said or "out of memory", kind)


def _given_up(pool: PoolRelief, tried: list[Rung]) -> VramExhaustedError | DeviceLostError:
    last = next((rung for rung in reversed(tried) if rung.kind != "lost"), None)
    rungs = [{"device": str(rung.device), "tile": rung.tile, "why": rung.why} for rung in tried]
    if last is None:
        return DeviceLostError(
            f"every device failed; the last was {tried[-1].line()}" if tried else "there is no device to compute on",
            hint="Restart the program; `photokeep doctor` shows what is there.",
            tried=rungs,
        )
    report = pool.memory_report(last.device)
    report["hint"] = f"Close other programs, or use a smaller photo or scale.\n{report['hint']}"
    return VramExhaustedError(
        f"out of memory, even on {last.line()}", tried=rungs, tile=last.tile, why=last.why, kind=last.kind, **report
    )
