"""The accelerator that is not there: its allocator, its bus in virtual time, its faults."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from vram_rig import GPU, UNIT, Rig, Source

from photokeep_nodes._vram.records import Departure, Grant
from photokeep_nodes._vram.simulated import FirstFit, SimulatedDevice, VirtualClock, audit

OUT_OF_MEMORY = torch.OutOfMemoryError


def host(n_bytes: int) -> torch.UntypedStorage:
    return torch.arange(n_bytes, dtype=torch.uint8).untyped_storage()


def in_background(work) -> None:
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()


# -- the allocator ----------------------------------------------------------------------------------------------------


def test_memory_in_pieces_holds_only_pieces():
    device = SimulatedDevice(40)
    blocks = [device.allocate(10) for _ in range(4)]
    del blocks[2], blocks[0]
    assert (device.live_bytes, device.largest_hole) == (20, 10)
    with pytest.raises(OUT_OF_MEMORY, match="no hole is large enough"):
        device.allocate(11)
    assert device.refused == 1
    blocks.clear()
    assert device.largest_hole == 40
    assert device.allocate(40).nbytes() == 40


def test_without_fragmentation_the_sum_is_what_counts():
    device = SimulatedDevice(40, fragmenting=False)
    blocks = [device.allocate(10) for _ in range(4)]
    del blocks[2], blocks[0]
    assert device.largest_hole == 20
    blocks.append(device.allocate(20))
    with pytest.raises(OUT_OF_MEMORY, match="do not fit"):
        device.allocate(1)
    assert device.peak_bytes == 40


@given(st.lists(st.tuples(st.booleans(), st.integers(0, 12)), max_size=60))
def test_blocks_never_overlap_and_holes_close(steps):
    space, taken = FirstFit(64), {}
    for number, (give, size) in enumerate(steps):
        if give and taken:
            space.give_back(*taken.pop(next(iter(taken))))
            continue
        largest, begin = space.largest, space.take(size)
        assert (begin is None) == (size > largest)
        if begin is not None:
            taken[number] = (begin, size)
            covered = sorted(byte for start, length in taken.values() for byte in range(start, start + length))
            assert len(covered) == len(set(covered))
            assert not covered or covered[-1] < 64
    for block in taken.values():
        space.give_back(*block)
    assert space.largest == 64
    assert FirstFit(0).largest == 0


# -- the bus ----------------------------------------------------------------------------------------------------------


def test_a_copy_takes_time_and_is_exact():
    clock = VirtualClock()
    device = SimulatedDevice(1000, bytes_per_s=100, latency_s=0.5, clock=clock)
    target = device.allocate(100)
    device.copy(host(100), target)
    assert clock() == 0, "it has only begun"
    device.finish_copies()
    assert clock() == 1.5
    assert target.tolist() == list(range(100))
    assert (device.bytes_copied, device.bus_s, device.copies, device.allocations) == (100, 1.5, 1, 1)
    device.finish_copies()
    assert clock() == 1.5


def test_without_a_clock_time_is_only_summed_up():
    device = SimulatedDevice(1000, bytes_per_s=100, latency_s=0)
    target = device.allocate(100)
    device.copy(host(100), target)
    device.finish_copies()
    assert device.bus_s == 1
    assert device.await_copies([torch.empty(0, dtype=torch.uint8).set_(target)]) == 0


def test_a_copy_in_the_background_runs_beside_computing():
    clock = VirtualClock()
    device = SimulatedDevice(1000, bytes_per_s=100, latency_s=0, clock=clock)
    target = device.allocate(200)

    def prefetch() -> None:
        device.copy(host(200), target)
        device.finish_copies()

    in_background(prefetch)
    assert clock() == 0, "the clock belongs to the thread that made it"
    clock.advance(1.5)
    tensor = torch.empty(0, dtype=torch.uint8).set_(target)
    assert device.await_copies([tensor]) == 0.5
    assert device.await_copies([tensor]) == 0
    assert clock() == 2
    assert device.await_copies([]) == 0


def test_there_is_one_bus():
    clock = VirtualClock()
    device = SimulatedDevice(1000, bytes_per_s=100, latency_s=0, clock=clock)
    first, second = device.allocate(100), device.allocate(100)
    in_background(lambda: device.copy(host(100), first))
    device.copy(host(100), second)
    device.finish_copies()
    assert clock() == 2, "the second copy waited for the first"


def test_memory_given_anew_is_not_waited_for():
    clock = VirtualClock()
    device = SimulatedDevice(100, bytes_per_s=1, clock=clock)
    storages = [device.allocate(100)]
    in_background(lambda: device.copy(host(100), storages[0]))
    device.free(storages)
    gc.collect()
    tensor = torch.empty(0, dtype=torch.uint8).set_(device.allocate(100))
    assert device.await_copies([tensor]) == 0


# -- faults -----------------------------------------------------------------------------------------------------------


def test_the_next_allocations_or_certain_ones_fail():
    device = SimulatedDevice(1000)
    device.failing_allocations = 1
    device.doomed_allocations = frozenset({3})
    with pytest.raises(OUT_OF_MEMORY, match="an allocation failed"):
        device.allocate(1)
    device.allocate(1)
    with pytest.raises(OUT_OF_MEMORY, match="an allocation failed"):
        device.allocate(1)
    device.allocate(1)


def test_the_next_copies_or_certain_ones_fail():
    device = SimulatedDevice(1000)
    target = device.allocate(4)
    device.failing_copies = 1
    device.doomed_copies = frozenset({3})
    with pytest.raises(RuntimeError, match="the bus failed"):
        device.copy(host(4), target)
    device.copy(host(4), target)
    with pytest.raises(RuntimeError, match="the bus failed"):
        device.copy(host(4), target)
    assert device.bytes_copied == 4


def test_another_process_takes_memory():
    device = SimulatedDevice(100)
    device.outside_bytes = 60
    assert device.capacity_bytes() == 40
    with pytest.raises(OUT_OF_MEMORY, match="do not fit"):
        device.allocate(41)
    device.outside_bytes = 0
    device.allocate(41)


def test_a_lost_device_does_nothing_any_more_and_its_memory_can_still_be_let_go():
    device = SimulatedDevice(100)
    storages = [device.allocate(4)]
    device.lost = True
    for call in (
        lambda: device.allocate(1),
        lambda: device.copy(host(4), storages[0]),
        lambda: device.free(storages),
    ):
        with pytest.raises(RuntimeError, match="the device was lost"):
            call()
    assert storages == []
    assert device.live_bytes == 0


def test_marks_and_the_cache():
    device = SimulatedDevice(1)
    device.wait_for(device.mark(None))
    device.empty_cache()
    assert device.emptied == 1


# -- the audit --------------------------------------------------------------------------------------------------------


def test_books_that_are_wrong_are_found_out():
    rig, a = Rig(4), Source("a", 2)
    rig.touch(a)
    assert audit(rig.pool) == []
    state = rig.pool._state
    ledger, entry = state.ledgers[GPU], state.entries["a"]
    resident = entry.residents[ledger]

    ledger.budget_bytes = UNIT
    assert [each[:2] for each in audit(rig.pool)] == ["I1"]
    ledger.overdrawn = True
    assert audit(rig.pool) == []

    ledger.charges.discard(resident.charge)
    assert [each[:2] for each in audit(rig.pool)] == ["I6"]
    ledger.charges.add(resident.charge)

    resident.charge.held += 1
    entry.charge.held += 1
    assert [each[:2] for each in audit(rig.pool)] == ["I4", "I4"]
    assert audit(rig.pool, resting=False) == []
    resident.charge.held -= 1
    entry.charge.held -= 1

    stray = Grant(threading.current_thread(), 0.0, ledger)
    entry.transit.add(stray)
    assert audit(rig.pool) == ["I6 a: pinned by a lease that is over", "I6 a: left on its way"]
    entry.transit.clear()

    state.departures.append(Departure(entry))
    assert audit(rig.pool) == ["I6: evictions or requests were left behind"]
    state.departures.clear()
    assert audit(rig.pool) == []
