"""The runner on small real nodes: what runs, what is taken from the store, what a failure leaves behind."""

from __future__ import annotations

import itertools
import sys
from typing import TYPE_CHECKING

import pytest
import torch

from headless.events import StageEnded, StageProgressed, StageStarted, Warned
from headless.graph import Link, Workflow, WorkflowNode
from headless.plan import make_plan
from headless.run import Runner
from headless.schema import schemas_of
from headless.store import Store
from photokeep_nodes import host
from photokeep_nodes.errors import MissingExtraError, PhotoReadError, StageFailedError, WeightsMissingError

if TYPE_CHECKING:
    from pathlib import Path

calls: list[str] = []


class Source:
    """A gray image of one level."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"level": ("FLOAT", {"default": 0.5, "min": -9.0, "max": 9.0})}}

    def run(self, level):
        calls.append("source")
        return (torch.full((1, 4, 4, 3), float(level)),)


class Invert:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        calls.append("invert")
        host.Progress(2, "tiles").advance()
        return (1.0 - image,)


class Clip:
    """Returns the same for many inputs, so that what follows need not run again."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",)}}

    def run(self, image):
        calls.append("clip")
        return (image.clamp(0.0, 0.0),)


class Fail:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "how": ("STRING", {"default": "typed"})}}

    def run(self, image, how):
        calls.append("fail")
        if how == "typed":
            raise PhotoReadError("the photo is torn", hint="Glue it.")
        if how == "interrupt":
            raise KeyboardInterrupt
        if how == "shape":
            return ()
        raise ZeroDivisionError("one over zero")


