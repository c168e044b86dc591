"""Which residents make room: the one decision a policy takes."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping, Sequence

    from numpy.typing import NDArray

EXACT_LIMIT = 15
"""Up to so many candidates the cheapest subset is found by looking at all of them: 2**15 take a third of a millisecond,
and the choice is made under the pool's lock."""

_OPTIONS = 6  # subsets played through; with them a decision among 15 candidates stays within a millisecond

_PRICE_SHARE = 0.2  # of what is lost beyond the arrivals foreseen, which is certain only in part

_DOUBT = 0.5  # standard deviations over the futures by which a guess has to be better in order to be followed


@dataclass(frozen=True)
class Candidate:
    """Something that may be evicted now.

    Attributes:
        key: the model's.
        n_bytes: what evicting it frees on the tier in question.
        last_used: tick of its last lease; larger is more recent.
        warm: whether it stays in RAM, so that its way back is a copy and not a load.
        load_s: measured seconds of its last load from disk.
        next_use: in how many leases it is expected to be used; infinity if a plan that names it is done with it, None
            where nothing is known.
        restore_s: estimated seconds to bring it back.
    """

    key: str
    n_bytes: int
    last_used: int
    warm: bool
    load_s: float
    next_use: float | None = None
    restore_s: float = 0.0


@dataclass(frozen=True)
class Arrival:
    """A model that will be asked for.

    Attributes:
        n_bytes: what it takes of the tier in question.
        restore_s: estimated seconds to bring it, should it not be there.
        working_bytes: what its lease takes besides, as long as it lasts.
    """

    key: str
    n_bytes: int
    restore_s: float
    working_bytes: int = 0


@dataclass(frozen=True)
class Outlook:
    """What may come after the decision.

    Attributes:
        futures: sequences of arrivals, soonest first, each with its weight. A plan is one future, a forecast several.
        held: bytes by key of what is on the tier without being a candidate: what is leased, and what room is made for.
        working_bytes: the part of the need that is free again when the lease that room is made for ends.
    """

    futures: Sequence[tuple[float, Sequence[Arrival]]] = ()
    held: Mapping[str, int] = field(default_factory=dict)
    working_bytes: int = 0


NOTHING_KNOWN = Outlook()


class EvictionPolicy(Protocol):
    """Chooses what to evict.

    Called under the pool's lock: it must neither block nor call the pool.
    """

    def choose(
        self, candidates: Sequence[Candidate], need_bytes: int, outlook: Outlook = NOTHING_KNOWN
    ) -> Sequence[Candidate]:
        """Pick candidates worth at least ``need_bytes``; fewer or none where they cannot give that much.

        Args:
            candidates: what may be evicted.
            need_bytes: what has to come free.
            outlook: what may come.
        """


class LruPolicy:
    """Least recently used first, sparing what turns out not to be needed."""

    def choose(
        self, candidates: Sequence[Candidate], need_bytes: int, outlook: Outlook = NOTHING_KNOWN
    ) -> Sequence[Candidate]:
        """See `EvictionPolicy`."""
        del outlook  # the past is all it goes by
        return _in_order(sorted(candidates, key=lambda each: (each.last_used, each.key)), need_bytes)


class PlanAwarePolicy:
    """Keep what is needed soonest and costs most to bring back; least recently used where nothing is known.

    The price of evicting something is its ``restore_s / next_use``: what it costs per lease until it is needed again.
    Alone, that choice is short-sighted: evicting one large model now may save evicting three small ones at the next
    steps. So where the coming arrivals are known or guessed, the few most promising subsets are played through them,
    evicting what is needed last, and the one that costs least is taken.
    """

    def choose(
        self, candidates: Sequence[Candidate], need_bytes: int, outlook: Outlook = NOTHING_KNOWN
    ) -> Sequence[Candidate]:
        """See `EvictionPolicy`. With no future in the outlook: the subset that covers the need at the lowest price."""
        first = _cheapest(candidates, need_bytes)
        if not first or len(candidates) == 1 or not outlook.futures:
            return first
        options = _options(candidates, need_bytes, first)
        if len(options) == 1:
            return first
        bytes_of = {each.key: each.n_bytes for each in candidates} | dict(outlook.held)
        restore_s = {each.key: each.restore_s for each in candidates}
        weights = [weight for weight, _ in outlook.futures]
        futures = [_Future(arrivals, bytes_of, restore_s) for _, arrivals in outlook.futures]
        prices = _prices(candidates)

        def costs(option: Sequence[Candidate]) -> list[float]:
            stay = bytes_of.keys() - {each.key for each in option}
            free = sum(each.n_bytes for each in option) - need_bytes + outlook.working_bytes
            # What no future mentions would seem free to evict; its price speaks for it.
            beyond = _PRICE_SHARE * sum(prices[each] for each in option)
            return [beyond + future.cost_s(stay, free) for future in futures]

        plain = costs(options[0])  # the least recently used
        return max(options, key=lambda option: _sure_gain(plain, costs(option), weights))


