"""Black-and-white photos keep their own tint, and their coloured places, whatever a network makes of them."""

from __future__ import annotations

import pytest
import torch
from skimage import data

from photokeep_nodes.ops import colour, tint

WARM = torch.tensor([1.1, 1.0, 0.85]).view(1, 3, 1, 1)
"""What a network that tints does."""
RED = torch.tensor([0.78, 0.12, 0.11]).view(1, 3, 1, 1)


def gray_photo() -> torch.Tensor:
    return (torch.from_numpy(data.camera()) / 255.0).expand(1, 3, -1, -1).clone()


def grainy(image: torch.Tensor, steps: float) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(1))
    return (image + steps / 255 * noise).clamp(0, 1)


def chroma(image: torch.Tensor) -> torch.Tensor:
    return colour.srgb_to_lab(image.clamp(0, 1))[:, 1:].norm(dim=1)


def test_a_gray_photo_stays_exactly_gray_and_takes_the_networks_lightness() -> None:
    photo = gray_photo()
    result = tint.keep_own_tint(photo, photo * WARM)
    assert colour.is_gray(result)
    luma = (photo * WARM * torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)).sum(1)
    torch.testing.assert_close(result[:, 0], luma, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("steps", "most"), [(10, 1.0), (25, 2.5), (50, 5.0)])
def test_coloured_grain_leaves_no_tint_and_no_specks(steps: float, most: float) -> None:
    photo = grainy(gray_photo(), steps)
    result = tint.keep_own_tint(photo, gray_photo() * WARM)
    assert chroma(gray_photo() * WARM).mean() > 10  # what is taken off
    assert chroma(result).flatten().quantile(0.99) < most


@pytest.mark.parametrize("steps", [0, 15])
@pytest.mark.parametrize("side", [8, 20, 40, 50])
def test_a_small_coloured_thing_keeps_its_colour(side: int, steps: float) -> None:
    photo = gray_photo()
    here = slice(200, 200 + side)
    photo[:, :, here, here] = RED
    photo = grainy(photo, steps)
    assert colour.tones(photo) == ["gray"], "as a whole it reads as black and white"
    result = tint.keep_own_tint(photo, photo.clone())
    assert chroma(result)[0, here, here].mean() > 0.95 * chroma(photo)[0, here, here].mean()
    assert chroma(result)[0, 350:].mean() < 1.5


def test_so_do_thin_lines() -> None:
    photo = gray_photo()
    photo[:, :, 300:302, 50:400] = RED
    result = tint.keep_own_tint(photo, photo.clone())
    assert chroma(result)[0, 300:302, 60:390].mean() > 0.9 * chroma(photo)[0, 300:302, 60:390].mean()


def test_rosy_cheeks_of_a_hand_coloured_portrait_stay() -> None:
    photo = gray_photo()
    photo[:, :, 100:160, 200:260] = torch.tensor([230, 170, 170]).view(1, 3, 1, 1) / 255
    assert colour.tones(photo) == ["gray"]
    result = tint.keep_own_tint(photo, photo.clone())
    torch.testing.assert_close(result[0, :, 130, 230], photo[0, :, 130, 230], rtol=0, atol=2 / 255)


def test_yellowed_paper_keeps_its_own_tint_and_not_the_networks() -> None:
    photo = gray_photo() * torch.tensor([1.0, 0.99, 0.955]).view(1, 3, 1, 1)
    assert colour.tones(photo) == ["gray"]
    result = tint.keep_own_tint(photo, photo * WARM)
    own, kept = (image[0] - image[0].mean(0) for image in (photo, result))
    torch.testing.assert_close(kept.mean((1, 2)), own.mean((1, 2)), rtol=0, atol=1 / 255)


def test_colour_and_toned_photos_are_left_alone() -> None:
    image = torch.from_numpy(data.coffee() / 255.0).float().permute(2, 0, 1)[None]
    sepia = gray_photo()[:, :, :400, :400] * torch.tensor([1.0, 0.85, 0.65]).view(1, 3, 1, 1)
    for photo in (image, sepia):
        result = photo * WARM
        assert torch.equal(tint.keep_own_tint(photo, result.clone()), result)


def test_each_photo_of_a_batch_is_judged_by_itself() -> None:
    coffee = torch.from_numpy(data.coffee() / 255.0).float().permute(2, 0, 1)[None, :, :256, :256]
    batch = torch.cat([gray_photo()[:, :, :256, :256], coffee])
    result = tint.keep_own_tint(batch, batch * WARM)
    assert colour.is_gray(result[:1])
    torch.testing.assert_close(result[1:], coffee * WARM)


def test_enlarged_results_are_retinted_alike_in_bands(monkeypatch: pytest.MonkeyPatch) -> None:
    photo = gray_photo()[:, :, 100:260, 100:300] * torch.tensor([1.0, 0.99, 0.955]).view(1, 3, 1, 1)
    photo[:, :, 40:60, 40:60] = RED
    large = torch.nn.functional.interpolate(photo, scale_factor=3, mode="bicubic").contiguous(
        memory_format=torch.channels_last
    )
    whole = tint.keep_own_tint(photo, large.clone())
    assert chroma(whole)[0, 125:175, 125:175].mean() > 70
    monkeypatch.setattr(tint, "BAND_PIXELS", 7 * large.shape[-1])
    banded = tint.keep_own_tint(photo, large.clone())
    torch.testing.assert_close(banded, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 9), (300, 2)])
def test_tiny_photos(size: tuple[int, int]) -> None:
    photo = torch.full((1, 3, *size), 0.5)
    photo[:, 2] += 0.004
    assert bool(torch.isfinite(tint.keep_own_tint(photo, photo * WARM)).all())
