"""Time whole processes: ``photokeep-run --help``, and a rerun of workflows/restore.json in which nothing changed.

    python bench/startup.py [--rounds 10] [--json FILE]

The first run, which fills a fresh cache, does the real work and is not timed. The median of the rounds counts.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from _figures import Figure, argument_parser, at_most, report

ROOT = Path(__file__).resolve().parent.parent
RUN = [sys.executable, "-c", "from headless.cli import run_command; run_command()"]
WORKFLOW = str(ROOT / "workflows" / "restore.json")


def timed(command: list[str], environment: dict[str, str], folder: Path) -> float:
    """Seconds a process takes; its failure is ours."""
    started = time.perf_counter()
    subprocess.run(command, env=environment, cwd=folder, check=True, capture_output=True)
    return time.perf_counter() - started


def imports(command: list[str], environment: dict[str, str], folder: Path) -> set[str]:
    """Top-level modules a process imports."""
    watched = environment | {"PYTHONPROFILEIMPORTTIME": "1"}
    done = subprocess.run(command, env=watched, cwd=folder, check=True, capture_output=True, text=True)
    return {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in done.stderr.splitlines() if "|" in line}


def main() -> None:
    """Measure and report."""
    parser = argument_parser("Time photokeep-run --help and a fully cached rerun.")
    parser.add_argument("--rounds", type=int, default=10)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = os.environ | {"PYTHONPATH": str(ROOT)}
        cached = [*RUN, WORKFLOW, "--cache-dir", str(folder / "cache"), "-o", str(folder / "output")]
        first = timed(cached, environment, folder)
        timed([*RUN, "--help"], environment, folder)
        help_s = statistics.median(timed([*RUN, "--help"], environment, folder) for _ in range(options.rounds))
        cached_s = statistics.median(timed(cached, environment, folder) for _ in range(options.rounds))
        loaded = imports(cached, environment, folder)
    report(
        [
            at_most("photokeep-run --help", help_s, "s", 0.3),
            Figure("restore.json, first run", first, "s"),
            at_most("restore.json, nothing changed", cached_s, "s", 1.5),
            at_most("modules named torch imported by it", int("torch" in loaded), "modules", 0),
        ],
        options.json,
    )


if __name__ == "__main__":
    main()
