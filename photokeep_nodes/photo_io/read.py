"""Read a photo: any file to float32 sRGB, upright, with what the file was."""

from __future__ import annotations

import base64
import os
import stat
import struct
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypedDict

import numpy as np

from ..errors import PhotoReadError
from . import exif as exif_blocks
from . import icc
from .decode import Decoded, Limits, Samples, decoder_for
from .size import MAX_PIXELS

if TYPE_CHECKING:
    from collections.abc import Iterator

MAX_FILE_BYTES = 2 << 30

_MAX_KEPT_EXIF = 1 << 20


class PhotoInfo(TypedDict):
    """What a photo file was, as plain JSON data that travels beside the pixels.

    Attributes:
        name: file name without its extension.
        format: "JPEG", "PNG", "TIFF", "WEBP", "GIF" or "BMP".
        mode: "gray" or "rgb": what the file stored.
        bit_depth: 8, or 16 for anything finer than 8.
        has_alpha: whether the file has transparency.
        exif: EXIF block, upright and without thumbnail, in base64; "" if none.
        icc: the profile the file had, in base64; "" if none.
        dpi: dots per inch in x and y, or None.
        warnings: what was left out or repaired, one sentence each.
    """

    name: str
    format: str
    mode: str
    bit_depth: int
    has_alpha: bool
    exif: str
    icc: str
    dpi: list[float] | None
    warnings: list[str]


@dataclass(frozen=True)
class Photo:
    """A photo in memory.

    Attributes:
        pixels: (H, W, 3) float32 in [0, 1], sRGB; gray is repeated.
        alpha: (H, W) float32 in [0, 1], 1 opaque; None if the file has no transparency.
        info: what the file was.
    """

    pixels: np.ndarray[Any, np.dtype[np.float32]]
    alpha: np.ndarray[Any, np.dtype[np.float32]] | None
    info: PhotoInfo


def read_photo(
    path: Path | str, *, on_damage: str = "refuse", max_pixels: int = MAX_PIXELS, max_file_bytes: int = MAX_FILE_BYTES
) -> Photo:
    """Read a photo file.

    EXIF orientation is applied and the tag reset; an ICC profile is converted to sRGB, one that means sRGB leaves the
    pixels as they are. A broken EXIF block or profile is left out, with a warning in the info.

    Args:
        path: JPEG, PNG, TIFF, WebP, GIF or BMP; told by content, not by name. Animated files give their first picture.
        on_damage: "refuse" a file that is cut off or broken, or "accept" what can be read of it, with a warning.
        max_pixels: largest width times height.
        max_file_bytes: largest file.

    Returns:
        The photo.

    Raises:
        PhotoReadError: missing, not a regular file, empty, no image, damaged, or too large.
    """
    path = Path(path)
    if on_damage not in ("refuse", "accept"):
        raise PhotoReadError(f"on_damage is 'refuse' or 'accept', not {on_damage!r}", photo=str(path))
    with _telling_which(path):
        data = _read_file(path, max_file_bytes)
        decoded = _decode(data, path, Limits(max_pixels), accept=on_damage == "accept")
        del data
        return _finish(decoded, path.stem)


def read_samples(
    path: Path, *, max_pixels: int = MAX_PIXELS, max_file_bytes: int = MAX_FILE_BYTES
) -> tuple[Decoded, bytes]:
    """Read what a photo file holds: no colours converted, not turned upright.

    Returns:
        The samples, and the file's bytes, which may hold more pictures than that one.

    Raises:
        PhotoReadError: see ``read_photo``; a damaged file is refused.
    """
    with _telling_which(path):
        data = _read_file(path, max_file_bytes)
        return _decode(data, path, Limits(max_pixels), accept=False), data


@contextmanager
def _telling_which(path: Path) -> Iterator[None]:
    """Errors of the body say which photo it is; out of memory is one of them."""
    try:
        yield
    except PhotoReadError as error:
        error.context.setdefault("photo", str(path))
        raise
    except MemoryError as error:
        raise PhotoReadError(
            f"{path.name} does not fit into memory", hint="Scale it down, or close other programs.", photo=str(path)
        ) from error


