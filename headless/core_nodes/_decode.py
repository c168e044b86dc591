"""Picture files as the host's Load Image gives them.

That is, as Pillow decodes them: upright, no colours converted, alpha apart, each picture of an animation. Differences:

- what is cut off or broken is refused, and sizes are checked before anything is unpacked;
- 16 bits stay 16 bits, as in ComfyUI 0.33; older hosts cut such grays off at white;
- ComfyUI 0.33 has FFmpeg decode: colours of a JPEG with halved colour planes differ by up to 20 of 255 steps, gray by
  one, mirrored EXIF orientations are not mirrored, and of a GIF it shows one picture. Pillow's are kept here.
"""

from __future__ import annotations

import io
from contextlib import suppress
from typing import TYPE_CHECKING, Any

import numpy as np

from photokeep_nodes.errors import PhotoReadError
from photokeep_nodes.photo_io import exif as exif_blocks
from photokeep_nodes.photo_io.decode import ANIMATED
from photokeep_nodes.photo_io.read import read_samples, upright
from photokeep_nodes.photo_io.size import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from PIL import Image

    from photokeep_nodes.photo_io.decode import Decoded, Samples

Floats = np.ndarray[Any, np.dtype[np.float32]]

NO_ALPHA = (64, 64)
"""Size of the mask of a picture without transparency: the host's way to say so."""


def read_pictures(path: Path) -> tuple[Floats, Floats]:
    """Read a file.

    Returns:
        (B, H, W, 3) pictures in [0, 1], and (B, H, W) masks of what is transparent or (B, 64, 64) zeros.
    Raises:
        PhotoReadError: missing, no image, damaged, or too large; an animation counts with all its pictures.
    """
    decoded, data = read_samples(path)
    if ANIMATED in decoded.warnings:
        return _animation(data, path)
    colours, alpha = _colours(decoded)
    turn = decoded.orientation if decoded.orientation is not None else exif_blocks.orientation(decoded.exif)
    turn = turn if 1 <= turn <= 8 else 1
    picture = upright(_unit(colours), turn)
    if alpha is not None:
        mask = np.float32(1.0) - upright(_unit(alpha), turn)
    else:
        # The host unpacks palettes to colours with alpha, and so finds one where there is nothing to be seen through.
        mask = np.zeros(picture.shape[:2] if _has_palette(data) else NO_ALPHA, np.float32)
    return np.ascontiguousarray(picture)[None], np.ascontiguousarray(mask)[None]


def _colours(decoded: Decoded) -> tuple[Samples, Samples | None]:
    """(H, W, 3) samples and their alpha."""
    samples = decoded.samples
    if decoded.space == "gray":
        return np.repeat(samples[..., None], 3, axis=2), decoded.alpha
    if decoded.space == "cmyk" and samples.dtype == np.uint8:
        from PIL import Image

        return np.asarray(Image.fromarray(samples, "CMYK").convert("RGB")), decoded.alpha
    if decoded.space == "cmyk":
        ink = _unit(samples)
        return (1.0 - ink[..., :3]) * (1.0 - ink[..., 3:]), decoded.alpha
    return samples[..., :3], decoded.alpha


def _unit(samples: Samples) -> Floats:
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    unit: Floats = samples.astype(np.float32) / np.float32(np.iinfo(samples.dtype).max)
    return unit


def _has_palette(data: bytes) -> bool:
    from PIL import Image

    with suppress(OSError), Image.open(io.BytesIO(data)) as image:
        return bool(image.mode == "P")
    return False


def _animation(data: bytes, path: Path) -> tuple[Floats, Floats]:
    from PIL import Image

    pictures, masks = [], []
    try:
        # Its sizes have been checked; Pillow's own limit would be another error for the same.
        with Image.open(io.BytesIO(data), formats=("PNG", "GIF", "WEBP")) as image:
            frames = int(getattr(image, "n_frames", 1))
            if image.width * image.height * frames > MAX_PIXELS:
                raise PhotoReadError(
                    f"{path.name} holds {frames:,} pictures of {image.width} x {image.height} pixels, more than the"
                    f" {MAX_PIXELS / 1e6:,.0f} megapixels that are read",
                    hint="Take out the pictures that are needed.",
                    photo=str(path),
                )
            for picture, mask in _frames(image, frames):
                pictures.append(picture)
                masks.append(mask)
    except PhotoReadError:
        raise
    except Exception as error:
        # As of a single picture: decoders meet hostile bytes and raise what they like.
        raise PhotoReadError(
            f"{path.name} is damaged: {error or type(error).__name__}",
            hint="Copy it again from where it came.",
            photo=str(path),
        ) from error
    if len({mask.shape for mask in masks}) > 1:  # some pictures of it have alpha, others do not
        masks = [mask if mask.shape != NO_ALPHA else np.zeros(pictures[0].shape[:2], np.float32) for mask in masks]
    return np.stack(pictures), np.stack(masks)


def _frames(image: Image.Image, count: int) -> Iterator[tuple[Floats, Floats]]:
    for index in range(count):
        image.seek(index)
        frame: Image.Image = image.convert("RGBA") if image.has_transparency_data else image.convert("RGB")
        samples = np.asarray(frame)
        if frame.mode == "RGBA":
            yield _unit(samples[..., :3]), np.float32(1.0) - _unit(samples[..., 3])
        else:
            yield _unit(samples), np.zeros(NO_ALPHA, np.float32)
