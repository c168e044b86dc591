"""Fetch a file over HTTP: it appears under its name whole and with the right digest, or not at all.

What has come when a transfer breaks off stays beside the target as ``NAME.part``, and the next one, of this process or
another, asks for the rest only. Mirrors are tried in order, also when an address sends other bytes. requests fetches,
urllib3's Retry counts attempts and waits between them; going on with half a file is our own, because none of pooch,
requests and huggingface_hub's public functions does it for an address of one's own.
"""

from __future__ import annotations

import os
import re
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from .errors import UsageError, WeightsCorruptError, WeightsDownloadError, WeightsFormatError
from .partial_file import PartialFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import requests
    from urllib3.util import Retry

_CHUNK_BYTES = 1 << 16
_PROGRESS_BYTES = 1 << 20
"""An attempt that brought as much was worth it: the count of failures begins anew."""
_LEAST_BYTES = 1 << 10
"""Less than this in the time a stall takes is a stall, too."""
_BUSY = frozenset({408, 425, 429, 500, 502, 503, 504})
_MAX_WAIT_S = 120


@dataclass(frozen=True)
class Wanted:
    """A file to fetch.

    Attributes:
        target: where it is to lie.
        urls: its addresses, the publisher's first.
        size_bytes: its size.
        sha256: its digest, or empty where none is known.
        exact: whether the size is, and not just about right.
    """

    target: Path
    urls: tuple[str, ...]
    size_bytes: int
    sha256: str
    exact: bool = True

    @property
    def limit_bytes(self) -> int:
        """No more than this is ever written."""
        return self.size_bytes if self.exact else 2 * self.size_bytes + _PROGRESS_BYTES


@dataclass(frozen=True)
class Patience:
    """How long to wait for a server.

    Attributes:
        stall_s: seconds without a byte, or a connection, after which an attempt is given up.
        attempts: times an address is tried again in a row without getting on.
        backoff_s: seconds of the first wait between them; each further one is twice as long.
    """

    stall_s: float = 30.0
    attempts: int = 4
    backoff_s: float = 1.0

    @classmethod
    def from_environment(cls) -> Patience:
        """With ``PHOTOKEEP_DOWNLOAD_STALL`` (seconds) where it is set.

        Raises:
            UsageError: it is no number of seconds.
        """
        text = os.environ.get("PHOTOKEEP_DOWNLOAD_STALL") or "30"
        try:
            stall_s = float(text)
        except ValueError:
            stall_s = 0.0
        if not 0.05 <= stall_s <= 3600:
            raise UsageError(f"PHOTOKEEP_DOWNLOAD_STALL: {text!r} is no number of seconds from 0.05 to 3600")
        return cls(stall_s=stall_s)


class Listener(Protocol):
    """Is told how a transfer goes."""

    def reached(self, done: int, total: int) -> None:
        """``done`` of ``total`` bytes are here."""

    def note(self, text: str) -> None:
        """Something the user should know: another attempt, another address, a wait."""


class Silent:
    """A listener that says nothing."""

    def reached(self, done: int, total: int) -> None:
        """Say nothing."""

    def note(self, text: str) -> None:
        """Say nothing."""


class _CutShortError(Exception):
    """The transfer ended early; what came can be gone on with."""


class _RefusedError(Exception):
    """This address does not have the file; another may."""


class _OtherBytesError(_RefusedError):
    """This address sent something else than the file."""


