"""The memory pool: owns every weight on every device.

A model is *cold* on disk, *warm* as a built module in RAM, *hot* on an accelerator. A *lease* is a scoped right to use
one or more models on a device, plus some working bytes; what is leased is not evicted. Each tier has a budget in bytes.
When room is needed, the policy (by plan, by forecast, or least recently used) chooses among idle models; a hot one goes
back to warm by swapping pointers, which copies nothing, and a warm one is forgotten. Two threads that ask for one model
wait for one load.

::

    pool = shared_pool()
    with pool.lease(source, device=device, working_bytes=2 * 2**30) as lease:
        output = lease.module(image.to(lease.device))
    with pool.lease([detector, restorer], device=device) as (detect, restore):
        ...

The pool is one per process, even where two copies of the pack are loaded. On the CPU hot is warm, nothing kept twice.

How it is built, in ``_vram/``: ``records`` (the data), ``books`` and ``state`` (every change of it), ``back_off``;
``queue`` (who may go next); ``room``, ``policy``, ``plan``, ``forecast``, ``foresight`` (who leaves); ``prefetch`` (who
comes ahead); ``core``, ``bring``, ``engine``, ``evict`` (waiting and working outside the lock); ``ladder``, ``relief``
and ``failures`` (what is tried when memory runs out); ``placement``; ``weights`` (the pointer swap); ``device`` and
``pressure`` (the hardware and who else uses it); ``measure``, ``observe``, ``learnt``, ``keep`` (what calls take);
``guest`` (life inside a host); ``lease``, ``report``, ``fork``.
"""

from __future__ import annotations

import sys
import threading
import time
import types
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ._vram import SHARED_KEY as _SHARED_KEY
from ._vram import fork
from ._vram.books import HOST
from ._vram.device import Device, TorchDevice, default_ram_budget_bytes, memory_overview, normalised
from ._vram.failures import is_device_lost, is_out_of_memory
from ._vram.guest import HostMemory
from ._vram.ladder import climb_down
from ._vram.learnt import WorkingMemory, working_memory
from ._vram.lease import Lease
from ._vram.measure import device_name
from ._vram.observe import learning
from ._vram.plan import Plan, PlanStep
from ._vram.policy import Candidate, EvictionPolicy, LruPolicy, PlanAwarePolicy
from ._vram.pressure import Pressure, gauge
from ._vram.queue import WAIT_SLICE_S
from ._vram.records import ModelSource
from ._vram.relief import PoolRelief
from .errors import VramError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    import torch

__all__ = [
    "API_VERSION",
    "Candidate",
    "Device",
    "EvictionPolicy",
    "HostMemory",
    "Lease",
    "LruPolicy",
    "ModelSource",
    "Plan",
    "PlanAwarePolicy",
    "PlanStep",
    "Pressure",
    "TorchDevice",
    "VramPool",
    "WorkingMemory",
    "device_name",
    "gauge",
    "is_device_lost",
    "is_out_of_memory",
    "learning",
    "may_interrupt",
    "memory_overview",
    "shared_pool",
    "working_memory",
]

R = TypeVar("R")

API_VERSION = (1, 1)
"""Of the pool as other copies of the pack see it: the first number changes when a caller would break, the second when
something is added."""


