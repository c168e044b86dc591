"""DDColor's published weights are downloads, so the exact architectures are proved on random ones.

The golden outputs are those of the authors' own pipeline with the weights of ``tests/support/ddcolor_files.py``;
tests/data/README.md. ``PHOTOKEEP_REAL_MODELS`` naming a folder with published files adds a check of those.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
import torch.nn.functional as nnf
from ddcolor_files import STEP, classifier, layout, lightness, published_shapes, random_state
from skimage import color, data

from photokeep_nodes import precision
from photokeep_nodes._arch.ddcolor import DDColor, fold_spectral_norms, gray_srgb, positions
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models import ddcolor_artistic, ddcolor_modelscope, ddcolor_tiny
from photokeep_nodes.ops import colour
from photokeep_nodes.ops.colourise import colourise
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from photokeep_nodes.model_spec import ModelSpec

GOLDEN = Path(__file__).parents[1] / "data" / "ddcolor.npz"
REAL = Path(os.environ.get("PHOTOKEEP_REAL_MODELS", ""))
SPECS = (ddcolor_modelscope.SPEC, ddcolor_artistic.SPEC, ddcolor_tiny.SPEC)


def shapes_of(spec: ModelSpec) -> dict[str, tuple[int, ...]]:
    with torch.device("meta"):
        return published_shapes(DDColor(spec.build.keywords["depths"], spec.build.keywords["widths"]))


def published(spec: ModelSpec, encoder: str, folder: Path) -> torch.nn.Module:
    """Built as a user's file is: saved in the published layout, read, built, and moved as the pool does."""
    state = random_state(shapes_of(spec))
    assert layout(state) == str(np.load(GOLDEN)[f"{encoder}/layout"])
    state |= classifier(state)
    path = folder / spec.weights[0].filename
    torch.save({"params": state}, path)
    # Not a tensor is missing or left over: the rest is how newer versions of PyTorch fill up their archives.
    assert 0 < spec.weights[0].size_bytes - path.stat().st_size < 100 * len(state)
    del state
    built = spec.build(read_state_dict(path))
    path.unlink()
    return built.to(memory_format=torch.channels_last)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    return published(ddcolor_tiny.SPEC, "convnext-t", tmp_path_factory.mktemp("tiny"))


@pytest.fixture(scope="module")
def miniature() -> torch.nn.Module:
    with torch.device("meta"):
        network = DDColor((1, 1, 2, 1), (8, 16, 24, 32))
    network.to_empty(device="cpu").load_state_dict(
        fold_spectral_norms(random_state(published_shapes(network))), strict=False
    )
    return network.eval().requires_grad_(requires_grad=False)


def check_against_golden(module: torch.nn.Module, encoder: str) -> None:
    golden, pipeline = (np.load(GOLDEN)[f"{encoder}/{name}"] for name in ("ab", "pipeline"))
    with torch.inference_mode():
        ab = module(lightness().contiguous(memory_format=torch.channels_last))
    assert ab.shape == (1, 2, 512, 512)
    # Neither flat nor dominated by a few layers: of 17 parts left out in turn, each moved it by 0.05 to 11.
    assert golden.std(axis=(1, 2)).min() > 0.1
    ours = ab[0, :, ::STEP, ::STEP].numpy()
    np.testing.assert_allclose(ours, golden, rtol=0, atol=0.002)
    # From the 8-bit photo; OpenCV's L is off by up to 0.2.
    np.testing.assert_allclose(ours, pipeline, rtol=0, atol=0.1)


@pytest.mark.slow
def test_tiny_is_the_authors_network(tiny: torch.nn.Module) -> None:
    check_against_golden(tiny, "convnext-t")


@pytest.mark.slow
def test_large_is_the_authors_network(tmp_path: Path) -> None:
    large = published(ddcolor_modelscope.SPEC, "convnext-l", tmp_path)
    check_against_golden(large, "convnext-l")
    check_is_ready_for_the_pool(large, ddcolor_modelscope.SPEC)


