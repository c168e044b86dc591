"""Write a photo: to sRGB's or its own colours, its own depth, its own metadata; whole or not at all."""

from __future__ import annotations

import base64
import binascii
import json
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import PhotoWriteError
from . import encode, icc
from . import exif as exif_blocks
from .naming import expand_name
from .place import PLACERS, store

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from datetime import datetime

    from .decode import Samples

_FORMATS: dict[str, tuple[str, Callable[[encode.Sheet], bytes]]] = {
    "png": (".png", encode.encode_png),
    "jpeg": (".jpg", encode.encode_jpeg),
    "webp": (".webp", encode.encode_webp),
    "tiff": (".tif", encode.encode_tiff),
}
FORMATS = tuple(_FORMATS)
_SIXTEEN_BITS = ("png", "tiff")

# A gray photo that went through colour networks comes back with a breath of colour. Seen after FFDNet and Real-ESRGAN
# x4plus, in 8-bit steps between the channels: 1.7 on average, fringes of 40 along hard edges, at most 8 in the mean of
# a block. A colour photo with a tenth of its colour left: 5 on average.
_GRAY_MEAN = 2.5 / 255
_GRAY_BLOCK = 12.0 / 255
_BLOCKS_A_SIDE = 64
_SMALLEST_BLOCK = 16


@dataclass(frozen=True)
class SavedPhoto:
    """Where a photo went.

    Attributes:
        path: the file.
        subfolder: its folder, relative to the output folder, with forward slashes; "" for the output folder itself.
        filename: its name.
        warnings: what could not be kept, one sentence each.
    """

    path: Path
    subfolder: str
    filename: str
    warnings: tuple[str, ...]


def write_photo(
    pixels: np.ndarray[Any, Any],
    directory: Path | str,
    name: str = "%photo%_restored",
    *,
    format: str = "png",  # noqa: A002 - the word users know
    info: Mapping[str, Any] | None = None,
    alpha: np.ndarray[Any, Any] | None = None,
    bit_depth: str = "auto",
    quality: int = 95,
    if_exists: str = "number",
    metadata: Mapping[str, Any] | None = None,
    index: int = 0,
    now: datetime | None = None,
) -> SavedPhoto:
    """Write a photo under ``directory``, atomically.

    A photo that was gray and still is, is saved as gray; one with a colour profile goes back into that profile; EXIF
    and resolution are written again, with the orientation upright and the pixel size right.

    Args:
        pixels: (H, W), (H, W, 1) or (H, W, 3) floats, sRGB; values outside [0, 1] are cut off.
        directory: output folder; made if it is not there.
        name: template, see ``expand_name``.
        format: "png", "jpeg", "webp" or "tiff".
        info: the ``PhotoInfo`` of the photo this came from, or None.
        alpha: (h, w) floats, 1 opaque, scaled to the picture's size; JPEG gets the picture on white instead.
        bit_depth: "8", "16", or "auto": 16 where the source had it and the format can.
        quality: 1 to 100, for JPEG and WebP; WebP at 100 is lossless.
        if_exists: "number" (name.png, name_2.png, ...), "overwrite" or "refuse".
        metadata: what ComfyUI embeds: {"prompt": ..., "workflow": ...}.
        index: of the picture in its batch, for ``%batch_num%``.
        now: time for the name; the present by default.

    Returns:
        The file and its place.

    Raises:
        PhotoWriteError: the folder cannot be written, the name leads out of it or is taken, the disk is full, or the
            format cannot hold the picture. No file, not even a part of one, is left then.
    """
    if format not in _FORMATS or bit_depth not in ("auto", "8", "16") or if_exists not in PLACERS:
        raise PhotoWriteError(
            f"cannot save as format={format!r}, bit_depth={bit_depth!r}, if_exists={if_exists!r}",
            hint=f"Formats are {', '.join(_FORMATS)}; depths auto, 8, 16; if_exists {', '.join(PLACERS)}.",
        )
    if bit_depth == "16" and format not in _SIXTEEN_BITS:
        raise PhotoWriteError(
            f"{format} holds 8 bits only", hint="Choose png or tiff, or set bit_depth to 'auto'.", format=format
        )
    picture = _checked(pixels)
    sheet = _prepare(picture, alpha, info or {}, format, _depth(bit_depth, info or {}, format))
    sheet.quality = min(max(int(quality), 1), 100)
    sheet.texts = _texts(metadata or {}, sheet.warnings)
    suffix, encoder = _FORMATS[format]
    width, height = sheet.size
    subfolder, stem = expand_name(name, info=info, width=width, height=height, index=index, now=now)
    try:
        data = encoder(sheet)
    except (MemoryError, OSError, ValueError, RuntimeError, struct.error) as error:
        raise PhotoWriteError(
            f"the picture ({width} x {height}) cannot be encoded as {format}: {error or type(error).__name__}",
            hint="Try png or tiff, or make it smaller.",
        ) from error
    path = store(data, Path(directory), subfolder, stem, suffix, if_exists)
    return SavedPhoto(path, subfolder, path.name, tuple(sheet.warnings))


