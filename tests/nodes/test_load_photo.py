from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

import imagecodecs
import numpy as np
import pytest
import torch
from PIL import Image

from photokeep_nodes import host
from photokeep_nodes.errors import PhotoReadError
from photokeep_nodes.nodes.load_photo import LoadPhoto

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def folder(tmp_path: Path):
    with host.standalone(host.Standalone(input_dirs=(tmp_path,))):
        yield tmp_path


def colours() -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (12, 16, 3), np.uint8)


def test_image_mask_and_info(folder):
    Image.fromarray(colours()).save(folder / "oma.png")
    image, mask, info = LoadPhoto().run("oma.png", "refuse")
    assert image.dtype == torch.float32
    assert image.device.type == "cpu"
    assert image.shape == (1, 12, 16, 3)
    # As the host's own LoadImage turns 8 bits into floats.
    np.testing.assert_array_equal(image[0].numpy(), colours().astype(np.float32) / 255.0)
    assert mask.shape == (1, 64, 64)
    assert not mask.any()
    assert info["name"] == "oma"
    assert json.loads(json.dumps(info)) == info
    assert set(info) == {"name", "format", "mode", "bit_depth", "has_alpha", "exif", "icc", "dpi", "warnings"}


def test_mask_is_what_is_transparent(folder):
    alpha = np.arange(12 * 16, dtype=np.uint8).reshape(12, 16)
    Image.fromarray(np.dstack([colours(), alpha])).save(folder / "cut.png")
    _, mask, info = LoadPhoto().run("cut.png", "refuse")
    np.testing.assert_allclose(mask[0].numpy(), 1 - alpha / 255, atol=1e-6)
    assert info["has_alpha"] is True


def test_sixteen_bits(folder):
    samples = np.random.default_rng(1).integers(0, 65536, (5, 6, 3)).astype(np.uint16)
    (folder / "scan.png").write_bytes(imagecodecs.png_encode(samples))
    image, _, info = LoadPhoto().run("scan.png", "refuse")
    np.testing.assert_array_equal(np.rint(image[0].numpy() * 65535), samples)
    assert info["bit_depth"] == 16


def test_damage(folder, caplog):
    Image.fromarray(colours()).save(folder / "whole.png")
    data = (folder / "whole.png").read_bytes()
    (folder / "cut.png").write_bytes(data[: len(data) // 2])
    with pytest.raises(PhotoReadError, match="damaged"):
        LoadPhoto().run("cut.png", "refuse")
    with caplog.at_level(logging.WARNING):
        image, _, info = LoadPhoto().run("cut.png", "accept")
    assert image.shape == (1, 12, 16, 3)
    assert any("damaged" in warning for warning in info["warnings"])
    assert "cut.png" in caplog.text


@pytest.mark.parametrize("name", ["none.png", "../x.png", "/etc/hostname", "a.png [output]", "folder", ""])
def test_what_is_not_there_is_told_before_the_run(folder, name):
    (folder / "folder").mkdir()
    said = LoadPhoto.VALIDATE_INPUTS(photo=name)
    assert isinstance(said, str)
    assert said
    with pytest.raises(PhotoReadError):
        LoadPhoto().run(name, "refuse")
    with pytest.raises(PhotoReadError):
        LoadPhoto.IS_CHANGED(name)


def test_names_that_are_not_in_the_list_are_fine(folder):
    deep = folder / "a" / "b"
    deep.mkdir(parents=True)
    Image.fromarray(colours()).save(deep / "x.dat", "PNG")
    assert LoadPhoto.VALIDATE_INPUTS(photo="a/b/x.dat") is True
    assert LoadPhoto.VALIDATE_INPUTS(photo=str(deep / "x.dat")) is True
    assert LoadPhoto().run("a/b/x.dat", "refuse")[2]["name"] == "x"


def test_a_linked_name_is_checked_when_it_is_known(folder):
    assert LoadPhoto.VALIDATE_INPUTS() is True


def test_another_photo_under_the_same_name(folder):
    Image.fromarray(colours()).save(folder / "oma.png")
    first = LoadPhoto.IS_CHANGED("oma.png", "refuse")
    assert first == LoadPhoto.IS_CHANGED("oma.png", "refuse")
    Image.fromarray(255 - colours()).save(folder / "oma.png")
    assert LoadPhoto.IS_CHANGED("oma.png", "refuse") != first


def test_the_drop_down(folder):
    Image.fromarray(colours()).save(folder / "oma.png")
    names, options = LoadPhoto.INPUT_TYPES()["required"]["photo"]
    assert "oma.png" in names
    assert options["image_upload"] is True
    assert options["default"] == "old_portrait.jpg"
    assert set(LoadPhoto.FILE_INPUTS) == {"photo"}


def test_the_drop_down_without_photos(tmp_path, monkeypatch):
    monkeypatch.setattr(host, "samples_dir", lambda: tmp_path / "none")
    with host.standalone(host.Standalone(input_dirs=(tmp_path,))):
        names, options = LoadPhoto.INPUT_TYPES()["required"]["photo"]
    assert names == []
    assert "default" not in options


def test_the_shipped_sample_loads(folder):
    image, _, info = LoadPhoto().run("old_portrait.jpg", "refuse")
    assert min(image.shape[1:3]) >= 180
    assert info["mode"] == "rgb"
    assert info["exif"]
    assert info["warnings"] == []
