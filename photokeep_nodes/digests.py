"""Digests of weight files: those already taken, and those that a file has to have.

A large file is hashed once and remembered by path, size, time and inode. Where no publisher states a digest, that of
the first file that was fetched or loaded is pinned; imported files are pinned as they were written.
"""

from __future__ import annotations

import contextlib
import json
from datetime import datetime, timezone
from typing import TYPE_CHECKING

from . import host
from .files import sha256_of, write_atomically
from .user_records import UserRecords

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pins = UserRecords("pins.json")
"""The digests that were seen first: by model and file name, or by path for imported files."""


def digest(path: Path, *, rehash: bool = False, on_bytes: Callable[[int], None] | None = None) -> str:
    """sha256 of a file, from memory where it has not changed since.

    Args:
        path: the file.
        rehash: read it in any case.
        on_bytes: told how many more bytes were read, as they are.
    Raises:
        OSError: it cannot be read.
    """
    taken = None if rehash else known(path)
    if taken is not None:
        return taken
    before = _stamp(path)
    found = sha256_of(path, on_bytes=on_bytes)
    if _stamp(path) == before:  # else what was read is not what lies there now
        remember(path, found)
    return found


def known(path: Path) -> str | None:
    """sha256 of a file if it is there, and was taken since it last changed; reads nothing of it."""
    entry = _read().get(str(path))
    with contextlib.suppress(OSError):
        if isinstance(entry, list) and len(entry) == 4 and entry[:3] == _stamp(path) and isinstance(entry[3], str):
            return entry[3]
    return None


def remember(path: Path, digest: str) -> None:
    """Keep the digest of a file as it is now; losing it only costs time."""
    memo = _read()
    memo[str(path)] = [*_stamp(path), digest]
    with contextlib.suppress(OSError):  # a read-only cache is no reason to refuse work
        write_atomically(_memo_path(), json.dumps(memo, indent=0).encode())


def pinned(name: str) -> str:
    """The digest that was seen first under this name, or ""."""
    return (pins.get(name) or {}).get("sha256", "")


def pin(name: str, digest: str) -> None:
    """Remember a digest as the right one; where the folder cannot be written it is taken anew each time."""
    if pinned(name) == digest:
        return
    with contextlib.suppress(OSError):
        repin(name, digest)


def repin(name: str, digest: str) -> None:
    """Remember a digest as the right one from now on.

    Raises:
        OSError: the folder cannot be written.
    """
    now = datetime.now(timezone.utc).isoformat(timespec="seconds")
    pins.put({name: {"sha256": digest, "since": now}})


def _memo_path() -> Path:
    return host.cache_dir() / "digests.json"


def _stamp(path: Path) -> list[int]:
    info = path.stat()
    return [info.st_size, info.st_mtime_ns, info.st_ino]


def _read() -> dict[str, object]:
    try:
        known = json.loads(_memo_path().read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
