"""What a plan says of a job, by the workflows and photos it is made of."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest
from command_shell import save_photo

from headless.job import Job, node_schemas
from headless.plan_report import report
from photokeep_nodes import host, models
from photokeep_nodes.errors import MissingExtraError, UsageError, WorkflowInvalidError

SCHEMAS = node_schemas()


def node(class_type: str, **inputs: object) -> dict[str, object]:
    widgets = {each.name: each.widget_default for each in SCHEMAS[class_type].widgets}
    return {"class_type": class_type, "inputs": widgets | inputs}


def workflow() -> dict[str, dict[str, object]]:
    return {
        "1": node("PhotokeepLoadPhoto", photo="a.png"),
        "2": node("PhotokeepModelFFDNet"),
        "3": node("PhotokeepDenoise", image=["1", 0], model=["2", 0]),
        "4": node("PhotokeepSavePhoto", image=["3", 0]),
    }


@pytest.fixture
def planned(tmp_path, own_folders):
    """The report on a workflow."""
    save_photo(tmp_path / "a.png")

    def planned(nodes, **options):
        (tmp_path / "w.json").write_text(json.dumps(nodes))
        settings = host.Standalone(output_dir=tmp_path / "out", device="cpu")
        return report(Job(tmp_path / "w.json", settings=settings, store=None, **options))

    return planned


def test_a_stage_follows_stages_and_uses_models(planned):
    found = planned(workflow())
    (run,) = found.runs
    assert [(stage.id, stage.after, stage.models) for stage in run.stages] == [
        ("1", (), ()),
        ("3", ("1",), ("ffdnet-color",)),
        ("4", ("3",), ()),
    ]
    assert run.stages[1].memory_bytes == models.get(models.ModelHandle("ffdnet-color")).weight_bytes
    assert run.stages[1].memory_is_least
    assert (found.exit_code, found.problem, found.unused) == (0, None, ())
    assert run.stages[0].why == "the cache is off"


def test_nodes_without_use_and_odd_values_are_told(planned):
    nodes = workflow()
    nodes["9"] = node("PhotokeepModelFFDNet")
    nodes["9"]["_meta"] = {"title": "On the shelf"}
    nodes["4"]["inputs"]["surprise"] = 1
    found = planned(nodes)
    assert [(each.id, each.title, each.class_type) for each in found.unused] == [
        ("9", "On the shelf", "PhotokeepModelFFDNet")
    ]
    assert any("surprise" in warning for warning in found.warnings)


def test_a_network_without_its_code_stops_its_stage(planned, monkeypatch):
    spec = models.catalogue()["ffdnet-color"]
    monkeypatch.setitem(models.catalogue(), "ffdnet-color", replace(spec, requirement="no_such_package_at_all>=1"))
    found = planned(workflow())
    assert [(stage.outcome, stage.why) for stage in found.runs[0].stages[1:2]] == [
        ("blocked", f"{spec.title} cannot be used")
    ]
    assert isinstance(found.problem, MissingExtraError)
    assert found.exit_code == 2


def test_a_photo_that_is_not_there_is_refused(planned):
    nodes = workflow()
    nodes["1"]["inputs"]["photo"] = "gone.png"
    with pytest.raises(WorkflowInvalidError, match=r"gone\.png"):
        planned(nodes)
    with pytest.raises(UsageError, match=r"gone\.png"):
        planned(workflow(), inputs=["gone.png"])


def test_a_photo_that_went_away_is_told_beside_the_others(planned, tmp_path):
    first, second = (save_photo(tmp_path / "in" / name) for name in ("a.png", "b.png"))
    original = Job.laid_out

    def laid_out(self, photo):
        second.unlink(missing_ok=True)
        return original(self, photo)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Job, "laid_out", laid_out)
        found = planned(workflow(), inputs=[str(first), str(second)])
    assert [run.error is None for run in found.runs] == [True, False]
    assert found.exit_code == 1
    assert "b.png" in found.as_json()["runs"][1]["error"]["message"]


def test_thousands_of_stages_are_no_trouble(planned):
    nodes = {"0": node("PhotokeepLoadPhoto", photo="a.png")}
    for index in range(1, 3000):
        nodes[str(index)] = node("PhotokeepRestoreColors", image=[str(index - 1), 0])
    nodes["3000"] = node("PhotokeepSavePhoto", image=["2999", 0])
    (run,) = planned(nodes).runs
    assert len(run.stages) == 3001
    assert run.stages[-1].after == ("2999",)
