"""Our models in ComfyUI's list of loaded models, which its Free button, out-of-memory handling and other nodes clear.

That list holds *patchers*. One of ours stands around a module without tensors: the host reads the model's size off it
and believes it loads and unloads something, while the pool alone moves weights, so that nothing is ever copied from the
device back to the host. A patcher lives as long as its model is on the accelerator, and leaves the list by dying, which
is how a model of a closed workflow leaves it too: unlike a request to free memory, that does not flush torch's cache.

Everything is looked up when it is needed. Where a host lacks some of it, it is asked for plain room instead.
"""

from __future__ import annotations

import inspect
import logging
import sys
from collections import deque
from typing import TYPE_CHECKING, Any

import torch

from . import host

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

_CPU = torch.device("cpu")

_log = logging.getLogger(__name__)


class ComfyMemory:
    """See `photokeep_nodes.vram_manager.HostMemory`."""

    def __init__(self) -> None:
        self._left: deque[ComfySeat] = deque()
        self._told = False

    def manages(self, place: torch.device) -> bool:
        """See `HostMemory`."""
        return place.type == torch.device(_model_management().get_torch_device()).type

    def may_call_here(self) -> bool:
        """See `HostMemory`."""
        return host.may_call_here()

    def seat(self, key: str, n_bytes: int, recall: Callable[[], None]) -> ComfySeat:
        """See `HostMemory`."""
        return ComfySeat(key, n_bytes, recall, self._left)

    def admit(self, place: torch.device, seats: Sequence[Any], n_bytes: int) -> None:
        """See `HostMemory`; the seats are those that it made."""
        while self._left:
            self._left.popleft().clear()
        device = _as_the_host_names(place)
        try:
            load = _model_management().load_models_gpu
            patchers = [seat.patcher_on(device) for seat in seats]
            if patchers:  # without any it makes no room
                load(patchers, **_known(load, memory_required=n_bytes, force_full_load=True))
                return
        except (torch.OutOfMemoryError, MemoryError):
            raise
        except Exception as error:  # noqa: BLE001 - other versions fail in ways of their own, and so do others' models
            if not self._told:
                self._told = True
                _log.warning(
                    "ComfyUI did not list Photokeep's models (%s: %s): its Free button may not reach them",
                    type(error).__name__,
                    error,
                )
        wanted = n_bytes + sum(seat.n_bytes for seat in seats if not seat.here)
        for seat in seats:
            seat.here = True
        free = getattr(_model_management(), "free_memory", None)
        if free is not None and wanted:
            free(wanted, device)


class ComfySeat:
    """See `photokeep_nodes._vram.guest.Seat`.

    Attributes:
        here: whether the host may count the weights as loaded.
    """

    __slots__ = ("_left", "_over", "_patcher", "_recall", "here", "key", "n_bytes")

    def __init__(self, key: str, n_bytes: int, recall: Callable[[], None], left: deque[ComfySeat]) -> None:
        self.key = key
        self.n_bytes = n_bytes
        self.here = False
        self._recall = recall
        self._left = left
        self._over = False
        self._patcher: Any = None

    def patcher_on(self, device: torch.device) -> Any:
        """Return the patcher that stands in the host's list, made at the first call.

        Raises:
            Exception: the host has no such thing, or another idea of it.
        """
        if self._patcher is None:
            # Never CoreModelPatcher, which may be the dynamic kind: the host moves no such model away for the sake of
            # another one, since it can have their weights paged out one by one. It cannot do that with ours.
            patcher = sys.modules["comfy.model_patcher"].ModelPatcher(
                PhotokeepModel(self, device), load_device=device, offload_device=_CPU, size=self.n_bytes
            )
            if patcher.model_size() != self.n_bytes:
                raise ValueError("its patchers cannot be told a size")
            on_detach = sys.modules["comfy.patcher_extension"].CallbacksMP.ON_DETACH
            patcher.add_callback_with_key(on_detach, "photokeep", self._detached)
            self._patcher = patcher
        return self._patcher

    def leave(self) -> None:
        """See `Seat`."""
        if not self._over:
            self._over, self.here = True, False
            # The host may be in the middle of its list: the patcher stays until we next come by on the right thread.
            self._left.append(self)

    def clear(self) -> None:
        """Let the patcher die, and with it the host's entry."""
        self._patcher = None

    def _detached(self, _patcher: object, unpatch_all: bool = True) -> None:
        # Not everything: the host takes its list apart to put it in order, or the patcher dies.
        if unpatch_all and not self._over:
            self.leave()
            self._recall()


class PhotokeepModel(torch.nn.Module):
    """What the host takes for one of our models: no tensors, so that moving it moves nothing.

    Its name is what the host's log says. Whatever the host writes down about the weights, the seat is right.
    """

    def __init__(self, seat: ComfySeat, place: torch.device) -> None:
        super().__init__()
        self._seat = seat
        self._place = place

    @property
    def device(self) -> torch.device:
        """Where the host believes the weights to be; it writes this when it has loaded or unloaded them."""
        return self._place if self._seat.here else _CPU

    @device.setter
    def device(self, place: torch.device) -> None:
        self._seat.here = place == self._place and not self._seat._over

    @property
    def model_loaded_weight_memory(self) -> int:
        """Bytes on the accelerator: all or nothing, even where the host was told to keep models off it."""
        return self._seat.n_bytes if self._seat.here else 0

    @model_loaded_weight_memory.setter
    def model_loaded_weight_memory(self, _n_bytes: int) -> None:
        pass


def stand_in(module: torch.nn.Module) -> Any:
    """Make a patcher around a module without tensors, for a host that wants to load one before it calls a model."""
    device = torch.device(_model_management().get_torch_device())
    return sys.modules["comfy.model_patcher"].ModelPatcher(module, load_device=device, offload_device=_CPU)


def _model_management() -> Any:
    return sys.modules["comfy.model_management"]


def _as_the_host_names(place: torch.device) -> torch.device:
    """Name ``place`` as the host does, which compares devices for equality: "mps" is not "mps:0" then."""
    own = torch.device(_model_management().get_torch_device())
    return own if (own.type, own.index or 0) == (place.type, place.index or 0) else place


def _known(function: Callable[..., object], **options: object) -> dict[str, object]:
    """Those of ``options`` that ``function`` takes; other versions take fewer."""
    parameters = inspect.signature(function).parameters
    if any(each.kind is each.VAR_KEYWORD for each in parameters.values()):
        return options
    return {name: value for name, value in options.items() if name in parameters}
