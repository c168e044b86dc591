from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import photokeep_nodes
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.zero_dce import SPEC
from photokeep_nodes.weight_formats import read_state_dict

PATH = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return SPEC.build(read_state_dict(PATH))


def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:192, 100:292] / np.float32(255)).permute(2, 0, 1)[None]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def test_the_network_is_whole(module: torch.nn.Module) -> None:
    assert 4 * sum(p.numel() for p in module.parameters()) == SPEC.weight_bytes
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


def test_a_dark_photo_is_brightened_towards_the_original(module: torch.nn.Module) -> None:
    """With the sign of the curves reversed this turns the photo black."""
    bright = photo()
    dark = (bright * 0.25) ** 1.2
    with torch.inference_mode():
        out = module(dark)
    assert out.mean() > 2 * dark.mean()
    assert psnr(out, bright) > psnr(dark, bright) + 5
    assert 0 <= out.min() <= out.max() <= 1


@pytest.mark.parametrize("size", [(1, 1), (17, 32)])
def test_any_size_and_batch_is_kept(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert module(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_nothing_beyond_the_receptive_field_is_seen(module: torch.nn.Module) -> None:
    dark, pad = photo() * 0.2, SPEC.receptive_field
    with torch.inference_mode():
        whole = module(dark)[..., 60:68, 60:68]
        tile = module(dark[..., 60 - pad : 68 + pad, 60 - pad : 68 + pad])[..., pad:-pad, pad:-pad]
    torch.testing.assert_close(tile, whole, rtol=0, atol=1e-5)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="not those of Zero-DCE: 14 missing"):
        SPEC.build({"model.0.weight": torch.zeros(3)})
