"""In which floating type a network computes, and how bfloat16 is kept from showing.

float16 keeps eleven bits, and a network that tolerates it runs in it as a whole. bfloat16 keeps eight: near white its
steps are 1/256, so a photo computed in it as a whole shows bands. Here the weights and the sums between layers stay in
float32 (autocast), only the products of convolutions and matrices are computed in bfloat16, and the last layer, whose
output is the photo, not even those.

On a CPU bfloat16 pays where there are instructions that multiply it: a matrix unit (Intel's AMX) or vectors
(AVX512-BF16, AMD's since Zen 4 and some of Intel's). Elsewhere it is imitated, and slower than float32.
``bench/precision.py`` prints what it gains and changes for each network, ``bench/vs_reference.py`` for a photo.
"""

from __future__ import annotations

from contextlib import nullcontext
from typing import TYPE_CHECKING

import torch
from torch import nn

from . import host

if TYPE_CHECKING:
    from collections.abc import Callable
    from contextlib import AbstractContextManager

    from .model_spec import DTypeName, ModelSpec

_BY_NAME: dict[DTypeName, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}


def choose(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Fastest dtype in which both the architecture keeps its quality and the device computes well."""
    well = offered(device)
    return next((_BY_NAME[name] for name in spec.dtypes if name in well), torch.float32)


def offered(device: torch.device) -> tuple[DTypeName, ...]:
    """Types in which a device computes well, if the user lets it; float32, which is always one, comes last."""
    if not host.full_precision():
        if device.type == "cpu" and cpu_multiplies_bfloat16():
            return "bfloat16", "float32"
        if device.type == "cuda":
            return ("float16", "bfloat16", "float32") if torch.cuda.is_bf16_supported() else ("float16", "float32")
    return ("float32",)


def cpu_multiplies_bfloat16() -> bool:
    """Whether this CPU has instructions that multiply bfloat16; False where torch is too old to tell."""
    ask = getattr(torch.cpu, "get_capabilities", None)
    found = {} if ask is None else ask()
    return any(found.get(name) for name in host.BFLOAT16_INSTRUCTIONS)


def stored(dtype: torch.dtype) -> torch.dtype:
    """Type in which the weights are held for computing in ``dtype``."""
    return torch.float32 if dtype == torch.bfloat16 else dtype


def prepare(module: nn.Module, dtype: torch.dtype, *example: torch.Tensor) -> nn.Module:
    """Make a float32 network ready to compute in ``dtype``; changed in place.

    Args:
        module: the network.
        dtype: what it is to compute in.
        example: arguments it can be called with, as small as may be; see ``example_of``.
    """
    return _keep_last_layer_exact(module, example) if dtype == torch.bfloat16 else module.to(dtype)


def example_of(spec: ModelSpec) -> tuple[torch.Tensor, ...]:
    """Arguments that a model can be called with: its smallest image, and its condition."""
    side = -(-max(spec.minimum, spec.multiple_of, 8) // spec.multiple_of) * spec.multiple_of
    image = torch.full((1, spec.channels, side, side), sum(spec.value_range) / 2)
    return (image,) if spec.condition is None else (image, torch.tensor([0.5]))


def computing(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Context in which a prepared network's layers compute in ``dtype``."""
    return torch.autocast(device.type, dtype=torch.bfloat16) if dtype == torch.bfloat16 else nullcontext()


class _Exact(nn.Module):
    """A layer that computes in float32 whatever the layers around it do."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the layer inside."""
        with torch.autocast(x.device.type, enabled=False):
            result: torch.Tensor = self.layer(x.float())
        return result


def _keep_last_layer_exact(module: nn.Module, example: tuple[torch.Tensor, ...]) -> nn.Module:
    name = _last_to_run(module, example)
    if name:
        parent, _, child = name.rpartition(".")
        holder = module.get_submodule(parent)
        setattr(holder, child, _Exact(holder.get_submodule(child)))
    return module


def _last_to_run(module: nn.Module, example: tuple[torch.Tensor, ...]) -> str:
    """Name of the convolution that runs last, which need not be the one defined last; empty where there is none."""
    ran = [""]

    def watch(name: str) -> Callable[..., None]:
        return lambda *_: ran.append(name)

    hooks = [
        each.register_forward_hook(watch(name)) for name, each in module.named_modules() if isinstance(each, nn.Conv2d)
    ]
    try:
        with torch.no_grad():
            module(*example)
    finally:
        for hook in hooks:
            hook.remove()
    return ran[-1]
