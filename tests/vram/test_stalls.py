"""What leases had to wait for, by cause."""

from __future__ import annotations

import threading

import pytest
from vram_rig import GPU, Rig, Source

from photokeep_nodes._vram.records import STALL_CAUSES


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


class Slow(Source):
    """Takes its time to load, on the pool's clock."""

    clock: Clock

    def load(self):
        self.clock.now += 5
        return super().load()


@pytest.fixture
def clock():
    return Clock()


@pytest.fixture
def rig(clock):
    return Rig(2, clock=clock)


def slow(clock: Clock, key: str) -> Slow:
    source = Slow(key, 2)
    source.clock = clock
    return source


def stalls(rig: Rig) -> dict[str, float]:
    return {cause: seconds for cause, seconds in rig.pool.stats()["counters"]["stalls_s"].items() if seconds}


def test_reading_from_disk(rig, clock):
    rig.touch(slow(clock, "a"))
    assert stalls(rig) == {"load": 5}
    assert rig.stall_s == 5
    rig.touch(Source("a", 2))  # hot: nothing to wait for
    assert stalls(rig) == {"load": 5}


def test_copying_to_the_device(rig, clock, monkeypatch):
    copy = rig.gpu.copy

    def takes_a_while(source, target) -> None:
        clock.now += 3
        copy(source, target)

    monkeypatch.setattr(rig.gpu, "copy", takes_a_while)
    rig.touch(Source("a", 2))
    assert stalls(rig) == {"copy": 3}


def test_another_lease_and_another_threads_load(rig, clock):
    begun = threading.Event()
    go_on = threading.Event()

    class Shared(Source):
        def load(self):
            begun.set()
            assert go_on.wait(60)
            clock.now += 7
            return super().load()

    shared = Shared("a", 1)
    threads = [threading.Thread(target=rig.touch, args=(shared,)) for _ in range(2)]
    threads[0].start()
    assert begun.wait(60)
    threads[1].start()
    while rig.joined_loads == 0:
        pass
    go_on.set()
    for thread in threads:
        thread.join()
    assert stalls(rig) == {"load": 7, "other_thread": 7}

    with rig.pool.lease(shared, device=GPU):
        waiting = threading.Thread(target=rig.touch, args=(Source("b", 2),))
        waiting.start()
        while rig.waits == 0:
            pass
        clock.now += 11
    waiting.join()
    assert stalls(rig)["turn"] == 11


def test_every_cause_is_named_from_the_start(rig):
    assert tuple(rig.pool.stats()["counters"]["stalls_s"]) == STALL_CAUSES
