"""Build a network through spandrel, and refuse a file that turns out to be something else."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING, Any

from ..errors import MissingExtraError, WeightsFormatError

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

EXTRA_ARCHES = "spandrel_extra_arches>=0.2"
"""What to ask pip for where a network's code is under terms that keep it out of spandrel."""


def identify(state: Mapping[str, torch.Tensor], *, wanted: str, extra_arches: bool = False) -> Any:
    """Build spandrel's descriptor of the network that ``state`` belongs to, whatever it is.

    Args:
        state: tensors by name, as in the published checkpoint.
        wanted: what was hoped for, in words, for the message.
        extra_arches: look among the networks of spandrel_extra_arches too.
    Raises:
        WeightsFormatError: spandrel does not know the tensors, or they do not fit the network they look like.
        MissingExtraError: spandrel_extra_arches is asked for and not installed.
    """
    import spandrel

    _ignore_what_torch_says_of_spandrel()
    registry = _with_extra_arches(wanted) if extra_arches else spandrel.MAIN_REGISTRY
    try:
        # spandrel renames keys in the dict it is given.
        return spandrel.ModelLoader(registry=registry).load_from_state_dict(dict(state))
    except spandrel.UnsupportedModelError as error:
        raise WeightsFormatError(
            f"the weights are of no architecture that spandrel knows; {wanted} was expected",
            hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
        ) from error
    except (RuntimeError, KeyError, ValueError, AttributeError, IndexError, AssertionError) as error:
        # spandrel reads shapes from the tensors it recognised and trusts the rest.
        raise WeightsFormatError(f"the weights do not fit {wanted}: {error}") from error


def _ignore_what_torch_says_of_spandrel() -> None:
    """Keep from users that some of its networks call torch the old way; they can do nothing about it.

    For good: ``catch_warnings`` around a load would undo the filters of another thread that loads at the same time.
    """
    warnings.filterwarnings("ignore", message="torch.meshgrid: in an upcoming release", category=UserWarning)
    warnings.filterwarnings("ignore", message="`torch.jit.script` is deprecated", category=FutureWarning)


def _with_extra_arches(wanted: str) -> Any:
    """All architectures, in a registry of our own: spandrel's serves whatever else runs in this process."""
    import spandrel

    try:
        import spandrel_extra_arches
    except ImportError as error:
        raise MissingExtraError(
            f"the network code of {wanted} is not installed: it is published apart, for non-commercial use",
            hint=f"pip install '{EXTRA_ARCHES}'",
            requirement=EXTRA_ARCHES,
        ) from error
    registry = spandrel.MAIN_REGISTRY.copy()
    # Inside ComfyUI the host may have put them into spandrel's own.
    registry.add(*spandrel_extra_arches.EXTRA_REGISTRY, ignore_duplicates=True)
    return registry


def load(
    state: Mapping[str, torch.Tensor],
    *,
    architecture: str,
    scale: int = 1,
    channels: int = 3,
    extra_arches: bool = False,
) -> torch.nn.Module:
    """Build the network that ``state`` belongs to.

    Args:
        state: tensors by name, as in the published checkpoint.
        architecture: spandrel's id of the family, for instance "ESRGAN".
        scale: output side over input side.
        channels: of the input and of the output.
        extra_arches: the family is one of spandrel_extra_arches.
    Returns:
        The bare network (not spandrel's descriptor, whose call clamps and resizes), in eval mode, without gradients.
    Raises:
        WeightsFormatError: spandrel does not know the tensors, they do not fit, or they are another network.
        MissingExtraError: spandrel_extra_arches is needed and not installed.
    """
    wanted = f"{architecture} x{scale}"
    descriptor = identify(state, wanted=wanted, extra_arches=extra_arches)
    found = f"{descriptor.architecture.id} x{descriptor.scale}"
    if found != wanted or descriptor.input_channels != channels or descriptor.output_channels != channels:
        raise WeightsFormatError(
            f"the weights are {found} with {descriptor.input_channels} channels; {wanted} with {channels} was expected",
            hint="The file is another model's. Delete it and get the one that `photokeep models list` names.",
            found=found,
            wanted=wanted,
        )
    module: torch.nn.Module = descriptor.model
    return module.eval().requires_grad_(requires_grad=False)


def load_rrdbnet(state: Mapping[str, torch.Tensor], *, scale: int) -> torch.nn.Module:
    """Build an RRDBNet (spandrel's "ESRGAN"), whose dense blocks then share memory; see ``load``."""
    from .._arch.dense_blocks import reuse_memory

    return reuse_memory(load(state, architecture="ESRGAN", scale=scale))


def load_swinir(state: Mapping[str, torch.Tensor], *, scale: int) -> torch.nn.Module:
    """Build a SwinIR, whose blocks then share masks; see ``load``."""
    from .._arch.window_masks import share_swinir_masks

    return share_swinir_masks(load(state, architecture="SwinIR", scale=scale))


def load_dat(state: Mapping[str, torch.Tensor], *, scale: int) -> torch.nn.Module:
    """Build a DAT, whose blocks then share masks; see ``load``."""
    from .._arch.window_masks import share_dat_masks

    return share_dat_masks(load(state, architecture="DAT", scale=scale))


def load_fbcnn(state: Mapping[str, torch.Tensor], *, channels: int) -> torch.nn.Module:
    """Build an FBCNN that returns the image alone and can be told the JPEG quality; see ``load``."""
    from .._arch.fbcnn import JpegRemover

    return JpegRemover(load(state, architecture="FBCNN", channels=channels)).eval()
