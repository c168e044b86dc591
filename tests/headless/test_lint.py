"""What ``photokeep lint`` says of a workflow, and the codes it ends with."""

from __future__ import annotations

import json
from pathlib import Path

import click
import pytest
from editor_corpus import object_info, templates

import headless.cli
from headless.cli_workflow import convert_command, lint_command
from headless.lint import lint
from headless.object_info import schemas_of_object_info

WORKFLOWS = Path(__file__).parents[2] / "workflows"
LOAD = {"class_type": "LoadImage", "inputs": {"image": "anna.jpg"}}
SAVE = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}}


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write a workflow beside a photo, and return its path."""
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    (tmp_path / "anna.jpg").write_bytes((WORKFLOWS / "old_portrait.jpg").read_bytes())

    def written(content):
        path = tmp_path / "workflow.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return written


def codes(report):
    return [(each.severity, each.problem.code, each.problem.node_id) for each in report.findings]


def test_a_clean_workflow_has_nothing_said_of_it(write):
    report = lint(write({"1": LOAD, "2": SAVE}))
    assert report.findings == ()
    assert report.exit_code(strict=True) == 0
    assert report.estimate.stages == 2
    assert report.estimate.memory_bytes == 0


def test_every_error_is_told_at_once_with_what_to_do(write):
    prompt = {
        "1": LOAD,
        "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 1], "upscale_method": "lanzos", "scale_by": 99}},
        "3": {"class_type": "ImageBlur", "inputs": {"image": ["9", 0], "blur_radius": 0}},
        "4": {"class_type": "SaveImge", "inputs": {}},
        "5": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x", "filename": "y"}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["3", 7], "filename_prefix": "x"}},
    }
    report = lint(write(prompt))
    errors = {(each.problem.node_id, each.problem.input, each.problem.code) for each in report.findings
              if each.severity == "error"}  # fmt: skip
    assert errors >= {
        ("2", "image", "return_type_mismatch"),
        ("2", "upscale_method", "value_not_in_list"),
        ("2", "scale_by", "value_bigger_than_max"),
        ("3", "image", "bad_linked_input"),
        ("3", "blur_radius", "value_smaller_than_min"),
        ("3", "sigma", "required_input_missing"),
        ("4", "", "missing_node_type"),
        ("6", "images", "bad_linked_input"),
    }
    hints = {(each.problem.node_id, each.problem.input): each.problem.hint for each in report.findings}
    assert "lanczos" in hints["2", "upscale_method"]
    assert "SaveImage" in hints["4", ""]
    assert ("warning", "unknown_input", "5") in codes(report)
    assert report.exit_code(strict=False) == 1
    assert report.estimate is None


def test_a_place_inside_subgraphs_is_told_by_ids_and_by_titles(write):
    rule = json.loads((Path(__file__).parents[1] / "data/rules/06_nested.json").read_text(encoding="utf-8"))
    raw = rule["workflow"]
    inner = next(each for each in raw["definitions"]["subgraphs"] if each["name"] == "Enlarge")
    inner["nodes"][0]["widgets_values"] = ["lanczos", 99.0]
    raw["nodes"][0]["widgets_values"][0] = "anna.jpg"
    (problem,) = [each.problem for each in lint(write(raw)).findings if each.severity == "error"]
    assert (problem.node_id, problem.code) == ("2:21:11", "value_bigger_than_max")
    assert problem.within == ("Outer", "Enlarge")
    assert 'in "Outer" > "Enlarge"' in problem.line()


def test_branches_that_no_output_needs_are_told_once_each(write):
    prompt = {
        "1": LOAD, "2": SAVE,
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "ImageInvert", "inputs": {"image": ["3", 0]}},
        "5": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    }  # fmt: skip
    report = lint(write(prompt))
    assert codes(report) == [("warning", "unused_branch", "4"), ("warning", "unused_branch", "5")]
    assert "with 1 before it" in report.findings[0].problem.message
    assert report.exit_code(strict=False) == 0
    assert report.exit_code(strict=True) == 1


def test_the_way_a_switch_does_not_take_is_a_note(write):
    prompt = {
        "1": LOAD,
        "2": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "PrimitiveBoolean", "inputs": {"value": False}},
        "5": {"class_type": "ComfySwitchNode",
              "inputs": {"switch": ["4", 0], "on_false": ["1", 0], "on_true": ["3", 0]}},
    }  # fmt: skip
    report = lint(write(prompt))
    assert codes(report) == [("note", "branch_not_taken", "3")]
    prompt["4"]["inputs"]["value"] = True
    assert codes(lint(write(prompt))) == []


def test_missing_weights_are_told_with_their_terms_and_how_to_get_them(write, tmp_path, monkeypatch):
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path / "no models"))
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "data"))
    prompt = {
        "1": LOAD,
        "2": {"class_type": "PhotokeepModelHAT", "inputs": {}},
        "4": {"class_type": "PhotokeepToUpscaleModel", "inputs": {"model": ["2", 0]}},
        "5": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["4", 0], "image": ["1", 0]}},
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "x"}},
    }
    report = lint(write(prompt))
    missing = [each.problem for each in report.findings if each.problem.code == "weights_missing"]
    assert missing, codes(report)
    assert "HAT" in missing[0].message
    assert report.models[0].licence in missing[0].message
    assert f"photokeep models get {report.models[0].id}" in missing[0].hint
    assert report.exit_code(strict=False) == 0
    assert report.estimate.memory_is_least
    assert report.estimate.memory_bytes > 0


def test_what_is_not_cached_is_noted_with_the_reason(write, monkeypatch):
    from headless.core_nodes import node_classes

    monkeypatch.setattr(
        node_classes()["ImageInvert"], "IS_CHANGED", classmethod(lambda cls, **_: float("nan")), raising=False
    )
    prompt = {"1": LOAD, "2": SAVE | {"inputs": {"images": ["3", 0], "filename_prefix": "x"}},
              "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}}  # fmt: skip
    report = lint(write(prompt))
    assert codes(report) == [("note", "not_cached", "3")]
    assert "differ each time" in report.findings[0].problem.message


def test_time_and_memory_are_those_of_past_runs(write):
    from headless.job import Job
    from headless.settings import Settings
    from headless.store import Store
    from photokeep_nodes import host

    path = write({"1": LOAD, "2": SAVE})
    assert lint(path).estimate.timed_stages == 0
    settings = Settings.from_environment()
    store = Store(settings.cache_dir / "stages")
    for _ in Job(path, settings=host.Standalone(output_dir=path.parent / "out", device="cpu"), store=store).run(
        lambda _: None
    ):
        pass
    estimate = lint(path).estimate
    assert estimate.timed_stages == 2
    assert estimate.seconds > 0
    assert estimate.device in {"cpu", "cuda", "mps"}


def test_a_hosts_classes_are_checked_and_marked_as_not_ours(write):
    described = schemas_of_object_info({"KSampler": object_info()["KSampler"], "SaveLatent": {
        "input": {"required": {"samples": ["LATENT"]}}, "output": [], "output_node": True}})  # fmt: skip
    prompt = {
        "1": {"class_type": "KSampler", "inputs": {"seed": -1, "steps": 1, "cfg": 1, "sampler_name": "eulr",
              "scheduler": "simple", "denoise": 1.0}},
        "2": {"class_type": "SaveLatent", "inputs": {"samples": ["1", 0]}},
    }  # fmt: skip
    report = lint(write(prompt), object_info=described)
    found = codes(report)
    assert ("error", "value_smaller_than_min", "1") in found
    assert ("error", "value_not_in_list", "1") in found
    assert ("error", "required_input_missing", "1") in found
    assert ("warning", "not_runnable_here", "1") in found
    assert "missing_node_type" not in {code for _, code, _ in found}


def test_a_described_host_knows_only_what_it_describes(write):
    host = object_info()
    described = schemas_of_object_info({name: host[name] for name in ("LoadImage", "SaveImage")})
    load = {"class_type": "LoadImage", "inputs": {"image": "put there later.png"}}  # uploads are not in its list
    report = lint(write({"1": load, "2": SAVE}), object_info=described)
    assert [code for severity, code, _ in codes(report) if severity == "error"] == []
    blur = {"class_type": "ImageBlur", "inputs": {"image": ["1", 0], "blur_radius": 1, "sigma": 1.0}}
    report = lint(write({"1": LOAD, "3": blur, "2": {**SAVE, "inputs": {**SAVE["inputs"], "images": ["3", 0]}}}),
                  object_info=described)  # fmt: skip
    assert ("error", "missing_node_type", "3") in codes(report)  # it runs here, but not there


def test_a_class_that_runs_here_as_well_is_not_marked(write):
    described = schemas_of_object_info({name: object_info()[name] for name in ("LoadImage", "SaveImage")})
    report = lint(write({"1": LOAD, "2": SAVE}), object_info=described)
    assert report.findings == ()
    assert report.estimate.stages == 2


def test_a_model_file_of_the_users_own_that_is_not_there(write):
    prompt = {
        "1": LOAD,
        "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "4x-Mine.pth"}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
        "4": {**SAVE, "inputs": {**SAVE["inputs"], "images": ["3", 0]}},
    }
    report = lint(write(prompt))
    (missing,) = [each for each in report.findings if each.problem.code == "weights_missing"]
    assert "4x-Mine.pth" in missing.problem.message
    assert "Put it into one of" in missing.problem.message
    assert report.estimate.stages == 3


def test_outputs_that_are_switched_off_are_noted(write):
    raw = json.loads((WORKFLOWS / "restore.json").read_text(encoding="utf-8"))
    save = next(node for node in raw["nodes"] if node["type"] == "PhotokeepSavePhoto")
    raw["nodes"].append({**save, "id": 999, "mode": 2, "inputs": [], "title": "Second copy"})
    report = lint(write(raw))
    assert ("note", "output_off", "999") in codes(report)


@pytest.mark.parametrize("name", sorted(templates())[::40])
def test_any_template_can_be_looked_at(write, name):
    report = lint(write(templates()[name]))
    assert report.unreadable is None
    json.dumps(report.as_json())


# The commands


def run(command, capsys, *arguments):
    try:
        command(list(map(str, arguments)), standalone_mode=False)
    except SystemExit as ended:
        code = ended.code
    else:
        code = 0
    out, err = capsys.readouterr()
    return code, out, err


def test_lint_prints_lines_and_ends_with_0_1_or_2(write, capsys):
    path = write({"1": LOAD, "2": SAVE})
    code, out, _ = run(lint_command, capsys, path)
    assert code == 0
    assert "clean" in out
    write({"1": LOAD})
    code, out, _ = run(lint_command, capsys, path)
    assert code == 1
    assert "prompt_no_outputs" in out
    write("{")
    code, out, _ = run(lint_command, capsys, path)
    assert code == 2
    assert "not a workflow" in out
    code, out, _ = run(lint_command, capsys, path, WORKFLOWS / "restore.json")
    assert code == 2
    assert "restore.json" in out


def test_lint_prints_json_for_programs(write, capsys):
    path = write({"1": LOAD, "2": SAVE, "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}}})
    code, out, _ = run(lint_command, capsys, "--json", path)
    assert code == 0
    data = json.loads(out)
    (file,) = data["files"]
    assert (file["is_workflow"], file["errors"], file["warnings"]) == (True, 0, 1)
    assert file["findings"][0]["code"] == "unused_branch"
    assert file["findings"][0]["node_id"] == "3"
    assert run(lint_command, capsys, "--strict", path)[0] == 1
    write("nonsense")
    data = json.loads(run(lint_command, capsys, "--json", path)[1])
    assert data["files"][0]["is_workflow"] is False


def test_convert_prints_the_api_format_and_says_what_it_could_not_tell(write, tmp_path, capsys):
    code, out, err = run(convert_command, capsys, WORKFLOWS / "restore.json")
    assert (code, err) == (0, "")
    assert all({"class_type", "inputs", "_meta"} == each.keys() for each in json.loads(out).values())
    target = tmp_path / "api.json"
    path = write({"nodes": [{"id": 1, "type": "KSampler", "widgets_values": [1, "fixed"]}], "links": []})
    code, out, err = run(convert_command, capsys, path, "-o", target)
    assert (code, out) == (1, "")
    assert "KSampler" in err
    assert "--object-info" in err
    assert json.loads(target.read_text())["1"]["inputs"] == {}
    (tmp_path / "info.json").write_text(json.dumps({"KSampler": object_info()["KSampler"]}))
    code, out, err = run(convert_command, capsys, path, "--object-info", tmp_path / "info.json")
    assert (code, err) == (0, "")
    assert json.loads(out)["1"]["inputs"]["seed"] == 1


def test_convert_does_not_write_over_what_it_reads(write, monkeypatch):
    path = write({"1": LOAD, "2": SAVE})
    before = path.read_bytes()
    monkeypatch.chdir(path.parent)
    with pytest.raises(click.UsageError, match="is the workflow itself"):
        convert_command.main([str(path), "-o", "workflow.json"], standalone_mode=False)
    assert path.read_bytes() == before


@pytest.mark.parametrize("name", ["/etc/out", "../../out", "C:\\out"])
def test_a_name_that_leads_out_of_the_output_folder_is_found_before_anything_runs(write, name):
    save = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": name}}
    photo = {"class_type": "PhotokeepSavePhoto", "inputs": {"image": ["1", 0], "filename": name, "format": "PNG",
             "bit_depth": "8", "quality": 90, "if_exists": "number"}}  # fmt: skip
    found = [each for each in lint(write({"1": LOAD, "2": save, "3": photo})).findings if each.severity == "error"]
    hints = {each.problem.node_id: f"{each.problem.message}. {each.problem.hint}" for each in found
             if each.problem.code == "custom_validation_failed"}  # fmt: skip
    assert hints.keys() == {"2", "3"}
    assert "%photo%" not in hints["2"]
    assert "%photo%" in hints["3"]


@pytest.mark.parametrize("name", ["SaveGLB", "CustomCombo"])
def test_what_the_editor_itself_adds_to_a_class_is_no_unknown_input(write, name):
    """Hosts describe neither: not that a list takes whatever is typed in, nor widgets that the editor draws."""
    host = object_info()
    described = schemas_of_object_info({each: host[each] for each in ("SaveGLB", "CustomCombo", "PreviewAny")})
    combo = {"class_type": "CustomCombo", "inputs": {"choice": "b", "index": 1, "option1": "a", "option2": "b"}}
    prompts = {
        "SaveGLB": {"1": {"class_type": "SaveGLB", "inputs": {"mesh": ["9", 0], "filename_prefix": "x", "image": ""}}},
        "CustomCombo": {"1": combo, "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}}},
    }
    found = {code for _, code, _ in codes(lint(write(prompts[name]), object_info=described))}
    assert not found & {"unknown_input", "value_not_in_list"}


def test_a_host_without_our_nodes_is_told_so(write):
    described = schemas_of_object_info({"SaveImage": object_info()["SaveImage"]})
    report = lint(write({"1": {"class_type": "PhotokeepLoadPhoto", "inputs": {}}, "2": SAVE}), object_info=described)
    (unknown,) = [each.problem for each in report.findings if each.problem.code == "missing_node_type"]
    assert "Photokeep's own" in unknown.hint


def test_names_of_nodes_do_not_fill_pages(write):
    name = "N" * 300_000
    inner = {"id": "abc", "name": name, "nodes": [{"id": i, "type": name + "x"} for i in range(50)], "links": []}
    report = lint(write({"nodes": [{"id": 99, "type": "abc"}], "links": [], "definitions": {"subgraphs": [inner]}}))
    assert len(json.dumps(report.as_json())) < 200_000


def test_both_commands_are_part_of_the_program():
    assert {"lint", "convert", "plan", "run"} <= headless.cli.photokeep.commands.keys()


def test_a_picture_that_claims_too_many_pixels_is_found_before_anything_runs(write, tmp_path, monkeypatch):
    import struct
    import zlib

    from headless.job import Job
    from photokeep_nodes import host
    from photokeep_nodes.errors import WorkflowInvalidError

    header = struct.pack(">IIBBBBB", 60_000, 60_000, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(b"")), (b"IEND", b"")]
    parts = [
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    ]
    (tmp_path / "bomb.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(parts))
    path = write({"1": {"class_type": "LoadImage", "inputs": {"image": "bomb.png"}}, "2": SAVE})
    (finding,) = lint(path).findings
    assert (finding.severity, finding.problem.node_id, finding.problem.input) == ("error", "1", "image")
    assert "megapixels" in finding.problem.message
    job = Job(path, settings=host.Standalone(output_dir=tmp_path / "out"), store=None)
    with pytest.raises(WorkflowInvalidError, match="megapixels"):
        list(job.run(lambda _event: None))
    assert not (tmp_path / "out").exists()
