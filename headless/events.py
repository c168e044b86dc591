"""What a run tells whoever watches it, and what it leaves as its result. Plain data."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

if TYPE_CHECKING:
    from pathlib import Path

    from photokeep_nodes.errors import PhotokeepError

StageStatus = Literal["cached", "ran", "failed", "skipped"]
RunStatus = Literal["done", "failed", "interrupted"]


@dataclass(frozen=True)
class StageResult:
    """How one stage ended.

    Attributes:
        stage_id: id of its node in the workflow.
        title: as the user named it.
        class_type: the node's id.
        status: "skipped" means that a stage before it failed.
        why: for "ran" why it was not taken from the cache, for "skipped" what failed.
        seconds: time it took.
        peak_bytes: highest memory in use while it ran: the process's on a CPU, torch's on a GPU; 0 if it did not run.
        files: what it wrote.
        error: for "failed".
        report: what it says of its work, in lines; from a text output named "report".
        pack: the node pack of others that its code comes from; empty for Photokeep's own.
    """

    stage_id: str
    title: str
    class_type: str
    status: StageStatus
    why: str = ""
    seconds: float = 0.0
    peak_bytes: int = 0
    files: tuple[Path, ...] = ()
    error: PhotokeepError | None = None
    report: str = ""
    pack: str = ""

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "id": self.stage_id,
            "title": self.title,
            "class_type": self.class_type,
            "status": self.status,
            "why": self.why,
            "seconds": round(self.seconds, 4),
            "peak_bytes": self.peak_bytes,
            "files": [str(path) for path in self.files],
            "error": _error_as_json(self.error),
            "report": self.report,
            "pack": self.pack or None,
            "trusted": not self.pack,
        }


def _error_as_json(error: PhotokeepError | None) -> dict[str, str] | None:
    return None if error is None else {"type": type(error).__name__, "message": str(error)}


@dataclass(frozen=True)
class RunResult:
    """How one run over one photo ended.

    Attributes:
        photo: the photo that was fed in, or None if the workflow names its own.
        status: "failed" if any stage failed.
        stages: in the order they were taken.
        seconds: time of the whole run.
        error: why the run could not begin; a stage's error is in its own result.
    """

    photo: Path | None
    status: RunStatus
    stages: tuple[StageResult, ...]
    seconds: float
    error: PhotokeepError | None = None

    @property
    def files(self) -> tuple[Path, ...]:
        """Every file the run wrote or found still in place."""
        return tuple(path for stage in self.stages for path in stage.files)

    def as_json(self) -> dict[str, Any]:
        """The same as plain data."""
        return {
            "photo": None if self.photo is None else str(self.photo),
            "status": self.status,
            "seconds": round(self.seconds, 4),
            "files": [str(path) for path in self.files],
            "stages": [stage.as_json() for stage in self.stages],
            "error": _error_as_json(self.error),
        }


@dataclass(frozen=True)
class StageStarted:
    """A stage has begun to work; ``index`` of ``total`` counts from 1."""

    stage_id: str
    title: str
    why: str
    index: int
    total: int


@dataclass(frozen=True)
class StageProgressed:
    """``done`` of ``total`` units (tiles, faces) of the running stage are behind us."""

    stage_id: str
    done: float
    total: int
    unit: str


@dataclass(frozen=True)
class StageEnded:
    """A stage ended, or was found in the cache."""

    result: StageResult


@dataclass(frozen=True)
class RunStarted:
    """A run begins; ``index`` of ``total`` counts the photos from 1."""

    photo: Path | None
    index: int
    total: int


@dataclass(frozen=True)
class RunEnded:
    """A run ended."""

    result: RunResult


@dataclass(frozen=True)
class Warned:
    """Something the user should know that stops nothing."""

    message: str


RunEvent = RunStarted | StageStarted | StageProgressed | StageEnded | RunEnded | Warned
Listener = Callable[[RunEvent], None]
