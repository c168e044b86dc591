"""What every benchmark here prints and writes: a table of figures, and the same as JSON.

Run a benchmark as ``python bench/NAME.py [--json FILE]``; the file holds
``{"figures": [{"name", "value", "unit", "goal", "met"}], "machine": {...}}``.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


@dataclass(frozen=True)
class Figure:
    """One measured number.

    Attributes:
        name: what was measured.
        value: in ``unit``.
        unit: "us", "s", "x", "MiB" ...
        goal: the bar in words, such as "<= 5"; empty where there is none.
        met: whether the bar was reached; None where there is none.
    """

    name: str
    value: float
    unit: str
    goal: str = ""
    met: bool | None = None


def at_most(name: str, value: float, unit: str, limit: float) -> Figure:
    """Build a figure that should not exceed ``limit``."""
    return Figure(name, value, unit, f"<= {limit:g}", value <= limit)


def at_least(name: str, value: float, unit: str, limit: float) -> Figure:
    """Build a figure that should reach ``limit``."""
    return Figure(name, value, unit, f">= {limit:g}", value >= limit)


def argument_parser(description: str) -> argparse.ArgumentParser:
    """Return a parser that knows ``--json``; a benchmark adds its own options to it."""
    parser = argparse.ArgumentParser(description=description)
    parser.add_argument("--json", type=Path, metavar="FILE", help="also write the figures to FILE")
    return parser


def report(figures: Sequence[Figure], json_path: Path | str | None = None) -> None:
    """Print the figures as a table, and write them to ``json_path`` if there is one."""
    header = ("figure", "value", "unit", "goal", "met")
    rows = [header, *(_row(figure) for figure in figures)]
    widths = [max(len(row[column]) for row in rows) for column in range(len(header))]
    for row in rows:
        print("  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip())
    if json_path is not None:
        save(figures, json_path)


def save(figures: Sequence[Figure], json_path: Path | str) -> None:
    """Write the figures to a file."""
    data = {"figures": [asdict(figure) for figure in figures], "machine": machine()}
    Path(json_path).write_text(json.dumps(data, indent=2) + "\n", encoding="utf-8")


def _row(figure: Figure) -> tuple[str, ...]:
    met = {True: "yes", False: "NO", None: ""}[figure.met]
    return figure.name, f"{figure.value:.4g}", figure.unit, figure.goal, met


def machine() -> dict[str, str | int | None]:
    """Describe where the figures were taken, without naming the machine."""
    return {
        "system": platform.system(),
        "arch": platform.machine(),
        "cores": os.cpu_count(),
        "python": platform.python_version(),
    }