class _BusyError(Exception):
    """The server asks to come again later."""

    def __init__(self, reason: str, response: Any, wait_s: float | None) -> None:
        super().__init__(reason)
        self.response = response
        self.wait_s = wait_s


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
            for url in wanted.urls:
                try:
                    self._from(session, url)
                    return self._place()
                except _RefusedError as error:
                    wrong += isinstance(error, _OtherBytesError)
                    reasons.append(f"{url}: {error}")
                if url != wanted.urls[-1]:
                    self._listener.note(f"{reasons[-1]}; trying the next address")
        if wrong == len(reasons):
            raise WeightsCorruptError("\n".join(reasons), hint="Nothing was kept. Try again later.")
        kept = f"{part.size / 1e6:.1f} MB are kept: the same command goes on from there." if part.size else ""
        raise WeightsDownloadError("\n".join(reasons), hint=kept, kept_bytes=part.size)

    def _place(self) -> str:
        if self._check is not None:
            try:
                self._check(self._part.path)
            except WeightsFormatError as error:
                self._part.discard()
                raise _OtherBytesError(f"sent something else: {error.message}") from error
        self._part.place()
        return self._part.digest

    # -- one address --------------------------------------------------------------------------------------------

    def _from(self, session: requests.Session, url: str) -> None:
        """Fetch the rest from one address, with as many attempts as get on and a few that do not.

        Raises:
            _RefusedError: it does not have the file, or cannot be reached.
        """
        import requests
        import urllib3

        part, wanted = self._part, self._wanted
        retry, most, anew = self._retry(), part.size, False
        while True:
            try:
                self._attempt(session, url)
            except (requests.TooManyRedirects, requests.exceptions.SSLError, ValueError) as error:
                # Nothing that time would mend; requests' errors about addresses are ValueErrors.
                raise _RefusedError(f"no connection: {str(error)[:200]}") from error
            except (requests.RequestException, urllib3.exceptions.HTTPError, _CutShortError, _BusyError) as error:
                if part.size - most >= _PROGRESS_BYTES:
                    retry, most = self._retry(), part.size
                retry = self._again(retry, error)
                continue
            if not wanted.sha256 or part.digest == wanted.sha256:
                return
            found, joined = part.digest, part.joined
            part.discard()
            if anew or not joined:
                raise _OtherBytesError(f"sent other bytes than the published file (sha256 {found})")
            self._listener.note("what was kept did not belong to this file; beginning anew")
            anew = True

    def _retry(self) -> Retry:
        from urllib3.util import Retry

        return Retry(total=self._patience.attempts, backoff_factor=self._patience.backoff_s, backoff_max=30)

    def _again(self, retry: Retry, error: Exception) -> Retry:
        """Wait before the next attempt.

        Raises:
            _RefusedError: there have been enough.
        """
        import urllib3

        reason = _reason(error, self._patience.stall_s)
        response, wait_s = (error.response, error.wait_s) if isinstance(error, _BusyError) else (None, None)
        if wait_s is not None and wait_s > _MAX_WAIT_S:
            raise _RefusedError(f"{reason}; it asks to come back in {wait_s:.0f} s") from error
        try:
            retry = retry.increment("GET", error=error)
        except urllib3.exceptions.MaxRetryError:
            raise _RefusedError(reason) from error
        self._listener.note(f"{reason}; trying again")
        retry.sleep(response)
        return retry

    def _attempt(self, session: requests.Session, url: str) -> None:
        part, wanted, stall_s = self._part, self._wanted, self._patience.stall_s
        version = part.version(url)
        if version is None and not wanted.sha256:
            part.discard()  # nothing could tell whether the two halves are of one file
        headers = {"Accept-Encoding": "identity"}
        if part.size:
            headers["Range"] = f"bytes={part.size}-"
            headers |= {"If-Range": version} if version else {}
        with session.get(url, headers=headers, stream=True, timeout=(stall_s, stall_s)) as response:
            if url.startswith("https:") and not response.url.startswith("https:"):
                raise _RefusedError(f"leads to an address without encryption: {response.url}")
            self._begin(response, url)
            too_many = False
            with part.open() as stream:
                for chunk in self._chunks(response):
                    too_many = part.size + len(chunk) > wanted.limit_bytes
                    if too_many:
                        break
                    part.append(stream, chunk)
        if too_many:
            part.discard()
            raise _OtherBytesError(f"sent more than {wanted.limit_bytes} bytes")
        if wanted.exact and part.size < wanted.size_bytes:
            raise _CutShortError("the transfer ended early")

    def _begin(self, response: requests.Response, url: str) -> None:
        """Look at the head of an answer; afterwards the part is as long as where the body begins."""
        part, wanted, status = self._part, self._wanted, response.status_code
        if status in _BUSY:
            from urllib3.util import Retry

            raise _BusyError(f"HTTP {status} {response.reason}", response.raw, Retry(0).get_retry_after(response.raw))
        if status == 416 and part.size:
            part.discard()
            raise _CutShortError("the server has no more of this file than is kept; beginning anew")
        if status == 206 and part.size:
            start, total = _content_range(response.headers.get("Content-Range", ""))
            if start != part.size or (wanted.exact and total not in {None, wanted.size_bytes}):
                part.discard()
                raise _CutShortError("the server sent another part than was asked for; beginning anew")
            part.joined = True
            return
        if status != 200:
            raise _RefusedError(f"HTTP {status} {response.reason}")
        announced = response.headers.get("Content-Length", "")
        length = int(announced) if announced.isdecimal() and len(announced) < 20 else None
        # Looked at before the part is thrown away: an error page must not cost what an earlier attempt brought.
        if wanted.exact and length not in {None, wanted.size_bytes}:
            raise _OtherBytesError(f"sent other bytes: {length}, the published file has {wanted.size_bytes}")
        if length is not None and length > wanted.limit_bytes:
            raise _OtherBytesError(f"sent other bytes: {length}, which is far more than the published file has")
        part.discard()
        etag = response.headers.get("ETag", "")
        if version := etag if etag.startswith('"') else response.headers.get("Last-Modified", ""):
            part.keep_version(url, version)

    def _chunks(self, response: requests.Response) -> Iterator[bytes]:
        """The body, piece by piece as they come.

        Raises:
            _CutShortError: next to nothing comes.
        """
        since, received = time.monotonic(), 0
        # Not iter_content: it waits for a whole chunk, and loses what came of it when the connection breaks.
        while chunk := response.raw.read1(_CHUNK_BYTES, decode_content=False):
            yield chunk
            received += len(chunk)
            now = time.monotonic()
            if now - since > self._patience.stall_s:
                if received < _LEAST_BYTES:
                    raise _CutShortError(f"next to nothing came for {self._patience.stall_s:g} s")
                since, received = now, 0


def _content_range(text: str) -> tuple[int | None, int | None]:
    """Where a part begins, and how long the whole is; None for what is not said."""
    match = re.fullmatch(r"bytes (\d{1,18})-\d{1,18}/(\d{1,18}|\*)", text.strip())
    if match is None:
        return None, None
    return int(match[1]), None if match[2] == "*" else int(match[2])


def _reason(error: Exception, stall_s: float) -> str:
    """What went wrong, in words for people."""
    import requests
    import urllib3

    if isinstance(error, (_CutShortError, _BusyError)):
        return str(error)
    if isinstance(error, requests.exceptions.ConnectTimeout):
        return f"no connection within {stall_s:g} s"
    if isinstance(error, (requests.exceptions.Timeout, urllib3.exceptions.TimeoutError)):
        return f"nothing came for {stall_s:g} s"
    text = str(error)
    if "IncompleteRead" in text:  # wrapped in one of two ways, as the length was announced or the body is chunked
        return "the transfer ended early"
    if isinstance(error, urllib3.exceptions.ProtocolError):
        return "the connection broke"
    cause = re.search(r"\[Errno -?\d+\] [^'\")]+", text)
    return f"no connection: {cause[0] if cause else text[:200]}"
