"""Node packs of others: real ones, written to disk, imported only where the user says so."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
from command_shell import Shell, save_photo

from headless.job import node_schemas
from headless.packs import HOST_MODULES, load_packs
from headless.plan import make_plan
from headless.workflow import parse_workflow
from photokeep_nodes.errors import NodePackError

INVERT = """
class Invert:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "invert"
    CATEGORY = "image"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "amount": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 1.0})}}

    def invert(self, image, amount):
        return (image + (white() - 2.0 * image) * amount,)
"""
HELPER = "def white():\n    return 1.0\n"
INIT = """
from .nodes import Invert

NODE_CLASS_MAPPINGS = {"TestInvert": Invert}
NODE_DISPLAY_NAME_MAPPINGS = {"TestInvert": "Turn Around"}
"""
SCHEMAS = node_schemas()


def write_pack(folder: Path, init: str = INIT, **files: str) -> Path:
    folder.mkdir(parents=True)
    (folder / "__init__.py").write_text(init)
    parts = {"nodes": "from .inner.helper import white\n" + INVERT, "inner/helper": HELPER, "inner/__init__": ""}
    for name, text in (parts | files).items():
        (folder / f"{name}.py").parent.mkdir(exist_ok=True)
        (folder / f"{name}.py").write_text(text)
    return folder


def node_class(outputs: str = '("IMAGE",)', body: str = "return (image,)", extra: str = "") -> str:
    return f"""
class Node:
    RETURN_TYPES = {outputs}
    FUNCTION = "work"
    {extra}

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{"image": ("IMAGE",)}}}}

    def work(self, image):
        {body}


