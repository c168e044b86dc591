from __future__ import annotations

import base64
import importlib.util
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from photokeep_nodes.photo_io import read_photo

WORKFLOWS = Path(__file__).parents[2] / "workflows"
SHIPPED = WORKFLOWS / "old_portrait.jpg"


@pytest.fixture(scope="module")
def make_sample():
    spec = importlib.util.spec_from_file_location("make_sample", WORKFLOWS / "make_sample.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_shipped_file_is_what_the_script_makes(make_sample):
    """Within what another libjpeg or scipy may change; the same versions give the same bytes, see below."""
    again = np.asarray(Image.open(io.BytesIO(make_sample.encoded(make_sample.aged())))).astype(int)
    with Image.open(SHIPPED) as image:
        shipped = np.asarray(image).astype(int)
    assert again.shape == shipped.shape
    assert np.abs(again - shipped).mean() < 1
    assert np.abs(again - shipped).max() < 40


def test_run_again_it_writes_the_same_bytes(tmp_path):
    for name in ("a.jpg", "b.jpg"):
        subprocess.run(
            [sys.executable, str(WORKFLOWS / "make_sample.py"), str(tmp_path / name)], check=True, capture_output=True
        )
    assert (tmp_path / "a.jpg").read_bytes() == (tmp_path / "b.jpg").read_bytes()


def test_it_reads_as_a_photo():
    photo = read_photo(SHIPPED)
    assert photo.pixels.shape == (260, 208, 3)
    assert photo.info["mode"] == "rgb"
    assert photo.info["dpi"] == [150.0, 150.0]
    assert b"public domain" in base64.b64decode(photo.info["exif"])
    assert photo.info["warnings"] == []


def test_it_needs_restoring(make_sample):
    """Faded, grainy, scratched; but a colour photo, not a sepia one."""
    from skimage import data

    source = np.asarray(
        Image.fromarray(data.astronaut()).crop(make_sample._CROP).resize(make_sample._SIZE, Image.Resampling.LANCZOS)
    )
    old = np.rint(read_photo(SHIPPED).pixels * 255)
    low, high = np.percentile(old, [1, 99])
    assert high - low < 0.9 * np.ptp(np.percentile(source, [1, 99]))
    grain = [np.diff(wall[20:60, 10:40].mean(axis=2), axis=1).std() for wall in (old, source)]
    assert grain[0] > 3 * grain[1]
    suit = old[215:250, 10:60].mean(axis=(0, 1))
    assert suit[0] > suit[2] + 40


def test_its_face_is_found():
    import torch

    from photokeep_nodes import host
    from photokeep_nodes.model_spec import ModelHandle
    from photokeep_nodes.nodes.analyze import Analyze

    image = torch.from_numpy(read_photo(SHIPPED).pixels)[None]
    with host.standalone(host.Standalone(device="cpu")):
        analysis = Analyze().run(image, ModelHandle("retinaface-mobilenet"))[0]
    (face,) = analysis["images"][0]["faces"]
    x0, y0, x1, y1 = face["box"]
    assert min(x1 - x0, y1 - y0) >= 60
    assert face["score"] > 0.9
    assert analysis["images"][0]["tone"] == "colour"
