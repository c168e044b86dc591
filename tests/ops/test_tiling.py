"""Tiles whose seams cannot be seen: the layout as properties, the result against the untiled one."""

from __future__ import annotations

import itertools
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage import data
from torch import nn

from photokeep_nodes import weights
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.models import catalogue
from photokeep_nodes.ops.tiling import even_tile, margin_of, pad_to, run_tiled, smallest_tile, spans

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec


def photo(height: int, width: int, top: int = 60, left: int = 180) -> torch.Tensor:
    part = data.astronaut()[top : top + height, left : left + width]
    return torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None]


@st.composite
def layouts(draw: st.DrawFn) -> tuple[int, int, int, int]:
    """(length, tile, margin, multiple) that have room for their margins."""
    multiple = draw(st.sampled_from([1, 2, 3, 4, 8, 16, 64]))
    margin = draw(st.integers(0, 40))
    tile = smallest_tile(margin, multiple) + multiple * draw(st.integers(0, 30))
    length = tile + multiple * draw(st.integers(0, 200))
    return length, tile, margin, multiple


@settings(deadline=None)
@given(layouts(), st.sampled_from([1, 2, 4]))
def test_the_weights_add_up_to_one_everywhere(layout: tuple[int, int, int, int], scale: int) -> None:
    length, tile, margin, multiple = layout
    laid = spans(length, tile, margin, multiple, scale)
    total = torch.zeros(length * scale, dtype=torch.float64)
    for span in laid:
        assert span.weights.shape == (tile * scale,)
        assert float(span.weights.min()) >= 0.0
        total[span.start * scale : (span.start + tile) * scale] += span.weights.double()
    # Each weight is rounded to float32 on its own; at most a handful of tiles meet at a pixel.
    torch.testing.assert_close(total, torch.ones_like(total), rtol=0, atol=2**-22)


