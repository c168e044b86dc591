"""Samples to file bytes, one function per format.

Everything is encoded in memory first: what a format cannot hold shows before any file exists.
"""

from __future__ import annotations

import io
import struct
import zlib
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from ..errors import PhotoWriteError
from . import exif as exif_blocks
from .containers import PNG_SIGNATURE, png_chunk

if TYPE_CHECKING:
    from PIL import Image

    from .decode import Samples

# Level 4 of zlib with libpng's own filters: a 2048 x 2048 photo takes 0.3 s on one core and is at most 8 % larger than
# at level 6, which takes twice as long. The low bytes of 16 bits are noise, which no level compresses: there, level 2.
_PNG_LEVELS = {8: 4, 16: 2}
_PNG_MAX_SIDE = 2**31 - 1
_JPEG_MAX_SIDE = 65_500  # the format knows 65,535, libjpeg does not
_WEBP_MAX_SIDE = 16_383
_JPEG_SEGMENT = 65_533
_LATIN_1_KEYWORD = 79
_METRE_IN_INCHES = 39.37007874015748


@dataclass
class Sheet:
    """A picture ready to be encoded.

    Attributes:
        samples: (H, W) gray or (H, W, 3) RGB, uint8 or uint16.
        alpha: (H, W) of the same dtype, or None.
        icc: profile of ``samples``; empty for sRGB without a profile.
        exif: what to say about the photo, sizes already right.
        dpi: dots per inch in x and y, or None.
        quality: 1 to 100, for the formats that lose something.
        texts: the graph as ComfyUI embeds it: JSON, ASCII only, by name ("prompt", "workflow").
        warnings: what was left out and why; encoders add to it.
    """

    samples: Samples
    alpha: Samples | None = None
    icc: bytes = b""
    exif: exif_blocks.Exif = field(default_factory=exif_blocks.Exif)
    dpi: tuple[float, float] | None = None
    quality: int = 95
    texts: dict[str, str] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    @property
    def size(self) -> tuple[int, int]:
        """Width and height."""
        return self.samples.shape[1], self.samples.shape[0]

    def exif_with_graph(self) -> exif_blocks.Exif:
        """``exif`` with the graph in tags of its own, each "name:JSON", as ComfyUI's editor reads it."""
        return exif_blocks.with_texts(self.exif, [f"{name}:{text}" for name, text in self.texts.items()])

    def layers(self) -> Samples:
        """(H, W), (H, W, 2), (H, W, 3) or (H, W, 4): the samples with alpha, if there is any."""
        return self.samples if self.alpha is None else np.dstack([self.samples, self.alpha])


def _check_sides(sheet: Sheet, most: int, kind: str) -> None:
    if max(sheet.size) > most:
        width, height = sheet.size
        raise PhotoWriteError(
            f"{kind} holds at most {most:,} pixels a side; the picture is {width:,} x {height:,}",
            hint="Save it as PNG or TIFF.",
            width=width,
            height=height,
        )


def encode_png(sheet: Sheet) -> bytes:
    """PNG, 8 or 16 bits, gray or RGB, with or without alpha; the graph in text chunks as ComfyUI writes them."""
    import imagecodecs

    _check_sides(sheet, _PNG_MAX_SIDE, "PNG")
    level = _PNG_LEVELS[8 * sheet.samples.itemsize]
    plain = bytes(imagecodecs.png_encode(np.ascontiguousarray(sheet.layers()), level=level))
    body = len(PNG_SIGNATURE) + 25  # signature and IHDR
    parts = [plain[:body]]
    if sheet.icc:
        parts.append(png_chunk(b"iCCP", b"ICC profile\0\0" + zlib.compress(sheet.icc, 9)))
    if sheet.dpi:
        x, y = (min(max(round(value * _METRE_IN_INCHES), 1), 2**31 - 1) for value in sheet.dpi)
        parts.append(png_chunk(b"pHYs", struct.pack(">IIB", x, y, 1)))
    if block := exif_blocks.dump(sheet.exif):
        parts.append(png_chunk(b"eXIf", block))
    for key, text in sheet.texts.items():
        keyword = key.encode("latin-1", "replace").replace(b"\0", b"").strip()
        if 0 < len(keyword) <= _LATIN_1_KEYWORD:
            parts.append(png_chunk(b"tEXt", keyword + b"\0" + text.encode("ascii")))
    return b"".join([*parts, plain[body:]])


