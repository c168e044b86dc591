"""Figures of an upscaler by four on real photos, beside bicubic's."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from skimage import data, metrics

SIDE, SCALE = 160, 4


@dataclass(frozen=True)
class Quality:
    """How near a result comes to the original.

    Attributes:
        psnr: in dB.
        ssim: mean structural similarity, of colour.
        detail: mean step between neighbours, over the original's.
    """

    psnr: float
    ssim: float
    detail: float


def _crop(photo: np.ndarray, top: int, left: int) -> np.ndarray:
    return photo[top : top + SIDE, left : left + SIDE]


def astronaut() -> np.ndarray:
    """A face."""
    return _crop(data.astronaut(), 20, 140)


def coffee() -> np.ndarray:
    """A cup."""
    return _crop(data.coffee(), 100, 200)


def rocket() -> np.ndarray:
    """A launch pad at night."""
    return _crop(data.rocket(), 100, 200)


def shrunk(photo: np.ndarray) -> np.ndarray:
    """A quarter of the size."""
    small = (SIDE // SCALE, SIDE // SCALE)
    return np.asarray(Image.fromarray(photo).resize(small, Image.Resampling.LANCZOS))


def damaged(photo: np.ndarray) -> np.ndarray:
    """Noise, then JPEG."""
    grain = np.random.RandomState(0).standard_normal(photo.shape) * 12
    stream = io.BytesIO()
    Image.fromarray(np.clip(photo + grain, 0, 255).astype(np.uint8)).save(stream, "JPEG", quality=40)
    return np.asarray(Image.open(stream))


def _measure(result: np.ndarray, original: np.ndarray) -> Quality:
    steps = [float(np.abs(np.diff(image.astype(np.float64), axis=1)).mean()) for image in (result, original)]
    return Quality(
        psnr=float(metrics.peak_signal_noise_ratio(original, result)),
        ssim=float(metrics.structural_similarity(original, result, channel_axis=2)),
        detail=steps[0] / steps[1],
    )


def compare(module: torch.nn.Module, original: np.ndarray, small: np.ndarray) -> tuple[Quality, Quality]:
    """Enlarge ``small`` with the network, and with bicubic."""
    image = torch.from_numpy(small / np.float32(255)).permute(2, 0, 1)[None]  # HWC -> BCHW
    with torch.inference_mode():
        large = module(image)[0].permute(1, 2, 0).clamp(0, 1)
    bicubic = Image.fromarray(small).resize((SIDE, SIDE), Image.Resampling.BICUBIC)
    ours = (large.numpy() * 255).round().astype(np.uint8)
    return _measure(ours, original), _measure(np.asarray(bicubic), original)
