"""Upscale with the compact Real-ESRGAN's own weights."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from skimage import data
from torch.nn import functional

from photokeep_nodes import inference, tiled_inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.upscale import Upscale

COMPACT = ModelHandle("realesr-animevideov3")


pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


def photo(height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 190 : 190 + width].copy())[None] / 255


def upscale(image: torch.Tensor, scale: float = 4.0, tile: int = 0, **more: Any) -> torch.Tensor:
    (out,) = Upscale().run(image, COMPACT, scale, tile, **more)
    return out


def advice(*factors: float | None) -> dict[str, Any]:
    stages = [[] if factor is None else [{"stage": "upscale", "reason": "", "scale": factor}] for factor in factors]
    return {"images": [{"recommendation": each} for each in stages]}


def shrunk(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    small = functional.interpolate(image.permute(0, 3, 1, 2), size=(height, width), mode="area")
    return small.permute(0, 2, 3, 1)


def test_its_inputs_are_its_arguments() -> None:
    declared = Upscale.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(Upscale.run).parameters)[1:]


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.75, 4.0, 6.0, 8.0])
def test_every_factor_gives_its_size_and_the_same_picture_in_place(scale: float) -> None:
    image = photo()
    out = upscale(image, scale)
    assert out.shape == (1, round(40 * scale), round(56 * scale), 3)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert 0.0 <= float(out.min()) <= float(out.max()) <= 1.0
    # A shift of half a pixel would show here.
    error = (shrunk(out, 40, 56) - image).abs().mean()
    moved = (shrunk(out, 40, 56)[:, :, 1:] - image[:, :, :-1]).abs().mean()
    assert error < 0.035
    assert error < moved / 2


def test_at_the_models_own_factor_nothing_is_resampled() -> None:
    image = photo()
    plain = inference.run(
        inference.spec_for(COMPACT, "upscale"),
        lambda network: network(image.permute(0, 3, 1, 2)).clamp(0, 1).permute(0, 2, 3, 1),
        height=40,
        width=56,
    )
    torch.testing.assert_close(upscale(image), plain, rtol=0, atol=1e-6)


def test_a_tiled_photo_is_the_same_photo() -> None:
    image = photo(40, 200)
    torch.testing.assert_close(upscale(image, tile=72), upscale(image), rtol=0, atol=1e-4)


def test_a_batch_is_each_of_its_photos() -> None:
    one, other = photo(), photo().flip(2)
    out = upscale(torch.cat([one, other]), 2.0)
    torch.testing.assert_close(out[:1], upscale(one, 2.0), rtol=0, atol=1e-6)
    torch.testing.assert_close(out[1:], upscale(other, 2.0), rtol=0, atol=1e-6)


def test_alpha_and_half_precision() -> None:
    image = photo()
    expected = upscale(image)
    with_alpha = torch.cat([image, torch.zeros(1, 40, 56, 1)], dim=-1)
    assert torch.equal(upscale(with_alpha), expected)
    half = upscale(image.half())
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=0.02)


@pytest.mark.parametrize("scale", [2.0, 4.0])
def test_gray_stays_gray(scale: float) -> None:
    """A network trained on colour tints what has none."""
    gray = photo().mean(-1, keepdim=True)
    gray = (gray + 0.1 * torch.randn(gray.shape, generator=torch.Generator().manual_seed(0))).clamp(0, 1)
    out = upscale(gray, scale)
    assert out.shape[-1] == 3
    assert (out - out[..., :1]).abs().max() < 1e-6
    colour = photo().flip(1)
    both = upscale(torch.cat([gray.expand(-1, -1, -1, 3), colour]), scale)
    torch.testing.assert_close(both[:1], out, rtol=0, atol=1e-5)
    torch.testing.assert_close(both[1:], upscale(colour, scale), rtol=0, atol=1e-5)
    torch.testing.assert_close(upscale(gray), upscale(gray.expand(-1, -1, -1, 3)), rtol=0, atol=0)


def test_the_photo_that_came_in_is_left_alone() -> None:
    image = photo()
    before = image.clone()
    upscale(image, 1.0)
    assert torch.equal(image, before)


@pytest.mark.parametrize("size", [(1, 1), (1, 90), (3, 2)])
def test_photos_of_a_few_pixels(size: tuple[int, int]) -> None:
    assert upscale(photo(*size)).shape == (1, 4 * size[0], 4 * size[1], 3)
    assert upscale(photo(*size), 1.0).shape == (1, *size, 3)


@pytest.mark.parametrize(("side", "scale"), [(8_000, 8.0), (8_000, 1.5)])
def test_what_would_not_fit_is_refused_before_any_work(
    side: int, scale: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At a factor that is no whole number the model's own result, sixteen times the pixels, is held."""
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    image = torch.zeros(1).expand(1, side, side, 3)
    with pytest.raises(NodeInputError, match=r"would have to make \d+ x \d+ pixels"):
        upscale(image, scale)


def test_a_tile_without_room_for_its_margins_is_enlarged() -> None:
    image = photo(40, 100)
    torch.testing.assert_close(upscale(image, tile=16), upscale(image), rtol=0, atol=1e-4)


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="made for denoise, not for upscale"):
        Upscale().run(photo(), ModelHandle("ffdnet-color"), 4.0, 0)


@pytest.mark.parametrize("scale", [1.0, 2.0, 2.75, 4.0])
def test_strength_blends_with_a_plain_enlargement(scale: float, monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    full = upscale(image, scale)
    assert torch.equal(upscale(image, scale, strength=1.0), full)
    half = upscale(image, scale, strength=0.5)
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    plain = upscale(image, scale, strength=0.0)  # no weights are read for it
    assert plain.shape == full.shape
    torch.testing.assert_close(half, (plain + full) / 2, rtol=0, atol=1e-5)
    assert (shrunk(plain, 40, 56) - image).abs().mean() < 0.02
    if scale == 1.0:
        assert torch.equal(plain, image)


def test_overlap_is_passed_on() -> None:
    image = photo(40, 200)
    whole = upscale(image)
    assert (upscale(image, tile=64, overlap=8) - whole).abs().max() > 1e-3


def test_auto_takes_the_factor_that_is_recommended(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo()
    assert torch.equal(upscale(image, 1.0, factor="auto"), upscale(image, 4.0)), "40 x 56 is small"
    assert torch.equal(upscale(image, 8.0, factor="auto", analysis=advice(2.0)), upscale(image, 2.0))
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    assert upscale(image, 4.0, factor="auto", analysis=advice(None)) is image
    large = torch.zeros(1).expand(1, 8, 2000, 3)
    assert upscale(large, factor="auto") is large


def test_auto_enlarges_a_batch_by_one_factor() -> None:
    pair = torch.cat([photo(), photo().flip(2)])
    assert upscale(pair, factor="auto", analysis=advice(2.0, 2.0)).shape == (2, 80, 112, 3)
    assert upscale(pair, factor="auto", analysis=advice(None, 2.0)).shape == (2, 80, 112, 3)
    with pytest.raises(NodeInputError, match="of 1 images, but 2 came in"):
        upscale(pair, factor="auto", analysis=advice(2.0))
    with pytest.raises(NodeInputError, match="no recommended factors"):
        upscale(photo(), factor="auto", analysis={"images": [{"recommendation": [{"stage": "upscale"}]}]})


def test_a_factor_by_hand_needs_no_analysis() -> None:
    image = photo()
    assert torch.equal(upscale(image, 2.0, analysis=advice(None)), upscale(image, 2.0))
