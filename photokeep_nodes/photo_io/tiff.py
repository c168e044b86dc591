"""TIFF: the format scanners write, and the one with the most ways to store a pixel.

libtiff unpacks, for it never writes past the size a strip declares; where a file is damaged and its reader wants what
is left, tifffile unpacks strip by strip.
"""

from __future__ import annotations

import io
import zlib
from typing import Any

import numpy as np

from ..errors import PhotoReadError
from .decode import DamagedError, Decoded, Limits, Samples

_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED, _YCBCR = 0, 1, 2, 3, 5, 6
_PHOTOMETRIC, _ORIENTATION, _ICC = 262, 274, 34675
_SEPARATE_PLANES = 2
_RAW, _LZW, _JPEG, _PACKBITS = 1, 5, 7, 32773
_DEFLATE = (8, 32946)
_ASSOCIATED_ALPHA, _PLAIN_ALPHA = 1, 2
_MAX_CHANNELS = 8
_MAX_SPARE_TILE = 2048 * 2048
_SEVERAL_PAGES = "the file holds several pages; the first was used"


def decode_tiff(data: bytes, limits: Limits, *, accept_damage: bool) -> Decoded:
    """Decode the first page of a TIFF or BigTIFF file.

    Gray, palette, RGB, CMYK, YCbCr and Lab; 1 to 16 bits, 32-bit integers and floats; with or without alpha.

    Raises:
        DamagedError: strips are missing or broken.
        PhotoReadError: too large, or a kind of TIFF that is no photo.
    """
    import tifffile

    try:
        with tifffile.TiffFile(io.BytesIO(data)) as file:
            page = file.pages.first
            several = len(file.pages) > 1
    except (tifffile.TiffFileError, IndexError, KeyError, TypeError, ValueError, OSError, RuntimeError) as error:
        raise DamagedError(str(error)) from error
    limits.check(page.imagewidth, page.imagelength, "TIFF")
    if page.samplesperpixel > _MAX_CHANNELS or page.imagedepth > 1:
        raise PhotoReadError(
            f"this TIFF has {page.samplesperpixel} channels and {page.imagedepth} layers; it is no photo",
            hint="Export it as an 8 or 16 bit gray or RGB image.",
        )
    if page.is_tiled and page.tilewidth * page.tilelength > max(
        _MAX_SPARE_TILE, 4 * page.imagewidth * page.imagelength
    ):
        # A small picture may claim tiles of gigabytes, each of which would be unpacked whole.
        raise DamagedError(f"it claims tiles of {page.tilewidth} x {page.tilelength} pixels")
    ends = [at + size for at, size in zip(page.dataoffsets, page.databytecounts, strict=True)]
    cut_off = not ends or max(ends) > len(data)
    if cut_off and not accept_damage:
        raise DamagedError("the end of the file is missing")

    raw, converted = _unpack(data, page, accept_damage=accept_damage)
    if not converted and raw.ndim == 3 and int(page.planarconfig) == _SEPARATE_PLANES:
        raw = np.moveaxis(raw, 0, 2)
    if raw.shape[:2] != (page.imagelength, page.imagewidth):
        raise DamagedError(f"its data has the shape {raw.shape}")
    warnings = [_SEVERAL_PAGES] if several else []
    if not converted:
        decoded = _to_decoded(raw, page, warnings)
    elif int(page.photometric) in (_WHITE_IS_ZERO, _BLACK_IS_ZERO):
        decoded = Decoded("TIFF", "gray", raw[..., 0], warnings=warnings)
    else:
        decoded = Decoded("TIFF", "rgb", raw[..., :3], warnings=warnings)
    decoded.icc = bytes(page.tags[_ICC].value) if _ICC in page.tags and page.tags[_ICC].value else b""
    decoded.exif = data
    decoded.orientation = int(page.tags[_ORIENTATION].value) if _ORIENTATION in page.tags else 1
    decoded.dpi = _dpi(page)
    return decoded


