"""dlib's face recognition network on its real weights: the same numbers as face-api.js' code, and real people.

`PHOTOKEEP_FACE_PHOTOS` naming a folder of group photos, such as `demo/` of the npm package @vladmandic/face-api, adds a
check on them. They are of real people who were not asked, so they are not part of this repository.
"""

from __future__ import annotations

import os
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest
import torch
from identity_faces import COPIES, GOLDEN, astronaut, dlib_chips, people

import photokeep_nodes
from photokeep_nodes._arch import ffhq_window
from photokeep_nodes._arch.dlib_face import _MEAN_FACE, _PADDING, SIDE, WINDOW
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models.dlib_face import SPEC
from photokeep_nodes.models.retinaface_mobilenet import SPEC as DETECTOR
from photokeep_nodes.ops.detect_faces import detect
from photokeep_nodes.ops.faces import align, face_transform
from photokeep_nodes.weight_formats import read_state_dict

BUNDLED = Path(photokeep_nodes.__file__).parent / "bundled"
PHOTOS = os.environ.get("PHOTOKEEP_FACE_PHOTOS")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    return read_state_dict(BUNDLED / SPEC.weights[0].filename)


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return SPEC.build(state)


def embeddings(module: torch.nn.Module, faces: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        return torch.cat([module(few) for few in faces.split(10)])


def test_descriptors_are_those_of_face_api(module: torch.nn.Module) -> None:
    golden = np.load(GOLDEN)["dlib/descriptors"]
    chips = torch.from_numpy(dlib_chips()).permute(0, 3, 1, 2).float()
    with torch.inference_mode():
        # face-api.js divides by 255 where dlib, and our `forward`, divide by 256.
        ours = module.raw((chips - torch.tensor((122.782, 117.001, 104.298)).view(1, 3, 1, 1)) / 255)
    assert golden.std() > 0.1
    assert np.abs(golden[0] - golden[1]).max() > 0.1
    np.testing.assert_allclose(ours.numpy(), golden, atol=2e-5)


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert all(t.dtype == torch.float32 for t in tensors)
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())


def test_embeddings_have_unit_length_and_do_not_depend_on_the_batch(module: torch.nn.Module) -> None:
    faces = people()[:3]
    together = embeddings(module, faces)
    assert together.shape == (3, 128)
    torch.testing.assert_close(together.norm(dim=1), torch.ones(3))
    torch.testing.assert_close(embeddings(module, faces[1:2]), together[1:2], rtol=0, atol=1e-5)


@pytest.mark.parametrize("shape", [(1, 3, 150, 150), (1, 1, 512, 512), (3, 512, 512), (1, 3, 512, 511)])
def test_other_shapes_are_refused(module: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match=r"must be \(batch, 3, 512, 512\)"):
        module(torch.zeros(shape))


def test_other_weights_are_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="not those of dlib"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match=r"stem\.weight is bytes"):
        SPEC.build({name: tensor for name, tensor in state.items() if name != "stem.weight.levels"})
    with pytest.raises(WeightsFormatError, match="left over"):
        SPEC.build({**state, "stem.factor": torch.zeros(31, dtype=torch.uint8)})
    with pytest.raises(WeightsFormatError, match=r"head\.weight is \(128, 255\)"):
        SPEC.build({**state, "head.weight": torch.zeros(128, 255, dtype=torch.uint8)})
    with pytest.raises(WeightsFormatError, match="missing"):
        SPEC.build({name: tensor for name, tensor in state.items() if not name.startswith("blocks.7.conv1.bias")})


def test_the_window_brings_landmarks_to_dlibs_mean_face() -> None:
    goal = SIDE * (_PADDING + torch.tensor(_MEAN_FACE)) / (1 + 2 * _PADDING)
    here = torch.tensor(ffhq_window._LANDMARKS)
    found = (here - torch.tensor(WINDOW[:2])) * (SIDE / WINDOW.side)
    assert (found - goal).norm(dim=1).max() < 3.0  # of 150, where the eyes are 53 apart
    assert (found - goal).mean(0).abs().max() < 1e-3


