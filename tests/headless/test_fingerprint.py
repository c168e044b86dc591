"""Stage keys: everything that can change the outputs, and nothing else."""

from __future__ import annotations

import importlib
import itertools
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless import fingerprint
from headless.fingerprint import canonical, code_digest, device_class, digest_of, explain, library_versions, stage_key
from photokeep_nodes import host
from photokeep_nodes.errors import NodeDefinitionError, NodeInputError
from photokeep_nodes.precision import cpu_multiplies_bfloat16

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]

scalars = (
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(max_size=4)
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=8,
)


def identity(value: Any) -> Any:
    """What a value is, types and signs included, written another way than ``canonical`` does."""
    if isinstance(value, list):
        return ("list", tuple(identity(item) for item in value))
    if isinstance(value, dict):
        return ("dict", frozenset((key, identity(item)) for key, item in value.items()))
    return (type(value).__name__, repr(value))


# -- values ------------------------------------------------------------------------------------------------------------


@given(values, values)
def test_two_values_have_one_digest_only_if_they_are_the_same(one: Any, other: Any) -> None:
    assert (digest_of(one) == digest_of(other)) == (identity(one) == identity(other))


def test_types_are_told_apart() -> None:
    alike = [1, 1.0, "1", True, None, 0, 0.0, -0.0, "", False, "None", [], {}, [1], ["1"], [[1]], {"1": 1}, "0x1.0p+0"]
    assert len({digest_of(value) for value in alike}) == len(alike)
    assert digest_of([1, 2]) != digest_of([2, 1])
    assert digest_of({"int": "1"}) != digest_of(1), "the tags themselves cannot be forged"
    assert digest_of({"a": {"int": "1"}}) != digest_of({"a": 1})


def test_the_order_of_names_does_not_matter() -> None:
    assert digest_of({"a": 1, "b": {"c": 2, "d": 3}}) == digest_of({"b": {"d": 3, "c": 2}, "a": 1})


def test_a_tuple_is_a_list() -> None:
    """JSON knows only the one, and a value read back must have its old key."""
    assert digest_of((1, "a")) == digest_of([1, "a"])


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), [1, [float("nan")]], {"a": float("inf")}])
def test_what_is_no_number_is_refused(bad: Any) -> None:
    with pytest.raises(NodeInputError, match="cannot be an input"):
        digest_of(bad)


@pytest.mark.parametrize("bad", [b"x", {1, 2}, object(), {1: "a"}, {("a",): 1}, {None: 1}, 1j])
def test_what_is_no_json_is_refused(bad: Any) -> None:
    with pytest.raises(NodeInputError, match="cannot be part of a key"):
        canonical(bad)


def test_extreme_values_have_digests() -> None:
    extremes = [10**6000, 5e-324, 1.7976931348623157e308, "\ud800", "\x00", "ä" * 10_000, [[]] * 1000]
    assert len({digest_of(value) for value in extremes}) == len(extremes)


def test_digests_are_the_same_in_another_process() -> None:
    value = {"b": [1, 2.5, True, None, "ü"], "a": {}}
    code = f"from headless.fingerprint import digest_of; print(digest_of({value!r}))"
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == digest_of(value)


# -- keys and reasons --------------------------------------------------------------------------------------------------

PARTS = {"node": "PhotokeepUpscale", "code": "c0", "input": {"scale": "s0", "image": "i0"}, "device": "cpu"}


def test_every_part_counts_and_so_does_the_version(monkeypatch: pytest.MonkeyPatch) -> None:
    keys = [
        stage_key(PARTS),
        stage_key({**PARTS, "node": "PhotokeepDenoise"}),
        stage_key({**PARTS, "code": "c1"}),
        stage_key({**PARTS, "input": {"scale": "s1", "image": "i0"}}),
        stage_key({**PARTS, "device": "cuda"}),
        stage_key({**PARTS, "more": 1}),
    ]
    monkeypatch.setattr(fingerprint, "KEY_VERSION", fingerprint.KEY_VERSION + 1)
    keys.append(stage_key(PARTS))
    assert len(set(keys)) == len(keys)


