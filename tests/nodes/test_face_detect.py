"""FaceDetect and FaceSelect, with the bundled detector on a real photo."""

from __future__ import annotations

import inspect
import json
import math
from typing import Any

import pytest
import torch
from skimage import data

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.analyze import Analyze
from photokeep_nodes.nodes.face_detect import FaceDetect
from photokeep_nodes.nodes.face_select import FaceSelect

DETECTOR = ModelHandle("retinaface-mobilenet")
CHOICE: dict[str, Any] = {
    "keep": "all",
    "count": 1,
    "numbers": "1",
    "min_size": 0,
    "max_size": 0,
    "min_score": 0.0,
}


def astronaut() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:300, :300].copy())[None] / 255


def pair() -> torch.Tensor:
    """A photo with a face of 110 px and one of 55 px."""
    photo = torch.full((1, 300, 460, 3), 0.5)
    photo[:, :, :300] = astronaut()
    photo[:, 75:225, 305:455] = torch.nn.functional.avg_pool2d(astronaut().movedim(-1, 1), 2).movedim(1, -1)
    return photo


@pytest.mark.parametrize("node", [FaceDetect, FaceSelect])
def test_its_inputs_are_its_arguments(node: Any) -> None:
    types = node.INPUT_TYPES()
    assert [*types["required"], *types.get("optional", {})] == list(inspect.signature(node.run).parameters)[1:]
    assert len(node.RETURN_TYPES) == len(node.RETURN_NAMES) == len(node.OUTPUT_TOOLTIPS)


def test_a_real_face_is_found_and_told() -> None:
    faces, preview, report = FaceDetect().run(astronaut(), DETECTOR, 0.8, "never")
    assert json.loads(json.dumps(faces)) == faces  # plain data, which the cache can keep
    (entry,) = faces["images"]
    assert (entry["width"], entry["height"]) == (300, 300)
    (face,) = entry["faces"]
    # Eyes, nose and mouth corners, read off the picture by eye.
    for found, seen in zip(
        face["landmarks"], [(203, 100), (246, 103), (223, 127), (202, 140), (244, 140)], strict=True
    ):
        assert math.dist(found, seen) < 6
    assert preview.shape == (1, 300, 300, 3)
    assert not torch.equal(preview, astronaut())
    assert report.startswith("1 face\n1: ")


def test_a_batch_keeps_its_photos_apart() -> None:
    batch = torch.cat((torch.full_like(astronaut(), 0.5), astronaut()))
    faces, preview, report = FaceDetect().run(batch, DETECTOR, 0.8, "never")
    assert [len(entry["faces"]) for entry in faces["images"]] == [0, 1]
    assert preview.shape == batch.shape
    assert report.startswith("Photo 1 of 2\nNo faces.\n\nPhoto 2 of 2\n1 face")


def test_a_photo_that_lies_on_its_side_is_searched_in_every_turn() -> None:
    lying = torch.rot90(astronaut(), 1, (1, 2))
    (upright,) = FaceDetect().run(astronaut(), DETECTOR, 0.8, "never")[0]["images"][0]["faces"]
    off = {}
    for turned in ("never", "auto"):
        (found,) = FaceDetect().run(lying, DETECTOR, 0.8, turned)[0]["images"][0]["faces"]
        there = [[y, 300 - x] for x, y in upright["landmarks"]]
        off[turned] = max(map(math.dist, found["landmarks"], there))
    assert off["auto"] < 1 < 10 < off["never"]


def test_one_search_serves_the_analysis_too(monkeypatch: pytest.MonkeyPatch) -> None:
    faces, _, _ = FaceDetect().run(astronaut(), DETECTOR, 0.8, "never")
    from photokeep_nodes.ops import detect_faces

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("searched again")

    apart, _, _ = Analyze().run(astronaut(), detector=DETECTOR)
    monkeypatch.setattr(detect_faces, "detect", refuse)
    together, _, _ = Analyze().run(astronaut(), detector=DETECTOR, faces=faces)
    assert together == apart
    assert len(together["images"][0]["faces"]) == 1


def test_faces_are_chosen_and_shown() -> None:
    image = pair()
    faces, _, _ = FaceDetect().run(image, DETECTOR, 0.8, "never")
    assert len(faces["images"][0]["faces"]) == 2
    large, small = (face["box"][3] - face["box"][1] for face in faces["images"][0]["faces"])
    assert large > 1.5 * small
    middle = int((large + small) / 2)
    for choice, left in (
        ({}, [large, small]),
        ({"keep": "largest"}, [large]),
        ({"keep": "by_number", "numbers": "2"}, [small]),
        ({"min_size": middle}, [large]),
        ({"max_size": middle}, [small]),
        ({"min_score": 1.0}, []),
    ):
        chosen, count, preview = FaceSelect().run(faces, **{**CHOICE, **choice}, image=image)
        assert [face["box"][3] - face["box"][1] for face in chosen["images"][0]["faces"]] == left
        assert count == len(left)
        assert torch.equal(preview, image) == (not left)
    assert FaceSelect().run(faces, **CHOICE)[2].shape[-1] == 3


def test_bad_choices_are_refused() -> None:
    faces, _, _ = FaceDetect().run(astronaut(), DETECTOR, 0.8, "never")
    with pytest.raises(NodeInputError, match="does not number"):
        FaceSelect().run(faces, **{**CHOICE, "keep": "by_number", "numbers": "first"})
    with pytest.raises(NodeInputError, match="these are no faces"):
        FaceSelect().run({"images": [{"faces": []}]}, **CHOICE)
    assert FaceSelect.VALIDATE_INPUTS(keep="all", numbers="first") is True
    assert FaceSelect.VALIDATE_INPUTS(keep="by_number", numbers="1-3") is True
    assert "does not number" in str(FaceSelect.VALIDATE_INPUTS(keep="by_number", numbers="first"))


def test_fifty_small_faces_are_all_found_where_they_are() -> None:
    one = torch.nn.functional.avg_pool2d(astronaut()[:, 20:200, 130:310].movedim(-1, 1), 2)  # a face of 60 px
    crowd = one.repeat(1, 1, 5, 10).movedim(1, -1)
    faces, _, report = FaceDetect().run(crowd, DETECTOR, 0.8, "never")
    (entry,) = faces["images"]
    assert report.startswith("50 faces\n1: ")
    side = one.shape[-1]
    cells = {(int(face["landmarks"][2][0] // side), int(face["landmarks"][2][1] // side)) for face in entry["faces"]}
    assert cells == {(column, row) for column in range(10) for row in range(5)}


def test_a_tiny_and_a_giant_face() -> None:
    for side in (24, 2400):
        image = torch.nn.functional.interpolate(
            astronaut()[:, 20:200, 130:300].movedim(-1, 1), size=(side, side), mode="bilinear", antialias=True
        ).movedim(1, -1)
        (entry,) = FaceDetect().run(image, DETECTOR, 0.8, "never")[0]["images"]
        assert len(entry["faces"]) == 1, side
        x, y = entry["faces"][0]["landmarks"][2]  # the tip of the nose
        assert math.dist((x / side, y / side), (0.547, 0.594)) < 0.06


def test_faces_keep_their_numbers() -> None:
    faces, _, _ = FaceDetect().run(pair(), DETECTOR, 0.8, "never")
    second = {**CHOICE, "keep": "by_number", "numbers": "2"}
    once, _, _ = FaceSelect().run(faces, **second)
    again, count, _ = FaceSelect().run(once, **second)
    assert count == 1
    assert again == once
    assert [face["number"] for face in once["images"][0]["faces"]] == [2]
