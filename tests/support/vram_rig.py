"""A pool over simulated accelerators, and models that count their loads: what the tests of the pool share."""

from __future__ import annotations

import threading
import weakref

import torch
from torch import nn

from photokeep_nodes._vram.simulated import SimulatedDevice
from photokeep_nodes.vram_manager import VramPool

GPU = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
CPU = torch.device("cpu")
UNIT = 1024


class Source:
    """A model of ``units`` KiB that counts its loads."""

    def __init__(self, key: str, units: int = 1, estimate: int | None = None) -> None:
        self.key = key
        self.units = units
        self.weight_bytes = (units if estimate is None else estimate) * UNIT
        self.loads = 0
        self.error: BaseException | None = None
        self.built: weakref.ref[nn.Module] | None = None

    def load(self) -> nn.Module:
        self.loads += 1
        if self.error is not None:
            raise self.error
        generator = torch.Generator().manual_seed(sum(map(ord, self.key)))
        module = nn.Module()
        module.weight = nn.Parameter(torch.rand(self.units, UNIT // 4, generator=generator))
        self.built = weakref.ref(module)
        return module.eval()


class Clock:
    """A clock that a test moves by hand."""

    def __init__(self, now: float = 100.0) -> None:
        self.now = now

    def __call__(self) -> float:
        return self.now


def hold(source: Source) -> tuple[threading.Event, threading.Event]:
    """Make a source's load wait; return what is set once it began, and what lets it go on."""
    began, go = threading.Event(), threading.Event()
    load = source.load

    def held() -> nn.Module:
        began.set()
        assert go.wait(20)
        return load()

    source.load = held
    return began, go


class Rig:
    """A pool over simulated accelerators that have far more memory than the budget, so that an overrun would show."""

    def __init__(self, vram: int, ram: int = 100, **options) -> None:
        self.devices = {place: SimulatedDevice(1000 * UNIT) for place in (GPU, OTHER)}
        self.gpu = self.devices[GPU]
        self.pool = VramPool(
            vram_budgets={GPU: vram * UNIT, OTHER: vram * UNIT},
            ram_budget_bytes=ram * UNIT,
            open_device=self.devices.__getitem__,
            **options,
        )

    def touch(self, *sources: Source, device: torch.device = GPU, **options) -> None:
        with self.pool.lease(list(sources), device=device, **options):
            pass

    def states(self) -> dict[str, str]:
        return {model["key"]: model["state"] for model in self.pool.stats()["models"]}

    def used(self, place: str = "cuda:0") -> int:
        return self.pool.stats()["tiers"][place]["used_bytes"] // UNIT

    def __getattr__(self, counter: str) -> int:
        return self.pool.stats()["counters"][counter]
