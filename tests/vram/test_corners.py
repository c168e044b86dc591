"""Turns of events that threads seldom meet, brought about by hand: each leaves the pool sound."""

from __future__ import annotations

import os
import threading
from contextlib import contextmanager
from math import inf

import pytest
import torch
from vram_rig import CPU, GPU, OTHER, UNIT, Rig, Source

from photokeep_nodes import vram_manager
from photokeep_nodes._vram import core, device, evict, fork, prefetch
from photokeep_nodes._vram.books import HOST
from photokeep_nodes._vram.queue import Patience
from photokeep_nodes._vram.records import Charge, Departure, Entry, Flight, Request, Resident
from photokeep_nodes._vram.report import readable
from photokeep_nodes._vram.simulated import audit
from photokeep_nodes._vram.weights import Instance, adopt
from photokeep_nodes.errors import DeviceLostError, VramError
from photokeep_nodes.vram_manager import PlanStep

LONG_S = 20.0


def sound(rig: Rig, *sources: Source) -> None:
    """Nothing is left behind, and every model can be had."""
    rig.pool._work_off()
    assert audit(rig.pool) == []
    for source in sources:
        rig.touch(source, timeout_s=LONG_S)
    assert rig.pool.close(LONG_S)
    assert rig.gpu.live_bytes == 0


def granted(rig: Rig, *sources: Source, place: torch.device = GPU):
    """A lease that was admitted, and of which nothing was brought yet."""
    lease = rig.pool.lease(list(sources), device=place)
    request = Request(tuple(sources), rig.pool._ledger(place), 0, threading.current_thread())
    rig.pool._await_turn(lease, request, next(rig.pool._tickets), Patience(lease, rig.pool._clock))
    return lease


# -- bringing ---------------------------------------------------------------------------------------------------------


def test_a_model_that_left_ram_before_it_was_copied_is_asked_for_again(monkeypatch):
    rig, a = Rig(4), Source("a")
    bring_home, calls = rig.pool._bring_home, []

    def not_at_first(*arguments):
        calls.append(arguments)
        if len(calls) > 1:
            bring_home(*arguments)

    monkeypatch.setattr(rig.pool, "_bring_home", not_at_first)
    rig.touch(a)
    assert (len(calls), a.loads) == (2, 1)
    sound(rig, a)


def test_who_comes_to_a_load_that_was_given_up_meanwhile_asks_again(monkeypatch):
    rig, a = Rig(4), Source("a")
    began, failed, fund = threading.Event(), threading.Event(), rig.pool._fund
    load = a.load

    def fails_once():
        if began.is_set():
            return load()
        began.set()
        assert funded.wait(LONG_S)
        raise KeyboardInterrupt  # not a failure of the model's: who waits takes over

    funded = threading.Event()

    def waits(grant):
        fund(grant)
        if grant.ledger.place == OTHER and not failed.is_set():
            funded.set()
            assert failed.wait(LONG_S)

    a.load = fails_once
    monkeypatch.setattr(rig.pool, "_fund", waits)

    def first() -> None:
        with pytest.raises(KeyboardInterrupt):
            rig.touch(a)
        failed.set()

    one, two = threading.Thread(target=first), threading.Thread(target=rig.touch, args=(a,), kwargs={"device": OTHER})
    one.start()
    assert began.wait(LONG_S)
    two.start()
    one.join(LONG_S)
    two.join(LONG_S)
    assert rig.pool.stats()["tiers"]["cuda:1"]["models"] == ["a"]
    sound(rig, a)


def test_a_module_that_comes_home_while_it_is_cloned_makes_the_clone_needless(monkeypatch):
    rig, a = Rig(4), Source("a")
    rig.touch(a)
    clone = rig.pool._clone

    def meanwhile(*arguments):
        twin = clone(*arguments)
        assert rig.pool.trim("vram", UNIT) == UNIT
        return twin

    monkeypatch.setattr(rig.pool, "_clone", meanwhile)
    with rig.pool.lease(a, device=CPU) as lease:
        assert torch.equal(lease.module.weight, a.load().weight)
    sound(rig, a)


