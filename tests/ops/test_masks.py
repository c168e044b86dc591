"""Masks: round brushes, soft edges, and what the host makes of a photo without a mask."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import masks


def dot(height: int = 41, width: int = 61, at: tuple[int, int] = (20, 30)) -> torch.Tensor:
    mask = torch.zeros(1, 1, height, width)
    mask[..., at[0], at[1]] = 1
    return mask


def distance(mask: torch.Tensor, at: tuple[int, int]) -> torch.Tensor:
    y, x = torch.meshgrid(torch.arange(mask.shape[-2]), torch.arange(mask.shape[-1]), indexing="ij")
    return ((y - at[0]) ** 2 + (x - at[1]) ** 2).float().sqrt()[None, None]


@pytest.mark.parametrize("pixels", [1, 2.5, 7, 15])
def test_growing_is_round_and_exact(pixels: float) -> None:
    grown = masks.grow(dot(), pixels)
    assert torch.equal(grown, (distance(grown, (20, 30)) <= pixels).float())


def test_shrinking_undoes_growing_a_disc() -> None:
    disc = masks.grow(dot(), 9)
    shrunk = masks.grow(disc, -4)
    assert shrunk[..., 20, 30] == 1
    assert shrunk[..., 20, 34] == 1
    assert shrunk[..., 20, 36] == 0
    assert torch.equal(masks.grow(disc, 0), disc)


def test_a_mask_at_the_border_does_not_shrink_from_there_and_grows_no_ghosts() -> None:
    mask = torch.zeros(1, 1, 20, 20)
    mask[..., :, :6] = 1
    shrunk = masks.grow(mask, -2)
    assert torch.equal(shrunk[0, 0, :, 0], torch.ones(20))
    assert shrunk.sum() == 20 * 4
    assert torch.equal(masks.grow(torch.ones(1, 1, 9, 9), -3), torch.ones(1, 1, 9, 9))
    assert masks.grow(torch.zeros(1, 1, 9, 9), 5).sum() == 0


def test_soft_masks_are_grown_value_by_value() -> None:
    soft = dot() * 0.4
    soft[..., 20, 30 + 20] = 0.9
    grown = masks.grow(soft, 12)
    assert grown[..., 20, 22] == pytest.approx(0.4)
    assert grown[..., 20, 40] == pytest.approx(0.9)  # the brighter one wins
    assert grown[..., 2, 10] == 0
    assert grown.unique().tolist() == pytest.approx([0.0, 0.4, 0.9])
    covers = distance(grown, (20, 30)) <= 11
    assert (grown[covers] >= 0.39).all()


def test_a_batch_is_taken_one_by_one() -> None:
    both = torch.cat([dot(), dot(at=(5, 5)) * 0.5])
    grown = masks.grow(both, 3)
    assert torch.equal(grown[:1], masks.grow(both[:1], 3))
    assert torch.equal(grown[1:], masks.grow(both[1:], 3))
    feathered = masks.feather(both, 6, "outside")
    assert torch.equal(feathered[:1], masks.feather(both[:1], 6, "outside"))


def half() -> torch.Tensor:
    mask = torch.zeros(1, 1, 8, 40)
    mask[..., 20:] = 1
    return mask


def test_a_soft_edge_lies_where_it_is_asked_for() -> None:
    outside = masks.feather(half(), 8, "outside")[0, 0, 4]
    assert torch.equal(outside[20:], torch.ones(20))
    assert 0 < outside[13] < outside[16] < outside[19] < 1
    assert outside[:12].sum() == 0
    inside = masks.feather(half(), 8, "inside")[0, 0, 4]
    assert inside[:20].sum() == 0
    assert 0 < inside[20] < inside[23] < inside[26] < 1
    assert torch.equal(inside[28:], torch.ones(12))
    both = masks.feather(half(), 8, "both")[0, 0, 4]
    torch.testing.assert_close(both[19] + both[20], torch.tensor(1.0))  # it passes a half at the edge
    assert both[:16].sum() == 0
    assert torch.equal(both[24:], torch.ones(16))
    assert (both.diff() >= 0).all()


@pytest.mark.parametrize("where", ["inside", "outside", "both"])
def test_all_and_nothing_have_no_edge_to_soften(where: masks.Where) -> None:
    full, empty = torch.ones(1, 1, 7, 9), torch.zeros(1, 1, 7, 9)
    assert torch.equal(masks.feather(full, 5, where), full)
    assert torch.equal(masks.feather(empty, 5, where), empty)
    assert masks.feather(half(), 0, where) is not None
    assert torch.equal(masks.feather(half(), 0, where), half())


def test_combining() -> None:
    first, second = torch.tensor([0.0, 0.0, 1.0, 1.0, 0.3]), torch.tensor([0.0, 1.0, 0.0, 1.0, 0.8])
    shaped = (first.view(1, 1, 1, 5), second.view(1, 1, 1, 5))
    expected = {
        "union": [0, 1, 1, 1, 0.8],
        "intersection": [0, 0, 0, 1, 0.3],
        "difference": [0, 0, 1, 0, 0.2],
        "exclusive": [0, 1, 1, 0, 0.5],
    }
    for how, values in expected.items():
        assert masks.combine(*shaped, how).flatten().tolist() == pytest.approx(values)  # type: ignore[arg-type]
    one_for_all = masks.combine(shaped[0], torch.cat([shaped[1]] * 3), "union")
    assert one_for_all.shape == (3, 1, 1, 5)


def test_what_cannot_be_combined_is_refused() -> None:
    with pytest.raises(NodeInputError, match="4 x 3 px and 4 x 5 px"):
        masks.combine(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 5, 4), "union")
    with pytest.raises(NodeInputError, match="2 masks cannot be combined with 3"):
        masks.combine(torch.zeros(2, 1, 3, 4), torch.zeros(3, 1, 3, 4), "union")
    with pytest.raises(NodeInputError, match="'sum'"):
        masks.combine(torch.zeros(1, 1, 3, 4), torch.zeros(1, 1, 3, 4), "sum")  # type: ignore[arg-type]


def test_the_hosts_shapes_come_in_and_go_out() -> None:
    mask = torch.rand(2, 5, 7)
    assert torch.equal(masks.to_host(masks.from_host(mask)), mask)
    assert masks.from_host(mask[0]).shape == (1, 1, 5, 7)
    assert masks.from_host(mask[:, None]).shape == (2, 1, 5, 7)
    assert masks.from_host(mask > 0.5).unique().tolist() == [0.0, 1.0]
    assert masks.from_host(mask.half()).dtype == torch.float32
    assert masks.from_host(mask * 3 - 1).max() == 1
    assert masks.from_host(mask * 3 - 1).min() == 0


@pytest.mark.parametrize(
    ("broken", "why"),
    [
        (torch.zeros(2, 3, 4, 5), "must be"),
        (torch.zeros(0, 4, 5), "must be"),
        (torch.zeros(4), "must be"),
        (torch.zeros(1, 4, 5, dtype=torch.int64), "not int64"),
        (torch.full((1, 4, 5), float("nan")), "not numbers"),
        (None, "no mask"),
    ],
)
def test_what_is_no_mask_is_refused(broken: Any, why: str) -> None:
    with pytest.raises(NodeInputError, match=why):
        masks.from_host(broken)


def test_the_hosts_empty_mask_fits_every_photo() -> None:
    """LoadImage gives 64 x 64 zeros for a photo without alpha."""
    fitted = masks.fit(torch.zeros(1, 1, 64, 64), 3, 50, 70)
    assert fitted.shape == (3, 1, 50, 70)
    assert fitted.sum() == 0
    with pytest.raises(NodeInputError, match="64 x 64 px, the image 70 x 50 px"):
        masks.fit(torch.ones(1, 1, 64, 64), 3, 50, 70)


def test_other_sizes_are_refused_or_resized() -> None:
    mask = torch.zeros(1, 1, 10, 20)
    mask[..., 10:] = 1
    with pytest.raises(NodeInputError, match="20 x 10 px, the image 40 x 20 px"):
        masks.fit(mask, 1, 20, 40)
    fitted = masks.fit(mask, 2, 20, 40, resize=True)
    assert fitted.shape == (2, 1, 20, 40)
    assert fitted[..., :18].max() == 0
    assert fitted[..., 22:].min() == 1
    with pytest.raises(NodeInputError, match="2 masks came in for 3 images"):
        masks.fit(mask.expand(2, -1, -1, -1), 3, 10, 20)


def test_tiny_masks() -> None:
    one = torch.ones(1, 1, 1, 1)
    assert torch.equal(masks.grow(one, 5), one)
    assert torch.equal(masks.grow(one, -5), one)
    strip = torch.zeros(1, 1, 3, 500)
    strip[..., 250] = 1
    assert masks.grow(strip, 10).sum() == 3 * 21


def test_the_red_of_the_preview_leaves_the_rest() -> None:
    image = torch.rand(1, 3, 6, 8)
    mask = torch.zeros(1, 1, 6, 8)
    mask[..., 2, 3] = 1
    marked = masks.overlay(image, mask)
    assert marked[0, 0, 2, 3] > marked[0, 1, 2, 3] + 0.3
    off = (mask == 0).expand_as(image)
    assert torch.equal(marked[off], image[off])
