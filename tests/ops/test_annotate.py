"""Boxes and landmarks on the preview."""

from __future__ import annotations

import pytest
import torch

from photokeep_nodes.ops.annotate import draw_faces


def face(box: list[float]) -> dict:
    x0, y0, x1, y1 = box
    spots = ((0.3, 0.4), (0.7, 0.4), (0.5, 0.6), (0.35, 0.8), (0.65, 0.8))
    points = [[x0 + (x1 - x0) * a, y0 + (y1 - y0) * b] for a, b in spots]
    return {"box": box, "score": 0.95, "landmarks": points}


def test_boxes_and_landmarks_lie_on_the_face() -> None:
    image = torch.full((1, 3, 200, 240), 0.5)
    drawn = draw_faces(image, [face([60.0, 80.0, 120.0, 160.0])])
    assert drawn.shape == image.shape
    changed = ((drawn - image).abs() > 0.05).any(dim=1)[0]
    for row, column in ((80, 90), (159, 90), (120, 60), (120, 119)):
        assert changed[row, column]
    for x, y in face([60.0, 80.0, 120.0, 160.0])["landmarks"]:
        assert changed[int(y) - 1 : int(y) + 1, int(x) - 1 : int(x) + 1].all()
    assert not changed[120, 90]
    assert not changed[165:].any()
    assert changed[60:80, 60:90].any()  # the score, above


def test_without_faces_it_is_the_photo_itself() -> None:
    image = torch.rand(1, 3, 20, 20)
    assert draw_faces(image, []) is image


@pytest.mark.parametrize(
    "box", [[0.0, 0.0, 30.0, 40.0], [-20.0, -20.0, 300.0, 300.0], [38.0, 45.0, 39.0, 47.0], [5.2, 5.2, 5.3, 5.3]]
)
def test_faces_at_the_border_and_tiny_ones_are_drawn(box: list[float]) -> None:
    image = torch.zeros((1, 3, 50, 40))
    drawn = draw_faces(image, [face(box)])
    assert drawn.shape == image.shape
    assert drawn.max() > 0.5