def test_an_error_after_the_copy_gives_the_copy_back(monkeypatch):
    rig, a = Rig(4), Source("a")

    def fails(*_):
        raise RuntimeError("the pointers would not turn")

    with monkeypatch.context() as patch:
        patch.setattr(Instance, "point_at", fails)
        with pytest.raises(RuntimeError, match="would not turn"):
            rig.touch(a)
    assert rig.gpu.live_bytes == 0
    assert rig.states() == {"a": "warm"}
    sound(rig, a)


def test_an_error_once_it_landed_leaves_it_where_it_is(monkeypatch):
    rig, a = Rig(4), Source("a")
    land = rig.pool._state.land

    def interrupted(*arguments):
        land(*arguments)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rig.pool._state, "land", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rig.pool._promote(*landing(rig, a))
    sound(rig, a)


def landing(rig: Rig, source: Source):
    """A resident about to be copied, and its master, outside of the books."""
    master, instance = adopt(source.load())
    entry = Entry(source.key, master.n_bytes, master=master)
    resident = Resident(entry, rig.pool._ledger(GPU), Charge(), Flight(rig.pool._lock), instance=instance)
    return resident, master


def test_a_module_that_is_not_there_is_said_so():
    rig, a = Rig(4), Source("a")
    resident, master = landing(rig, a)
    resident.instance = None
    with pytest.raises(VramError, match="a has no module to promote"):
        rig.pool._promote(resident, master)
    with pytest.raises(VramError, match="the pool lost the module of a"):
        rig.pool._state.take_instance(resident)
    sound(rig, a)


# -- admitting, funding, evicting -------------------------------------------------------------------------------------


def test_an_interrupt_in_the_middle_of_admitting_is_undone(monkeypatch):
    rig, a, b = Rig(4), Source("a"), Source("b")
    begin, calls = rig.pool._state._begin_arrival, []

    def second_time(grant, entry):
        calls.append(entry)
        if len(calls) == 2:
            raise KeyboardInterrupt
        return begin(grant, entry)

    with monkeypatch.context() as patch:
        patch.setattr(rig.pool._state, "_begin_arrival", second_time)
        with pytest.raises(KeyboardInterrupt):
            rig.touch(a, b)
    rig.pool._state.entries.pop("b", None)  # named, and nothing else
    sound(rig, a, b)


def test_a_grant_may_be_taken_back_twice():
    rig, a = Rig(4), Source("a")
    lease = granted(rig, a)
    for _ in range(2):
        with rig.pool._lock:
            rig.pool._state.release(lease._grant)
    sound(rig, a)


def test_a_released_lease_that_was_also_lost_counts_once():
    rig, a = Rig(4), Source("a")
    with rig.pool.lease(a, device=GPU) as lease:
        grant = lease._grant
    rig.pool._lost.append(grant)
    rig.pool._collect_lost()
    assert (rig.lost_leases, rig.double_releases) == (0, 0)
    sound(rig, a)


def test_bytes_that_an_eviction_frees_while_one_waits_for_them_are_taken(monkeypatch):
    rig, a, b = Rig(1), Source("a"), Source("b")
    rig.touch(a)
    fund, calls = rig.pool._state.fund, []

    def too_early(grant):
        calls.append(grant)
        if len(calls) == 1:
            entry = rig.pool._state.entries["a"]
            entry.surplus += 1
            _, spare = adopt(a.load())
            rig.pool._state.departures.append(Departure(entry, surplus=spare))
            return False
        return fund(grant)

    monkeypatch.setattr(rig.pool._state, "fund", too_early)
    rig.touch(b)
    assert len(calls) > 1
    sound(rig, a, b)


