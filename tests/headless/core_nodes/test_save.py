"""SaveImage: names, numbers, metadata, and what never happens to other files."""

from __future__ import annotations

import json
import re
import threading
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image

from headless.core_nodes import save
from headless.core_nodes.preview import ImageCompare, MaskPreview, PreviewImage
from headless.core_nodes.save import SaveImage
from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, PhotoWriteError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def out(tmp_path: Path) -> Iterator[Path]:
    with host.standalone(host.Standalone(output_dir=tmp_path / "out")):
        yield tmp_path / "out"


def image(batch: int = 1, channels: int = 3) -> torch.Tensor:
    return torch.linspace(-0.1, 1.1, batch * 5 * 7 * channels).reshape(batch, 5, 7, channels)


def names(answer: dict) -> list[str]:
    return [f"{each['subfolder']}/{each['filename']}".lstrip("/") for each in answer["ui"]["images"]]


def test_pixels_are_cut_as_the_host_cuts_them(out):
    for channels in (1, 3, 4):
        picture = image(channels=channels)
        answer = SaveImage().run(picture, f"c{channels}")
        assert answer["result"] == (picture,)
        expected = np.clip(255.0 * picture[0].numpy(), 0, 255).astype(np.uint8)
        with Image.open(out / names(answer)[0]) as saved:
            np.testing.assert_array_equal(np.asarray(saved).reshape(5, 7, channels), expected)


def test_numbers_go_on_and_nothing_is_overwritten(out):
    assert names(SaveImage().run(image(2))) == ["ComfyUI_00001_.png", "ComfyUI_00002_.png"]
    assert names(SaveImage().run(image())) == ["ComfyUI_00003_.png"]
    (out / "ComfyUI_00010_.png").write_bytes(b"mine")
    (out / "ComfyUI_more_00099_.png").write_bytes(b"other")
    (out / "comfyui_00012_.jpg").write_bytes(b"mine too")
    assert names(SaveImage().run(image(2))) == ["ComfyUI_00013_.png", "ComfyUI_00014_.png"]
    assert (out / "ComfyUI_00010_.png").read_bytes() == b"mine"


def test_each_picture_may_have_its_place_in_the_name(out):
    assert names(SaveImage().run(image(2), "a_%batch_num%")) == ["a_0_00001_.png", "a_1_00002_.png"]
    before = {path: path.read_bytes() for path in out.iterdir()}
    assert names(SaveImage().run(1 - image(2), "a_%batch_num%")) == ["a_0_00002_.png", "a_1_00003_.png"]
    assert {path: path.read_bytes() for path in before} == before


def test_words_in_percent_signs(out):
    (name,) = names(SaveImage().run(image(), "%width%x%height%/%year%-%month%-%day% %hour%%minute%%second%"))
    assert re.fullmatch(r"7x5/20\d\d-\d\d-\d\d \d{6}_00001_\.png", name)
    assert (out / name).is_file()
    assert names(SaveImage().run(image(), "%KSampler.seed%")) == ["%KSampler.seed%_00001_.png"]


@pytest.mark.parametrize("prefix", ["../x", "/tmp/x", "a/../../x", "C:/x", "..", "", ".", "a/..", "\\..\\x"])
def test_names_that_lead_out_are_refused(out, prefix):
    with pytest.raises(PhotoWriteError):
        SaveImage().run(image(), prefix)
    assert not out.exists() or not any(path.is_file() for path in out.rglob("*"))


def test_a_link_does_not_lead_out(out, tmp_path):
    (tmp_path / "elsewhere").mkdir()
    out.mkdir()
    (out / "album").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(PhotoWriteError, match="leads out"):
        SaveImage().run(image(), "album/x")
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_folder_is_made_and_a_trailing_slash_left_out(out):
    assert names(SaveImage().run(image(), "a/b/c")) == ["a/b/c_00001_.png"]
    assert names(SaveImage().run(image(), "a/b/")) == ["a/b_00001_.png"]


def test_the_workflow_is_embedded(out):
    prompt, workflow = {"1": {"class_type": "SaveImage"}}, {"nodes": [{"title": "Großmutter"}]}
    (name,) = names(SaveImage().run(image(), "x", prompt, {"workflow": workflow, "nothing": None}))
    with Image.open(out / name) as saved:
        assert {key: json.loads(text) for key, text in saved.text.items()} == {"prompt": prompt, "workflow": workflow}


def test_what_cannot_be_embedded_is_said(out):
    with pytest.raises(NodeInputError, match="cannot be embedded"):
        SaveImage().run(image(), "x", {"a": object()})


def test_two_runs_at_once_share_the_numbers(out):
    """Both look before either writes; each picture still gets a file of its own."""
    barrier = threading.Barrier(4)
    answers: list[str] = []

    def work() -> None:
        with host.standalone(host.Standalone(output_dir=out)):
            barrier.wait()
            for _ in range(5):
                answers.extend(names(SaveImage().run(image(2), "race")))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for each in threads:
        each.start()
    for each in threads:
        each.join()
    assert len(answers) == len(set(answers)) == 40
    assert sorted(answers) == sorted(path.name for path in out.iterdir())


def test_a_name_that_is_always_taken_ends(out, monkeypatch):
    out.mkdir()
    monkeypatch.setattr(save, "_MOST_TRIES", 3)
    monkeypatch.setattr(save, "_highest", lambda _folder, _stem: 0)
    for number in (1, 2, 3):
        (out / f"x_{number:05}_.png").write_bytes(b"")
    with pytest.raises(PhotoWriteError, match="no free name"):
        SaveImage().run(image(), "x")


def test_other_errors_are_not_taken_for_a_taken_name(out):
    out.mkdir()
    (out / "file").write_bytes(b"")
    with pytest.raises(PhotoWriteError, match="not a folder"):
        SaveImage().run(image(), "file/x")


def test_values_that_are_not_numbers_are_refused(out):
    with pytest.raises(NodeInputError, match="not numbers"):
        SaveImage().run(torch.full((1, 2, 2, 3), float("nan")))
    assert not out.exists()


def test_previews_write_nothing(out):
    picture, mask = image(), image()[..., 0]
    for node, value in ((PreviewImage, picture), (MaskPreview, mask)):
        answer = node().run(value)
        assert answer["ui"] == {"images": []}
        assert torch.equal(answer["result"][0], value)
    assert ImageCompare().run(picture, compare_view="")["result"] == ()
    with pytest.raises(NodeInputError, match="image_b must be"):
        ImageCompare().run(picture, mask)
    assert not out.exists()
