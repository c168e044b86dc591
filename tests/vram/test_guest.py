"""The pool beside a host that manages the same accelerator: seats, recalls, and threads that may not call."""

from __future__ import annotations

import threading
import time
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch
from line_interrupts import Interrupt, interrupt_at
from torch import nn

from photokeep_nodes._vram import device as vram_device
from photokeep_nodes._vram import engine, guest
from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.vram_manager import ModelSource, PlanStep, VramPool

GPU = torch.device("cuda", 0)
CPU = torch.device("cpu")
UNIT = 1024


class Seat:
    def __init__(self, host, key, n_bytes, recall):
        self.host, self.key, self.units, self.recall = host, key, n_bytes // UNIT, recall
        self.left = False

    def leave(self):
        assert not self.left
        self.left = True
        self.host.seats.remove(self)


class Host:
    """Another program's list of loaded models, which it may clear."""

    def __init__(self, gpu):
        self.gpu = gpu
        self.seats = []
        self.calls = []
        self.thread = threading.current_thread()
        self.during = lambda: None
        self.place = GPU

    def manages(self, place):
        return place == self.place

    def may_call_here(self):
        return threading.current_thread() is self.thread

    def seat(self, key, n_bytes, recall):
        self.seats.append(Seat(self, key, n_bytes, recall))
        return self.seats[-1]

    def admit(self, place, seats, n_bytes):
        assert self.may_call_here()
        self.calls.append((str(place), [each.key for each in seats], n_bytes // UNIT, self.gpu.live_bytes // UNIT))
        self.during()

    def free(self, *keys):
        for seat in [each for each in self.seats if each.key in keys]:
            self.seats.remove(seat)
            seat.recall()

    def known(self):
        return {seat.key: seat.units for seat in self.seats}


class Rig:
    """A pool that is a guest, with models of as many units as their name has letters."""

    def __init__(self, vram=100, ram=100):
        self.gpu = SimulatedDevice(1000 * UNIT)
        self.host = Host(self.gpu)
        self.loads = []
        self.pool = VramPool(
            vram_budgets={GPU: vram * UNIT},
            ram_budget_bytes=ram * UNIT,
            open_device={GPU: self.gpu}.__getitem__,
            host_memory=self.host,
        )

    def source(self, key, estimate=None):
        def load():
            self.loads.append(key)
            generator = torch.Generator().manual_seed(sum(map(ord, key)))
            module = nn.Module()
            module.weight = nn.Parameter(torch.rand(len(key), UNIT // 4, generator=generator))
            return module.eval()

        return ModelSource(key, load, (len(key) if estimate is None else estimate) * UNIT)

    def lease(self, *keys, device=GPU, **options):
        return self.pool.lease([self.source(key) for key in keys], device=device, **options)

    def touch(self, *keys, **options):
        with self.lease(*keys, **options):
            pass

    def in_thread(self, function, *arguments):
        thread = threading.Thread(target=function, args=arguments)
        thread.start()
        thread.join()

    def states(self):
        return {model["key"]: model["state"] for model in self.pool.stats()["models"]}

    def agree(self):
        """What the host counts is what lies there, and the books are right."""
        assert audit(self.pool) == []
        assert sum(self.host.known().values()) * UNIT == self.gpu.live_bytes
        return True


@pytest.fixture(autouse=True)
def enough_ram(monkeypatch):
    monkeypatch.setattr(guest, "ram_shortfall_bytes", lambda: -1)


# -- taking seats -----------------------------------------------------------------------------------------------------


def test_the_host_is_told_before_new_bytes_are_used():
    rig = Rig()
    rig.touch("aa", working_bytes=3 * UNIT)
    rig.touch("aa")
    rig.touch("aa", working_bytes=UNIT)
    rig.touch("aa", "b")
    rig.touch("aa", device=CPU)
    assert rig.host.calls == [
        ("cuda:0", ["aa"], 3, 0),
        ("cuda:0", ["aa"], 1, 2),
        ("cuda:0", ["aa", "b"], 0, 2),
    ]
    assert rig.host.known() == {"aa": 2, "b": 1}
    assert rig.agree()


def test_a_seat_has_the_real_size():
    rig = Rig()
    with rig.pool.lease(rig.source("aaaa", estimate=1), device=GPU):
        assert rig.host.known() == {"aaaa": 4}
    assert rig.agree()


def test_what_is_leased_is_named_with_what_comes():
    """A host that makes room for one model must not take another one's that is in use."""
    rig = Rig()
    rig.touch("ccc")
    with rig.lease("aa"), rig.lease("b", working_bytes=UNIT):
        assert rig.host.calls[-1] == ("cuda:0", ["aa", "b"], 1, 5)
    assert rig.agree()


def test_a_lease_that_brings_nothing_but_had_to_wait_asks_for_its_working_bytes():
    rig = Rig(vram=4)
    rig.touch("aa")
    rig.touch("b")
    rig.touch("b", working_bytes=2 * UNIT)  # takes the slow way: the other one has to leave first
    assert rig.host.calls[-1] == ("cuda:0", ["b"], 2, 1)
    assert rig.states() == {"aa": "warm", "b": "hot"}
    assert rig.agree()


def test_memory_that_is_not_there_is_asked_for_once_more():
    rig = Rig()
    rig.touch("aa")
    rig.gpu.failing_allocations = 1
    rig.touch("bbb")
    assert rig.host.calls[1:] == [("cuda:0", ["bbb"], 0, 2), ("cuda:0", ["bbb"], 3, 0)]
    assert rig.agree()


def test_a_host_that_interrupts_leaves_nothing_behind():
    rig = Rig()
    rig.touch("a")

    def interrupt():
        raise Interrupt

    rig.host.during = interrupt
    for key in ("a", "bb"):  # on the quick path, and on the other
        with pytest.raises(Interrupt):
            rig.touch(key, working_bytes=UNIT)
    assert rig.states() == {"a": "hot", "bb": "warm"}
    assert rig.agree()


def test_a_host_gives_up_what_is_idle_when_a_call_ran_out_of_memory():
    rig = Rig()
    rig.touch("aa")
    rig.touch("b")
    rig.host.during = lambda: rig.host.free("b")
    rig.pool.relieve(GPU, keep=["aa"])
    assert rig.host.calls[-1][:3] == ("cuda:0", ["aa"], 100)
    assert rig.states() == {"aa": "hot", "b": "warm"}
    assert rig.agree()


def test_what_is_brought_ahead_of_its_use_stays_off_the_hosts_device():
    rig = Rig()
    with rig.pool.plan("job", [PlanStep((rig.source("aa"),), GPU)]):
        deadline = time.monotonic() + 20
        while rig.states() != {"aa": "warm"}:
            assert time.monotonic() < deadline, rig.states()
            time.sleep(0.01)
        rig.touch("b")
    assert rig.host.known() == {"b": 1}
    assert rig.gpu.bytes_copied == UNIT
    assert rig.agree()


def test_a_seat_the_host_never_heard_of_is_taken_anew():
    rig = Rig()
    rig.in_thread(lambda: rig.touch("a"))

    def interrupt():
        raise Interrupt

    rig.host.during = interrupt
    with pytest.raises(Interrupt):
        rig.touch("a")
    rig.host.during = lambda: None
    rig.touch("a")
    assert [call[1] for call in rig.host.calls] == [["a"], ["a"]]
    assert rig.agree()


def test_an_interrupt_at_any_line_outside_the_lock_leaves_the_books_right():
    number, interrupted = 0, True
    while interrupted:
        number += 1
        rig = Rig(vram=4)
        seen = []

        # A recall that has not begun is the host's to repeat.
        spared = "pool._state is not state"
        with suppress(Interrupt):
            with interrupt_at(number, rig.pool, seen, (guest, engine), spared):
                rig.touch("aa")
                rig.host.during = lambda rig=rig: rig.host.free("aa")
                rig.touch("b", working_bytes=UNIT)
                with rig.lease("b"):
                    rig.host.free("b")
                    rig.touch("b")
                rig.host.free("b")
            interrupted = False
        rig.host.during = lambda: None
        for key in ("aa", "b"):
            rig.touch(key, working_bytes=UNIT, timeout_s=1)
        assert rig.agree(), f"interrupted at line {seen[-1]}"
        assert rig.pool.close(1)
        assert (rig.gpu.live_bytes, rig.host.known()) == (0, {}), f"interrupted at line {seen[-1]}"
    assert number > 100


def test_a_failed_copy_gives_the_seat_back():
    rig = Rig()
    rig.gpu.failing_copies = 1
    with pytest.raises(Exception, match="could not be copied"):
        rig.touch("aa")
    assert rig.host.known() == {}
    assert rig.agree()


# -- giving them up ---------------------------------------------------------------------------------------------------


def test_what_the_pool_evicts_leaves_the_hosts_list():
    rig = Rig(vram=3)
    rig.touch("aa")
    rig.touch("bb")
    assert rig.host.known() == {"bb": 2}
    rig.pool.trim("vram", UNIT)
    assert rig.host.known() == {}
    rig.touch("a")
    rig.pool.drop("a")
    assert rig.host.known() == {}
    assert rig.agree()
    rig.touch("a")
    assert rig.pool.close(1)
    assert rig.host.known() == {}


def test_an_idle_model_leaves_when_it_is_recalled():
    rig = Rig()
    rig.touch("aa", "b")
    rig.host.free("aa")
    assert rig.gpu.live_bytes == UNIT, "free when the recall returns"
    assert rig.states() == {"aa": "warm", "b": "hot"}
    assert rig.agree()
    copied = rig.gpu.bytes_copied
    with rig.lease("aa") as lease:
        assert torch.equal(lease.module.weight, rig.source("aa").load().weight)
    assert rig.gpu.bytes_copied - copied == 2 * UNIT
    assert rig.loads == ["aa", "b", "aa"]  # the last of them is this test's own
    assert rig.pool.stats()["counters"]["recalls"] == 1
    assert rig.agree()


def test_a_leased_model_stays_and_leaves_at_its_last_release():
    rig = Rig()
    with rig.lease("aa") as first, rig.lease("aa") as second:
        rig.host.free("aa")
        first.release()
        assert second.module.weight.numel(), "still usable"
        assert rig.gpu.live_bytes == 2 * UNIT
    assert rig.states() == {"aa": "warm"}
    assert rig.agree()


@pytest.mark.parametrize("working_bytes", [0, UNIT])
def test_a_leased_model_that_was_recalled_takes_a_new_seat(working_bytes):
    rig = Rig()
    with rig.lease("aa"):
        rig.host.free("aa")
        assert rig.host.known() == {}
        with rig.lease("aa", working_bytes=working_bytes):
            assert rig.host.known() == {"aa": 2}
    assert rig.states() == {"aa": "hot"}, "it was wanted again"
    assert rig.agree()


def test_a_model_recalled_on_its_way_leaves_when_its_lease_ends():
    rig = Rig()
    rig.host.during = lambda: rig.host.free("aa")
    with rig.lease("aa") as lease:
        assert lease.module.weight.numel()
    assert rig.states() == {"aa": "warm"}
    assert rig.agree()


def test_a_dropped_model_may_be_recalled_while_it_is_leased():
    rig = Rig()
    with rig.lease("aa"):
        rig.pool.drop("aa")
        rig.host.free("aa")
    assert rig.states() == {}
    assert rig.agree()


def test_room_the_host_makes_for_one_of_ours_may_be_anothers():
    rig = Rig()
    rig.touch("aaa")
    rig.host.during = lambda: rig.host.free("aaa")
    rig.touch("bb")
    assert rig.states() == {"aaa": "warm", "bb": "hot"}
    assert rig.host.calls[-1] == ("cuda:0", ["bb"], 0, 3)
    assert rig.agree()


@pytest.mark.parametrize(("shortfall", "left"), [(0, {"aa", "b", "ccc"}), (3, {"aa", "b"}), (100, {"b"})])
def test_a_recall_while_ram_is_short_sheds_idle_copies(monkeypatch, shortfall, left):
    rig = Rig()
    monkeypatch.setattr(guest, "ram_shortfall_bytes", lambda: shortfall * UNIT)
    with rig.lease("b", device=CPU):
        rig.touch("ccc", device=CPU)
        rig.touch("aa")
        rig.host.free("aa")
        assert set(rig.states()) == left
    assert rig.agree()


def test_ram_is_short_below_a_tenth_or_a_few_gigabytes(monkeypatch):
    memory = SimpleNamespace(total=100 * 2**30, available=5 * 2**30)
    monkeypatch.setattr(vram_device.psutil, "virtual_memory", lambda: memory)
    assert vram_device.ram_shortfall_bytes() == -(2**30)
    memory.available = 2**30
    assert vram_device.ram_shortfall_bytes() == 3 * 2**30
    memory.total, memory.available = 10 * 2**30, 2**29
    assert vram_device.ram_shortfall_bytes() == 2**29


# -- a host without an accelerator -------------------------------------------------------------------------------------


@pytest.fixture
def on_cpu():
    rig = Rig()
    rig.host.place = CPU
    return rig


def test_a_host_on_the_cpu_lists_the_models_in_ram(on_cpu):
    on_cpu.touch("aa", device=CPU)
    assert on_cpu.host.known() == {"aa": 2}
    on_cpu.touch("aa", "b", device=CPU, working_bytes=3 * UNIT)
    assert on_cpu.host.calls == [("cpu", ["aa"], 0, 0), ("cpu", ["aa", "b"], 3, 0)]
    on_cpu.touch("b", device=CPU)
    assert len(on_cpu.host.calls) == 2, "nothing new"


def test_a_host_on_the_cpu_takes_idle_models_from_ram(on_cpu):
    on_cpu.touch("aa", "b", device=CPU)
    on_cpu.host.free("aa", "b")
    assert on_cpu.states() == {}
    assert on_cpu.pool.stats()["tiers"]["cpu"]["used_bytes"] == 0
    on_cpu.touch("aa", device=CPU)
    assert on_cpu.loads == ["aa", "b", "aa"]
    assert on_cpu.host.known() == {"aa": 2}
    assert audit(on_cpu.pool) == []


def test_a_host_on_the_cpu_takes_a_leased_model_when_its_lease_ends(on_cpu):
    with on_cpu.lease("aa", device=CPU) as lease:
        on_cpu.host.free("aa")
        assert lease.modules[0].weight.numel(), "still usable"
    assert on_cpu.states() == {}
    with on_cpu.lease("aa", device=CPU):
        on_cpu.host.free("aa")
        on_cpu.touch("aa", device=CPU)
        assert on_cpu.host.known() == {"aa": 2}, "wanted again"
    assert on_cpu.states() == {"aa": "warm"}
    assert audit(on_cpu.pool) == []


def test_a_model_that_moves_to_an_accelerator_is_no_longer_the_cpus(on_cpu):
    on_cpu.touch("aa", device=CPU)
    on_cpu.touch("aa")
    assert on_cpu.host.known() == {}
    on_cpu.touch("b", device=CPU)
    on_cpu.pool.trim("ram", 100 * UNIT)
    assert on_cpu.host.known() == {}
    assert audit(on_cpu.pool) == []


# -- other threads ----------------------------------------------------------------------------------------------------


def test_another_thread_takes_no_seat_until_one_that_may_comes_by():
    rig = Rig()
    rig.in_thread(lambda: rig.touch("aa", working_bytes=UNIT))
    assert (rig.host.calls, rig.host.known()) == ([], {})
    assert rig.states() == {"aa": "hot"}
    rig.touch("b")
    assert rig.host.known() == {"aa": 2, "b": 1}
    assert rig.agree()


def test_a_recall_may_come_from_any_thread():
    rig = Rig()
    rig.touch("aa")
    rig.in_thread(rig.host.free, "aa")
    assert rig.states() == {"aa": "warm"}
    assert rig.agree()


def test_a_recall_meets_a_pool_that_was_forked():
    """In the child the list of loaded models is the parent's, and so is the memory."""
    rig = Rig()
    rig.touch("aa")
    rig.pool._forked(cuda_was_live=False)
    rig.host.free("aa")
    assert rig.gpu.live_bytes == 2 * UNIT
    assert rig.pool.stats()["counters"]["recalls"] == 0


def test_recalls_race_with_leases():
    rig = Rig(vram=8)
    stop = threading.Event()
    wrong = []

    def work(seed):
        keys = ["a", "bb", "ccc"]
        for turn in range(150):
            key = keys[(seed + turn) % 3]
            with rig.lease(key, working_bytes=UNIT) as lease:
                if not torch.equal(lease.modules[0].weight, expected[key]):
                    wrong.append(key)

    def recall():
        while not stop.is_set():
            for seat in tuple(rig.host.seats):
                if seat in rig.host.seats and not seat.left:
                    seat.left = True
                    rig.host.seats.remove(seat)
                    seat.recall()

    expected = {key: rig.source(key).load().weight for key in ("a", "bb", "ccc")}
    rig.host.may_call_here = lambda: threading.current_thread().name == "may call"
    Seat.leave, kept = lambda self: None, Seat.leave  # the bookkeeping above has no lock, the real one's is a deque
    try:
        threads = [threading.Thread(target=work, args=(seed,)) for seed in range(2)]
        threads += [threading.Thread(target=work, args=(2,), name="may call")]
        spoiler = threading.Thread(target=recall)
        for thread in (spoiler, *threads):
            thread.start()
        for thread in threads:
            thread.join(60)
        stop.set()
        spoiler.join(60)
    finally:
        Seat.leave = kept
    assert wrong == []
    assert audit(rig.pool) == []
    assert rig.pool.stats()["counters"]["cold_loads"] == 3
