"""What a run says about the memory pool, at once and afterwards."""

from __future__ import annotations

import copy
import io
from pathlib import Path

import pytest
from rich.console import Console
from vram_rig import GPU, UNIT, Rig, Source

from headless import display, pool_figures
from headless.pool_figures import PoolWatch
from photokeep_nodes import vram_metrics
from photokeep_nodes.errors import PhotokeepError


@pytest.fixture
def rig(monkeypatch, tmp_path):
    rig = Rig(3)
    monkeypatch.setattr(vram_metrics, "pool_in_use", lambda: rig.pool)
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    return rig


def without_a_pool(monkeypatch) -> None:
    monkeypatch.setattr(vram_metrics, "pool_in_use", lambda: None)


def test_tells_what_happened_since_it_was_made(rig):
    rig.touch(Source("a", 2))
    watch = PoolWatch()
    assert watch.figures() is None  # nothing yet
    rig.touch(Source("b", 2))
    rig.touch(Source("b", 2))
    found = watch.figures()
    counters = found["counters"]
    assert (counters["cold_loads"], counters["hits"], counters["evictions"]) == (1, 1, 1)
    assert counters["bytes_to_device"] == 2 * UNIT
    assert counters["stalls_s"].keys() == {"turn", "eviction", "load", "copy", "other_thread"}
    assert found["devices"]["cuda:0"] == {
        "budget_bytes": 3 * UNIT,
        "used_bytes": 2 * UNIT,
        "weights_bytes": 2 * UNIT,
        "peak_bytes": 2 * UNIT,
    }
    models = {model["key"]: (model["state"], model["places"]) for model in found["models"]}
    assert models["b"] == ("hot", ["cuda:0"])
    assert models["a"][0] == "warm"


def test_a_run_that_used_no_model_has_no_figures(monkeypatch, tmp_path):
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path))
    without_a_pool(monkeypatch)
    assert PoolWatch().figures() is None
    assert PoolWatch().keep(Path("a.json")) is None
    assert pool_figures.last_run() is None
    assert list(tmp_path.iterdir()) == []


def test_a_pool_made_during_the_run_counts_from_nothing(monkeypatch):
    without_a_pool(monkeypatch)
    watch, rig = PoolWatch(), Rig(3)
    rig.touch(Source("a"))
    monkeypatch.setattr(vram_metrics, "pool_in_use", lambda: rig.pool)
    assert watch.figures()["counters"]["cold_loads"] == 1
    assert set(watch.figures()["counters"]["stalls_s"]) == {"turn", "eviction", "load", "copy", "other_thread"}


def test_the_figures_are_there_afterwards(rig):
    watch = PoolWatch()
    rig.touch(Source("a"))
    kept = watch.keep(Path("workflows/restore.json"))
    found = pool_figures.last_run()
    assert found["age_s"] >= 0
    assert found["workflow"] == "workflows/restore.json"
    assert {key: found[key] for key in kept} == kept


def test_figures_of_another_photokeep_are_not_shown(rig):
    vram_metrics.working_memory().save_run({"version": 99, "counters": "of another kind"})
    assert pool_figures.last_run() is None


def test_metrics_are_written_whole(rig, tmp_path):
    rig.touch(Source("a"))
    target = tmp_path / "new" / "photokeep.prom"
    pool_figures.write_metrics(target)
    assert "photokeep_vram_cold_loads_total 1.0" in target.read_text()
    assert list(target.parent.iterdir()) == [target]


def test_metrics_that_cannot_be_written_are_an_error(rig, tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(PhotokeepError, match="cannot be written"):
        pool_figures.write_metrics(tmp_path / "file" / "photokeep.prom")


# -- for people ---------------------------------------------------------------------------------------------------

FIGURES = {
    "counters": {
        "hits": 0,
        "cold_loads": 0,
        "load_s": 0.0,
        "evictions": 0,
        "ram_evictions": 0,
        "bytes_to_device": 0,
        "stalls_s": {"turn": 0.0, "eviction": 0.01, "load": 9.0, "copy": 9.0, "other_thread": 0.0},
    },
    "devices": {
        "cpu": {"budget_bytes": 12 * 10**9, "peak_bytes": 512 * 10**6},
        "cuda:0": {"budget_bytes": 8 * 10**9, "peak_bytes": 0},
    },
    "models": [{"places": ["cpu"]}, {"places": []}],
}


def test_says_only_what_happened():
    assert display.pool_lines(FIGURES) == (
        "models: 2 in memory\npeak set aside for models and their work: 512 MB of 12 GB (cpu)"
    )


def test_says_one_use_of_one():
    figures = copy.deepcopy(FIGURES)
    figures["counters"]["hits"] = 1
    assert "ready at once for 1 use\n" in display.pool_lines(figures)


def test_says_all_that_happened():
    figures = copy.deepcopy(FIGURES)
    figures["counters"] |= {
        "hits": 7,
        "cold_loads": 2,
        "load_s": 1.94,
        "evictions": 1,
        "ram_evictions": 2,
        "bytes_to_device": 128 * 10**6,
        "foreseen_hits": 3,
        "smaller_tiles": 2,
        "devices_lost": 0,
    }
    figures["counters"]["stalls_s"] |= {"turn": 0.1, "other_thread": 0.1}
    figures["devices"]["cuda:0"]["peak_bytes"] = 3 * 10**9
    figures["models"] = [{"places": ["cuda:0"]}, {"places": ["cpu", "cuda:0"]}, {"places": ["cuda:1"]}]
    assert display.pool_lines(figures) == (
        "models: 3 in memory, 2 on cuda:0, 1 on cuda:1, 2 loaded from disk in 1.9 s, "
        "3 brought ahead of their stage, ready at once for 7 uses, 3 evicted, 2 with smaller tiles, "
        "128 MB moved, waited 0.2 s\n"
        "peak set aside for models and their work: 512 MB of 12 GB (cpu), 3.0 GB of 8.0 GB (cuda:0)"
    )


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(5, "just now"), (60, "1 minute ago"), (7300, "2 hours ago"), (90000, "1 day ago")],
)
def test_says_how_long_ago(seconds, text):
    assert display._ago(seconds) == text


