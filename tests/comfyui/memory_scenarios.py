"""ComfyUI's own memory management, and the pool on an accelerator that is simulated: one process, no GPU.

Not a test module: `test_model_memory` runs it as a script, with the host's interpreter, in the host's folder. What the
host would ask a driver (how much is free) is answered from the simulated device; everything else is its own code.
"""

from __future__ import annotations

import contextlib
import gc
import json
import logging
import sys
import threading
import time
import traceback
import weakref
from pathlib import Path
from typing import Any

UNIT = 1024
ROOT = Path(__file__).resolve().parents[2]


def start_host() -> None:
    """Import what a running ComfyUI has imported, as it does."""
    sys.argv = ["main.py", "--cpu"]
    sys.path.insert(0, str(Path.cwd()))
    sys.path.insert(1, str(ROOT))
    import comfy.options

    comfy.options.enable_args_parsing()
    import comfy.model_management
    import comfy.model_patcher
    import comfy_execution.utils
    import folder_paths

    assert all((comfy.model_patcher, comfy_execution.utils, folder_paths))


class Warnings(logging.Handler):
    """What the host or the pool complained of, such as a leak of a model."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        line = record.getMessage()
        if record.levelno >= logging.WARNING or "leak" in line:
            self.lines.append(line)


class Rig:
    """A card of 100 units, a pool that may use all of it, and the host."""

    def __init__(self, budget: int = 100) -> None:
        import torch
        from comfy import model_management, model_patcher

        from photokeep_nodes import host_memory
        from photokeep_nodes._vram.simulated import SimulatedDevice
        from photokeep_nodes.vram_manager import VramPool

        self.place = torch.device("cuda", 0)
        self.mm: Any = model_management
        self.mp: Any = model_patcher
        self.gpu = SimulatedDevice(100 * UNIT)
        self.flushes = 0
        self.mm.current_loaded_models.clear()
        self.mm.vram_state = self.mm.VRAMState.NORMAL_VRAM
        self.mm.lowvram_available = True
        self.mm.get_torch_device = lambda: self.place
        self.mm.get_all_torch_devices = lambda **_: [self.place]
        self.mm.get_free_memory = self._free
        self.mm.minimum_inference_memory = lambda: 0
        self.mm.extra_reserved_memory = lambda: 0
        self.mm.soft_empty_cache = self._flush
        self.host_memory = host_memory.ComfyMemory()
        self.pool = VramPool(
            vram_budgets={self.place: budget * UNIT},
            ram_budget_bytes=10_000 * UNIT,
            open_device={self.place: self.gpu}.__getitem__,
            host_memory=self.host_memory,
        )
        self.loads: list[str] = []
        self.warnings = Warnings()
        logging.getLogger().addHandler(self.warnings)

    def _free(self, _device: Any = None, torch_free_too: bool = False) -> Any:
        free = self.gpu.capacity_bytes() - self.gpu.live_bytes
        return (free, 0) if torch_free_too else free

    def _flush(self, force: bool = False) -> None:
        self.flushes += 1

    def module(self, key: str, units: int) -> Any:
        import torch

        generator = torch.Generator().manual_seed(sum(map(ord, key)))
        module = torch.nn.Linear(UNIT // 4, units, bias=False)
        module.weight = torch.nn.Parameter(torch.rand(units, UNIT // 4, generator=generator))
        return module.eval()

    def source(self, key: str, units: int) -> Any:
        from photokeep_nodes.vram_manager import ModelSource

        def load() -> Any:
            self.loads.append(key)
            return self.module(key, units)

        return ModelSource(key, load, units * UNIT)

    def lease(self, *models: tuple[str, int], **options: Any) -> Any:
        return self.pool.lease([self.source(*each) for each in models], device=self.place, **options)

    def touch(self, *models: tuple[str, int], **options: Any) -> None:
        """Lease, and see that the weights are what they were when they were made."""
        import torch

        with self.lease(*models, **options) as lease:
            for (key, units), module in zip(models, lease.modules, strict=True):
                assert torch.equal(module.weight, self.module(key, units).weight), key
        self.agree()

    def hosts_own(self, units: int, kind: Any = None) -> Any:
        """A model of the host's own, which takes memory of the same card when the host moves it there."""
        import torch

        gpu, place = self.gpu, self.place

        class HostsOwn(torch.nn.Module):
            memory: Any = None

            def to(self, device: Any) -> Any:
                if torch.device(device) == place and self.memory is None:
                    self.memory = gpu.allocate(units * UNIT)
                elif torch.device(device) != place:
                    self.memory = None
                return self

        return (kind or self.mp.ModelPatcher)(HostsOwn(), place, torch.device("cpu"), size=units * UNIT)

    def listed(self) -> dict[str, int]:
        """Our models in the host's list, and the units it believes to be loaded of each."""
        ours = [each for each in self.mm.loaded_models() if type(each.model).__name__ == "PhotokeepModel"]
        found = {each.model._seat.key: each.loaded_size() // UNIT for each in ours}
        assert len(found) == len(ours), "a model is listed twice"
        return found

    def hot(self) -> dict[str, int]:
        models = self.pool.stats()["models"]
        return {each["key"]: each["n_bytes"] // UNIT for each in models if str(self.place) in each["places"]}

    def agree(self) -> None:
        """The host's list, the pool's books and the card say the same."""
        from photokeep_nodes._vram.simulated import audit

        believed = {key: units for key, units in self.listed().items() if units}
        assert believed == self.hot(), f"the host believes {believed}, the pool has {self.hot()}"
        own = sum(
            each.loaded_size() for each in self.mm.loaded_models() if type(each.model).__name__ != "PhotokeepModel"
        )
        assert sum(self.hot().values()) * UNIT + own == self.gpu.live_bytes
        # The simulated card's own check of I4 knows of nobody else who takes memory there.
        assert own or audit(self.pool) == [], audit(self.pool)

    def counter(self, name: str) -> int:
        return int(self.pool.stats()["counters"][name])

    def close(self) -> None:
        logging.getLogger().removeHandler(self.warnings)
        assert self.warnings.lines == [], self.warnings.lines
        assert self.pool.close(1)
        self.mm.unload_all_models()
        assert self.mm.current_loaded_models == []
        assert self.gpu.live_bytes == 0


def run_in_thread(function: Any, name: str | None = None) -> None:
    errors: list[BaseException] = []

    def work() -> None:
        try:
            function()
        except BaseException as error:  # noqa: BLE001
            errors.append(error)

    thread = threading.Thread(target=work, name=name)
    thread.start()
    thread.join()
    if errors:
        raise errors[0]


A, B, C = ("a", 30), ("b", 20), ("c", 10)


def a_model_on_the_card_is_in_the_hosts_list(rig: Rig) -> None:
    with rig.lease(A, B):
        assert rig.listed() == {"a": 30, "b": 20}
        assert all(each.currently_used for each in rig.mm.current_loaded_models)
        assert {each.model_memory() // UNIT for each in rig.mm.current_loaded_models} == {30, 20}
        assert {each.model_offloaded_memory() for each in rig.mm.current_loaded_models} == {0}
    rig.touch(C, working_bytes=UNIT)
    assert rig.mm.loaded_models()[0].model._seat.key == "c", "the newest comes first"
    assert rig.gpu.bytes_copied == 60 * UNIT
    assert rig.flushes == 0


def the_hosts_idle_model_makes_room(rig: Rig) -> None:
    theirs = rig.hosts_own(60)
    rig.mm.load_models_gpu([theirs])
    assert theirs.loaded_size() == 60 * UNIT
    rig.touch(C)
    assert theirs.loaded_size() == 60 * UNIT, "there was room"
    rig.touch(A, working_bytes=20 * UNIT)
    assert theirs.loaded_size() == 0
    assert rig.listed()["a"] == 30


def our_idle_model_makes_room_for_the_hosts(rig: Rig) -> None:
    rig.touch(A)
    rig.touch(B)
    theirs = rig.hosts_own(60)
    rig.mm.load_models_gpu([theirs], force_full_load=True)
    rig.agree()
    assert theirs.loaded_size() == 60 * UNIT
    assert len(rig.hot()) == 1
    rig.mm.free_memory(100 * UNIT, rig.place)
    rig.agree()
    assert rig.hot() == {}
    rig.touch(A, B)
    assert rig.loads == ["a", "b"], "nothing was loaded a second time"


def a_little_room_takes_a_whole_model(rig: Rig) -> None:
    """The host would take a part of one; a model of ours goes whole."""
    rig.touch(A)
    rig.gpu.outside_bytes = 65 * UNIT
    rig.mm.free_memory(10 * UNIT, rig.place)
    rig.agree()
    assert rig.listed() == {}
    assert rig.gpu.live_bytes == 0
    rig.gpu.outside_bytes = 0


def the_free_button_empties_the_card(rig: Rig) -> None:
    rig.touch(A, B, C)
    copied = rig.gpu.bytes_copied
    rig.mm.unload_all_models()
    rig.agree()
    assert (rig.listed(), rig.gpu.live_bytes) == ({}, 0)
    assert rig.mm.current_loaded_models == []
    assert {each["state"] for each in rig.pool.stats()["models"]} == {"warm"}
    assert rig.counter("recalls") == 3
    rig.touch(A, B, C)
    assert rig.loads == ["a", "b", "c"]
    assert rig.gpu.bytes_copied == 2 * copied
    rig.mm.unload_all_models()
    rig.mm.unload_all_models()
    assert rig.mm.current_loaded_models == []


def a_leased_model_outlives_the_free_button(rig: Rig) -> None:
    import torch

    with rig.lease(A) as lease:
        rig.mm.unload_all_models()
        assert rig.mm.current_loaded_models == []
        assert torch.equal(lease.modules[0].weight, rig.module(*A).weight)
        assert rig.hot() == {"a": 30}
    rig.agree()
    assert rig.hot() == {}, "it leaves at its last release"
    with rig.lease(A):
        rig.mm.unload_all_models()
        with rig.lease(A):
            rig.agree()
            assert rig.listed() == {"a": 30}, "it was wanted again"
    rig.agree()
    assert rig.listed() == {"a": 30}


def a_lease_inside_another_does_not_take_the_outer_ones_model(rig: Rig) -> None:
    with rig.lease(A) as outer:
        rig.gpu.outside_bytes = 50 * UNIT  # too little for what the host wants to keep free
        with rig.lease(C, working_bytes=40 * UNIT):
            assert rig.listed() == {"a": 30, "c": 10}
        assert outer.modules[0].weight.numel()
    rig.gpu.outside_bytes = 0
    rig.agree()


def what_the_pool_evicts_leaves_the_hosts_list(rig: Rig) -> None:
    rig.touch(A)
    rig.touch(B)
    assert rig.pool.trim("vram", 1, rig.place) > 0
    rig.agree()
    run_in_thread(lambda: rig.pool.trim("vram", 100 * UNIT, rig.place))
    rig.agree()
    assert rig.listed() == {"a": 0, "b": 0}, "listed until the right thread comes by, and with nothing loaded"
    rig.touch(C)
    assert rig.listed() == {"c": 10}
    assert rig.flushes == 0, "a swap of ours costs no flush of torch's cache"
    # The host asks for room before we come by: it finds nothing to take, and takes the entry off its list.
    rig.pool.trim("vram", 100 * UNIT, rig.place)
    rig.mm.unload_all_models()
    assert rig.mm.current_loaded_models == []
    assert rig.counter("recalls") == 0
    rig.touch(C)


def swapping_for_long_leaves_no_patcher_behind(rig: Rig) -> None:
    alive: weakref.WeakSet[Any] = weakref.WeakSet()
    gc.collect()
    gc.disable()
    try:
        for turn in range(300):
            rig.touch((A, B, C)[turn % 3])
            alive.update(rig.mm.loaded_models())
            if turn % 50 == 49:
                rig.mm.unload_all_models()
        assert len(alive) <= 3, f"{len(alive)} patchers are alive without the garbage collector"
        assert len(rig.mm.current_loaded_models) <= 3
    finally:
        gc.enable()
    assert sorted(rig.loads) == ["a", "b", "c"]
    assert rig.counter("promotions") > 200


def every_memory_setting_of_the_host_counts_right(rig: Rig) -> None:
    for name in ("NO_VRAM", "LOW_VRAM", "HIGH_VRAM", "SHARED", "DISABLED"):
        rig.mm.vram_state = getattr(rig.mm.VRAMState, name)
        rig.touch(A, working_bytes=UNIT)
        rig.touch(B, working_bytes=UNIT)
        assert rig.listed() == {"a": 30, "b": 20}, name
        rig.mm.unload_all_models()
        assert rig.listed() == {}, name
        rig.agree()
    rig.mm.vram_state, rig.mm.DISABLE_SMART_MEMORY = rig.mm.VRAMState.NORMAL_VRAM, True
    rig.touch(A, B)
    rig.touch(C)
    rig.mm.DISABLE_SMART_MEMORY = False
    assert rig.listed() == {"c": 10}, "told to keep nothing, the host keeps nothing of ours"


def another_thread_calls_nothing_of_the_host(rig: Rig) -> None:
    calls = []
    load = rig.mm.load_models_gpu

    def noted(*arguments: Any, **options: Any) -> Any:
        calls.append(threading.current_thread().name)
        return load(*arguments, **options)

    rig.mm.load_models_gpu = noted
    try:

        def lease() -> None:
            with rig.lease(A, working_bytes=UNIT):
                pass

        run_in_thread(lease)
        assert (calls, rig.listed(), rig.hot()) == ([], {}, {"a": 30})
        rig.touch(B)
        assert rig.listed() == {"a": 30, "b": 20}
        from comfy_execution.utils import CurrentNodeContext

        def as_the_host_runs_a_node() -> None:
            with CurrentNodeContext("prompt", "7", 0):
                rig.touch(C)

        run_in_thread(as_the_host_runs_a_node, "Thread-9 (prompt_worker)")
        assert calls == ["MainThread", "Thread-9 (prompt_worker)"]
        assert rig.listed() == {"a": 30, "b": 20, "c": 10}
    finally:
        rig.mm.load_models_gpu = load


def what_is_brought_ahead_waits_in_ram(rig: Rig) -> None:
    from photokeep_nodes.vram_manager import PlanStep

    rig.touch(A)
    with rig.pool.plan("job", [PlanStep((rig.source(*each),), rig.place) for each in (A, B, C)]) as plan:
        deadline = time.monotonic() + 20
        while sorted(rig.loads) != ["a", "b", "c"]:
            assert time.monotonic() < deadline, rig.loads
            time.sleep(0.01)
        assert rig.listed() == {"a": 30}
        assert rig.gpu.bytes_copied == 30 * UNIT
        for position, each in enumerate((A, B, C)):
            plan.reach(position)
            rig.touch(each)
    assert sorted(rig.loads) == ["a", "b", "c"]
    assert rig.listed() == {"a": 30, "b": 20, "c": 10}


def the_ladder_asks_the_host_for_all_it_can_spare(rig: Rig) -> None:
    theirs = rig.hosts_own(40)
    rig.mm.load_models_gpu([theirs])
    rig.touch(A)
    rig.touch(B)
    assert theirs.loaded_size() == 40 * UNIT
    rig.pool.relieve(rig.place, keep=["a"])
    rig.agree()
    assert theirs.loaded_size() == 0
    assert rig.hot() == {"a": 30}
    assert rig.listed() == {"a": 30}
    rig.mm.load_models_gpu([theirs])
    rig.pool.relieve(rig.place)
    rig.agree()
    assert (theirs.loaded_size(), rig.listed()) == (0, {}), "also where nothing of ours is to stay"


def a_failed_copy_leaves_nothing_in_the_list(rig: Rig) -> None:
    from photokeep_nodes.errors import VramError

    rig.gpu.failing_copies = 1
    with contextlib.suppress(VramError):
        rig.touch(A)
    rig.agree()
    assert rig.listed() == {"a": 0}
    rig.touch(B)
    assert rig.listed() == {"b": 20}
    rig.gpu.failing_allocations = 1
    rig.touch(A)
    rig.warnings.lines.clear()  # the pool says that the card had less memory than it seemed
    assert rig.listed() == {"a": 30}, "b made room"


def short_ram_is_given_back_with_the_free_button(rig: Rig) -> None:
    from photokeep_nodes._vram import guest

    rig.touch(A, B)
    measured, guest.ram_shortfall_bytes = guest.ram_shortfall_bytes, lambda: 1000 * UNIT
    try:
        with rig.lease(C):
            rig.mm.unload_all_models()
            assert [each["key"] for each in rig.pool.stats()["models"]] == ["c"], "in use"
    finally:
        guest.ram_shortfall_bytes = measured
    rig.agree()
    rig.touch(A)
    assert rig.loads == ["a", "b", "c", "a"]


def the_host_may_load_models_that_page(rig: Rig) -> None:
    """Newer hosts page weights in and out one by one, and ask others for room in another way then."""
    if not hasattr(rig.mp.ModelPatcher, "is_dynamic"):
        return

    class Paging(rig.mp.ModelPatcher):  # type: ignore[name-defined, misc]
        def is_dynamic(self) -> bool:
            return True

    theirs = rig.hosts_own(60, Paging)
    theirs.model.dynamic_pins = {rig.place: {"active": False, "current_prompt": False}}
    core, rig.mp.CoreModelPatcher = rig.mp.CoreModelPatcher, Paging
    try:
        rig.touch(A)
        rig.touch(B)
        rig.mm.load_models_gpu([theirs], force_full_load=True)
        rig.agree()
        assert theirs.loaded_size() == 60 * UNIT
        assert len(rig.hot()) == 1, "ours made room, as it could not if the host took it for one that pages"
    finally:
        rig.mp.CoreModelPatcher = core


def a_second_copy_of_the_pack_shares_the_list(rig: Rig) -> None:
    import importlib.util

    from photokeep_nodes import inference, vram_manager

    folder = ROOT / "photokeep_nodes"
    spec = importlib.util.spec_from_file_location(
        "second_copy", folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    assert spec is not None
    sys.modules["second_copy"] = importlib.util.module_from_spec(spec)
    theirs = importlib.import_module("second_copy.inference")
    assert theirs._HOST_MEMORY is not inference._HOST_MEMORY
    pool = inference._pool()
    assert theirs._pool() is pool
    assert pool.host_memory is inference._HOST_MEMORY
    pool.set_budget(rig.place, 100 * UNIT)
    pool._open_device = {rig.place: rig.gpu}.__getitem__
    rig.pool.close()
    rig.pool = pool
    rig.touch(A)
    source = sys.modules["second_copy.vram_manager"].ModelSource("a", lambda: None, 0)
    with theirs._pool().lease(source, device=rig.place, working_bytes=UNIT):
        assert rig.listed() == {"a": 30}
    rig.agree()
    assert vram_manager.shared_pool() is pool


SCENARIOS = tuple(
    value
    for value in tuple(globals().values())
    if callable(value) and getattr(value, "__annotations__", {}).get("rig") == "Rig"
)


def main() -> None:
    """Run each scenario on a pool of its own; print what failed as JSON, by name."""
    start_host()
    told: dict[str, str] = {}
    for scenario in SCENARIOS:
        try:
            rig = Rig(budget=50 if scenario is swapping_for_long_leaves_no_patcher_behind else 100)
            scenario(rig)
            rig.close()
        except BaseException:  # noqa: BLE001 - whatever it is, the test of that name shows it
            told[scenario.__name__] = traceback.format_exc()
        else:
            told[scenario.__name__] = ""
    print("RESULT" + json.dumps(told))


if __name__ == "__main__":
    main()
