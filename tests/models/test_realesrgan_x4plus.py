from __future__ import annotations

import hashlib
import importlib.util
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.realesrgan_x4plus import SPEC
from photokeep_nodes.weight_formats import read_state_dict

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
def test_it_doubles_twice_and_stays_true_to_the_photo(state: dict[str, torch.Tensor]) -> None:
    """The golden output was computed once from these weights with spandrel 0.4.2 and torch 2.15 on a CPU.

    A permuted or mislabelled layer destroys the picture; rounding differs by some 1e-6 between machines.
    """
    module = SPEC.build(state)
    image = torch.from_numpy(data.astronaut()[90:122, 200:248] / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        out = module(image)
    assert out.shape == (1, 3, 128, 192)
    small = torch.nn.functional.avg_pool2d(out, 4)
    assert (small - image).abs().mean() < 0.03
    golden = np.load(Path(__file__).parents[1] / "data" / "realesrgan_x4plus.npy")
    np.testing.assert_allclose(out[0, :, ::8, ::8].numpy(), golden, atol=2e-4)


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
