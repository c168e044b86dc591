"""Combine Masks."""

from __future__ import annotations

import inspect

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.mask_combine import MaskCombine


def band(first: int, last: int, height: int = 30, width: int = 40) -> torch.Tensor:
    mask = torch.zeros(1, height, width)
    mask[..., first:last] = 1
    return mask


def test_its_inputs_are_its_arguments() -> None:
    declared = MaskCombine.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(MaskCombine.run).parameters)[1:]


@pytest.mark.parametrize(("how", "columns"), [("union", 20), ("intersection", 5), ("difference", 7), ("exclusive", 15)])
def test_the_ways(how: str, columns: int) -> None:
    (mask,) = MaskCombine().run(band(8, 20), band(15, 28), how)  # type: ignore[arg-type]
    assert mask.shape == (1, 30, 40)
    assert mask.sum() == 30 * columns


def test_one_for_a_batch() -> None:
    (mask,) = MaskCombine().run(band(0, 10), torch.cat([band(5, 15), band(20, 30)]), "union")
    assert mask.shape == (2, 30, 40)
    assert mask.sum(dim=(1, 2)).tolist() == [30 * 15, 30 * 20]


def test_other_sizes_are_refused_unless_resized() -> None:
    with pytest.raises(NodeInputError, match="40 x 30 px and 80 x 60 px"):
        MaskCombine().run(band(0, 10), band(20, 40, 60, 80), "union")
    (mask,) = MaskCombine().run(band(0, 10), band(20, 40, 60, 80), "union", resize=True)
    assert mask.shape == (1, 30, 40)
    assert mask[0, 15, 15] == 1


def test_the_hosts_empty_mask_fits_any_other() -> None:
    empty = torch.zeros(1, 64, 64)
    assert torch.equal(MaskCombine().run(band(8, 20), empty, "union")[0], band(8, 20))
    assert torch.equal(MaskCombine().run(empty, band(8, 20), "union")[0], band(8, 20))
    assert MaskCombine().run(empty, band(8, 20), "difference")[0].sum() == 0


def test_other_numbers_are_refused() -> None:
    with pytest.raises(NodeInputError, match="2 masks cannot be combined with 3"):
        MaskCombine().run(band(0, 5).repeat(2, 1, 1), band(0, 5).repeat(3, 1, 1), "union")
