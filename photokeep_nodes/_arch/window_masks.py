"""Masks of shifted windows in spandrel's SwinIR and DAT: made once a call, where the network computes, in its type.

For all but one size of photo those networks make them anew in each of up to 54 blocks, on the CPU: an accelerator waits
for them. SwinIR makes them in float32 besides, which its attention refuses to mix with half precision.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

if TYPE_CHECKING:
    from collections.abc import Sequence

_APART = -100.0


def window_mask(
    size: Sequence[int], window: Sequence[int], shift: Sequence[int], *, like: torch.Tensor
) -> torch.Tensor:
    """Tell apart what shifting a photo around its edges has put into one window.

    Args:
        size: height and width of the photo, multiples of the window's.
        window: height and width, in pixels.
        shift: down and right, in pixels.
        like: gives type and device.
    Returns:
        (windows, N, N) for the N pixels of a window: 0 between those that lie together in the photo, else -100.
    """
    rows, columns = (
        _regions(length, side, by, like.device) for length, side, by in zip(size, window, shift, strict=True)
    )
    regions = 3 * rows[:, None] + columns
    cells = regions.view(size[0] // window[0], window[0], size[1] // window[1], window[1])
    pixels = cells.transpose(1, 2).flatten(2).flatten(0, 1)
    return _APART * (pixels[:, None, :] != pixels[:, :, None]).to(like.dtype)


def _regions(length: int, side: int, shift: int, device: torch.device) -> torch.Tensor:
    """Number each position along an axis by where it comes from."""
    at = torch.arange(length, device=device)
    return (at >= length - side).int() + (at >= length - shift).int()


class _CallMasks:
    """Masks that the blocks of a network share for the length of a call; each thread has its own.

    Args:
        window: height and width of a window, in pixels.
        shift: how far windows are shifted, in pixels.
    """

    def __init__(self, window: tuple[int, int], shift: tuple[int, int]) -> None:
        self._window, self._shift = window, shift
        self._local = threading.local()

    def __deepcopy__(self, memo: dict[int, Any]) -> _CallMasks:
        return type(self)(self._window, self._shift)  # a copied network works on its own

    def begin(self, image: torch.Tensor) -> None:
        """Make masks in the type of ``image``, on its device."""
        self._local.image, self._local.made = image, {}

    def end(self) -> None:
        """Give the masks back."""
        self._local.image, self._local.made = None, {}

    def _mask(self, size: Sequence[int], *, transposed: bool = False) -> torch.Tensor:
        made: dict[bool, torch.Tensor] = self._local.made
        if transposed not in made:
            turn = -1 if transposed else 1
            made[transposed] = window_mask(size, self._window[::turn], self._shift[::turn], like=self._local.image)
        return made[transposed]


class _SwinIRMasks(_CallMasks):
    """In place of ``calculate_mask(size)`` of SwinIR's blocks."""

    def __call__(self, size: Sequence[int]) -> torch.Tensor:
        return self._mask(size)

    def none(self, _size: Sequence[int]) -> torch.Tensor:
        """For blocks whose windows are not shifted: they ask too. One window's, which does for all."""
        image: torch.Tensor = self._local.image
        pixels = self._window[0] * self._window[1]
        return image.new_zeros(1, pixels, pixels)


class _DATMasks(_CallMasks):
    """In place of ``calculate_mask(height, width, dtype=...)`` of DAT's blocks, which have windows of two kinds."""

    def __call__(self, height: int, width: int, **_type: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
        return self._mask((height, width)), self._mask((height, width), transposed=True)


class MaskedNetwork(nn.Module):
    """A network whose blocks share masks for the length of a call."""

    def __init__(self, network: nn.Module, masks: _CallMasks) -> None:
        super().__init__()
        self.network = network
        self._masks = masks

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """As the network inside."""
        self._masks.begin(x)
        try:
            result: torch.Tensor = self.network(x)
        finally:
            self._masks.end()
        return result


def _blocks(network: nn.Module) -> list[Any]:
    # By attribute: spandrel keeps the classes private.
    return [module for module in network.modules() if hasattr(module, "calculate_mask")]


def share_swinir_masks(network: nn.Module) -> nn.Module:
    """Let the blocks of spandrel's SwinIR share their masks.

    Args:
        network: changed in place; its windows are of one size, and shifted by half of that.
    """
    blocks = _blocks(network)
    side = int(blocks[0].window_size)
    masks = _SwinIRMasks((side, side), (side // 2, side // 2))
    for block in blocks:
        block.calculate_mask = masks if block.shift_size else masks.none
    return MaskedNetwork(network, masks).train(network.training)


def share_dat_masks(network: nn.Module) -> nn.Module:
    """Let the blocks of spandrel's DAT share their masks.

    Args:
        network: changed in place; its windows are of one size, lying and standing.
    """
    blocks = _blocks(network)
    window, shift = blocks[0].split_size, blocks[0].shift_size
    masks = _DATMasks((window[0], window[1]), (shift[0], shift[1]))
    for block in blocks:
        block.calculate_mask = masks
    return MaskedNetwork(network, masks).train(network.training)
