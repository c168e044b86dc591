"""CodeFormer's code is published apart; its parity is in ``test_restorers.py``."""

from __future__ import annotations

import importlib.util
import math
import sys
from pathlib import Path

import pytest
import torch

from photokeep_nodes._arch.codeformer import FidelityRestorer
from photokeep_nodes.errors import MissingExtraError, NodeInputError, WeightsFormatError
from photokeep_nodes.models.codeformer import SPEC


class Watched(torch.nn.Module):
    """Stands for the network: as its input, and brighter with its fidelity."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: list[tuple[float, float, float]] = []

    def forward(self, image: torch.Tensor, weight: float = 0.5) -> tuple[torch.Tensor, torch.Tensor]:
        assert image.shape[0] == 1
        self.calls.append((float(image.min()), float(image.max()), weight))
        return image + 2 * weight, torch.zeros(1)


def faces(count: int) -> torch.Tensor:
    return torch.linspace(0, 0.5, 512).expand(count, 3, 512, 512)


def test_each_face_has_its_own_fidelity() -> None:
    """The descriptor of the network's package would keep it at a half."""
    watched = Watched()
    out = FidelityRestorer(watched)(faces(3), torch.tensor([0.0, 0.25, 1.0]))
    assert watched.calls == [(-1.0, 0.0, 0.0), (-1.0, 0.0, 0.25), (-1.0, 0.0, 1.0)]
    for face, more in zip(out, (0.0, 0.25, 1.0), strict=True):
        torch.testing.assert_close(face, (faces(1)[0] + more).clamp(0, 1))


def test_without_a_fidelity_it_is_that_of_the_authors_script() -> None:
    watched = Watched()
    FidelityRestorer(watched)(faces(1))
    assert [weight for _, _, weight in watched.calls] == [0.5]


@pytest.mark.parametrize("told", [[math.nan], [-0.01], [1.01], [0.5, 0.5], []])
def test_other_fidelities_are_refused(told: list[float]) -> None:
    with pytest.raises(NodeInputError, match="between 0 and 1, one for each of 1 faces"):
        FidelityRestorer(Watched())(faces(1), torch.tensor(told))


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (1, 3, 512, 513), (3, 512, 512), (1, 1, 512, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="must be"):
        FidelityRestorer(Watched())(torch.zeros(shape))


def test_without_its_code_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(MissingExtraError, match="CodeFormer x1 is not installed") as caught:
        SPEC.build({"position_emb": torch.zeros(256, 512)})
    assert caught.value.hint == f"pip install '{SPEC.requirement}'"


def test_it_is_not_for_commercial_use_and_its_code_is_opted_into() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'noncommercial = ["{SPEC.requirement}"]' in project
    assert not SPEC.weights[0].licence.commercial
    assert SPEC.condition == "fidelity"


@pytest.mark.skipif(importlib.util.find_spec("spandrel_extra_arches") is None, reason="needs the noncommercial extra")
def test_another_networks_weights_are_refused() -> None:
    with pytest.raises(WeightsFormatError, match="CodeFormer x1 was expected"):
        SPEC.build({"banana": torch.zeros(3)})
