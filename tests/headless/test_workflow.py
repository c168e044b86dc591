from __future__ import annotations

import json
import os
import struct
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image, PngImagePlugin

from headless import plan
from headless.graph import Link, id_key, printable, shown
from headless.schema import schemas_of
from headless.workflow import Limits, load_workflow, parse_workflow
from photokeep_nodes.errors import WorkflowFormatError, WorkflowInvalidError

DATA = Path(__file__).parent.parent / "data" / "workflows"


class Load:
    DISPLAY_NAME = "Load photo"
    RETURN_TYPES = ("IMAGE", "MASK")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"photo": (["anna.png"], {"image_upload": True}), "on_damage": (["refuse", "accept"],)}}


class Save:
    DISPLAY_NAME = "Save photo"
    RETURN_TYPES = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "filename": ("STRING", {"default": "x"})}}


SCHEMAS = schemas_of({"Load": Load, "Save": Save})
PROMPT = {
    "1": {"class_type": "Load", "inputs": {"photo": "anna.png", "on_damage": "refuse"}},
    "2": {"class_type": "Save", "inputs": {"image": ["1", 0], "filename": "r"}, "_meta": {"title": "Result"}},
}
GRAPH = {"nodes": [{"id": 7, "type": "Save", "widgets_values": ["from the graph"]}], "links": []}


def refused(source, schemas=SCHEMAS, **kwargs):
    with pytest.raises(WorkflowFormatError) as caught:
        parse_workflow(source, schemas, **kwargs)
    assert caught.value.exit_code == 2
    return caught.value


def save_png(path, **texts):
    info = PngImagePlugin.PngInfo()
    for key, (text, packed) in texts.items():
        info.add_text(key, text, zip=packed)
    Image.new("RGB", (64, 48)).save(path, pnginfo=info)
    return path


# The API format


def test_the_api_format():
    workflow = parse_workflow(json.dumps(PROMPT), SCHEMAS)
    assert workflow.source == "api"
    assert workflow.nodes["2"].inputs == {"image": Link("1", 0), "filename": "r"}
    assert [node.title for node in workflow.nodes.values()] == ["Load photo", "Result"]
    assert workflow.editor_graph is None
    assert workflow.extra_pnginfo == {}
    assert workflow.to_prompt()["2"] == {**PROMPT["2"], "_meta": {"title": "Result"}}


def test_text_bytes_and_objects_are_one():
    text = json.dumps(PROMPT)
    assert parse_workflow(text, SCHEMAS) == parse_workflow(text.encode(), SCHEMAS) == parse_workflow(PROMPT, SCHEMAS)
    assert parse_workflow("\ufeff" + text, SCHEMAS).nodes.keys() == {"1", "2"}


@pytest.mark.parametrize(
    "raw",
    [
        {"prompt": PROMPT},
        {"prompt": PROMPT, "workflow": GRAPH},
        {"prompt": PROMPT, "client_id": "x", "extra_data": {"extra_pnginfo": {"workflow": GRAPH}}},
    ],
)
def test_a_prompt_in_a_wrapper_keeps_the_editors_graph_beside_it(raw):
    workflow = parse_workflow(raw, SCHEMAS)
    assert workflow.source == "api"
    assert workflow.nodes.keys() == {"1", "2"}
    assert workflow.extra_pnginfo == ({"workflow": GRAPH} if len(raw) > 1 else {})


def test_a_graph_alone_under_workflow_is_converted():
    assert parse_workflow({"workflow": GRAPH}, SCHEMAS).nodes["7"].inputs == {"filename": "from the graph"}


def test_a_node_may_be_called_prompt():
    prompt = {"prompt": {"class_type": "Save", "inputs": {}}, "1": PROMPT["1"]}
    assert parse_workflow(prompt, SCHEMAS).nodes.keys() == {"prompt", "1"}


