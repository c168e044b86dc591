"""LowLight with Zero-DCE's own weights."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from skimage import data

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.low_light import LowLight

ZERO_DCE = ModelHandle("zero-dce")


pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


def photo(height: int = 96, width: int = 96) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 150 : 150 + width].copy())[None] / 255


def brighten(image: torch.Tensor, strength: float = 1.0) -> torch.Tensor:
    (out,) = LowLight().run(image, ZERO_DCE, strength)
    return out


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def test_its_inputs_are_its_arguments() -> None:
    declared = LowLight.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(LowLight.run).parameters)[1:]


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


def brighten_when(image: torch.Tensor, when: str, **more: Any) -> torch.Tensor:
    (out,) = LowLight().run(image, ZERO_DCE, 1.0, when, **more)
    return out


def advice(*stages: str) -> dict[str, Any]:
    return {"images": [{"recommendation": [{"stage": stage, "reason": ""}] if stage else []} for stage in stages]}


def test_saved_files_without_the_new_inputs_brighten_always() -> None:
    day = photo()
    assert torch.equal(brighten(day), brighten_when(day, "always"))
    assert not torch.equal(brighten(day), day)


def test_auto_brightens_only_dark_photos() -> None:
    day = photo()
    night = day * 0.1
    assert brighten_when(day, "auto") is day
    assert torch.equal(brighten_when(night, "auto"), brighten(night))
    out = brighten_when(torch.cat([day, night]), "auto")
    assert torch.equal(out[:1], day)
    torch.testing.assert_close(out[1:], brighten(night), rtol=0, atol=1e-6)


def test_auto_believes_the_analysis() -> None:
    day = photo()
    assert torch.equal(brighten_when(day, "auto", analysis=advice("low_light")), brighten(day))
    night = day * 0.1
    assert brighten_when(night, "auto", analysis=advice("denoise")) is night
    assert torch.equal(brighten_when(day, "always", analysis=advice("")), brighten(day))


def test_an_analysis_of_other_photos_is_refused() -> None:
    with pytest.raises(NodeInputError, match="of 2 images, but 1 came in") as caught:
        brighten_when(photo(), "auto", analysis=advice("", ""))
    assert "Low Light" in caught.value.hint


@pytest.mark.parametrize("broken", [{}, {"images": [{}]}, {"images": 3}, {"images": [{"recommendation": [3]}]}])
def test_what_is_no_analysis_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(NodeInputError, match="no recommendations"):
        brighten_when(photo(), "auto", analysis=broken)


def test_tiles_are_passed_on() -> None:
    night = photo(64, 200) * 0.2
    torch.testing.assert_close(brighten_when(night, "always", tile=64), brighten(night), rtol=0, atol=1e-5)
