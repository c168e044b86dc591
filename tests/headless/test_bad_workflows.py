"""Files that nobody should have written: each ends in a typed error or runs, and nothing else happens."""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from editor_corpus import DATA, classes_used, object_info
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from workflow_mutants import mutant

from headless.job import node_schemas
from headless.json_text import Limits
from headless.object_info import schemas_of_object_info
from headless.plan import check_plan, make_plan
from headless.workflow import load_workflow, parse_workflow
from photokeep_nodes import host
from photokeep_nodes.errors import PhotokeepError, WorkflowFormatError, WorkflowInvalidError

WORKFLOWS = Path(__file__).parents[2] / "workflows"
OUTER, INNER = "aaaaaaaa-0000-4000-8000-000000000001", "bbbbbbbb-0000-4000-8000-000000000002"


@pytest.fixture(scope="module")
def schemas() -> Any:
    return {**schemas_of_object_info(object_info()), **node_schemas()}


def nested(depth: int) -> str:
    return '{"nodes":' * depth + "[]" + "}" * depth


def chain_of_prompts(count: int) -> bytes:
    nodes = {str(i): {"class_type": "ImageInvert", "inputs": {"image": [str(i - 1), 0]}} for i in range(count)}
    return json.dumps(nodes).encode()


BAD_JSON: dict[str, bytes] = {
    "empty": b"",
    "blank": b" \n\t ",
    "a list": b"[1, 2]",
    "a text": b'"workflow"',
    "a number": b"17",
    "null": b"null",
    "cut off": (WORKFLOWS / "restore.json").read_bytes()[:-40],
    "cut off in a text": b'{"nodes": [{"id": 1, "type": "Load',
    "two keys alike": b'{"1": {"class_type": "A"}, "1": {"class_type": "B"}}',
    "NaN": b'{"1": {"class_type": "A", "inputs": {"x": NaN}}}',
    "Infinity": b'{"1": {"class_type": "A", "inputs": {"x": -Infinity}}}',
    "1e999": b'{"1": {"class_type": "A", "inputs": {"x": 1e999}}}',
    "a thousand digits": b'{"1": {"class_type": "A", "inputs": {"x": ' + b"9" * 1000 + b"}}}",
    "100,000 nodes": chain_of_prompts(100_000),
    "nested too deep": nested(200).encode(),
    "nested far too deep": nested(200_000).encode(),
    "UTF-16": '{"1": {"class_type": "A"}}'.encode("utf-16"),
    "UTF-32": '{"1": {"class_type": "A"}}'.encode("utf-32"),
    "Latin-1": '{"1": {"class_type": "Köln"}}'.encode("latin-1"),
    "half a character": b'{"1": {"class_type": "\\ud800"}}',
    "NUL": b'{"1": \0}',
    "a comment": b'{"1": {"class_type": "A"}} // mine',
    "two files in one": b'{"nodes": []}{"nodes": []}',
    "HTML": b"<!doctype html><title>404</title>",
    "a pickle": b"\x80\x04\x95.",
    "YAML": b"nodes:\n  - id: 1\n",
}


@pytest.mark.parametrize("name", BAD_JSON)
def test_what_is_no_json_workflow_is_refused_by_name(tmp_path: Path, schemas: Any, name: str) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(BAD_JSON[name])
    with pytest.raises(WorkflowFormatError) as caught:
        parse_workflow(load_workflow(path), schemas)
    assert caught.value.message
    assert len(str(caught.value)) < 1000
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


def test_a_byte_order_mark_is_no_reason_to_refuse(tmp_path: Path, schemas: Any) -> None:
    path = tmp_path / "marked.json"
    path.write_bytes(b"\xef\xbb\xbf" + (WORKFLOWS / "restore.json").read_bytes())
    assert parse_workflow(load_workflow(path), schemas).nodes


# Graphs


