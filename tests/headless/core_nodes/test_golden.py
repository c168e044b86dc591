"""Ours give what ComfyUI's own nodes gave: pixels to the last bit, or as near as its case says."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from core_node_cases import SAVES, UPSCALES, UpscaleCase, cases, write_networks, write_pictures
from core_node_checks import comparable, declared, differences, golden, save_differences, upscale_difference

from headless import core_nodes
from photokeep_nodes import host

if TYPE_CHECKING:
    from pathlib import Path

CASES = tuple(cases())


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("input")
    write_pictures(folder)
    return folder


@pytest.mark.parametrize("node", sorted({case.node for case in CASES}))
def test_ours_gives_what_the_hosts_gave(node, pictures, tmp_path):
    asked = [case for case in CASES if case.node == node]
    with host.standalone(host.Standalone(input_dirs=(pictures,), output_dir=tmp_path)):
        wrong = [
            each for case in asked for each in differences(case, golden()["answers"][case.name], same_machine=False)
        ]
    assert not wrong, f"{len(wrong)} of {len(asked)}:\n" + "\n".join(wrong[:20])


def test_every_case_has_its_answer_and_the_other_way_round():
    names = [case.name for case in (*CASES, *UPSCALES, *SAVES)]
    assert len(set(names)) == len(names)
    assert set(names) == set(golden()["answers"])


def test_pictures_are_saved_as_the_host_saved_them(tmp_path):
    with host.standalone(host.Standalone(output_dir=tmp_path)):
        assert not save_differences(golden()["answers"], tmp_path)


@pytest.mark.parametrize("case", UPSCALES, ids=lambda case: case.name)
def test_an_upscale_model_enlarges_as_in_the_host(case: UpscaleCase, model_folder, on_the_cpu):
    write_networks(model_folder)
    assert not upscale_difference(case, golden()["answers"][case.name])


@pytest.mark.parametrize("node", sorted(core_nodes.node_classes()))
def test_a_node_declares_what_the_hosts_declares(node):
    assert declared(node) == comparable(golden()["declared"][node])
