"""Real architectures, small and with random weights, as files that spandrel tells apart: for stages no bundled model
serves."""

from __future__ import annotations

from typing import TYPE_CHECKING

import safetensors.torch
import torch

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path


def nafnet() -> torch.nn.Module:
    """NAFNet of a twenty thousand parameters."""
    from spandrel.architectures.NAFNet import NAFNet

    return _seeded(lambda: NAFNet(img_channel=3, width=8, middle_blk_num=1, enc_blk_nums=[1, 1], dec_blk_nums=[1, 1]))


def fbcnn() -> torch.nn.Module:
    """FBCNN with narrow outer layers; its middle is 512 wide by construction, so the file has 110 MB."""
    from spandrel.architectures.FBCNN import FBCNN

    return _seeded(lambda: FBCNN(nc=[8, 8, 8, 512], nb=2))


def compact(scale: int = 1, channels: int = 3) -> torch.nn.Module:
    """A network of plain convolutions."""
    from spandrel.architectures.Compact import Compact

    return _seeded(lambda: Compact(num_in_ch=channels, num_out_ch=channels, num_feat=8, num_conv=2, upscale=scale))


def esrgan(scale: int = 4) -> torch.nn.Module:
    """RRDBNet as Real-ESRGAN's: always x4 inside, and for a smaller scale on a folded photo."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    fold = 4 // scale
    folding = {"in_nc": 3 * fold**2, "shuffle_factor": fold} if fold > 1 else {}
    return _seeded(lambda: RRDBNet(num_filters=8, num_blocks=1, **folding))


def drunet() -> torch.nn.Module:
    """DRUNet for colour: takes a map of the noise's level as a fourth channel."""
    from spandrel.architectures.DRUNet import DRUNet

    return _seeded(lambda: DRUNet(in_nc=4, out_nc=3, nc=[8, 8, 8, 8], nb=2))


def save(module: torch.nn.Module, path: Path) -> Path:
    """Write a checkpoint as trainers do, or a safetensors file, by the name."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(module.state_dict(), path)
    else:
        torch.save({"params": module.state_dict()}, path)
    return path


def _seeded(build: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return build().eval()
