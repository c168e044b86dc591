"""Ours give what ComfyUI's own nodes gave: pixels to the last bit, or as near as its case says."""

from __future__ import annotations

import json
import lzma
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from core_node_cases import UPSCALES, Case, UpscaleCase, cases, write_networks, write_pictures
from core_node_results import difference, summary

from headless import core_nodes
from photokeep_nodes import host

CASES = tuple(cases())


@cache
def golden() -> dict[str, Any]:
    packed = Path(__file__).parents[2] / "data" / "core_nodes.json.xz"
    return json.loads(lzma.decompress(packed.read_bytes()))


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    write_pictures(folder)
    return folder


def differences(case: Case, expected: list[Any]) -> list[str]:
    """What of a case's outputs is not what it should be."""
    node = core_nodes.node_classes()[case.node]
    answer = getattr(node(), node.FUNCTION)(**case.call(torch.from_numpy))
    outputs = answer["result"] if isinstance(answer, dict) else answer
    ours = [summary(value, exact=not case.tolerance) for value in outputs]
    assert len(ours) == len(expected), case
    return [f"{case}: {found}" for o, t in zip(ours, expected, strict=True) if (found := difference(o, t, case.tolerance))]


@pytest.mark.parametrize("node", sorted({case.node for case in CASES}))
def test_ours_gives_what_the_hosts_gave(node, pictures, tmp_path):
    asked = [case for case in CASES if case.node == node]
    with host.standalone(host.Standalone(input_dirs=(pictures,), output_dir=tmp_path)):
        wrong = [each for case in asked for each in differences(case, golden()[case.name])]
    assert not wrong, f"{len(wrong)} of {len(asked)}:\n" + "\n".join(wrong[:20])


def test_every_case_has_its_answer_and_the_other_way_round():
    names = [case.name for case in CASES] + [each.name for each in UPSCALES]
    assert len(set(names)) == len(names)
    assert set(names) == set(golden()) - {"comfyui"}


@pytest.mark.parametrize("case", UPSCALES, ids=lambda case: case.name)
def test_an_upscale_model_enlarges_as_in_the_host(case: UpscaleCase, model_folder, on_the_cpu):
    write_networks(model_folder)
    classes = core_nodes.node_classes()
    (model,) = classes["UpscaleModelLoader"]().run(case.network)
    (large,) = classes["ImageUpscaleWithModel"]().run(model, torch.from_numpy(case.photo.make()))
    # oneDNN adds up in another order where the weights lie channels last.
    assert not difference(summary(large, exact=False), golden()[case.name][0], 2e-6)
