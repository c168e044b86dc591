"""Nodes over lists: how often a node is called, with what, and what comes out; by unit, and in real runs."""

from __future__ import annotations

import asyncio
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from headless import artefact
from headless.graph import Link, Workflow, WorkflowNode
from headless.over_lists import Several, calls, merged
from headless.plan import make_plan
from headless.run import Runner
from headless.schema import OutputSchema, schemas_of
from headless.store import Store
from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError

made: list[object] = []


class Split:
    """Several images, and how many there are."""

    RETURN_TYPES = ("IMAGE", "INT")
    OUTPUT_IS_LIST = (True, False)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"count": ("INT", {"default": 3, "min": 0})}}

    def run(self, count):
        made.append("split")
        return [torch.full((1, 2, 2, 3), index / 10) for index in range(count)], count


class Add:
    """Works on one image at a time."""

    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "by": ("FLOAT", {"default": 0.5})}}

    def run(self, image, by):
        made.append(("add", round(float(image.mean()), 3)))
        return (image + by,)


class Join:
    """Works on all of them at once."""

    RETURN_TYPES = ("STRING",)
    INPUT_IS_LIST = True
    OUTPUT_NODE = True
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {
            "required": {"images": ("IMAGE",), "prefix": ("STRING", {"default": "sum"})},
            "hidden": {"unique_id": "UNIQUE_ID"},
        }

    def run(self, images, prefix, unique_id):
        text = f"{prefix[0]} {unique_id[0]} " + " ".join(f"{float(each.mean()):.1f}" for each in images)
        made.append(text)
        return (text,)


class Later(Add):
    """As newer nodes of others are written."""

    async def run(self, image, by):
        made.append("later")
        return (image * by,)


class Show(Add):
    """Hands nothing on where there is nobody to take it, as many do that show a text."""

    OUTPUT_NODE = True

    def run(self, image, by):
        return {"ui": {"text": ("seen",)}}


SCHEMAS = schemas_of({cls.__name__: cls for cls in (Split, Add, Join, Later, Show)})


@pytest.fixture
def run(tmp_path):
    """Run a chain of node classes, each fed by the first output of the one before."""
    store = Store(tmp_path / "cache")

    def run(*nodes, **widgets):
        made.clear()
        ids = [str(index) for index in range(len(nodes))]
        first = {"count": 3} | widgets
        flow = {ids[0]: WorkflowNode(ids[0], nodes[0], nodes[0], {"count": first["count"]})}
        for before, node_id, name in zip(ids, ids[1:], nodes[1:], strict=False):
            inputs = {"images": Link(before, 0), "prefix": "sum"} if name == "Join" else {"image": Link(before, 0)}
            if name in {"Add", "Later", "Show"}:
                inputs["by"] = 0.5
            flow[node_id] = WorkflowNode(node_id, name, name, inputs)
        runner = Runner(
            make_plan(Workflow(flow), SCHEMAS),
            SCHEMAS,
            host.Standalone(output_dir=tmp_path / "out", device="cpu"),
            store=store,
            prompt={},
            extra_pnginfo={},
            listener=lambda _event: None,
            identity="",
        )
        return runner.run()

    return run


def test_a_node_is_called_once_for_each_value():
    assert list(calls({"a": Several([1, 2, 3]), "b": "x"}, takes_lists=False)) == [
        {"a": 1, "b": "x"},
        {"a": 2, "b": "x"},
        {"a": 3, "b": "x"},
    ]


def test_the_last_value_of_a_shorter_list_is_used_again():
    assert [each["b"] for each in calls({"a": Several("abc"), "b": Several([1, 2])}, takes_lists=False)] == [1, 2, 2]


def test_a_plain_list_is_one_value():
    assert list(calls({"a": [1, 2]}, takes_lists=False)) == [{"a": [1, 2]}]


def test_a_node_that_takes_lists_gets_every_input_as_one():
    assert list(calls({"a": Several([1, 2]), "b": "x", "c": Several()}, takes_lists=True)) == [
        {"a": [1, 2], "b": ["x"], "c": []}
    ]


