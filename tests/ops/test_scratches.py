"""The classical detector: drawn scratches with known places, and photos without any."""

from __future__ import annotations

import itertools
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image
from skimage import data

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import masks, scratches


def plain(height: int = 240, width: int = 320, noise: float = 2.0) -> torch.Tensor:
    """A soft ramp with a little grain."""
    ramp = torch.linspace(0.35, 0.6, width).expand(1, 3, height, width)
    return (ramp + torch.randn(1, 1, height, width, generator=torch.Generator().manual_seed(3)) * noise / 255).clamp(
        0, 1
    )


def drawn(
    image: torch.Tensor, points: list[tuple[float, float]], wide: float, value: float, opacity: float = 1.0
) -> tuple[torch.Tensor, torch.Tensor]:
    """The photo with an antialiased line, and where it is."""
    fine = np.zeros((image.shape[-2] * 4, image.shape[-1] * 4), np.uint8)
    corners = np.round(np.array(points) * 4).astype(np.int32)
    cv2.polylines(fine, [corners], isClosed=False, color=255, thickness=max(1, round(wide * 4)))
    small = cv2.resize(fine, (image.shape[-1], image.shape[-2]), interpolation=cv2.INTER_AREA)
    cover = torch.from_numpy(small)[None, None].float() / 255
    return image.lerp(torch.full_like(image, value), cover * opacity), cover > 0.3


def covered(found: torch.Tensor, where: torch.Tensor) -> float:
    grown = masks.grow(found, masks.auto_grow(*found.shape[-2:])) > 0
    return float((grown & where).sum() / where.sum())


def off(found: torch.Tensor, where: torch.Tensor, pixels: float = 4) -> float:
    """Share of the photo that is marked beside the damage."""
    return float(((found > 0) & (masks.grow(where.float(), pixels) == 0)).float().mean())


CURVE = [(20.0, 40.0), (90.0, 70.0), (160.0, 90.0), (230.0, 150.0), (280.0, 210.0)]


@pytest.mark.parametrize("value", [0.95, 0.03])
@pytest.mark.parametrize("wide", [1.0, 2.0, 3.5, 6.0])
def test_lines_of_every_width_are_found_and_little_else(wide: float, value: float) -> None:
    damaged, where = drawn(plain(), CURVE, wide, value)
    found = scratches.detect(damaged)
    assert found.shape == (1, 1, 240, 320)
    assert found.unique().tolist() == [0.0, 1.0]
    assert covered(found, where) > 0.9
    assert off(found, where) < 0.001


def test_film_scratches_along_a_whole_photo() -> None:
    damaged, where = drawn(plain(), [(100.5, -5.0), (102.0, 245.0)], 1.2, 0.95, 0.5)
    assert covered(scratches.detect(damaged), where) > 0.9


@pytest.mark.parametrize("wide", [1, 3])
@pytest.mark.parametrize("side", ["top", "bottom", "left", "right"])
def test_a_scratch_along_the_outermost_rows_is_found(side: str, wide: int) -> None:
    """It has one flank only."""
    where = torch.zeros(1, 1, 240, 320, dtype=torch.bool)
    rows, columns = where, where.transpose(-1, -2)
    outermost = slice(None, wide) if side in {"top", "left"} else slice(-wide, None)
    (rows if side in {"top", "bottom"} else columns)[:, :, outermost] = True
    found = scratches.detect(torch.where(where, torch.tensor(0.95), plain()))
    assert covered(found, where) > 0.9
    assert off(found, where) < 0.001


def test_an_edge_is_no_scratch() -> None:
    image = torch.full((1, 3, 200, 300), 0.3)
    image[..., 140:] = 0.8
    image[..., 100:, :] *= 0.6
    assert scratches.detect(image, 0.9).sum() == 0


# On the last two there are rules: thin, straight and long, as scratches are, and taken for such.
@pytest.mark.parametrize(
    ("name", "most"), [("grass", 0.002), ("gravel", 0.002), ("brick", 0.002), ("text", 0.05), ("page", 0.03)]
)
def test_textures_and_letters_are_left_alone(name: str, most: float) -> None:
    texture = torch.from_numpy(getattr(data, name)().copy()).float()[None, None].expand(1, 3, -1, -1) / 255
    assert scratches.detect(texture).mean() < most


@pytest.mark.parametrize("name", ["astronaut", "cat", "camera"])
def test_clean_photos_stay_almost_clean(name: str) -> None:
    pixels = torch.from_numpy(getattr(data, name)().copy()).float() / 255
    image = pixels.permute(2, 0, 1)[None] if pixels.ndim == 3 else pixels.expand(1, 3, -1, -1)
    assert scratches.detect(image).mean() < 0.006


