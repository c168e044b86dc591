"""Fetch a file over HTTP: it appears under its name whole and with the right digest, or not at all.

What has come when a transfer breaks off stays beside the target as ``NAME.part``, and the next one, of this process or
another, asks for the rest only. Mirrors are tried in order, also when an address sends other bytes. Of an archive only
the list of its files and the one that is wanted are asked for. requests fetches, urllib3's Retry counts attempts and
waits between them; going on with half a file is our own, because none of pooch, requests and huggingface_hub's public
functions does it for an address of one's own.
"""

from __future__ import annotations

import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .attempts import (
    PROGRESS_BYTES,
    BusyError,
    CutShortError,
    Listener,
    OtherBytesError,
    Patience,
    RefusedError,
    Silent,
    persist,
)
from .errors import WeightsCorruptError, WeightsDownloadError, WeightsFormatError
from .partial_file import PartialFile, kept_bytes, packed_path
from .zip_member import ArchiveError, Place, locate, pieces, unpack

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests

__all__ = ["Listener", "Patience", "Silent", "Wanted", "download"]

_CHUNK_BYTES = 1 << 16
_LEAST_BYTES = 1 << 10
"""Less than this in the time a stall takes is a stall, too."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        target: where it is to lie.
        urls: its addresses, the publisher's first.
        size_bytes: its size.
        sha256: its digest, or empty where none is known.
        exact: whether the size is, and not just about right.
        member: its path inside the zip archive that lies at the first address; empty where the file itself lies there.
    """

    target: Path
    urls: tuple[str, ...]
    size_bytes: int
    sha256: str
    exact: bool = True
    member: str = ""

    @property
    def limit_bytes(self) -> int:
        """No more than this is ever written."""
        return self.size_bytes if self.exact else 2 * self.size_bytes + PROGRESS_BYTES


@dataclass(frozen=True)
class _Stretch:
    """Which of the bytes at an address are asked for.

    Attributes:
        url: the address.
        size_bytes: how many.
        limit_bytes: no more than this is written.
        exact: whether the size is, and not just about right.
        start: the first one.
        archive_bytes: size of the archive that they are a part of; None where they are the whole file.
    """

    url: str
    size_bytes: int
    limit_bytes: int
    exact: bool = True
    start: int = 0
    archive_bytes: int | None = None


def download(
    wanted: Wanted,
    *,
    listener: Listener | None = None,
    patience: Patience | None = None,
    check: Callable[[Path], None] | None = None,
) -> str:
    """Fetch a file; what an earlier attempt left is used.

    Args:
        wanted: what to fetch, and where to.
        listener: told how it goes.
        patience: with the server; None takes it from the environment.
        check: called with the whole file before it gets its name; a WeightsFormatError counts as other bytes.
    Returns:
        Its sha256.
    Raises:
        WeightsDownloadError: no address gave the whole file; what has come is kept.
        WeightsCorruptError: every address that answered sent other bytes; nothing is kept.
        OSError: the disk is full, or the folder cannot be written; what has come is kept.
    """
    return _Transfer(wanted, listener or Silent(), patience or Patience.from_environment(), check).run()


