"""Restoring photos whose colours before the fading are known, and leaving alone those that have not faded."""

from __future__ import annotations

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from photokeep_nodes.ops import colour, restore_colours
from photokeep_nodes.ops.restore_colours import fading
from photokeep_nodes.ops.restore_colours import restore_colours as restore

PHOTOS = ("astronaut", "coffee", "chelsea", "rocket")
FADES = {
    "red": ((0.50, 0.75, 0.70), (0.0, 0.02, 0.06)),
    "green": ((0.70, 0.50, 0.65), (0.03, 0.02, 0.12)),
    "blue": ((0.80, 0.70, 0.45), (0.02, 0.04, 0.10)),
    "even": ((0.60, 0.60, 0.60), (0.05, 0.06, 0.10)),
    "strong": ((0.35, 0.55, 0.50), (0.02, 0.06, 0.14)),
}


def photo(name: str, side: int = 160) -> torch.Tensor:
    array = getattr(data, name)()
    array = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1)
    image = torch.from_numpy(array.copy()).float().permute(2, 0, 1)[None] / 255
    scale = side / max(image.shape[-2:])
    return colour.resize(image, (round(image.shape[-2] * scale), round(image.shape[-1] * scale))).clamp(0, 1)


def faded(image: torch.Tensor, fade: str, bits: int = 16) -> torch.Tensor:
    scale, stain = (torch.tensor(values).view(1, 3, 1, 1) for values in FADES[fade])
    density = -colour.srgb_to_linear(image).clamp(min=10**-2.2).log10() * scale + stain
    levels = 2**bits - 1
    return (colour.linear_to_srgb(10**-density).clamp(0, 1) * levels).round() / levels


