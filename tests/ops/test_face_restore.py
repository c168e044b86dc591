"""What restoring changes and what it leaves, with networks whose answers are known."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import pytest
import torch
import torch.nn.functional as F
from face_shapes import POSES, make_face, rough, smooth

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import face_restore, faces
from photokeep_nodes.ops.colour import srgb_to_lab
from photokeep_nodes.ops.face_identity import GuardedStrength
from photokeep_nodes.ops.face_restore import FaceOutcome, FaceSettings
from photokeep_nodes.ops.measures import gaussian

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from photokeep_nodes.ops.detect_faces import Face

    Network = Callable[[torch.Tensor], torch.Tensor]


def restore(
    image: torch.Tensor,
    found: Sequence[Sequence[Face]],
    network: Network,
    *,
    keep_colour: bool = True,
    **settings: float,
) -> tuple[torch.Tensor, torch.Tensor]:
    restored, mask, _ = outcomes_of(image, found, network, FaceSettings(match_colour=keep_colour, **settings))
    return restored, mask


def outcomes_of(
    image: torch.Tensor, found: Sequence[Sequence[Face]], network: Network, settings: FaceSettings, **more: object
) -> tuple[torch.Tensor, torch.Tensor, list[FaceOutcome]]:
    return face_restore.restore_faces(image, found, lambda crops: [network(crop) for crop in crops], settings, **more)


def identity(crop: torch.Tensor) -> torch.Tensor:
    return crop.clone()


def tinted(crop: torch.Tensor) -> torch.Tensor:
    return (crop * torch.tensor([0.9, 0.7, 0.5]).view(1, 3, 1, 1) + 0.05).flip(1)


@pytest.mark.parametrize("pose", list(POSES))
@pytest.mark.parametrize("keep_colour", [True, False])
def test_a_network_that_changes_nothing_leaves_the_photo_bit_by_bit(pose: str, keep_colour: bool) -> None:
    (height, width), face = POSES[pose]
    image = rough(height, width)
    restored, mask = restore(image, [[face]], identity, keep_colour=keep_colour)
    assert torch.equal(restored, image)
    assert mask.shape == (1, height, width)


@pytest.mark.parametrize("pose", list(POSES))
def test_nothing_off_the_face_changes(pose: str) -> None:
    (height, width), face = POSES[pose]
    image = (rough(height, width) * 65535).round() / 65535  # a 16-bit scan
    restored, mask = restore(image, [[face]], tinted)
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
    restored, _ = restore(image, [[face]], tinted)
    assert restored[0, :, 0, 0].tolist() == [1.5, -0.25, 2.0]


def test_strength_blends() -> None:
    (height, width), face = POSES["upright"]
    image = smooth(height, width)
    full, _ = restore(image, [[face]], tinted, keep_colour=False)
    half, _ = restore(image, [[face]], tinted, strength=0.5, keep_colour=False)
    none, _ = restore(image, [[face]], tinted, strength=0.0, keep_colour=False)
    torch.testing.assert_close(half - image, (full - image) / 2, rtol=0, atol=1e-6)
    assert torch.equal(none, image)


def test_the_networks_face_is_what_is_seen() -> None:
    (height, width), face = POSES["at scale one"]
    image = smooth(height, width).flip(-1)
    target = smooth(512, 512)
    restored, mask = restore(image, [[face]], lambda _: target, keep_colour=False)
    again = faces.align(restored, faces.face_transform(face))
    middle = slice(100, 412)
    assert (again - target)[..., middle, middle].abs().max() < 2 / 255
    assert mask.max() == 1


@pytest.mark.parametrize("tint", [(1.0, 1.0, 1.0), (1.0, 0.84, 0.62)])
def test_black_and_white_and_sepia_photos_are_not_tinted(tint: tuple[float, float, float]) -> None:
    (height, width), face = POSES["upright"]
    neutral = 0.2 + 0.6 * F.interpolate(rough(30, 30)[:, :1], (height, width), mode="bilinear")
    image = neutral * torch.tensor(tint).view(1, 3, 1, 1)
    restored, mask = restore(image, [[face]], tinted, keep_colour=False)
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

    restored, mask = restore(image, [crowd], brighter, keep_colour=False)
    assert (restored - image).max() < 0.0501  # not six times as much
    assert (restored - image)[(mask == 1)[:, None].expand_as(image)].min() > 0.049
    reverse, _ = restore(image, [crowd[::-1]], brighter, keep_colour=False)
    torch.testing.assert_close(restored, reverse, rtol=0, atol=1e-6)
    assert mask.max() == 1


def test_each_photo_of_a_batch_has_its_own_faces() -> None:
    images = torch.cat((smooth(160, 160), rough(160, 160), smooth(160, 160)))
    restored, mask = restore(
        images,
        [[make_face(80, 80, 0.15)], [], [make_face(60, 60, 0.1), make_face(115, 110, 0.1)]],
        tinted,
    )
    assert restored.shape == images.shape
    assert mask.shape == (3, 160, 160)
    assert torch.equal(restored[1], images[1])
    assert mask[1].max() == 0
    assert not torch.equal(restored[0], restored[2])


def test_without_faces_the_network_is_not_called() -> None:
    def refuse(_: torch.Tensor) -> torch.Tensor:
        raise AssertionError

    image = rough(40, 40)
    restored, mask = restore(image, [[]], refuse)
    assert torch.equal(restored, image)
    assert mask.max() == 0


def test_an_interruption_passes_through() -> None:
    class Stop(BaseException):
        pass

    def stop(_: torch.Tensor) -> torch.Tensor:
        raise Stop

    (height, width), face = POSES["upright"]
    with pytest.raises(Stop):
        restore(smooth(height, width), [[face, face]], stop)


def test_faces_of_another_batch_are_refused() -> None:
    with pytest.raises(NodeInputError, match="2 photos were given for 1"):
        restore(rough(40, 40), [[], []], identity)


@pytest.mark.parametrize(
    ("answer", "message"),
    [(torch.zeros(1, 3, 256, 256), "returned"), (torch.full((1, 3, 512, 512), torch.nan), "not numbers")],
)
def test_a_broken_network_is_named(answer: torch.Tensor, message: str) -> None:
    (height, width), face = POSES["upright"]
    with pytest.raises(NodeInputError, match=message):
        restore(smooth(height, width), [[face]], lambda _: answer)


def test_a_colour_cast_of_the_network_is_undone() -> None:
    aligned = smooth(256, 256)
    cast = aligned * torch.tensor([0.95, 1.0, 0.85]).view(1, 3, 1, 1) + torch.tensor([0.06, 0.0, 0.02]).view(1, 3, 1, 1)
    matched = face_restore.match_colour(cast, aligned)
    before = (srgb_to_lab(cast) - srgb_to_lab(aligned)).mean((0, 2, 3)).abs()
    after = (srgb_to_lab(matched.clamp(0, 1)) - srgb_to_lab(aligned)).mean((0, 2, 3)).abs()
    assert before.max() > 4
    assert after.max() < 0.6


def test_matching_colour_keeps_new_detail() -> None:
    aligned = smooth(256, 256)
    detail = 0.05 * torch.randn((1, 1, 256, 256), generator=torch.Generator().manual_seed(1))
    matched = face_restore.match_colour(aligned + detail, aligned)
    torch.testing.assert_close((matched - aligned).std(), detail.std(), rtol=0.05, atol=0)
    assert (matched - aligned).mean().abs() < 1e-3


def test_matching_equal_images_changes_no_bit() -> None:
    crop = rough(512, 512)
    assert torch.equal(face_restore.match_colour(crop.clone(), crop), crop)
    gray = rough(512, 512)[:, :1].expand(-1, 3, -1, -1)
    assert torch.equal(face_restore.match_colour(gray.clone(), gray), gray)


# --- which faces ---


def sharp_photo(height: int, width: int) -> torch.Tensor:
    """Edges as steep as pixels allow, everywhere."""
    cells = (torch.arange(height)[:, None] // 23 + torch.arange(width)[None, :] // 19) % 2
    return (0.25 + 0.5 * cells.float()).expand(1, 3, -1, -1).clone()


def soft_photo(height: int, width: int) -> torch.Tensor:
    return gaussian(sharp_photo(height, width), 5.0)


GIANT = make_face(700.0, 700.0, 2.0)  # its crop covers 1024 px of the photo: the network draws half of that
SMALL = make_face(130.0, 130.0, 0.25)


@pytest.mark.parametrize(
    ("photo", "face", "restored"),
    [
        (sharp_photo(1400, 1400), GIANT, False),  # the photo shows more than 512 px can
        (soft_photo(1400, 1400), GIANT, True),
        (sharp_photo(260, 260), SMALL, True),
    ],
)
def test_faces_of_which_the_photo_shows_more_than_the_network_can_are_left(
    photo: torch.Tensor, face: Face, restored: bool
) -> None:
    calls: list[int] = []

    def network(crop: torch.Tensor) -> torch.Tensor:
        calls.append(1)
        return tinted(crop)

    out, mask, (outcome,) = outcomes_of(photo, [[face]], network, FaceSettings(skip_detailed=True, keep_gray=False))
    assert len(calls) == int(restored)
    assert bool(mask.max() > 0) == restored
    assert torch.equal(out, photo) != restored
    assert (outcome.strength > 0) == restored
    assert bool(outcome.left_alone) != restored
    assert torch.equal(outcome.before, outcome.after) != restored
    everything, _, _ = outcomes_of(photo, [[face]], tinted, FaceSettings(skip_detailed=False, keep_gray=False))
    assert not torch.equal(everything, photo)


def test_only_faces_below_a_sharpness_are_restored() -> None:
    photo = torch.cat((sharp_photo(300, 300), soft_photo(300, 300)), -1)
    pair = [make_face(140, 150, 0.3), make_face(450, 150, 0.3)]
    noise = 0.0
    figures = [face_restore.sharpness(face_restore.face_blur(photo, face, noise)) for face in pair]
    assert figures[0] > 0.6
    assert figures[1] < 0.3
    out, mask, outcomes = outcomes_of(photo, [pair], tinted, FaceSettings(below_sharpness=0.5, keep_gray=False))
    assert [bool(outcome.left_alone) for outcome in outcomes] == [True, False]
    assert "sharp enough (0." in outcomes[0].left_alone
    assert torch.equal(out[..., :300], photo[..., :300])
    assert mask[..., :300].max() == 0
    assert mask[..., 300:].max() == 1


def test_a_face_in_which_no_edge_tells_is_restored() -> None:
    photo = torch.full((1, 3, 200, 200), 0.5)
    assert face_restore.face_blur(photo, SMALL, 0.0) is None
    assert face_restore.face_blur(photo, {**SMALL, "box": [3.0, 3.0, 8.0, 8.0]}, 0.0) is None
    _, mask, _ = outcomes_of(photo, [[make_face(100, 100, 0.2)]], tinted, FaceSettings(below_sharpness=0.05))
    assert mask.max() == 1


# --- how much of the change ---


def test_own_shapes_stay_under_the_networks_detail() -> None:
    side, scale = 512, 4.0
    crop = smooth(side, side)
    detail = 0.1 * torch.sin(torch.arange(side) * math.pi / 3).expand(1, 3, side, -1)  # six pixels a period
    shifted = crop.roll(40, -1) + detail
    kept = face_restore.keep_own_shapes(shifted, crop, 1.0, scale)
    half = face_restore.keep_own_shapes(shifted, crop, 0.5, scale)
    inside = (..., slice(60, -60), slice(60, -60))
    assert (shifted - crop - detail)[inside].abs().mean() > 0.1
    assert (kept - crop - detail)[inside].abs().mean() < 0.01
    torch.testing.assert_close(half, (kept + shifted) / 2, rtol=0, atol=1e-5)
    assert face_restore.keep_own_shapes(shifted, crop, 0.0, scale) is shifted
    assert torch.equal(face_restore.keep_own_shapes(crop.clone(), crop, 1.0, scale), crop)


def test_the_parser_says_what_of_a_crop_changes() -> None:
    (height, width), face = POSES["at scale one"]
    photo = smooth(height, width)
    seen: list[torch.Tensor] = []

    def left_half(crops: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        seen.extend(crops)
        mask = torch.zeros(1, 1, 512, 512)
        mask[..., :256] = 1.0
        return [mask for _ in crops]

    settings = FaceSettings(match_colour=False)
    out, mask, (outcome,) = outcomes_of(photo, [[face]], tinted, settings, parser=left_half)
    assert len(seen) == 1
    torch.testing.assert_close(seen[0], tinted(faces.align(photo, faces.face_transform(face))))
    assert torch.equal(outcome.after[..., 256:], outcome.before[..., 256:])
    assert not torch.equal(outcome.after[..., :256], outcome.before[..., :256])
    again = faces.align(out, faces.face_transform(face))
    before = faces.align(photo, faces.face_transform(face))
    assert (again - before)[..., 150:360, 270:400].abs().max() < 1 / 255
    assert (again - before)[..., 150:360, 110:240].abs().max() > 0.05
    assert mask.min() == 0
    assert mask.max() == 1


def test_the_guard_lowers_the_strength_and_says_so() -> None:
    photo = smooth(200, 420)
    pair = [make_face(100, 100, 0.2), make_face(310, 100, 0.2)]
    asked: list[float] = []

    def guard(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], strength: float) -> list[GuardedStrength]:
        asked.append(strength)
        assert len(pairs) == 2
        return [GuardedStrength(0.25, 0.71, 0.40), GuardedStrength(strength, 0.93, 0.93)]

    settings = FaceSettings(strength=0.8, match_colour=False)
    out, _, outcomes = outcomes_of(photo, [pair], tinted, settings, guard=guard)
    free, _, _ = outcomes_of(photo, [pair], tinted, settings)
    assert asked == [0.8]
    change, whole = (out - photo)[0, :, 100], (free - photo)[0, :, 100]
    torch.testing.assert_close(change[:, 90:110], whole[:, 90:110] * 0.25 / 0.8, rtol=0, atol=1e-5)
    torch.testing.assert_close(change[:, 300:320], whole[:, 300:320], rtol=0, atol=1e-6)
    text = face_restore.report(outcomes, photos=1, asked=0.8)
    assert "2 of 2 faces restored" in text
    assert "Face 1, 66 px high: strength lowered from 0.80 to 0.25" in text
    assert "(likeness 0.40); likeness 0.71" in text
    assert "Face 2, 66 px high: restored with strength 0.80; likeness 0.93" in text
    assert "Nobody checked" not in text


def test_a_guard_cannot_raise_the_strength() -> None:
    photo, face = smooth(200, 200), make_face(100, 100, 0.2)
    _, _, (outcome,) = outcomes_of(
        photo,
        [[face]],
        tinted,
        FaceSettings(strength=0.5),
        guard=lambda pairs, _: [GuardedStrength(1.0, 1.0, 1.0) for _ in pairs],
    )
    assert outcome.strength == 0.5


def test_who_cannot_be_told_is_left_as_they_were() -> None:
    photo, face = smooth(200, 200), make_face(100, 100, 0.2)
    nobody = GuardedStrength(0.0, math.nan, math.nan)
    out, _, outcomes = outcomes_of(photo, [[face]], tinted, FaceSettings(), guard=lambda pairs, _: [nobody])
    assert torch.equal(out, photo)
    assert "could not tell who it is" in face_restore.report(outcomes, photos=1, asked=1.0)


def test_without_a_guard_the_report_says_that_nobody_checked() -> None:
    photo, face = smooth(200, 200), make_face(100, 100, 0.2)
    _, _, outcomes = outcomes_of(photo, [[face]], tinted, FaceSettings())
    assert "Nobody checked whether they are still the same people" in face_restore.report(outcomes, photos=1, asked=1.0)
    assert face_restore.report([], photos=1, asked=1.0) == "No faces."


# --- crowds ---


def test_fifty_faces_are_restored_a_few_at_a_time_and_kept_small() -> None:
    photo = smooth(600, 1200)
    crowd = [make_face(60 + 120 * (i % 10), 60 + 120 * (i // 10), 0.12) for i in range(50)]
    groups: list[int] = []

    def restorer(crops: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        groups.append(len(crops))
        return [tinted(crop) for crop in crops]

    out, mask, outcomes = face_restore.restore_faces(photo, [crowd], restorer, FaceSettings())
    assert sum(groups) == 50
    assert max(groups) <= 8
    assert len(outcomes) == 50
    assert all(mask[0, 60 + 120 * (i // 10), 60 + 120 * (i % 10)] == 1 for i in range(50))
    pictures = face_restore.before_and_after(outcomes)
    assert pictures.shape[:3] == (50, 3, 256)
    assert pictures.min() >= 0
    assert pictures.max() <= 1
    assert not torch.equal(out, photo)


def test_pictures_show_each_face_before_and_after() -> None:
    photo, face = smooth(200, 200), make_face(100, 100, 0.2)
    _, _, outcomes = outcomes_of(photo, [[face]], tinted, FaceSettings(match_colour=False, strength=0.5))
    picture = face_restore.before_and_after(outcomes)
    crop = faces.align(photo, faces.face_transform(face))
    torch.testing.assert_close(picture[..., :512], crop)
    torch.testing.assert_close(picture[..., -512:], (crop + tinted(crop)) / 2)
    none = face_restore.before_and_after([])
    assert none.shape == (1, 3, 256, 512)
    assert none.std() == 0


@pytest.mark.parametrize("steps", [255, 65535])
@pytest.mark.parametrize("pose", list(POSES))
def test_an_identity_network_returns_the_photo_in_8_and_16_bits(pose: str, steps: int) -> None:
    (height, width), face = POSES[pose]
    photo = (rough(height, width) * steps).round() / steps
    settings = FaceSettings(own_shapes=0.5, strength=0.8)
    out, _, _ = outcomes_of(photo, [[face]], identity, settings, parser=lambda crops: [torch.ones(1, 1, 512, 512)])
    assert torch.equal((out * steps).round(), (photo * steps).round())
    assert (out - photo).abs().max() < 1 / 255


def test_a_network_that_returns_too_few_faces_is_named() -> None:
    with pytest.raises(NodeInputError, match="returned 0 faces of 1"):
        face_restore.restore_faces(smooth(200, 200), [[make_face(100, 100, 0.2)]], lambda _: [], FaceSettings())


def test_a_face_that_bears_no_change_is_not_called_restored() -> None:
    photo, face = smooth(200, 200), {**make_face(100, 100, 0.2), "number": 7}
    answer = GuardedStrength(0.0, 1.0, 0.31)
    out, mask, outcomes = outcomes_of(photo, [[face]], tinted, FaceSettings(), guard=lambda pairs, _: [answer])
    assert torch.equal(out, photo)
    assert mask.max() == 0
    text = face_restore.report(outcomes, photos=1, asked=1.0, needed=0.5, own=False)
    assert text.startswith("0 of 1 face restored.")
    assert "Face 7, 66 px high: left as it was, or it would have become somebody else (likeness 0.31)" in text
    assert text.endswith("0.50 was asked for.")


def test_the_guard_judges_what_will_be_seen() -> None:
    photo, face = smooth(200, 200), make_face(100, 100, 0.2)
    seen: list[torch.Tensor] = []

    def guard(pairs: Sequence[tuple[torch.Tensor, torch.Tensor]], asked: float) -> list[GuardedStrength]:
        seen.extend(after - before for before, after in pairs)
        return [GuardedStrength(asked, 1.0, 1.0) for _ in pairs]

    def upper_half(crops: Sequence[torch.Tensor]) -> list[torch.Tensor]:
        return [torch.cat((torch.ones(1, 1, 256, 512), torch.zeros(1, 1, 256, 512)), 2) for _ in crops]

    outcomes_of(photo, [[face]], tinted, FaceSettings(match_colour=False), parser=upper_half, guard=guard)
    assert seen[0][:, :, 256:].abs().max() == 0
    assert seen[0][:, :, :256].abs().max() > 0.05
