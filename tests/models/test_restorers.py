"""The face restorers compute what their authors' own code computes.

Their weights are downloads that may not lie here, so the exact architectures are proved on random ones, laid out and
read as the published files are; what the authors' code makes of them is in ``tests/data/restorers.npz`` (see the
README there). ``PHOTOKEEP_REAL_MODELS`` names a folder with published files for the last test.
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from published import layout_digest
from restorers import GOLDEN, PUBLISHED, STEP, aligned_face, publish, random_weights

from photokeep_nodes import models, weights
from photokeep_nodes.weight_formats import read_state_dict

if TYPE_CHECKING:
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec

FOLDER = os.environ.get("PHOTOKEEP_REAL_MODELS")
CATALOGUE = models.catalogue()
ARRAYS = np.load(GOLDEN)
FIRST = {each.layout.network: model_id for model_id, each in reversed(PUBLISHED.items())}
"""For each network the first model that is one."""

pytestmark = pytest.mark.slow


class Restorer:
    """A model built as a user's file is: saved in the published layout, read, built, and moved as the pool does."""

    def __init__(self, model_id: str, folder: Path) -> None:
        self.network = PUBLISHED[model_id].layout.network
        state = random_weights(model_id)
        self.digest = layout_digest(state)
        self.tensors = len(state)
        self.spec = publish(CATALOGUE[model_id], state, folder)
        path = folder / self.spec.weights[0].filename
        self.module = self.spec.build(read_state_dict(path)).to(torch.float32).to(memory_format=torch.channels_last)
        path.unlink()


@pytest.fixture(scope="module", params=list(reversed(FIRST.values())))
def restorer(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Restorer:
    if CATALOGUE[request.param].requirement:
        pytest.importorskip("spandrel_extra_arches", reason="needs the noncommercial extra")
    return Restorer(request.param, tmp_path_factory.mktemp("weights"))


def test_the_file_is_laid_out_as_the_authors_code_writes_it(restorer: Restorer) -> None:
    assert restorer.digest == str(ARRAYS[f"{restorer.network}/layout"])
    # Beside its tensors a file holds some hundred bytes for each. So does ours; in the old format they are the same but
    # for the digits of addresses in it, in zip archives they depend on the version of torch.
    published = PUBLISHED[restorer.spec.id]
    for model_id, each in PUBLISHED.items():
        if each.layout.network == restorer.network:
            size_bytes = CATALOGUE[model_id].weights[0].size_bytes
            assert 0 < size_bytes - restorer.spec.weight_bytes < 400 * restorer.tensors, model_id
            off = abs(size_bytes - restorer.spec.weights[0].size_bytes)
            assert off < (3 if published.old_format else 150) * restorer.tensors, model_id


def test_it_is_the_authors_network(restorer: Restorer) -> None:
    image = aligned_face().contiguous(memory_format=torch.channels_last)
    goldens = {name: ARRAYS[name] for name in ARRAYS.files if name.startswith(f"{restorer.network}/face")}
    assert len(goldens) == (3 if restorer.spec.condition else 1)
    # What rounding does to a random CodeFormer is more than what it does to the others: a quarter of a step of 8 bits.
    tolerance = 1e-3 if restorer.spec.condition else 3e-4
    for name, golden in goldens.items():
        _, _, told = name.partition("/face/")
        with torch.no_grad():
            out = restorer.module(image, torch.tensor([float(told)])) if told else restorer.module(image)
        assert out.shape == image.shape
        # Nothing is proved by a result that is flat, or clamped.
        assert golden.std((1, 2)).min() > 0.05
        assert ((golden > 0) & (golden < 1)).mean() > 0.7
        np.testing.assert_allclose(out[0, :, ::STEP, ::STEP].numpy(), golden, rtol=0, atol=tolerance, err_msg=name)
    if restorer.spec.condition == "fidelity":
        least, half, most = goldens.values()
        assert min(np.abs(least - half).mean(), np.abs(half - most).mean()) > 0.05


def test_it_is_ready_for_the_pool(restorer: Restorer) -> None:
    tensors = [*restorer.module.parameters(), *restorer.module.buffers()]
    assert 4 * sum(tensor.numel() for tensor in tensors) == restorer.spec.weight_bytes
    assert not any(tensor.requires_grad or tensor.is_meta for tensor in tensors)
    assert not any(part.training for part in restorer.module.modules())


def _detail(image: torch.Tensor) -> float:
    return float((image[..., 1:] - image[..., :-1]).abs().mean())


@pytest.mark.skipif(FOLDER is None, reason="needs PHOTOKEEP_REAL_MODELS to name a folder of published weight files")
@pytest.mark.parametrize("model_id", PUBLISHED)
def test_the_published_file_restores_a_face(model_id: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(FOLDER))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    spec: ModelSpec = CATALOGUE[model_id]
    if weights.status(spec).state == "missing":
        pytest.skip(f"{spec.weights[0].filename} is not in {FOLDER}")
    if spec.requirement:
        pytest.importorskip("spandrel_extra_arches", reason="needs the noncommercial extra")
    weights.verify(spec, rehash=True)
    module = weights.load_module(spec)
    sharp = aligned_face()
    blurred = torch.nn.functional.interpolate(aligned_face(64), size=(512, 512), mode="bicubic").clamp(0, 1)
    with torch.no_grad():
        restored = [
            module(blurred, *told) for told in ([torch.tensor([w])] if spec.condition else [] for w in (0.0, 1.0))
        ]
    for each in restored:
        assert _detail(each) > 1.2 * _detail(blurred)
        assert (each - sharp).abs().mean() < 0.1
    if spec.condition:
        far, near = ((each - blurred).abs().mean() for each in restored)
        assert near < far
