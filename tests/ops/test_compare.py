from __future__ import annotations

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops.compare import difference, side_by_side


def random(*shape: int) -> torch.Tensor:
    return torch.rand(*shape, generator=torch.Generator().manual_seed(sum(shape)))


def test_both_are_shown_unchanged():
    before, after = random(2, 3, 20, 30), random(2, 3, 20, 30).flip(3)
    both = side_by_side(before, after)
    assert both.shape == (2, 3, 20, 62)
    assert torch.equal(both[..., :30], before)
    assert torch.equal(both[..., 32:], after)
    assert (both[..., 30:32] == 1).all()


def test_the_line_grows_with_the_picture():
    assert side_by_side(random(1, 3, 4, 1000), random(1, 3, 4, 1000)).shape[3] == 2005


@pytest.mark.parametrize("larger_first", [True, False])
def test_the_smaller_one_is_enlarged(larger_first):
    small, large = torch.full((1, 3, 5, 7), 0.25), random(1, 3, 20, 28)
    both = side_by_side(large, small) if larger_first else side_by_side(small, large)
    assert both.shape == (1, 3, 20, 58)
    left, right = both[..., :28], both[..., 30:]
    flat, exact = (right, left) if larger_first else (left, right)
    assert torch.equal(exact, large)
    torch.testing.assert_close(flat, torch.full_like(flat, 0.25))


def test_enlarging_does_not_leave_the_range():
    edges = (random(1, 3, 8, 8) > 0.5).float()
    both = side_by_side(edges, random(1, 3, 64, 64))
    assert both.min() >= 0
    assert both.max() <= 1


def test_difference():
    before = torch.full((1, 3, 4, 4), 0.5)
    after = before.clone()
    after[:, 0, 1, 2] = 0.6
    after[:, 1, 2, 1] = 0.1
    shown = difference(before, after, 4.0)
    assert shown[0, 0, 1, 2].item() == pytest.approx(0.4)
    assert shown[0, 1, 2, 1].item() == 1.0
    assert torch.count_nonzero(shown) == 2
    assert torch.equal(shown, difference(after, before, 4.0))


def test_difference_of_sizes():
    before = random(1, 3, 8, 8)
    assert difference(before, before.repeat_interleave(2, 2).repeat_interleave(2, 3), 1.0).shape == (1, 3, 16, 16)


def test_one_against_many():
    one, many = random(1, 3, 8, 8), random(3, 3, 8, 8)
    assert side_by_side(one, many).shape[0] == 3
    shown = difference(many, one, 1.0)
    assert torch.equal(shown, (many - one).abs())


@pytest.mark.parametrize("function", [side_by_side, lambda a, b: difference(a, b, 1.0)])
def test_two_against_three(function):
    with pytest.raises(NodeInputError) as caught:
        function(random(2, 3, 8, 8), random(3, 3, 8, 8))
    assert caught.value.hint


def test_inputs_are_left_alone():
    before, after = random(1, 3, 8, 8), random(1, 3, 16, 16)
    copies = before.clone(), after.clone()
    side_by_side(before, after)
    difference(before, after, 9.0)
    assert torch.equal(before, copies[0])
    assert torch.equal(after, copies[1])
