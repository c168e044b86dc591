"""How much memory a model's calls really take: measured, remembered between processes, and guessed for new sizes.

A model's catalogue entry estimates bytes per pixel. What was measured for a size replaces that estimate: the highest of
the last eight calls, so that an outlier is forgotten after eight others. A size that was never seen is taken from the
nearest smaller and the nearest larger one that were, by the worse of their bytes per pixel, with a margin.

Measured figures are not equally good. CUDA's allocator counts exactly. The CPU's are sampled: what the C library has
handed out, and the resident set where the library cannot be asked, which stays low where memory is reused that was kept
when somebody else freed it (for the compact upscaler the second call at 256 x 256 px showed 0 of 34 MB). Both miss what
comes and goes between two looks, and jump where a library warms up. So what is sampled may raise an estimate above the
catalogue's and never lowers it, and a reading below `NOISE_BYTES` says nothing about other sizes.
"""

from __future__ import annotations

import atexit
import threading
import time
from collections import deque
from dataclasses import asdict, dataclass, field, replace
from functools import cache
from typing import TYPE_CHECKING, Any

from .. import host
from . import fork
from .keep import Keep

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Callable
    from pathlib import Path

SAMPLED = frozenset({"cpu", "mps"})
"""Names of devices whose peaks are sampled: lower bounds."""

NOISE_BYTES = 64 * 2**20
"""A sampled peak below this is mostly a library's warm-up."""

WINDOW = 8
"""Calls of a size whose highest counts."""

SIZES_KEPT = 64
"""Of each model, type and device, the last seen: photos smaller than a tile come in every size."""

SEEN_MARGIN = 1.05  # for the allocator's rounding and fragments, which it does not count as allocated
BETWEEN_MARGIN = 1.1
BEYOND_MARGIN = 1.25  # smaller or larger than everything seen

REFUSED_FACTOR = 1.5  # what ran out of memory is asked for more next time
REFUSED_LIMIT = 4.0  # of what was known without the refusals: a full card must not ban a model for good
REFUSED_FOR_S = 24 * 3600.0
REFUSED_ONCE_S = 60.0

FLUSH_INTERVAL_S = 30.0


@dataclass(frozen=True)
class Size:
    """What a figure is about.

    Attributes:
        model: id in the catalogue.
        height: of a tile, in pixels.
        width: of a tile, in pixels.
        dtype: as torch names it.
        device: the card's name, or "cpu" or "mps".
    """

    model: str
    height: int
    width: int
    dtype: str
    device: str

    @property
    def family(self) -> tuple[str, str, str]:
        """What it shares with the sizes it can be compared with."""
        return self.model, self.dtype, self.device

    @property
    def pixels(self) -> int:
        """Area."""
        return self.height * self.width


@dataclass
class Learnt:
    """What is known about one size.

    Attributes:
        recent: peaks of the last calls, in bytes.
        times: calls ever measured.
        refused_bytes: the estimate raised because a call ran out of memory; 0 if none did of late.
        refused_at: when, in seconds since 1970.
        fresh: how many of ``recent`` the file does not have yet.
        fresh_times: the same of ``times``.
        refused_anew: whether the file does not know ``refused_bytes`` yet.
    """

    recent: deque[int] = field(default_factory=lambda: deque(maxlen=WINDOW))
    times: int = 0
    refused_bytes: int = 0
    refused_at: float = 0.0
    fresh: int = 0
    fresh_times: int = 0
    refused_anew: bool = False

    @property
    def peak_bytes(self) -> int:
        """Highest of the recent peaks; 0 if none was measured."""
        return max(self.recent, default=0)

    @property
    def is_fresh(self) -> bool:
        """Whether the file lacks something."""
        return self.fresh_times > 0 or self.refused_anew

    def taken(self) -> Learnt:
        """A copy to be written; from now on this one counts as known to the file."""
        copy = replace(self, recent=self.recent.copy())
        self.fresh = self.fresh_times = 0
        self.refused_anew = False
        return copy

    def put_back(self, copy: Learnt) -> None:
        """Take note that ``copy`` could not be written."""
        self.fresh = min(self.fresh + copy.fresh, len(self.recent))
        self.fresh_times += copy.fresh_times
        self.refused_anew |= copy.refused_anew


