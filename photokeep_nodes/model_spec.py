"""What a model is: its role, its weight files, its input rules and how it is built.

Plain data and one callable; importing this module imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Literal, get_args

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    import torch

Role = Literal[
    "denoise",
    "deblur",
    "jpeg",
    "low_light",
    "scratch_detect",
    "inpaint",
    "upscale",
    "face_detect",
    "face_parse",
    "face_identity",
    "face_restore",
    "colorize",
]
ROLES: tuple[Role, ...] = get_args(Role)
ROLE_TITLES: dict[Role, str] = {
    "denoise": "Denoise",
    "deblur": "Deblur",
    "jpeg": "Remove JPEG Artifacts",
    "low_light": "Low Light",
    "scratch_detect": "Scratch Detection",
    "inpaint": "Inpaint",
    "upscale": "Upscale",
    "face_detect": "Face Detection",
    "face_parse": "Face Parsing",
    "face_identity": "Face Identity",
    "face_restore": "Face Restore",
    "colorize": "Colorize",
}
"""What people call the stage a role serves."""

Condition = Literal["noise_sigma", "jpeg_quality", "fidelity"]
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
    """A published file that the user places, or has fetched, into a model folder.

    Attributes:
        filename: its name in the model folder.
        url: where its publisher has it.
        mirrors: other addresses of the same bytes, tried in order when the first fails.
        folder: kind of ComfyUI model folder it belongs into, such as "upscale_models".
        member: its path inside the zip archive that ``url`` then is; mirrors have the file itself. Empty where it is no
            part of an archive.
    """

    filename: str
    url: str
    mirrors: tuple[str, ...] = ()
    folder: str = "photokeep"
    member: str = ""


@dataclass(frozen=True)
class WeightFile:
    """One file that holds all of a model's weights.

    Attributes:
        origin: where it comes from.
        size_bytes: exact size of the file as published; about that where ``sha256`` is empty.
        sha256: digest of the file as published; empty where no publisher states one: then the digest of the first
            file that loads is remembered, and another one refused.
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
class Blend:
    """A second model of the same shape, whose weights can be mixed in: one slider between two characters.

    Attributes:
        partner: id of the other model.
        widget: name of the slider on the model's node.
        default: its value to begin with.
        partner_at: its value, 0 or 1, at which the partner alone is used.
        tooltip: what the slider does.
    Source: Wang et al. 2019, arXiv:1811.10515 (deep network interpolation).
    """

    partner: str
    widget: str
    default: float
    partner_at: Literal[0, 1]
    tooltip: str

    @property
    def alone_at(self) -> int:
        """Value of the slider at which the model is used alone, and the partner's file is not needed."""
        return 1 - self.partner_at

    def share(self, value: float) -> float:
        """Share of the partner's weights, 0 to 1, at a value of the slider."""
        return round(value if self.partner_at == 1 else 1.0 - value, 4)


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
        multiple_of: input sides, and the offsets of tiles, must be multiples of this: the unshuffle factor, the window.
        minimum: smallest input side in pixels.
        value_range: values the module takes; the photo is clamped to them.
        receptive_field: pixels of context on each side that an output pixel makes use of; tiles overlap by it.
        best_tile: tile side in pixels beyond which results get worse, for networks that pool over the whole tile and
            were trained on small ones; 0 where larger is never worse.
        dtypes: floating types the architecture keeps its quality in, fastest first.
        native_side: side in pixels of the square input that a network is made for which sees it whole: a face's crop,
            the copy of a photo on which colours are predicted; 0 for networks that are run in tiles.
        takes_hints: for ``colorize``, whether the module takes known colours as its second and third argument: ab
            (B, 2, S, S), 0 where nothing is known, and where they are known (B, 1, S, S), 0 or 1.
        same_person: for ``face_identity``, the cosine similarity of two embeddings above which they are one person's.
        condition: what the module takes as its second argument, (B,) in [0, 1]: the noise's standard deviation, the
            JPEG quality, or the fidelity of a face (0 is most restored, 1 closest to the input); None for blind models.
        condition_required: whether the module cannot work it out by itself.
        blend: a second model whose weights can be mixed in.
        mixed_with: this spec is such a mixture: the partner, and its share of the weights.
        copied: copies the network from the program that holds it, where there is no weight file; the id then names the
            weights.
        requirement: what to ask pip for besides photokeep, where the network's code lies in another distribution, whose
            name is its package's too.
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
    value_range: tuple[float, float] = (0.0, 1.0)
    receptive_field: int = 16
    best_tile: int = 0
    native_side: int = 0
    takes_hints: bool = False
    same_person: float = 0.0
    dtypes: tuple[DTypeName, ...] = ("float32",)
    condition: Condition | None = None
    condition_required: bool = False
    blend: Blend | None = None
    mixed_with: tuple[ModelSpec, float] | None = None
    copied: Callable[[], torch.nn.Module] | None = None
    requirement: str = ""
    description: str = ""
    source: str = ""

    @property
    def network_id(self) -> str:
        """Name under which what the network's shape decides is known: one for all mixtures of its weights."""
        return self.id.partition("+")[0]

    @property
    def parts(self) -> tuple[ModelSpec, ...]:
        """The models whose weight files are needed: itself, and the partner of a mixture."""
        if self.mixed_with is None:
            return (self,)
        partner, _ = self.mixed_with
        return replace(self, id=self.network_id, mixed_with=None), partner


@dataclass(frozen=True)
class ModelHandle:
    """What a model node hands to a stage node: a name, never weights.

    Attributes:
        model_id: of the catalogue, or "file:ROLE/NAME" for a file dropped into a model folder.
        blend: share, 0 to 1, of the weights of the model's partner.
    """

    model_id: str
    blend: float = 0.0


def socket_type(role: Role) -> str:
    """Name of the editor socket that carries a handle of this role."""
    return f"PHOTOKEEP_{role.upper()}_MODEL"
