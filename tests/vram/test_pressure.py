"""Who else uses a device's memory. NVML is faked at its boundary, for there is no NVIDIA card here."""

from __future__ import annotations

import logging
import subprocess
import sys
import threading
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import psutil
import pytest
import torch
from vram_rig import Clock

from photokeep_nodes import vram_manager
from photokeep_nodes._vram import device as device_module
from photokeep_nodes._vram.device import HEADROOM_BYTES, TorchDevice
from photokeep_nodes._vram.pressure import REREAD_AFTER_S, Pressure, PressureGauge

ROOT = Path(__file__).resolve().parents[2]
GIB = 2**30
CUDA = torch.device("cuda", 0)
UUID = "ffc79498-8ff3-c2dc-3b0d-fafd804516ae"


class FakeNvml(ModuleType):
    """pynvml with one card, which CUDA knows too."""

    class NVMLError(Exception):
        pass

    def __init__(self) -> None:
        super().__init__("pynvml")
        self.total, self.free = 24 * GIB, 10 * GIB
        self.known = f"GPU-{UUID}"
        self.error: Exception | None = None
        self.inits = 0
        self.reads = 0
        self.processes: list[Any] = []
        self.can_list = True

    def nvmlInit(self) -> None:
        self.inits += 1
        if self.error is not None:
            raise self.error

    def nvmlDeviceGetHandleByUUID(self, uuid: bytes) -> str:
        if uuid.decode() != self.known:
            raise self.NVMLError("Not Found")
        return "handle"

    def nvmlDeviceGetMemoryInfo(self, handle: str) -> SimpleNamespace:
        assert handle == "handle"
        self.reads += 1
        if self.error is not None:
            raise self.error
        return SimpleNamespace(total=self.total, free=self.free)

    def nvmlDeviceGetCount(self) -> int:
        return 1

    def nvmlDeviceGetHandleByIndex(self, index: int) -> str:
        return "handle"

    def nvmlDeviceGetName(self, handle: str) -> bytes:
        return b"NVIDIA Some Card"

    def nvmlDeviceGetUUID(self, handle: str) -> str:
        return f"GPU-{UUID}"

    def nvmlSystemGetDriverVersion(self) -> str:
        return "580.1"

    def nvmlDeviceGetComputeRunningProcesses(self, handle: str) -> list[Any]:
        return self.processes

    def nvmlDeviceGetGraphicsRunningProcesses(self, handle: str) -> list[Any]:
        if not self.can_list:
            raise self.NVMLError("Not Supported")
        return [SimpleNamespace(pid=2**30, usedGpuMemory=None)]


@pytest.fixture
def nvml(monkeypatch):
    fake = FakeNvml()
    monkeypatch.setitem(sys.modules, "pynvml", fake)
    return fake


@pytest.fixture
def card(monkeypatch):
    """What torch says of a card of 24 GiB of which its allocator holds 4."""
    said = SimpleNamespace(total=24 * GIB, free=11 * GIB, reserved=4 * GIB, error=None)

    def get_memory_info(_device: torch.device) -> tuple[int, int]:
        if said.error is not None:
            raise said.error
        return said.free, said.total

    monkeypatch.setattr(torch.version, "cuda", "13.0")
    monkeypatch.setattr(torch.accelerator, "memory_reserved", lambda _device: said.reserved)
    monkeypatch.setattr(torch.accelerator, "get_memory_info", get_memory_info)
    monkeypatch.setattr(
        torch.cuda, "get_device_properties", lambda _device: SimpleNamespace(uuid=UUID, total_memory=said.total)
    )
    return said


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def gauge(clock):
    return PressureGauge(clock=clock)


def test_nvml_sees_what_other_processes_use(gauge, nvml, card):
    assert gauge.read(CUDA) == Pressure(24 * GIB, 10 * GIB, 10 * GIB, "nvml")