def _cheapest(candidates: Sequence[Candidate], need_bytes: int) -> Sequence[Candidate]:
    if all(each.next_use is None for each in candidates):
        return LruPolicy().choose(candidates, need_bytes)
    prices = _prices(candidates)
    return cheapest_cover(candidates, [prices[each] for each in candidates], need_bytes)


def _options(candidates: Sequence[Candidate], need_bytes: int, first: Sequence[Candidate]) -> list[Sequence[Candidate]]:
    """Name the subsets worth playing through, without repetition: least recently used, ``first``, those needed last."""
    far = sorted(candidates, key=lambda each: (-_distance(each, candidates), each.key))
    options = [
        LruPolicy().choose(candidates, need_bytes),
        first,
        _in_order(far, need_bytes),
        *([each] for each in far if each.n_bytes >= need_bytes),
    ]
    distinct: dict[frozenset[str], Sequence[Candidate]] = {}
    for option in options:
        distinct.setdefault(frozenset(each.key for each in option), option)
    return list(distinct.values())[:_OPTIONS]


def _sure_gain(plain: Sequence[float], other: Sequence[float], weights: Sequence[float]) -> float:
    """Return the seconds that ``other`` saves over ``plain``, by future, less a part of their spread.

    Guesses err, and the least recently used is seldom far wrong: to do better in one future is not enough.
    """
    gains = [before - after for before, after in zip(plain, other, strict=True)]
    total = sum(weights)
    mean = sum(weight * gain for weight, gain in zip(weights, gains, strict=True)) / total
    spread = sum(weight * (gain - mean) ** 2 for weight, gain in zip(weights, gains, strict=True)) / total
    return mean - _DOUBT * math.sqrt(spread)


class _Future:
    """One sequence of arrivals, prepared for being played through several times.

    Args:
        arrivals: soonest first.
        bytes_of: of what may be on the tier at its beginning.
        restore_s: of the candidates.
    """

    def __init__(
        self, arrivals: Sequence[Arrival], bytes_of: Mapping[str, int], restore_s: Mapping[str, float]
    ) -> None:
        self._bytes_of = dict(bytes_of)
        self._steps: list[tuple[Arrival, float, dict[str, int]]] = []
        later: dict[str, int] = {}
        for index in range(len(arrivals) - 1, -1, -1):
            arrival = arrivals[index]
            self._bytes_of.setdefault(arrival.key, arrival.n_bytes)
            self._steps.append((arrival, restore_s.get(arrival.key, arrival.restore_s), later))
            later = later | {arrival.key: index}
        self._steps.reverse()

    def cost_s(self, residents: Iterable[str], free: int) -> float:
        """Return what it costs to serve every arrival.

        Args:
            residents: keys of what is on the tier.
            free: bytes beside them while nothing is leased.
        """
        there = set(residents)
        bytes_of = self._bytes_of
        cost_s = 0.0
        for index, (arrival, restore_s, later) in enumerate(self._steps):
            if arrival.key in there:
                there.discard(arrival.key)  # it is leased, and does not make room for itself
            else:
                cost_s += restore_s
                free -= bytes_of[arrival.key]
            if free < arrival.working_bytes:
                gone = self._leaving(there, arrival.working_bytes - free, index, later)
                free += sum(bytes_of[each] for each in gone)
                there.difference_update(gone)
            there.add(arrival.key)
        return cost_s

    def _leaving(self, there: Iterable[str], short: int, index: int, later: Mapping[str, int]) -> list[str]:
        """Choose what makes room for one arrival: what is needed last, or a single model if its price is lower."""
        bytes_of = self._bytes_of
        never = index + 10 * len(self._steps)
        farthest = sorted(there, key=lambda each: (-later.get(each, never), bytes_of[each], each))
        gone: list[str] = []
        surplus = -short
        single, single_price = "", math.inf
        for key in farthest:
            if bytes_of[key] >= short:
                price = bytes_of[key] / (later.get(key, never) - index)
                if price < single_price:
                    single, single_price = key, price
            if surplus < 0:
                gone.append(key)
                surplus += bytes_of[key]
        for key in reversed(gone.copy()):
            if bytes_of[key] <= surplus:
                surplus -= bytes_of[key]
                gone.remove(key)
        price = sum(bytes_of[key] / (later.get(key, never) - index) for key in gone)
        return [single] if single_price < price else gone


