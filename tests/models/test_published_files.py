"""The published weights themselves, on real photos; for whoever has them.

``PHOTOKEEP_REAL_MODELS`` names a folder with published files under their own names; what is not there is skipped.
"""

from __future__ import annotations

import io
import os
from dataclasses import replace
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from published import LAYOUTS
from skimage import data

from photokeep_nodes import models, weights

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec

FOLDER = os.environ.get("PHOTOKEEP_REAL_MODELS")
REDRAWS = {"scunet-gan", "realplksr-denoise", "realplksr-dejpg"}
"""Trained for looks: what they return is cleaner, but not always nearer to the original by PSNR."""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(FOLDER is None, reason="needs PHOTOKEEP_REAL_MODELS to name a folder of published weight files"),
    # spandrel's networks call it the old way when built.
    pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning"),
]


def tensor(pixels: np.ndarray, spec: ModelSpec) -> torch.Tensor:
    image = torch.from_numpy(np.ascontiguousarray(pixels) / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW
    return image.mean(1, keepdim=True) if spec.channels == 1 else image


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def detail(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


def noisy(photo: np.ndarray) -> np.ndarray:
    grain = np.random.RandomState(1).standard_normal(photo.shape) * 20
    return np.clip(photo + grain, 0, 255).astype(np.uint8)


def compressed(photo: np.ndarray) -> np.ndarray:
    stream = io.BytesIO()
    Image.fromarray(photo).save(stream, "JPEG", quality=20)
    return np.asarray(Image.open(stream))


def shaken(photo: np.ndarray) -> np.ndarray:
    moved = [np.roll(photo, shift, axis=1).astype(np.float32) for shift in range(-4, 5)]
    return np.mean(moved, axis=0).round().astype(np.uint8)


DAMAGE: dict[str, Callable[[np.ndarray], np.ndarray]] = {"denoise": noisy, "jpeg": compressed, "deblur": shaken}


@pytest.fixture(params=sorted(LAYOUTS))
def spec(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> ModelSpec:
    """A model whose published file is there."""
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(FOLDER))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    found = models.catalogue()[request.param]
    found = replace(found, weights=found.weights[-1:])
    if weights.status(found).state == "missing":
        pytest.skip(f"{found.weights[0].filename} is not in {FOLDER}")
    return found


def test_the_published_file_does_what_it_is_for(spec: ModelSpec) -> None:
    weights.verify(spec, rehash=True)
    module = weights.load_module(spec)
    photo = data.astronaut()[:256, 100:356]
    if spec.role == "upscale":
        small = tensor(np.asarray(Image.fromarray(photo).resize((128, 128), Image.Resampling.LANCZOS)), spec)
        with torch.no_grad():
            large = module(small)
        assert large.shape[-1] == 128 * spec.scale
        assert (torch.nn.functional.avg_pool2d(large, spec.scale) - small).abs().mean() < 0.04
        smooth = torch.nn.functional.interpolate(small, scale_factor=spec.scale, mode="bicubic")
        assert detail(large) > detail(smooth)
        return
    clean, damaged = tensor(photo, spec), tensor(DAMAGE[spec.role](photo), spec)
    with torch.no_grad():
        restored = module(damaged).clamp(0, 1)
    inner = (..., slice(8, -8), slice(8, -8))  # np.roll brought the other edge in
    gain = psnr(restored[inner], clean[inner]) - psnr(damaged[inner], clean[inner])
    assert gain > (-3.0 if spec.id in REDRAWS else 0.3)
    if spec.role != "deblur":
        assert detail(restored) < detail(damaged)
    if spec.condition == "jpeg_quality":
        with torch.no_grad():
            assert float(module.predict_quality(damaged)) == pytest.approx(0.2, abs=0.1)
            assert psnr(module(damaged, torch.tensor([0.9])), damaged) > psnr(restored, damaged)