@pytest.mark.parametrize(
    ("before", "now", "reason"),
    [
        (None, PARTS, "not run before"),
        (PARTS, PARTS, "its stored outputs are gone"),
        (PARTS, {**PARTS, "code": "c1"}, "code changed"),
        (PARTS, {**PARTS, "input": {"scale": "s1", "image": "i0"}}, "input changed: scale"),
        (PARTS, {**PARTS, "input": {"scale": "s1", "image": "i1"}}, "input changed: image, scale"),
        (PARTS, {**PARTS, "input": {"image": "i0"}}, "input changed: scale"),
        (PARTS, {**PARTS, "input": {"scale": "s0", "image": "i0", "tile": "t0"}}, "input changed: tile"),
        (PARTS, {**PARTS, "device": "cuda", "code": "c1"}, "code changed; device changed"),
        (PARTS, {**PARTS, "new": "x"}, "new changed"),
        ({**PARTS, "input": "odd"}, PARTS, "input changed"),
        ({}, PARTS, "code changed; device changed; input changed; node changed"),
    ],
)
def test_the_reason_names_what_changed(before: Any, now: Any, reason: str) -> None:
    assert explain(before, now) == reason


# -- code --------------------------------------------------------------------------------------------------------------

FILES = {
    "__init__.py": "from .nodes import every\n",
    "errors.py": "class E(Exception): ...\n",
    "host.py": "def where(): ...\n",
    "vram_manager.py": "from ._vram import state\n",
    "_vram/__init__.py": "",
    "_vram/state.py": "STATE = 1\n",
    "images.py": "from .errors import E\nfrom . import host\n",
    "inference.py": "from . import vram_manager, weights\n",
    "weights.py": "def read():\n    from .formats.ncnn import parse\n    return parse\n",
    "formats/__init__.py": "FORMATS = 1\n",
    "formats/ncnn.py": "from .deep import depth\ndef parse(): ...\n",
    "formats/deep/__init__.py": "depth = 3\n",
    "formats/other.py": "UNUSED = 1\n",
    "nodes/__init__.py": "",
    "nodes/every.py": "from . import upscale, denoise\n",
    "nodes/upscale.py": (
        "class Upscale:\n"
        "    def run(self):\n"
        "        from .. import images, inference\n"
        "        from ..ops.tiling import run_tiled\n"
        "        return images, inference, run_tiled\n"
    ),
    "nodes/denoise.py": "import {package}.ops.noise\nimport json, os.path\n",
    "ops/__init__.py": "",
    "ops/tiling.py": "from . import maths as m\n",
    "ops/maths.py": "from .tiling import *\n",  # a circle
    "ops/noise.py": "from {package}.ops import levels\n",
    "ops/levels.py": "LEVELS = 1\n",
}
_numbers = itertools.count()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A small pack with the names that matter, imported under a name of its own."""
    name = f"pack{next(_numbers)}"
    root = tmp_path / name
    for path, text in FILES.items():
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_text(text.replace("{package}", name))
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(f"{name}.nodes.upscale")
    importlib.import_module(f"{name}.nodes.denoise")
    forget()
    yield root
    forget()
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]


def forget() -> None:
    """Digests are remembered for the life of a process, in which no code changes."""
    code_digest.cache_clear()
    fingerprint._imports.cache_clear()


def changes(package: Path, path: str, module: str) -> bool:
    """Whether another line in a file changes a module's digest."""
    forget()
    name = f"{package.name}.{module}"
    before = code_digest(name)
    file = package / path
    text = file.read_text()
    file.write_text(f"{text}# another line\n")
    forget()
    after = code_digest(name)
    file.write_text(text)
    forget()
    assert code_digest(name) == before
    return after != before


@pytest.mark.parametrize(
    "path",
    [
        "nodes/upscale.py",
        "images.py",
        "inference.py",
        "weights.py",
        "formats/__init__.py",
        "formats/ncnn.py",
        "formats/deep/__init__.py",
        "ops/tiling.py",
        "ops/maths.py",
        "ops/__init__.py",
        "nodes/__init__.py",
    ],
)
def test_what_a_node_imports_at_any_depth_is_part_of_it(package: Path, path: str) -> None:
    assert changes(package, path, "nodes.upscale")


@pytest.mark.parametrize(
    "path",
    [
        "__init__.py",
        "errors.py",
        "host.py",
        "vram_manager.py",
        "_vram/__init__.py",
        "_vram/state.py",
        "formats/other.py",
        "nodes/denoise.py",
        "nodes/every.py",
        "ops/noise.py",
    ],
)
def test_what_it_does_not_import_or_what_changes_no_pixel_is_not(package: Path, path: str) -> None:
    assert not changes(package, path, "nodes.upscale")


@pytest.mark.parametrize(("path", "part"), [("ops/noise.py", True), ("ops/levels.py", True), ("ops/tiling.py", False)])
def test_absolute_imports_of_the_package_count(package: Path, path: str, part: bool) -> None:
    assert changes(package, path, "nodes.denoise") == part


