"""``photokeep models`` as a user meets it, with a real web server; in real processes where that is what is tried."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
import safetensors
import small_networks
import torch
from file_server import Act, FileServer, serving
from small_models import NC, VARIABLE, checkpoint, entry, spec_of

from headless import cli
from headless.models_display import imported_lines
from photokeep_nodes import digests, importing
from photokeep_nodes.importing import Imported
from photokeep_nodes.models import _dropped_in, _network, catalogue
from photokeep_nodes.nodes import model_files

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]
RESTORE = ROOT / "workflows" / "restore.json"
RESTORE_FULL = ROOT / "workflows" / "restore_full.json"
BODY = checkpoint()


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


@dataclass
class Done:
    """How a command ended and what it said."""

    returncode: int
    stdout: str
    stderr: str


class Shell:
    """Runs ``photokeep models`` in a folder of its own, with models of its own in the catalogue."""

    def __init__(self, folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
        self.folder = folder
        self.models: list[dict[str, Any]] = []
        self.kept = folder / "data" / "photokeep" / "models"
        self._capsys = capsys
        self._patch = monkeypatch
        for name in ("COMFYUI_PATH", "PHOTOKEEP_EXTRA_MODEL_PATHS", "PHOTOKEEP_MODELS"):
            monkeypatch.delenv(name, raising=False)
        environment = {
            "PHOTOKEEP_CACHE": str(folder / "cache"),
            "XDG_DATA_HOME": str(folder / "data"),
            "PHOTOKEEP_DOWNLOAD_STALL": "0.3",
            "PYTHONPATH": os.pathsep.join((str(ROOT), str(ROOT / "tests" / "support"))),
            "NO_COLOR": "1",
            "COLUMNS": "100",
        }
        for name, value in environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.chdir(folder)

    def start(self, *arguments: object, **environment: str) -> subprocess.Popen[str]:
        """In a process of its own."""
        return subprocess.Popen(
            [sys.executable, "-m", "small_models", "models", *map(str, arguments)],
            env=os.environ | {VARIABLE: json.dumps(self.models)} | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def run(self, *arguments: object, **environment: str) -> Done:
        """In this process, which is quicker."""
        handlers = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
        code = 0
        self._capsys.readouterr()
        with self._patch.context() as patch:
            for name, value in environment.items():
                patch.setenv(name, value)
            for each in self.models:
                patch.setitem(catalogue(), each["id"], spec_of(each))
            patch.setattr(sys, "argv", ["photokeep", "models", *map(str, arguments)])
            try:
                cli.main()
            except SystemExit as end:
                code = int(end.code or 0)
            finally:
                for number, handler in handlers.items():
                    signal.signal(number, handler)
        out, err = self._capsys.readouterr()
        assert "This is a fault" not in err, err
        return Done(code, out, err)

    def names(self) -> list[str]:
        return sorted(path.name for path in self.kept.iterdir()) if self.kept.is_dir() else []


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Shell:
    return Shell(tmp_path, monkeypatch, capsys)


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str]) -> None:
    deadline = time.monotonic() + 60
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.02)


# -- get ---------------------------------------------------------------------------------------------------------------


def test_get_several_and_one_fails(shell: Shell, server: FileServer) -> None:
    shell.models = [
        entry("one", BODY, server.publish("/one.pth", BODY)),
        entry("two", BODY, server.publish("/two.pth", b"<html>"), f"{server.url}/gone"),
        entry("three", BODY, server.publish("/three.pth", b"<html>"), server.publish("/mirror", BODY)),
    ]
    done = shell.run("get", "one", "two", "ffdnet-color", "three")
    assert done.returncode == 1
    assert done.stdout.splitlines() == [str(shell.kept / "one.pth"), str(shell.kept / "three.pth")]
    for text in (
        "To get: 3 files",
        "Here already: ffdnet-color",
        f"into {shell.kept}",
        "two.pth",
        "MIT",
        "getting one.pth",
        "sent other bytes: 6",
        "trying the next address",
        "HTTP 404",
        "2 of 3 files were fetched; not: two",
    ):
        assert text in done.stderr, text
    again = shell.run("get", "one", "three")
    assert (again.returncode, again.stdout) == (0, "")
    assert "Nothing is missing." in again.stderr
    listed = {row["id"]: row for row in json.loads(shell.run("list", "--json").stdout)}
    assert [listed[name]["state"] for name in ("one", "two", "three")] == ["installed", "missing", "installed"]


def test_nothing_is_fetched_unasked(shell: Shell, server: FileServer) -> None:
    shell.models = [entry("one", BODY, server.publish("/one.pth", BODY))]
    done = shell.run("get", "one", "--dry-run")
    assert (done.returncode, done.stderr) == (0, "")
    assert "To get: 1 file" in done.stdout
    shell.run("list")
    shell.run("licenses")
    assert shell.run("verify", "one").returncode == 3
    assert shell.run("path", "one").returncode == 3
    assert server.asked == []
    assert shell.names() == []


@pytest.mark.parametrize("arguments", [[], ["gfpgam-1.4"], ["zero-dce", "--accept-license", "WTFPL"], ["-w", "none"]])
def test_get_needs_names_that_there_are(shell: Shell, arguments: list[str]) -> None:
    done = shell.run("get", *arguments)
    assert done.returncode == 2
    assert done.stdout == ""


def test_a_name_in_another_case_is_understood(shell: Shell) -> None:
    assert "Did you mean gfpgan-1.4?" in shell.run("get", "GFPGAN-1.4").stderr
    assert "Did you mean gfpgan-1.4?" in shell.run("verify", "GFPGAN-1.4").stderr


def test_what_a_workflow_needs(shell: Shell, server: FileServer) -> None:
    shell.models = [
        entry("gfpgan-1.4", BODY, server.publish("/g", BODY), filename="g.pth", role="face_restore"),
        entry("ddcolor-modelscope", BODY, server.publish("/d", BODY), filename="d.pth", role="colorize"),
        entry("unrelated", BODY, server.publish("/u", BODY)),
    ]
    workflow = json.loads(RESTORE.read_text())
    for node in workflow["nodes"]:
        node["mode"] = 0  # nothing bypassed
    (shell.folder / "all.json").write_text(json.dumps(workflow))
    planned = shell.run("get", "-w", "all.json", "--dry-run")
    assert "To get: 2 files" in planned.stdout
    assert "Here already: " in planned.stdout
    assert "unrelated" not in planned.stdout
    done = shell.run("get", "--workflow", "all.json")
    assert done.returncode == 0, done.stderr
    assert shell.names() == ["d.pth", "g.pth"]
    assert "Nothing is missing." in shell.run("get", "--workflow", "all.json").stderr


def test_a_workflow_whose_photo_is_not_there_yet(shell: Shell, server: FileServer) -> None:
    workflow = json.loads(RESTORE_FULL.read_text())
    (loader,) = (node for node in workflow["nodes"] if node["type"] == "PhotokeepLoadPhoto")
    loader["widgets_values"][0] = "not-here.png"
    (shell.folder / "own.json").write_text(json.dumps(workflow))
    done = shell.run("get", "-w", "own.json", "--dry-run")
    assert "gfpgan-1.4" in done.stdout, done.stderr
    (shell.folder / "bad.json").write_text("{")
    assert shell.run("get", "-w", "bad.json").returncode == 2


def test_a_consent_is_asked_for_once(shell: Shell, server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    shell.models = [
        entry("free", BODY, server.publish("/free", BODY)),
        entry("bound", BODY, server.publish("/bound", BODY), licence=NC),
    ]
    refused = shell.run("get", "bound", "free")
    assert refused.returncode == 2
    for text in ("NC-1.0", "https://example.org/nc", "for research", "models get bound --accept-license NC-1.0"):
        assert text in refused.stderr, text
    assert shell.names() == ["free.pth"], "the other one came all the same"
    assert "non-commercial, not accepted" in shell.run("licenses").stdout
    assert "not accepted" in shell.run("get", "bound", "--dry-run").stdout
    assert "not accepted" not in shell.run("get", "bound", "--dry-run", "--accept-license", "NC-1.0").stdout
    assert shell.run("get", "bound").returncode == 2, "a dry run agrees to nothing"
    assert shell.run("get", "bound", "--accept-license", "NC-1.0").returncode == 0
    rows = {row["id"]: row for row in json.loads(shell.run("licenses", "--json").stdout)}
    assert rows["NC-1.0"]["accepted"].startswith("20")
    assert rows["NC-1.0"]["models"] == ["bound"]
    assert rows["MIT"]["accepted"] is None
    assert "non-commercial, accepted 20" in shell.run("licenses").stdout
    (shell.kept / "bound.pth").unlink()
    assert shell.run("get", "bound").returncode == 0
    (shell.folder / "data" / "photokeep" / "licences.json").write_text("{")
    (shell.kept / "bound.pth").unlink()
    assert shell.run("get", "bound").returncode == 2
    assert "licences.json cannot be read, and counts as empty" in caplog.text


LARGE = random.Random(8).randbytes(3_000_000)


def test_killed_and_gone_on_with(shell: Shell, server: FileServer) -> None:
    url = server.publish("/large", LARGE, Act(send=2_000_000, stall=True))
    shell.models = [entry("large", LARGE, url)]
    process = shell.start("get", "large", PHOTOKEEP_DOWNLOAD_STALL="60")
    part = shell.kept / "large.pth.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 1_500_000, process)
    process.kill()
    process.communicate()
    assert not (shell.kept / "large.pth").exists()
    kept = part.stat().st_size
    done = shell.run("get", "large")
    assert done.returncode == 0, done.stderr
    assert "of it here already" in done.stderr
    assert (shell.kept / "large.pth").read_bytes() == LARGE
    assert [each.range for each in server.asked] == [None, f"bytes={kept}-"]
    assert server.sent() < 2 * len(LARGE)
    assert shell.names() == ["large.pth"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_says_how_to_go_on(shell: Shell, server: FileServer, number: signal.Signals) -> None:
    url = server.publish("/large", LARGE, Act(send=1_000_000, stall=True))
    shell.models = [entry("large", LARGE, url)]
    process = shell.start("get", "large", PHOTOKEEP_DOWNLOAD_STALL="60")
    part = shell.kept / "large.pth.part"
    wait_for(lambda: part.exists() and part.stat().st_size > 500_000, process)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert out == ""
    assert "run the same command again to go on" in err
    assert "Traceback" not in err
    assert "large.pth" not in shell.names()
    assert shell.run("get", "large").returncode == 0
    assert server.asked[-1].range is not None


def test_two_processes_fetch_a_file_once(shell: Shell, server: FileServer) -> None:
    url = server.publish("/large", LARGE, Act(send=1_000_000, stall=True, then_all=True))
    shell.models = [entry("large", LARGE, url)]
    first = shell.start("get", "large", PHOTOKEEP_DOWNLOAD_STALL="60")
    wait_for(lambda: server.count("/large") == 1, first)
    second = shell.start("get", "large", PHOTOKEEP_DOWNLOAD_STALL="60")
    said = ""
    assert second.stderr is not None
    while "another process is fetching this file" not in said:
        line = second.stderr.readline()
        assert line, said
        said += line
    server.go_on.set()
    outputs = [process.communicate(timeout=60) for process in (first, second)]
    assert [process.returncode for process in (first, second)] == [0, 0], outputs
    assert [out for out, _ in outputs] == [f"{shell.kept / 'large.pth'}\n"] * 2
    assert server.sent() == len(LARGE)
    assert server.count("/large") == 1
    assert shell.names() == ["large.pth"]


# -- list, path, verify ------------------------------------------------------------------------------------------------


def test_list_is_readable_and_can_be_narrowed(shell: Shell) -> None:
    shell.models = [entry("bound", BODY, "https://example.org/bound", licence=NC)]
    table = shell.run("list").stdout
    assert all(len(line) <= 100 for line in table.splitlines())
    assert "NC-1.0* non-commercial" in table
    assert "To get missing ones, by name: photokeep models get" in table
    missing = json.loads(shell.run("list", "--missing", "--json").stdout)
    installed = json.loads(shell.run("list", "--installed", "--json").stdout)
    assert {row["state"] for row in missing} == {"missing"}
    assert {row["state"] for row in installed} == {"installed"}
    rows = json.loads(shell.run("list", "--role", "low-light", "--json").stdout)
    assert {row["role"] for row in rows} == {"low_light"}
    assert "Did you mean denoise?" in shell.run("list", "--role", "denois").stderr
    both = shell.run("list", "--installed", "--missing")
    assert both.returncode == 2
    assert "contradict each other" in both.stderr


def test_files_of_ones_own_are_listed_with_what_is_known_of_them(shell: Shell) -> None:
    small_networks.save(small_networks.compact(4), shell.kept / "dropped.pth")
    small_networks.save(small_networks.compact(1), shell.folder / "repair.pth")
    assert shell.run("import", "repair.pth").returncode == 0
    table = " ".join(shell.run("list").stdout.split())
    assert "dropped.pth" in table
    assert "not looked at yet; for a Model File node" in table
    rows = {row["id"]: row for row in json.loads(shell.run("list", "--json").stdout) if row["role"] == "own file"}
    assert set(rows) == {"dropped.pth", "repair.safetensors"}
    assert (rows["dropped.pth"]["architecture"], rows["dropped.pth"]["roles"]) == ("", [])
    known = rows["repair.safetensors"]
    assert known["architecture"] == "Compact x1"
    assert known["roles"] == ["denoise", "deblur", "jpeg", "low_light"]
    assert known["path"] == str(shell.kept / "repair.safetensors")
    # Once it was used its network is known, until other bytes take its place.
    _dropped_in.get("file:upscale/dropped.pth")
    upscalers = {row["id"] for row in json.loads(shell.run("list", "--role", "upscale", "--json").stdout)}
    assert "dropped.pth" in upscalers
    assert "repair.safetensors" not in upscalers
    assert "Compact x4; for Model File (Upscale)" in shell.run("list", "--installed").stdout
    small_networks.save(small_networks.esrgan(), shell.kept / "dropped.pth")
    assert "not looked at yet" in shell.run("list").stdout
    missing = json.loads(shell.run("list", "--missing", "--json").stdout)
    assert "dropped.pth" not in {row["id"] for row in missing}


def test_a_face_network_of_ones_own_is_listed_though_no_node_takes_it(shell: Shell) -> None:
    path = small_networks.save(small_networks.compact(4), shell.kept / "face.pth")
    facts = _network.facts_of(_network.identify(small_networks.compact(4).state_dict(), wanted="any"))
    _dropped_in.note(digests.digest(path), replace(facts, purpose="FaceSR"))
    assert "Compact x4; no node takes it" in shell.run("list").stdout


@pytest.mark.parametrize("command", [["--help"], ["list"], ["licenses"], ["get", "gfpgan-1.4", "--dry-run"]])
def test_nothing_heavy_is_imported_to_look_around(shell: Shell, command: list[str]) -> None:
    process = shell.start(*command, PYTHONPROFILEIMPORTTIME="1")
    _, err = process.communicate(timeout=60)
    imported = {line.rsplit("|", 1)[-1].strip().partition(".")[0] for line in err.splitlines() if "|" in line}
    assert "photokeep_nodes" in imported
    assert not imported & {"torch", "numpy", "spandrel", "onnx", "requests", "urllib3", "yaml", "filelock"}


def test_a_spoilt_file_is_listed_and_fetched_anew(shell: Shell, server: FileServer) -> None:
    shell.models = [entry("one", BODY, server.publish("/one", BODY))]
    shell.kept.mkdir(parents=True)
    (shell.kept / "one.pth").write_bytes(b"short")
    listed = shell.run("list").stdout
    assert f"corrupt one: {shell.kept / 'one.pth'} has 5 bytes" in listed.replace("\n", " ")
    assert shell.run("verify", "one").returncode == 1
    done = shell.run("get", "one")
    assert done.returncode == 0
    assert "it is kept as one.pth.replaced" in done.stderr
    assert shell.run("verify", "one").returncode == 0


def flip(path: Path) -> None:
    """Change one byte of a file, not its size."""
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)


@pytest.mark.parametrize("looked", [False, True], ids=["unknown", "verified"])
def test_a_file_of_the_right_size_and_other_bytes_is_fetched_anew(
    shell: Shell, server: FileServer, looked: bool
) -> None:
    shell.models = [entry("one", BODY, server.publish("/one", BODY))]
    shell.kept.mkdir(parents=True)
    (shell.kept / "one.pth").write_bytes(BODY)
    flip(shell.kept / "one.pth")
    if looked:
        spoilt = shell.run("verify", "one")
        assert spoilt.returncode == 1
        assert "Replace it with: photokeep models get one" in spoilt.stdout
    planned = shell.run("get", "one", "--dry-run").stdout
    assert "To get: 1 file" in planned
    assert "corrupt here" in planned
    done = shell.run("get", "one")
    assert done.returncode == 0, done.stderr
    assert "it is kept as one.pth.replaced" in done.stderr
    assert (shell.kept / "one.pth").read_bytes() == BODY
    assert shell.run("verify", "one").returncode == 0
    assert "Nothing is missing." in shell.run("get", "one").stderr


def test_folders_of_a_configured_comfyui(shell: Shell, server: FileServer, caplog: pytest.LogCaptureFixture) -> None:
    comfyui = shell.folder / "ComfyUI"
    comfyui.mkdir()
    shell.models = [entry("up", BODY, server.publish("/up", BODY), folder="upscale_models")]
    done = shell.run("path", COMFYUI_PATH=str(comfyui))
    assert done.stdout.splitlines()[:2] == [
        str(comfyui / "models" / "photokeep"),
        str(comfyui / "models" / "upscale_models"),
    ]
    assert f"Those that ComfyUI itself can load go into {comfyui / 'models' / 'upscale_models'}" in done.stderr
    done = shell.run("get", "up", COMFYUI_PATH=str(comfyui))
    assert done.stdout.strip() == str(comfyui / "models" / "upscale_models" / "up.pth")
    (comfyui / "extra_model_paths.yaml").write_text("a: [")
    broken = shell.run("list", COMFYUI_PATH=str(comfyui))
    assert broken.returncode == 2
    assert "extra_model_paths.yaml, line 1: not YAML" in broken.stderr
    assert caplog.messages == [], "the error says it"


def test_verify_knows_what_was_first_and_what_was_imported(shell: Shell, server: FileServer) -> None:
    shell.models = [entry("loose", BODY, server.publish("/loose", BODY), sha256="")]
    assert shell.run("get", "loose").returncode == 0
    assert "as it was first seen" in shell.run("verify", "loose").stdout
    (shell.kept / "loose.pth").write_bytes(checkpoint(seed=1))
    spoilt = shell.run("verify", "loose")
    assert spoilt.returncode == 1
    assert "the one that was here first" in spoilt.stdout.replace("\n", " ")
    assert shell.run("verify", "--trust").returncode == 2
    assert shell.run("verify", "zero-dce", "--trust").returncode == 2
    assert shell.run("verify", "loose", "--trust").returncode == 0
    assert shell.run("verify").returncode == 0


# -- import ------------------------------------------------------------------------------------------------------------


def compact(path: Path, *, channels: int = 3) -> Path:
    """A small network that spandrel knows."""
    torch.manual_seed(0)
    last = channels * 16
    state = {
        "body.0.weight": torch.randn(8, channels, 3, 3),
        "body.0.bias": torch.randn(8),
        "body.1.weight": torch.rand(8),
        "body.2.weight": torch.randn(last, 8, 3, 3),
        "body.2.bias": torch.randn(last),
    }
    torch.save({"params_ema": state}, path)
    return path


def test_import_says_what_it_is_and_how_to_use_it(shell: Shell) -> None:
    source = compact(shell.folder / "my model.pth")
    done = shell.run("import", source)
    assert done.returncode == 0, done.stderr
    path = shell.kept / "my model.safetensors"
    assert done.stdout.strip() == str(path)
    assert "Compact x4" in done.stderr
    assert "million parameters" in done.stderr
    assert "Use it with the node Model File (Upscale), as my model.safetensors." in done.stderr
    assert "It is not found in" not in done.stderr
    with safetensors.safe_open(path, framework="pt") as stream:
        assert stream.metadata()["source"] == "my model.pth"
    taken = shell.run("import", source)
    assert taken.returncode == 2
    assert "--force" in taken.stderr
    assert shell.run("import", source, "--force").returncode == 0
    elsewhere = shell.run("import", source, "--name", "other", "--into", "here")
    assert elsewhere.returncode == 0
    assert "It is not found in here, though: `photokeep models path` shows" in elsewhere.stderr
    assert (shell.folder / "here" / "other.safetensors").is_file()
    assert "my model.safetensors" in shell.run("verify").stdout
    flip(path)
    spoilt = shell.run("verify")
    assert spoilt.returncode == 1
    assert "imported was" in spoilt.stdout.replace("\n", " ")


def test_an_imported_file_can_be_verified_by_name_and_trusted_anew(shell: Shell) -> None:
    assert shell.run("import", compact(shell.folder / "net.pth")).returncode == 0
    assert shell.run("import", compact(shell.folder / "other.pth")).returncode == 0
    path = shell.kept / "net.safetensors"
    alone = shell.run("verify", "net.safetensors")
    assert alone.returncode == 0, alone.stderr
    assert "other.safetensors" not in alone.stdout
    flip(path)
    spoilt = shell.run("verify", "net.safetensors", "zero-dce")
    assert spoilt.returncode == 1
    assert f"photokeep models verify {path} --trust" in spoilt.stdout
    assert "zero-dce" in spoilt.stdout
    assert shell.run("verify", path, "--trust").returncode == 0
    assert shell.run("verify").returncode == 0
    path.write_bytes(b"no weights")
    assert shell.run("verify", "net.safetensors", "--trust").returncode == 1
    assert shell.run("verify", "net.safetensors").returncode == 1, "it was not trusted"
    assert "Did you mean net.safetensors?" in shell.run("verify", "net.safetensor").stderr
    assert shell.run("import", shell.folder / "net.pth", "--into", "here").returncode == 0
    twice = shell.run("verify", "net.safetensors")
    assert twice.returncode == 2
    assert str(shell.folder / "here" / "net.safetensors") in twice.stderr
    assert shell.run("verify", Path("here") / "net.safetensors").returncode == 0


def test_import_does_not_promise_too_much(shell: Shell) -> None:
    said = shell.run("import", compact(shell.folder / "four.pth", channels=4)).stderr
    assert "4 channels in and 4 out" in said
    assert "No Model File node takes it: four.safetensors is Compact, which makes 4 channels of 4" in said
    assert "Use it with" not in said


def facts(**changes: Any) -> _network.Facts:
    known = {"architecture": "Some", "purpose": "SR", "scale": 4, "input_channels": 3, "output_channels": 3}
    rest = {"minimum": 1, "multiple_of": 1, "tiling": "SUPPORTED", "half": True, "bfloat16": True}
    return _network.Facts(**(known | rest | {"shape": "0", "weight_bytes": 4} | changes))


@pytest.mark.parametrize(
    ("found", "said"),
    [
        (facts(purpose="FaceSR"), "No Model File node takes it: a.safetensors is Some, which restores single faces"),
        (facts(input_channels=1, output_channels=1), "Use it with the node Model File (Upscale), as a.safetensors."),
        (
            facts(purpose="Restoration", scale=1),
            "Model File node of what it was trained for: Denoise, Deblur, Remove JPEG Artifacts or Low Light.",
        ),
    ],
)
def test_the_nodes_that_import_names_are_those_that_take_it(found: _network.Facts, said: str) -> None:
    lines = imported_lines(Imported(Path("a.safetensors"), "a.safetensors", architecture="Some", facts=found))
    assert said in " ".join(lines)
    names = {node.DISPLAY_NAME for node in model_files.NODES}
    assert all(name in names for name in re.findall(r"Model File \(.*?\)", " ".join(lines)))


def test_a_published_file_is_put_where_it_is_looked_for(shell: Shell) -> None:
    shell.models = [entry("one", BODY, "https://example.org/one")]
    (shell.folder / "renamed.ckpt").write_bytes(BODY)
    done = shell.run("import", "renamed.ckpt")
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == str(shell.kept / "one.pth")
    assert "published file of One" in done.stderr
    assert "--name" not in done.stderr
    named = shell.run("import", "renamed.ckpt", "--name", "mine", "--into", "here")
    assert named.stdout.strip() == str(Path("here") / "one.pth")
    assert "--name mine does not count" in named.stderr
    assert "It is not found in here" in named.stderr
    assert shell.run("verify", "one").returncode == 0


@pytest.mark.parametrize("content", [b"", b"<html>", b"PK\x03\x04"])
def test_what_is_no_weight_file_is_refused(shell: Shell, content: bytes) -> None:
    (shell.folder / "a.pth").write_bytes(content)
    done = shell.run("import", "a.pth")
    assert done.returncode == 1
    assert "a.pth" in done.stderr
    assert shell.names() == []
    assert shell.run("import", "none.pth").returncode == 2


def upscaling_with(file: str, folder: Path) -> Path:
    """A workflow that upscales with a file of the user's own."""
    save = {"filename": "out", "format": "png", "bit_depth": "16", "quality": 95, "if_exists": "overwrite"}
    nodes = {
        "1": {"class_type": "PhotokeepLoadPhoto", "inputs": {"photo": "none.png", "on_damage": "refuse"}},
        "2": {"class_type": "PhotokeepModelFileUpscale", "inputs": {"file": file}},
        "3": {
            "class_type": "PhotokeepUpscale",
            "inputs": {"image": ["1", 0], "model": ["2", 0], "scale": 2.0, "tile": 0},
        },
        "4": {"class_type": "PhotokeepSavePhoto", "inputs": {"image": ["3", 0], "photo_info": ["1", 2], **save}},
    }
    path = folder / "own.json"
    path.write_text(json.dumps(nodes))
    return path


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_a_workflow_whose_own_file_is_missing_is_not_said_to_have_all(shell: Shell, more: list[str]) -> None:
    done = shell.run("get", "-w", upscaling_with("nope.pth", shell.folder), *more)
    assert done.returncode == 3
    assert "there is no model file 'nope.pth'" in done.stderr
    assert "Nothing is missing" not in done.stdout + done.stderr
    small_networks.save(small_networks.compact(2), shell.kept / "nope.pth")
    done = shell.run("get", "-w", upscaling_with("nope.pth", shell.folder), *more)
    assert done.returncode == 0
    assert "Nothing is missing" in done.stdout + done.stderr


