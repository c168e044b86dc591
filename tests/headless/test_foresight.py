"""What the runner tells the memory pool of the stages to come."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
import skimage.data
from PIL import Image

from headless import run
from headless.call import call_node
from headless.foresight import Foresight, models_of
from headless.job import Job, node_schemas
from headless.plan import make_plan
from headless.workflow import load_workflow, parse_workflow
from photokeep_nodes import host, inference, vram_manager
from photokeep_nodes.errors import VramError

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"


@pytest.fixture
def planned():
    schemas = node_schemas()
    with host.standalone(host.Standalone(device="cpu")), vram_manager.shared_pool().no_prefetch():
        yield make_plan(parse_workflow(load_workflow(WORKFLOWS / "restore.json"), schemas), schemas), schemas


def titled(plan, title: str) -> str:
    (stage,) = (stage for stage in plan.stages.values() if stage.title == title)
    return stage.id


def plans() -> list[dict]:
    return vram_manager.shared_pool().stats()["plans"]


def test_a_stage_uses_the_models_whose_handles_it_takes(planned):
    plan, schemas = planned
    used = {stage.title: [spec.id for spec in models_of(stage, plan, schemas)] for stage in plan.stages.values()}
    assert used["Find Faces"] == ["retinaface-mobilenet"]
    assert used["Denoise"] == ["ffdnet-color"]
    assert used["Upscale"] == ["realesrgan-x4plus"]
    assert used["Save"] == used["Load"] == []


@pytest.mark.parametrize(("more_photos", "steps"), [(False, 3), (True, 6)])
def test_the_pool_is_told_when_the_first_model_is_needed(planned, more_photos, steps):
    plan, schemas = planned
    with Foresight(plan, schemas, job_id="j", more_photos=more_photos) as foresight:
        foresight.begin(titled(plan, "Load"))
        assert plans() == []
        foresight.begin(titled(plan, "Denoise"))
        assert plans() == [{"job": "j", "position": 1, "steps": steps}], "Find Faces was cached"
        foresight.begin(titled(plan, "Upscale"))
        foresight.begin(titled(plan, "Denoise"))
        assert plans() == [{"job": "j", "position": 2, "steps": steps}], "a stage run again does not turn time back"
    assert plans() == []


def test_a_run_that_needs_no_model_tells_nothing(planned):
    plan, schemas = planned
    with Foresight(plan, schemas, job_id="j", more_photos=True):
        pass
    assert plans() == []


def test_steps_name_the_sources_that_stages_will_lease(planned, monkeypatch):
    plan, schemas = planned
    specs = models_of(plan.stages[titled(plan, "Upscale")], plan, schemas)
    told = inference.foresee("j", [specs])
    (step,) = told.steps
    assert [source.key for source in step.sources] == [inference.source_for(specs[0], step.device).key]
    assert step.device == host.compute_devices()[0]
    with host.standalone(host.Standalone()):
        (step,) = inference.foresee("j", [specs]).steps
        assert step.device == vram_manager.shared_pool().place()
        monkeypatch.setattr(vram_manager.VramPool, "accelerators", ())
        assert inference.foresee("j", [specs]).steps[0].device.type == "cpu"


def test_two_runs_of_one_name_are_refused(planned):
    plan, schemas = planned
    with Foresight(plan, schemas, job_id="j", more_photos=False) as one:
        one.begin(titled(plan, "Denoise"))
        with Foresight(plan, schemas, job_id="j", more_photos=False) as other, pytest.raises(VramError):
            other.begin(titled(plan, "Denoise"))
        assert len(plans()) == 1


def test_the_next_stages_model_is_brought_while_a_stage_computes(tmp_path, monkeypatch):
    """With real weights: nobody waits for those of Upscale, which were read while Denoise had its turn."""
    Image.fromarray(skimage.data.astronaut()[:32, :32]).save(tmp_path / "photo.png")
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    pool = vram_manager.shared_pool()
    pool.trim("ram", 2**62)
    seen: list[str] = []

    def known() -> dict[str, str]:
        return {model["key"].partition(":")[0]: model["state"] for model in pool.stats()["models"]}

    def slowly(stage, schema, inputs):
        seen.append(stage.title)
        if stage.title == "Denoise":
            deadline = time.monotonic() + 60
            while known().get("realesrgan-x4plus") not in {"warm", "hot"}:
                assert time.monotonic() < deadline, "it was not brought"
                time.sleep(0.005)
        return call_node(stage, schema, inputs)

    monkeypatch.setattr(run, "call_node", slowly)
    job = Job(
        WORKFLOWS / "restore.json",
        overrides=["Upscale.scale=1"],
        inputs=[str(tmp_path / "photo.png")],
        settings=host.Standalone(device="cpu", output_dir=tmp_path / "out"),
        store=None,
    )
    before = pool.stats()["counters"]
    (result,) = job.run(lambda _event: None)
    after = pool.stats()["counters"]
    assert result.status == "done", result.stages
    assert seen == [
        *("Load", "Find Faces", "Analyze", "Find Scratches", "Inpaint", "Denoise", "Restore Colors", "Upscale", "Save")
    ]
    assert after["foreseen_loads"] > before["foreseen_loads"]
    assert after["foreseen_hits"] > before["foreseen_hits"]
    assert after["cold_loads"] - before["cold_loads"] == 3, "each model once"
    assert pool.stats()["plans"] == []