def _unpack(data: bytes, page: Any, *, accept_damage: bool) -> tuple[Samples, bool]:
    """The samples as they are stored, or, for kinds of colour that need it, as 8-bit RGBA; and which of the two.

    Raises:
        DamagedError: they cannot be unpacked.
    """
    import imagecodecs

    photometric, compression = int(page.photometric), int(page.compression)
    plain = photometric in (_WHITE_IS_ZERO, _BLACK_IS_ZERO, _RGB, _PALETTE, _SEPARATED)
    # JPEG-coded YCbCr comes out as RGB; other YCbCr, Lab and so on go through libtiff's own conversion.
    convert = not (plain or (photometric == _YCBCR and compression == _JPEG))
    tagged = _retagged(data, page)
    try:
        try:
            return imagecodecs.tiff_decode(tagged, asrgb=convert), convert
        except ValueError as error:
            # Versions of imagecodecs for Python 3.10 unpack 1 to 4 bits only on the way to RGBA.
            if convert or "not supported" not in str(error) or page.bitspersample >= 8:
                raise
            return imagecodecs.tiff_decode(tagged, asrgb=True), True
    except (imagecodecs.TiffError, ValueError, RuntimeError) as error:
        if convert or not accept_damage or compression not in (_RAW, _LZW, _PACKBITS, *_DEFLATE):
            raise DamagedError(str(error) or "its data cannot be unpacked") from error
    return _strips_that_work(data, page), False


def _retagged(data: bytes, page: Any) -> bytes:
    """``data`` for libtiff, which is too helpful with some tags.

    CMYK is declared as RGB of four channels: it would come converted, and not through its profile. The orientation is
    removed: where libtiff converts colours it also mirrors, but never turns.
    """
    changes = {}
    if int(page.photometric) == _SEPARATED:
        changes[_PHOTOMETRIC] = _RGB
    if _ORIENTATION in page.tags:
        changes[_ORIENTATION] = 1
    if not changes:
        return data
    changed = bytearray(data)
    for tag, value in changes.items():
        at = page.tags[tag].valueoffset
        changed[at : at + 2] = value.to_bytes(2, "little" if page.parent.byteorder == "<" else "big")
    return bytes(changed)


def _strips_that_work(data: bytes, page: Any) -> Samples:
    """Unpack every strip or tile that can be; the rest stays black. (H, W, C) or, for separate planes, (C, H, W)."""
    planes, _depth, height, width, channels = page.shaped
    out = np.zeros((planes, height, width, channels), dtype=page.dtype)
    size = page.tilewidth * page.tilelength if page.is_tiled else width * page.rowsperstrip
    most = 2 * max(1, size * channels * out.itemsize)
    for i, (at, count) in enumerate(zip(page.dataoffsets, page.databytecounts, strict=True)):
        packed = data[at : at + count]
        if len(packed) < count or count > most + 1024 or not _unpacks_within(packed, int(page.compression), most):
            continue
        try:
            piece, (plane, _, top, left, _), _shape = page.decode(packed, i)
        except Exception:  # noqa: BLE001, S112 - each codec has its own error; any of them means that this strip is lost
            continue
        if piece is not None:
            part = piece[0]
            room = out[plane, top : top + part.shape[0], left : left + part.shape[1]]
            room[...] = part[: room.shape[0], : room.shape[1]]
    if page.photometric == _PALETTE or channels == 1:
        out = out[..., 0]
    return out[0] if planes == 1 else out


def _unpacks_within(packed: bytes, compression: int, limit: int) -> bool:
    """Whether a strip is no bomb: tifffile would unpack it to whatever size it has."""
    if compression in _DEFLATE:
        try:
            return len(zlib.decompressobj().decompress(packed, limit)) < limit
        except zlib.error:
            return False
    if compression == _LZW:
        import imagecodecs

        return len(imagecodecs.lzw_decode(packed, out=limit)) < limit
    return True  # PackBits grows 64 times at most


