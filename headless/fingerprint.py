"""The key under which a stage's outputs are stored: everything that can change them, and nothing else.

Parts: the node's code, its widget values, the content of what is linked in, the content of the photos it reads, the
digests of the weights it uses, the device class, the precision and the versions of the libraries that compute.
"""

from __future__ import annotations

import ast
import hashlib
import json
import math
import os
import sys
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

import photokeep_nodes
from photokeep_nodes import host
from photokeep_nodes.errors import NodeDefinitionError, NodeInputError

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

KEY_VERSION = 1

# They move and place weights, or talk to the host, but never change a pixel.
_WITHOUT_EFFECT = frozenset({"errors", "host", "vram_manager"})
_COMPUTING_LIBRARIES = (
    "torch",
    "torchvision",
    "spandrel",
    "spandrel_extra_arches",
    "numpy",
    "pillow",
    "imagecodecs",
    "tifffile",
)


def canonical(value: Any) -> Any:
    """Tag a JSON value by type, so that 1, 1.0, "1" and true have different digests.

    Raises:
        NodeInputError: NaN, infinity, or no JSON value.
    """
    if value is None or isinstance(value, bool):
        return {"const": value}
    if isinstance(value, int):
        return {"int": f"{value:x}"}  # hexadecimal: Python refuses to write out very long decimals
    if isinstance(value, float):
        if not math.isfinite(value):
            raise NodeInputError(f"{value} cannot be an input", hint="Use a finite number.")
        return {"float": value.hex()}
    if isinstance(value, str):
        return {"str": value}
    if isinstance(value, (list, tuple)):
        return {"list": [canonical(item) for item in value]}
    if isinstance(value, dict):
        for key in value:
            if not isinstance(key, str):  # JSON would turn 1 into "1"
                raise NodeInputError(f"a name of type {type(key).__name__} cannot be part of a key")
        return {"dict": {key: canonical(item) for key, item in value.items()}}
    raise NodeInputError(f"a value of type {type(value).__name__} cannot be part of a key")


def digest_of(value: Any) -> str:
    """sha256 of the canonical form of a JSON value."""
    data = json.dumps(canonical(value), sort_keys=True, separators=(",", ":"), ensure_ascii=True)
    return hashlib.sha256(data.encode("ascii")).hexdigest()


def stage_key(parts: Mapping[str, Any]) -> str:
    """Digest of a stage's parts, as ``explain`` compares them."""
    return digest_of({"version": KEY_VERSION, **parts})


def explain(before: Mapping[str, Any] | None, now: Mapping[str, Any]) -> str:
    """Say in a few words why a stage that has run before has another key now.

    Args:
        before: parts of its last key, or None if it has not run.
        now: parts of its present key.
    """
    if before is None:
        return "not run before"
    reasons = []
    for part in sorted({*before, *now}):
        old, new = before.get(part), now.get(part)
        if old == new:
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            changed = sorted(name for name in {*old, *new} if old.get(name) != new.get(name))
            reasons.append(f"{part} changed: {', '.join(changed)}")
        else:
            reasons.append(f"{part} changed")
    return "; ".join(reasons) or "its stored outputs are gone"


@cache
def code_digest(module_name: str) -> str:
    """Digest of a module's source and of every module of its package and of the pack that it imports, at any depth.

    Imports are read from the source, so nothing is imported and those inside functions count.

    Args:
        module_name: of a module that has been imported, from a file.
    Raises:
        NodeDefinitionError: it has not, so that nobody could tell when its code changes.
    """
    root, start = _files_of(module_name)
    roots = _roots(root)
    digest = hashlib.sha256()
    for name, path in sorted((_name_of(path, roots), path) for path in _closure(roots, start)):
        content = path.read_bytes()
        digest.update(f"{name}\n{len(content)}\n".encode())
        digest.update(content)
    return digest.hexdigest()


def _files_of(module_name: str) -> tuple[Path, Path]:
    """Folder of the top-level package, and the module's own file."""
    file = getattr(sys.modules.get(module_name), "__file__", None)
    if file is None:
        raise NodeDefinitionError(f"the code of {module_name} is in no file", hint="Put its nodes into a module.")
    start = Path(file)
    root_file = getattr(sys.modules.get(module_name.partition(".")[0]), "__file__", None)
    root = start.parent if root_file is None else Path(root_file).parent
    return (root if start.is_relative_to(root) else start.parent), start


def _roots(root: Path) -> tuple[Path, ...]:
    """Folders of the packages whose modules count: a node's own, and the pack, which others build on."""
    return tuple(dict.fromkeys((root, Path(photokeep_nodes.__file__).parent)))


