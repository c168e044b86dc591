"""Any sequence of calls against a plain model of what the pool should hold afterwards."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from itertools import count

import pytest
import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from torch import nn

from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.errors import LeaseNestedError, VramExhaustedError
from photokeep_nodes.vram_manager import Lease, LruPolicy, ModelSource, VramPool

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
UNIT = 64
SIZES = {"a": 1, "b": 1, "c": 2, "d": 3, "e": 5}


class BrokenError(Exception):
    """A load failed."""


@dataclass(eq=False)
class Item:
    """One model as the design describes it."""

    key: str
    hot: bool = False
    in_ram: bool = False
    used_at: int = 0

    @property
    def size(self) -> int:
        return SIZES[self.key]


@dataclass(eq=False)
class Held:
    items: list[Item]
    working: int


class Expected:
    """The pool in one thread: least recently used, all or nothing, nothing else."""

    def __init__(self) -> None:
        self.vram, self.ram = 7, 9
        self.items: dict[str, Item] = {}
        self.ghosts: list[Item] = []  # dropped while leased
        self.leases: list[Held] = []
        self.now = 0

    def pinned(self, item: Item) -> bool:
        return any(item in lease.items for lease in self.leases)

    def everything(self) -> list[Item]:
        return [*self.items.values(), *self.ghosts]

    def vram_used(self) -> int:
        return sum(each.size for each in self.everything() if each.hot) + sum(each.working for each in self.leases)

    def ram_used(self) -> int:
        return sum(each.size for each in self.everything() if each.in_ram)

    def idle_hot(self, keep: set[str]) -> list[Item]:
        return [each for each in self.items.values() if each.hot and not self.pinned(each) and each.key not in keep]

    def sheddable(self, keep: set[str]) -> list[Item]:
        return [each for each in self.items.values() if each.in_ram and each.key not in keep]

    @staticmethod
    def oldest(items: list[Item], need: int) -> list[Item] | None:
        """Oldest first until enough; then spare, newest first, what was not needed after all."""
        if sum(each.size for each in items) < need:
            return None
        chosen: list[Item] = []
        for item in sorted(items, key=lambda each: (each.used_at, each.key)):
            if sum(each.size for each in chosen) >= need:
                break
            chosen.append(item)
        for item in reversed(chosen[:-1]):
            if sum(each.size for each in chosen) - item.size >= need:
                chosen.remove(item)
        return chosen

    def evict(self, items: list[Item], tier: str) -> None:
        for item in items:
            setattr(item, tier, False)
        self.items = {key: item for key, item in self.items.items() if item.hot or item.in_ram}

    def lease(self, keys: list[str], working: int, broken: str | None) -> type[Exception] | None:
        known = [self.items.get(key) for key in keys]
        missing = [key for key, item in zip(keys, known, strict=True) if item is None or not item.hot]
        cold = [key for key in missing if key not in self.items or not self.items[key].in_ram]
        fits_now = not missing and self.vram_used() + working <= self.vram
        quick = not missing and (not working or fits_now)
        shed: list[Item] | None = []
        leave: list[Item] | None = []
        if not quick:
            if sum(SIZES[key] for key in keys) + working > self.vram:
                return VramExhaustedError
            if cold and sum(SIZES[key] for key in missing) > self.ram:
                return VramExhaustedError
            need = sum(SIZES[key] for key in cold)
            if cold and self.ram_used() + need > self.ram:
                shed = self.oldest(self.sheddable(set(missing)), self.ram_used() + need - self.ram)
            need = sum(SIZES[key] for key in missing) + working
            if need and self.vram_used() + need > self.vram:
                leave = self.oldest(self.idle_hot(set(keys)), self.vram_used() + need - self.vram)
            if shed is None or leave is None:
                return LeaseNestedError
        self.evict(shed, "in_ram")
        self.evict(leave, "hot")
        self.now += 1
        items = []
        for key in keys:
            item = self.items.get(key)
            if item is None or not item.hot:
                if item is None or not item.in_ram:
                    if key == broken:
                        return BrokenError
                    item = self.items.setdefault(key, Item(key))
                    item.in_ram = True
                item.hot = True
            item.used_at = self.now  # even if the request fails later: it was asked for
            items.append(item)
        self.leases.append(Held(items, working))
        return None

    def release(self, index: int) -> None:
        self.leases.pop(index)
        self.ghosts = [each for each in self.ghosts if self.pinned(each)]
        self.keep_budgets()

    def drop(self, key: str) -> bool:
        item = self.items.pop(key, None)
        if item is not None and self.pinned(item):
            self.ghosts.append(item)
        return item is not None

    def shrink(self, tier: str, more: int) -> None:
        over = max(0, self.vram_used() - self.vram) if tier == "hot" else max(0, self.ram_used() - self.ram)
        idle = self.idle_hot(set()) if tier == "hot" else self.sheddable(set())
        if over + more:
            chosen = self.oldest(idle, over + more)
            self.evict(idle if chosen is None else chosen, tier)

    def keep_budgets(self) -> None:
        self.shrink("hot", 0)
        self.shrink("in_ram", 0)


class PoolMachine(RuleBasedStateMachine):
    """Calls the pool and the model alike."""

    def __init__(self) -> None:
        super().__init__()
        self.expected = Expected()
        self.device = SimulatedDevice(1000 * UNIT)
        self.pool = VramPool(
            vram_budgets={GPU: self.expected.vram * UNIT},
            ram_budget_bytes=self.expected.ram * UNIT,
            policy=LruPolicy(),
            open_device=lambda _: self.device,
            clock=partial(next, count(0, 100)),  # so that no failed load has to wait for its next try
        )
        self.leases: list[Lease] = []
        self.broken: str | None = None

    def source(self, key: str) -> ModelSource:
        def load() -> nn.Module:
            if key == self.broken:
                raise BrokenError(key)
            module = nn.Module()
            module.weight = nn.Parameter(torch.full((SIZES[key] * UNIT // 4,), float(ord(key))))
            return module.eval()

        return ModelSource(key, load, SIZES[key] * UNIT)

    @rule(
        keys=st.lists(st.sampled_from(sorted(SIZES)), min_size=1, max_size=2, unique=True),
        working=st.sampled_from((0, 0, 1, 2, 5)),
        breaks=st.sampled_from((False, False, False, True)),
    )
    def lease(self, keys: list[str], working: int, breaks: bool) -> None:
        self.broken = keys[-1] if breaks else None
        foreseen = self.expected.lease(keys, working, self.broken)
        lease = self.pool.lease([self.source(key) for key in keys], device=GPU, working_bytes=working * UNIT)
        if foreseen is not None:
            with pytest.raises(foreseen):
                lease.__enter__()
        else:
            lease.__enter__()
            self.leases.append(lease)

    @precondition(lambda self: self.leases)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        index = data.draw(st.integers(0, len(self.leases) - 1))
        self.leases.pop(index).release()
        self.expected.release(index)

    @rule(key=st.sampled_from(sorted(SIZES)))
    def drop(self, key: str) -> None:
        assert self.pool.drop(key) == self.expected.drop(key)

    @rule(tier=st.sampled_from(("vram", "ram")), units=st.integers(1, 6))
    def trim(self, tier: str, units: int) -> None:
        before = self.expected.vram_used() if tier == "vram" else self.expected.ram_used()
        self.expected.shrink("hot" if tier == "vram" else "in_ram", units)
        after = self.expected.vram_used() if tier == "vram" else self.expected.ram_used()
        self.pool._ledger(GPU)
        assert self.pool.trim(tier, units * UNIT) == (before - after) * UNIT

    @rule(place=st.sampled_from((GPU, CPU)), units=st.integers(3, 12))
    def set_budget(self, place: torch.device, units: int) -> None:
        self.pool.set_budget(place, units * UNIT)
        if place == GPU:
            self.expected.vram = units
            self.expected.shrink("hot", 0)
        else:
            self.expected.ram = units
            self.expected.shrink("in_ram", 0)

    @invariant()
    def the_books_are_right(self) -> None:
        assert audit(self.pool) == []

    @invariant()
    def it_holds_what_it_should(self) -> None:
        tiers = self.pool.stats()["tiers"]
        everything = self.expected.everything()
        assert tiers["cpu"]["models"] == sorted(each.key for each in everything if each.in_ram)
        assert tiers["cpu"]["used_bytes"] == self.expected.ram_used() * UNIT
        if "cuda:0" in tiers:
            assert tiers["cuda:0"]["models"] == sorted(each.key for each in everything if each.hot)
            assert tiers["cuda:0"]["used_bytes"] == self.expected.vram_used() * UNIT
            assert self.device.live_bytes == sum(each.size for each in everything if each.hot) * UNIT

    @invariant()
    def every_lease_has_its_weights(self) -> None:
        for lease in self.leases:
            for source, module in zip(lease.sources, lease.modules, strict=True):
                assert bool((module.weight == float(ord(source.key))).all())

    def teardown(self) -> None:
        for lease in self.leases:
            lease.release()
        assert self.pool.close(1)
        assert self.device.live_bytes == 0


PoolMachine.TestCase.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)
TestPool = PoolMachine.TestCase