@pytest.mark.parametrize(
    ("value", "read"),
    [
        (["1", 0], Link("1", 0)),
        ([1, 0], Link("1", 0)),
        (["1", 2**63], Link("1", 2**63)),
        (["1", -1], Link("1", -1)),
        (["1", True], ["1", True]),
        (["1", "0"], ["1", "0"]),
        (["1"], ["1"]),
        ([[1], 0], [[1], 0]),
        ({"__value__": ["a", 1]}, {"__value__": ["a", 1]}),
    ],
)
def test_links_are_told_from_other_lists(value, read):
    workflow = parse_workflow({"1": {"class_type": "Save", "inputs": {"x": value}}}, SCHEMAS)
    assert workflow.nodes["1"].inputs == {"x": read}


def test_a_node_without_a_class_is_left_for_the_planner():
    workflow = parse_workflow({**PROMPT, "3": {"inputs": {}}}, SCHEMAS)
    assert [each.code for each in workflow.problems] == ["missing_node_type"]
    with pytest.raises(WorkflowInvalidError, match="missing_node_type: node 3: the node names no class"):
        plan.make_plan(workflow, SCHEMAS)


@pytest.mark.parametrize(
    ("source", "says"),
    [
        ("[]", "this is a list"),
        ("3", "this is 3"),
        ('"nodes"', 'this is "nodes"'),
        ("null", "this is null"),
        ("{}", "it is empty"),
        ('{"name": "photokeep", "version": "1"}', 'it has "name", "version"'),
        ('{"nodes": {"1": {}}}', "no ComfyUI workflow"),
        ('{"1": {"class_type": "Save"}, "note": "x"}', 'node note is "x"'),
        ('{"1": {"class_type": "Save", "inputs": [1]}}', "inputs of node 1"),
        ('{"prompt": {"1": 2}}', "node 1 is 2"),
        ("not json", "not JSON"),
    ],
)
def test_what_is_no_workflow_is_refused_with_a_hint(source, says):
    error = refused(source)
    assert says in error.message
    assert error.hint


def test_limits_come_first():
    many = {str(i): PROMPT["1"] for i in range(11)}
    assert "11 nodes are more than the 10" in refused(many, limits=Limits(nodes=10)).message
    graph = {"nodes": [{"id": i, "type": "Save"} for i in range(11)]}
    assert "11 nodes are more than the 10" in refused(graph, limits=Limits(nodes=10)).message
    assert "nested" in refused({"1": {"class_type": "Save", "inputs": {"a": [[[]]]}}}, limits=Limits(depth=4)).message
    long = {"1": {"class_type": "Save", "inputs": {"a": "x" * 200}}}
    assert "200 characters" in refused(long, limits=Limits(string_chars=100)).message


def test_a_hundred_thousand_nodes_are_refused():
    error = refused(json.dumps({str(i): {"class_type": "Save", "inputs": {}} for i in range(100_000)}))
    assert "100,000 nodes" in error.message


def test_an_object_with_a_number_that_is_not_finite_is_refused():
    assert "nan" in refused({"1": {"class_type": "Save", "inputs": {"a": float("nan")}}}).message


def test_the_workflow_is_not_changed_by_parsing():
    raw = json.loads(json.dumps({"prompt": PROMPT, "workflow": GRAPH}))
    parse_workflow(raw, SCHEMAS)
    assert raw == {"prompt": PROMPT, "workflow": GRAPH}


# Files


@pytest.mark.parametrize("name", ["restore_api.json", "restore_editor_0_4.json", "restore_editor_1.json"])
def test_files_of_each_format_are_loaded(name):
    raw = load_workflow(DATA / name)
    workflow = parse_workflow(raw, SCHEMAS)
    assert workflow.nodes.keys() == {"1", "2", "3", "4"}
    assert workflow.editor_graph == (None if "api" in name else raw)


@pytest.mark.parametrize("packed", [False, True])
def test_a_picture_that_comfyui_saved_carries_its_workflow(tmp_path, packed):
    path = save_png(
        tmp_path / "result.png",
        prompt=(json.dumps(PROMPT), packed),
        workflow=(json.dumps(GRAPH), packed),
        note=("x", 0),
    )
    workflow = parse_workflow(load_workflow(path), SCHEMAS)
    assert workflow.nodes.keys() == {"1", "2"}
    assert workflow.editor_graph == GRAPH


