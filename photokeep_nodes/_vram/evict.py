"""The part of an eviction that is done outside the lock: pointers go home or nowhere, and the memory is let go."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from .records import Departure, Ledger, Resident

_log = logging.getLogger(__name__)


def carry_out(departure: Departure, ram: Ledger) -> None:
    """Free what a departure is about; nothing is copied, and doing it twice does no harm.

    Nobody else touches these records meanwhile: they are marked as leaving.
    """
    entry = departure.entry
    if departure.surplus is not None:
        departure.surplus.hollow()
    elif departure.resident is not None:
        _leave_device(departure, departure.resident)
    else:
        warm = entry.residents.get(ram)
        if warm is not None and warm.instance is not None:
            warm.instance.hollow()
        if entry.master is not None:
            entry.master.release()


def _leave_device(departure: Departure, resident: Resident) -> None:
    if resident.instance is not None:
        if departure.home is not None:
            resident.instance.point_home(departure.home)
        else:
            resident.instance.hollow()
    if resident.ledger.device is not None:
        try:
            resident.ledger.device.wait_for(resident.marks)
            resident.ledger.device.free(resident.storages)
        except RuntimeError:  # a lost device: its memory is gone all the same
            resident.storages.clear()
            _log.exception("%s failed while %s left it", resident.ledger.place, departure.entry.key)
