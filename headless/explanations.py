"""What the keys of a run's stages were made of when they last ran: by it a rerun is explained."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from .plan import Stage
    from .store import Store

_EVERY_S = 5.0  # a run that is killed loses no more than this of its explanations, and nothing else


class Explanations:
    """One run's part of them, read once and written at the end and now and then.

    Args:
        store: where they are kept, or None.
        run: any text that names the workflow and the photo.
    """

    def __init__(self, store: Store | None, run: str) -> None:
        self._store = store
        self._run = run
        self._parts: dict[str, Mapping[str, Any]] | None = None
        self._changed = False
        self._written = time.monotonic()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._write()

    def last(self, stage: Stage) -> Mapping[str, Any] | None:
        """Parts of the key a stage had when it last ran, or None where that is not known."""
        return self._known().get(_name(stage))

    def remember(self, stage: Stage, parts: Mapping[str, Any]) -> None:
        """Keep the parts of the key under which a stage's outputs were stored just now."""
        self._known()[_name(stage)] = parts
        self._changed = True
        if time.monotonic() - self._written > _EVERY_S:
            self._write()

    def _known(self) -> dict[str, Mapping[str, Any]]:
        if self._parts is None:
            self._parts = dict(self._store.last_parts(self._run)) if self._store is not None else {}
        return self._parts

    def _write(self) -> None:
        if self._changed and self._store is not None:
            self._store.remember_parts(self._run, self._known())
            self._changed = False
            self._written = time.monotonic()


def _name(stage: Stage) -> str:
    return f"{stage.id} {stage.class_type}"
