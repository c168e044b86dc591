"""Weights and photos with holes for the proofs of LaMa and MAT; `tests/data/make_inpainters.py` uses the same ones."""

from __future__ import annotations

import math
import warnings
from typing import TYPE_CHECKING

import torch
from published import photo, random_tensor
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

LAMA_SIZE = (72, 104)
MAT_STEP = 16
"""Of what MAT draws, every so many pixels are kept."""


def holes(height: int, width: int) -> torch.Tensor:
    """(1, 1, H, W), 1 in a scratch from edge to edge, in a corner that is torn off, and in a blot."""
    rows, columns = torch.meshgrid(torch.arange(height) / height, torch.arange(width) / width, indexing="ij")
    scratch = (columns - 0.35 - 0.2 * rows).abs() < 0.03
    corner = rows + columns > 1.7
    blot = (rows - 0.4) ** 2 + (columns - 0.75) ** 2 < 0.02
    return (scratch | corner | blot).float()[None, None]


def lama_case() -> tuple[torch.Tensor, torch.Tensor]:
    """A photo and its holes."""
    return photo(*LAMA_SIZE), holes(*LAMA_SIZE)


def mat_case() -> tuple[torch.Tensor, torch.Tensor]:
    """A photo of 512 x 512 and its holes."""
    image = nn.functional.interpolate(photo(128, 128), size=(512, 512), mode="bilinear")
    return image, holes(512, 512)


def lama_state(template: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Random weights by the names of the published file, ``model.generator.model.1.bn_l.weight`` and so on."""
    return {
        name: random_tensor(name, tuple(tensor.shape), gain=0.7, centre=1.0) if tensor.is_floating_point() else tensor
        for name, tensor in template.items()
    }


def mat_state(template: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """Random weights by the names of the published file; filters and masks, which were not trained, are kept."""
    return {
        name: tensor if name.endswith((".resample_filter", ".attn_mask")) else _mat_tensor(name, tuple(tensor.shape))
        for name, tensor in template.items()
    }


def _mat_tensor(name: str, shape: tuple[int, ...]) -> torch.Tensor:
    # Its layers divide by the root of their inputs, and those of the mapping by a hundred, when they compute.
    gain = math.sqrt(math.prod(shape[1:])) * (100 if name.startswith("mapping.") else 1)
    if ".toRGB." in name:
        gain *= 0.07  # of eight pictures that are added up
    values = random_tensor(name, shape, gain=gain, centre=1.0)
    return values + 1 if name.endswith(".affine.bias") else values


class _TrainingClass(nn.Module):
    """The part of the authors' training class that is in the published program."""

    def __init__(self, generator: nn.Module) -> None:
        super().__init__()
        self.generator = generator

    def forward(self, batch: dict[str, torch.Tensor]) -> torch.Tensor:
        image, mask = batch["image"], batch["mask"]
        drawn = self.generator(torch.cat([image * (1 - mask), mask], dim=1))
        return mask * drawn + (1 - mask) * image


class _Wrapper(nn.Module):
    """As lama's bin/to_jit.py has it."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        return self.model({"image": image, "mask": mask})


class _Generator(nn.Module):
    """As the authors', which is one sequence of layers."""

    def __init__(self, layers: nn.Module) -> None:
        super().__init__()
        self.model = layers

    def forward(self, masked: torch.Tensor) -> torch.Tensor:
        return self.model(masked)


def as_published(layers: nn.Module) -> nn.Module:
    """What was traced for big-lama.pt, around the layers of a generator that takes four channels."""
    return _Wrapper(_TrainingClass(_Generator(layers))).eval()


def trace(program: nn.Module, path: Path) -> None:
    """Write a program as big-lama.pt was written."""
    with torch.no_grad(), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that TorchScript is deprecated, and that sizes become constants
        traced = torch.jit.trace(
            program, (torch.rand(1, 3, 32, 32), torch.ones(1, 1, 32, 32)), strict=False, check_trace=False
        )
        traced.save(str(path))
