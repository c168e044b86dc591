"""Real architectures scaled to a wanted size, as files of random weights and as the pool's sources."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from photokeep_nodes.vram_manager import ModelSource

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    Builder = Callable[[int], nn.Module]


def rrdbnet(blocks: int) -> nn.Module:
    """Build ESRGAN's network, wider than usual: many small convolutions."""
    from spandrel.architectures.ESRGAN.__arch.RRDB import RRDBNet

    return RRDBNet(num_filters=512, num_blocks=blocks)


def transformer(blocks: int) -> nn.Module:
    """Build layers such as SwinIR's at the width of a large one: matrices, and a few vectors to each."""
    return nn.Sequential(*(nn.TransformerEncoderLayer(1280, 20, 5120, batch_first=True) for _ in range(blocks)))


def unet(blocks: int) -> nn.Module:
    """Build a U-Net's residual blocks at the width of a diffusion model's inner levels: few large convolutions."""
    layers = [
        nn.Sequential(
            nn.GroupNorm(32, 1280),
            nn.SiLU(),
            nn.Conv2d(1280, 1280, 3, padding=1),
            nn.GroupNorm(32, 1280),
            nn.SiLU(),
            nn.Conv2d(1280, 1280, 3, padding=1),
        )
        for _ in range(blocks)
    ]
    return nn.Sequential(nn.Conv2d(3, 1280, 3, padding=1), *layers, nn.Conv2d(1280, 3, 3, padding=1))


def plain(blocks: int) -> nn.Module:
    """Build layers of 64 KiB, for a dry run."""
    return nn.Sequential(*(nn.Linear(128, 128, bias=False) for _ in range(blocks)))


FAMILIES: dict[str, Builder] = {"RRDBNet": rrdbnet, "transformer": transformer, "U-Net": unet}


def half_bytes(module: nn.Module) -> int:
    """Bytes of ``module`` in float16."""
    return sum(
        each.numel() * (2 if each.is_floating_point() else each.element_size()) for each in module.state_dict().values()
    )


def blocks_for(build: Builder, n_bytes: int) -> int:
    """How many blocks come to about ``n_bytes`` in float16, and not to more, if more than one."""
    with torch.device("meta"):
        one, two = half_bytes(build(1)), half_bytes(build(2))
    return max(1, 1 + (n_bytes - one) // (two - one))


def write(path: Path, build: Builder, blocks: int) -> int:
    """Write random weights for ``build(blocks)`` in float16, and see that they have to be read from the disk.

    Returns:
        Bytes of the weights.
    """
    with torch.device("meta"):
        shapes = build(blocks).state_dict()
    noise = (torch.rand(2**22, generator=torch.Generator().manual_seed(1)) - 0.5).half()
    state = {}
    for name, like in shapes.items():
        if like.is_floating_point():
            tensor = torch.empty(like.shape, dtype=torch.float16)
            flat = tensor.view(-1)
            for start in range(0, flat.numel(), noise.numel()):
                part = flat[start : start + noise.numel()]
                part.copy_(noise[: part.numel()])
        else:
            tensor = torch.zeros(like.shape, dtype=like.dtype)
        state[name] = tensor
    save_file(state, path)
    with path.open("r+b") as file:
        os.fsync(file.fileno())
        if hasattr(os, "posix_fadvise"):
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
    return sum(tensor.nbytes for tensor in state.values())


def from_file(key: str, path: Path, build: Builder, blocks: int, n_bytes: int) -> ModelSource:
    """Return a source that builds the network without initialising it, and reads its weights."""

    def load() -> nn.Module:
        with torch.device("meta"):
            module = build(blocks)
        state = load_file(path)
        # Copied out of the mapped file, as the pack's loaders do when they convert: the pages would come back later.
        module.load_state_dict({name: tensor.clone() for name, tensor in state.items()}, assign=True)
        return module.eval()

    return ModelSource(key, load, n_bytes)


def in_memory(key: str, build: Builder, blocks: int) -> ModelSource:
    """Return a source whose weights cost no reading, in float16: for what is measured warm."""
    with torch.device("meta"):
        n_bytes = half_bytes(build(blocks))

    def load() -> nn.Module:
        with torch.device("meta"):
            module = build(blocks).half()
        module.to_empty(device="cpu")
        with torch.no_grad():
            for tensor in (*module.parameters(), *module.buffers()):
                tensor.fill_(1)  # touched, so that the pages are there
        return module.eval()

    return ModelSource(key, load, n_bytes)
