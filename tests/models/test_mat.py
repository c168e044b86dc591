"""MAT's code is published apart and its weights are a download: the architecture is proved on seeded random ones.

The golden output is that of the authors' own code, whose CUDA kernels have a slow twin in Python, in the published
configuration; tests/data/make_inpainters.py. ``PHOTOKEEP_REAL_MODELS``, a folder with the published file, adds a check
of the real one.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from inpainters import MAT_STEP, holes, mat_case, mat_state
from published import layout_digest
from skimage import data

from photokeep_nodes._arch.inpainter import MatInpainter
from photokeep_nodes.errors import MissingExtraError, NodeInputError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.mat import SPEC
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "inpainters.npz"
REAL = os.environ.get("PHOTOKEEP_REAL_MODELS")

needs_extra = pytest.mark.skipif(
    importlib.util.find_spec("spandrel_extra_arches") is None, reason="needs the noncommercial extra"
)


# -- what surrounds the network --------------------------------------------------------------------------------------


class Loose(torch.nn.Module):
    """A layer with a tensor that moving the module would not reach, as MAT's partial convolutions have it."""

    def __init__(self) -> None:
        super().__init__()
        self.weight_maskUpdater = torch.ones(1, 1, 3, 3)


class Generator(torch.nn.Module):
    """In MAT's place: keeps what it was called with, and draws what chance gives it."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = Loose()
        self.calls: list[tuple[torch.Tensor, ...]] = []
        self.result = torch.full((1, 3, 512, 512), 0.5)

    def forward(self, *arguments: torch.Tensor, **options: object) -> torch.Tensor:
        assert options == {"noise_mode": "none"}
        dropped = [
            torch.nn.functional.dropout(torch.full(shape, 0.5), training=True)
            for shape in ((1, 512, 16, 16), (1, 256, 180))
        ]
        self.calls.append((*arguments, *dropped))
        return self.result


class Network(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.model = Generator()


@pytest.fixture
def stand_in() -> tuple[MatInpainter, Generator]:
    network = Network()
    return MatInpainter(network), network.model


def test_range_and_polarity_are_mats_own(stand_in: tuple[MatInpainter, Generator]) -> None:
    module, generator = stand_in
    image, mask = mat_case()
    drawn = module(image, mask)
    seen, kept, *_ = generator.calls[0]
    torch.testing.assert_close(seen, image * 2 - 1)
    assert torch.equal(kept, 1 - mask)  # MAT's mask is 1 where the photo is kept
    assert torch.equal(drawn, torch.where(mask == 1, 0.75, image))  # to the last bit where it is kept


def test_what_it_draws_is_clamped(stand_in: tuple[MatInpainter, Generator]) -> None:
    module, generator = stand_in
    for value, wanted in ((3.0, 1.0), (-3.0, 0.0)):
        generator.result = torch.full((1, 3, 512, 512), value)
        assert torch.equal(
            module(torch.zeros(1, 3, 512, 512), torch.ones(1, 1, 512, 512)), generator.result * 0 + wanted
        )


def test_nothing_is_left_to_chance(stand_in: tuple[MatInpainter, Generator]) -> None:
    module, generator = stand_in
    image, mask = mat_case()
    torch.manual_seed(1)
    before = torch.random.get_rng_state()
    module(image, mask)
    MatInpainter(network := Network())(image, mask)
    assert torch.equal(torch.random.get_rng_state(), before)  # nor is that of others disturbed
    for first, second in zip(generator.calls[0], network.model.calls[0], strict=True):
        assert torch.equal(first, second)
    _, _, style, label, *dropped = generator.calls[0]
    np.random.seed(240)  # noqa: NPY002 - as the authors' script does
    torch.testing.assert_close(style, torch.from_numpy(np.random.randn(1, 512)).float())  # noqa: NPY002
    assert label.shape == (1, 0)
    for each in dropped:
        # 0.5 is dropped or doubled, so that features give way to the style, or stay.
        assert set(each.unique().tolist()) == {0.0, 1.0}
        assert 0.48 < float(each.mean()) < 0.52
    # Outside of the call dropout is what it always is.
    assert torch.nn.functional.dropout(torch.ones(9), p=1.0, training=True).sum() == 0


def test_all_its_tensors_move_with_it(stand_in: tuple[MatInpainter, Generator]) -> None:
    module, generator = stand_in
    assert {name for name, _ in module.named_buffers()} == {
        "generator.layer.weight_maskUpdater", "style", "label", "kept_by_transformer", "kept_by_convolutions",
    }  # fmt: skip
    moved = module.to("meta").to(memory_format=torch.channels_last)
    assert all(buffer.is_meta for buffer in moved.buffers())
    assert generator.layer.weight_maskUpdater.is_meta
    assert not module.state_dict()  # none of these are weights


@pytest.mark.parametrize("size", [(256, 256), (1024, 1024), (512, 1024)])
def test_other_sizes_are_refused(stand_in: tuple[MatInpainter, Generator], size: tuple[int, int]) -> None:
    with pytest.raises(NodeInputError, match="MAT fills photos of 512 x 512"):
        stand_in[0](torch.zeros(1, 3, *size), torch.zeros(1, 1, *size))


def test_masks_that_are_not_all_zero_and_one_are_refused(stand_in: tuple[MatInpainter, Generator]) -> None:
    with pytest.raises(NodeInputError, match="exactly 0"):
        stand_in[0](torch.zeros(1, 3, 512, 512), torch.full((1, 1, 512, 512), 0.5))
    with pytest.raises(NodeInputError, match="the mask must be"):
        stand_in[0](torch.zeros(1, 3, 512, 512), torch.zeros(1, 1, 512, 256))


# -- its code is opt-in ------------------------------------------------------------------------------------------------


def test_without_its_code_the_error_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    with pytest.raises(MissingExtraError, match="MAT x1 is not installed") as caught:
        SPEC.build({"synthesis.first_stage.conv_first.conv.resample_filter": torch.zeros(4, 4)})
    assert caught.value.hint == f"pip install '{SPEC.requirement}'"


def test_its_terms_are_stated() -> None:
    assert SPEC.weights[0].licence.id == "CC-BY-NC-4.0"
    assert not SPEC.weights[0].licence.commercial
    assert (SPEC.native_side, SPEC.multiple_of, SPEC.minimum) == (512, 512, 512)


# -- the network -------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def state(tmp_path_factory: pytest.TempPathFactory) -> dict[str, torch.Tensor]:
    """Random weights, saved and read as the published file is."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that torch.jit.script, which a neighbour of MAT's calls, is deprecated
        from spandrel_extra_arches.architectures.MAT import MAT

    path = tmp_path_factory.mktemp("weights") / SPEC.weights[0].filename
    torch.save(mat_state(MAT().model.state_dict()), path)
    # Each of 465 tensors has a name of some length inside. Noise maps would be 2.8 MB: the published file has none.
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 50_000
    found = {name: tensor.clone() for name, tensor in read_state_dict(path).items()}
    path.unlink()
    return found