def _root_of(path: Path, roots: tuple[Path, ...]) -> Path | None:
    return next((root for root in roots if root in path.parents), None)


def _name_of(path: Path, roots: tuple[Path, ...]) -> str:
    """Path below the package's folder; the pack's name before it where the module asked for is not the pack's."""
    root = _root_of(path, roots) or path.parent
    name = path.relative_to(root).as_posix()
    return name if root == roots[0] else f"{root.name}/{name}"


def _closure(roots: tuple[Path, ...], start: Path) -> set[Path]:
    seen: set[Path] = set()
    waiting = [start, *_package_files(start, roots)]
    while waiting:
        path = waiting.pop()
        if path in seen:
            continue
        seen.add(path)
        waiting.extend(imported for imported in _imports(path, roots) if imported not in seen)
    return seen


@cache
def _imports(path: Path, roots: tuple[Path, ...]) -> tuple[Path, ...]:
    return tuple(_find_imports(path, roots))


def _find_imports(path: Path, roots: tuple[Path, ...]) -> Iterator[Path]:
    """Files of the packages at ``roots`` that importing ``path`` runs, one step deep."""
    if path.suffix != ".py":  # compiled: what it imports cannot be seen
        return
    # Imports for type checkers count as well: packages that load their parts on demand declare them so.
    for node in ast.walk(ast.parse(path.read_bytes())):
        for target in _targets(node, path, roots):
            file = target.parent / f"{target.name}.py"
            root = _root_of(file, roots)
            if root is not None and _has_effect(file, root) and file.is_file():
                yield file
            yield from _package_files(target / "__init__.py", roots)


def _package_files(path: Path, roots: tuple[Path, ...]) -> Iterator[Path]:
    """Every folder on the way to a module is a package whose ``__init__`` runs first."""
    for folder in path.parents:
        file = folder / "__init__.py"
        if _root_of(folder, roots) is not None and file.is_file():
            yield file


def _has_effect(file: Path, root: Path) -> bool:
    # The pack's own door imports every node; following it would tie each stage to all the others.
    return file.parent != root or file.stem not in {*_WITHOUT_EFFECT, "__init__"}


def _targets(node: ast.AST, path: Path, roots: tuple[Path, ...]) -> Iterator[Path]:
    """Modules that an import statement names, as paths without suffix; an imported name may be one, too."""
    by_name = {root.name: root for root in reversed(roots)}
    if isinstance(node, ast.Import):
        for alias in node.names:
            top, *rest = alias.name.split(".")
            if top in by_name and rest:
                yield by_name[top].joinpath(*rest)
    elif isinstance(node, ast.ImportFrom):
        names = node.module.split(".") if node.module else []
        if node.level:
            folder = path.parents[min(node.level, len(path.parents)) - 1]
        elif names and names[0] in by_name:
            folder = by_name[names.pop(0)]
        else:
            return
        base = folder.joinpath(*names)
        yield base
        yield from (base / alias.name for alias in node.names)


@cache
def library_versions() -> dict[str, str]:
    """Versions of the libraries that compute pixels, read from their metadata."""
    versions = {}
    for name in _COMPUTING_LIBRARIES:
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return versions


def device_class(device: str) -> str:
    """Kind of device that "auto", "cpu" or "cuda:N" stands for, found without importing torch."""
    if device != "auto":
        return device.partition(":")[0]
    if os.environ.get("CUDA_VISIBLE_DEVICES", "0") not in {"", "-1"} and _nvidia_devices() > 0:
        return "cuda"
    return "mps" if sys.platform == "darwin" and os.uname().machine == "arm64" else "cpu"


def precision_class(device: str) -> str:
    """What networks that tolerate it compute in where that is not the same on all devices of a kind; empty elsewhere.

    "full" where the user asks for it, "bfloat16" on a CPU that has instructions for it: found without importing torch,
    and only where Linux tells; elsewhere a cache should not be shared by CPUs with and without them.

    Args:
        device: "auto", "cpu" or "cuda:N".
    """
    if host.full_precision():
        return "full"
    return "bfloat16" if device_class(device) == "cpu" and _cpu_flags() & {*host.BFLOAT16_INSTRUCTIONS} else ""


@cache
def _cpu_flags() -> frozenset[str]:
    """What the first processor can do, as Linux names it; empty elsewhere."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return frozenset()
    return frozenset(next((line for line in lines if line.startswith("flags")), "").partition(":")[2].split())


@cache
def _nvidia_devices() -> int:
    import pynvml

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return 0
    try:
        return int(pynvml.nvmlDeviceGetCount())
    except pynvml.NVMLError:
        return 0
    finally:
        pynvml.nvmlShutdown()
