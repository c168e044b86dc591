"""The text a PNG carries: ComfyUI and SavePhoto put the workflow of a picture there.

Reads chunk headers and skips pixels, so that a large picture costs nothing and is never decoded.
Source: PNG specification, third edition, section 11.3.3 (tEXt, zTXt, iTXt).
"""

from __future__ import annotations

import struct
import zlib
from typing import TYPE_CHECKING, BinaryIO

from photokeep_nodes.errors import WorkflowFormatError

if TYPE_CHECKING:
    from collections.abc import Collection

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_CHUNKS = 100_000


def read_png_text(file: BinaryIO, keywords: Collection[str], limit: int) -> dict[str, str]:
    """Texts of a PNG by keyword.

    Args:
        file: open at the signature, seekable.
        keywords: the ones to return; all others are skipped.
        limit: largest text in bytes, packed or unpacked.

    Returns:
        Keyword to text, for those that are there.

    Raises:
        WorkflowFormatError: not a PNG, cut off before a text is found, every text damaged, or one over ``limit``.
    """
    if file.read(len(PNG_SIGNATURE)) != PNG_SIGNATURE:
        raise WorkflowFormatError("not a PNG picture")
    texts: dict[str, str] = {}
    whole = damaged = False
    for _ in range(_MAX_CHUNKS):
        header = file.read(8)
        if len(header) < 8:
            break
        length, kind = struct.unpack(">I4s", header)
        if kind == b"IEND" or len(texts) == len(set(keywords)):
            whole = True
            break
        if kind not in {b"tEXt", b"zTXt", b"iTXt"}:
            file.seek(length + 4, 1)
            continue
        if length > limit:
            raise WorkflowFormatError(f"a text of the picture has {length:,} bytes, more than the {limit:,} allowed")
        data, check = file.read(length), file.read(4)
        if len(data) < length:
            break
        if data.partition(b"\0")[0].decode("latin-1") in keywords and check != _checksum(kind, data):
            damaged = True
            continue
        keyword, text = _text(kind, data, keywords, limit)
        if text is not None:
            texts[keyword] = text
    if damaged and not texts:
        raise WorkflowFormatError("the workflow that the picture carries is damaged: its checksum does not fit")
    if not texts and not whole:
        raise WorkflowFormatError("the picture is cut off, and what is left of it carries no workflow")
    return texts


def _checksum(kind: bytes, data: bytes) -> bytes:
    return zlib.crc32(data, zlib.crc32(kind)).to_bytes(4, "big")


def _text(kind: bytes, data: bytes, keywords: Collection[str], limit: int) -> tuple[str, str | None]:
    keyword_bytes, _, rest = data.partition(b"\0")
    keyword = keyword_bytes.decode("latin-1")
    if keyword not in keywords:
        return keyword, None
    if kind == b"tEXt":
        return keyword, rest.decode("latin-1")
    if kind == b"zTXt":
        return keyword, _unpacked(rest[1:], limit).decode("latin-1")
    packed = rest[:1] == b"\x01"
    _language, _, rest = rest[2:].partition(b"\0")
    _translated, _, rest = rest.partition(b"\0")
    data = _unpacked(rest, limit) if packed else rest
    try:
        return keyword, data.decode()
    except UnicodeDecodeError as error:
        raise WorkflowFormatError(f"the {keyword!r} text of the picture is not UTF-8") from error


def _unpacked(data: bytes, limit: int) -> bytes:
    unpacker = zlib.decompressobj()
    try:
        text = unpacker.decompress(data, limit + 1)
    except zlib.error as error:
        raise WorkflowFormatError("a text of the picture cannot be unpacked") from error
    if len(text) > limit:
        raise WorkflowFormatError(f"a text of the picture unpacks to more than {limit:,} bytes")
    if not unpacker.eof:
        raise WorkflowFormatError("a text of the picture is cut off")
    return text