NODE_CLASS_MAPPINGS = {{"TestNode": Node}}
"""


def defaults(class_type: str, **inputs: object) -> dict[str, object]:
    widgets = {each.name: each.widget_default for each in SCHEMAS[class_type].widgets}
    return {"class_type": class_type, "inputs": widgets | inputs}


def nodes(class_type: str = "TestInvert", **widgets: object) -> dict[str, dict[str, object]]:
    return {
        "1": defaults("PhotokeepLoadPhoto", photo="photo.png"),
        "2": {"class_type": class_type, "inputs": {"image": ["1", 0], **widgets}, "_meta": {"title": "Theirs"}},
        "3": defaults("PhotokeepSavePhoto", image=["2", 0]),
    }


def flow(class_type: str = "TestInvert", **widgets: object) -> str:
    return json.dumps(nodes(class_type, **widgets))


@pytest.fixture
def shell(tmp_path):
    shell = Shell(tmp_path)
    save_photo(tmp_path / "photo.png")
    return shell


def load(*paths: Path, reserved=()):
    return load_packs(paths, reserved=reserved)


# -- importing


def test_a_folder_is_imported_with_its_relative_imports(tmp_path):
    (pack,) = load(write_pack(tmp_path / "my-pack.v2"))
    assert (pack.name, list(pack.schemas)) == ("my-pack.v2", ["TestInvert"])
    schema = pack.schemas["TestInvert"]
    assert (schema.display_name, schema.node_class().invert(0.25, 1.0)) == ("Turn Around", (0.75,))
    assert pack.left_out == ()


def test_a_single_file_is_a_pack(tmp_path):
    (tmp_path / "one.py").write_text(node_class())
    (pack,) = load(tmp_path / "one.py")
    assert (pack.name, list(pack.schemas)) == ("one", ["TestNode"])


def test_two_packs_of_one_name_do_not_meet(tmp_path):
    first = write_pack(tmp_path / "a" / "pack")
    second = write_pack(
        tmp_path / "b" / "pack",
        INIT.replace("TestInvert", "TestOther"),
        **{"inner/helper": "def white():\n    return 3.0\n"},
    )
    packs = load(first, second)
    results = [next(iter(pack.schemas.values())).node_class().invert(0.0, 1.0) for pack in packs]
    assert results == [(1.0,), (3.0,)]


def test_a_pack_named_twice_is_imported_once(tmp_path):
    folder = write_pack(
        tmp_path / "pack", INIT + "\nimport builtins\nbuiltins.counted = getattr(builtins, 'counted', 0) + 1\n"
    )
    (tmp_path / "link").symlink_to(folder)
    (tmp_path / "x").mkdir()
    import builtins

    try:
        assert len(load(folder, tmp_path / "link", tmp_path / "x" / ".." / "pack")) == 1
        load(folder)
        assert builtins.counted == 1
    finally:
        del builtins.counted


def test_a_home_folder_is_found(tmp_path, monkeypatch):
    write_pack(tmp_path / "pack")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load(Path("~/pack"))[0].path == tmp_path / "pack"


def test_it_leaves_no_module_behind_that_failed(tmp_path):
    folder = write_pack(tmp_path / "pack", "from .nodes import Invert\nraise ValueError('no')\n")
    before = set(sys.modules)
    with pytest.raises(NodePackError):
        load(folder)
    assert not [name for name in sys.modules.keys() - before if name.startswith("photokeep_pack_")]


@pytest.mark.parametrize(
    ("init", "texts"),
    [
        ("import folder_paths", ["needs ComfyUI", "folder_paths"]),
        ("import comfy.utils", ["needs ComfyUI", "comfy"]),
        ("from .nowhere import x", ["is not complete", "nowhere"]),
        ("import no_such_library_at_all.part", ["no_such_library_at_all", "not installed"]),
        ("from os import no_such_name", ["ImportError", "no_such_name"]),
        ("raise SystemExit(0)", ["SystemExit"]),
        ("raise ValueError('bad\x1b[31m luck')", ["ValueError: bad?[31m luck"]),
        ("class Odd(BaseException): pass\nraise Odd", ["Odd"]),
        ("def (:", ["invalid syntax", "line 1"]),
        ("x = 1", ["no NODE_CLASS_MAPPINGS"]),
        ("NODE_CLASS_MAPPINGS = {}", ["no NODE_CLASS_MAPPINGS"]),
        ("NODE_CLASS_MAPPINGS = [1]", ["no NODE_CLASS_MAPPINGS"]),
        ("async def comfy_entrypoint(): pass", ["V3", "comfy_entrypoint"]),
        ("NODE_CLASS_MAPPINGS = {'A': 1, 2: int}", ["no node that can be used", "names to classes"]),
    ],
)
def test_what_cannot_be_used_says_why(tmp_path, init, texts):
    with pytest.raises(NodePackError) as caught:
        load(write_pack(tmp_path / "pack", init))
    for text in ["pack", *texts]:
        assert text in str(caught.value)
    assert caught.value.exit_code == 2


def test_a_missing_module_names_the_requirements_of_the_pack(tmp_path):
    folder = write_pack(tmp_path / "pack", "import no_such_library_at_all")
    (folder / "requirements.txt").write_text("no-such-library-at-all")
    with pytest.raises(NodePackError, match=r"pip install -r .*requirements\.txt"):
        load(folder)


def test_an_interruption_is_not_swallowed(tmp_path):
    with pytest.raises(KeyboardInterrupt):
        load(write_pack(tmp_path / "pack", "raise KeyboardInterrupt"))


@pytest.mark.parametrize("name", ["nowhere", "folder", "text.txt", "x" * 300, "broken_link", "loop"])
def test_what_is_no_pack(tmp_path, name):
    (tmp_path / "folder" / "inside").mkdir(parents=True)
    (tmp_path / "folder" / "inside" / "__init__.py").write_text("raise SystemExit")
    (tmp_path / "text.txt").write_text("")
    (tmp_path / "broken_link").symlink_to(tmp_path / "gone")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(NodePackError) as caught:
        load(tmp_path / name)
    if name == "folder":
        assert f"Name one pack in it, such as {tmp_path / 'folder' / 'inside'}" in str(caught.value)


def test_one_bad_class_leaves_the_rest_usable(tmp_path):
    more = """
class NoInputs:
    FUNCTION = "run"

class NoFunction:
    FUNCTION = "nope"
    INPUT_TYPES = classmethod(lambda cls: {})

class Explodes:
    FUNCTION = "run"
    @classmethod
    def INPUT_TYPES(cls):
        import folder_paths

class Quits:
    @classmethod
    def INPUT_TYPES(cls):
        raise SystemExit(3)

