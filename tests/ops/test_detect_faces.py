from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data
from torch.nn import functional as nnf

import photokeep_nodes
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.retinaface_mobilenet import SPEC
from photokeep_nodes.ops.detect_faces import detect, working_sizes
from photokeep_nodes.weight_formats import read_state_dict


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    path = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename
    return SPEC.build(read_state_dict(path))


PHOTOS = os.environ.get("PHOTOKEEP_FACE_PHOTOS")
GROUPS: dict[str, Any] = json.loads((Path(__file__).parents[1] / "data" / "face_photos.json").read_text())


def tensor(photo: np.ndarray) -> torch.Tensor:
    return torch.from_numpy(photo / np.float32(255)).permute(2, 0, 1)[None]


def resize(image: torch.Tensor, height: int, width: int) -> torch.Tensor:
    return nnf.interpolate(image, size=(height, width), mode="bilinear", antialias=True).clamp(0, 1)


@pytest.fixture(scope="module")
def astronaut() -> torch.Tensor:
    return tensor(data.astronaut())


# Pupils, tip of the nose and corners of the mouth in the picture, measured by eye.
FACE = [[203, 101], [246, 103], [224, 127], [204, 141], [244, 141]]


def assert_is_the_face(faces: list, scale_x: float = 1.0, scale_y: float = 1.0) -> None:
    assert len(faces) == 1
    found = np.array(faces[0]["landmarks"]) / [scale_x, scale_y]
    np.testing.assert_allclose(found, FACE, atol=7)
    x0, y0, x1, y1 = faces[0]["box"]
    for x, y in faces[0]["landmarks"]:
        assert x0 < x < x1
        assert y0 < y < y1
    assert 0.8 <= faces[0]["score"] <= 1.0


def test_one_face_with_landmarks_in_place(module: torch.nn.Module, astronaut: torch.Tensor) -> None:
    (faces,) = detect(module, astronaut)
    assert_is_the_face(faces)
    np.testing.assert_allclose(faces[0]["landmarks"], FACE, atol=3.5)
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


class Scripted(torch.nn.Module):
    """A detector of no network: it finds what it is told, in pixels of what it is shown."""

    def __init__(self, *finds: tuple[float, float, float, float, float]) -> None:
        super().__init__()
        self.finds = finds
        self.shown: list[tuple[int, ...]] = []
        self.register_buffer("bytes", torch.zeros(4, dtype=torch.uint8))

    def forward(self, image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        assert image.dtype == torch.float32
        self.shown.append(tuple(image.shape))
        found = torch.tensor(self.finds).view(-1, 5)
        return found[:, :4], found[:, 4], found[:, :2].view(-1, 1, 2).repeat(1, 5, 1)


def test_any_detector_will_do_without_parameters_too() -> None:
    detector = Scripted((100, 80, 200, 180, 0.9), (102, 80, 202, 180, 0.85), (300, 300, 310, 320, 0.81))
    (faces,) = detect(detector, torch.zeros(1, 3, 1280, 640))
    assert detector.shown == [(1, 3, 1280, 640)]
    assert [face["box"] for face in faces] == [[100, 80, 200, 180], [300, 300, 310, 320]]
    assert [face["score"] for face in faces] == pytest.approx([0.9, 0.81])
    assert detect(detector, torch.zeros(1, 3, 640, 640), min_score=0.95) == [[]]
    assert detect(Scripted(), torch.zeros(1, 3, 640, 640)) == [[]]


def test_finds_go_back_to_the_photos_pixels_and_stay_inside_it() -> None:
    detector = Scripted((-10, 320, 64, 700, 0.9))
    (faces,) = detect(detector, torch.zeros(1, 3, 700, 700))
    assert detector.shown == [(1, 3, 640, 640)]
    factor = 700 / 640
    np.testing.assert_allclose(faces[0]["box"], [0, 320 * factor, 64 * factor, 700], rtol=1e-6)
    np.testing.assert_allclose(faces[0]["landmarks"], [[-10 * factor, 320 * factor]] * 5, rtol=1e-6)
    assert detect(Scripted((650, 10, 660, 20, 0.9)), torch.zeros(1, 3, 640, 640)) == [[]]  # all of it outside


def test_only_small_faces_are_taken_from_the_fine_copy() -> None:
    detector = Scripted((0, 0, 250, 250, 0.9), (400, 0, 660, 250, 0.95))
    (faces,) = detect(detector, torch.zeros(1, 3, 1600, 1600))
    assert detector.shown == [(1, 3, 640, 640), (1, 3, 1600, 1600)]
    boxes = sorted(face["box"] for face in faces)
    np.testing.assert_allclose(boxes, [[0, 0, 250, 250], [0, 0, 625, 625], [1000, 0, 1600, 625]], rtol=1e-6)


def test_scores_that_are_no_numbers_are_no_faces() -> None:
    assert detect(Scripted((0, 0, 50, 50, float("nan"))), torch.zeros(1, 3, 640, 640)) == [[]]


@pytest.mark.parametrize("shape", [(3, 8, 8), (1, 1, 8, 8), (1, 4, 8, 8), (0, 3, 8, 8), (1, 3, 0, 8)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="faces are looked for"):
        detect(module, torch.zeros(shape))


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


@pytest.mark.slow
@pytest.mark.skipif(PHOTOS is None, reason="needs PHOTOKEEP_FACE_PHOTOS to name a folder with face-api's photos")
@pytest.mark.parametrize("name", GROUPS)
def test_group_photos(module: torch.nn.Module, name: str) -> None:
    """All faces, nothing else, and landmarks near those of another detector and another network.

    The photos are ``demo/sample*.jpg`` of the npm package @vladmandic/face-api 1.7.15, of real people: only the places
    of their faces are kept here. tests/data/README.md tells where these come from.
    """
    path = Path(str(PHOTOS)) / name
    if not path.is_file():
        pytest.skip(f"{name} is not in {PHOTOS}")
    assert sha256_of(path) == GROUPS[name]["sha256"]
    wanted = [np.array([point or (np.nan, np.nan) for point in face], float) for face in GROUPS[name]["faces"]]
    eyes = np.nanmedian([np.linalg.norm(face[1] - face[0]) for face in wanted])
    with Image.open(path) as photo:
        (faces,) = detect(module, tensor(np.asarray(photo.convert("RGB"))))
    assert len(faces) == len(wanted)
    errors = []
    for face in sorted(faces, key=lambda face: face["box"][0]):
        found = np.array(face["landmarks"])
        off = min((np.linalg.norm(found - each, axis=1) for each in wanted), key=np.nanmean) / eyes
        assert np.nanmean(off) < 0.2
        errors.append(off)
        x0, y0, x1, y1 = face["box"]
        assert 1.3 * eyes < x1 - x0 < 3 * eyes
        assert y1 - y0 > x1 - x0
        assert face["score"] > 0.99
    assert np.nanmedian(errors) < 0.12
    # Each face was compared with another one.
    nearest = {int(np.nanargmin([np.nanmean(np.abs(np.array(f["landmarks"]) - w)) for w in wanted])) for f in faces}
    assert len(nearest) == len(wanted)
