"""ComfyUI's own nodes in a real checkout against ours: the same calls, asked afresh."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from core_node_cases import UPSCALES, cases, write_networks, write_pictures
from core_node_checks import comparable, declared, differences, read_answers, save_differences, upscale_difference

from photokeep_nodes import host

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = [pytest.mark.comfyui, pytest.mark.slow]

MAKE = Path(__file__).parents[1] / "data" / "make_core_nodes.py"
CHANGED = {"FeatherMask", "JoinImageWithAlpha", "LoadImage", "LoadImageMask"}
"""Nodes that did otherwise before 0.33, whom ours follow: margins were off by one pixel, the longer batch was cut, and
files were read by other code, see ``headless/core_nodes/_decode.py``."""


@pytest.fixture(scope="module")
def answers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    named = os.environ.get("COMFYUI_PATH", "")
    if not named:
        pytest.skip("COMFYUI_PATH is not set: name a ComfyUI checkout to ask its nodes")
    python = os.environ.get("COMFYUI_PYTHON") or sys.executable
    out = tmp_path_factory.mktemp("answers") / "answers.json.xz"
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [python, str(MAKE), str(out)],
        cwd=Path(named).expanduser(),
        env=environment,
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    return read_answers(out)


@pytest.fixture
def pictures(tmp_path: Path) -> Iterator[None]:
    (tmp_path / "in").mkdir()
    write_pictures(tmp_path / "in")
    with host.standalone(host.Standalone(input_dirs=(tmp_path / "in",), output_dir=tmp_path / "out")):
        yield


def is_older(answers: dict[str, Any]) -> bool:
    """Whether it is a ComfyUI before the one that ours are made after."""
    return tuple(int(part) for part in answers["comfyui"].split(".")[:2]) < (0, 33)


def test_ours_give_what_this_host_gives(answers, pictures):
    compared = 0
    wrong = []
    for case in cases():
        theirs = answers["answers"].get(case.name)
        if is_older(answers) and (case.node in CHANGED or not isinstance(theirs, list)):
            continue  # it has no such node, or cannot do this with it
        assert isinstance(theirs, list), f"{case}: {theirs}"
        wrong += differences(case, theirs, same_machine=True)
        compared += 1
    assert not wrong, f"{len(wrong)} of {compared}:\n" + "\n".join(wrong[:20])
    assert compared > 500


def test_ours_save_what_this_host_saves(answers, tmp_path):
    with host.standalone(host.Standalone(output_dir=tmp_path)):
        assert not save_differences(answers["answers"], tmp_path)


def test_upscale_models_enlarge_as_in_this_host(answers, model_folder, on_the_cpu):
    write_networks(model_folder)
    for case in UPSCALES:
        assert not upscale_difference(case, answers["answers"][case.name]), case


def test_ours_declare_what_this_host_declares(answers):
    if is_older(answers):
        pytest.skip("titles, categories and inputs are those of ComfyUI 0.33")
    assert {name: declared(name) for name in answers["declared"]} == {
        name: comparable(info) for name, info in answers["declared"].items()
    }
