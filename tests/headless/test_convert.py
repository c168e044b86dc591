"""Conversion as people call it: from a path, with or without a host's description, and without importing nodes."""

from __future__ import annotations

import http.server
import json
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from editor_corpus import object_info
from PIL import Image
from PIL.PngImagePlugin import PngInfo

from headless import convert_workflow
from headless.job import node_schemas
from headless.known_nodes import FILE, description, known_schemas
from headless.object_info import load_object_info, schemas_of_object_info
from headless.workflow import load_workflow
from photokeep_nodes.errors import NodeDefinitionError, UsageError, WorkflowFormatError

WORKFLOWS = Path(__file__).parents[2] / "workflows"
PROMPT = {"1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}}}


def test_what_is_known_of_the_nodes_is_what_they_declare():
    """Run ``python -m headless.known_nodes`` after a change of what a node declares."""
    assert json.loads(FILE.read_text(encoding="utf-8")) == json.loads(json.dumps(description(node_schemas())))
    assert known_schemas().keys() == node_schemas().keys()


def test_converting_imports_no_node_and_no_torch():
    code = (
        "import sys; from headless import convert_workflow; print(len(convert_workflow(sys.argv[1])));"
        "nodes = ('torch', 'photokeep_nodes.nodes', 'headless.core_nodes');"
        "print([name for name in sys.modules if name.startswith(nodes)])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, str(WORKFLOWS / "restore.json")], capture_output=True, text=True, check=True
    )
    assert done.stdout.splitlines()[1] == "[]"
    assert int(done.stdout.splitlines()[0]) > 3


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_the_shipped_workflows_are_converted_alike_by_description_and_by_class(path):
    from headless.workflow import parse_workflow

    assert convert_workflow(path) == parse_workflow(load_workflow(path), node_schemas()).to_prompt()


def test_a_converted_workflow_converts_to_itself(tmp_path):
    once = convert_workflow(WORKFLOWS / "restore.json")
    (tmp_path / "api.json").write_text(json.dumps(once))
    assert convert_workflow(tmp_path / "api.json") == once
    assert convert_workflow({"prompt": once}) == once


def sampler():
    return {"nodes": [{"id": 1, "type": "KSampler", "widgets_values": [7, "fixed", 12, 3.5, "euler", "simple", 0.5]}]}


def test_a_hosts_description_tells_what_the_values_are_called(tmp_path):
    info = {"KSampler": object_info()["KSampler"]}
    expected = {
        "seed": 7, "steps": 12, "cfg": 3.5, "sampler_name": "euler", "scheduler": "simple", "denoise": 0.5,
    }  # fmt: skip
    assert convert_workflow(sampler(), info)["1"]["inputs"] == expected
    (tmp_path / "info.json").write_text(json.dumps(info))
    assert convert_workflow(sampler(), tmp_path / "info.json")["1"]["inputs"] == expected
    assert convert_workflow(sampler())["1"]["inputs"] == {}


def test_a_description_may_come_from_a_running_host():
    body = json.dumps({"KSampler": object_info()["KSampler"]}).encode()

    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200 if self.path == "/object_info" else 404)
            self.end_headers()
            if self.path == "/object_info":
                self.wfile.write(body)

        def log_message(self, *_):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        assert load_object_info(address).keys() == {"KSampler"}
        assert load_object_info(f"{address}/object_info").keys() == {"KSampler"}
        with pytest.raises(UsageError, match="answers 404"):
            load_object_info(f"{address}/other")
        server.shutdown()
    with pytest.raises(UsageError, match="does not answer"):
        load_object_info(address)


@pytest.mark.parametrize(
    ("text", "error", "says"),
    [
        ("[]", NodeDefinitionError, "describes no node classes"),
        ("{}", NodeDefinitionError, "describes no node classes"),
        ('{"A": 3}', NodeDefinitionError, "A is not described"),
        ('{"A": {"input": {"required": {"x": 3}}}}', NodeDefinitionError, "input 'x' of A"),
        ('{"A": {"input": {"required": {"x": ["INT", 3]}}}}', NodeDefinitionError, "options of input 'x' of A"),
        ('{"A": ', WorkflowFormatError, "info.json"),
        ("\ufeff{}x", WorkflowFormatError, "not JSON"),
    ],
)
def test_what_is_no_description_is_refused(tmp_path, text, error, says):
    (tmp_path / "info.json").write_text(text, encoding="utf-8")
    with pytest.raises(error, match=says) as caught:
        load_object_info(tmp_path / "info.json")
    assert "object_info" in caught.value.hint