def node(node_id: Any, kind: str, *inputs: tuple[str, str, Any], **extra: Any) -> dict[str, Any]:
    sockets = [{"name": name, "type": kind_, "link": link} for name, kind_, link in inputs]
    return {"id": node_id, "type": kind, "mode": 0, "inputs": sockets, "outputs": [], **extra}


def graph(*nodes: Any, links: Any = (), **extra: Any) -> dict[str, Any]:
    return {"nodes": list(nodes), "links": list(links), "version": 0.4, **extra}


def subgraph(name: str, *nodes: Any, links: Any = (), inputs: Any = (), outputs: Any = ()) -> dict[str, Any]:
    return {
        "id": name,
        "name": "Sub",
        "nodes": list(nodes),
        "links": [dict(zip(("id", "origin_id", "origin_slot", "target_id", "target_slot"), each, strict=False))
                  for each in links],
        "inputs": [{"name": each, "type": "IMAGE"} for each in inputs],
        "outputs": [{"name": each, "type": "IMAGE",
                     "linkIds": [link[0] for link in links if link[3:5] == (-20, index)]}
                    for index, each in enumerate(outputs)],
    }  # fmt: skip


def holding(*subgraphs: Any) -> dict[str, Any]:
    return {"definitions": {"subgraphs": list(subgraphs)}}


SAVE = ("images", "IMAGE")


def test_a_subgraph_that_holds_itself_is_refused(schemas: Any) -> None:
    for bad in (
        holding(subgraph(INNER, node(5, INNER))),
        holding(subgraph(OUTER, node(5, INNER)), subgraph(INNER, node(6, OUTER))),
    ):
        with pytest.raises(WorkflowFormatError, match='"Sub" holds itself'):
            parse_workflow(graph(node(1, INNER), **bad), schemas)


def test_a_cycle_through_a_subgraph_and_reroutes_is_told(schemas: Any) -> None:
    inner = subgraph(
        INNER,
        node(11, "ImageInvert", ("image", "IMAGE", 1)),
        links=[(1, -10, 0, 11, 0), (2, 11, 0, -20, 0)],
        inputs=["image"],
        outputs=["image"],
    )
    raw = graph(
        node(1, INNER, ("image", "IMAGE", 1)),
        node(2, "Reroute", ("", "*", 2)),
        node(3, "SaveImage", (*SAVE, 3)),
        links=[[1, 2, 0, 1, 0, "IMAGE"], [2, 1, 0, 2, 0, "IMAGE"], [3, 1, 0, 3, 0, "IMAGE"]],
        **holding(inner),
    )
    with pytest.raises(WorkflowInvalidError, match="dependency_cycle") as caught:
        make_plan(parse_workflow(raw, schemas), schemas)
    (problem,) = [each for each in caught.value.context["problems"] if each["code"] == "dependency_cycle"]
    assert problem["node_id"] == "1:11"
    assert list(problem["within"]) == ["Sub"]


def test_reroutes_in_a_ring_are_told(schemas: Any) -> None:
    raw = graph(
        node(1, "Reroute", ("", "*", 1)),
        node(2, "Reroute", ("", "*", 2)),
        node(3, "SaveImage", (*SAVE, 3)),
        links=[[1, 2, 0, 1, 0, "*"], [2, 1, 0, 2, 0, "*"], [3, 1, 0, 3, 0, "*"]],
    )
    with pytest.raises(WorkflowInvalidError, match="runs in a circle"):
        make_plan(parse_workflow(raw, schemas), schemas)


def test_a_few_subgraphs_cannot_unfold_into_millions_of_nodes(schemas: Any) -> None:
    names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1, 30)]
    stack = [subgraph(names[0], node(1000, "EmptyImage"))]
    for level, name in enumerate(names[1:], 1):
        inner = [node(1000 + 10 * level + place, names[level - 1]) for place in range(8)]
        stack.append(subgraph(name, *inner))
    with pytest.raises(WorkflowFormatError, match="subgraphs taken apart"):
        parse_workflow(graph(node(1, names[-1]), **holding(*stack)), schemas)


