"""Scratches in photos of any size, with hand-made detectors that, like the network, see but a few pixels around."""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional

from photokeep_nodes import images, inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.models.bopb_scratch import SPEC
from photokeep_nodes.ops.scratch_network import THRESHOLD, Copy, believable, copies, find, to_mask
from photokeep_nodes.scratch_inference import find_scratches

if TYPE_CHECKING:
    from photokeep_nodes.ops.scratch_network import Detector

pytestmark = pytest.mark.usefixtures("on_the_cpu")


class Lines(torch.nn.Module):
    """Finds what is brighter, or darker, than what lies two pixels away on both sides."""

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        padded = functional.pad(gray, (2, 2, 2, 2), mode="replicate")
        left, right = padded[..., 2:-2, :-4], padded[..., 2:-2, 4:]
        above, below = padded[..., :-4, 2:-2], padded[..., 4:, 2:-2]
        beyond = [
            torch.minimum(sign * (gray - one), sign * (gray - other))
            for one, other in ((left, right), (above, below))
            for sign in (1, -1)
        ]
        return torch.sigmoid(80 * (torch.stack(beyond).amax(0) - 0.12))


MODEL = replace(
    SPEC, id="lines", weights=(), copied=lambda: Lines().eval(), weight_bytes=0, receptive_field=8, bytes_per_pixel=64
)
"""The same sizes and tiles as the network's, but for the margin."""


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what the network was called with."""
    shapes: list[torch.Size] = []
    call = inference.Network.__call__

    def noting(self: inference.Network, image: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        shapes.append(image.shape)
        return call(self, image, *arguments)

    monkeypatch.setattr(inference.Network, "__call__", noting)
    return shapes


def marked(probability: torch.Tensor) -> torch.Tensor:
    return to_mask(probability)[0, 0] > 0


def photo(height: int, width: int) -> torch.Tensor:
    """A scan out of focus, with the scanner's noise, (1, 3, H, W): no lines but those that a test adds."""
    small = torch.from_numpy(data.astronaut()[:384:16, ::16] / np.float32(255)).permute(2, 0, 1)[None]
    large = functional.interpolate(small, size=(height, width), mode="bicubic", align_corners=False)
    noise = torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(1))
    return (large + 0.01 * noise).clamp_(0, 1)


# -- in which sizes ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("size", "finest", "sides"),
    [
        ((3000, 4000), 0, [(256, 336), (512, 688), (1024, 1360), (2048, 2736), (3000, 4000)]),
        ((4000, 3000), 1024, [(336, 256), (688, 512), (1360, 1024)]),
        ((4000, 3000), 1000, [(336, 256), (688, 512), (1328, 992)]),
        ((4000, 3000), 100, [(336, 256)]),
        ((1024, 1024), 0, [(256, 256), (512, 512), (1024, 1024)]),
        ((700, 700), 0, [(256, 256), (700, 700)]),
        ((300, 300), 0, [(256, 256), (300, 300)]),
        ((256, 300), 0, [(256, 300)]),
        ((100, 150), 0, [(256, 384)]),
        ((1, 1), 0, [(256, 256)]),
        ((10, 4000), 0, [(10, 4000)]),
        ((20, 1000), 0, [(80, 4048)]),
    ],
)
def test_sizes(size: tuple[int, int], finest: int, sides: list[tuple[int, int]]) -> None:
    found = copies(*size, finest)
    assert [(copy.height, copy.width) for copy in found] == sides
    assert found[0].octaves == 0
    assert all(later.octaves > earlier.octaves for earlier, later in pairwise(found))


def test_how_much_finer_a_copy_is() -> None:
    assert copies(1024, 2048)[-1] == Copy(1024, 2048, 2.0)