def test_a_part_of_a_card_is_found_by_its_own_uuid(gauge, nvml, card):
    nvml.known, nvml.total, nvml.free = f"MIG-{UUID}", 10 * GIB, 5 * GIB
    card.total = 10 * GIB
    assert gauge.read(CUDA) == Pressure(10 * GIB, 5 * GIB, 1 * GIB, "nvml")


def test_a_part_of_a_card_is_not_taken_for_the_whole(gauge, nvml, card, caplog):
    caplog.set_level(logging.INFO)
    card.total, card.free = 10 * GIB, 6 * GIB
    assert gauge.read(CUDA) == Pressure(10 * GIB, 6 * GIB, 0, "torch")
    assert "part of it" in caplog.text


def test_looks_at_a_device_four_times_a_second_at_most(gauge, nvml, card, clock):
    for _ in range(10):
        gauge.read(CUDA)
    assert (nvml.reads, nvml.inits) == (1, 1)
    nvml.free = 3 * GIB
    assert gauge.read(CUDA).free_bytes == 10 * GIB
    clock.now += REREAD_AFTER_S
    assert gauge.read(CUDA).free_bytes == 3 * GIB
    assert (nvml.reads, nvml.inits) == (2, 1)


def test_many_threads_make_one_look(gauge, nvml, card):
    threads = [threading.Thread(target=gauge.read, args=(CUDA,)) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (nvml.reads, nvml.inits) == (1, 1)


@pytest.mark.parametrize("error", [FakeNvml.NVMLError("Driver Not Loaded"), OSError("no such library"), ValueError()])
def test_without_nvml_torch_is_asked_and_the_log_says_so_once(gauge, nvml, card, clock, caplog, error):
    caplog.set_level(logging.INFO)
    nvml.error = error
    for _ in range(3):
        assert gauge.read(CUDA) == Pressure(24 * GIB, 11 * GIB, 9 * GIB, "torch")
        clock.now += 1
    assert nvml.inits == 1
    assert len(caplog.records) == 1
    assert gauge.nvidia_devices() == []


def test_without_the_library_torch_is_asked(gauge, card, monkeypatch):
    monkeypatch.setitem(sys.modules, "pynvml", None)
    assert gauge.read(CUDA).source == "torch"


@pytest.mark.parametrize("error", [FakeNvml.NVMLError("Insufficient Permissions"), OverflowError()])
def test_a_card_nvml_will_not_talk_about_is_asked_through_torch(gauge, nvml, card, clock, caplog, error):
    caplog.set_level(logging.INFO)
    gauge.nvidia_devices()  # initialised while it still works
    nvml.error = error
    for _ in range(3):
        assert gauge.read(CUDA).source == "torch"
        clock.now += 1
    assert len(caplog.records) == 1


def test_a_card_nvml_does_not_know_is_asked_through_torch(gauge, nvml, card):
    nvml.known = "GPU-another"
    assert gauge.read(CUDA).source == "torch"


def test_amd_cards_are_asked_through_torch(gauge, nvml, card, monkeypatch):
    monkeypatch.setattr(torch.version, "cuda", None)
    assert gauge.read(CUDA) == Pressure(24 * GIB, 11 * GIB, 9 * GIB, "torch")
    assert nvml.inits == 0


def test_a_device_that_cannot_be_read_any_more_keeps_its_last_figures(gauge, nvml, card, clock):
    nvml.known = "GPU-another"
    seen = gauge.read(CUDA)
    card.error = RuntimeError("the device was lost")
    clock.now += 1
    assert gauge.read(CUDA) == seen


def test_a_device_that_was_never_read_says_what_is_wrong(gauge, nvml, card):
    nvml.known = "GPU-another"
    card.error = RuntimeError("no such device")
    with pytest.raises(RuntimeError, match="no such device"):
        gauge.read(CUDA)


def test_an_apple_gpu_shares_the_machines_memory(gauge, monkeypatch):
    monkeypatch.setattr(torch.mps, "recommended_max_memory", lambda: 16 * GIB)
    monkeypatch.setattr(torch.mps, "driver_allocated_memory", lambda: 2 * GIB)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: SimpleNamespace(available=9 * GIB))
    assert gauge.read(torch.device("mps", 0)) == Pressure(16 * GIB, 9 * GIB, 5 * GIB, "system")


