"""Weight files that the user put into a model folder and no entry of the catalogue describes.

Such a file is known by its name below the folder and identified by its digest. What network it holds is found out once,
by spandrel, and noted in the cache folder under that digest; from then on a plan needs neither spandrel nor torch.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
from dataclasses import asdict, fields
from importlib import metadata
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

from .. import digests, host
from ..errors import NodeInputError, WeightsFormatError, WeightsMissingError
from ..files import write_atomically
from ..model_spec import Download, Licence, ModelHandle, ModelSpec, WeightFile
from . import _network, _spandrel

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from ..model_spec import Role

PREFIX = "file:"
"""How the ids of such models begin; "file:ROLE/NAME" in a handle."""

_ANY_SCALE = "@any-scale"  # behind the role in a handle; see ``handle_for``

SUFFIXES = (".pth", ".pt", ".ckpt", ".safetensors")

_DEEPEST = 4  # folders below a model folder
_MOST_ENTRIES = 50_000  # looked at in one model folder: the list is made each time the editor asks
_FACTS = 1
"""Part of the notes: raise it when the same file is to be looked at anew."""

_log = logging.getLogger(__name__)

_LICENCE = Licence("unknown", commercial=False, url="", note="your own file: its publisher sets the terms")


def names(*, with_published: bool = False) -> list[str]:
    """Names of the files in the model folders.

    Args:
        with_published: also those of the catalogue, which have nodes of their own.
    """
    from . import catalogue

    published = {
        file.origin.filename
        for spec in catalogue().values()
        for file in spec.weights
        if isinstance(file.origin, Download)
    }
    found = {name for folder in host.user_model_dirs() for name in _below(folder)}
    return sorted(found if with_published else found - published, key=lambda name: (name.casefold(), name))


def handle_for(role: Role, name: str, *, any_scale: bool = False) -> ModelHandle:
    """The handle of a file, whether or not it is there.

    Args:
        role: the stage it is to serve.
        name: below a model folder.
        any_scale: let a network that does not enlarge serve as one that does, as the host's upscale nodes do.
    """
    return ModelHandle(f"{PREFIX}{role}{_ANY_SCALE if any_scale else ''}/{name}")


def parsed(model_id: str) -> tuple[str, str, bool]:
    """The role, the file's name and whether any scale will do, as ``handle_for`` took them; a stranger's may be odd."""
    asked, _, name = model_id.removeprefix(PREFIX).partition("/")
    return asked.removesuffix(_ANY_SCALE), name, asked.endswith(_ANY_SCALE)


def get(model_id: str) -> ModelSpec:
    """The model that a handle of ``handle_for`` names.

    Raises:
        NodeInputError: no such name can be, or the network does not serve the role.
        WeightsMissingError: there is no such file.
        WeightsFormatError: it is damaged, hostile, or of no architecture that spandrel knows.
    """
    wanted, name, any_scale = parsed(model_id)
    role = next((each for each in _network.ROLES if each == wanted), None)
    if role is None:
        raise NodeInputError(f"there is no stage {wanted!r} that takes model files")
    path = find(name)
    digest = digests.digest(path)
    facts = _facts(path, name, digest)
    facts.check_serves(role, name, any_scale=any_scale)
    traits = facts.traits(role)
    network_id = f"{PREFIX}{facts.network_id}"
    return ModelSpec(
        id=f"{network_id}+{name}",
        title=PurePosixPath(name).stem,
        node_name="File",
        weights=(WeightFile(Download(name, url=""), path.stat().st_size, digest, _LICENCE),),
        build=_network.Rebuild(network_id, traits["condition"]),
        description=f"{facts.architecture} x{facts.scale}, your own file {name}.",
        source="https://github.com/chaiNNer-org/spandrel",
        **traits,
    )


def digest_of(name: str) -> str:
    """Digest of a file, by which a change of it shows.

    Raises:
        NodeInputError, WeightsMissingError: see ``find``.
    """
    return digests.digest(find(name))


def find(name: str) -> Path:
    """Locate a file by its name below a model folder; the first folder that has it wins.

    A name cannot lead out of the folder. A link in it may: its owner has put it there.

    Raises:
        NodeInputError: the name leads out of the folder, or is no weight file's.
        WeightsMissingError: there is no such file.
    """
    check_name(name)
    for folder in host.user_model_dirs():
        path = folder / name
        with contextlib.suppress(OSError):
            if path.is_file():
                return path
    raise WeightsMissingError(
        f"there is no model file {name!r}",
        hint=f"Put it into one of: {', '.join(map(str, host.user_model_dirs()))}",
        missing=[{"file": name}],
    )


def check_name(name: str) -> None:
    """Refuse what cannot be the name of a file in a model folder.

    Raises:
        NodeInputError: it leads out of the folder, or is no weight file's.
    """
    if not _may_be(name):
        raise NodeInputError(
            f"{name!r} cannot be a model file",
            hint=f"Name a file below a model folder that ends in {', '.join(SUFFIXES)}.",
        )


def _may_be(name: str) -> bool:
    # Backslashes and colons separate folders and drives on some systems, so nowhere are they part of a name. Hidden
    # files and folders are other programs' own.
    if any(char in name for char in "\0\\:") or not name.lower().endswith(SUFFIXES):
        return False
    if any(not part or part.startswith(".") for part in name.split("/")):
        return False
    return all(char.isprintable() for char in name)  # nor lone surrogates, which JSON cannot carry to the editor


def _below(folder: Path) -> Iterator[str]:
    """Names of the weight files below a folder; links are followed, each folder is looked at once."""
    left = _MOST_ENTRIES
    seen: set[str] = set()
    folders: list[tuple[str, str, int]] = [(str(folder), "", 0)]
    links: list[tuple[str, str, int]] = []
    while folders or links:
        # What lies here goes by its own name, whatever links to it.
        at, prefix, depth = (folders or links).pop()
        real = os.path.realpath(at)
        if real in seen:
            continue
        seen.add(real)
        for entry in _entries(at):
            left -= 1
            if left < 0:
                _log.warning(
                    "%s holds more than %d files and folders; not all of them are listed", folder, _MOST_ENTRIES
                )
                return
            name = prefix + entry.name
            if _leads_to(entry, os.DirEntry.is_dir):
                if depth < _DEEPEST and not entry.name.startswith("."):
                    (links if entry.is_symlink() else folders).append((entry.path, f"{name}/", depth + 1))
            elif _may_be(name) and _leads_to(entry, os.DirEntry.is_file):
                yield name


def _entries(folder: str) -> Iterator[os.DirEntry[str]]:
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        yield from entries


def _leads_to(entry: os.DirEntry[str], kind: Callable[[os.DirEntry[str]], bool]) -> bool:
    """Whether an entry, or what it links to, is of a kind."""
    try:
        return kind(entry)
    except OSError:  # a link to itself, or into a folder that may not be read
        return False


def noted(path: Path) -> _network.Facts | None:
    """What network a file holds, if that was found out and the file has not changed since; reads nothing of it."""
    digest = digests.known(path)
    return None if digest is None else _read_note(digest)


def note(digest: str, facts: _network.Facts) -> None:
    """Keep what network a file of this content holds; where nothing can be kept, the file is looked at again."""
    with contextlib.suppress(OSError):
        write_atomically(_note_path(digest), json.dumps({**_stamp(), **asdict(facts)}).encode())


def _note_path(digest: str) -> Path:
    return host.cache_dir() / "dropped_in" / f"{digest}.json"


def _stamp() -> dict[str, object]:
    return {"version": _FACTS, "spandrel": metadata.version("spandrel")}


def _facts(path: Path, name: str, digest: str) -> _network.Facts:
    """What network a file holds; spandrel is asked once for each content."""
    if (known := _read_note(digest)) is not None:
        return known
    from .. import weight_formats

    state = weight_formats.read_state_dict(path, suffix=path.suffix.lower())
    try:
        descriptor = _network.identify(state, wanted="a network for photos")
    except WeightsFormatError as error:
        raise WeightsFormatError(
            f"{name}: {error.message}",
            hint="What spandrel knows can be used, see https://github.com/chaiNNer-org/spandrel; more of it after:"
            f" pip install '{_spandrel.EXTRA_ARCHES}' (non-commercial)",
            path=str(path),
        ) from error
    facts = _network.facts_of(descriptor)
    note(digest, facts)
    return facts


def _read_note(digest: str) -> _network.Facts | None:
    try:
        known = json.loads(_note_path(digest).read_text(encoding="utf-8"))
        if not isinstance(known, dict) or any(known.get(key) != value for key, value in _stamp().items()):
            return None
        values = {field.name: known[field.name] for field in fields(_network.Facts)}
    except (OSError, ValueError, KeyError, RecursionError):
        return None
    if any(type(values[field.name]).__name__ != field.type for field in fields(_network.Facts)):
        return None  # damaged; JSON's own types are those of the fields
    if any(type(value) is int and value < 1 for value in values.values()):
        return None  # every number is a count or a size
    return _network.Facts(**values)
