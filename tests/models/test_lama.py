"""LaMa's published weights are a download, so the exact architecture is proved on seeded random ones.

The golden output is that of the authors' own code in the published configuration; tests/data/make_inpainters.py. Here
the same weights are laid out as in the published file, a TorchScript program, and read from there.
``PHOTOKEEP_REAL_MODELS``, a folder with the published big-lama.pt, adds a check of the real one.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from file_server import serving
from inpainters import as_published, holes, lama_case, lama_state, trace
from published import layout_digest
from skimage import data
from spandrel.architectures.LaMa import LaMa

from photokeep_nodes import fetching, inference, weights
from photokeep_nodes._arch.inpainter import LamaInpainter
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.importing import import_file
from photokeep_nodes.models import _spandrel, catalogue
from photokeep_nodes.models.lama import SPEC
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from collections.abc import Iterator

    from photokeep_nodes.model_spec import ModelSpec

GOLDEN = Path(__file__).parents[1] / "data" / "inpainters.npz"
REAL = os.environ.get("PHOTOKEEP_REAL_MODELS")
SCRATCHES = (slice(None), slice(None), slice(20, 48), slice(40, 60))


@pytest.fixture(scope="module")
def published(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A file as big-lama.pt is, with random weights."""
    program = as_published(LaMa(in_nc=4, out_nc=3).model.model)
    program.load_state_dict(lama_state(program.state_dict()))
    path = tmp_path_factory.mktemp("weights") / "big-lama.pt"
    trace(program, path)
    yield path
    path.unlink()


@pytest.fixture(scope="module")
def state(published: Path) -> dict[str, torch.Tensor]:
    return read_state_dict(published)


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return SPEC.build(state)


def spec_of(published: Path, url: str = "http://127.0.0.1:9/") -> ModelSpec:
    file = SPEC.weights[0]
    origin = replace(file.origin, url=url, mirrors=())
    changed = replace(file, origin=origin, size_bytes=published.stat().st_size, sha256=sha256_of(published))
    return replace(SPEC, weights=(changed,))


@pytest.mark.slow
def test_it_is_the_authors_network_in_the_published_file(
    published: Path, state: dict[str, torch.Tensor], module: torch.nn.Module
) -> None:
    golden = np.load(GOLDEN)
    assert layout_digest(state) == str(golden["lama/layout"])
    # Code and names take 1.4 MB of it, and spandrel's code some more than the authors', whose trace, made by hand with
    # torch 2.15, had 46,133 bytes more than the published file.
    tensor_bytes = sum(tensor.nbytes for tensor in state.values())
    assert tensor_bytes == 204_229_324
    assert 1_000_000 < SPEC.weights[0].size_bytes - tensor_bytes < 2_000_000
    assert abs(published.stat().st_size - SPEC.weights[0].size_bytes) < 600_000
    image, mask = lama_case()
    with torch.inference_mode():
        drawn = module(image, mask)
    filled = drawn[0].permute(1, 2, 0)[mask[0, 0] == 1].numpy()
    assert filled.std(axis=0).min() > 0.05
    assert 0.02 < filled.min() < filled.max() < 0.98
    np.testing.assert_allclose(filled, golden["lama/drawn"], atol=3e-5)