def shown(renderable) -> str:
    console = Console(file=io.StringIO(), width=150)
    console.print(renderable)
    return console.file.getvalue()


def test_the_learnt_sizes_say_how_sure_they_are():
    row = {
        "model": "net",
        "width": 300,
        "height": 200,
        "dtype": "float16",
        "device": "NVIDIA Some Card",
        "peak_bytes": 484 * 10**6,
        "times": 3,
        "refused_bytes": 0,
        "sampled": False,
    }
    text = shown(display.learnt_table([row, row | {"device": "cpu", "times": 1, "sampled": True}]))
    assert "300 x 200" in text
    assert ">= 484 MB" in text.splitlines()[2]
    assert ">=" not in text.splitlines()[1]
    assert [line.rstrip().split()[-2:] for line in text.splitlines()[1:]] == [["3", "times"], ["1", "time"]]
    refused = shown(display.learnt_table([row | {"refused_bytes": 2 * 10**9, "peak_bytes": 0, "times": 0}]))
    assert "ran out, now 2.0 GB" in refused
    assert "484" not in refused


def test_of_many_learnt_sizes_the_commonest_are_shown():
    row = {"model": "net", "height": 9, "dtype": "float16", "device": "cpu", "peak_bytes": 1, "refused_bytes": 0}
    rows = [row | {"width": width, "times": width, "sampled": False} for width in range(1, 10)]
    text = shown(display.learnt_table([*rows, rows[0] | {"model": "other"}]))
    assert [line.split()[1] for line in text.splitlines()[1:6]] == ["9", "8", "7", "6", "1"]
    assert "and 5 more" in text


def doctor_found(**changes) -> dict:
    device = {"device": "cuda:0", "budget_bytes": 8 * 10**9, "total_bytes": 12 * 10**9, "free_bytes": 9 * 10**9}
    return {
        "photokeep": "1",
        "python": "3",
        "platform": "here",
        "cpu_count": 2,
        "memory": {"available_bytes": 1, "total_bytes": 2},
        "nvidia": [],
        "torch": {"error": "ImportError"},
        "vram": {"devices": [device | {"others_bytes": 3 * 10**9}], "last_run": None, "learnt": []},
        "cache": {"path": "/cache", "free_bytes": 1},
        "model_folders": [],
        "comfyui_path": None,
        "versions": {},
        "weights": [],
    } | changes


def doctor_text(found: dict) -> str:
    console = Console(file=io.StringIO(), width=200)
    display.print_doctor(console, found)
    return console.file.getvalue()


def test_the_doctor_says_who_else_uses_a_device():
    card = {"name": "Card", "free_bytes": 1, "total_bytes": 2, "driver": "580"}
    users = [{"pid": 7, "name": "blender", "used_bytes": 3 * 10**9}, {"pid": 8, "name": "", "used_bytes": None}]
    text = doctor_text(doctor_found(nvidia=[card | {"processes": users}]))
    assert "cuda:0: up to 8.0 GB for models; 9.0 GB free of 12 GB, 3.0 GB used by others" in text
    assert "3.0 GB used by blender (7)" in text
    assert "process (8)" in text
    assert "none yet that used models" in text
    assert "nothing is known yet" in text


def test_the_doctor_shows_the_last_run(rig):
    watch = PoolWatch()
    rig.touch(Source("a"), device=GPU)
    watch.keep(Path("restore.json"))
    vram = doctor_found()["vram"] | {"last_run": pool_figures.last_run()}
    text = doctor_text(doctor_found(vram=vram))
    assert "just now, restore.json" in text
    assert "1 loaded from disk" in text
