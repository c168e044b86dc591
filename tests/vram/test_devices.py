"""Several accelerators, one that fails, and what other processes take of one."""

from __future__ import annotations

import gc
import threading
import time

import pytest
import torch
from vram_rig import CPU, GPU, OTHER, UNIT, Rig, Source

from photokeep_nodes._vram import device as vram_device
from photokeep_nodes._vram.simulated import audit
from photokeep_nodes.errors import DeviceLostError, VramError, VramExhaustedError
from photokeep_nodes.vram_manager import VramPool

LONG_S = 20.0


# -- placement --------------------------------------------------------------------------------------------------------


def two(vram: int = 4, **options) -> Rig:
    return Rig(vram, accelerators=[GPU, OTHER], **options)


def test_with_nothing_anywhere_the_first_is_taken():
    assert two().pool.place([Source("a")]) == GPU


def test_a_model_is_used_where_it_is():
    rig, a = two(), Source("a")
    rig.touch(a, device=OTHER)
    with rig.pool.lease(a) as lease:
        assert lease.module is not None
    assert rig.promotions == 1
    assert rig.pool.place([a, Source("b", 2)]) == OTHER, "the fewest bytes have to be copied"


def test_an_idle_device_comes_before_one_at_work():
    rig, a = two(), Source("a")
    with rig.pool.lease(a, device=GPU):
        assert rig.pool.place([a]) == OTHER, "two jobs on one device take as long as one after the other"
        with rig.pool.lease(a) as second:
            assert torch.equal(second.module.weight, a.load().weight)
    assert rig.pool.place([a]) == GPU
    assert audit(rig.pool) == []


def test_one_that_cannot_hold_it_comes_last():
    rig, large = two(), Source("large", 3)
    rig.pool.set_budget(GPU, 2 * UNIT)
    assert rig.pool.place([large]) == OTHER
    assert rig.pool.place([Source("small")], working_bytes=3 * UNIT) == OTHER
    rig.pool.set_budget(OTHER, UNIT)
    assert rig.pool.place([large]) == GPU, "nobody can, and the request itself will say so"


def test_of_equals_the_one_with_most_room_is_taken():
    rig = two()
    rig.touch(Source("other"), device=GPU)
    assert rig.pool.place([Source("a")]) == OTHER


def test_without_an_accelerator_it_is_the_cpu():
    rig, a = Rig(4, accelerators=[]), Source("a")
    assert rig.pool.place([a]) == CPU
    with rig.pool.lease(a) as lease:
        assert lease.device == CPU


def test_one_that_cannot_be_opened_is_passed_over():
    rig = two()
    devices = {OTHER: rig.devices[OTHER]}

    def open_device(place):
        if place not in devices:
            raise RuntimeError("no such device")
        return devices[place]

    rig.pool._open_device = open_device
    assert rig.pool.place([Source("a")]) == OTHER


def test_torch_is_asked_for_the_accelerators_where_none_are_named(monkeypatch):
    class Accelerator:
        @staticmethod
        def current_accelerator(check_available=False):
            return torch.device("cuda")

        @staticmethod
        def current_device_index():
            return 1

        @staticmethod
        def device_count():
            return 3

    monkeypatch.setattr(vram_device.torch, "accelerator", Accelerator)
    assert [each.index for each in vram_device.accelerators()] == [1, 0, 2], "the current one first"
    pool = VramPool(ram_budget_bytes=UNIT)
    assert pool.accelerators == vram_device.accelerators()


# -- a device that fails ----------------------------------------------------------------------------------------------


