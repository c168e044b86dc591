"""Colour spaces against scikit-image, and tones on aged photos."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import color
from toned_photos import gray, photo, sepia

from photokeep_nodes.ops import colour


def faded(image: torch.Tensor, saturation: float, cast: tuple[float, float, float] = (1.0, 0.93, 0.8)) -> torch.Tensor:
    pale = gray(image) + (image - gray(image)) * saturation
    return ((0.16 + 0.75 * pale) * torch.tensor(cast).view(1, 3, 1, 1)).clamp(0, 1)


def noisy(image: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * sigma / 255
    return (image + noise).clamp(0, 1)


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "jpeg", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).float().permute(2, 0, 1)[None] / 255


# --- spaces ---


def test_lab_agrees_with_scikit_image() -> None:
    image = torch.rand((1, 3, 64, 64), generator=torch.Generator().manual_seed(1))
    image[..., :8] *= 0.05  # the linear part of both curves
    theirs = color.rgb2lab(image[0].permute(1, 2, 0).double().numpy())
    difference = colour.srgb_to_lab(image)[0].permute(1, 2, 0).numpy() - theirs
    # theirs rounds the matrix so that white has b = 0.005; 0.01 of Lab's 100 is 1e-4 of the scale
    assert np.abs(difference).max() < 0.01


def test_srgb_agrees_with_scikit_image() -> None:
    generator = torch.Generator().manual_seed(2)
    # darker than this, b = 30 has no Z that is not negative, and theirs clips it
    lightness = 30 + torch.rand((1, 1, 48, 48), generator=generator) * 70
    lab = torch.cat((lightness, torch.rand((1, 2, 48, 48), generator=generator) * 30), 1)
    theirs = color.lab2rgb(lab[0].permute(1, 2, 0).double().numpy())
    ours = colour.lab_to_srgb(lab).clamp(0, 1)[0].permute(1, 2, 0).numpy()
    assert np.abs(ours - theirs).max() < 1e-3


def test_spaces_round_trip_and_gray_has_no_chroma() -> None:
    image = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(3))
    torch.testing.assert_close(colour.lab_to_srgb(colour.srgb_to_lab(image)), image, rtol=0, atol=2e-5)
    torch.testing.assert_close(colour.linear_to_srgb(colour.srgb_to_linear(image)), image, rtol=0, atol=2e-6)
    ramp = torch.linspace(0, 1, 256).view(1, 1, 1, -1).expand(1, 3, 1, -1)
    lab = colour.srgb_to_lab(ramp)
    assert lab[:, 1:].abs().max() < 2e-4
    assert lab[0, 0, 0, 0] == pytest.approx(0, abs=1e-5)
    assert lab[0, 0, 0, -1] == pytest.approx(100, abs=1e-4)


def test_colours_out_of_gamut_keep_lightness_and_hue() -> None:
    generator = torch.Generator().manual_seed(4)
    lab = torch.cat(
        (
            2 + 96 * torch.rand((2, 1, 24, 24), generator=generator),
            torch.rand((2, 2, 24, 24), generator=generator) * 240 - 120,
        ),
        1,
    )
    rgb = colour.fit_gamut(lab)
    assert rgb.min() >= 0
    assert rgb.max() <= 1
    back = colour.srgb_to_lab(rgb)
    assert (back[:, 0] - lab[:, 0]).abs().max() < 0.01
    cross = lab[:, 1] * back[:, 2] - lab[:, 2] * back[:, 1]
    assert (cross / lab[:, 1:].norm(dim=1)).abs().max() < 0.05  # distance from the ray of the same hue
    clipped = colour.srgb_to_lab(colour.lab_to_srgb(lab).clamp(0, 1))
    assert (clipped[:, 0] - lab[:, 0]).abs().max() > 5  # what is gained over clipping


# --- tones ---


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_colour_photos_are_colour_however_faded(name: str) -> None:
    image = photo(name)
    pale = faded(image, 0.3)
    variants = [image, faded(image, 0.5), pale, noisy(pale, 10), jpeg(pale, 30), image * 0.12]
    assert [colour.tones(v)[0] for v in variants] == ["colour"] * 6


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "camera", "rocket"])
def test_gray_photos_are_gray_with_noise_and_jpeg(name: str) -> None:
    image = gray(photo(name))
    assert [colour.tones(v)[0] for v in (image, noisy(image, 25), noisy(image, 50), jpeg(image, 20))] == ["gray"] * 4


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "camera", "rocket"])
def test_toned_photos_are_sepia_with_noise_stains_and_jpeg(name: str) -> None:
    image = sepia(photo(name))
    height, width = image.shape[-2:]
    across = torch.linspace(0, 0.6, width)[None, :] + torch.linspace(0, 0.4, height)[:, None]
    stain = torch.stack((torch.ones_like(across), 1 - 0.04 * across, 1 - 0.12 * across))[None]
    cyanotype = image.flip(1)
    variants = [image, noisy(image, 25), image * stain, jpeg(image, 50), cyanotype]
    assert [colour.tones(v)[0] for v in variants] == ["sepia"] * 5


def test_a_small_lamp_makes_a_night_scene_colour() -> None:
    night = gray(photo("camera")) * 0.3
    night[:, :, 40:140, 40:140] = torch.tensor([1.0, 0.2, 0.1]).view(1, 3, 1, 1)
    assert colour.tones(night) == ["colour"]


def test_tones_take_batches_and_tiny_photos() -> None:
    batch = torch.cat([F.interpolate(v, (64, 64)) for v in (photo("coffee"), gray(photo("coffee")))])
    assert colour.tones(batch) == ["colour", "gray"]
    for size in ((1, 1), (1, 9), (300, 2)):
        assert colour.tones(torch.rand(1, 3, *size))[0] in ("gray", "sepia", "colour")
    assert colour.tones(torch.zeros(1, 3, 4, 4)) == ["gray"]


def test_is_gray_means_exactly() -> None:
    image = gray(photo("coffee"))
    assert colour.is_gray(image)
    image[0, 2, 5, 5] += 1e-4
    assert not colour.is_gray(image)


# --- box mean and slope ---


def test_box_mean_agrees_with_averaging_by_hand() -> None:
    image = torch.rand((1, 2, 13, 9), generator=torch.Generator().manual_seed(5))
    for radius in (0, 1, 3, 20):
        ours = colour.box_mean(image, radius)
        for y, x in ((0, 0), (6, 4), (12, 8), (2, 7)):
            window = image[:, :, max(0, y - radius) : y + radius + 1, max(0, x - radius) : x + radius + 1]
            torch.testing.assert_close(ours[:, :, y, x], window.mean((-2, -1)))


def test_box_mean_keeps_its_precision_over_long_rows() -> None:
    image = 0.5 + 1e-4 * torch.randn((1, 1, 2, 20_000), generator=torch.Generator().manual_seed(6))
    exact = F.avg_pool1d(image[0].double(), 9, stride=1)[0]
    ours = colour.box_mean(image[:, :, :1].expand(-1, -1, 2, -1), 4)[0, 0, 0, 4:-4]
    assert (ours.double() - exact[0]).abs().max() < 1e-7


def test_local_slope_recovers_a_linear_relation() -> None:
    guide = torch.rand((1, 1, 40, 40), generator=torch.Generator().manual_seed(7))
    target = torch.cat((3 * guide + 1, -20 * guide), 1)
    slope = colour.local_slope(guide, target, radius=4, eps=1e-9)
    torch.testing.assert_close(slope, torch.tensor([3.0, -20.0]).view(1, 2, 1, 1).expand_as(slope), rtol=1e-3, atol=0)
    assert colour.local_slope(torch.ones_like(guide), target, radius=4, eps=1e-3).abs().max() < 1e-5
