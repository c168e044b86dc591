"""Ask a server again where that helps, wait in between, and say in words for people why it did not.

urllib3's Retry counts the attempts and knows how long to wait.
"""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from .errors import UsageError

if TYPE_CHECKING:
    from collections.abc import Callable

    from urllib3.util import Retry

R = TypeVar("R")

PROGRESS_BYTES = 1 << 20
"""An attempt that brought as much was worth it: the count of failures begins anew."""
_MAX_WAIT_S = 120


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


class CutShortError(Exception):
    """The transfer ended early; what came can be gone on with."""


class RefusedError(Exception):
    """This address does not have the file; another may."""


class OtherBytesError(RefusedError):
    """This address sent something else than the file."""


class BusyError(Exception):
    """The server asks to come again later."""

    def __init__(self, reason: str, response: Any, wait_s: float | None) -> None:
        super().__init__(reason)
        self.response = response
        self.wait_s = wait_s


def persist(
    attempt: Callable[[], R], patience: Patience, listener: Listener, reached: Callable[[], int] = lambda: 0
) -> R:
    """Do something over the network, with as many attempts as get on and a few that do not.

    Args:
        attempt: does it, or goes on with it.
        patience: how many.
        listener: told of each failure.
        reached: bytes that have come so far.
    Raises:
        RefusedError: the address does not have it, or cannot be reached.
    """
    import requests
    import urllib3

    retry, most = _retry(patience), reached()
    while True:
        try:
            return attempt()
        except (requests.TooManyRedirects, requests.exceptions.SSLError, ValueError) as error:
            # Nothing that time would mend; requests' errors about addresses are ValueErrors.
            raise RefusedError(f"no connection: {str(error)[:200]}") from error
        except (requests.RequestException, urllib3.exceptions.HTTPError, CutShortError, BusyError) as error:
            if reached() - most >= PROGRESS_BYTES:
                retry, most = _retry(patience), reached()
            retry = _again(retry, error, patience, listener)


def _retry(patience: Patience) -> Retry:
    from urllib3.util import Retry

    return Retry(total=patience.attempts, backoff_factor=patience.backoff_s, backoff_max=30)


def _again(retry: Retry, error: Exception, patience: Patience, listener: Listener) -> Retry:
    """Wait before the next attempt.

    Raises:
        RefusedError: there have been enough.
    """
    import urllib3

    reason = _reason(error, patience.stall_s)
    response, wait_s = (error.response, error.wait_s) if isinstance(error, BusyError) else (None, None)
    if wait_s is not None and wait_s > _MAX_WAIT_S:
        raise RefusedError(f"{reason}; it asks to come back in {wait_s:.0f} s") from error
    try:
        retry = retry.increment("GET", error=error)
    except urllib3.exceptions.MaxRetryError:
        raise RefusedError(reason) from error
    listener.note(f"{reason}; trying again")
    retry.sleep(response)
    return retry


def _reason(error: Exception, stall_s: float) -> str:
    """What went wrong, in words for people."""
    import requests
    import urllib3

    if isinstance(error, (CutShortError, BusyError)):
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