def test_the_smallest_copy_is_what_upstream_shows_the_network() -> None:
    """PIL's bicubic, then its luma; the trap is a copy without anti-aliasing, or a plain mean of the channels."""
    original = Image.fromarray(data.astronaut()).resize((1200, 900), Image.Resampling.LANCZOS)
    expected = np.asarray(original.resize((336, 256), Image.Resampling.BICUBIC).convert("L"), np.float32)
    pixels = torch.from_numpy(np.asarray(original) / np.float32(255)).permute(2, 0, 1)[None]
    seen: list[torch.Tensor] = []

    def detect(gray: torch.Tensor) -> torch.Tensor:
        seen.append(gray)
        return torch.zeros_like(gray)

    find(images.luminance(pixels), detect)
    # PIL rounds and clips in between, which overshooting edges show.
    assert np.abs(seen[0][0, 0].numpy() * 255 - expected).mean() < 0.6
    assert np.abs(seen[0][0, 0].numpy() * 255 - expected).max() < 4
    plain_mean = functional.interpolate(pixels, size=(256, 336), mode="bicubic", antialias=True).mean(1)
    assert np.abs(plain_mean[0].numpy() * 255 - expected).mean() > 2


# -- what a hairline needs ---------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_a_hairline_in_twelve_megapixels_is_found(calls: list[torch.Size]) -> None:
    """Upstream's way loses it; and no more is in memory at once than the largest of tiles."""
    image = photo(3000, 4000)
    down, across = torch.arange(200, 2800), 1500 + torch.arange(2600) // 8
    image[..., down, across] = 1.0
    line = torch.zeros(3000, 4000, dtype=torch.bool)
    line[down, across] = True
    found = marked(find_scratches(MODEL, image))
    assert found[line].float().mean() > 0.9
    near = functional.max_pool2d(line[None].float(), 5, stride=1, padding=2)[0] > 0
    assert found[~near].float().mean() < 1e-4
    assert max(shape[2] * shape[3] for shape in calls) <= 1024 * 1024
    assert {shape[:2] for shape in calls} == {(1, 1)}
    assert sum(shape[2] * shape[3] for shape in calls) > 3000 * 4000
    calls.clear()
    coarse = marked(find_scratches(MODEL, image, finest=256))
    assert [tuple(shape) for shape in calls] == [(1, 1, 256, 336)]
    assert coarse[near].float().mean() < 0.05, "256 pixels on the short side is all that upstream looks at"


def test_a_wide_crease_is_found_on_a_coarser_copy(calls: list[torch.Size]) -> None:
    image = torch.full((1, 1, 1100, 1100), 0.4)
    image[..., 545:555] = 0.9
    assert marked(find_scratches(MODEL, image))[:, 546:554].float().mean() > 0.95
    native = Lines()(image)
    assert (native[0, 0, :, 548:552] >= THRESHOLD).float().mean() == 0, "too wide for what sees five pixels"


# -- what finer copies may say -----------------------------------------------------------------------------------------


def at_size(side: int, inside: torch.Tensor) -> Detector:
    """A detector that finds something only on the copy of that size."""
    return lambda gray: inside if gray.shape[-1] == side else torch.full_like(gray, 0.1)


def test_the_size_it_was_trained_for_counts_as_it_is() -> None:
    speck = torch.full((1, 1, 256, 256), 0.1)
    speck[..., 100, 100] = 0.6
    texture = torch.full((1, 1, 256, 256), 0.45)
    gray = torch.full((1, 1, 1024, 1024), 0.5)
    assert marked(find(gray, at_size(256, speck))).sum() > 0
    assert marked(find(gray, at_size(256, texture))).all()
    assert not marked(find(gray, at_size(512, functional.interpolate(texture, size=(512, 512))))).any()


def test_grain_and_cloth_on_a_fine_copy_do_not_flood() -> None:
    gray = torch.full((1, 1, 1024, 1024), 0.5)
    fine = torch.full((1, 1, 1024, 1024), 0.02)
    generator = torch.Generator().manual_seed(2)
    fine[..., :512, :][torch.rand(1, 1, 512, 1024, generator=generator) > 0.97] = 0.95
    fine[..., 600:1000, 100:500][torch.rand(1, 1, 400, 400, generator=generator) > 0.4] = 0.95
    fine[..., 560:1010, 800:802] = 0.95
    fine[..., 700:702, 600:1010] = 0.95
    assert (fine >= THRESHOLD).float().mean() > 0.1
    found = marked(find(gray, at_size(1024, fine)))
    assert found[:540].float().mean() < 1e-3, "specks"
    assert found[620:980, 120:480].float().mean() < 1e-3, "a whole area"
    assert found[560:1010, 800:802].all(), "a line, also where another one crosses it"
    assert found[700:702, 600:1010].all()


