"""Every change of the pool's records. All methods run under the pool's lock; none blocks, loads or copies.

`VramPool` holds the lock, does the waiting and the work outside of it, and comes back here to say how it went.

An exception raised out of thin air in the middle of a change is provided for where that is cheap: taking back a grant
may be repeated, and admitting one is undone. Signal handlers ask `vram_manager.may_interrupt` first. Outside the lock,
where all the time is spent, an exception may come at any point.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import VramError
from .books import PoolBooks
from .records import Charge, Departure, Entry, Flight, Grant, Ledger, Phase, Resident

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import torch

    from .records import ModelSource, Request
    from .room import Holder
    from .weights import Instance, Master


class PoolState(PoolBooks):
    """How the books change as leases are granted, models arrive and leases end."""

    # -- granting -----------------------------------------------------------------------------------------------------

    def grant_hot(self, grant: Grant, sources: Sequence[ModelSource], working_bytes: int) -> bool:
        """Grant at once what is resident and fits as it is: the common case, kept short.

        Returns:
            False, with nothing changed, where there is more to do.
        """
        residents = []
        ledger = grant.ledger
        if ledger.fenced:
            return False
        for source in sources:
            resident = ledger.residents.get(source.key)
            if resident is None or resident.phase is not Phase.RESIDENT or resident.entry.stale:
                return False
            residents.append(resident)
        if working_bytes:
            # The used sum as well: bytes that an eviction has yet to free cannot be handed out a second time.
            fits = max(ledger.used_bytes, ledger.committed_bytes) + working_bytes <= ledger.budget_bytes
            if not fits:
                return False
            grant.working = Charge(held=working_bytes)
            ledger.charges.add(grant.working)
            ledger.peak_bytes = max(ledger.peak_bytes, ledger.used_bytes)
        self.tick = tick = self.tick + 1
        uses = ledger.uses
        grant.residents = tuple(residents)
        self.grants.add(grant)
        for resident in residents:
            resident.grants.add(grant)
            entry = resident.entry
            resident.last_used = entry.last_used = tick
            entry.working_bytes = working_bytes
            if uses[-1] != entry.key:
                uses.append(entry.key)
            if resident.foreseen:
                self._make_good(resident)
        self.counters.hits += len(residents)
        return True

    def admit(self, request: Request, victims: Iterable[Holder]) -> Grant:
        """Grant ``request`` and promise it the bytes it needs, of which evicting ``victims`` frees a part."""
        for victim in victims:
            self.evict(victim)
        grant = Grant(request.thread, self.clock(), request.ledger, foreseen=request.foreseen)
        try:
            self._admit(grant, request)
        except BaseException:
            self.release(grant)
            raise
        return grant

    def _admit(self, grant: Grant, request: Request) -> None:
        ledger = request.ledger
        self.grants.add(grant)
        self.tick += 1
        if request.working_bytes:
            grant.working = Charge()
            self._promise(grant, ledger, grant.working, request.working_bytes)
        for source in request.sources:
            entry = self.entries.get(source.key)
            if entry is None:
                entry = self.entries[source.key] = Entry(source.key, self.size_of(source))
            resident = entry.residents.get(ledger) or self._begin_arrival(grant, entry)
            grant.residents += (resident,)
            if resident.phase is Phase.ARRIVING:
                entry.transit.add(grant)
            else:
                self.counters.hits += 1
            resident.grants.add(grant)
            resident.last_used = entry.last_used = self.tick
            if not grant.foreseen:
                entry.working_bytes = request.working_bytes
                if ledger.uses[-1] != entry.key:
                    ledger.uses.append(entry.key)
                if resident.foreseen:
                    self._make_good(resident)

    def _make_good(self, resident: Resident) -> None:
        """The plan was right: what it had brought is used."""
        resident.foreseen = False
        self.counters.foreseen_hits += 1

    def _begin_arrival(self, grant: Grant, entry: Entry) -> Resident:
        ledger = grant.ledger
        if entry.master is None and entry.loading is None:
            grant.loads += (entry,)
            entry.loading = Flight(self.lock, grant.thread)
            self._promise(grant, self.ram, entry.charge, entry.n_bytes)
        charge = entry.charge if ledger.is_host else Charge()
        resident = Resident(entry, ledger, charge, Flight(self.lock, grant.thread))
        resident.foreseen = grant.foreseen
        grant.arrivals += (resident,)
        entry.residents[ledger] = ledger.residents[entry.key] = resident
        if not ledger.is_host:
            self._promise(grant, ledger, resident.charge, entry.n_bytes)
        return resident

    def _promise(self, grant: Grant, ledger: Ledger, charge: Charge, n_bytes: int) -> None:
        charge.promised += n_bytes
        ledger.charges.add(charge)
        grant.pending.append((ledger, charge))

    def fund(self, grant: Grant) -> bool:
        """Turn the grant's promises into held bytes; False while evictions have yet to free them (I1)."""
        due: dict[Ledger, int] = {}
        for ledger, charge in grant.pending:
            due[ledger] = due.get(ledger, 0) + charge.promised
        for ledger, n_bytes in due.items():
            # A promise made before the budget was lowered is kept.
            if ledger.used_bytes + n_bytes > max(ledger.budget_bytes, ledger.committed_bytes):
                return False
        for _, charge in grant.pending:
            charge.held, charge.promised = charge.held + charge.promised, 0
        grant.pending.clear()
        for ledger in due:
            ledger.peak_bytes = max(ledger.peak_bytes, ledger.used_bytes)
        return True

    def weigh(self, grant: Grant, ledger: Ledger, charge: Charge, n_bytes: int) -> bool:
        """Correct a held charge to the real size.

        Returns:
            False if it has to grow and there is no room; True where it fits, once the grant is funded again.
        """
        extra = n_bytes - charge.held
        if extra <= 0:
            charge.held = n_bytes
            return True
        keep = {resident.entry.key for resident in grant.residents}
        victims = self.victims(ledger, extra, keep)
        if victims is None:
            return False
        for victim in victims:
            self.evict(victim)
        self._promise(grant, ledger, charge, extra)
        return True

    # -- arriving -----------------------------------------------------------------------------------------------------

    def land_load(
        self, grant: Grant, entry: Entry, flight: Flight, master: Master, instance: Instance, load_s: float
    ) -> None:
        """A cold model is in RAM now, and ``flight``, its load, over."""
        entry.master, entry.load_s = master, load_s
        self.ram.measure(master.n_bytes, load_s)
        entry.loading = None
        # From here on it is no longer this grant's to give up: RAM may let go of it, and another grant load it anew.
        grant.loads = tuple(each for each in grant.loads if each is not entry)
        self.back_off.forget(entry.key)
        self.counters.cold_loads += 1
        self.counters.load_s += load_s
        self.counters.foreseen_loads += grant.foreseen
        self._keep_warm(entry, instance)
        flight.finish()

    def take_instance(self, resident: Resident) -> Instance | None:
        """Give ``resident`` the warm module if nobody leases it on the CPU.

        Returns:
            None if it has its module, else one to clone.
        """
        entry = resident.entry
        warm = entry.residents.get(self.ram)
        if warm is not None and warm is not resident and warm.phase is Phase.RESIDENT and not warm.grants:
            self._remove(warm)
            resident.instance = warm.instance
            return None
        for other in entry.residents.values():
            if other.instance is not None:
                return other.instance
        raise VramError(f"the pool lost the module of {entry.key}", hint="Please report this; a restart helps.")

    def land(self, resident: Resident, storages: list[torch.UntypedStorage], copy_s: float = 0.0) -> None:
        """A resident is ready after a copy of ``copy_s`` seconds: its module's pointers are where they belong."""
        resident.phase, resident.storages, resident.since = Phase.RESIDENT, storages, self.clock()
        resident.master = resident.entry.master
        if not resident.ledger.is_host:
            self.counters.promotions += 1
            self.counters.foreseen_promotions += resident.foreseen
            n_bytes = sum(storage.nbytes() for storage in storages)
            self.counters.bytes_to_device += n_bytes
            resident.ledger.measure(n_bytes, copy_s)
        resident.flight.finish()

    def settle(self, grant: Grant) -> None:
        """Everything the grant asked for has arrived."""
        for resident in grant.residents:
            resident.entry.transit.discard(grant)
            self.tidy(resident.entry)

    def _keep_warm(self, entry: Entry, instance: Instance) -> None:
        """Make ``instance``, which points at the master, the one that is leased on the CPU, unless there is one."""
        warm = entry.residents.get(self.ram)
        if warm is None:
            warm = Resident(entry, self.ram, entry.charge, Flight(self.lock), last_used=entry.last_used)
            entry.residents[self.ram] = warm
            if not entry.stale:
                self.ram.residents[entry.key] = warm
        if warm.phase is Phase.ARRIVING:
            warm.instance = instance
            self.land(warm, [])
        elif warm.instance is not instance:
            entry.surplus += 1
            self.departures.append(Departure(entry, surplus=instance))

    def finish_departure(self, departure: Departure) -> None:
        """The bytes are free: stop charging for them."""
        entry, resident = departure.entry, departure.resident
        if departure.surplus is not None:
            entry.surplus -= 1
            if entry.charge.leaving and not entry.surplus:
                self.departures.append(Departure(entry))
            return
        if resident is not None:
            self._remove(resident)
            if resident.instance is not None and departure.home is not None and entry.master is departure.home:
                self._keep_warm(entry, resident.instance)
        elif entry.charge.leaving:
            if (warm := entry.residents.get(self.ram)) is not None:
                departure.spent = warm.instance  # the module is freed with the departure, outside the lock
                self._remove(warm)
            entry.master = None
            self.ram.charges.discard(entry.charge)
            entry.charge = Charge()
        self.tidy(entry)

    # -- releasing ----------------------------------------------------------------------------------------------------

    def release(self, grant: Grant) -> None:
        """Take back all that the grant holds, in whatever state it is (I6).

        What it was bringing failed if ``grant.failure`` says so; the rest is given up, so that who waits takes over.
        """
        if grant.working is not None:
            grant.ledger.charges.discard(grant.working)
        for entry in grant.loads:
            if entry.loading is not None:
                self._end(entry.loading, entry, grant)
                entry.loading = None
                self.ram.charges.discard(entry.charge)
                entry.charge = Charge()
        for resident in grant.arrivals:
            if resident.phase is Phase.ARRIVING:
                self._remove(resident)
                if resident.instance is not None and resident.entry.master is not None:
                    self._keep_warm(resident.entry, resident.instance)
                self._end(resident.flight, resident.entry, grant)
        for resident in grant.residents:
            entry = resident.entry
            resident.grants.discard(grant)
            if resident.recalled:
                self.honour_recall(resident)
            if entry.transit or entry.stale or grant.arrivals:
                entry.transit.discard(grant)
                self.tidy(entry)
        self.grants.discard(grant)
        grant.released = True  # last: until then the lease's finalizer would do all this again
        if grant.ledger.fenced:
            self._clear(grant.ledger)
        if grant.ledger.overdrawn or self.ram.overdrawn:
            self.shrink(grant.ledger)
            self.shrink(self.ram)

    @staticmethod
    def _end(flight: Flight, entry: Entry, grant: Grant) -> None:
        if grant.failure is not None and grant.failure[0] is entry:
            flight.finish(grant.failure[1])
        else:
            flight.finish(abandoned=True)
