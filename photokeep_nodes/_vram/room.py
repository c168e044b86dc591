"""What may be evicted from a tier, and the policy's choice among it. Called under the pool's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .policy import Candidate
from .records import Entry, Ledger, Phase, Resident

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .policy import EvictionPolicy

Holder = Resident | Entry
"""What can be evicted: a resident from its accelerator, an entry's master from RAM."""


def evictable(ledger: Ledger, entries: Iterable[Entry], keep: Collection[str] = ()) -> list[Holder]:
    """List what nobody uses on ``ledger`` (I2), but for the models named in ``keep``.

    ``entries`` are those that may be handed out; what was dropped is on its way out already.
    """
    if ledger.is_host:
        return [entry for entry in entries if sheddable(entry) and entry.key not in keep]
    return [resident for key, resident in ledger.residents.items() if sheddable(resident) and key not in keep]


def sheddable(holder: Holder) -> bool:
    """Whether nobody uses a resident, or RAM may let go of a master.

    A hot model does without its master: its weights are on the device.
    """
    if isinstance(holder, Resident):
        return holder.phase is Phase.RESIDENT and not holder.grants
    entry = holder
    if entry.master is None or entry.charge.leaving or entry.transit:
        return False
    return all(
        each.phase is Phase.RESIDENT and not (each.ledger.is_host and each.grants) for each in entry.residents.values()
    )


def held_bytes(holder: Holder) -> int:
    """Bytes that evicting ``holder`` frees on its tier."""
    return holder.charge.held


def select(policy: EvictionPolicy, holders: Sequence[Holder], need_bytes: int) -> list[Holder] | None:
    """Let the policy choose holders worth ``need_bytes``.

    Returns:
        None where it did not choose enough.
    """
    by_candidate = {_candidate(holder): holder for holder in holders}
    wanted = dict.fromkeys(policy.choose(tuple(by_candidate), need_bytes))
    chosen = [by_candidate[each] for each in wanted if each in by_candidate]
    return chosen if sum(map(held_bytes, chosen)) >= need_bytes else None


def _candidate(holder: Holder) -> Candidate:
    entry = holder if isinstance(holder, Entry) else holder.entry
    warm = isinstance(holder, Resident) and holder.master is not None
    return Candidate(entry.key, holder.charge.held, holder.last_used, warm, entry.load_s)
