"""Photos of scikit-image as they are, black and white, and toned."""

from __future__ import annotations

import numpy as np
import torch
from skimage import data


def photo(name: str) -> torch.Tensor:
    array = getattr(data, name)()
    array = array if array.ndim == 3 else np.repeat(array[..., None], 3, axis=-1)
    return torch.from_numpy(array.copy()).float().permute(2, 0, 1)[None] / 255


def gray(image: torch.Tensor) -> torch.Tensor:
    weights = torch.tensor([0.299, 0.587, 0.114]).view(1, 3, 1, 1)
    return (image * weights).sum(1, keepdim=True).expand(-1, 3, -1, -1).contiguous()


def sepia(image: torch.Tensor) -> torch.Tensor:
    """The matrix that photo programs use."""
    matrix = torch.tensor([[0.393, 0.769, 0.189], [0.349, 0.686, 0.168], [0.272, 0.534, 0.131]])
    return torch.einsum("ij,bjhw->bihw", matrix, gray(image)).clamp(0, 1)
