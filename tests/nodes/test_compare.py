from __future__ import annotations

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.compare import Compare


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_layout():
    before, after = random(1, 10, 12, 3), random(1, 40, 48, 3)
    both, differing = Compare().run(before, after, 2.0)
    assert both.shape == (1, 40, 98, 3)
    assert differing.shape == (1, 40, 48, 3)
    assert both.dtype == differing.dtype == torch.float32
    assert torch.equal(both[:, :, 50:], after)


def test_equal_pictures_differ_nowhere():
    photo = random(2, 9, 9, 3)
    both, differing = Compare().run(photo, photo, 100.0)
    assert not differing.any()
    assert torch.equal(both[:, :, :9], both[:, :, 11:])


def test_gray_and_alpha_are_shown_as_rgb():
    both, differing = Compare().run(random(1, 6, 6, 1), random(1, 6, 6, 4).half(), 1.0)
    assert both.shape[-1] == differing.shape[-1] == 3


def test_bad_shapes():
    with pytest.raises(NodeInputError):
        Compare().run(random(6, 6, 3), random(1, 6, 6, 3), 1.0)
