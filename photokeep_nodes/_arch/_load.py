"""Fill a network with weights without first filling it with random numbers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ..errors import WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from torch import nn


def build(network: Callable[[], nn.Module], state: Mapping[str, torch.Tensor], *, what: str) -> nn.Module:
    """Construct a network around the tensors of ``state``.

    Args:
        network: constructor; may not have buffers that are left out of its state dict.
        state: exactly the network's tensors; floating ones are widened to float32. Copied, so that the file they may be
            mapped from can go away.
        what: the architecture's name, for the message.
    Returns:
        The network on the CPU, in eval mode, without gradients.
    Raises:
        WeightsFormatError: a tensor is missing, left over or of another shape.
    """
    with torch.device("meta"):
        module = network()
    wanted = module.state_dict()
    missing, extra = sorted(wanted.keys() - state.keys()), sorted(state.keys() - wanted.keys())
    if missing or extra:
        raise WeightsFormatError(
            f"the weights are not those of {what}: {_some('missing', missing)}{_some('left over', extra)}",
            hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
            wanted=what,
            missing=missing[:20],
            extra=extra[:20],
        )
    for name, tensor in wanted.items():
        if tensor.shape != state[name].shape:
            raise WeightsFormatError(
                f"the weights are not those of {what}: {name} is {tuple(state[name].shape)}, not {tuple(tensor.shape)}",
                hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
                wanted=what,
            )
    owned = {
        name: tensor.to(dtype=torch.float32 if tensor.is_floating_point() else tensor.dtype, copy=True).contiguous()
        for name, tensor in state.items()
    }
    module.load_state_dict(owned, strict=True, assign=True)
    return module.eval().requires_grad_(requires_grad=False)


def _some(label: str, names: list[str]) -> str:
    return f"{len(names)} {label} ({', '.join(names[:3])}{', ...' if len(names) > 3 else ''}) " if names else ""
