"""What a file says around its pixels: JPEG segments, PNG chunks, WebP chunks.

Taken apart by hand so that a decoder only ever sees the pixels' own data: a broken EXIF or ICC block, or a text chunk
that unpacks to gigabytes, then cannot keep a photo from loading.

Sources: ITU-T T.81 annex B; PNG 3rd edition; RFC 9649 (WebP).
"""

from __future__ import annotations

import struct
import zlib
from dataclasses import dataclass, field

PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"
_MAX_PROFILE = 16 << 20
_MAX_EXIF = 16 << 20
_METRE_IN_INCHES = 39.37007874015748


@dataclass
class Container:
    """One file, taken apart.

    Attributes:
        pixels: what the decoder gets.
        exif: block as found, may be broken; empty if none.
        icc: profile as found, may be broken; empty if none.
        dpi: dots per inch in x and y.
        damage: what is wrong with the pixels' data as far as the container shows; empty if nothing.
        warnings: what was left out and why.
    """

    pixels: bytes
    exif: bytes = b""
    icc: bytes = b""
    dpi: tuple[float, float] | None = None
    damage: str = ""
    warnings: list[str] = field(default_factory=list)


def take_jpeg(data: bytes) -> Container:
    """Split a JPEG file at its markers up to the first scan."""
    taken = Container(b"")
    kept = [data[:2]]
    profile: dict[int, bytes] = {}
    profile_parts = 0
    at = 2
    while at + 4 <= len(data) and data[at] == 0xFF:
        marker = data[at + 1]
        if marker == 0xFF:  # fill byte
            at += 1
            continue
        if marker in (0xDA, 0xD9):  # start of scan, end of image
            break
        if marker == 0x01 or 0xD0 <= marker <= 0xD7:  # no length
            at += 2
            continue
        size = struct.unpack_from(">H", data, at + 2)[0]
        if size < 2 or at + 2 + size > len(data):
            break
        body = data[at + 4 : at + 2 + size]
        if marker == 0xE1 and body.startswith((b"Exif\0\0", b"Exif\0\xff")):
            taken.exif = taken.exif or body[6:]
        elif marker == 0xE2 and body.startswith(b"ICC_PROFILE\0") and len(body) > 14:
            profile[body[12]] = body[14:]
            profile_parts = body[13]
        elif marker == 0xE0 and body.startswith(b"JFIF\0") and len(body) >= 12:
            taken.dpi = _jfif_density(body)
        # APP0 and APP14 say how the colours are coded; other application segments and comments are of no use to pixels.
        if not (0xE1 <= marker <= 0xED or marker in (0xEF, 0xFE)):
            kept.append(data[at : at + 2 + size])
        at += 2 + size
    kept.append(data[at:])
    taken.pixels = b"".join(kept)
    if profile:
        if sorted(profile) == list(range(1, profile_parts + 1)):
            taken.icc = b"".join(profile[i] for i in sorted(profile))
        else:
            taken.warnings.append("the colour profile is incomplete and was left out")
    return taken


def _jfif_density(body: bytes) -> tuple[float, float] | None:
    unit, x, y = struct.unpack_from(">BHH", body, 7)
    factor = {1: 1.0, 2: 2.54}.get(unit, 0.0)
    return (x * factor, y * factor) if x and y and factor else None