class WorkingMemory:
    """Learnt sizes, in memory and in one file that all processes of a user share.

    Nothing here raises because of the file, or waits for it longer than a moment: without it, learning goes on in
    memory and one warning is logged. Safe to use from any thread.

    Args:
        path: the file; it and its folder are made when there is something to keep.
        clock: seconds since 1970.
    """

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._keep = Keep(path)
        self._clock = clock
        self._lock = threading.Lock()
        self._sizes: dict[Size, Learnt] | None = None
        self._flushed_at = 0.0
        atexit.register(self.flush)
        fork.watch(self)

    def _forked(self, *, cuda_was_live: bool) -> None:  # noqa: ARG002
        self._lock = threading.Lock()  # another thread's, which is not here, may hold the old one
        for each in (self._sizes or {}).values():
            each.taken()  # the parent writes it

    # -- asking -------------------------------------------------------------------------------------------------------

    def estimate(self, model: str, height: int, width: int, dtype: str, device: str, fallback_bytes: int) -> int:
        """What a call on a tile of this size will take beside the weights, on the safe side.

        Args:
            model: id in the catalogue.
            height: of the tile, in pixels.
            width: of the tile, in pixels.
            dtype: as torch names it.
            device: from `device_name`.
            fallback_bytes: the catalogue's estimate, used until something was measured.
        """
        size = Size(model, height, width, dtype, device)
        with self._lock:
            sizes = self._loaded()
            known = self._known(sizes, size, fallback_bytes)
            refused = self._refused(sizes[size]) if size in sizes else 0
            return max(known, min(refused, int(known * REFUSED_LIMIT)))

    def _refused(self, seen: Learnt) -> int:
        """The raised estimate, while it is remembered."""
        return seen.refused_bytes if self._clock() - seen.refused_at <= REFUSED_FOR_S else 0

    def _known(self, sizes: dict[Size, Learnt], size: Size, fallback_bytes: int) -> int:
        """The estimate but for a refusal of this very size."""
        sampled = size.device in SAMPLED
        floor = fallback_bytes if sampled else 0
        seen = sizes.get(size)
        if seen is not None and seen.recent:
            return max(floor, int(seen.peak_bytes * SEEN_MARGIN))
        others = [
            (other.pixels, max(each.peak_bytes, self._refused(each)))
            for other, each in sizes.items()
            if other.family == size.family and other != size
        ]
        least = NOISE_BYTES if sampled else 1
        others = [each for each in others if each[1] >= least]
        smaller = max((each for each in others if each[0] <= size.pixels), default=None)
        larger = min((each for each in others if each[0] > size.pixels), default=None)
        near = [each for each in (smaller, larger) if each is not None]
        if not near:
            return fallback_bytes
        margin = BETWEEN_MARGIN if len(near) == 2 else BEYOND_MARGIN
        per_pixel = max(n_bytes / pixels for pixels, n_bytes in near)
        return max(floor, int(per_pixel * size.pixels * margin))

    def listing(self) -> list[dict[str, Any]]:
        """Every size something is known about, as plain data, by model and size.

        ``refused_bytes`` is the estimate raised because a call ran out of memory of late, else 0; ``sampled`` says that
        ``peak_bytes`` is a lower bound.
        """
        with self._lock:
            sizes = sorted(self._loaded().items(), key=lambda each: (each[0].model, each[0].device, each[0].pixels))
            return [
                asdict(size)
                | {
                    "peak_bytes": each.peak_bytes,
                    "times": each.times,
                    "refused_bytes": self._refused(each),
                    "sampled": size.device in SAMPLED,
                }
                for size, each in sizes
            ]

    # -- learning -----------------------------------------------------------------------------------------------------

    def observe(self, model: str, height: int, width: int, dtype: str, device: str, peak_bytes: int) -> None:
        """Note what a call took; a call during which nothing else used the device."""
        with self._lock:
            seen = self._entry(Size(model, height, width, dtype, device))
            news = peak_bytes > seen.peak_bytes
            seen.recent.append(peak_bytes)
            seen.times += 1
            seen.fresh = min(seen.fresh + 1, WINDOW)
            seen.fresh_times += 1
            if seen.refused_bytes:  # it fits after all: halfway back to what calls really take
                seen.refused_bytes = (seen.refused_bytes + peak_bytes) // 2
                seen.refused_anew = True
            due = news or self._clock() - self._flushed_at >= FLUSH_INTERVAL_S
        if due:
            self.flush()

    def ran_out(self, model: str, height: int, width: int, dtype: str, device: str, promised_bytes: int) -> None:
        """Note that a call ran out of memory although ``promised_bytes`` had been set aside for it.

        The next estimate for this size is half as much again, so that the next run starts with tiles that fit. It
        is forgotten after a day, and comes down with each call that succeeds.
        """
        with self._lock:
            seen = self._entry(Size(model, height, width, dtype, device))
            if self._refused(seen) and self._clock() - seen.refused_at < REFUSED_ONCE_S:
                return  # the ladder's second try of the same call
            seen.refused_bytes = int(max(promised_bytes, seen.peak_bytes) * REFUSED_FACTOR)
            seen.refused_at = self._clock()
            seen.refused_anew = True
        self.flush()

    def _entry(self, size: Size) -> Learnt:
        """What is known of ``size``, which from now on is the last one seen."""
        sizes = self._loaded()
        found = sizes[size] = sizes.pop(size) if size in sizes else Learnt()
        family = [each for each in sizes if each.family == size.family]
        for each in family[:-SIZES_KEPT]:
            del sizes[each]
        return found

    def _loaded(self) -> dict[Size, Learnt]:
        """What is known; read from the file at the first use."""
        if self._sizes is None:
            self._sizes = self._keep.read(_read) or {}
        return self._sizes

    # -- the file -----------------------------------------------------------------------------------------------------

    def flush(self) -> None:
        """Write what is new to the file, if it can be written."""
        with self._lock:
            fresh = {size: each.taken() for size, each in (self._sizes or {}).items() if each.is_fresh}
            self._flushed_at = self._clock()
            # Outside the lock: nobody who asks for an estimate waits for a disk.
            now = self._flushed_at
        if fresh and not self._keep.write(lambda connection: _write(connection, fresh, now)):
            with self._lock:
                for size, each in fresh.items():
                    self._entry(size).put_back(each)

    def save_run(self, figures: dict[str, Any]) -> None:
        """Keep the pool's figures of a run for whoever asks afterwards, in place of those before."""
        self.flush()
        self._keep.write_note("last run", {"at": self._clock(), **figures})

    def last_run(self) -> dict[str, Any] | None:
        """What `save_run` kept last, with "at" in seconds since 1970; None if nothing was."""
        return self._keep.read_note("last run")


