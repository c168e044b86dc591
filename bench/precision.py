"""Does bfloat16 pay on this CPU? Each network of the catalogue that tolerates it, on one tile, beside float32.

    python bench/precision.py [--side 128] [--rounds 3] [--json FILE]

Needs scikit-image. Prints the seconds in either, how many times as fast bfloat16 is, and how far its result strays, as
a share of the result's spread. Weights are random, in the layout of the published file, so nothing has to be installed:
what a network costs does not depend on them. `photokeep_nodes.precision` chooses bfloat16 where the CPU has
instructions for it, which the last line tells.
"""

from __future__ import annotations

import sys
import time
import warnings
from pathlib import Path

import torch
from _figures import Figure, argument_parser, at_least, report
from _progress import steps

sys.path.append(str(Path(__file__).resolve().parents[1] / "tests" / "support"))
from published import LAYOUTS, photo, random_weights

from photokeep_nodes import models, precision

CPU = torch.device("cpu")
CATALOGUE = models.catalogue()


def networks() -> list[str]:
    """Name one model of each network that may compute in bfloat16."""
    first: dict[str, str] = {}
    for model_id, layout in LAYOUTS.items():
        if "bfloat16" in CATALOGUE[model_id].dtypes:
            first.setdefault(layout.network, model_id)
    return list(first.values())


def run(model_id: str, dtype: torch.dtype, image: torch.Tensor, rounds: int) -> tuple[float, torch.Tensor]:
    """Seconds of the best of some calls, and the result."""
    spec = CATALOGUE[model_id]
    module = spec.build(random_weights(model_id)).eval().requires_grad_(requires_grad=False)
    module = precision.prepare(module, dtype, *precision.example_of(spec)).to(memory_format=torch.channels_last)
    best, result = float("inf"), image
    with torch.no_grad(), precision.computing(CPU, dtype):
        for _ in range(rounds):
            started = time.perf_counter()
            result = module(image)
            best = min(best, time.perf_counter() - started)
    return best, result.float()


def measured(model_id: str, side: int, rounds: int, *, pays: bool) -> list[Figure]:
    """Figures of one network."""
    spec = CATALOGUE[model_id]
    side = -(-side // spec.multiple_of) * spec.multiple_of
    image = photo(side, side, spec.channels).contiguous(memory_format=torch.channels_last)
    exact_s, exact = run(model_id, torch.float32, image, rounds)
    quick_s, quick = run(model_id, torch.bfloat16, image, rounds)
    title = f"{LAYOUTS[model_id].network}, {side} px"
    times = exact_s / quick_s
    stray = float((quick - exact).abs().mean() / exact.std())
    return [
        Figure(f"{title}: float32", exact_s, "s"),
        Figure(f"{title}: bfloat16", quick_s, "s"),
        at_least(f"{title}: faster", times, "x", 1.0) if pays else Figure(f"{title}: faster", times, "x"),
        Figure(f"{title}: strays by", stray, "of spread"),
    ]


def main() -> None:
    """Measure every network."""
    parser = argument_parser("Whether bfloat16 pays on this CPU.")
    parser.add_argument("--side", type=int, default=128, help="of the tile, in pixels")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    warnings.filterwarnings("ignore", message="torch.meshgrid", category=UserWarning)
    pays = precision.cpu_multiplies_bfloat16()
    figures = [
        figure
        for model_id in steps(networks(), "networks")
        for figure in measured(model_id, options.side, options.rounds, pays=pays)
    ]
    figures.append(Figure("this CPU multiplies bfloat16", float(pays), ""))
    report(figures, options.json)


if __name__ == "__main__":
    main()