def _read_file(path: Path, max_file_bytes: int) -> bytes:
    """All bytes of a regular file.

    Opened before it is looked at, and without waiting: neither a pipe nor a swapped file can hold or trick the reader.
    """
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
    try:
        descriptor = os.open(path, flags)
    except (FileNotFoundError, NotADirectoryError) as error:
        raise PhotoReadError(f"there is no file {path}", hint="Check the name and the folder.") from error
    except PermissionError as error:
        if path.is_dir():  # what Windows says of a folder
            raise PhotoReadError(f"{path} is a folder, not a photo", hint="Name one photo in it.") from error
        raise PhotoReadError(f"{path} may not be read", hint="Check the file's permissions.") from error
    except (OSError, ValueError) as error:
        raise PhotoReadError(f"{path} cannot be opened: {error}", hint="Check the name and the disk.") from error
    try:
        status = os.fstat(descriptor)
        if stat.S_ISDIR(status.st_mode):
            raise PhotoReadError(f"{path} is a folder, not a photo", hint="Name one photo in it.")
        if not stat.S_ISREG(status.st_mode):
            raise PhotoReadError(f"{path} is a device or a pipe, not a file", hint="Name a photo file.")
        if status.st_size > max_file_bytes:
            raise PhotoReadError(
                f"{path.name} has {status.st_size / 1e6:,.1f} MB; at most {max_file_bytes / 1e6:,.1f} MB are read",
                hint="Save it compressed or smaller.",
            )
        with os.fdopen(descriptor, "rb", closefd=False) as file:
            data = file.read(max_file_bytes + 1)
    except OSError as error:
        raise PhotoReadError(f"{path} cannot be read: {error}", hint="Check the disk or the connection.") from error
    finally:
        os.close(descriptor)
    if not data:
        raise PhotoReadError(f"{path.name} is empty", hint="Copy the photo again from where it came.")
    if len(data) > max_file_bytes:
        raise PhotoReadError(f"{path.name} grew while it was read", hint="Wait until it is written, then try again.")
    return data


def _decode(data: bytes, path: Path, limits: Limits, *, accept: bool) -> Decoded:
    """Unpack the file, whole or, if that is accepted, as far as it goes."""
    decoder = decoder_for(data)
    if decoder is None:
        raise PhotoReadError(f"{path.name} is {_guess(data)}", hint="Save it as JPEG, PNG, TIFF or WebP first.")
    try:
        return decoder(data, limits, accept_damage=False)
    except (PhotoReadError, MemoryError):
        raise
    except Exception as error:
        # Decoders meet hostile bytes and raise what they like; all of it means that this file is damaged.
        why = str(error) or type(error).__name__
        if not accept:
            raise PhotoReadError(
                f"{path.name} is damaged: {why}",
                hint="Copy it again from where it came. To restore what is left of it, set on_damage to 'accept'.",
            ) from error
    try:
        decoded = decoder(data, limits, accept_damage=True)
    except (PhotoReadError, MemoryError):
        raise
    except Exception as error:
        raise PhotoReadError(
            f"{path.name} is too damaged to read: {error or why}", hint="Copy it again from where it came."
        ) from error
    decoded.warnings.append(f"the file is damaged ({why}); only what could be read was used")
    return decoded


def _guess(data: bytes) -> str:
    """What the bytes look like, for the message."""
    if data[4:8] == b"ftyp":
        brand = data[8:12]
        if brand in (b"heic", b"heix", b"mif1", b"msf1", b"heim", b"hevc"):
            return "a HEIC photo, which is not read here"
        return "an AVIF image, which is not read here" if brand in (b"avif", b"avis") else "a video"
    known = {
        b"%PDF": "a PDF document",
        b"PK\x03\x04": "a ZIP archive",
        b"<svg": "an SVG drawing",
        b"8BPS": "a PSD file",
    }
    return next((what for start, what in known.items() if data.startswith(start)), "no image in a known format")


