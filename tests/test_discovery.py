"""The pack as a host sees it: what importing it loads, and which nodes it finds."""

from __future__ import annotations

import inspect
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import photokeep_nodes

ROOT = Path(__file__).resolve().parents[1]

NODE_FILE = """
from __future__ import annotations

from ..errors import PhotokeepError


class {cls}:
    NODE_ID = {node_id!r}
    DISPLAY_NAME = "A dropped-in node"
    CATEGORY = "PhotoKeep/Test"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls):
        return {{"required": {{}}}}


class NoId({cls}):
    pass
"""

LIST = "import json, photokeep_nodes as p; print(json.dumps(p.NODE_DISPLAY_NAME_MAPPINGS))"


def run_python(code: str, path: Path, **env: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path), **env},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A folder with a copy of the door and the pack, to drop files into."""
    root = tmp_path / "custom.nodes" / "photo keep"  # a dot and a blank, as paths of real people have
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "photokeep_nodes", root / "photokeep_nodes", ignore=ignore)
    shutil.copy(ROOT / "__init__.py", root)
    return root


def test_importing_the_pack_loads_neither_torch_nor_a_host() -> None:
    heavy = (
        "torch",
        "torchvision",
        "spandrel",
        "comfy",
        "folder_paths",
        "server",
        "click",
        "networkx",
        "rich",
        "headless",
    )
    done = run_python(
        "import sys, json, photokeep_nodes as p; n = len(p.NODE_CLASS_MAPPINGS)\n"
        f"print(json.dumps([n, [m for m in {heavy!r} if m in sys.modules]]))",
        ROOT,
    )
    assert done.returncode == 0, done.stderr
    count, loaded = json.loads(done.stdout)
    assert count == len(photokeep_nodes.NODE_CLASS_MAPPINGS) > 0
    assert loaded == []


def test_importing_the_errors_does_not_import_the_nodes() -> None:
    done = run_python(
        "import sys, photokeep_nodes.errors\nprint([m for m in sys.modules if m.startswith('photokeep_nodes.nodes')])",
        ROOT,
    )
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_the_mappings_agree() -> None:
    classes = photokeep_nodes.NODE_CLASS_MAPPINGS
    assert set(photokeep_nodes.NODE_DISPLAY_NAME_MAPPINGS) == set(classes)
    assert all(node_id == cls.NODE_ID for node_id, cls in classes.items())
    assert len(set(photokeep_nodes.NODE_DISPLAY_NAME_MAPPINGS.values())) == len(classes), (
        "two nodes look the same in the menu"
    )


@pytest.mark.parametrize("node_id", sorted(photokeep_nodes.NODE_CLASS_MAPPINGS))
def test_every_node_keeps_the_contract(node_id: str) -> None:
    cls = photokeep_nodes.NODE_CLASS_MAPPINGS[node_id]
    assert node_id.startswith("Photokeep")
    assert cls.CATEGORY.startswith("PhotoKeep/")
    assert cls.DESCRIPTION
    assert callable(getattr(cls, cls.FUNCTION))
    outputs = cls.RETURN_TYPES
    assert len(getattr(cls, "RETURN_NAMES", outputs)) == len(outputs)
    assert len(cls.OUTPUT_TOOLTIPS) == len(outputs)
    assert outputs or cls.OUTPUT_NODE
    inputs = cls.INPUT_TYPES()
    assert set(inputs) <= {"required", "optional", "hidden"}
    for group in ("required", "optional"):
        for name, declared in inputs.get(group, {}).items():
            kind, options = declared
            assert options.get("tooltip"), f"{name} has no tooltip"
            if isinstance(kind, str) and kind in ("INT", "FLOAT"):
                assert options["min"] <= options["default"] <= options["max"], name
            if not isinstance(kind, str) and "default" in options:
                assert options["default"] in kind, name
    accepted = {name for group in inputs.values() for name in group}
    parameters = inspect.signature(getattr(cls(), cls.FUNCTION)).parameters
    if not any(parameter.kind is inspect.Parameter.VAR_KEYWORD for parameter in parameters.values()):
        assert set(parameters) == accepted
    # The host leaves an unconnected optional input out of the call.
    for name in inputs.get("optional", {}):
        assert name not in parameters or parameters[name].default is not inspect.Parameter.empty, name
    assert set(getattr(cls, "FILE_INPUTS", ())) <= accepted


def test_an_unknown_attribute_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="NODE_CLASS_MAPPING'"):
        _ = photokeep_nodes.NODE_CLASS_MAPPING


def test_a_dropped_in_file_is_found(clone: Path) -> None:
    nodes = clone / "photokeep_nodes" / "nodes"
    (nodes / "zz_mine.py").write_text(NODE_FILE.format(cls="Mine", node_id="PhotokeepMine"))
    (nodes / "_helper.py").write_text(NODE_FILE.format(cls="Helper", node_id="PhotokeepHelper"))
    (nodes / "zz_borrow.py").write_text("from .zz_mine import Mine\n")
    done = run_python(LIST, clone)
    assert done.returncode == 0, done.stderr
    expected = {**photokeep_nodes.NODE_DISPLAY_NAME_MAPPINGS, "PhotokeepMine": "A dropped-in node"}
    assert json.loads(done.stdout) == expected


def test_duplicate_ids_are_an_error_that_names_both(clone: Path) -> None:
    nodes = clone / "photokeep_nodes" / "nodes"
    (nodes / "zz_one.py").write_text(NODE_FILE.format(cls="One", node_id="PhotokeepTwice"))
    (nodes / "zz_two.py").write_text(NODE_FILE.format(cls="Two", node_id="PhotokeepTwice"))
    done = run_python(LIST, clone)
    assert done.returncode != 0
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("RuntimeError")
    for part in ("'PhotokeepTwice'", "nodes.zz_one.One", "nodes.zz_two.Two"):
        assert part in last


def test_a_host_loads_the_door_by_path(clone: Path) -> None:
    """As ComfyUI does: under a module name made of the path, with the pack not importable by its own name."""
    done = run_python(
        "import importlib.util, json, sys\n"
        f"path = {str(clone)!r}\n"
        "name = path.replace('.', '_x_')\n"
        "spec = importlib.util.spec_from_file_location(name, path + '/__init__.py')\n"
        "module = importlib.util.module_from_spec(spec)\n"
        "sys.modules[name] = module\n"
        "spec.loader.exec_module(module)\n"
        "print(json.dumps(['photokeep_nodes' in sys.modules, sorted(module.NODE_CLASS_MAPPINGS)]))",
        clone.parent,
    )
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout) == [False, sorted(photokeep_nodes.NODE_CLASS_MAPPINGS)]


def test_one_copy_of_the_pool_under_test() -> None:
    """The root ``__init__.py`` must not make pytest import the tree a second time."""
    import photokeep_nodes.vram_manager as pool

    twins = {
        name
        for name, module in list(sys.modules.items())
        if getattr(module, "__file__", None) and Path(module.__file__).resolve() == Path(pool.__file__).resolve()
    }
    assert twins == {"photokeep_nodes.vram_manager"}
