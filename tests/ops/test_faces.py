"""Alignment to half-pixel accuracy, and pasting that changes nothing it should not."""

from __future__ import annotations

import math

import pytest
import torch
from face_shapes import POSES, dots, make_face, smooth

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import faces

# --- alignment ---


@pytest.mark.parametrize(
    ("scale", "angle", "side"), [(0.2, 0.0, 200), (0.5, 0.3, 300), (1.0, -0.5, 640), (2.5, 0.2, 1400)]
)
def test_landmarks_come_to_the_template(scale: float, angle: float, side: int) -> None:
    face = make_face(side / 2 + 0.3, side / 2 - 0.7, scale, angle)
    sigma = max(2.0, 6 * scale)
    image = dots(side, side, face["landmarks"], sigma)
    crop = faces.align(image, faces.face_transform(face))[0, 0].double()
    centres = torch.arange(512, dtype=torch.float64) + 0.5
    for x, y in faces.template().tolist():
        near = (centres[None, :] - x) ** 2 + (centres[:, None] - y) ** 2 < min(25.0, 3 * sigma / scale) ** 2
        weight = crop * near
        at = (weight * centres[None, :]).sum() / weight.sum(), (weight * centres[:, None]).sum() / weight.sum()
        assert math.hypot(float(at[0]) - x, float(at[1]) - y) < 0.1


@pytest.mark.parametrize("pose", ["upright", "turned", "upside down", "at scale one", "giant", "tiny"])
def test_back_and_forth_is_accurate(pose: str) -> None:
    (height, width), face = POSES[pose]
    image = smooth(height, width)
    transform = faces.face_transform(face)
    crop = faces.align(image, transform)
    # Pasting what the crop is, over black, shows the crop carried back: image times mask.
    back, mask = faces.paste(torch.zeros_like(image), crop, torch.zeros_like(crop), transform)
    assert mask.max() == 1.0
    inside = mask[:, None] > 0.5
    assert ((back - mask * image).abs() * inside).max() < 1 / 255


def test_a_large_face_is_not_aliased() -> None:
    face = make_face(800, 800, 3.0)
    stripes = (torch.arange(1600) % 2).float().expand(1, 3, 1600, -1)  # finer than the crop can show
    crop = faces.align(stripes, faces.face_transform(face))
    assert (crop - 0.5).abs().max() < 0.2


def test_beyond_the_border_the_photo_is_mirrored() -> None:
    image = smooth(200, 200)
    face = make_face(20.0, 100.0, 0.25)
    transform = faces.face_transform(face)
    crop = faces.align(image, transform)
    column = float(transform[0, 2])  # crop position of the photo's left border
    assert column > 60
    edge = round(column)
    left, right = crop[..., edge - 40 : edge].flip(-1), crop[..., edge : edge + 40]
    assert (left - right).abs().max() < 0.02
    assert crop.std() > 0.05


def test_one_wrong_landmark_is_left_out() -> None:
    face = make_face(130, 120, 0.3, 0.4)
    exact = faces.face_transform(face)
    for wrong in range(5):
        bent = make_face(130, 120, 0.3, 0.4)
        bent["landmarks"][wrong][0] += 35
        torch.testing.assert_close(faces.face_transform(bent), exact, rtol=0, atol=1e-6)


def test_small_errors_are_averaged() -> None:
    noise = torch.randn((5, 2), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    face = make_face(130, 120, 0.3)
    exact = faces.face_transform(face)
    face["landmarks"] = (torch.tensor(face["landmarks"]) + 1.5 * noise).tolist()
    moved = faces.face_transform(face)
    corners = torch.tensor([[50.0, 210.0], [40.0, 200.0]], dtype=torch.float64)
    shift = (moved[:, :2] - exact[:, :2]) @ corners + (moved - exact)[:, 2:]
    assert 0 < shift.abs().max() < 15  # 1.5 px in the photo are 5 px in the crop


def test_a_profile_is_not_mirrored_or_collapsed() -> None:
    face = make_face(130, 120, 0.3)
    for point in face["landmarks"]:
        point[0] = 130 + 0.15 * (point[0] - 130)  # both eyes nearly at one place
    face["landmarks"][2][0] += 20  # the nose sticks out
    transform = faces.face_transform(face)
    assert torch.linalg.det(transform[:, :2]) > 0
    assert 1.5 < math.sqrt(float(torch.linalg.det(transform[:, :2]))) < 6


@pytest.mark.parametrize("point", [[50.0, 60.0], [math.nan, math.nan]])
def test_landmarks_without_extent_give_way_to_the_box(point: list[float]) -> None:
    face = {"box": [10.0, 30.0, 76.0, 96.0], "score": 0.5, "landmarks": [list(point) for _ in range(5)]}
    transform = faces.face_transform(face)
    torch.testing.assert_close(
        transform[:, :2] @ torch.tensor([43.0, 63.0], dtype=torch.float64) + transform[:, 2],
        torch.tensor([256.0, 292.0], dtype=torch.float64),
    )
    assert float(transform[0, 0]) == pytest.approx(5.0)
    assert float(transform[1, 0]) == 0


def test_a_face_without_any_extent_is_refused() -> None:
    with pytest.raises(NodeInputError, match="neither"):
        faces.face_transform({"box": [5.0, 5.0, 5.0, 9.0], "score": 0.5, "landmarks": [[1.0, 1.0]] * 5})
    with pytest.raises(NodeInputError, match="five landmarks"):
        faces.face_transform({"box": [5.0, 5.0, 50.0, 50.0], "score": 0.5, "landmarks": [[1.0, 1.0]] * 4})


# --- pasting ---


def test_the_mask_is_one_inside_soft_at_the_edge_and_zero_beyond() -> None:
    (height, width), face = POSES["turned"]
    image = smooth(height, width)
    transform = faces.face_transform(face)
    crop = faces.align(image, transform)
    widths = []
    for feather in (0.0, 0.25, 0.6):
        _, mask = faces.paste(image, crop, crop, transform, feather=feather)
        assert mask[0, 129, 130] == 1.0
        assert mask[0, 0, 0] == 0.0
        soft = (mask > 0.01) & (mask < 0.99)
        widths.append(int(soft.sum()))
        steps = mask.diff(dim=-1).abs().max()
        assert steps < (0.9 if feather == 0.0 else 0.16)
    assert widths[0] < widths[1] < widths[2]
    for x, y in face["landmarks"]:
        assert mask[0, int(y), int(x)] > 0.5
