"""The door to whatever runs the nodes: a ComfyUI, or the headless runner.

Nothing else, but for `host_memory`, looks at ``comfy``, ``folder_paths`` or ``server``. Host calls are looked up when
they are made, so that an older or newer ComfyUI works as far as it can.
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import comfyui_folders

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

ProgressSink = Callable[[float, int, str], None]
"""Takes (done, total, what is counted), for instance (2.5, 16, "tiles")."""


def _no_progress(_done: float, _total: int, _unit: str) -> None:
    return None


def _never_interrupted() -> None:
    return None


@dataclass(frozen=True)
class Standalone:
    """What the nodes need to know where there is no ComfyUI.

    Attributes:
        input_dirs: folders in which photo names are looked up, first match wins.
        output_dir: where SavePhoto writes.
        device: "auto", "cpu" or "cuda:N".
        vram_budget_bytes: cap for the pool on an accelerator; None leaves it to the device.
        progress: called with (done, total, unit) while a stage works.
        check_interrupted: raises when the user asked to stop.
    """

    input_dirs: tuple[Path, ...] = ()
    output_dir: Path = field(default_factory=lambda: Path("output"))
    device: str = "auto"
    vram_budget_bytes: int | None = None
    progress: ProgressSink = _no_progress
    check_interrupted: Callable[[], None] = _never_interrupted


_standalone: ContextVar[Standalone | None] = ContextVar("photokeep_standalone", default=None)


@contextmanager
def standalone(settings: Standalone) -> Iterator[None]:
    """Run the body with ``settings`` in place of a ComfyUI."""
    token = _standalone.set(settings)
    try:
        yield
    finally:
        _standalone.reset(token)


def _settings() -> Standalone:
    return _standalone.get() or Standalone()


def in_comfyui() -> bool:
    """Whether a ComfyUI runs this code: its modules are loaded and nobody asked for standalone settings."""
    return _standalone.get() is None and "folder_paths" in sys.modules and "comfy.model_management" in sys.modules


def _folder_paths() -> Any:
    return sys.modules["folder_paths"]


def _model_management() -> Any:
    return sys.modules["comfy.model_management"]


def samples_dir() -> Path:
    """Folder of the photos that ship with the workflows; absent in a wheel."""
    return Path(__file__).resolve().parent.parent / "workflows"


def input_dirs() -> tuple[Path, ...]:
    """Folders in which LoadPhoto may read."""
    if in_comfyui():
        return (Path(_folder_paths().get_input_directory()), samples_dir())
    return (*_settings().input_dirs, samples_dir())


def output_dir() -> Path:
    """Folder under which SavePhoto may write."""
    return Path(_folder_paths().get_output_directory()) if in_comfyui() else _settings().output_dir


def embeds_metadata() -> bool:
    """Whether saved photos may carry their workflow; ComfyUI's ``--disable-metadata`` forbids it."""
    arguments = getattr(sys.modules.get("comfy.cli_args"), "args", None) if in_comfyui() else None
    return not getattr(arguments, "disable_metadata", False)


def preview_dir() -> Path | None:
    """Folder for throw-away previews, or None where nobody would look at them."""
    return Path(_folder_paths().get_temp_directory()) if in_comfyui() else None


MODEL_KINDS = ("photokeep", "upscale_models", "detection")
"""ComfyUI's kinds of model folders in which weight files are looked for, ours first."""


def user_model_dirs(*kinds: str) -> tuple[Path, ...]:
    """Folders searched for weight files.

    ``PHOTOKEEP_MODELS`` (one folder) comes first, then the folders of the ComfyUI that runs this or is configured (see
    `comfyui_folders`), then the per-user folder.

    Args:
        kinds: of ComfyUI's folders to search besides ``MODEL_KINDS``.
    """
    dirs = [*_named_model_dir()]
    for kind in dict.fromkeys((*MODEL_KINDS, *kinds)):
        dirs.extend(_comfyui_dirs(kind))
    return tuple(dict.fromkeys((*dirs, data_dir() / "models")))


def new_model_dir(kind: str = "photokeep") -> Path:
    """Folder into which a new weight file goes, which need not exist: ``PHOTOKEEP_MODELS``, ComfyUI's, the user's.

    Args:
        kind: of ComfyUI's folders, such as "upscale_models".
    """
    return next(iter((*_named_model_dir(), *_comfyui_dirs(kind), data_dir() / "models")))


def _named_model_dir() -> list[Path]:
    named = os.environ.get("PHOTOKEEP_MODELS")
    return [Path(named).expanduser()] if named else []