def _finish(decoded: Decoded, name: str) -> Photo:
    """Colours to sRGB, picture upright, metadata into the info."""
    warnings = decoded.warnings
    profile, samples, space = _to_srgb(decoded)
    pixels = _unit(samples)
    if pixels.ndim == 2:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    alpha = _unit(decoded.alpha) if decoded.alpha is not None else None

    turn = decoded.orientation if decoded.orientation is not None else exif_blocks.orientation(decoded.exif)
    turn = turn if 1 <= turn <= 8 else 1
    pixels = np.ascontiguousarray(upright(pixels, turn))
    if alpha is not None:
        alpha = np.ascontiguousarray(upright(alpha, turn))

    block, dpi = b"", decoded.dpi
    if decoded.exif:
        try:
            found = exif_blocks.cleaned(exif_blocks.parse(decoded.exif, in_tiff=decoded.format == "TIFF"))
            dpi = dpi or exif_blocks.resolution(found)
            block = exif_blocks.dump(found)
        except (exif_blocks.ExifError, struct.error) as error:
            warnings.append(f"the EXIF data is broken and was left out ({error})")
        if len(block) > _MAX_KEPT_EXIF:
            warnings.append("the EXIF data is larger than 1 MB and was left out")
            block = b""
    if dpi and turn >= 5:
        dpi = (dpi[1], dpi[0])
    info = PhotoInfo(
        name=name,
        format=decoded.format,
        mode="gray" if space == "gray" else "rgb",
        bit_depth=8 if decoded.samples.dtype == np.uint8 else 16,
        has_alpha=alpha is not None,
        exif=base64.b64encode(block).decode("ascii"),
        icc=base64.b64encode(profile).decode("ascii"),
        dpi=[round(float(value), 4) for value in dpi] if dpi else None,
        warnings=warnings,
    )
    return Photo(pixels, alpha, info)


def _to_srgb(decoded: Decoded) -> tuple[bytes, Samples, str]:
    """The profile worth keeping (b"" if none), the samples in sRGB, and the space the file stored."""
    samples, space = decoded.samples, decoded.space
    profile = decoded.icc
    if profile:
        try:
            described = icc.space_of(profile)
            if described == "rgb" and space == "gray":
                # Wrong but common: it still says how bright each value is, and keeps gray gray.
                if not icc.is_srgb(profile):
                    triple = np.repeat(_integers(samples)[..., None], 3, axis=2)
                    samples = icc.to_srgb(triple, profile, "rgb")[..., 1]
                return b"", samples, space
            if described != space:
                raise icc.IccError(f"a {described} profile in a {space} photo")
            if not icc.is_srgb(profile):
                samples = icc.to_srgb(_integers(samples), profile, space)
        except icc.IccError as error:
            decoded.warnings.append(f"the colour profile cannot be used and was left out ({error})")
            profile = b""
        else:
            return (profile if space != "cmyk" else b""), samples, space
    if space == "cmyk":
        top = 1.0 if samples.dtype.kind == "f" else float(np.iinfo(samples.dtype).max)
        ink = samples.astype(np.float32) / np.float32(top)
        decoded.warnings.append("the photo is in CMYK without a usable profile; its colours are an estimate")
        samples = (1.0 - ink[..., :3]) * (1.0 - ink[..., 3:])
    return profile, samples, space


def _integers(samples: Samples) -> Samples:
    """Samples as the colour engine takes them."""
    return np.rint(samples * 65535.0).astype(np.uint16) if samples.dtype.kind == "f" else samples


def _unit(samples: Samples) -> np.ndarray[Any, np.dtype[np.float32]]:
    """Samples as float32 in [0, 1]."""
    if samples.dtype.kind == "f":
        return samples.astype(np.float32)
    unit: np.ndarray[Any, np.dtype[np.float32]] = samples.astype(np.float32)
    unit /= np.float32(np.iinfo(samples.dtype).max)
    return unit


def upright(pixels: Samples, orientation: int) -> Samples:
    """Undo an EXIF orientation 1 to 8; a view of (H, W[, C]) ``pixels``."""
    if orientation >= 5:
        pixels = pixels.swapaxes(0, 1)
    # After the swap, 5 to 8 want what 1, 2, 3 and 4 want in another order: 6 mirrors x, 8 mirrors y, 7 mirrors both.
    if orientation in (2, 3, 6, 7):
        pixels = pixels[:, ::-1]
    if orientation in (3, 4, 7, 8):
        pixels = pixels[::-1]
    return pixels
