"""What cached stages had saved into the output folder: whether it is still there, and putting it back."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from photokeep_nodes.errors import CacheError
from photokeep_nodes.files import sha256_of, write_atomically

if TYPE_CHECKING:
    from pathlib import Path

    from .store import Record, Store, StoredFile


@dataclass(frozen=True)
class KeptFiles:
    """Files below one output folder, which is never left and in which no other file is touched."""

    output_dir: Path

    def put_back(self, store: Store, record: Record) -> tuple[Path, ...] | None:
        """Put back what a cached stage had saved.

        Returns:
            The paths, or None if one cannot be put back because another file has its name, or its bytes are gone.
        """
        for file in record.files:
            if self._in_place(file):
                continue
            if not self._restorable(store, file):
                return None
            try:
                write_atomically(self.output_dir / file.name, store.read(file.blob))
            except (OSError, CacheError):
                return None  # the stage itself then says what is wrong with the folder
        return tuple(self.output_dir / file.name for file in record.files)

    def can_be_put_back(self, store: Store, record: Record) -> bool:
        """Whether ``put_back`` would succeed, as far as can be seen without reading the store's blobs."""
        return all(self._in_place(file) or self._restorable(store, file) for file in record.files)

    def holds(self, path: Path) -> bool:
        """Whether a path lies below the folder, symbolic links followed."""
        return path.resolve().is_relative_to(self.output_dir.resolve())

    def _in_place(self, file: StoredFile) -> bool:
        """Whether the output folder holds exactly this file."""
        path = self.output_dir / file.name
        try:
            return self.holds(path) and path.stat().st_size == file.size_bytes and sha256_of(path) == file.blob
        except OSError:
            return False

    def _restorable(self, store: Store, file: StoredFile) -> bool:
        """Whether the file can be put back without touching another."""
        path = self.output_dir / file.name
        return self.holds(path) and not path.exists() and store.has(file.blob)
