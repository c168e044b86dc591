"""ScratchDetect without a model, and with one that is loaded the way published ones are."""

from __future__ import annotations

import inspect
import re
from typing import TYPE_CHECKING, Any

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.inpaint import Inpaint
from photokeep_nodes.nodes.scratch_detect import ScratchDetect

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:300, :300].copy())[None] / 255


def scratched() -> torch.Tensor:
    """Two lines, one of them across the eyes, and a speck."""
    image = photo().clone()
    image[:, 97:100, 40:280] = 1.0
    image[:, 20:170, 60:62] = 0.0
    image[:, 250:253, 120:123] = 0.0
    return image


def find(image: torch.Tensor, **more: Any) -> tuple[torch.Tensor, torch.Tensor, str]:
    return ScratchDetect().run(image, **{"sensitivity": 0.5, "grow": 0, "what": "all", **more})


FACES = {
    "images": [
        {
            "width": 300,
            "height": 300,
            "faces": [
                {
                    "box": [190.0, 70.0, 255.0, 165.0],
                    "score": 0.99,
                    "landmarks": [[205.0, 102.0], [235.0, 103.0], [220.0, 120.0], [210.0, 140.0], [232.0, 140.0]],
                }
            ],
        }
    ]
}


class Bright(torch.nn.Module):
    """Takes what is white for a scratch."""

    def __init__(self) -> None:
        super().__init__()
        self.level = torch.nn.Parameter(torch.tensor(0.97))

    def forward(self, gray: torch.Tensor) -> torch.Tensor:
        assert gray.shape[1] == 1
        return torch.sigmoid(200 * (gray - self.level))


def test_its_inputs_are_its_arguments() -> None:
    declared = ScratchDetect.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(ScratchDetect.run).parameters)[1:]
    assert len(ScratchDetect.RETURN_TYPES) == len(ScratchDetect.RETURN_NAMES) == len(ScratchDetect.OUTPUT_TOOLTIPS) == 3


def test_damage_is_marked_shown_and_counted() -> None:
    image = scratched()
    mask, preview, report = find(image)
    assert mask.shape == (1, 300, 300)
    assert mask.dtype == torch.float32
    assert mask.is_contiguous()
    assert mask.unique().tolist() == [0.0, 1.0]
    assert mask[0, 98, 60:180].mean() == 1
    assert mask[0, 251, 121] == 1
    assert mask[0, 200:240, 200:280].sum() == 0
    off = mask[0] == 0
    assert torch.equal(preview[0][off], image[0][off])
    assert (preview[0][~off][:, 0] > preview[0][~off][:, 1] + 0.3).all()
    assert re.fullmatch(r"\d scratches, \d specks?: \d\.\d\d% of the photo", report)


def test_scratches_and_dust_apart() -> None:
    lines, _, _ = find(scratched(), what="scratches")
    dust, _, report = find(scratched(), what="dust")
    assert lines[0, 251, 121] == 0
    assert lines[0, 98, 100] == 1
    assert dust[0, 251, 121] == 1
    assert dust[0, 98, 60:180].sum() == 0
    assert report.startswith("0 scratches")


def test_a_photo_without_damage() -> None:
    plain = torch.linspace(0.3, 0.6, 200).view(1, 1, 200, 1).expand(1, 150, 200, 3).contiguous()
    mask, preview, report = find(plain)
    assert mask.sum() == 0
    assert torch.equal(preview, plain)
    assert report == "no scratches found"


def test_eyes_and_mouth_stay_out_even_of_a_long_scratch() -> None:
    image = scratched()
    without, _, _ = find(image)
    mask, _, _ = find(image, faces=FACES)
    assert without[0, 98, 205] == 1
    assert mask[0, 98:106, 200:211].sum() == 0
    assert mask[0, 98, 60:180].mean() == 1
    assert (mask <= without).all()


def test_faces_found_on_a_larger_copy_are_scaled() -> None:
    large = {"images": [{"width": 1200, "height": 1200, "faces": [dict(FACES["images"][0]["faces"][0])]}]}  # type: ignore[index]
    face = large["images"][0]["faces"][0]  # type: ignore[index]
    face["box"] = [4 * v for v in face["box"]]
    face["landmarks"] = [[4 * x, 4 * y] for x, y in face["landmarks"]]
    image = scratched()
    assert torch.equal(find(image, faces=large)[0], find(image, faces=FACES)[0])
    with pytest.raises(NodeInputError, match="faces"):
        find(torch.cat([image, image]), faces=FACES)
    with pytest.raises(NodeInputError, match="no faces"):
        find(image, faces={"images": 3})