@needs_extra
@pytest.mark.slow
def test_it_is_the_authors_network(state: dict[str, torch.Tensor]) -> None:
    golden: Any = np.load(GOLDEN)
    assert layout_digest(state) == str(golden["mat/layout"])
    module = SPEC.build(state)
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())
    for tensor in tensors:
        if tensor.dim() == 4:  # as the pool lays them out
            tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
    image, mask = mat_case()
    with torch.inference_mode():
        drawn = module(image.contiguous(memory_format=torch.channels_last), mask)
    assert torch.equal(torch.where(mask == 1, image, drawn), image)
    filled = drawn[0].permute(1, 2, 0)[mask[0, 0] == 1][::MAT_STEP].numpy()
    wanted = golden["mat/drawn"]
    assert ((wanted > 0) & (wanted < 1)).mean() > 0.9  # so that the comparison is not one of clamped values
    assert filled.std(axis=0).min() > 0.05
    np.testing.assert_allclose(filled, wanted.clip(0, 1), atol=1e-4)


@needs_extra
def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="MAT x1 was expected"):
        SPEC.build({"banana": torch.zeros(3)})


@needs_extra
@pytest.mark.slow
@pytest.mark.skipif(
    REAL is None or not (Path(REAL) / SPEC.weights[0].filename).is_file(),
    reason="needs PHOTOKEEP_REAL_MODELS to name a folder with the published Places_512_FullData_G.pth",
)
def test_the_published_file_fills_holes_better_than_a_blur() -> None:
    path = Path(str(REAL)) / SPEC.weights[0].filename
    assert sha256_of(path) == SPEC.weights[0].sha256
    assert path.stat().st_size == SPEC.weights[0].size_bytes
    photo = torch.from_numpy(data.astronaut() / np.float32(255)).permute(2, 0, 1)[None]
    mask = holes(512, 512)
    with torch.inference_mode():
        drawn = SPEC.build(read_state_dict(path))(photo, mask)
    mean = (photo * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum()
    errors = [((each - photo) * mask).pow(2).sum() / mask.sum() for each in (drawn, mean.expand_as(photo))]
    assert errors[0] < 0.5 * errors[1]
