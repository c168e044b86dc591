"""Interrupts at every line of the pool that runs outside its lock."""

from __future__ import annotations

import linecache
import sys
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from types import ModuleType

    from photokeep_nodes.vram_manager import VramPool


class Interrupt(BaseException):
    """What a host raises to stop; not an Exception, as in ComfyUI."""


@contextmanager
def interrupt_at(
    number: int, pool: VramPool, seen: list[int], modules: tuple[ModuleType, ...], spared: str = ""
) -> Iterator[None]:
    """Raise Interrupt at the ``number``-th line of ``modules`` that runs while the pool's lock is open.

    Args:
        number: counted from 1.
        pool: whose lock counts.
        seen: filled with the lines' numbers.
        modules: whose lines count.
        spared: lines that hold this text do not count; none where it is empty.
    """
    traced = {module.__file__ for module in modules}

    def trace(frame, event, _argument):
        if frame.f_code.co_filename not in traced:
            return None
        line = linecache.getline(frame.f_code.co_filename, frame.f_lineno)
        # Leaving a with block shows up as its first line once more, where no interpreter would interrupt.
        skipped = "with " in line or (spared and spared in line) or frame.f_code.co_name == "__del__"
        if event == "line" and not pool._lock.locked() and not skipped:
            seen.append(frame.f_lineno)
            if len(seen) == number:
                sys.settrace(None)
                raise Interrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        yield
    finally:
        sys.settrace(before)
