"""Node packs of others: imported only where the user names one, because importing it runs its code.

A pack is a folder with an ``__init__.py``, or one ``.py`` file, as they lie in ComfyUI's ``custom_nodes/``. It is
imported under a name of its own, so that relative imports work and two packs of one name do not meet. Only V1 packs
that need no ComfyUI can be used.
"""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import os
import re
import sys
from contextlib import suppress
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import NodeDefinitionError, NodePackError

from .graph import printable
from .host_nodes import CORE_NODES
from .schema import schema_of

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Mapping, Sequence
    from types import ModuleType

    from .schema import NodeSchema

_HOST_NAMES = """
comfy comfy_api comfy_api_nodes comfy_config comfy_execution comfy_extras execution folder_paths latent_preview
model_management node_helpers nodes server
"""

HOST_MODULES = frozenset(_HOST_NAMES.split())
"""Top-level modules that only ComfyUI has."""

_CODE = frozenset({".py", ".so", ".pyd"})
_NOT_CODE = frozenset({"__pycache__", "node_modules", "venv", "env", "site-packages"})
_MOST_FILES = 5000
_SHOWN = 10


@dataclass(frozen=True)
class Pack:
    """A node pack of somebody else's, imported.

    Attributes:
        name: of its folder or file.
        path: where it lies, symbolic links followed.
        code: digest of all of its code, as part of the keys of its stages.
        schemas: its nodes that can be used, by class type.
        left_out: those that cannot, and why, a line each.
        requires: versions of the installed packages that its code imports, by name.
    """

    name: str
    path: Path
    code: str
    schemas: Mapping[str, NodeSchema]
    left_out: tuple[str, ...] = ()
    requires: tuple[tuple[str, str], ...] = ()

    def warning(self) -> str:
        """What a user should know before its code runs."""
        nodes = "1 node" if len(self.schemas) == 1 else f"{len(self.schemas)} nodes"
        return f"untrusted node pack {self.name} ({self.path}), {nodes}: its code runs with all your rights"

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {"name": self.name, "path": str(self.path), "nodes": len(self.schemas), "trusted": False}


def load_packs(paths: Sequence[Path], *, reserved: Collection[str]) -> tuple[Pack, ...]:
    """Import node packs, each once.

    Args:
        paths: as the user typed them.
        reserved: class types that no pack may take, beside those of ComfyUI itself.
    Raises:
        NodePackError: one cannot be used, or two of them have a node of the same class type.
    """
    packs = tuple(_load(path, reserved) for path in dict.fromkeys(map(_found, paths)))
    owners: dict[str, Pack] = {}
    for pack in packs:
        for class_type in pack.schemas:
            other = owners.setdefault(class_type, pack)
            if other is not pack:
                raise NodePackError(
                    f"two node packs have a node {printable(class_type)!r}: {other.path} and {pack.path}",
                    hint="Allow one of them.",
                )
    return packs


def schemas_of_packs(packs: Sequence[Pack]) -> dict[str, NodeSchema]:
    """The nodes of all packs, by class type."""
    return {class_type: schema for pack in packs for class_type, schema in pack.schemas.items()}


def by_class_type(packs: Sequence[Pack]) -> dict[str, Pack]:
    """Which pack each of their nodes comes from."""
    return {class_type: pack for pack in packs for class_type in pack.schemas}


def _found(path: Path) -> Path:
    """Where a pack really lies.

    Raises:
        NodePackError: there is none.
    """
    try:
        found = path.expanduser().resolve(strict=True)
    except (OSError, RuntimeError) as error:
        reason = f": {error.strerror}" if isinstance(error, OSError) and error.strerror else ""
        raise NodePackError(f"there is no node pack {path}{reason}", hint="Check the path.") from error
    if found.is_file():
        if found.suffix != ".py":
            raise NodePackError(f"{path} is no node pack: it is neither a folder nor a .py file")
        return found
    if not (found / "__init__.py").is_file():
        inner = sorted(each.parent.name for each in found.glob("*/__init__.py"))
        hint = f"Name one pack in it, such as {path / inner[0]}." if inner else "Name the folder that has it."
        raise NodePackError(f"{path} is no node pack: the folder has no __init__.py", hint=hint)
    return found


def _load(path: Path, reserved: Collection[str]) -> Pack:
    name = path.stem if path.is_file() else path.name
    files = list(_code_files(path))
    code = _digest(path, files)  # before the import: what runs is at least as new as what its results are kept under
    module = _imported(path, name, code)
    declared = getattr(module, "NODE_CLASS_MAPPINGS", None)
    if declared is None and hasattr(module, "comfy_entrypoint"):
        raise NodePackError(
            f"the node pack {path} is written for ComfyUI's V3 interface (comfy_entrypoint), which needs ComfyUI",
            hint="Run the workflow in ComfyUI, or look for an older version of the pack.",
        )
    if not isinstance(declared, dict) or not declared:
        raise NodePackError(
            f"{path} is no node pack: it has no NODE_CLASS_MAPPINGS",
            hint="Name the folder that ComfyUI would import, right below custom_nodes/.",
        )
    titles = getattr(module, "NODE_DISPLAY_NAME_MAPPINGS", None)
    schemas: dict[str, NodeSchema] = {}
    left_out = []
    for class_type, node_class in declared.items():
        reason = _taken(class_type, reserved)
        if not reason:
            title = titles.get(class_type, "") if isinstance(titles, dict) else ""
            try:
                schemas[class_type] = _checked_schema(class_type, node_class, str(title))
            except NodeDefinitionError as error:
                reason = error.message
            except (Exception, SystemExit) as error:  # noqa: BLE001 - a stranger's INPUT_TYPES may raise anything
                reason = f"it cannot be asked for its inputs: {_said(error)}"
        if reason:
            left_out.append(f"{printable(str(class_type))} of the node pack {name} is left out: {reason}")
    if not schemas:
        shown = [*left_out[:_SHOWN], *([f"and {len(left_out) - _SHOWN} more"] if len(left_out) > _SHOWN else [])]
        raise NodePackError("\n".join([f"the node pack {path} has no node that can be used here:", *shown]))
    return Pack(name, path, code, schemas, tuple(left_out), tuple(_required(path, files)))


