"""RestoreFormer++: RestoreFormer with attention at a second scale, trained on more kinds of damage.

Same contract as ``restoreformer``; see there.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from ..model_spec import Download, Licence, WeightFile
from . import restoreformer

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

_PREFIX = "vqvae."
_COUNTER = "quantize.utility_counter"


def _network_part(state: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The network's own tensors, from a checkpoint of its training or from a file that holds nothing else.

    In such a checkpoint all lie under ``vqvae.``, losses beside them, and with them a count of how often each code was
    used.
    """
    if any(name.startswith(_PREFIX) for name in state):
        state = {name.removeprefix(_PREFIX): tensor for name, tensor in state.items() if name.startswith(_PREFIX)}
    return {name: tensor for name, tensor in state.items() if name != _COUNTER}


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    from .._arch import _load
    from .._arch.restoreformer import RestoreFormer

    return _load.build(lambda: RestoreFormer(heads=4, asked=(4, 5)), _network_part(state), what="RestoreFormer++")


SPEC = replace(
    restoreformer.SPEC,
    id="restoreformer-plus-plus",
    title="RestoreFormer++",
    node_name="RestoreFormerPlusPlus",
    architecture="RestoreFormer++",
    weights=(
        WeightFile(
            Download(
                "RestoreFormer++.ckpt",
                "https://github.com/wzhouxiff/RestoreFormerPlusPlus/releases/download/v1.0.0/RestoreFormer++.ckpt",
            ),
            size_bytes=294_028_815,
            # Stated by no publisher, and elsewhere once only.
            sha256="",
            licence=Licence(
                "Apache-2.0",
                commercial=True,
                url="https://github.com/wzhouxiff/RestoreFormerPlusPlus/blob/master/LICENSE",
            ),
        ),
    ),
    build=_build,
    weight_bytes=4 * 73_472_579,
    description="Rebuilds faces from parts of good ones; truer to their features than RestoreFormer.",
    source="Wang et al. 2023, arXiv:2308.07228; https://github.com/wzhouxiff/RestoreFormerPlusPlus",
)