def test_eyes_and_mouth_of_a_portrait_are_not_marked() -> None:
    face = torch.from_numpy(data.astronaut().copy()).permute(2, 0, 1)[None].float() / 255
    assert scratches.detect(face)[..., 85:160, 190:260].sum() == 0


def test_dust_is_found_and_told_from_scratches() -> None:
    image, lines = drawn(plain(), CURVE, 2.0, 0.95)
    specks = torch.zeros_like(lines)
    for y, x in ((30, 200), (60, 290), (150, 60), (200, 120), (220, 30)):
        specks[..., y - 1 : y + 2, x - 1 : x + 2] = True
    damaged = torch.where(specks, torch.tensor(0.02), image)
    dust, scratched, both = (scratches.detect(damaged, what=what) for what in ("dust", "scratches", "all"))
    assert covered(dust, specks) == 1
    assert covered(dust, lines) < 0.1
    assert covered(scratched, lines) > 0.9
    assert covered(scratched, specks) == 0
    assert torch.equal(both, torch.maximum(dust, scratched))
    assert scratches.count(masks.grow(dust, 1)[0]) == (0, 5)


def test_a_mask_is_divided_into_lines_and_specks() -> None:
    mask = torch.zeros(2, 1, 100, 100)
    mask[0, 0, 10, 10:60] = 1
    mask[0, 0, 50:53, 20:23] = 1
    assert scratches.only(mask, "scratches")[0].sum() == 50
    assert scratches.only(mask, "dust")[0].sum() == 9
    assert scratches.only(mask, "all").sum() == 59
    assert scratches.count(mask[0]) == (1, 1)
    assert scratches.count(mask[1]) == (0, 0)


def torn(value: float, scale: int = 1) -> torch.Tensor:
    image = plain(240 * scale, 320 * scale)
    outline = np.array([(270, -1), (285, 14), (300, 18), (330, 50), (330, -1)]) * scale
    mask = np.zeros(image.shape[-2:], np.uint8)
    cv2.fillPoly(mask, [outline.astype(np.int32)], 1)
    return torch.where(torch.from_numpy(mask > 0), torch.tensor(value), image)


@pytest.mark.parametrize("scale", [1, 5])
@pytest.mark.parametrize("value", [0.99, 0.0])
def test_a_torn_corner_is_found(value: float, scale: int) -> None:
    image = torn(value, scale)
    found = scratches.detect(image, what="scratches")
    where = (image == value).all(1, keepdim=True)
    assert covered(found, where) > 0.99
    assert off(found, where, 4 * scale) < 0.002


def test_a_white_sky_and_a_border_are_no_torn_corners() -> None:
    image = plain()
    image[..., :60, :] = 1.0
    assert scratches.detect(image, 0.6).sum() == 0
    framed = plain()
    framed[..., :12, :] = framed[..., -12:, :] = 1.0
    framed[..., :, :12] = framed[..., :, -12:] = 1.0
    assert scratches.detect(framed, 0.6).sum() == 0


def test_sensitivity_only_adds() -> None:
    damaged, where = drawn(plain(noise=4.0), CURVE, 1.0, 0.7, 0.6)
    scores = scratches.score(damaged)
    found = [scratches.select(scores, sensitivity) for sensitivity in (0.0, 0.3, 0.5, 0.8, 1.0)]
    assert found[0].sum() == 0
    for less, more in itertools.pairwise(found):
        assert (more >= less).all()
    assert covered(found[-1], where) > 0.8


@pytest.mark.parametrize("name", ["tiles", "copies"])
def test_large_photos_are_found_in_tiles_without_seams(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    damaged, _ = drawn(plain(300, 420), [(10.0, 20.0), (400.0, 280.0)], 2.0, 0.95)
    whole = scratches.score(damaged)
    if name == "tiles":
        monkeypatch.setattr(scratches, "_TILE", 128)
    else:
        monkeypatch.setattr("photokeep_nodes.ops.thin_lines._TILE", 64)
    calls: list[int] = []
    tiled = scratches.score(damaged, after_tile=lambda: calls.append(1))
    assert torch.equal(tiled, whole)
    assert len(calls) == scratches.steps(300, 420)


@pytest.mark.slow
def test_hairlines_and_creases_of_a_large_scan() -> None:
    image = plain(1500, 4000, noise=4.0)
    damaged, hairline = drawn(image, [(300.0, 200.0), (1500.0, 600.0), (2500.0, 500.0)], 1.2, 0.9)
    damaged, crease = drawn(damaged, [(500.0, 1000.0), (3500.0, 1200.0)], 10.0, 0.85)
    found = scratches.detect(damaged)
    assert covered(found, hairline) > 0.9
    assert covered(found, crease) > 0.9
    assert off(found, hairline | crease, 8) < 0.0005


def test_batches_are_taken_one_by_one_and_keep_the_input() -> None:
    first, _ = drawn(plain(), CURVE, 2.0, 0.95)
    second = plain().flip(-1)
    batch = torch.cat([first, second])
    before = batch.clone()
    found = scratches.detect(batch)
    assert torch.equal(batch, before)
    assert torch.equal(found[:1], scratches.detect(first))
    assert found[1].sum() == 0


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (3, 500), (500, 2), (17, 9)])
def test_tiny_photos(size: tuple[int, int]) -> None:
    image = torch.rand(1, 3, *size, generator=torch.Generator().manual_seed(0))
    found = scratches.score(image)
    assert found.shape == (1, 1, *size)
    assert torch.isfinite(found).all()


