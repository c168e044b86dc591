"""Upscale models that cross the border: the host's, run by our stages, and ours, run by the host's.

What the host calls UPSCALE_MODEL is spandrel's descriptor of a network, or something alike. Our stages run a copy of
its network: the pool empties and moves the modules it owns as it needs room, and the host does the same with its own,
at any moment; two owners of one module would take the weights away from under each other. The copy costs its weights in
RAM once; the pool forgets it under pressure like any other model, and for good when the host's model is gone.

The other way, the host is given an object without weights. They stay in the pool; each call leases them.
"""

from __future__ import annotations

import copy
import itertools
import weakref
from collections import deque
from functools import cached_property
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch

from . import host_memory, inference, tiled_inference, vram_manager
from .errors import NodeInputError
from .model_spec import ModelSpec
from .models import _network

if TYPE_CHECKING:
    from collections.abc import Mapping

    from .model_spec import ModelHandle

_DTYPES = (torch.float32, torch.float16, torch.bfloat16)

_numbers = itertools.count(1)
_known: weakref.WeakKeyDictionary[torch.nn.Module, ModelSpec] = weakref.WeakKeyDictionary()
_gone: deque[str] = deque()
"""Ids whose host models are no more. Collection happens at any moment, in the pool's own code too; so it only notes."""


def borrowed(model: Any) -> ModelSpec:
    """Describe an upscale model of the host's, so that our stages can run it.

    Args:
        model: spandrel's image descriptor, anything else with its ``model`` and ``scale``, or a `LentUpscaler`.
    Raises:
        NodeInputError: it is none of these, or a network for faces, holes or whole photos only.
    """
    if isinstance(model, LentUpscaler):
        return inference.spec_for(model.handle, "upscale")
    _forget_gone()
    network, scale = getattr(model, "model", None), getattr(model, "scale", None)
    if not isinstance(network, torch.nn.Module) or not isinstance(scale, (int, float)) or scale < 1 or scale % 1:
        raise NodeInputError(
            f"an upscale model was expected, not {type(model).__name__}",
            hint="Connect one of Photokeep's model nodes, or ComfyUI's Load Upscale Model.",
        )
    spec = _known.get(network)
    if spec is None:
        described = hasattr(model, "architecture") and hasattr(model, "size_requirements")
        spec = _known[network] = _spec_of(model if described else _Bare(network, int(scale)))
        weakref.finalize(network, _gone.append, spec.id).atexit = False
    return spec


def _forget_gone() -> None:
    while _gone:
        model_id = _gone.popleft()
        for dtype in _DTYPES:
            vram_manager.shared_pool().drop(f"{model_id}:{dtype}")


def _spec_of(descriptor: Any) -> ModelSpec:
    facts = _network.facts_of(descriptor)
    facts.check_serves("upscale", "the host's model", any_scale=True)
    return ModelSpec(
        # One network per shape, as for a mixture of weights; the number tells the host's models apart.
        id=f"host:{facts.network_id}+{next(_numbers)}",
        title=f"the host's {facts.architecture} x{facts.scale}",
        node_name="Host",
        weights=(),
        build=_no_file,
        copied=_Copy(descriptor),
        **facts.traits("upscale"),
    )


def _no_file(_state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    raise NodeInputError("a model of the host's is not built from a file")


class _Bare:
    """What is assumed of a network of which only the scale is told; looks like spandrel's descriptor."""

    purpose = "SR"
    input_channels = output_channels = 3
    size_requirements = SimpleNamespace(minimum=1, multiple_of=1, square=False)
    tiling = SimpleNamespace(name="SUPPORTED")
    supports_half = supports_bfloat16 = False

    def __init__(self, network: torch.nn.Module, scale: int) -> None:
        self.model = network
        self.scale = scale
        self.architecture = SimpleNamespace(id=type(network).__name__)

    @staticmethod
    def _call_fn(network: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
        result: torch.Tensor = network(image)
        return result


class _Copy:
    """Copies a host model's network, wherever the host keeps it at that moment, without touching it or keeping it."""

    def __init__(self, descriptor: Any) -> None:
        self._network = weakref.ref(descriptor.model)
        self._bare_scale = descriptor.scale if isinstance(descriptor, _Bare) else None

    def __call__(self) -> torch.nn.Module:
        network = self._network()
        if network is None:
            raise NodeInputError("the host has dropped the upscale model", hint="Run the workflow again.")
        if self._bare_scale is not None:
            twin: Any = _Bare(_deep_copy(network), self._bare_scale)
        else:
            # Built anew, not copied: the host's memory management hangs things on modules that cannot be copied.
            state = {name: _to_ram(tensor) for name, tensor in network.state_dict().items()}
            twin = _network.identify(state, wanted="an upscale model")
        return _network.wrapped(twin, None).eval().requires_grad_(requires_grad=False)


def _deep_copy(network: torch.nn.Module) -> torch.nn.Module:
    memo: dict[int, Any] = {id(each): torch.nn.Parameter(_to_ram(each)) for each in network.parameters()}
    memo |= {id(each): _to_ram(each) for each in network.buffers()}
    return copy.deepcopy(network, memo)


def _to_ram(tensor: torch.Tensor) -> torch.Tensor:
    dtype = torch.float32 if tensor.is_floating_point() else tensor.dtype
    return tensor.detach().to("cpu", dtype, copy=True)


class PhotokeepUpscaleModel(torch.nn.Module):
    """What the host takes for the network of a lent model; its name is what the host's log says."""


class LentUpscaler:
    """One of our upscale models, as the host's own upscale nodes use theirs.

    Attributes:
        handle: which model.
        model: a module without tensors: the host asks for its size and believes that it moves it.
        scale: output side over input side.
    Raises:
        NodeInputError: the model takes gray images only, or does not upscale.
    """

    input_channels = output_channels = 3

    def __init__(self, handle: ModelHandle) -> None:
        spec = inference.spec_for(handle, "upscale")
        if spec.channels != 3:
            raise NodeInputError(
                f"{spec.title} takes gray images only, and the host's upscale nodes give it colour ones",
                hint="Use Photokeep's Upscale, which keeps the colours.",
            )
        self.handle = handle
        self.model = PhotokeepUpscaleModel()
        self.scale = spec.scale

    @cached_property
    def patcher(self) -> Any:
        """What newer hosts load before they call: nothing."""
        return host_memory.stand_in(self.model)

    def to(self, *_place: object, **_more: object) -> LentUpscaler:
        """Do nothing: where the weights are is the pool's affair."""
        return self

    def eval(self) -> LentUpscaler:
        """Do nothing: a leased network is never in training."""
        return self

    def __call__(self, image: torch.Tensor) -> torch.Tensor:
        """Enlarge one tile (B, 3, H, W) in [0, 1]; the result has its dtype and device, and is clamped.

        Raises:
            WeightsError, VramError: see ``inference.run``.
            NodeInputError: the tile or the result holds values that are not numbers.
        """
        spec = inference.spec_for(self.handle, "upscale")
        large = tiled_inference.apply_to_part(spec, image.float())
        return large.clamp_(0.0, 1.0).to(image.device, image.dtype)
