"""The handle a caller holds while it uses models."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING, Protocol

from ..errors import LeaseReleasedError, VramError
from .books import HOST

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from types import TracebackType

    import torch
    from typing_extensions import Self

    from .records import Grant, ModelSource


class Lender(Protocol):
    """What a lease needs of its pool."""

    def _enter(self, lease: Lease) -> None:
        """Fill the lease's grant, or leave whatever part of it is there for `_leave`."""

    def _leave(self, grant: Grant) -> None:
        """Take a grant back."""

    def _lose(self, grant: Grant) -> None:
        """Note that a grant's lease was collected; takes no lock."""


class Lease:
    """Models on a device for as long as the ``with`` block lasts.

    Weights are read-only under a lease: what is written to them on an accelerator is lost when they leave it. Keep no
    reference to a module beyond its lease: it may be moved, emptied or freed at any time then.
    """

    __slots__ = (
        "__weakref__", "_grant", "_pool", "check_interrupted", "place", "priority", "sources", "timeout_s",
        "working_bytes",
    )  # fmt: skip

    def __init__(
        self,
        pool: Lender,
        sources: tuple[ModelSource, ...],
        place: torch.device | None,
        working_bytes: int,
        timeout_s: float | None,
        check_interrupted: Callable[[], None] | None,
        priority: int = 0,
    ) -> None:
        self._pool = pool
        self._grant: Grant | None = None
        self.sources = sources
        self.place = place
        self.working_bytes = working_bytes
        self.timeout_s = timeout_s
        self.check_interrupted = check_interrupted
        self.priority = priority

    def __enter__(self) -> Self:
        if self._grant is not None:
            raise VramError("a lease can be entered only once", hint="Ask the pool for another one.")
        try:
            self._pool._enter(self)
        except BaseException:  # an interrupt of the host derives from BaseException
            if self._grant is not None:
                self._pool._leave(self._grant)
            raise
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _traceback: TracebackType | None
    ) -> None:
        if self._grant is not None:
            self._pool._leave(self._grant)

    def __iter__(self) -> Iterator[torch.nn.Module]:
        return iter(self.modules)

    def __del__(self) -> None:
        grant = getattr(self, "_grant", None)
        if grant is not None and not grant.released:
            self._pool._lose(grant)

    def release(self) -> None:
        """End the lease now; a second release does nothing but count."""
        self.__exit__(None, None, None)

    @property
    def names(self) -> str:
        """The models' keys, for messages."""
        return ", ".join(source.key for source in self.sources)

    @property
    def active(self) -> bool:
        """Whether the models may be used."""
        return self._grant is not None and not self._grant.released

    def _held(self) -> Grant:
        if self._grant is None or self._grant.released:
            what = "was not entered" if self._grant is None else "was released"
            raise LeaseReleasedError(f"the lease of {self.names} {what}")
        return self._grant

    @property
    def modules(self) -> tuple[torch.nn.Module, ...]:
        """The modules, in the order they were asked for.

        Raises:
            LeaseReleasedError: the lease is over, or was never entered.
        """
        by_key = {each.entry.key: each.instance for each in self._held().residents}
        instances = (by_key[source.key] for source in self.sources)
        return tuple(each.module for each in instances if each is not None)

    @property
    def module(self) -> torch.nn.Module:
        """The one module of a lease of one model.

        Raises:
            LeaseReleasedError: as for `modules`.
            VramError: the lease is of several models.
        """
        if len(self.sources) != 1:
            raise VramError(f"the lease is of {len(self.sources)} models", hint="Use its modules.")
        return self.modules[0]

    @property
    def device(self) -> torch.device:
        """Where the weights are, and inputs have to be.

        Raises:
            LeaseReleasedError: as for `modules`.
        """
        device = self._held().ledger.device
        return HOST if device is None else device.device


def copy_of(error: Exception) -> Exception:
    """Copy an error for another thread: without its traceback, whose frames would keep tensors alive."""
    try:
        twin = copy.copy(error)
    except Exception:  # noqa: BLE001 - a foreign exception class may need arguments that copying does not know
        twin = None
    if type(twin) is not type(error):
        return VramError(f"another thread could not load the model: {type(error).__name__}: {error}")
    return twin