def gray(image: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def delta_e(one: torch.Tensor, other: torch.Tensor) -> float:
    return float((colour.srgb_to_lab(one) - colour.srgb_to_lab(other)).norm(dim=1).mean())


def chroma(image: torch.Tensor) -> torch.Tensor:
    return colour.srgb_to_lab(image)[:, 1:].norm(dim=1)


def clipped(image: torch.Tensor) -> float:
    return float(((image <= 0) | (image >= 1)).any(1).float().mean())


# --- colour photos ---


@pytest.mark.parametrize("fade", list(FADES))
@pytest.mark.parametrize("name", PHOTOS)
def test_faded_photos_come_nearer_to_what_they_were(name: str, fade: str) -> None:
    image = photo(name)
    for bits in (8, 16):
        scan = faded(image, fade, bits)
        result = restore(scan)
        assert delta_e(result, image) < 0.75 * delta_e(scan, image)
        assert clipped(result) < clipped(scan) + 0.015
    assert fading(scan).worthwhile
    assert fading(scan).amount > 0.9


def test_on_average_two_thirds_of_the_fading_are_undone() -> None:
    pairs = [(photo(name), faded(photo(name), fade)) for name in PHOTOS for fade in FADES]
    before = sum(delta_e(scan, image) for image, scan in pairs)
    assert sum(delta_e(restore(scan), image) for image, scan in pairs) < before / 3


@pytest.mark.parametrize("name", [*PHOTOS, "retina", "hubble_deep_field"])
def test_photos_that_have_not_faded_are_left_alone(name: str) -> None:
    image = photo(name)
    assert delta_e(restore(image), image) < 1.0
    assert not fading(image).worthwhile


def scene(low: torch.Tensor, high: torch.Tensor) -> torch.Tensor:
    """From one colour at the top to another at the bottom, with a little texture."""
    down = torch.linspace(0, 1, 120).view(1, 1, -1, 1)
    mixed = low.view(1, 3, 1, 1) * down + high.view(1, 3, 1, 1) * (1 - down)
    texture = torch.randn((1, 1, 120, 160), generator=torch.Generator().manual_seed(0))
    return (mixed * (1 + 0.12 * texture)).clamp(0, 1)


def test_sunsets_meadows_nights_and_high_keys_are_left_alone() -> None:
    sunset = scene(torch.tensor([0.10, 0.03, 0.05]), torch.tensor([1.0, 0.62, 0.2]))
    meadow = scene(torch.tensor([0.05, 0.10, 0.03]), torch.tensor([0.45, 0.75, 0.25]))
    night = scene(torch.tensor([0.01, 0.01, 0.03]), torch.tensor([0.12, 0.12, 0.25]))
    portrait = scene(torch.tensor([0.93, 0.78, 0.70]), torch.tensor([1.0, 0.97, 0.95]))
    portrait[..., 50:56, 60:66] = portrait[..., 50:56, 90:96] = 0.06  # pupils, hair
    portrait[..., 10:16, 50:110] = 0.08
    for image in (sunset, meadow, night, portrait):
        assert delta_e(restore(image), image) < 1.0


def test_taken_for_granted_even_a_good_photo_changes_little() -> None:
    for name in ("astronaut", "coffee", "retina"):
        assert delta_e(restore(photo(name), cautious=False), photo(name)) < 3


def test_controls() -> None:
    image = photo("coffee")
    scan = faded(image, "red")
    black = [float(colour.lightness(restore(scan, contrast=c)).quantile(0.01)) for c in (0.0, 0.5, 1.0, 1.5)]
    assert black == sorted(black, reverse=True)
    assert black[2] < 10 < black[0]
    pale, full, rich = (float(chroma(restore(scan, saturation=s)).mean()) for s in (0.0, 1.0, 1.5))
    assert pale < 1e-3
    assert 1.1 * full < rich < 1.5 * full
    # With the balance off, one curve serves the three colours: the cast of the blacks grows weaker only by darkness.
    off = restore(scan, white_balance="off")
    assert fading(off).dark[1] > 5
    assert abs(fading(restore(scan)).dark[1]) < 3


def test_a_picked_colour_becomes_gray() -> None:
    cast = colour.linear_to_srgb(
        colour.srgb_to_linear(photo("astronaut")) * torch.tensor([1.0, 0.8, 0.5]).view(1, 3, 1, 1)
    ).clamp(0, 1)
    wall = (0.72, 0.66, 0.54)
    cast[..., :20, :20] = torch.tensor(wall).view(1, 3, 1, 1)
    result = restore(cast, white_balance="pick", neutral=wall)
    assert chroma(result)[..., 2:18, 2:18].max() < 0.5
    assert (result - cast)[..., 2:18, 2:18].mean().abs() < 0.05
    faded_too = faded(cast, "red")
    wall = tuple(faded_too[0, :, 10, 10].tolist())
    assert chroma(restore(faded_too, white_balance="pick", neutral=wall))[..., 2:18, 2:18].max() < 0.5


def framed(image: torch.Tensor, paper: tuple[float, float, float]) -> torch.Tensor:
    """A print with white margins, on a scanner with a black lid."""
    height, width = image.shape[-2:]
    whole = torch.zeros((1, 3, height + 44, width + 44))
    rough = torch.randn((1, 3, height + 30, width + 30), generator=torch.Generator().manual_seed(0)) * 0.006
    whole[..., 7:-7, 7:-7] = torch.tensor(paper).view(1, 3, 1, 1) + rough
    whole[..., 22:-22, 22:-22] = image
    return whole.clamp(0, 1)


@pytest.mark.parametrize("mode", ["auto", "paper"])
def test_yellowed_paper_shows_in_the_border(mode: str) -> None:
    image = photo("astronaut")
    yellow = torch.tensor([0.97, 0.91, 0.76])
    scan = framed(image * yellow.view(1, 3, 1, 1), tuple(yellow.tolist()))
    found = fading(scan)
    assert found.paper is not None
    assert found.worthwhile
    result = restore(scan, white_balance=mode)
    assert chroma(result)[..., 12, 30:100].mean() < 1.5
    inside = result[..., 22:-22, 22:-22]
    assert delta_e(inside, image) < 0.7 * delta_e(image * yellow.view(1, 3, 1, 1), image)
    assert torch.equal(restore(scan, white_balance="off"), scan)


def test_borders_do_not_decide() -> None:
    image = photo("coffee")
    scan = faded(image, "green")
    bare = fading(scan)
    inside = fading(framed(scan, (0.96, 0.96, 0.95)))
    assert inside.amount == bare.amount == 1
    assert inside.dark == pytest.approx(bare.dark, abs=2.5)
    assert delta_e(restore(framed(scan, (0.96, 0.96, 0.95)))[..., 22:-22, 22:-22], image) < 8
    assert not fading(framed(image, (0.96, 0.96, 0.95))).worthwhile


def test_a_plain_sky_is_no_border() -> None:
    sky = scene(torch.tensor([0.05, 0.10, 0.03]), torch.tensor([0.45, 0.75, 0.25]))
    sky[..., :70, :] = torch.tensor([0.62, 0.75, 0.95]).view(1, 3, 1, 1)
    inner, paper = restore_colours.without_borders(sky)
    assert paper is None
    assert inner.shape == sky.shape


# --- black-and-white and toned photos ---


def test_a_gray_photo_gets_its_contrast_back_and_stays_exactly_gray() -> None:
    image = gray(photo("camera"))
    scan = gray(faded(image, "even"))
    for toned in ("keep", "neutralise"):
        result = restore(scan, toned=toned, saturation=2.0)
        assert colour.is_gray(result)
        assert delta_e(result, image) < 0.6 * delta_e(scan, image)
    assert torch.equal(restore(image), image)


def test_sepia_keeps_its_tone_unless_it_is_neutralised() -> None:
    tint = torch.tensor([1.0, 0.9, 0.75]).view(1, 3, 1, 1)
    scan = (0.2 + 0.7 * gray(photo("camera"))) * tint
    assert colour.tones(scan) == ["sepia"]
    kept = restore(scan)
    before, after = colour.srgb_to_lab(scan), colour.srgb_to_lab(kept)
    assert after[:, 0].quantile(0.01) < before[:, 0].quantile(0.01) - 8
    middle = (after[:, 0] > 30) & (after[:, 0] < 80)
    assert (after - before)[:, 1:].norm(dim=1)[middle].quantile(0.9) < 0.5
    neutral = restore(scan, toned="neutralise")
    assert colour.is_gray(neutral)
    assert (colour.lightness(neutral) - after[:, :1]).abs().mean() < 1
    assert chroma(restore(gray(photo("camera")) * tint, toned="neutralise")).max() < 1e-3  # also where none has faded


def test_as_colour_overrides_what_a_photo_looks_like() -> None:
    toned = (0.2 + 0.7 * gray(photo("camera"))) * torch.tensor([1.0, 0.9, 0.75]).view(1, 3, 1, 1)
    assert chroma(restore(toned, toned="as_colour")).mean() < 0.8 * chroma(restore(toned)).mean()


# --- any photo ---


def test_each_photo_of_a_batch_is_treated_by_itself() -> None:
    clean, other = photo("coffee")[..., :100, :150], photo("chelsea")[..., :100, :150]
    batch = torch.cat((clean, faded(other, "red"), gray(faded(other, "even")), faded(clean, "blue")))
    result = restore(batch)
    assert torch.equal(result[:1], clean)
    for i in range(4):
        assert torch.equal(result[i : i + 1], restore(batch[i : i + 1]))


def test_sixteen_bits_stay() -> None:
    ramp = torch.linspace(0.3, 0.8, 40_000).view(1, 1, 200, 200)
    image = torch.cat((ramp, ramp.flip(-1) * 0.8, ramp.flip(-2) * 0.6), 1)
    result = restore(image, cautious=False)
    assert not torch.equal(result, image)
    assert len((result[:, 0] * 65535).round().unique()) > 20_000


def test_bands_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    for scan in (
        faded(photo("coffee"), "red"),
        (0.2 + 0.6 * gray(photo("camera"))) * torch.tensor([1, 0.9, 0.75]).view(1, 3, 1, 1),
    ):
        whole = restore(scan)
        with monkeypatch.context() as patch:
            patch.setattr(colour, "BAND_PIXELS", 1000)
            torch.testing.assert_close(restore(scan), whole, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(1, 1), (1, 50), (50, 1), (2, 2), (5, 300)])