@pytest.mark.slow
def test_only_the_hole_is_drawn_and_what_it_covers_has_no_influence(module: torch.nn.Module) -> None:
    image, mask = lama_case()
    other = torch.where(mask == 1, 1 - image, image)
    with torch.inference_mode():
        first, second = module(image, mask), module(other, mask)
        planes_last = module(image.contiguous(memory_format=torch.channels_last), mask)
    assert torch.equal(torch.where(mask == 1, image, first), image)
    assert ((first != image).any(1, keepdim=True) == (mask == 1)).float().mean() > 0.99
    torch.testing.assert_close(first, second, rtol=0, atol=1e-5)
    torch.testing.assert_close(first, planes_last, rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("size", [(16, 16), (16, 200), (24, 40)])
def test_small_and_long_photos_are_filled(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        drawn = module(torch.full((1, 3, *size), 0.5), torch.ones(1, 1, *size))
    assert drawn.shape == (1, 3, *size)
    assert drawn.isfinite().all()


@pytest.mark.slow
def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())
    assert (SPEC.multiple_of, SPEC.minimum) == (LamaInpainter.MULTIPLE, LamaInpainter.MINIMUM)


@pytest.mark.parametrize("prefix", ["model.generator.", "generator."])
def test_the_authors_checkpoints_are_read_too(prefix: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They have other networks beside the generator, and no wrapper around."""
    seen: list[str] = []

    def load(state: dict[str, torch.Tensor], **_options: object) -> torch.nn.Module:
        seen.extend(state)
        return Nothing()

    monkeypatch.setattr(_spandrel, "load", load)
    others = {} if prefix.startswith("model.") else {"discriminator.model0.0.weight": torch.zeros(1)}
    SPEC.build({f"{prefix}model.1.bn_l.weight": torch.zeros(1), **others})
    assert seen == ["generator.model.1.bn_l.weight"]


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
def test_a_users_file_is_imported_and_runs(
    published: Path, module: torch.nn.Module, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, on_the_cpu: None
) -> None:
    spec = spec_of(published)
    monkeypatch.setitem(catalogue(), "lama", spec)
    (tmp_path / "lama (1).pt").hardlink_to(published)
    found = import_file(tmp_path / "lama (1).pt")
    assert (found.spec, found.found_as) == (spec, "lama")
    assert found.path == tmp_path / "models" / "big-lama.pt"
    assert weights.verify(spec).path == found.path
    image, mask = lama_case()
    drawn = inference.run(spec, lambda network: network(image, mask), height=72, width=104)
    found.path.unlink()
    with torch.inference_mode():
        torch.testing.assert_close(drawn, module(image, mask), rtol=0, atol=1e-4)


@pytest.mark.slow
@pytest.mark.usefixtures("own_folders")
def test_it_can_be_fetched(published: Path, tmp_path: Path) -> None:
    with serving() as server:
        (order,) = fetching.orders([spec_of(published, server.publish("/big-lama.pt", published.read_bytes()))])
        path = fetching.fetch(order)
        server.pages.clear()
    assert path == tmp_path / "models" / "big-lama.pt"
    assert sha256_of(path) == sha256_of(published)
    path.unlink()


class Nothing(torch.nn.Module):
    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return image + mask


@pytest.mark.parametrize(
    ("image", "mask", "message"),
    [
        ((2, 3, 16, 16), (2, 1, 16, 16), r"must be \(1, 3, height, width\)"),
        ((1, 1, 16, 16), (1, 1, 16, 16), r"must be \(1, 3, height, width\)"),
        ((3, 16, 16), (1, 1, 16, 16), r"must be \(1, 3, height, width\)"),
        ((1, 3, 16, 24), (1, 1, 24, 16), r"the mask must be \(1, 1, 16, 24\)"),
        ((1, 3, 16, 16), (1, 3, 16, 16), r"the mask must be \(1, 1, 16, 16\)"),
        ((1, 3, 16, 16), (16, 16), r"the mask must be \(1, 1, 16, 16\)"),
        ((1, 3, 16, 20), (1, 1, 16, 20), "multiples of 8 px from 16 on, not 16 x 20"),
        ((1, 3, 8, 16), (1, 1, 8, 16), "multiples of 8 px from 16 on, not 8 x 16"),
    ],
)
def test_other_shapes_are_refused(image: tuple[int, ...], mask: tuple[int, ...], message: str) -> None:
    with pytest.raises(NodeInputError, match=message):
        LamaInpainter(Nothing())(torch.zeros(image), torch.zeros(mask))


@pytest.mark.parametrize("value", [0.5, -1.0, 255.0, 1e-3, float("nan")])
def test_masks_that_are_not_all_zero_and_one_are_refused(value: float) -> None:
    mask = holes(16, 16)
    LamaInpainter(Nothing())(torch.zeros(1, 3, 16, 16), mask)
    mask[..., 3, 3] = value
    with pytest.raises(NodeInputError, match="exactly 0"):
        LamaInpainter(Nothing())(torch.zeros(1, 3, 16, 16), mask)


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="LaMa x1 was expected"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match="LaMa x1 was expected"):
        SPEC.build({"model.generator.banana": torch.zeros(3)})


@pytest.mark.slow
@pytest.mark.skipif(
    REAL is None or not (Path(REAL) / "big-lama.pt").is_file(),
    reason="needs PHOTOKEEP_REAL_MODELS to name a folder with the published big-lama.pt",
)
def test_the_published_file_fills_holes_better_than_a_blur() -> None:
    path = Path(str(REAL)) / "big-lama.pt"
    assert sha256_of(path) == SPEC.weights[0].sha256
    assert path.stat().st_size == SPEC.weights[0].size_bytes
    found = read_state_dict(path)
    assert layout_digest(found) == str(np.load(GOLDEN)["lama/layout"])
    photo = torch.from_numpy(data.astronaut()[:256, 100:356] / np.float32(255)).permute(2, 0, 1)[None]
    mask = holes(256, 256)
    with torch.inference_mode():
        drawn = SPEC.build(found)(photo, mask)
    mean = (photo * (1 - mask)).sum((2, 3), keepdim=True) / (1 - mask).sum()
    errors = [((each - photo) * mask).pow(2).sum() / mask.sum() for each in (drawn, mean.expand_as(photo))]
    assert errors[0] < 0.3 * errors[1]
