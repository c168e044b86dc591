"""Time whole workflows of trivial nodes: parse, validate, plan and run, a first time and with everything cached.

    python bench/graph_scaling.py [--sizes 100,1000,10000] [--rounds 3] [--json FILE]

A chain, in which each node takes from the one before, and a fan, in which one feeds half of the others. Each size gets
a fresh cache on disk; "cached" is the same workflow once more. With COMFYUI_PATH set (and COMFYUI_PYTHON where it has
an interpreter of its own) the same prompts go to a real ComfyUI, on the CPU, in the sizes of --host-sizes.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from pathlib import Path
from typing import TYPE_CHECKING, Any

import _trivial_nodes
from _figures import Figure, argument_parser, at_most, report

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from headless.plan import make_plan
from headless.run import Runner
from headless.schema import schemas_of
from headless.store import Store
from headless.workflow import parse_workflow
from photokeep_nodes import host

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SHAPES: dict[str, Callable[[int, int], dict[str, Any]]] = {"chain": _trivial_nodes.chain, "fan": _trivial_nodes.fan}
GOAL_MS = 1.0


def ours(text: str, folder: Path) -> float:
    """Seconds for one workflow from its text to its last stage, with the stage cache in ``folder``."""
    started = time.perf_counter()
    schemas = schemas_of(_trivial_nodes.NODE_CLASS_MAPPINGS)
    workflow = parse_workflow(text, schemas)
    plan = make_plan(workflow, schemas)
    runner = Runner(
        plan,
        schemas,
        host.Standalone(output_dir=folder / "output", device="cpu"),
        store=Store(folder / "cache"),
        prompt=workflow.to_prompt(),
        extra_pnginfo={},
        listener=lambda _event: None,
        identity="bench",
    )
    result = runner.run()
    seconds = time.perf_counter() - started
    if result.status != "done":
        raise RuntimeError(f"the run ended as {result.status}")
    return seconds


def best_of(rounds: int, text: str) -> tuple[float, float]:
    """Least seconds for a first run in a fresh cache, and for the same once more."""
    firsts, seconds = [], []
    for _ in range(rounds):
        with tempfile.TemporaryDirectory() as name:
            firsts.append(ours(text, Path(name)))
            seconds.append(ours(text, Path(name)))
    return min(firsts), min(seconds)


@contextlib.contextmanager
def comfyui() -> Iterator[str | None]:
    """Address of a ComfyUI that knows the nodes, or None where there is none."""
    named = os.environ.get("COMFYUI_PATH")
    if not named:
        yield None
        return
    with tempfile.TemporaryDirectory() as name, socket.socket() as probe:
        base = Path(name)
        for each in ("custom_nodes", "input", "output", "models", "user"):
            (base / each).mkdir()
        shutil.copy(Path(_trivial_nodes.__file__), base / "custom_nodes" / "bench_nodes.py")
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        probe.close()
        python = os.environ.get("COMFYUI_PYTHON") or sys.executable
        database = f"sqlite:///{base}/user/comfyui.db"
        arguments = ("--cpu", "--disable-api-nodes", "--port", str(port), "--base-directory", str(base))
        with (base / "log").open("wb") as log:
            process = subprocess.Popen(
                [python, "main.py", *arguments, "--database-url", database],
                cwd=named,
                stdout=log,
                stderr=log,
                stdin=subprocess.DEVNULL,
                start_new_session=True,
            )
            try:
                url = f"http://127.0.0.1:{port}"
                wait_for(lambda: ask(f"{url}/system_stats"), 240.0)
                yield url
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                process.wait(30)


def ask(url: str, body: Any = None) -> Any:
    """JSON from the host, or None where it does not answer."""
    data = None if body is None else json.dumps(body).encode()
    try:
        with urllib.request.urlopen(urllib.request.Request(url, data=data), timeout=600) as answer:
            return json.load(answer)
    except (OSError, urllib.error.URLError):
        return None


def wait_for(question: Callable[[], Any], seconds: float, every: float = 0.5) -> Any:
    """The first answer that is something."""
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        if answer := question():
            return answer
        time.sleep(every)
    raise TimeoutError("ComfyUI does not answer")


def theirs(url: str, prompt: dict[str, Any]) -> float:
    """Seconds from posting a prompt to its end in the host's history, by the host's own clock where it tells."""
    started = time.perf_counter()
    queued = ask(f"{url}/prompt", {"prompt": prompt})
    prompt_id = queued["prompt_id"]
    entry = wait_for(lambda: (ask(f"{url}/history/{prompt_id}") or {}).get(prompt_id), 900.0, 0.02)
    if entry["status"]["status_str"] != "success":
        raise RuntimeError(json.dumps(entry["status"]))
    return time.perf_counter() - started


def main() -> None:
    """Measure and report."""
    parser = argument_parser("Time workflows of trivial nodes, ours and ComfyUI's.")
    parser.add_argument("--sizes", default="100,1000,10000")
    parser.add_argument("--rounds", type=int, default=3, help="the best of these counts")
    parser.add_argument("--host-sizes", default="100,200,400,800")
    options = parser.parse_args()
    figures = []
    with tempfile.TemporaryDirectory() as name:  # what is imported on first use is no part of any stage
        ours(json.dumps(_trivial_nodes.chain(10)), Path(name))
    for shape, make in SHAPES.items():
        per_stage = {}
        for size in map(int, options.sizes.split(",")):
            prompt = make(size, 0)
            first, cached = best_of(options.rounds, json.dumps(prompt))
            stages = len(prompt)
            per_stage[size] = (first / stages, cached / stages)
            figures += [
                at_most(f"{shape} of {size}, first run", 1000 * first / stages, "ms a stage", GOAL_MS),
                at_most(f"{shape} of {size}, cached", 1000 * cached / stages, "ms a stage", GOAL_MS),
            ]
        sizes = sorted(per_stage)
        for index, word in enumerate(("first run", "cached")):
            growth = per_stage[sizes[-1]][index] / per_stage[sizes[len(sizes) // 2]][index]
            figures.append(
                at_most(
                    f"{shape}, {word}: a stage of {sizes[-1]} over one of {sizes[len(sizes) // 2]}", growth, "x", 1.5
                )
            )
    with comfyui() as url:
        for shape, make in SHAPES.items() if url else ():
            for size in map(int, options.host_sizes.split(",")):
                prompt = make(size, size)  # other numbers than before: nothing of it is cached yet
                first, cached = theirs(str(url), prompt), theirs(str(url), prompt)
                own = best_of(1, json.dumps(prompt))
                figures += [
                    Figure(f"ComfyUI, {shape} of {size}, first run", first, "s"),
                    Figure("ours, the same", own[0], "s"),
                    Figure(f"ComfyUI, {shape} of {size}, cached", cached, "s"),
                    Figure("ours, the same", own[1], "s"),
                ]
    report(figures, options.json)


if __name__ == "__main__":
    main()