def test_a_fenced_device_lets_go_of_everything_and_is_asked_for_nothing():
    rig, a, b, c = two(), Source("a"), Source("b"), Source("c")
    rig.touch(b)
    with rig.pool.lease(a, device=GPU) as lease:
        rig.gpu.lost = True
        rig.pool.fence(GPU, "it fell off\nthe bus")
        rig.pool.fence(GPU, "a second time")
        assert rig.states() == {"b": "warm", "a": "hot"}, "what is leased stays until its lease ends"
        assert lease.module.weight is not None
        for request in (a, c):
            with pytest.raises(DeviceLostError, match=r"cuda:0 failed and is no longer used: it fell off\n"):
                rig.touch(request)
    assert rig.states() == {"b": "warm", "a": "warm"}
    assert rig.devices_lost == 1
    assert rig.pool.available_bytes(GPU) == 0
    assert rig.pool.place([a]) == OTHER
    rig.touch(a, device=OTHER)
    assert a.loads == 1
    assert "it failed: it fell off" in rig.pool.memory_report(GPU)["hint"]
    rig.pool.fence(OTHER, "this one as well")
    assert rig.pool.place([a]) == CPU
    rig.pool.fence(CPU, "nonsense")
    rig.touch(a, device=CPU)
    assert audit(rig.pool) == []


def test_who_waits_for_a_device_that_fails_is_told():
    rig, a, b = two(2), Source("a", 2), Source("b", 2)
    told: list[BaseException] = []

    def wait() -> None:
        try:
            rig.touch(b)
        except VramError as error:
            told.append(error)

    with rig.pool.lease(a, device=GPU):
        waiter = threading.Thread(target=wait)
        waiter.start()
        deadline = time.monotonic() + LONG_S
        while not rig.waits and time.monotonic() < deadline:
            time.sleep(0.001)
        rig.pool.fence(GPU, "gone")
        waiter.join(LONG_S)
    assert [type(error) for error in told] == [DeviceLostError]
    assert b.loads == 0
    assert audit(rig.pool) == []


def test_a_device_found_lost_when_asked_for_its_memory_is_fenced():
    rig, a = two(), Source("a")
    rig.touch(a)

    def gone() -> int:
        raise RuntimeError("CUDA error: device not ready")

    rig.gpu.capacity_bytes = gone
    rig.pool.relieve(GPU)
    with pytest.raises(DeviceLostError):
        rig.touch(a)

    def odd() -> int:
        raise RuntimeError("no idea")

    rig.touch(a, device=OTHER)
    rig.devices[OTHER].capacity_bytes = odd
    with pytest.raises(RuntimeError, match="no idea"):
        rig.pool.relieve(OTHER)


# -- what other processes take ----------------------------------------------------------------------------------------


def test_the_budget_follows_what_other_processes_leave():
    now = [0.0]
    rig, a, b = Rig(1000, ram=2000, clock=lambda: now[0]), Source("a", 300), Source("b", 500)
    rig.touch(a)
    rig.touch(b)
    rig.gpu.outside_bytes = 400 * UNIT
    rig.touch(b)
    assert rig.states() == {"a": "hot", "b": "hot"}, "nothing new is needed, so nobody asks"
    now[0] = 1.0
    assert rig.pool.available_bytes(GPU) == 600 * UNIT
    assert rig.states() == {"a": "warm", "b": "hot"}
    now[0] = 2.0
    with pytest.raises(VramExhaustedError, match=r"needs 700\.0 KiB on cuda:0, whose budget is 600\.0 KiB"):
        rig.touch(Source("c", 700))
    rig.gpu.outside_bytes = 0
    now[0] = 3.0
    rig.touch(a)
    assert rig.states() == {"a": "hot", "b": "hot"}, "they gave it back"
    assert audit(rig.pool) == []


def test_the_users_limit_is_kept_whatever_the_device_has():
    rig = Rig(4)
    rig.pool.set_budget(GPU, 2 * UNIT)
    assert rig.pool.available_bytes(GPU) == 2 * UNIT
    rig.pool.set_budget(GPU, 5000 * UNIT)
    assert rig.pool.available_bytes(GPU) == 1000 * UNIT, "nor more than it has"