@dataclass
class PngHeader:
    """IHDR, and what the decoder needs beside it."""

    width: int
    height: int
    bit_depth: int
    colour_type: int
    interlaced: bool
    transparent: bytes = b""
    animated: bool = False

    @property
    def channels(self) -> int:
        """Samples a pixel has in the file."""
        return {0: 1, 2: 3, 3: 1, 4: 2, 6: 4}[self.colour_type]

    def raw_size(self) -> int:
        """Bytes the unpacked pixel data must have, filter bytes included."""
        if not self.interlaced:
            return self._pass_size(self.width, self.height)
        passes = ((0, 0, 8, 8), (4, 0, 8, 8), (0, 4, 4, 8), (2, 0, 4, 4), (0, 2, 2, 4), (1, 0, 2, 2), (0, 1, 1, 2))
        return sum(self._pass_size(-(-(self.width - x) // dx), -(-(self.height - y) // dy)) for x, y, dx, dy in passes)

    def _pass_size(self, width: int, height: int) -> int:
        if width <= 0 or height <= 0:
            return 0
        return height * (1 + -(-width * self.channels * self.bit_depth // 8))


def png_chunk(kind: bytes, body: bytes) -> bytes:
    """One chunk as it lies in a file."""
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def png_header(data: bytes) -> PngHeader:
    """Read IHDR alone.

    Raises:
        ValueError: it is missing or says what PNG does not know.
    """
    if len(data) < 33 or data[12:16] != b"IHDR":
        raise ValueError("its header is missing")
    width, height, depth, colour, compression, filtering, interlace = struct.unpack_from(">IIBBBBB", data, 16)
    depths = {0: (1, 2, 4, 8, 16), 2: (8, 16), 3: (1, 2, 4, 8), 4: (8, 16), 6: (8, 16)}.get(colour, ())
    if depth not in depths or compression or filtering or interlace > 1 or not width or not height:
        raise ValueError("its header makes no sense")
    return PngHeader(width, height, depth, colour, bool(interlace))


def take_png(data: bytes, *, repair: bool = False) -> tuple[Container, PngHeader]:
    """Split a PNG file into what makes its pixels and the rest.

    ``Container.pixels`` is a minimal PNG file of the same picture. Damage shows as a missing end or a wrong checksum;
    with ``repair`` the pixels are then whole, black where nothing was left.

    Raises:
        ValueError: no usable header.
    """
    header = png_header(data)
    taken = Container(b"")
    palette = b""
    scan: list[bytes] = []
    at, ended = 8, False
    while at + 8 <= len(data) and not ended:
        size = struct.unpack_from(">I", data, at)[0]
        kind = data[at + 4 : at + 8]
        body = data[at + 8 : at + 8 + size]
        end = at + 12 + size
        if kind == b"IDAT":
            scan.append(body)
        if end > len(data):
            break
        intact = struct.unpack_from(">I", data, end - 4)[0] == zlib.crc32(data[at + 4 : end - 4])
        if not intact:
            if kind in (b"IHDR", b"PLTE", b"IDAT", b"IEND"):
                taken.damage = taken.damage or f"the checksum of its {kind.decode()} part is wrong"
            else:
                taken.warnings.append(f"the {kind.decode('ascii', 'replace')} part is damaged and was left out")
                kind = b""
        if kind == b"PLTE":
            palette = body
        elif kind == b"tRNS":
            header.transparent = body
        elif kind == b"acTL":
            header.animated = True
        elif kind == b"IEND":
            ended = True
        elif kind:
            _take_png_extra(taken, kind, body)
        at = end
    if not ended:
        taken.damage = "the end of the file is missing"
    parts = [png_chunk(b"IHDR", data[16:29])]
    if palette:
        parts.append(png_chunk(b"PLTE", palette))
    if header.transparent and header.bit_depth < 16:
        parts.append(png_chunk(b"tRNS", header.transparent))
    packed = b"".join(scan)
    if repair and taken.damage:
        packed = _unpack_what_is_there(packed, header)
    taken.pixels = PNG_SIGNATURE + b"".join([*parts, png_chunk(b"IDAT", packed), png_chunk(b"IEND", b"")])
    return taken, header


def _take_png_extra(taken: Container, kind: bytes, body: bytes) -> None:
    """Note the profile, EXIF and resolution chunks; everything else is of no use here."""
    if kind == b"eXIf" and len(body) <= _MAX_EXIF:
        taken.exif = body
    elif kind == b"pHYs" and len(body) == 9:
        x, y, unit = struct.unpack(">IIB", body)
        taken.dpi = (x / _METRE_IN_INCHES, y / _METRE_IN_INCHES) if unit == 1 and x and y else None
    elif kind == b"iCCP":
        name, _, rest = body.partition(b"\0")
        unpacker = zlib.decompressobj()
        try:
            if len(name) > 79 or rest[:1] != b"\0":
                raise zlib.error("unknown compression")
            taken.icc = unpacker.decompress(rest[1:], _MAX_PROFILE)
            if not unpacker.eof:
                raise zlib.error("too long")
        except zlib.error:
            taken.icc = b""
            taken.warnings.append("the colour profile is damaged and was left out")


def _unpack_what_is_there(packed: bytes, header: PngHeader) -> bytes:
    """The damaged pixel data as far as it can be unpacked, the rest black, packed anew."""
    wanted = header.raw_size()
    unpacker = zlib.decompressobj()
    raw = bytearray()
    # In small bites: what was unpacked before the first wrong byte is kept.
    for start in range(0, len(packed), 512):
        try:
            raw += unpacker.decompress(packed[start : start + 512], max(1, wanted - len(raw)))
        except zlib.error:
            break
        if len(raw) >= wanted or unpacker.eof:
            break
    raw = raw[:wanted]
    if not header.interlaced:
        # A filter type above 4 does not exist: from the first one on, it is noise.
        stride = wanted // header.height
        for row in range(0, len(raw), stride):
            if raw[row] > 4:
                del raw[row:]
                break
    return zlib.compress(bytes(raw) + bytes(wanted - len(raw)), 1)


@dataclass
class WebpHeader:
    """Size of the canvas and whether it moves."""

    width: int
    height: int
    animated: bool = False


def take_webp(data: bytes) -> tuple[Container, WebpHeader]:
    """Read a WebP file's chunks.

    Raises:
        ValueError: no usable header.
    """
    taken = Container(data)
    declared = struct.unpack_from("<I", data, 4)[0] + 8
    if declared > len(data):
        taken.damage = "the end of the file is missing"
    header: WebpHeader | None = None
    at = 12
    while at + 8 <= min(len(data), declared):
        kind, size = data[at : at + 4], struct.unpack_from("<I", data, at + 4)[0]
        body = data[at + 8 : at + 8 + size]
        if header is None and kind in (b"VP8X", b"VP8L", b"VP8 "):
            header = _webp_header(kind, body)
        elif kind == b"ICCP" and len(body) == size <= _MAX_PROFILE:
            taken.icc = body
        elif kind == b"EXIF" and len(body) == size <= _MAX_EXIF:
            taken.exif = body
        at += 8 + size + (size & 1)
    if header is None:
        raise ValueError("its header is missing")
    return taken, header


def _webp_header(kind: bytes, body: bytes) -> WebpHeader | None:
    if kind == b"VP8X" and len(body) >= 10:
        width = int.from_bytes(body[4:7], "little") + 1
        height = int.from_bytes(body[7:10], "little") + 1
        return WebpHeader(width, height, animated=bool(body[0] & 2))
    if kind == b"VP8L" and len(body) >= 5:
        bits = int.from_bytes(body[1:5], "little")
        return WebpHeader((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
    if kind == b"VP8 " and len(body) >= 10:
        width, height = struct.unpack_from("<HH", body, 6)
        return WebpHeader(width & 0x3FFF, height & 0x3FFF)
    return None
