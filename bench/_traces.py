"""Seeded traces of model requests, and the exact optimum of what they need to move.

A trace is what one process is asked for over a day's work: which models are leased together, for how long they compute
and how many working bytes they take. Shapes are those of the shipped workflows.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

GB = 1024
"""Everything is scaled down by 2**20: a gigabyte is 1,024 bytes, so that nothing real is allocated."""

ROLES = {"detect": 2, "denoise": 3, "upscale": 4, "face": 3, "color": 3}
"""How many of the 15 models can do each job."""

RESTORE = ("detect", "denoise", "upscale", "detect", "face", "color")
"""``workflows/restore.json``: analyse, denoise, upscale, find the faces again, restore them, colorize."""

BEFORE_AFTER = ("denoise", "upscale")
"""``workflows/before_after.json``."""

OPTIONAL = {"face": 0.25, "color": 0.4}
"""How often a photo in a mixed folder has no face, or has colour already: the stage then asks for nothing."""

COMPUTE_S = {"detect": 0.2, "denoise": 0.5, "upscale": 3.0, "face": 0.6, "color": 0.4}
WORKING = {"detect": GB // 8, "denoise": GB // 4, "upscale": GB // 2, "face": GB // 4, "color": GB // 8}


@dataclass(frozen=True)
class Step:
    """One lease: models by index, working bytes, seconds of compute."""

    models: tuple[int, ...]
    working_bytes: int
    compute_s: float


@dataclass(frozen=True)
class Trace:
    """A list of leases over 15 models.

    Attributes:
        sizes: bytes per model, 1 to 12 "GB".
    """

    kind: str
    seed: int
    sizes: tuple[int, ...]
    steps: tuple[Step, ...]

    def fitting(self, budget: int) -> Trace:
        """Leave out the leases that no policy could grant within ``budget``; a host would run those on the CPU."""
        steps = tuple(each for each in self.steps if self.need_bytes(each) <= budget)
        return Trace(self.kind, self.seed, self.sizes, steps)

    def need_bytes(self, step: Step) -> int:
        """Bytes that ``step`` holds while it runs."""
        return step.working_bytes + sum(self.sizes[model] for model in step.models)


class _Studio:
    """Fifteen models, and workflows over them."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        models = list(range(sum(ROLES.values())))
        rng.shuffle(models)
        self.by_role: dict[str, list[int]] = {}
        for role, n_models in ROLES.items():
            self.by_role[role], models = models[:n_models], models[n_models:]
        shapes = [RESTORE, RESTORE, RESTORE, BEFORE_AFTER, BEFORE_AFTER]
        self.workflows = [self._workflow(shape) for shape in shapes]

    def _workflow(self, shape: Sequence[str]) -> list[tuple[str, int]]:
        model_of = {role: self.rng.choice(models) for role, models in self.by_role.items()}
        return [(role, model_of[role]) for role in shape]

    def photo(self, workflow: list[tuple[str, int]], *, mixed: bool) -> Iterator[Step]:
        """Yield the leases of one photo."""
        left_out = {role for role, share in OPTIONAL.items() if mixed and self.rng.random() < share}
        found = False
        for role, model in workflow:
            # Without a face the second search is left out as well: the first one found none.
            if role in left_out or (role == "detect" and found and "face" in left_out):
                continue
            found |= role == "detect"
            yield self.step(role, model)

    def step(self, role: str, model: int) -> Step:
        """Return one lease of one model."""
        return Step((model,), WORKING[role], COMPUTE_S[role] * self.rng.uniform(0.5, 2.0))

    def batches(self, *, mixed: bool) -> Iterator[Step]:
        """Folder after folder, each through one workflow."""
        while True:
            workflow = self.rng.choice(self.workflows)
            for _ in range(self.rng.randint(8, 30)):
                yield from self.photo(workflow, mixed=mixed)

    def clicks(self) -> Iterator[Step]:
        """Somebody at the editor: a workflow, a few tries of one of its stages, the next model for the same job."""
        while True:
            workflow = self.rng.choice(self.workflows[: self.rng.randint(1, len(self.workflows))])
            for _ in range(self.rng.randint(1, 3)):
                yield from self.photo(workflow, mixed=False)
            role, model = self.rng.choice(workflow)
            for _ in range(self.rng.randint(0, 4)):
                yield self.step(role, model)
                if self.rng.random() < 0.4:
                    model = self.rng.choice(self.by_role[role])

    def users(self) -> Iterator[Step]:
        """Several people at once: their leases interleave."""
        streams = [self.batches(mixed=False), self.batches(mixed=True), self.clicks()]
        while True:
            yield next(self.rng.choice(streams))


KINDS = ("batch", "mixed batch", "clicks", "three users")


def make_trace(kind: str, seed: int, n_steps: int) -> Trace:
    """Build one trace.

    Args:
        kind: one of `KINDS`.
        seed: models, workflows and requests follow from it.
        n_steps: leases.
    """
    rng = random.Random(f"{kind} {seed}")
    sizes = [GB, 12 * GB, *(round(GB * 12 ** rng.random() / 64) * 64 for _ in range(13))]
    rng.shuffle(sizes)
    studio = _Studio(rng)
    streams = {
        "batch": lambda: studio.batches(mixed=False),
        "mixed batch": lambda: studio.batches(mixed=True),
        "clicks": studio.clicks,
        "three users": studio.users,
    }
    stream = streams[kind]()
    return Trace(kind, seed, tuple(sizes), tuple(next(stream) for _ in range(n_steps)))


def reload_each_bytes(trace: Trace) -> int:
    """Bytes moved where every lease brings its models and takes them away again."""
    return sum(trace.sizes[model] for step in trace.steps for model in step.models)


def optimal_bytes(trace: Trace, budget: int) -> int:
    """Return the fewest bytes that any policy, knowing the future, could move for ``trace`` within ``budget``.

    Exact, by dynamic programming over the set of resident models: ``moved[S]`` is the least that leads to a state whose
    residents include ``S``. A lease first adds what it needs to every state, paying for it; then a state may shed any
    models, which is the superset minimum over the lattice; then sets that do not fit beside the working bytes go.
    """
    n_models = len(trace.sizes)
    impossible = np.int64(1) << 40
    bytes_of = subset_sums(trace.sizes)
    moved = np.full(1 << n_models, impossible)
    moved[0] = 0
    for step in trace.steps:
        for model in range(n_models):
            without, with_it = _halves(moved, model)
            if model in step.models:
                np.minimum(with_it, without + trace.sizes[model], out=with_it)
                without[...] = impossible
            else:
                np.minimum(without, with_it, out=without)
        moved[bytes_of > budget - step.working_bytes] = impossible
    return int(moved.min())


def subset_sums(values: Sequence[int]) -> np.ndarray:
    """Return the sum of every subset of ``values``, indexed by bit mask; shape (2**n,)."""
    sums = np.zeros(1, dtype=np.int64)
    for value in values:
        sums = np.concatenate((sums, sums + value))
    return sums


def _halves(array: np.ndarray, bit: int) -> tuple[np.ndarray, np.ndarray]:
    pairs = array.reshape(-1, 2, 1 << bit)
    return pairs[:, 0], pairs[:, 1]
