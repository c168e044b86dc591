"""Stage outputs on disk: a record per key, and blobs by content.

``records/ab/<key>.json`` lists a stage's outputs, with those in it that are short; ``blobs/cd/<sha256>`` holds the
bytes of the others, ``stages/<id>.json`` the parts of the keys that the stages of a run last had, to say why they run
again. Blobs are written first and the record last, each through
a temporary file, so that a kill at any moment leaves either a whole entry or none. What is read is checked against
its digest; what does not match is set aside and made again. Two processes may use one folder: whatever one of them
deletes under the other's hands is made again, too.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import stat
import time
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import CacheError
from photokeep_nodes.files import TEMPORARY_PREFIX, write_atomically

from .artefact import KINDS

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping
    from pathlib import Path

    from .artefact import Kind

_LOW_WATER = 0.8  # eviction goes this far below the limit, so that it does not run after every stage
_WORTH_WAITING_S = 0.05
SHORT_BYTES = 4096
"""Up to this length a stored output that is text stands in its record."""

_STALE_S = 3600.0  # a blob without a record, or a temporary file, of this age belongs to no writer that is still alive


@dataclass(frozen=True)
class StoredOutput:
    """One output of a stage.

    Attributes:
        kind: how its blob is decoded.
        digest: what downstream keys name it by.
        blob: sha256 of its bytes.
        size_bytes: length of the blob.
        text: the bytes themselves where they are short; None where they are a file of their own.
    """

    kind: Kind
    digest: str
    blob: str
    size_bytes: int
    text: str | None = None


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
    """What a stage left behind under one key.

    Attributes:
        outputs: in order.
        files: what it wrote.
        seconds: time it took.
        peak_bytes: highest memory in use while it ran; 0 where it was not noted.
        created: when, in seconds since 1970.
    """

    outputs: tuple[StoredOutput, ...]
    files: tuple[StoredFile, ...] = ()
    seconds: float = 0.0
    peak_bytes: int = 0
    created: float = field(default_factory=time.time)

    def blobs(self) -> Iterator[tuple[str, int]]:
        """(sha256, length) of every file the record needs."""
        yield from ((output.blob, output.size_bytes) for output in self.outputs if output.text is None)
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
        self._known_bytes: int | None = None  # as last counted, and written since: counting walks the whole folder
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
        """The record under ``key``; also marks it as used.

        Its blobs may have been evicted: what a record says is enough for every stage that need not run.
        """
        path = self._record_path(key)
        try:
            record = _parse(path.read_bytes())
        except FileNotFoundError:
            return None
        except (OSError, ValueError, TypeError, KeyError, RecursionError):
            self._quarantine(path)
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
        # Everything is checked when it is read. A loss of power costs what was not on the disk yet, so what took no
        # longer to make than to wait for the disk is not waited for.
        durable = record.seconds >= _WORTH_WAITING_S
        try:
            for blob, data in blobs.items():
                path = self._blob_path(blob)
                if path.is_file() and path.stat().st_size == len(data):
                    self._touch(path)  # so that an eviction that runs now sees that it is wanted again
                else:
                    write_atomically(path, data, private=True, durable=durable)
                    self._known_bytes = None if self._known_bytes is None else self._known_bytes + len(data)
            text = json.dumps(_as_json(record)).encode()
            write_atomically(self._record_path(key), text, private=True, durable=durable)
        except OSError as error:
            raise CacheError(
                f"the stage cache {self.root} cannot be written: {error.strerror or error}",
                hint="Free some space, name another folder with --cache-dir, or run with --no-cache.",
            ) from error

    def has(self, blob: str) -> bool:
        """Whether a blob is there; ``read`` may still find it damaged."""
        return self._blob_path(blob).is_file()

    def value(self, output: StoredOutput) -> bytes:
        """Bytes of a stored output, checked.

        Raises:
            CacheError: they are gone or damaged.
        """
        if output.text is None:
            return self.read(output.blob)
        data = output.text.encode("utf-8", "surrogatepass")
        if hashlib.sha256(data).hexdigest() != output.blob:
            raise CacheError("a stored output is damaged")
        return data

    def read(self, blob: str) -> bytes:
        """Bytes of a blob, checked.

        Raises:
            CacheError: it is gone or damaged; a damaged one is set aside.
        """
        path = self._blob_path(blob)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise CacheError("a stored output is no longer there") from error
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

    def last_parts(self, run: str) -> dict[str, dict[str, Any]]:
        """Parts of the keys that the stages of a run had when they last ran, by stage.

        Args:
            run: any text that names the workflow and the photo.
        """
        path = self._stage_path(run)
        try:
            parts = json.loads(path.read_bytes())
        except (OSError, ValueError, RecursionError):
            return {}
        self._touch(path)
        return {name: each for name, each in parts.items() if isinstance(each, dict)} if isinstance(parts, dict) else {}

    def remember_parts(self, run: str, parts: Mapping[str, Mapping[str, Any]]) -> None:
        """Keep the parts of the keys of a run's stages for the next ``last_parts``."""
        try:
            write_atomically(self._stage_path(run), json.dumps(parts).encode(), private=True, durable=False)
        except OSError:
            return  # only the explanation suffers

    def _stage_path(self, stage: str) -> Path:
        name = hashlib.sha256(stage.encode("utf-8", "surrogatepass")).hexdigest()[:32]
        return self.root / "stages" / f"{name}.json"

    def size_bytes(self) -> int:
        """Bytes on disk."""
        return sum(file.size_bytes for file in self._files())

    def _files(self) -> list[_File]:
        found = []
        for path in self.root.rglob("*"):
            try:
                info = path.lstat()
            except OSError:
                continue  # another process was faster
            if stat.S_ISREG(info.st_mode):
                found.append(_File(path, info.st_size, info.st_mtime))
        return found

    def evict(self) -> int:
        """Delete the least recently used outputs if the folder is over its limit, and what belongs to no stage.

        Records, which are small, go last: as long as they are there, a batch larger than the cache is still resumed,
        and only what a stage that runs really reads has to be made again.

        Returns:
            Bytes freed.
        """
        if self._known_bytes is not None and self._known_bytes <= self.limit_bytes:
            return 0
        started = time.time()
        files = self._files()
        total = sum(file.size_bytes for file in files)
        self._known_bytes = total
        if total <= self.limit_bytes:
            return 0
        goal = total - int(self.limit_bytes * _LOW_WATER)
        folders = {name: self.root / name for name in ("records", "blobs", "quarantine", "stages")}
        by_folder = {
            name: sorted((file for file in files if folder in file.path.parents), key=lambda file: file.used)
            for name, folder in folders.items()
        }
        records = [file for file in by_folder["records"] if file.path.suffix == ".json"]
        # Oldest first, so that what stays is when each blob's latest record was used.
        wanted = {blob: record.used for record in records for blob in _blobs_of(record.path)}

        freed = sum(_delete(file) for file in by_folder["quarantine"])
        for file in files:
            orphan = folders["blobs"] in file.path.parents and file.path.name not in wanted
            if (orphan or file.path.name.startswith(TEMPORARY_PREFIX)) and file.used < started - _STALE_S:
                freed += _delete(file)
        kept = [file for file in by_folder["blobs"] if file.path.name in wanted]
        for blob in sorted(kept, key=lambda file: wanted[file.path.name]):
            if freed >= goal:
                break
            freed += _delete(blob, unless_used_since=started)
        newest = 0.0
        for record in records:
            if freed >= goal:
                break
            freed += _delete(record)
            newest = record.used
        # Why a stage would run again is not worth keeping for longer than what it made.
        freed += sum(_delete(file) for file in by_folder["stages"] if file.used < newest)
        self._known_bytes = total - freed
        return freed


