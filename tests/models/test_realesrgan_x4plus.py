from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import sr_quality
import torch
from skimage import data

from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.realesrgan_x4plus import SPEC
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Callable

FILE = SPEC.weights[0]
FOUND = importlib.util.find_spec(FILE.origin.package)

needs_weights = pytest.mark.skipif(FOUND is None, reason=f"needs the starter extra: {FILE.origin.requirement}")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    folder = Path(FOUND.submodule_search_locations[0])
    path, param = folder / FILE.origin.path, folder / FILE.origin.param_path
    assert path.stat().st_size == FILE.size_bytes
    assert hashlib.sha256(path.read_bytes()).hexdigest() == FILE.sha256
    assert hashlib.sha256(param.read_bytes()).hexdigest() == FILE.origin.param_sha256
    return read_state_dict(path, param_path=param, key_map=FILE.origin.key_map)


@needs_weights
def test_the_packaged_weights_are_the_whole_network(state: dict[str, torch.Tensor]) -> None:
    assert len(state) == 702
    assert sum(tensor.numel() for tensor in state.values()) == 16_697_987
    module = SPEC.build(state)
    assert 4 * sum(p.numel() for p in module.parameters()) == SPEC.weight_bytes
    assert not module.training
    assert not any(p.requires_grad for p in module.parameters())


@needs_weights
def test_it_doubles_twice_and_stays_true_to_the_photo(module: torch.nn.Module) -> None:
    """The golden output was computed once from these weights with spandrel 0.4.2 and torch 2.15 on a CPU.

    A permuted or mislabelled layer destroys the picture; rounding differs by some 1e-6 between machines.
    """
    image = torch.from_numpy(data.astronaut()[90:122, 200:248] / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        out = module(image)
    assert out.shape == (1, 3, 128, 192)
    small = torch.nn.functional.avg_pool2d(out, 4)
    assert (small - image).abs().mean() < 0.03
    golden = np.load(Path(__file__).parents[1] / "data" / "realesrgan_x4plus.npy")
    np.testing.assert_allclose(out[0, :, ::8, ::8].numpy(), golden, atol=2e-4)


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return SPEC.build(state)


@needs_weights
def test_by_the_numbers_a_clean_photo_loses_to_bicubic_and_gains_detail(module: torch.nn.Module) -> None:
    """It invents texture, which PSNR and SSIM punish; the figures are recorded to notice when they change."""
    photo = sr_quality.astronaut()
    ours, bicubic = sr_quality.compare(module, photo, sr_quality.shrunk(photo))
    assert ours.psnr == pytest.approx(23.1, abs=0.3)
    assert ours.ssim == pytest.approx(0.725, abs=0.01)
    assert bicubic.psnr == pytest.approx(25.8, abs=0.3)
    assert bicubic.detail < 0.6 < 0.8 < ours.detail < 1.05


@needs_weights
@pytest.mark.parametrize(("photo", "ssim"), [(sr_quality.coffee, 0.701), (sr_quality.rocket, 0.832)])
def test_a_damaged_photo_comes_nearer_to_the_original_than_bicubic(
    module: torch.nn.Module, photo: Callable[[], np.ndarray], ssim: float
) -> None:
    original = photo()
    ours, bicubic = sr_quality.compare(module, original, sr_quality.damaged(sr_quality.shrunk(original)))
    assert ours.ssim == pytest.approx(ssim, abs=0.015)
    assert ours.ssim > bicubic.ssim + 0.03


def test_weights_of_nothing_known_are_refused() -> None:
    with pytest.raises(WeightsFormatError, match="no architecture"):
        SPEC.build({"banana": torch.zeros(3)})


@needs_weights
def test_a_missing_tensor_is_refused(state: dict[str, torch.Tensor]) -> None:
    broken = {name: tensor for name, tensor in state.items() if name != "body.7.rdb2.conv3.weight"}
    with pytest.raises(WeightsFormatError, match="do not fit ESRGAN x4"):
        SPEC.build(broken)


def test_another_networks_weights_are_refused_by_name() -> None:
    compact = {
        "body.0.weight": torch.zeros(8, 3, 3, 3),
        "body.0.bias": torch.zeros(8),
        "body.1.weight": torch.zeros(8),
        "body.2.weight": torch.zeros(48, 8, 3, 3),
        "body.2.bias": torch.zeros(48),
    }
    with pytest.raises(WeightsFormatError, match="Compact x4 with 3 channels; ESRGAN x4"):
        SPEC.build(compact)