def _checked(pixels: np.ndarray[Any, Any]) -> Samples:
    """Pixels as (H, W) or (H, W, 3) float32 in [0, 1]."""
    if pixels.ndim == 3 and pixels.shape[2] == 1:
        pixels = pixels[..., 0]
    if pixels.ndim not in (2, 3) or (pixels.ndim == 3 and pixels.shape[2] != 3) or not pixels.size:
        raise PhotoWriteError(
            f"a picture must be (height, width, 1 or 3), not {pixels.shape}", hint="Connect an IMAGE output here."
        )
    picture: Samples = pixels.astype(np.float32)
    if not np.isfinite(picture).all():
        raise PhotoWriteError(
            "the picture holds values that are not numbers",
            hint="A stage before this one failed: a model at too low a precision does that.",
        )
    return np.clip(picture, 0.0, 1.0, out=picture)


def _depth(bit_depth: str, info: Mapping[str, Any], format_name: str) -> int:
    if bit_depth == "auto":
        return 16 if info.get("bit_depth") == 16 and format_name in _SIXTEEN_BITS else 8
    return int(bit_depth)


def _prepare(
    picture: Samples, alpha: np.ndarray[Any, Any] | None, info: Mapping[str, Any], format_name: str, bits: int
) -> encode.Sheet:
    """Decide mode, profile and metadata, and bring the pixels to integers."""
    warnings: list[str] = []
    cover = _fitted(alpha, picture.shape[:2]) if alpha is not None else None
    if cover is not None and format_name == "jpeg":
        warnings.append("JPEG has no transparency; the picture was laid on white")
        weight = cover if picture.ndim == 2 else cover[..., None]
        picture = picture * weight + (1.0 - weight)
        cover = None
    if picture.ndim == 3 and info.get("mode") == "gray" and still_gray(picture):
        picture = _to_gray(picture)
    samples, profile = _in_profile(picture, _block(info, "icc", warnings), format_name, bits, warnings)
    exif = exif_blocks.Exif()
    if raw := _block(info, "exif", warnings):
        try:
            exif = exif_blocks.resized(exif_blocks.cleaned(exif_blocks.parse(raw)), picture.shape[1], picture.shape[0])
        except (exif_blocks.ExifError, struct.error) as error:
            warnings.append(f"the EXIF data is broken and was left out ({error})")
    dpi = info.get("dpi")
    return encode.Sheet(
        samples=samples,
        alpha=_quantised(cover, bits) if cover is not None else None,
        icc=profile,
        exif=exif,
        dpi=(float(dpi[0]), float(dpi[1])) if dpi and min(dpi) > 0 else None,
        warnings=warnings,
    )


