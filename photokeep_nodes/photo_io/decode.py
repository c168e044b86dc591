"""File bytes to samples, one function per format.

Every decoder checks the declared size before it unpacks anything, and tells "this is damaged" from "this is no photo".
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PhotoReadError
from . import containers

if TYPE_CHECKING:
    from PIL import Image

Samples = np.ndarray[Any, Any]

ANIMATED = "the file is animated; its first picture was used"


class DamagedError(Exception):
    """The pixels' data is cut off or broken; the decoder may be asked to take what is there."""


@dataclass(frozen=True)
class Limits:
    """How large a photo may be."""

    max_pixels: int

    def check(self, width: int, height: int, kind: str) -> None:
        """Refuse a size before anything is unpacked.

        Raises:
            PhotoReadError: no pixels, or too many.
        """
        if width < 1 or height < 1:
            raise PhotoReadError(f"this {kind} says that it is {width} x {height} pixels", hint="Choose another photo.")
        if width * height > self.max_pixels:
            raise PhotoReadError(
                f"this {kind} says that it is {width} x {height}, {width * height / 1e6:,.0f} megapixels; "
                f"at most {self.max_pixels / 1e6:,.0f} are read",
                hint="Scale the photo down or cut it into parts. A small file that claims this much is not a photo.",
                width=width,
                height=height,
            )


@dataclass
class Decoded:
    """What a file holds, colours not yet converted.

    Attributes:
        format: "JPEG", "PNG", "TIFF", "WEBP", "GIF" or "BMP".
        space: "gray", "rgb" or "cmyk" (0 is no ink).
        samples: (H, W) for gray, else (H, W, 3 or 4); uint8, uint16, or float32 in [0, 1].
        alpha: (H, W) of the same dtype, or None.
        exif: block as found; empty if none.
        icc: profile as found; empty if none.
        dpi: dots per inch in x and y.
        orientation: EXIF orientation where the container itself says it, else None: look into ``exif``.
        warnings: what was left out and why.
    """

    format: str
    space: str
    samples: Samples
    alpha: Samples | None = None
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    orientation: int | None = None
    warnings: list[str] = field(default_factory=list)


def _pillow_samples(image: Image.Image) -> tuple[str, Samples, Samples | None]:
    """Space, samples and alpha of a loaded Pillow image."""
    if image.mode in ("P", "PA"):
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    elif image.mode in ("1", "L", "LA") or image.mode.startswith("I;16"):
        if "transparency" in image.info and image.mode != "LA":
            # A colour key: Pillow makes an alpha channel of it only on the way to RGBA.
            rgba = np.asarray(image.convert("RGBA"))
            return "gray", rgba[..., 0], rgba[..., 3]
        pair = np.asarray(image if image.mode in ("L", "LA") else image.convert("L"))
        return ("gray", pair[..., 0], pair[..., 1]) if pair.ndim == 3 else ("gray", pair, None)
    elif image.mode == "CMYK":
        return "cmyk", np.asarray(image), None
    elif image.mode not in ("RGB", "RGBA") or "transparency" in image.info:
        image = image.convert("RGBA" if image.has_transparency_data else "RGB")
    both = np.asarray(image)
    return "rgb", both[..., :3], both[..., 3] if both.shape[2] == 4 else None


def _load_pillow(image: Any, *, accept_damage: bool) -> None:
    """Unpack a Pillow image.

    Raises:
        DamagedError: its data ends early or is broken.
    """
    try:
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError, IndexError) as error:
        if not accept_damage:
            raise DamagedError(str(error)) from error
        # Rows unpacked before the fault are already in place; without tiles left, the next load has nothing more to do.
        image.tile = []
        image.load()


