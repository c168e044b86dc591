"""Runs a pool's threads one at a time, in an order drawn from a seed, on a clock of its own.

Real threads, of which one holds the baton. It may pass the baton on at every line of the pool's code, before it takes
a lock and while it waits; who goes next is drawn. Locks, conditions and threads of the pool are replaced by ones that
know the baton, so a wait costs no time: when everybody waits, the clock jumps to the first timeout. One seed always
gives the same schedule, so a failure can be replayed.

Two ways of drawing: a random walk, and fixed priorities with a few changes on the way, which finds bugs that need few
switches at unlikely places (Burckhardt et al. 2010, "A randomized scheduler with probabilistic guarantees of finding
bugs").
"""

from __future__ import annotations

import gc
import linecache
import random
import sys
import threading
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from line_interrupts import Interrupt

from photokeep_nodes import _vram, vram_manager

WATCHDOG_S = 30.0  # of real time that one step may take; nothing waits for it but a broken test
_STEP_S = 1e-5  # of the scheduler's clock that a line takes
_UNTRACED = {"simulated.py", "policy.py", "report.py"}  # no shared state of the pool's is touched here
_FOLDER = str(Path(_vram.__file__).parent)


class Killed(BaseException):
    """The run is over; unwind."""


class StuckError(AssertionError):
    """Nobody can go on, or nothing gets done."""


@cache
def _is_traced(filename: str) -> bool:
    path = Path(filename)
    return filename == vram_manager.__file__ or (str(path.parent) == _FOLDER and path.name not in _UNTRACED)


class Task:
    """One thread of a run."""

    def __init__(self, name: str, function, priority: float) -> None:
        self.name = name
        self.function = function
        self.priority = priority
        self.baton = threading.Semaphore(0)
        self.thread: threading.Thread | None = None
        self.owner: object = None  # what the pool takes for the thread, where the pool began it
        self.ready = None  # what it waits for
        self.wakes_at: float | None = None
        self.waits_on = ""
        self.done = False
        self.locks = 0  # that it holds
        self.lines = 0  # of the pool's code that it ran without a lock
        self.interrupt_at = 0  # which of them raises Interrupt
        self.interrupted_in = ""


