"""The file that remembers what the pool learns. Whatever is wrong with it, the pool works on without.

SQLite, because several processes write at once. It keeps its rollback journal: write-ahead logging needs shared memory
beside the file, which network folders do not give, and cannot be read in a folder that may not be written. Each access
opens the file anew, so that nothing of it crosses a fork.
"""

from __future__ import annotations

import contextlib
import json
import logging
import sqlite3
from contextlib import closing
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

T = TypeVar("T")

_log = logging.getLogger(__name__)

SCHEMA_VERSION = 1
BUSY_TIMEOUT_S = 0.25
"""Longest wait for another process; what could not be written is tried again with the next."""

_SCHEMA = f"""
CREATE TABLE sizes (
    model TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL, dtype TEXT NOT NULL, device TEXT NOT NULL,
    times INTEGER NOT NULL, seen_at REAL NOT NULL,
    refused_bytes INTEGER NOT NULL DEFAULT 0, refused_at REAL NOT NULL DEFAULT 0,
    PRIMARY KEY (model, height, width, dtype, device)
);
CREATE TABLE calls (
    number INTEGER PRIMARY KEY AUTOINCREMENT,
    model TEXT NOT NULL, height INTEGER NOT NULL, width INTEGER NOT NULL, dtype TEXT NOT NULL, device TEXT NOT NULL,
    peak_bytes INTEGER NOT NULL
);
CREATE INDEX calls_by_size ON calls (model, height, width, dtype, device);
CREATE TABLE notes (name TEXT PRIMARY KEY, data TEXT NOT NULL);
PRAGMA user_version = {SCHEMA_VERSION};
"""


class Keep:
    """One SQLite file, opened for each access.

    Args:
        path: made when there is something to write.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._warned = False

    def read(self, query: Callable[[sqlite3.Connection], T]) -> T | None:
        """What ``query`` finds in the file, or None: there is no file, or it cannot be read."""
        return self._tried(query, writes=False)

    def write(self, change: Callable[[sqlite3.Connection], None]) -> bool:
        """Carry out ``change`` as one transaction.

        Returns:
            Whether it is in the file.
        """

        def apply(connection: sqlite3.Connection) -> bool:
            change(connection)
            return True

        return self._tried(apply, writes=True) is True

    def write_note(self, name: str, data: dict[str, Any]) -> None:
        """Keep JSON-able ``data`` under ``name``."""
        text = json.dumps(data)
        self.write(lambda connection: _put_note(connection, name, text))

    def read_note(self, name: str) -> dict[str, Any] | None:
        """What `write_note` kept, or None."""

        def query(connection: sqlite3.Connection) -> dict[str, Any] | None:
            row = connection.execute("SELECT data FROM notes WHERE name = ?", (name,)).fetchone()
            found = None if row is None else json.loads(row[0])
            return found if isinstance(found, dict) else None

        return self.read(query)

    def _tried(self, task: Callable[[sqlite3.Connection], T], *, writes: bool) -> T | None:
        for _ in range(2):  # the second time on a new file, where the old one was damaged
            opened: tuple[int, int] | None = None
            try:
                opened = self._identity()
                if opened is None and not writes:
                    return None
                return self._carried_out(task, writes=writes)
            except (sqlite3.OperationalError, OSError) as error:  # locked, read-only, no space, not to be opened
                self._warn(error)
                return None
            except (sqlite3.DatabaseError, ValueError, TypeError) as error:  # not a database, or damaged inside
                self._warn(error)
                self._move_aside(opened)
        return None

    def _carried_out(self, task: Callable[[sqlite3.Connection], T], *, writes: bool) -> T | None:
        if writes:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        # A reader must not create it, but may have to roll back what a killed process left half written; where the file
        # may not be written, SQLite takes "rw" for reading only.
        address = f"{self.path.absolute().as_uri()}?mode={'rwc' if writes else 'rw'}"
        connection = sqlite3.connect(address, uri=True, timeout=BUSY_TIMEOUT_S, isolation_level=None)
        with closing(connection):
            connection.execute("BEGIN IMMEDIATE" if writes else "BEGIN")
            (version,) = connection.execute("PRAGMA user_version").fetchone()
            if version > SCHEMA_VERSION:
                raise sqlite3.OperationalError(f"it was written by a newer photokeep (version {version})")
            if version < SCHEMA_VERSION:
                if not writes:
                    return None
                for statement in _SCHEMA.split(";"):  # not executescript, which commits first
                    connection.execute(statement)
            result = task(connection)
            connection.execute("COMMIT")
            return result

    def _identity(self) -> tuple[int, int] | None:
        """Which file this is, or None if there is none."""
        try:
            found = self.path.stat()
        except FileNotFoundError:
            return None
        return found.st_dev, found.st_ino

    def _move_aside(self, damaged: tuple[int, int] | None) -> None:
        """Keep a damaged file for whoever wants to look at it, and begin anew with the next access."""
        with contextlib.suppress(OSError):
            if self._identity() == damaged:  # else another process was quicker, and this is a good one
                self.path.replace(self.path.with_name(f"{self.path.name}.damaged"))
                # Left behind, it would be played back into the new file.
                self.path.with_name(f"{self.path.name}-journal").unlink(missing_ok=True)

    def _warn(self, error: Exception) -> None:
        if not self._warned:
            self._warned = True
            _log.warning("what the models' memory use teaches is not kept, because of %s: %s", self.path, error)


def _put_note(connection: sqlite3.Connection, name: str, text: str) -> None:
    connection.execute("INSERT OR REPLACE INTO notes (name, data) VALUES (?, ?)", (name, text))
