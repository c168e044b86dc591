"""The analysis as data and as text."""

from __future__ import annotations

import json
import re

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from skimage import data

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.ops import analysis, measures


def photo(name: str, size: tuple[int, int] | None = None) -> torch.Tensor:
    array = getattr(data, name)()
    array = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1)
    image = torch.from_numpy(array.copy()).float().permute(2, 0, 1)[None] / 255
    return image if size is None else F.interpolate(image, size, mode="bicubic").clamp(0, 1)


def noisy(image: torch.Tensor, sigma: float) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(0))
    return (image + noise * sigma / 255).clamp(0, 1)


def faded(image: torch.Tensor) -> torch.Tensor:
    """Its cyan dye has lost half of its density, the others a quarter."""
    return image ** torch.tensor([0.5, 0.75, 0.75]).view(1, 3, 1, 1) * 0.85 + 0.1


def face(height: float = 80.0) -> dict:
    return {
        "box": [10.123456, 20.0, 70.0, 20.0 + height],
        "score": 0.987654321,
        "landmarks": [[25.55555, 45.0], [50.0, 45.0], [38.0, 60.0], [28.0, 75.0], [48.0, 75.0]],
    }


def stages(image: torch.Tensor, faces: list[list[dict]] | None = None) -> dict[str, dict]:
    return {entry["stage"]: entry for entry in analysis.analyse(image, faces)[0]["recommendation"]}


def test_the_result_is_plain_rounded_data() -> None:
    (found,) = analysis.analyse(photo("coffee"), [[face()]])
    assert json.loads(json.dumps(found)) == found
    assert set(found) == {
        "width", "height", "noise_sigma", "sharpness", "blur_sigma", "jpeg_blockiness", "jpeg_grid", "lightness",
        "tone", "fading", "black", "white", "faces", "faces_checked", "recommendation",
    }  # fmt: skip
    assert (found["width"], found["height"]) == (600, 400)
    assert found["tone"] == "colour"
    assert found["faces_checked"] is True
    rounded = {"box": [10.12, 20.0, 70.0, 100.0], "score": 0.9877}
    assert found["faces"] == [{**rounded, "landmarks": [[25.56, 45.0], *face()["landmarks"][1:]]}]
    assert found["jpeg_blockiness"] == 0
    assert 0 < found["noise_sigma"] < 2.5
    assert 0.6 < found["sharpness"] < 1


def test_no_faces_are_not_faces_not_looked_for() -> None:
    image = photo("coffee", (100, 150))
    assert analysis.analyse(image)[0]["faces_checked"] is False
    assert analysis.analyse(image, [[]])[0]["faces_checked"] is True
    assert "not looked for" in analysis.report(analysis.analyse(image))
    assert "Faces: none" in analysis.report(analysis.analyse(image, [[]]))


def test_each_damage_calls_for_its_stage() -> None:
    large = photo("coffee", (140, 2100))
    assert stages(large) == {}
    found = stages(noisy(large, 15))
    assert list(found) == ["denoise"]
    assert found["denoise"]["sigma"] == pytest.approx(15, rel=0.1)
    assert list(stages(measures.gaussian(large, 4.0))) == ["deblur"]
    assert list(stages(large * 0.12)) == ["low_light"]
    assert list(stages(photo("camera", (130, 2048)))) == ["colorize"]
    assert list(stages(faded(large))) == ["restore_colors"]
    assert stages(large[..., :1200])["upscale"]["scale"] == 2
    assert stages(photo("coffee"))["upscale"]["scale"] == 4


def test_faces_are_restored_where_they_are_small_or_the_photo_is_damaged() -> None:
    large = photo("coffee", (140, 2100))
    assert stages(large, [[face(400)]]) == {}
    assert stages(large, [[face(400), face(90)]])["face_restore"]["faces"] == 2
    assert list(stages(noisy(large, 15), [[face(400)]])) == ["denoise", "face_restore"]


def test_stages_come_in_the_order_to_run_them() -> None:
    image = noisy(photo("camera").mean(1, keepdim=True).expand(-1, 3, -1, -1) * 0.15, 12)
    found = list(stages(image, [[face()]]))
    assert found == ["low_light", "denoise", "upscale", "face_restore", "colorize"]
    old = faded(noisy(photo("coffee"), 20))
    assert list(stages(old, [[face()]])) == ["denoise", "restore_colors", "upscale", "face_restore"]


