"""Grow Mask."""

from __future__ import annotations

import inspect

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.mask_grow import MaskGrow


def square(value: float = 1.0) -> torch.Tensor:
    mask = torch.zeros(1, 40, 60)
    mask[:, 15:25, 20:40] = value
    return mask


def test_its_inputs_are_its_arguments() -> None:
    declared = MaskGrow.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(MaskGrow.run).parameters)[1:]


def test_it_grows_and_shrinks() -> None:
    (larger,) = MaskGrow().run(square(), 3.0)
    assert larger.shape == (1, 40, 60)
    assert larger[0, 12, 30] == 1
    assert larger[0, 11, 30] == 0
    assert larger[0, 12, 17] == 0  # round corners
    (smaller,) = MaskGrow().run(square(), -3.0)
    assert smaller.sum() == 4 * 14
    (same,) = MaskGrow().run(square(), 0.0)
    assert torch.equal(same, square())


def test_with_an_image_it_takes_its_size() -> None:
    image = torch.zeros(2, 80, 120, 3)
    (mask,) = MaskGrow().run(square(), 0.0, image)
    assert mask.shape == (2, 80, 120)
    assert mask[1, 40, 60] == 1
    assert mask[1, 10, 10] == 0
    (empty,) = MaskGrow().run(torch.zeros(1, 64, 64), 5.0, image)
    assert empty.shape == (2, 80, 120)
    assert empty.sum() == 0


def test_masks_without_a_batch_and_what_is_no_mask() -> None:
    (mask,) = MaskGrow().run(square()[0], 1.0)
    assert mask.shape == (1, 40, 60)
    with pytest.raises(NodeInputError, match="must be"):
        MaskGrow().run(torch.zeros(1, 4, 4, 3), 1.0)
    with pytest.raises(NodeInputError, match="3 masks came in for 2 images"):
        MaskGrow().run(square().repeat(3, 1, 1), 1.0, torch.zeros(2, 40, 60, 3))
