"""Deblur with a small NAFNet of random weights, put into the model folder as a user would."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import small_networks
import torch
from skimage import data

from photokeep_nodes import tiled_inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.deblur import Deblur
from photokeep_nodes.ops import measures

if TYPE_CHECKING:
    from pathlib import Path

NAFNET = ModelHandle("file:deblur/nafnet.pth")


pytestmark = pytest.mark.usefixtures("on_the_cpu")


@pytest.fixture(autouse=True)
def _a_model_file(model_folder: Path) -> None:
    small_networks.save(small_networks.nafnet(), model_folder / "nafnet.pth")


def photo(height: int = 128, width: int = 128) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 150 : 150 + width].copy())[None] / 255


def blurred(image: torch.Tensor, sigma: float = 4.0) -> torch.Tensor:
    return measures.gaussian(image.permute(0, 3, 1, 2), sigma).permute(0, 2, 3, 1).contiguous()


def deblur(image: torch.Tensor, **changes: Any) -> torch.Tensor:
    (out,) = Deblur().run(image, **{"model": NAFNET, "when": "always", "strength": 1.0, **changes})
    return out


def advice(*stages: str) -> dict[str, Any]:
    return {"images": [{"recommendation": [{"stage": stage, "reason": ""}]} for stage in stages]}


def test_its_inputs_are_its_arguments() -> None:
    declared = Deblur.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(Deblur.run).parameters)[1:]


def test_it_is_the_networks_result() -> None:
    image = photo(64, 96)
    with torch.no_grad():
        expected = small_networks.nafnet()(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).clamp(0, 1)
    out = deblur(image)
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    torch.testing.assert_close(out, expected, rtol=0, atol=2e-2)  # the CPU may compute in bfloat16


def test_strength_blends_with_the_input() -> None:
    image = photo(64, 64) * 0.5 + 0.25
    whole = deblur(image)
    half = deblur(image, strength=0.5)
    inside = (whole > 0.0) & (whole < 1.0)
    torch.testing.assert_close(half[inside], ((image + whole) / 2)[inside], rtol=0, atol=1e-5)
    assert deblur(image, strength=0.0) is image


def test_auto_passes_a_sharp_photo_through(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are read for it."""
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    sharp = photo()
    assert deblur(sharp, when="auto") is sharp
    soft = blurred(sharp)
    assert deblur(soft, when="auto", analysis=advice("denoise")) is soft
    flat = torch.full((1, 64, 64, 3), 0.5)
    assert deblur(flat, when="auto") is flat, "no edge tells"


def test_auto_sharpens_a_soft_photo() -> None:
    soft = blurred(photo())
    assert torch.equal(deblur(soft, when="auto"), deblur(soft))
    sharp = photo()
    assert torch.equal(deblur(sharp, when="auto", analysis=advice("deblur")), deblur(sharp))


def test_each_photo_of_a_batch_by_itself() -> None:
    sharp, soft = photo(), blurred(photo())
    out = deblur(torch.cat([sharp, soft, sharp]), when="auto")
    assert torch.equal(out[::2], torch.cat([sharp, sharp]))
    torch.testing.assert_close(out[1:2], deblur(soft), rtol=0, atol=1e-5)


def test_an_analysis_of_other_photos_is_refused() -> None:
    with pytest.raises(NodeInputError, match="of 2 images, but 1 came in") as caught:
        deblur(photo(64, 64), when="auto", analysis=advice("deblur", "deblur"))
    assert "Deblur" in caught.value.hint
    with pytest.raises(NodeInputError, match="no recommendations"):
        deblur(photo(64, 64), when="auto", analysis={"images": [{}]})


def test_gray_stays_gray_and_alpha_is_dropped() -> None:
    gray = photo(64, 64)[..., :1]
    out = deblur(gray)
    assert out.shape == (1, 64, 64, 3)
    assert (out - out[..., :1]).abs().max() < 1e-6
    image = photo(64, 64)
    assert torch.equal(deblur(torch.cat([image, torch.rand(1, 64, 64, 1)], -1)), deblur(image))


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (5, 128)])
def test_odd_sizes_are_kept(size: tuple[int, int]) -> None:
    assert deblur(photo(*size)).shape == (1, *size, 3)


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="made for upscale, not for deblur"):
        deblur(photo(64, 64), model=ModelHandle("realesr-animevideov3"))


def test_the_tooltip_says_what_always_does() -> None:
    (_, options) = Deblur.INPUT_TYPES()["required"]["when"]
    assert options["tooltip"].endswith("always: every photo.")
