"""What a model is: its role, its weight files, its input rules and how it is built.

Plain data and one callable; importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

Role = Literal["denoise", "low_light", "upscale", "face_detect", "face_restore", "colorize"]
DTypeName = Literal["float32", "float16", "bfloat16"]


@dataclass(frozen=True)
class Licence:
    """Terms a weight file comes under.

    Attributes:
        id: SPDX identifier where one exists, else a short name.
        commercial: whether the terms allow commercial use.
        url: where the terms can be read.
        note: a caveat the user should see; may be empty.
    """

    id: str
    commercial: bool
    url: str
    note: str = ""


@dataclass(frozen=True)
class Bundled:
    """Weights that ship inside this package, as safetensors under ``photokeep_nodes/bundled/``."""

    filename: str


@dataclass(frozen=True)
class InPackage:
    """Weights that lie inside another installed distribution; its code is never imported.

    Attributes:
        distribution: name of the distribution on the package registry.
        requirement: what to ask pip for.
        package: top-level import package, located but not imported.
        path: file inside the package.
        param_path: the ncnn ``.param`` text beside an ncnn ``.bin``.
        param_sha256: digest of ``param_path``.
        key_map: name of the function in ``photokeep_nodes.weight_formats`` that names the tensors.
    """

    distribution: str
    requirement: str
    package: str
    path: str
    param_path: str
    param_sha256: str
    key_map: Literal["rrdbnet", "srvgg"]


@dataclass(frozen=True)
class Download:
    """A published file that the user places, or has fetched, into a model folder."""

    filename: str
    url: str


@dataclass(frozen=True)
class WeightFile:
    """One file that holds all of a model's weights.

    Attributes:
        origin: where it comes from.
        size_bytes: exact size of the file as published.
        sha256: digest of the file as published.
        licence: the terms of the weights.
    """

    origin: Bundled | InPackage | Download
    size_bytes: int
    sha256: str
    licence: Licence

    @property
    def filename(self) -> str:
        """File name without folders."""
        name = self.origin.path if isinstance(self.origin, InPackage) else self.origin.filename
        return name.rsplit("/", 1)[-1]


@dataclass(frozen=True)
class ModelSpec:
    """One model of the catalogue.

    Attributes:
        id: catalogue name, lower case with dashes.
        title: name as people write it.
        node_name: the model node is ``PhotokeepModel`` + this.
        role: the stage it serves.
        architecture: network family.
        weights: alternatives, best first; the first that is installed is used.
        build: state dict of the published file to an eval-mode module on the CPU.
        weight_bytes: parameters and buffers in float32.
        bytes_per_pixel: working memory per input pixel of a tile in float32; an estimate the pool corrects.
        scale: output side over input side.
        channels: input channels.
        multiple_of: input sides must be multiples of this.
        minimum: smallest input side in pixels.
        receptive_field: pixels of context on each side that an output pixel can see; tiles overlap by it.
        dtypes: floating types the architecture keeps its quality in, fastest first.
        description: one line for tooltips and lists.
        source: paper or repository.
    """

    id: str
    title: str
    node_name: str
    role: Role
    architecture: str
    weights: tuple[WeightFile, ...]
    build: Callable[[Mapping[str, torch.Tensor]], torch.nn.Module]
    weight_bytes: int
    bytes_per_pixel: int
    scale: int = 1
    channels: int = 3
    multiple_of: int = 1
    minimum: int = 1
    receptive_field: int = 16
    dtypes: tuple[DTypeName, ...] = ("float32",)
    description: str = ""
    source: str = ""


@dataclass(frozen=True)
class ModelHandle:
    """What a model node hands to a stage node: a name, never weights."""

    model_id: str


def socket_type(role: Role) -> str:
    """Name of the editor socket that carries a handle of this role."""
    return f"PHOTOKEEP_{role.upper()}_MODEL"
