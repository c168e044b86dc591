"""What a plan changes: models come before they are asked for, and nobody is kept from anything by that."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from math import inf

import pytest
import torch
from vram_rig import CPU, GPU, OTHER, UNIT, Rig, Source, hold

from photokeep_nodes._vram import prefetch
from photokeep_nodes._vram.plan import Plan, PlanBook
from photokeep_nodes._vram.simulated import audit
from photokeep_nodes.errors import PoolClosedError, VramError, VramExhaustedError
from photokeep_nodes.vram_manager import PlanStep

LONG_S = 20.0


def steps(*groups: tuple[Source, ...], working: int = 0, device: torch.device | None = GPU) -> list[PlanStep]:
    return [PlanStep(group, device, working * UNIT) for group in groups]


@contextmanager
def by_hand(rig: Rig, *groups: tuple[Source, ...], **options):
    """A plan whose prefetching is done by the test, step by step, and not by the thread."""
    with rig.pool.no_prefetch(), rig.pool.plan("job", steps(*groups, **options)) as plan:
        yield plan


def by_hand_too(rig: Rig, *groups: tuple[Source, ...]):
    """A second plan beside `by_hand`'s, for the other device."""
    return rig.pool.plan("other job", steps(*groups, device=OTHER))


def bring_all(rig: Rig) -> int:
    count = 0
    while rig.pool._bring_foreseen():
        count += 1
    return count


def until(true, what: str) -> None:
    deadline = time.monotonic() + LONG_S
    while not true():
        assert time.monotonic() < deadline, f"never: {what}"
        time.sleep(0.001)


# -- what a plan knows ------------------------------------------------------------------------------------------------


def test_the_next_use_is_counted_in_steps_from_the_one_in_hand():
    a, b, c = Source("a"), Source("b"), Source("c")
    rig = Rig(4)
    with rig.pool.plan("job", steps((a,), (b,), (a, c)), prefetch=False) as plan:
        assert [plan.next_use(key) for key in "abcd"] == [1, 2, 3, inf]
        plan.reach(1)
        assert [plan.next_use(key) for key in "abc"] == [2, 1, 2]
        assert plan.current is not None
        plan.reach(3)
        assert [plan.next_use(key) for key in "abc"] == [inf, inf, inf]
        assert plan.current is None
        assert bring_all(rig) == 0


def test_of_several_plans_the_soonest_use_counts():
    a, b = Source("a"), Source("b")
    rig, book = Rig(4), PlanBook()
    assert book.next_use("a") is None, "nothing is known without a plan"
    one = Plan(rig.pool, "one", steps((b,), (a,)), prefetch=True)
    two = Plan(rig.pool, "two", steps((a,)), prefetch=True)
    book.plans.update(one=one, two=two)
    assert (book.next_use("a"), book.next_use("b"), book.next_use("c")) == (1, 1, inf)
    assert [(distance, source.key) for distance, _, source, _ in book.ahead()] == [(1, "b"), (1, "a"), (2, "a")]


def test_a_plan_goes_forward_only_and_within_its_steps():
    rig = Rig(4)
    with rig.pool.plan("job", steps((Source("a"),), (Source("b"),)), prefetch=False) as plan:
        plan.reach(1)
        plan.reach(1)
        for position in (0, 3):
            with pytest.raises(VramError, match="has 2 steps and stands at 1"):
                plan.reach(position)


def test_a_job_has_one_plan_at_a_time():
    rig = Rig(4)
    with rig.pool.plan("job", [], prefetch=False):
        with pytest.raises(VramError, match="a plan for job already"), rig.pool.plan("job", []):
            pass
        assert rig.pool.stats()["plans"] == [{"job": "job", "position": 0, "steps": 0}]
    with rig.pool.plan("job", []):
        pass
    assert rig.pool.stats()["plans"] == []


def test_a_plan_is_entered_once_and_a_second_time_does_not_end_it():
    rig = Rig(4)
    with rig.pool.plan("job", [], prefetch=False) as plan:
        with pytest.raises(VramError, match="entered only once"), plan:
            pass
        assert len(rig.pool.stats()["plans"]) == 1


