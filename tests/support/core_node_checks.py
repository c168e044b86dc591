"""Our nodes against the answers that ``tests/data/make_core_nodes.py`` writes down, kept ones or fresh ones."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from core_node_cases import SAVES
from core_node_results import difference, saved_files, summary

from headless import core_nodes

if TYPE_CHECKING:
    from core_node_cases import Case, UpscaleCase

RESAMPLING_TOLERANCE = 2e-6
"""Torch's kernels for CPUs with AVX2 fuse multiplications and additions, those for older ones do not."""

UPSCALE_TOLERANCE = 2e-6
"""oneDNN adds up in another order where the weights lie channels last."""

_FILES = {"LoadImage", "LoadImageMask", "UpscaleModelLoader"}
"""Nodes whose first input lists files, which every machine has others of."""


def read_answers(path: Path) -> dict[str, Any]:
    """What the script wrote."""
    found: dict[str, Any] = json.loads(lzma.decompress(path.read_bytes()))
    return found


@cache
def golden() -> dict[str, Any]:
    """The answers that are kept."""
    return read_answers(Path(__file__).parents[1] / "data" / "core_nodes.json.xz")


def differences(case: Case, expected: list[Any], *, same_machine: bool) -> list[str]:
    """What of a case's outputs is not what it should be.

    Args:
        case: what is asked.
        expected: the host's answer.
        same_machine: whether that is of this machine; of another one, resampled pictures differ in their last bits.
    """
    node = core_nodes.node_classes()[case.node]
    answer = getattr(node(), node.FUNCTION)(**case.call(torch.from_numpy))
    outputs = answer["result"] if isinstance(answer, dict) else answer
    ours = [summary(value, exact=not case.tolerance) for value in outputs]
    assert len(ours) == len(expected), case
    exact = same_machine or not case.resamples
    tolerance = case.tolerance if exact else max(case.tolerance, RESAMPLING_TOLERANCE)
    pairs = zip(ours, expected, strict=True)
    found = [difference(our, their, tolerance, exact=exact and not case.tolerance) for our, their in pairs]
    return [f"{case}: {each}" for each in found if each]


def save_differences(answers: dict[str, Any], folder: Path) -> list[str]:
    """What ours saves otherwise than the host, in a folder that is empty."""
    wrong = []
    for case in SAVES:
        node = core_nodes.node_classes()["SaveImage"]()
        picture = torch.from_numpy(case.picture.make())
        answer = node.run(picture, case.prefix, case.prompt, case.extra_pnginfo)
        ours = saved_files(folder, answer["ui"]["images"])
        if ours != answers[case.name]:
            wrong.append(f"{case.name}: {ours} instead of {answers[case.name]}")
    return wrong


def upscale_difference(case: UpscaleCase, expected: list[Any]) -> str:
    """What is not as it should be of a photo that a network, which must be in a model folder, enlarged."""
    classes = core_nodes.node_classes()
    (model,) = classes["UpscaleModelLoader"]().run(case.network)
    (large,) = classes["ImageUpscaleWithModel"]().run(model, torch.from_numpy(case.photo.make()))
    return difference(summary(large, exact=False), expected[0], UPSCALE_TOLERANCE)


def declared(name: str) -> dict[str, Any]:
    """What one of our nodes declares, in the form of ``/object_info``."""
    node = core_nodes.node_classes()[name]
    return comparable(
        {
            "input": node.INPUT_TYPES(),
            "output": node.RETURN_TYPES,
            "output_name": getattr(node, "RETURN_NAMES", node.RETURN_TYPES),
            "output_node": getattr(node, "OUTPUT_NODE", False),
            "display_name": node.DISPLAY_NAME,
            "category": node.CATEGORY,
        },
        files=name in _FILES,
    )


def comparable(info: dict[str, Any], *, files: bool | None = None) -> dict[str, Any]:
    """Plain JSON whose inputs are in order, without lists of files."""
    info = json.loads(json.dumps(info))
    groups = info.pop("input")
    if files is None:
        files = info["display_name"] in {core_nodes.display_names()[name] for name in _FILES}
    if files:
        first = next(iter(groups["required"].values()))
        if isinstance(first[0], list):
            first[0] = []
        else:
            first[1]["options"] = []
    # The host's older and newer nodes spell hidden inputs differently.
    hidden = {name: [kind] if isinstance(kind, str) else kind for name, kind in groups.pop("hidden", {}).items()}
    ordered = {group: list(inputs.items()) for group, inputs in groups.items() if inputs}
    return {**info, "inputs": json.loads(json.dumps(ordered)), "hidden": hidden}
