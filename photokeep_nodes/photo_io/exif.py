"""EXIF blocks: read into a small tree, written back whole.

An EXIF block is a TIFF file without pixels, so the same reader takes the tags out of a TIFF and the same writer puts
them into one. Writing from a tree leaves out the thumbnail, which shows the unrestored photo, and whatever pointed
nowhere.

Maker notes are opaque and several makers' notes hold offsets from the start of the block, so a note is written back at
the offset where it was.

Sources: TIFF 6.0; Exif 2.32 (CIPA DC-008).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass, field, replace

ORIENTATION = 0x0112
_EXIF_IFD, _GPS_IFD, _INTEROP_IFD = 0x8769, 0x8825, 0xA005
_POINTERS = frozenset({_EXIF_IFD, _GPS_IFD, _INTEROP_IFD})
_MAKER_NOTE = 0x927C
_PIXEL_X, _PIXEL_Y = 0xA002, 0xA003
_X_RESOLUTION, _Y_RESOLUTION, _RESOLUTION_UNIT = 0x011A, 0x011B, 0x0128

# Private-use tags of TIFF 6.0 (65000 and up). ComfyUI's own savers put the graph into Make (0x010F) and Model (0x0110);
# its editor reads it back from any ASCII tag of the first directory that says "workflow:" or "prompt:". The camera that
# took a photo should stay on it, so the graph goes where nothing else lives.
WORKFLOW_TAG = 0xFDE8

_ASCII, _SHORT, _LONG, _RATIONAL, _IFD = 2, 3, 4, 5, 13
_UNIT_SIZES = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}

# What describes the stored pixels of one particular file, and so must not travel to another: layout, strips and tiles,
# palettes, sub-images, and blocks that are carried on their own (ICC) or not at all (XMP, IPTC and Photoshop's, which
# repeat the orientation).
_STRUCTURAL = frozenset(
    {
        *range(0x00FE, 0x0108), 0x010A, 0x0111, 0x0115, 0x0116, 0x0117, 0x0118, 0x0119, 0x011C, 0x0120, 0x0121, 0x0122,
        0x0123, 0x0124, 0x0125, 0x0129, 0x012D, 0x013D, *range(0x0140, 0x0148), 0x014A, 0x0152, 0x0153, 0x0154, 0x0155,
        0x015B, *range(0x0200, 0x020A), *range(0x0211, 0x0215), 0x02BC, 0x83BB, 0x8649, 0x8773, 0x935C,
    }
)  # fmt: skip

# Of the private tags of a TIFF file only those that describe the photo: copyright, and Windows' title and author.
_FROM_TIFF = frozenset({0x8298, *range(0x9C9B, 0x9CA0)})

_MAX_ENTRIES = 4096
_MAX_VALUE = 0xFFFF


class ExifError(ValueError):
    """The block is not readable as EXIF."""


@dataclass(frozen=True)
class Field:
    """One value as it is stored: TIFF type, number of units, bytes in the block's order."""

    kind: int
    count: int
    data: bytes


Directory = dict[int, Field]


@dataclass(frozen=True)
class Exif:
    """The directories worth keeping.

    Attributes:
        order: "<" or ">", the byte order of every value.
        main: IFD0 without pointers and without what describes stored pixels.
        exif: shutter, dates, maker note.
        gps: place.
        interop: DCF interoperability.
        note_at: offset at which the maker note must be written, or None.
    """

    order: str = "<"
    main: Directory = field(default_factory=dict)
    exif: Directory = field(default_factory=dict)
    gps: Directory = field(default_factory=dict)
    interop: Directory = field(default_factory=dict)
    note_at: int | None = None

    def __bool__(self) -> bool:
        return bool(self.main or self.exif or self.gps)


def _order_and_start(block: bytes) -> tuple[str, int]:
    order = {b"II*\0": "<", b"MM\0*": ">"}.get(bytes(block[:4]))
    if order is None or len(block) < 8:
        raise ExifError("no TIFF header")
    return order, struct.unpack_from(order + "I", block, 4)[0]


def _table(block: bytes, order: str, at: int) -> list[tuple[int, int, int, int, int]]:
    """(tag, type, count, offset of the value, its size) of each entry of the directory at ``at``."""
    if not 8 <= at <= len(block) - 2:
        raise ExifError(f"a directory at {at} lies outside the block")
    n_entries = struct.unpack_from(order + "H", block, at)[0]
    if n_entries > _MAX_ENTRIES or at + 2 + 12 * n_entries > len(block):
        raise ExifError(f"a directory of {n_entries} entries does not fit")
    rows = []
    for i in range(n_entries):
        entry = at + 2 + 12 * i
        tag, kind, count = struct.unpack_from(order + "HHI", block, entry)
        size = _UNIT_SIZES.get(kind, 0) * count
        where = entry + 8 if size <= 4 else struct.unpack_from(order + "I", block, entry + 8)[0]
        rows.append((tag, kind, count, where, size))
    return rows