def _texts(metadata: Mapping[str, Any], warnings: list[str]) -> dict[str, str]:
    """The graph as ComfyUI embeds it: ``json.dumps`` of each part, which is ASCII, by an ASCII name."""
    texts = {}
    for key, value in metadata.items():
        if value is None:
            continue
        try:
            text = json.dumps(value)
        except (TypeError, ValueError, RecursionError) as error:
            warnings.append(f"{key!r} cannot be written as JSON and was not embedded ({error})")
        else:
            texts[str(key).encode("ascii", "replace").decode("ascii")] = text
    return texts


def _block(info: Mapping[str, Any], key: str, warnings: list[str]) -> bytes:
    """One of the info's base64 blocks."""
    try:
        return base64.b64decode(info.get(key) or "", validate=True)
    except (binascii.Error, TypeError, ValueError):
        warnings.append(f"the photo info's {key} is not base64 and was left out")
        return b""


def still_gray(picture: Samples) -> bool:
    """Whether (H, W, 3) float pixels hold no colour but the traces that networks leave.

    Judged on the means of blocks, over which coloured fringes cancel out and painted lips do not.
    """
    height, width = picture.shape[:2]
    side = max(_SMALLEST_BLOCK, max(height, width) // _BLOCKS_A_SIDE)
    rows, columns = np.arange(0, height, side), np.arange(0, width, side)
    sums = np.add.reduceat(np.add.reduceat(picture, rows, axis=0, dtype=np.float64), columns, axis=1)
    areas = np.diff(np.append(rows, height))[:, None] * np.diff(np.append(columns, width))
    means = sums / areas[..., None]
    spread = means.max(axis=2) - means.min(axis=2)
    return bool(np.average(spread, weights=areas) <= _GRAY_MEAN and spread.max() <= _GRAY_BLOCK)


def _to_gray(picture: Samples) -> Samples:
    """(H, W): the common value where the channels agree, else Rec. 601 luma."""
    red, green, blue = picture[..., 0], picture[..., 1], picture[..., 2]
    luma: Samples = np.float32(0.299) * red + np.float32(0.587) * green + np.float32(0.114) * blue
    gray: Samples = np.where((red == green) & (green == blue), green, luma)
    return gray


def _fitted(alpha: np.ndarray[Any, Any], shape: tuple[int, ...]) -> Samples:
    """Alpha at the picture's size, in [0, 1]."""
    if alpha.ndim != 2 or not alpha.size:
        raise PhotoWriteError(f"alpha must be (height, width), not {alpha.shape}", hint="Connect a MASK output here.")
    cover: Samples = np.nan_to_num(alpha.astype(np.float32))
    if cover.shape != shape:
        from PIL import Image

        resized = Image.fromarray(cover).resize((shape[1], shape[0]), Image.Resampling.BICUBIC)
        cover = np.asarray(resized, dtype=np.float32)
    return np.clip(cover, 0.0, 1.0)


def _quantised(values: Samples, bits: int) -> Samples:
    """Floats in [0, 1] to the nearest integers."""
    steps: Samples = np.rint(values * np.float32(2**bits - 1))
    return steps.astype(np.uint16 if bits == 16 else np.uint8)


def _in_profile(
    picture: Samples, profile: bytes, format_name: str, bits: int, warnings: list[str]
) -> tuple[Samples, bytes]:
    """Integer samples, and the profile to embed with them: the photo's own where it fits the picture, else none."""
    if profile:
        wanted = "gray" if picture.ndim == 2 else "rgb"
        try:
            if icc.space_of(profile) != wanted or (wanted == "gray" and format_name == "webp"):
                # A colourised gray photo, or WebP, which stores gray as RGB: plain sRGB.
                profile = b""
            elif not icc.is_srgb(profile):
                return icc.from_srgb(picture, profile, bits), profile
        except icc.IccError as error:
            warnings.append(f"the colour profile cannot be written to and was left out ({error})")
            profile = b""
    return _quantised(picture, bits), profile