class Scheduler:
    """See the module.

    Args:
        seed: of the schedule.
        switch: chance that a line passes the baton on, where the walk is random.
        limit: of lines, after which a run counts as stuck.
    """

    def __init__(self, seed: int, *, switch: float = 0.05, limit: int = 300_000) -> None:
        self.seed = seed
        self.chance = random.Random(seed)
        self.by_priority = bool(seed % 2)
        self.switch = switch
        self.limit = limit
        self.changes = {self.chance.randrange(1, 4000) for _ in range(6)}
        self.now = 0.0
        self.steps = 0
        self.jumps = 0  # of the clock
        self.schedule: list[tuple[int, str]] = []
        self.tasks: list[Task] = []
        self.current: Task | None = None
        self.over = threading.Event()
        self.dead = False
        self.errors: list[BaseException] = []

    def clock(self) -> float:
        """Seconds, for the pool."""
        return self.now

    # -- for tests ----------------------------------------------------------------------------------------------------

    def spawn(self, function, name: str = "", interrupt_at: int = 0) -> Task:
        """Add a thread; it starts with `run`, or when the baton comes to it."""
        task = Task(name or f"task {len(self.tasks)}", function, self.chance.random() + 1)
        task.interrupt_at = interrupt_at
        self.tasks.append(task)
        task.thread = threading.Thread(target=self._main, args=(task,), name=task.name, daemon=True)
        task.thread.start()
        return task

    def run(self) -> None:
        """Run all tasks to their end, and raise what the first of them raised."""
        collecting = gc.isenabled()
        gc.disable()  # a finalizer at a moment of the collector's choosing would change the schedule: see `_choose`
        gc.freeze()
        try:
            self._pass_on(None)
            if not self.over.wait(WATCHDOG_S * 4):
                self._fail(StuckError(f"seed {self.seed}: {self._who()}"))
            for task in self.tasks:
                task.thread.join(WATCHDOG_S)
        finally:
            gc.collect()  # what lost leases hold; without the rest of the process, which is frozen, it is quick
            gc.unfreeze()
            if collecting:
                gc.enable()
        if self.errors:
            raise AssertionError(f"seed {self.seed}: {self.errors[0]!r}") from self.errors[0]

    def sleep(self, seconds: float) -> None:
        """Let time pass, as a computation does."""
        self.block(lambda: False, seconds, "sleep")

    def point(self, likely: float | None = None) -> None:
        """Perhaps pass the baton on."""
        task = self.current
        if self.dead:
            raise Killed
        if task is None or threading.current_thread() is not task.thread:
            return  # the test itself, before or after the run
        self.steps += 1
        self.now += _STEP_S
        if self.steps > self.limit:
            self._fail(StuckError(f"seed {self.seed}: no end after {self.steps} lines; {self._who()}"))
            raise Killed
        if self.by_priority:
            if self.steps in self.changes:
                task.priority = self.chance.random() / self.steps
            elif self.steps % 64:
                return  # ranks change rarely, so the ranking does not have to be looked at on each line
        elif self.chance.random() >= (self.switch if likely is None else likely):
            return
        self._pass_on(task)

    # -- for locks and waits ------------------------------------------------------------------------------------------

    def inside(self) -> Task | None:
        """The task whose thread this is, or None in the test's own thread."""
        task = self.current
        return task if task is not None and threading.current_thread() is task.thread else None

    def block(self, ready, timeout: float | None, what: str) -> None:
        """Wait until ``ready()`` or the timeout."""
        task = self.inside()
        if self.dead:
            raise Killed
        if task is None:
            raise StuckError(f"seed {self.seed}: outside of the run somebody waits for {what}; {self._who()}")
        task.ready, task.waits_on = ready, what
        task.wakes_at = None if timeout is None else self.now + max(0.0, timeout)
        self._pass_on(task)
        task.ready, task.wakes_at, task.waits_on = None, None, ""

    def _runnable(self, task: Task) -> bool:
        if task.done:
            return False
        return task.ready is None or task.ready() or (task.wakes_at is not None and task.wakes_at <= self.now)

    def _choose(self) -> Task | None:
        left = [task for task in self.tasks if not task.done]
        able = [task for task in left if self._runnable(task)]
        if not able:
            timed = [task for task in left if task.wakes_at is not None]
            if not timed:
                return None
            able = [min(timed, key=lambda each: each.wakes_at)]
            self.now = able[0].wakes_at
            self.jumps += 1
            if self.jumps % 8 == 0:
                gc.collect()  # somebody may wait for a lease that only a cycle keeps alive
        if self.by_priority:
            return max(able, key=lambda each: each.priority)
        return self.chance.choice(able)

    def _pass_on(self, task: Task | None) -> None:
        """Give the baton to whoever is drawn, and wait for it to come back."""
        following = self._choose()
        if following is None:
            if any(not each.done for each in self.tasks):
                self._fail(StuckError(f"seed {self.seed}: deadlock; {self._who()}"))
            self.current = None
            self.over.set()
            if task is not None and not task.done:
                raise Killed
            return
        if following is task:
            return
        self.schedule.append((self.steps, following.name))
        self.current = following
        following.baton.release()
        if task is not None and not task.done:
            self._await_baton(task)

    def _await_baton(self, task: Task) -> None:
        if not task.baton.acquire(timeout=WATCHDOG_S):
            self._fail(StuckError(f"seed {self.seed}: {task.name} waited in vain; {self._who()}"))
        if self.dead:
            raise Killed

    def _main(self, task: Task) -> None:
        try:
            self._await_baton(task)
            sys.settrace(self._trace)
            try:
                task.function()
            finally:
                sys.settrace(None)
        except Killed:
            pass
        except BaseException as error:  # noqa: BLE001 - the test is told, in its own thread
            self._fail(error)
        finally:
            task.done = True
            task.function = None
            if not self.dead:
                self._pass_on(task)

    def _fail(self, error: BaseException) -> None:
        self.errors.append(error)
        self.dead = True
        self.over.set()
        for task in self.tasks:
            task.baton.release()

    def _who(self) -> str:
        return "; ".join(f"{task.name} waits for {task.waits_on or 'nothing'}" for task in self.tasks if not task.done)

    # -- tracing ------------------------------------------------------------------------------------------------------

    def _trace(self, frame, event, _argument):
        # Not in finalizers: nothing raised in them gets out. Nor in comprehensions: any() over a set takes as many
        # steps as the order of its elements, which is their addresses', would have it.
        name = frame.f_code.co_name
        traced = _is_traced(frame.f_code.co_filename) and name not in ("__del__", "_lose") and name[0] != "<"
        return self._line if traced else None

    def _line(self, frame, event, _argument):
        task = self.current
        if event != "line" or task is None or self.dead:
            return self._line
        if task.locks:
            self.point(self.switch / 5)
            return self._line
        if task.interrupt_at and task.interrupt_at > task.lines:
            # Leaving a with block shows up as its first line once more, where no interpreter would interrupt.
            task.lines += "with " not in linecache.getline(frame.f_code.co_filename, frame.f_lineno)
            if task.lines == task.interrupt_at:
                task.interrupted_in = f"{Path(frame.f_code.co_filename).name}:{frame.f_lineno}"
                raise Interrupt
        self.point()
        return self._line


