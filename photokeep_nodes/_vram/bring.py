"""Bringing a model where it was asked for: loading it, copying it up, waiting for whoever does so already."""

from __future__ import annotations

import logging
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

import torch

from ..errors import LeaseNestedError, VramError, VramExhaustedError
from .core import PoolCore
from .failures import is_device_lost, is_out_of_memory
from .guest import ask
from .lease import copy_of
from .queue import AskAgainError, Patience, lost
from .weights import adopt, upload

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .device import Device
    from .records import Entry, Flight, Grant, Ledger, ModelSource, Resident
    from .weights import Instance, Master

_log = logging.getLogger(__name__)


class PoolBringing(PoolCore):
    """See `VramPool`."""

    def _ask_host(self, grant: Grant, arriving: Resident | None = None) -> None:
        ask(self, grant.ledger, grant.working.held if grant.working else 0, arriving)

    def _join(self, flight: Flight, ledger: Ledger, patience: Patience) -> None:
        """Wait for what another thread is bringing."""
        with self._lock:
            if flight.thread is threading.current_thread() and not flight.done:
                raise LeaseNestedError(
                    f"{patience.lease.names} is leased by the code that loads it",
                    **self._state.complaint(ledger),
                )
            self._state.counters.joined_loads += not flight.done
        while True:
            self._collect_lost()  # whoever was bringing it may have been interrupted, and only its lease's end tells
            with self._lock:
                if flight.abandoned:
                    raise AskAgainError
                if flight.error is not None:
                    raise copy_of(flight.error)
                if flight.done:
                    return
                if not patience.wait(flight.landed):
                    raise self._timeout(ledger, f"another thread still loads {patience.lease.names}")
            patience.ask()

    @contextmanager
    def _blaming(self, grant: Grant, entry: Entry, *, loading: bool = False) -> Iterator[None]:
        """Tell those who wait for ``entry`` why it failed. Cancellation is not failure: they take over then."""
        try:
            yield
        except AskAgainError:
            raise
        except Exception as error:
            grant.failure = (entry, copy_of(error))
            with self._lock:
                self._state.counters.failed_loads += 1
                if loading and not is_out_of_memory(error):  # that is nothing the model could be blamed for
                    self._state.back_off.note(entry.key, grant.failure[1])
            raise

    def _bring(self, grant: Grant, resident: Resident, source: ModelSource, patience: Patience) -> None:
        state, entry = self._state, resident.entry
        self._bring_home(grant, entry, source, patience)
        with self._lock:
            if resident.ready:  # on the host, who loaded it has handed it over
                return
            master = entry.master
            if master is None:
                raise AskAgainError
            original = state.take_instance(resident)
        if original is not None:
            with self._blaming(grant, entry):
                twin = self._clone(original, entry, master)
            with self._lock:
                if resident.ready:
                    return
                resident.instance = twin
        if resident.ledger.is_host:
            with self._lock:
                state.land(resident, [])
            return
        with self._lock:
            if not state.weigh(grant, resident.ledger, resident.charge, master.n_bytes):
                raise AskAgainError
            self._queue.advance()  # a model smaller than thought leaves room
        with patience.stalled("eviction"):
            self._fund(grant)
        self._ask_host(grant, resident)
        with self._blaming(grant, entry), patience.stalled("copy"):
            self._promote(resident, master)

    def _clone(self, original: Instance, entry: Entry, master: Master) -> Instance:
        try:
            return original.clone(master)
        except VramError:
            with self._lock:
                idle = [
                    each
                    for each in entry.residents.values()
                    if each.ready and not each.grants and not each.ledger.is_host
                ]
                for resident in idle:
                    self._state.evict(resident)
            if not idle:
                raise
        raise AskAgainError  # its only module comes home from the device where it was idle

    def _bring_home(self, grant: Grant, entry: Entry, source: ModelSource, patience: Patience) -> None:
        """Make sure that the weights are in RAM."""
        with self._lock:
            if entry.master is not None:
                return
            flight = entry.loading
        if flight is None:
            raise AskAgainError
        if entry not in grant.loads:
            with patience.stalled("other_thread"):
                self._join(flight, grant.ledger, patience)
            return
        started = self._clock()
        with self._blaming(grant, entry, loading=True), patience.stalled("load"):
            master, instance = _load(source)
        with self._lock:
            self._state.sizes[entry.key] = entry.n_bytes = master.n_bytes
            fits = self._state.weigh(grant, self._state.ram, entry.charge, master.n_bytes)
        if not fits:
            instance.hollow()
            raise AskAgainError
        with patience.stalled("eviction"):
            self._fund(grant)
        with self._lock:
            self._state.land_load(grant, entry, flight, master, instance, self._clock() - started)
            self._queue.advance()  # here too, on the host

    def _promote(self, resident: Resident, master: Master) -> None:
        instance, device = resident.instance, resident.ledger.device
        if instance is None or device is None:
            raise VramError(f"{resident.entry.key} has no module to promote")
        started = self._clock()
        storages = self._upload(resident, master, device)
        copy_s = self._clock() - started
        try:
            instance.point_at(storages, master)
            with self._lock:
                self._state.land(resident, storages, copy_s)
        except BaseException:
            if not resident.ready:
                instance.point_home(master)
                device.free(storages)
            raise

    def _upload(self, resident: Resident, master: Master, device: Device) -> list[torch.UntypedStorage]:
        key, place = resident.entry.key, resident.ledger.place
        try:
            # Before anybody can have it: two leases that end at once then add to the same marks, and none is lost.
            resident.marks = device.mark(None)
            try:
                return upload(master, device)
            except torch.OutOfMemoryError:
                _log.warning("%s has less memory than its budget says; evicting what is idle", place)
            with self._lock:
                self._state.shrink(resident.ledger, resident.ledger.budget_bytes)
            self._work_off()
            ask(self, resident.ledger, master.n_bytes, resident)
            device.empty_cache()
            return upload(master, device)
        except torch.OutOfMemoryError as error:
            with self._lock:
                complaint = self._state.complaint(resident.ledger)
            raise VramExhaustedError(
                f"{place} ran out of memory while {key} moved there: {error}", **complaint
            ) from None
        except RuntimeError as error:
            if is_device_lost(error):
                self._fence(resident.ledger, error)
                raise lost(resident.ledger) from None
            raise VramError(f"the weights of {key} could not be copied to {place}: {error}") from error


def _load(source: ModelSource) -> tuple[Master, Instance]:
    # Nodes may run in inference mode; weights born there could not be used outside of it.
    with torch.inference_mode(mode=False), torch.no_grad():
        return adopt(source.load())
