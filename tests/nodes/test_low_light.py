"""LowLight with Zero-DCE's own weights."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.low_light import LowLight

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ZERO_DCE = ModelHandle("zero-dce")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    with host.standalone(host.Standalone(device="cpu")):
        yield


def photo(height: int = 96, width: int = 96) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 150 : 150 + width].copy())[None] / 255


def brighten(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    (out,) = LowLight().run(image, ZERO_DCE, strength)
    return out


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def test_its_inputs_are_its_arguments() -> None:
    assert list(LowLight.INPUT_TYPES()["required"]) == list(inspect.signature(LowLight.run).parameters)[1:]


def test_a_dark_photo_becomes_brighter_and_more_like_itself() -> None:
    day = photo()
    night = day * 0.2
    out = brighten(night)
    assert out.shape == day.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert 0.0 <= float(out.min()) <= float(out.max()) <= 1.0
    assert out.mean() > 2 * night.mean()
    assert psnr(out, day) > psnr(night, day) + 3


def test_strength_blends_with_the_input() -> None:
    night = photo() * 0.2
    whole = brighten(night)
    torch.testing.assert_close(brighten(night, 0.25), night + 0.25 * (whole - night), rtol=0, atol=1e-5)
    assert torch.equal(brighten(night, 0.0), night)


def test_gray_stays_gray() -> None:
    """A tint on a black-and-white photo would be a fault of its own."""
    gray = photo().mean(-1, keepdim=True) * 0.2
    out = brighten(gray)
    assert out.shape[-1] == 3
    assert (out - out[..., :1]).abs().max() < 1e-6
    assert out.mean() > 2 * gray.mean()


def test_batches_odd_sizes_alpha_and_half_precision() -> None:
    night = photo(33, 70) * 0.2
    expected = brighten(night)
    batch = brighten(torch.cat([night, night.flip(2)]))
    torch.testing.assert_close(batch[:1], expected, rtol=0, atol=1e-5)
    assert torch.equal(brighten(torch.cat([night, torch.ones(1, 33, 70, 1)], dim=-1)), expected)
    torch.testing.assert_close(brighten(night.half()), expected, rtol=0, atol=5e-3)
    assert brighten(photo(1, 1)).shape == (1, 1, 1, 3)


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not for low light"):
        LowLight().run(photo(), ModelHandle("ffdnet-color"), 1.0)
    with pytest.raises(NodeInputError, match="not for low light"):
        LowLight().run(photo(), ModelHandle("ffdnet-color"), 0.0)
