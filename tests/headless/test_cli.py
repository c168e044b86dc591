"""The command line as a user meets it: real processes, real photos, real weights."""

from __future__ import annotations

import json
import os
import re
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from command_shell import Shell, imported, save_photo
from PIL import Image
from prometheus_client.parser import text_string_to_metric_families

from headless import cli
from photokeep_nodes import vram_manager

if TYPE_CHECKING:
    import subprocess

ROOT = Path(__file__).resolve().parents[2]
RESTORE = ROOT / "workflows" / "restore.json"
STAGES = [
    *("Load", "Find Faces", "Analyze", "Find Scratches", "Inpaint", "Denoise", "Restore Colors", "Upscale", "Save")
]
RESTORE_FULL = ROOT / "workflows" / "restore_full.json"


@pytest.fixture
def shell(tmp_path):
    return Shell(tmp_path)


def stages(done: subprocess.CompletedProcess[str]) -> dict[str, str]:
    (run,) = json.loads(done.stdout)["runs"]
    return {stage["title"]: stage["status"] for stage in run["stages"]}


def test_help_is_light(shell):
    done = shell.run("--help", PYTHONPROFILEIMPORTTIME="1")
    assert done.returncode == 0
    assert "--vram-budget" in done.stdout
    assert not imported(done) & {"torch", "numpy", "networkx", "rich", "PIL", "photokeep_nodes.nodes"}


def test_version(shell):
    done = shell.run("--version")
    assert done.returncode == 0
    assert done.stdout.startswith("photokeep ")


def test_restores_a_photo_then_takes_everything_from_the_cache_without_torch(shell):
    photo = save_photo(shell.folder / "scans" / "aunt may.png")
    done = shell.run(RESTORE, "-i", photo, "--json", "-")
    assert done.returncode == 0, done.stderr
    assert stages(done) == dict.fromkeys(STAGES, "ran")
    assert shell.output() == ["aunt may_restored.png"]
    with Image.open(shell.folder / "output" / "aunt may_restored.png") as result:
        assert result.size == (192, 192)
        assert {"prompt", "workflow"} <= set(result.info)
        assert json.loads(result.info["workflow"])["nodes"]
    again = shell.run(RESTORE, "-i", photo, "--json", "-", PYTHONPROFILEIMPORTTIME="1")
    assert again.returncode == 0, again.stderr
    assert set(stages(again).values()) == {"cached"}
    assert not imported(again) & {"torch", "numpy", "spandrel", "cv2"}
    assert shell.output() == ["aunt may_restored.png"]


def test_ends_with_a_table_and_the_path_of_the_result(shell):
    photo = save_photo(shell.folder / "a.png")
    done = shell.run(RESTORE, "-i", photo)
    assert done.returncode == 0, done.stderr
    for text in ("stage", "peak memory", "Denoise", "not run before", "a_restored.png"):
        assert text in done.stdout
    quiet = shell.run(RESTORE, "-i", photo, "-q")
    assert (quiet.returncode, quiet.stdout, quiet.stderr) == (0, "", "")


def test_set_changes_a_value_by_title(shell):
    photo = save_photo(shell.folder / "a.png")
    done = shell.run(RESTORE, "-i", photo, "--set", "Upscale.scale=1.5", "--set", "save.format=webp")
    assert done.returncode == 0, done.stderr
    with Image.open(shell.folder / "output" / "a_restored.webp") as result:
        assert result.size == (72, 72)
    done = shell.run(RESTORE, "-i", photo, "--set", "Upscale.scale=1.5")
    with Image.open(shell.folder / "output" / "a_restored.png") as result:
        prompt, graph = json.loads(result.info["prompt"]), json.loads(result.info["workflow"])
    inputs = {node["class_type"]: node["inputs"] for node in prompt.values()}
    assert (inputs["PhotokeepLoadPhoto"]["photo"], inputs["PhotokeepUpscale"]["scale"]) == ("a.png", 1.5)
    # Opened in the editor, the result shows what was run.
    widgets = {node["type"]: node.get("widgets_values") for node in graph["nodes"]}
    assert (widgets["PhotokeepLoadPhoto"][0], widgets["PhotokeepUpscale"][0]) == ("a.png", 1.5)
    bad = shell.run(RESTORE, "-i", photo, "--set", "Upscale.scale=99", "--set", "Upscale.tile=x")
    assert bad.returncode == 2
    assert "Upscale" in bad.stderr