def test_subgraphs_may_lie_deep_inside_each_other(schemas: Any) -> None:
    def stacked(levels: int) -> dict[str, Any]:
        names = [f"{number:08x}-0000-4000-8000-000000000000" for number in range(1, levels + 1)]
        stack = [subgraph(names[0], node(5, "EmptyImage"))]
        stack += [subgraph(name, node(5, names[level])) for level, name in enumerate(names[1:])]
        return graph(node(1, names[-1]), **holding(*reversed(stack)))

    (made,) = parse_workflow(stacked(99), schemas).nodes.values()
    assert made.id.count(":") == 99
    assert len(made.within) == 99
    with pytest.raises(WorkflowFormatError, match="more than 100 deep"):
        parse_workflow(stacked(5_000), schemas)


def test_nodes_with_very_many_sockets_and_widgets_are_read_in_one_go(schemas: Any) -> None:
    """Each of these took a time that grew with the square of the number, at one time."""
    many = 60_000
    sockets = [(f"extra{index}", "IMAGE", index + 2) for index in range(many)]
    links = [[index + 2, 1, 0, 2, index, "IMAGE"] for index in range(many)]
    raw = graph(node(1, "EmptyImage"), node(2, "ImageInvert", *sockets), links=links)
    assert len(parse_workflow(raw, schemas).nodes["2"].inputs) == many

    primitives = [node(10 + index, "PrimitiveNode", widgets_values=[index]) for index in range(4_000)]
    blurs = [node(5000 + index, "ImageBlur", ("blur_radius", "INT", index + 1)) for index in range(4_000)]
    links = [[index + 1, 10 + index, 0, 5000 + index, 0, "INT"] for index in range(4_000)]
    made = parse_workflow(graph(*primitives, *blurs, links=links), schemas)
    assert made.nodes["5007"].inputs["blur_radius"] == 7

    inner = subgraph(INNER, *(node(5000 + index, "ImageBlur") for index in range(4_000)))
    listed = [[str(5000 + index), "blur_radius"] for index in range(4_000)]
    shown = node(1, INNER, properties={"proxyWidgets": listed}, widgets_values=list(range(4_000)))
    made = parse_workflow(graph(shown, **holding(inner)), schemas)
    assert made.nodes["1:5007"].inputs["blur_radius"] == 7


@pytest.mark.parametrize(
    "raw",
    [
        graph(node(1, "SaveImage", (*SAVE, 1)), links=[[1, 99, 0, 1, 0, "IMAGE"]]),
        graph(node(1, "SaveImage", (*SAVE, 7))),
        graph(node(1, "SaveImage", (*SAVE, 1)), links=[[1, 1, 0, 1, 0, "IMAGE"]]),
        graph(node(1, "EmptyImage"), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 5, 2, 0, "IMAGE"]]),
        graph(node(1, "SolidMask"), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 0, 2, 0, "MASK"]]),
        graph(node(1, "EmptyImage", mode=2), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 0, 2, 0, "IMAGE"]]),
        graph(node(1, "NobodyKnowsThis"), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 0, 2, 0, "IMAGE"]]),
        graph(node(1, "EmptyImage")),
        graph(),
        graph(node(1, "EmptyImage", widgets_values=[2**63, -1, 10**40, "x"]), node(2, "SaveImage", (*SAVE, 1)),
              links=[[1, 1, 0, 2, 0, "IMAGE"]]),
        graph(node(1, INNER), **holding(subgraph(INNER, node(5, "SaveImage", (*SAVE, 1)), links=[(1, -10, 4, 5, 0)]))),
        graph(node(1, INNER), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 3, 2, 0, "IMAGE"]],
              **holding(subgraph(INNER, outputs=["image"]))),
        graph(node(1, INNER), node(2, "SaveImage", (*SAVE, 1)), links=[[1, 1, 0, 2, 0, "IMAGE"]],
              **holding(subgraph(INNER, links=[(1, 77, 0, -20, 0)], outputs=["image"]))),
    ],
    ids=lambda raw: "",
)  # fmt: skip
def test_a_graph_that_cannot_run_says_all_that_is_wrong(schemas: Any, raw: dict[str, Any]) -> None:
    with pytest.raises(WorkflowInvalidError) as caught:
        make_plan(parse_workflow(raw, schemas), schemas)
    for problem in caught.value.context["problems"]:
        assert problem["code"]
        assert problem["message"]


