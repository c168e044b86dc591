"""Face restorers' weight files as their publishers lay them out, filled as in ``published``; and a face for them.

What the authors' own networks make of it is in ``tests/data/restorers.npz``; ``tests/data/make_restorers.py`` made it.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from published import Layout, random_state, random_tensor
from skimage import data

from photokeep_nodes._arch.restoreformer import RestoreFormer
from photokeep_nodes.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from photokeep_nodes.model_spec import ModelSpec

State = dict[str, torch.Tensor]

GOLDEN = Path(__file__).parents[1] / "data" / "restorers.npz"
STEP = 13
"""Every how many pixels the outputs were kept; prime, so that no layer's grid is met at the same place always."""


@dataclass(frozen=True)
class Published:
    """How a restorer's file is laid out.

    Attributes:
        layout: names the outputs in ``GOLDEN``; how activations are kept in range.
        prefix: of all names in the file.
        old_format: whether the file is of the format before zip archives.
    """

    layout: Layout
    prefix: str = ""
    old_format: bool = False


_GFPGAN = Published(Layout("gfpgan", "params_ema", 512, 512, gain=0.88, centre=0.3))

PUBLISHED = {
    "gfpgan-1.4": _GFPGAN,
    "gfpgan-1.3": _GFPGAN,
    "restoreformer": Published(Layout("restoreformer", "params", 512, 512), old_format=True),
    "restoreformer-plus-plus": Published(Layout("restoreformer-plus-plus", "state_dict", 512, 512), prefix="vqvae."),
    "codeformer": Published(Layout("codeformer", "params_ema", 512, 512)),
}
"""By model id."""


def _gfpgan() -> torch.nn.Module:
    from spandrel.architectures.GFPGAN import GFPGAN

    network: torch.nn.Module = GFPGAN()
    return network


def _codeformer() -> torch.nn.Module:
    from spandrel_extra_arches.architectures.CodeFormer import CodeFormer

    network: torch.nn.Module = CodeFormer()
    return network


_NETWORKS: dict[str, Callable[[], torch.nn.Module]] = {
    "gfpgan": _gfpgan,
    "restoreformer": RestoreFormer,
    "restoreformer-plus-plus": lambda: RestoreFormer(heads=4, asked=(4, 5)),
    "codeformer": _codeformer,
}


def fill(template: Mapping[str, torch.Tensor], layout: Layout) -> State:
    """A state dict with the names and shapes of ``template``, as ``random_state`` fills it.

    But for the stacked projections of torch's own attention, whose name does not tell that they are weights: filled as
    a bias they would make attention so sharp that rounding decides what it looks at.
    """
    state = random_state(template, layout)
    for name, tensor in template.items():
        if name.endswith(".in_proj_weight"):
            state[name] = random_tensor(f"{name}.weight", tuple(tensor.shape), gain=layout.gain, centre=layout.centre)
    return state


def random_weights(model_id: str) -> State:
    """What a model's published file holds, without the prefix, with random numbers.

    CodeFormer's needs the `noncommercial` extra.
    """
    published = PUBLISHED[model_id]
    with torch.device("meta"):
        template = _NETWORKS[published.layout.network]().state_dict()
    return fill(template, published.layout)


def publish(spec: ModelSpec, state: Mapping[str, torch.Tensor], folder: Path) -> ModelSpec:
    """Write ``state`` into ``folder`` as the publisher does.

    Returns:
        ``spec`` with that file's size and digest.
    """
    file, published = spec.weights[0], PUBLISHED[spec.id]
    path = folder / file.filename
    held = {published.layout.wrapper: {published.prefix + name: tensor for name, tensor in state.items()}}
    torch.save(held, path, _use_new_zipfile_serialization=not published.old_format)
    return replace(spec, weights=(replace(file, size_bytes=path.stat().st_size, sha256=sha256_of(path)),))


def aligned_face(side: int = 512) -> torch.Tensor:
    """(1, 3, side, side) of a face about where the restorers expect one, [0, 1]."""
    photo = torch.from_numpy(data.astronaut()[20:230, 120:330] / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW
    return torch.nn.functional.interpolate(photo, size=(side, side), mode="bilinear")


def with_waves(crop: np.ndarray) -> np.ndarray:
    """A crop, (512, 512, 3) uint8, changed as smoothly as no random network would: broad waves of light and dark."""
    y, x = np.mgrid[: crop.shape[0], : crop.shape[1]]
    waves = np.rint(40 * np.sin(x / 40) * np.cos(y / 50))[..., None]
    return np.clip(crop + waves, 0, 255).astype(np.uint8)