def test_plan_runs_nothing(shell):
    photo = save_photo(shell.folder / "a.png")
    done = shell.run(RESTORE, "-i", photo, "--plan")
    assert done.returncode == 0, done.stderr
    assert "run" in done.stdout
    assert shell.output() == []
    shell.run(RESTORE, "-i", photo)
    done = shell.run(RESTORE, "-i", photo, "--plan", "--json", "-")
    (run,) = json.loads(done.stdout)["runs"]
    assert {stage["will_run"] for stage in run["stages"]} == {False}


def test_missing_weights_are_all_named_before_any_work(shell):
    done = shell.run(RESTORE_FULL)
    assert done.returncode == 3
    for text in (
        "9 weight files are not installed",
        "GFPGANv1.4.pth",
        "348.6 MB",
        "photokeep models get gfpgan-1.4",
        "ddcolor_modelscope.pth",
        "912.0 MB",
        "Apache-2.0",
        "photokeep models get lama",
        f"All of them: photokeep models get -w {RESTORE_FULL}",
    ):
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert shell.output() == []


def test_one_bad_photo_does_not_stop_the_others(shell):
    save_photo(shell.folder / "in" / "b.png")
    save_photo(shell.folder / "in" / "d.png", side=40)
    (shell.folder / "in" / "a.png").write_bytes(b"not a photo")
    whole = (shell.folder / "in" / "b.png").read_bytes()
    (shell.folder / "in" / "c.png").write_bytes(whole[: len(whole) // 2])
    done = shell.run(RESTORE, "-i", shell.folder / "in", "--json", "result.json")
    assert done.returncode == 1
    assert shell.output() == ["b_restored.png", "d_restored.png"]
    result = json.loads((shell.folder / "result.json").read_text())
    assert [run["status"] for run in result["runs"]] == ["failed", "done", "failed", "done"]
    assert result["exit_code"] == 1
    assert "Traceback" not in done.stdout + done.stderr


@pytest.mark.parametrize(
    ("content", "texts"),
    [
        (None, ["no such file"]),
        ("", ["the file is empty"]),
        ("{", ["line 1"]),
        ("[1, 2]", ["workflow"]),
        ('{"a": 1}', ["no ComfyUI workflow"]),
        ('{"1": {"class_type": "KSampler", "inputs": {}}}', ["missing_node_type", "KSampler"]),
        (
            (
                '{"1": {"class_type": "PhotokeepUpscale", "inputs": {"image": ["2", 0], "model": ["3", 0],'
                ' "scale": 99, "tile": 1}}, "2": {"class_type": "PhotokeepUpscale", "inputs": {"image": ["1", 0],'
                ' "model": ["3", 7], "scale": 2.0, "tile": 0}},'
                ' "3": {"class_type": "PhotokeepModelFFDNet", "inputs": {}},'
                ' "4": {"class_type": "PhotokeepSavePhoto", "inputs": {"image": ["1", 0]}}}'
            ),
            ["dependency_cycle", "value_bigger_than_max", "bad_linked_input", "return_type_mismatch"],
        ),
    ],
)
def test_bad_workflows_end_with_2_and_say_why(shell, content, texts):
    path = shell.folder / "bad.json"
    if content is not None:
        path.write_text(content)
    done = shell.run(path)
    assert done.returncode == 2
    for text in texts:
        assert text in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["--device", "tpu"], "'tpu' is no device"),
        (["--vram-budget", "lots"], "'lots' is no size"),
        (["-q", "-v"], "contradict"),
        (["--nonsense"], "No such option"),
        (["--set", "Nobody.scale=2"], "Nobody"),
        (["-i", "missing.png"], "missing.png"),
        (["-i", "*.nope"], "no photo matches"),
        (["-i", "a" * 300 + ".png"], "there is no photo"),
        (["-i", ""], "there is no photo"),
        (["--device", "cuda:97"], "there is no device cuda:97"),
        (["--json", "."], "is a folder"),
        (["--json", "result.png"], "the name of a photo"),
        (["--metrics", "album/photo.jpg"], "the name of a photo"),
        (["one too\x1b]0;many\x07\x9b2J"], "one too?]0;many??2J"),
    ],
)
def test_bad_usage_is_explained(shell, arguments, text):
    done = shell.run(RESTORE, *arguments)
    assert done.returncode == 2
    assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert shell.output() == []