def _exif_with_graph(sheet: Sheet, room: int, kind: str) -> bytes:
    """The EXIF block with the graph in it, as far as ``room`` bytes allow."""
    block = exif_blocks.dump(sheet.exif_with_graph())
    if len(block) <= room:
        return block
    if sheet.texts:
        sheet.warnings.append(f"the workflow is too large for {kind} and was not embedded; PNG would hold it")
    block = exif_blocks.dump(sheet.exif)
    if len(block) <= room:
        return block
    sheet.warnings.append(f"the EXIF data is too large for {kind} and was left out")
    return b""


def _image(sheet: Sheet) -> Image.Image:
    from PIL import Image

    return Image.fromarray(np.ascontiguousarray(sheet.layers()))


def encode_jpeg(sheet: Sheet) -> bytes:
    """JPEG, 8 bits, gray or RGB. From quality 90 on colours keep their full resolution: faces show it first."""
    _check_sides(sheet, _JPEG_MAX_SIDE, "JPEG")
    options: dict[str, Any] = {"quality": sheet.quality, "subsampling": 0 if sheet.quality >= 90 else 2}
    if block := _exif_with_graph(sheet, _JPEG_SEGMENT - 6, "JPEG"):
        options["exif"] = b"Exif\0\0" + block
    if sheet.icc:
        options["icc_profile"] = sheet.icc
    if sheet.dpi:
        options["dpi"] = tuple(min(max(round(value), 1), 65_535) for value in sheet.dpi)
    out = io.BytesIO()
    _image(sheet).save(out, "JPEG", **options)
    return out.getvalue()


def encode_webp(sheet: Sheet) -> bytes:
    """WebP, 8 bits RGB; quality 100 is lossless."""
    _check_sides(sheet, _WEBP_MAX_SIDE, "WebP")
    if sheet.samples.ndim == 2:
        sheet.samples = np.repeat(sheet.samples[..., None], 3, axis=2)
    options: dict[str, Any] = {"quality": sheet.quality, "lossless": sheet.quality == 100, "exact": True}
    if block := _exif_with_graph(sheet, 2**31, "WebP"):
        options["exif"] = block
    if sheet.icc:
        options["icc_profile"] = sheet.icc
    out = io.BytesIO()
    _image(sheet).save(out, "WEBP", **options)
    return out.getvalue()


def encode_tiff(sheet: Sheet) -> bytes:
    """TIFF, 8 or 16 bits, gray or RGB, with or without alpha; losslessly packed (deflate with predictor)."""
    import tifffile

    options: dict[str, Any] = {}
    if sheet.alpha is not None:
        options["extrasamples"] = ["unassalpha"]
    if sheet.icc:
        options["iccprofile"] = sheet.icc
    if sheet.dpi:
        options["resolution"] = sheet.dpi
    out = io.BytesIO()
    order: Literal["<", ">"] = ">" if sheet.exif.order == ">" else "<"
    with tifffile.TiffWriter(out, byteorder=order) as writer:
        writer.write(
            np.ascontiguousarray(sheet.layers()),
            photometric="minisblack" if sheet.samples.ndim == 2 else "rgb",
            planarconfig=None if sheet.layers().ndim == 2 else "contig",
            compression="adobe_deflate",
            predictor=True,
            resolutionunit="inch" if sheet.dpi else "none",
            software=False,
            metadata=None,
            **options,
        )
    plain = out.getvalue()
    tags = sheet.exif_with_graph()
    if not tags:
        return plain
    try:
        return exif_blocks.into_tiff(plain, tags)
    except (exif_blocks.ExifError, struct.error) as error:
        sheet.warnings.append(f"the EXIF data does not fit into this TIFF and was left out ({error})")
        return plain