def test_a_device_without_an_index_is_the_current_one_in_a_plan():
    if torch.accelerator.is_available():
        pytest.skip("the current device is a real one here")
    (step,) = Rig(4).pool.plan("job", steps((Source("a"),), device=torch.device("cuda"))).steps
    assert step.device == GPU


def test_a_closed_pool_takes_no_plan_and_forgets_those_it_had():
    rig = Rig(4)
    with rig.pool.plan("job", steps((Source("a"),))):
        assert rig.pool.close(LONG_S)
        assert rig.pool._bring_foreseen() is False
    with pytest.raises(PoolClosedError), rig.pool.plan("other", []):
        pass


# -- bringing ahead ---------------------------------------------------------------------------------------------------


def test_the_next_model_is_brought_while_the_present_one_is_used():
    rig, a, b = Rig(4), Source("a"), Source("b")
    with rig.pool.plan("job", steps((a,), (b,))) as plan:
        with rig.pool.lease(a, device=GPU):
            until(lambda: rig.states().get("b") == "hot", "b hot while a is leased")
        plan.reach(1)
        loads, stall_s = b.loads, rig.stall_s
        with rig.pool.lease(b, device=GPU) as lease:
            assert torch.equal(lease.module.weight, b.load().weight)
        assert (loads, rig.stall_s) == (1, stall_s)
    assert rig.foreseen_hits in {1, 2}, "a itself may have been brought ahead as well"
    assert rig.foreseen_promotions == rig.foreseen_hits
    assert audit(rig.pool) == []
    until(lambda: not rig.pool._prefetcher.alive, "the thread ended with the last plan")


def test_who_asks_for_what_is_on_its_way_joins_it():
    rig, a = Rig(4), Source("a")
    begun, go = hold(a)
    with rig.pool.plan("job", steps((a,))):
        assert begun.wait(LONG_S)
        joining = threading.Thread(target=rig.touch, args=(a,))
        joining.start()
        until(lambda: rig.joined_loads == 1, "it waits for the load under way")
        go.set()
        joining.join(LONG_S)
    assert (a.loads, rig.joined_loads, rig.foreseen_hits) == (1, 1, 1)
    assert audit(rig.pool) == []


def test_what_does_not_fit_on_the_device_is_brought_into_ram():
    rig, a, b = Rig(4), Source("a", 3), Source("b", 2)
    with by_hand(rig, (a,), (b,)), rig.pool.lease(a, device=GPU):
        assert bring_all(rig) == 1
        assert rig.states() == {"a": "hot", "b": "warm"}
        assert rig.foreseen_loads == 1
    assert audit(rig.pool) == []


def test_what_is_needed_much_later_is_brought_into_ram_only():
    rig, models = Rig(20), [Source(key) for key in "abcdefghijk"]
    with by_hand(rig, *((model,) for model in models)) as plan:
        assert bring_all(rig) == 9, "the step in hand and eight more"
        assert rig.states() == dict.fromkeys("abc", "hot") | dict.fromkeys("defghi", "warm")
        plan.reach(2)
        bring_all(rig)
        assert rig.states() == dict.fromkeys("abcde", "hot") | dict.fromkeys("fghijk", "warm")
    assert all(model.loads == 1 for model in models)


def test_nothing_that_is_needed_sooner_leaves_for_it():
    rig = Rig(4, clock=iter(range(0, 10**6, 100)).__next__)
    a, b, c, idle = Source("a", 2), Source("b", 2), Source("c", 2), Source("idle", 2)
    rig.touch(idle)
    with by_hand(rig, (a,), (b,), (c,)):
        assert bring_all(rig) == 3
        assert rig.states() == {"idle": "warm", "a": "hot", "b": "hot", "c": "warm"}
        assert rig.foreseen_wasted == 0


def test_what_came_only_just_now_does_not_leave_for_it():
    now = [0.0]
    rig, a, b = Rig(2, clock=lambda: now[0]), Source("a", 2), Source("b", 2)
    rig.touch(b)
    with by_hand(rig, (a,)):
        assert bring_all(rig) == 1
        assert rig.states() == {"a": "warm", "b": "hot"}
        now[0] = 5.0
        assert bring_all(rig) == 1
        assert rig.states() == {"a": "hot", "b": "warm"}