NODE_CLASS_MAPPINGS |= {"A": NoInputs, "B": NoFunction, "C": Explodes, "D": Quits}
"""
    (pack,) = load(write_pack(tmp_path / "pack", INIT + more))
    assert list(pack.schemas) == ["TestInvert"]
    text = "\n".join(pack.left_out)
    for part in (
        "A of the node pack pack is left out: A has no INPUT_TYPES",
        "'nope'",
        "folder_paths",
        "SystemExit: 3",
    ):
        assert part in text


def test_ours_and_comfyuis_own_nodes_win(tmp_path):
    init = INIT + 'NODE_CLASS_MAPPINGS |= {"PhotokeepUpscale": Invert, "KSampler": Invert}\n'
    (pack,) = load(write_pack(tmp_path / "pack", init), reserved={"PhotokeepUpscale"})
    assert list(pack.schemas) == ["TestInvert"]
    assert ["PhotokeepUpscale of" in line or "KSampler of" in line for line in pack.left_out] == [True, True]


def test_two_packs_with_one_node_are_refused_by_name(tmp_path):
    with pytest.raises(NodePackError) as caught:
        load(write_pack(tmp_path / "a"), write_pack(tmp_path / "b"))
    for text in (str(tmp_path / "a"), str(tmp_path / "b"), "TestInvert"):
        assert text in str(caught.value)


def test_the_hosts_modules_are_not_ours():
    assert not HOST_MODULES & {"headless", "photokeep_nodes", *sys.stdlib_module_names}


def test_a_method_called_handle_makes_no_model(tmp_path):
    (tmp_path / "one.py").write_text(node_class().replace('"work"', '"handle"').replace("def work", "def handle"))
    from headless.foresight import is_model_stage

    (pack,) = load(tmp_path / "one.py")
    assert not is_model_stage(pack.schemas["TestNode"])


# -- what the results depend on


@pytest.mark.parametrize("name", ["__init__.py", "nodes.py", "inner/helper.py", "loaded_by_name.py"])
def test_editing_any_of_its_files_changes_the_key(tmp_path, name):
    folder = write_pack(tmp_path / "pack", loaded_by_name="x = 1")
    (before,) = load(folder)
    (folder / name).write_text((folder / name).read_text() + "\n# changed\n")
    (behind,) = load(folder)
    assert before.code != behind.code


def test_where_it_lies_and_what_is_no_code_change_nothing(tmp_path):
    (before,) = load(write_pack(tmp_path / "pack"))
    other = write_pack(tmp_path / "elsewhere" / "pack")
    (other / "README.md").write_text("read me")
    (other / ".git").mkdir()
    (other / ".git" / "hook.py").write_text("x")
    (behind,) = load(other)
    assert before.code == behind.code


def test_an_edited_pack_is_imported_anew(tmp_path):
    folder = write_pack(tmp_path / "pack")
    load(folder)
    (folder / "inner" / "helper.py").write_text("def white():\n    return 5.0  # changed\n")
    shutil.rmtree(folder / "inner" / "__pycache__", ignore_errors=True)
    (pack,) = load(folder)
    assert pack.schemas["TestInvert"].node_class().invert(0.0, 1.0) == (5.0,)


def test_the_libraries_it_uses_count(tmp_path):
    (tmp_path / "one.py").write_text("import os, torch, numpy.linalg\n" + node_class())
    (pack,) = load(tmp_path / "one.py")
    assert [name for name, _ in pack.requires] == ["numpy", "torch"]


# -- never unless the user says so


def test_nothing_imports_a_pack_unasked(shell):
    touched = shell.folder / "imported"
    pack = write_pack(shell.folder / "pack", INIT + f"open({str(touched)!r}, 'w')\n")
    shutil.copytree(pack, shell.folder / "custom_nodes" / "pack")
    asking = nodes(amount=1.0)
    asking["2"]["_meta"] = {"allow_pack": str(pack)}
    (shell.folder / "w.json").write_text(json.dumps(asking))
    environment = {"PHOTOKEEP_ALLOW_PACK": str(pack), "PHOTOKEEP_RUN_ALLOW_PACK": str(pack)}
    for done in (
        shell.run("w.json", **environment),
        shell.run("w.json", "--plan", **environment),
        shell.photokeep("plan", "w.json"),
        shell.photokeep("models", "get", "-w", "w.json", "--dry-run"),
    ):
        assert done.returncode == 2, done.stderr
        assert "--allow-pack PATH" in done.stderr
    assert shell.run("w.json", "--allow-pack", pack / "not_there").returncode == 2
    assert shell.run("not_there.json", "--allow-pack", pack).returncode == 2
    assert not touched.exists()
    done = shell.photokeep("plan", "w.json", "--allow-pack", "pack")
    assert done.returncode == 0, done.stderr
    assert touched.exists()


def test_one_that_is_not_there_keeps_the_others_from_being_imported(tmp_path):
    touched = tmp_path / "imported"
    folder = write_pack(tmp_path / "pack", INIT + f"open({str(touched)!r}, 'w').close()\n")
    with pytest.raises(NodePackError):
        load(folder, tmp_path / "gone")
    assert not touched.exists()
    load(folder)
    assert touched.exists()


# -- running


@pytest.mark.slow
def test_its_nodes_run_are_cached_and_are_shown_as_untrusted(shell):
    write_pack(shell.folder / "pack")
    (shell.folder / "w.json").write_text(flow(amount=1.0))
    first = shell.run("w.json", "--allow-pack", "pack", "--json", "-")
    assert first.returncode == 0, first.stderr
    assert first.stderr.count("untrusted node pack pack") == 1
    assert "runs with all your rights" in first.stderr
    found = json.loads(first.stdout)
    assert found["packs"] == [{"name": "pack", "path": str(shell.folder / "pack"), "nodes": 1, "trusted": False}]
    (run,) = found["runs"]
    assert [(stage["pack"], stage["trusted"]) for stage in run["stages"]] == [
        (None, True),
        ("pack", False),
        (None, True),
    ]

    def statuses():
        done = shell.run("w.json", "--allow-pack", "pack", "--json", "-")
        return [stage["status"] for stage in json.loads(done.stdout)["runs"][0]["stages"]]

    assert statuses() == ["cached", "cached", "cached"]
    helper = shell.folder / "pack" / "inner" / "helper.py"
    helper.write_text("def white():\n    return 0.5  # another\n")
    assert statuses() == ["cached", "ran", "ran"]
    assert len(shell.output()) == 2


@pytest.mark.parametrize(
    ("source", "texts"),
    [
        (node_class(body="raise RuntimeError('no luck')"), ["RuntimeError: no luck"]),
        (node_class(body="raise SystemExit(0)"), ["SystemExit"]),
        (node_class(body="return (image, image)"), ["returned 2 outputs where 1 are declared"]),
        (node_class(body="return image"), ["returned Tensor where a tuple"]),
        (node_class(body="return {'result': (image,), 'expand': {}}"), ["expand", "only ComfyUI"]),
        (node_class(extra="OUTPUT_IS_LIST = (True,)"), ["not a list, as declared"]),
        (node_class(body="import comfy.utils"), ["comfy"]),
        (node_class(body="return None"), ["returned 0 outputs where 1 are declared"]),
    ],
)
def test_a_node_that_fails_fails_its_stage(shell, source, texts):
    (shell.folder / "one.py").write_text(source)
    (shell.folder / "w.json").write_text(flow("TestNode"))
    done = shell.run("w.json", "--allow-pack", "one.py")
    assert done.returncode == 1, done.stderr
    for text in ["Theirs: ", *texts]:
        assert text in done.stderr
    assert "Traceback" not in done.stderr
    assert shell.output() == []


def test_what_it_prints_does_not_spoil_the_json(shell):
    write_pack(shell.folder / "pack", INIT + "print('hello from the pack')\n")
    (shell.folder / "w.json").write_text(flow(amount=1.0))
    done = shell.run("w.json", "--allow-pack", "pack", "--json", "-")
    assert json.loads(done.stdout)["status"] == "done"
    assert "hello from the pack" in done.stderr
    done = shell.photokeep("plan", "w.json", "--allow-pack", "pack", "--format", "json")
    assert json.loads(done.stdout)["runs"][0]["stages"][1]["pack"] == "pack"


def test_an_output_node_of_theirs_runs_each_time_and_names_only_files_that_are_there(shell):
    body = """import json, pathlib
        pathlib.Path("output").mkdir(exist_ok=True)
        pathlib.Path("output/mine.txt").write_text("mine")
        names = ["mine.txt", "../photo.png", "missing.png", 7]
        return {"ui": {"images": [{"filename": n, "subfolder": "", "type": "output"} for n in names] + ["odd"]}}"""
    (shell.folder / "one.py").write_text(node_class("()", body, "OUTPUT_NODE = True"))
    without_ours = nodes("TestNode")
    del without_ours["3"]
    (shell.folder / "w.json").write_text(json.dumps(without_ours))
    for _ in range(2):
        done = shell.run("w.json", "--allow-pack", "one.py", "--json", "-")
        assert done.returncode == 0, done.stderr
        stage = json.loads(done.stdout)["runs"][0]["stages"][1]
        assert (stage["status"], [Path(path).name for path in stage["files"]]) == ("ran", ["mine.txt"])


@pytest.mark.slow
def test_is_changed_is_asked_as_in_the_host(shell):
    extra = "IS_CHANGED = classmethod(lambda cls, image, **others: open('state').read() + str(image))"
    (shell.folder / "one.py").write_text(node_class(extra=extra))
    (shell.folder / "w.json").write_text(flow("TestNode"))

    def status(content):
        if content is not None:
            (shell.folder / "state").write_text(content)
        done = shell.run("w.json", "--allow-pack", "one.py", "--json", "-")
        return json.loads(done.stdout)["runs"][0]["stages"][1]["status"]

    assert [status("a"), status("a"), status("b")] == ["ran", "cached", "ran"]
    (shell.folder / "state").unlink()
    assert [status(None), status(None)] == ["ran", "ran"]  # it raises, so nobody knows


@pytest.mark.slow
def test_values_that_cannot_be_stored_are_not_cached(shell):
    source = """