class _Loader:
    """Takes directories out of one block, never more bytes than the block has."""

    def __init__(self, block: bytes) -> None:
        self.block = block
        self.order, self.start = _order_and_start(block)
        # Entries may overlap: a small hostile block could otherwise unfold into gigabytes.
        self.left = len(block)

    def directory(self, at: int, *, strict: bool, in_tiff: bool = False) -> tuple[Directory, dict[int, int]]:
        """Fields by tag, and the offsets of the directories below.

        Raises:
            ExifError: the table is broken; with ``strict``, also when one of its values is.
        """
        fields: Directory = {}
        below: dict[int, int] = {}
        for tag, kind, count, where, size in _table(self.block, self.order, at):
            if tag in _POINTERS and kind in (_LONG, _IFD) and count == 1:
                below[tag] = struct.unpack_from(self.order + "I", self.block, where)[0]
                continue
            if tag in _STRUCTURAL or kind == _IFD or tag in _POINTERS or size > _MAX_VALUE:
                continue
            if in_tiff and tag >= 0x8000 and tag not in _FROM_TIFF:
                continue
            if size == 0 or where + size > len(self.block):
                if strict and size:
                    raise ExifError(f"the value of tag {tag:#06x} lies outside the block")
                continue
            self.left -= size
            if self.left < 0:
                raise ExifError("values overlap")
            fields[tag] = Field(kind, count, bytes(self.block[where : where + size]))
        return fields, below

    def lenient(self, at: int | None) -> tuple[Directory, dict[int, int]]:
        """As ``directory``; empty where it is missing or broken, since the rest is still of use."""
        try:
            return self.directory(at, strict=False) if at is not None else ({}, {})
        except ExifError:
            return {}, {}


def strip_prefix(raw: bytes) -> bytes:
    """The block without the marker that JPEG, and some WebP writers, put before it."""
    return raw[6:] if raw.startswith((b"Exif\0\0", b"Exif\0\xff")) else raw


def parse(raw: bytes, *, in_tiff: bool = False) -> Exif:
    """Read a block, with or without its ``Exif`` prefix.

    Args:
        raw: the block, or a whole TIFF file.
        in_tiff: ``raw`` is a TIFF file: a maker note's offset in it means nothing elsewhere.

    Raises:
        ExifError: the header or the first directory is broken.
    """
    block = strip_prefix(raw)
    loader = _Loader(block)
    main, below = loader.directory(loader.start, strict=not in_tiff, in_tiff=in_tiff)
    exif, deeper = loader.lenient(below.get(_EXIF_IFD))
    gps, _ = loader.lenient(below.get(_GPS_IFD))
    interop, _ = loader.lenient(deeper.get(_INTEROP_IFD))
    note_at = None
    if _MAKER_NOTE in exif and not in_tiff:
        rows = _table(block, loader.order, below[_EXIF_IFD])
        note_at = next((where for tag, _kind, _count, where, size in rows if tag == _MAKER_NOTE and size > 4), None)
    return Exif(loader.order, main, exif, gps, interop, note_at)


def orientation(raw: bytes) -> int:
    """Orientation 1 to 8, as far as the block can be read; 1 where it says nothing sensible."""
    try:
        block = strip_prefix(raw)
        order, start = _order_and_start(block)
        for tag, kind, count, where, _size in _table(block, order, start):
            if tag == ORIENTATION and count == 1 and kind in (_SHORT, _LONG):
                value: int = struct.unpack_from(order + ("H" if kind == _SHORT else "I"), block, where)[0]
                return value if 1 <= value <= 8 else 1
    except ExifError:
        pass
    return 1


def resolution(exif: Exif) -> tuple[float, float] | None:
    """Dots per inch in x and y, if the block says so."""
    values = []
    for tag in (_X_RESOLUTION, _Y_RESOLUTION):
        found = exif.main.get(tag)
        if found is None or found.kind != _RATIONAL or found.count != 1:
            return None
        above, below = struct.unpack(exif.order + "II", found.data)
        values.append(above / below if below else 0.0)
    unit = exif.main.get(_RESOLUTION_UNIT)
    code = struct.unpack(exif.order + "H", unit.data[:2])[0] if unit and unit.kind == _SHORT and unit.count == 1 else 2
    factor = {2: 1.0, 3: 2.54}.get(code, 0.0)
    x, y = (value * factor for value in values)
    return (x, y) if x > 0 and y > 0 else None


def _integer(order: str, kind: int, value: int) -> Field:
    if kind == _SHORT and value > 0xFFFF:
        kind = _LONG
    return Field(kind, 1, struct.pack(order + ("H" if kind == _SHORT else "I"), value))


def cleaned(exif: Exif) -> Exif:
    """The same, upright and without a workflow that an earlier run embedded."""
    main = {
        tag: found
        for tag, found in exif.main.items()
        if not (found.kind == _ASCII and found.data.startswith((b"workflow:", b"prompt:", b"Workflow:", b"Prompt:")))
    }
    if ORIENTATION in main:
        main[ORIENTATION] = _integer(exif.order, _SHORT, 1)
    return replace(exif, main=main)