class Lock:
    """In place of threading.Lock, and of RLock."""

    def __init__(self, scheduler: Scheduler, *, again: bool = False) -> None:
        self._scheduler = scheduler
        self._owner: object = None
        self._depth = 0
        self._again = again

    def acquire(self, blocking: bool = True, timeout: float = -1) -> bool:
        scheduler = self._scheduler
        me = threading.current_thread()
        if self._again and self._owner is me:
            self._depth += 1
            return True
        if not scheduler.dead:
            if blocking:
                scheduler.point()
            if self._owner is not None:
                if not blocking:
                    return False
                while self._owner is not None and not scheduler.dead:
                    scheduler.block(lambda: self._owner is None, None, "a lock")
        self._owner, self._depth = me, 1
        if (task := scheduler.inside()) is not None:
            task.locks += 1
        return True

    def release(self) -> None:
        self._depth -= 1
        if self._depth <= 0:
            self._owner = None
            if (task := self._scheduler.inside()) is not None:
                task.locks -= 1

    def locked(self) -> bool:
        return self._owner is not None

    def __enter__(self) -> bool:
        return self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


class Condition:
    """In place of threading.Condition."""

    def __init__(self, scheduler: Scheduler, lock: Lock | None = None) -> None:
        self._scheduler = scheduler
        self._lock = Lock(scheduler, again=True) if lock is None else lock
        self._waiting: list[list[bool]] = []
        self.acquire, self.release = self._lock.acquire, self._lock.release

    def __enter__(self) -> bool:
        return self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        ticket = [False]
        self._waiting.append(ticket)
        self._lock.release()
        try:
            self._scheduler.block(lambda: ticket[0], timeout, "a condition")
        finally:
            if ticket in self._waiting:
                self._waiting = [each for each in self._waiting if each is not ticket]
            self._lock.acquire()
        return ticket[0]

    def notify(self, n: int = 1) -> None:
        for ticket in self._waiting[:n]:
            ticket[0] = True
        del self._waiting[:n]

    def notify_all(self) -> None:
        self.notify(len(self._waiting))


class _Thread:
    """In place of threading.Thread."""

    def __init__(self, scheduler: Scheduler, *, target, name: str, daemon: bool = True, args: tuple = ()) -> None:
        self._scheduler = scheduler
        self._target, self.name, self._args = target, name, args
        self._task: Task | None = None

    def start(self) -> None:
        target, args = self._target, self._args
        self._task = self._scheduler.spawn(lambda: target(*args), self.name)
        self._task.owner = self

    def join(self, timeout: float | None = None) -> None:
        task = self._task
        if not task.done:
            self._scheduler.block(lambda: task.done, timeout, self.name)

    def is_alive(self) -> bool:
        return self._task is not None and not self._task.done


class _Threading:
    """In place of the module, where the pool's own modules look it up."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.Lock = lambda: Lock(scheduler)
        self.RLock = lambda: Lock(scheduler, again=True)
        self.Condition = lambda lock=None: Condition(scheduler, lock)
        self.Thread = lambda **options: _Thread(scheduler, **options)
        self._scheduler = scheduler

    def current_thread(self) -> object:
        task = self._scheduler.inside()
        return threading.current_thread() if task is None or task.owner is None else task.owner

    def __getattr__(self, name: str) -> object:
        return getattr(threading, name)


@contextmanager
def scheduled(seed: int, **options):
    """Yield a scheduler; a pool made in the body is under its control, and so are the threads that use it."""
    scheduler = Scheduler(seed, **options)
    modules = [
        module
        for name, module in sys.modules.items()
        if name.startswith(f"{_vram.__name__}.") and not name.endswith(".simulated")
        if getattr(module, "threading", None) is threading
    ]
    for module in modules:
        module.threading = _Threading(scheduler)
    try:
        yield scheduler
    finally:
        for module in modules:
            module.threading = threading