def test_a_host_that_refuses_says_how():
    class Host(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_error(503)

        def log_message(self, *_args):
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Host) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}?x=1"
        with pytest.raises(UsageError, match=r"/object_info\?x=1 answers 503"):
            load_object_info(address)
        server.shutdown()


def test_a_description_that_is_not_there_is_a_usage_error(tmp_path):
    for path in (tmp_path / "absent.json", tmp_path, "nul\0.json"):
        with pytest.raises(UsageError):
            load_object_info(path)
    with pytest.raises(UsageError):
        load_object_info("http://[")


def test_odd_templates_of_dynamic_inputs_do_no_harm():
    odd = {
        "A": {
            "input": {
                "required": {
                    "grow": ["COMFY_AUTOGROW_V3", {"template": 3}],
                    "many": [
                        "COMFY_AUTOGROW_V3",
                        {"template": {"input": {"required": {"x": ["IMAGE"]}}, "max": 10**9}},
                    ],
                    "choice": ["COMFY_DYNAMICCOMBO_V3", {"options": [3, {"key": "k", "inputs": 5}]}],
                    "match": ["COMFY_MATCHTYPE_V3", {"template": None}],
                }
            },
            "output": ["COMFY_MATCHTYPE_V3"],
        }
    }
    assert schemas_of_object_info(odd)
    raw = {"nodes": [{"id": 1, "type": "A", "widgets_values": ["k"]}]}
    assert convert_workflow(raw, odd)["1"]["inputs"] == {"choice": "k"}


# Pictures


def webp_with(path, texts, **options):
    picture = Image.new("RGB", (8, 8))
    exif = picture.getexif()
    for tag, text in zip((0x0110, 0x010F, 0x010E), texts, strict=False):
        exif[tag] = text
    picture.save(path, exif=exif, **options)
    return path


@pytest.mark.parametrize(
    "options", [{}, {"lossless": True}, {"save_all": True, "append_images": [Image.new("RGB", (8, 8))]}]
)
def test_a_webp_carries_its_workflow_in_its_exif(tmp_path, options):
    graph = {"nodes": [], "name": "Tante Ä"}
    texts = [f"prompt:{json.dumps(PROMPT)}", f"workflow:{json.dumps(graph)}", "other: text"]
    path = webp_with(tmp_path / "x.webp", texts, **options)
    assert load_workflow(path) == {"prompt": PROMPT, "workflow": graph}
    assert convert_workflow(path)["1"]["class_type"] == "EmptyImage"


def test_a_webp_with_a_workflow_alone_is_the_editors_form(tmp_path):
    path = webp_with(tmp_path / "x.webp", ["workflow:" + json.dumps(load_workflow(WORKFLOWS / "restore.json"))])
    assert convert_workflow(path) == convert_workflow(WORKFLOWS / "restore.json")


def test_a_webp_whose_exif_holds_utf_8_against_the_rules_is_read(tmp_path):
    graph = '{"nodes": [], "name": "Tante Ä"}'
    webp_with(tmp_path / "x.webp", [b"workflow:" + graph.encode()])
    assert load_workflow(tmp_path / "x.webp")["workflow"]["name"] == "Tante Ä"


def test_a_webp_without_one_is_refused(tmp_path):
    Image.new("RGB", (8, 8)).save(tmp_path / "plain.webp")
    with pytest.raises(WorkflowFormatError, match="carries no workflow"):
        load_workflow(tmp_path / "plain.webp")


