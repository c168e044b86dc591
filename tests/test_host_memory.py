"""Our seats in the list of a ComfyUI that is not quite the one we know.

The real one is tried in ``tests/comfyui``. Here stand the few functions that this door asks for, and each test takes
one away or changes it: what other versions may do is walked through on every machine.
"""

from __future__ import annotations

import logging
import sys
import types
import weakref
from typing import Any

import pytest
import torch

from photokeep_nodes import host_memory, inference, vram_manager
from photokeep_nodes.host_memory import ComfyMemory, PhotokeepModel

CARD = torch.device("cuda", 0)


class ModelPatcher:
    """What the host's does as far as the list goes, and nothing of weights."""

    def __init__(self, model: Any, load_device: Any, offload_device: Any, size: int = 0) -> None:
        self.model, self.load_device, self.offload_device, self.size = model, load_device, offload_device, size
        self.callbacks: dict[str, list[Any]] = {}
        model.model_loaded_weight_memory = 0

    def model_size(self) -> int:
        return self.size

    def add_callback_with_key(self, kind: str, key: str, callback: Any) -> None:
        self.callbacks.setdefault(kind, []).append(callback)

    def detach(self, unpatch_all: bool = True) -> None:
        if unpatch_all:
            self.model.device = self.offload_device
        for callback in self.callbacks.get("on_detach_after", ()):
            callback(self, unpatch_all)