def test_a_picture_may_carry_the_graph_alone_and_text_beyond_latin(tmp_path):
    graph = {"nodes": [{"id": 1, "type": "Save", "title": "Über 写真", "widgets_values": ["x"]}]}
    path = save_png(tmp_path / "result.png", workflow=(json.dumps(graph, ensure_ascii=False), False))
    assert parse_workflow(load_workflow(path), SCHEMAS).nodes["1"].title == "Über 写真"


def test_a_picture_of_an_older_host_holds_nan(tmp_path):
    prompt = {"1": {**PROMPT["1"], "is_changed": [float("nan")]}}
    path = save_png(tmp_path / "result.png", prompt=(json.dumps(prompt), False))
    assert parse_workflow(load_workflow(path), SCHEMAS).nodes.keys() == {"1"}


def test_a_picture_without_a_workflow_is_refused(tmp_path):
    with pytest.raises(WorkflowFormatError, match="carries no workflow"):
        load_workflow(save_png(tmp_path / "plain.png", parameters=("steps: 20", False)))


@pytest.mark.parametrize("cut", [4, 8, 30, 60, 100])
def test_a_truncated_picture_is_refused(tmp_path, cut):
    path = save_png(tmp_path / "result.png", prompt=(json.dumps(PROMPT), False))
    path.write_bytes(path.read_bytes()[:cut])
    with pytest.raises(WorkflowFormatError):
        load_workflow(path)


def _png(*chunks):
    body = b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )
    return b"\x89PNG\r\n\x1a\n" + body


@pytest.mark.parametrize(
    ("chunk", "says"),
    [
        ((b"zTXt", b"prompt\0\0" + zlib.compress(b" " * 5_000_000)), "unpacks to more"),
        ((b"zTXt", b"prompt\0\0not zlib"), "cannot be unpacked"),
        ((b"zTXt", b"prompt\0\0" + zlib.compress(b"{}" * 500)[:-8]), "cut off"),
        ((b"iTXt", b"prompt\0\0\0\0\0\xff\xfe"), "not UTF-8"),
        ((b"tEXt", b"prompt\0" + b" " * 2_000_000), "2,000,007 bytes"),
        ((b"tEXt", b"prompt\0[]"), "this is a list"),
        ((b"tEXt", b"prompt\0{"), "not JSON"),
    ],
)
def test_a_picture_with_a_broken_text_is_refused(tmp_path, chunk, says):
    (tmp_path / "x.png").write_bytes(_png(chunk))
    with pytest.raises(WorkflowFormatError, match=says):
        load_workflow(tmp_path / "x.png", Limits(file_bytes=1_000_000))


def test_pixels_are_skipped_not_read(tmp_path):
    # The chunk claims 2 GB of pixels; the text after it cannot be reached, and nothing tries to hold the pixels.
    (tmp_path / "x.png").write_bytes(b"\x89PNG\r\n\x1a\n" + struct.pack(">I4s", 2**31 - 1, b"IDAT") + b"x")
    with pytest.raises(WorkflowFormatError, match="carries no workflow"):
        load_workflow(tmp_path / "x.png")


@pytest.mark.parametrize(
    ("data", "says"),
    [
        (b"", "empty"),
        (b"\xff\xd8\xff\xe0 JFIF", "JPEG"),
        (b"RIFF\0\0\0\0WAVE", "no WebP"),
        (b"RIFF\0\0\0\0WEBP", "carries no workflow"),
        (b"PK\x03\x04", "ZIP"),
        (b'{"nodes"', "not JSON"),
        (b"\xff\xfe{\0}\0", "UTF-16"),
        (b'{"a": 1, "a": 2}', "twice"),
    ],
)
def test_a_file_that_is_no_workflow_is_refused_by_name(tmp_path, data, says):
    (tmp_path / "family.json").write_bytes(data)
    with pytest.raises(WorkflowFormatError, match=says) as caught:
        load_workflow(tmp_path / "family.json")
    assert caught.value.message.startswith(f"{tmp_path}/family.json: ")
    assert caught.value.context["path"] == str(tmp_path / "family.json")


def test_a_file_over_the_limit_is_not_read_to_its_end(tmp_path):
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(1 << 40)  # sparse
    with pytest.raises(WorkflowFormatError, match="more than the 33,554,432"):
        load_workflow(tmp_path / "huge.json")


