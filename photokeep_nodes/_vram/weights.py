"""A model's weights as storages, and the pointer swap that moves a module between the host and a device.

A *master* is the copy of the weights in host memory. An *instance* is a module whose tensors point either at the master
or at a device's copy of it. Going back to the master changes pointers and moves no bytes: weights are never written
under a lease, so the device's copy holds nothing new (diffusers' group offloading rests on the same fact).
"""

from __future__ import annotations

import copy
import traceback
from contextlib import suppress
from dataclasses import dataclass
from itertools import chain
from typing import TYPE_CHECKING

import torch

from ..errors import VramError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .device import Device


@dataclass(frozen=True)
class Place:
    """Where a tensor lies within its storage; offset and strides count elements, as torch does."""

    storage: int
    dtype: torch.dtype
    offset: int
    size: tuple[int, ...]
    stride: tuple[int, ...]


class Master:
    """The weights in host memory, each storage once however many tensors look into it.

    Attributes:
        views: one tensor per distinct parameter or buffer of the module.
        places: where each view lies; the storage is an index into ``storages``.
        storages: the memory itself.
        n_bytes: sum of the storages.
    """

    __slots__ = ("n_bytes", "places", "storages", "views")

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        self.views = [tensor.data for tensor in tensors]
        self.storages: list[torch.UntypedStorage] = []
        self.places: list[Place] = []
        index_of: dict[tuple[int, int], int] = {}
        for view in self.views:
            storage = view.untyped_storage()
            # Tied weights may sit behind several storage objects over the same memory (slices of one mapped file do).
            # Empty storages all have address 0 and cost nothing, so they may share an entry too.
            index = index_of.setdefault((storage.data_ptr(), storage.nbytes()), len(self.storages))
            if index == len(self.storages):
                self.storages.append(storage)
            place = Place(index, view.dtype, int(view.storage_offset()), tuple(view.shape), tuple(view.stride()))
            self.places.append(place)
        self.n_bytes = sum(storage.nbytes() for storage in self.storages)

    def release(self) -> None:
        """Let go of the memory even if somebody still holds this object."""
        self.views.clear()
        self.storages.clear()


class Instance:
    """A module and its distinct parameters and buffers, non-persistent ones included, in the master's order."""

    __slots__ = ("module", "tensors")

    def __init__(self, module: torch.nn.Module, tensors: list[torch.Tensor]) -> None:
        self.module = module
        self.tensors = tensors

    def point_home(self, master: Master) -> None:
        """Look at the master again; whatever copy was in use is no longer referenced from here."""
        for tensor, view in zip(self.tensors, master.views, strict=True):
            tensor.data = view

    def point_at(self, storages: Sequence[torch.UntypedStorage], master: Master) -> None:
        """Look at a copy of the master's storages."""
        # A host such as ComfyUI runs nodes in inference mode; tensors born there could not be used outside of it.
        with torch.inference_mode(mode=False):
            for tensor, place in zip(self.tensors, master.places, strict=True):
                storage = storages[place.storage]
                view = torch.empty(0, dtype=place.dtype, device=storage.device)
                tensor.data = view.set_(storage, place.offset, place.size, place.stride)

    def hollow(self) -> None:
        """Point at nothing, so that the weights are freed at once even if the module is still referenced somewhere."""
        for tensor in self.tensors:
            tensor.data = torch.empty(0, dtype=tensor.dtype)

    def clone(self, master: Master) -> Instance:
        """Build a second module over the same master; no weights are copied.

        Raises:
            VramError: the module, or a hook somebody put on it, cannot be copied.
        """
        with torch.inference_mode(mode=False):
            twins = [_twin(tensor, view) for tensor, view in zip(self.tensors, master.views, strict=True)]
            memo: dict[int, object] = {id(old): new for old, new in zip(self.tensors, twins, strict=True)}
            try:
                return Instance(copy.deepcopy(self.module, memo), twins)
            except (TypeError, RuntimeError, AttributeError) as error:
                raise VramError(
                    f"{type(self.module).__name__} cannot be used on a second device at the same time: {error}",
                    hint="Wait until it is no longer in use on the first one.",
                ) from error


def _twin(tensor: torch.Tensor, view: torch.Tensor) -> torch.Tensor:
    if isinstance(tensor, torch.nn.Parameter):
        return torch.nn.Parameter(view, requires_grad=tensor.requires_grad)
    return view.detach()  # a new tensor object: re-pointing the twin must not move the master's own view


def adopt(module: torch.nn.Module) -> tuple[Master, Instance]:
    """Take over a freshly built module.

    Args:
        module: on the CPU, owned by nobody else: when the pool drops it, its tensors become empty.
    Returns:
        The master and the instance that looks at it.
    Raises:
        VramError: a tensor cannot be moved by swapping storages (not on the CPU, not built, sparse, quantised, a
            wrapper subclass).
    """
    if not isinstance(module, torch.nn.Module):
        raise VramError(f"a model's loader returned {type(module).__name__}, not a module")
    unique = {id(tensor): tensor for tensor in chain(module.parameters(), module.buffers())}
    for name, tensor in chain(module.named_parameters(), module.named_buffers()):
        if reason := _unmovable(tensor):
            raise VramError(
                f"the pool cannot move tensor {name!r} of {type(module).__name__}: {reason}",
                hint="A model's loader has to build a plain module on the CPU.",
            )
    tensors = list(unique.values())
    return Master(tensors), Instance(module, tensors)


def _unmovable(tensor: torch.Tensor) -> str:
    if torch.nn.parameter.is_lazy(tensor):
        return "it is not initialised"
    if tensor.device.type != "cpu":
        return f"it is on {tensor.device}, not on the CPU"
    if tensor.layout is not torch.strided:
        return f"its layout is {tensor.layout}"
    if tensor.is_quantized or tensor.is_conj() or tensor.is_neg():
        return "it is quantised or a lazy view"
    try:
        tensor.untyped_storage().data_ptr()
    except (NotImplementedError, RuntimeError) as error:
        return f"it has no storage of its own ({error})"
    return ""


def upload(master: Master, device: Device) -> list[torch.UntypedStorage]:
    """Copy the master's storages to ``device``.

    Raises:
        torch.OutOfMemoryError: the device could not give the memory; nothing is left allocated.
    """
    storages: list[torch.UntypedStorage] = []
    try:
        for source in master.storages:
            storages.append(device.allocate(source.nbytes()))
            device.copy(source, storages[-1])
        device.finish_copies()
    except BaseException as error:
        # The traceback keeps this frame alive, with the list, and the device's, with its arguments: empty them, or the
        # memory outlives the failure for as long as somebody looks at it.
        traceback.clear_frames(error.__traceback__)
        with suppress(RuntimeError):  # the first error is the one to tell
            device.finish_copies()
        device.free(storages)
        raise
    return storages
