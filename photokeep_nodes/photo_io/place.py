"""Put a finished file in its place: inside its folder, under a free name, in one step."""

from __future__ import annotations

import errno
import os
import secrets
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import PhotoWriteError

if TYPE_CHECKING:
    from collections.abc import Callable

_MAX_NUMBER = 100_000


def store(data: bytes, directory: Path, subfolder: str, stem: str, suffix: str, if_exists: str) -> Path:
    """Write a file under ``directory``.

    Args:
        data: its bytes.
        directory: the folder it must not leave; made if it is not there.
        subfolder: relative, with forward slashes.
        stem: file name without extension.
        suffix: extension with its dot.
        if_exists: a key of ``PLACERS``.

    Returns:
        The file, links resolved.

    Raises:
        PhotoWriteError: for whatever reason; no file, not even a part of one, is left then.
    """
    folder = _folder(directory, subfolder)
    try:
        return _store(data, folder, stem, suffix, PLACERS[if_exists])
    except OSError as error:
        raise _write_error(error, folder) from error


def _folder(directory: Path, subfolder: str) -> Path:
    """The folder to write in, made if it is not there, inside ``directory`` whatever links lie on the way."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        home = Path(os.path.realpath(directory))
        folder = Path(os.path.realpath(home / subfolder))
        if not folder.is_relative_to(home):
            raise PhotoWriteError(
                f"{subfolder!r} leads out of the output folder", hint="Remove the link, or choose another folder."
            )
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise _write_error(error, directory / subfolder) from error
    return folder


def _write_error(error: OSError, folder: Path) -> PhotoWriteError:
    """What the system said, in words."""
    if isinstance(error, FileExistsError) and error.filename2:
        return PhotoWriteError(
            f"{error.filename2} exists already",
            hint="Set if_exists to 'number' or 'overwrite', or choose another name.",
            path=str(error.filename2),
        )
    reasons = {
        errno.ENOSPC: ("the disk is full", "Make room, or choose another output folder."),
        errno.EDQUOT: ("your disk quota is used up", "Make room, or choose another output folder."),
        errno.EFBIG: ("the file is larger than the system allows", "Choose jpeg or webp, or a smaller scale."),
        errno.EACCES: (
            "the folder may not be written",
            "Choose another output folder with `-o`, or change its permissions.",
        ),
        errno.EPERM: (
            "the folder may not be written",
            "Choose another output folder with `-o`, or change its permissions.",
        ),
        errno.EROFS: ("the disk is read-only", "Choose another output folder with `-o`."),
        errno.ENOTDIR: ("a part of its path is a file, not a folder", "Choose another output folder with `-o`."),
        errno.EEXIST: ("a part of its path is a file, not a folder", "Choose another output folder with `-o`."),
        errno.EISDIR: ("a folder has that name", "Choose another file name."),
    }
    why, hint = reasons.get(error.errno or 0, (str(error), "Choose another output folder with `-o`."))
    return PhotoWriteError(f"cannot save in {folder}: {why}", hint=hint, folder=str(folder))


def _store(data: bytes, folder: Path, stem: str, suffix: str, place: Callable[[Path, Path, str, str], Path]) -> Path:
    """Write ``data`` beside its final name, on disk for good, then give it the name in one step."""
    temporary = folder / f".photokeep-{secrets.token_hex(8)}.tmp"
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    try:
        # Not tempfile: its files are private to the user, and a saved photo should have the folder's usual permissions.
        descriptor = os.open(temporary, flags, 0o666)
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        path = place(temporary, folder, stem, suffix)
    finally:
        # Also on Ctrl-C, which may come between any two of these steps.
        with suppress(OSError):
            temporary.unlink()
    _sync_folder(folder)
    return path


def _sync_folder(folder: Path) -> None:
    """Make the new name itself survive a power cut, where folders can be synced."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def _publish(temporary: Path, target: Path) -> None:
    """Give a finished file its name unless the name is taken; two processes cannot both succeed.

    Raises:
        FileExistsError: the name is taken; carries it as ``filename2``.
    """
    try:
        os.link(temporary, target)
    except FileExistsError:
        raise
    except OSError:
        # No hard links here (FAT, some network drives).
        if os.name == "nt":
            temporary.rename(target)  # on Windows this fails if the target exists
            return
        try:
            os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666))
        except FileExistsError as error:
            raise FileExistsError(error.errno, error.strerror, str(temporary), None, str(target)) from error
        try:
            temporary.replace(target)
        except BaseException:
            target.unlink(missing_ok=True)
            raise


def _numbered(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    """Take name.png, else name_2.png, else name_3.png ..."""
    with os.scandir(folder) as entries:
        taken = {entry.name.casefold() for entry in entries}
    for number in range(1, _MAX_NUMBER):
        target = folder / (f"{stem}{suffix}" if number == 1 else f"{stem}_{number}{suffix}")
        if target.name.casefold() in taken:
            continue
        with suppress(FileExistsError):  # another process was faster
            _publish(temporary, target)
            return target
    raise PhotoWriteError(f"{folder} is full of photos called {stem}", hint="Choose another name or folder.")


def _over(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    target = folder / f"{stem}{suffix}"
    temporary.replace(target)
    return target


def _only_new(temporary: Path, folder: Path, stem: str, suffix: str) -> Path:
    target = folder / f"{stem}{suffix}"
    _publish(temporary, target)
    return target


PLACERS: dict[str, Callable[[Path, Path, str, str], Path]] = {
    "number": _numbered,
    "overwrite": _over,
    "refuse": _only_new,
}