def _read(connection: sqlite3.Connection) -> dict[Size, Learnt]:
    sizes: dict[Size, Learnt] = {}
    for *size, times, refused_bytes, refused_at in connection.execute(
        "SELECT model, height, width, dtype, device, times, refused_bytes, refused_at FROM sizes ORDER BY seen_at"
    ):
        # int() and float(): SQLite keeps what it is given, and damage is to be noticed here and not in a restoration.
        sizes[Size(*size)] = Learnt(times=int(times), refused_bytes=int(refused_bytes), refused_at=float(refused_at))
    for *size, n_bytes in connection.execute(
        "SELECT model, height, width, dtype, device, peak_bytes FROM calls ORDER BY number"
    ):
        sizes.setdefault(Size(*size), Learnt()).recent.append(int(n_bytes))
    return sizes


def _write(connection: sqlite3.Connection, fresh: dict[Size, Learnt], now: float) -> None:
    for size, each in fresh.items():
        key = (size.model, size.height, size.width, size.dtype, size.device)
        connection.execute(
            "INSERT INTO sizes (model, height, width, dtype, device, times, seen_at) VALUES (?, ?, ?, ?, ?, ?, ?)"
            " ON CONFLICT DO UPDATE SET times = times + excluded.times, seen_at = excluded.seen_at",
            (*key, each.fresh_times, now),
        )
        if each.refused_anew:
            connection.execute(
                "UPDATE sizes SET refused_bytes = ?, refused_at = ?"
                " WHERE (model, height, width, dtype, device) = (?, ?, ?, ?, ?)",
                (each.refused_bytes, each.refused_at, *key),
            )
        connection.executemany(
            "INSERT INTO calls (model, height, width, dtype, device, peak_bytes) VALUES (?, ?, ?, ?, ?, ?)",
            [(*key, n_bytes) for n_bytes in list(each.recent)[len(each.recent) - each.fresh :]],
        )
        connection.execute(
            "DELETE FROM calls WHERE (model, height, width, dtype, device) = (?, ?, ?, ?, ?) AND number NOT IN"
            " (SELECT number FROM calls WHERE (model, height, width, dtype, device) = (?, ?, ?, ?, ?)"
            "  ORDER BY number DESC LIMIT ?)",
            (*key, *key, WINDOW),
        )
    for family in {size.family for size in fresh}:
        connection.execute(
            "DELETE FROM sizes WHERE (model, dtype, device) = (?, ?, ?) AND rowid NOT IN (SELECT rowid FROM sizes"
            " WHERE (model, dtype, device) = (?, ?, ?) ORDER BY seen_at DESC LIMIT ?)",
            (*family, *family, SIZES_KEPT),
        )
    connection.execute(
        "DELETE FROM calls WHERE (model, height, width, dtype, device) NOT IN"
        " (SELECT model, height, width, dtype, device FROM sizes)"
    )


@cache
def _at(path: Path) -> WorkingMemory:
    return WorkingMemory(path)


def working_memory() -> WorkingMemory:
    """The user's learnt sizes, in the per-user cache folder; one for the whole process."""
    return _at(host.cache_dir() / "vram.sqlite3")
