from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import photokeep_nodes
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.ffdnet_color import SPEC
from photokeep_nodes.weight_formats import read_state_dict

PATH = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return SPEC.build(read_state_dict(PATH))


def crop(photo: np.ndarray, side: int = 256) -> torch.Tensor:
    top, left = (photo.shape[0] - side) // 2, (photo.shape[1] - side) // 2
    part = photo[top : top + side, left : left + side]
    return torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None]


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def test_the_network_is_whole(module: torch.nn.Module) -> None:
    assert 4 * sum(p.numel() for p in module.parameters()) == SPEC.weight_bytes
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@pytest.mark.parametrize(("photo", "at_least"), [("astronaut", 31.8), ("chelsea", 30.9), ("coffee", 33.2)])
def test_noise_of_a_known_strength_is_removed(module: torch.nn.Module, photo: str, at_least: float) -> None:
    clean = crop(getattr(data, photo)())
    noisy = clean + torch.randn(clean.shape, generator=torch.Generator().manual_seed(1)) * (25 / 255)
    with torch.inference_mode():
        restored = module(noisy, torch.tensor([25 / 255])).clamp(0, 1)
    assert psnr(noisy, clean) == pytest.approx(20.2, abs=0.1)
    assert psnr(restored, clean) > at_least


def test_sigma_is_per_photo_and_changes_the_result(module: torch.nn.Module) -> None:
    photo = crop(data.chelsea(), 32)
    with torch.inference_mode():
        both = module(photo.repeat(2, 1, 1, 1), torch.tensor([0.0, 0.2]))
        mild = module(photo, torch.tensor([0.0]))
        strong = module(photo, torch.tensor([0.2]))
    torch.testing.assert_close(both[0], mild[0], rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1], strong[0], rtol=0, atol=1e-5)
    assert (mild - strong).abs().max() > 0.05
    assert psnr(mild, photo) > 35


@pytest.mark.parametrize("size", [(2, 2), (1, 5), (33, 48), (48, 33)])
def test_any_size_is_kept(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        assert module(torch.rand(1, 3, *size), torch.tensor([0.1])).shape == (1, 3, *size)


def test_nothing_beyond_the_receptive_field_is_seen(module: torch.nn.Module) -> None:
    """Tiles with this much context are exact."""
    photo = crop(data.coffee(), 128)
    pad, sigma = SPEC.receptive_field, torch.tensor([0.1])
    with torch.inference_mode():
        whole = module(photo, sigma)[..., 60:68, 60:68]
        tile = module(photo[..., 60 - pad : 68 + pad, 60 - pad : 68 + pad], sigma)[..., pad:-pad, pad:-pad]
    torch.testing.assert_close(tile, whole, rtol=0, atol=1e-5)


def test_another_network_is_refused() -> None:
    state = read_state_dict(PATH)
    with pytest.raises(WeightsFormatError, match=r"FFDNet colour: 1 missing \(model\.4\.bias\)"):
        SPEC.build({name: tensor for name, tensor in state.items() if name != "model.4.bias"})
    with pytest.raises(WeightsFormatError, match=r"1 left over \(banana\)"):
        SPEC.build({**state, "banana": torch.zeros(1)})
    with pytest.raises(WeightsFormatError, match=r"model\.0\.weight is \(96, 5, 3, 3\), not \(96, 13, 3, 3\)"):
        SPEC.build({**state, "model.0.weight": torch.zeros(96, 5, 3, 3)})
