"""Faces in photos that lie on their side, with the bundled detector and with one whose finds are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
from skimage import data

from photokeep_nodes import weights
from photokeep_nodes.models.retinaface_mobilenet import SPEC
from photokeep_nodes.ops import detect_faces, turned_faces

if TYPE_CHECKING:
    from photokeep_nodes.ops.detect_faces import Face


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:320, 60:380].copy()).permute(2, 0, 1)[None] / 255


@pytest.fixture(scope="module")
def module() -> torch.nn.Module:
    return weights.load_module(SPEC)


@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
def test_a_face_is_found_whichever_way_the_photo_lies(module: torch.nn.Module, quarters: int) -> None:
    def detect(image: torch.Tensor) -> list[list[Face]]:
        return detect_faces.detect(module, image)

    upright = astronaut()[:, :, :, 20:]  # not square, so that exchanged sides would show
    (wanted,) = detect(upright)[0]
    lying = torch.rot90(upright, -quarters, (-2, -1))
    (found,) = turned_faces.detect_turned(detect, lying, "auto")[0]
    # Back in the upright photo's pixels.
    again = turned_faces.turned_back(found, -quarters % 4, *upright.shape[-2:])
    for ours, theirs in zip(again["landmarks"], wanted["landmarks"], strict=True):
        assert math.dist(ours, theirs) < 1.0
    for ours, theirs in zip(again["box"], wanted["box"], strict=True):
        assert abs(ours - theirs) < 2.0
    if quarters:  # as it lies it is found too, but not well
        (poor,) = (each for each in turned_faces.detect_turned(detect, lying, "never")[0][:1])
        poor = turned_faces.turned_back(poor, -quarters % 4, *upright.shape[-2:])
        assert max(map(math.dist, poor["landmarks"], wanted["landmarks"])) > 10


def face(box: list[float], score: float) -> Face:
    upright = [[box[0], box[1]], [box[2], box[1]], [box[0], box[1]], [box[0], box[3]], [box[2], box[3]]]
    return {"box": box, "score": score, "landmarks": upright}


@pytest.mark.parametrize("degrees", [0, 30, 90, 180, -120])
def test_the_tilt_of_a_face(degrees: int) -> None:
    turn = math.radians(degrees)
    shape = [(-1.0, -1.0), (1.0, -1.0), (0.0, 0.0), (-0.8, 1.0), (0.8, 1.0)]
    points = [[x * math.cos(turn) - y * math.sin(turn), x * math.sin(turn) + y * math.cos(turn)] for x, y in shape]
    assert turned_faces.tilt({"box": [0, 0, 1, 1], "score": 1.0, "landmarks": points}) == pytest.approx(abs(degrees))


def test_a_pixel_goes_back_to_where_it_was() -> None:
    photo = torch.zeros(1, 1, 5, 7)
    photo[0, 0, 1, 4] = 1.0
    for quarters in range(4):
        (row, column), *_ = torch.rot90(photo, quarters, (-2, -1))[0, 0].nonzero().tolist()
        there = face([column, row, column + 1.0, row + 1.0], 0.9)
        assert turned_faces.turned_back(there, quarters, 5, 7)["box"] == [4.0, 1.0, 5.0, 2.0]


def test_upright_finds_spare_the_turning_and_doubles_are_merged() -> None:
    calls: list[tuple[int, ...]] = []

    def detect(image: torch.Tensor) -> list[list[Face]]:
        calls.append(tuple(image.shape[-2:]))
        turned = len(calls) - 1
        # The same face in every turn, surest upright; and another one that shows only upside down.
        corner = {
            0: [2.0, 3.0, 12.0, 13.0],
            1: [3.0, 28.0, 13.0, 38.0],
            2: [28.0, 7.0, 38.0, 17.0],
            3: [7.0, 2.0, 17.0, 12.0],
        }
        found = [face(corner[turned], 0.9 - 0.1 * turned)]
        return [[*found, face([0.0, 0.0, 4.0, 4.0], 0.8)] if turned == 2 else found]

    photo = torch.zeros(1, 3, 20, 40)
    assert len(turned_faces.detect_turned(detect, photo, "auto")[0]) == 1
    assert calls == [(20, 40)]
    calls.clear()
    found = turned_faces.detect_turned(detect, photo, "always")[0]
    assert calls == [(20, 40), (40, 20), (20, 40), (40, 20)]
    assert [each["box"] for each in found] == [[2.0, 3.0, 12.0, 13.0], [36.0, 16.0, 40.0, 20.0]]
    assert found[0]["score"] == 0.9


def test_nothing_anywhere_is_nothing() -> None:
    assert turned_faces.detect_turned(lambda _: [[]], torch.zeros(2, 3, 8, 8), "always") == [[], []]
