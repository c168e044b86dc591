"""What the pool knows of the future when room has to be made: by the plans in force, else by forecast.

This is the one place where plans, history and measured rates meet; policies see only what comes out of it. Used under
the pool's lock, one object per decision.
"""

from __future__ import annotations

from functools import cached_property
from typing import TYPE_CHECKING

from .forecast import Forecast
from .policy import Arrival, Candidate, Outlook
from .records import Entry, Phase

if TYPE_CHECKING:
    from collections.abc import Iterable

    from .books import PoolBooks
    from .records import Ledger, Request
    from .room import Holder

HORIZON = 16
"""Steps of the plans that a decision is played through."""

_BUS_BYTES_PER_S = 12e9  # PCIe 4 x16 with pageable memory; until the first copy is measured
_LOAD_BYTES_PER_S = 0.5e9  # reading and building; until the first load is measured


class Foresight:
    """The outlook of one decision.

    Args:
        state: the pool's.
        ledger: where room is made.
        request: what it is made for.
    """

    def __init__(self, state: PoolBooks, ledger: Ledger, request: Request | None = None) -> None:
        self._state = state
        self._ledger = ledger
        self._request = request
        self._wanted = [] if request is None else [source.key for source in request.sources]

    def candidate(self, holder: Holder) -> Candidate:
        """Describe to a policy what may be evicted."""
        entry = holder if isinstance(holder, Entry) else holder.entry
        warm = not isinstance(holder, Entry) and holder.master is not None
        n_bytes = holder.charge.held
        restore_s = self._restore_s(n_bytes, None if warm else self._load_s(entry.key, n_bytes))
        next_use = self.next_use(entry.key)
        return Candidate(entry.key, n_bytes, holder.last_used, warm, entry.load_s, next_use, restore_s)

    def next_use(self, key: str) -> float | None:
        """In how many leases ``key`` is expected; infinity where a plan is done with it, None if nothing is known.

        One job's plan says nothing of the models that another one, without a plan, uses meanwhile.
        """
        planned = self._state.plans.next_use(key)
        if planned is not None and self._state.plans.mentions(key):
            return planned
        guesses = (forecast.next_use(key) for forecast in self._forecasts)
        return min((guess for guess in guesses if guess is not None), default=None)

    def note_fault(self) -> None:
        """The policy raised an error, or chose too little."""
        self._state.counters.policy_faults += 1

    def outlook(self, candidates: Iterable[Candidate]) -> Outlook:
        """Describe to a policy what may come."""
        idle = {each.key for each in candidates}
        held = {
            resident.entry.key: resident.charge.held + resident.charge.promised
            for resident in self._ledger.residents.values()
            if resident.entry.key not in idle and resident.phase is not Phase.LEAVING
        }
        working_bytes = 0
        if self._request is not None:
            for source in self._request.sources:
                held.setdefault(source.key, self._size_of(source.key, source.weight_bytes) or 0)
            if self._request.ledger is self._ledger:
                working_bytes = self._request.working_bytes
        return Outlook(self._futures(), held, working_bytes)

    def _futures(self) -> list[tuple[float, list[Arrival]]]:
        if self._state.plans.plans:
            return [(1.0, self._planned())]
        share = 1.0 / max(1, len(self._forecasts))
        return [(share * weight, self._guessed(keys)) for each in self._forecasts for weight, keys in each.futures]

    @cached_property
    def _forecasts(self) -> list[Forecast]:
        # What RAM holds serves every device, so what was leased anywhere tells what it will be needed for.
        ledgers = self._state.ledgers.values() if self._ledger.is_host else (self._ledger,)
        return [Forecast(ledger.uses, self._wanted) for ledger in ledgers if len(ledger.uses) > 1]

    def _planned(self) -> list[Arrival]:
        """Name what the plans will lease here, soonest first."""
        here = None if self._ledger.is_host else self._ledger.place
        steps = (
            (distance, step)
            for plan in self._state.plans.plans.values()
            for distance, step in enumerate(plan.steps[plan.position : plan.position + 2 * HORIZON])
            if here is None or step.device is None or step.device == here
        )
        coming: list[Arrival] = []
        for _, step in sorted(steps, key=lambda each: each[0]):
            for source in step.sources:
                if not coming or coming[-1].key != source.key:  # several calls of one model are one arrival
                    arrival = self._arrival(source.key, source.weight_bytes, step.working_bytes)
                    coming += () if arrival is None else (arrival,)
        return coming[:HORIZON]

    def _guessed(self, keys: Iterable[str]) -> list[Arrival]:
        entries = self._state.entries
        arrivals = (self._arrival(key, None, entries[key].working_bytes if key in entries else 0) for key in keys)
        return [arrival for arrival in arrivals if arrival is not None]

    def _arrival(self, key: str, estimate: int | None, working_bytes: int) -> Arrival | None:
        n_bytes = self._size_of(key, estimate)
        if n_bytes is None:
            return None
        entry = self._state.entries.get(key)
        warm = not self._ledger.is_host and entry is not None and entry.master is not None
        restore_s = self._restore_s(n_bytes, None if warm else self._load_s(key, n_bytes))
        # Working memory on an accelerator takes nothing from RAM.
        return Arrival(key, n_bytes, restore_s, 0 if self._ledger.is_host else working_bytes)

    def _size_of(self, key: str, estimate: int | None = None) -> int | None:
        """Return the real size if it is known, which it is no longer of what was dropped."""
        entry = self._state.entries.get(key)
        return entry.n_bytes if entry is not None else self._state.sizes.get(key, estimate)

    def _load_s(self, key: str, n_bytes: int) -> float:
        entry = self._state.entries.get(key)
        if entry is not None and entry.load_s:
            return entry.load_s
        return n_bytes / (self._state.ram.bytes_per_s or _LOAD_BYTES_PER_S)

    def _restore_s(self, n_bytes: int, load_s: float | None) -> float:
        """Seconds to bring ``n_bytes`` here, ``load_s`` of which go by before they are in RAM if they are not."""
        copy_s = 0.0 if self._ledger.is_host else n_bytes / (self._ledger.bytes_per_s or _BUS_BYTES_PER_S)
        return copy_s + (load_s or 0.0)
