"""Inpaint with OpenCV, and with networks loaded the way published ones are."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from skimage import data

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, VramExhaustedError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.inpaint import Inpaint

if TYPE_CHECKING:
    from collections.abc import Callable

pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")

SETTINGS: dict[str, Any] = {"method": "telea", "feather": 0.0, "grain": 0.0, "strength": 1.0}


def photo() -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[:200, :240].copy())[None] / 255


def mask(value: float = 1.0) -> torch.Tensor:
    marked = torch.zeros(1, 200, 240)
    marked[:, 60:64, 30:200] = value
    return marked


class Fill(torch.nn.Module):
    """Fills with one colour."""

    def __init__(self, colour: tuple[float, float, float] = (0.25, 0.5, 0.75)) -> None:
        super().__init__()
        self.colour = torch.nn.Parameter(torch.tensor(colour).view(1, 3, 1, 1))

    def forward(self, image: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
        assert set(holes.unique().tolist()) == {0.0, 1.0}
        return torch.where(holes > 0, self.colour, image)


def inpaint(image: torch.Tensor, marked: torch.Tensor, model: ModelHandle | None = None, **more: Any) -> torch.Tensor:
    (out,) = Inpaint().run(image, marked, model=model, **{**SETTINGS, **more})
    return out


def test_its_inputs_are_its_arguments() -> None:
    declared = Inpaint.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(Inpaint.run).parameters)[1:]


@pytest.mark.parametrize("method", ["telea", "ns"])
def test_without_a_model_the_scratch_goes_and_the_rest_stays(method: str) -> None:
    image, marked = photo(), mask()
    damaged = torch.where(marked[..., None] > 0, torch.tensor(1.0), image)
    out = inpaint(damaged, marked, method=method)
    assert out.shape == image.shape
    assert out.is_contiguous()
    off = (marked == 0)[..., None].expand_as(image)
    assert torch.equal(out[off], image[off])
    error = (out - image).abs()[~off]
    assert error.mean() < 0.25 * (damaged - image).abs()[~off].mean()


def test_with_a_model_the_network_fills(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint")
    image, marked = photo(), mask()
    out = inpaint(image, marked, model.handle)
    on = marked[0] > 0
    assert torch.allclose(out[0][on], torch.tensor([0.25, 0.5, 0.75]))
    assert torch.equal(out[0][~on], image[0][~on])
    assert model.loads == ["for-a-test"]


def test_feathering_reaches_beyond_the_mask_only_as_far_as_it_says(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint")
    image = torch.full((1, 200, 240, 3), 0.9)
    image[..., 0] = 0.1
    out = inpaint(image, mask(), model.handle, feather=6.0)
    changed = (out != image).any(-1)[0, :, 100].nonzero().flatten()
    assert 54 <= int(changed.min()) < 59
    assert 64 < int(changed.max()) <= 69
    steps = (out[0, 54:61, 100, 0] - 0.1).diff()
    assert (steps >= 0).all()


def test_strength_blends(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint")
    image, marked = photo(), mask()
    whole = inpaint(image, marked, model.handle)
    torch.testing.assert_close(inpaint(image, marked, model.handle, strength=0.25), image.lerp(whole, 0.25))
    assert inpaint(image, marked, model.handle, strength=0.0) is image


def test_nothing_masked_loads_nothing(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint", present=False)
    image = photo()
    for empty in (torch.zeros(1, 200, 240), torch.zeros(1, 64, 64)):
        assert inpaint(image, empty, model.handle) is image
        assert inpaint(image, empty) is image
    with pytest.raises(WeightsMissingError, match=r"for-a-test\.pth"):
        inpaint(image, mask(), model.handle)


def test_a_full_mask_is_refused_before_anything_is_loaded(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint")
    with pytest.raises(NodeInputError, match="nothing to inpaint from"):
        inpaint(photo(), torch.ones(1, 200, 240), model.handle)
    assert model.loads == []


def test_one_mask_serves_a_batch_and_other_numbers_do_not() -> None:
    batch = torch.cat([photo(), photo().flip(2)])
    out = inpaint(batch, mask())
    assert torch.equal(out[:1], inpaint(photo(), mask()))
    assert not torch.equal(out[1], batch[1])
    with pytest.raises(NodeInputError, match="2 masks came in for 3 images"):
        inpaint(torch.cat([batch, photo()]), mask().repeat(2, 1, 1))


def test_masks_of_other_sizes_are_refused() -> None:
    with pytest.raises(NodeInputError, match="30 x 20 px, the image 240 x 200 px"):
        inpaint(photo(), torch.ones(1, 20, 30))


def test_gray_alpha_and_half_precision(install: Callable[..., Any]) -> None:
    model = install(Fill(), "inpaint")
    gray = photo().mean(-1, keepdim=True)
    out = inpaint(gray, mask(), model.handle, grain=1.0)
    assert out.shape[-1] == 3
    assert torch.equal(out[..., 0], out[..., 1])
    assert torch.equal(out[..., 0], out[..., 2])
    with_alpha = torch.cat([photo(), torch.ones(1, 200, 240, 1)], dim=-1)
    assert torch.equal(inpaint(with_alpha, mask()), inpaint(photo(), mask()))
    assert inpaint(photo().half(), mask().half()).dtype == torch.float32


def test_nan_is_refused() -> None:
    broken = photo()
    broken[0, 3, 3, 0] = float("nan")
    with pytest.raises(NodeInputError, match="not numbers"):
        inpaint(broken, mask())


def test_values_that_are_not_numbers_do_not_get_through(install: Callable[..., Any]) -> None:
    class Broken(Fill):
        def forward(self, image: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
            return super().forward(image, holes) * float("nan")

    model = install(Broken(), "inpaint")
    with pytest.raises(NodeInputError, match="not numbers"):
        inpaint(photo(), mask(), model.handle)


def two_holes() -> torch.Tensor:
    marked = torch.zeros(1, 200, 2000)
    marked[:, 60:64, 30:60] = marked[:, 60:64, 1900:1930] = 1
    return marked


def wide_photo() -> torch.Tensor:
    return photo().repeat(1, 1, 9, 1)[:, :, :2000]


@pytest.mark.parametrize("with_model", [False, True])
def test_progress_counts_the_parts(install: Callable[..., Any], *, with_model: bool) -> None:
    model = install(Fill(), "inpaint").handle if with_model else None
    seen: list[tuple[float, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *step: seen.append(step))):
        inpaint(wide_photo(), two_holes(), model)
    assert seen == [(0, 2, "parts"), (1, 2, "parts"), (2, 2, "parts")]


def test_an_interruption_releases_the_model(install: Callable[..., Any]) -> None:
    class Stop(BaseException):
        pass

    model = install(Fill(), "inpaint")
    done: list[float] = []

    def stop() -> None:
        if done:
            raise Stop

    def progress(count: float, *_: object) -> None:
        if count:
            done.append(count)

    with host.standalone(host.Standalone(progress=progress, check_interrupted=stop)), pytest.raises(Stop):
        inpaint(wide_photo(), two_holes(), model.handle)
    assert done == [1]
    out = inpaint(photo(), mask(), model.handle)  # it can be leased again
    assert not torch.equal(out, photo())
    assert model.loads == ["for-a-test"]


def test_out_of_memory_is_said_so(install: Callable[..., Any]) -> None:
    class Greedy(Fill):
        def forward(self, image: torch.Tensor, holes: torch.Tensor) -> torch.Tensor:
            raise torch.OutOfMemoryError

    model = install(Greedy(), "inpaint")
    with pytest.raises(VramExhaustedError, match="does not fit"):
        inpaint(photo(), mask(), model.handle)


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not for inpaint"):
        inpaint(photo(), torch.zeros(1, 64, 64), ModelHandle("ffdnet-color"))


def test_a_feather_that_covers_the_photo_is_blamed_itself() -> None:
    image = torch.rand(1, 60, 60, 3)
    mask = torch.ones(1, 60, 60)
    mask[:, :8] = 0.0
    with pytest.raises(NodeInputError, match="with its feather") as caught:
        Inpaint().run(image, mask, "telea", 64.0, 0.0, 1.0)
    assert caught.value.hint == "Lower feather."
    assert torch.equal(Inpaint().run(image, mask, "telea", 0.0, 0.0, 1.0)[0][:, :8], image[:, :8])
