"""The model nodes and the catalogue they are made from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from photokeep_nodes import NODE_CLASS_MAPPINGS, models
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import Download, ModelHandle, ModelSpec, socket_type
from photokeep_nodes.nodes.models import NODES, describe

ROOT = Path(__file__).resolve().parents[2]
SPECS = list(models.catalogue().values())


def run_python(code: str, path: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        cwd=path,
        env={**os.environ, "PYTHONPATH": str(path)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A copy of the pack to drop files into."""
    ignore = shutil.ignore_patterns("__pycache__", "*.safetensors")
    shutil.copytree(ROOT / "photokeep_nodes", tmp_path / "photokeep_nodes", ignore=ignore)
    return tmp_path


def test_every_model_has_a_node_that_hands_out_its_name() -> None:
    assert len(NODES) == len(SPECS) >= 7
    for spec in SPECS:
        node = NODE_CLASS_MAPPINGS[f"PhotokeepModel{spec.node_name}"]
        assert node.INPUT_TYPES() == {"required": {}}
        (output,) = node.RETURN_TYPES
        assert output == socket_type(spec.role)
        (handle,) = node().run()
        assert handle == ModelHandle(spec.id)
        assert models.get(handle) is spec


def test_the_tooltip_says_what_the_user_should_know() -> None:
    for spec in SPECS:
        text = describe(spec)
        assert spec.description in text
        assert spec.weights[0].licence.id in text
        assert re.search(r"File: [\d.]+ MB", text)
        assert re.search(r"About \d+ MB of memory", text)
        commercial = spec.weights[0].licence.commercial
        assert ("NON-COMMERCIAL" in text) != commercial


@pytest.mark.parametrize("spec", SPECS, ids=lambda spec: spec.id)
def test_every_entry_of_the_catalogue_is_complete(spec: ModelSpec) -> None:
    assert re.fullmatch(r"[a-z0-9.]+(-[a-z0-9.]+)*", spec.id)
    assert re.fullmatch(r"[A-Za-z0-9]+", spec.node_name)
    assert spec.description.endswith(".")
    assert spec.source
    assert spec.weight_bytes > 0
    assert spec.bytes_per_pixel > 0
    assert spec.minimum % spec.multiple_of == 0
    assert spec.dtypes[-1] == "float32", "the retry after an overflow needs it"
    for file in spec.weights:
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256)
        assert file.size_bytes > 0
        assert file.licence.url.startswith("https://")
        assert "/" not in file.filename
        if isinstance(file.origin, Download):
            assert file.origin.url.startswith("https://")
            assert file.origin.url.endswith(file.filename)
    assert models.module_of(spec.id).startswith("photokeep_nodes.models.")


@pytest.mark.parametrize("handle", [None, "ffdnet-color", 3, ("ffdnet-color",)])
def test_what_is_no_handle_is_refused(handle: object) -> None:
    with pytest.raises(NodeInputError, match=f"not {type(handle).__name__}"):
        models.get(handle)  # type: ignore[arg-type]


def test_a_model_of_another_version_is_refused() -> None:
    with pytest.raises(NodeInputError, match="no model 'future-9'") as caught:
        models.get(ModelHandle("future-9"))
    assert "models list" in caught.value.hint


LIST = """
import json, sys
import photokeep_nodes as p
from photokeep_nodes import models
print(json.dumps([list(models.catalogue()), sorted(p.NODE_CLASS_MAPPINGS), "torch" in sys.modules]))
"""


def test_a_dropped_in_model_gets_its_node_without_torch(clone: Path) -> None:
    folder = clone / "photokeep_nodes" / "models"
    text = (folder / "zero_dce.py").read_text().replace('"zero-dce"', '"mine"').replace('"ZeroDCE"', '"Mine"')
    (folder / "zz_mine.py").write_text(text)
    (folder / "_helper.py").write_text("VALUE = 1\n")
    done = run_python(LIST, clone)
    assert done.returncode == 0, done.stderr
    ids, nodes, torch_loaded = json.loads(done.stdout)
    assert ids == [*models.catalogue(), "mine"]
    assert "PhotokeepModelMine" in nodes
    assert not torch_loaded


def test_two_models_of_one_id_are_an_error(clone: Path) -> None:
    folder = clone / "photokeep_nodes" / "models"
    shutil.copy(folder / "zero_dce.py", folder / "zz_twin.py")
    done = run_python(LIST, clone)
    assert done.returncode != 0
    assert "two modules in photokeep_nodes.models claim the model id 'zero-dce'" in done.stderr
