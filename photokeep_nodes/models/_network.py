"""What a network is, read off spandrel's descriptor: for weights that no entry of the catalogue describes."""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ROLE_TITLES
from . import _spandrel

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    import torch

    from ..model_spec import Condition, DTypeName, Role

ROLES: tuple[Role, ...] = ("denoise", "deblur", "jpeg", "low_light", "upscale")
"""Stages that take any network from image to image."""

UNKNOWN_HINT = (
    "What spandrel knows can be used, see https://github.com/chaiNNer-org/spandrel; more of it after:"
    f" pip install '{_spandrel.EXTRA_ARCHES}' (non-commercial)"
)
"""What to do with weights that nothing here identifies."""

_CONDITIONS: dict[str, Condition] = {"FBCNN": "jpeg_quality", "DRUNet": "noise_sigma"}
_SERVES: dict[Condition, Role] = {"jpeg_quality": "jpeg", "noise_sigma": "denoise"}


@dataclass(frozen=True)
class Habits:
    """What cannot be read off weights, by architecture.

    Attributes:
        context: pixels beyond which what surrounds an output pixel hardly matters, and so the margin of tiles.
        bytes_per_pixel: working memory per input pixel in float32, of a network of the usual width.
        grid: what the offsets of tiles are multiples of: the windows', or the folding's, size.
        best_tile: as of ``ModelSpec``.
    """

    context: int = 32
    bytes_per_pixel: int = 16_000
    grid: int = 1
    best_tile: int = 0


_HABITS: dict[str, Habits] = {
    "Compact": Habits(34, 1_200),
    "SPAN": Habits(24, 1_500),
    "ESRGAN": Habits(48, 15_000),
    "RealCUGAN": Habits(32, 6_000),
    "PLKSR": Habits(48, 3_000),
    "DnCNN": Habits(20, 1_500),
    "DRUNet": Habits(64, 2_500, 8),
    "FBCNN": Habits(64, 2_500, 8),
    "SCUNet": Habits(64, 5_000, 64),
    "NAFNet": Habits(32, 3_500, 16, best_tile=384),
    "Restormer": Habits(32, 10_500, 8, best_tile=384),
    "SwinIR": Habits(32, 20_000, 8),
    "Swin2SR": Habits(32, 25_000, 8),
    "HAT": Habits(32, 55_000, 16),
    "DAT": Habits(32, 25_000, 32),
    "DRCT": Habits(32, 40_000, 16),
    "ATD": Habits(32, 40_000, 16),
    "SRFormer": Habits(32, 40_000, 24),
    "GRL": Habits(64, 40_000, 64),
}
_UNKNOWN = Habits()
_WHOLE_PHOTO = 64
"""Least margin of networks whose authors would rather see the whole photo: the seams are blended over more pixels."""


