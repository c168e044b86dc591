"""Feather Mask."""

from __future__ import annotations

import inspect

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.mask_feather import MaskFeather


def square() -> torch.Tensor:
    mask = torch.zeros(1, 40, 60)
    mask[:, 10:30, 20:40] = 1
    return mask


def test_its_inputs_are_its_arguments() -> None:
    declared = MaskFeather.INPUT_TYPES()
    assert list(declared["required"]) == list(inspect.signature(MaskFeather.run).parameters)[1:]
    assert declared["required"]["where"][0] == ["both", "inside", "outside"]


def test_where_the_soft_edge_lies() -> None:
    (outside,) = MaskFeather().run(square(), 6.0, "outside")
    (inside,) = MaskFeather().run(square(), 6.0, "inside")
    (both,) = MaskFeather().run(square(), 6.0, "both")
    assert outside.shape == (1, 40, 60)
    assert torch.equal(outside[square() == 1], torch.ones(400))
    assert 0 < outside[0, 7, 30] < 1
    assert inside[square() == 0].sum() == 0
    assert 0 < inside[0, 12, 30] < 1
    assert (inside <= both).all()
    assert (both <= outside).all()
    for mask in (outside, inside, both):
        assert float(mask.min()) >= 0
        assert float(mask.max()) <= 1


def test_no_width_is_no_change_and_no_mask_is_refused() -> None:
    assert torch.equal(MaskFeather().run(square(), 0.0, "both")[0], square())
    with pytest.raises(NodeInputError, match="not numbers"):
        MaskFeather().run(torch.full((1, 4, 4), float("nan")), 3.0, "both")
