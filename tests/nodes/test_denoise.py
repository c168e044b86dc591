"""Denoise with FFDNet's own weights."""

from __future__ import annotations

import inspect
from typing import TYPE_CHECKING, Any

import pytest
import small_networks
import torch
from skimage import data

from photokeep_nodes import inference, models, tiled_inference
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.denoise import Denoise

if TYPE_CHECKING:
    from pathlib import Path

FFDNET = ModelHandle("ffdnet-color")


pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


def photo(height: int = 128, width: int = 128) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 150 : 150 + width].copy())[None] / 255


def noisy(image: torch.Tensor, sigma: float, seed: int = 1) -> torch.Tensor:
    noise = torch.randn(image.shape, generator=torch.Generator().manual_seed(seed))
    return (image + noise * sigma / 255).clamp(0.0, 1.0)


def psnr(a: torch.Tensor, b: torch.Tensor) -> float:
    return float(-10 * torch.log10(torch.mean((a - b) ** 2)))


def denoise(image: torch.Tensor, **changes: Any) -> torch.Tensor:
    inputs = {"model": FFDNET, "noise": "auto", "sigma": 15.0, "strength": 1.0, **changes}
    (out,) = Denoise().run(image, **inputs)
    return out


def analysis(*sigmas: float) -> dict[str, Any]:
    return {"images": [{"noise_sigma": sigma} for sigma in sigmas]}


def test_its_inputs_are_its_arguments() -> None:
    declared = Denoise.INPUT_TYPES()
    assert [*declared["required"], *declared["optional"]] == list(inspect.signature(Denoise.run).parameters)[1:]


@pytest.mark.parametrize("how", [{"noise": "auto"}, {"noise": "manual", "sigma": 25.0}, {"analysis": analysis(25.0)}])
def test_noise_is_removed(how: dict[str, Any]) -> None:
    clean = photo()
    dirty = noisy(clean, 25)
    out = denoise(dirty, **how)
    assert out.shape == clean.shape
    assert out.dtype == torch.float32
    assert out.is_contiguous()
    assert psnr(out, clean) > psnr(dirty, clean) + 8


def test_auto_finds_about_the_best_level() -> None:
    clean = photo()
    dirty = noisy(clean, 25)
    best = max(psnr(denoise(dirty, noise="manual", sigma=sigma), clean) for sigma in (20.0, 25.0, 30.0))
    assert psnr(denoise(dirty), clean) > best - 0.3


def test_strength_blends_with_the_input() -> None:
    dirty = noisy(photo(64, 64), 25)
    whole = denoise(dirty, noise="manual", sigma=25.0)
    half = denoise(dirty, noise="manual", sigma=25.0, strength=0.5)
    torch.testing.assert_close(half, (dirty + whole) / 2, rtol=0, atol=2e-3)  # before the range is clamped
    assert torch.equal(denoise(dirty, strength=0.0), dirty)


def test_a_clean_photo_passes_through_unchanged(monkeypatch: pytest.MonkeyPatch) -> None:
    """No weights are read for it."""
    monkeypatch.setattr(inference, "run", None)
    monkeypatch.setattr(tiled_inference, "apply_tiled", None)
    clean = photo(64, 64)
    assert torch.equal(denoise(clean, analysis=analysis(1.0)), clean)
    assert torch.equal(denoise(clean, noise="manual", sigma=0.0), clean)
    flat = torch.full((1, 64, 64, 3), 0.5)
    assert torch.equal(denoise(flat), flat)


def test_each_photo_of_a_batch_by_its_own_level() -> None:
    clean = photo(64, 64)
    batch = torch.cat([noisy(clean, 10), clean, noisy(clean, 40)])
    out = denoise(batch, analysis=analysis(10.0, 0.0, 40.0))
    torch.testing.assert_close(out[1], clean[0], rtol=0, atol=0)
    for index, sigma in ((0, 10.0), (2, 40.0)):
        alone = denoise(batch[index : index + 1], noise="manual", sigma=sigma)
        torch.testing.assert_close(out[index], alone[0], rtol=0, atol=1e-6)
        assert psnr(out[index], clean[0]) > psnr(batch[index], clean[0]) + 3
    estimated = denoise(batch)
    assert psnr(estimated[0], clean[0]) > psnr(batch[0], clean[0]) + 3
    assert psnr(estimated[2], clean[0]) > psnr(batch[2], clean[0]) + 6


def test_more_noise_than_the_model_knows_is_treated_as_its_most() -> None:
    dirty = noisy(photo(64, 64), 90)
    most = denoise(dirty, noise="manual", sigma=75.0)
    assert torch.equal(denoise(dirty, analysis=analysis(140.0)), most)


def test_the_analysis_is_not_used_for_a_manual_level() -> None:
    dirty = noisy(photo(64, 64), 25)
    by_hand = denoise(dirty, noise="manual", sigma=25.0)
    assert torch.equal(denoise(dirty, noise="manual", sigma=25.0, analysis=analysis(1.0)), by_hand)


