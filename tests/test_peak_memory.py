"""Peaks of memory: sampled, and shared out of the one maximum that CUDA keeps."""

from __future__ import annotations

import ctypes
import itertools
import subprocess
import sys
import threading

import pytest
import torch

from photokeep_nodes import peak_memory as memory
from photokeep_nodes.peak_memory import (
    CudaStretch,
    PeakSampler,
    cuda_in_use,
    cuda_laps,
    handed_out_bytes,
    resident_bytes,
)


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


def test_of_several_figures_the_one_that_rose_further_counts():
    seen = threading.Event()
    falling = itertools.chain([100, 90], itertools.repeat(80))
    rising = itertools.chain([10, 40], itertools.repeat(30))

    def read() -> int:
        value = next(rising)
        if value == 30:
            seen.set()
        return value

    with PeakSampler(lambda: next(falling), read) as sampler:
        assert seen.wait(20)
    assert (sampler.start_bytes, sampler.peak_bytes, sampler.grown_bytes) == (100, 100, 30)


needs_glibc = pytest.mark.skipif(not handed_out_bytes(), reason="needs glibc 2.33 or later")

_REUSED = """
import ctypes, time
from photokeep_nodes.peak_memory import PeakSampler, handed_out_bytes, resident_bytes
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes = ctypes.c_void_p, [ctypes.c_size_t]
libc.free.argtypes = [ctypes.c_void_p]
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
libc.mallopt(M_TRIM_THRESHOLD, 1 << 30)
libc.mallopt(M_MMAP_THRESHOLD, 1 << 30)
def use(n_bytes):
    block = libc.malloc(n_bytes)
    ctypes.memset(block, 1, n_bytes)
    time.sleep(0.1)
    libc.free(block)
use(256 << 20)
with PeakSampler(resident_bytes) as resident, PeakSampler(handed_out_bytes) as handed_out:
    use(192 << 20)
print(resident.grown_bytes >> 20, handed_out.grown_bytes >> 20)
"""


@needs_glibc
def test_memory_that_the_c_library_had_kept_is_seen_when_it_is_used_again():
    """In a process of its own: how the library keeps memory is set for good."""
    done = subprocess.run([sys.executable, "-c", _REUSED], capture_output=True, text=True, check=True)
    resident, handed_out = map(int, done.stdout.split())
    assert resident < 32  # MiB: the resident set does not show it
    assert 192 <= handed_out < 224


@needs_glibc
def test_what_is_handed_out_includes_large_blocks_and_forgets_them():
    before = handed_out_bytes()
    block = ctypes.create_string_buffer(100 * 2**20)
    held = handed_out_bytes()
    del block
    assert held - before >= 100 * 2**20
    assert handed_out_bytes() - before < 50 * 2**20


@pytest.mark.parametrize("error", [OSError, AttributeError, TypeError])
def test_where_the_c_library_keeps_no_such_books_nothing_is_said_to_be_handed_out(monkeypatch, error):
    def refuse(_name):
        raise error

    monkeypatch.setattr(memory.ctypes, "CDLL", refuse)
    memory._mallinfo2.cache_clear()
    try:
        assert handed_out_bytes() == 0
    finally:
        memory._mallinfo2.cache_clear()


def test_the_resident_set_is_this_process_own():
    assert resident_bytes() > 2**20
    assert isinstance(cuda_in_use(), bool)
    assert isinstance(cuda_laps, memory.CudaLaps)
