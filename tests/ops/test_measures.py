"""The measures against known noise, blur and JPEG quality on photos."""

from __future__ import annotations

import io
import math

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from skimage import data

from photokeep_nodes.ops import measures

NAMES = ["astronaut", "coffee", "chelsea", "camera", "rocket"]


def photo(name: str) -> torch.Tensor:
    array = getattr(data, name)()
    array = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1)
    return torch.from_numpy(array.copy()).float().permute(2, 0, 1)[None] / 255


def noisy(image: torch.Tensor, sigma: float) -> torch.Tensor:
    """Gaussian noise, the same in all channels of a gray photo, stored in 8 bits and clipped as files are."""
    channels = 1 if torch.equal(image[:, 0], image[:, 1]) else 3
    noise = torch.randn((1, channels, *image.shape[-2:]), generator=torch.Generator().manual_seed(1))
    return ((image * 255 + noise * sigma).round() / 255).clamp(0, 1)


def jpeg(image: torch.Tensor, quality: int) -> torch.Tensor:
    file = io.BytesIO()
    Image.fromarray((image[0].permute(1, 2, 0) * 255).round().byte().numpy()).save(file, "jpeg", quality=quality)
    return torch.from_numpy(np.array(Image.open(file))).float().permute(2, 0, 1)[None] / 255


def blurred(image: torch.Tensor, sigma: float) -> torch.Tensor:
    return measures.gaussian(image, sigma) if sigma else image


# --- noise ---


@pytest.mark.parametrize("name", NAMES)
def test_added_noise_is_measured(name: str) -> None:
    for sigma in (5, 10, 15, 25, 35, 50):
        assert measures.noise_sigma(noisy(photo(name), sigma)) == pytest.approx(sigma, rel=0.08, abs=0.4)


@pytest.mark.parametrize("name", NAMES)
def test_clean_photos_are_clean(name: str) -> None:
    assert measures.noise_sigma(photo(name)) < 2.5


@pytest.mark.parametrize("name", NAMES)
def test_noise_that_jpeg_smoothed_is_still_seen(name: str) -> None:
    image = photo(name)
    clean = measures.noise_sigma(jpeg(image, 75))
    light, strong = (noisy(image, sigma) for sigma in (10, 25))
    assert clean < 2
    for before, quality in ((light, 75), (strong, 75), (strong, 60)):
        left = float((jpeg(before, quality) - jpeg(image, quality)).std()) * 255  # what JPEG left of it
        assert 0.55 * left < measures.noise_sigma(jpeg(before, quality)) < 1.35 * left


def test_noise_of_an_enlarged_photo_is_still_seen() -> None:
    small = noisy(photo("rocket"), 20)
    large = F.interpolate(small, scale_factor=2, mode="bicubic").clamp(0, 1)
    assert measures.noise_sigma(large) > 8


def test_clipping_does_not_hide_noise() -> None:
    image = torch.zeros((1, 3, 256, 256))
    image[..., 128:] = 0.5
    assert measures.noise_sigma(noisy(image, 20)) == pytest.approx(20, rel=0.08)


def test_noise_differs_by_channel() -> None:
    image = torch.full((1, 3, 256, 256), 0.5)
    image[:, 2] += torch.randn((1, 256, 256), generator=torch.Generator().manual_seed(1)) * 30 / 255
    assert measures.noise_sigma(image) == pytest.approx(30 / math.sqrt(3), rel=0.08)


@pytest.mark.parametrize("name", ["astronaut", "camera", "rocket"])
def test_small_photos_are_measured(name: str) -> None:
    crop = photo(name)[..., 60:188, 100:228]
    for sigma in (10, 25):
        assert measures.noise_sigma(noisy(crop, sigma)) == pytest.approx(sigma, rel=0.15)


# --- blur ---


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("noise", [0, 10, 25])
def test_blur_grows_with_the_blur_added(name: str, noise: int) -> None:
    image = photo(name)
    found = []
    for sigma in (0, 0.5, 1, 1.5, 2, 3, 4):
        worse = noisy(blurred(image, sigma), noise) if noise else blurred(image, sigma)
        found.append(measures.blur_sigma(worse, measures.noise_sigma(worse)))
    assert found == sorted(found)
    assert found[0] < 1.4
    assert found[4] - found[0] > 0.7
    # Blurs add in squares; what is there already counts.
    for sigma, blur in zip((2, 3, 4), found[4:], strict=True):
        assert blur == pytest.approx(math.hypot(sigma, found[0]), rel=0.22)


@pytest.mark.parametrize("sigma", [0.8, 1.5, 3.0])
def test_a_blurred_step_measures_its_blur(sigma: float) -> None:
    x = torch.arange(128, dtype=torch.float64) - 64.3
    step = 0.2 + 0.5 * (1 + torch.erf(x / (sigma * math.sqrt(2)))) / 2
    image = step.float().expand(1, 3, 128, -1)
    assert measures.blur_sigma(image, 0.0) == pytest.approx(sigma, rel=0.1)


def test_without_edges_there_is_no_blur_to_tell() -> None:
    assert measures.blur_sigma(torch.full((1, 3, 100, 100), 0.4), 0.0) is None
    grain = noisy(torch.full((1, 3, 200, 200), 0.4), 12)
    assert measures.blur_sigma(grain, measures.noise_sigma(grain)) is None


