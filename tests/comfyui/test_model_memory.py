"""Our models in ComfyUI's own memory management: its list, its Free button, its out-of-memory handling.

This machine need have no accelerator: first the host's own functions with one that is simulated, see
``memory_scenarios.py``; then a running host on the CPU, where what it lists of ours is in RAM.
"""

from __future__ import annotations

import copy
import importlib.util
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import imagecodecs
import numpy as np
import pytest

import photokeep_nodes
from headless import load_workflow, parse_workflow, schemas_of

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.comfyui

HERE = Path(__file__).parent
RESTORE = HERE.parents[1] / "workflows" / "restore.json"
PATIENCE_S = 60.0


def scenario_names() -> tuple[str, ...]:
    spec = importlib.util.spec_from_file_location("memory_scenarios", HERE / "memory_scenarios.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return tuple(scenario.__name__ for scenario in module.SCENARIOS)


@pytest.fixture(scope="module")
def told() -> dict[str, str]:
    """What went wrong in each scenario, by name; empty where nothing did."""
    checkout = Path(os.environ.get("COMFYUI_PATH", "")).expanduser().resolve()
    if not (checkout / "main.py").is_file():
        pytest.skip("COMFYUI_PATH is not set: name a ComfyUI checkout to test against its own memory management")
    done = subprocess.run(
        [os.environ.get("COMFYUI_PYTHON") or sys.executable, HERE / "memory_scenarios.py"],
        cwd=checkout,
        env={name: value for name, value in os.environ.items() if name != "PYTHONPATH"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    _, marked, result = done.stdout.partition("RESULT")
    assert marked, done.stderr[-4000:]
    return dict(json.loads(result))


@pytest.mark.parametrize("name", scenario_names())
def test_the_hosts_own_functions_and_a_simulated_card(told: dict[str, str], name: str) -> None:
    assert told[name] == ""


# -- a running host ----------------------------------------------------------------------------------------------------


class Memory:
    """What the host and the pool each say at one moment."""

    def __init__(self, told: dict[str, Any]) -> None:
        self.listed = {key: loaded for kind, key, loaded, _ in told["listed"] if kind == "PhotokeepModel"}
        assert len(self.listed) == len(told["listed"]), "something is listed twice, or is not ours"
        pool = told["pool"] or {"models": [], "counters": {}, "tiers": {}}
        self.models = {model["key"]: model["n_bytes"] for model in pool["models"]}
        self.leases = [lease for model in pool["models"] for lease in model["leases"]]
        self.counters: dict[str, int] = pool["counters"]
        self.used_bytes = pool["tiers"].get("cpu", {}).get("used_bytes", 0)


def memory_of(host: Any) -> Memory:
    return Memory(host.get("/photokeep_tests/memory"))


def wait_for(host: Any, condition: Callable[[Memory], bool]) -> Memory:
    deadline = time.monotonic() + PATIENCE_S
    while not condition(now := memory_of(host)):
        assert time.monotonic() < deadline, vars(now)
        time.sleep(0.1)
    return now


def press_free(host: Any, *, free_memory: bool = True) -> None:
    """The editor's button; the host answers at once and does it between two prompts."""
    status, _ = host.post("/free", {"unload_models": True, "free_memory": free_memory})
    assert status == 200


def pixels(host: Any, entry: dict[str, Any]) -> np.ndarray:
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    (path,) = host.saved(entry)
    return np.asarray(imagecodecs.png_decode(path.read_bytes()))


@pytest.fixture(scope="module")
def prompt() -> dict[str, Any]:
    workflow = parse_workflow(load_workflow(RESTORE), schemas_of(photokeep_nodes.NODE_CLASS_MAPPINGS))
    return workflow.to_prompt()


def with_tile(prompt: dict[str, Any], tile: int) -> dict[str, Any]:
    """The same photo by another way, so that the host's cache does not answer."""
    changed = copy.deepcopy(prompt)
    for node in changed.values():
        if node["class_type"] == "PhotokeepUpscale":
            node["inputs"]["tile"] = tile
    return changed


def enlarge(prompt: dict[str, Any], width: int) -> dict[str, Any]:
    """Something small for one of the models."""
    (model,) = (node["inputs"]["model"] for node in prompt.values() if node["class_type"] == "PhotokeepUpscale")
    paper = {"width": width, "height": 32, "batch_size": 1, "color": 0x336699}
    return {
        "a": {"class_type": "EmptyImage", "inputs": paper},
        model[0]: prompt[model[0]],
        "b": {"class_type": "PhotokeepUpscale", "inputs": {"image": ["a", 0], "model": model, "scale": 2.0, "tile": 0}},
        "c": {"class_type": "SaveImage", "inputs": {"images": ["b", 0], "filename_prefix": "enlarged"}},
    }


@pytest.fixture(scope="module")
def first(host: Any, prompt: dict[str, Any]) -> np.ndarray:
    return pixels(host, host.run(prompt))


def test_the_host_lists_what_the_pool_holds(host: Any, first: np.ndarray) -> None:
    now = memory_of(host)
    assert now.models
    assert now.listed == now.models, "each of our models once, with all of its bytes"
    assert sum(now.models.values()) == now.used_bytes
    assert now.counters["cold_loads"] == len(now.models)


def test_the_free_button_and_the_same_photo_again(host: Any, first: np.ndarray, prompt: dict[str, Any]) -> None:
    before = memory_of(host)
    press_free(host)
    freed = wait_for(host, lambda now: not now.listed)
    assert (freed.models, freed.used_bytes) == ({}, 0)
    assert freed.counters["recalls"] == len(before.models)
    again = pixels(host, host.run(prompt))
    assert np.array_equal(again, first)
    after = memory_of(host)
    assert after.models == after.listed == before.models
    assert after.counters["cold_loads"] == 2 * len(before.models), "each was loaded once more, and none twice"


def test_several_prompts_and_the_free_button_among_them(host: Any, first: np.ndarray, prompt: dict[str, Any]) -> None:
    before = memory_of(host)
    ids = [host.queue(enlarge(prompt, width)) for width in (48, 56, 48)]
    press_free(host)  # the host does it when the first of them has ended
    one, _, again = (pixels(host, host.wait(prompt_id)) for prompt_id in ids)
    assert np.array_equal(one, again)
    now = memory_of(host)
    assert now.listed == now.models
    assert len(now.models) == 1
    assert now.counters["recalls"] - before.counters["recalls"] == len(before.models)
    assert now.counters["cold_loads"] - before.counters["cold_loads"] == 1
    press_free(host, free_memory=False)
    assert wait_for(host, lambda now: not now.listed).used_bytes == 0


def test_an_interrupt_and_the_free_button_leave_nothing(host: Any, first: np.ndarray, prompt: dict[str, Any]) -> None:
    with host.events("memory-test") as events:
        prompt_id = host.queue(with_tile(prompt, 64), client_id="memory-test")
        for event in events:
            if event["type"] == "progress" and event["data"]["value"] >= 1 and memory_of(host).leases:
                break
            assert event["type"] not in ("execution_error", "execution_success"), event
    press_free(host)  # while a model is in use: the host does it when this prompt has ended
    host.post("/interrupt", {})
    kinds = [kind for kind, _ in host.wait(prompt_id)["status"]["messages"]]
    assert "execution_interrupted" in kinds
    now = wait_for(host, lambda now: not now.listed)
    assert (now.leases, now.models, now.used_bytes) == ([], {}, 0)
    assert np.array_equal(pixels(host, host.run(prompt)), first)
    now = memory_of(host)
    assert now.listed == now.models
    assert "leak" not in host.log.lower()
    assert "its Free button may not reach them" not in host.log
