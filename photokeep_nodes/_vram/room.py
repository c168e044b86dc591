"""What may be evicted from a tier, and the policy's choice among it. Called under the pool's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .policy import LruPolicy
from .records import Entry, Ledger, Phase, Resident

if TYPE_CHECKING:
    from collections.abc import Collection, Iterable, Sequence

    from .foresight import Foresight
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


def select(
    policy: EvictionPolicy, holders: Sequence[Holder], need_bytes: int, foresight: Foresight
) -> list[Holder] | None:
    """Let the policy choose holders worth ``need_bytes``.

    Returns:
        None where all of them are not enough. Where the policy fails, the least recently used.
    """
    if sum(map(held_bytes, holders)) < need_bytes:
        return None  # as for everyone in a queue: no need to look ahead for that
    by_candidate = {foresight.candidate(holder): holder for holder in holders}
    candidates = tuple(by_candidate)
    try:
        wanted = dict.fromkeys(policy.choose(candidates, need_bytes, foresight.outlook(candidates)))
        chosen = [by_candidate[each] for each in wanted if each in by_candidate]
    except Exception:  # noqa: BLE001 - a policy may be anybody's; who needs the room is not to blame
        chosen = []
    if sum(map(held_bytes, chosen)) < need_bytes:  # though all of them together are enough
        foresight.note_fault()
        chosen = [by_candidate[each] for each in LruPolicy().choose(candidates, need_bytes)]
    return chosen
