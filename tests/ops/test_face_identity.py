"""The guard on synthetic embeddings, whose answers are known, and with the bundled network on a real face."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from identity_faces import astronaut, blurred, people

import photokeep_nodes
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.models.dlib_face import SPEC
from photokeep_nodes.ops.face_identity import guarded_strength, similarity
from photokeep_nodes.weight_formats import read_state_dict

CROP, RESTORED = torch.zeros(1, 3, 8, 8), torch.ones(1, 3, 8, 8)


class Turning:
    """Embeds a flat face as a direction, by default at an angle as large in radians as it is bright."""

    def __init__(self, angle=lambda value: value) -> None:
        self.angle, self.seen = angle, []

    def __call__(self, face: torch.Tensor) -> torch.Tensor:
        assert face.shape == CROP.shape
        assert face.min() >= 0
        assert face.max() <= 1
        self.seen.append(float(face.mean()))
        angle = self.angle(self.seen[-1])
        return torch.tensor([[3 * math.cos(angle), 3 * math.sin(angle)]])


def test_similarity_is_the_cosine() -> None:
    assert similarity(Turning(), CROP, RESTORED) == pytest.approx(math.cos(1), abs=1e-6)
    assert similarity(Turning(), RESTORED, RESTORED) == pytest.approx(1, abs=1e-6)
    assert similarity(Turning(lambda value: math.pi * value), CROP, RESTORED) == pytest.approx(-1, abs=1e-6)


def test_a_strength_that_keeps_the_likeness_is_kept_exactly() -> None:
    embed = Turning()
    found = guarded_strength(embed, CROP, RESTORED, strength=0.7, least=0.7)
    assert found.strength == 0.7
    assert found.similarity == found.similarity_at_requested == pytest.approx(math.cos(0.7), abs=1e-6)
    assert embed.seen == pytest.approx([0, 0.7])


@pytest.mark.parametrize("bearable", [0.08, 0.3, 0.5, 0.77, 0.99])
@pytest.mark.parametrize("strength", [1.0, 0.8])
def test_the_largest_strength_is_found(bearable: float, strength: float) -> None:
    embed = Turning()
    limit = bearable * strength
    found = guarded_strength(embed, CROP, RESTORED, strength=strength, least=math.cos(limit))
    assert limit - strength / 16 <= found.strength <= limit
    assert found.similarity == pytest.approx(math.cos(found.strength), abs=1e-6)
    assert found.similarity >= math.cos(limit) > found.similarity_at_requested
    assert found.similarity_at_requested == pytest.approx(math.cos(strength), abs=1e-6)
    assert len(embed.seen) <= 6
    assert max(embed.seen) <= strength + 1e-6


def test_nothing_is_restored_when_the_least_change_makes_another_person() -> None:
    embed = Turning(lambda value: 1.0 if value > 0 else 0.0)
    found = guarded_strength(embed, CROP, RESTORED, strength=1.0, least=0.9)
    assert found.strength == 0
    assert found.similarity == 1
    assert found.similarity_at_requested == pytest.approx(math.cos(1), abs=1e-6)


def test_what_is_returned_was_looked_at_even_where_the_curve_goes_up_again() -> None:
    embed = Turning(lambda value: math.sin(9 * value))
    found = guarded_strength(embed, CROP, RESTORED, strength=0.5, least=math.cos(0.4))
    assert any(value == pytest.approx(found.strength) for value in embed.seen)
    assert found.similarity >= math.cos(0.4)
    assert found.similarity == pytest.approx(math.cos(math.sin(9 * found.strength)), abs=1e-5)


def test_a_network_that_knows_nothing_stops_the_restoration() -> None:
    found = guarded_strength(lambda face: torch.tensor([[math.nan, 1.0]]), CROP, RESTORED, strength=1.0, least=0.5)
    assert found.strength == 0
    assert math.isnan(found.similarity)
    assert math.isnan(found.similarity_at_requested)
    assert math.isnan(similarity(lambda face: torch.tensor([[math.nan, 1.0]]), CROP, RESTORED))


def test_not_a_number_is_not_alike() -> None:
    embed = Turning(lambda value: math.nan if value > 0.3 else 0.1 * value)
    found = guarded_strength(embed, CROP, RESTORED, strength=1.0, least=0.9)
    assert found.strength == 0.25
    assert found.similarity > 0.99
    assert math.isnan(found.similarity_at_requested)


def test_an_embedding_of_nothing_is_like_no_other() -> None:
    found = guarded_strength(lambda face: torch.zeros(1, 4), CROP, RESTORED, strength=1.0, least=0.5)
    assert found.strength == 0
    assert found.similarity_at_requested == 0


def test_nothing_is_embedded_where_nothing_changes() -> None:
    embed = Turning()
    assert guarded_strength(embed, CROP, RESTORED, strength=0.0, least=0.9) == (0, 1, 1)
    assert guarded_strength(embed, CROP, CROP, strength=0.6, least=0.9) == (0.6, 1, 1)
    assert embed.seen == []


def test_the_blend_is_clamped_as_the_photo_is() -> None:
    embed = Turning()
    found = guarded_strength(embed, CROP, RESTORED * 5, strength=1.0, least=math.cos(0.8))
    assert 0 < found.strength * 5 <= 0.8
    assert max(embed.seen) == 1


def test_embeddings_of_half_precision_will_do() -> None:
    found = guarded_strength(lambda face: Turning()(face).half(), CROP, RESTORED, strength=1.0, least=math.cos(0.5))
    assert 0.4 < found.strength <= 0.51


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"strength": -0.1}, "0 or more"),
        ({"strength": math.nan}, "0 or more"),
        ({"strength": math.inf}, "0 or more"),
        ({"least": 1.1}, "between -1 and 1"),
        ({"least": math.nan}, "between -1 and 1"),
        ({"restored": torch.ones(1, 3, 8, 9)}, "are compared"),
        ({"crop": torch.ones(2, 3, 8, 8), "restored": torch.ones(2, 3, 8, 8)}, "are compared"),
        ({"embed": lambda face: torch.ones(4)}, "not \\(1, features\\)"),
        ({"embed": lambda face: torch.ones(2, 4)}, "not \\(1, features\\)"),
    ],
)
def test_what_cannot_be_is_refused(change: dict, message: str) -> None:
    inputs = {"embed": Turning(), "crop": CROP, "restored": RESTORED, "strength": 1.0, "least": 0.5, **change}
    with pytest.raises(NodeInputError, match=message):
        guarded_strength(
            inputs["embed"], inputs["crop"], inputs["restored"], strength=inputs["strength"], least=inputs["least"]
        )


@pytest.fixture(scope="module")
def embed() -> torch.nn.Module:
    path = Path(photokeep_nodes.__file__).parent / "bundled" / SPEC.weights[0].filename
    return SPEC.build(read_state_dict(path))


def test_a_face_that_only_gets_sharper_is_restored_as_asked(embed) -> None:
    sharp = astronaut()
    found = guarded_strength(embed, blurred(sharp, 8), sharp, strength=0.9, least=SPEC.same_person)
    assert found.strength == 0.9
    assert found.similarity > SPEC.same_person


def test_a_face_that_becomes_somebody_else_is_not(embed) -> None:
    her, somebody_else = astronaut(), people()[3:4]
    found = guarded_strength(embed, her, somebody_else, strength=1.0, least=SPEC.same_person)
    assert 0 < found.strength < 0.8
    assert found.similarity >= SPEC.same_person > found.similarity_at_requested
    blend = her + found.strength * (somebody_else - her)
    assert similarity(embed, her, blend) == pytest.approx(found.similarity, abs=1e-5)
    beyond = her + (found.strength + 1 / 16) * (somebody_else - her)
    assert similarity(embed, her, beyond) < SPEC.same_person
