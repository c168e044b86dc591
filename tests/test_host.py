"""The door to the host: what is asked of it, and what stands in where there is none.

The real ComfyUI is tried in ``tests/comfyui``. Here a few functions of the shape this door asks for stand where its
modules would, so that the branches are walked on every machine.
"""

from __future__ import annotations

import sys
import threading
import types
from contextvars import ContextVar
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import torch

from photokeep_nodes import host

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.fixture(autouse=True)
def no_settings_from_outside(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    for name in ("PHOTOKEEP_MODELS", "COMFYUI_PATH", "PHOTOKEEP_EXTRA_MODEL_PATHS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))


class InterruptProcessingException(BaseException):
    """Derives from BaseException in newer hosts."""


@pytest.fixture
def comfyui(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> types.SimpleNamespace:
    """Modules of the names and functions that a ComfyUI has; records what it is asked."""
    state = types.SimpleNamespace(interrupted=False, bar=[], disable_metadata=False)
    folders = types.ModuleType("folder_paths")
    folders.folder_names_and_paths = {"upscale_models": (), "checkpoints": ()}  # type: ignore[attr-defined]
    folders.get_folder_paths = lambda kind: [str(tmp_path / "models" / kind)]  # type: ignore[attr-defined]
    folders.get_input_directory = lambda: str(tmp_path / "in")  # type: ignore[attr-defined]
    folders.get_output_directory = lambda: str(tmp_path / "out")  # type: ignore[attr-defined]
    folders.get_temp_directory = lambda: str(tmp_path / "temp")  # type: ignore[attr-defined]
    management = types.ModuleType("comfy.model_management")
    management.get_torch_device = lambda: "meta"  # type: ignore[attr-defined]

    def throw() -> None:
        if state.interrupted:
            raise InterruptProcessingException

    management.throw_exception_if_processing_interrupted = throw  # type: ignore[attr-defined]

    class ProgressBar:
        def __init__(self, total: int) -> None:
            self.total = total

        def update_absolute(self, value: int, total: int | None = None) -> None:
            state.bar.append((value, total))

    utils = types.ModuleType("comfy.utils")
    utils.ProgressBar = ProgressBar  # type: ignore[attr-defined]
    arguments = types.ModuleType("comfy.cli_args")
    arguments.args = state  # type: ignore[attr-defined]
    for module in (folders, management, utils, arguments):
        monkeypatch.setitem(sys.modules, module.__name__, module)
    return state


# -- without a ComfyUI -------------------------------------------------------------------------------------------------


def test_without_a_host_nothing_needs_one() -> None:
    assert not host.in_comfyui()
    assert host.output_dir() == Path("output")
    assert host.preview_dir() is None
    assert host.vram_budget_bytes() is None
    assert host.embeds_metadata()
    assert not host.may_call_here()
    host.check_interrupted()


def test_settings_hold_for_their_block_only(tmp_path: Path) -> None:
    settings = host.Standalone(
        input_dirs=(tmp_path / "a",), output_dir=tmp_path / "b", device="cpu", vram_budget_bytes=7
    )
    with host.standalone(settings):
        assert host.input_dirs() == (tmp_path / "a", host.samples_dir())
        assert host.output_dir() == tmp_path / "b"
        assert host.vram_budget_bytes() == 7
        with host.standalone(replace(settings, vram_budget_bytes=8)):
            assert host.vram_budget_bytes() == 8
        assert host.vram_budget_bytes() == 7
    assert host.vram_budget_bytes() is None


def test_settings_are_put_back_after_an_error() -> None:
    with pytest.raises(ZeroDivisionError), host.standalone(host.Standalone(vram_budget_bytes=7)):
        _ = 1 / 0
    assert host.vram_budget_bytes() is None


@pytest.mark.parametrize(("name", "expected"), [("cpu", "cpu"), ("cuda:3", "cuda:3"), ("cuda", "cuda")])
def test_a_device_that_was_named_is_taken(name: str, expected: str) -> None:
    with host.standalone(host.Standalone(device=name)):
        assert str(host.compute_device()) == expected


def test_the_device_found_can_compute() -> None:
    assert torch.ones(2, device=host.compute_device()).sum().item() == 2.0


def test_model_folders(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (user,) = host.user_model_dirs()
    assert user.parts[-2:] == ("photokeep", "models")
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    assert host.user_model_dirs() == (tmp_path, user)
    monkeypatch.setenv("PHOTOKEEP_MODELS", "~/faces")
    assert host.user_model_dirs()[0] == Path.home() / "faces"
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(user))
    assert host.user_model_dirs() == (user,)
    monkeypatch.setenv("PHOTOKEEP_MODELS", "")
    assert host.user_model_dirs() == (user,)


def test_the_cache_folder(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert host.cache_dir() == tmp_path / "cache"
    monkeypatch.setenv("PHOTOKEEP_CACHE", "~/c")
    assert host.cache_dir() == Path.home() / "c"
    monkeypatch.setenv("PHOTOKEEP_CACHE", "")
    assert host.cache_dir().name == "photokeep"


def test_progress_reaches_the_sink() -> None:
    calls: list[tuple[float, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *call: calls.append(call))):
        bar = host.Progress(4, "tiles")
        bar.advance()
        bar.reach(2.5)
        bar.restart(16)
        bar.advance(2)
    assert calls == [(0.0, 4, "tiles"), (1.0, 4, "tiles"), (2.5, 4, "tiles"), (0.0, 16, "tiles"), (2.0, 16, "tiles")]


def test_every_step_lets_the_user_interrupt() -> None:
    wanted = False

    def check() -> None:
        if wanted:
            raise KeyboardInterrupt

    with host.standalone(host.Standalone(check_interrupted=check)):
        bar = host.Progress(4, "tiles")
        wanted = True
        with pytest.raises(KeyboardInterrupt):
            bar.advance()
        with pytest.raises(KeyboardInterrupt):
            host.check_interrupted()


# -- in a ComfyUI ------------------------------------------------------------------------------------------------------


def test_folders_are_the_hosts(comfyui: Any, tmp_path: Path) -> None:
    assert host.in_comfyui()
    assert host.input_dirs() == (tmp_path / "in", host.samples_dir())
    assert host.output_dir() == tmp_path / "out"
    assert host.preview_dir() == tmp_path / "temp"
    assert host.user_model_dirs()[0] == tmp_path / "models" / "upscale_models"
    assert len(host.user_model_dirs()) == 2
    assert host.new_model_dir("upscale_models") == tmp_path / "models" / "upscale_models"
    assert host.new_model_dir() == host.user_model_dirs()[-1], "it has no folder of that kind, and does not say where"


def test_a_kind_the_editor_does_not_know_lies_beside_its_own(
    comfyui: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(sys.modules["folder_paths"], "models_dir", str(tmp_path / "models"), raising=False)
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "another"))
    assert host.new_model_dir() == host.user_model_dirs()[0] == tmp_path / "models" / "photokeep"


def test_the_variable_comes_before_the_hosts_folders(
    comfyui: Any, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    assert host.user_model_dirs()[:2] == (tmp_path, tmp_path / "models" / "upscale_models")


def test_the_runners_settings_win_over_a_loaded_comfyui(comfyui: Any, tmp_path: Path) -> None:
    with host.standalone(host.Standalone(output_dir=tmp_path, device="cpu")):
        assert not host.in_comfyui()
        assert host.output_dir() == tmp_path
        assert host.compute_device() == torch.device("cpu")


def test_a_half_loaded_comfyui_is_none(comfyui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "comfy.model_management")
    assert not host.in_comfyui()


def test_the_device_is_the_hosts(comfyui: Any) -> None:
    assert host.compute_device() == torch.device("meta")
    assert host.vram_budget_bytes() is None


def in_thread(function: Callable[[], bool], name: str | None = None) -> bool:
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(function()), name=name)
    thread.start()
    thread.join()
    return answers[0]


def test_a_host_without_contexts_is_called_from_its_prompt_thread(comfyui: Any) -> None:
    assert host.may_call_here(), "a script that calls nodes as functions"
    assert not in_thread(host.may_call_here)
    assert in_thread(host.may_call_here, "Thread-7 (prompt_worker)")


def test_the_host_is_called_where_a_node_runs(comfyui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    executing: ContextVar[object] = ContextVar("executing", default=None)
    utils = types.ModuleType("comfy_execution.utils")
    utils.get_executing_context = executing.get  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, utils.__name__, utils)

    def in_a_node() -> bool:
        executing.set(object())
        return host.may_call_here()

    assert in_thread(in_a_node)
    assert not in_thread(host.may_call_here, "Thread-7 (prompt_worker)"), "between nodes the host is at work itself"
    assert not in_thread(in_a_node, "photokeep prefetch"), "a thread of ours may have been given the node's context"
    with host.standalone(host.Standalone()):
        assert not host.may_call_here(), "the runner's settings win over a loaded ComfyUI"


def test_progress_moves_the_editors_bar_by_fractions(comfyui: Any) -> None:
    bar = host.Progress(2, "tiles")
    bar.reach(0.5)
    bar.reach(2)
    assert [value / total for value, total in comfyui.bar] == [0.0, 0.25, 1.0]


def test_the_hosts_interrupt_comes_through(comfyui: Any) -> None:
    bar = host.Progress(2, "tiles")
    comfyui.interrupted = True
    with pytest.raises(InterruptProcessingException):
        bar.advance()


def test_the_host_can_forbid_metadata(comfyui: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    assert host.embeds_metadata()
    comfyui.disable_metadata = True
    assert not host.embeds_metadata()
    monkeypatch.delitem(sys.modules, "comfy.cli_args")
    assert host.embeds_metadata()