def test_what_the_plan_has_used_leaves_for_it_however_short_its_step_was():
    rig, a, b, c = Rig(4, clock=lambda: 0.0), Source("a", 2), Source("b", 2), Source("c", 2)
    with by_hand(rig, (a,), (b,), (c,)) as plan:
        bring_all(rig)
        assert rig.states() == {"a": "hot", "b": "hot", "c": "warm"}
        rig.touch(a)
        plan.reach(1)
        assert bring_all(rig) == 1
        assert rig.states() == {"a": "warm", "b": "hot", "c": "hot"}
    with by_hand(rig, (a,)):
        assert bring_all(rig) == 0, "c was brought and not used yet"


def test_the_memory_that_the_step_in_hand_will_ask_for_stays_free():
    rig, a, b = Rig(5), Source("a"), Source("b")
    with by_hand(rig, (a,), (b,), working=3):
        bring_all(rig)
        assert rig.states() == {"a": "hot", "b": "hot"}
    rig, b = Rig(5), Source("b", 2)
    with by_hand(rig, (a,), (b,), working=3):
        bring_all(rig)
        assert rig.states() == {"a": "hot", "b": "warm"}
        with rig.pool.lease(a, device=GPU, working_bytes=3 * UNIT):
            assert bring_all(rig) == 0, "taken now, and so not kept free a second time"
        with rig.pool.lease(a, device=GPU, working_bytes=2 * UNIT):
            assert bring_all(rig) == 0, "one of the three is still to be taken"


def test_nobody_who_waits_is_kept_waiting_by_it():
    rig, a, b, c = Rig(3), Source("a", 2), Source("b", 2), Source("c", 1)
    with by_hand(rig, (c,)):
        with rig.pool.lease(a, device=GPU):
            waiter = threading.Thread(target=rig.touch, args=(b,))
            waiter.start()
            until(lambda: rig.waits == 1, "b waits")
            assert bring_all(rig) == 0
            assert c.loads == 0
        waiter.join(LONG_S)
    assert audit(rig.pool) == []


def test_a_model_larger_than_the_budget_is_left_to_its_step():
    rig, giant = Rig(2, ram=2), Source("giant", 3)
    with by_hand(rig, (giant,)):
        assert bring_all(rig) == 0
        with pytest.raises(VramExhaustedError):
            rig.touch(giant)


def test_a_model_smaller_than_it_seemed_is_no_matter_and_a_larger_one_is_given_up():
    rig, a = Rig(4), Source("a", 1, estimate=3)
    with by_hand(rig, (a,)):
        assert bring_all(rig) == 1
        assert rig.states() == {"a": "hot"}
    rig, b = Rig(4, ram=4), Source("b", 6, estimate=2)
    with by_hand(rig, (b,)):
        assert bring_all(rig) == 0
        assert rig.states() == {}
    assert audit(rig.pool) == []


def test_a_failed_load_is_told_to_who_needs_the_model_and_not_repeated_ahead():
    rig, a = Rig(4), Source("a")
    a.error = OSError("unreadable")
    with by_hand(rig, (a,)):
        assert bring_all(rig) == 0
        assert bring_all(rig) == 0
        assert a.loads == 1
        with pytest.raises(OSError, match="unreadable"):
            rig.touch(a)
        assert a.loads == 2
    assert audit(rig.pool) == []


def test_a_device_that_cannot_be_used_is_left_to_its_step():
    rig = Rig(4)
    rig.pool._open_device = {}.__getitem__
    rig.pool._refused_types.add("cuda")
    with by_hand(rig, (Source("a"),)):
        assert bring_all(rig) == 0
    with by_hand(rig, (Source("a"),), device=None):
        assert bring_all(rig) == 1, "no accelerator is left, and on the CPU a model is brought into RAM"
    assert rig.states() == {"a": "warm"}


