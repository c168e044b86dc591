"""Layouts and ranges of images."""

from __future__ import annotations

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.images import luminance, to_bchw, to_bhwc


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
def test_any_image_becomes_what_networks_take(channels: int, dtype: torch.dtype) -> None:
    image = torch.rand(2, 5, 7, channels).to(dtype)
    out = to_bchw(image)
    assert out.shape == (2, 3, 5, 7)
    assert out.dtype == torch.float32
    for channel in range(3):
        expected = image[..., 0 if channels == 1 else channel].float()
        torch.testing.assert_close(out[:, channel], expected, rtol=0, atol=0)


def test_the_round_trip_is_exact() -> None:
    image = torch.rand(2, 5, 7, 3)
    back = to_bhwc(to_bchw(image))
    assert torch.equal(back, image)
    assert back.is_contiguous()


def test_values_are_kept_between_zero_and_one_and_the_input_is_untouched() -> None:
    image = torch.tensor([-0.5, 0.25, 1.5]).expand(1, 2, 2, 3).contiguous()
    before = image.clone()
    out = to_bchw(image)
    assert out[0, :, 0, 0].tolist() == [0.0, 0.25, 1.0]
    out.fill_(0.5)
    assert torch.equal(image, before)
    assert to_bhwc(to_bchw(before) * 3)[0, 0, 0].tolist() == [0.0, 0.75, 1.0]


def test_gradients_do_not_follow() -> None:
    image = torch.rand(1, 2, 2, 3, requires_grad=True)
    assert not to_bchw(image).requires_grad
    assert not to_bhwc(torch.rand(1, 3, 2, 2, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    ("shape", "said"),
    [
        ((4, 4, 3), r"not \(4, 4, 3\)"),
        ((1, 4, 4, 2), r"not \(1, 4, 4, 2\)"),
        ((1, 4, 4, 5), r"1, 3 or 4 channels"),
        ((0, 4, 4, 3), "empty"),
        ((1, 0, 4, 3), "empty"),
        ((1, 4, 0, 3), "empty"),
    ],
)
def test_other_shapes_are_refused(shape: tuple[int, ...], said: str) -> None:
    with pytest.raises(NodeInputError, match=said):
        to_bchw(torch.zeros(shape))


@pytest.mark.parametrize("dtype", [torch.uint8, torch.int64, torch.bool])
def test_integers_are_refused_rather_than_turned_white(dtype: torch.dtype) -> None:
    with pytest.raises(NodeInputError, match=str(dtype).removeprefix("torch.")):
        to_bchw(torch.ones(1, 4, 4, 3, dtype=dtype))


def test_luma_weighs_green_most() -> None:
    primaries = torch.eye(3).view(3, 3, 1, 1)
    assert luminance(primaries).flatten().tolist() == pytest.approx([0.299, 0.587, 0.114])
    assert luminance(torch.ones(1, 3, 2, 2)).shape == (1, 1, 2, 2)
    assert luminance(torch.ones(1, 3, 1, 1)).item() == pytest.approx(1.0)


def test_values_that_are_not_numbers_are_refused() -> None:
    image = torch.rand(1, 4, 5, 3)
    image[0, 2, 2, 1] = float("nan")
    with pytest.raises(NodeInputError, match="not numbers"):
        to_bchw(image)
    image[0, 2, 2, 1] = float("inf")
    assert to_bchw(image).max() == 1.0