def test_a_window_is_cut_to_a_fraction_of_a_pixel() -> None:
    tenth = 0.1 / 512
    across = ((torch.arange(512) + 0.5) / 512).expand(1, 3, 512, 512)
    out = ffhq_window.cut(across, WINDOW, SIDE)
    wanted = (WINDOW.left + (torch.arange(SIDE) + 0.5) * WINDOW.side / SIDE) / 512
    torch.testing.assert_close(out, wanted.expand(1, 3, SIDE, SIDE), rtol=0, atol=tenth)
    out = ffhq_window.cut(across.mT, WINDOW, SIDE)
    wanted = (WINDOW.top + (torch.arange(SIDE) + 0.5) * WINDOW.side / SIDE) / 512
    torch.testing.assert_close(out, wanted[:, None].expand(1, 3, SIDE, SIDE), rtol=0, atol=tenth)


def test_reducing_averages_what_it_cannot_show() -> None:
    stripes = (torch.arange(512) % 2).float().expand(1, 3, 512, 512)
    out = ffhq_window.cut(stripes, ffhq_window.Window(0.0, 0.0, 512.0), 128)[..., 1:-1]
    torch.testing.assert_close(out, torch.full_like(out, 0.5), rtol=0, atol=0.01)


@pytest.mark.parametrize("copy", sorted(COPIES))
def test_a_face_is_known_again(module: torch.nn.Module, copy: str) -> None:
    face = astronaut()
    before, after = embeddings(module, torch.cat((face, COPIES[copy](face))))
    assert SPEC.same_person < float(before @ after) < 0.99999


def test_strangers_are_told_apart(module: torch.nn.Module) -> None:
    faces = people()[:30]
    known = embeddings(module, faces)
    strangers = torch.tensor([float(known[i] @ known[j]) for i, j in combinations(range(len(faces)), 2)])
    copies = (known * embeddings(module, faces.flip(-1))).sum(1)
    assert copies.min() > SPEC.same_person + 0.02
    # Where the eyes are 7 px apart, and gray. At the size of the photos below it is a few in a thousand.
    assert (strangers > SPEC.same_person).float().mean() < 0.1
    assert strangers.median() < 0.89
    better = (copies[:, None] > strangers).float().mean()
    assert better > 0.999
    assert (embeddings(module, astronaut()) @ known.T).max() < SPEC.same_person


@pytest.mark.slow
@pytest.mark.skipif(PHOTOS is None, reason="needs PHOTOKEEP_FACE_PHOTOS to name a folder of group photos (.jpg)")
def test_people_in_photos_are_known_again_and_told_apart(module: torch.nn.Module) -> None:
    from PIL import Image, ImageOps

    detector = DETECTOR.build(read_state_dict(BUNDLED / DETECTOR.weights[0].filename))
    copies, strangers = [], []
    for path in sorted(Path(PHOTOS).glob("*.jpg")):
        photo = np.asarray(ImageOps.exif_transpose(Image.open(path)).convert("RGB"), dtype=np.float32) / 255
        image = torch.from_numpy(photo).permute(2, 0, 1)[None]
        crops = [align(image, face_transform(face)) for face in detect(detector, image, min_score=0.9)[0]]
        if not crops:
            continue
        known = embeddings(module, torch.cat(crops))
        # Nobody is twice in one photo.
        strangers += [float(known[i] @ known[j]) for i, j in combinations(range(len(crops)), 2)]
        for crop, before in zip(crops, known, strict=True):
            again = embeddings(module, torch.cat([copy(crop) for copy in COPIES.values()]))
            copies += (again @ before).tolist()
    assert strangers
    alike, unlike = torch.tensor(copies), torch.tensor(strangers)
    assert alike.min() > SPEC.same_person
    # Photographed together they are alike in light and often in age: two of the 31 pairs in the package's six photos.
    assert (unlike > SPEC.same_person).float().mean() < 0.1
    assert (alike[:, None] > unlike).float().mean() > 0.999