@pytest.mark.parametrize("mode", ["auto", "off", "paper", "pick"])
def test_tiny_and_narrow_photos(size: tuple[int, int], mode: str) -> None:
    image = 0.3 + 0.4 * torch.rand((1, 3, *size), generator=torch.Generator().manual_seed(0))
    for cautious in (True, False):
        result = restore(image, white_balance=mode, neutral=(0.5, 0.4, 0.3), cautious=cautious)
        assert result.shape == image.shape
        assert bool(torch.isfinite(result).all())
    assert 0 <= fading(image).amount <= 1


@pytest.mark.parametrize("rgb", [(0, 0, 0), (1, 1, 1), (0.5, 0.5, 0.5), (0.9, 0.8, 0.5), (0, 0, 1)])
def test_a_photo_of_one_colour_keeps_it(rgb: tuple[float, float, float]) -> None:
    image = torch.tensor(rgb, dtype=torch.float32).view(1, 3, 1, 1).expand(1, 3, 30, 40)
    assert torch.equal(restore(image), image)
    assert fading(image).amount == 0
    assert bool(torch.isfinite(restore(image, cautious=False)).all())


def test_the_photo_itself_is_not_written_to() -> None:
    scan = faded(photo("coffee"), "red")
    copy = scan.clone()
    restore(scan)
    assert torch.equal(scan, copy)


def test_noise_is_not_fading() -> None:
    image = photo("astronaut")
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0)) * 25 / 255
    assert not fading((image + noise).clamp(0, 1)).worthwhile
    assert not fading(F.avg_pool2d(image, 5, 1, 2)).worthwhile
