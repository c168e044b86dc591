"""The shipped workflow in ComfyUI's real editor, in a real browser."""

from __future__ import annotations

import copy
import json
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from editor_corpus import EDITORS_CLOCK, classes_used

import photokeep_nodes
from headless import load_workflow, parse_workflow, schemas_of
from headless.editor_format import convert
from headless.json_text import DEFAULT_LIMITS
from headless.object_info import schemas_of_object_info

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.comfyui

WORKFLOWS = Path(__file__).resolve().parents[2] / "workflows"
FLAGS = (
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
READY = """() => window.app?.graph?._nodes?.length && window.LiteGraph && !app.extensionManager?.spinner"""
# A new session loads its default graph at some time after the page is up: load until ours has stayed.
LOAD = """async (file) => {
    const ids = (nodes) => nodes.map((node) => String(node.id)).sort().join();
    for (let attempt = 0; attempt < 10; attempt++) {
        await app.loadGraphData(file);
        await new Promise((resolve) => setTimeout(resolve, 300));
        if (ids(app.graph._nodes) === ids(file.nodes)) return;
    }
    throw new Error('the graph did not stay');
}"""
NODES = """() => app.graph._nodes.map((node) => ({
    id: String(node.id), type: node.type, failed: Boolean(node.has_errors),
    known: node.type in LiteGraph.registered_node_types,
}))"""
CONNECT = """([source, target, input]) => {
    const [one, other] = [source, target].map((type) => LiteGraph.createNode(type));
    app.graph.add(one);
    app.graph.add(other);
    one.connect(0, other, input);
    return other.isInputConnected(other.findInputSlot(input));
}"""
TO_PROMPT = "async () => (await app.graphToPrompt()).output"
# As posted, without what is undefined; null where the editor itself fails.
CONVERTED = f"""async (file) => {{
    try {{
        await ({LOAD})(file);
        return JSON.stringify((await app.graphToPrompt()).output);
    }} catch {{ return null }}
}}"""


@pytest.fixture(scope="session")
def chromium() -> Iterator[Any]:
    """A headless Chromium, PHOTOKEEP_CHROMIUM naming the program where it is not the usual one."""
    playwright = pytest.importorskip(
        "playwright.sync_api", reason="playwright is not installed: pip install '.[editor]'"
    )
    names = ("chromium", "chromium-browser", "google-chrome")
    with playwright.sync_playwright() as started:
        program = os.environ.get("PHOTOKEEP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
        program = program or started.chromium.executable_path
        if not Path(program).is_file():
            pytest.skip("no Chromium found: install one, run `playwright install chromium`, or set PHOTOKEEP_CHROMIUM")
        browser = started.chromium.launch(executable_path=program, args=list(FLAGS))
        yield browser
        browser.close()


@pytest.fixture
def editor(host: Any, chromium: Any) -> Iterator[Any]:
    """The editor's page, ready to load a workflow."""
    with chromium.new_context(viewport={"width": 1920, "height": 1080}) as context:
        page = context.new_page()
        page.goto(host.url)
        page.wait_for_function(READY, timeout=120_000)
        yield page


def screenshot(page: Any, tmp_path: Path, name: str) -> None:
    """Keep a picture: under PHOTOKEEP_SCREENSHOTS where that is set, else with the test's other files."""
    folder = Path(os.environ.get("PHOTOKEEP_SCREENSHOTS") or tmp_path)
    folder.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(1000)  # the canvas is drawn by an animation frame after the graph is loaded
    page.screenshot(path=folder / f"{name}.png")


def without_meta(prompt: dict[str, Any]) -> dict[str, Any]:
    return {node_id: {key: node[key] for key in ("class_type", "inputs")} for node_id, node in prompt.items()}


def by_runner(raw: dict[str, Any]) -> dict[str, Any]:
    return parse_workflow(raw, schemas_of(photokeep_nodes.NODE_CLASS_MAPPINGS)).to_prompt()


@pytest.mark.parametrize("path", sorted(WORKFLOWS.glob("*.json")), ids=lambda path: path.stem)
def test_the_editor_converts_the_file_as_the_runner_does(editor: Any, tmp_path: Path, path: Path) -> None:
    raw = load_workflow(path)
    editor.evaluate(LOAD, raw)
    screenshot(editor, tmp_path, path.stem)
    nodes = editor.evaluate(NODES)
    assert {node["id"] for node in nodes} == {str(node["id"]) for node in raw["nodes"]}
    assert [node for node in nodes if node["failed"] or not node["known"]] == []
    assert without_meta(editor.evaluate(TO_PROMPT)) == without_meta(by_runner(raw))


RULES = sorted((Path(__file__).resolve().parents[1] / "data" / "rules").glob("*.json"))
RULES_SINCE = (1, 58)  # older frontends differ in corners, such as bypassed instances and shown widgets


@pytest.fixture(scope="module")
def host_schemas(host: Any) -> Any:
    return schemas_of_object_info(host.get("/object_info"))


def test_each_rule_is_the_editors(host: Any, editor: Any, host_schemas: Any) -> None:
    """Every small case through this very editor and through our converter."""
    version = editor.evaluate("() => window.__COMFYUI_FRONTEND_VERSION__")
    if tuple(map(int, version.split(".")[:2])) < RULES_SINCE:
        pytest.skip(f"the rules are those of frontend 1.58 and later, this one is {version}: set COMFYUI_FRONTEND")
    different, seen = {}, 0
    editor.clock.set_fixed_time(EDITORS_CLOCK.isoformat())
    for path in RULES:
        raw = json.loads(path.read_text(encoding="utf-8"))["workflow"]
        if not classes_used(raw) <= host_schemas.keys():
            continue
        seen += 1
        answer = editor.evaluate(CONVERTED, raw)
        if answer is None:  # older editors fail on links that lead nowhere
            continue
        theirs = without_meta(json.loads(answer))
        ours = without_meta(convert(raw, host_schemas, DEFAULT_LIMITS, now=EDITORS_CLOCK).to_prompt())
        if json.loads(json.dumps(ours)) != theirs:
            different[path.stem] = (theirs, ours)
    assert seen > 30
    assert different == {}


@pytest.mark.parametrize("mode", [2, 4], ids=["muted", "bypassed"])
def test_switched_off_nodes_are_converted_alike(editor: Any, mode: int) -> None:
    """Each node of the full workflow in turn, all others on."""
    raw = load_workflow(WORKFLOWS / "restore_full.json")
    for node in raw["nodes"]:
        changed = copy.deepcopy(raw)
        for other in changed["nodes"]:
            other["mode"] = mode if other["id"] == node["id"] else 0
        editor.evaluate(LOAD, changed)
        theirs, ours = without_meta(editor.evaluate(TO_PROMPT)), without_meta(by_runner(changed))
        assert theirs == ours, f"with {node['type']} {node['id']} in mode {mode}"


@pytest.mark.parametrize(
    ("source", "target", "name", "fits"),
    [
        ("PhotokeepModelRealESRAnimeVideoV3", "PhotokeepUpscale", "model", True),
        ("PhotokeepModelFileUpscale", "PhotokeepUpscale", "model", True),
        ("UpscaleModelLoader", "PhotokeepUpscale", "model", True),
        ("PhotokeepToUpscaleModel", "ImageUpscaleWithModel", "upscale_model", True),
        ("PhotokeepModelFFDNet", "PhotokeepUpscale", "model", False),
        ("PhotokeepModelRealESRAnimeVideoV3", "ImageUpscaleWithModel", "upscale_model", False),
        ("UpscaleModelLoader", "PhotokeepDenoise", "model", False),
    ],
)
def test_models_can_be_connected_where_they_fit(editor: Any, source: str, target: str, name: str, fits: bool) -> None:
    assert editor.evaluate(CONNECT, [source, target, name]) == fits


def test_the_editor_would_report_a_missing_node(editor: Any) -> None:
    """The check above can fail."""
    text = (WORKFLOWS / "restore.json").read_text(encoding="utf-8")
    editor.evaluate(LOAD, json.loads(text.replace('"PhotokeepUpscale"', '"PhotokeepNoSuchNode"')))
    editor.wait_for_function("() => app.graph._nodes.some((node) => node.has_errors)", timeout=30_000)
    unknown = [node for node in editor.evaluate(NODES) if not node["known"]]
    assert [(node["type"], node["failed"]) for node in unknown] == [("PhotokeepNoSuchNode", True)]


def test_the_editor_runs_the_shipped_workflow(editor: Any, host: Any, tmp_path: Path) -> None:
    before = set(host.get("/history"))
    editor.evaluate(LOAD, load_workflow(WORKFLOWS / "restore.json"))
    editor.evaluate("async () => { await app.queuePrompt(0); }")  # what it returns differs between versions
    assert not editor.evaluate("() => app.lastNodeErrors && Object.keys(app.lastNodeErrors).length")
    queue = host.get("/queue")
    queued = {job[1] for part in ("queue_running", "queue_pending") for job in queue[part]}
    (prompt_id,) = queued | (set(host.get("/history")) - before)
    entry = host.wait(prompt_id)
    assert entry["status"]["status_str"] == "success", json.dumps(entry["status"], indent=1)
    (path,) = host.saved(entry)
    assert path.is_file()
    # The finished node shows its picture.
    editor.wait_for_function(
        "() => Object.values(app.nodeOutputs).some((output) => output.images?.length)", timeout=30_000
    )
    screenshot(editor, tmp_path, "restore-done")