def test_straight_through_a_subgraph_is_no_fault(schemas: Any) -> None:
    through = subgraph(INNER, links=[(1, -10, 0, -20, 0)], inputs=["image"], outputs=["image"])
    raw = graph(
        node(1, "EmptyImage"),
        node(2, INNER, ("image", "IMAGE", 1)),
        node(3, "SaveImage", (*SAVE, 2)),
        links=[[1, 1, 0, 2, 0, "IMAGE"], [2, 2, 0, 3, 0, "IMAGE"]],
        **holding(through),
    )
    assert parse_workflow(raw, schemas).to_prompt()["3"]["inputs"]["images"] == ["1", 0]


@pytest.mark.parametrize(
    "long",
    [
        {"properties": {"proxyWidgets": [["1", "1:" * 100_000 + "x"]]}},
        {"properties": {"proxyWidgets": [["1", "x"]] * 5_000}, "widgets_values": list(range(5_000))},
        {"widgets_values": [[]] * 50_000},
        {"title": "T" * 500_000},
    ],
    ids=["prefixes", "many shown widgets", "many values", "a long title"],
)
def test_large_instances_take_no_more_than_their_share(schemas: Any, long: dict[str, Any]) -> None:
    inner = subgraph(INNER, node(5, "ImageBlur", ("image", "IMAGE", None)))
    parse_workflow(graph(node(1, INNER, **long), **holding(inner)), schemas)


@pytest.mark.parametrize(
    "text",
    ["/*" * 500_000, "{" * 500_000, "{a|" * 300_000, "\\" * 500_000, "%" * 500_000, "%a" * 300_000, "//\n" * 300_000],
)
def test_long_texts_with_many_marks_are_read_in_one_go(schemas: Any, text: str) -> None:
    raw = graph(node(1, "CLIPTextEncode", widgets_values=[text]), node(2, "SaveImage", widgets_values=[text]))
    parse_workflow(raw, schemas)


def test_braces_cost_no_more_than_their_characters(schemas: Any) -> None:
    text = "{a|" * 50 + "{" * 200_000 + "}" * 200_000
    raw = graph(node(1, "CLIPTextEncode", widgets_values=[text]))
    assert len(parse_workflow(raw, schemas).nodes["1"].inputs["text"]) <= len(text)


def test_placeholders_cannot_grow_a_name_without_end(schemas: Any) -> None:
    raw = graph(
        node(1, "CLIPTextEncode", title="T", widgets_values=["x" * 60_000]),
        node(2, "SaveImage", widgets_values=["%T.text%" * 50_000]),
    )
    with pytest.raises(WorkflowFormatError, match="grows to more than"):
        parse_workflow(raw, schemas)


@pytest.mark.parametrize("long", [{"title": "T" * 1_000_000}, {"widgets_values": ["x" * 1_000_000, []]}])
def test_shared_subgraphs_cannot_multiply_texts_without_end(schemas: Any, long: dict[str, Any]) -> None:
    inner = subgraph(INNER, node(5, "PrimitiveString", **long))
    parse_workflow(graph(*(node(i, INNER) for i in range(10, 60)), **holding(inner)), schemas)
    with pytest.raises(WorkflowFormatError, match="characters that are allowed"):
        parse_workflow(graph(*(node(i, INNER) for i in range(10, 90)), **holding(inner)), schemas)