def test_imports_from_the_pack_count_for_nodes_of_another_package(
    package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As the runner's own nodes are, which build on the pack."""
    name = f"runner{next(_numbers)}"
    nodes = tmp_path / name / "nodes"
    nodes.mkdir(parents=True)
    (tmp_path / name / "__init__.py").write_text("")
    (nodes / "__init__.py").write_text("")
    (nodes / "_size.py").write_text("SIZE = 1\n")
    (nodes / "scale.py").write_text(f"from {package.name} import host, images\nfrom ._size import SIZE\n")
    (nodes / "blur.py").write_text(f"from {package.name}.ops import levels\n")
    monkeypatch.setattr(fingerprint, "photokeep_nodes", sys.modules[package.name])
    modules = [f"{name}.nodes.{each}" for each in ("scale", "blur")]
    for module in modules:
        importlib.import_module(module)

    def changed(file: Path) -> list[bool]:
        before = [code_digest(module) for module in modules]
        text = file.read_text()
        file.write_text(f"{text}# another line\n")
        forget()
        after = [code_digest(module) for module in modules]
        file.write_text(text)
        forget()
        return [old != new for old, new in zip(before, after, strict=True)]

    forget()
    try:
        assert changed(nodes / "scale.py") == [True, False]
        assert changed(nodes / "_size.py") == [True, False]
        assert changed(nodes / "__init__.py") == [True, True]
        assert changed(package / "images.py") == [True, False]
        assert changed(package / "ops" / "levels.py") == [False, True]
        assert changed(package / "ops" / "__init__.py") == [False, True]
        assert changed(package / "nodes" / "upscale.py") == [False, False]
        assert changed(package / "host.py") == [False, False], "it changes no pixel"
        assert changed(package / "__init__.py") == [False, False], "the door imports every node"
    finally:
        for module in [module for module in sys.modules if module.partition(".")[0] == name]:
            del sys.modules[module]


def test_only_the_packs_own_host_is_without_effect(package: Path) -> None:
    (package / "ops" / "host.py").write_text("PIXELS = 1\n")
    (package / "ops" / "tiling.py").write_text("from .host import PIXELS\n")
    assert changes(package, "ops/host.py", "nodes.upscale")


def test_a_moved_pack_has_the_same_digests(package: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = package.name
    before = code_digest(f"{name}.nodes.upscale")
    (tmp_path / "elsewhere").mkdir()
    moved = package.rename(tmp_path / "elsewhere" / name)
    for module in [module for module in sys.modules if module.partition(".")[0] == name]:
        del sys.modules[module]
    monkeypatch.syspath_prepend(str(tmp_path / "elsewhere"))
    importlib.invalidate_caches()
    importlib.import_module(f"{name}.nodes.upscale")
    forget()
    assert Path(sys.modules[name].__file__ or "").parent == moved
    assert code_digest(f"{name}.nodes.upscale") == before


def test_code_moved_from_one_file_to_the_next_is_another_code(package: Path) -> None:
    before = code_digest(f"{package.name}.nodes.upscale")
    maths, tiling = package / "ops" / "maths.py", package / "ops" / "tiling.py"
    joined = maths.read_text() + tiling.read_text()
    maths.write_text("")
    tiling.write_text(joined)
    forget()
    assert code_digest(f"{package.name}.nodes.upscale") != before


def test_a_module_of_its_own_is_its_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"single{next(_numbers)}"
    (tmp_path / f"{name}.py").write_text("A = 1\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    importlib.import_module(name)
    before = code_digest(name)
    (tmp_path / f"{name}.py").write_text("A = 2\n")
    forget()
    assert code_digest(name) != before
    del sys.modules[name]


def test_code_that_nobody_can_look_at_is_refused(package: Path) -> None:
    for name in ("no_such_module_anywhere", "sys"):
        with pytest.raises(NodeDefinitionError, match="in no file"):
            code_digest(name)


def test_the_real_nodes_know_their_own_code() -> None:
    import photokeep_nodes

    digests = {}
    for cls in photokeep_nodes.NODE_CLASS_MAPPINGS.values():
        digests[cls.__module__] = code_digest(cls.__module__)
    assert len(set(digests.values())) == len(digests)
    root, start = fingerprint._files_of("photokeep_nodes.nodes.upscale")
    files = {path.relative_to(root).as_posix() for path in fingerprint._closure((root,), start)}
    assert {"nodes/upscale.py", "inference.py", "ops/tiling.py", "images.py", "weights.py"} <= files
    assert not {"host.py", "errors.py", "vram_manager.py", "__init__.py", "nodes/denoise.py"} & files
    assert not [name for name in files if "_vram" in name]


# -- libraries and devices ---------------------------------------------------------------------------------------------


def test_the_libraries_that_compute_are_named_without_importing_torch() -> None:
    code = (
        "import sys; from headless.fingerprint import library_versions, device_class\n"
        "print(sorted(library_versions()), device_class('auto') in {'cpu', 'cuda', 'mps'}, 'torch' in sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60, check=True
    )
    assert done.stdout.strip() == f"{sorted(library_versions())} True False"
    assert {"torch", "numpy", "spandrel"} <= set(library_versions())


@pytest.mark.parametrize(("device", "expected"), [("cpu", "cpu"), ("cuda", "cuda"), ("cuda:3", "cuda"), ("mps", "mps")])
def test_cards_of_one_kind_share_results(device: str, expected: str) -> None:
    assert device_class(device) == expected


@pytest.mark.parametrize(
    ("visible", "found", "expected"),
    [(None, 2, "cuda"), (None, 0, "cpu"), ("", 2, "cpu"), ("-1", 2, "cpu"), ("1", 2, "cuda")],
)
@pytest.mark.skipif(sys.platform == "darwin", reason="Macs have a device of their own")
def test_auto_is_what_there_is(monkeypatch: pytest.MonkeyPatch, visible: str | None, found: int, expected: str) -> None:
    counted: Callable[[], int] = lambda: found  # noqa: E731
    monkeypatch.setattr(fingerprint, "_nvidia_devices", counted)
    if visible is None:
        monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    else:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert device_class("auto") == expected


@pytest.mark.parametrize(
    ("precision", "flags", "device", "expected"),
    [
        ("full", {"amx_bf16"}, "cpu", "full"),
        ("auto", {"avx2", "amx_bf16"}, "cpu", "bfloat16"),
        ("auto", {"avx512_bf16"}, "cpu", "bfloat16"),
        ("auto", {"avx2"}, "cpu", ""),
        ("auto", {"amx_bf16"}, "cuda:1", ""),
        ("full", {"amx_bf16"}, "cuda:1", "full"),
    ],
)
def test_cpus_that_compute_otherwise_share_no_results(
    monkeypatch: pytest.MonkeyPatch, precision: str, flags: set[str], device: str, expected: str
) -> None:
    monkeypatch.setenv("PHOTOKEEP_PRECISION", precision)
    monkeypatch.setattr(fingerprint, "_cpu_flags", lambda: frozenset(flags))
    assert fingerprint.precision_class(device) == expected


@pytest.mark.skipif(not fingerprint._cpu_flags(), reason="only Linux on x86 tells what its processor can do")
def test_what_linux_says_of_the_processor_is_what_torch_says() -> None:
    told = bool(fingerprint._cpu_flags() & {*host.BFLOAT16_INSTRUCTIONS})
    assert told == cpu_multiplies_bfloat16()


def test_a_system_that_tells_nothing_of_its_processor_is_no_failure(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> str:
        raise FileNotFoundError

    monkeypatch.setattr(Path, "read_text", refuse)
    fingerprint._cpu_flags.cache_clear()
    try:
        assert fingerprint._cpu_flags() == frozenset()
    finally:
        fingerprint._cpu_flags.cache_clear()


def test_counting_cards_works_without_any() -> None:
    assert fingerprint._nvidia_devices() >= 0


@pytest.mark.parametrize(
    ("module", "file", "part"),
    [
        ("headless.core_nodes.scale", "headless/core_nodes/_resample.py", True),
        ("headless.core_nodes.load", "photokeep_nodes/photo_io/decode.py", True),
        ("headless.core_nodes.upscale", "photokeep_nodes/tiled_inference.py", True),
        ("headless.core_nodes.upscale", "headless/core_nodes/_tiles.py", True),
        ("headless.core_nodes.scale", "photokeep_nodes/photo_io/decode.py", False),
        ("headless.core_nodes.scale", "headless/core_nodes/masks.py", False),
        ("headless.core_nodes.load", "photokeep_nodes/inference.py", False),
        ("headless.core_nodes.upscale", "photokeep_nodes/nodes/upscale.py", False),
    ],
)
def test_the_core_nodes_are_what_they_use(module: str, file: str, part: bool) -> None:
    importlib.import_module(module)
    forget()
    root, start = fingerprint._files_of(module)
    assert (ROOT / file in fingerprint._closure(fingerprint._roots(root), start)) == part
