"""A photo's way through a model in tiles: sides, overlaps, how many at once, factors, and black-and-white networks."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional

from photokeep_nodes import images, inference, tiled_inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.models import catalogue
from photokeep_nodes.ops import colour, tiling

COMPACT = catalogue()["realesr-animevideov3"]
FFDNET = catalogue()["ffdnet-color"]


pytestmark = pytest.mark.usefixtures("on_the_cpu")


def photo(height: int, width: int, top: int = 60, left: int = 180) -> torch.Tensor:
    part = data.astronaut()[top : top + height, left : left + width]
    return torch.from_numpy(part / np.float32(255)).permute(2, 0, 1)[None]


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[torch.Size]:
    """Shapes of what networks were called with."""
    shapes: list[torch.Size] = []
    call = inference.Network.__call__

    def noting(self: inference.Network, image: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        shapes.append(image.shape)
        return call(self, image, *arguments)

    monkeypatch.setattr(inference.Network, "__call__", noting)
    return shapes


def test_a_model_that_is_best_in_small_tiles_gets_no_larger_ones(calls: list[torch.Size]) -> None:
    spec = replace(COMPACT, best_tile=96)
    image = photo(30, 200)
    tiled_inference.apply_tiled(spec, image)
    assert max(shape[3] for shape in calls) <= 96
    calls.clear()
    tiled_inference.apply_tiled(spec, image, tile=160)
    assert max(shape[3] for shape in calls) > 96, "a side the user chose is the user's"


def test_the_overlap_can_be_chosen(calls: list[torch.Size]) -> None:
    image = photo(30, 300)
    wide = tiled_inference.apply_tiled(COMPACT, image, tile=100, overlap=60)
    many = len(calls)
    calls.clear()
    narrow = tiled_inference.apply_tiled(COMPACT, image, tile=100, overlap=10)
    assert len(calls) < many
    whole = tiled_inference.apply_tiled(COMPACT, image, tile=300)
    assert (narrow - whole).abs().max() > 10 * (wide - whole).abs().max()


@pytest.mark.parametrize("factor", [1, 2, 3])
def test_a_smaller_factor_is_what_resampling_the_whole_result_gives(factor: int) -> None:
    image = photo(50, 150)
    whole = tiled_inference.apply_tiled(COMPACT, image, tile=150)
    size = [side * factor for side in image.shape[-2:]]
    expected = functional.interpolate(whole, size=size, mode="bicubic", antialias=True, align_corners=False)
    out = tiled_inference.apply_tiled(COMPACT, image, tile=96, scale=factor)
    torch.testing.assert_close(out, expected, rtol=0, atol=1e-4)


def test_a_smaller_factor_never_holds_the_whole_result(monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[int] = []
    zeros = torch.zeros
    monkeypatch.setattr(
        torch, "zeros", lambda *shape, **kw: sizes.append(int(np.prod(shape[0]))) or zeros(*shape, **kw)
    )
    tiled_inference.apply_tiled(COMPACT, photo(64, 200), tile=96, scale=1)
    assert max(sizes) <= 3 * 64 * 200


def test_a_network_for_gray_photos_leaves_a_colour_photos_colours(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is given the luminance; what it changes there is changed in all three channels alike."""
    seen: list[torch.Size] = []

    def brighten(network: Any, image: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        seen.append(image.shape)
        return image + 0.1

    monkeypatch.setattr(inference.Network, "__call__", brighten)
    spec = replace(FFDNET, channels=1, condition=None)
    image = photo(40, 50)
    out = tiled_inference.apply_tiled(spec, image)
    assert {shape[1] for shape in seen} == {1}
    torch.testing.assert_close(out, image + 0.1, rtol=0, atol=1e-5)


def test_a_gray_network_that_enlarges_enlarges_the_colours_too(monkeypatch: pytest.MonkeyPatch) -> None:
    def double(network: Any, image: torch.Tensor, *_: torch.Tensor) -> torch.Tensor:
        return functional.interpolate(image, scale_factor=2, mode="bicubic")

    monkeypatch.setattr(inference.Network, "__call__", double)
    image = photo(20, 30)
    out = tiled_inference.apply_tiled(replace(FFDNET, channels=1, scale=2), image)
    torch.testing.assert_close(out, functional.interpolate(image, scale_factor=2, mode="bicubic"), rtol=0, atol=1e-5)


def test_values_outside_the_networks_range_do_not_reach_it(monkeypatch: pytest.MonkeyPatch) -> None:
    ranges: list[tuple[float, float]] = []
    monkeypatch.setattr(
        inference.Network,
        "__call__",
        lambda self, image, *_: ranges.append((float(image.min()), float(image.max()))) or image,
    )
    spec = replace(FFDNET, condition=None)
    tiled_inference.apply_tiled(spec, torch.tensor([-1.0, 0.5, 2.0]).view(1, 1, 1, 3).expand(1, 3, 8, 3))
    assert ranges == [(0.0, 1.0)]


# -- several tiles at once ---------------------------------------------------------------------------------------------


@pytest.fixture
def on_a_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    """What decides on the number of tiles takes the CPU for an accelerator."""
    job = tiled_inference._Job
    tiles_per_call = job._tiles_per_call

    class Elsewhere:
        type = "cuda"

    def elsewhere(self: Any, network: inference.Network, tile: int) -> int:
        return tiles_per_call(self, replace(network, device=Elsewhere()), tile)  # type: ignore[arg-type]

    monkeypatch.setattr(job, "_tiles_per_call", elsewhere)
    monkeypatch.setattr(inference, "free_bytes", lambda spec, device: 10**9)
    monkeypatch.setattr(
        inference, "working_bytes", lambda spec, height, width, **_: spec.bytes_per_pixel * height * width
    )


@pytest.mark.usefixtures("on_a_gpu")
def test_small_tiles_go_to_an_accelerator_together(calls: list[torch.Size]) -> None:
    batch = torch.cat([photo(64, 64, top=60 + i) for i in range(5)])
    together = tiled_inference.apply_tiled(COMPACT, batch)
    assert [shape[0] for shape in calls] == [5]
    one_by_one = torch.cat([tiled_inference.apply_tiled(COMPACT, one) for one in batch.split(1)])
    torch.testing.assert_close(together, one_by_one, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("on_a_gpu")
def test_an_argument_is_given_for_each_of_the_tiles(calls: list[torch.Size]) -> None:
    batch = torch.cat([photo(64, 64, top=60 + i) for i in range(3)])
    sigma = torch.tensor([0.1])
    together = tiled_inference.apply_tiled(FFDNET, batch, arguments=(sigma,))
    assert [shape[0] for shape in calls] == [3]
    alone = tiled_inference.apply_tiled(FFDNET, batch[:1], arguments=(sigma,))
    torch.testing.assert_close(together[:1], alone, rtol=0, atol=1e-5)


@pytest.mark.usefixtures("on_a_gpu")
def test_no_more_go_together_than_the_memory_holds(calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch) -> None:
    batch = torch.cat([photo(64, 64, top=60 + i) for i in range(5)])
    monkeypatch.setattr(inference, "free_bytes", lambda spec, device: 2 * 64 * 64 * spec.bytes_per_pixel)
    tiled_inference.apply_tiled(COMPACT, batch)
    assert [shape[0] for shape in calls] == [2, 2, 1]


@pytest.mark.usefixtures("on_a_gpu")
def test_after_running_out_of_memory_tiles_go_one_by_one(
    calls: list[torch.Size], monkeypatch: pytest.MonkeyPatch
) -> None:
    call = inference.Network.__call__

    def short_of_memory(self: inference.Network, image: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        if image.numel() > 3 * 100 * 100:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return call(self, image, *arguments)

    monkeypatch.setattr(inference.Network, "__call__", short_of_memory)
    out = tiled_inference.apply_tiled(COMPACT, photo(150, 150), tile=150)
    assert out.shape == (1, 3, 600, 600)
    assert {shape[0] for shape in calls} == {1}


def test_a_cpu_gets_one_tile_at_a_time(calls: list[torch.Size]) -> None:
    tiled_inference.apply_tiled(COMPACT, torch.cat([photo(64, 64), photo(64, 64, top=90)]))
    assert [shape[0] for shape in calls] == [1, 1]


# -- what comes out ----------------------------------------------------------------------------------------------------


def test_an_image_node_gets_the_result_without_a_copy() -> None:
    out = tiled_inference.apply_tiled(COMPACT, photo(30, 150), tile=96).clamp_(0.0, 1.0)
    assert images.to_bhwc(out).data_ptr() == out.data_ptr()


def test_a_tile_that_is_all_margin_is_enlarged_to_hold_the_overlap() -> None:
    assert tiled_inference.smallest_tile(COMPACT, 100) >= tiling.smallest_tile(100)
    with pytest.raises(NodeInputError, match="no image"):
        tiled_inference.apply_tiled(COMPACT, torch.zeros(0, 3, 8, 8))


# -- black-and-white photos with some colour ---------------------------------------------------------------------------


def test_a_hand_coloured_portrait_keeps_its_cheeks_through_denoising() -> None:
    image = images.luminance(photo(256, 256, top=0, left=96)).expand(-1, 3, -1, -1).clone()
    cheek = (slice(None), slice(None), slice(120, 140), slice(120, 140))
    image[cheek] *= torch.tensor([1.1, 0.8, 0.8]).view(1, 3, 1, 1)
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(3)) * 10 / 255
    assert colour.tones(image) == ["gray"]
    out = tiled_inference.apply_tiled(FFDNET, (image + noise).clamp(0, 1), arguments=(torch.tensor([10 / 255]),))
    middle = (slice(None), slice(None), slice(125, 135), slice(125, 135))
    torch.testing.assert_close(out[middle].mean((2, 3)), image[middle].mean((2, 3)), rtol=0, atol=4 / 255)
    beside = out[:, :, 200:250, 200:250]
    assert (beside.amax(1) - beside.amin(1)).max() < 4 / 255