def test_nor_can_names_that_are_filled_in_or_promoted_widgets(schemas: Any) -> None:
    text = node(1, "PrimitiveString", title="T", widgets_values=["x" * 60_000])
    saves = [node(i, "SaveImage", widgets_values=["%T.value%"]) for i in range(2, 2_000)]
    with pytest.raises(WorkflowFormatError, match="characters that are allowed"):
        parse_workflow(graph(text, *saves), schemas)
    count = 1_000
    widget = {"name": "value", "type": "STRING", "widget": {"name": "value"}}
    nodes = [{**node(i, "PrimitiveString", widgets_values=[""]), "inputs": [{**widget, "link": i}]}
             for i in range(1, count)]  # fmt: skip
    inner = subgraph(INNER, *nodes, links=[(i, -10, 0, i, 0) for i in range(1, count)], inputs=["value"])
    inner["inputs"] = [{"name": "value", "type": "STRING", "linkIds": list(range(1, count))}]
    shown = {"inputs": [{**widget, "link": None}], "widgets_values": ["y" * 100_000]}
    with pytest.raises(WorkflowFormatError, match="characters that are allowed"):
        parse_workflow(graph({**node(5_000, INNER), **shown}, **holding(inner)), schemas)


def test_sockets_that_bring_sockets_are_counted(schemas: Any) -> None:
    template: dict[str, Any] = {"input": {"required": {"x": ["IMAGE", {}]}}, "min": 1000, "max": 1000, "prefix": "p"}
    for _ in range(5):
        template = {
            "input": {"required": {"x": ["COMFY_AUTOGROW_V3", {"template": template}]}},
            "min": 1000,
            "max": 1000,
        }
    odd = {"Odd": {"input": {"required": {"in": ["COMFY_AUTOGROW_V3", {"template": template}]}}, "output": []}}
    known = {**schemas, **schemas_of_object_info(odd)}
    found = check_plan(parse_workflow(graph(node(1, "Odd")), known), known)
    assert len(found.problems) < 11_000


@pytest.mark.parametrize(
    ("limits", "says"),
    [
        (Limits(file_bytes=100), "bytes"),
        (Limits(nodes=3), "nodes"),
        (Limits(depth=4), "deep"),
        (Limits(string_chars=20), "characters"),
    ],
)
def test_limits_come_before_anything_else(tmp_path: Path, schemas: Any, limits: Limits, says: str) -> None:
    with pytest.raises(WorkflowFormatError, match=says):
        parse_workflow(load_workflow(WORKFLOWS / "restore.json", limits), schemas, limits=limits)


def test_a_chain_of_ten_thousand_reroutes_is_followed(schemas: Any) -> None:
    count = 9_998
    nodes = [node(1, "EmptyImage"), *(node(i, "Reroute", ("", "*", i)) for i in range(2, count + 2))]
    nodes.append(node(count + 2, "SaveImage", (*SAVE, count + 2)))
    links = [[i, i - 1, 0, i, 0, "IMAGE"] for i in range(2, count + 3)]
    made = parse_workflow(graph(*nodes, links=links), schemas).to_prompt()
    assert made[str(count + 2)]["inputs"]["images"] == ["1", 0]


# Names of photos


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """A folder of photos, and beside it one that is nobody's business."""
    folder, secret = tmp_path / "photos", tmp_path / "secret"
    folder.mkdir()
    secret.mkdir()
    picture = (WORKFLOWS / "old_portrait.jpg").read_bytes()
    (folder / "anna.jpg").write_bytes(picture)
    (secret / "passport.jpg").write_bytes(picture)
    (folder / "link.jpg").symlink_to(secret / "passport.jpg")
    (folder / "up").symlink_to(secret)
    (folder / "folder.jpg").mkdir()
    os.mkfifo(folder / "pipe.jpg")
    return folder