@settings(deadline=None)
@given(layouts())
def test_tiles_lie_on_the_grid_cover_the_axis_and_do_not_use_their_margins(
    layout: tuple[int, int, int, int],
) -> None:
    length, tile, margin, multiple = layout
    laid = spans(length, tile, margin, multiple)
    starts = [span.start for span in laid]
    assert starts[0] == 0
    assert starts[-1] == length - tile
    assert starts == sorted(set(starts))
    assert all(start % multiple == 0 for start in starts)
    for before, after in itertools.pairwise(laid):
        assert float(before.weights[tile - margin :].sum()) == 0.0
        assert float(after.weights[:margin].sum()) == 0.0
        # Blended over a ramp, never cut.
        assert float(before.weights.diff().abs().max()) <= 3 / max(3, margin // 2)


@settings(deadline=None)
@given(layouts())
def test_an_even_tile_is_no_larger_and_needs_no_more_tiles(layout: tuple[int, int, int, int]) -> None:
    length, tile, margin, multiple = layout
    even = even_tile(length, tile, margin, multiple)
    assert even <= tile
    assert even % multiple == 0
    assert len(spans(length, even, margin, multiple)) == len(spans(length, tile, margin, multiple))


def test_an_axis_a_little_too_long_is_halved() -> None:
    assert even_tile(1100, 1024, 32) == (1100 + 2 * 32 + 16) // 2


@settings(deadline=None)
@given(overlap=st.integers(0, 400), multiple=st.sampled_from([1, 2, 8, 16, 64]), tiles=st.integers(2, 5))
def test_tiles_share_as_many_pixels_as_asked_for(overlap: int, multiple: int, tiles: int) -> None:
    margin = margin_of(overlap, multiple)
    assert margin >= 0
    if margin == 0:
        return
    tile = smallest_tile(margin, multiple) + 10 * multiple
    # As many whole steps as there are between these tiles, so that none has to overlap by more.
    step = (tile - 2 * margin - max(2, margin // 2)) // multiple * multiple
    starts = [span.start for span in spans(tile + (tiles - 1) * step, tile, margin, multiple)]
    shared = {before + tile - after for before, after in itertools.pairwise(starts)}
    assert max(shared) <= overlap
    assert margin_of(overlap + 3 * multiple + 6, multiple) > margin


def test_one_tile_has_no_margins() -> None:
    (span,) = spans(50, 50, 20)
    assert span.start == 0
    assert bool((span.weights == 1.0).all())


def test_a_tile_without_room_for_its_margins_is_refused() -> None:
    assert smallest_tile(32) == 81
    with pytest.raises(NodeInputError, match=r"80 px has no room for margins of 32 px(.|\n)*at least 81 px"):
        spans(200, 80, 32)
    assert len(spans(200, 81, 32)) > 1
    with pytest.raises(NodeInputError, match="at least 96 px"):
        run_tiled(lambda part: part, torch.zeros(1, 3, 200, 200), tile=64, margin=32, multiple=16)


@settings(deadline=None)
@given(
    batch=st.integers(1, 3),
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    tile=st.integers(1, 80),
    margin=st.integers(0, 6),
    multiple=st.sampled_from([1, 2, 4, 8]),
    minimum=st.sampled_from([1, 2, 24]),
    scale=st.sampled_from([1, 2, 4]),
)
def test_the_identity_gives_the_photo_back(
    batch: int, height: int, width: int, tile: int, margin: int, multiple: int, minimum: int, scale: int
) -> None:
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(height * 71 + width))
    sizes = set()

    def enlarge(part: torch.Tensor) -> torch.Tensor:
        assert part.shape[-2] % multiple == part.shape[-1] % multiple == 0
        assert min(part.shape[-2:]) >= minimum
        sizes.add(part.shape)
        return part.repeat_interleave(scale, -1).repeat_interleave(scale, -2)

    tile = max(tile, smallest_tile(margin, multiple))
    out = run_tiled(enlarge, image, tile=tile, margin=margin, scale=scale, multiple=multiple, minimum=minimum)
    expected = image.repeat_interleave(scale, -1).repeat_interleave(scale, -2)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-6)
    assert len(sizes) == 1, "tiles of one shape keep one plan of the convolution library"


def convolutions(count: int, kernel: int, scale: int = 1) -> nn.Module:
    torch.manual_seed(5)
    layers: list[nn.Module] = []
    for i in range(count):
        layers += [nn.Conv2d(3 if i == 0 else 6, 6, kernel, padding=kernel // 2), nn.Tanh()]
    layers += [nn.Conv2d(6, 3 * scale * scale, 1), nn.PixelShuffle(scale)]
    return nn.Sequential(*layers).eval().requires_grad_(requires_grad=False)


@pytest.mark.parametrize("scale", [1, 2, 4])
@pytest.mark.parametrize("shape", [(1, 100, 37), (2, 61, 90)])
def test_with_the_receptive_field_as_margin_tiles_do_not_show(scale: int, shape: tuple[int, int, int]) -> None:
    net = convolutions(3, 5, scale)
    batch, height, width = shape
    image = torch.rand(batch, 3, height, width, generator=torch.Generator().manual_seed(1))
    tiled = run_tiled(net, image, tile=32, margin=6, scale=scale)
    torch.testing.assert_close(tiled, net(image), rtol=0, atol=1e-5)


def test_with_less_margin_they_would() -> None:
    """The tests above can fail: a receptive field of six pixels is not one of two."""
    net = convolutions(3, 5)
    image = torch.rand(1, 3, 100, 37, generator=torch.Generator().manual_seed(1))
    assert (run_tiled(net, image, tile=32, margin=2) - net(image)).abs().max() > 1e-3


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1), (3, 200)])
def test_tiny_photos_are_padded_to_what_the_network_takes(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size)

    def net(part: torch.Tensor) -> torch.Tensor:
        assert part.shape[-2] >= 16
        assert part.shape[-1] >= 16
        return part

    torch.testing.assert_close(run_tiled(net, image, tile=64, margin=4, multiple=8, minimum=16), image)


@pytest.mark.parametrize(("side", "target"), [(1, 9), (2, 9), (5, 9), (5, 10), (5, 64), (7, 7)])
def test_padding_reflects_then_replicates(side: int, target: int) -> None:
    """Reflection alone fails when the pad is as long as the side."""
    image = torch.arange(side, dtype=torch.float32).view(1, 1, side, 1).expand(1, 1, side, 3)
    out = pad_to(image, target, 3)
    column = out[0, 0, :, 0].tolist()
    mirrored = [*range(side), *range(side - 2, -1, -1)][:target]
    assert column == [*map(float, mirrored), *[float(mirrored[-1])] * (target - len(mirrored))]
    torch.testing.assert_close(pad_to(image.transpose(2, 3), 3, target), out.transpose(2, 3))


def test_progress_starts_at_nothing_and_ends_with_all() -> None:
    calls: list[tuple[int, int]] = []
    image = torch.zeros(2, 3, 40, 20)
    run_tiled(lambda part: part, image, tile=20, margin=2, progress=lambda done, total: calls.append((done, total)))
    assert calls == [(i, 6) for i in range(7)]