def cheapest_cover(candidates: Sequence[Candidate], prices: Sequence[float], need_bytes: int) -> Sequence[Candidate]:
    """Return the subset worth at least ``need_bytes`` whose prices sum up to the least.

    Exact for up to `EXACT_LIMIT` candidates; of more, those that are cheapest by the byte are considered.

    Args:
        candidates: in any order; the result does not depend on it.
        prices: of the candidates, not negative.
        need_bytes: to be covered.
    Returns:
        Nothing where all of them together are not enough. Never more than is needed: without any one of the chosen,
        the rest would not do.
    """
    order = sorted(
        zip(candidates, prices, strict=True),
        key=lambda each: (each[1] / max(1, each[0].n_bytes), each[0].last_used, each[0].key),
    )
    if sum(each.n_bytes for each in candidates) < need_bytes:
        return ()
    considered = order[:EXACT_LIMIT]
    if sum(each.n_bytes for each, _ in considered) < need_bytes:
        return _in_order([each for each, _ in order], need_bytes)
    freed = subset_sums([each.n_bytes for each, _ in considered])
    price = subset_sums([price for _, price in considered])
    chosen = int(np.where(freed >= need_bytes, price, np.inf).argmin())
    return _pruned([each for index, (each, _) in enumerate(considered) if chosen >> index & 1], need_bytes)


def subset_sums(values: Sequence[float]) -> NDArray[np.float64]:
    """Return the sum of every subset of ``values``, by bit mask: shape (2**n,), float64, exact below 2**53."""
    sums = np.zeros(1 << len(values))
    for index, value in enumerate(values):
        np.add(sums[: 1 << index], value, out=sums[1 << index : 2 << index])
    return sums


def _in_order(candidates: Sequence[Candidate], need_bytes: int) -> Sequence[Candidate]:
    """Take from the front until the need is covered, then spare what turned out not to be needed."""
    chosen: list[Candidate] = []
    short = need_bytes
    for candidate in candidates:
        if short <= 0:
            break
        chosen.append(candidate)
        short -= candidate.n_bytes
    return () if short > 0 else _pruned(chosen, need_bytes)


def _pruned(chosen: list[Candidate], need_bytes: int) -> list[Candidate]:
    """Leave out what is not needed, the last ones first: a large victim often makes small ones before it needless."""
    surplus = sum(each.n_bytes for each in chosen) - need_bytes
    for candidate in reversed(chosen.copy()):
        if candidate.n_bytes <= surplus:
            surplus -= candidate.n_bytes
            chosen.remove(candidate)
    return chosen


_NEVER = 1e9  # leases; finite, so that the least recently used goes first among what a plan does without


def _distance(candidate: Candidate, candidates: Sequence[Candidate]) -> float:
    """In how many leases ``candidate`` is expected; as long from now as its last use is back where that is unknown."""
    if candidate.next_use is not None and candidate.next_use < math.inf:
        return max(1.0, candidate.next_use)
    age = 1.0 + max(each.last_used for each in candidates) - candidate.last_used
    return age if candidate.next_use is None else _NEVER + age


def _prices(candidates: Sequence[Candidate]) -> dict[Candidate, float]:
    # A bytes' worth is added to the seconds: what costs nothing to bring back is still not to be evicted needlessly.
    return {each: (each.restore_s + each.n_bytes * 1e-15) / _distance(each, candidates) for each in candidates}
