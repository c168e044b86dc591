"""How large a photo claims to be, by its header alone. Imports no numpy: plans and cached runs ask, too."""

from __future__ import annotations

import warnings
from typing import TYPE_CHECKING

from ..errors import PhotoReadError

if TYPE_CHECKING:
    from pathlib import Path

MAX_PIXELS = 200_000_000
"""A 16 bit scan of an A4 page at 1,400 dpi; 2.4 GB once unpacked to float32."""


def check_size(path: Path, *, max_pixels: int = MAX_PIXELS) -> None:
    """Refuse a picture whose header claims more pixels than are read; what cannot be told is left to the reading.

    Raises:
        PhotoReadError: it claims too many.
    """
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Pillow has a limit of its own, and says so first
            with Image.open(path, formats=("JPEG", "PNG", "TIFF", "WEBP", "GIF", "BMP")) as picture:
                width, height = picture.size
    except Image.DecompressionBombError:
        claim = "far more"
    except Exception:  # noqa: BLE001 - whatever a stranger's header leads Pillow into: reading says what is wrong
        return
    else:
        if width * height <= max_pixels:
            return
        claim = f"{width} x {height}, {width * height / 1e6:,.0f} megapixels"
    raise PhotoReadError(
        f"{path.name} claims {claim}; at most {max_pixels / 1e6:,.0f} megapixels are read",
        hint="Scale the photo down or cut it into parts. A small file that claims this much is not a photo.",
        photo=str(path),
    )