def _comfyui_dirs(kind: str) -> tuple[Path, ...]:
    """Model folders of one kind of the ComfyUI that runs this or is configured; the first takes new files."""
    if not in_comfyui():
        return comfyui_folders.configured().of(kind)
    if kind in _folder_paths().folder_names_and_paths:
        return tuple(Path(path) for path in _folder_paths().get_folder_paths(kind))
    models = getattr(_folder_paths(), "models_dir", None)
    return (Path(models) / kind,) if models else ()


def data_dir() -> Path:
    """Per-user folder for what cannot be made again: weights, and what the user agreed to."""
    import platformdirs

    return Path(platformdirs.user_data_dir("photokeep", appauthor=False))


def cache_dir() -> Path:
    """Per-user folder for what can be made again: converted weights, stage outputs."""
    import platformdirs

    if named := os.environ.get("PHOTOKEEP_CACHE"):
        return Path(named).expanduser()
    return Path(platformdirs.user_cache_dir("photokeep", appauthor=False))


def compute_device() -> torch.device:
    """Device the networks run on."""
    import torch

    if in_comfyui():
        device = _model_management().get_torch_device()
        return device if isinstance(device, torch.device) else torch.device(device)
    wanted = _settings().device
    if wanted != "auto":
        return torch.device(wanted)
    if torch.cuda.is_available():
        return torch.device("cuda", torch.cuda.current_device())
    if torch.backends.mps.is_available():
        return torch.device("mps")
    return torch.device("cpu")


def compute_devices() -> tuple[torch.device, ...] | None:
    """Where the networks may run, best first; None leaves it to the pool: every accelerator, and then the CPU."""
    import torch

    if not in_comfyui() and _settings().device == "auto":
        return None
    return tuple(dict.fromkeys((compute_device(), torch.device("cpu"))))


def vram_budget_bytes() -> int | None:
    """User's cap on the pool of an accelerator, or None."""
    return None if in_comfyui() else _settings().vram_budget_bytes


def may_call_here() -> bool:
    """Whether this thread may call ComfyUI's memory management, whose lists have no lock.

    True in the thread that runs a node, and in the main thread of a script that calls nodes as plain functions. Never
    in a thread whose name begins with "photokeep": our own may carry a node's context with them.
    """
    thread = threading.current_thread()
    if not in_comfyui() or thread.name.startswith("photokeep"):
        return False
    if thread is threading.main_thread():
        return True
    executing = getattr(sys.modules.get("comfy_execution.utils"), "get_executing_context", None)
    return "prompt_worker" in thread.name if executing is None else executing() is not None


BFLOAT16_INSTRUCTIONS = ("amx_bf16", "avx512_bf16")
"""A CPU's instructions that multiply bfloat16, as both torch and Linux name them."""


def full_precision() -> bool:
    """Whether the user wants every network in float32: ``PHOTOKEEP_PRECISION=full``, or ComfyUI's ``--force-fp32``."""
    if os.environ.get("PHOTOKEEP_PRECISION", "").lower() == "full":
        return True
    arguments = getattr(sys.modules.get("comfy.cli_args"), "args", None) if in_comfyui() else None
    return bool(getattr(arguments, "force_fp32", False))


def check_interrupted() -> None:
    """Raise if the user asked to stop.

    Raises:
        BaseException: the host's own InterruptProcessingException, or what the runner's callback raises.
    """
    if in_comfyui():
        _model_management().throw_exception_if_processing_interrupted()
    else:
        _settings().check_interrupted()


class Progress:
    """Counts a stage's steps where the user looks: the editor's node bar or the runner's display."""

    _BAR_STEPS = 1000  # the editor's bar counts whole steps; a fraction of a tile must still move it

    def __init__(self, total: int, unit: str) -> None:
        self.unit = unit
        self._bar: Any = None
        if in_comfyui() and "comfy.utils" in sys.modules:
            self._bar = sys.modules["comfy.utils"].ProgressBar(self._BAR_STEPS)
        self.restart(total)

    def restart(self, total: int) -> None:
        """Begin (again) with ``total`` steps, as after an out-of-memory with smaller tiles."""
        self.total = total
        self.reach(0.0)

    def reach(self, done: float) -> None:
        """Show that ``done`` of ``total`` steps are behind us, and let the user interrupt."""
        self.done = done
        if self._bar is not None:
            self._bar.update_absolute(int(self._BAR_STEPS * done / max(1, self.total)), self._BAR_STEPS)
        else:
            _settings().progress(done, self.total, self.unit)
        check_interrupted()

    def advance(self, steps: float = 1.0) -> None:
        """Count ``steps`` more and let the user interrupt."""
        self.reach(self.done + steps)
