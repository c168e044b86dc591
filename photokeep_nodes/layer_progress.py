"""Progress inside a tile: each layer of a network tells the bar of the thread that runs it."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

    from . import host

running = threading.local()
"""``meter``: the `Meter` of this thread's run, if one is under way."""


def report_layers(module: torch.nn.Module) -> None:
    """Have each layer tell the meter of the thread that runs it.

    Once and for all when the module is built, for a resident module may serve several threads, and its hooks must not
    change while one of them runs it.
    """
    import torch

    for layer in module.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(_after_layer)


def _after_layer(*_: object) -> None:
    meter: Meter | None = getattr(running, "meter", None)
    if meter is not None:
        meter.after_layer()


class Meter:
    """Moves a progress bar by tiles, and layer by layer inside a tile: on a CPU one tile can take a minute.

    Each step also lets the user interrupt.
    """

    def __init__(self, bar: host.Progress, module: torch.nn.Module) -> None:
        import torch

        self._bar = bar
        self._layers = sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in module.modules())
        self._tiles = 0
        self._seen = 0

    def __enter__(self) -> Meter:
        running.meter = self
        return self

    def __exit__(self, *_: object) -> None:
        running.meter = None

    def after_tile(self, done: int, total: int) -> None:
        """Count a tile that is done, of ``total``."""
        self._tiles, self._seen = done, 0
        self._bar.total = total
        self._bar.reach(done)

    def after_layer(self) -> None:
        """Count a layer of the tile in hand."""
        self._seen += 1
        self._bar.reach(self._tiles + min(0.99, self._seen / self._layers))