def test_an_analysis_of_other_photos_is_refused() -> None:
    with pytest.raises(NodeInputError, match="of 2 images, but 1 came in") as caught:
        denoise(photo(64, 64), analysis=analysis(10.0, 10.0))
    assert "same image" in caught.value.hint


@pytest.mark.parametrize("broken", [{}, {"images": [{}]}, {"images": 3}, {"images": [{"noise_sigma": "loud"}]}])
def test_what_is_no_analysis_is_refused(broken: dict[str, Any]) -> None:
    with pytest.raises(NodeInputError, match="no noise levels"):
        denoise(photo(64, 64), analysis=broken)


def test_a_model_of_another_role_is_refused() -> None:
    with pytest.raises(NodeInputError, match="made for upscale"):
        denoise(photo(64, 64), model=ModelHandle("realesr-animevideov3"))


@pytest.mark.parametrize("size", [(1, 1), (33, 70), (5, 128)])
def test_odd_sizes_are_kept(size: tuple[int, int]) -> None:
    dirty = noisy(photo(*size), 25)
    assert denoise(dirty, noise="manual", sigma=25.0).shape == (1, *size, 3)


def test_alpha_is_dropped_and_half_precision_is_taken() -> None:
    dirty = noisy(photo(64, 64), 25)
    expected = denoise(dirty, noise="manual", sigma=25.0)
    with_alpha = torch.cat([dirty, torch.rand(1, 64, 64, 1)], dim=-1)
    assert torch.equal(denoise(with_alpha, noise="manual", sigma=25.0), expected)
    half = denoise(dirty.half(), noise="manual", sigma=25.0)
    assert half.dtype == torch.float32
    torch.testing.assert_close(half, expected, rtol=0, atol=2e-3)


def test_gray_stays_gray() -> None:
    dirty = noisy(photo(64, 64), 25)[..., :1]
    out = denoise(dirty, noise="manual", sigma=25.0)
    assert out.shape == (1, 64, 64, 3)
    assert (out - out[..., :1]).abs().max() < 1e-6
    half = denoise(dirty, noise="manual", sigma=25.0, strength=0.5)
    assert (half - half[..., :1]).abs().max() < 1e-6


@pytest.fixture
def blind(model_folder: Path) -> ModelHandle:
    """A denoiser that is not told the level."""
    small_networks.save(small_networks.compact(), model_folder / "blind.pth")
    return ModelHandle("file:denoise/blind.pth")


def test_a_blind_model_is_told_nothing_and_run_where_there_is_noise(blind: ModelHandle) -> None:
    clean = photo(64, 64)
    batch = torch.cat([noisy(clean, 25), clean])
    out = denoise(batch, model=blind, analysis=analysis(25.0, 0.5))
    assert not torch.equal(out[0], batch[0])
    assert torch.equal(out[1], batch[1])
    assert denoise(clean, model=blind, analysis=analysis(0.5)) is clean


def test_noise_that_analyze_would_leave_is_left_by_a_blind_model(blind: ModelHandle) -> None:
    """It cannot be told that there is little; one that is told removes just that."""
    grainy = photo(32, 32)
    assert denoise(grainy, model=blind, analysis=analysis(2.0)) is grainy
    assert denoise(grainy, analysis=analysis(2.0)) is not grainy


def test_by_hand_a_blind_model_runs_whatever_sigma_says(blind: ModelHandle) -> None:
    clean = photo(64, 64)
    out = denoise(clean, model=blind, noise="manual", sigma=0.0)
    assert not torch.equal(out, clean)
    assert torch.equal(out, denoise(clean, model=blind, noise="manual", sigma=50.0))


def test_a_file_of_a_model_that_is_told_the_level_is_told_it(model_folder: Path) -> None:
    small_networks.save(small_networks.drunet(), model_folder / "drunet.pth")
    model = ModelHandle("file:denoise/drunet.pth")
    assert models.get(model).condition == "noise_sigma"
    dirty = noisy(photo(64, 64), 25)
    less, more = (denoise(dirty, model=model, noise="manual", sigma=sigma) for sigma in (5.0, 50.0))
    assert not torch.equal(less, more)
    network = small_networks.drunet()
    level = torch.full((1, 1, 64, 64), 5 / 255)
    with torch.no_grad():
        expected = network(torch.cat([dirty.permute(0, 3, 1, 2), level], 1)).permute(0, 2, 3, 1).clamp(0, 1)
    torch.testing.assert_close(less, expected, rtol=0, atol=1e-2)  # the CPU may compute in bfloat16


def test_tiles_and_overlap_are_passed_on() -> None:
    dirty = noisy(photo(64, 200), 25)
    whole = denoise(dirty, noise="manual", sigma=25.0)
    tiled = denoise(dirty, noise="manual", sigma=25.0, tile=120)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-4)
    hasty = denoise(dirty, noise="manual", sigma=25.0, tile=64, overlap=8)
    assert (hasty - whole).abs().max() > (tiled - whole).abs().max()


def test_what_passes_through_is_the_very_image() -> None:
    clean = photo(64, 64)
    assert denoise(clean, strength=0.0) is clean
    assert denoise(clean, analysis=analysis(0.0)) is clean
