"""Stage outputs on disk: a record per key, and blobs by content.

``records/ab/<key>.json`` lists a stage's outputs, ``blobs/cd/<sha256>`` holds their bytes, ``stages/<id>.json`` the
parts of the key a stage last had, to say why it runs again. Blobs are written first and the record last, each through
a temporary file, so that a kill at any moment leaves either a whole entry or none. What is read is checked against
its digest; what does not match is set aside and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any, cast

from photokeep_nodes.errors import CacheError
from photokeep_nodes.files import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .artefact import Kind

_LOW_WATER = 0.8  # eviction goes this far below the limit, so that it does not run after every stage


@dataclass(frozen=True)
class StoredOutput:
    """One output of a stage.

    Attributes:
        kind: how its blob is decoded.
        digest: what downstream keys name it by.
        blob: sha256 of its bytes.
        size_bytes: length of the blob.
    """

    kind: Kind
    digest: str
    blob: str
    size_bytes: int


@dataclass(frozen=True)
class StoredFile:
    """One file a stage wrote under the output folder.

    Attributes:
        name: path below the output folder.
        blob: sha256 of its bytes.
        size_bytes: its length.
    """

    name: str
    blob: str
    size_bytes: int


@dataclass(frozen=True)
class Record:
    """What a stage left behind under one key."""

    outputs: tuple[StoredOutput, ...]
    files: tuple[StoredFile, ...] = ()
    seconds: float = 0.0
    created: float = field(default_factory=time.time)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """(sha256, length) of everything the record needs."""
        yield from ((output.blob, output.size_bytes) for output in self.outputs)
        yield from ((file.blob, file.size_bytes) for file in self.files)


class Store:
    """A folder of stage outputs, safe to share between processes.

    Args:
        root: made if it does not exist, readable by its owner alone.
        limit_bytes: ``evict`` keeps the folder below it.
    Raises:
        CacheError: the folder cannot be made.
    """

    def __init__(self, root: Path, *, limit_bytes: int = 20 * 2**30) -> None:
        self.root = root
        self.limit_bytes = limit_bytes
        try:
            root.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise CacheError(
                f"the stage cache {root} cannot be made: {error.strerror or error}",
                hint="Name another folder with --cache-dir, or run with --no-cache.",
            ) from error

    def _record_path(self, key: str) -> Path:
        return self.root / "records" / key[:2] / f"{key}.json"

    def _blob_path(self, blob: str) -> Path:
        return self.root / "blobs" / blob[:2] / blob

    def get(self, key: str) -> Record | None:
        """The record under ``key``, if it and all its blobs are there; also marks it as used."""
        path = self._record_path(key)
        try:
            raw = json.loads(path.read_bytes())
            record = Record(
                outputs=tuple(StoredOutput(**output) for output in raw["outputs"]),
                files=tuple(StoredFile(**file) for file in raw["files"]),
                seconds=float(raw["seconds"]),
                created=float(raw["created"]),
            )
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError):
            self._quarantine(path)
            return None
        for blob, size in record.blobs():
            try:
                if self._blob_path(blob).stat().st_size != size:
                    self._quarantine(self._blob_path(blob))
                    return None
            except OSError:
                return None
        self._touch(path)
        return record

    @staticmethod
    def _touch(path: Path) -> None:
        try:
            os.utime(path)  # our own "last used": file systems no longer keep access times
        except OSError:
            return

    def put(self, key: str, record: Record, blobs: Mapping[str, bytes]) -> None:
        """Store a stage's outputs.

        Args:
            key: from ``stage_key``.
            record: names the blobs.
            blobs: sha256 to bytes.
        Raises:
            CacheError: the folder cannot be written.
        """
        try:
            for blob, data in blobs.items():
                path = self._blob_path(blob)
                if not (path.is_file() and path.stat().st_size == len(data)):
                    write_atomically(path, data)
            write_atomically(self._record_path(key), json.dumps(asdict(record)).encode())
        except OSError as error:
            raise CacheError(
                f"the stage cache {self.root} cannot be written: {error.strerror or error}",
                hint="Free some space, name another folder with --cache-dir, or run with --no-cache.",
            ) from error

    def read(self, blob: str) -> bytes:
        """Bytes of a blob, checked.

        Raises:
            CacheError: it is gone or damaged; a damaged one is set aside.
        """
        path = self._blob_path(blob)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CacheError(f"a stored output is gone: {error.strerror or error}") from error
        if hashlib.sha256(data).hexdigest() != blob:
            self._quarantine(path)
            raise CacheError("a stored output is damaged")
        return data

    def _quarantine(self, path: Path) -> None:
        aside = self.root / "quarantine"
        try:
            aside.mkdir(exist_ok=True)
            path.replace(aside / f"{path.name}.{time.time_ns()}")
        except OSError:
            return  # gone already, or not ours to move: it is not used either way

    def last_parts(self, stage: str) -> dict[str, Any] | None:
        """Parts of the key that a stage had when it last ran; ``stage`` is any text that names it."""
        try:
            return cast("dict[str, Any]", json.loads(self._stage_path(stage).read_bytes()))
        except (OSError, ValueError):
            return None

    def remember_parts(self, stage: str, parts: Mapping[str, Any]) -> None:
        """Keep the parts of a stage's key for the next ``last_parts``."""
        try:
            write_atomically(self._stage_path(stage), json.dumps(parts).encode())
        except OSError:
            return  # only the explanation suffers

    def _stage_path(self, stage: str) -> Path:
        return self.root / "stages" / f"{hashlib.sha256(stage.encode()).hexdigest()[:32]}.json"

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(path.stat().st_size for path in self.root.rglob("*") if path.is_file())

    def evict(self) -> int:
        """Delete the least recently used entries if the folder is over its limit.

        Returns:
            Bytes freed.
        """
        total = self.size_bytes()
        if total <= self.limit_bytes:
            return 0
        records = sorted((self.root / "records").rglob("*.json"), key=lambda path: path.stat().st_mtime)
        needed: dict[str, int] = {}
        sizes: dict[str, int] = {}
        contents: dict[Path, list[str]] = {}
        for path in records:
            try:
                raw = json.loads(path.read_bytes())
                blobs = {item["blob"]: int(item["size_bytes"]) for item in (*raw["outputs"], *raw["files"])}
            except (OSError, ValueError, KeyError, TypeError):
                blobs = {}
            contents[path] = list(blobs)
            sizes.update(blobs)
            for blob in blobs:
                needed[blob] = needed.get(blob, 0) + 1
        goal, freed = total - int(self.limit_bytes * _LOW_WATER), 0
        for path in records:
            if freed >= goal:
                break
            path.unlink(missing_ok=True)  # the record goes first: no reader is sent to a blob that is gone
            for blob in contents[path]:
                needed[blob] -= 1
                if needed[blob] == 0:
                    self._blob_path(blob).unlink(missing_ok=True)
                    freed += sizes[blob]
        return freed