@pytest.mark.parametrize("option", ["--json", "--metrics"])
def test_no_report_is_written_over_the_workflow(shell, option):
    path = shell.folder / "mine.json"
    path.write_bytes(RESTORE.read_bytes())
    for more in ([], ["--plan"], ["--plan", "-q"]):
        done = shell.run("mine.json", option, path, *more)
        assert (done.returncode, "is the workflow itself" in done.stderr) == (2, True)
    assert path.read_bytes() == RESTORE.read_bytes()


def test_a_quiet_plan_says_what_would_stop_a_run(shell):
    prompt = {
        "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}},
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "gone.pth"}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }  # fmt: skip
    (shell.folder / "w.json").write_text(json.dumps(prompt))
    done = shell.run("w.json", "--plan", "-q")
    assert (done.returncode, done.stdout) == (3, "")
    assert "no model file 'gone.pth'" in done.stderr


def test_an_output_folder_that_cannot_be_written(shell):
    photo = save_photo(shell.folder / "a.png")
    (shell.folder / "taken").write_text("a file, not a folder")
    done = shell.run(RESTORE, "-i", photo, "-o", shell.folder / "taken" / "deeper")
    assert done.returncode == 2
    assert "taken is a file, not a folder" in done.stderr
    assert (shell.folder / "taken").read_text() == "a file, not a folder"


def test_a_cache_folder_that_cannot_be_made(shell):
    photo = save_photo(shell.folder / "a.png")
    (shell.folder / "file").write_text("")
    done = shell.run(RESTORE, "-i", photo, "--cache-dir", shell.folder / "file" / "cache")
    assert done.returncode == 2
    assert "--no-cache" in done.stderr


def test_odd_names_are_shown_and_saved_as_they_are(shell):
    names = ["photo [bw].png", "x[bold]y.png", "[x] weird.png", "ümläut 写真.png", os.fsdecode(b"bad\xff.png")]
    for name in names:
        save_photo(shell.folder / "in" / name, side=16)
    done = shell.run(RESTORE, "-i", "in", "--set", "Upscale.scale=1", "--json", "result.json")
    assert done.returncode == 0, done.stderr
    assert len(shell.output()) == len(names)
    for shown in ("photo [bw]_restored.png", "x[bold]y_restored.png", "[x] weird_restored.png"):
        assert shown in done.stdout
        assert shown in shell.output()


def test_an_unreadable_stage_output_is_made_again_with_its_model(shell):
    photo = save_photo(shell.folder / "a.png")
    assert shell.run(RESTORE, "-i", photo).returncode == 0
    for blob in (shell.folder / "cache" / "stages" / "blobs").rglob("*"):
        if blob.is_file():
            blob.write_bytes(b"x" * blob.stat().st_size)
    done = shell.run(RESTORE, "-i", photo, "--set", "Upscale.scale=2", "--json", "-")
    assert done.returncode == 0, done.stderr
    assert stages(done)["Upscale"] == "ran"
    assert shell.output() == ["a_restored.png", "a_restored_2.png"]


def test_a_batch_larger_than_the_cache_is_resumed_without_work(shell):
    for number in range(4):
        save_photo(shell.folder / "in" / f"{number}.png", side=20 + number)
    arguments = (RESTORE, "-i", "in", "--set", "Upscale.scale=1", "--json", "result.json")
    for _ in range(2):
        done = shell.run(*arguments, PHOTOKEEP_CACHE_LIMIT="90k")
        assert done.returncode == 0, done.stderr
    runs = json.loads((shell.folder / "result.json").read_text())["runs"]
    assert {stage["status"] for run in runs for stage in run["stages"]} == {"cached"}
    assert shell.output() == [f"{number}_restored.png" for number in range(4)]


