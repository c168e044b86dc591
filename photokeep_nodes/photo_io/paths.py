"""Names of photos, kept inside the folders the user offered.

Light on purpose: plans look files up without numpy or Pillow.
"""

from __future__ import annotations

import difflib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PhotoReadError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

EXTENSIONS = frozenset({".jpg", ".jpeg", ".jfif", ".png", ".tif", ".tiff", ".webp", ".bmp", ".gif"})
_MAX_LISTED = 5000
_MAX_SCANNED = 50_000


def find_photo(name: str, roots: Sequence[Path]) -> Path:
    """The file a name means, the first root that has it winning.

    Args:
        name: relative to one of the roots, with forward slashes, or absolute and inside one of them.
        roots: folders; each may itself be a link, what lies in it may not lead out of all of them.

    Returns:
        Absolute path of a regular file, links resolved.

    Raises:
        PhotoReadError: no such file, not a file, or outside every root.
    """
    _refuse_odd_names(name)
    homes = [Path(os.path.realpath(root)) for root in roots]
    asked = Path(name)
    candidates = [asked] if asked.is_absolute() else [home / asked for home in homes]
    escaped = folder = odd = False
    for candidate in candidates:
        real = Path(os.path.realpath(candidate))
        if not any(real.is_relative_to(home) for home in homes):
            # Told before looking: whether a file outside exists is nobody's business.
            escaped = True
            continue
        try:
            mode = real.stat().st_mode
        except OSError:
            continue
        if stat.S_ISREG(mode):
            return real
        folder = folder or stat.S_ISDIR(mode)
        odd = odd or not stat.S_ISDIR(mode)
    if escaped:
        raise PhotoReadError(
            f"{name!r} lies outside the input folder",
            hint="Copy the photo into the input folder, or name its folder with `-i`.",
            photo=name,
        )
    if folder:
        raise PhotoReadError(f"{name!r} is a folder, not a photo", hint="Name one photo in it.", photo=name)
    if odd:
        raise PhotoReadError(f"{name!r} is a device or a pipe, not a file", hint="Name a photo file.", photo=name)
    raise PhotoReadError(f"there is no photo {name!r}", hint=_suggestion(name, roots), photo=name)


def _refuse_odd_names(name: str) -> None:
    """Raise for what no photo is called here."""
    if not isinstance(name, str) or not name.strip():
        raise PhotoReadError("no photo is named", hint="Choose a photo, or upload one.")
    if "\0" in name:
        raise PhotoReadError("the photo's name holds a NUL character", hint="Rename the photo.", photo=name)
    if name.rstrip().endswith("]") and "[" in name:
        raise PhotoReadError(
            f"{name!r} names a folder in brackets, which is not supported here",
            hint="Photos are read from the input folder only: copy the file there and choose it.",
            photo=name,
        )
    if "\\" in name and os.sep != "\\":
        raise PhotoReadError(f"{name!r} holds a backslash", hint="Separate folders with '/'.", photo=name)
    if ".." in Path(name).parts:
        raise PhotoReadError(
            f"{name!r} climbs out of its folder with '..'", hint="Name the photo directly.", photo=name
        )


def _suggestion(name: str, roots: Sequence[Path]) -> str:
    """What to do about a name that is not there."""
    if close := difflib.get_close_matches(name, list_photos(roots), n=3, cutoff=0.6):
        return "Did you mean " + " or ".join(repr(other) for other in close) + "?"
    where = ", ".join(str(root) for root in roots if Path(root).is_dir()) or "no folder"
    return f"Looked in {where}. Copy the photo there, upload it in the editor, or name it with `-i`."


def list_photos(roots: Sequence[Path]) -> list[str]:
    """Names that ``find_photo`` takes: photos in each root and in the folders right below it, sorted, at most 5,000."""
    names: set[str] = set()
    for root in roots:
        left = _MAX_SCANNED
        for name in _names_below(Path(root)):
            left -= 1
            if left < 0 or len(names) >= _MAX_LISTED:
                break
            names.add(name)
    return sorted(names, key=lambda name: (name.count("/"), name.casefold(), name))


def _names_below(root: Path) -> Iterator[str]:
    folders: list[str] = []
    for entry in _entries(root):
        if _is_dir(entry):
            folders.append(entry.name)
        elif _is_photo(entry):
            yield entry.name
    for folder in sorted(folders):
        for entry in _entries(root / folder):
            if _is_photo(entry):
                yield f"{folder}/{entry.name}"


def _entries(folder: Path) -> Iterator[os.DirEntry[str]]:
    try:
        with os.scandir(folder) as found:
            for i, entry in enumerate(found):
                if i >= _MAX_SCANNED:
                    return
                if not entry.name.startswith("."):
                    yield entry
    except OSError:
        # A root that does not exist yet, or may not be read, offers none; find_photo says so when one is asked for.
        return


def _is_dir(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir(follow_symlinks=False)
    except OSError:
        return False


def _is_photo(entry: os.DirEntry[str]) -> bool:
    try:
        return Path(entry.name).suffix.lower() in EXTENSIONS and entry.is_file()
    except OSError:
        return False