def test_a_finer_copy_must_be_surer() -> None:
    line = torch.full((1, 1, 64, 64), 0.02)
    line[..., 30] = 0.45
    assert marked(believable(line, 0.5)).any()
    assert not marked(believable(line, 1.0)).any()
    line[..., 30] = 0.6
    assert marked(believable(line, 3.0)).any()
    assert not marked(believable(line, 3.55)).any(), "62 % at 12 megapixels"
    assert (believable(line, 1.0) <= line).all()


@pytest.mark.parametrize(("length", "kept"), [(11, False), (12, True)])
@pytest.mark.parametrize("slanted", [False, True])
def test_what_is_short_is_grain(length: int, slanted: bool, kept: bool) -> None:
    line = torch.full((1, 1, 64, 64), 0.02)
    step = torch.arange(length)
    line[..., 20 + step, 20 + (step if slanted else 0)] = 0.95
    assert marked(believable(line, 1.0)).any() == kept


def test_certainty_itself_is_no_trouble() -> None:
    exact = torch.zeros(1, 1, 64, 64)
    exact[..., 30] = 1.0
    out = believable(exact, 2.0)
    assert torch.isfinite(out).all()
    assert marked(out).sum() == 64


def test_what_is_found_on_an_enlarged_copy_is_not_averaged_away() -> None:
    image = torch.full((1, 1, 64, 96), 0.4)
    image[..., 40] = 1.0
    assert marked(find_scratches(MODEL, image))[:, 40].float().mean() > 0.95


# -- masks -------------------------------------------------------------------------------------------------------------


def test_a_mask_is_exactly_zero_or_one_and_spares_what_it_should() -> None:
    probability = torch.tensor([0.39, 0.4, 0.9, 0.9]).view(1, 1, 1, 4).expand(2, 1, 3, 4)
    keep_out = torch.zeros(1, 1, 3, 4)
    keep_out[..., 3] = 0.2
    mask = to_mask(probability, keep_out=keep_out)
    assert mask[:, 0, 0].tolist() == [[0, 1, 1, 0]] * 2
    assert to_mask(probability, 0.95).sum() == 0
    for wrong in (torch.zeros(1, 1, 4, 3), torch.zeros(3, 1, 3, 4), torch.zeros(3, 4)):
        with pytest.raises(NodeInputError, match="kept out"):
            to_mask(probability, keep_out=wrong)


# -- with a leased model -----------------------------------------------------------------------------------------------


def test_a_batch_is_looked_at_photo_by_photo(calls: list[torch.Size]) -> None:
    batch = torch.full((2, 3, 300, 400), 0.4)
    batch[1, :, :, 50] = 1.0
    found = find_scratches(MODEL, batch)
    assert found.shape == (2, 1, 300, 400)
    assert found.dtype == torch.float32
    assert not marked(found[:1]).any()
    assert marked(found[1:])[:, 50].all()
    assert {shape[0] for shape in calls} == {1}
    torch.testing.assert_close(find_scratches(MODEL, batch[1:, :1]), found[1:], rtol=0, atol=1e-5)


def test_tiles_do_not_show(calls: list[torch.Size]) -> None:
    image = photo(280, 420)
    whole = find_scratches(MODEL, image, tile=1024)
    many = len(calls)
    tiled = find_scratches(MODEL, image, tile=64)
    assert len(calls) > 5 * many
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)


def test_what_is_no_photo() -> None:
    image = torch.full((1, 3, 300, 300), 0.5)
    image[0, 0, 5, 5] = torch.nan
    with pytest.raises(NodeInputError, match="not numbers"):
        find_scratches(MODEL, image)
    for shape in ((1, 4, 30, 30), (3, 30, 30), (1, 3, 0, 30), (0, 3, 30, 30)):
        with pytest.raises(NodeInputError, match="a photo must be"):
            find_scratches(MODEL, torch.zeros(shape))
    with pytest.raises(NodeInputError, match="one gray photo"):
        find(torch.zeros(2, 1, 30, 30), Lines())
