"""Colouring against photos whose colour is known; what a network is shown; colours asked for in places."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from toned_photos import gray, photo, sepia

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import colour, colourise


def no_colour(lightness: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
    return torch.zeros((1, 2, *lightness.shape[-2:]))


def soft_prediction(image: torch.Tensor, size: int, blur: int = 1) -> torch.Tensor:
    """What a good colour network would say: the true ab, small and soft."""
    ab = F.interpolate(colour.srgb_to_lab(image)[:, 1:], size=(size, size), mode="bilinear", antialias=True)
    kernel = torch.tensor([1.0, 4.0, 6.0, 4.0, 1.0]) / 16
    for _ in range(blur):
        ab = F.pad(ab, (2, 2, 2, 2), mode="replicate")
        ab = F.conv2d(F.conv2d(ab, kernel.view(1, 1, 1, 5).expand(2, 1, 1, 5), groups=2),
                      kernel.view(1, 1, 5, 1).expand(2, 1, 5, 1), groups=2)  # fmt: skip
    return ab


@pytest.mark.parametrize("name", ["astronaut", "coffee", "chelsea", "rocket"])
def test_colour_follows_edges_better_than_when_enlarged(name: str) -> None:
    image = photo(name)
    lab = colour.srgb_to_lab(image)
    neutral = colour.fit_gamut(lab * torch.tensor([1.0, 0.0, 0.0]).view(1, 3, 1, 1))
    prediction = soft_prediction(image, 128)
    ours = colourise.colourise(neutral, lambda _: prediction, net_size=128)
    enlarged = F.interpolate(prediction, size=image.shape[-2:], mode="bilinear")
    plain = colour.fit_gamut(torch.cat((lab[:, :1], enlarged), 1))

    def error(result: torch.Tensor) -> float:
        return float((colour.srgb_to_lab(result) - lab)[:, 1:].square().sum(1).mean().sqrt())

    assert error(ours) < 0.97 * error(plain)


def test_colour_stops_at_an_edge() -> None:
    lightness = torch.full((1, 1, 256, 256), 35.0)
    lightness[..., 128:] = 75.0
    truth = torch.zeros((1, 2, 256, 256))
    truth[:, 0, :, :128] = 25.0
    truth[:, 1, :, 128:] = 30.0
    image = colour.fit_gamut(torch.cat((lightness, truth), 1))
    neutral = colour.fit_gamut(torch.cat((lightness, 0 * truth), 1))
    prediction = soft_prediction(image, 32)
    ab = colour.srgb_to_lab(colourise.colourise(neutral, lambda _: prediction, net_size=32))[:, 1:]
    enlarged = F.interpolate(prediction, size=(256, 256), mode="bilinear")
    near = slice(128 - 8, 128 + 8)
    bleeding = (ab - truth)[..., near].abs().mean()
    assert bleeding < 0.5 * (enlarged - truth)[..., near].abs().mean()


@pytest.mark.parametrize("size", [(96, 140), (301, 203)])
def test_lightness_is_kept_exactly(size: tuple[int, int]) -> None:
    image = F.interpolate(gray(photo("camera")), size, mode="bilinear")
    before = colour.srgb_to_lab(image)[:, 0]
    result = colourise.colourise(image, lambda _: torch.full((1, 2, 64, 64), 18.0), net_size=64)
    after = colour.srgb_to_lab(result)
    assert result.shape == image.shape
    assert (after[:, 0] - before).abs().max() < 0.01
    middle = (before > 25) & (before < 75)
    torch.testing.assert_close(after[:, 1][middle], torch.full_like(before[middle], 18.0), rtol=0, atol=0.05)


def test_bands_leave_no_seams(monkeypatch: pytest.MonkeyPatch) -> None:
    image = F.interpolate(gray(photo("camera")), (120, 90), mode="bilinear")
    prediction = torch.randn((1, 2, 16, 16), generator=torch.Generator().manual_seed(8)) * 20
    whole = colourise.colourise(image, lambda _: prediction, net_size=16)
    monkeypatch.setattr(colour, "BAND_PIXELS", 7 * 90)
    torch.testing.assert_close(colourise.colourise(image, lambda _: prediction, net_size=16), whole, rtol=0, atol=1e-5)


def test_the_network_sees_lightness_at_its_size() -> None:
    seen: list[torch.Tensor] = []

    def predictor(lightness: torch.Tensor) -> torch.Tensor:
        seen.append(lightness)
        return torch.zeros((1, 2, 64, 64))

    images = torch.cat((photo("coffee"), photo("coffee") * 0.5))[..., :200, :300]
    colourise.colourise(images, predictor, net_size=64, neutralise_for_network=False)
    assert [tuple(s.shape) for s in seen] == [(1, 1, 64, 64)] * 2
    assert 60 < seen[0].max() <= 100
    assert seen[1].mean() < 0.7 * seen[0].mean()


def test_sepia_is_dropped_first() -> None:
    toned = sepia(photo("camera"))[..., :128, :128]
    result = colourise.colourise(toned, lambda _: torch.zeros((1, 2, 32, 32)), net_size=32)
    assert colour.srgb_to_lab(result)[:, 1:].abs().max() < 1e-3
    assert (colour.srgb_to_lab(result) - colour.srgb_to_lab(toned))[:, 0].abs().max() < 0.01


def test_strength_scales_chroma() -> None:
    image = torch.full((1, 3, 40, 40), 0.5)
    chroma = [
        colour.srgb_to_lab(
            colourise.colourise(image, lambda _: torch.full((1, 2, 8, 8), 10.0), net_size=8, strength=strength)
        )[:, 1].mean()
        for strength in (0.0, 0.5, 1.0, 2.0)
    ]
    assert [float(c) for c in chroma] == pytest.approx([0, 5, 10, 20], abs=0.02)


@pytest.mark.parametrize("size", [(1, 1), (2, 300), (7, 5)])
def test_tiny_photos_are_coloured(size: tuple[int, int]) -> None:
    result = colourise.colourise(torch.rand(1, 3, *size), lambda _: torch.zeros(1, 2, 64, 64), net_size=64)
    assert result.shape == (1, 3, *size)
    assert bool(torch.isfinite(result).all())


@pytest.mark.parametrize("answer", [torch.zeros(1, 3, 8, 8), torch.zeros(2, 8, 8), torch.zeros(2, 2, 8, 8)])
def test_a_prediction_of_another_shape_is_refused(answer: torch.Tensor) -> None:
    with pytest.raises(NodeInputError, match="returned"):
        colourise.colourise(torch.rand(1, 3, 16, 16), lambda _: answer, net_size=8)


def test_a_prediction_of_no_numbers_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not numbers"):
        colourise.colourise(torch.rand(1, 3, 16, 16), lambda _: torch.full((1, 2, 8, 8), torch.nan), net_size=8)


# --- what the network is shown ---


def faded(image: torch.Tensor) -> torch.Tensor:
    """An old print: black is gone, the paper is no longer white and has yellowed."""
    return (0.3 + 0.5 * image) * torch.tensor([1.0, 0.95, 0.85]).view(1, 3, 1, 1)


def by_lightness(lightness: torch.Tensor) -> torch.Tensor:
    """A stand-in for a network: what it sees decides, and not in proportion."""
    return torch.cat((20 * torch.sin(lightness / 16), 30 * torch.cos(lightness / 22)), 1)


@pytest.mark.parametrize("name", ["camera", "coffee", "astronaut"])
def test_a_faded_photo_is_coloured_like_the_unfaded(name: str) -> None:
    image = F.interpolate(gray(photo(name)), (160, 160), mode="bilinear", antialias=True).clamp(0, 1)
    told = []

    def predictor(lightness: torch.Tensor) -> torch.Tensor:
        told.append(by_lightness(lightness))
        return told[-1]

    colourise.colourise(image, predictor, net_size=64)
    colourise.colourise(faded(image), predictor, net_size=64)
    colourise.colourise(faded(image), predictor, net_size=64, neutralise_for_network=False)
    new, ours, as_is = told
    assert (ours - new).abs().mean() < 0.5 * (as_is - new).abs().mean()


def test_the_photo_keeps_its_own_lightness_whatever_the_network_is_shown() -> None:
    image = faded(F.interpolate(gray(photo("camera")), (150, 130), mode="bilinear"))
    before = colour.srgb_to_lab(image)[:, 0]
    for neutralise in (True, False):
        result = colourise.colourise(image, by_lightness, net_size=32, neutralise_for_network=neutralise)
        assert (colour.srgb_to_lab(result)[:, 0] - before).abs().max() < 0.01
    in_gray = gray(image)
    result = colourise.colourise(in_gray, lambda light: torch.full((1, 2, 8, 8), 12.0), net_size=32)
    luminance = (colour.srgb_to_linear(result) * torch.tensor([0.2126729, 0.7151522, 0.0721750]).view(1, 3, 1, 1)).sum(
        1
    )
    assert (colour.linear_to_srgb(luminance) - in_gray[:, 0]).abs().max() < 1 / 255


def test_what_is_as_new_is_shown_as_it_is() -> None:
    image = gray(photo("camera"))
    assert torch.equal(colourise.neutralise(image), colour.lightness(image))


def test_borders_do_not_decide_what_is_black_and_white() -> None:
    image = faded(gray(photo("camera")))[..., 100:300, 100:300]
    framed = F.pad(F.pad(image, (20,) * 4, value=0.97), (12,) * 4, value=0.0)
    inside = colourise.neutralise(framed)[..., 32:-32, 32:-32]
    assert (inside - colourise.neutralise(image)).abs().max() < 3
    assert (inside - colour.lightness(image)).abs().mean() > 5


@pytest.mark.parametrize("value", [0.0, 0.5, 1.0])
def test_a_photo_of_one_gray_is_shown_as_it_is(value: float) -> None:
    image = torch.full((2, 3, 9, 7), value)
    assert torch.equal(colourise.neutralise(image), colour.lightness(image))


# --- hints ---

SKIN = (0.62, 0.50, 0.42)


def hints(mask: torch.Tensor, rgb: tuple[float, float, float] = SKIN) -> colourise.Hints:
    image = torch.tensor(rgb).view(1, 3, 1, 1).expand(1, 3, *mask.shape[-2:])
    return colourise.Hints(image, mask)


def ab_of(rgb: tuple[float, float, float]) -> torch.Tensor:
    return colour.srgb_to_lab(torch.tensor(rgb).view(1, 3, 1, 1))[:, 1:]


def disc(size: int, radius: float, shift: float = 0.0) -> torch.Tensor:
    at = torch.arange(size) - size / 2
    return (((at - shift) ** 2)[None, :] + (at**2)[:, None]).sqrt()[None, None] < radius


def disc_photo(size: int, dark: float = 35.0, light: float = 75.0) -> torch.Tensor:
    lightness = torch.where(disc(size, size / 4), light, dark)
    lightness = lightness + torch.randn(lightness.shape, generator=torch.Generator().manual_seed(0))
    return colour.fit_gamut(torch.cat((lightness, 0 * lightness, 0 * lightness), 1))


@pytest.mark.parametrize(("size", "grown", "shift"), [(200, 3, 0), (200, -3, 0), (320, 4, 0), (320, 0, 4)])
def test_a_roughly_drawn_hint_ends_at_the_edge(size: int, grown: int, shift: int) -> None:
    image = disc_photo(size)
    mask = disc(size, size / 4 + grown, shift).float()
    result = colourise.colourise(image, no_colour, net_size=64, hints=hints(mask))
    lab = colour.srgb_to_lab(result)
    off = (lab[:, 1:] - ab_of(SKIN)).norm(dim=1, keepdim=True)
    assert off[disc(size, size / 4 - 2)].quantile(0.98) < 1.0  # does not stop short
    assert lab[:, 1:].norm(dim=1, keepdim=True)[~disc(size, size / 4 + 2)].quantile(0.99) < 1.0  # does not bleed
    assert (lab[:, 0] - colour.srgb_to_lab(image)[:, 0]).abs().max() < 0.01


@pytest.mark.parametrize("width", [1, 2, 5, 12, 40])
def test_strokes_of_any_breadth_get_their_colour(width: int) -> None:
    image = torch.full((1, 3, 300, 300), 0.5)
    mask = torch.zeros(1, 1, 300, 300)
    mask[..., 60:240, 100 : 100 + width] = 1
    ab = colour.srgb_to_lab(colourise.colourise(image, no_colour, net_size=64, hints=hints(mask)))[:, 1:]
    inside = (mask > 0)[:, 0]
    reached = (ab * ab_of(SKIN)).sum(1) / ab_of(SKIN).norm() ** 2
    assert reached[inside].mean() > 0.9
    assert (reached > 0.5).sum() < 1.1 * inside.sum()


def test_two_hints_do_not_mix_and_strength_leaves_them() -> None:
    image = torch.full((1, 3, 200, 200), 0.5)
    mask = torch.zeros(1, 1, 200, 200)
    mask[..., 40:160, 20:80] = mask[..., 40:160, 120:180] = 1
    painted = torch.tensor((0.45, 0.5, 0.62)).view(1, 3, 1, 1).repeat(1, 1, 200, 200)
    painted[..., :100] = torch.tensor(SKIN).view(1, 3, 1, 1)
    for strength in (0.0, 1.0):
        result = colourise.colourise(
            image, lambda _: torch.full((1, 2, 8, 8), -9.0), net_size=64, strength=strength,
            hints=colourise.Hints(painted, mask),
        )  # fmt: skip
        ab = colour.srgb_to_lab(result)[0, 1:]
        assert (ab[:, 100, 50] - ab_of(SKIN).flatten()).norm() < 0.5
        assert (ab[:, 100, 150] - ab_of((0.45, 0.5, 0.62)).flatten()).norm() < 0.5
        torch.testing.assert_close(ab[:, 100, 100], torch.full((2,), -9.0 * strength), rtol=0, atol=0.05)


def test_half_a_mask_is_half_the_colour() -> None:
    image = torch.full((1, 3, 80, 80), 0.5)
    result = colourise.colourise(image, no_colour, net_size=32, hints=hints(torch.full((1, 1, 80, 80), 0.5)))
    torch.testing.assert_close(
        colour.srgb_to_lab(result)[:, 1:].mean((-2, -1)), 0.5 * ab_of(SKIN)[..., 0, 0], rtol=0, atol=0.1
    )


def test_networks_that_take_hints_are_told_at_their_size() -> None:
    seen: list[tuple[torch.Tensor, ...]] = []

    def predictor(*given: torch.Tensor) -> torch.Tensor:
        seen.append(given)
        return torch.zeros(1, 2, 16, 16)

    image = torch.full((1, 3, 120, 90), 0.5)
    mask = torch.zeros(1, 1, 120, 90)
    mask[..., :60, :] = 1
    mask[..., 100, 45] = 0.9  # a dab smaller than the network's pixel counts, whatever else is there
    colourise.colourise(image, predictor, net_size=32, hints=hints(mask), takes_hints=True)
    lightness, ab, known = seen.pop()
    assert (lightness.shape, ab.shape, known.shape) == ((1, 1, 32, 32), (1, 2, 32, 32), (1, 1, 32, 32))
    assert known[..., :16, :].min() == 1
    assert 1 <= known[..., 16:, :].sum() <= 4
    assert known[..., 16:24, :].max() == 0
    torch.testing.assert_close(ab, ab_of(SKIN) * known, rtol=0, atol=1e-3)
    dab = torch.zeros(1, 1, 120, 90)
    dab[..., 100, 45] = 1
    colourise.colourise(image, predictor, net_size=32, hints=hints(dab), takes_hints=True)
    assert 1 <= seen.pop()[2].sum() <= 4  # alone, it is told
    colourise.colourise(image, predictor, net_size=32, takes_hints=True)
    assert all(float(value.abs().max()) == 0 for value in seen.pop()[1:])
    colourise.colourise(image, predictor, net_size=32, hints=hints(mask))
    assert len(seen.pop()) == 1


def test_a_hint_for_each_photo_of_a_batch() -> None:
    images = torch.full((2, 3, 60, 60), 0.5)
    mask = torch.zeros(2, 1, 60, 60)
    mask[1] = 1
    result = colourise.colourise(images, no_colour, net_size=32, hints=hints(mask))
    chroma = colour.srgb_to_lab(result)[:, 1:].norm(dim=1)
    assert chroma[0].max() < 1e-3
    assert chroma[1].min() > 10


def test_bands_leave_no_seams_in_hints(monkeypatch: pytest.MonkeyPatch) -> None:
    image = disc_photo(150)
    given = hints(disc(150, 40).float())
    whole = colourise.colourise(image, no_colour, net_size=16, hints=given)
    monkeypatch.setattr(colour, "BAND_PIXELS", 7 * 150)
    banded = colourise.colourise(image, no_colour, net_size=16, hints=given)
    torch.testing.assert_close(banded, whole, rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (3, 2)])
def test_hints_on_tiny_photos(size: tuple[int, int]) -> None:
    result = colourise.colourise(
        torch.full((1, 3, *size), 0.5), no_colour, net_size=16, hints=hints(torch.ones(1, 1, *size))
    )
    torch.testing.assert_close(colour.srgb_to_lab(result)[:, 1:], ab_of(SKIN).expand(1, 2, *size), rtol=0, atol=0.2)


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        (torch.zeros(1, 3, 20, 20), torch.zeros(1, 1, 20, 21), "mask are 21 x 20 px, the photo is 20 x 20"),
        (torch.zeros(1, 3, 10, 20), torch.zeros(1, 1, 20, 20), "colours are 20 x 10 px"),
        (torch.zeros(1, 1, 20, 20), torch.zeros(1, 1, 20, 20), "colours"),
        (torch.zeros(2, 3, 20, 20), torch.zeros(1, 1, 20, 20), "hints for 2 photos"),
        (torch.zeros(1, 3, 20, 20), torch.full((1, 1, 20, 20), torch.nan), "not numbers"),
    ],
)
def test_hints_that_do_not_fit_are_refused(image: torch.Tensor, mask: torch.Tensor, message: str) -> None:
    with pytest.raises(NodeInputError, match=message):
        colourise.colourise(torch.rand(1, 3, 20, 20), no_colour, net_size=8, hints=colourise.Hints(image, mask))


@pytest.mark.parametrize("other", [1.0, 0.4])
def test_a_small_or_faint_hint_counts_beside_a_large_strong_one(other: float) -> None:
    image = torch.full((1, 3, 300, 400), 0.5)
    mask, painted = torch.zeros(1, 1, 300, 400), torch.zeros(1, 3, 300, 400)
    mask[..., 20:120, 20:160] = 1.0
    painted[:, 2, 20:120, 20:160] = 1.0  # blue
    mask[..., 200:208, 300:308] = other
    painted[:, 0, 200:208, 300:308] = 1.0  # red
    told: list[torch.Tensor] = []

    def predictor(lightness: torch.Tensor, ab: torch.Tensor, known: torch.Tensor) -> torch.Tensor:
        told.append(known)
        return torch.zeros_like(lightness).repeat(1, 2, 1, 1)

    both = colourise.Hints(painted, mask)
    result = colourise.colourise(image, predictor, net_size=64, hints=both, takes_hints=True)
    assert float(colour.srgb_to_lab(result)[0, 1, 204, 304]) > 20 * other  # red, as far as its mask says
    blue = colour.srgb_to_lab(result)[0, 1:, 70, 90]
    assert float(blue[1]) < -20
    assert told[0][0, 0, 204 * 64 // 300, 304 * 64 // 400] == 1
    alone = colourise.Hints(painted, mask * (torch.arange(400) > 250))
    single = colourise.colourise(image, predictor, net_size=64, hints=alone, takes_hints=True)
    torch.testing.assert_close(result[..., 190:218, 290:318], single[..., 190:218, 290:318], rtol=0, atol=0.02)