def test_what_progress_raises_ends_the_work() -> None:
    seen = []

    def stop(done: int, total: int) -> None:
        if done == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run_tiled(lambda p: seen.append(1) or p, torch.zeros(1, 3, 90, 20), tile=20, margin=2, progress=stop)
    assert len(seen) == 2


@pytest.mark.parametrize("per_call", [1, 2, 4, 99])
def test_several_tiles_at_once_give_what_one_at_a_time_gives(per_call: int) -> None:
    net = convolutions(2, 3, 2)
    image = torch.rand(2, 3, 70, 40, generator=torch.Generator().manual_seed(3))
    sizes: list[int] = []
    done: list[int] = []

    def several(parts: torch.Tensor) -> torch.Tensor:
        sizes.append(len(parts))
        out: torch.Tensor = net(parts)
        return out

    out = run_tiled(
        several, image, tile=32, margin=2, scale=2, per_call=per_call, progress=lambda now, _total: done.append(now)
    )
    torch.testing.assert_close(out, run_tiled(net, image, tile=32, margin=2, scale=2), rtol=0, atol=1e-6)
    assert max(sizes) == min(per_call, sum(sizes))
    assert done == [0, *itertools.accumulate(sizes)]


def test_the_result_is_an_image_without_a_copy() -> None:
    """Laid out channels last, and of the photo's own size though the photo was padded."""
    out = run_tiled(lambda part: part, torch.rand(1, 3, 61, 45), tile=32, margin=2, multiple=8)
    assert out.shape == (1, 3, 61, 45)
    assert out.permute(0, 2, 3, 1).is_contiguous()


def test_a_result_of_another_size_is_refused() -> None:
    with pytest.raises(NodeInputError, match=r"returned \(8, 8\) pixels where \(32, 32\)"):
        run_tiled(lambda part: part, torch.zeros(1, 3, 8, 8), tile=8, margin=0, scale=4)


def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(NodeInputError, match="no image"):
        run_tiled(lambda part: part, torch.zeros(0, 3, 8, 8), tile=8, margin=0)


def test_half_precision_results_are_collected_in_float32() -> None:
    out = run_tiled(lambda part: part.half(), torch.rand(1, 3, 60, 20), tile=20, margin=2)
    assert out.dtype == torch.float32


# -- seams with real networks ------------------------------------------------------------------------------------------


def seam_energy(tiled: torch.Tensor, whole: torch.Tensor) -> torch.Tensor:
    """Per pixel column: gradient across it that tiling has added, in 8-bit steps."""
    return (tiled.diff(dim=3) - whole.diff(dim=3)).abs().mean(dim=(0, 1, 2)) * 255


def upscale_both_ways(
    spec: ModelSpec, image: torch.Tensor, tile: int, margin: int, network: Callable[[torch.Tensor], torch.Tensor]
) -> tuple[torch.Tensor, torch.Tensor]:
    with torch.inference_mode():
        return (
            run_tiled(network, image, tile=tile, margin=margin, scale=spec.scale).clamp(0, 1),
            network(image).clamp(0, 1),
        )


def test_no_seam_shows_in_a_photo(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    spec = catalogue()["realesr-animevideov3"]
    module = weights.load_module(spec)
    image = photo(40, 160)
    tiled, whole = upscale_both_ways(spec, image, 96, spec.receptive_field, module)
    assert (tiled - whole).abs().max() < 1e-4
    # The same measure sees the seams of tiles that are merely laid side by side.
    cut = torch.cat([module(part).clamp(0, 1) for part in image.split(80, dim=3)], dim=3)
    energy = seam_energy(cut, whole)
    assert energy.argmax() == 80 * spec.scale - 1
    assert energy.max() > 1000 * seam_energy(tiled, whole).max()


@pytest.mark.skipif(
    weights.status(catalogue()["realesrgan-x4plus"]).state != "installed", reason="needs the starter extra"
)
def test_no_seam_shows_with_a_margin_below_the_whole_receptive_field(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """x4plus can see 348 px; its margin is what it uses of them."""
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    spec = catalogue()["realesrgan-x4plus"]
    width, tile = 150, 128
    tiled, whole = upscale_both_ways(spec, photo(16, width), tile, spec.receptive_field, weights.load_module(spec))
    difference = (tiled - whole).abs() * 255
    assert difference.max() < 1
    assert difference.mean() < 0.02
    energy = seam_energy(tiled, whole)
    blended = slice((width - tile + spec.receptive_field) * spec.scale, (tile - spec.receptive_field) * spec.scale)
    detail = whole.diff(dim=3).abs().mean(dim=(0, 1, 2)) * 255
    assert energy[blended].max() < 0.05 * detail[blended].mean()
