"""What a plan says of models: from the catalogue, the folders, and what earlier runs have measured."""

from __future__ import annotations

from dataclasses import replace

import pytest

from headless.plan_models import Figures, model_plan
from photokeep_nodes import models, vram_metrics
from photokeep_nodes.model_spec import ModelHandle

X4PLUS = ModelHandle("realesrgan-x4plus")


@pytest.fixture
def memory(own_folders):
    return vram_metrics.working_memory()


def plan(handle: ModelHandle, device: str = "cpu"):
    return model_plan(handle, Figures(device))


def test_nothing_is_known_before_the_first_run(memory):
    found = plan(X4PLUS)
    assert (found.state, found.install, found.licence, found.commercial) == ("installed", "", "BSD-3-Clause", True)
    assert found.weight_bytes == models.get(X4PLUS).weight_bytes
    assert (found.working_bytes, found.working_is) == (None, "")


def test_what_calls_took_on_this_kind_of_device(memory):
    memory.observe("realesrgan-x4plus", 256, 256, "float32", "cpu", 100 << 20)
    memory.observe("realesrgan-x4plus", 512, 512, "float32", "cpu", 300 << 20)
    memory.observe("realesrgan-x4plus", 512, 512, "float16", "NVIDIA L4", 200 << 20)
    assert (plan(X4PLUS).working_bytes, plan(X4PLUS).working_is) == (300 << 20, "at least")
    found = plan(X4PLUS, "cuda")
    assert (found.working_bytes, found.working_is) == (200 << 20, "measured")
    assert plan(X4PLUS, "mps").working_bytes is None


def test_what_ran_out_of_memory_counts_as_what_it_will_be_given(memory):
    memory.ran_out("realesrgan-x4plus", 512, 512, "float32", "cpu", 400 << 20)
    assert plan(X4PLUS).working_bytes == 600 << 20


def test_weights_are_as_large_as_they_were_in_the_last_run(memory):
    model = {"key": "realesrgan-x4plus:0123:torch.float16", "n_bytes": 33, "state": "hot", "places": ["cuda:0"]}
    memory.save_run({"version": 1, "workflow": "w.json", "models": [model, model | {"key": "realesrgan-x4plus-x:1"}]})
    assert plan(X4PLUS).weight_bytes == 33


def test_networks_for_one_size_are_estimated(memory):
    spec = models.get(ModelHandle("gfpgan-1.4"))
    found = plan(ModelHandle("gfpgan-1.4"))
    assert (found.state, found.install) == ("missing", "photokeep models get gfpgan-1.4")
    assert (found.working_bytes, found.working_is) == (spec.bytes_per_pixel * spec.native_side**2, "estimate")


def test_a_mixture_needs_both_files(memory):
    blended = next(spec for spec in models.catalogue().values() if spec.blend is not None)
    found = plan(ModelHandle(blended.id, 0.5))
    partner = models.catalogue()[blended.blend.partner]
    for spec in (blended, partner):
        assert spec.weights[0].filename in found.file or spec.weights[-1].filename in found.file
        assert (f"models get {spec.id}" in found.install) == (
            model_plan(ModelHandle(spec.id), Figures("cpu")).state != "installed"
        )


def test_a_file_of_the_users_own_that_is_gone(memory):
    found = plan(ModelHandle("file:upscale/gone.pth"))
    assert (found.state, found.commercial) == ("missing", None)
    assert (found.title, found.file, found.role) == ("gone.pth", "gone.pth", "upscale")
    assert "Put it into one of" in found.detail


def test_a_file_of_the_users_own_that_is_no_model(memory, own_folders):
    own_folders.mkdir()
    (own_folders / "odd.safetensors").write_bytes(b"nothing")
    found = plan(ModelHandle("file:upscale/odd.safetensors"))
    assert (found.state, found.title) == ("unusable", "odd.safetensors")


def test_a_damaged_file_says_how_it_differs(memory, own_folders):
    own_folders.mkdir()
    (own_folders / "GFPGANv1.4.pth").write_bytes(b"short")
    found = plan(ModelHandle("gfpgan-1.4"))
    assert (found.state, found.install) == ("corrupt", "photokeep models get gfpgan-1.4")
    assert "has 5 bytes" in found.detail


def test_a_network_whose_code_is_published_apart(memory, own_folders, monkeypatch):
    spec = models.get(ModelHandle("realesrgan-x4plus"))
    apart = replace(spec, requirement="no_such_package_at_all>=1")
    monkeypatch.setattr(models, "get", lambda _handle: apart)
    found = plan(X4PLUS)
    assert (found.state, found.install) == ("unusable", "pip install 'no_such_package_at_all>=1'")
