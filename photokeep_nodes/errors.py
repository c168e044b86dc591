"""Every error Photokeep raises on purpose.

::

    PhotokeepError
    ├── PhotoError                  a photo cannot be used
    │   ├── PhotoReadError          missing, empty, truncated, not an image, too large
    │   └── PhotoWriteError         folder not writable, name taken, format cannot hold it
    ├── NodeInputError              a node was given a value it cannot work with
    ├── NodeDefinitionError         a node class does not declare itself as the contract asks
    ├── WorkflowError               the file that describes the work is wrong
    │   ├── WorkflowFormatError     not JSON, not a workflow
    │   └── WorkflowInvalidError    a workflow, but not one that can run
    ├── UsageError                  what was asked for cannot be done as asked
    │   ├── MissingExtraError       it needs a package that is not installed
    │   └── NodePackError           a node pack of others cannot be used
    ├── WeightsError
    │   ├── WeightsMissingError     a model's file is not installed
    │   ├── WeightsCorruptError     size or digest differ from the catalogue
    │   ├── WeightsFormatError      not the architecture the catalogue names, or not readable
    │   ├── WeightsDownloadError    a file could not be fetched
    │   └── LicenceNotAcceptedError  its licence asks for a consent that was not given
    ├── VramError
    │   ├── VramExhaustedError      more than the device can ever give
    │   ├── DeviceLostError         the device failed and was fenced off
    │   ├── LeaseTimeoutError       not granted in time
    │   ├── LeaseNestedError        a nested lease would have to wait (a deadlock)
    │   ├── LeaseReleasedError      the lease was used after its release
    │   └── PoolClosedError         the pool was shut down
    ├── CacheError                  the stage cache cannot be read or written
    └── StageFailedError            a stage raised; the cause is chained

Each carries ``message`` (what went wrong), ``hint`` (what to do next, may be empty) and ``context`` (ids and figures,
plain data), and survives pickling, which a queue needs.
"""

from __future__ import annotations

from typing import Any


class PhotokeepError(Exception):
    """Base of the tree.

    Attributes:
        exit_code: what the command line ends with when this error ends it.
        message: what went wrong, one sentence without a final period where it is short.
        hint: what the user can do next; may be empty.
        context: plain data (ids, paths, figures) for logs and reports.
    """

    exit_code = 1

    def __init__(self, message: str, *, hint: str = "", **context: Any) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
        self.context = context

    def __str__(self) -> str:
        return f"{self.message}\n{self.hint}" if self.hint else self.message

    def __reduce__(self) -> tuple[Any, ...]:
        return _rebuild, (type(self), self.message, self.hint, self.context)


def _rebuild(cls: type[PhotokeepError], message: str, hint: str, context: dict[str, Any]) -> PhotokeepError:
    return cls(message, hint=hint, **context)


class PhotoError(PhotokeepError):
    """A photo cannot be used."""


class PhotoReadError(PhotoError):
    """A photo is missing, empty, truncated, too large or no image at all."""


class PhotoWriteError(PhotoError):
    """A photo cannot be written where or as it was asked for."""


class NodeInputError(PhotokeepError):
    """A node was given a value it cannot work with."""


class NodeDefinitionError(PhotokeepError):
    """A node class does not declare itself as the contract asks."""


class WorkflowError(PhotokeepError):
    """The file that describes the work is wrong."""

    exit_code = 2


class WorkflowFormatError(WorkflowError):
    """The file is not JSON, or JSON but no workflow."""


class WorkflowInvalidError(WorkflowError):
    """The workflow cannot run as it is; ``context["problems"]`` lists every reason."""


class UsageError(PhotokeepError):
    """What was asked for on the command line or in a setting cannot be done as asked."""

    exit_code = 2


class MissingExtraError(UsageError):
    """What was asked for needs an optional package that is not installed; the hint has the command that gets it."""


class NodePackError(UsageError):
    """A node pack of somebody else's that the user named cannot be used here."""


class WeightsError(PhotokeepError):
    """Something is wrong with a model's weight file."""


class WeightsMissingError(WeightsError):
    """Weight files are not installed; ``context["missing"]`` lists them."""

    exit_code = 3


class WeightsCorruptError(WeightsError):
    """A weight file's size or digest differ from the catalogue's."""


class WeightsFormatError(WeightsError):
    """A weight file cannot be read, or holds another architecture than the catalogue names."""


class WeightsDownloadError(WeightsError):
    """A weight file could not be fetched: the network, the server or the disk did not do its part."""


class LicenceNotAcceptedError(WeightsError):
    """The weights do not allow commercial use, and the user has not accepted that; the hint has the command."""

    exit_code = 2


class VramError(PhotokeepError):
    """The memory pool cannot give what was asked for; ``context["report"]`` says who holds what."""


class VramExhaustedError(VramError):
    """The request is larger than the device could ever give."""


class DeviceLostError(VramError):
    """A device failed; nothing more is asked of it, and its work goes on elsewhere where there is an elsewhere."""


class LeaseTimeoutError(VramError):
    """A lease was not granted in time."""


class LeaseNestedError(VramError):
    """A lease asked for inside another would have to wait, which can deadlock."""


class LeaseReleasedError(VramError):
    """A lease was used after it was released."""


class PoolClosedError(VramError):
    """The pool was shut down."""


class CacheError(PhotokeepError):
    """The stage cache cannot be read or written."""

    exit_code = 2  # a run goes on without its cache; what ends one is a folder that cannot be used at all


class StageFailedError(PhotokeepError):
    """A stage raised; the cause is chained."""
