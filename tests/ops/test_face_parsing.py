from __future__ import annotations

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops.face_parsing import CLASSES, RESTORED, face_mask

SIDE = 512


def parsed(*regions: tuple[str, slice, slice], side: int = SIDE) -> torch.Tensor:
    """Probabilities of a picture that is certain of everything: background, and later regions over earlier ones."""
    labels = torch.zeros(side, side, dtype=torch.long)
    for name, rows, columns in regions:
        labels[rows, columns] = CLASSES.index(name)
    return torch.nn.functional.one_hot(labels, len(CLASSES)).permute(2, 0, 1)[None].float()


FACE = ("skin", slice(120, 440), slice(130, 380))


def test_it_is_one_on_the_face_and_zero_off_it() -> None:
    mask = face_mask(parsed(FACE))
    assert mask.shape == (1, 1, SIDE, SIDE)
    assert mask.dtype == torch.float32
    assert mask[..., 150:410, 160:350].min() > 0.99
    outside = torch.ones(SIDE, SIDE, dtype=torch.bool)
    outside[FACE[1:]] = False
    assert mask[0, 0][outside].max() == 0
    assert mask.min() == 0
    assert mask.max() <= 1


@pytest.mark.parametrize("name", CLASSES)
def test_which_classes_count(name: str) -> None:
    wanted = {
        "skin", "left_brow", "right_brow", "left_eye", "right_eye", "glasses", "left_ear", "right_ear",
        "nose", "mouth", "upper_lip", "lower_lip",
    }  # fmt: skip
    assert wanted == RESTORED
    mask = face_mask(parsed((name, *FACE[1:])))
    assert float(mask[0, 0, 280, 255]) == (pytest.approx(1, abs=1e-3) if name in wanted else 0)


def test_the_order_is_bisenets_and_not_that_of_the_data_set() -> None:
    """By number: in CelebAMask-HQ's own order 13 is the hair, and 17 the neck."""
    assert len(CLASSES) == 19
    numbers = {CLASSES.index(name) for name in RESTORED}
    assert numbers == {1, 2, 3, 4, 5, 6, 7, 8, 10, 11, 12, 13}
    assert (CLASSES[14], CLASSES[16], CLASSES[17], CLASSES[18]) == ("neck", "cloth", "hair", "hat")


def test_parts_of_a_face_leave_no_seams_between_them() -> None:
    parts = parsed(
        FACE,
        ("left_eye", slice(220, 240), slice(170, 220)),
        ("right_eye", slice(220, 240), slice(290, 340)),
        ("nose", slice(240, 310), slice(235, 275)),
        ("upper_lip", slice(350, 362), slice(205, 305)),
        ("mouth", slice(362, 370), slice(205, 305)),
    )
    torch.testing.assert_close(face_mask(parts), face_mask(parsed(FACE)), rtol=0, atol=1e-5)


@pytest.mark.parametrize("feather", [4.0, 10.0, 25.0])
def test_no_edge_is_hard(feather: float) -> None:
    mask = face_mask(parsed(FACE), feather=feather)[0, 0]
    steps = torch.cat([(mask[1:] - mask[:-1]).abs().flatten(), (mask[:, 1:] - mask[:, :-1]).abs().flatten()])
    assert steps.max() < 1.3 / feather
    # It rises inwards from the outline, and takes about twice the feather.
    profile = mask[280, 130:]
    assert profile[0] < 0.05
    assert profile[round(2.5 * feather)] > 0.98
    assert (profile[1:125] >= profile[:124] - 1e-6).all()


def test_hair_over_the_face_is_kept_and_a_stray_hair_is_not_seen() -> None:
    mask = face_mask(
        parsed(FACE, ("hair", slice(120, 200), slice(130, 380)), ("hair", slice(300, 302), slice(130, 380)))
    )
    assert mask[0, 0, 120:200].max() == 0
    assert mask[0, 0, 301, 180:330].min() > 0.9


def test_it_fades_to_zero_at_the_crops_border() -> None:
    mask = face_mask(parsed(("skin", slice(None), slice(None))))[0, 0]
    for edge in (mask[:4], mask[-4:], mask[:, :4], mask[:, -4:]):
        assert edge.max() == 0
    assert mask[40:-40, 40:-40].min() == 1
    assert (mask[1:] - mask[:-1]).abs().max() < 0.06
    torch.testing.assert_close(mask, mask.flip(0), rtol=0, atol=1e-6)
    torch.testing.assert_close(mask, mask.T, rtol=0, atol=1e-6)


def test_what_the_parser_is_not_sure_of_is_changed_less() -> None:
    def unsure(sure: float) -> float:
        probabilities = sure * parsed(FACE) + (1 - sure) * parsed(("hair", *FACE[1:]))
        return float(face_mask(probabilities)[0, 0, 280, 255])

    assert unsure(1.0) == pytest.approx(1, abs=1e-4)
    assert unsure(0.9) > unsure(0.75) > unsure(0.6) > 0
    assert unsure(0.5) == pytest.approx(0, abs=1e-6)


def test_each_face_of_a_batch_has_its_own() -> None:
    other = ("nose", slice(200, 300), slice(200, 300))
    both = face_mask(torch.cat([parsed(FACE), parsed(other), parsed()]))
    torch.testing.assert_close(both[:1], face_mask(parsed(FACE)), rtol=0, atol=1e-6)
    torch.testing.assert_close(both[1:2], face_mask(parsed(other)), rtol=0, atol=1e-6)
    assert both[2].max() == 0


def test_other_sizes_and_types() -> None:
    small = face_mask(parsed(("skin", slice(None), slice(None)), side=64), feather=2.0)
    assert small.shape == (1, 1, 64, 64)
    assert small[0, 0, 0].max() == 0
    assert small[0, 0, 32, 32] == 1
    assert face_mask(parsed(FACE).half()).dtype == torch.float16
    assert face_mask(parsed(("skin", slice(None), slice(None)), side=5)).shape == (1, 1, 5, 5)


@pytest.mark.parametrize("shape", [(19, 512, 512), (1, 18, 512, 512), (1, 1, 512, 512), (0, 19, 512, 512)])
def test_other_shapes_are_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="a face mask is made of"):
        face_mask(torch.zeros(shape))


@pytest.mark.parametrize("feather", [0.0, -1.0, 101.0, float("nan")])
def test_other_feathers_are_refused(feather: float) -> None:
    with pytest.raises(NodeInputError, match="feather of a face mask"):
        face_mask(torch.zeros(1, 19, 8, 8), feather=feather)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_what_is_no_number_is_refused(value: float) -> None:
    probabilities = parsed(FACE, side=64)
    probabilities[0, 3, 5, 5] = value
    with pytest.raises(NodeInputError, match="not numbers"):
        face_mask(probabilities)
