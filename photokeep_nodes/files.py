"""Files as bytes: digests and writes that are whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

TEMPORARY_PREFIX = ".photokeep-tmp-"
"""How the names of files begin that are being written, or were when the machine went down."""


def sha256_of(path: Path, *, on_bytes: Callable[[int], None] | None = None) -> str:
    """Digest of a file's bytes.

    Args:
        path: the file.
        on_bytes: told how many more bytes were read, as they are.
    """
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while chunk := stream.read(1 << 20):
            digest.update(chunk)
            if on_bytes is not None:
                on_bytes(len(chunk))
    return digest.hexdigest()


def existing_parent(path: Path) -> Path:
    """The nearest folder at or above ``path`` that is there."""
    return next(each for each in (path, *path.absolute().parents) if each.exists())


def write_atomically(path: Path, data: bytes, *, private: bool = False, durable: bool = True) -> None:
    """Write ``data`` so that ``path`` holds either its old or its new content, whatever happens.

    Folders on the way are made. A new file has the permissions that any program's new file would have there. What is
    no regular file, such as a pipe or ``/dev/stdout``, is written to and not replaced.

    Args:
        path: where to.
        data: what.
        private: let nobody but the user read it.
        durable: wait until it is on the disk. Without, a loss of power soon after may leave an empty or shorter file;
            for what is checked when it is read, and soon made again.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    if path.exists() and not path.is_file():
        path.write_bytes(data)
        return
    temporary = _temporary(path)
    try:
        with os.fdopen(_created(temporary, private=private), "wb") as stream:
            stream.write(data)
            if durable:
                stream.flush()
                os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise


def _temporary(path: Path) -> Path:
    # Not tempfile: its files are private to the user, and results and shared model folders are for others, too.
    return path.parent / f"{TEMPORARY_PREFIX}{secrets.token_hex(8)}"


def _created(temporary: Path, *, private: bool) -> int:
    """Descriptor of a new file; folders on the way are made."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_BINARY", 0)
    mode = 0o600 if private else 0o666
    try:
        return os.open(temporary, flags, mode)
    except FileNotFoundError:
        temporary.parent.mkdir(parents=True, exist_ok=True)
        return os.open(temporary, flags, mode)


@contextlib.contextmanager
def replacing(path: Path, *, private: bool = False) -> Iterator[Path]:
    """Let the body write an empty file beside ``path``, which takes its place when the body ends without an error.

    The body may also replace it; permissions are as of ``write_atomically`` either way.

    Raises:
        OSError: it could not be written; nothing of it is left.
    """
    temporary = _temporary(path)
    try:
        descriptor = _created(temporary, private=private)
        mode = os.fstat(descriptor).st_mode
        os.close(descriptor)
        yield temporary
        # The body may have put a file of its own there: safetensors does, and makes it private.
        if temporary.stat().st_mode != mode:
            temporary.chmod(stat.S_IMODE(mode))
        with temporary.open("rb+") as stream:
            os.fsync(stream.fileno())
        temporary.replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink()
        raise
