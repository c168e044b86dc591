"""ColorHint: colours as typed, painted where masks are."""

from __future__ import annotations

import inspect

import pytest
import torch

from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.nodes.color_hint import ColorHint


def square(top: int, value: float = 1.0, batch: int = 1) -> torch.Tensor:
    mask = torch.zeros(batch, 40, 50)
    mask[:, top : top + 10, 10:20] = value
    return mask


def test_its_inputs_are_its_arguments() -> None:
    declared = ColorHint.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(ColorHint.run).parameters)[1:]
    assert len(ColorHint.RETURN_TYPES) == len(ColorHint.RETURN_NAMES) == len(ColorHint.OUTPUT_TOOLTIPS) == 2


@pytest.mark.parametrize(
    ("text", "rgb"),
    [("#0080ff", (0, 128, 255)), (" #0080FF ", (0, 128, 255)), ("#08f", (0, 136, 255)), ("SkyBlue", (135, 206, 235))],
)
def test_a_colour_is_painted_where_the_mask_is(text: str, rgb: tuple[int, int, int]) -> None:
    image, mask = ColorHint().run(square(5), text)
    assert image.shape == (1, 40, 50, 3)
    assert image.dtype == mask.dtype == torch.float32
    assert torch.equal(mask, square(5))
    torch.testing.assert_close(image[0, 8, 15] * 255, torch.tensor(rgb).float())
    assert ColorHint.VALIDATE_INPUTS(text) is True


@pytest.mark.parametrize("text", ["", "reddish", "#12345", "red; blue", "rgb(1,2,3)"])
def test_what_is_no_colour_is_refused(text: str) -> None:
    with pytest.raises(NodeInputError, match="is no colour") as caught:
        ColorHint().run(square(5), text)
    assert "#rrggbb" in caught.value.hint
    assert "is no colour" in str(ColorHint.VALIDATE_INPUTS(text))
    assert ColorHint.VALIDATE_INPUTS(None) is True


def test_hints_add_up_and_the_later_lies_above() -> None:
    first = ColorHint().run(square(5), "red")
    second = ColorHint().run(square(10), "blue", *first)
    image, mask = ColorHint().run(square(28, 0.5), "lime", *second)
    assert torch.equal(mask, torch.maximum(torch.maximum(square(5), square(10)), square(28, 0.5)))
    assert image[0, 6, 15].tolist() == [1, 0, 0]
    assert image[0, 12, 15].tolist() == image[0, 18, 15].tolist() == [0, 0, 1]
    assert image[0, 33, 15].tolist() == [0, 1, 0]


def test_soft_masks_mix_where_they_meet() -> None:
    image, mask = ColorHint().run(square(5, 0.5), "blue", *ColorHint().run(square(5), "red"))
    assert mask[0, 8, 15] == 1
    assert image[0, 8, 15].tolist() == [0.5, 0, 0.5]


def test_batches() -> None:
    image, mask = ColorHint().run(square(5, batch=3), "red")
    assert image.shape[0] == mask.shape[0] == 3
    image, mask = ColorHint().run(square(20), "blue", image, mask)
    assert image.shape[0] == mask.shape[0] == 3
    assert image[:, 22, 15].tolist() == [[0, 0, 1]] * 3


def test_hints_of_other_photos_are_refused() -> None:
    image, mask = ColorHint().run(torch.ones(1, 30, 50), "red")
    with pytest.raises(NodeInputError, match="1 of 50 x 40 px, the other hints are 1 of 50 x 30 px"):
        ColorHint().run(square(5), "red", image, mask)
    image, mask = ColorHint().run(square(5, batch=2), "red")
    with pytest.raises(NodeInputError, match=r"the mask is 3 of .* hints are 2 of"):
        ColorHint().run(square(5, batch=3), "red", image, mask)
    with pytest.raises(NodeInputError, match="3 masks came in for 2 images"):
        ColorHint().run(square(5), "red", image, square(5, batch=3))
    for only in ({"hint_image": image}, {"hint_mask": mask}):
        with pytest.raises(NodeInputError, match="only one"):
            ColorHint().run(square(5), "red", **only)


def test_a_mask_without_numbers_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not numbers"):
        ColorHint().run(square(5) * torch.nan, "red")
    with pytest.raises(NodeInputError, match="mask"):
        ColorHint().run(torch.ones(1, 4, 4, 3), "red")


def test_an_unpainted_photo_has_no_hint() -> None:
    """The host's mask of a photo that nobody painted on is 64 x 64 and empty, whatever the photo's size."""
    empty, painted = torch.zeros(1, 64, 64), torch.zeros(1, 40, 50)
    painted[:, 5:15, 5:15] = 1.0
    known = ColorHint().run(painted, "#ff0000")
    assert all(torch.equal(a, b) for a, b in zip(ColorHint().run(empty, "blue", *known), known, strict=True))
    image, mask = ColorHint().run(painted, "#ff0000", *ColorHint().run(empty, "blue"))
    assert torch.equal(mask, painted)
    assert image[0, 10, 10].tolist() == [1.0, 0.0, 0.0]


def test_a_bad_colour_is_refused_in_one_line() -> None:
    refused = str(ColorHint.VALIDATE_INPUTS(color="bluish"))
    assert "is no colour. Write it as" in refused
    assert "\n" not in refused
