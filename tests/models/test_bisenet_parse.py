"""BiSeNet's published weights are a download, so the exact network is proved on seeded random ones.

The golden outputs are facexlib's, normalised as its own script does: tests/data/README.md. ``PHOTOKEEP_REAL_MODELS``
naming a folder with the published file adds a check of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from face_networks import FACES, GOLDEN, published_state, shown
from skimage import data

from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.bisenet_parse import SPEC
from photokeep_nodes.ops.face_parsing import CLASSES, face_mask
from photokeep_nodes.ops.faces import align, face_transform
from photokeep_nodes.weight_formats import read_state_dict

LAYOUT = FACES["bisenet-parse"]
REAL = Path(os.environ.get("PHOTOKEEP_REAL_MODELS", "")) / SPEC.weights[0].filename


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published_state("bisenet-parse")


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Built as a user's file is: saved in the published layout and read."""
    path = tmp_path_factory.mktemp("weights") / SPEC.weights[0].filename
    torch.save(state, path, _use_new_zipfile_serialization=False)
    # The published file also holds a version number per module, some 40 bytes each.
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 25_000
    built = SPEC.build(read_state_dict(path))
    path.unlink()
    return built


@pytest.fixture(scope="module")
def found(module: torch.nn.Module) -> torch.Tensor:
    with torch.inference_mode():
        return module(shown("bisenet-parse"))


def test_it_is_facexlibs_network(found: torch.Tensor) -> None:
    golden = np.load(GOLDEN)["bisenet-parse/probabilities"]
    assert golden.std() > 0.1
    assert 0.8 < golden.max() < 1.0
    assert len(np.unique(golden.argmax(0))) >= 4
    assert found.shape == (1, 19, 512, 512)
    np.testing.assert_allclose(found[0, :, :: LAYOUT.step, :: LAYOUT.step], golden, atol=1e-4)


def test_they_are_probabilities_of_the_classes(found: torch.Tensor) -> None:
    assert found.shape[1] == len(CLASSES)
    assert found.min() >= 0
    torch.testing.assert_close(found.sum(1), torch.ones(1, 512, 512), rtol=0, atol=1e-5)


def test_the_comparison_sees_swapped_colours(module: torch.nn.Module, found: torch.Tensor) -> None:
    with torch.inference_mode():
        assert (module(shown("bisenet-parse").flip(1)) - found).abs().max() > 0.1


def test_faces_of_a_batch_do_not_see_each_other(module: torch.nn.Module, found: torch.Tensor) -> None:
    with torch.inference_mode():
        both = module(torch.cat([1 - shown("bisenet-parse"), shown("bisenet-parse")]))
    torch.testing.assert_close(both[1:], found, rtol=0, atol=1e-4)
    assert (both[:1] - found).abs().max() > 0.1


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad or t.is_meta for t in tensors)
    assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("shape", [(1, 3, 256, 256), (1, 3, 512, 480), (3, 512, 512), (1, 1, 512, 512)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="faces to parse must be"):
        module(torch.zeros(shape))


def test_another_network_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="not those of BiSeNet"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match=r"conv_out\.conv_out\.weight is \(11, 256, 1, 1\)"):
        SPEC.build({**state, "conv_out.conv_out.weight": torch.zeros(11, 256, 1, 1)})


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="needs PHOTOKEEP_REAL_MODELS with parsing_bisenet.pth")
def test_the_published_file_knows_a_face_from_hair() -> None:
    assert sha256_of(REAL) == SPEC.weights[0].sha256
    real = SPEC.build(read_state_dict(REAL))
    photo = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]
    landmarks = [[203, 101], [246, 103], [224, 127], [204, 141], [244, 141]]
    transform = face_transform({"box": [170, 60, 280, 180], "score": 1.0, "landmarks": landmarks})
    with torch.inference_mode():
        found = real(align(photo, transform))
    named = np.array(CLASSES)[found[0].argmax(0).numpy()]
    nose, left_eye, right_eye = (256, 314), (193, 240), (319, 240)
    assert named[nose[1], nose[0]] == "nose"
    assert {named[y, x] for x, y in (left_eye, right_eye)} == {"left_eye", "right_eye"}
    mask = face_mask(found)
    hair = torch.from_numpy(named == "hair")
    assert hair.sum() > 5_000
    assert mask[0, 0][hair].mean() < 0.05
    assert mask[0, 0, 290:330, 200:310].min() > 0.9
