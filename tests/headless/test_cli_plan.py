"""``photokeep plan`` and ``photokeep-run --plan`` as a user meets them: real processes, real workflows."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from command_shell import Shell, imported, save_photo

ROOT = Path(__file__).resolve().parents[2]
RESTORE = ROOT / "workflows" / "restore.json"
RESTORE_FULL = ROOT / "workflows" / "restore_full.json"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


@pytest.fixture
def photo(shell):
    return save_photo(shell.folder / "scans" / "a.png")


def only_run(text: str) -> dict[str, object]:
    (run,) = json.loads(text)["runs"]
    return run


@pytest.mark.parametrize("form", ["text", "mermaid", "json", "svg"])
def test_shows_a_plan_without_torch_and_runs_nothing(shell, photo, form):
    done = shell.photokeep("plan", RESTORE, "-i", photo, "--format", form, PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert not imported(done) & {"torch", "numpy", "spandrel", "cv2"}
    starts = {"text": "", "mermaid": "flowchart LR", "json": '{\n  "version": 1', "svg": "<?xml"}
    assert done.stdout.startswith(starts[form])
    for part in ("Denoise", "Upscale", "FFDNet colour", "Save"):
        assert part in done.stdout
    assert shell.output() == []


@pytest.mark.slow
def test_tells_what_is_cached_and_what_it_took_last_time(shell, photo):
    before = only_run(shell.photokeep("plan", RESTORE, "-i", photo, "--format", "json").stdout)
    assert [stage["outcome"] for stage in before["stages"][:2]] == ["run", "depends"]
    assert {stage["last_seconds"] for stage in before["stages"]} == {None}
    assert shell.run(RESTORE, "-i", photo).returncode == 0
    behind = only_run(shell.photokeep("plan", RESTORE, "-i", photo, "--format", "json").stdout)
    assert {stage["outcome"] for stage in behind["stages"]} == {"cached"}
    assert all(stage["last_seconds"] >= 0 and stage["last_peak_bytes"] > 0 for stage in behind["stages"])
    other = ["--set", "Upscale.scale=2", "--format", "json"]
    changed = {
        stage["title"]: stage
        for stage in only_run(shell.photokeep("plan", RESTORE, "-i", photo, *other).stdout)["stages"]
    }
    assert [changed[title]["outcome"] for title in ("Denoise", "Upscale", "Save")] == ["cached", "run", "depends"]
    assert changed["Upscale"]["why"] == "input changed: scale"
    assert changed["Upscale"]["last_seconds"] > 0
    assert changed["Upscale"]["memory_bytes"] > 67_000_000
    assert changed["Upscale"]["models"] == ["realesrgan-x4plus"]
    assert set(changed["Save"]["after"]) == {"11", "1"}


def test_missing_weights_are_marked_with_the_command_that_gets_them(shell, photo):
    done = shell.photokeep("plan", RESTORE_FULL, "-i", photo)
    assert done.returncode == 3
    for text in (
        "Face Restore", "GFPGAN 1.4 is not installed", "missing: photokeep models get gfpgan-1.4", "be stopped",
        "A run would stop: 9 weight files are not installed", f"photokeep models get -w {RESTORE_FULL}",
    ):  # fmt: skip
        assert text in done.stdout
    assert done.stderr == ""
    done = shell.photokeep("plan", RESTORE_FULL, "-i", photo, "--format", "json")
    assert done.returncode == 3
    found = json.loads(done.stdout)
    assert found["problem"]["type"] == "WeightsMissingError"
    states = {model["id"]: model["state"] for model in found["models"]}
    assert (states["gfpgan-1.4"], states["realesrgan-x4plus"]) == ("missing", "installed")
    stages = {stage["title"]: stage for stage in only_run(done.stdout)["stages"]}
    assert (stages["Denoise"]["outcome"], stages["Denoise"]["will_run"]) == ("blocked", None)
    assert stages["Analyze"]["outcome"] == "depends"
    for form in ("svg", "mermaid"):
        done = shell.photokeep("plan", RESTORE_FULL, "-i", photo, "--format", form)
        assert (done.returncode, "missing" in done.stdout) == (3, True)
        assert "photokeep models get" in done.stderr


def test_nodes_that_only_name_a_model_are_no_stages(shell, photo):
    done = shell.photokeep("plan", RESTORE, "-i", photo, "--format", "json")
    assert not [s for s in only_run(done.stdout)["stages"] if s["class_type"].startswith("PhotokeepModel")]
    assert json.loads(done.stdout)["models"][-1]["licence"] == "BSD-3-Clause"


def test_writes_a_file(shell, photo):
    done = shell.photokeep("plan", RESTORE, "-i", photo, "--format", "svg", "-O", "plan.svg")
    assert (done.returncode, done.stdout) == (0, "")
    assert ET.parse(shell.folder / "plan.svg").getroot().tag.endswith("svg")
    assert shell.photokeep("plan", RESTORE, "-i", photo, "-O", "plan.txt").stdout == ""
    assert "Denoise" in (shell.folder / "plan.txt").read_text()


def test_run_with_plan_is_the_same_plan(shell, photo):
    table = shell.photokeep("plan", RESTORE, "-i", photo).stdout
    assert shell.run(RESTORE, "-i", photo, "--plan").stdout == table
    done = shell.run(RESTORE, "-i", photo, "--plan", "--json", "-")
    assert json.loads(done.stdout) == json.loads(
        shell.photokeep("plan", RESTORE, "-i", photo, "--format", "json").stdout
    )
    assert done.stderr == table
    quiet = shell.run(RESTORE, "-i", photo, "--plan", "-q", "--json", "plan.json")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")
    assert (shell.folder / "plan.json").is_file()


def test_one_bad_photo_does_not_hide_the_plans_of_the_others(shell, photo):
    (photo.parent / "b.png").write_bytes(b"not a photo")
    done = shell.photokeep("plan", RESTORE, "-i", photo.parent, "--format", "json")
    runs = json.loads(done.stdout)["runs"]
    # Whether a file is a photo is seen before or while it is read; both are told by the run, too.
    assert [run["photo"] for run in runs] == [str(photo), str(photo.parent / "b.png")]
    assert runs[0]["stages"]
    assert done.returncode == (1 if runs[1]["error"] else 0)
    done = shell.photokeep("plan", RESTORE, "-i", photo.parent, "--format", "svg")
    assert done.returncode == 2
    assert "one photo" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ([RESTORE, "-i", "missing.png"], "there is no photo"),
        ([RESTORE, "--set", "Load.photo=missing.png"], "missing.png"),
        (["nowhere.json"], "no such file"),
        ([RESTORE, "--format", "pdf"], "pdf"),
        ([RESTORE, "--device", "tpu"], "'tpu' is no device"),
        ([RESTORE, "-O", "."], "is a folder"),
        ([RESTORE, "-O", RESTORE], "is the workflow itself"),
        ([RESTORE, "--set", "Upscale.scale=99"], "value_bigger_than_max"),
        ([RESTORE, "--allow-pack", "nowhere"], "there is no node pack nowhere"),
        ([], "Missing argument"),
    ],
)
def test_bad_usage_is_explained(shell, arguments, text):
    done = shell.photokeep("plan", *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr


def test_a_device_that_is_not_here_can_be_planned_for(shell, photo):
    done = shell.photokeep("plan", RESTORE, "-i", photo, "--device", "cuda:97", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0, done.stderr
    assert "torch" not in imported(done)


def test_a_file_that_cannot_be_written_ends_with_1(shell, photo):
    done = shell.photokeep("plan", RESTORE, "-i", photo, "-O", photo / "plan.txt")
    assert done.returncode == 1
    assert "cannot be written" in done.stderr
