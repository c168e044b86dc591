"""Peaks of memory: sampled, and shared out of the one maximum that CUDA keeps."""

from __future__ import annotations

import itertools
import threading

import pytest
import torch

from photokeep_nodes import peak_memory as memory
from photokeep_nodes.peak_memory import CudaStretch, PeakSampler, cuda_in_use, cuda_laps, resident_bytes


class Allocator:
    """CUDA's books of two devices, as torch shows them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.allocated = [0, 0]
        self.peak = [0, 0]
        monkeypatch.setattr(memory, "cuda_laps", memory.CudaLaps())
        monkeypatch.setattr(torch.cuda, "memory_allocated", self.allocated.__getitem__)
        monkeypatch.setattr(torch.cuda, "max_memory_allocated", self.peak.__getitem__)
        monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", self._reset)

    def _reset(self, index: int) -> None:
        self.peak[index] = self.allocated[index]

    def take(self, n_bytes: int, index: int = 0) -> None:
        self.allocated[index] += n_bytes
        self.peak[index] = max(self.peak[index], self.allocated[index])


@pytest.fixture
def allocator(monkeypatch: pytest.MonkeyPatch) -> Allocator:
    return Allocator(monkeypatch)


def test_a_stretch_has_the_peak_of_its_own_body(allocator):
    allocator.take(100)
    allocator.take(-90)
    with CudaStretch(0) as stretch:
        allocator.take(5)
        allocator.take(-5)
    assert (stretch.start_bytes, stretch.peak_bytes) == (10, 15)


def test_an_inner_stretch_takes_nothing_from_the_outer_one(allocator):
    with CudaStretch(0) as outer:
        allocator.take(50)
        allocator.take(-40)
        with CudaStretch(0) as inner:
            allocator.take(7)
            allocator.take(-7)
    assert (outer.peak_bytes, inner.start_bytes, inner.peak_bytes) == (50, 10, 17)


def test_stretches_that_overlap_each_see_their_own_part(allocator):
    first, second = CudaStretch(0), CudaStretch(0)
    with first:
        allocator.take(30)
        allocator.take(-30)
        second.__enter__()
        allocator.take(20)
    allocator.take(5)
    second.__exit__(None, None, None)
    assert (first.peak_bytes, second.peak_bytes) == (30, 25)


def test_devices_are_counted_apart_and_the_highest_ever_is_kept(allocator):
    with CudaStretch(0) as first, CudaStretch(1) as second:
        allocator.take(9)
        allocator.take(-9)
        allocator.take(2, index=1)
    assert (first.peak_bytes, second.peak_bytes) == (9, 2)
    assert memory.cuda_laps.since_first_use(0) == 9
    allocator.take(4)
    assert (memory.cuda_laps.since_first_use(0), memory.cuda_laps.since_first_use(1)) == (9, 2)


def test_a_stretch_ends_with_an_error_too(allocator):
    def fails() -> None:
        with CudaStretch(0):
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        fails()
    with CudaStretch(0) as after:
        pass
    assert after.peak_bytes == 0


def test_a_sampler_sees_what_was_there_for_a_while():
    seen = threading.Event()
    values = itertools.chain([3, 8], itertools.repeat(5))

    def read() -> int:
        value = next(values)
        if value == 5:
            seen.set()
        return value

    with PeakSampler(read) as sampler:
        assert seen.wait(20)
    assert (sampler.start_bytes, sampler.peak_bytes) == (3, 8)


def test_the_resident_set_is_this_process_own():
    assert resident_bytes() > 2**20
    assert isinstance(cuda_in_use(), bool)
    assert isinstance(cuda_laps, memory.CudaLaps)
