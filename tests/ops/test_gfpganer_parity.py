"""Step by step beside GFPGANer of the gfpgan package: detector, alignment, network and pasting on one photo.

``tests/data/gfpganer.npz`` holds what it made (see the README there) with the weights that are used here. Two things
are done otherwise on purpose, and each is measured here:

- Half a pixel. facexlib takes the detector's landmarks, for which pixel j spans [j, j + 1), for positions at which
  pixels are centred on whole numbers. So its crops show the photo half a pixel further right and down than its own
  template says. ``face_transform`` adds the half pixel to the template instead.
- Pasting. facexlib lays the network's face into the photo, which costs the photo's own sharpness, and reads it at
  single points, which at a third of the size turns detail into noise. ``paste`` adds what the network changed, averaged
  over the area of each pixel.

Its least median of squares and our least squares without an outlier agree on a face whose five landmarks do.
"""

from __future__ import annotations

from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from restorers import STEP, random_weights, with_waves
from skimage import data

import photokeep_nodes
from photokeep_nodes.models import gfpgan_v1_4, retinaface_mobilenet
from photokeep_nodes.ops.detect_faces import Face, detect
from photokeep_nodes.ops.faces import align, face_transform, paste, template
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "gfpganer.npz")
SHOWN = (..., slice(60, 190, 3), slice(160, 290, 3))
"""Rows and columns around the face of which the result was kept."""
BUNDLED = Path(photokeep_nodes.__file__).parent / "bundled"


def pixels(image: torch.Tensor) -> np.ndarray:
    """(1, 3, H, W) in [0, 1] to (H, W, 3) in [0, 255], not rounded."""
    return (image[0] * 255).permute(1, 2, 0).numpy()


@pytest.fixture(scope="module")
def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW


@pytest.fixture(scope="module")
def face(photo: torch.Tensor) -> Face:
    spec = retinaface_mobilenet.SPEC
    ((found,),) = detect(spec.build(read_state_dict(BUNDLED / spec.weights[0].filename)), photo)
    return found


@pytest.fixture(scope="module")
def theirs() -> torch.Tensor:
    """Their matrix for continuous coordinates: it takes whole numbers to whole numbers, pixels' centres lie between."""
    matrix = torch.from_numpy(GOLDEN["matrix"])
    half = torch.full((2, 1), 0.5, dtype=torch.float64)
    return torch.cat((matrix[:, :2], matrix[:, 2:] + half - matrix[:, :2] @ half), 1)


@pytest.fixture(scope="module")
def their_crop() -> torch.Tensor:
    """Made again, for of theirs only some pixels were kept; RGB, so the border's colours are the other way around."""
    crop = cv2.warpAffine(data.astronaut(), GOLDEN["matrix"], (512, 512), borderValue=(132, 133, 135))
    np.testing.assert_array_equal(crop[::STEP, ::STEP], GOLDEN["crop"])
    return torch.from_numpy(crop / np.float32(255)).permute(2, 0, 1)[None]


def in_photo(transform: torch.Tensor, points: torch.Tensor) -> torch.Tensor:
    """Where the photo has what the crop shows at ``points`` (N, 2)."""
    return torch.linalg.solve(transform[:, :2], points.T - transform[:, 2:]).T


def test_the_detector_finds_the_same_face(face: Face) -> None:
    np.testing.assert_allclose(face["landmarks"], GOLDEN["landmarks"], rtol=0, atol=1e-3)
    np.testing.assert_allclose([*face["box"], face["score"]], GOLDEN["box"], rtol=0, atol=1e-3)


def test_the_fit_is_theirs_but_for_half_a_pixel(face: Face, theirs: torch.Tensor) -> None:
    ours = face_transform(face)
    np.testing.assert_allclose(ours[:, :2], theirs[:, :2], rtol=0, atol=1e-3)
    off = in_photo(theirs, template()) - in_photo(ours, template())
    np.testing.assert_allclose(off, np.full((5, 2), 0.5), rtol=0, atol=5e-3)


def test_the_crop_is_theirs_up_to_rounding(
    photo: torch.Tensor, face: Face, theirs: torch.Tensor, their_crop: torch.Tensor
) -> None:
    same_place = np.abs(pixels(align(photo, theirs)) - pixels(their_crop))
    assert same_place.max() < 1.0  # theirs is rounded to whole numbers, from positions in 1/32 px
    assert same_place.mean() < 0.3
    # Our own transform, moved by the half pixel that it leaves out.
    moved = face_transform(face)
    moved[:, 2:] -= moved[:, :2] @ torch.full((2, 1), 0.5, dtype=torch.float64)
    assert np.abs(pixels(align(photo, moved)) - pixels(their_crop)).max() < 1.5
    # And not moved: the half pixel is what makes the difference.
    assert np.abs(pixels(align(photo, face_transform(face))) - pixels(their_crop)).mean() > 3.0


def _core(transform: torch.Tensor) -> np.ndarray:
    """Which of the pixels shown are well inside the crop, where either mask is 1."""
    rows, columns = (torch.arange(each.start, each.stop, each.step, dtype=torch.float64) + 0.5 for each in SHOWN[1:])
    at = torch.stack((columns.expand(len(rows), -1), rows[:, None].expand(-1, len(columns))))
    crop = torch.einsum("ij,jhw->ihw", transform[:, :2], at) + transform[:, 2:, None]
    core: np.ndarray = ((crop - 256).square().sum(0).sqrt() < 0.7 * 256).numpy()
    return core


def test_a_smooth_change_is_pasted_as_theirs(
    photo: torch.Tensor, theirs: torch.Tensor, their_crop: torch.Tensor
) -> None:
    """What differs is what resampling costs them: the photo's own contours, which ours keeps."""
    changed = torch.from_numpy(with_waves(np.rint(pixels(their_crop)).astype(np.uint8)) / np.float32(255))
    pasted, mask = paste(photo, changed.permute(2, 0, 1)[None], their_crop, theirs)
    core = _core(theirs)
    assert core.sum() > 900
    assert mask[SHOWN][0].numpy()[core].min() == 1.0
    off = np.abs(pixels(pasted[SHOWN]) - GOLDEN["waves"])[core]
    assert off.mean() < 1.5
    assert off.max() < 15.0
    # Where something was changed at all, the photo itself is far off.
    assert np.abs(pixels(photo[SHOWN]) - GOLDEN["waves"])[core].mean() > 10


@pytest.mark.slow
def test_the_network_and_the_result_are_theirs(photo: torch.Tensor, face: Face, their_crop: torch.Tensor) -> None:
    network = gfpgan_v1_4.SPEC.build(random_weights("gfpgan-1.4"))
    transform = face_transform(face)
    aligned = align(photo, transform)
    with torch.no_grad():
        of_theirs, restored = network(their_crop), network(aligned)
    # Theirs is rounded to whole numbers.
    assert np.abs(pixels(of_theirs)[::STEP, ::STEP] - GOLDEN["restored"]).max() < 0.55
    # All of ours, half pixel and own way of pasting included. A random network draws noise, of which their warp takes
    # every third pixel, and ours the average.
    pasted, _ = paste(photo, restored, aligned, transform)
    core = _core(transform)
    assert np.abs(pixels(pasted[SHOWN]) - GOLDEN["pasted"])[core].mean() < 5.0
    assert np.abs(pixels(photo[SHOWN]) - GOLDEN["pasted"])[core].mean() > 40
