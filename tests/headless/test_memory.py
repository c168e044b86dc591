"""The peak of memory while a stage runs."""

from __future__ import annotations

import mmap
import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

import headless.memory
from headless.memory import PeakMemory
from photokeep_nodes import peak_memory

ROOT = Path(__file__).resolve().parents[2]
SIZE = 200 * 2**20

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA, torch counts")


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "photokeep-peak-memory"]


@without_cuda
def test_what_was_held_only_for_a_while_is_seen() -> None:
    before = psutil.Process().memory_info().rss
    deadline = time.monotonic() + 20
    with PeakMemory() as memory, mmap.mmap(-1, SIZE) as block:  # straight from the system, not from what is kept
        np.frombuffer(block, dtype=np.uint8).fill(1)
        while memory._resident.peak_bytes < before + SIZE // 2 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert memory.peak_bytes > before + SIZE // 2
    assert memory.peak_bytes > psutil.Process().memory_info().rss + SIZE // 4


@without_cuda
def test_a_stage_too_short_to_be_sampled_has_a_peak_nevertheless() -> None:
    with PeakMemory() as memory:
        pass
    assert memory.peak_bytes > 2**20
    assert watchers() == []


def test_an_error_comes_through_and_nobody_keeps_watching() -> None:
    memory = PeakMemory()
    during: list[str] = []

    def interrupted() -> None:
        with memory:
            during.extend(watchers())
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(during) == 1
    assert watchers() == []
    assert memory.peak_bytes > 0 or torch.cuda.is_initialized()


def test_watching_needs_no_torch() -> None:
    code = (
        "import sys\n"
        "from headless.memory import PeakMemory\n"
        "with PeakMemory() as memory: pass\n"
        "print(memory.peak_bytes > 0, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == "True False"


class Cuda:
    """Two devices as torch shows their books."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.live = True
        self.peaks = [0, 0]
        monkeypatch.setattr(peak_memory, "cuda_laps", laps := peak_memory.CudaLaps())
        monkeypatch.setattr(headless.memory, "cuda_laps", laps)
        monkeypatch.setattr(torch.cuda, "is_initialized", lambda: self.live)
        monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
        monkeypatch.setattr(torch.cuda, "memory_allocated", lambda _index: 0)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self.peaks.__getitem__)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda index: self.peaks.__setitem__(index, 0))


def test_a_stage_keeps_its_peak_though_its_tiles_are_measured_too(monkeypatch):
    cuda = Cuda(monkeypatch)
    cuda.peaks[:] = [999, 0]  # of an earlier stage
    with PeakMemory() as stage:
        cuda.peaks[:] = [50, 3]
        with peak_memory.CudaStretch(0) as tile:
            cuda.peaks[0] = 20
        cuda.peaks[0] = 10
    assert (tile.peak_bytes, stage.peak_bytes) == (20, 53)


def test_a_stage_that_is_the_first_to_use_cuda_has_its_peak(monkeypatch):
    cuda = Cuda(monkeypatch)
    cuda.live = False
    with PeakMemory() as stage:
        cuda.live = True
        cuda.peaks[:] = [50, 3]
        with peak_memory.CudaStretch(0):
            cuda.peaks[0] = 20
    assert stage.peak_bytes == 53


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_the_devices_memory_counts() -> None:
    torch.ones(1, device="cuda")
    with PeakMemory() as memory:
        block = torch.ones(SIZE, dtype=torch.uint8, device="cuda")
        del block
    assert SIZE <= memory.peak_bytes < 2 * SIZE
    with PeakMemory() as memory:
        pass
    assert memory.peak_bytes < SIZE
