"""Many schedules of a few threads, each drawn from a seed and run one line at a time; see `pool_scheduler`.

A failure names its seed: ``one_run(SEED)`` replays it.
"""

from __future__ import annotations

import random
from contextlib import suppress

import pytest
from line_interrupts import Interrupt
from pool_crowd import CPU, GPU, OTHER, UNIT, Crowd
from pool_scheduler import Lock, Scheduler, scheduled

from photokeep_nodes.errors import VramError
from photokeep_nodes.vram_manager import PlanStep

QUICK_SEEDS = 150
SLOW_SEEDS = 3000


class Anything:
    """Threads that do with a pool whatever is drawn."""

    def __init__(self, crowd: Crowd, chance: random.Random) -> None:
        self.crowd = crowd
        self.chance = chance

    def lease(self, depth: int = 0) -> None:
        chance, crowd = self.chance, self.crowd
        with crowd.pool.lease(
            chance.sample(crowd.models, chance.choice((1, 1, 1, 2))),
            device=chance.choice((GPU, GPU, GPU, OTHER, CPU, None)),
            working_bytes=chance.choice((0, 0, 0, UNIT)),
            timeout_s=chance.choice((None, None, 0, 0.3)),
            priority=chance.choice((0, 0, 1)),
        ) as lease:
            intact = [source.intact(module) for source, module in zip(lease.sources, lease.modules, strict=True)]
            assert all(intact), f"I9 {lease.names}: other weights"
            if chance.random() < 0.5:
                crowd.scheduler.sleep(chance.choice((0.01, 0.2)))
            if depth == 0 and chance.random() < 0.2:
                self.lease(1)
            if chance.random() < 0.05:
                raise Interrupt
            intact = [source.intact(module) for source, module in zip(lease.sources, lease.modules, strict=True)]
            assert all(intact), f"I2 {lease.names}: moved or emptied while leased"

    def touch(self) -> None:
        chance = self.chance
        self.crowd.touch(chance.choice(self.crowd.models), compute_s=chance.choice((0, 0.1)))

    def plan(self) -> None:
        chance, crowd = self.chance, self.crowd
        steps = [
            PlanStep(tuple(chance.sample(crowd.models, 1)), chance.choice((GPU, GPU, None)), chance.choice((0, UNIT)))
            for _ in range(chance.randint(1, 4))
        ]
        with crowd.pool.plan(f"job {chance.random()}", steps) as plan:
            for index, step in enumerate(steps):
                plan.reach(index)
                with crowd.pool.lease(step.sources, device=step.device, working_bytes=step.working_bytes):
                    crowd.scheduler.sleep(chance.choice((0.01, 1.5)))

    def other(self) -> None:
        chance, pool = self.chance, self.crowd.pool
        chance.choice(
            (
                lambda: pool.trim("vram", 2 * UNIT),
                lambda: pool.trim("ram", 2 * UNIT),
                lambda: pool.drop(chance.choice(self.crowd.models).key),
                lambda: pool.set_budget(GPU, chance.choice((3, 4, 6)) * UNIT),
                lambda: pool.available_bytes(GPU),
                lambda: pool.relieve(GPU),
                pool.stats,
            )
        )()

    def work(self) -> None:
        chance, crowd = self.chance, self.crowd
        for _ in range(chance.randint(2, 5)):
            with suppress(VramError, Interrupt, OSError, MemoryError):
                chance.choices((self.lease, self.touch, self.plan, self.other), (5, 1, 1, 2))[0]()
            if chance.random() < 0.1:
                chance.choice(crowd.models).fails.append(chance.choice((OSError("bad"), Interrupt(), MemoryError())))


def one_run(seed: int) -> Scheduler:
    chance = random.Random(seed)
    with scheduled(seed) as scheduler:
        crowd = Crowd(scheduler, vram=chance.choice((3, 4, 6)), ram=chance.choice((4, 6, 50)))
        anything = Anything(crowd, chance)
        for _ in range(chance.choice((2, 3, 3, 4))):
            scheduler.spawn(anything.work, interrupt_at=chance.choice((0, 0, 0, chance.randint(1, 600))))
        scheduler.run()
        crowd.check()
    return scheduler


def explore(seeds: range) -> None:
    runs = [one_run(seed) for seed in seeds]
    schedules = {tuple(run.schedule) for run in runs}
    assert len(schedules) >= 0.95 * len(runs), "the seeds explore next to nothing"
    assert sum(len(run.schedule) for run in runs) > 20 * len(runs), "the baton was hardly ever passed on"
    interrupted = {task.interrupted_in for run in runs for task in run.tasks} - {""}
    assert len(interrupted) > len(runs) / 20, "interrupts hit too few places"


def test_the_pool_stays_sound_under_many_schedules():  # I1 to I7, I9, I11
    explore(range(QUICK_SEEDS))


@pytest.mark.slow
def test_the_pool_stays_sound_under_many_more_schedules():
    explore(range(QUICK_SEEDS, SLOW_SEEDS))


@pytest.mark.parametrize("seed", range(6))
def test_a_seed_gives_the_same_schedule_again(seed):
    assert one_run(seed).schedule == one_run(seed).schedule


# -- the scheduler itself ---------------------------------------------------------------------------------------------


def test_it_finds_a_lost_update():
    def totals(seed: int) -> int:
        scheduler, total = Scheduler(seed, switch=0.3), [0]

        def add() -> None:
            before = total[0]
            for _ in range(64):
                scheduler.point()
            total[0] = before + 1

        for _ in range(2):
            scheduler.spawn(add)
        scheduler.run()
        return total[0]

    assert {totals(seed) for seed in range(20)} == {1, 2}


def test_it_finds_a_deadlock_and_does_not_hang():
    def outcome(seed: int) -> str:
        scheduler = Scheduler(seed, switch=0.3)
        locks = [Lock(scheduler), Lock(scheduler)]

        def take(first: Lock, second: Lock) -> None:
            with first:
                for _ in range(64):
                    scheduler.point()
                with second:
                    pass

        scheduler.spawn(lambda: take(*locks))
        scheduler.spawn(lambda: take(*reversed(locks)))
        try:
            scheduler.run()
        except AssertionError as error:
            return f"{type(error.__cause__).__name__} of {str(error).partition(':')[0]}"
        return "done"

    outcomes = [outcome(seed) for seed in range(20)]
    assert set(outcomes) <= {"done"} | {f"StuckError of seed {seed}" for seed in range(20)}
    assert 0 < outcomes.count("done") < 20


def test_it_ends_what_has_no_end():
    scheduler = Scheduler(0, limit=1000)

    def spin() -> None:
        while True:
            scheduler.point()

    scheduler.spawn(spin)
    with pytest.raises(AssertionError, match="no end after 1001 lines"):
        scheduler.run()


def test_its_clock_jumps_where_everybody_waits():
    scheduler, order = Scheduler(0), []

    def wait(seconds: float) -> None:
        scheduler.sleep(seconds)
        order.append(seconds)

    for seconds in (30.0, 10.0, 20.0):
        scheduler.spawn(lambda seconds=seconds: wait(seconds))
    scheduler.run()
    assert order == [10.0, 20.0, 30.0]
    assert scheduler.now == pytest.approx(30.0, abs=0.1)