NAMES = [
    "../secret/passport.jpg", "..\\secret\\passport.jpg", "sub/../../secret/passport.jpg", "link.jpg",
    "up/passport.jpg", "/etc/passwd", "C:\\Windows\\win.ini", "\\\\host\\share\\x.jpg", "file:///etc/passwd", "~/x.jpg",
    "$HOME/x.jpg",
    "anna.jpg\0.png", "", ".", "..", "/", "folder.jpg", "pipe.jpg", "/dev/zero", "/dev/stdin", "/proc/self/environ",
    "n" * 300 + ".jpg", "x/" * 3000, "ANNA.JPG.", "anna.jpg ", "con", "nul", "absent.jpg",
    "../secret/passport.jpg [input]", "passport.jpg [output]", "../../../etc/passwd [temp]",
]  # fmt: skip


@pytest.mark.parametrize("loader", ["PhotokeepLoadPhoto", "LoadImage"])
@pytest.mark.parametrize("name", NAMES)
def test_no_name_reaches_out_of_the_photo_folders(photos: Path, tmp_path: Path, loader: str, name: str) -> None:
    own = node_schemas()
    key = own[loader].file_inputs[0]
    values = {key: name, **({"on_damage": "refuse"} if loader == "PhotokeepLoadPhoto" else {})}
    prompt = {
        "1": {"class_type": loader, "inputs": values},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
    }
    settings = host.Standalone(input_dirs=(photos,), output_dir=tmp_path / "output")
    with host.standalone(settings), pytest.raises(WorkflowInvalidError, match="custom_validation_failed") as caught:
        make_plan(parse_workflow(prompt, own), own)
    assert "Traceback" not in str(caught.value)
    assert str(caught.value).isprintable() or "\n" in str(caught.value)


# Anything at all


def pool() -> list[Any]:
    rules = [json.loads(path.read_text(encoding="utf-8")) for path in sorted((DATA / "rules").glob("*.json"))]
    shipped = [json.loads(path.read_text(encoding="utf-8")) for path in sorted(WORKFLOWS.glob("*.json"))]
    return [*(each["workflow"] for each in rules), *(each["api"] for each in rules), *shipped]


POOL = pool()
RULED = [json.loads(path.read_text(encoding="utf-8"))["workflow"] for path in sorted((DATA / "rules").glob("*.json"))]


@hypothesis_settings(max_examples=300, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([1, 2, 4, 10]))
def test_changed_workflows_end_in_a_plan_or_in_typed_errors(schemas: Any, seed: int, changes: int) -> None:
    randomness = random.Random(seed)
    raw = mutant(randomness.choice(POOL), randomness, changes)
    try:
        workflow = parse_workflow(raw if isinstance(raw, dict) else json.dumps(raw), schemas)
    except PhotokeepError:
        return
    json.dumps(workflow.to_prompt(), allow_nan=False)
    found = check_plan(workflow, schemas)
    assert (found.plan is None) == bool(found.problems)


@hypothesis_settings(max_examples=150, deadline=None)
@given(st.integers(0, 2**40), st.sampled_from([1, 2, 4, 10]))
def test_changed_descriptions_of_a_host_end_in_a_plan_or_in_typed_errors(seed: int, changes: int) -> None:
    randomness = random.Random(seed)
    raw = randomness.choice(RULED)
    used = {name: object_info()[name] for name in sorted(classes_used(raw)) if name in object_info()}
    info = mutant(used, randomness, changes) if used else used
    if not isinstance(info, dict):
        return
    try:
        described = schemas_of_object_info(info)
        workflow = parse_workflow(raw, described)
    except PhotokeepError:
        return
    check_plan(workflow, described)


def test_refusing_says_what_and_where_on_the_command_line(tmp_path: Path) -> None:
    path = tmp_path / "bad.json"
    path.write_bytes(BAD_JSON["two keys alike"])
    done = subprocess.run(
        [sys.executable, "-c", "from headless.cli import run_command; run_command()", str(path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(WORKFLOWS.parent)},
        check=False,
    )
    assert done.returncode == 2
    assert "bad.json: the key" in done.stderr
    assert "line 1" in done.stderr
    assert "Traceback" not in done.stderr