def test_growing() -> None:
    narrow, _, _ = find(scratched(), grow=1)
    wide, _, _ = find(scratched(), grow=9)
    assert wide.sum() > 2 * narrow.sum()
    assert (wide >= narrow).all()


def test_an_implausible_mask_is_said_so(install: Callable[..., Any]) -> None:
    model = install(Bright(), "scratch_detect")
    bright = torch.ones(1, 64, 80, 3)
    bright[:, :, 50:] = 0.2
    _, _, report = find(bright, model=model.handle)
    assert "more than scratches are" in report
    _, _, report = find(torch.cat([bright, bright * 0.5]), model=model.handle)
    first, second = report.splitlines()
    assert first.startswith("photo 1: ")
    assert "more than scratches are" in first
    assert second == "photo 2: no scratches found"


def test_with_a_model_it_is_asked(install: Callable[..., Any]) -> None:
    model = install(Bright(), "scratch_detect")
    image = torch.full((1, 120, 160, 3), 0.4)
    image[:, 60:62, 20:140] = 1.0
    image[:, 20:24, 20:24] = 1.0
    mask, _, _ = find(image, model=model.handle)
    assert mask[0, 61, 30:130].mean() == 1
    assert mask[0, 90:, :].sum() == 0
    assert model.loads == ["for-a-test"]
    lines, _, _ = find(image, model=model.handle, what="scratches")
    assert lines[0, 61, 80] == 1
    assert lines[0, 22, 22] == 0
    dust, _, _ = find(image, model=model.handle, what="dust")
    assert dust[0, 61, 80] == 0
    assert dust[0, 22, 22] == 1


def test_sensitivity_moves_the_networks_threshold(install: Callable[..., Any]) -> None:
    model = install(Bright(), "scratch_detect")
    image = torch.full((1, 256, 256, 3), 0.9645)  # a probability of about a quarter, by this network
    assert find(image, model=model.handle, sensitivity=0.3)[0].sum() == 0
    assert find(image, model=model.handle, sensitivity=0.8)[0].mean() == 1
    for end in (0.0, 1.0):
        assert torch.isfinite(find(image, model=model.handle, sensitivity=end)[0]).all()


def test_missing_weights_and_other_roles(install: Callable[..., Any]) -> None:
    model = install(Bright(), "scratch_detect", present=False)
    with pytest.raises(WeightsMissingError, match=r"for-a-test\.pth"):
        find(photo(), model=model.handle)
    with pytest.raises(NodeInputError, match="not for scratch detect"):
        find(photo(), model=ModelHandle("ffdnet-color"))


def test_batches_gray_alpha_and_tiny_photos() -> None:
    image = scratched()
    expected, _, _ = find(image)
    batch, preview, report = find(torch.cat([image, photo()]))
    assert torch.equal(batch[:1], expected)
    assert preview.shape == (2, 300, 300, 3)
    assert len(report.splitlines()) == 2
    assert torch.equal(find(torch.cat([image, torch.ones(1, 300, 300, 1)], -1))[0], expected)
    assert find(image.mean(-1, keepdim=True))[1].shape == (1, 300, 300, 3)
    for size in ((1, 1), (3, 500)):
        assert find(torch.rand(1, *size, 3))[0].shape == (1, *size)


def test_it_counts_its_tiles_and_can_be_stopped() -> None:
    seen: list[tuple[float, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *step: seen.append(step))):
        find(photo())
    assert seen == [(0, 2, "tiles"), (1, 2, "tiles"), (2, 2, "tiles")]

    class Stop(BaseException):
        pass

    def stop() -> None:
        raise Stop

    with host.standalone(host.Standalone(check_interrupted=stop)), pytest.raises(Stop):
        find(photo())


def test_found_and_filled_the_photo_is_nearer_to_what_it_was() -> None:
    image, original = scratched(), photo()
    mask, _, _ = find(image, faces=FACES)
    (repaired,) = Inpaint().run(image, mask, "telea", 1.0, 0.0, 1.0)
    hurt = (image != original).any(-1)
    assert (repaired - original)[hurt].abs().mean() < 0.4 * (image - original)[hurt].abs().mean()
    assert (repaired - original)[~hurt].abs().mean() < 0.004
