"""LaMa and MAT behind the contract of the inpainters: a photo and a mask in, the photo with the masked part drawn anew.

The networks themselves are spandrel's. Sources: Suvorov et al. 2022, "Resolution-robust large mask inpainting with
Fourier convolutions", arXiv:2109.07161; Li et al. 2022, "MAT: mask-aware transformer for large hole image inpainting",
arXiv:2203.15270.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional
from torch.overrides import TorchFunctionMode

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

MAT_SIDE = 512
MAT_STYLE = 512
MAT_SEED = 240
"""Of the style, and of what is left to chance inside: the one that the authors' own script sets."""


def check_inputs(image: torch.Tensor, mask: torch.Tensor) -> None:
    """Refuse what no inpainter takes.

    Raises:
        NodeInputError: not one photo of three channels with a mask of its size, or a mask that is not all 0 and 1.
    """
    if image.ndim != 4 or image.shape[:2] != (1, 3):
        raise NodeInputError(f"the photo to inpaint must be (1, 3, height, width), not {tuple(image.shape)}")
    if mask.shape != (1, 1, *image.shape[2:]):
        raise NodeInputError(
            f"the mask must be {(1, 1, *image.shape[2:])}, as large as the photo, not {tuple(mask.shape)}"
        )
    # Between the two the networks would mix what is to be replaced into what they draw; NaN is neither.
    if not ((mask == 0) | (mask == 1)).all():
        raise NodeInputError("the mask of an inpainter must be exactly 0 (keep) or 1 (fill) everywhere")


class LamaInpainter(nn.Module):
    """LaMa, which covers the masked pixels, is told where they are, and keeps all others as they are.

    Args:
        network: spandrel's LaMa; it does all that.
    """

    MULTIPLE = 8
    MINIMUM = 16

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill holes.

        Args:
            image: (1, 3, H, W) RGB, [0, 1], in float32: the Fourier transforms inside take no less. Sides are multiples
                of 8, from 16 on. What it holds under the mask has no influence, unless it is not a number.
            mask: (1, 1, H, W), 1 where the photo is to be filled, else 0.
        Returns:
            As ``image``, [0, 1]; where the mask is 0, ``image`` itself.
        Raises:
            NodeInputError: another shape, or another mask.
        """
        check_inputs(image, mask)
        height, width = image.shape[2:]
        if height % self.MULTIPLE or width % self.MULTIPLE or min(height, width) < self.MINIMUM:
            raise NodeInputError(
                f"the sides of a photo for LaMa must be multiples of {self.MULTIPLE} px from {self.MINIMUM} on,"
                f" not {height} x {width}"
            )
        filled: torch.Tensor = self.network(image, mask)
        return filled


class MatInpainter(nn.Module):
    """MAT, which imagines a style at random: here the same one every time, so that a hole is filled the same way twice.

    Of spandrel's MAT only the generator is used. Around it spandrel would draw a new style for each instance, and keep
    it, and other tensors, where moving the module does not reach them.

    Args:
        network: spandrel_extra_arches' MAT.
    """

    style: torch.Tensor
    label: torch.Tensor
    kept_by_transformer: torch.Tensor
    kept_by_convolutions: torch.Tensor

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.generator = network.get_submodule("model")
        for module in self.generator.modules():
            if isinstance(loose := getattr(module, "weight_maskUpdater", None), torch.Tensor):
                del module.weight_maskUpdater
                module.register_buffer("weight_maskUpdater", loose, persistent=False)
        # RandomState is frozen by numpy, and this is how the authors draw the style of their first photo.
        random = np.random.RandomState(MAT_SEED)
        drawn: dict[str, np.ndarray[Any, Any]] = {
            "style": random.standard_normal((1, MAT_STYLE)),
            "label": np.zeros((1, 0)),
            # Which features of the photo stay, and which give way to the style: a half, at 1/32 of the side.
            "kept_by_transformer": random.random_sample((1, 16 * 16, 180)) < 0.5,
            "kept_by_convolutions": random.random_sample((1, 512, 16, 16)) < 0.5,
        }
        for name, values in drawn.items():
            self.register_buffer(name, torch.from_numpy(values.astype(np.float32)), persistent=False)

    def forward(self, image: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Fill holes.

        Args:
            image: (1, 3, 512, 512) RGB, [0, 1]. What it holds under the mask has no influence.
            mask: (1, 1, 512, 512), 1 where the photo is to be filled, else 0.
        Returns:
            As ``image``, [0, 1]; where the mask is 0, ``image`` itself.
        Raises:
            NodeInputError: another shape, or another mask.
        """
        check_inputs(image, mask)
        if image.shape[2:] != (MAT_SIDE, MAT_SIDE):
            raise NodeInputError(f"MAT fills photos of {MAT_SIDE} x {MAT_SIDE} px, not {tuple(image.shape[2:])}")
        # Its own values are -1 to 1, and its own mask is 1 where the photo is kept. The published file has no noise.
        with _Chance((self.kept_by_transformer, self.kept_by_convolutions)):
            filled = self.generator(image * 2 - 1, 1 - mask, self.style, self.label, noise_mode="none")
        return torch.where(mask == 1, ((filled + 1) / 2).clamp(0.0, 1.0), image)

    def to(self, *args: Any, **kwargs: Any) -> MatInpainter:
        """As ``nn.Module.to``, but without ``memory_format``: kernels of five dimensions cannot take it."""
        kwargs.pop("memory_format", None)
        return super().to(*args, **kwargs) if args or kwargs else self


class _Chance(TorchFunctionMode):
    """What dropout keeps in this thread while this is entered, in place of what chance would.

    MAT goes on with dropout after training: it draws which of its features the style replaces.

    Args:
        kept: 1 where a feature stays, else 0, one for each shape that comes.
    """

    def __init__(self, kept: tuple[torch.Tensor, ...]) -> None:
        super().__init__()
        self.kept = {each.shape: each for each in kept}

    def __torch_function__(
        self,
        func: Callable[..., Any],
        types: tuple[type, ...],
        args: tuple[Any, ...] = (),
        kwargs: Mapping[str, Any] | None = None,
    ) -> Any:
        """Let all through but dropout."""
        if func is functional.dropout:
            # Half of the values are dropped and the others doubled, as always.
            return args[0] * 2 * self.kept[args[0].shape]
        return func(*args, **(kwargs or {}))