class Make:
    RETURN_TYPES = ("THING",)
    FUNCTION = "work"
    INPUT_TYPES = classmethod(lambda cls: {"required": {"image": ("IMAGE",)}})

    def work(self, image):
        return ({1: image},)

class Use(Make):
    RETURN_TYPES = ("IMAGE",)
    INPUT_TYPES = classmethod(lambda cls: {"required": {"thing": ("THING",)}})

    def work(self, thing):
        return (thing[1],)

NODE_CLASS_MAPPINGS = {"TestMake": Make, "TestNode": Use}
"""
    (shell.folder / "one.py").write_text(source)
    chain = nodes("TestNode")
    chain["9"] = {"class_type": "TestMake", "inputs": {"image": ["1", 0]}}
    chain["2"]["inputs"] = {"thing": ["9", 0]}
    (shell.folder / "w.json").write_text(json.dumps(chain))
    for expected in (["ran"] * 4, ["cached", "ran", "ran", "cached"]):
        done = shell.run("w.json", "--allow-pack", "one.py", "--json", "-")
        assert done.returncode == 0, done.stderr
        assert [stage["status"] for stage in json.loads(done.stdout)["runs"][0]["stages"]] == expected


def test_missing_weights_name_the_pack_in_their_command(shell):
    write_pack(shell.folder / "pack")
    wanting = nodes(amount=1.0)
    wanting["4"] = defaults("PhotokeepModelSCUNetPSNR")
    wanting["5"] = defaults("PhotokeepDenoise", image=["2", 0], model=["4", 0])
    wanting["3"]["inputs"]["image"] = ["5", 0]
    (shell.folder / "w.json").write_text(json.dumps(wanting))
    done = shell.run("w.json", "--allow-pack", "pack")
    assert done.returncode == 3, done.stderr
    assert f"photokeep models get -w w.json --allow-pack {shell.folder / 'pack'}" in done.stderr
    done = shell.photokeep("models", "get", "-w", "w.json", "--allow-pack", "pack", "--dry-run")
    assert done.returncode == 0, done.stderr
    assert "scunet-psnr" in done.stdout


def test_a_plan_of_theirs_needs_their_classes(tmp_path):
    from photokeep_nodes.errors import WorkflowInvalidError

    with pytest.raises(WorkflowInvalidError, match="--allow-pack PATH"):
        make_plan(parse_workflow(json.loads(flow(amount=1.0)), {}), {})
