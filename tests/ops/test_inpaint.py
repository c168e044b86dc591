"""Inpainting: exact off the mask, close to the truth on it, and crop by crop for networks."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
import torch
from skimage import data

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.images import luminance
from photokeep_nodes.ops import colour, grain, inpaint, measures
from photokeep_nodes.ops.inpaint_regions import regions

METHODS = ("telea", "ns")


def photo(height: int = 200, width: int = 260) -> torch.Tensor:
    part = data.astronaut()[:height, :width].copy()
    return torch.from_numpy(part).permute(2, 0, 1)[None].float() / 255


def colourful(height: int, width: int) -> torch.Tensor:
    """A colour photo of any size."""
    across = torch.linspace(0, 1, width).expand(1, 1, height, width)
    down = torch.linspace(0, 1, height)[:, None].expand(1, 1, height, width)
    return torch.cat((across, down, 1 - across), 1)


def scratch(height: int = 200, width: int = 260, wide: int = 3) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    for column in range(20, width - 20):
        mask[..., height // 2 + column // 7 - 10 :, column][..., :wide] = 1
    return mask


def psnr(a: torch.Tensor, b: torch.Tensor, where: torch.Tensor) -> float:
    return float(-10 * torch.log10(((a - b) ** 2)[where.expand_as(a)].mean()))


class Network:
    """Fills with one colour, and keeps book of what it is given."""

    def __init__(self, fill: tuple[float, float, float] = (0.25, 0.5, 0.75)) -> None:
        self.fill = torch.tensor(fill).view(1, 3, 1, 1)
        self.images: list[torch.Tensor] = []
        self.masks: list[torch.Tensor] = []

    def __call__(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert image.shape[:2] == (1, 3)
        assert mask.shape == (1, 1, *image.shape[-2:])
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        assert 0 < mask.sum() < mask.numel()
        assert image.min() >= 0
        assert image.max() <= 1
        self.images.append(image.clone())
        self.masks.append(mask.clone())
        return torch.where(mask > 0, self.fill, image)


@pytest.mark.parametrize("method", METHODS)
def test_a_scratch_is_filled_with_what_was_there(method: inpaint.Method) -> None:
    image, mask = photo(), scratch()
    damaged = torch.where(mask > 0, torch.tensor(0.97), image)
    repaired = inpaint.inpaint_classical(damaged, mask, method)
    assert psnr(repaired, image, mask > 0) > psnr(damaged, image, mask > 0) + 12


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("steps", [255, 65535])
def test_off_the_mask_every_bit_stays(method: inpaint.Method, steps: int) -> None:
    image = torch.from_numpy(np.random.default_rng(0).integers(0, steps + 1, (2, 3, 50, 70))).float() / steps
    mask = scratch(50, 70).repeat(2, 1, 1, 1)
    mask[1, :, 40:, 60:] = 1
    for filled in (
        inpaint.inpaint_classical(image, mask, method, grain=1.0),
        inpaint.inpaint_with(image, mask, Network(), multiple_of=8, grain=1.0),
    ):
        off = (mask == 0).expand_as(image)
        assert torch.equal(filled[off], image[off])
        assert torch.equal((filled * steps).round()[off], (image * steps).round()[off])


@pytest.mark.parametrize("method", METHODS)
def test_sixteen_bits_survive_in_the_fill(method: inpaint.Method) -> None:
    """Between two 8-bit steps lie 256 of 16 bits; and what a method adds to the values must not show."""
    ramp = torch.linspace(0.5, 0.504, 200).expand(1, 3, 60, 200).contiguous()
    mask = torch.zeros(1, 1, 60, 200)
    mask[..., 60:140:20, :] = 0
    mask[..., 20:26, :] = 1
    filled = inpaint.inpaint_classical(ramp, mask, method)
    assert (filled - ramp).abs().max() < 40 / 65535
    assert filled[0, 0, 22].unique().numel() > 50


@pytest.mark.parametrize("method", METHODS)
def test_crops_fill_as_the_whole_photo_would(method: inpaint.Method, monkeypatch: pytest.MonkeyPatch) -> None:
    image, mask = photo(), scratch()
    mask[..., 10:14, 200:206] = 1
    whole = inpaint.inpaint_classical(image, mask, method)
    monkeypatch.setattr(inpaint, "_CLASSICAL_SIDE", 100)
    assert len(inpaint.classical_regions(mask > 0)) > 3
    pieces = inpaint.inpaint_classical(image, mask, method)
    # Two pieces meet here and there; elsewhere nothing differs.
    assert ((pieces - whole).abs() > 1e-4).float().mean() < 0.002
    assert psnr(pieces, image, mask > 0) > psnr(whole, image, mask > 0) - 0.5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("side", ["top", "bottom", "left", "right", "corner"])
def test_the_outermost_rows_are_filled_from_inside(method: inpaint.Method, side: str) -> None:
    image = photo()
    mask = torch.zeros(1, 1, 200, 260)
    parts = {"top": mask[..., :1, :], "bottom": mask[..., -1:, :], "left": mask[..., :1], "right": mask[..., -1:]}
    parts.get(side, mask[..., :8, -8:])[:] = 1
    damaged = torch.where(mask > 0, torch.tensor(1.0), image)
    repaired = inpaint.inpaint_classical(damaged, mask, method)
    assert psnr(repaired, image, mask > 0) > psnr(damaged, image, mask > 0) + 6
    network = Network()
    filled = inpaint.inpaint_with(damaged, mask, network, multiple_of=8, minimum=16)
    on = mask[0, 0] > 0
    assert torch.allclose(filled[0][:, on], network.fill.view(3, 1).expand(-1, int(on.sum())))


def test_nothing_masked_is_the_same_tensor_and_no_call() -> None:
    image, network = photo(), Network()
    empty = torch.zeros(1, 1, 200, 260)
    assert inpaint.inpaint_classical(image, empty) is image
    assert inpaint.inpaint_with(image, empty, network) is image
    assert network.images == []


def test_of_a_batch_only_masked_photos_change() -> None:
    batch = torch.cat([photo(), photo().flip(-1), photo()])
    mask = torch.cat([torch.zeros(1, 1, 200, 260), scratch(), torch.zeros(1, 1, 200, 260)])
    before = batch.clone()
    network = Network()
    filled = inpaint.inpaint_with(batch, mask, network)
    assert torch.equal(batch, before)
    assert torch.equal(filled[0], batch[0])
    assert torch.equal(filled[2], batch[2])
    assert not torch.equal(filled[1], batch[1])


def test_a_mask_over_everything_is_refused() -> None:
    for fill in (inpaint.inpaint_classical, lambda image, mask: inpaint.inpaint_with(image, mask, Network())):
        with pytest.raises(NodeInputError, match="nothing to inpaint from"):
            fill(photo(), torch.ones(1, 1, 200, 260))
    with pytest.raises(NodeInputError, match="nothing to inpaint from"):
        inpaint.inpaint_classical(torch.rand(2, 3, 1, 1), torch.tensor([0.0, 1.0]).view(2, 1, 1, 1))


def test_almost_everything_masked_is_filled() -> None:
    image = torch.full((1, 3, 40, 50), 0.3)
    mask = torch.ones(1, 1, 40, 50)
    mask[..., 20, 25] = 0
    for filled in (inpaint.inpaint_classical(image.clone(), mask), inpaint.inpaint_with(image, mask, Network())):
        assert torch.isfinite(filled).all()


@pytest.mark.parametrize(
    ("image", "mask", "why"),
    [
        (torch.zeros(1, 1, 8, 8), torch.zeros(1, 1, 8, 8), "batch, 3"),
        (torch.zeros(1, 3, 8, 8), torch.zeros(1, 1, 8, 9), "the mask is"),
        (torch.zeros(2, 3, 8, 8), torch.zeros(1, 1, 8, 8), "the mask is"),
        (torch.full((1, 3, 8, 8), float("nan")), torch.zeros(1, 1, 8, 8), "the photo holds"),
        (torch.zeros(1, 3, 8, 8), torch.full((1, 1, 8, 8), float("nan")), "the mask holds"),
    ],
)
def test_what_does_not_fit_is_refused(image: torch.Tensor, mask: torch.Tensor, why: str) -> None:
    with pytest.raises(NodeInputError, match=why):
        inpaint.inpaint_classical(image, mask)
    with pytest.raises(NodeInputError, match=why):
        inpaint.inpaint_with(image, mask, Network())


def test_an_unknown_method_is_refused() -> None:
    with pytest.raises(NodeInputError, match="'magic'"):
        inpaint.inpaint_classical(photo(), scratch(), "magic")  # type: ignore[arg-type]


def test_soft_masks_blend() -> None:
    image, mask = photo(), scratch()
    hard = inpaint.inpaint_with(image, mask, Network())
    half = inpaint.inpaint_with(image, mask * 0.5, Network())
    torch.testing.assert_close(half, (image + hard) / 2, rtol=0, atol=1e-6)
    classical = inpaint.inpaint_classical(image, mask * 0.5)
    torch.testing.assert_close(classical, (image + inpaint.inpaint_classical(image, mask)) / 2, rtol=0, atol=1e-6)


@pytest.mark.parametrize("size", [(3, 500), (500, 3), (1, 40), (7, 9), (33, 17)])
def test_small_photos_are_padded_for_the_network(size: tuple[int, int]) -> None:
    """Multiples of 8 and at least 16 px: the pad is longer than the side, where reflection alone fails."""
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    mask = torch.zeros(1, 1, *size)
    mask[..., 0, :2] = 1
    network = Network()
    filled = inpaint.inpaint_with(image, mask, network, multiple_of=8, minimum=16)
    assert all(side % 8 == 0 and side >= 16 for given in network.images for side in given.shape[-2:])
    assert torch.equal(filled[:, :, 0, :2], network.fill.expand(1, 3, 1, 2)[:, :, 0])
    off = (mask == 0).expand_as(image)
    assert torch.equal(filled[off], image[off])
    classical = inpaint.inpaint_classical(image, mask)
    assert torch.equal(classical[off], image[off])


def test_a_network_of_one_size_gets_that_size() -> None:
    image = colourful(300, 700)
    mask = torch.zeros(1, 1, 300, 700)
    mask[..., 140:150, 20:690] = 1
    network = Network()
    filled = inpaint.inpaint_with(image, mask, network, multiple_of=512, minimum=512, square_side=512)
    assert {tuple(given.shape[-2:]) for given in network.images} == {(512, 512)}
    assert inpaint.input_side(mask > 0, multiple_of=512, minimum=512, square_side=512) == (512, 512)
    on = mask[0, 0] > 0
    assert torch.equal(filled[0][:, on], network.fill.view(3, 1).expand(-1, int(on.sum())))


def test_a_long_scratch_goes_in_pieces_at_full_size_each_building_on_the_last() -> None:
    image = colourful(300, 2000)
    mask = torch.zeros(1, 1, 300, 2000)
    mask[..., 150:153, 50:1950] = 1
    network = Network()
    filled = inpaint.inpaint_with(image, mask, network, multiple_of=8, minimum=16)
    assert len(network.images) >= 4
    assert all(max(given.shape[-2:]) <= inpaint.NETWORK_SIDE for given in network.images)
    on = mask[0, 0] > 0
    assert torch.equal(filled[0][:, on], network.fill.view(3, 1).expand(-1, int(on.sum())))
    # What came before is known to what comes after: the whole mask is never given twice.
    assert sum(float(given.sum()) for given in network.masks) < 2 * float(mask.sum())
    assert (network.images[1] == network.fill).all(1).sum() > 300
    held = inpaint.input_side(mask > 0, multiple_of=8, minimum=16)
    assert held[0] >= max(given.shape[-2] for given in network.images)
    assert held[1] >= max(given.shape[-1] for given in network.images)


def test_a_hole_too_large_is_filled_on_a_reduced_copy() -> None:
    image = colourful(1500, 1600)
    mask = torch.zeros(1, 1, 1500, 1600)
    mask[..., 300:1300, 200:1400] = 1
    network = Network()
    filled = inpaint.inpaint_with(image, mask, network, multiple_of=8)
    assert len(network.images) == 1
    assert max(network.images[0].shape[-2:]) <= inpaint.NETWORK_SIDE
    on = mask[0, 0] > 0
    difference = (filled[0][:, on] - network.fill.view(3, 1)).abs()
    assert difference.max() < 0.05  # at the rim, where the reduced copy has the photo next to it
    assert (difference > 1e-5).float().mean() < 0.01
    off = (mask == 0).expand_as(image)
    assert torch.equal(filled[off], image[off])


def test_specks_near_each_other_share_a_crop() -> None:
    image = colourful(400, 1800)
    mask = torch.zeros(1, 1, 400, 1800)
    for x in (100, 140, 200, 260, 1500, 1560):
        mask[..., 200:204, x : x + 4] = 1
    network = Network()
    calls: list[int] = []
    inpaint.inpaint_with(image, mask, network, after_region=lambda: calls.append(1))
    assert len(network.images) == 2
    assert len(calls) == len(inpaint.network_regions(mask > 0)) == 2
    assert [int(given.sum()) for given in network.masks] == [64, 32]


@pytest.mark.parametrize(("side", "context"), [(1024, 256), (200, 30), (64, 16)])
def test_every_hole_is_in_one_core_at_least(side: int, context: int) -> None:
    generator = torch.Generator().manual_seed(5)
    mask = torch.zeros(1, 1, 500, 640, dtype=torch.bool)
    for _ in range(40):
        y, x = (int(torch.randint(0, size, (), generator=generator)) for size in (500, 640))
        mask[..., y : y + 5, x : x + 5] = True
    mask[..., 100:300, 100:400] = True
    for step in range(450):
        mask[..., step, step : step + 2] = True
    for keep_whole in (False, True):
        covered = torch.zeros_like(mask)
        for region in regions(mask, side=side, context=context, keep_whole=keep_whole):
            rows, columns = region.crop
            top, left, bottom, right = region.core
            assert 0 <= rows.start <= top < bottom <= rows.stop <= 500
            assert 0 <= columns.start <= left < right <= columns.stop <= 640
            assert keep_whole or max(region.work) <= side
            core = torch.zeros_like(mask)
            core[..., top:bottom, left:right] = True
            if region.mine is not None:
                mine = torch.zeros_like(mask)
                mine[..., rows, columns] = region.mine
                core &= mine
            covered |= core
        assert not bool((mask & ~covered).any())


def test_a_network_that_returns_nonsense_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not numbers"):
        inpaint.inpaint_with(photo(), scratch(), lambda image, _: image * float("nan"))
    with pytest.raises(NodeInputError, match="returned"):
        inpaint.inpaint_with(photo(), scratch(), lambda image, _: image[..., :-1])


def test_gray_stays_gray_whatever_the_network_makes_of_it() -> None:
    gray = luminance(photo()).expand(-1, 3, -1, -1).contiguous()
    filled = inpaint.inpaint_with(gray, scratch(), Network((0.9, 0.4, 0.1)), grain=1.0)
    assert colour.is_gray(filled)
    assert not torch.equal(filled, gray)
    assert colour.is_gray(inpaint.inpaint_classical(gray, scratch(), grain=1.0))


def test_yellowed_paper_keeps_its_tint_in_the_fill() -> None:
    tint = torch.tensor([1.0, 0.99, 0.955]).view(1, 3, 1, 1)
    camera = (torch.from_numpy(data.camera().copy()) / 255.0).expand(1, 3, -1, -1) * tint
    assert colour.tones(camera) == ["gray"]
    mask = scratch(512, 512, wide=8)
    filled = inpaint.inpaint_with(camera, mask, Network((0.9, 0.4, 0.1)))
    on = mask[0, 0] > 0
    warmth = (filled[0, 0] - filled[0, 2])[on].mean()
    assert 0.0 < float(warmth) < 0.06
    off = (mask == 0).expand_as(camera)
    assert torch.equal(filled[off], camera[off])


def noisy(sigma: float) -> torch.Tensor:
    flat = torch.linspace(0.4, 0.6, 240).expand(1, 3, 240, 240)
    noise = torch.randn((1, 3, 240, 240), generator=torch.Generator().manual_seed(9))
    return (flat + sigma / 255 * noise).clamp(0, 1)


def noise_in(image: torch.Tensor, where: tuple[slice, slice]) -> float:
    return measures.noise_sigma(image[..., where[0], where[1]].contiguous())


def test_grain_gives_the_fill_the_photos_own_noise() -> None:
    image = noisy(8.0)
    mask = torch.zeros(1, 1, 240, 240)
    hole = (slice(70, 170), slice(70, 170))
    mask[..., hole[0], hole[1]] = 1
    waxy = inpaint.inpaint_classical(image, mask)
    assert noise_in(waxy, hole) < 3
    grainy = inpaint.inpaint_classical(image, mask, grain=1.0)
    assert noise_in(grainy, hole) == pytest.approx(8, rel=0.25)
    assert torch.equal(grainy, inpaint.inpaint_classical(image, mask, grain=1.0))
    half = inpaint.inpaint_classical(image, mask, grain=0.5)
    assert noise_in(half, hole) == pytest.approx(4, rel=0.4)


def test_grain_is_not_added_to_what_has_it() -> None:
    image = noisy(8.0)
    mask = torch.zeros(1, 1, 240, 240)
    mask[..., 70:170, 70:170] = 1
    other = noisy(8.0).flip(-1)
    filled = inpaint.inpaint_with(image, mask, lambda crop, m: torch.where(m > 0, other[..., : crop.shape[-2], : crop.shape[-1]], crop), grain=1.0)  # fmt: skip  # noqa: E501
    assert noise_in(filled, (slice(70, 170), slice(70, 170))) < 10
    clean = noisy(0.0)
    before = clean.clone()
    grain.add_grain(clean, mask > 0, clean.clone(), 1.0)
    assert (clean - before).abs().max() < 1 / 255


def test_the_grain_of_two_photos_differs() -> None:
    mask = torch.zeros(1, 1, 240, 240)
    mask[..., 70:170, 70:170] = 1
    fills = [inpaint.inpaint_classical(image, mask, grain=1.0) for image in (noisy(8.0), noisy(8.0) * 0.9)]
    waxy = [inpaint.inpaint_classical(image, mask) for image in (noisy(8.0), noisy(8.0) * 0.9)]
    added = [(fill - plain)[..., 70:170, 70:170].flatten() for fill, plain in zip(fills, waxy, strict=True)]
    for one, other in itertools.combinations(added, 2):
        assert abs(float(torch.corrcoef(torch.stack((one, other)))[0, 1])) < 0.1