@pytest.mark.slow
@pytest.mark.parametrize("signal_number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_stops_clean_and_goes_on_where_it_was(shell, signal_number):
    photo = save_photo(shell.folder / "large.png", side=300)
    process = shell.start("run_command", RESTORE, "-i", photo, "--json", "result.json")
    records = shell.folder / "cache" / "stages" / "records"
    deadline = time.monotonic() + 120
    while len(list(records.rglob("*.json"))) < len(STAGES) - 2:  # all before Upscale are done, which is at work
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    time.sleep(0.5)
    process.send_signal(signal_number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err
    assert "Traceback" not in err
    assert shell.output() == []
    (run,) = json.loads((shell.folder / "result.json").read_text())["runs"]
    assert run["status"] == "interrupted"
    assert [stage["title"] for stage in run["stages"]] == STAGES[:-2]
    # Within the cache too nothing is half-written.
    assert not [p for p in (shell.folder / "cache").rglob(".*") if p.is_file()]
    done = shell.run(RESTORE, "-i", photo, "--set", "Upscale.scale=1", "--plan", "--json", "-")
    (run,) = json.loads(done.stdout)["runs"]
    assert not any(stage["will_run"] for stage in run["stages"][:-2])


def test_models_list_names_licence_and_state(shell):
    rows = {row["id"]: row for row in json.loads(shell.photokeep("models", "list", "--json").stdout)}
    assert rows["realesrgan-x4plus"]["state"] == "installed"
    assert rows["gfpgan-1.4"]["state"] == "missing"
    assert rows["siggraph17"]["licence"] == "BSD-2-Clause"
    assert {"ffdnet-color", "retinaface-mobilenet", "zero-dce", "realesr-animevideov3"} <= rows.keys()
    table = shell.photokeep("models", "list").stdout
    assert "realesrgan-x4plus" in table
    assert "To get missing ones, by name: photokeep models get" in table


def test_models_verify_hashes_what_is_installed(shell):
    done = shell.photokeep("models", "verify")
    assert done.returncode == 0
    assert done.stdout.count("sha256 verified") == 6
    assert shell.photokeep("models", "verify", "siggraph17").returncode == 3
    models = shell.folder / "models"
    models.mkdir()
    with (models / "siggraph17-df00044c.pth").open("wb") as stream:
        stream.truncate(136_787_426)  # the right size, the wrong bytes
    done = shell.photokeep("models", "verify", "siggraph17")
    assert done.returncode == 1
    assert "corrupt" in done.stdout


def test_models_path_and_unknown_names(shell):
    assert shell.photokeep("models", "path").stdout.splitlines()[0] == str(shell.folder / "models")
    assert shell.photokeep("models", "path", "zero-dce").stdout.strip().endswith("zero_dce.safetensors")
    assert shell.photokeep("models", "path", "siggraph17").returncode == 3
    done = shell.photokeep("models", "get", "gfpgam-1.4")
    assert done.returncode == 2
    assert "Did you mean gfpgan-1.4?" in done.stderr


def test_doctor_reports_devices_memory_weights_and_versions(shell):
    found = json.loads(shell.photokeep("doctor", "--json").stdout)
    assert found["torch"]["device"]
    assert found["memory"]["total_bytes"] > 0
    assert found["versions"]["spandrel"]
    assert {row["id"] for row in found["weights"]} >= {"ffdnet-color", "gfpgan-1.4"}
    assert found["torch"]["precisions"] == ["float32"]  # the tests ask for it
    text = shell.photokeep("doctor").stdout
    assert " in float32, " in text.replace("\n", " ")
    for word in ("memory", "torch", "model folders", "realesrgan-x4plus"):
        assert word in text


def metrics_of(path: Path) -> dict[str, float]:
    families = text_string_to_metric_families(path.read_text())
    return {sample.name: sample.value for family in families for sample in family.samples if not sample.labels}


def test_says_what_the_memory_pool_did_at_once_and_afterwards(shell):
    photo, metrics = save_photo(shell.folder / "a.png"), shell.folder / "metrics" / "photokeep.prom"
    before = shell.photokeep("doctor")
    assert "none yet that used models" in before.stdout
    done = shell.run(RESTORE, "-i", photo, "--json", "run.json", "--metrics", metrics)
    assert done.returncode == 0, done.stderr
    assert re.search(r"models: \d in memory, \d loaded from disk in \d+\.\d s", done.stdout)
    assert re.search(r"peak set aside for models and their work: .* \((cpu|cuda:0)\)", done.stdout)
    vram = json.loads((shell.folder / "run.json").read_text())["vram"]
    assert vram["counters"]["cold_loads"] == len(vram["models"]) > 1
    assert vram["devices"]["cpu"]["peak_bytes"] > 0
    said = metrics_of(metrics)
    assert said["photokeep_vram_pool_in_use"] == 1
    assert said["photokeep_vram_cold_loads_total"] == vram["counters"]["cold_loads"]

    found = json.loads(shell.photokeep("doctor", "--json").stdout)["vram"]
    assert found["last_run"]["counters"] == vram["counters"]
    assert {"cpu"} <= {device["device"] for device in found["devices"]}
    assert {row["model"] for row in found["learnt"]} <= {model["key"].partition(":")[0] for model in vram["models"]}
    assert "just now" in shell.photokeep("doctor").stdout

    again = shell.run(RESTORE, "-i", photo, "--json", "run.json", "--metrics", metrics, PYTHONPROFILEIMPORTTIME="1")
    assert json.loads((shell.folder / "run.json").read_text())["vram"] is None
    assert "in memory" not in again.stdout
    assert metrics_of(metrics) == {"photokeep_vram_pool_in_use": 0}
    assert "torch" not in imported(again)
    # A run that used no models is not the last one that did.
    assert json.loads(shell.photokeep("doctor", "--json").stdout)["vram"]["last_run"]["counters"] == vram["counters"]


def test_metrics_that_cannot_be_are_refused_before_any_work(shell):
    photo = save_photo(shell.folder / "a.png")
    for target in (shell.folder, photo / "photokeep.prom"):
        done = shell.run(RESTORE, "-i", photo, "--metrics", target)
        assert done.returncode == 2
        assert "--metrics" in done.stderr
    without = shell.folder / "without" / "prometheus_client"
    without.mkdir(parents=True)
    (without / "__init__.py").write_text("raise ImportError")
    path = os.pathsep.join((str(without.parent), *filter(None, [os.environ.get("PYTHONPATH"), str(ROOT)])))
    done = shell.run(RESTORE, "-i", photo, "--metrics", "photokeep.prom", PYTHONPATH=path)
    assert done.returncode == 2
    assert "pip install 'photokeep[prometheus]'" in done.stderr
    assert shell.output() == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="needs a folder in which nothing can be made")
def test_metrics_that_cannot_be_written_cost_no_photo(shell):
    folder = save_photo(shell.folder / "in" / "a.png").parent
    save_photo(folder / "b.png")
    done = shell.run(RESTORE, "-i", folder, "--metrics", "/proc/photokeep/photokeep.prom")
    assert done.returncode == 1
    assert shell.output() == ["a_restored.png", "b_restored.png"]
    assert done.stderr.count("cannot be written") == 1


def test_an_interrupt_at_a_bad_moment_is_tried_again(monkeypatch):
    """While the memory pool changes its records nothing is raised into it."""
    answers = iter([False, False, True])
    monkeypatch.setattr(vram_manager, "may_interrupt", lambda: next(answers))
    before = signal.signal(signal.SIGINT, cli._interrupt)
    try:
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(KeyboardInterrupt):
            time.sleep(20)
    finally:
        signal.signal(signal.SIGINT, before)
    assert next(answers, None) is None
