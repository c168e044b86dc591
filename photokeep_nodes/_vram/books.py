"""The pool's books: what it knows, what leaves, what is told of it. Read and changed under the pool's lock."""

from __future__ import annotations

from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from .back_off import BackOff
from .foresight import Foresight
from .guest import leave
from .plan import PlanBook
from .records import Counters, Departure, Entry, Grant, Ledger, Phase, Resident
from .report import readable, snapshot
from .room import Holder, evictable, held_bytes, select, sheddable

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable, Collection, Iterable, Sequence

    from .policy import EvictionPolicy
    from .records import ModelSource, Request

HOST = torch.device("cpu")

YOUNG_S = 1.0
"""What arrived less than this ago is not evicted for a prefetch: its own transfer would have been for nothing."""


class PoolBooks:
    """Entries, ledgers and grants.

    Attributes:
        ram: the host's ledger, which is also that of leases on the CPU.
        ledgers: by place; the host's is among them.
        entries: what may be handed out, by key.
        detached: dropped entries that a lease still holds or an eviction still empties.
        grants: the leases that are out.
        departures: evictions decided on and not begun; whoever has a moment carries them out.
        sizes: real bytes of every model loaded so far, better than a source's estimate.
        plans: what jobs under way will need.
        back_off: models that could not be loaded the last time.
    """

    def __init__(
        self, lock: threading.Lock, policy: EvictionPolicy, clock: Callable[[], float], ram_bytes: int
    ) -> None:
        self.lock = lock
        self.policy = policy
        self.clock = clock
        self.ram = Ledger(HOST, None, ram_bytes)
        self.ledgers: dict[torch.device, Ledger] = {HOST: self.ram}
        self.entries: dict[str, Entry] = {}
        self.detached: set[Entry] = set()
        self.grants: set[Grant] = set()
        self.departures: deque[Departure] = deque()
        self.sizes: dict[str, int] = {}
        self.plans = PlanBook()
        self.back_off = BackOff(clock)
        self.counters = Counters()
        self.tick = 0

    # -- leaving ------------------------------------------------------------------------------------------------------

    def victims(
        self, ledger: Ledger, n_bytes: int, keep: Iterable[str] = (), request: Request | None = None
    ) -> list[Holder] | None:
        """Choose what to evict so that ``n_bytes`` more can be promised on ``ledger``; None if there is not enough.

        Args:
            ledger: where.
            n_bytes: how much more.
            keep: keys of what has to stay.
            request: what the room is made for.
        """
        short = ledger.committed_bytes + n_bytes - ledger.budget_bytes
        if short <= 0:
            return []
        holders = evictable(ledger, self.entries.values(), set(keep))
        return self._select(ledger, holders, short, request)

    def _select(
        self, ledger: Ledger, holders: Sequence[Holder], n_bytes: int, request: Request | None = None
    ) -> list[Holder] | None:
        return select(self.policy, holders, n_bytes, Foresight(self, ledger, request))

    def evict(self, holder: Holder) -> None:
        """Decide that an unpinned holder leaves; the work is queued as a departure."""
        if isinstance(holder, Entry):
            holder.charge.leaving = True
            for resident in holder.residents.values():
                resident.master = None  # a hot module is dropped, not demoted, from here on
                if resident.ledger.is_host:
                    resident.phase = Phase.LEAVING
            if not holder.surplus:  # else whoever empties the last of those sees to it
                self.departures.append(Departure(holder))
            self.counters.ram_evictions += 1
        else:
            holder.phase = Phase.LEAVING
            holder.charge.leaving = True
            self.counters.foreseen_wasted += holder.foreseen
            self.departures.append(Departure(holder.entry, holder, holder.master))
            self.counters.evictions += 1

    def honour_recall(self, resident: Resident) -> None:
        """Evict what the host wants gone, unless something still needs it."""
        holder = resident.entry if resident.ledger.is_host else resident
        if sheddable(holder):
            self.evict(holder)

    def shrink(self, ledger: Ledger, n_bytes: int = 0, keep: Collection[str] = ()) -> int:
        """Evict until the budget is kept and ``n_bytes`` are freed besides, or nothing idle but ``keep`` is left.

        Returns:
            Bytes that will be freed.
        """
        idle = evictable(ledger, self.entries.values(), keep)
        over = max(0, ledger.committed_bytes - ledger.budget_bytes)
        chosen: list[Holder] = []
        if over + n_bytes > 0:
            chosen = idle if (some := self._select(ledger, idle, over + n_bytes)) is None else some
        freed = sum(map(held_bytes, chosen))
        for holder in chosen:
            self.evict(holder)
        ledger.overdrawn = max(ledger.used_bytes, ledger.committed_bytes) > ledger.budget_bytes
        return freed

    def fence(self, ledger: Ledger, reason: str) -> None:
        """Ask nothing more of a device that failed; what is idle on it goes now, what is leased when its lease ends."""
        if not ledger.fenced:
            ledger.fenced = reason
            self.counters.devices_lost += 1
            self._clear(ledger)

    def _clear(self, ledger: Ledger) -> None:
        for resident in evictable(ledger, self.entries.values()):
            self.evict(resident)

    def available_bytes(self, ledger: Ledger) -> int:
        """Bytes that could be promised on ``ledger`` if everything idle left it."""
        if ledger.fenced:
            return 0
        idle = sum(map(held_bytes, evictable(ledger, self.entries.values())))
        return max(0, ledger.budget_bytes - ledger.committed_bytes + idle)

    def drop(self, entry: Entry) -> None:
        """Forget a model: at once if idle, else when its last lease ends; the next request loads it anew."""
        entry.stale = True
        self.tidy(entry)

    def tidy(self, entry: Entry) -> None:
        """Let go of a stale entry as far as its leases allow, and of an empty one altogether."""
        if entry.stale and not entry.in_flight and self.entries.get(entry.key) is entry:
            # Only now: while it is loading, a new request must wait and not load it a second time (I3).
            del self.entries[entry.key]
            self.detached.add(entry)
            for ledger, resident in entry.residents.items():
                if ledger.residents.get(entry.key) is resident:
                    del ledger.residents[entry.key]
        if entry in self.detached and not entry.pinned:
            self._retire(entry)
        if entry.blank:
            self.detached.discard(entry)
            if self.entries.get(entry.key) is entry:
                del self.entries[entry.key]

    def _retire(self, entry: Entry) -> None:
        away = [each for each in entry.residents.values() if not each.ledger.is_host]
        for resident in away:
            if resident.phase is Phase.RESIDENT:
                resident.master = None
                self.evict(resident)
        if not away and entry.master is not None and not entry.charge.leaving:
            self.evict(entry)

    def _remove(self, resident: Resident) -> None:
        entry, ledger = resident.entry, resident.ledger
        if entry.residents.get(ledger) is resident:
            del entry.residents[ledger]
        if ledger.residents.get(entry.key) is resident:
            del ledger.residents[entry.key]
        if not ledger.is_host:
            ledger.charges.discard(resident.charge)
        leave(resident)

    # -- foreseeing ---------------------------------------------------------------------------------------------------

    def use_within(self, entry: Entry, distance: float) -> bool:
        """Whether a plan needs ``entry`` in at most so many steps."""
        needed_in = self.plans.next_use(entry.key)
        return needed_in is not None and needed_in <= distance

    def is_young(self, entry: Entry) -> bool:
        """Whether it came to an accelerator only just now, and for more than a plan's step that used it and is over."""
        now, planned = self.clock(), self.plans.mentions(entry.key)
        away = (each for each in entry.residents.values() if not each.ledger.is_host)
        return any(each.ready and now - each.since < YOUNG_S and (each.foreseen or not planned) for each in away)

    # -- telling ------------------------------------------------------------------------------------------------------

    def size_of(self, source: ModelSource) -> int:
        """Bytes to reserve for a model that is not loaded."""
        return self.sizes.get(source.key, source.weight_bytes)

    def report(self) -> dict[str, Any]:
        """See `snapshot`."""
        entries, now = [*self.entries.values(), *self.detached], self.clock()
        report = snapshot(self.ledgers.values(), entries, self.counters, now)
        report["plans"] = [
            {"job": plan.job_id, "position": plan.position, "steps": len(plan.steps)}
            for plan in self.plans.plans.values()
        ]
        report["failed"] = self.back_off.report()
        return report

    def complaint(self, ledger: Ledger) -> dict[str, Any]:
        """Keyword arguments of an error about ``ledger``: the report as a hint and as data."""
        report = self.report()
        return {"hint": readable(report, str(ledger.place)), "report": report, "device": str(ledger.place)}