def test_what_is_no_photo_is_refused() -> None:
    with pytest.raises(NodeInputError, match="batch, 3"):
        scratches.score(torch.zeros(1, 1, 8, 8))
    with pytest.raises(NodeInputError, match="not numbers"):
        scratches.score(torch.full((1, 3, 8, 8), float("nan")))


FACE = {
    "box": [100.0, 80.0, 200.0, 220.0],
    "score": 0.99,
    "landmarks": [[130.0, 130.0], [170.0, 130.0], [150.0, 155.0], [133.0, 180.0], [167.0, 180.0]],
}


def test_eyes_and_mouth_are_kept_out_and_the_cheeks_are_not() -> None:
    keep = scratches.face_keep_out([FACE], 300, 300)  # type: ignore[list-item]
    assert keep.shape == (1, 1, 300, 300)
    for x, y in ((130, 130), (170, 130), (150, 180), (135, 180), (142, 130), (130, 137)):
        assert keep[0, 0, y, x] == 1
    for x, y in ((150, 100), (150, 130), (115, 165), (150, 155), (150, 210), (20, 20)):
        assert keep[0, 0, y, x] == 0
    assert keep.sum() < 0.25 * 100 * 140


def test_what_is_kept_out_grows_and_turns_with_the_face() -> None:
    keep = scratches.face_keep_out([FACE], 300, 300)  # type: ignore[list-item]
    twice = {**FACE, "box": [2 * v for v in FACE["box"]], "landmarks": [[2 * x, 2 * y] for x, y in FACE["landmarks"]]}  # type: ignore[attr-defined]
    large = scratches.face_keep_out([twice], 600, 600)  # type: ignore[list-item]
    assert float(large.sum() / keep.sum()) == pytest.approx(4, rel=0.05)
    # Lying on its side: x, y becomes y, x.
    box = FACE["box"]
    lying = {**FACE, "box": [box[1], box[0], box[3], box[2]], "landmarks": [[y, x] for x, y in FACE["landmarks"]]}  # type: ignore[index, attr-defined]
    turned = scratches.face_keep_out([lying], 300, 300)  # type: ignore[list-item]
    assert (turned != keep.transpose(-1, -2)).float().mean() < 0.002


def test_a_face_from_the_side_keeps_its_eye() -> None:
    """Its eyes are on top of each other in the photo: the box tells how large they are."""
    side = {**FACE, "landmarks": [[120.0, 130.0], [122.0, 130.0], [105.0, 155.0], [118.0, 180.0], [120.0, 180.0]]}
    keep = scratches.face_keep_out([side], 300, 300)  # type: ignore[list-item]
    assert keep[0, 0, 130, 110] == 1
    assert keep[0, 0, 180, 110] == 1


def test_faces_beyond_the_border_and_none() -> None:
    outside = {**FACE, "landmarks": [[x - 180.0, y] for x, y in FACE["landmarks"]]}  # type: ignore[attr-defined]
    assert scratches.face_keep_out([outside], 300, 300).sum() >= 0  # type: ignore[list-item]
    far = {**FACE, "landmarks": [[x + 1e12, y] for x, y in FACE["landmarks"]]}  # type: ignore[attr-defined]
    assert scratches.face_keep_out([far], 300, 300).sum() == 0  # type: ignore[list-item]
    assert scratches.face_keep_out([], 30, 40).sum() == 0


def test_a_long_scratch_is_found_in_grain() -> None:
    """The sample photo's: it runs from the wall over the helmet and the suit, in film grain of 10 of 255."""
    with Image.open(Path(__file__).parents[2] / "workflows" / "old_portrait.jpg") as file:
        photo = torch.from_numpy(np.array(file.convert("RGB"))).permute(2, 0, 1)[None] / 255
    marked = scratches.detect(photo, 0.5, "scratches")[0, 0] > 0
    height, width = marked.shape
    found = 0
    for row in range(20, 240):
        at = width * (0.16 - 0.05 * (row / height - 0.02) / 0.96)
        found += bool(marked[row, round(at) - 8 : round(at) + 9].any())
    assert found > 130
    assert marked.float().mean() < 0.05
    face = marked[50:140, 70:145]
    assert not bool(face.any())