def test_the_device_is_not_asked_more_often_than_four_times_a_second():
    now, asked = [0.0], []
    rig = Rig(4, clock=lambda: now[0])
    capacity = rig.gpu.capacity_bytes
    rig.gpu.capacity_bytes = lambda: asked.append(now[0]) or capacity()
    for step in range(10):
        now[0] = step / 10
        rig.touch(Source(f"m{step}"))
    assert asked == [0.0, 0.3, 0.6, 0.9]


# -- work that still runs when a lease ends ---------------------------------------------------------------------------


class Queued:
    """Counts the marks of a model since it arrived, when it gets its first, which marks nothing."""

    def __init__(self, rig: Rig) -> None:
        self.marked: list[object] = []
        self.waited: list[object] = []
        rig.gpu.mark = self.mark
        rig.gpu.wait_for = self.waited.append

    def mark(self, marks: object) -> object:
        self.marked.append(marks)
        return 0 if marks is None else marks + 1


def test_an_eviction_waits_for_the_work_of_its_own_model_only():
    rig, a, b = Rig(4), Source("a"), Source("b")
    queued = Queued(rig)
    rig.touch(a)
    rig.touch(a)
    rig.touch(b)
    with rig.pool.lease(b, device=GPU):
        rig.pool.trim("vram", UNIT)
        assert queued.waited == [2], "a was marked at each of its two releases"
    assert queued.marked == [None, 0, 1, None, 0, 1]


def test_a_lost_lease_is_marked_too():
    rig, a = Rig(4), Source("a")
    queued = Queued(rig)
    rig.pool.lease(a, device=GPU).__enter__()
    gc.collect()
    rig.pool.trim("vram", UNIT)
    assert queued.waited == [1]


def test_a_device_that_fails_at_a_release_keeps_no_lease(caplog):
    rig, a = Rig(4), Source("a")

    def gone(_marks: object) -> None:
        raise RuntimeError("CUDA error: the launch timed out")

    with rig.pool.lease(a, device=GPU):
        rig.gpu.mark = gone
    assert rig.devices_lost == 1
    assert rig.states() == {"a": "warm"}
    assert audit(rig.pool) == []

    def odd(_marks: object) -> None:
        raise RuntimeError("a fault of its own")

    lease = rig.pool.lease(a, device=OTHER).__enter__()
    rig.devices[OTHER].mark = odd
    lease.release()
    assert not lease.active
    assert "a fault of its own" in caplog.text
    lost = rig.pool.lease(a, device=OTHER).__enter__()
    del lost
    gc.collect()
    assert rig.pool.trim("vram", UNIT) == UNIT, "nor does it keep a lost lease"
    assert audit(rig.pool) == []


def test_of_two_leases_that_end_at_once_an_eviction_waits_for_both():
    rig, a = Rig(4), Source("a")
    both, waited = threading.Barrier(2), []

    def mark(marks: set[str] | None) -> set[str]:
        marks = set() if marks is None else marks
        if threading.current_thread().name.startswith("user"):
            both.wait(LONG_S)  # each has seen what was there before the other
        marks.add(threading.current_thread().name)
        return marks

    rig.gpu.mark, rig.gpu.wait_for = mark, waited.append
    users = [threading.Thread(target=rig.touch, args=(a,), name=f"user {number}") for number in range(2)]
    with rig.pool.lease(a, device=GPU):
        for user in users:
            user.start()
        for user in users:
            user.join(LONG_S)
    rig.pool.trim("vram", UNIT)
    assert {"user 0", "user 1"} <= waited[0]


def test_a_large_copy_lets_others_run(monkeypatch):
    device = vram_device.TorchDevice(CPU)
    source = torch.arange(2**21, dtype=torch.uint8).untyped_storage()

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("torch holds Python's lock while it copies storages")

    for n_bytes in (16, 2**21):
        if n_bytes == 2**21:
            monkeypatch.setattr(torch.UntypedStorage, "copy_", refuse)
        target = device.allocate(n_bytes)
        with torch.inference_mode():
            device.copy(source[:n_bytes], target)
        assert torch.equal(vram_device._as_tensor(target), vram_device._as_tensor(source)[:n_bytes])