class VramPool(PoolRelief):
    """Every weight on every device, and who uses it. Safe to use from any thread.

    Args:
        vram_budgets: bytes per accelerator at most; what other processes leave of it is the other bound.
        ram_budget_bytes: for the masters of all models and for leases on the CPU; half of the machine's by default.
        policy: what to evict; by plans and forecasts by default.
        open_device: how to reach an accelerator, given its name.
        accelerators: among which the pool may choose; every one that torch finds by default.
        host_memory: the memory management of the program that runs this one and uses the same accelerators. It is told
            before new bytes are used on one, and may have models leave. May be set later.
        clock: monotonic seconds.
    """

    api_version = API_VERSION

    def __init__(
        self,
        *,
        vram_budgets: Mapping[torch.device, int] | None = None,
        ram_budget_bytes: int | None = None,
        policy: EvictionPolicy | None = None,
        open_device: Callable[[torch.device], Device] = TorchDevice,
        accelerators: Sequence[torch.device] | None = None,
        host_memory: HostMemory | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(
            policy or PlanAwarePolicy(),
            default_ram_budget_bytes() if ram_budget_bytes is None else ram_budget_bytes,
            {normalised(place): n_bytes for place, n_bytes in (vram_budgets or {}).items()},
            open_device,
            accelerators,
            host_memory,
            clock,
        )
        fork.watch(self)

    def _forked(self, *, cuda_was_live: bool) -> None:
        super()._forked(cuda_was_live=cuda_was_live)
        space = sys.modules.get(_SHARED_KEY)
        if space is not None and vars(space)["pool"] is self:
            vars(space)["lock"] = threading.Lock()

    def lease(
        self,
        sources: ModelSource | Sequence[ModelSource],
        *,
        device: torch.device | None = None,
        working_bytes: int = 0,
        timeout_s: float | None = None,
        check_interrupted: Callable[[], None] | None = None,
        priority: int = 0,
    ) -> Lease:
        """Ask for models on a device, all or nothing. The lease begins where it is entered.

        Args:
            sources: one model, or a list or tuple of those that are needed together.
            device: where; by default the accelerator that serves it best, see `place`, else the CPU.
            working_bytes: what the call will allocate beside the weights.
            timeout_s: longest wait for others; a load in this thread is not cut short. None waits on.
            check_interrupted: called about ten times a second while waiting; what it raises ends the wait.
            priority: one step passes the 16 requests that came before it.
        Returns:
            A context manager with ``module`` (of one model), ``modules`` and ``device``; it unpacks to its modules.
        Raises:
            VramError: no model, or negative bytes. The rest is raised on entering:
            VramExhaustedError: more than a whole budget.
            DeviceLostError: the device failed earlier.
            LeaseTimeoutError: not granted in time.
            LeaseNestedError: it would have to wait while this thread holds another lease.
            PoolClosedError: the pool was closed.
            Exception: whatever a source's ``load`` raised, in every thread that waited for it. Nothing stays behind,
                and the next request tries again; after a second failure in a row requests are answered with the same
                error for a second, then for two, and so on up to a minute, without trying.
        """
        # Duck-typed, not isinstance of ModelSource: a second copy of the pack has a class of its own.
        wanted: tuple[ModelSource, ...] = tuple(sources) if isinstance(sources, (list, tuple)) else (sources,)  # type: ignore[assignment]
        if working_bytes < 0 or not wanted or not all(hasattr(source, "load") for source in wanted):
            raise VramError("a lease takes at least one ModelSource and no negative number of working bytes")
        return Lease(self, wanted, device, working_bytes, timeout_s, check_interrupted, priority)

    def plan(self, job_id: str, steps: Sequence[PlanStep], *, prefetch: bool = True) -> Plan:
        """Tell what a job will need: what is needed soonest is then evicted last, and brought before it is asked for.

        ::

            with pool.plan("photo 17", steps) as plan:
                for index, step in enumerate(steps):
                    plan.reach(index)
                    ...

        Args:
            job_id: names the job; one plan each.
            steps: in order. It is no mistake to leave some out, or to name models that turn out not to be needed.
            prefetch: whether to bring models in a thread of the pool's, while the plan is in force.
        Raises:
            VramError: on entering: the job has a plan already.
            PoolClosedError: on entering: the pool was closed.
        """
        placed = [each if each.device is None else replace(each, device=normalised(each.device)) for each in steps]
        return Plan(self, job_id, placed, prefetch=prefetch)

    def run(
        self,
        sources: Callable[[torch.device], ModelSource | Sequence[ModelSource]],
        call: Callable[[Lease, int], R],
        *,
        tiles: Sequence[int] = (0,),
        working_bytes: Callable[[torch.device, int], int] = lambda _device, _tile: 0,
        devices: Sequence[torch.device] | None = None,
        timeout_s: float | None = None,
        check_interrupted: Callable[[], None] | None = None,
        priority: int = 0,
    ) -> R:
        """Call a model, and go down the out-of-memory ladder until it fits.

        First what is only kept for later is given up and the call repeated; then smaller tiles are tried; then the
        next device; at last the CPU.

        Args:
            sources: what to lease on a device; a dtype, and so a key, may depend on it.
            call: the work, given the lease and a tile. It may be called again after a failure.
            tiles: sides in pixels, largest first; 0 where the work has none.
            working_bytes: what a call with a tile will allocate on a device beside the weights.
            devices: to try, best first; by default every accelerator, best placed first, and then the CPU.
            timeout_s: as for `lease`, for each attempt.
            check_interrupted: as for `lease`.
            priority: as for `lease`.
        Returns:
            What ``call`` returned.
        Raises:
            VramExhaustedError: it fits nowhere; ``context["tried"]`` says what was tried.
            DeviceLostError: every device failed.
            Exception: what ``call`` raised for other reasons than memory, and what `lease` raises.
        """

        def lease(device: torch.device, tile: int) -> Lease:
            return self.lease(
                sources(device),
                device=device,
                working_bytes=working_bytes(device, tile),
                timeout_s=timeout_s,
                check_interrupted=check_interrupted,
                priority=priority,
            )

        if not tiles:
            raise VramError("there is no tile to try", hint="Pass at least one; 0 where the work has none.")
        places = self.by_fitness(sources, working_bytes, tiles[0]) if devices is None else iter(devices)
        return climb_down(self, lease, call, tiles=tiles, devices=places)

    def place(self, sources: Sequence[ModelSource] = (), working_bytes: int = 0) -> torch.device:
        """Return the accelerator on which ``sources`` are best served, or the CPU where none is left.

        One that can hold them comes first; then one that nobody uses; then the one where least has to be copied; then
        the one with most free bytes.
        """
        return self._place(sources, working_bytes).place

    def set_budget(self, device: torch.device, n_bytes: int | None) -> None:
        """Set what the pool may use on ``device``, where the CPU stands for RAM; None asks the device or the machine.

        What is leased stays where it is; room is made as leases end.
        """
        place = normalised(device)
        if n_bytes is not None and n_bytes < 0:
            raise VramError(f"a budget of {n_bytes} bytes cannot be kept")
        if n_bytes is not None:
            self._budgets[place] = n_bytes
        else:
            self._budgets.pop(place, None)
        ledger = self._state.ledgers.get(place)
        if place == HOST:
            self._ram_bytes = default_ram_budget_bytes() if n_bytes is None else n_bytes
            with self._lock:
                self._state.ram.budget_bytes = self._ram_bytes
                self._state.shrink(self._state.ram)
                self._queue.advance()
            self._work_off()
        elif ledger is not None and ledger.limit_bytes != n_bytes:
            # Otherwise it applies when the device is first used; or nothing changes, and callers may say so often.
            ledger.limit_bytes = n_bytes
            self._reckon(ledger, at_once=True)

    def available_bytes(self, device: torch.device) -> int:
        """Return what one more lease could be given on ``device`` without waiting, its weights included."""
        ledger = self._ledger(device)
        self._reckon(ledger)
        with self._lock:
            return self._state.available_bytes(ledger)

    def trim(self, tier: Literal["vram", "ram"], n_bytes: int, device: torch.device | None = None) -> int:
        """Evict idle models until ``n_bytes`` are freed, or nothing idle is left.

        Args:
            tier: "vram" takes models off accelerators; "ram" forgets warm ones, and the masters of hot ones.
            n_bytes: at least this much, if there is as much.
            device: one accelerator; all of them by default.
        Returns:
            Bytes freed.
        """
        if tier not in {"vram", "ram"}:
            raise VramError(f"there is no tier {tier!r}: it is vram or ram")
        self._collect_lost()
        place = None if device is None else normalised(device)
        freed = 0
        with self._lock:
            for ledger in self._state.ledgers.values():
                meant = ledger.is_host if tier == "ram" else not ledger.is_host and place in (None, ledger.place)
                if meant and freed < n_bytes:
                    freed += self._state.shrink(ledger, n_bytes - freed)
        self._work_off()
        return freed

    def drop(self, key: str) -> bool:
        """Forget a model everywhere: now if idle, else at its last release. The next request loads it anew.

        Returns:
            Whether there was anything to forget.
        """
        self._collect_lost()
        with self._lock:
            entry = self._state.entries.get(key)
            if entry is not None:
                self._state.drop(entry)
            self._state.sizes.pop(key, None)
            self._state.back_off.forget(key)
        self._work_off()
        return entry is not None

    def stats(self) -> dict[str, Any]:
        """Return the pool's state as plain data: tiers, models with their leases, counters."""
        self._collect_lost()
        with self._lock:
            return self._state.report()

    @property
    def changing(self) -> bool:
        """Whether a thread is changing the records this instant: no moment to raise an exception into it."""
        return self._lock.locked()

    @property
    def closed(self) -> bool:
        """Whether the pool was shut down."""
        return self._closed

    def close(self, deadline_s: float = 10.0) -> bool:
        """Refuse new leases, end every wait and let go of all models (I11).

        Args:
            deadline_s: how long to wait for leases that are out; the models of those that stay go when they end.
        Returns:
            Whether everything is gone.
        """
        deadline = self._clock() + deadline_s
        with self._lock:
            self._closed = True
            self._state.plans.plans.clear()
            self._queue.refuse_all()
            for entry in tuple(self._state.entries.values()):
                self._state.drop(entry)
        stopped = self._prefetcher.stop(deadline_s)
        while True:
            self._collect_lost()
            self._work_off()
            with self._lock:
                left = deadline - self._clock()
                busy = bool(self._state.entries or self._state.detached or self._state.grants)
                if not busy or left <= 0:
                    break
                self._changed.wait(min(left, WAIT_SLICE_S))
        for ledger in self._state.ledgers.values():
            if ledger.device is not None:
                ledger.device.empty_cache()
        return stopped and not busy


def may_interrupt() -> bool:
    """Whether a signal handler may raise here.

    An exception out of thin air in the middle of a change would leave the shared pool's books wrong. A change lasts
    microseconds, so a handler that is told False has only to try again a moment later.
    """
    space = sys.modules.get(_SHARED_KEY)
    pool = None if space is None else vars(space)["pool"]
    return pool is None or not pool.changing


def shared_pool(*, host_memory: HostMemory | None = None) -> VramPool:
    """Return the pool of this process, shared with every other copy of the pack that is loaded in it.

    Errors that a pool raises are those of the copy that made it.

    Args:
        host_memory: given to the pool if it has none.
    Raises:
        VramError: the pool belongs to a copy that this one cannot work with.
    """
    space = sys.modules.get(_SHARED_KEY)
    if space is None:
        fresh = types.ModuleType(_SHARED_KEY, "The one memory pool of this process; see photokeep_nodes.vram_manager.")
        vars(fresh).update(lock=threading.Lock(), pool=None, made_by=__name__)
        space = sys.modules.setdefault(_SHARED_KEY, fresh)
    shared = vars(space)
    with shared["lock"]:
        pool: VramPool | None = shared["pool"]
        if pool is None or pool.closed:
            pool = shared["pool"] = VramPool()
    major, minor = getattr(pool, "api_version", (0, 0))
    if major != API_VERSION[0] or minor < API_VERSION[1]:
        raise VramError(
            f"another copy of Photokeep ({shared['made_by']}) runs a memory pool of version {major}.{minor}, "
            f"and this copy needs {API_VERSION[0]}.{API_VERSION[1]}",
            hint="Keep one copy: uninstall the package or remove the other clone.",
        )
    if host_memory is not None and pool.host_memory is None:
        pool.host_memory = host_memory
    return pool