@dataclass(frozen=True)
class _File:
    """A file of the store as it was found; ``used`` is its own last-used stamp."""

    path: Path
    size_bytes: int
    used: float


def _delete(file: _File, *, unless_used_since: float | None = None) -> int:
    """Bytes freed by deleting a file: none if it cannot be, or is gone."""
    try:
        if unless_used_since is not None and file.path.stat().st_mtime >= unless_used_since:
            return 0
        file.path.unlink()
    except OSError:
        return 0
    return file.size_bytes


def short_text(data: bytes) -> str | None:
    """The text a stored output is, if it is short and is one."""
    if len(data) > SHORT_BYTES:
        return None
    try:
        return data.decode("ascii")
    except UnicodeDecodeError:
        return None


def _as_json(record: Record) -> dict[str, Any]:
    return {
        "outputs": [
            {name: value for name, value in vars(each).items() if value is not None} for each in record.outputs
        ],
        "files": [asdict(each) for each in record.files],
        "seconds": record.seconds,
        "peak_bytes": record.peak_bytes,
        "created": record.created,
    }


def _parse(data: bytes) -> Record:
    """Read a record.

    Raises:
        ValueError, TypeError, KeyError, RecursionError: it is none; nothing in it is trusted.
    """
    raw = json.loads(data)
    record = Record(
        outputs=tuple(StoredOutput(**output) for output in raw["outputs"]),
        files=tuple(StoredFile(**file) for file in raw["files"]),
        seconds=float(raw["seconds"]),
        peak_bytes=raw.get("peak_bytes", 0),  # records of earlier versions have none
        created=float(raw["created"]),
    )
    if type(record.peak_bytes) is not int:
        raise ValueError("a record must give memory in bytes")
    for blob, size in record.blobs():
        if re.fullmatch(r"[0-9a-f]{64}", blob) is None or type(size) is not int:
            raise ValueError("a record must name blobs by sha256 and give their lengths")
    for output in record.outputs:
        if output.kind not in KINDS or not isinstance(output.digest, str):
            raise ValueError("a record must say how its outputs are read")
        if output.text is not None and not isinstance(output.text, str):
            raise ValueError("what stands in a record must be text")
    if not all(isinstance(file.name, str) for file in record.files):
        raise ValueError("a record must name its files")
    return record


def _blobs_of(path: Path) -> set[str]:
    try:
        return {blob for blob, _ in _parse(path.read_bytes()).blobs()}
    except (OSError, ValueError, TypeError, KeyError, RecursionError):
        return set()
