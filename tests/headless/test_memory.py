"""The peak of memory while a stage runs."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch

from headless.memory import PeakMemory

ROOT = Path(__file__).resolve().parents[2]
SIZE = 200 * 2**20

without_cuda = pytest.mark.skipif(torch.cuda.is_available(), reason="on CUDA, torch counts")


def watchers() -> list[str]:
    return [thread.name for thread in threading.enumerate() if thread.name == "photokeep-peak-memory"]


@without_cuda
def test_what_was_held_only_for_a_while_is_seen() -> None:
    before = psutil.Process().memory_info().rss
    deadline = time.monotonic() + 20
    with PeakMemory() as memory:
        block = np.ones(SIZE, dtype=np.uint8)
        while memory.peak_bytes < before + SIZE // 2 and time.monotonic() < deadline:
            time.sleep(0.01)
        del block
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
