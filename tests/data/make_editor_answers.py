"""Ask the real editor what it sends to the host for each workflow template: ``editor_answers.json.xz``.

The frontend is opened in a headless Chromium, each file of ``comfyui-workflow-templates-json`` is loaded into it, and
``app.graphToPrompt()`` is asked. What the host says of the node classes those files use goes into
``object_info.json.xz``, so that the tests need neither. Each workflow of ``rules/`` gets the editor's answer beside it.

Start a ComfyUI first, with the frontend whose answers are wanted and its API nodes, then::

    pip install --no-deps --target fe comfyui-frontend-package==1.58.1
    python main.py --cpu --front-end-root fe/comfyui_frontend_package/static --port 8511
    python tests/data/make_editor_answers.py --url http://127.0.0.1:8511
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import sys
import urllib.request
from importlib import metadata
from pathlib import Path
from typing import Any

import playwright.sync_api
from tqdm import tqdm

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE.parent / "support"))
from editor_corpus import classes_used, templates  # noqa: E402

PINNED = "2026-01-02T03:04:05"  # %date% in a file name prefix is filled in by the editor
FLAGS = ("--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking", "--disable-sync")
READY = "() => window.app?.graph?._nodes?.length && window.LiteGraph && !app.extensionManager?.spinner"
# As the template browser opens a file; a new session loads its default graph at some time after the page is up.
ASK = """async (file) => {
    const count = file.nodes.length;
    for (let attempt = 0; attempt < 20; attempt++) {
        try {
            await app.loadGraphData(structuredClone(file), true, true, null);
        } catch (error) { return {error: String(error)} }
        await new Promise((resolve) => setTimeout(resolve, attempt ? 300 : 60));
        if (app.graph._nodes.length !== count) continue;
        try {
            const output = (await app.graphToPrompt()).output;
            return {nodes: JSON.stringify(output)}; // as it is posted: without what is undefined
        } catch (error) { return {error: String(error)} }
    }
    return {error: `the graph did not stay: ${app.graph._nodes.length} nodes of ${count}`};
}"""


def rules() -> dict[Path, dict[str, Any]]:
    """The hand-made cases."""
    return {path: json.loads(path.read_text(encoding="utf-8")) for path in sorted((HERE / "rules").glob("*.json"))}


def write(name: str, content: Any) -> None:
    """Keep as compact JSON, packed; the order of inputs within a class is part of what it says."""
    text = json.dumps(content, ensure_ascii=False, separators=(",", ":"))
    (HERE / name).write_bytes(lzma.compress(text.encode(), preset=9 | lzma.PRESET_EXTREME))


def without_prose(info: dict[str, Any]) -> dict[str, Any]:
    """A class as the host describes it, without what is written for people: its declarations are facts, that is not."""
    prose = ("description", "output_tooltips", "price_badge", "search_aliases", "essentials_category")
    kept = {name: value for name, value in info.items() if name not in prose}
    return {**kept, "input": _groups(info["input"])}


def _groups(groups: dict[str, Any]) -> dict[str, Any]:
    return {
        group: {
            name: [spec[0], *map(_options, spec[1:])] if isinstance(spec, list) else spec
            for name, spec in specs.items()
        }
        for group, specs in groups.items()
    }


def _options(options: Any) -> Any:
    kept = {name: value for name, value in (options or {}).items() if name != "tooltip"}
    if isinstance(kept.get("options"), list):
        kept["options"] = [
            {**each, "inputs": _groups(each["inputs"])} if isinstance(each, dict) and "inputs" in each else each
            for each in kept["options"]
        ]
    if isinstance(kept.get("template"), dict) and isinstance(kept["template"].get("input"), dict):
        kept["template"] = {**kept["template"], "input": _groups(kept["template"]["input"])}
    return kept


def get(url: str) -> Any:
    """JSON from the host."""
    with urllib.request.urlopen(url, timeout=120) as answer:
        return json.load(answer)


def ask_editor(url: str, files: dict[str, dict[str, Any]]) -> dict[str, Any]:
    """The editor's answer for each file."""
    names = ("chromium", "chromium-browser", "google-chrome")
    program = os.environ.get("PHOTOKEEP_CHROMIUM") or next(filter(None, map(shutil.which, names)), None)
    answers = {}
    with playwright.sync_api.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=list(FLAGS))
        page = browser.new_page()
        page.clock.set_fixed_time(PINNED)
        page.goto(url)
        page.wait_for_function(READY, timeout=120_000)
        for name, file in tqdm(files.items(), unit="file"):
            answer = page.evaluate(ASK, file)
            answers[name] = {"nodes": json.loads(answer["nodes"])} if "nodes" in answer else answer
        browser.close()
    return answers


def main() -> None:
    """Write both files."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--url", default="http://127.0.0.1:8188")
    parser.add_argument("--only", help="files whose name holds this; printed, and nothing is written")
    options = parser.parse_args()
    files = {name: file for name, file in templates().items() if not options.only or options.only in name}
    cases = {str(path): case["workflow"] for path, case in rules().items()}
    answers = ask_editor(options.url, files if options.only else {**cases, **files})
    if options.only:
        print(json.dumps(answers, indent=1, ensure_ascii=False))
        return
    for path, case in rules().items():
        case["api"] = answers.pop(str(path))["nodes"]
        path.write_text(json.dumps(case, indent=1) + "\n", encoding="utf-8")
    object_info = get(f"{options.url}/object_info")
    used = set().union(*map(classes_used, [*files.values(), *cases.values()]))
    stats = get(f"{options.url}/system_stats")["system"]
    versions = {
        "comfyui": stats["comfyui_version"],
        "frontend": os.environ.get("FRONTEND_VERSION", "1.58.1"),
        "templates": metadata.version("comfyui-workflow-templates-json"),
    }
    write("object_info.json.xz", {name: without_prose(info) for name, info in object_info.items() if name in used})
    write("editor_answers.json.xz", {"versions": versions, "answers": answers})
    failed = {name: answer["error"] for name, answer in answers.items() if "error" in answer}
    print(f"{len(answers)} files, {len(failed)} without an answer", *failed.items(), sep="\n")


if __name__ == "__main__":
    main()
