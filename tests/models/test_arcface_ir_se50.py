"""ArcFace's published weights are a download, so the exact network is proved on random ones.

The golden embeddings are those of facexlib's own network; tests/data/make_face_identity.py.
"""

from __future__ import annotations

import numpy as np
import pytest
import torch
from identity_faces import GOLDEN, arcface_crops, arcface_state, astronaut

from photokeep_nodes._arch import ffhq_window
from photokeep_nodes._arch.arcface import _TEMPLATE, SIDE, WINDOW
from photokeep_nodes.errors import NodeInputError, WeightsFormatError
from photokeep_nodes.models.arcface_ir_se50 import SPEC
from photokeep_nodes.weight_formats import read_state_dict


@pytest.fixture(scope="module")
def module(tmp_path_factory: pytest.TempPathFactory) -> torch.nn.Module:
    """Built as a user's file is: saved as published, in the format of its time, and read."""
    path = tmp_path_factory.mktemp("weights") / SPEC.weights[0].filename
    torch.save(arcface_state(), path, _use_new_zipfile_serialization=False)
    # What the published file holds beside its tensors is a pickle of their names and shapes.
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 20_000
    built = SPEC.build(read_state_dict(path))
    path.unlink()
    return built


def test_embeddings_are_those_of_facexlib(module: torch.nn.Module) -> None:
    golden = np.load(GOLDEN)["arcface/embeddings"]
    with torch.inference_mode():
        ours = module.raw(arcface_crops())
    assert golden.std() > 0.04
    assert np.abs(golden[0] - golden[1]).max() > 0.05
    np.testing.assert_allclose(ours.numpy(), golden, atol=1e-5)


def test_faces_are_cut_turned_to_bgr_and_scaled(module: torch.nn.Module) -> None:
    face = astronaut()
    crop = ffhq_window.cut(face, WINDOW, SIDE)
    with torch.inference_mode():
        found = module(torch.cat((face, face.flip(-1))))
        wanted = module.raw(crop.flip(1) * 2 - 1)
        rgb = module.raw(crop * 2 - 1)
    assert found.shape == (2, 512)
    torch.testing.assert_close(found.norm(dim=1), torch.ones(2))
    torch.testing.assert_close(found[:1], wanted, rtol=0, atol=1e-5)
    assert (found[:1] - rgb).abs().max() > 1e-3


def test_the_window_brings_landmarks_to_the_template() -> None:
    goal = torch.tensor(_TEMPLATE) + 0.5
    here = torch.tensor(ffhq_window._LANDMARKS)
    found = (here - torch.tensor(WINDOW[:2])) * (SIDE / WINDOW.side)
    assert (found - goal).norm(dim=1).max() < 3.5  # of 112: faces of FFHQ are a little wider than those of LFW
    assert (found - goal).mean(0).abs().max() < 1e-3


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())


def test_other_shapes_are_refused(module: torch.nn.Module) -> None:
    with pytest.raises(NodeInputError, match=r"must be \(batch, 3, 512, 512\)"):
        module(torch.zeros(1, 3, 112, 112))


def test_another_network_is_refused() -> None:
    with pytest.raises(WeightsFormatError, match="not those of ArcFace"):
        SPEC.build({"banana": torch.zeros(3)})
    state = {**arcface_state(), "output_layer.3.weight": torch.zeros(512, 512)}
    with pytest.raises(WeightsFormatError, match=r"output_layer\.3\.weight is \(512, 512\)"):
        SPEC.build(state)