def check_is_ready_for_the_pool(module: torch.nn.Module, spec: ModelSpec) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == spec.weight_bytes
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())
    assert not any(t.is_meta for t in tensors)


@pytest.mark.slow
def test_it_is_ready_for_the_pool(tiny: torch.nn.Module) -> None:
    check_is_ready_for_the_pool(tiny, ddcolor_tiny.SPEC)


@pytest.mark.slow
def test_bfloat16_does_not_show() -> None:
    spec = ddcolor_tiny.SPEC
    module = spec.build(random_state(shapes_of(spec)))
    light = nnf.interpolate(lightness(), size=(64, 96), mode="area")
    with torch.inference_mode():
        exact = module(light)
        module = precision.prepare(module, torch.bfloat16, *precision.example_of(spec))
        with precision.computing(torch.device("cpu"), torch.bfloat16):
            quick = module(light)
    assert quick.dtype == torch.float32
    difference = (quick - exact).square().mean().sqrt() / exact.std((2, 3)).norm()
    assert 0 < difference < 0.02  # of 15 units of ab: 0.3, of which 1 can be seen


def test_the_large_ones_differ_in_weights_alone() -> None:
    one, other = ddcolor_modelscope.SPEC, ddcolor_artistic.SPEC
    assert one.build.keywords == other.build.keywords
    assert one.weights[0].size_bytes == other.weights[0].size_bytes
    assert one.weights[0].sha256 != other.weights[0].sha256
    assert all(spec.native_side == 512 and spec.native_side % spec.multiple_of == 0 for spec in SPECS)


def test_gray_is_that_of_the_colour_operator_and_of_scikit_image() -> None:
    light = torch.linspace(0, 100, 4001).view(1, 1, 1, -1)
    lab = torch.cat((light, torch.zeros_like(light), torch.zeros_like(light)), 1)
    ours = gray_srgb(light)
    torch.testing.assert_close(ours.expand(-1, 3, -1, -1), colour.lab_to_srgb(lab), rtol=0, atol=2e-6)
    np.testing.assert_allclose(ours[0, 0], color.lab2rgb(lab[0].permute(1, 2, 0).numpy())[..., 0], atol=2e-4)
    assert ((light / 100) ** (1 / 2.2) - ours).abs().max() > 0.1


@pytest.mark.parametrize("side", [1, 3])
def test_spectral_norms_are_folded_as_pytorch_applies_them(side: int) -> None:
    torch.manual_seed(4)
    convolution = torch.nn.utils.spectral_norm(torch.nn.Conv2d(6, 10, side))
    with torch.no_grad():
        convolution(
            torch.randn(1, 6, 8, 8)
        )  # one step of training, so that the vectors are not the first singular ones
        convolution.eval()
        x = torch.randn(1, 6, 8, 8)
        folded = fold_spectral_norms(convolution.state_dict())
        assert sorted(folded) == ["bias", "weight"]
        torch.testing.assert_close(nnf.conv2d(x, folded["weight"], folded["bias"]), convolution(x))
    true_norm = torch.linalg.matrix_norm(convolution.weight_orig.flatten(1), 2)
    assert ((convolution.weight_orig / true_norm - folded["weight"]).abs() / folded["weight"].abs()).max() > 0.005