def test_help_needs_no_folders_and_every_command_takes_v(shell: Shell) -> None:
    comfyui = shell.folder / "ComfyUI"
    comfyui.mkdir()
    (comfyui / "extra_model_paths.yaml").write_text("a: [")
    for command in ("list", "get", "verify", "import", "licenses", "path"):
        done = shell.run(command, "--help", COMFYUI_PATH=str(comfyui))
        assert done.returncode == 0
        assert "--verbose" in done.stdout
    assert shell.run("list", "-v").returncode == 0


def test_an_import_that_cannot_be_written_names_where_to(shell: Shell) -> None:
    path = small_networks.save(small_networks.compact(2), shell.folder / "mine.pth")
    (shell.folder / "file").write_bytes(b"")
    done = shell.run("import", path.name, "--into", "file")
    assert done.returncode != 0
    assert f"mine.pth could not be imported to {Path('file') / 'mine.safetensors'}" in done.stderr.replace("\n", " ")
    assert "--into" in done.stderr


def test_an_interrupted_import_says_that_nothing_was_written(shell: Shell, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupt(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    path = small_networks.save(small_networks.compact(2), shell.folder / "mine.pth")
    monkeypatch.setattr(importing, "import_file", interrupt)
    done = shell.run("import", path.name)
    assert done.returncode == 130
    assert "Nothing was written" in done.stderr