def _taken(class_type: object, reserved: Collection[str]) -> str:
    if class_type in reserved:
        return "Photokeep has a node of this class type, which is used"
    return "ComfyUI itself has a node of this class type" if class_type in CORE_NODES else ""


def _checked_schema(class_type: object, node_class: object, title: str) -> NodeSchema:
    if not isinstance(class_type, str) or not isinstance(node_class, type):
        raise NodeDefinitionError("NODE_CLASS_MAPPINGS is to map names to classes")
    schema = schema_of(class_type, node_class, title)
    if not callable(getattr(node_class, schema.function, None)):
        raise NodeDefinitionError(f"FUNCTION names {schema.function!r}, which it does not have")
    return schema


# -- importing ------------------------------------------------------------------------------------------------------


def _imported(path: Path, name: str, code: str) -> ModuleType:
    """Import a pack; the same code only once, so that what importing does is done once."""
    readable = re.sub(r"\W", "_", name, flags=re.ASCII)
    identity = hashlib.sha256(f"{path}\n{code}".encode("utf-8", "surrogateescape")).hexdigest()[:16]
    module_name = f"photokeep_pack_{readable}_{identity}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    file, folders = (path, None) if path.is_file() else (path / "__init__.py", [str(path)])
    spec = importlib.util.spec_from_file_location(module_name, file, submodule_search_locations=folders)
    if spec is None or spec.loader is None:
        raise NodePackError(f"{file} cannot be imported")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException as error:
        for each in [each for each in sys.modules if each == module_name or each.startswith(f"{module_name}.")]:
            del sys.modules[each]
        if isinstance(error, KeyboardInterrupt):
            raise
        raise _import_error(path, module_name, error) from error
    return module


def _import_error(path: Path, module_name: str, error: BaseException) -> NodePackError:
    """What to tell the user of a pack that cannot be imported."""
    if isinstance(error, ModuleNotFoundError) and error.name:
        top = error.name.partition(".")[0]
        if top in HOST_MODULES:
            return NodePackError(
                f"the node pack {path} needs ComfyUI: it imports {error.name}",
                hint="Only packs that need no ComfyUI can be run without it.",
                module=error.name,
            )
        if top == module_name:
            missing = error.name.removeprefix(f"{module_name}.")
            return NodePackError(
                f"the node pack {path} is not complete: it imports its own {missing}, which is not there",
                hint="Install the pack again.",
                module=missing,
            )
        requirements = path / "requirements.txt"
        how = f"pip install -r {requirements}" if requirements.is_file() else "Its own pages say how to install it."
        return NodePackError(
            f"the node pack {path} needs the Python module {error.name}, which is not installed",
            hint=how,
            module=error.name,
        )
    if isinstance(error, SyntaxError):
        where = f"{error.filename or path}, line {error.lineno or '?'}"
        return NodePackError(f"the node pack {path} cannot be imported: {error.msg} ({where})")
    return NodePackError(
        f"the node pack {path} cannot be imported: {_said(error)}", hint="This is a fault in the pack."
    )


def _said(error: BaseException) -> str:
    """An error of a stranger's code, on one line."""
    try:
        text = str(error)
    except Exception:  # noqa: BLE001 - even that is a stranger's code
        text = ""
    return f"{type(error).__name__}: {printable(text, 300)}" if text else type(error).__name__


# -- what its results depend on -------------------------------------------------------------------------------------


def _code_files(path: Path) -> Iterator[Path]:
    """Every file of a pack that holds code.

    All of them and not those that are imported: packs find their parts in ways that no reading of the source foresees.
    """
    if path.is_file():
        yield path
        return
    count = 0
    for folder, folders, files in os.walk(path):
        folders[:] = sorted(each for each in folders if each not in _NOT_CODE and not each.startswith("."))
        for each in sorted(files):
            if Path(each).suffix in _CODE:
                count += 1
                if count > _MOST_FILES:
                    raise NodePackError(
                        f"{path} holds more than {_MOST_FILES} files of code, which is no single node pack",
                        hint="Name the folder of one pack.",
                    )
                yield Path(folder, each)


def _digest(path: Path, files: Sequence[Path]) -> str:
    digest = hashlib.sha256()
    for file in files:
        try:
            content = file.read_bytes()
        except OSError as error:
            raise NodePackError(f"{file} cannot be read: {error.strerror or error}") from error
        name = file.name if file == path else file.relative_to(path).as_posix()
        digest.update(f"{name}\n{len(content)}\n".encode("utf-8", "surrogateescape"))
        digest.update(content)
    return digest.hexdigest()


def _required(path: Path, files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """Installed distributions that a pack's code imports, with their versions; another version is other code."""
    names: set[str] = set()
    for file in files:
        if file.suffix == ".py":
            with suppress(SyntaxError, ValueError, RecursionError):  # a file that is never imported may be anything
                names.update(_imported_names(ast.parse(file.read_bytes())))
    names -= {*sys.stdlib_module_names, path.stem, path.name}
    if not names:
        return
    distributions = metadata.packages_distributions()
    for distribution in sorted({each for name in names for each in distributions.get(name, ())}):
        with suppress(metadata.PackageNotFoundError):
            yield distribution, metadata.version(distribution)


def _imported_names(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.partition(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            yield node.module.partition(".")[0]