def test_weights_without_a_usable_spectral_norm_are_refused() -> None:
    state = random_state(shapes_of(ddcolor_tiny.SPEC))
    name = "decoder.last_shuf.conv.0.weight"
    for damaged, message in (
        ({f"{name}_u": torch.zeros(4096)}, f"the spectral norm of {name} is 0"),
        ({f"{name}_v": torch.full((256,), torch.inf)}, "is -?inf|is nan"),
        ({f"{name}_u": torch.zeros(7)}, rf"1 missing \({name}\) 3 left over"),
    ):
        with pytest.raises(WeightsFormatError, match=message):
            ddcolor_tiny.SPEC.build({**state, **damaged})
    del state[f"{name}_v"]
    with pytest.raises(WeightsFormatError, match=rf"1 missing \({name}\) 2 left over"):
        ddcolor_tiny.SPEC.build(state)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="not those of DDColor large"):
        ddcolor_artistic.SPEC.build({"banana": torch.zeros(3)})
    # As large as tiny's, but empty: only names and shapes matter here.
    other = {name: torch.zeros(()).expand(shape) for name, shape in shapes_of(ddcolor_tiny.SPEC).items()}
    with pytest.raises(WeightsFormatError, match="not those of DDColor large"):
        ddcolor_modelscope.SPEC.build(other)
    state = random_state(shapes_of(ddcolor_tiny.SPEC))
    state["encoder.arch.stages.1.0.gamma"] = torch.zeros(193)
    with pytest.raises(WeightsFormatError, match=r"stages\.1\.0\.gamma is \(193,\), not \(192,\)"):
        ddcolor_tiny.SPEC.build(state)


@pytest.mark.parametrize("shape", [(1, 1, 512, 500), (1, 3, 64, 64), (1, 64, 64), (1, 1, 0, 64), (1, 1, 16, 16)])
def test_other_shapes_are_refused(miniature: torch.nn.Module, shape: tuple[int, ...]) -> None:
    with pytest.raises(NodeInputError, match="multiples of 32"):
        miniature(torch.zeros(shape))


def test_a_batch_is_as_one_by_one(miniature: torch.nn.Module) -> None:
    light = nnf.interpolate(lightness(), size=(64, 32), mode="area")
    both = torch.cat((light, 100 - light.flip(-1)))
    with torch.inference_mode():
        together, alone = miniature(both), torch.cat([miniature(each) for each in both.split(1)])
    assert (together[0] - together[1]).abs().max() > 0.1
    torch.testing.assert_close(together, alone, rtol=0, atol=1e-4)


def test_it_colours_a_photo_of_any_shape(miniature: torch.nn.Module) -> None:
    photo = torch.from_numpy(data.coffee()[:200, :330] / np.float32(255)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        result = colourise(photo, miniature, net_size=64)
    before, after = colour.srgb_to_lab(photo), colour.srgb_to_lab(result)
    assert result.shape == photo.shape
    assert (after - before)[:, 0].abs().max() < 0.01
    assert after[:, 1:].abs().max() > 0.5


def test_positions_tell_rows_from_columns() -> None:
    found = positions(5, 7, like=torch.zeros(1))
    assert found.shape == (35, 256)
    grid = found.view(5, 7, 256)
    torch.testing.assert_close(grid[2, :, :128], grid[2, :1, :128].expand(7, -1))
    torch.testing.assert_close(grid[:, 3, 128:], grid[:1, 3, 128:].expand(5, -1))
    assert torch.pdist(found).min() > 0.1
    # The last row is once around: sine 0, cosine 1 at the shortest wave.
    torch.testing.assert_close(grid[4, 0, :2], torch.tensor([0.0, 1.0]), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_the_published_file_colours_a_photo(spec: ModelSpec) -> None:
    path = REAL / spec.weights[0].filename
    if not path.is_file():
        pytest.skip(f"needs PHOTOKEEP_REAL_MODELS to name a folder with {path.name}")
    assert path.stat().st_size == spec.weights[0].size_bytes
    if spec.weights[0].sha256:
        assert hashlib.sha256(path.read_bytes()).hexdigest() == spec.weights[0].sha256
    real = spec.build(read_state_dict(path))
    truth = torch.from_numpy(color.rgb2lab(data.astronaut()).astype(np.float32)).permute(2, 0, 1)[None]
    with torch.inference_mode():
        ab = real(truth[:, :1])
    assert ab.abs().mean() > 3
    assert (ab - truth[:, 1:]).abs().mean() < truth[:, 1:].abs().mean()