def test_what_is_no_file_is_refused(tmp_path):
    for path, says in [
        (tmp_path / "absent.json", "no such file"),
        (tmp_path, "folder"),
        (tmp_path / "absent.json" / "x", "no such file"),
        ("nul\0.json", "cannot be read"),
        (tmp_path / ("x" * 300), "cannot be read"),
    ]:
        with pytest.raises(WorkflowFormatError, match=says):
            load_workflow(path)


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no FIFOs")
def test_a_fifo_or_a_device_is_refused_without_waiting(tmp_path):
    os.mkfifo(tmp_path / "pipe.json")
    for path in (tmp_path / "pipe.json", Path("/dev/zero")):
        with pytest.raises(WorkflowFormatError, match="not a regular file"):
            load_workflow(path)


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path):
    (tmp_path / "x.json").write_text("{}")
    (tmp_path / "x.json").chmod(0)
    with pytest.raises(WorkflowFormatError, match="cannot be read"):
        load_workflow(tmp_path / "x.json")


# Anything at all

SCALARS = st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=6)
KEYS = """nodes links prompt workflow id type mode inputs outputs name link widget extra class_type widgets_values
widgets_values_named definitions subgraphs _meta title 1 2"""
NAMES = st.sampled_from(KEYS.split())
WORDS = st.sampled_from(["Load", "Save", "Reroute", "PrimitiveNode", "Note", "IMAGE", "image", "*", "1", "2", "a" * 70])
SMALL = st.integers(-1, 5)
ANYTHING = st.recursive(
    SCALARS | WORDS | SMALL,
    lambda inner: st.lists(inner, max_size=6) | st.dictionaries(NAMES | st.text(max_size=3), inner, max_size=6),
    max_leaves=40,
)
SOCKETS = st.lists(
    st.fixed_dictionaries({}, optional={"name": WORDS, "type": WORDS, "link": SMALL | ANYTHING}), max_size=3
)
NODES = st.fixed_dictionaries(
    {"id": SMALL, "type": WORDS},
    optional={"mode": SMALL, "inputs": SOCKETS, "outputs": SOCKETS, "widgets_values": ANYTHING, "title": ANYTHING},
)
LINKS = st.tuples(SMALL, SMALL, SMALL, SMALL, SMALL, WORDS).map(list)
EDITOR = st.fixed_dictionaries({"nodes": st.lists(NODES, max_size=6), "links": st.lists(LINKS, max_size=8)})
API = st.dictionaries(
    WORDS,
    st.fixed_dictionaries(
        {"class_type": WORDS | ANYTHING},
        optional={"inputs": st.dictionaries(WORDS | NAMES, ANYTHING), "_meta": ANYTHING},
    ),
    max_size=5,
)


@given(ANYTHING | EDITOR | API)
def test_random_json_gives_a_plan_or_a_typed_error(value):
    try:
        plan.make_plan(parse_workflow(json.dumps(value), SCHEMAS), SCHEMAS)
    except (WorkflowFormatError, WorkflowInvalidError) as error:
        message = error.message
        assert all(line.isprintable() for line in message.split("\n"))


@given(st.lists(st.integers(0, 2**40).map(str) | st.text(max_size=4) | st.sampled_from(["1", "01"]), unique=True))
def test_any_ids_can_be_sorted_and_no_two_are_equal(ids):
    keys = sorted(id_key(each) for each in ids)
    assert len(set(keys)) == len(ids)


def test_ids_sort_as_numbers_through_subgraphs():
    ids = ["10", "2", "5:10", "5:9", "5", "6", "a", "9" * 30]
    assert sorted(ids, key=id_key) == ["2", "5", "5:9", "5:10", "6", "10", "9" * 30, "a"]


def test_messages_cannot_steer_a_terminal():
    assert printable("a\x1b[31mb\nc\u202e") == "a?[31mb?c?"
    assert len(printable("x" * 1000)) == 80
    assert (shown("\x07"), shown([1]), shown({}), shown(True), shown(10**50)) == (
        '"?"', "a list", "an object", "true", str(10**50),
    )  # fmt: skip