class _Transfer:
    """One file's way here: the state that attempts and addresses share."""

    def __init__(
        self, wanted: Wanted, listener: Listener, patience: Patience, check: Callable[[Path], None] | None
    ) -> None:
        self._wanted = wanted
        self._listener = listener
        self._patience = patience
        self._check = check
        self._part = PartialFile(wanted.target, lambda size: listener.reached(size, wanted.size_bytes))

    def run(self) -> str:
        import requests

        part, wanted = self._part, self._wanted
        part.take_up(wanted.limit_bytes)
        if part.size and part.digest == wanted.sha256:
            return self._place()  # all that was left to do was to give it its name
        if wanted.exact and part.size == wanted.size_bytes:
            part.discard()
        reasons: list[str] = []
        wrong = 0
        with requests.Session() as session:
            for index, url in enumerate(wanted.urls):
                try:
                    self._from(session, url, in_archive=bool(wanted.member) and index == 0)
                    return self._place()
                except RefusedError as error:
                    wrong += isinstance(error, OtherBytesError)
                    reasons.append(f"{url}: {error}")
                if url != wanted.urls[-1]:
                    self._listener.note(f"{reasons[-1]}; trying the next address")
        if wrong == len(reasons):
            raise WeightsCorruptError("\n".join(reasons), hint="Nothing was kept. Try again later.")
        here = kept_bytes(wanted.target)
        kept = f"{here / 1e6:.1f} MB are kept: the same command goes on from there." if here else ""
        raise WeightsDownloadError("\n".join(reasons), hint=kept, kept_bytes=here)

    def _place(self) -> str:
        if self._check is not None:
            try:
                self._check(self._part.path)
            except WeightsFormatError as error:
                self._part.discard()
                self._forget_packed()
                raise OtherBytesError(f"sent something else: {error.message}") from error
        self._part.place()
        self._forget_packed()
        return self._part.digest

    def _forget_packed(self) -> None:
        if self._wanted.member:
            self._packed(self._wanted.size_bytes).discard()

    # -- one address --------------------------------------------------------------------------------------------

    def _from(self, session: requests.Session, url: str, *, in_archive: bool) -> None:
        """Fetch the rest from one address.

        Raises:
            RefusedError: it does not have the file, or cannot be reached.
        """
        anew = False
        while True:
            if in_archive:
                wrong, joined = self._member(session, url)
            else:
                wrong, joined = self._whole(session, url)
            if not wrong:
                return
            if anew or not joined:
                raise OtherBytesError(wrong)
            self._listener.note("what was kept did not belong to this file; beginning anew")
            anew = True

    def _whole(self, session: requests.Session, url: str) -> tuple[str, bool]:
        """Fetch the rest of the file itself.

        Returns:
            What is wrong with it, or nothing, and whether it was made of several answers. What is wrong is not kept.
        """
        wanted = self._wanted
        self._fill(session, self._part, _Stretch(url, wanted.size_bytes, wanted.limit_bytes, wanted.exact))
        return self._judge(self._part.joined)

    def _judge(self, joined: bool) -> tuple[str, bool]:
        found = self._part.digest
        if not self._wanted.sha256 or found == self._wanted.sha256:
            return "", joined
        self._part.discard()
        return f"sent other bytes than the published file (sha256 {found})", joined

    def _fill(self, session: requests.Session, part: PartialFile, stretch: _Stretch) -> None:
        persist(lambda: self._attempt(session, part, stretch), self._patience, self._listener, lambda: part.size)

    def _attempt(self, session: requests.Session, part: PartialFile, stretch: _Stretch) -> None:
        if stretch.archive_bytes is not None and part.size == stretch.size_bytes:
            return  # there is no asking for nothing
        version = part.version(stretch.url)
        if version is None and not self._wanted.sha256:
            part.discard()  # nothing could tell whether the two halves are of one file
        inside = stretch.archive_bytes is not None
        headers = {"Accept-Encoding": "identity"}
        if part.size or inside:
            last = stretch.start + stretch.size_bytes - 1 if inside else ""
            headers["Range"] = f"bytes={stretch.start + part.size}-{last}"
            headers |= {"If-Range": version} if version and part.size else {}
        with self._get(session, stretch.url, headers) as response:
            self._begin(response, part, stretch)
            too_many = False
            with part.open() as stream:
                for chunk in self._chunks(response):
                    room = stretch.limit_bytes - part.size
                    too_many = len(chunk) > room
                    if not too_many or inside:  # what lies behind a part of an archive is none of ours
                        part.append(stream, chunk[:room])
                    if too_many:
                        break
        if too_many and not inside:
            part.discard()
            raise OtherBytesError(f"sent more than {stretch.limit_bytes} bytes")
        if stretch.exact and part.size < stretch.size_bytes:
            raise CutShortError("the transfer ended early")

    def _get(self, session: requests.Session, url: str, headers: dict[str, str]) -> requests.Response:
        """Ask; an answer that is none yet is an error."""
        stall_s = self._patience.stall_s
        response = session.get(url, headers=headers, stream=True, timeout=(stall_s, stall_s))
        if url.startswith("https:") and not response.url.startswith("https:"):
            response.close()
            raise RefusedError(f"leads to an address without encryption: {response.url}")
        if response.status_code in _BUSY:
            from urllib3.util import Retry

            wait_s = Retry(0).get_retry_after(response.raw)
            response.close()
            raise BusyError(f"HTTP {response.status_code} {response.reason}", response.raw, wait_s)
        return response

    def _begin(self, response: requests.Response, part: PartialFile, stretch: _Stretch) -> None:
        """Look at the head of an answer; afterwards the part is as long as where the body begins."""
        status, inside = response.status_code, stretch.archive_bytes is not None
        if status == 416 and (part.size or inside):
            part.discard()
            raise CutShortError("the server has no more of this file than is kept; beginning anew")
        if status == 206 and (part.size or inside):
            start, total = _content_range(response.headers.get("Content-Range", ""))
            expected = stretch.archive_bytes if inside else stretch.size_bytes
            if start != stretch.start + part.size or (stretch.exact and total not in {None, expected}):
                part.discard()
                raise CutShortError("the server sent another part than was asked for; beginning anew")
            if part.size:
                part.joined = True
            else:
                _keep_version(response, part, stretch.url)
            return
        if status == 200 and inside:
            # It did send parts when it was asked for the list of files: this is its way to say that it has changed.
            part.discard()
            raise CutShortError("the server sent the whole archive, and not the part that was asked for")
        if status != 200:
            raise RefusedError(f"HTTP {status} {response.reason}")
        announced = response.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() and len(announced) < 20 else None
        # Looked at before the part is thrown away: an error page must not cost what an earlier attempt brought.
        if stretch.exact and length not in {None, stretch.size_bytes}:
            raise OtherBytesError(f"sent other bytes: {length}, the published file has {stretch.size_bytes}")
        if length is not None and length > stretch.limit_bytes:
            raise OtherBytesError(f"sent other bytes: {length}, which is far more than the published file has")
        part.discard()
        _keep_version(response, part, stretch.url)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body, piece by piece as they come.

        Raises:
            CutShortError: next to nothing comes.
        """
        since, received = time.monotonic(), 0
        # Not iter_content: it waits for a whole chunk, and loses what came of it when the connection breaks.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            yield chunk
            received += len(chunk)
            now = time.monotonic()
            if now - since > self._patience.stall_s:
                if received < _LEAST_BYTES:
                    raise CutShortError(f"next to nothing came for {self._patience.stall_s:g} s")
                since, received = now, 0

    # -- a file in an archive -----------------------------------------------------------------------------------

    def _member(self, session: requests.Session, url: str) -> tuple[str, bool]:
        """Fetch the rest of the file out of an archive; returns as ``_whole`` does."""
        place, archive_bytes = self._place_in(session, url)
        stretch = _Stretch(url, place.packed_bytes, place.packed_bytes, start=place.start, archive_bytes=archive_bytes)
        if not place.deflated:
            self._fill(session, self._part, stretch)
            return self._judge(self._part.joined)
        packed = self._packed(place.packed_bytes)
        packed.take_up(place.packed_bytes)
        self._fill(session, packed, stretch)
        wrong = self._unpack(packed)
        joined = packed.joined
        if not wrong:
            wrong, joined = self._judge(joined)
        if wrong:
            packed.discard()
        return wrong, joined

    def _packed(self, packed_bytes: int) -> PartialFile:
        """Where what is compressed in the archive waits to be unpacked; it counts for what it will be."""
        size_bytes = self._wanted.size_bytes
        return PartialFile(
            packed_path(self._wanted.target),
            lambda size: self._listener.reached(size * size_bytes // packed_bytes, size_bytes),
        )

    def _unpack(self, packed: PartialFile) -> str:
        """Make the part of what is packed; returns what is wrong, or nothing."""
        part = self._part
        part.discard()
        whole = False
        try:
            with packed.path.open("rb") as source, part.open() as stream:
                for piece in unpack(pieces(source), self._wanted.limit_bytes):
                    part.append(stream, piece)
            whole = True
        except ArchiveError as error:
            return f"sent something else: {error}"
        finally:
            if not whole:
                part.discard()  # on a full disk the packed one is worth keeping, half of this is not
        return ""

    def _place_in(self, session: requests.Session, url: str) -> tuple[Place, int]:
        """Where the file lies in the archive at an address, and the size of that.

        Raises:
            RefusedError: the server does not send parts of files, or there is no such file.
        """
        total = 0

        def read_at(start: int, stop: int) -> bytes:
            nonlocal total
            data, total = persist(
                lambda: self._between(session, url, start, stop, total), self._patience, self._listener
            )
            return data

        # Not the last bytes, counted from the end: Azure, where GitHub keeps releases, does not know those.
        read_at(0, 1)
        try:
            place = locate(read_at, total, self._wanted.member)
        except ArchiveError as error:
            raise OtherBytesError(f"sent another archive: {error}") from error
        size_bytes = self._wanted.size_bytes
        if place.size_bytes > self._wanted.limit_bytes or (self._wanted.exact and place.size_bytes != size_bytes):
            raise OtherBytesError(
                f"sent another archive: its {self._wanted.member} has {place.size_bytes} bytes, the published one"
                f" {size_bytes}"
            )
        return place, total

    def _between(
        self, session: requests.Session, url: str, start: int, stop: int, expected_total: int
    ) -> tuple[bytes, int]:
        """Bytes of an archive, and the size of it."""
        headers = {"Accept-Encoding": "identity", "Range": f"bytes={start}-{stop - 1}"}
        with self._get(session, url, headers) as response:
            status = response.status_code
            if status == 200:
                raise RefusedError("the file lies in an archive there, and this server sends archives only as a whole")
            if status != 206:
                raise RefusedError(f"HTTP {status} {response.reason}")
            first, total = _content_range(response.headers.get("Content-Range", ""))
            if first != start or total is None or total != (expected_total or total):
                raise RefusedError("sent another part of the archive than was asked for")
            data = bytearray()
            for chunk in self._chunks(response):
                data += chunk
                if len(data) >= stop - start:
                    break
        if len(data) < stop - start:
            raise CutShortError("the transfer ended early")
        return bytes(data[: stop - start]), total


def _keep_version(response: requests.Response, part: PartialFile, url: str) -> None:
    etag = response.headers.get("ETag", "")
    if version := etag if etag.startswith('"') else response.headers.get("Last-Modified", ""):
        part.keep_version(url, version)


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Where a part begins, and how long the whole is; None for what is not said."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])
