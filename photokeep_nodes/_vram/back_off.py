"""Models that could not be loaded, and when to try them again."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_LONGEST_S = 60.0


@dataclass(slots=True)
class Failure:
    """A model that could not be loaded.

    Attributes:
        error: what its last load raised.
        times: how often it failed in a row.
        retry_at: before this moment nobody tries again.
    """

    error: Exception
    times: int = 0
    retry_at: float = 0.0


class BackOff:
    """Which models are in state FAILED; used under the pool's lock.

    A file may have been on its way, so the second try is free. From then on each takes twice as long as the one before,
    up to a minute: a batch does not read a damaged file once for every photo.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._failures: dict[str, Failure] = {}

    def __contains__(self, key: str) -> bool:
        return key in self._failures

    def note(self, key: str, error: Exception) -> None:
        """A load failed."""
        failure = self._failures.setdefault(key, Failure(error))
        wait_s = min(_LONGEST_S, 2.0 ** (failure.times - 1)) if failure.times else 0.0
        failure.error, failure.times, failure.retry_at = error, failure.times + 1, self._clock() + wait_s

    def forget(self, key: str) -> None:
        """The model was loaded, or is to be tried again at once."""
        self._failures.pop(key, None)

    def refusal(self, keys: Iterable[str]) -> Exception | None:
        """Return why one of the models cannot be had for now, or None."""
        for key in keys:
            failure = self._failures.get(key)
            if failure is not None and self._clock() < failure.retry_at:
                return failure.error
        return None

    def report(self) -> list[dict[str, Any]]:
        """Describe each failure as plain data."""
        now = self._clock()
        return [
            {"key": key, "times": each.times, "retry_in_s": max(0.0, each.retry_at - now), "error": str(each.error)}
            for key, each in self._failures.items()
        ]
