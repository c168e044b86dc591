"""The model folders of a ComfyUI that does not run: what its files say, so that weights are shared with it.

``COMFYUI_PATH`` names the checkout; its ``models/`` and its ``extra_model_paths.yaml`` count.
``PHOTOKEEP_EXTRA_MODEL_PATHS`` names one more file of that kind, for a ComfyUI that was started with
``--extra-model-paths-config``, or for one that lies elsewhere: a ``base_path`` in it that is a ComfyUI counts as one.

Source: the meaning of the file is that of ``utils/extra_config.py`` and ``folder_paths.py`` in ComfyUI 0.33.
"""

from __future__ import annotations

import logging
import os
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from .errors import UsageError

MAX_YAML_BYTES = 2**20

_log = logging.getLogger(__name__)


@dataclass(frozen=True)
class NamedFolder:
    """One folder that a yaml file names.

    Attributes:
        kind: as ComfyUI calls it, such as "upscale_models".
        path: the folder, absolute; it need not exist.
        first: it comes before the others of its kind, and takes new files.
    """

    kind: str
    path: Path
    first: bool = False


@dataclass(frozen=True)
class ComfyUIFolders:
    """Where a configured ComfyUI keeps models.

    Attributes:
        root: the checkout that ``COMFYUI_PATH`` names, or None.
        named: folders from the yaml files, in their order.
        bases: each ``base_path`` in them that is a ComfyUI itself.
        problems: what could not be read.
    """

    root: Path | None = None
    named: tuple[NamedFolder, ...] = ()
    bases: tuple[Path, ...] = ()
    problems: tuple[str, ...] = ()

    def of(self, kind: str) -> tuple[Path, ...]:
        """Folders of one kind, in the order ComfyUI searches them; the first takes new files."""
        found = [] if self.root is None else [self.root / "models" / kind]
        for folder in self.named:
            if folder.kind != kind:
                continue
            if folder.first:
                found = [folder.path, *(path for path in found if path != folder.path)]
            elif folder.path not in found:
                found.append(folder.path)
        return tuple(dict.fromkeys((*found, *(base / "models" / kind for base in self.bases))))


def configured() -> ComfyUIFolders:
    """What the environment names. What cannot be read is left out, with a warning: a run can do without."""
    folders = _configured()
    _warn_once(folders)
    return folders


def _configured() -> ComfyUIFolders:
    named = tuple(os.environ.get(name, "") for name in ("COMFYUI_PATH", "PHOTOKEEP_EXTRA_MODEL_PATHS"))
    if not any(named):
        return ComfyUIFolders()
    root, extra = (Path(os.path.abspath(os.path.expanduser(name))) if name else None for name in named)  # noqa: PTH100, PTH111 - of names that need not be there
    files = tuple(path for path in (root and root / "extra_model_paths.yaml", extra) if path is not None)
    return _read(root, extra, tuple((path, _stamp(path)) for path in files))


def check() -> None:
    """Refuse a configuration that cannot be read.

    Raises:
        UsageError: with everything that is wrong with it.
    """
    if problems := _configured().problems:  # said once, in the error
        raise UsageError(
            "\n".join(problems),
            hint="Correct it, or unset COMFYUI_PATH and PHOTOKEEP_EXTRA_MODEL_PATHS to go without.",
        )


@cache
def _warn_once(folders: ComfyUIFolders) -> None:
    for problem in folders.problems:
        _log.warning("%s; its model folders are not searched", problem)


def _stamp(path: Path) -> tuple[int, int] | None:
    try:
        info = path.stat()
    except OSError:
        return None
    return info.st_size, info.st_mtime_ns


@cache
def _read(
    root: Path | None, extra: Path | None, files: tuple[tuple[Path, tuple[int, int] | None], ...]
) -> ComfyUIFolders:
    """Read the files; once for each state they are in."""
    named: list[NamedFolder] = []
    bases: list[Path] = []
    problems: list[str] = []
    if root is not None and not root.is_dir():
        problems.append(f"COMFYUI_PATH names no folder: {root}")
    for path, stamp in files:
        if stamp is None:
            if path == extra:
                problems.append(f"PHOTOKEEP_EXTRA_MODEL_PATHS names no file that can be read: {path}")
            continue
        try:
            folders, roots = read_yaml(path)
        except UsageError as error:
            problems.append(error.message)
            continue
        named += folders
        bases += roots
    return ComfyUIFolders(root, tuple(named), tuple(dict.fromkeys(bases)), tuple(problems))


def read_yaml(path: Path) -> tuple[list[NamedFolder], list[Path]]:
    """Read one ``extra_model_paths.yaml``.

    Returns:
        The folders it names, and each of its base paths that is a ComfyUI.
    Raises:
        UsageError: it cannot be read, is no YAML, or says something else than folders.
    """
    sections = _load(path)
    folders: list[NamedFolder] = []
    bases: list[Path] = []
    for name, section in sections.items():
        if section is None:
            continue
        if not isinstance(section, dict):
            raise UsageError(f"{path}: {str(name)[:80]!r} holds {type(section).__name__}, not model folders")
        base = _base(section.get("base_path"), path)
        if base is not None and (base / "models").is_dir() and (base / "custom_nodes").is_dir():
            bases.append(base)
        for kind, lines in section.items():
            if kind in {"base_path", "is_default"}:
                continue
            if not isinstance(kind, str) or not isinstance(lines, str) or "\0" in kind + lines:
                raise UsageError(f"{path}: {str(kind)[:80]!r} in {str(name)[:80]!r} is no folder but {lines!r:.80}")
            folders += [
                NamedFolder(kind, _full(line, base, path), first=bool(section.get("is_default")))
                for line in lines.split("\n")
                if line
            ]
    return folders, bases


def _load(path: Path) -> dict[object, object]:
    import yaml

    try:
        with path.open("rb") as stream:
            data = stream.read(MAX_YAML_BYTES + 1)
        if len(data) > MAX_YAML_BYTES:
            raise UsageError(f"{path} is larger than {MAX_YAML_BYTES} bytes: no list of folders is")
        loaded = yaml.safe_load(data.decode("utf-8-sig"))
    except OSError as error:
        raise UsageError(f"{path} cannot be read: {error.strerror or error}") from error
    except (yaml.YAMLError, UnicodeDecodeError, RecursionError, ValueError) as error:
        mark = getattr(error, "problem_mark", None)
        where = f", line {mark.line + 1}" if mark is not None else ""
        why = getattr(error, "problem", None) or type(error).__name__
        raise UsageError(f"{path}{where}: not YAML: {why}") from error
    if loaded is None:
        return {}
    if not isinstance(loaded, dict):
        raise UsageError(f"{path} holds {type(loaded).__name__}, not sections of model folders")
    return loaded


def _base(value: object, path: Path) -> Path | None:
    if not value:
        return None
    if not isinstance(value, str) or "\0" in value:
        raise UsageError(f"{path}: base_path is no folder but {value!r:.80}")
    return _absolute(os.path.expandvars(os.path.expanduser(value)), path.parent)  # noqa: PTH111 - as the host does


def _full(line: str, base: Path | None, path: Path) -> Path:
    return _absolute(line, base or path.parent)


def _absolute(text: str, folder: Path) -> Path:
    return Path(os.path.normpath(os.path.join(os.path.abspath(folder), text)))  # noqa: PTH100, PTH118 - keeps links
