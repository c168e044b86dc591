"""Small JSON files in the per-user data folder: what was agreed to, which digests were seen first.

Each is a dict of entries by name, written whole or not at all. A damaged one counts as empty, and is said to be.
"""

from __future__ import annotations

import json
import logging
from typing import TYPE_CHECKING

from . import host
from .files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

Entry = dict[str, str]

_MAX_BYTES = 16 * 2**20
_log = logging.getLogger(__name__)


class UserRecords:
    """One such file.

    Args:
        filename: its name in the data folder, which is looked up at each use.
    """

    def __init__(self, filename: str) -> None:
        self._filename = filename

    @property
    def path(self) -> Path:
        """Where it lies, or would."""
        return host.data_dir() / self._filename

    def all(self) -> dict[str, Entry]:
        """Every entry; none where there is no file, or a damaged one."""
        try:
            if self.path.stat().st_size > _MAX_BYTES:
                raise ValueError("too large")
            known = json.loads(self.path.read_text(encoding="utf-8"))
            if not isinstance(known, dict):
                raise TypeError("no entries")
        except FileNotFoundError:
            return {}
        except (OSError, ValueError, TypeError, RecursionError) as error:
            _log.warning("%s cannot be read, and counts as empty: %s", self.path, error)
            return {}
        return {name: entry for name, entry in known.items() if _is_entry(entry)}

    def get(self, name: str) -> Entry | None:
        """The entry of that name, or None."""
        return self.all().get(name)

    def put(self, entries: Mapping[str, Entry]) -> None:
        """Add or replace entries; others stay, also those that another process adds at the same time.

        Raises:
            OSError: the folder cannot be written.
        """
        self._change(lambda known: known | dict(entries))

    def drop(self, name: str) -> None:
        """Forget one entry, if it is there.

        Raises:
            OSError: the folder cannot be written.
        """
        self._change(lambda known: {each: entry for each, entry in known.items() if each != name})

    def _change(self, change: Callable[[dict[str, Entry]], dict[str, Entry]]) -> None:
        import filelock

        self.path.parent.mkdir(parents=True, exist_ok=True)
        with filelock.FileLock(self.path.with_name(f".{self._filename}.lock"), timeout=30):
            changed = change(self.all())
            write_atomically(self.path, json.dumps(changed, indent=2, ensure_ascii=False).encode())


def _is_entry(value: object) -> bool:
    return isinstance(value, dict) and all(isinstance(part, str) for pair in value.items() for part in pair)
