from __future__ import annotations

import json
import logging
import sys
import types
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, PhotoWriteError
from photokeep_nodes.nodes.load_photo import LoadPhoto
from photokeep_nodes.nodes.save_photo import SavePhoto
from photokeep_nodes.photo_io.place import PLACERS
from photokeep_nodes.photo_io.write import FORMATS

if TYPE_CHECKING:
    from pathlib import Path


class Interrupted(BaseException):
    pass


@pytest.fixture
def out(tmp_path: Path):
    settings = host.Standalone(input_dirs=(tmp_path / "in",), output_dir=tmp_path / "out")
    (tmp_path / "in").mkdir()
    with host.standalone(settings):
        yield tmp_path / "out"


def save(image: torch.Tensor, **changes: object) -> list[dict]:
    chosen = {"filename": "p", "format": "png", "bit_depth": "auto", "quality": 95, "if_exists": "number"} | changes
    answer = SavePhoto().run(image, **chosen)
    assert answer["result"] == ()
    return answer["ui"]["images"]


def pixels(path: Path) -> np.ndarray:
    with Image.open(path) as image:
        return np.asarray(image)


def steps(batch: int = 1, height: int = 6, width: int = 8, channels: int = 3) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randint(0, 256, (batch, height, width, channels), generator=generator) / 255


def test_what_the_editor_gets(out):
    assert save(steps(), filename="a/b/p") == [{"filename": "p.png", "subfolder": "a/b", "type": "output"}]
    np.testing.assert_array_equal(pixels(out / "a" / "b" / "p.png"), np.rint(steps()[0].numpy() * 255))


def test_each_picture_of_a_batch(out):
    batch = steps(3)
    names = [entry["filename"] for entry in save(batch)]
    assert names == ["p.png", "p_2.png", "p_3.png"]
    for name, picture in zip(names, batch, strict=True):
        np.testing.assert_array_equal(pixels(out / name), np.rint(picture.numpy() * 255))


@pytest.mark.parametrize("if_exists", ["overwrite", "refuse"])
def test_a_batch_does_not_overwrite_itself(out, if_exists):
    assert [entry["filename"] for entry in save(steps(3), if_exists=if_exists)] == ["p.png", "p_2.png", "p_3.png"]
    if if_exists == "refuse":
        with pytest.raises(PhotoWriteError):
            save(steps(), if_exists=if_exists)
    else:
        save(steps(3), if_exists=if_exists)
    assert len(list(out.iterdir())) == 3


def test_batch_number_in_the_name(out):
    names = [entry["filename"] for entry in save(steps(2), filename="x%batch_num%", if_exists="overwrite")]
    assert names == ["x0.png", "x1.png"]


def test_the_whole_way_round(out):
    samples = np.random.default_rng(1).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    (out.parent / "in" / "scan.png").write_bytes(imagecodecs.png_encode(samples))
    image, mask, info = LoadPhoto().run("scan.png", "refuse")
    (entry,) = save(image, filename="%photo%_restored", photo_info=info, mask=mask)
    assert entry["filename"] == "scan_restored.png"
    np.testing.assert_array_equal(imagecodecs.png_decode((out / "scan_restored.png").read_bytes()), samples)


def test_transparency_goes_round(out):
    rgba = np.random.default_rng(1).integers(0, 256, (5, 6, 4), np.uint8)
    Image.fromarray(rgba).save(out.parent / "in" / "cut.png")
    image, mask, info = LoadPhoto().run("cut.png", "refuse")
    save(image, photo_info=info, mask=mask)
    np.testing.assert_array_equal(pixels(out / "p.png"), rgba)


def test_a_photo_that_had_alpha_keeps_it_when_all_of_it_is_opaque(out):
    info = {"name": "x", "has_alpha": True}
    save(steps(), photo_info=info, mask=torch.zeros(1, 6, 8))
    assert pixels(out / "p.png").shape[2] == 4


