"""The helper every benchmark reports through."""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest

BENCH = Path(__file__).resolve().parent.parent / "bench"


@pytest.fixture
def figures(monkeypatch):
    spec = importlib.util.spec_from_file_location("photokeep_bench_figures", BENCH / "_figures.py")
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, spec.name, module)
    spec.loader.exec_module(module)
    return module


def test_figures_are_printed_as_a_table_and_written_as_json(figures, tmp_path, capsys):
    measured = [
        figures.at_most("hot lease", 6.04, "us", 5),
        figures.at_least("speed-up", 1.5, "x", 1.25),
        figures.Figure("models", 3, ""),
    ]
    figures.report(measured, tmp_path / "out.json")
    assert capsys.readouterr().out.splitlines() == [
        "figure     value  unit  goal     met",
        "hot lease  6.04   us    <= 5     NO",
        "speed-up   1.5    x     >= 1.25  yes",
        "models     3",
    ]
    written = json.loads((tmp_path / "out.json").read_text())["figures"]
    assert written[0] == {"name": "hot lease", "value": 6.04, "unit": "us", "goal": "<= 5", "met": False}
    assert written[2]["met"] is None


def test_without_a_file_nothing_is_written(figures, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    figures.report([], None)
    assert capsys.readouterr().out == "figure  value  unit  goal  met\n"
    assert list(tmp_path.iterdir()) == []
    assert figures.argument_parser("x").parse_args(["--json", "f"]).json == Path("f")
