"""Weight files as their publishers lay them out, filled with numbers that are the same on every machine.

The published weights are downloads, so architectures are proved on these: a value depends on its tensor's name and
shape alone, and activations stay in range. `tests/data/make_networks.py` gave the same ones to the authors' own code.
"""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, replace
from functools import cache
from typing import TYPE_CHECKING

import numpy as np
import torch
from skimage import data
from spandrel.architectures.Compact import Compact
from spandrel.architectures.DAT import DAT
from spandrel.architectures.FBCNN import FBCNN
from spandrel.architectures.HAT import HAT
from spandrel.architectures.NAFNet import NAFNet
from spandrel.architectures.PLKSR import RealPLKSR
from spandrel.architectures.SCUNet import SCUNet
from spandrel.architectures.SwinIR import SwinIR

from photokeep_nodes.files import sha256_of

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec

COMPUTED = frozenset(("attn_mask", "attn_mask_0", "attn_mask_1", "rpe_biases"))
"""Last names of floating tensors that follow from the architecture and were not trained."""


@dataclass(frozen=True)
class Layout:
    """How one network's weight file is laid out, and what its proof shows it.

    Attributes:
        network: name of its outputs in ``tests/data/networks.npz``; models that differ in weights alone share it.
        wrapper: key under which the publisher's file nests the tensors; empty where it does not.
        height: of the input, in pixels.
        width: of the input, in pixels.
        gain: see ``random_tensor``.
        centre: see ``random_tensor``.
        channels: of the input.
        step: every how many pixels the outputs were kept.
    """

    network: str
    wrapper: str
    height: int
    width: int
    gain: float = 1.0
    centre: float = 1.0
    channels: int = 3
    step: int = 5


_RRDBNET = Layout("rrdbnet-x4", "params_ema", 16, 24, gain=0.7)
_SRVGG = Layout("srvgg-x4", "params", 24, 32, gain=1.35, centre=0.3)
_HAT = Layout("hat", "params_ema", 32, 48)
_SCUNET = Layout("scunet", "", 64, 128, gain=0.7)
_PLKSR = Layout("realplksr-x1", "params", 24, 32, step=3)

LAYOUTS = {
    "realesrgan-x4plus": _RRDBNET,
    "realesrnet-x4plus": _RRDBNET,
    "realesrgan-x2plus": Layout("rrdbnet-x2", "params_ema", 24, 32, gain=0.7),
    "bsrgan-x4": Layout("bsrgan", "", 16, 24, gain=0.7),
    "realesr-general-x4v3": _SRVGG,
    "realesr-general-wdn-x4v3": _SRVGG,
    "hat-real": _HAT,
    "hat-real-sharper": _HAT,
    "swinir-l-real": Layout("swinir-l", "params_ema", 32, 24),
    "swinir-m-real": Layout("swinir-m", "params_ema", 32, 24),
    "dat2-realwebphoto": Layout("dat2", "params", 32, 64),
    "webphoto-realplksr": Layout("realplksr-x4", "params", 24, 32),
    "realplksr-denoise": _PLKSR,
    "realplksr-dejpg": _PLKSR,
    "scunet-psnr": _SCUNET,
    "scunet-gan": _SCUNET,
    "nafnet-sidd64": Layout("nafnet-sidd", "params", 48, 32, step=3),
    "nafnet-gopro64": Layout("nafnet-gopro", "params", 48, 32, step=3),
    "fbcnn-color": Layout("fbcnn-color", "", 40, 32, gain=0.8, step=3),
    "fbcnn-gray-double": Layout("fbcnn-gray", "", 40, 32, gain=0.8, channels=1, step=3),
    "restormer-dn": Layout("restormer", "params", 24, 32, step=3),
}
"""By model id."""


def photo(height: int, width: int, channels: int = 3) -> torch.Tensor:
    """(1, C, H, W) of a face, [0, 1]."""
    part = torch.from_numpy(data.astronaut()[60 : 60 + height, 170 : 170 + width] / np.float32(255))
    image = part.permute(2, 0, 1)[None]  # HWC -> BCHW
    return image if channels == 3 else image.mean(1, keepdim=True)


@cache
def _normals() -> np.ndarray:
    # RandomState is frozen by numpy; a prime length keeps tensors that wrap around from repeating in step.
    return np.random.RandomState(17).standard_normal(1_000_003).astype(np.float32)


def random_tensor(name: str, shape: tuple[int, ...], *, gain: float, centre: float) -> torch.Tensor:
    """Values for one tensor.

    Args:
        name: in the published file.
        shape: of the tensor.
        gain: of convolutions and linear layers: about the ratio of what comes out to what goes in.
        centre: of vectors of weights: scales of normalisations, slopes of activations.
    """
    offset = int(hashlib.sha256(name.encode()).hexdigest()[:8], 16) % _normals().size
    values = np.take(_normals(), np.arange(offset, offset + math.prod(shape)), mode="wrap").reshape(shape)
    leaf = name.rpartition(".")[2]
    if leaf == "weight" and len(shape) > 1:
        values = values * (gain / math.sqrt(math.prod(shape[1:])))
    elif leaf == "running_var":
        values = 1 + 0.3 * np.tanh(values)
    elif leaf in ("weight", "temperature"):
        values = centre * (1 + 0.1 * values)
    else:
        values = 0.2 * values
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.float32))


def _was_trained(name: str, tensor: torch.Tensor) -> bool:
    return tensor.is_floating_point() and name.rpartition(".")[2] not in COMPUTED


def random_state(template: Mapping[str, torch.Tensor], layout: Layout) -> dict[str, torch.Tensor]:
    """A state dict with the names and shapes of ``template``; what was not trained is kept."""
    return {
        name: random_tensor(name, tuple(tensor.shape), gain=layout.gain, centre=layout.centre)
        if _was_trained(name, tensor)
        else tensor
        for name, tensor in template.items()
    }


