"""Learning from a call while it runs."""

from __future__ import annotations

import threading
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from vram_rig import CPU, GPU, UNIT, Rig, Source

from photokeep_nodes import peak_memory as memory_module
from photokeep_nodes._vram import measure
from photokeep_nodes._vram.learnt import WorkingMemory
from photokeep_nodes._vram.measure import CallPeak, device_name
from photokeep_nodes._vram.observe import learning
from photokeep_nodes._vram.pressure import PressureGauge

SIZE = 200 * 2**20


@pytest.fixture
def memory(tmp_path):
    return WorkingMemory(tmp_path / "vram.sqlite3")


@pytest.fixture
def peak(monkeypatch):
    """What the calls of a simulated device take."""
    said = SimpleNamespace(n_bytes=1000)

    class FakePeak(CallPeak):
        def __init__(self, _device: torch.device) -> None:
            super().__init__(torch.device("meta"))

        def __exit__(self, *_: object) -> None:
            self.n_bytes = said.n_bytes

    monkeypatch.setattr("photokeep_nodes._vram.observe.CallPeak", FakePeak)
    monkeypatch.setattr("photokeep_nodes._vram.observe.device_name", lambda device: f"card {device.index}")
    return said


def call(rig: Rig, memory: WorkingMemory, device: torch.device = GPU, promised: int = 500):
    return learning(rig.pool, memory, "net", (20, 10), torch.float16, device, promised_bytes=promised)


def seen(memory: WorkingMemory) -> list[dict]:
    return memory.listing()


def test_a_call_on_its_own_teaches(memory, peak):
    rig = Rig(10)
    with rig.pool.lease(Source("a"), device=GPU, working_bytes=UNIT), call(rig, memory):
        pass
    (row,) = seen(memory)
    assert (row["model"], row["height"], row["width"]) == ("net", 20, 10)
    assert (row["dtype"], row["device"], row["peak_bytes"], row["times"]) == ("float16", "card 0", 1000, 1)


def test_a_call_beside_another_lease_teaches_nothing(memory, peak):
    rig = Rig(10)
    with rig.pool.lease(Source("a"), device=GPU):
        with rig.pool.lease(Source("b"), device=GPU), call(rig, memory):
            pass
        with call(rig, memory), rig.pool.lease(Source("a"), device=GPU):
            pass
    assert seen(memory) == []


def test_a_lease_that_came_and_went_meanwhile_is_noticed(memory, peak):
    rig, a = Rig(10), Source("a")
    with rig.pool.lease(a, device=GPU), call(rig, memory):
        rig.touch(a)
    assert seen(memory) == []


def test_what_arrives_or_leaves_meanwhile_is_noticed(memory, peak):
    rig = Rig(10)
    rig.touch(Source("b"))
    with rig.pool.lease(Source("a"), device=GPU), call(rig, memory):
        rig.pool.trim("vram", UNIT)
    assert seen(memory) == []


def test_leases_of_other_devices_do_not_matter_but_for_the_hosts_memory(memory, peak):
    rig, other = Rig(10), torch.device("cuda", 1)
    with rig.pool.lease(Source("a"), device=GPU), call(rig, memory):
        thread = threading.Thread(target=rig.touch, args=(Source("b"),), kwargs={"device": other})
        thread.start()
        thread.join()
    assert len(seen(memory)) == 1
    with rig.pool.lease(Source("c"), device=CPU), call(rig, memory, CPU):
        thread = threading.Thread(target=rig.touch, args=(Source("d"),), kwargs={"device": other})
        thread.start()
        thread.join()
    assert len(seen(memory)) == 1


def test_a_device_the_pool_does_not_know_is_idle(memory, peak):
    rig = Rig(10)
    with call(rig, memory):
        pass
    assert len(seen(memory)) == 1


def test_what_is_not_measured_teaches_nothing(memory, peak):
    rig = Rig(10)
    peak.n_bytes = None
    with call(rig, memory):
        pass
    assert seen(memory) == []


def test_running_out_of_memory_teaches_to_ask_for_more(memory, peak):
    rig = Rig(10)
    with pytest.raises(torch.OutOfMemoryError), call(rig, memory, promised=500):
        raise torch.OutOfMemoryError("CUDA out of memory")
    assert memory.estimate("net", 20, 10, "float16", "card 0", 500) == 750


@pytest.mark.parametrize("error", [KeyboardInterrupt(), ValueError("of another kind")])
def test_other_errors_teach_nothing(memory, peak, error):
    rig = Rig(10)
    with pytest.raises(type(error)), call(rig, memory):
        raise error
    assert seen(memory) == []


# -- measuring ----------------------------------------------------------------------------------------------------


def test_on_the_cpu_the_resident_set_is_watched():
    with CallPeak(CPU) as peak:
        block = np.ones(SIZE, dtype=np.uint8)
        held = threading.Event()
        deadline = 500
        while peak._meter.peak_bytes < peak._meter.start_bytes + SIZE // 2 and deadline:
            held.wait(0.02)
            deadline -= 1
        del block
    assert SIZE // 2 < peak.n_bytes < 4 * SIZE
    assert device_name(CPU) == "cpu"


@pytest.mark.parametrize("device", ["cuda", "cuda:1"])
def test_on_cuda_the_allocator_counts(monkeypatch, device):
    books = {"now": 100, "peak": 900}

    def reset(_index: int) -> None:
        books["peak"] = books["now"]

    monkeypatch.setattr(memory_module, "cuda_laps", memory_module.CudaLaps())
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 1)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda index: books["now"] if index == 1 else 10**9)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda index: books["peak"])
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", reset)
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda _device: "NVIDIA Some Card")
    with CallPeak(torch.device(device)) as peak:
        books["peak"] = 250
    assert peak.n_bytes == 150
    assert device_name(torch.device(device)) == "NVIDIA Some Card"


def test_on_an_apple_gpu_the_allocators_figure_is_sampled(monkeypatch):
    monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 7)
    with CallPeak(torch.device("mps")) as peak:
        monkeypatch.setattr(torch.mps, "current_allocated_memory", lambda: 9)
    assert peak.n_bytes == 0  # it was given the function itself, so this one was never asked
    assert measure.device_name(torch.device("mps")) == "mps"


def test_other_devices_are_not_measured():
    with CallPeak(torch.device("meta")) as peak:
        pass
    assert peak.n_bytes is None


needs_cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@pytest.mark.gpu
@needs_cuda
def test_a_real_device_counts_a_calls_own_peak():
    held = torch.ones(SIZE, dtype=torch.uint8, device="cuda")
    with CallPeak(torch.device("cuda", 0)) as peak:
        block = torch.ones(SIZE, dtype=torch.uint8, device="cuda")
        del block
    assert SIZE <= peak.n_bytes < 2 * SIZE
    del held


@pytest.mark.gpu
@needs_cuda
def test_a_real_devices_memory_is_what_the_driver_says():
    torch.ones(1, device="cuda")
    seen = PressureGauge().read(torch.device("cuda", 0))
    free, total = torch.cuda.mem_get_info(0)
    assert abs(seen.total_bytes - total) <= total // 10
    assert abs(seen.free_bytes - free) <= total // 10  # others come and go
    assert seen.others_bytes < seen.total_bytes
