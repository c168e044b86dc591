"""The pool under several threads, interrupts at every line, and forks. Names in brackets are the invariants."""

from __future__ import annotations

import os
import random
import sys
import threading
import time
import warnings
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, suppress

import pytest
import torch
from line_interrupts import Interrupt, interrupt_at
from torch import nn

from photokeep_nodes import vram_manager
from photokeep_nodes._vram import bring, core, engine, lease, prefetch, relief, weights
from photokeep_nodes._vram.queue import BYPASS_LIMIT, Patience
from photokeep_nodes._vram.records import Ledger, Request, Waiter
from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.errors import (
    LeaseNestedError,
    LeaseTimeoutError,
    PhotokeepError,
    PoolClosedError,
    VramError,
    WeightsMissingError,
)
from photokeep_nodes.vram_manager import ModelSource, PlanStep, VramPool

GPU = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
CPU = torch.device("cpu")
UNIT = 1024
LONG_S = 20.0  # no test waits this long unless it is about to fail


class Source:
    """A model of ``units`` KiB whose load can be held up or made to fail; notices if two loads overlap."""

    def __init__(self, key: str, units: int = 1, *, held: bool = False) -> None:
        self.key = key
        self.weight_bytes = units * UNIT
        self.loads = 0
        self.overlapped = False
        self.error: BaseException | None = None
        self.began = threading.Event()
        self.may_end = threading.Event()
        self._busy = threading.Lock()
        if not held:
            self.may_end.set()

    def load(self) -> nn.Module:
        if not self._busy.acquire(blocking=False):
            self.overlapped = True
            raise AssertionError("two loads at once")
        try:
            self.loads += 1
            self.began.set()
            assert self.may_end.wait(LONG_S)
            if self.error is not None:
                raise self.error
            module = nn.Module()
            module.weight = nn.Parameter(torch.full((self.weight_bytes // 4,), float(len(self.key))))
            return module.eval()
        finally:
            self._busy.release()


def new_pool(vram: int, ram: int = 1000) -> tuple[VramPool, SimulatedDevice]:
    devices = {place: SimulatedDevice(1000 * UNIT) for place in (GPU, OTHER)}
    pool = VramPool(
        vram_budgets={GPU: vram * UNIT, OTHER: vram * UNIT},
        ram_budget_bytes=ram * UNIT,
        open_device=devices.__getitem__,
    )
    return pool, devices[GPU]


def until(condition) -> None:
    deadline = time.monotonic() + LONG_S
    while not condition():
        assert time.monotonic() < deadline, "waited in vain"
        time.sleep(0.002)


def waiting(pool: VramPool) -> int:
    return len(pool._queue.waiters)


@pytest.fixture
def threads():
    with ThreadPoolExecutor(12) as executor:
        yield executor


def touch(pool: VramPool, *sources: Source, device: torch.device = GPU, **options) -> str:
    with pool.lease(list(sources), device=device, **options) as lease:
        return lease.sources[0].key


class Holder:
    """A lease held in a thread of its own until told otherwise."""

    def __init__(self, threads: ThreadPoolExecutor, pool: VramPool, *sources: Source, **options) -> None:
        self._end = threading.Event()
        self._held = threading.Event()
        self._future = threads.submit(self._run, pool, sources, options)

    def _run(self, pool: VramPool, sources: tuple[Source, ...], options: dict) -> None:
        with pool.lease(list(sources), device=options.pop("device", GPU), **options):
            self._held.set()
            assert self._end.wait(LONG_S)

    def held(self) -> Holder:
        assert self._held.wait(LONG_S)
        return self

    def __enter__(self) -> Holder:
        return self.held()

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._future.result(LONG_S)


# -- one load for all -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("device", [GPU, CPU])
def test_simultaneous_requests_share_one_load(threads, device):  # I3
    pool, gpu = new_pool(4)
    source = Source("a", held=True)
    futures = [threads.submit(touch, pool, source, device=device, timeout_s=LONG_S) for _ in range(8)]
    until(lambda: pool.stats()["counters"]["joined_loads"] == 7)
    source.may_end.set()
    assert [future.result(LONG_S) for future in futures] == ["a"] * 8
    assert source.loads == 1
    assert gpu.bytes_copied == (UNIT if device == GPU else 0)
    assert audit(pool) == []


def test_requests_for_two_devices_share_one_load(threads):  # I3
    pool, _ = new_pool(4)
    source = Source("a", held=True)
    futures = [threads.submit(touch, pool, source, device=device) for device in (GPU, OTHER, CPU)]
    until(lambda: pool.stats()["counters"]["joined_loads"] == 2)
    source.may_end.set()
    assert [future.result(LONG_S) for future in futures] == ["a"] * 3
    assert source.loads == 1
    assert audit(pool) == []


class OddError(Exception):
    def __init__(self, one: str, *, two: str) -> None:
        super().__init__(one)


@pytest.mark.parametrize(
    "error", [WeightsMissingError("no file", hint="Get it.", missing=["x"]), OddError("a", two="b")]
)
def test_a_failed_load_is_raised_to_everyone_who_waited(threads, error):  # I6
    pool, _ = new_pool(4)
    source = Source("a", held=True)
    source.error = error
    futures = [threads.submit(touch, pool, source, working_bytes=1) for _ in range(4)]
    until(lambda: pool.stats()["counters"]["joined_loads"] == 3)
    source.may_end.set()
    raised = [future.exception(LONG_S) for future in futures]
    assert source.loads == 1
    assert len({id(each) for each in raised}) == 4, "no exception object is shared between threads"
    assert sum(each is error for each in raised) == 1
    if isinstance(error, PhotokeepError):
        assert {(type(each), each.message, each.hint, str(each.context)) for each in raised} == {
            (WeightsMissingError, "no file", "Get it.", "{'missing': ['x']}")
        }
    else:  # one that cannot be copied
        assert sum(isinstance(each, VramError) and "OddError: a" in str(each) for each in raised) == 3
    assert audit(pool) == []
    assert pool.stats()["models"] == []
    source.error = None
    touch(pool, source)
    assert source.loads == 2


def test_an_interrupted_load_is_taken_over_by_who_waits(threads):  # I6
    pool, _ = new_pool(4)
    source = Source("a", held=True)
    source.error = Interrupt()

    def interrupted():
        with pytest.raises(Interrupt):
            touch(pool, source)
        source.error = None

    first = threads.submit(interrupted)
    assert source.began.wait(LONG_S)
    others = [threads.submit(touch, pool, source) for _ in range(3)]
    until(lambda: pool.stats()["counters"]["joined_loads"] == 3)
    real_load = source.load

    def load_again():  # by whoever takes over; the first has cleared the error by then
        first.result(LONG_S)
        return real_load()

    source.load = load_again
    source.may_end.set()
    assert [future.result(LONG_S) for future in others] == ["a"] * 3
    assert source.loads == 2
    assert audit(pool) == []


def test_a_set_that_fails_halfway_does_not_fail_who_waits_for_the_rest(threads):
    pool, _ = new_pool(4)
    bad, good = Source("bad", held=True), Source("good")
    bad.error = OSError("broken")
    both = threads.submit(touch, pool, bad, good)
    assert bad.began.wait(LONG_S)
    other = threads.submit(touch, pool, good)
    until(lambda: pool.stats()["counters"]["joined_loads"] == 1)
    bad.may_end.set()
    assert isinstance(both.exception(LONG_S), OSError)
    assert other.result(LONG_S) == "good"
    assert good.loads == 1
    assert audit(pool) == []


def test_a_model_dropped_while_it_loads_is_loaded_anew_for_the_next(threads):  # I3
    pool, _ = new_pool(4)
    source = Source("a", held=True)
    first = threads.submit(touch, pool, source)
    assert source.began.wait(LONG_S)
    pool.drop("a")
    second = threads.submit(touch, pool, source)
    until(lambda: waiting(pool) == 1)
    source.may_end.set()
    assert (first.result(LONG_S), second.result(LONG_S)) == ("a", "a")
    assert (source.loads, source.overlapped) == (2, False)
    assert audit(pool) == []


def test_the_end_of_an_older_lease_does_not_give_up_a_newer_load(threads):  # I3, I6
    pool, _ = new_pool(4)
    a = Source("a")
    with Holder(threads, pool, a):
        pool.trim("ram", UNIT)  # hot on one device, and no longer in RAM: the other one loads it anew
        a.began.clear()
        a.may_end.clear()
        second = threads.submit(touch, pool, a, device=OTHER)
        assert a.began.wait(LONG_S)
    third = threads.submit(touch, pool, a, device=CPU)
    until(lambda: a.overlapped or pool.stats()["counters"]["joined_loads"] == 1)
    a.may_end.set()
    assert (second.result(LONG_S), third.result(LONG_S)) == ("a", "a")
    assert (a.loads, a.overlapped) == (2, False)
    assert audit(pool) == []


def test_ram_is_not_free_while_a_second_module_still_looks_at_it(threads, monkeypatch):  # I4
    pool, _ = new_pool(4)
    a = Source("a")
    with pool.lease(a, device=GPU), pool.lease(a, device=CPU):
        pass
    began, may_end = threading.Event(), threading.Event()
    real = weights.Instance.hollow

    def hollow(instance):
        if not began.is_set():
            began.set()
            assert may_end.wait(LONG_S)
        real(instance)

    monkeypatch.setattr(weights.Instance, "hollow", hollow)
    emptying = threads.submit(pool.trim, "vram", UNIT)  # one module comes home, where there is another
    assert began.wait(LONG_S)
    assert pool.trim("ram", UNIT) == UNIT
    assert pool.stats()["tiers"]["cpu"]["used_bytes"] == UNIT, "on its way out, and not gone"
    may_end.set()
    assert emptying.result(LONG_S) == UNIT
    assert pool.stats()["models"] == []
    assert audit(pool) == []


# -- waiting ----------------------------------------------------------------------------------------------------------


def test_a_request_waits_for_room_and_gets_it(threads):
    pool, gpu = new_pool(2)
    a, b = Source("a", 2), Source("b", 2)
    with Holder(threads, pool, a):
        future = threads.submit(touch, pool, b)
        until(lambda: waiting(pool) == 1)
        assert b.loads == 0
    assert future.result(LONG_S) == "b"
    assert pool.stats()["counters"]["waits"] == 1
    assert gpu.peak_bytes == 2 * UNIT
    assert audit(pool) == []


@pytest.mark.parametrize("timeout_s", [0, 0.02])
def test_a_wait_ends_by_timeout_with_a_report(threads, timeout_s):  # I6, I7
    pool, _ = new_pool(2)
    a, b = Source("a", 2), Source("b", 2)
    with Holder(threads, pool, a):
        with pytest.raises(LeaseTimeoutError, match=f"b could not be leased in {timeout_s:g} s") as caught:
            touch(pool, b, timeout_s=timeout_s)
        assert "a 2.0 KiB leased by ThreadPoolExecutor" in caught.value.hint
        assert waiting(pool) == 0
        assert audit(pool) == []
    assert pool.stats()["counters"]["timeouts"] == 1


def test_waiting_for_another_threads_load_ends_by_timeout_too(threads):
    pool, _ = new_pool(4)
    source = Source("a", held=True)
    first = threads.submit(touch, pool, source)
    assert source.began.wait(LONG_S)
    with pytest.raises(LeaseTimeoutError, match="another thread still loads a"):
        touch(pool, source, timeout_s=0.02)
    source.may_end.set()
    assert first.result(LONG_S) == "a"
    assert audit(pool) == []


@pytest.mark.parametrize("kind", ["queue", "load"])
def test_a_wait_ends_by_the_callers_interrupt(threads, kind):  # I6, I7
    pool, _ = new_pool(2)
    a = Source("a", 2, held=True)
    holder = Holder(threads, pool, a)
    assert a.began.wait(LONG_S)
    if kind == "queue":
        a.may_end.set()
        holder.held()
    asked = []

    def check():
        asked.append(1)
        if len(asked) == 2:
            raise Interrupt

    with pytest.raises(Interrupt):
        touch(pool, Source("b", 2) if kind == "queue" else a, check_interrupted=check)
    a.may_end.set()
    with holder:
        assert audit(pool) == []
    assert audit(pool) == []


def test_a_wait_ends_by_closing(threads):  # I7, I11
    pool, gpu = new_pool(2)
    a, b = Source("a", 2), Source("b", 2)
    with Holder(threads, pool, a):
        future = threads.submit(touch, pool, b)
        until(lambda: waiting(pool) == 1)
        closing = threads.submit(pool.close, LONG_S)
        assert isinstance(future.exception(LONG_S), PoolClosedError)
        assert not closing.done()
    assert closing.result(LONG_S)
    assert (gpu.live_bytes, pool.stats()["models"]) == (0, [])


def test_first_come_first_served(threads):
    pool, _ = new_pool(2)
    order = []

    def ask(name: str) -> None:
        with pool.lease(Source(name, 2), device=GPU):
            order.append(name)

    with Holder(threads, pool, Source("a", 2)):
        futures = []
        for index, name in enumerate("bcdef"):
            futures.append(threads.submit(ask, name))
            until(lambda index=index: waiting(pool) == index + 1)
    for future in futures:
        future.result(LONG_S)
    assert order == list("bcdef")


def test_small_requests_may_pass_a_large_one_only_so_often(threads):  # I8
    pool, _ = new_pool(4)
    small, large = Source("s", 1), Source("large", 3)
    with Holder(threads, pool, Source("a", 2)):
        touch(pool, small)
        waiter = threads.submit(touch, pool, large)
        until(lambda: waiting(pool) == 1)
        for _ in range(BYPASS_LIMIT):
            touch(pool, small, timeout_s=0)
        with pytest.raises(LeaseTimeoutError):
            touch(pool, small, timeout_s=0)
        with pytest.raises(LeaseTimeoutError):
            touch(pool, Source("new", 1), timeout_s=0)
        touch(pool, Source("elsewhere", 1), device=OTHER, timeout_s=0)  # does not compete
    assert waiter.result(LONG_S) == "large"
    assert audit(pool) == []


def test_a_later_request_may_not_evict_past_an_earlier_one(threads):  # I8
    pool, _ = new_pool(4)
    idle = Source("idle", 2)
    with Holder(threads, pool, Source("a", 2)):
        touch(pool, idle)
        waiter = threads.submit(touch, pool, Source("large", 4))
        until(lambda: waiting(pool) == 1)
        with pytest.raises(LeaseTimeoutError):
            touch(pool, Source("new", 2), timeout_s=0)
        assert idle.loads == 1
        touch(pool, idle, timeout_s=0)
    assert waiter.result(LONG_S) == "large"


def test_a_thread_that_holds_a_lease_is_let_past_but_never_waits(threads):  # I7
    pool, _ = new_pool(4)
    small = Source("s", 1)
    touch(pool, small)
    with pool.lease(Source("a", 2), device=GPU):
        waiter = threads.submit(touch, pool, Source("large", 4))
        until(lambda: waiting(pool) == 1)
        for _ in range(BYPASS_LIMIT + 3):
            touch(pool, small)
        with pytest.raises(LeaseNestedError):
            touch(pool, Source("b", 3))
    assert waiter.result(LONG_S) == "large"
    assert audit(pool) == []


def test_a_lost_lease_is_noticed_by_who_waits_for_it(threads):
    pool, _ = new_pool(2)
    leases = [pool.lease(Source("a", 2), device=GPU)]
    elsewhere = threading.Thread(target=leases[0].__enter__)
    elsewhere.start()
    elsewhere.join(LONG_S)
    waiter = threads.submit(touch, pool, Source("b", 2))
    until(lambda: waiting(pool) == 1)
    leases.clear()
    assert waiter.result(LONG_S) == "b"
    assert pool.stats()["counters"]["lost_leases"] == 1


def test_a_larger_budget_lets_waiters_through(threads):
    pool, _ = new_pool(4)
    with Holder(threads, pool, Source("a", 2)):
        waiter = threads.submit(touch, pool, Source("b", 4))
        until(lambda: waiting(pool) == 1)
        pool.set_budget(GPU, 6 * UNIT)
        assert waiter.result(LONG_S) == "b"


def test_a_model_smaller_than_thought_lets_waiters_through(threads):
    pool, _ = new_pool(4)
    a = Source("a", 1, held=True)
    modest, a.weight_bytes = a.weight_bytes, 4 * UNIT
    holder = Holder(threads, pool, a)
    assert a.began.wait(LONG_S)
    waiter = threads.submit(touch, pool, Source("b", 3))
    until(lambda: waiting(pool) == 1)
    a.weight_bytes = modest
    a.may_end.set()
    with holder:
        assert waiter.result(LONG_S) == "b"
    assert audit(pool) == []


def test_opposite_sets_do_not_deadlock(threads):  # I7
    pool, gpu = new_pool(3)
    a, b, c = Source("a"), Source("b"), Source("c", 2)

    def work(seed: int) -> None:
        order = [a, b, c]
        chance = random.Random(seed)
        for _ in range(30):
            chance.shuffle(order)
            touch(pool, *order[:2], timeout_s=LONG_S)

    for future in [threads.submit(work, seed) for seed in range(6)]:
        future.result(LONG_S)
    assert not any(source.overlapped for source in (a, b, c))
    assert gpu.peak_bytes <= 3 * UNIT
    assert audit(pool) == []


@pytest.mark.parametrize("ram", [1000, 4])
def test_eight_threads_over_six_models_with_room_for_three(threads, ram):  # I1, I2, I3, I6
    pool, gpu = new_pool(3, ram)
    models = [Source("m" * (index + 1)) for index in range(6)]
    stop = time.monotonic() + 1.0
    problems: list[str] = []

    def work(seed: int) -> int:
        chance = random.Random(seed)
        done = 0
        while time.monotonic() < stop or done < 20:
            chosen = chance.sample(models, chance.choice((1, 1, 1, 2)))
            working = chance.choice((0, 0, UNIT // 2, UNIT))
            try:
                with pool.lease(chosen, device=GPU, working_bytes=working, timeout_s=LONG_S) as lease:
                    for source, module in zip(chosen, lease.modules, strict=True):
                        if not bool((module.weight == len(source.key)).all()):
                            problems.append(f"{source.key} has other weights")
                    if chance.random() < 0.05:
                        raise Interrupt
                    if chance.random() < 0.1:
                        pool.trim(chance.choice(("vram", "ram")), UNIT)
                    if chance.random() < 0.05:
                        pool.drop(chance.choice(models).key)
                    problems.extend(audit(pool, resting=False))
            except Interrupt:
                pass
            done += 1
        return done

    assert sum(future.result(LONG_S) for future in [threads.submit(work, seed) for seed in range(8)]) >= 160
    assert problems == []
    assert not any(source.overlapped for source in models)
    assert gpu.peak_bytes <= 3 * UNIT, "the memory itself, not the books"
    assert gpu.emptied == 0
    assert audit(pool) == []
    assert pool.close()
    assert gpu.live_bytes == 0


def test_failures_at_random_leave_nothing_behind(threads):  # I6
    pool, gpu = new_pool(3)
    chance = random.Random(7)
    models = [Source("m" * (index + 1)) for index in range(5)]

    def work(seed: int) -> None:
        chance = random.Random(seed)
        for _ in range(60):
            with suppress(OSError, Interrupt, VramError):
                touch(pool, *chance.sample(models, 2), timeout_s=chance.choice((0, 0.01, LONG_S)))
            if chance.random() < 0.2:
                pool.drop(chance.choice(models).key)
            if chance.random() < 0.2:
                chance.choice(models).error = chance.choice((None, None, OSError("bad"), Interrupt()))
            if chance.random() < 0.1:
                gpu.failing_copies = 1
            if chance.random() < 0.1:
                gpu.failing_allocations = chance.choice((1, 2))

    for future in [threads.submit(work, chance.random()) for _ in range(6)]:
        future.result(LONG_S)
    gpu.failing_copies = gpu.failing_allocations = 0
    assert audit(pool) == []
    for source in models:
        source.error = None
        pool.drop(source.key)  # or it would have to wait, if it failed twice in a row
        touch(pool, source, timeout_s=0)
    assert not any(source.overlapped for source in models)
    assert pool.close()
    assert gpu.live_bytes == 0


def test_who_waits_for_a_lease_that_is_lost_while_it_brings_takes_over(threads):  # I7
    pool, _ = new_pool(4)
    a = Source("a")
    lost = pool.lease(a, device=GPU)
    request = Request((a,), pool._ledger(GPU), 0, threading.current_thread())
    pool._await_turn(lost, request, next(pool._tickets), Patience(lost, time.monotonic))  # and then nothing is brought
    future = threads.submit(touch, pool, a)
    until(lambda: pool.stats()["counters"]["joined_loads"] == 1)
    del lost
    assert future.result(LONG_S) == "a"
    assert pool.stats()["counters"]["lost_leases"] == 1
    assert audit(pool) == []


# -- priority ---------------------------------------------------------------------------------------------------------


def order_of_turns(threads, priorities: list[int]) -> list[int]:
    """Queue requests for the whole budget behind a lease, one after another; return the order of their turns."""
    pool, _ = new_pool(1)
    turns: list[int] = []

    def take(number: int) -> None:
        with pool.lease(Source(f"m{number}"), device=GPU, priority=priorities[number]):
            turns.append(number)

    with Holder(threads, pool, Source("first")):
        futures = []
        for number in range(len(priorities)):
            futures.append(threads.submit(take, number))
            until(lambda: waiting(pool) == len(futures))
    for future in futures:
        future.result(LONG_S)
    assert audit(pool) == []
    return turns


def test_a_request_of_higher_priority_goes_first(threads):
    assert order_of_turns(threads, [0, 0, 1, -1, 1]) == [2, 4, 0, 1, 3]


def test_whoever_waits_grows_older_than_any_priority():
    ranks = [
        Waiter(Request((), Ledger(GPU, None, 0), 0, threading.current_thread(), priority), ticket, None).rank
        for ticket, priority in ((0, 0), (15, 1), (16, 1), (17, 1), (40, 2))
    ]
    assert sorted(ranks) == [ranks[1], ranks[0], ranks[2], ranks[3], ranks[4]], "16 requests a step, and no more"


# -- failing again and again ------------------------------------------------------------------------------------------


def test_a_model_that_fails_twice_is_not_tried_again_at_once():
    now = [0.0]
    pool = VramPool(ram_budget_bytes=9 * UNIT, open_device=lambda _: SimulatedDevice(9 * UNIT), clock=lambda: now[0])
    a, b = Source("a"), Source("b")
    a.error = WeightsMissingError("gone")
    waits = []
    for times in range(9):
        with pytest.raises(WeightsMissingError, match="gone"):
            touch(pool, a)
        loads = a.loads
        with pytest.raises(WeightsMissingError, match="gone"):
            touch(pool, b, a)  # with another model, too
        (failed,) = pool.stats()["failed"]
        assert failed["key"] == "a"
        assert a.loads == (loads + 1 if times == 0 else loads), "the second try is free, then it is answered without"
        waits.append(failed["retry_in_s"])
        now[0] += failed["retry_in_s"]
    assert waits == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert pool.stats()["counters"]["refused_loads"] == 8
    a.error = None
    touch(pool, a)
    assert pool.stats()["failed"] == []
    assert audit(pool) == []


def test_running_out_of_memory_is_not_held_against_a_model():
    pool, _ = new_pool(4)
    a = Source("a")
    a.error = MemoryError()
    for _ in range(3):
        with pytest.raises(MemoryError):
            touch(pool, a)
    assert (a.loads, pool.stats()["failed"]) == (3, [])


# -- moments to interrupt ---------------------------------------------------------------------------------------------


def test_a_handler_is_told_when_not_to_interrupt(monkeypatch):
    monkeypatch.delitem(sys.modules, "_photokeep_vram_pool", raising=False)
    assert vram_manager.may_interrupt(), "there is no pool yet"
    pool = vram_manager.shared_pool()
    try:
        assert vram_manager.may_interrupt()
        with pool._lock:
            assert not vram_manager.may_interrupt()
        assert vram_manager.may_interrupt()
    finally:
        pool.close()
        sys.modules.pop("_photokeep_vram_pool", None)


# -- interrupts -------------------------------------------------------------------------------------------------------

_TRACED = (bring, core, engine, lease, relief, weights, vram_manager)


def test_an_interrupt_at_any_line_outside_the_lock_leaves_the_pool_sound():  # I6
    a, b, c = (Source(key) for key in "abc")
    number = 0
    while True:
        number += 1
        pool, gpu = new_pool(2, ram=2)
        seen: list[int] = []
        interrupted = False
        with interrupt_at(number, pool, seen, _TRACED):
            try:
                touch(pool, a, b)
                touch(pool, c, a)
                touch(pool, a, working_bytes=UNIT)
                touch(pool, c, device=CPU)
                pool.drop("c")
                pool.trim("vram", UNIT)
                pool.relieve(GPU)
            except Interrupt:
                interrupted = True
        if not interrupted:
            break
        pool._collect_lost()
        for source in (a, b, c):
            touch(pool, source, timeout_s=1)
        assert audit(pool) == [], f"interrupted at line {seen[-1]}"
        assert pool.close(1), f"interrupted at line {seen[-1]}"
        assert gpu.live_bytes == 0
    assert number > 200


# -- forks ------------------------------------------------------------------------------------------------------------


def in_child(check) -> str:
    """Run ``check`` in a forked child and return what it says."""
    reader, writer = os.pipe()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # Python 3.12 and later warn where torch has threads
        child = os.fork()
    if child == 0:
        answer = "nothing"
        try:
            answer = check()
        except BaseException as error:  # noqa: BLE001 - the child must not go on with the test run
            answer = f"{type(error).__name__}: {error}"
        finally:
            os.write(writer, answer.encode()[:4000])
            os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as pipe:
        answer = pipe.read()
    os.waitpid(child, 0)
    return answer


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_starts_empty_and_refuses_the_parents_device():  # I12
    pool, gpu = new_pool(4)
    a = Source("a")

    def check() -> str:
        if lease.active or pool.stats()["models"] or pool.stats()["tiers"].keys() != {"cpu"}:
            return "the child owns something"
        lease.release()
        touch(pool, a, device=CPU)
        assert a.loads == 2, "loaded anew"
        try:
            touch(pool, a)
        except VramError as error:
            return f"refused: {error.message}"
        return "the device was lent"

    with ExitStack() as stack:
        lease = stack.enter_context(pool.lease(a, device=GPU))
        pool._lock.acquire()  # as if another thread were in the middle of something
        try:
            answer = in_child(check)
        finally:
            pool._lock.release()
        assert answer == "refused: this process was forked from one that used cuda:0, and cannot use it"
        assert lease.active
        assert a.loads == 1
    assert gpu.live_bytes == UNIT
    assert audit(pool) == []


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
def test_a_forked_child_may_use_a_device_its_parent_did_not(monkeypatch):  # I12
    if torch.cuda.is_available():
        pytest.skip("CUDA may be in use in this process")
    pool, _ = new_pool(4)
    monkeypatch.setitem(sys.modules, "_photokeep_vram_pool", None)
    monkeypatch.delitem(sys.modules, "_photokeep_vram_pool")
    shared = vram_manager.shared_pool()
    space = sys.modules["_photokeep_vram_pool"]

    def check() -> str:
        with vram_manager.shared_pool().lease(ModelSource("lin", lambda: nn.Linear(2, 2), 24), device=CPU):
            pass
        return touch(pool, Source("a"))

    with space.lock:
        assert in_child(check) == "a"
    assert shared.close()


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this platform cannot fork")
@pytest.mark.parametrize("busy", [False, True])
def test_a_child_forked_beside_a_plan_and_its_prefetch_starts_clean(busy):  # I12
    pool, gpu = new_pool(4)
    a, b = Source("a"), Source("b", held=True)
    ahead, threads = pool._prefetcher, ThreadPoolExecutor(1)

    def check() -> str:
        if pool._prefetcher.alive or pool.stats()["plans"] or pool.stats()["models"]:
            return "the child owns something"
        plan.__exit__(None, None, None)  # the with statement the child is in; it means nothing here
        b.may_end.set()
        b._busy = threading.Lock()
        own = Source("c")
        with pool.plan("job", [PlanStep((a,), CPU), PlanStep((own,), CPU)]):
            touch(pool, a, device=CPU)
            until(lambda: own.loads == 1)
            touch(pool, own, device=CPU)
        if audit(pool) or not pool.close(LONG_S):
            return "the child's pool is not sound"
        prefetch._stop_all()  # as at the end of the process
        return "clean"

    with pool.plan("job", [PlanStep((a,), GPU), PlanStep((b,), GPU)]) as plan:
        touch(pool, a)
        assert b.began.wait(LONG_S), "the prefetch is in the middle of a load"
        with ExitStack() as stack:
            if busy:  # another thread, which the child does not have, is about to sleep
                threads.submit(ahead._changed.acquire).result(LONG_S)
                stack.callback(lambda: threads.submit(ahead._changed.release).result(LONG_S))
            assert in_child(check) == "clean"
        b.may_end.set()
        touch(pool, b)
    threads.shutdown()
    assert (a.loads, b.loads) == (1, 1)
    assert pool.close(LONG_S)
    assert gpu.live_bytes == 0