def test_every_recommendation_has_a_reason_with_its_figure() -> None:
    image = noisy(photo("camera"), 20)
    for entry in analysis.analyse(image, [[face()]])[0]["recommendation"]:
        assert len(entry["reason"]) > 10
    assert "sigma 20" in stages(image)["denoise"]["reason"] or "sigma 19" in stages(image)["denoise"]["reason"]
    assert "80 px" in stages(image, [[face()]])["face_restore"]["reason"]
    reason = stages(faded(photo("coffee")))["restore_colors"]["reason"]
    assert re.fullmatch(r"faded: the darkest parts are at lightness [23]\d of 100, (red|orange)", reason)


def test_yellowed_paper_is_told_from_fading() -> None:
    paper = torch.tensor([0.97, 0.91, 0.76]).view(1, 3, 1, 1)
    print_ = paper.repeat(1, 1, 340, 440)
    print_[..., 20:-20, 20:-20] = photo("coffee", (300, 400)) * paper
    assert stages(print_)["restore_colors"]["reason"] == "the paper around the photo is no longer white but yellow"
    assert analysis.needs("restore_colors", print_)
    assert "Fading: none" in analysis.report(analysis.analyse(print_))


def test_the_report_reads() -> None:
    text = analysis.report(analysis.analyse(noisy(photo("camera"), 15), [[face()]]))
    lines = text.splitlines()
    assert lines[0] == "Size: 512 x 512 px, black and white"
    assert lines[1].startswith("Noise: noise, sigma 1")
    assert lines[2].startswith("Sharpness: sharp, edges are ")
    assert lines[3] == "JPEG: no blocks"
    assert lines[4] == "Fading: none, black is at lightness 1"
    assert lines[5] == "Faces: 1 (80 px high)"
    assert lines[6] == "Recommended:"
    assert "- upscale x4: only 512 px on the longer side" in lines
    assert max(len(line) for line in lines) < 100


def test_a_good_photo_needs_nothing() -> None:
    assert "nothing" in analysis.report(analysis.analyse(photo("coffee", (140, 2100))))


def test_a_batch_is_reported_photo_by_photo() -> None:
    batch = torch.cat((photo("coffee", (120, 160)), photo("camera", (120, 160))))
    found = analysis.analyse(batch, [[], [face()]])
    assert [entry["tone"] for entry in found] == ["colour", "gray"]
    assert [len(entry["faces"]) for entry in found] == [0, 1]
    text = analysis.report(found)
    assert "Photo 1 of 2" in text
    assert "Photo 2 of 2" in text


def test_photos_without_any_detail_are_reported() -> None:
    for image in (torch.zeros(1, 3, 40, 40), torch.rand(1, 3, 1, 1), torch.full((1, 3, 30, 200), 0.7)):
        (found,) = analysis.analyse(image)
        assert json.loads(json.dumps(found)) == found
        assert "no edges" in analysis.report([found])


def test_faces_of_another_batch_are_refused() -> None:
    with pytest.raises(NodeInputError, match="2 photos"):
        analysis.analyse(photo("coffee", (40, 40)), [[], []])


def test_estimate_noise_is_the_analysis_figure() -> None:
    image = noisy(photo("coffee"), 12)
    assert analysis.estimate_noise(image) == analysis.analyse(image)[0]["noise_sigma"]


def damaged(image: torch.Tensor) -> dict[str, torch.Tensor]:
    blocks = F.interpolate(F.avg_pool2d(image, 8), scale_factor=8)
    return {
        "whole": image,
        "dark": image * 0.1,
        "blurred": measures.gaussian(image, 4.0),
        "blocky": (0.6 * image + 0.4 * blocks).clamp(0, 1),
        "noisy": noisy(image, 20),
        "faded": faded(image),
    }


@pytest.mark.parametrize("kind", ["whole", "dark", "blurred", "blocky", "noisy", "faded"])
def test_a_single_question_is_answered_as_the_analysis_answers_it(kind: str) -> None:
    image = damaged(photo("coffee", (304, 400)))[kind]
    recommended = stages(image)
    single = ("remove_jpeg", "low_light", "deblur", "restore_colors")
    asked = {stage for stage in single if analysis.needs(stage, image)}
    assert asked == set(recommended) & set(single)
    if kind != "noisy":
        expected = {"dark": "low_light", "blurred": "deblur", "blocky": "remove_jpeg", "faded": "restore_colors"}.get(
            kind
        )
        assert asked == ({expected} if expected else set())


@pytest.mark.parametrize(
    ("longest", "factor"), [(1, 4.0), (999, 4.0), (1000, 2.0), (1999, 2.0), (2000, 1.0), (9000, 1.0)]
)
def test_the_factor_that_is_recommended_depends_on_the_longer_side(longest: int, factor: float) -> None:
    assert analysis.upscale_factor(longest, 1) == analysis.upscale_factor(1, longest) == factor
