"""Alignment to half-pixel accuracy, and pasting that changes nothing it should not."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import faces
from photokeep_nodes.ops.colour import srgb_to_lab


def make_face(x: float, y: float, scale: float, angle: float = 0.0) -> dict:
    """A face whose landmarks are the template's, turned, scaled (photo pixels per crop pixel) and centred at x, y."""
    turn = torch.tensor([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]], dtype=torch.float64)
    points = (faces.template() - 256) @ turn.T * scale + torch.tensor([x, y], dtype=torch.float64)
    half = 165 * scale
    return {"box": [x - half, y - half, x + half, y + half], "score": 0.9, "landmarks": points.tolist()}


def dots(height: int, width: int, points: list[list[float]], sigma: float) -> torch.Tensor:
    y = torch.arange(height, dtype=torch.float64)[:, None] + 0.5
    x = torch.arange(width, dtype=torch.float64)[None, :] + 0.5
    image = sum(torch.exp(-((x - px) ** 2 + (y - py) ** 2) / (2 * sigma**2)) for px, py in points)
    return image.float().expand(1, 3, -1, -1)


def smooth(height: int, width: int) -> torch.Tensor:
    y, x = torch.arange(height)[:, None] / 40, torch.arange(width)[None, :] / 55
    return torch.stack([0.5 + 0.4 * torch.sin(y + i) * torch.cos(x - i) for i in range(3)])[None]


def rough(height: int, width: int, seed: int = 0) -> torch.Tensor:
    return torch.rand((1, 3, height, width), generator=torch.Generator().manual_seed(seed))


def identity(crop: torch.Tensor) -> torch.Tensor:
    return crop.clone()


def tinted(crop: torch.Tensor) -> torch.Tensor:
    return (crop * torch.tensor([0.9, 0.7, 0.5]).view(1, 3, 1, 1) + 0.05).flip(1)


# name: photo size, face
POSES = {
    "upright": ((220, 200), make_face(100.3, 105.7, 0.25)),
    "turned": ((260, 260), make_face(130.2, 128.9, 0.3, 0.9)),
    "upside down": ((260, 260), make_face(131, 129, 0.3, math.pi)),
    "at scale one": ((560, 540), make_face(270.4, 281.1, 1.0, -0.2)),
    "giant": ((1100, 1000), make_face(500, 552.5, 1.9, 0.1)),
    "tiny": ((90, 120), make_face(60.1, 44.2, 0.03)),
    "cut by the corner": ((200, 200), make_face(10.0, 12.0, 0.3)),
    "mostly outside": ((200, 200), make_face(-60.0, 100.0, 0.3)),
    "larger than the photo": ((64, 48), make_face(20.0, 30.0, 0.7)),
}


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


@pytest.mark.parametrize("pose", list(POSES))
@pytest.mark.parametrize("keep_colour", [True, False])
def test_a_network_that_changes_nothing_leaves_the_photo_bit_by_bit(pose: str, keep_colour: bool) -> None:
    (height, width), face = POSES[pose]
    image = rough(height, width)
    restored, mask = faces.restore_faces(image, [[face]], identity, keep_colour=keep_colour)
    assert torch.equal(restored, image)
    assert mask.shape == (1, height, width)


@pytest.mark.parametrize("pose", list(POSES))
def test_nothing_off_the_face_changes(pose: str) -> None:
    (height, width), face = POSES[pose]
    image = (rough(height, width) * 65535).round() / 65535  # a 16-bit scan
    restored, mask = faces.restore_faces(image, [[face]], tinted)
    off = (mask == 0)[:, None].expand_as(image)
    assert torch.equal(restored[off], image[off])
    changed = (restored != image).any(dim=1)
    assert bool((mask[changed] > 0).all())
    if pose == "mostly outside":
        assert mask.sum() < 0.1 * mask.numel()
    else:
        assert changed.float().mean() > 0.02
    assert restored.min() >= 0
    assert restored.max() <= 1


def test_out_of_range_values_off_the_face_stay_too() -> None:
    (height, width), face = POSES["upright"]
    image = rough(height, width)
    image[0, :, 0, 0] = torch.tensor([1.5, -0.25, 2.0])
    restored, _ = faces.restore_faces(image, [[face]], tinted)
    assert restored[0, :, 0, 0].tolist() == [1.5, -0.25, 2.0]


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


def test_strength_blends() -> None:
    (height, width), face = POSES["upright"]
    image = smooth(height, width)
    full, _ = faces.restore_faces(image, [[face]], tinted, keep_colour=False)
    half, _ = faces.restore_faces(image, [[face]], tinted, strength=0.5, keep_colour=False)
    none, _ = faces.restore_faces(image, [[face]], tinted, strength=0.0, keep_colour=False)
    torch.testing.assert_close(half - image, (full - image) / 2, rtol=0, atol=1e-6)
    assert torch.equal(none, image)