def resized(exif: Exif, width: int, height: int) -> Exif:
    """The same with the pixel dimensions it holds, if it holds any, set to these."""
    sizes = {_PIXEL_X: width, _PIXEL_Y: height}
    changed = {
        tag: _integer(exif.order, exif.exif[tag].kind if exif.exif[tag].kind == _SHORT else _LONG, size)
        for tag, size in sizes.items()
        if tag in exif.exif
    }
    return replace(exif, exif={**exif.exif, **changed})


def with_texts(exif: Exif, texts: list[str]) -> Exif:
    """The same with one private ASCII tag for each of ``texts``, which must be ASCII."""
    extra: Directory = {}
    for i, text in enumerate(texts):
        data = text.encode("ascii") + b"\0"
        # ComfyUI's reader does not expect values of up to four bytes, which lie in the entry; no text is that short.
        extra[WORKFLOW_TAG + i] = Field(_ASCII, len(data), data)
    return replace(exif, main={**exif.main, **extra})


class _Packer:
    """Lays out directories and values from offset ``base`` on, around one reserved range."""

    def __init__(self, order: str, base: int, reserved: tuple[int, int] | None) -> None:
        self.order = order
        self.base = base
        self.reserved = reserved
        self.out = bytearray()

    def place(self, size: int) -> int:
        """Offset of ``size`` free bytes, on an even address."""
        at = self.base + len(self.out)
        at += at & 1
        if self.reserved and at < self.reserved[1] and at + size > self.reserved[0]:
            at = self.reserved[1] + (self.reserved[1] & 1)
        self.out.extend(bytes(at + size - self.base - len(self.out)))
        return at

    def put(self, at: int, data: bytes) -> None:
        self.out[at - self.base : at - self.base + len(data)] = data

    def place_table(self, n_entries: int) -> int:
        """Offset of room for a directory; the four bytes more say that no directory follows it."""
        return self.place(2 + 12 * n_entries + 4)

    def directory(self, fields: Directory, at: int, note_at: int | None = None) -> int:
        """Write a directory at ``at`` and its values behind; returns ``at``."""
        self.put(at, struct.pack(self.order + "H", len(fields)))
        for i, (tag, found) in enumerate(sorted(fields.items())):
            entry = at + 2 + 12 * i
            self.put(entry, struct.pack(self.order + "HHI", tag, found.kind, found.count))
            if len(found.data) <= 4:
                self.put(entry + 8, found.data)
                continue
            if tag == _MAKER_NOTE and note_at is not None:
                where = note_at
                missing = where + len(found.data) - self.base - len(self.out)
                self.out.extend(bytes(max(0, missing)))
            else:
                where = self.place(len(found.data))
            self.put(where, found.data)
            self.put(entry + 8, struct.pack(self.order + "I", where))
        return at


def _pack(exif: Exif, base: int, note_at: int | None) -> tuple[bytes, int]:
    """The directories as bytes that belong at offset ``base``, and the offset of the first."""
    note = exif.exif.get(_MAKER_NOTE)
    reserved = (note_at, note_at + len(note.data)) if note and note_at is not None else None
    packer = _Packer(exif.order, base, reserved)

    def pointer(at: int) -> Field:
        return Field(_LONG, 1, struct.pack(exif.order + "I", at))

    main, shots = dict(exif.main), dict(exif.exif)
    # The first directory comes first, where simple readers expect it, and is filled once the others have their places.
    first = packer.place_table(len(main) + bool(shots or exif.interop) + bool(exif.gps))
    if exif.interop:
        shots[_INTEROP_IFD] = pointer(packer.directory(exif.interop, packer.place_table(len(exif.interop))))
    if shots:
        main[_EXIF_IFD] = pointer(packer.directory(shots, packer.place_table(len(shots)), note_at))
    if exif.gps:
        main[_GPS_IFD] = pointer(packer.directory(exif.gps, packer.place_table(len(exif.gps))))
    packer.directory(main, first)
    return bytes(packer.out), first


def dump(exif: Exif) -> bytes:
    """The block, without the ``Exif`` prefix; empty when there is nothing to say."""
    if not exif:
        return b""
    # A note far down the block would be kept there at the price of a block full of holes.
    note_at = exif.note_at if exif.note_at is not None and 8 <= exif.note_at < 0xFFFF else None
    body, first = _pack(exif, 8, note_at)
    magic = b"II*\0" if exif.order == "<" else b"MM\0*"
    return magic + struct.pack(exif.order + "I", first) + body


def into_tiff(tiff: bytes, exif: Exif) -> bytes:
    """Add the tags to a TIFF file of the same byte order; tags the file has are left as they are.

    Raises:
        ExifError: the file is no classic TIFF in that byte order.
    """
    order, start = _order_and_start(tiff)
    if order != exif.order:
        raise ExifError("the tags and the file differ in byte order")
    own = {
        tag: Field(kind, count, bytes(tiff[where : where + size]))
        for tag, kind, count, where, size in _table(tiff, order, start)
    }
    padded = tiff + b"\0" * (len(tiff) & 1)
    body, first = _pack(replace(exif, main={**exif.main, **own}), len(padded), None)
    return padded[:4] + struct.pack(order + "I", first) + padded[8:] + body
