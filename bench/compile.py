"""Does torch.compile pay? Real-ESRGAN x4plus on one tile: as spandrel has it, as we run it, and compiled.

    python bench/compile.py [--side 128] [--rounds 3] [--json FILE]

Needs the starter extra and a C++ compiler. The blocks are compiled one by one, from one piece of code, with the tile's
shape fixed. The last figures say after how many tiles compiling would have paid for itself. `inference` does not
compile: what is gained is little, and it asks for a compiler on every user's machine.
"""

from __future__ import annotations

import os
import tempfile
import time
from typing import TYPE_CHECKING

import torch
from _figures import Figure, argument_parser, report
from _progress import steps

from photokeep_nodes import models, precision, weights

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}


def plain() -> nn.Module:
    """Build the network as spandrel has it."""
    from spandrel import ModelLoader

    spec = models.catalogue()["realesrgan-x4plus"]
    state = {key: value.float() for key, value in weights.load_state_dict(spec).items()}
    module: nn.Module = ModelLoader().load_from_state_dict(state).model
    return module.eval().requires_grad_(requires_grad=False)


def _compile_blocks(module: nn.Module) -> None:
    # One by one: they share one piece of code. Only now: `precision.prepare` has run the network with hooks on it.
    for block in module.modules():
        if type(block).__name__ == "RRDB":
            block.forward = torch.compile(block.forward, dynamic=False)


def caller(
    module: nn.Module, image: torch.Tensor, dtype: torch.dtype, *, compiling: bool = False
) -> Callable[[], torch.Tensor]:
    """Return what runs ``module`` as ``inference`` would, its blocks compiled at the first call if wanted."""
    module = precision.prepare(module, dtype, image[..., :8, :8]).to(memory_format=torch.channels_last)
    if compiling:
        _compile_blocks(module)
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        with torch.no_grad(), precision.computing(CPU, dtype):
            out: torch.Tensor = module(image)
            return out

    return run


def main() -> None:
    parser = argument_parser("Whether torch.compile pays on this CPU.")
    parser.add_argument("--side", type=int, default=128)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    image = torch.rand(1, 3, options.side, options.side, generator=torch.Generator().manual_seed(0))
    spec = models.catalogue()["realesrgan-x4plus"]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # so that compiling is really measured
        spandrels = plain()

        def unchanged() -> torch.Tensor:
            with torch.no_grad():
                out: torch.Tensor = spandrels(image)
                return out

        runs = {"spandrel, plain": unchanged}
        for name, dtype in DTYPES.items():
            runs[f"photokeep, {name}"] = caller(weights.load_module(spec), image, dtype)
            runs[f"compiled, {name}"] = caller(plain(), image, dtype, compiling=True)
        first, best = {}, dict.fromkeys(runs, float("inf"))
        for turn in steps(range(options.rounds + 1), "rounds"):
            for name, run in runs.items():
                started = time.perf_counter()
                run()
                seconds = time.perf_counter() - started
                if turn == 0:
                    first[name] = seconds
                else:
                    best[name] = min(best[name], seconds)
    figures = [Figure(f"{name}, a tile of {options.side} px", seconds, "s") for name, seconds in best.items()]
    for name in DTYPES:
        saved = best[f"photokeep, {name}"] - best[f"compiled, {name}"]
        spent = first[f"compiled, {name}"] - best[f"compiled, {name}"]
        figures.append(Figure(f"compiling, {name}", spent, "s"))
        figures.append(Figure(f"compiling pays after, {name}", min(spent / max(saved, 1e-9), 1e6), "tiles"))
    report(figures, options.json)


if __name__ == "__main__":
    main()