@dataclass(frozen=True)
class Facts:
    """What spandrel knows of a network; plain data, so that it can be written down.

    Attributes:
        architecture: spandrel's id of the family.
        purpose: "SR", "Restoration", "FaceSR" or "Inpainting".
        scale: output side over input side.
        input_channels: of the image.
        output_channels: of the result.
        minimum: smallest input side.
        multiple_of: input sides are multiples of this.
        tiling: "SUPPORTED", "DISCOURAGED" or "INTERNAL".
        half: whether it keeps its quality in float16 ...
        bfloat16: ... and in bfloat16.
        shape: digest of the names and shapes of its tensors: one for all weights of one network.
        weight_bytes: parameters and buffers in float32.
    """

    architecture: str
    purpose: str
    scale: int
    input_channels: int
    output_channels: int
    minimum: int
    multiple_of: int
    tiling: str
    half: bool
    bfloat16: bool
    shape: str
    weight_bytes: int

    @property
    def network_id(self) -> str:
        """Name under which what the network's shape decides is known; without "+", see ``ModelSpec.network_id``."""
        return f"{self.architecture}-{self.shape[:12]}".replace("+", "p")

    @property
    def _fold(self) -> int:
        """Side of the cells that a network folds the photo by: its context is as many times as wide on the photo."""
        # The x2 and x1 networks of ESRGAN's are the x4 one on a folded photo; spandrel tells them by their multiple.
        return max(1, 4 // self.scale) if self.architecture == "ESRGAN" and self.multiple_of > 1 else 1

    def traits(self, role: Role) -> dict[str, Any]:
        """The fields of a ``ModelSpec`` that follow from the network."""
        habits = _HABITS.get(self.architecture, _UNKNOWN)
        context = habits.context * self._fold
        unit = math.lcm(self.multiple_of, habits.grid)
        condition = _CONDITIONS.get(self.architecture)
        offered: dict[DTypeName, bool] = {"float16": self.half, "bfloat16": self.bfloat16, "float32": True}
        return {
            "role": role,
            "architecture": self.architecture,
            "weight_bytes": self.weight_bytes,
            "bytes_per_pixel": habits.bytes_per_pixel,
            "scale": self.scale,
            "channels": self.input_channels,
            "multiple_of": unit,
            "minimum": -(-self.minimum // unit) * unit,
            "receptive_field": context if self.tiling == "SUPPORTED" else max(context, _WHOLE_PHOTO),
            "best_tile": habits.best_tile,
            "dtypes": tuple(name for name, keeps_quality in offered.items() if keeps_quality),
            "condition": condition if condition is not None and _SERVES[condition] == role else None,
        }

    def check_serves(self, role: Role, name: str, *, any_scale: bool = False) -> None:
        """Refuse a network that a stage cannot use.

        Args:
            role: the stage.
            name: of the file or the model, for messages.
            any_scale: whether a network that enlarges where the stage does not, or the reverse, will do.
        Raises:
            NodeInputError: it is for faces or holes, enlarges where it should not or the reverse, or takes another kind
                of image than it returns.
        """
        what, title = f"{name} is {self.architecture}", ROLE_TITLES[role]
        if self.purpose not in {"SR", "Restoration"}:
            kind = {"FaceSR": "restores single faces", "Inpainting": "fills holes"}.get(self.purpose, self.purpose)
            raise NodeInputError(f"{what}, which {kind}; {title} needs one for whole photos")
        if self.input_channels != self.output_channels or self.input_channels not in {1, 3}:
            raise NodeInputError(
                f"{what}, which makes {self.output_channels} channels of {self.input_channels};"
                f" {title} needs one that keeps the three of a colour photo, or the one of a gray photo"
            )
        if self.tiling == "INTERNAL":
            raise NodeInputError(f"{what}, which has to see the whole photo at once and cannot be run in tiles")
        if any_scale:
            return
        if role == "upscale" and self.scale == 1:
            raise NodeInputError(
                f"{what} x1, which does not enlarge",
                hint="Use it with the stage it was made for: Denoise, Deblur or Remove JPEG Artifacts.",
            )
        if role != "upscale" and self.scale != 1:
            raise NodeInputError(f"{what} x{self.scale}, which enlarges", hint="Use it with the Upscale stage.")


def roles_of(facts: Facts, name: str) -> tuple[Role, ...]:
    """Stages that take a network.

    Args:
        facts: the network.
        name: of the file, for messages.
    Raises:
        NodeInputError: none does; it says why.
    """
    found: list[Role] = []
    for role in ROLES:
        with contextlib.suppress(NodeInputError):
            facts.check_serves(role, name)
            found.append(role)
    if not found:
        facts.check_serves("denoise" if facts.scale == 1 else "upscale", name)
    return tuple(found)


def identify(state: Mapping[str, torch.Tensor], *, wanted: str) -> Any:
    """Have spandrel find out what network weights belong to; see ``_spandrel.identify``.

    The architectures of spandrel_extra_arches count where the user has installed it.
    """
    extra_arches = importlib.util.find_spec("spandrel_extra_arches") is not None
    return _spandrel.identify(state, wanted=wanted, extra_arches=extra_arches)


def facts_of(descriptor: Any) -> Facts:
    """Read what spandrel knows off its descriptor."""
    sizes = descriptor.size_requirements
    state = descriptor.model.state_dict()
    shapes = "\n".join(f"{name} {tuple(tensor.shape)}" for name, tensor in sorted(state.items()))
    return Facts(
        architecture=str(descriptor.architecture.id),
        purpose=str(descriptor.purpose),
        scale=int(descriptor.scale),
        input_channels=int(descriptor.input_channels),
        output_channels=int(descriptor.output_channels),
        minimum=max(1, int(sizes.minimum)),
        multiple_of=max(1, int(sizes.multiple_of)),
        tiling=str(descriptor.tiling.name),
        half=bool(descriptor.supports_half),
        bfloat16=bool(descriptor.supports_bfloat16),
        shape=hashlib.sha256(shapes.encode()).hexdigest(),
        weight_bytes=4 * sum(each.numel() for each in _tensors(descriptor.model)),
    )


def _tensors(module: torch.nn.Module) -> Iterable[torch.Tensor]:
    yield from module.parameters()
    yield from module.buffers()


def wrapped(descriptor: Any, condition: Condition | None) -> torch.nn.Module:
    """Make of spandrel's network one that this pack can call."""
    from .._arch.fbcnn import JpegRemover
    from .._arch.spandrel_network import NoiseLevelNetwork, SpandrelNetwork

    if condition == "noise_sigma":
        return NoiseLevelNetwork(descriptor)
    if condition == "jpeg_quality":
        return JpegRemover(descriptor.model)
    return SpandrelNetwork(descriptor)


@dataclass(frozen=True)
class Rebuild:
    """Builds, from its weights, a network that spandrel has found out before; equal where it builds the same."""

    network_id: str
    condition: Condition | None

    def __call__(self, state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
        descriptor = identify(state, wanted=self.network_id)
        return wrapped(descriptor, self.condition).eval()
