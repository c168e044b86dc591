"""RetinaFace R50's published weights are a download, so the exact network is proved on seeded random ones.

The golden outputs are facexlib's, for a BGR photo of bytes as its users hand it over: tests/data/README.md.
``PHOTOKEEP_REAL_MODELS`` naming a folder with the published file adds a check of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from face_networks import FACES, GOLDEN, published_state, shown
from skimage import data

from photokeep_nodes._arch.retinaface import make_anchors
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.retinaface_r50 import SPEC
from photokeep_nodes.ops.detect_faces import detect
from photokeep_nodes.weight_formats import read_state_dict

LAYOUT = FACES["retinaface-r50"]
REAL = Path(os.environ.get("PHOTOKEEP_REAL_MODELS", "")) / SPEC.weights[0].filename


@pytest.fixture(scope="module")
def golden() -> dict[str, np.ndarray]:
    prefix = "retinaface-r50/"
    return {name.removeprefix(prefix): array for name, array in np.load(GOLDEN).items() if name.startswith(prefix)}


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return published_state("retinaface-r50")


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor], tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Built as a user's file is: saved as it was published, from several GPUs and before zip archives, and read."""
    path = tmp_path_factory.mktemp("weights") / SPEC.weights[0].filename
    torch.save({f"module.{name}": tensor for name, tensor in state.items()}, path, _use_new_zipfile_serialization=False)
    # The published file also holds a version number per module, some 40 bytes each.
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 25_000
    built = SPEC.build(read_state_dict(path))
    path.unlink()
    return built


def test_it_is_facexlibs_network(module: torch.nn.Module, golden: dict[str, np.ndarray]) -> None:
    with torch.inference_mode():
        raw = module.raw(shown("retinaface-r50"))
    assert len(raw.scores[0]) == golden["anchors"]
    for name, output in zip(("offsets", "scores", "landmarks"), raw, strict=True):
        assert golden[name].std() > 0.2, name
        np.testing.assert_allclose(output[0, :: LAYOUT.step], golden[name], atol=1e-4, err_msg=name)


def test_finds_are_decoded_as_facexlib_does(module: torch.nn.Module, golden: dict[str, np.ndarray]) -> None:
    with torch.inference_mode():
        boxes, scores, points = (each[:: LAYOUT.step] for each in module(shown("retinaface-r50")))
    np.testing.assert_allclose(boxes, golden["boxes"], atol=2e-3)
    np.testing.assert_allclose(scores, golden["scores"][:, 1], atol=1e-4)
    np.testing.assert_allclose(points, golden["points"], atol=2e-3)


@pytest.mark.parametrize("wrong", [lambda x: x.flip(1), lambda x: x - 2 / 255])
def test_the_comparison_sees_other_colours_and_means(
    module: torch.nn.Module, golden: dict[str, np.ndarray], wrong
) -> None:
    with torch.inference_mode():
        offsets = module.raw(wrong(shown("retinaface-r50"))).offsets[0, :: LAYOUT.step].numpy()
    assert np.abs(offsets - golden["offsets"]).max() > 0.01


def test_names_without_a_prefix_are_read_too(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    built = SPEC.build(state).state_dict()
    assert built.keys() == module.state_dict().keys()
    assert all(torch.equal(tensor, built[name]) for name, tensor in module.state_dict().items())


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad or t.is_meta for t in tensors)
    assert not any(m.training for m in module.modules())


@pytest.mark.parametrize("size", [(1, 1), (33, 64), (100, 17)])
def test_any_size_has_its_anchors(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        boxes, scores, points = module(torch.rand(1, 3, *size))
    count = len(make_anchors(*size))
    assert (boxes.shape, scores.shape, points.shape) == ((count, 4), (count,), (count, 5, 2))


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="one photo"):
        module(torch.zeros(shape))


def test_another_network_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="not those of RetinaFace ResNet-50"):
        SPEC.build({"banana": torch.zeros(3)})
    less = {name: tensor for name, tensor in state.items() if not name.startswith("ssh2.conv7x7_3")}
    with pytest.raises(WeightsFormatError, match=r"5 missing \(context\.1\.conv7b"):
        SPEC.build(less)
    with pytest.raises(WeightsFormatError, match=r"pyramid\.merge\.1\.0\.weight is \(64, 64, 3, 3\)"):
        SPEC.build({**state, "fpn.merge2.0.weight": torch.zeros(64, 64, 3, 3)})


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="needs PHOTOKEEP_REAL_MODELS with detection_Resnet50_Final.pth")
def test_the_published_file_finds_the_astronaut() -> None:
    assert sha256_of(REAL) == SPEC.weights[0].sha256
    real = SPEC.build(read_state_dict(REAL))
    photo = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]
    ((face,),) = detect(real, photo)
    # Measured by eye, see tests/ops/test_detect_faces.py.
    wanted = [[203, 101], [246, 103], [224, 127], [204, 141], [244, 141]]
    np.testing.assert_allclose(face["landmarks"], wanted, atol=5)
    assert face["score"] > 0.97
