"""Model folders of a ComfyUI that does not run, as its own reader understands the files."""

from __future__ import annotations

import logging
import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from photokeep_nodes import comfyui_folders, host
from photokeep_nodes.comfyui_folders import read_yaml
from photokeep_nodes.errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(autouse=True)
def nothing_configured(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    for name in ("COMFYUI_PATH", "PHOTOKEEP_EXTRA_MODEL_PATHS", "PHOTOKEEP_MODELS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    comfyui_folders._read.cache_clear()
    yield
    comfyui_folders._read.cache_clear()


@pytest.fixture
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "ComfyUI"
    folder.mkdir()
    monkeypatch.setenv("COMFYUI_PATH", str(folder))
    return folder


def of(kind: str) -> list[Path]:
    return list(comfyui_folders.configured().of(kind))


def test_nothing_configured_is_nothing_searched(monkeypatch: pytest.MonkeyPatch) -> None:
    assert of("upscale_models") == []
    monkeypatch.setenv("COMFYUI_PATH", "")
    assert of("upscale_models") == []
    assert len(host.user_model_dirs()) == 1
    comfyui_folders.check()


def test_a_checkouts_own_folders(checkout: Path, tmp_path: Path) -> None:
    assert of("upscale_models") == [checkout / "models" / "upscale_models"]
    assert host.new_model_dir() == checkout / "models" / "photokeep"
    assert host.new_model_dir("upscale_models") == checkout / "models" / "upscale_models"
    assert host.user_model_dirs("face_models") == (
        checkout / "models" / "photokeep",
        checkout / "models" / "upscale_models",
        checkout / "models" / "detection",
        checkout / "models" / "face_models",
        tmp_path / "home" / "photokeep" / "models",
    )


def test_the_variable_for_one_folder_comes_first(
    checkout: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "mine"))
    assert host.new_model_dir("upscale_models") == host.user_model_dirs()[0] == tmp_path / "mine"


EXTRA = """
# as in extra_model_paths.yaml.example
comfyui:
    base_path: shared
    upscale_models: |
        one
        /absolute/two
    vae: models/vae/
second:
    is_default: true
    upscale_models: three/../four
    photokeep: faces
nothing:
"""


def test_the_file_beside_a_checkout(checkout: Path) -> None:
    (checkout / "extra_model_paths.yaml").write_text(EXTRA)
    assert of("upscale_models") == [
        checkout / "four",
        checkout / "models" / "upscale_models",
        checkout / "shared" / "one",
        Path("/absolute/two"),
    ]
    assert host.new_model_dir("upscale_models") == checkout / "four"
    assert host.new_model_dir() == checkout / "faces"


def test_a_file_elsewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "settings"
    folder.mkdir()
    (folder / "more.yaml").write_text(EXTRA)
    monkeypatch.setenv("PHOTOKEEP_EXTRA_MODEL_PATHS", str(folder / "more.yaml"))
    assert of("upscale_models") == [folder / "four", folder / "shared" / "one", Path("/absolute/two")]
    assert host.new_model_dir("detection") == tmp_path / "home" / "photokeep" / "models"


def test_a_base_path_that_is_a_comfyui_counts_as_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    base = tmp_path / "ComfyUI"
    (base / "models").mkdir(parents=True)
    path = tmp_path / "more.yaml"
    path.write_text(f"desktop:\n  base_path: {base}\n  upscale_models: models/upscale_models\n")
    monkeypatch.setenv("PHOTOKEEP_EXTRA_MODEL_PATHS", str(path))
    assert of("photokeep") == [], "a central folder of models is no ComfyUI"
    (base / "custom_nodes").mkdir()
    comfyui_folders._read.cache_clear()
    assert of("photokeep") == [base / "models" / "photokeep"]
    assert of("upscale_models") == [base / "models" / "upscale_models"]


def test_home_and_variables_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    monkeypatch.setenv("WHERE", "disk")
    path = tmp_path / "a.yaml"
    path.write_text("a:\n  base_path: ~/$WHERE\n  x: y\nb:\n  base_path: ${WHERE}\n  x: ~/y\n")
    folders, _ = read_yaml(path)
    assert [folder.path for folder in folders] == [tmp_path / "me" / "disk" / "y", tmp_path / "disk" / "~" / "y"]


def test_a_file_that_changes_is_read_again(checkout: Path) -> None:
    path = checkout / "extra_model_paths.yaml"
    path.write_text("a:\n  photokeep: one\n")
    assert of("photokeep")[-1] == checkout / "one"
    path.write_text("a:\n  photokeep: another\n")
    assert of("photokeep")[-1] == checkout / "another"


@pytest.mark.parametrize("content", ["", "# nothing\n", "---\n", "a:\n", "a: {}\n"])
def test_an_empty_file_says_nothing(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(content)
    assert read_yaml(path) == ([], [])


BROKEN = {
    "a: [": "line 1: not YAML",
    "\ta: b": "line 1: not YAML",
    "- a\n- b\n": "holds list",
    "just words": "holds str",
    "a: words": "'a' holds str",
    "a:\n  photokeep: [x, y]\n": "'photokeep' in 'a' is no folder",
    "a:\n  3: x\n": "'3' in 'a' is no folder",
    "a:\n  base_path: 7\n  x: y\n": "base_path is no folder",
    "a: !!python/object/apply:os.system ['touch owned']\n": "not YAML",
    "a: " + "[" * 5000: "not YAML",
    "a: 2001-99-99\n": "not YAML",
    "#" * (2**20 + 1): "larger than",
}


@pytest.mark.parametrize("content", BROKEN, ids=lambda content: content[:20])
def test_a_broken_file_is_told(checkout: Path, content: str, monkeypatch: pytest.MonkeyPatch) -> None:
    path = checkout / "extra_model_paths.yaml"
    path.write_text(content)
    monkeypatch.chdir(checkout)
    with pytest.raises(UsageError) as caught:
        read_yaml(path)
    assert str(path) in caught.value.message
    assert BROKEN[content] in caught.value.message
    assert not (checkout / "owned").exists()


def test_a_file_that_is_no_text(tmp_path: Path) -> None:
    path = tmp_path / "a.yaml"
    path.write_bytes(b"a:\n  x: \xff\xfe\n")
    with pytest.raises(UsageError, match="not YAML"):
        read_yaml(path)
    path.write_bytes("\ufeffa:\n  x: ü\n".encode())
    assert read_yaml(path)[0][0].path == tmp_path / "ü"


def test_a_run_goes_on_with_a_warning_and_commands_do_not(checkout: Path, caplog: pytest.LogCaptureFixture) -> None:
    (checkout / "extra_model_paths.yaml").write_text("a: [")
    with caplog.at_level(logging.WARNING):
        for _ in range(3):
            assert of("photokeep") == [checkout / "models" / "photokeep"]
    assert len(caplog.records) == 1
    with pytest.raises(UsageError, match="line 1: not YAML") as caught:
        comfyui_folders.check()
    assert caught.value.exit_code == 2
    assert "COMFYUI_PATH" in caught.value.hint


def test_names_of_nothing_are_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMFYUI_PATH", str(tmp_path / "none"))
    monkeypatch.setenv("PHOTOKEEP_EXTRA_MODEL_PATHS", str(tmp_path / "none.yaml"))
    with pytest.raises(UsageError, match=r"(?s)COMFYUI_PATH names no folder.*EXTRA_MODEL_PATHS names no file"):
        comfyui_folders.check()


ORACLE = """
import sys, types
args = types.SimpleNamespace(base_directory=None, models_directory=None)
sys.modules["comfy"] = types.ModuleType("comfy")
sys.modules["comfy.cli_args"] = types.SimpleNamespace(args=args)
sys.path.insert(0, sys.argv[1])
import folder_paths
from utils.extra_config import load_extra_path_config
load_extra_path_config(sys.argv[2])
for kind in sys.argv[3:]:
    print("\\n".join(folder_paths.get_folder_paths(kind)))
"""


@pytest.mark.comfyui
@pytest.mark.skipif(not os.environ.get("COMFYUI_PATH"), reason="needs COMFYUI_PATH")
def test_comfyui_itself_finds_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = Path(REAL_CHECKOUT)
    path = tmp_path / "more.yaml"
    path.write_text(EXTRA)
    kinds = ("upscale_models", "photokeep", "vae")
    done = subprocess.run(
        [sys.executable, "-c", ORACLE, str(root), str(path), *kinds],
        capture_output=True,
        text=True,
        check=True,
        env=os.environ | {"PYTHONDONTWRITEBYTECODE": "1"},
    )
    monkeypatch.setenv("COMFYUI_PATH", str(root))
    monkeypatch.setenv("PHOTOKEEP_EXTRA_MODEL_PATHS", str(path))
    # Ours has a folder of our own kind even where ComfyUI knows none.
    ours = [str(folder) for kind in kinds for folder in of(kind)]
    assert [folder for folder in ours if folder != str(root / "models" / "photokeep")] == done.stdout.splitlines()


REAL_CHECKOUT = os.environ.get("COMFYUI_PATH", "")


@pytest.mark.parametrize("text", [r'a: {upscale_models: "x\0y"}', r'a: {base_path: "x\0y", b: c}', r'a: {"x\0": y}'])
def test_a_path_that_no_system_takes_is_refused(tmp_path: Path, text: str) -> None:
    path = tmp_path / "a.yaml"
    path.write_text(text)
    with pytest.raises(UsageError, match="no folder"):
        read_yaml(path)