@pytest.mark.parametrize(
    ("chunks", "says"),
    [
        (b"EXIF" + (2**31).to_bytes(4, "little"), "EXIF has 2,147,483,648 bytes"),
        (b"EXIF" + (8).to_bytes(4, "little") + b"MM\0*\0\0\0\xff", "carries no workflow|cannot be read"),
        (b"EXIF" + (4).to_bytes(4, "little") + b"junk", "cannot be read"),
        (b"EXIF" + (4).to_bytes(4, "little"), "cannot be read|carries no workflow"),
        (b"VP8 " + (2**32 - 1).to_bytes(4, "little"), "carries no workflow"),
        (b"", "carries no workflow"),
    ],
)
def test_a_broken_webp_is_refused(tmp_path, chunks, says):
    (tmp_path / "x.webp").write_bytes(b"RIFF\0\0\0\0WEBP" + chunks)
    with pytest.raises(WorkflowFormatError, match=says):
        load_workflow(tmp_path / "x.webp")


def test_a_sound_text_serves_where_the_other_is_damaged(tmp_path):
    texts = PngInfo()
    texts.add_text("prompt", '{"1": {"class_type"')
    texts.add_text("workflow", json.dumps({"nodes": [{"id": 7, "type": "EmptyImage", "widgets_values": [8, 8, 1, 0]}]}))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=texts)
    assert list(convert_workflow(tmp_path / "a.png")) == ["7"]
    texts = PngInfo()
    texts.add_text("prompt", '{"1": {"class_type"')
    Image.new("RGB", (2, 2)).save(tmp_path / "b.png", pnginfo=texts)
    with pytest.raises(WorkflowFormatError, match=r"b\.png: its text 'prompt': "):
        convert_workflow(tmp_path / "b.png")


def test_an_empty_prompt_beside_a_graph_is_none(tmp_path):
    assert list(convert_workflow({"prompt": {}, "workflow": sampler()})) == ["1"]


def test_a_text_whose_checksum_does_not_fit_is_not_taken(tmp_path):
    texts = PngInfo()
    texts.add_text("prompt", json.dumps(PROMPT))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=texts)
    (tmp_path / "a.png").write_bytes((tmp_path / "a.png").read_bytes().replace(b'"width": 64', b'"width": 65'))
    with pytest.raises(WorkflowFormatError, match="checksum does not fit"):
        convert_workflow(tmp_path / "a.png")


def test_a_png_that_is_cut_off_says_so(tmp_path):
    texts = PngInfo()
    texts.add_text("prompt", json.dumps(PROMPT))
    Image.new("RGB", (2, 2)).save(tmp_path / "a.png", pnginfo=texts)
    whole = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(whole[: whole.index(b"EmptyImage")])
    with pytest.raises(WorkflowFormatError, match="cut off"):
        convert_workflow(tmp_path / "a.png")


@pytest.mark.parametrize("source", [None, [], 3, "[]"])
def test_what_is_no_workflow_at_all_is_a_typed_error(source, tmp_path):
    if isinstance(source, str):
        (tmp_path / "w.json").write_text(source)
        source = tmp_path / "w.json"
    with pytest.raises(WorkflowFormatError, match="a workflow is a JSON object"):
        convert_workflow(source)


@pytest.mark.parametrize("info", [[], {}])
def test_what_describes_nothing_is_a_typed_error(info):
    with pytest.raises(NodeDefinitionError, match="describes no node classes"):
        convert_workflow(PROMPT, info)


def test_the_editors_form_may_be_wrapped_as_a_prompt():
    assert convert_workflow({"prompt": sampler()}) == convert_workflow(sampler())


def test_what_the_reader_refuses_names_the_file(tmp_path):
    (tmp_path / "odd.json").write_text('{"nodes": [7], "links": []}')
    with pytest.raises(WorkflowFormatError, match=r"[/\\]odd\.json: "):
        convert_workflow(tmp_path / "odd.json")


def test_a_png_of_the_host_converts_too(tmp_path):
    info = PngInfo()
    info.add_text("prompt", json.dumps(PROMPT))
    Image.new("RGB", (8, 8)).save(tmp_path / "x.png", pnginfo=info)
    assert convert_workflow(tmp_path / "x.png")["1"]["inputs"]["width"] == 64
