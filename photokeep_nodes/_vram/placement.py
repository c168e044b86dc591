"""On which of several accelerators a request is best served. Called under the pool's lock."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from .books import PoolBooks
    from .records import Ledger, ModelSource


def choose(
    state: PoolBooks, ledgers: Iterable[Ledger], sources: Sequence[ModelSource], working_bytes: int
) -> Ledger | None:
    """Choose where ``sources`` run best.

    One that can hold them comes before one that cannot; among those an idle one, since two jobs on one device take as
    long as one after the other; then the one where least has to be copied; then the one with most free bytes.

    Returns:
        None where every device has failed, or there is none.
    """

    def rank(ledger: Ledger) -> tuple[bool, int, int, int]:
        sizes = {source.key: state.size_of(source) for source in sources}
        missing = sum(n_bytes for key, n_bytes in sizes.items() if key not in ledger.residents)
        fits = sum(sizes.values()) + working_bytes <= ledger.budget_bytes
        busy = sum(grant.ledger is ledger and not grant.foreseen for grant in state.grants)
        return not fits, busy, missing, ledger.committed_bytes - ledger.budget_bytes

    return min((ledger for ledger in ledgers if not ledger.fenced), key=rank, default=None)
