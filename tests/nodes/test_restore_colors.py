"""RestoreColors as a node: what it does to whom, and what it passes on."""

from __future__ import annotations

import inspect
from typing import Any

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.restore_colors import RestoreColors
from photokeep_nodes.ops.colour import srgb_to_lab

SETTINGS = {
    "strength": 1.0, "contrast": 1.0, "white_balance": "auto", "neutral": "", "saturation": 1.0, "toned": "keep",
    "when": "auto",
}  # fmt: skip


def coffee() -> torch.Tensor:
    return torch.from_numpy(data.coffee()[:160, :200].copy())[None] / 255


def faded(image: torch.Tensor) -> torch.Tensor:
    return image ** torch.tensor([0.5, 0.75, 0.75]) * 0.8 + 0.12


def restore(image: torch.Tensor, **settings: Any) -> torch.Tensor:
    (result,) = RestoreColors().run(image, **{**SETTINGS, **settings})
    return result


def lab(image: torch.Tensor) -> torch.Tensor:
    return srgb_to_lab(image.permute(0, 3, 1, 2))


def advice(*stages: str) -> dict[str, Any]:
    return {"images": [{"recommendation": [{"stage": stage, "reason": ""}] if stage else []} for stage in stages]}


def test_its_inputs_are_its_arguments_and_its_defaults_those_of_the_tests() -> None:
    declared = RestoreColors.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(RestoreColors.run).parameters)[1:]
    assert len(RestoreColors.RETURN_TYPES) == len(RestoreColors.RETURN_NAMES) == len(RestoreColors.OUTPUT_TOOLTIPS)
    widgets = {name: entry[1].get("default") for name, entry in declared["required"].items() if name != "image"}
    assert widgets == SETTINGS


def test_a_faded_photo_comes_nearer_to_what_it_was() -> None:
    image, scan = coffee(), faded(coffee())
    result = restore(scan)
    assert result.shape == scan.shape
    assert result.dtype == torch.float32
    assert result.is_contiguous()
    assert (lab(result) - lab(image)).norm(dim=1).mean() < 0.7 * (lab(scan) - lab(image)).norm(dim=1).mean()


def test_a_photo_that_has_not_faded_is_the_very_same() -> None:
    image = coffee()
    assert restore(image) is image
    assert restore(faded(image), strength=0.0).equal(faded(image))
    scan = faded(image)
    assert restore(scan, strength=0.0) is scan


def test_strength_blends_with_the_photo() -> None:
    scan = faded(coffee())
    torch.testing.assert_close(restore(scan, strength=0.3), scan + 0.3 * (restore(scan) - scan), rtol=0, atol=1e-5)


def test_of_a_batch_each_photo_is_treated_by_itself() -> None:
    image, scan = coffee(), faded(coffee())
    result = restore(torch.cat((image, scan, image)))
    assert torch.equal(result[::2], torch.cat((image, image)))
    torch.testing.assert_close(result[1:2], restore(scan), rtol=0, atol=1e-6)


def test_the_analysis_decides() -> None:
    image, scan = coffee(), faded(coffee())
    assert restore(scan, analysis=advice("denoise")) is scan
    assert torch.equal(restore(scan, analysis=advice("restore_colors")), restore(scan))
    assert torch.equal(restore(scan, when="always", analysis=advice("")), restore(scan, when="always"))
    with pytest.raises(NodeInputError, match="of 2 images, but 1 came in"):
        restore(image, analysis=advice("", ""))


def test_what_is_asked_for_by_name_is_done_to_any_photo() -> None:
    image = coffee()
    assert lab(restore(image, saturation=0.0))[:, 1:].abs().max() < 1e-2
    picked = image.clone()
    picked[:, :30, :30] = torch.tensor([200, 180, 150]) / 255
    gray = restore(picked, white_balance="pick", neutral="#c8b496")
    assert lab(gray)[:, 1:, 2:28, 2:28].abs().max() < 0.5
    sepia = (image.mean(-1, keepdim=True) * torch.tensor([1.0, 0.88, 0.7])).clamp(0, 1)
    assert torch.equal(*restore(sepia, toned="neutralise")[..., :2].split(1, -1))


def test_gray_photos_stay_gray_and_alpha_goes() -> None:
    gray = faded(coffee()).mean(-1, keepdim=True)
    result = restore(gray)
    assert result.shape[-1] == 3
    assert torch.equal(result, result[..., :1].expand_as(result))
    assert result.min() < gray.min() - 0.05
    scan = faded(coffee())
    assert torch.equal(restore(torch.cat((scan, torch.ones_like(gray)), -1)), restore(scan))


@pytest.mark.parametrize("neutral", ["grey-ish", "#12345", "#gggggg", "hsl(0,0%,50%)"])
def test_a_colour_that_cannot_be_read_is_refused(neutral: str) -> None:
    with pytest.raises(NodeInputError, match="is no colour"):
        restore(coffee(), white_balance="pick", neutral=neutral)
    assert "is no colour" in str(RestoreColors.VALIDATE_INPUTS("pick", neutral))


def test_colours_are_checked_before_the_run() -> None:
    assert RestoreColors.VALIDATE_INPUTS("pick", "#c8b496") is True
    assert "#rrggbb" in str(RestoreColors.VALIDATE_INPUTS("pick", "grey-ish"))
    assert restore(coffee(), neutral="nonsense").equal(coffee())  # it is not picked


@pytest.mark.parametrize("neutral", ["black", "#ff0000", "#030303"])
def test_a_colour_that_tells_no_cast_is_refused(neutral: str) -> None:
    with pytest.raises(NodeInputError, match="too dark"):
        restore(coffee(), white_balance="pick", neutral=neutral)


def test_values_that_are_not_numbers_are_refused() -> None:
    image = coffee()
    image[0, 3, 4, 1] = torch.nan
    with pytest.raises(NodeInputError, match="not numbers"):
        restore(image)


def test_it_can_be_interrupted() -> None:
    def stop() -> None:
        raise KeyboardInterrupt

    with host.standalone(host.Standalone(check_interrupted=stop)), pytest.raises(KeyboardInterrupt):
        restore(faded(coffee()))


def test_a_pick_that_cannot_be_is_refused_before_any_work() -> None:
    assert RestoreColors.VALIDATE_INPUTS(white_balance="auto", neutral="") is True
    assert RestoreColors.VALIDATE_INPUTS(white_balance="pick", neutral="#d8cbb0") is True
    assert RestoreColors.VALIDATE_INPUTS(white_balance=None, neutral="") is True
    assert "neutral is empty" in str(RestoreColors.VALIDATE_INPUTS(white_balance="pick", neutral=" "))
    assert "too dark" in str(RestoreColors.VALIDATE_INPUTS(white_balance="pick", neutral="#000000"))
    assert "is no colour. Write" in str(RestoreColors.VALIDATE_INPUTS(white_balance="pick", neutral="grayish"))