def layout_digest(state: Mapping[str, torch.Tensor]) -> str:
    """Digest of all names, shapes and types, and of the values that were not trained."""
    digest = hashlib.sha256()
    for name in sorted(state):
        tensor = state[name]
        digest.update(f"{name} {tuple(tensor.shape)} {tensor.dtype}\n".encode())
        if not _was_trained(name, tensor):
            digest.update(tensor.contiguous().numpy().tobytes())
    return digest.hexdigest()


def rrdbnet_template(inputs: int = 3) -> dict[str, torch.Tensor]:
    """Names and shapes of Real-ESRGAN's RRDBNet files, which spandrel renames."""
    features, growth = 64, 32
    shapes = {"conv_first": (features, inputs)}
    for block in range(23):
        for dense in (1, 2, 3):
            for layer in range(1, 6):
                width = features if layer == 5 else growth
                shapes[f"body.{block}.rdb{dense}.conv{layer}"] = (width, features + (layer - 1) * growth)
    for name in ("conv_body", "conv_up1", "conv_up2", "conv_hr"):
        shapes[name] = (features, features)
    shapes["conv_last"] = (3, features)
    state: dict[str, torch.Tensor] = {}
    for name, (out, into) in shapes.items():
        state[f"{name}.weight"], state[f"{name}.bias"] = torch.zeros(out, into, 3, 3), torch.zeros(out)
    return state


_BSRGAN_NAMES = {
    "body": "RRDB_trunk",
    "conv_body": "trunk_conv",
    "conv_hr": "HRconv",
    "conv_up1": "upconv1",
    "conv_up2": "upconv2",
}


def bsrgan_template() -> dict[str, torch.Tensor]:
    """Names and shapes of BSRGAN's file: the same network under older names."""
    renamed = {}
    for name, tensor in rrdbnet_template().items():
        first, _, rest = name.partition(".")
        renamed[f"{_BSRGAN_NAMES.get(first, first)}.{rest.replace('rdb', 'RDB')}"] = tensor
    return renamed


def _swinir(depth: int, width: int, heads: int, connection: str) -> SwinIR:
    return SwinIR(
        upscale=4,
        img_size=64,
        window_size=8,
        depths=[6] * depth,
        embed_dim=width,
        num_heads=[heads] * depth,
        mlp_ratio=2,
        upsampler="nearest+conv",
        resi_connection=connection,
    )


def _hat() -> HAT:
    return HAT(
        upscale=4,
        img_size=64,
        window_size=16,
        compress_ratio=3,
        squeeze_factor=30,
        overlap_ratio=0.5,
        depths=[6] * 6,
        embed_dim=180,
        num_heads=[6] * 6,
        mlp_ratio=2,
        upsampler="pixelshuffle",
    )


def _dat() -> DAT:
    return DAT(
        upscale=4,
        img_size=64,
        split_size=[8, 32],
        depth=[6] * 6,
        embed_dim=180,
        num_heads=[6] * 6,
        expansion_factor=2,
    )


def _restormer() -> torch.nn.Module:
    from spandrel_extra_arches.architectures.Restormer import Restormer

    network: torch.nn.Module = Restormer(LayerNorm_type="BiasFree")
    return network


TEMPLATES: dict[str, Callable[[], dict[str, torch.Tensor]]] = {
    "rrdbnet-x4": rrdbnet_template,
    "rrdbnet-x2": lambda: rrdbnet_template(inputs=12),
    "bsrgan": bsrgan_template,
    "srvgg-x4": lambda: Compact(num_feat=64, num_conv=32, upscale=4).state_dict(),
    "hat": lambda: _hat().state_dict(),
    "swinir-l": lambda: _swinir(9, 240, 8, "3conv").state_dict(),
    "swinir-m": lambda: _swinir(6, 180, 6, "1conv").state_dict(),
    "dat2": lambda: _dat().state_dict(),
    "realplksr-x1": lambda: RealPLKSR(upscaling_factor=1).state_dict(),
    "realplksr-x4": lambda: RealPLKSR(upscaling_factor=4).state_dict(),
    "scunet": lambda: SCUNet().state_dict(),
    "nafnet-sidd": lambda: NAFNet(
        width=64, enc_blk_nums=[2, 2, 4, 8], middle_blk_num=12, dec_blk_nums=[2] * 4
    ).state_dict(),
    "nafnet-gopro": lambda: NAFNet(
        width=64, enc_blk_nums=[1, 1, 1, 28], middle_blk_num=1, dec_blk_nums=[1] * 4
    ).state_dict(),
    "fbcnn-color": lambda: FBCNN().state_dict(),
    "fbcnn-gray": lambda: FBCNN(in_nc=1, out_nc=1).state_dict(),
    "restormer": lambda: _restormer().state_dict(),
}
"""State dicts with the published files' names and shapes, by network."""


def random_weights(model_id: str) -> dict[str, torch.Tensor]:
    """What a model's published file holds, with random numbers; Restormer's needs the `noncommercial` extra."""
    layout = LAYOUTS[model_id]
    return random_state(TEMPLATES[layout.network](), layout)


def publish(spec: ModelSpec, state: Mapping[str, torch.Tensor], folder: Path) -> ModelSpec:
    """Write ``state`` into ``folder`` as the publisher does.

    Returns:
        ``spec`` with that file's size and digest.
    """
    file, wrapper = spec.weights[-1], LAYOUTS[spec.id].wrapper
    path = folder / file.filename
    torch.save({wrapper: dict(state)} if wrapper else dict(state), path)
    return replace(spec, weights=(replace(file, size_bytes=path.stat().st_size, sha256=sha256_of(path)),))