# --- JPEG ---


@pytest.mark.parametrize("name", NAMES[:-1])  # the rocket is published as a JPEG
def test_blocks_grow_as_quality_falls(name: str) -> None:
    image = photo(name)
    assert measures.jpeg_blocks(image) == measures.Blocks(0.0, None)
    found = [measures.jpeg_blocks(jpeg(image, quality)).strength for quality in (90, 80, 70, 60, 50, 40, 30, 20, 10)]
    assert found == sorted(found)
    assert 0 < found[0] < 0.4
    assert 0.3 < found[1] < 0.8
    assert 0.8 < found[3] < 1.5
    assert found[-1] > 2


def test_the_rocket_has_been_a_jpeg() -> None:
    assert measures.jpeg_blocks(photo("rocket")).strength > 0.1


@pytest.mark.parametrize("name", NAMES[:-1])
def test_noise_and_texture_are_no_blocks(name: str) -> None:
    image = photo(name)
    for sigma in (5, 10, 25, 50):
        assert measures.jpeg_blocks(noisy(image, sigma)).strength == 0
    crops = [image[..., y : y + 96, x : x + 96] for y in range(0, 200, 67) for x in range(0, 300, 67)]
    assert sum(measures.jpeg_blocks(crop).strength > 0 for crop in crops) == 0


def test_the_grid_of_a_cropped_photo_is_found() -> None:
    image = jpeg(photo("coffee"), 40)
    assert measures.jpeg_blocks(image).grid == (0, 0)
    cropped = measures.jpeg_blocks(image[..., 3:, 5:])
    assert cropped.grid == (3, 5)
    assert cropped.strength > 1


def test_blocks_of_small_photos_and_under_noise_are_found() -> None:
    for side in (64, 128):
        small = jpeg(photo("chelsea")[..., 100 : 100 + side, 100 : 100 + side], 30)
        assert measures.jpeg_blocks(small).strength > 0.8
    assert measures.jpeg_blocks(noisy(jpeg(photo("chelsea"), 30), 5)).strength > 0.8


def test_bars_of_eight_pixels_in_one_direction_are_no_blocks() -> None:
    blinds = ((torch.arange(256) // 8) % 2 * 0.2 + 0.3).expand(1, 3, 256, -1)
    assert measures.jpeg_blocks(noisy(blinds, 1)).strength == 0


# --- dark, large and tiny photos ---


def test_lightness_quantiles() -> None:
    image = torch.linspace(0, 1, 500).expand(1, 3, 400, -1)
    low, middle, high = measures.lightness_quantiles(image, (0.0, 0.5, 1.0))
    assert low < 1
    assert middle == pytest.approx(53.4, abs=0.5)  # sRGB 0.5
    assert high > 99


def test_large_photos_are_read_in_tiles_on_the_jpeg_grid() -> None:
    for height, width in ((3000, 4000), (1100, 9000), (9000, 1100), (300, 50_000)):
        image = torch.arange(height)[:, None] * 100_000 + torch.arange(width)[None, :]
        parts = measures.tiles(image[None, None].float().double())
        assert sum(part.numel() for part in parts) <= 16 * 512 * 512
        corners = [(int(part[0, 0, 0, 0]) // 100_000, int(part[0, 0, 0, 0]) % 100_000) for part in parts]
        assert all(y % 8 == 0 and x % 8 == 0 for y, x in corners) or height * width <= 16 * 512 * 512
        assert len(set(corners)) == len(corners)
        assert len(parts) >= 8
    assert measures.tiles(torch.zeros(1, 3, 2048, 2048))[0].shape[-1] == 2048


def test_tiles_measure_what_the_whole_measures(monkeypatch: pytest.MonkeyPatch) -> None:
    image = jpeg(noisy(photo("coffee"), 15), 60)
    whole = measures.noise_sigma(image), measures.jpeg_blocks(image)
    monkeypatch.setattr(measures, "_TILE", 96)
    assert len(measures.tiles(image)) == 15  # five across, three down, as the photo is three by two
    assert measures.noise_sigma(image) == pytest.approx(whole[0], rel=0.1)
    tiled = measures.jpeg_blocks(image)
    assert tiled.strength == pytest.approx(whole[1].strength, rel=0.15)
    assert tiled.grid == whole[1].grid


@pytest.mark.parametrize("size", [(1, 1), (1, 60), (5, 5), (9, 33), (17, 17), (40, 12)])
def test_tiny_photos_have_figures_too(size: tuple[int, int]) -> None:
    image = torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    noise = measures.noise_sigma(image)
    assert math.isfinite(noise)
    blur = measures.blur_sigma(image, noise)
    assert blur is None or 0 <= blur <= 8
    assert measures.jpeg_blocks(image).strength == 0
    assert all(0 <= v <= 100 for v in measures.lightness_quantiles(image, (0.5, 0.9)))


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_photo_of_one_colour_is_clean(value: float) -> None:
    image = torch.full((1, 3, 64, 64), value)
    assert measures.noise_sigma(image) < 1e-3
    assert measures.jpeg_blocks(image) == measures.Blocks(0.0, None)