def test_the_networks_face_is_what_is_seen() -> None:
    (height, width), face = POSES["at scale one"]
    image = smooth(height, width).flip(-1)
    target = smooth(512, 512)
    restored, mask = faces.restore_faces(image, [[face]], lambda _: target, keep_colour=False)
    again = faces.align(restored, faces.face_transform(face))
    middle = slice(100, 412)
    assert (again - target)[..., middle, middle].abs().max() < 2 / 255
    assert mask.max() == 1


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.0, 0.84, 0.62)])
def test_black_and_white_and_sepia_photos_are_not_tinted(tint: tuple[float, float, float]) -> None:
    (height, width), face = POSES["upright"]
    neutral = 0.2 + 0.6 * F.interpolate(rough(30, 30)[:, :1], (height, width), mode="bilinear")
    image = neutral * torch.tensor(tint).view(1, 3, 1, 1)
    restored, mask = faces.restore_faces(image, [[face]], tinted, keep_colour=False)
    change = restored - image
    assert change.abs().max() > 0.05
    assert (change[:, 0] - change[:, 1]).abs().max() < 2e-6
    assert (change[:, 2] - change[:, 1]).abs().max() < 2e-6
    if tint == (1.0, 1.0, 1.0):
        assert torch.equal(restored[:, 0], restored[:, 1])
        assert torch.equal(restored[:, 2], restored[:, 1])
    assert mask.max() == 1


def test_overlapping_faces_are_averaged_in_any_order() -> None:
    image = smooth(200, 260)
    crowd = [make_face(100 + 12 * i, 95 + 5 * (i % 3), 0.2, 0.1 * i) for i in range(6)]

    def brighter(crop: torch.Tensor) -> torch.Tensor:
        return crop + 0.05

    restored, mask = faces.restore_faces(image, [crowd], brighter, keep_colour=False)
    assert (restored - image).max() < 0.0501  # not six times as much
    assert (restored - image)[(mask == 1)[:, None].expand_as(image)].min() > 0.049
    reverse, _ = faces.restore_faces(image, [crowd[::-1]], brighter, keep_colour=False)
    torch.testing.assert_close(restored, reverse, rtol=0, atol=1e-6)
    assert mask.max() == 1


def test_each_photo_of_a_batch_has_its_own_faces() -> None:
    images = torch.cat((smooth(160, 160), rough(160, 160), smooth(160, 160)))
    called: list[int] = []
    restored, mask = faces.restore_faces(
        images,
        [[make_face(80, 80, 0.15)], [], [make_face(60, 60, 0.1), make_face(115, 110, 0.1)]],
        tinted,
        after_face=lambda: called.append(1),
    )
    assert restored.shape == images.shape
    assert mask.shape == (3, 160, 160)
    assert torch.equal(restored[1], images[1])
    assert mask[1].max() == 0
    assert len(called) == 3
    assert not torch.equal(restored[0], restored[2])


def test_without_faces_the_network_is_not_called() -> None:
    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    image = rough(40, 40)
    restored, mask = faces.restore_faces(image, [[]], refuse)
    assert torch.equal(restored, image)
    assert mask.max() == 0


def test_an_interruption_passes_through() -> None:
    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    (height, width), face = POSES["upright"]
    with pytest.raises(Stop):
        faces.restore_faces(smooth(height, width), [[face, face]], tinted, after_face=stop)


def test_faces_of_another_batch_are_refused() -> None:
    with pytest.raises(NodeInputError, match="2 photos were given for 1"):
        faces.restore_faces(rough(40, 40), [[], []], identity)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(torch.zeros(1, 3, 256, 256), "returned"), (torch.full((1, 3, 512, 512), torch.nan), "not numbers")],
)
def test_a_broken_network_is_named(answer: torch.Tensor, message: str) -> None:
    (height, width), face = POSES["upright"]
    with pytest.raises(NodeInputError, match=message):
        faces.restore_faces(smooth(height, width), [[face]], lambda _: answer)


# --- colour ---


def test_a_colour_cast_of_the_network_is_undone() -> None:
    aligned = smooth(256, 256)
    cast = aligned * torch.tensor([0.95, 1.0, 0.85]).view(1, 3, 1, 1) + torch.tensor([0.06, 0.0, 0.02]).view(1, 3, 1, 1)
    matched = faces.match_colour(cast, aligned)
    before = (srgb_to_lab(cast) - srgb_to_lab(aligned)).mean((0, 2, 3)).abs()
    after = (srgb_to_lab(matched.clamp(0, 1)) - srgb_to_lab(aligned)).mean((0, 2, 3)).abs()
    assert before.max() > 4
    assert after.max() < 0.6


def test_matching_colour_keeps_new_detail() -> None:
    aligned = smooth(256, 256)
    detail = 0.05 * torch.randn((1, 1, 256, 256), generator=torch.Generator().manual_seed(1))
    matched = faces.match_colour(aligned + detail, aligned)
    torch.testing.assert_close((matched - aligned).std(), detail.std(), rtol=0.05, atol=0)
    assert (matched - aligned).mean().abs() < 1e-3


def test_matching_equal_images_changes_no_bit() -> None:
    crop = rough(512, 512)
    assert torch.equal(faces.match_colour(crop.clone(), crop), crop)
    gray = rough(512, 512)[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(faces.match_colour(gray.clone(), gray), gray)