def test_on_the_cpu_the_next_model_is_brought_into_ram():
    rig, a, b = Rig(4), Source("a"), Source("b")
    with by_hand(rig, (a,), (b,), device=CPU) as plan:
        assert bring_all(rig) == 2
        rig.touch(a, device=CPU)
        plan.reach(1)
        rig.touch(b, device=CPU)
    assert (a.loads, b.loads, rig.foreseen_loads, rig.foreseen_hits) == (1, 1, 2, 2)


def test_a_device_that_a_host_manages_is_left_to_the_hosts_own_threads():
    class Host:
        def manages(self, place: torch.device) -> bool:
            return place == GPU

        def may_call_here(self) -> bool:
            return False

    rig, a, b = Rig(4, host_memory=Host()), Source("a"), Source("b")
    with by_hand(rig, (a,)), by_hand_too(rig, (b,)):
        assert bring_all(rig) == 2
    assert rig.states() == {"a": "warm", "b": "hot"}
    assert rig.pool.stats()["tiers"]["cuda:1"]["models"] == ["b"]


def test_without_a_device_it_goes_where_its_step_will():
    rig, a = Rig(4, accelerators=[GPU, OTHER]), Source("a")
    rig.touch(a, device=OTHER)
    rig.pool.trim("vram", UNIT)
    with rig.pool.lease(Source("b"), device=GPU), by_hand(rig, (a,), device=None):
        assert bring_all(rig) == 1
        assert rig.pool.place([a]) == OTHER
        assert rig.pool.stats()["tiers"]["cuda:1"]["models"] == ["a"]


def test_a_prefetch_that_was_for_nothing_is_counted():
    rig, a = Rig(4), Source("a")
    with by_hand(rig, (a,)):
        bring_all(rig)
    rig.pool.trim("vram", UNIT)
    assert (rig.foreseen_wasted, rig.foreseen_hits) == (1, 0)


# -- the thread -------------------------------------------------------------------------------------------------------


def test_closing_waits_for_a_load_in_the_middle():
    rig, a = Rig(4), Source("a")
    begun, go = hold(a)
    plan = rig.pool.plan("job", steps((a,)))
    plan.__enter__()
    assert begun.wait(LONG_S)
    assert rig.pool.close(0.0) is False, "it cannot be cut short"
    go.set()
    assert rig.pool.close(LONG_S)
    assert not rig.pool._prefetcher.alive
    assert rig.gpu.live_bytes == 0
    plan.__exit__(None, None, None)


def test_a_waiting_prefetch_notices_that_the_pool_closes():
    rig, a = Rig(4), Source("a")
    with rig.pool.lease(a, device=GPU):
        pass
    rig.pool._closed = True
    with pytest.raises(PoolClosedError):
        rig.pool._check_open()
    rig.pool._closed = False
    rig.pool._check_open()


def test_a_fault_in_its_work_does_not_end_it(caplog):
    calls, again = [], threading.Event()

    def work() -> bool:
        calls.append(1)
        if len(calls) == 1:
            raise RuntimeError("odd")
        again.set()
        return False

    wanted = [True]
    prefetcher = prefetch.Prefetcher(work, lambda: wanted[0])
    prefetcher.wake()
    until(lambda: "could not be brought ahead" in caplog.text, "the fault is logged")
    prefetcher.wake()
    assert again.wait(LONG_S)
    wanted[0] = False
    prefetcher.wake()
    until(lambda: not prefetcher.alive, "it ended")
    wanted[0] = True
    again.clear()
    prefetcher.wake()
    assert again.wait(LONG_S), "it begins anew with the next plan"
    assert prefetcher.stop(LONG_S)
    prefetcher.wake()
    assert not prefetcher.alive, "stopped for good"


def test_the_end_of_the_process_stops_every_thread(monkeypatch):
    gate = threading.Event()
    prefetcher = prefetch.Prefetcher(lambda: gate.wait(LONG_S) and False, lambda: True)
    monkeypatch.setattr(prefetch, "_all", {prefetcher})
    prefetcher.wake()
    gate.set()
    prefetch._stop_all()
    assert not prefetcher.alive
