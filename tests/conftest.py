"""For every test: no folder of the user's own is read or written, and every machine computes the same."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from photokeep_nodes import host

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture(scope="session", autouse=True)
def _folders_of_our_own(tmp_path_factory: pytest.TempPathFactory):
    folder = tmp_path_factory.mktemp("photokeep")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOTOKEEP_CACHE", str(folder / "cache"))
        patch.setenv("PHOTOKEEP_MODELS", str(folder / "models"))
        patch.setenv("XDG_DATA_HOME", str(folder / "data"))
        # Some CPUs multiply bfloat16, others do not; what that changes has tests of its own.
        patch.setenv("PHOTOKEEP_PRECISION", "full")
        yield


@pytest.fixture
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Everything of Photokeep's that a test writes or looks for lies in its own folder; no ComfyUI is configured.

    Returns:
        The first model folder, which is not there yet.
    """
    folder = tmp_path / "models"
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(folder))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    for name in ("COMFYUI_PATH", "PHOTOKEEP_EXTRA_MODEL_PATHS"):
        monkeypatch.delenv(name, raising=False)
    return folder


@pytest.fixture
def model_folder(own_folders: Path) -> Path:
    """The first model folder, made; see ``own_folders``."""
    own_folders.mkdir()
    return own_folders


@pytest.fixture
def on_the_cpu() -> Iterator[None]:
    """Networks run on the CPU, whatever else this machine has."""
    with host.standalone(host.Standalone(device="cpu")):
        yield