def _to_decoded(raw: Samples, page: Any, warnings: list[str]) -> Decoded:
    """Bring stored samples to full range and part them into colours and alpha."""
    photometric, channels = int(page.photometric), page.samplesperpixel
    if photometric == _PALETTE:
        table = page.colormap
        if table is None or raw.ndim != 2:
            raise DamagedError("its palette is missing")
        # Entries have 16 bits by definition, but nearly always are 8-bit ones, times 256 or 257.
        colours = (table >> 8).astype(np.uint8).T
        return Decoded("TIFF", "rgb", colours[np.minimum(raw, table.shape[1] - 1)], warnings=warnings)
    samples = _full_range(raw, int(page.bitspersample), warnings)
    if samples.ndim == 2:
        samples = samples[..., None]
    if photometric == _WHITE_IS_ZERO:
        samples[..., 0] = _top(samples.dtype) - samples[..., 0]
    n_colours = {_WHITE_IS_ZERO: 1, _BLACK_IS_ZERO: 1, _SEPARATED: 4}.get(photometric, 3)
    if channels < n_colours:
        raise PhotoReadError(
            f"this TIFF has {channels} channels where its colours need {n_colours}",
            hint="Export it as an 8 or 16 bit gray or RGB image.",
        )
    space = {1: "gray", 3: "rgb", 4: "cmyk"}[n_colours]
    colours, alpha = samples[..., :n_colours], None
    extra = int(page.extrasamples[0]) if page.extrasamples else 0
    if extra in (_ASSOCIATED_ALPHA, _PLAIN_ALPHA) and channels > n_colours:
        alpha = samples[..., n_colours]
        if extra == _ASSOCIATED_ALPHA:
            colours = _unmultiplied(colours, alpha)
    return Decoded("TIFF", space, colours[..., 0] if n_colours == 1 else colours, alpha, warnings=warnings)


def _top(dtype: np.dtype[Any]) -> int:
    return 1 if dtype.kind == "f" else int(np.iinfo(dtype).max)


def _full_range(raw: Samples, bits: int, warnings: list[str]) -> Samples:
    """Samples of any depth as uint8, uint16 or float32 in [0, 1]; a new array."""
    kind = raw.dtype.kind
    if kind == "b":
        return np.multiply(raw, 255, dtype=np.uint8)
    if kind == "f":
        if not (np.nanmin(raw, initial=0.0) >= 0.0 and np.nanmax(raw, initial=0.0) <= 1.0):
            warnings.append("the file holds brightness outside 0 to 1, which was cut off")
        return np.clip(np.nan_to_num(raw.astype(np.float32)), np.float32(0), np.float32(1))
    if kind != "u":
        raise PhotoReadError(
            f"this TIFF holds {raw.dtype} samples; it is no photo",
            hint="Export it as an 8 or 16 bit gray or RGB image.",
        )
    if raw.dtype.itemsize > 2:
        high: Samples = raw >> (8 * raw.dtype.itemsize - 16)
        return high.astype(np.uint16)
    if bits in (8, 16):
        return np.array(raw)
    # Other depths come unscaled, 0 to 2**bits - 1.
    top = 255 if bits < 8 else 65535
    scaled: Samples = np.rint(raw.astype(np.float32) * np.float32(top / (2**bits - 1)))
    return scaled.astype(np.uint8 if bits < 8 else np.uint16)


def _unmultiplied(colours: Samples, alpha: Samples) -> Samples:
    """Colours as they were before they were multiplied by alpha; transparent ones stay black."""
    top = _top(alpha.dtype)
    divisor = np.where(alpha == 0, top, alpha).astype(np.float32)[..., None]
    plain: Samples = np.minimum(colours.astype(np.float32) * (top / divisor), top)
    return plain if alpha.dtype.kind == "f" else np.rint(plain, out=plain).astype(alpha.dtype)


def _dpi(page: Any) -> tuple[float, float] | None:
    """Dots per inch in x and y."""
    values = []
    for tag in (282, 283):
        value = page.tags[tag].value if tag in page.tags else None
        if not (isinstance(value, tuple) and len(value) == 2 and value[0] and value[1]):
            return None
        values.append(value[0] / value[1])
    unit = int(page.tags[296].value) if 296 in page.tags else 2
    factor = {2: 1.0, 3: 2.54}.get(unit, 0.0)
    return (values[0] * factor, values[1] * factor) if factor else None
