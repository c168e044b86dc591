"""The text a WebP carries: ComfyUI puts the workflow of a picture into its EXIF block, as ``workflow:{...}``.

Reads chunk headers and skips pixels, so that a large picture costs nothing and is never decoded.
Source: WebP container specification, RFC 9649, section 2.7.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING, BinaryIO

from photokeep_nodes.errors import WorkflowFormatError

if TYPE_CHECKING:
    from collections.abc import Collection

RIFF_SIGNATURE = b"RIFF"
_MAX_CHUNKS = 100_000
_EXIF_HEADER = b"Exif\0\0"


def read_webp_text(file: BinaryIO, keywords: Collection[str], limit: int) -> dict[str, str]:
    """Texts of a WebP by keyword.

    Args:
        file: open at the signature, seekable.
        keywords: the ones to return; all others are skipped.
        limit: largest EXIF block in bytes.

    Returns:
        Keyword to text, for those that are there.

    Raises:
        WorkflowFormatError: not a WebP, or an EXIF block that is over ``limit`` or cannot be read.
    """
    head = file.read(12)
    if head[:4] != RIFF_SIGNATURE or head[8:] != b"WEBP":
        raise WorkflowFormatError("this is a RIFF file, but no WebP picture")
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        kind, length = struct.unpack("<4sI", header)
        if kind != b"EXIF":
            file.seek(length + length % 2, 1)
            continue
        if length > limit:
            raise WorkflowFormatError(f"the picture's EXIF has {length:,} bytes, more than the {limit:,} allowed")
        return _texts(file.read(length), keywords)
    return {}


def _texts(data: bytes, keywords: Collection[str]) -> dict[str, str]:
    from PIL import Image

    exif = Image.Exif()
    try:
        exif.load(data if data.startswith(_EXIF_HEADER) else _EXIF_HEADER + data)
        values = list(exif.values())
    except Exception as error:
        # Pillow raises whatever a broken block leads it into: SyntaxError, struct.error, KeyError ...
        raise WorkflowFormatError("the picture's EXIF cannot be read") from error
    texts: dict[str, str] = {}
    for value in values:
        keyword, colon, text = value.partition(":") if isinstance(value, str) else ("", "", "")
        if colon and keyword in keywords:
            texts[keyword] = _as_utf8(text.rstrip("\0"))
    return texts


def _as_utf8(text: str) -> str:
    """EXIF has no UTF-8, so Pillow reads Latin-1; some tools write UTF-8 all the same."""
    try:
        return text.encode("latin-1").decode()
    except UnicodeError:
        return text
