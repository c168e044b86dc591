"""The thread that brings models before they are asked for. It lives as long as there are plans."""

from __future__ import annotations

import atexit
import logging
import os
import threading
import weakref
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_log = logging.getLogger(__name__)

_IDLE_S = 0.5  # how long it sleeps where nobody wakes it
_EXIT_S = 5.0  # how long the end of the process waits for a load in the middle


class Prefetcher:
    """Calls ``work`` whenever something may have changed, until there is nothing more to do.

    Args:
        work: brings one model a tier nearer; returns whether it did. Called in the thread, without locks.
        wanted: whether there is a plan to work for.
    """

    def __init__(self, work: Callable[[], bool], wanted: Callable[[], bool]) -> None:
        self._work = work
        self._wanted = wanted
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._woken = False
        self._stopping = False
        self._holds = 0
        self._process = os.getpid()
        _all.add(self)

    @property
    def alive(self) -> bool:
        """Whether the thread runs."""
        return self._thread is not None

    def wake(self) -> None:
        """Say that there may be something to do: a plan began, moved on or ended, or room came free.

        What the thread itself frees is no news: else it would try for ever, without a pause, what has just failed.
        """
        if threading.current_thread() is self._thread:
            return
        with self._changed:
            self._woken = True
            self._changed.notify_all()
            if self._thread is None and not self._stopping and self._wanted():
                # A daemon: a process that is told to end does not wait for a load nobody will use.
                self._thread = threading.Thread(target=self._run, name="photokeep-prefetch", daemon=True)
                self._thread.start()

    def __enter__(self) -> None:
        """Bring nothing for the duration of the body: somebody is short of memory."""
        with self._changed:
            self._holds += 1

    def __exit__(self, *_: object) -> None:
        with self._changed:
            self._holds -= 1
        self.wake()

    def stop(self, timeout_s: float) -> bool:
        """End the thread for good.

        Returns:
            Whether it ended in time; a load it is in the middle of is not cut short.
        """
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
            thread = self._thread
        if thread is not None:
            thread.join(max(0.0, timeout_s))
        return not self.alive

    def _run(self) -> None:
        while self._await_work():
            try:
                while not self._stopping and not self._holds and self._work():
                    pass
            except BaseException:  # noqa: BLE001 - nobody is there to be told (a host's interrupt, of another job): go on
                _log.exception("a model could not be brought ahead of its use")

    def _await_work(self) -> bool:
        """Sleep until woken; False once the thread should end."""
        with self._changed:
            while not self._stopping and self._wanted():
                if self._woken:
                    self._woken = False
                    return True
                self._changed.wait(_IDLE_S)
            self._thread = None  # under the lock: who wakes it from now on starts another
            return False


_all: weakref.WeakSet[Prefetcher] = weakref.WeakSet()


@atexit.register
def _stop_all() -> None:
    # A daemon thread inside torch while the interpreter is taken down can crash the process.
    for prefetcher in tuple(_all):
        # A forked child has no thread of its parent's, and may have one of its locks, held for ever.
        if prefetcher._process == os.getpid():
            prefetcher.stop(_EXIT_S)
