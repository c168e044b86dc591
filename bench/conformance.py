"""How many of the 644 published workflow templates are converted exactly as ComfyUI's editor does.

    python bench/conformance.py [--json FILE]

The editor's answers and its host's description of the node classes are those kept in tests/data (see
tests/data/README.md); templates whose classes that host does not know are left out. comfy-cli's ``workflow_to_api``,
the official converter, gets the same files and the same description where it is installed (``maintainer`` extra).
Titles, which the host ignores, are compared in neither.
"""

from __future__ import annotations

import copy
import json
import logging
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from _figures import Figure, argument_parser, at_least, report

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

from editor_corpus import EDITORS_CLOCK, classes_used, editor_answers, object_info, templates  # noqa: E402

from headless.editor_format import convert  # noqa: E402
from headless.json_text import DEFAULT_LIMITS  # noqa: E402
from headless.object_info import schemas_of_object_info  # noqa: E402

if TYPE_CHECKING:
    from collections.abc import Callable

GOAL_PERCENT = 98.0


def what_is_run(prompt: dict[str, Any]) -> dict[str, Any]:
    """A prompt without what the host ignores."""
    plain = {key: {"class_type": node.get("class_type"), "inputs": node["inputs"]} for key, node in prompt.items()}
    return dict(json.loads(json.dumps(plain)))


def exact(converter: Callable[[dict[str, Any]], dict[str, Any]]) -> tuple[int, int, float]:
    """How many files come out exactly, how many make the converter fail, and the seconds it took over all."""
    right = failed = 0
    answers = editor_answers()["answers"]
    started = time.perf_counter()
    for name, raw in known().items():
        try:
            made = converter(copy.deepcopy(raw))
        except Exception:  # noqa: BLE001 - whatever ends a conversion is a failure of it
            failed += 1
            continue
        theirs = answers[name].get("nodes")
        right += theirs is not None and what_is_run(made) == what_is_run(theirs)
    return right, failed, time.perf_counter() - started


def known() -> dict[str, dict[str, Any]]:
    """Templates whose node classes the host knows."""
    return {name: raw for name, raw in templates().items() if classes_used(raw) <= object_info().keys()}


def main() -> None:
    """Count and report."""
    options = argument_parser("Compare conversions with the editor's own.").parse_args()
    total = len(known())
    schemas = schemas_of_object_info(object_info())
    figures = [Figure("templates whose node classes are known", total, "files")]
    right, failed, seconds = exact(lambda raw: convert(raw, schemas, DEFAULT_LIMITS, now=EDITORS_CLOCK).to_prompt())
    figures += [
        Figure("ours: exactly as the editor", right, "files"),
        at_least("ours: share", 100 * right / total, "%", GOAL_PERCENT),
        Figure("ours: failures", failed, "files"),
        Figure("ours: time", seconds, "s"),
    ]
    try:
        from comfy_cli.workflow_to_api import convert_ui_to_api
    except ImportError as error:
        print(f"comfy-cli is not compared: {error}")
    else:
        logging.disable(logging.CRITICAL)
        right, failed, seconds = exact(lambda raw: convert_ui_to_api(raw, object_info()))
        figures += [
            Figure("comfy-cli: exactly as the editor", right, "files"),
            Figure("comfy-cli: share", 100 * right / total, "%"),
            Figure("comfy-cli: failures", failed, "files"),
            Figure("comfy-cli: time", seconds, "s"),
        ]
    report(figures, options.json)


if __name__ == "__main__":
    main()