class Comfy:
    """The modules, and what was asked of them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.listed: list[weakref.ref[ModelPatcher]] = []
        self.freed: list[tuple[int, str]] = []
        self.asked: list[dict[str, Any]] = []
        self.management: Any = types.ModuleType("comfy.model_management")
        self.management.get_torch_device = lambda: CARD
        self.management.load_models_gpu = self.load
        self.management.free_memory = lambda n_bytes, device: self.freed.append((n_bytes, str(device)))
        self.patchers: Any = types.ModuleType("comfy.model_patcher")
        self.patchers.ModelPatcher = ModelPatcher
        self.extension: Any = types.ModuleType("comfy.patcher_extension")
        self.extension.CallbacksMP = types.SimpleNamespace(ON_DETACH="on_detach_after")
        for module in (self.management, self.patchers, self.extension, types.ModuleType("folder_paths")):
            monkeypatch.setitem(sys.modules, module.__name__, module)

    def load(self, models: list[ModelPatcher], memory_required: int = 0, force_full_load: bool = False) -> None:
        self.asked.append({"memory_required": memory_required, "force_full_load": force_full_load})
        for each in models:
            each.detach(unpatch_all=False)
            each.model.device = each.load_device
            each.model.model_loaded_weight_memory = 0  # told to keep models off the card
        self.listed = [weakref.ref(each) for each in models]

    def there(self) -> list[ModelPatcher]:
        return [each for each in (reference() for reference in self.listed) if each is not None]


@pytest.fixture
def comfy(monkeypatch: pytest.MonkeyPatch) -> Comfy:
    return Comfy(monkeypatch)


def nothing() -> None:
    return None


def test_a_seat_is_a_patcher_that_lives_as_long(comfy: Comfy) -> None:
    memory = ComfyMemory()
    recalls: list[str] = []
    seat = memory.seat("a", 7, lambda: recalls.append("a"))
    memory.admit(CARD, [seat], 3)
    assert comfy.asked == [{"memory_required": 3, "force_full_load": True}]
    [patcher] = comfy.there()
    assert isinstance(patcher.model, PhotokeepModel)
    assert (patcher.model.device, patcher.model.model_loaded_weight_memory) == (CARD, 7)
    assert not list(patcher.model.state_dict())
    seat.leave()
    assert (patcher.model.device, patcher.model.model_loaded_weight_memory) == (torch.device("cpu"), 0)
    patcher.model.device = CARD
    assert not seat.here, "a seat that was left stays empty"
    del patcher
    assert len(comfy.there()) == 1, "the host may be in the middle of its list"
    other = memory.seat("b", 5, nothing)
    memory.admit(CARD, [other], 0)
    seat.leave()
    assert [each.model._seat.key for each in comfy.there()] == ["b"]
    assert recalls == []


def test_a_detached_patcher_is_a_recall_and_only_once(comfy: Comfy) -> None:
    memory = ComfyMemory()
    recalls: list[bool] = []
    seat = memory.seat("a", 7, lambda: recalls.append(seat.here))
    memory.admit(CARD, [seat], 0)
    [patcher] = comfy.there()
    patcher.detach(unpatch_all=False)
    assert recalls == [], "the host puts its list in order"
    patcher.detach()
    patcher.detach()
    assert recalls == [False]


def test_devices_are_named_as_the_host_does(comfy: Comfy) -> None:
    memory = ComfyMemory()
    comfy.management.get_torch_device = lambda: torch.device("mps")
    seat = memory.seat("a", 7, nothing)
    memory.admit(torch.device("mps", 0), [seat], 0)
    assert comfy.there()[0].load_device == torch.device("mps")
    other = memory.seat("a", 7, nothing)
    memory.admit(CARD, [other], 0)
    assert comfy.there()[0].load_device == CARD
    assert memory.manages(torch.device("mps", 0))
    assert not memory.manages(torch.device("cpu"))
    comfy.management.get_torch_device = lambda: torch.device("cpu")
    assert memory.manages(torch.device("cpu"))


def test_only_arguments_that_the_host_knows_are_given(comfy: Comfy) -> None:
    asked: list[dict[str, Any]] = []
    memory = ComfyMemory()
    comfy.management.load_models_gpu = lambda models, memory_required=0: asked.append({"memory": memory_required})
    memory.admit(CARD, [memory.seat("a", 7, nothing)], 3)
    comfy.management.load_models_gpu = lambda models, **options: asked.append(options)
    memory.admit(CARD, [memory.seat("a", 7, nothing)], 3)
    assert asked == [{"memory": 3}, {"memory_required": 3, "force_full_load": True}]


class Unsized(ModelPatcher):
    def model_size(self) -> int:
        return 0


class Renamed(ModelPatcher):
    def __init__(self, module: Any, **rest: Any) -> None:
        raise AssertionError("not built like this")


def lack(comfy: Comfy, what: str) -> None:
    if what == "no patchers":
        del sys.modules["comfy.model_patcher"]
    elif what == "no callbacks":
        del comfy.extension.CallbacksMP
    elif what == "no list":
        del comfy.management.load_models_gpu
    elif what == "another constructor":
        comfy.patchers.ModelPatcher = Renamed
    elif what == "another size":
        comfy.patchers.ModelPatcher = Unsized
    else:

        def load(models: Any) -> None:
            raise RuntimeError("another idea of a patcher")

        comfy.management.load_models_gpu = load


@pytest.mark.parametrize(
    "what", ["no patchers", "no callbacks", "no list", "another constructor", "another size", "an error"]
)
def test_a_host_that_lacks_something_is_asked_for_plain_room(
    comfy: Comfy, caplog: pytest.LogCaptureFixture, what: str
) -> None:
    lack(comfy, what)
    memory = ComfyMemory()
    seat = memory.seat("a", 7, nothing)
    with caplog.at_level(logging.WARNING):
        memory.admit(CARD, [seat], 3)
        memory.admit(CARD, [seat], 2)
        memory.admit(CARD, [seat], 0)
        seat.leave()
        memory.admit(CARD, [memory.seat("b", 5, nothing)], 0)
    assert comfy.freed == [(10, "cuda:0"), (2, "cuda:0"), (5, "cuda:0")]
    [record] = caplog.records
    assert "its Free button may not reach them" in record.getMessage()
    del comfy.management.free_memory
    memory.admit(CARD, [memory.seat("c", 5, nothing)], 0)


def test_room_for_no_model_of_ours_is_plain_room(comfy: Comfy) -> None:
    ComfyMemory().admit(CARD, [], 3)
    assert (comfy.asked, comfy.freed) == ([], [(3, "cuda:0")])


def test_one_failure_is_not_for_ever(comfy: Comfy) -> None:
    """Moving somebody else's model away may fail too."""
    load_as_it_was = comfy.management.load_models_gpu
    lack(comfy, "an error")
    memory = ComfyMemory()
    seat = memory.seat("a", 7, nothing)
    memory.admit(CARD, [seat], 3)
    comfy.management.load_models_gpu = load_as_it_was
    memory.admit(CARD, [seat], 3)
    assert [each.model._seat for each in comfy.there()] == [seat]
    assert comfy.freed == [(10, "cuda:0")]


def test_memory_that_the_host_lacks_is_no_missing_feature(comfy: Comfy) -> None:
    def load(models: Any) -> None:
        raise torch.OutOfMemoryError("no room to move to")

    load_as_it_was, comfy.management.load_models_gpu = comfy.management.load_models_gpu, load
    memory = ComfyMemory()
    with pytest.raises(torch.OutOfMemoryError):
        memory.admit(CARD, [memory.seat("a", 7, nothing)], 3)
    comfy.management.load_models_gpu = load_as_it_was
    memory.admit(CARD, [memory.seat("a", 7, nothing)], 3)
    assert len(comfy.there()) == 1
    assert comfy.freed == []


def test_the_shared_pool_is_a_guest_in_a_host_only(
    comfy: Comfy, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    monkeypatch.setitem(sys.modules, vram_manager._SHARED_KEY, None)
    monkeypatch.delitem(sys.modules, vram_manager._SHARED_KEY)
    pool = inference._pool()
    request.addfinalizer(pool.close)
    assert pool.host_memory is inference._HOST_MEMORY
    assert pool.host_memory.may_call_here(), "a script that calls nodes as functions"
    pool.host_memory = None
    with host_memory.host.standalone(host_memory.host.Standalone()):
        assert inference._pool() is pool
    assert pool.host_memory is None
