"""What Real-ESRGAN's models share: weights that mix, and the folding of x2plus."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
import torch
from published import LAYOUTS, photo, publish, random_state, rrdbnet_template
from spandrel.architectures.Compact import Compact

from photokeep_nodes import models, weights
from photokeep_nodes.errors import WeightsFormatError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle, ModelSpec
from photokeep_nodes.ops import tiling

if TYPE_CHECKING:
    from pathlib import Path

CATALOGUE = models.catalogue()
X4V3, WDN, X2PLUS = (CATALOGUE[i] for i in ("realesr-general-x4v3", "realesr-general-wdn-x4v3", "realesrgan-x2plus"))


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "models"))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "models").mkdir()
    return tmp_path / "models"


def states() -> dict[str, dict[str, torch.Tensor]]:
    """Two sets of weights for the small general model."""
    template = Compact(num_feat=64, num_conv=32, upscale=4).state_dict()
    first = random_state(template, LAYOUTS[X4V3.id])
    return {X4V3.id: first, WDN.id: {name: 0.5 * tensor.flip(0) for name, tensor in first.items()}}


@pytest.fixture
def installed(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, ModelSpec]:
    """A catalogue of the two, whose files are there."""
    specs = {model_id: publish(CATALOGUE[model_id], state, folder) for model_id, state in states().items()}
    monkeypatch.setattr(models, "catalogue", lambda: specs)
    return specs


def handle(denoise: float) -> ModelHandle:
    return ModelHandle(X4V3.id, X4V3.blend.share(denoise))


@pytest.mark.parametrize("denoise", [0.0, 0.3, 0.5, 0.85, 1.0])
def test_the_mixture_is_real_esrgans_own(installed: dict[str, ModelSpec], denoise: float) -> None:
    """``RealESRGANer.dni``: ``-dn`` of x4v3's weights and the rest of the wdn model's."""
    loaded = weights.load_module(models.get(handle(denoise))).state_dict()
    both = states()
    for name, tensor in both[X4V3.id].items():
        wanted = denoise * tensor + (1 - denoise) * both[WDN.id][name]
        torch.testing.assert_close(loaded[name], wanted, rtol=0, atol=1e-6)


@pytest.mark.parametrize(("denoise", "needed"), [(1.0, X4V3), (0.0, WDN)])
def test_at_its_ends_one_file_is_enough(
    installed: dict[str, ModelSpec], folder: Path, denoise: float, needed: ModelSpec
) -> None:
    for spec in installed.values():
        if spec.id != needed.id:
            (folder / spec.weights[0].filename).unlink()
    spec = models.get(handle(denoise))
    weights.require([spec])
    assert weights.load_module(spec) is not None
    with pytest.raises(WeightsMissingError, match="1 weight file is not installed") as caught:
        weights.require([models.get(handle(0.5))])
    (missing,) = caught.value.context["missing"]
    assert missing["model"] in installed
    assert missing["command"] == f"photokeep models get {missing['model']}"


def test_a_missing_partner_is_said_to_be_the_sliders(installed: dict[str, ModelSpec], folder: Path) -> None:
    """Nobody has put it into the workflow."""
    (folder / WDN.weights[0].filename).unlink()
    mixture = models.get(handle(0.5))
    told = f'for      the slider "denoise" of {X4V3.title}; at 1 it does without'
    with pytest.raises(WeightsMissingError, match=told):
        weights.require([mixture])
    with pytest.raises(WeightsMissingError) as caught:
        weights.require([mixture, installed[WDN.id]])
    assert "slider" not in caught.value.message, "it is asked for by its own node too"
    (folder / X4V3.weights[0].filename).unlink()
    with pytest.raises(WeightsMissingError, match=rf"(?s)^2 weight.*{X4V3.title} \[upscale\]\n    file.*{told}"):
        weights.require([mixture])


def test_models_of_two_shapes_do_not_mix(installed: dict[str, ModelSpec], folder: Path) -> None:
    other = Compact(num_feat=64, num_conv=16, upscale=4).state_dict()
    partner = publish(WDN, other, folder)
    with pytest.raises(WeightsFormatError, match="not of one shape"):
        weights.load_module(replace(installed[X4V3.id], mixed_with=(partner, 0.5)))


def test_x4plus_and_realesrnet_name_their_tensors_alike() -> None:
    """One comes out of another package in another format."""
    spec = CATALOGUE["realesrgan-x4plus"]
    if weights.status(spec).state != "installed":
        pytest.skip(f"needs the starter extra: {spec.weights[0].origin.requirement}")
    shapes = {name: tensor.shape for name, tensor in weights.load_state_dict(spec).items()}
    assert shapes == {name: tensor.shape for name, tensor in rrdbnet_template().items()}
    assert spec.blend.partner == "realesrnet-x4plus"


@pytest.fixture(scope="module")
def x2plus() -> torch.nn.Module:
    return X2PLUS.build(random_state(rrdbnet_template(inputs=12), LAYOUTS[X2PLUS.id]))


def test_x2plus_tiles_begin_where_its_cells_do(x2plus: torch.nn.Module) -> None:
    image = photo(96, 96)
    with torch.no_grad():
        whole = x2plus(image)
        even, odd = (x2plus(image[..., start : start + 94, start : start + 94]) for start in (2, 1))
    middle = slice(80, 112)  # of the output; 40 px of the input from each edge
    wanted = whole[..., middle, middle]

    def seen(result: torch.Tensor, start: int) -> torch.Tensor:
        shifted = slice(middle.start - 2 * start, middle.stop - 2 * start)
        return result[..., shifted, shifted]

    torch.testing.assert_close(seen(even, 2), wanted, rtol=0, atol=1e-3 * float(whole.std()))
    assert (seen(odd, 1) - wanted).abs().mean() > 0.05 * whole.std()


def test_x2plus_in_tiles_is_x2plus_on_the_whole_photo(x2plus: torch.nn.Module) -> None:
    image = photo(61, 125)
    with torch.no_grad():
        tiled = tiling.run_tiled(
            x2plus, image, tile=96, margin=32, scale=X2PLUS.scale, multiple=X2PLUS.multiple_of, minimum=X2PLUS.minimum
        )
        whole = x2plus(image)
    assert tiled.shape == whole.shape == (1, 3, 122, 250)
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-3 * float(whole.std()))
