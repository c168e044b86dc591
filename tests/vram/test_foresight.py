"""What a policy is told: by the pool's plans, its history and its measured rates."""

from __future__ import annotations

import math

import pytest
import torch
from torch import nn
from vram_rig import CPU, GPU, OTHER, UNIT

from photokeep_nodes._vram.foresight import HORIZON
from photokeep_nodes._vram.policy import PlanAwarePolicy
from photokeep_nodes._vram.simulated import SimulatedDevice, VirtualClock
from photokeep_nodes.vram_manager import ModelSource, PlanStep, VramPool

BUS_S = 0.25  # per unit
LOAD_S = 3.0


class Spy(PlanAwarePolicy):
    """Keeps what it was told last."""

    def choose(self, candidates, need_bytes, outlook):
        self.told = {each.key: each for each in candidates}
        self.outlook = outlook
        return super().choose(candidates, need_bytes, outlook)

    @property
    def futures(self) -> list[str]:
        return ["".join(arrival.key for arrival in arrivals) for _, arrivals in self.outlook.futures]


class Desk:
    def __init__(self, vram: int = 3, ram: int = 100) -> None:
        self.clock = VirtualClock()
        self.policy = Spy()
        self.pool = VramPool(
            vram_budgets={GPU: vram * UNIT, OTHER: vram * UNIT},
            ram_budget_bytes=ram * UNIT,
            policy=self.policy,
            open_device=lambda _: SimulatedDevice(100 * UNIT, bytes_per_s=UNIT / BUS_S, latency_s=0, clock=self.clock),
            clock=self.clock,
        )

    def source(self, key: str) -> ModelSource:
        def load() -> nn.Module:
            self.clock.advance(LOAD_S)
            module = nn.Module()
            module.register_buffer("weight", torch.zeros(UNIT, dtype=torch.uint8))
            return module

        return ModelSource(key, load, UNIT)

    def use(self, text: str, device: torch.device = GPU, working: int = 0) -> None:
        for key in text:
            with self.pool.lease(self.source(key), device=device, working_bytes=working):
                pass

    def steps(self, text: str, device: torch.device | None = GPU, working: int = 0) -> list[PlanStep]:
        return [PlanStep((self.source(key),), device, working) for key in text]


def test_history_tells_what_comes_and_when():
    desk = Desk()
    desk.use("abcd" * 3)
    (wanted,) = desk.policy.outlook.held
    cycle = ("abcd" * 3)["abcd".index(wanted) + 1 :]
    assert desk.policy.futures[0] == cycle[: len(desk.policy.futures[0])]
    assert len(desk.policy.told) == 3
    assert sorted(desk.policy.told, key=lambda key: desk.policy.told[key].next_use) == list(cycle[:3])


def test_what_it_takes_to_come_back_is_measured():
    desk = Desk()
    desk.use("abcd")
    assert desk.policy.told["a"].restore_s == pytest.approx(BUS_S), "warm: a copy"
    arrival = desk.pool._state.ledgers[GPU]
    assert arrival.bytes_per_s == pytest.approx(UNIT / BUS_S)
    assert desk.pool._state.ram.bytes_per_s == pytest.approx(UNIT / LOAD_S)
    desk.pool.trim("ram", 100 * UNIT)
    desk.use("e")
    assert desk.policy.told["b"].restore_s == pytest.approx(BUS_S + LOAD_S), "without its master: a load besides"
    assert not desk.policy.told["b"].warm


def test_a_plan_takes_precedence():
    desk = Desk()
    desk.use("abcd" * 3)
    with desk.pool.plan("job", desk.steps("edcaa" + "ab" * HORIZON, working=7), prefetch=False):
        desk.use("e")
        expected = {"a": 4, "b": 7, "c": 3, "d": 2}
        assert {key: each.next_use for key, each in desk.policy.told.items()}.items() < expected.items()
        ((weight, arrivals),) = desk.policy.outlook.futures
    assert weight == 1
    assert "".join(each.key for each in arrivals).startswith("edcab"), "several calls of one model are one arrival"
    assert len(arrivals) == HORIZON
    assert {each.working_bytes for each in arrivals} == {7}


def test_plans_of_several_jobs_are_one_future_and_other_devices_have_their_own():
    desk = Desk()
    desk.use("abc")
    with (
        desk.pool.plan("one", desk.steps("abx"), prefetch=False),
        desk.pool.plan("two", desk.steps("cy", None), prefetch=False),
        desk.pool.plan("elsewhere", desk.steps("zz", OTHER), prefetch=False),
    ):
        desk.use("d")
        assert desk.policy.futures == ["acbyx"]
        desk.use("ef", CPU)
    assert desk.policy.told["a"].next_use == 1


def test_what_a_plan_is_done_with_is_needed_never_and_of_the_rest_it_says_nothing():
    desk = Desk()
    desk.use("abc")
    with desk.pool.plan("job", desk.steps("ad"), prefetch=False) as plan:
        plan.reach(1)
        desk.use("d")
    assert {key: each.next_use for key, each in desk.policy.told.items()} == {"a": math.inf, "b": None, "c": None}


def test_ram_foresees_by_what_was_leased_anywhere():
    desk = Desk(ram=3)
    desk.use("ab")
    desk.use("ab")
    desk.use("c", CPU)
    desk.use("d", CPU)
    desk.use("c", CPU)
    desk.use("a", OTHER)
    told = desk.policy.told
    assert told.keys() <= set("abcd")
    assert all(each.restore_s >= LOAD_S / 2 for each in told.values())
    assert all(arrival.working_bytes == 0 for _, future in desk.policy.outlook.futures for arrival in future)
    with desk.pool.plan("job", desk.steps("eab"), prefetch=False):
        desk.use("e")
        assert desk.policy.futures == ["eab"]
        assert desk.policy.outlook.working_bytes == 0


def test_a_dropped_model_is_not_foreseen():
    desk = Desk()
    desk.use("abcd" * 3)
    desk.pool.drop("b")
    desk.pool.trim("vram", 3 * UNIT)
    desk.use("efga")
    assert desk.policy.outlook.held == {"a": UNIT}
    assert desk.policy.futures
    assert "b" not in "".join(desk.policy.futures)


def test_working_memory_is_foreseen_as_it_was():
    desk = Desk(vram=4)
    desk.use("abcde" * 3, working=UNIT // 2)
    assert desk.policy.outlook.working_bytes == UNIT // 2
    arrivals = [arrival for _, future in desk.policy.outlook.futures for arrival in future]
    assert {arrival.working_bytes for arrival in arrivals} == {UNIT // 2}


def test_trimming_has_no_request_to_make_room_for():
    desk = Desk()
    desk.use("abcabc")
    assert desk.pool.trim("vram", 1) == UNIT
    assert desk.policy.outlook.working_bytes == 0
    assert desk.policy.outlook.held == {}


def test_a_lease_counts_once_however_often_it_is_repeated():
    desk = Desk()
    desk.use("aaabbbaaa")
    assert list(desk.pool._state.ledgers[GPU].uses)[1:] == ["a", "b", "a"]
