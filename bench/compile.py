"""Does torch.compile pay on this CPU? Networks on one tile: as spandrel has them, as we run them, and compiled.

    python bench/compile.py [--models ID,ID...] [--side 128] [--rounds 3] [--json FILE]

Needs scikit-image and a C++ compiler. The tile's shape is fixed. Real-ESRGAN's equal blocks are compiled one by one,
from one piece of code; other networks as a whole. The last figures say after how many tiles compiling would have paid
for itself. Weights are random, in the layout of the published file. `inference` does not compile: on a CPU
little is gained, late, and it asks for a compiler on every user's machine.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from _figures import Figure, argument_parser, report
from _progress import steps

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from published import photo, random_weights

from photokeep_nodes import models, precision

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import nn

    from photokeep_nodes.model_spec import ModelSpec

    Call = Callable[[], torch.Tensor]

CPU = torch.device("cpu")
DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
MODELS = "realesrgan-x4plus,realesr-general-x4v3,realplksr-denoise,swinir-m-real,nafnet-gopro64"


def plain(spec: ModelSpec) -> nn.Module:
    """Build the network as spandrel has it."""
    from spandrel import ModelLoader

    module: nn.Module = ModelLoader().load_from_state_dict(random_weights(spec.id)).model
    return module.eval().requires_grad_(requires_grad=False)


def ours(spec: ModelSpec) -> nn.Module:
    """Build the network as we run it."""
    return spec.build(random_weights(spec.id)).eval().requires_grad_(requires_grad=False)


def compiled(module: nn.Module) -> nn.Module:
    """Compile a network: at its first call, not now."""
    blocks = [each for each in module.modules() if type(each).__name__ == "RRDB"]
    for block in blocks:
        block.forward = torch.compile(block.forward, dynamic=False)
    return module if blocks else torch.compile(module, dynamic=False)


def caller(
    spec: ModelSpec, module: nn.Module, image: torch.Tensor, dtype: torch.dtype, *, compiling: bool = False
) -> Call:
    """Return what runs ``module`` as ``inference`` would."""
    module = precision.prepare(module, dtype, *precision.example_of(spec)).to(memory_format=torch.channels_last)
    if compiling:  # only now: `precision.prepare` has run the network with hooks on it
        module = compiled(module)
    image = image.contiguous(memory_format=torch.channels_last)

    def run() -> torch.Tensor:
        with torch.no_grad(), precision.computing(CPU, dtype):
            out: torch.Tensor = module(image)
            return out

    return run


def measured(spec: ModelSpec, side: int, rounds: int) -> list[Figure]:
    """Figures of one network."""
    side = -(-side // spec.multiple_of) * spec.multiple_of
    image = photo(side, side, spec.channels)
    spandrels = plain(spec)

    def unchanged() -> torch.Tensor:
        with torch.no_grad():
            out: torch.Tensor = spandrels(image)
            return out

    runs: dict[str, Call] = {"spandrel, plain": unchanged}
    for name, dtype in DTYPES.items():
        runs[f"photokeep, {name}"] = caller(spec, ours(spec), image, dtype)
        # Of spandrel's own network: what ours does about memory is in the compiler's way.
        runs[f"compiled, {name}"] = caller(spec, plain(spec), image, dtype, compiling=True)
    first, best = {}, dict.fromkeys(runs, float("inf"))
    for turn in range(rounds + 1):
        for name, run in runs.items():
            started = time.perf_counter()
            run()
            seconds = time.perf_counter() - started
            if turn == 0:
                first[name] = seconds
            else:
                best[name] = min(best[name], seconds)
    title = f"{spec.id}, {side} px"
    figures = [Figure(f"{title}: {name}", seconds, "s") for name, seconds in best.items()]
    for name in DTYPES:
        saved = best[f"photokeep, {name}"] - best[f"compiled, {name}"]
        spent = first[f"compiled, {name}"] - best[f"compiled, {name}"]
        times = best[f"photokeep, {name}"] / best[f"compiled, {name}"]
        figures.append(Figure(f"{title}: compiled over photokeep, {name}", times, "x"))
        figures.append(Figure(f"{title}: compiling, {name}", spent, "s"))
        if saved > 0:
            figures.append(Figure(f"{title}: compiling pays after, {name}", spent / saved, "tiles"))
    return figures


def main() -> None:
    """Measure each network."""
    parser = argument_parser("Whether torch.compile pays on this CPU.")
    parser.add_argument("--models", default=MODELS, help="ids of the catalogue, with commas between them")
    parser.add_argument("--side", type=int, default=128, help="of the tile, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    chosen = [models.catalogue()[model_id] for model_id in options.models.split(",")]
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TORCHINDUCTOR_CACHE_DIR"] = folder  # so that compiling is really measured
        figures = [each for spec in steps(chosen, "networks") for each in measured(spec, options.side, options.rounds)]
    report(figures, options.json)


if __name__ == "__main__":
    main()