def test_a_node_without_inputs_is_called_once():
    assert list(calls({}, takes_lists=False)) == [{}]


def test_an_empty_list_is_nothing_to_work_on():
    with pytest.raises(NodeInputError, match="the input a was given an empty list"):
        list(calls({"a": Several(), "b": 1}, takes_lists=False))


def test_outputs_of_several_calls_are_put_together():
    plain, listed = OutputSchema("p", "INT"), OutputSchema("l", "INT", is_list=True)
    assert merged([(1, [2, 3])], (plain, listed)) == (1, Several([2, 3]))
    assert merged([(1, [2]), (4, ())], (plain, listed)) == (Several([1, 4]), 2)
    assert merged([(1, [])], (plain, listed)) == (1, Several())


def test_a_list_runs_through_a_workflow(run):
    result = run("Split", "Add", "Join")
    assert result.status == "done", result.as_json()
    assert made == ["split", ("add", 0.0), ("add", 0.1), ("add", 0.2), "sum 2 0.5 0.6 0.7"]


def test_lists_are_kept_and_read_back(run):
    run("Split", "Add", "Join")
    result = run("Split", "Add", "Join")
    assert [stage.status for stage in result.stages] == ["cached"] * 3
    result = run("Split", "Add", "Add", "Join")
    assert [stage.status for stage in result.stages] == ["cached", "cached", "ran", "ran"]
    assert made == [("add", 0.5), ("add", 0.6), ("add", 0.7), "sum 3 1.0 1.1 1.2"]


def test_other_lists_have_other_keys(run):
    run("Split", "Add", "Join")
    assert [stage.status for stage in run("Split", "Add", "Join", count=2).stages] == ["ran"] * 3
    assert made[-1] == "sum 2 0.5 0.6"


def test_an_empty_list_fails_the_stage_that_needs_one(run):
    result = run("Split", "Add", "Join", count=0)
    assert [stage.status for stage in result.stages] == ["ran", "failed", "skipped"]
    assert isinstance(result.stages[1].error, NodeInputError)
    assert run("Split", "Join", count=0).status == "done"


def test_a_coroutine_is_waited_for(run):
    assert run("Split", "Later", "Join").status == "done"
    assert made == ["split", "later", "later", "later", "sum 2 0.0 0.1 0.1"]


def test_a_coroutine_is_waited_for_where_a_loop_runs_already(run):
    async def within():
        return run("Split", "Later", "Join")

    with ThreadPoolExecutor(1) as thread:  # a browser's tests may have left a loop running in this one
        assert thread.submit(asyncio.run, within()).result().status == "done"
    assert made == ["split", "later", "later", "later", "sum 2 0.0 0.1 0.1"]


def test_what_is_only_shown_need_not_be_returned(run):
    assert run("Split", "Show").status == "done"


@pytest.mark.parametrize(
    "value",
    [Several([1, "a", None]), Several(), Several([[1, 2], [3]]), Several([Several([1, 2]), "b"])],
    ids=str,
)
def test_several_values_survive_storing(value):
    kept = artefact.encode(value)
    assert kept is not None
    back = artefact.decode(kept.kind, kept.data)
    assert back == value
    assert type(back) is Several


def test_several_tensors_survive_storing():
    value = Several([torch.rand(1, 2, 3, 3), torch.zeros(4, dtype=torch.int64)])
    kept = artefact.encode(value)
    assert kept is not None
    back = artefact.decode(kept.kind, kept.data)
    assert all(torch.equal(a, b) and a.dtype == b.dtype for a, b in zip(value, back, strict=True))


def test_several_values_are_not_a_list():
    several, plain = artefact.encode(Several([1, 2])), artefact.encode([1, 2])
    assert several is not None
    assert plain is not None
    assert several.digest != plain.digest


def test_what_holds_anything_that_is_not_stored_is_not_stored():
    assert artefact.encode(Several([1, object()])) is None
