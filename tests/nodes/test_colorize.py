"""Colorize with networks loaded the way published ones are, and siggraph17's own architecture on seeded weights."""

from __future__ import annotations

import dataclasses
import hashlib
import inspect
from typing import TYPE_CHECKING, Any

import pytest
import torch
from skimage import data

from photokeep_nodes import host, models, vram_manager
from photokeep_nodes.errors import NodeInputError, WeightsCorruptError, WeightsMissingError
from photokeep_nodes.model_spec import Download, ModelHandle, WeightFile
from photokeep_nodes.nodes.colorize import Colorize
from photokeep_nodes.ops.colour import srgb_to_lab, tones

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SETTINGS = {"strength": 1.0, "when": "if_gray"}
SIDE = 256


def coffee(height: int = 140, width: int = 180) -> torch.Tensor:
    return torch.from_numpy(data.coffee()[:height, :width].copy())[None] / 255


def gray(image: torch.Tensor) -> torch.Tensor:
    return (image * torch.tensor([0.299, 0.587, 0.114])).sum(-1, keepdim=True).expand_as(image).contiguous()


def lab(image: torch.Tensor) -> torch.Tensor:
    return srgb_to_lab(image.permute(0, 3, 1, 2))


class Warmer(torch.nn.Module):
    """ab in proportion to lightness: 0.2 and 0.3 of it."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = torch.nn.Conv2d(1, 2, 1, bias=False)
        with torch.no_grad():
            self.mix.weight.copy_(torch.tensor([0.2, 0.3]).view(2, 1, 1, 1))

    def forward(self, lightness: torch.Tensor) -> torch.Tensor:
        assert lightness.shape == (1, 1, SIDE, SIDE)
        return self.mix(lightness)


def test_its_inputs_are_its_arguments() -> None:
    declared = Colorize.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(Colorize.run).parameters)[1:]
    assert len(Colorize.RETURN_TYPES) == len(Colorize.RETURN_NAMES) == len(Colorize.OUTPUT_TOOLTIPS) == 1


def test_a_gray_photo_is_coloured_and_keeps_its_lightness(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    image = gray(coffee())
    (result,) = Colorize().run(image, model.handle, **SETTINGS)
    assert result.shape == image.shape
    assert result.dtype == torch.float32
    before, after = lab(image), lab(result)
    assert (after - before)[:, 0].abs().max() < 0.01
    middle = (before[:, 0] > 20) & (before[:, 0] < 80)
    for channel, share in ((1, 0.2), (2, 0.3)):
        off = (after[:, channel] - share * before[:, 0]).abs()[middle]
        assert off.quantile(0.9) < 0.8  # where lightness steps, ab follows it less than fully
        assert off.max() < 4


def test_a_photo_in_colour_passes_and_nothing_is_loaded(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE, present=False)
    image = coffee()
    (result,) = Colorize().run(image, model.handle, **SETTINGS)
    assert result is image
    assert model.loads == []


def test_always_replaces_colour(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    image = coffee()
    (result,) = Colorize().run(image, model.handle, 1.0, "always")
    assert (lab(result) - lab(image))[:, 0].abs().max() < 0.01
    assert (lab(result) - lab(image))[:, 1:].abs().max() > 5


def test_sepia_is_coloured(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    image = gray(coffee()) * torch.tensor([1.0, 0.88, 0.7])
    assert tones(image.permute(0, 3, 1, 2)) == ["sepia"]
    (result,) = Colorize().run(image, model.handle, 0.0, "if_gray")
    assert lab(result)[:, 1:].abs().max() < 1e-3  # at strength 0: neutral


def test_of_a_batch_only_the_gray_photos_are_coloured(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    batch = torch.cat((coffee(), gray(coffee())))
    seen: list[tuple[int, int, str]] = []
    with host.standalone(host.Standalone(progress=lambda *step: seen.append(step))):
        (result,) = Colorize().run(batch, model.handle, **SETTINGS)
    assert torch.equal(result[0], batch[0])
    assert lab(result)[1, 1].mean() > 5
    assert seen == [(0, 1, "photos"), (1, 1, "photos")]


def test_a_single_channel_image_becomes_colour(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    (result,) = Colorize().run(gray(coffee())[..., :1], model.handle, **SETTINGS)
    assert result.shape[-1] == 3
    assert tones(result.permute(0, 3, 1, 2)) != ["gray"]


def test_missing_weights_are_named(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE, present=False)
    with pytest.raises(WeightsMissingError, match=r"for-a-test\.pth"):
        Colorize().run(gray(coffee()), model.handle, **SETTINGS)


def test_a_changed_file_is_refused(install: Callable[..., Any], tmp_path: Path) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    path = tmp_path / "models" / "for-a-test.pth"
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    with pytest.raises(WeightsCorruptError):
        Colorize().run(gray(coffee()), model.handle, **SETTINGS)


def test_another_models_handle_is_refused() -> None:
    with pytest.raises(NodeInputError, match="not for colorize"):
        Colorize().run(gray(coffee()), ModelHandle("ffdnet-color"), **SETTINGS)


def test_it_can_be_interrupted(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)

    def stop() -> None:
        raise KeyboardInterrupt

    with host.standalone(host.Standalone(check_interrupted=stop)), pytest.raises(KeyboardInterrupt):
        Colorize().run(gray(coffee()), model.handle, **SETTINGS)
    assert model.loads == []


class Told(torch.nn.Module):
    """A network that takes hints, and gives a tenth of them everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.share = torch.nn.Parameter(torch.tensor(0.1), requires_grad=False)

    def forward(self, lightness: torch.Tensor, ab: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        assert set(mask.unique().tolist()) <= {0.0, 1.0}
        mean = (ab * mask).sum((-2, -1), keepdim=True) / mask.sum().clamp(min=1)
        return (self.share * mean).expand(-1, -1, *lightness.shape[-2:])


def painted(image: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    mask = torch.zeros(image.shape[:3])
    mask[:, 40:100, 50:130] = 1
    return torch.tensor([0.62, 0.5, 0.42]).expand_as(image), mask


def wanted(hint: torch.Tensor) -> torch.Tensor:
    return lab(hint[:1, :1, :1])[0, 1:, 0, 0]


def test_hints_reach_the_network_and_the_photo(install: Callable[..., Any]) -> None:
    model = install(Told(), "colorize", native_side=32, takes_hints=True)
    image = torch.full((1, 140, 180, 3), 0.5)
    hint, mask = painted(image)
    (result,) = Colorize().run(image, model.handle, **SETTINGS, hint_image=hint, hint_mask=mask)
    ab = lab(result)[0, 1:]
    assert (ab[:, 70, 90] - wanted(hint)).norm() < 0.5
    torch.testing.assert_close(ab[:, 10, 10], 0.1 * wanted(hint), rtol=0, atol=0.1)
    assert (lab(result) - lab(image))[:, 0].abs().max() < 0.01
    (without,) = Colorize().run(image, model.handle, **SETTINGS)
    assert lab(without)[:, 1:].abs().max() < 1e-2


def test_networks_that_know_no_hints_leave_them_to_the_photo(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    image = torch.full((1, 140, 180, 3), 0.5)
    hint, mask = painted(image)
    (result,) = Colorize().run(image, model.handle, 0.0, "if_gray", hint_image=hint, hint_mask=mask)
    ab = lab(result)[0, 1:]
    assert (ab[:, 70, 90] - wanted(hint)).norm() < 0.5
    assert ab[:, :30].abs().max() < 1e-2


def test_without_a_mask_what_was_painted_over_counts(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    image = gray(coffee())
    hint, mask = painted(image)
    copy = torch.where(mask[..., None] > 0, hint, image + 0.4 / 255)  # 8 bits in between do not count
    (ours,) = Colorize().run(image, model.handle, **SETTINGS, hint_image=copy)
    (masked,) = Colorize().run(image, model.handle, **SETTINGS, hint_image=hint, hint_mask=mask)
    assert (ours - masked).abs().mean() < 2e-3
    (plain,) = Colorize().run(image, model.handle, **SETTINGS)
    assert (ours - plain).abs().max() > 0.05
    (same,) = Colorize().run(image, model.handle, **SETTINGS, hint_image=image)
    assert torch.equal(same, plain)


def test_one_set_of_hints_serves_a_batch_of_mixed_tones(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    batch = torch.cat((coffee(), gray(coffee()), gray(coffee()) * torch.tensor([1.0, 0.88, 0.7])))
    hint, mask = painted(gray(coffee()))
    (result,) = Colorize().run(batch, model.handle, **SETTINGS, hint_image=hint, hint_mask=mask)
    assert torch.equal(result[0], batch[0])
    for i in (1, 2):
        (alone,) = Colorize().run(batch[i : i + 1], model.handle, **SETTINGS, hint_image=hint, hint_mask=mask)
        torch.testing.assert_close(result[i : i + 1], alone, rtol=0, atol=1e-6)


def test_hints_that_do_not_fit_are_refused_before_anything_is_loaded(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE, present=False)
    image = gray(coffee())
    hint, mask = painted(image)
    for given, message in (
        ({"hint_mask": mask}, "nothing says which colour"),
        ({"hint_image": hint[:, :100]}, "180 x 100 px"),
        ({"hint_image": hint.expand(2, -1, -1, -1)}, "2 of 180 x 140 px"),
        ({"hint_image": hint, "hint_mask": mask[:, :100]}, "180 x 100 px"),
        ({"hint_image": hint * torch.nan, "hint_mask": mask}, "not numbers"),
    ):
        with pytest.raises(NodeInputError, match=message):
            Colorize().run(image, model.handle, **SETTINGS, **given)
    assert model.loads == []


def test_the_network_is_shown_a_good_print_of_a_faded_photo(install: Callable[..., Any]) -> None:
    model = install(Warmer(), "colorize", native_side=SIDE)
    faded = 0.35 + 0.4 * gray(coffee())
    (ours,) = Colorize().run(faded, model.handle, **SETTINGS)
    (as_is,) = Colorize().run(faded, model.handle, **SETTINGS, neutralise=False)
    for result in (ours, as_is):
        assert (lab(result) - lab(faded))[:, 0].abs().max() < 0.01
    assert lab(ours)[:, 1].std() > 1.3 * lab(as_is)[:, 1].std()


@pytest.mark.slow
def test_siggraph17s_own_architecture_colours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Random weights in the published file's layout: what is shown is that file, loader, pool and operator fit."""
    from photokeep_nodes._arch.siggraph17 import Siggraph17
    from photokeep_nodes.models.siggraph17 import SPEC

    torch.manual_seed(0)
    network = Siggraph17()
    path = tmp_path / "siggraph17-df00044c.pth"
    torch.save(network.state_dict(), path)
    file = WeightFile(
        Download(path.name, "https://example.invalid/none"),
        size_bytes=path.stat().st_size,
        sha256=hashlib.sha256(path.read_bytes()).hexdigest(),
        licence=SPEC.weights[0].licence,
    )
    told: list[tuple[torch.Tensor, ...]] = []

    def build(state: Any) -> torch.nn.Module:
        module = SPEC.build(state)
        module.register_forward_pre_hook(lambda _, given: told.append(given))
        return module

    spec = dataclasses.replace(SPEC, id="siggraph17-random", weights=(file,), build=build)
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(models, "catalogue", lambda: {spec.id: spec})
    image = gray(coffee())
    try:
        (result,) = Colorize().run(image, ModelHandle(spec.id), **SETTINGS)
        hint, mask = painted(image)
        (hinted,) = Colorize().run(image, ModelHandle(spec.id), **SETTINGS, hint_image=hint, hint_mask=mask)
    finally:
        vram_manager.shared_pool().drop(f"{spec.id}:{file.sha256[:16]}:{torch.float32}")
        for leftover in (path, *(tmp_path / "cache").rglob("*.safetensors")):
            leftover.unlink()  # pytest keeps the folders of three runs: they would add up to a gigabyte
    assert (lab(result) - lab(image))[:, 0].abs().max() < 0.01
    assert (lab(hinted) - lab(result))[0, 1:, 60:90, 60:120].abs().max() > 2
    (lightness, ab, known), (_, hinted_ab, hinted_where) = told[-2:]
    assert lightness.shape == known.shape == (1, 1, 256, 256)
    assert float(ab.abs().max()) == float(known.abs().max()) == 0.0
    assert float(hinted_where.mean()) == pytest.approx(float(mask.mean()), abs=0.01)
    torch.testing.assert_close(hinted_ab.amax((0, 2, 3)), wanted(hint), rtol=0, atol=0.01)
    with torch.inference_mode():
        small = torch.nn.functional.interpolate(image.permute(0, 3, 1, 2), (256, 256), mode="bilinear", antialias=True)
        predicted = network.eval()(srgb_to_lab(small)[:, :1])
    assert float(lab(result)[:, 1].mean()) == pytest.approx(float(predicted[:, 0].mean()), abs=1.0)
    assert float(lab(result)[:, 2].mean()) == pytest.approx(float(predicted[:, 1].mean()), abs=1.0)
