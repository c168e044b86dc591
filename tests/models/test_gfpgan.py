"""GFPGAN 1.3 and 1.4; their parity is in ``test_restorers.py``."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from photokeep_nodes._arch.gfpgan import FaceRestorer
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models import gfpgan_v1_3, gfpgan_v1_4
from photokeep_nodes.models.gfpgan_v1_4 import SPEC


class Watched(torch.nn.Module):
    """Stands for the network: returns its input, and keeps what it was called with."""

    def forward(self, image: torch.Tensor, **options: Any) -> tuple[torch.Tensor, list[torch.Tensor]]:
        self.image, self.options = image, options
        return image * 1.5, []


def test_the_network_sees_minus_one_to_one_and_stored_noise() -> None:
    watched = Watched()
    face = torch.linspace(0, 1, 512).expand(1, 3, 512, 512).contiguous(memory_format=torch.channels_last)
    out = FaceRestorer(watched)(face)
    torch.testing.assert_close(watched.image, face * 2 - 1)
    assert watched.image.is_contiguous()
    assert watched.options == {"return_rgb": False, "randomize_noise": False}
    # spandrel's own call would hand [0, 1] over as it is, and clamp.
    torch.testing.assert_close(out, ((face * 2 - 1) * 0.75 + 0.5).clamp(0, 1))


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (1, 3, 512, 513), (3, 512, 512), (1, 1, 512, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="must be"):
        FaceRestorer(Watched())(torch.zeros(shape))


def test_moving_it_leaves_kernels_of_five_dimensions_as_they_are() -> None:
    network = torch.nn.Module()
    network.kernel = torch.nn.Parameter(torch.zeros(1, 4, 4, 3, 3))
    moved = FaceRestorer(network).to(torch.float64, memory_format=torch.channels_last)
    assert moved.network.kernel.dtype == torch.float64
    assert moved.to(memory_format=torch.channels_last) is moved


@pytest.mark.parametrize("spec", [gfpgan_v1_3.SPEC, gfpgan_v1_4.SPEC], ids=lambda spec: spec.id)
def test_another_network_is_refused(spec: Any) -> None:
    with pytest.raises(WeightsFormatError, match="GFPGAN x1 was expected"):
        spec.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match="do not fit GFPGAN x1"):
        spec.build({"toRGB.0.weight": torch.zeros(3), "stylegan_decoder.style_mlp.1.weight": torch.zeros(3)})


def test_the_versions_differ_in_their_file_alone() -> None:
    old = gfpgan_v1_3.SPEC
    assert (old.build, old.weight_bytes, old.native_side) == (SPEC.build, SPEC.weight_bytes, 512)
    assert old.weights[0].filename == "GFPGANv1.3.pth"
    assert old.weights[0].sha256 != SPEC.weights[0].sha256
    assert "non-commercial" in old.weights[0].licence.note
