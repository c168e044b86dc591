"""A file on its way: what has come of it lies beside its place until it is whole, and is gone on with later."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from typing import TYPE_CHECKING, BinaryIO

from .files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def part_path(target: Path) -> Path:
    """Where what has come of a file lies until it is whole."""
    return target.with_name(f"{target.name}.part")


def packed_path(target: Path) -> Path:
    """Where a file that lies compressed in an archive is to lie until it is unpacked."""
    return target.with_name(f"{target.name}.packed")


def kept_bytes(target: Path) -> int:
    """How much of a file an earlier transfer left, unpacked or packed."""
    return max(_size(part_path(target)), _size(part_path(packed_path(target))))


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except OSError:
        return 0


class PartialFile:
    """Grows by what is appended, knows its digest, and becomes the target in one step.

    Args:
        target: where the whole file is to lie.
        reached: told how many bytes are here, as they come.
    """

    def __init__(self, target: Path, reached: Callable[[int], None]) -> None:
        self.target = target
        self.path = part_path(target)
        self.size = 0
        self.joined = False
        """Whether it is made of more than one answer."""
        self._version_path = target.with_name(f"{target.name}.part.json")
        self._reached = reached
        self._sha256 = hashlib.sha256()

    @property
    def digest(self) -> str:
        """sha256 of what is here."""
        return self._sha256.hexdigest()

    def take_up(self, limit_bytes: int) -> None:
        """Hash what an earlier transfer left; what is larger than the file can be is thrown away."""
        if _size(self.path) > limit_bytes:
            self.discard()
        with contextlib.suppress(FileNotFoundError), self.path.open("rb") as stream:
            while chunk := stream.read(1 << 20):
                self._count(chunk)
        self.joined = self.size > 0

    def open(self) -> BinaryIO:
        """The file, to append to."""
        return self.path.open("ab")

    def append(self, stream: BinaryIO, chunk: bytes) -> None:
        """Add what has come."""
        stream.write(chunk)
        self._count(chunk)

    def _count(self, chunk: bytes) -> None:
        self._sha256.update(chunk)
        self.size += len(chunk)
        self._reached(self.size)

    def discard(self) -> None:
        """Begin anew."""
        for path in (self.path, self._version_path):
            path.unlink(missing_ok=True)
        self.size, self._sha256, self.joined = 0, hashlib.sha256(), False

    def place(self) -> None:
        """Give it its name."""
        with self.path.open("rb+") as stream:
            os.fsync(stream.fileno())
        self.path.replace(self.target)
        self._version_path.unlink(missing_ok=True)

    def keep_version(self, url: str, version: str) -> None:
        """Remember what a server calls the file that this is the beginning of."""
        with contextlib.suppress(OSError):
            write_atomically(self._version_path, json.dumps({"url": url, "version": version}).encode())

    def version(self, url: str) -> str | None:
        """What ``url`` called the file that this is the beginning of, or None."""
        try:
            kept = json.loads(self._version_path.read_text(encoding="utf-8"))
            version = str(kept["version"]) if kept["url"] == url else ""
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            return None
        return version if version and version.isprintable() else None
