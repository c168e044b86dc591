"""What will be needed next: the steps of the jobs under way, as their owners know them.

A runner knows its graph, so it knows in which order models will be used. The pool keeps what is needed soonest, evicts
what is needed last or not at all, and brings the next model while the present one computes.
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import inf
from typing import TYPE_CHECKING, Protocol
from weakref import WeakValueDictionary

from ..errors import VramError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from types import TracebackType

    import torch
    from typing_extensions import Self

    from .records import ModelSource

LOOKAHEAD = 8
"""How many steps ahead models are read into RAM."""

PROMOTE_AHEAD = 2
"""How many steps ahead they are copied to their accelerator. In the simulation of ``bench/vram_policies.py`` 8 moved a
tenth more bytes than 2 and saved no stall: what came that early often had to leave again."""


@dataclass(frozen=True)
class PlanStep:
    """One step of a job.

    Attributes:
        sources: the models it will lease; may be none.
        device: where; None leaves that to the pool.
        working_bytes: what its calls will allocate beside the weights; kept free while the step is in hand.
    """

    sources: tuple[ModelSource, ...]
    device: torch.device | None = None
    working_bytes: int = 0


class Planner(Protocol):
    """What a plan needs of its pool."""

    def _begin_plan(self, plan: Plan) -> None: ...

    def _move_plan(self, plan: Plan, position: int) -> None: ...

    def _end_plan(self, plan: Plan) -> None: ...


class Plan:
    """The steps of one job, and where it stands. It counts from where it is entered to where it is left.

    Attributes:
        job_id: names the job.
        steps: in order.
        position: the step in hand; those before it are over.
        prefetch: whether models are brought ahead of their step.
    """

    def __init__(self, pool: Planner, job_id: str, steps: Sequence[PlanStep], *, prefetch: bool) -> None:
        self._pool = pool
        self.job_id = job_id
        self.steps = tuple(steps)
        self.prefetch = prefetch
        self.position = 0
        self._entered = False
        self._uses: dict[str, list[int]] = {}
        for index, step in enumerate(self.steps):
            for source in step.sources:
                self._uses.setdefault(source.key, []).append(index)

    def __enter__(self) -> Self:
        if self._entered:
            raise VramError("a plan can be entered only once", hint="Ask the pool for another one.")
        self._entered = True
        try:
            self._pool._begin_plan(self)
        except BaseException:  # an interrupt may come when it is in force already
            self._pool._end_plan(self)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        self._pool._end_plan(self)

    def reach(self, position: int) -> None:
        """Say that the step ``position`` begins, counted from 0; everything before it is over.

        Raises:
            VramError: there is no such step, or it is over.
        """
        if not self.position <= position <= len(self.steps):
            raise VramError(f"the plan of {self.job_id} has {len(self.steps)} steps and stands at {self.position}")
        self._pool._move_plan(self, position)

    @property
    def current(self) -> PlanStep | None:
        """The step in hand; None once all are over."""
        return self.steps[self.position] if self.position < len(self.steps) else None

    def next_use(self, key: str) -> float:
        """In how many steps ``key`` is needed; 1 is the step in hand, infinity never again."""
        uses = self._uses.get(key, ())
        index = bisect_left(uses, self.position)
        return uses[index] - self.position + 1 if index < len(uses) else inf

    def mentions(self, key: str) -> bool:
        """Whether any step needs ``key``, be it over or not."""
        return key in self._uses

    def ahead(self) -> Iterator[tuple[int, PlanStep]]:
        """The step in hand and the next ones, with their distance as `next_use` counts it."""
        yield from enumerate(self.steps[self.position : self.position + LOOKAHEAD + 1], start=1)


class PlanBook:
    """The plans in force; used under the pool's lock.

    Attributes:
        plans: by job. Held weakly: the plan of a job that was interrupted on its way out ends with the job.
    """

    def __init__(self) -> None:
        self.plans: WeakValueDictionary[str, Plan] = WeakValueDictionary()

    def next_use(self, key: str) -> float | None:
        """In how many steps the next job needs ``key``; infinity if none does, None where there is no plan."""
        # One look: a plan that nobody holds any longer may go at any moment.
        return min((plan.next_use(key) for plan in tuple(self.plans.values())), default=None)

    def mentions(self, key: str) -> bool:
        """Whether a plan says when ``key`` is needed, be it no longer."""
        return any(plan.mentions(key) for plan in tuple(self.plans.values()))

    def ahead(self) -> list[tuple[int, PlanStep, ModelSource, Plan]]:
        """What the plans will need, soonest first."""
        coming = [
            (distance, step, source, plan)
            for plan in self.plans.values()
            if plan.prefetch
            for distance, step in plan.ahead()
            for source in step.sources
        ]
        return sorted(coming, key=lambda each: each[0])
