"""Cancellation, failed loads and device faults at every point where they can come, while threads compete.

Each scenario is run again and again, with the fault at its first opportunity, its second, and so on until it no longer
comes to pass; after each run `Crowd.check` asks for books that are right and models that can be had.
"""

from __future__ import annotations

from contextlib import suppress
from itertools import count

import pytest
import torch
from line_interrupts import Interrupt
from pool_crowd import CPU, GPU, UNIT, Crowd
from pool_scheduler import scheduled

from photokeep_nodes.errors import VramError
from photokeep_nodes.vram_manager import PlanStep

SEEDS = range(4)


class Countdown:
    """Raises Interrupt at its ``number``-th call."""

    def __init__(self, number: int) -> None:
        self.left = number

    def __call__(self) -> None:
        self.left -= 1
        if self.left == 0:
            raise Interrupt

    @property
    def fired(self) -> bool:
        return self.left <= 0


class NthFails:
    """Gives an error at its ``number``-th call, as `Source.fault`."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.left = number
        self.error = error

    def __call__(self) -> BaseException | None:
        self.left -= 1
        return self.error("no") if self.left == 0 else None

    @property
    def fired(self) -> bool:
        return self.left <= 0


def compete(crowd: Crowd, *, check=None, catch=(Interrupt,)) -> None:
    """Start three threads that want more than there is room for, of which one can be cancelled."""
    a, b, c, d = crowd.models

    def one() -> None:
        crowd.touch(d, compute_s=0.5)
        crowd.touch(a, b, compute_s=0.2)
        crowd.touch(c, working_bytes=UNIT)

    def two() -> None:
        crowd.touch(a, device=CPU, compute_s=0.3)
        crowd.touch(c, a)
        crowd.touch(d, compute_s=0.4)

    def cancelled() -> None:
        with suppress(*catch):
            crowd.touch(b, compute_s=0.1, check_interrupted=check)
            crowd.touch(d, check_interrupted=check, working_bytes=UNIT)
            crowd.touch(c, a, check_interrupted=check)

    def tolerant(work) -> None:
        with suppress(*catch):
            work()

    for work in (one, two):
        crowd.scheduler.spawn(lambda work=work: tolerant(work))
    crowd.scheduler.spawn(cancelled)


@pytest.mark.parametrize("seed", SEEDS)
def test_the_callers_check_may_raise_at_any_call(seed):  # I6, I7
    for number in count(1):
        check = Countdown(number)
        with scheduled(seed) as scheduler:
            crowd = Crowd(scheduler, vram=4, ram=6)
            compete(crowd, check=check)
            scheduler.run()
            crowd.check()
        if not check.fired:
            break
    assert number > 3, "nobody had to wait"


@pytest.mark.parametrize("late", [False, True])
@pytest.mark.parametrize("error", [OSError, MemoryError, Interrupt, KeyboardInterrupt])
def test_any_load_may_fail(error, late):  # I6
    for seed in SEEDS:
        for number in count(1):
            with scheduled(seed) as scheduler:
                crowd = Crowd(scheduler, vram=4, ram=6)
                fault = NthFails(number, error)
                for source in crowd.models:
                    source.fault, source.fails_late = fault, late
                compete(crowd, catch=(error, VramError))
                scheduler.run()
                crowd.check()
            if not fault.fired:
                break
        assert number > 4


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError, RuntimeError])
def test_any_call_of_the_device_may_fail(fault):  # I4, I6
    for seed in SEEDS:
        for number in count(1):
            with scheduled(seed) as scheduler:
                crowd = Crowd(scheduler, vram=4, ram=6)
                crowd.gpu.fails_at, crowd.gpu.fails_with = number, fault
                compete(crowd, catch=(VramError,))
                scheduler.run()
                reached = crowd.gpu.calls >= number
                crowd.check()
            if not reached:
                break
        assert number > 10


def with_a_plan(crowd: Crowd, catch=(Interrupt,)) -> None:
    """A job with a plan, its prefetch thread, and a stranger without one."""
    a, b, c, d = crowd.models
    steps = [PlanStep((source,), GPU, UNIT if source is a else 0) for source in (a, c, b, d, a)]

    def job() -> None:
        with suppress(*catch), crowd.pool.plan("job", steps) as plan:
            for index, step in enumerate(steps):
                plan.reach(index)
                crowd.touch(*step.sources, compute_s=1.5, working_bytes=step.working_bytes)

    def stranger() -> None:
        with suppress(*catch):
            crowd.touch(d, compute_s=0.7)
            crowd.touch(b, c)

    crowd.scheduler.spawn(job, "job")
    crowd.scheduler.spawn(stranger, "stranger")


@pytest.mark.parametrize("fault", [torch.OutOfMemoryError, RuntimeError])
def test_any_call_of_the_device_may_fail_while_models_are_brought_ahead(fault):
    for number in count(1):
        with scheduled(number) as scheduler:
            crowd = Crowd(scheduler, vram=5, ram=20)
            crowd.gpu.fails_at, crowd.gpu.fails_with = number, fault
            with_a_plan(crowd, catch=(VramError,))
            scheduler.run()
            reached = crowd.gpu.calls >= number
            crowd.check()
        if not reached:
            break
    assert number > 8


def interrupt_each(thread: int, numbers) -> set[str]:
    """Interrupt a thread of `with_a_plan` at each of ``numbers`` of its lines, and return where that was."""
    places = set()
    for number in numbers:
        with scheduled(number) as scheduler:
            crowd = Crowd(scheduler, vram=5, ram=20)
            with_a_plan(crowd)
            task = scheduler.tasks[thread]
            task.interrupt_at = number
            scheduler.run()
            places.add(task.interrupted_in)
            crowd.check()
        if not task.interrupted_in:
            break
    return places - {""}


@pytest.mark.parametrize("thread", [0, 1])
def test_an_interrupt_beside_a_prefetch_leaves_the_pool_sound(thread):  # I6
    assert len(interrupt_each(thread, range(1, 2000, 17))) > 8


@pytest.mark.slow
@pytest.mark.parametrize("thread", [0, 1])
def test_an_interrupt_at_any_line_beside_a_prefetch_leaves_the_pool_sound(thread):  # I6
    assert len(interrupt_each(thread, count(1))) > 60


# -- in the prefetch thread -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("error", [OSError, MemoryError, Interrupt, SystemExit])
def test_a_load_that_fails_ahead_of_its_step_is_not_repeated_without_a_pause(error):
    with scheduled(0, limit=50_000) as scheduler:
        crowd = Crowd(scheduler, vram=6, ram=20)
        a, b, c, _ = crowd.models
        b.fails = [error("no")] * 1000
        seen = []

        def job() -> None:
            with crowd.pool.plan("job", [PlanStep((each,), GPU) for each in (a, b, c)]):
                crowd.touch(a, compute_s=5)
                seen.append((b.loads, crowd.pool.stats()["counters"]["foreseen_loads"]))

        scheduler.spawn(job)
        scheduler.run()
        [(tries, brought)] = seen
        assert 1 <= tries <= 3
        assert brought >= 1, "the one after it was brought all the same"
        crowd.check()


@pytest.mark.parametrize("fault", ["failing_allocations", "failing_copies"])
def test_a_device_that_fails_a_prefetch_is_not_asked_again_without_a_pause(fault):
    with scheduled(0, limit=50_000) as scheduler:
        crowd = Crowd(scheduler, vram=6, ram=20)
        a, b, _, _ = crowd.models
        left = []

        def job() -> None:
            crowd.touch(a)
            setattr(crowd.gpu, fault, 1000)
            with crowd.pool.plan("job", [PlanStep((each,), GPU) for each in (a, b)]):
                crowd.touch(a, compute_s=5)
                left.append(getattr(crowd.gpu, fault))
                setattr(crowd.gpu, fault, 0)

        scheduler.spawn(job)
        scheduler.run()
        assert 980 < left[0] < 1000
        crowd.check()