class Dice:
    """Differs each time, and says so."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"
    _count = itertools.count()

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {}}

    @classmethod
    def IS_CHANGED(cls):
        return float("nan")

    def run(self):
        calls.append("dice")
        return (torch.full((1, 2, 2, 3), next(self._count) / 7),)


class Write:
    """Writes the mean into a file, as SavePhoto writes a photo."""

    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"image": ("IMAGE",), "name": ("STRING", {"default": "mean"})},
            "hidden": {"prompt": "PROMPT", "unique_id": "UNIQUE_ID"},
        }

    def run(self, image, name, prompt, unique_id):
        calls.append("write")
        assert unique_id in prompt
        folder = host.output_dir() / "sub"
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}.txt"
        number = 1
        while path.exists():
            number += 1
            path = folder / f"{name}_{number}.txt"
        path.write_text(f"{float(image.mean()):.6f}")
        return {"ui": {"images": [{"filename": path.name, "subfolder": "sub", "type": "output"}]}, "result": ()}


NODES = {cls.__name__: cls for cls in (Source, Invert, Clip, Fail, Dice, Write)}
SCHEMAS = schemas_of(NODES)


def workflow(**nodes):
    """``name=(class, inputs)``; a tuple value is a link."""
    return Workflow(
        {
            name: WorkflowNode(
                name,
                class_type,
                name.title(),
                {key: Link(*value) if isinstance(value, tuple) else value for key, value in inputs.items()},
            )
            for name, (class_type, inputs) in nodes.items()
        }
    )


CHAIN = {
    "a": ("Source", {"level": 0.25}),
    "b": ("Invert", {"image": ("a", 0)}),
    "c": ("Write", {"image": ("b", 0), "name": "mean"}),
}


class Bench:
    def __init__(self, folder: Path) -> None:
        self.store: Store | None = Store(folder / "store")
        self.output = folder / "output"
        self.events = []

    def run(self, nodes, **settings):
        calls.clear()
        self.events.clear()
        return self._runner(nodes, SCHEMAS, **settings).run()

    def forecast(self, nodes, schemas=SCHEMAS):
        calls.clear()
        return self._runner(nodes, schemas).forecast()

    def _runner(self, nodes, schemas, **settings):
        flow = workflow(**nodes)
        return Runner(
            make_plan(flow, schemas),
            schemas,
            host.Standalone(output_dir=self.output, device="cpu", **settings),
            store=self.store,
            prompt=flow.to_prompt(),
            extra_pnginfo={},
            listener=self.events.append,
            identity="test",
        )


@pytest.fixture
def bench(tmp_path):
    return Bench(tmp_path)


def statuses(result):
    return {stage.stage_id: stage.status for stage in result.stages}


def whys(result):
    return {stage.stage_id: stage.why for stage in result.stages}


def names(folder):
    return sorted(path.name for path in folder.iterdir())


def test_runs_each_stage_once_in_order_and_saves(bench):
    result = bench.run(CHAIN)
    assert calls == ["source", "invert", "write"]
    assert result.status == "done"
    assert statuses(result) == {"a": "ran", "b": "ran", "c": "ran"}
    assert (bench.output / "sub" / "mean.txt").read_text() == "0.750000"
    assert result.files == (bench.output / "sub" / "mean.txt",)
    assert all(stage.peak_bytes > 0 for stage in result.stages)
    assert {type(event) for event in bench.events} == {StageStarted, StageProgressed, StageEnded}
    assert [e.index for e in bench.events if isinstance(e, StageStarted)] == [1, 2, 3]


def test_second_run_runs_nothing_and_leaves_the_file_alone(bench):
    bench.run(CHAIN)
    before = (bench.output / "sub" / "mean.txt").stat().st_mtime_ns
    result = bench.run(CHAIN)
    assert calls == []
    assert set(statuses(result).values()) == {"cached"}
    assert result.files == (bench.output / "sub" / "mean.txt",)
    assert (bench.output / "sub" / "mean.txt").stat().st_mtime_ns == before
    assert names(bench.output / "sub") == ["mean.txt"]


def test_without_a_store_everything_runs_each_time(bench):
    bench.store = None
    bench.run(CHAIN)
    result = bench.run(CHAIN)
    assert calls == ["source", "invert", "write"]
    assert whys(result)["a"] == "the cache is off"
    assert names(bench.output / "sub") == ["mean.txt", "mean_2.txt"]


def test_a_changed_value_reruns_what_depends_on_it_and_says_why(bench):
    bench.run(CHAIN)
    changed = CHAIN | {"c": ("Write", {"image": ("b", 0), "name": "other"})}
    result = bench.run(changed)
    assert calls == ["write"]
    assert "input changed: name" in whys(result)["c"]
    result = bench.run(changed | {"a": ("Source", {"level": 0.5})})
    assert calls == ["source", "invert", "write"]
    assert whys(result)["a"] == "input changed: level"
    assert "image" in whys(result)["b"]


def test_an_unchanged_output_cuts_the_rerun_short(bench):
    nodes = {
        "a": ("Source", {"level": 0.25}),
        "b": ("Clip", {"image": ("a", 0)}),
        "c": ("Invert", {"image": ("b", 0)}),
        "d": ("Write", {"image": ("c", 0), "name": "x"}),
    }
    bench.run(nodes)
    result = bench.run(nodes | {"a": ("Source", {"level": 0.75})})
    assert calls[:2] == ["source", "clip"]
    # Write embeds the whole prompt, so it does run; the stage between, which sees the same image, does not.
    assert statuses(result) == {"a": "ran", "b": "ran", "c": "cached", "d": "ran"}


def test_a_deleted_result_is_put_back_without_running(bench):
    bench.run(CHAIN)
    path = bench.output / "sub" / "mean.txt"
    path.unlink()
    result = bench.run(CHAIN)
    assert calls == []
    assert path.read_text() == "0.750000"
    assert result.files == (path,)


def test_a_result_changed_by_hand_is_kept_and_a_new_one_written(bench):
    bench.run(CHAIN)
    path = bench.output / "sub" / "mean.txt"
    path.write_text("mine")
    result = bench.run(CHAIN)
    assert calls == ["write"]
    assert path.read_text() == "mine"
    assert result.files == (path.with_name("mean_2.txt"),)


def test_a_damaged_blob_is_made_again(bench):
    bench.run(CHAIN)
    for blob in (bench.store.root / "blobs").rglob("*"):
        if blob.is_file():
            data = bytearray(blob.read_bytes())
            data[-1] ^= 1
            blob.write_bytes(data)
    (bench.output / "sub" / "mean.txt").unlink()
    result = bench.run(CHAIN)
    assert result.status == "done"
    assert (bench.output / "sub" / "mean.txt").read_text() == "0.750000"
    assert any(isinstance(event, Warned) and "damaged" in event.message for event in bench.events)


def test_a_failure_stops_what_depends_on_it_and_nothing_else(bench):
    nodes = CHAIN | {
        "x": ("Fail", {"image": ("a", 0), "how": "typed"}),
        "y": ("Write", {"image": ("x", 0), "name": "never"}),
    }
    result = bench.run(nodes)
    assert result.status == "failed"
    assert statuses(result) == {"a": "ran", "b": "ran", "c": "ran", "x": "failed", "y": "skipped"}
    failed = next(stage for stage in result.stages if stage.stage_id == "x")
    assert isinstance(failed.error, PhotoReadError)
    assert whys(result)["y"] == "X did not finish"
    assert not (bench.output / "sub" / "never.txt").exists()
    # Only what failed, and what waited for it, is taken up by the next run.
    bench.run(nodes)
    assert calls == ["fail"]


@pytest.mark.parametrize(("how", "text"), [("untyped", "ZeroDivisionError: one over zero"), ("shape", "0 outputs")])
def test_a_fault_in_a_node_is_a_typed_error(bench, how, text):
    result = bench.run(
        {
            "a": ("Source", {"level": 0.5}),
            "x": ("Fail", {"image": ("a", 0), "how": how}),
            "y": ("Write", {"image": ("x", 0), "name": "n"}),
        }
    )
    error = next(stage.error for stage in result.stages if stage.stage_id == "x")
    assert isinstance(error, StageFailedError)
    assert text in str(error)


def test_an_interruption_passes_through_and_keeps_what_was_finished(bench):
    nodes = {
        "a": ("Source", {"level": 0.5}),
        "x": ("Fail", {"image": ("a", 0), "how": "interrupt"}),
        "y": ("Write", {"image": ("x", 0), "name": "n"}),
    }
    result = bench.run(nodes)
    assert result.status == "interrupted"
    assert statuses(result) == {"a": "ran"}
    result = bench.run(nodes | {"x": ("Fail", {"image": ("a", 0), "how": "typed"})})
    assert statuses(result)["a"] == "cached"


def test_a_node_that_always_changes_runs_each_time(bench):
    nodes = {"a": ("Dice", {}), "b": ("Write", {"image": ("a", 0), "name": "n"})}
    bench.run(nodes)
    result = bench.run(nodes)
    assert calls == ["dice", "write"]
    assert whys(result)["a"] == "its result may differ each time"


def test_an_unwritable_store_warns_and_does_not_stop_the_run(bench):
    (bench.store.root / "blobs").write_text("in the way")
    result = bench.run(CHAIN)
    assert result.status == "done"
    assert any(isinstance(event, Warned) and "cannot be written" in event.message for event in bench.events)


def test_a_record_that_points_out_of_the_output_folder_is_not_followed(bench, tmp_path):
    bench.run(CHAIN)
    (bench.output / "sub" / "mean.txt").unlink()
    for record in (bench.store.root / "records").rglob("*.json"):
        record.write_text(record.read_text().replace("sub/mean.txt", "../escaped.txt"))
    bench.run(CHAIN)
    assert not (tmp_path / "escaped.txt").exists()
    assert (bench.output / "sub" / "mean.txt").exists()


def test_outputs_are_dropped_once_their_last_taker_has_run(bench):
    flow = workflow(**CHAIN)
    runner = Runner(
        make_plan(flow, SCHEMAS),
        SCHEMAS,
        host.Standalone(output_dir=bench.output, device="cpu"),
        store=None,
        prompt=flow.to_prompt(),
        extra_pnginfo={},
        listener=lambda _event: None,
        identity="",
    )
    runner.run()
    assert runner._values == {}


def test_forecast_says_what_a_run_would_do(bench):
    assert [each.will_run for each in bench.forecast(CHAIN)] == [True, None, None]
    bench.run(CHAIN)
    assert [each.will_run for each in bench.forecast(CHAIN)] == [False, False, False]
    changed = bench.forecast(CHAIN | {"a": ("Source", {"level": 0.5})})
    assert [each.will_run for each in changed] == [True, None, None]
    assert changed[0].why == "input changed: level"
    assert changed[1].why == "after A"
    assert calls == []


def test_forecast_tells_what_a_stage_took_last_time_whatever_its_inputs(bench):
    before = bench.forecast(CHAIN)
    assert [each.last for each in before] == [None, None, None]
    bench.run(CHAIN)
    for nodes in (CHAIN, CHAIN | {"a": ("Source", {"level": 0.5})}):
        assert all(each.last.seconds > 0 and each.last.peak_bytes > 0 for each in bench.forecast(nodes))


class Read(Source):
    """Takes a photo, of which nothing was asked beforehand."""

    FILE_INPUTS = ("photo",)

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"photo": ("STRING", {})}}


def test_forecast_goes_on_past_a_file_that_is_not_there(bench):
    found = bench.forecast(CHAIN | {"a": ("Read", {"photo": "gone.png"})}, schemas_of(NODES | {"Read": Read}))
    assert [(each.will_run, each.blocked) for each in found] == [(None, True), (None, False), (None, False)]
    assert "gone.png" in found[0].why


def test_missing_weights_stop_the_run_before_any_work(tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "none"))
    runner = with_a_model(
        tmp_path,
        m=("PhotokeepModelSiggraph17", {}),
        c=("PhotokeepColorize", {"image": ("a", 0), "model": ("m", 0), "strength": 1.0, "when": "if_gray"}),
    )
    calls.clear()
    with pytest.raises(WeightsMissingError) as caught:
        runner.run()
    assert calls == []
    assert [each["model"] for each in caught.value.context["missing"]] == ["siggraph17"]


def test_missing_network_code_stops_the_run_before_any_work(tmp_path, monkeypatch):
    """The weights may be here without it; alone and beside missing weights it is said how to get it."""
    from photokeep_nodes.models.restormer_dn import SPEC

    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    monkeypatch.setitem(sys.modules, "spandrel_extra_arches", None)
    runner = with_a_model(
        tmp_path,
        m=("PhotokeepModelRestormerDenoise", {}),
        c=("PhotokeepDenoise", {"image": ("a", 0), "model": ("m", 0), "noise": "auto", "sigma": 15.0, "strength": 1.0}),
    )
    calls.clear()
    with pytest.raises(WeightsMissingError, match=r"(?s)Restormer.*pip install 'spandrel_extra_arches") as caught:
        runner.run()
    assert [each["model"] for each in caught.value.context["missing"]] == ["restormer-dn"]
    with (tmp_path / SPEC.weights[0].filename).open("wb") as file:
        file.truncate(SPEC.weights[0].size_bytes)
    with pytest.raises(MissingExtraError, match="pip install 'spandrel_extra_arches"):
        runner.run()
    assert calls == []


def with_a_model(tmp_path, *, m, c):
    """A runner of a source, a stage ``c`` with a model ``m``, and a file."""
    from photokeep_nodes import NODE_CLASS_MAPPINGS

    schemas = schemas_of({**NODES, **NODE_CLASS_MAPPINGS})
    flow = workflow(a=("Source", {"level": 0.5}), m=m, c=c, w=("Write", {"image": ("c", 0), "name": "n"}))
    return Runner(
        make_plan(flow, schemas),
        schemas,
        host.Standalone(output_dir=tmp_path / "out", device="cpu"),
        store=None,
        prompt=flow.to_prompt(),
        extra_pnginfo={},
        listener=lambda _event: None,
        identity="",
    )