def test_the_cpu_has_the_machines_memory(gauge):
    seen = gauge.read(torch.device("cpu"))
    assert seen.source == "system"
    assert 0 < seen.free_bytes <= seen.total_bytes == psutil.virtual_memory().total


def test_a_forked_child_looks_for_itself(gauge, nvml, card):
    gauge.read(CUDA)
    gauge._forked(cuda_was_live=True)
    gauge.read(CUDA)
    assert (nvml.inits, nvml.reads) == (2, 2)


def test_lists_cards_with_the_processes_on_them(gauge, nvml):
    me = psutil.Process()
    nvml.processes = [SimpleNamespace(pid=me.pid, usedGpuMemory=3 * GIB)]
    (card,) = gauge.nvidia_devices()
    assert card == {
        "name": "NVIDIA Some Card",
        "uuid": f"GPU-{UUID}",
        "driver": "580.1",
        "total_bytes": 24 * GIB,
        "free_bytes": 10 * GIB,
        "processes": [
            {"pid": me.pid, "name": me.name(), "used_bytes": 3 * GIB},
            {"pid": 2**30, "name": "", "used_bytes": None},  # not there, or in another container
        ],
    }
    nvml.can_list, nvml.processes = False, []
    assert gauge.nvidia_devices()[0]["processes"] == []


def test_cards_that_cannot_be_listed_are_none(gauge, nvml, caplog):
    caplog.set_level(logging.INFO)
    assert gauge.nvidia_devices()
    nvml.error = nvml.NVMLError("GPU is lost")
    assert gauge.nvidia_devices() == []
    assert "GPU is lost" in caplog.text


def test_the_real_library_lists_cards_without_torch():
    code = (
        "import sys\n"
        "from photokeep_nodes._vram.pressure import gauge\n"
        "print(type(gauge.nvidia_devices()).__name__, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "list False"


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a driver")
def test_the_real_library_says_that_there_is_no_driver(gauge, card, caplog):
    caplog.set_level(logging.INFO)
    assert gauge.nvidia_devices() == []
    assert gauge.read(CUDA).source == "torch"
    assert "NVML cannot be used" in caplog.text


def test_the_pool_may_use_what_others_leave(gauge, nvml, card, clock, monkeypatch):
    monkeypatch.setattr(device_module, "gauge", gauge)
    device = object.__new__(TorchDevice)  # its stream needs a card
    device._device = CUDA
    assert device.capacity_bytes() == 14 * GIB - HEADROOM_BYTES
    nvml.free, clock.now = 0, 200.0
    assert device.capacity_bytes() == 4 * GIB - HEADROOM_BYTES
    nvml.free, card.reserved, clock.now = 0, 0, 300.0
    assert device.capacity_bytes() == 0


def test_an_overview_of_what_models_may_use(gauge, nvml, card, monkeypatch):
    monkeypatch.setattr(device_module, "gauge", gauge)
    monkeypatch.setattr(device_module, "accelerators", lambda: (CUDA,))
    cpu, gpu = vram_manager.memory_overview()
    assert (cpu["device"], cpu["budget_bytes"]) == ("cpu", device_module.default_ram_budget_bytes())
    assert gpu == {
        "device": "cuda:0",
        "budget_bytes": 14 * GIB - HEADROOM_BYTES,
        "total_bytes": 24 * GIB,
        "free_bytes": 10 * GIB,
        "others_bytes": 10 * GIB,
        "source": "nvml",
    }
    assert [each["budget_bytes"] for each in vram_manager.memory_overview(GIB)] == [cpu["budget_bytes"], GIB]