def test_who_needs_what_is_just_leaving_waits_for_it(monkeypatch):
    rig, a, b = Rig(4, ram=1), Source("a"), Source("b")
    rig.touch(a)
    carry_out, leaving, go = core.carry_out, threading.Event(), threading.Event()

    def slowly(*arguments):
        leaving.set()
        assert go.wait(LONG_S)
        carry_out(*arguments)

    monkeypatch.setattr(core, "carry_out", slowly)
    trimming = threading.Thread(target=rig.pool.trim, args=("vram", UNIT))
    trimming.start()
    assert leaving.wait(LONG_S)
    touching = threading.Thread(target=rig.touch, args=(b,))
    touching.start()
    while not rig.pool._queue.waiters:  # RAM has to let go of a, which is on its way home
        assert touching.is_alive()
    go.set()
    for thread in (trimming, touching):
        thread.join(LONG_S)
    assert rig.states() == {"b": "hot"}
    sound(rig, b)


def test_an_eviction_that_was_interrupted_is_done_by_whoever_comes_by(monkeypatch):
    rig, a, b = Rig(1), Source("a"), Source("b")
    rig.touch(a)

    def interrupted(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(core, "carry_out", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rig.pool.trim("vram", UNIT)
    assert rig.states() == {"a": "demoting"}
    rig.touch(b)
    assert rig.states() == {"a": "warm", "b": "hot"}
    sound(rig, a, b)


def test_an_interrupt_right_after_an_eviction_does_not_repeat_it(monkeypatch):
    rig, a = Rig(4), Source("a")
    rig.touch(a)

    def interrupted():
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(rig.pool._queue, "advance", interrupted)
        with pytest.raises(KeyboardInterrupt):
            rig.pool.trim("vram", UNIT)
    assert not rig.pool._state.departures
    assert rig.states() == {"a": "warm"}
    sound(rig, a)


def test_an_eviction_may_be_carried_out_twice_and_of_what_is_not_there():
    rig, a = Rig(4), Source("a")
    ledger, ram = rig.pool._ledger(GPU), rig.pool._state.ram
    empty = Entry("empty", 0)
    evict.carry_out(Departure(empty), ram)
    for place in (ledger, ram):
        evict.carry_out(Departure(empty, Resident(empty, place, Charge(), Flight(rig.pool._lock))), ram)
    rig.touch(a)
    state, entry = rig.pool._state, rig.pool._state.entries["a"]
    with rig.pool._lock:
        state.finish_departure(Departure(entry))  # it was not leaving
        resident = entry.residents[ledger]
        state.evict(resident)
    departure = state.departures[-1]
    evict.carry_out(departure, ram)
    rig.pool._work_off()
    with rig.pool._lock:
        state._remove(resident)
        warm = entry.residents[ram]
        state._keep_warm(entry, warm.instance)
    assert not state.departures
    sound(rig, a)


def test_a_flight_ends_once():
    rig = Rig(4)
    flight = Flight(rig.pool._lock)
    with rig.pool._lock:
        flight.finish(abandoned=True)
        flight.finish(OSError("late"))
    assert (flight.done, flight.abandoned, flight.error) == (True, True, None)


def test_of_a_place_the_pool_does_not_know_there_is_nothing_to_say():
    assert readable(Rig(4).pool.stats(), "cuda:7") == ""


# -- strangers' code --------------------------------------------------------------------------------------------------


class Odd:
    """A policy that answers whatever it was given to answer."""

    def __init__(self, answer) -> None:
        self.answer = answer

    def choose(self, candidates, need_bytes, outlook):
        return self.answer(candidates)


@pytest.mark.parametrize(
    "answer",
    [lambda each: 1 / 0, lambda each: None, lambda each: [[]], lambda each: each[:0], lambda each: ["a", "b"]],
)
def test_a_policy_that_fails_gives_way_to_the_least_recently_used(answer):
    rig, a, b, c = Rig(2, policy=Odd(answer)), Source("a"), Source("b"), Source("c")
    for source in (a, b, c):
        rig.touch(source)
    assert rig.states() == {"a": "warm", "b": "hot", "c": "hot"}
    assert rig.policy_faults == 1
    sound(rig, a, b, c)


def test_a_fault_while_one_waits_is_told_to_who_waits_and_to_nobody_else(monkeypatch):
    rig, a, b = Rig(1), Source("a"), Source("b")
    told: list[BaseException] = []

    def wait() -> None:
        try:
            rig.touch(b, timeout_s=LONG_S)
        except ZeroDivisionError as error:
            told.append(error)

    with rig.pool.lease(a, device=GPU):
        waiter = threading.Thread(target=wait)
        waiter.start()
        while not rig.pool._queue.waiters:
            pass
        monkeypatch.setattr(rig.pool._queue, "_needs", lambda _request: 1 / 0)
    waiter.join(LONG_S)
    monkeypatch.undo()
    assert len(told) == 1
    sound(rig, a, b)


def test_a_loader_that_leases_what_it_loads_is_told_so():
    rig, a = Rig(4), Source("a")
    load = a.load

    def leases_itself():
        a.load = load
        rig.touch(a)

    a.load = leases_itself
    with pytest.raises(VramError, match="a is leased by the code that loads it"):
        rig.touch(a)
    sound(rig, a)


def test_a_loader_that_returns_no_module_is_said_so():
    rig, a = Rig(4), Source("a")
    load = a.load
    a.load = lambda: None
    with pytest.raises(VramError, match="loader returned NoneType, not a module"):
        rig.touch(a)
    a.load = load
    sound(rig, a)


def test_an_interrupt_inside_a_load_ahead_does_not_end_the_others():
    rig, a, b = Rig(4), Source("a"), Source("b")
    a.error = KeyboardInterrupt()
    with rig.pool.no_prefetch(), rig.pool.plan("job", [PlanStep((a, b), GPU)]):
        assert rig.pool._bring_foreseen()
    assert rig.states() == {"b": "hot"}
    a.error = None
    sound(rig, a, b)


# -- what is on its way when it is dropped ----------------------------------------------------------------------------


@pytest.mark.parametrize("how", ["drop", "close"])
def test_a_model_dropped_while_its_fellow_still_loads_is_handed_out_no_more(how):
    rig, a, b = Rig(4), Source("a"), Source("b")
    load_a, load_b, refused = a.load, b.load, []

    def dropped():
        rig.pool.drop("a") if how == "drop" else rig.pool.close(0)
        a.load = load_a
        return load_a()

    def meanwhile():
        try:
            rig.touch(a, timeout_s=0)
        except VramError as error:
            refused.append(type(error).__name__)
        return load_b()

    a.load, b.load = dropped, meanwhile
    thread = threading.Thread(target=rig.touch, args=(a, b))
    thread.start()
    thread.join(LONG_S)
    assert refused == {"drop": ["LeaseTimeoutError"], "close": ["PoolClosedError"]}[how]
    if how == "drop":
        rig.touch(a)
        assert a.loads == 2, "loaded anew"
        sound(rig, a)
    assert rig.pool.close(LONG_S)
    assert rig.gpu.live_bytes == 0


# -- requests that make no sense --------------------------------------------------------------------------------------


def test_what_makes_no_sense_is_refused_by_name():
    rig, a = Rig(4), Source("a")
    for nonsense, said in (
        (lambda: rig.pool.lease("a"), "at least one ModelSource"),
        (lambda: rig.pool.trim("gpu", 1), "no tier 'gpu'"),
        (lambda: rig.pool.set_budget(GPU, -1), "budget of -1 bytes"),
        (lambda: rig.pool.run(lambda _device: a, lambda _lease, _tile: None, tiles=()), "no tile to try"),
    ):
        with pytest.raises(VramError, match=said):
            nonsense()
    rig.pool._open_device = lambda _place: (_ for _ in ()).throw(ValueError("meta has no index"))
    with pytest.raises(VramError, match="meta:0 cannot be used"):
        rig.touch(a, device=torch.device("meta"))


# -- devices that failed ----------------------------------------------------------------------------------------------


def test_the_ladder_steps_over_a_device_that_failed_earlier():
    rig, a = Rig(4, accelerators=[GPU, OTHER]), Source("a")
    rig.pool.fence(GPU, "gone")

    def run(**options):
        return rig.pool.run(lambda _device: [a], lambda lease, _tile: str(lease.place), **options)

    assert run(devices=[GPU, OTHER]) == "cuda:1"
    rig.pool.fence(OTHER, "gone too")
    assert run() == "cpu", "no accelerator is left"
    with pytest.raises(DeviceLostError, match="every device failed"):
        run(devices=[GPU])


def test_nothing_is_copied_ahead_to_a_device_that_failed():
    rig, a = Rig(4), Source("a")
    rig.pool.fence(GPU, "gone")
    with rig.pool.no_prefetch(), rig.pool.plan("job", [PlanStep((a,), GPU)]) as plan:
        assert rig.pool._bring_foreseen()
        assert rig.states() == {"a": "warm"}
        plan.reach(1)
        assert plan.next_use("a") == inf


# -- forks ------------------------------------------------------------------------------------------------------------


def test_a_pool_that_finds_itself_in_a_child_begins_anew():  # I12
    rig, a = Rig(4), Source("a")
    with rig.pool.lease(a, device=GPU) as lease:
        rig.pool._forked(cuda_was_live=True)
        assert not lease.active
    assert rig.pool.stats()["models"] == []
    with pytest.raises(VramError, match="forked from one that used cuda:0"):
        rig.touch(a)
    rig.touch(a, device=CPU)
    assert rig.pool.close()


@contextmanager
def own_shared_pool(monkeypatch):
    monkeypatch.setitem(vram_manager.sys.modules, vram_manager._SHARED_KEY, None)
    monkeypatch.delitem(vram_manager.sys.modules, vram_manager._SHARED_KEY)
    pool = vram_manager.shared_pool()
    yield pool, vram_manager.sys.modules[vram_manager._SHARED_KEY]
    pool.close()


def test_the_shared_pools_own_lock_is_new_in_a_child(monkeypatch):  # I12
    with own_shared_pool(monkeypatch) as (pool, space):
        before = space.lock
        other = Rig(4).pool
        monkeypatch.setattr(fork, "_watched", {pool, other})
        monkeypatch.setattr(fork, "_cuda_was_live", [False])
        fork._in_child()
        assert space.lock is not before
        assert "cuda" not in pool._refused_types


def test_a_child_does_not_stop_its_parents_threads(monkeypatch):
    prefetcher = prefetch.Prefetcher(lambda: False, lambda: True)
    monkeypatch.setattr(prefetch, "_all", {prefetcher})
    prefetcher.wake()
    monkeypatch.setattr(prefetcher, "_process", os.getpid() + 1)
    prefetch._stop_all()
    assert prefetcher.alive
    monkeypatch.setattr(prefetcher, "_process", os.getpid())
    prefetch._stop_all()
    assert not prefetcher.alive


# -- tensors that cannot be moved -------------------------------------------------------------------------------------


class Wrapper(torch.Tensor):
    """A tensor without memory of its own, as quantisation libraries make them."""

    @staticmethod
    def __new__(cls):
        return torch.Tensor._make_wrapper_subclass(cls, (2,))

    @classmethod
    def __torch_dispatch__(cls, function, types, arguments=(), options=None):
        raise NotImplementedError(function)


def test_a_tensor_without_memory_of_its_own_is_refused():
    module = torch.nn.Module()
    module.register_buffer("odd", Wrapper())
    with pytest.raises(VramError, match=r"cannot move tensor 'odd' of Module: it has no storage of its own"):
        adopt(module)


# -- torch's own devices, as far as that can be seen without one ------------------------------------------------------


class Journal:
    """Stands for torch.cuda's streams and events, and writes down what is asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.lines: list[str] = []
        self.streams = [self.stream(number) for number in (0, 1)]
        self.current = self.streams[0]
        monkeypatch.setattr(torch.cuda, "Stream", lambda _device: self.stream(9))
        monkeypatch.setattr(torch.cuda, "stream", self.on)
        monkeypatch.setattr(torch.cuda, "current_stream", lambda _device: self.current)
        monkeypatch.setattr(torch.cuda, "Event", self.event)
        monkeypatch.setattr(torch.accelerator, "synchronize", lambda _device: self.lines.append("wait for all"))
        monkeypatch.setattr(torch.accelerator, "empty_cache", lambda: self.lines.append("empty"))

    def stream(self, number: int):
        journal = self

        class Stream:
            stream_id = number

            def synchronize(self) -> None:
                journal.lines.append(f"wait for {number}")

        return Stream()

    @contextmanager
    def on(self, stream):
        self.lines.append(f"on {stream.stream_id}")
        yield
        self.lines.append(f"off {stream.stream_id}")

    def event(self):
        journal = self

        class Event:
            def record(self, stream) -> None:
                self.stream = stream.stream_id
                journal.lines.append(f"mark {self.stream}")

            def synchronize(self) -> None:
                journal.lines.append(f"wait for mark {self.stream}")

        return Event()

    def take(self) -> list[str]:
        taken, self.lines = self.lines, []
        return taken


def on_the_cpu(place: torch.device) -> device.TorchDevice:
    made = device.TorchDevice(place)
    made._device = HOST  # where tensors can really be
    return made


def test_weights_go_up_on_a_stream_of_their_own_and_are_waited_for_once(monkeypatch):
    journal = Journal(monkeypatch)
    card = on_the_cpu(GPU)
    assert card.device == HOST
    source = torch.arange(4, dtype=torch.uint8).untyped_storage()
    target = card.allocate(4)
    card.copy(source, target)
    assert journal.take() == ["on 9", "off 9", "on 9", "off 9"]
    assert list(target) == [0, 1, 2, 3]
    card.finish_copies()
    assert journal.take() == ["wait for 9"]
    kept = [target]
    card.free(kept)
    assert kept == []
    card.empty_cache()
    assert journal.take() == ["empty"]


def test_work_that_cannot_be_marked_is_waited_for(monkeypatch):
    journal = Journal(monkeypatch)
    card = on_the_cpu(GPU)

    def refuses():
        raise RuntimeError("CUDA error: out of memory")

    monkeypatch.setattr(torch.cuda, "Event", refuses)
    assert card.mark(None) == {}
    assert journal.take() == ["wait for 0"]


def test_an_eviction_waits_for_one_mark_of_each_stream(monkeypatch):
    journal = Journal(monkeypatch)
    card = on_the_cpu(GPU)
    marks = card.mark(None)
    marks = card.mark(marks)
    journal.current = journal.streams[1]
    marks = card.mark(marks)
    assert journal.take() == ["mark 0", "mark 0", "mark 1"]
    card.wait_for(marks)
    assert journal.take() == ["wait for mark 0", "wait for mark 1"]
    card.wait_for(None)
    assert journal.take() == []


def test_without_streams_everything_is_waited_for(monkeypatch):
    journal = Journal(monkeypatch)
    card = on_the_cpu(torch.device("mps"))
    card.copy(torch.zeros(4, dtype=torch.uint8).untyped_storage(), card.allocate(4))
    card.finish_copies()
    assert card.mark(None) is None
    card.wait_for(None)
    assert journal.take() == ["wait for all", "wait for all"]


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory"), torch.OutOfMemoryError),
        (RuntimeError("MPS backend out of memory"), torch.OutOfMemoryError),
        (RuntimeError("no such device"), RuntimeError),
    ],
)
def test_an_allocators_refusal_has_one_type(monkeypatch, error, expected):
    card = on_the_cpu(torch.device("mps"))

    def refuses(*_, **__):
        raise error

    monkeypatch.setattr(torch, "empty", refuses)
    with pytest.raises(RuntimeError) as caught:
        card.allocate(4)
    assert type(caught.value) is expected
