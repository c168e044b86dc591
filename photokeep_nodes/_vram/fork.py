"""What a forked child may keep of its parent's pools: nothing (I12).

An accelerator's context does not survive a fork, other threads and their leases do not exist in the child, and a lock
another thread held would never be released.
"""

from __future__ import annotations

import os
import weakref
from typing import Protocol

from ..peak_memory import cuda_in_use


class Forkable(Protocol):
    """Something to be told of a fork, in the child."""

    def _forked(self, *, cuda_was_live: bool) -> None: ...


_watched: weakref.WeakSet[Forkable] = weakref.WeakSet()
_cuda_was_live = [False]


def watch(pool: Forkable) -> None:
    """Tell ``pool`` when it finds itself in a forked child."""
    _watched.add(pool)


def _before() -> None:
    # Asked in the parent: in the child torch answers that CUDA is not initialised.
    _cuda_was_live[0] = cuda_in_use()


def _in_child() -> None:
    for pool in tuple(_watched):
        pool._forked(cuda_was_live=_cuda_was_live[0])


if hasattr(os, "register_at_fork"):  # pragma: no branch - Windows does not fork
    os.register_at_fork(before=_before, after_in_child=_in_child)
