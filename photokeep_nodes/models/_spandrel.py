"""Build a network through spandrel, and refuse a file that turns out to be something else."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch


def load(state: Mapping[str, torch.Tensor], *, architecture: str, scale: int) -> torch.nn.Module:
    """Build the network that ``state`` belongs to.

    Args:
        state: tensors by name, as in the published checkpoint.
        architecture: spandrel's id of the family, for instance "ESRGAN".
        scale: output side over input side.
    Returns:
        The bare network (not spandrel's descriptor, whose call clamps and resizes), in eval mode, without gradients.
    Raises:
        WeightsFormatError: spandrel does not know the tensors, they do not fit, or they are another network.
    """
    import spandrel

    wanted = f"{architecture} x{scale}"
    try:
        # spandrel renames keys in the dict it is given.
        descriptor = spandrel.ModelLoader().load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise WeightsFormatError(
            f"the weights are of no architecture that spandrel knows; {wanted} was expected",
            hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
        ) from error
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, AssertionError) as error:
        # spandrel reads shapes from the tensors it recognised and trusts the rest.
        raise WeightsFormatError(f"the weights do not fit {wanted}: {error}") from error
    found = f"{descriptor.architecture.id} x{descriptor.scale}"
    if found != wanted or descriptor.input_channels != 3 or descriptor.output_channels != 3:
        raise WeightsFormatError(
            f"the weights are {found} with {descriptor.input_channels} channels; {wanted} with 3 was expected",
            hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
            found=found,
            wanted=wanted,
        )
    module: torch.nn.Module = descriptor.model
    return module.eval().requires_grad_(requires_grad=False)
