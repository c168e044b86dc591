"""GFPGAN's published weights may not be redistributed here, so the exact architecture is proved on seeded random ones.

Run once by hand against gfpgan 1.3.8's own GFPGANv1Clean with the same weights: no difference. ``PHOTOKEEP_GFPGAN``
naming the published file adds a check of the real one.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models.gfpgan_v1_4 import SPEC
from photokeep_nodes.weight_formats import read_state_dict

REAL = os.environ.get("PHOTOKEEP_GFPGAN")


def face(side: int = 512) -> torch.Tensor:
    photo = torch.from_numpy(data.astronaut()[20:230, 120:330] / np.float32(255)).permute(2, 0, 1)[None]
    return torch.nn.functional.interpolate(photo, size=(side, side), mode="bilinear")


@pytest.fixture(scope="module")
def by_hand() -> torch.nn.Module:
    from spandrel.architectures.GFPGAN import GFPGAN

    torch.manual_seed(0)
    network = GFPGAN().eval()
    for name, parameter in network.named_parameters():
        if parameter.numel() == 1 and name.endswith(".weight"):
            # The strengths of the noise: zero at first, which would hide whether noise is drawn at random.
            torch.nn.init.constant_(parameter, 0.3)
    return network


@pytest.fixture(scope="module")
def module(by_hand: torch.nn.Module, tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Built as a user's file is: saved in the published layout, read, built, and moved as the pool does."""
    path = tmp_path_factory.mktemp("weights") / "GFPGANv1.4.pth"
    torch.save({"params_ema": by_hand.state_dict()}, path)
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 100_000
    built = SPEC.build(read_state_dict(path))
    path.unlink()
    return built.to(torch.float32).to(memory_format=torch.channels_last)


@pytest.mark.slow
def test_it_is_the_architecture_called_by_hand(module: torch.nn.Module, by_hand: torch.nn.Module) -> None:
    image = face()
    with torch.inference_mode():
        ours = module(image.contiguous(memory_format=torch.channels_last))
        theirs = (by_hand(image * 2 - 1, randomize_noise=False)[0] + 1) / 2
    assert ours.shape == image.shape
    assert ((theirs > 0) & (theirs < 1)).float().mean() > 0.5  # so that the comparison is not one of clamped values
    torch.testing.assert_close(ours, theirs.clamp(0, 1), rtol=0, atol=1e-4)
    assert ours.std() > 0.01
    with torch.inference_mode():
        noisy = (by_hand(image * 2 - 1, randomize_noise=True)[0] + 1) / 2
    assert (noisy - theirs).abs().max() > 0.01  # the comparison would have seen noise drawn anew


@pytest.mark.slow
def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (1, 3, 512, 513), (3, 512, 512), (1, 1, 512, 512)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="must be"):
        module(torch.zeros(shape))


@pytest.mark.slow
def test_upstream_agrees(module: torch.nn.Module, by_hand: torch.nn.Module) -> None:
    upstream = pytest.importorskip(
        "gfpgan.archs.gfpganv1_clean_arch", reason="needs the reference extra", exc_type=ImportError
    )
    theirs = upstream.GFPGANv1Clean(
        out_size=512,
        num_style_feat=512,
        channel_multiplier=2,
        decoder_load_path=None,
        fix_decoder=False,
        num_mlp=8,
        input_is_latent=True,
        different_w=True,
        narrow=1,
        sft_half=True,
    ).eval()
    theirs.load_state_dict(by_hand.state_dict(), strict=True)
    with torch.inference_mode():
        wanted = ((theirs(face() * 2 - 1, randomize_noise=False)[0] + 1) / 2).clamp(0, 1)
        torch.testing.assert_close(module(face()), wanted, rtol=0, atol=1e-4)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="GFPGAN x1 was expected"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match="do not fit GFPGAN x1"):
        SPEC.build({"toRGB.0.weight": torch.zeros(3), "stylegan_decoder.style_mlp.1.weight": torch.zeros(3)})


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="needs PHOTOKEEP_GFPGAN to name the published GFPGANv1.4.pth")
def test_the_published_file_restores_a_face() -> None:
    import hashlib

    path = Path(REAL)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SPEC.weights[0].sha256
    real = SPEC.build(read_state_dict(path))
    sharp = face()
    blurred = torch.nn.functional.interpolate(face(64), size=(512, 512), mode="bicubic").clamp(0, 1)
    with torch.inference_mode():
        restored = real(blurred)
    detail = [float((image[..., 1:] - image[..., :-1]).abs().mean()) for image in (blurred, restored)]
    assert detail[1] > 1.2 * detail[0]
    assert (restored - sharp).abs().mean() < 0.08
