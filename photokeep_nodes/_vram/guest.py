"""The pool as a guest: what it tells a host that manages the same memory, and what the host may ask of it.

A host such as ComfyUI keeps a list of loaded models and moves them away as it needs room. Each resident of ours takes a
*seat* in that list before its weights are copied. When the host wants the room back it *recalls* the seat, and the
resident leaves: an accelerator for RAM, or RAM for good where the host has no accelerator. Only threads that may call
the host take seats, for its list has no lock; what another thread promotes gets its seat when one that may comes by.
"""

from __future__ import annotations

from functools import partial
from typing import TYPE_CHECKING, Protocol

from .device import ram_shortfall_bytes
from .records import Phase

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Sequence

    import torch

    from .records import Ledger, Resident
    from .state import PoolState


class Seat(Protocol):
    """A resident as the host sees it. It is recalled at most once, and never after it was left."""

    def leave(self) -> None:
        """Note that the weights are no longer where they were.

        Called from any thread, under the pool's lock, and in the middle of the host's own work: it must call nobody.
        """


class HostMemory(Protocol):
    """The memory management of the program that runs this one."""

    def manages(self, place: torch.device) -> bool:
        """Whether the host keeps its models on ``place``: a host that has no accelerator, on the CPU."""

    def may_call_here(self) -> bool:
        """Whether this thread may take seats."""

    def seat(self, key: str, n_bytes: int, recall: Callable[[], None]) -> Seat:
        """Make a seat for a model, calling nobody; the host learns of it in `admit`.

        Args:
            key: names the model.
            n_bytes: size of its weights.
            recall: what the host's wish for the room calls, from whatever thread and outside the pool's lock. The
                memory of an idle model is free when it returns.
        """

    def admit(self, place: torch.device, seats: Sequence[Seat], n_bytes: int) -> None:
        """Count the seats as loaded on ``place``, once the host's own idle models made room for them and more.

        Only called where `may_call_here` says so, and outside the pool's lock. Other seats may be recalled meanwhile.

        Args:
            place: one that it manages.
            seats: taken already or new; none of them is recalled meanwhile.
            n_bytes: to be free beside the weights.
        """


class Guest(Protocol):
    """What is needed of the pool here."""

    host_memory: HostMemory | None
    _lock: threading.Lock
    _state: PoolState

    def _work_off(self) -> None: ...


def ask(
    pool: Guest, ledger: Ledger, n_bytes: int, arriving: Resident | None = None, keep: Collection[str] = ()
) -> None:
    """Tell the host what is leased on ``ledger``, and have it make room; nothing where that is not for it to know.

    Args:
        pool: whose residents these are.
        ledger: of the tier in question.
        n_bytes: about to be used there beside the weights.
        arriving: a resident about to be copied to an accelerator, its real size known.
        keep: models that are not leased and yet should stay.
    """
    host = pool.host_memory
    if host is None or not host.manages(ledger.place) or not host.may_call_here():
        return
    with pool._lock:
        # Those in use too, though the host knows them: what it is asked for, it does not move away meanwhile.
        present = [
            each
            for each in ledger.residents.values()
            if each is arriving
            or (each.phase is Phase.RESIDENT if each.seat is None else each.grants or each.entry.key in keep)
        ]
        if not n_bytes and all(each.seat is not None for each in present):
            return
        fresh = [each for each in present if each.seat is None]
        for each in fresh:
            each.seat = host.seat(each.entry.key, each.charge.held, partial(_recall, pool, pool._state, each))
        for each in present:
            each.recalled = False
        seats = [each.seat for each in present if each.seat is not None]
    try:
        host.admit(ledger.place, seats, n_bytes)
    except BaseException:
        with pool._lock:
            for each in fresh:  # the host may not have come to know them
                leave(each)
        raise


def leave(resident: Resident) -> None:
    """Give up a resident's seat, if it has one; under the pool's lock."""
    if resident.seat is not None:
        resident.seat.leave()
        resident.seat = None


def _recall(pool: Guest, state: PoolState, resident: Resident) -> None:
    """Let go of a resident that the host wants gone: now if it is idle, else at its last release.

    If it is leased anew by a thread that may call the host, it takes a new seat and stays.
    """
    if pool._state is not state:
        return  # in a forked child, whose parent's memory this is
    with pool._lock:
        state.counters.recalls += 1
        resident.seat = None
        resident.recalled = True
        state.honour_recall(resident)
    pool._work_off()
    # The host moves its own models from the accelerator to RAM with the same wish, and never further.
    if (shortfall := ram_shortfall_bytes()) > 0:
        with pool._lock:
            state.shrink(state.ram, shortfall)
        pool._work_off()
