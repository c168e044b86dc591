"""The nodes for weight files of the user's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import small_networks
import torch

from photokeep_nodes import NODE_CLASS_MAPPINGS, models
from photokeep_nodes.model_spec import ModelHandle, socket_type
from photokeep_nodes.nodes.model_files import NODES, NOTHING

if TYPE_CHECKING:
    from pathlib import Path

UPSCALE = NODE_CLASS_MAPPINGS["PhotokeepModelFileUpscale"]


def choices() -> list[str]:
    return UPSCALE.INPUT_TYPES()["required"]["file"][0]


def test_there_is_one_for_every_stage_that_takes_networks() -> None:
    assert {node.NODE_ID: node.RETURN_TYPES[0] for node in NODES} == {
        "PhotokeepModelFileUpscale": socket_type("upscale"),
        "PhotokeepModelFileDenoise": socket_type("denoise"),
        "PhotokeepModelFileDeblur": socket_type("deblur"),
        "PhotokeepModelFileJPEG": socket_type("jpeg"),
        "PhotokeepModelFileLowLight": socket_type("low_light"),
    }


def test_the_list_holds_what_lies_in_the_folder_now(model_folder: Path) -> None:
    assert choices() == [NOTHING]
    small_networks.save(small_networks.compact(2), model_folder / "sub" / "mine.pth")
    assert choices() == ["sub/mine.pth"]


def test_the_handle_names_the_file_without_reading_it(model_folder: Path) -> None:
    (handle,) = UPSCALE().run("sub/mine.pth")
    assert handle == UPSCALE.handle(file="sub/mine.pth") == ModelHandle("file:upscale/sub/mine.pth")
    small_networks.save(small_networks.compact(2), model_folder / "sub" / "mine.pth")
    assert models.get(handle).scale == 2


@pytest.mark.parametrize("name", [NOTHING, "../x.pth", "/etc/passwd", "x.txt"])
def test_what_cannot_be_a_file_is_refused_before_the_run(model_folder: Path, name: str) -> None:
    answer = UPSCALE.VALIDATE_INPUTS(name)
    assert isinstance(answer, str)
    assert "file" in answer
    if name == NOTHING:
        assert "upscale_models" in answer


def test_a_file_that_is_not_there_yet_is_no_reason_to_refuse_the_graph(model_folder: Path) -> None:
    assert UPSCALE.VALIDATE_INPUTS("later.pth") is True
    assert UPSCALE.VALIDATE_INPUTS() is True


def test_other_bytes_make_the_host_run_what_depends_on_them(model_folder: Path) -> None:
    missing = UPSCALE.IS_CHANGED("mine.pth")
    path = small_networks.save(small_networks.compact(2), model_folder / "mine.pth")
    first = UPSCALE.IS_CHANGED("mine.pth")
    assert first == UPSCALE.IS_CHANGED("mine.pth") != missing
    torch.save(small_networks.compact(4).state_dict(), path)
    assert UPSCALE.IS_CHANGED("mine.pth") != first
    assert isinstance(UPSCALE.IS_CHANGED("../x.pth"), str)


def test_a_linked_name_is_not_known_beforehand(model_folder: Path) -> None:
    """The host passes None for it."""
    assert UPSCALE.VALIDATE_INPUTS(None) is True
    assert isinstance(UPSCALE.IS_CHANGED(None), str)