def test_an_empty_mask_is_no_transparency(out):
    save(steps(), mask=torch.zeros(1, 64, 64))
    assert pixels(out / "p.png").shape[2] == 3


def test_a_mask_is_scaled_and_shared_by_the_batch(out):
    mask = torch.zeros(2, 4)
    mask[:, 2:] = 1
    save(steps(2, 20, 40), mask=mask)
    for name in ("p.png", "p_2.png"):
        alpha = pixels(out / name)[..., 3]
        assert alpha.shape == (20, 40)
        assert alpha[:, :12].min() > 230
        assert alpha[:, 28:].max() < 25


def test_four_channels_are_transparency(out):
    image = steps(channels=4)
    save(image)
    np.testing.assert_array_equal(pixels(out / "p.png"), np.rint(image[0].numpy() * 255))


def test_one_channel_and_half_precision(out):
    save(steps(channels=1).half())
    assert pixels(out / "p.png").shape == (6, 8)


def test_the_graph_is_embedded(out):
    prompt, workflow = {"1": {"class_type": "PhotokeepLoadPhoto"}}, {"nodes": [1, 2]}
    save(steps(), prompt=prompt, extra_pnginfo={"workflow": workflow})
    with Image.open(out / "p.png") as image:
        image.load()
        assert image.text == {"prompt": json.dumps(prompt), "workflow": json.dumps(workflow)}


def test_the_hosts_disable_metadata_is_obeyed(out, tmp_path, monkeypatch):
    folders = types.SimpleNamespace(get_output_directory=lambda: str(tmp_path / "host"))
    monkeypatch.setitem(sys.modules, "folder_paths", folders)
    monkeypatch.setitem(
        sys.modules,
        "comfy.model_management",
        types.SimpleNamespace(throw_exception_if_processing_interrupted=lambda: None),
    )
    for disabled in (False, True):
        arguments = types.SimpleNamespace(args=types.SimpleNamespace(disable_metadata=disabled))
        monkeypatch.setitem(sys.modules, "comfy.cli_args", arguments)
        token = host._standalone.set(None)
        try:
            (entry,) = save(steps(), prompt={"1": {}})
        finally:
            host._standalone.reset(token)
        with Image.open(tmp_path / "host" / entry["filename"]) as image:
            image.load()
            assert bool(image.text) is not disabled


def test_warnings_are_logged(out, caplog):
    with caplog.at_level(logging.WARNING):
        save(steps(), format="jpeg", mask=torch.ones(1, 6, 8))
    assert "p.jpg" in caplog.text
    assert "transparency" in caplog.text


def test_an_interrupt_between_two_pictures(out):
    calls = 0

    def check() -> None:
        nonlocal calls
        calls += 1
        if calls == 3:
            raise Interrupted

    with host.standalone(host.Standalone(output_dir=out, check_interrupted=check)), pytest.raises(Interrupted):
        save(steps(5))
    assert sorted(path.name for path in out.iterdir()) == ["p.png", "p_2.png"]


@pytest.mark.parametrize("shape", [(6, 8, 3), (1, 6, 8, 2), (1, 6, 8, 5)])
def test_no_images(out, shape):
    with pytest.raises(NodeInputError) as caught:
        save(torch.zeros(shape))
    assert caught.value.hint


@pytest.mark.parametrize("shape", [(3, 6, 8), (1, 1, 6, 8), (8,)])
def test_no_masks(out, shape):
    with pytest.raises(NodeInputError) as caught:
        save(steps(2), mask=torch.ones(shape))
    assert caught.value.hint


def test_errors_come_through(out):
    with pytest.raises(PhotoWriteError):
        save(steps(), filename="../p")
    with pytest.raises(PhotoWriteError):
        save(steps() * float("nan"))
    assert not out.exists() or not list(out.iterdir())


def test_the_choices_are_those_of_photo_io():
    required = SavePhoto.INPUT_TYPES()["required"]
    assert tuple(required["format"][0]) == FORMATS
    assert tuple(required["if_exists"][0]) == tuple(PLACERS)
