"""One file of a zip archive: where it lies, and how it is unpacked; nothing is ever written where an archive says.

What is asked for is read through a window, so that of an archive on a server only its list of files is fetched.
"""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, BinaryIO

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator

_MOST_BYTES = 8 << 20
"""No more of an archive is read to find a file: lists of files are smaller, and a hostile one is not taken in."""
_AT_ONCE = 1 << 16
_LOCAL_HEADER = struct.Struct("<4s22xHH")
_ENCRYPTED = 0x1


class ArchiveError(Exception):
    """The archive is damaged, hostile, or does not hold what it should."""


@dataclass(frozen=True)
class Place:
    """Where one file lies in an archive.

    Attributes:
        start: its first byte, counted from the archive's.
        packed_bytes: how many bytes of the archive it takes.
        size_bytes: its size unpacked, as the archive says.
        deflated: whether it is compressed.
    """

    start: int
    packed_bytes: int
    size_bytes: int
    deflated: bool


class _Window(io.RawIOBase):
    """A file that is read in pieces from elsewhere, each once."""

    def __init__(self, read_at: Callable[[int, int], bytes], total_bytes: int) -> None:
        super().__init__()
        self._read_at = read_at
        self._total = total_bytes
        self._at = 0
        self._asked = 0
        self._held = (0, b"")

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._at

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        at = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._at, io.SEEK_END: self._total}[whence]
        if at < 0:
            raise OSError("before the beginning")
        self._at = at
        return at

    def read(self, size: int | None = -1) -> bytes:
        size = self._total if size is None or size < 0 else size
        data = self._between(self._at, min(self._total, self._at + size))
        self._at += len(data)
        return data

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def _between(self, start: int, stop: int) -> bytes:
        if stop <= start:
            return b""
        first, held = self._held
        if not first <= start <= stop <= first + len(held):
            # A little more on both sides: lists are read in small steps, from the end.
            first, last = max(0, min(start, stop - _AT_ONCE)), min(self._total, max(stop, start + _AT_ONCE))
            self._asked += last - first
            if self._asked > _MOST_BYTES:
                raise ArchiveError("its list of files is larger than any such list should be")
            held = self._read_at(first, last)
            self._held = (first, held)
        return held[start - first : stop - first]


def locate(read_at: Callable[[int, int], bytes], total_bytes: int, member: str) -> Place:
    """Find a file in an archive.

    Args:
        read_at: gives the archive's bytes from one position up to another, all of them; its own errors are let through
            unless they are OSErrors.
        total_bytes: size of the archive.
        member: path of the file inside.
    Raises:
        ArchiveError: it is no archive, is damaged, or holds no such file, or in a form that is not read.
    """
    window = _Window(read_at, total_bytes)
    try:
        with zipfile.ZipFile(window) as archive:
            info = archive.getinfo(member)
    except KeyError:
        raise ArchiveError(f"it holds no {member}") from None
    # What zipfile raises of a hostile list of files is not documented.
    except (
        zipfile.BadZipFile,
        OSError,
        ValueError,
        NotImplementedError,
        struct.error,
        OverflowError,
        MemoryError,
    ) as error:
        raise ArchiveError(f"it is no zip archive, or damaged: {str(error) or type(error).__name__}") from error
    if info.flag_bits & _ENCRYPTED:
        raise ArchiveError(f"{member} is encrypted in it")
    if info.compress_type not in {zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED}:
        raise ArchiveError(f"{member} is compressed in it by a method that is not read ({info.compress_type})")
    deflated = info.compress_type == zipfile.ZIP_DEFLATED
    window.seek(max(0, info.header_offset))
    header = window.read(_LOCAL_HEADER.size)
    if info.header_offset < 0 or len(header) < _LOCAL_HEADER.size or not header.startswith(b"PK\3\4"):
        raise ArchiveError(f"{member} is not where its list of files says")
    _, name_bytes, extra_bytes = _LOCAL_HEADER.unpack(header)
    start = info.header_offset + _LOCAL_HEADER.size + name_bytes + extra_bytes
    if (
        not info.compress_size
        or start + info.compress_size > total_bytes
        or (not deflated and info.compress_size != info.file_size)
    ):
        raise ArchiveError(f"its list of files contradicts itself about {member}")
    return Place(start, info.compress_size, info.file_size, deflated)


def unpack(packed: Iterable[bytes], limit_bytes: int) -> Iterator[bytes]:
    """Unpack deflated data, piece by piece.

    Args:
        packed: the data, piece by piece.
        limit_bytes: no more than this is unpacked, whatever the archive says.
    Raises:
        ArchiveError: damaged, cut short or longer than that.
    """
    engine = zlib.decompressobj(-zlib.MAX_WBITS)
    done = 0
    try:
        for chunk in packed:
            left = chunk
            while left and not engine.eof:
                piece = engine.decompress(left, _AT_ONCE)
                left = engine.unconsumed_tail
                done += len(piece)
                if done > limit_bytes:
                    raise ArchiveError(f"it unpacks to more than {limit_bytes} bytes")
                yield piece
        rest = engine.flush()
    except zlib.error as error:
        raise ArchiveError(f"what is packed in it is damaged: {error}") from error
    if not engine.eof:
        raise ArchiveError("what is packed in it is damaged: it ends too early")
    if done + len(rest) > limit_bytes:
        raise ArchiveError(f"it unpacks to more than {limit_bytes} bytes")
    yield rest


def pieces(stream: BinaryIO, size_bytes: int = -1) -> Iterator[bytes]:
    """What is left in a file, or so many bytes of it."""
    while size_bytes and (chunk := stream.read(_AT_ONCE if size_bytes < 0 else min(_AT_ONCE, size_bytes))):
        yield chunk
        size_bytes -= len(chunk) if size_bytes > 0 else 0


def extract(archive: BinaryIO, place: Place, limit_bytes: int) -> Iterator[bytes]:
    """One file of an archive that is here, piece by piece.

    Raises:
        ArchiveError: damaged, or longer than ``limit_bytes``.
    """
    if place.size_bytes > limit_bytes:
        raise ArchiveError(f"it holds {place.size_bytes} bytes, more than the {limit_bytes} there should be")
    archive.seek(place.start)
    packed = pieces(archive, place.packed_bytes)
    yield from unpack(packed, limit_bytes) if place.deflated else packed