def decode_jpeg(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode a JPEG file: gray, RGB or CMYK, 8 bits."""
    from PIL.JpegImagePlugin import JpegImageFile

    taken = containers.take_jpeg(data)
    # The end marker lets the decoder finish a scan that stops early, progressive ones included.
    image = JpegImageFile(io.BytesIO(taken.pixels + b"\xff\xd9" if accept_damage else taken.pixels))
    limits.check(*image.size, "JPEG")
    _load_pillow(image, accept_damage=accept_damage)
    space, samples, alpha = _pillow_samples(image)
    return Decoded("JPEG", space, samples, alpha, taken.exif, taken.icc, taken.dpi, None, taken.warnings)


def decode_png(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode a PNG file: gray, palette or RGB, with or without alpha, 1 to 16 bits."""
    import imagecodecs
    from PIL.PngImagePlugin import PngImageFile

    header = containers.png_header(data)
    limits.check(header.width, header.height, "PNG")
    taken, header = containers.take_png(data, repair=accept_damage)
    if taken.damage and not accept_damage:
        raise DamagedError(taken.damage)
    alpha: Samples | None = None
    if header.bit_depth == 16:
        try:
            samples = imagecodecs.png_decode(taken.pixels)
        except imagecodecs.PngError as error:
            raise DamagedError(str(error)) from error
        samples, alpha = _split(samples, header.channels)
        if header.transparent and header.colour_type in (0, 2):
            key = np.frombuffer(header.transparent[: 2 * header.channels], dtype=">u2").astype(np.uint16)
            if key.size == header.channels:
                opaque = samples != key[0] if samples.ndim == 2 else (samples != key).any(axis=2)
                alpha = opaque.astype(np.uint16) * np.uint16(65535)
        space = "gray" if samples.ndim == 2 else "rgb"
    else:
        image = PngImageFile(io.BytesIO(taken.pixels))
        _load_pillow(image, accept_damage=accept_damage)
        space, samples, alpha = _pillow_samples(image)
    warnings = [*taken.warnings, ANIMATED] if header.animated else taken.warnings
    return Decoded("PNG", space, samples, alpha, taken.exif, taken.icc, taken.dpi, None, warnings)


def _split(samples: Samples, channels: int) -> tuple[Samples, Samples | None]:
    """Part (H, W[, C]) samples of 1 to 4 channels into colours and alpha."""
    if channels == 1:
        return samples.reshape(samples.shape[:2]), None
    if channels == 2:
        return samples[..., 0], samples[..., 1]
    return samples[..., :3], samples[..., 3] if channels == 4 else None


def decode_webp(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode a WebP file: RGB with or without alpha, 8 bits. A damaged one cannot be read in part."""
    from PIL.WebPImagePlugin import WebPImageFile

    taken, header = containers.take_webp(data)
    limits.check(header.width, header.height, "WebP")
    if taken.damage and not accept_damage:
        raise DamagedError(taken.damage)
    try:
        image = WebPImageFile(io.BytesIO(taken.pixels))
        image.load()
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise DamagedError(str(error)) from error
    space, samples, alpha = _pillow_samples(image)
    warnings = [ANIMATED] if header.animated else []
    return Decoded("WEBP", space, samples, alpha, taken.exif, taken.icc, None, None, warnings)


def decode_gif(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode the first picture of a GIF file."""
    from PIL.GifImagePlugin import GifImageFile

    limits.check(int.from_bytes(data[6:8], "little"), int.from_bytes(data[8:10], "little"), "GIF")
    image = GifImageFile(io.BytesIO(data))
    limits.check(*image.size, "GIF")
    _load_pillow(image, accept_damage=accept_damage)
    space, samples, alpha = _pillow_samples(image)
    try:
        animated = image.is_animated
    except (OSError, ValueError, SyntaxError, EOFError, IndexError):
        animated = False
    return Decoded("GIF", space, samples, alpha, warnings=[ANIMATED] if animated else [])


def decode_bmp(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode a BMP file."""
    from PIL.BmpImagePlugin import BmpImageFile

    image = BmpImageFile(io.BytesIO(data))
    limits.check(*image.size, "BMP")
    _load_pillow(image, accept_damage=accept_damage)
    space, samples, alpha = _pillow_samples(image)
    return Decoded("BMP", space, samples, alpha)


def _decode_tiff(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    from .tiff import decode_tiff

    return decode_tiff(data, limits, accept_damage=accept_damage)


Decoder = Callable[..., Decoded]

_SIGNATURES: tuple[tuple[bytes, Decoder], ...] = (
    (b"\xff\xd8\xff", decode_jpeg),
    (containers.PNG_SIGNATURE, decode_png),
    (b"II*\0", _decode_tiff),
    (b"MM\0*", _decode_tiff),
    (b"II+\0", _decode_tiff),
    (b"MM\0+", _decode_tiff),
    (b"GIF87a", decode_gif),
    (b"GIF89a", decode_gif),
    (b"BM", decode_bmp),
)


def decoder_for(data: bytes) -> Decoder | None:
    """The decoder for these bytes, by what they are, whatever the file is called; None if they are no known image."""
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return decode_webp
    return next((decoder for signature, decoder in _SIGNATURES if data.startswith(signature)), None)
