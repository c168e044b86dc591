from __future__ import annotations

import struct

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from PIL.ExifTags import IFD

from photokeep_nodes.photo_io import exif


def block(order: str, entries: list[tuple[int, int, int, bytes]], tail: bytes = b"", following: int = 0) -> bytes:
    """A block with one directory; a value is 4 bytes as they lie in the entry."""
    out = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "I", 8)
    out += struct.pack(order + "H", len(entries))
    for tag, kind, count, value in entries:
        out += struct.pack(order + "HHI", tag, kind, count) + value.ljust(4, b"\0")
    return out + struct.pack(order + "I", following) + tail


def by_pillow(raw: bytes) -> Image.Exif:
    read = Image.Exif()
    read.load(raw)
    return read


@pytest.mark.parametrize("order", "<>")
def test_round_trip(order):
    source = Image.Exif()
    source.endian = order
    source[0x010F] = "Leica"
    source[0x0112] = 6
    source[0x011A] = 300.0
    source[0x8769] = {0x9003: "1958:07:01 12:00:00", 0xA002: 640, 0xA003: 70000}
    source[0x8825] = {2: (50.0, 5.0, 7.0)}
    raw = source.tobytes()[6:]
    assert exif.orientation(raw) == 6
    kept = exif.parse(raw)
    assert kept.order == order
    again = by_pillow(exif.dump(kept))
    assert dict(again) == dict(by_pillow(raw)) | {0x8769: again[0x8769], 0x8825: again[0x8825]}
    assert again.get_ifd(0x8769) == by_pillow(raw).get_ifd(0x8769)
    assert again.get_ifd(0x8825) == by_pillow(raw).get_ifd(0x8825)
    assert exif.dump(exif.parse(exif.dump(kept))) == exif.dump(kept)


def test_orientation_and_size():
    source = Image.Exif()
    source[0x0112] = 8
    source[0x8769] = {0xA002: 640, 0xA003: 480}
    new = by_pillow(exif.dump(exif.resized(exif.cleaned(exif.parse(source.tobytes())), 1280, 70_000)))
    assert new[0x0112] == 1
    assert new.get_ifd(0x8769)[0xA002] == 1280
    assert new.get_ifd(0x8769)[0xA003] == 70_000


def test_no_size_is_made_up():
    kept = exif.parse(block("<", [(0x0112, 3, 1, b"\1\0")]))
    assert 0x8769 not in by_pillow(exif.dump(exif.resized(kept, 5, 5)))


def test_the_thumbnail_goes():
    thumbnail = b"\xff\xd8 a small picture \xff\xd9"
    first_end = 8 + 2 + 12 + 4
    second = struct.pack("<H", 2)
    second += struct.pack("<HHII", 0x0201, 4, 1, first_end + 2 + 24 + 4)
    second += struct.pack("<HHII", 0x0202, 4, 1, len(thumbnail)) + bytes(4) + thumbnail
    raw = block("<", [(0x0112, 3, 1, b"\6\0")], second, following=first_end)
    assert by_pillow(raw).get_ifd(IFD.IFD1)[0x0202] == len(thumbnail)
    out = exif.dump(exif.parse(raw))
    assert b"small picture" not in out
    assert by_pillow(out).get_ifd(IFD.IFD1) == {}


def test_a_maker_note_keeps_its_offset():
    note = b"Canon note with offsets from the start of the block"
    sub_at = 8 + 2 + 2 * 12 + 4
    note_at = sub_at + 2 + 12 + 4 + 100  # behind a gap
    sub = struct.pack("<H", 1) + struct.pack("<HHII", 0x927C, 7, len(note), note_at) + bytes(4)
    tail = sub + bytes(100) + note
    raw = block("<", [(0x0112, 3, 1, b"\6\0"), (0x8769, 4, 1, struct.pack("<I", sub_at))], tail)
    kept = exif.parse(raw)
    # More is written than was read: the rest has to find its place around the note.
    grown = exif.with_texts(exif.cleaned(kept), ["workflow:" + "x" * 90, "prompt:" + "y" * 400])
    out = exif.dump(grown)
    assert out[note_at : note_at + len(note)] == note
    again = by_pillow(out)
    assert again.get_ifd(0x8769)[0x927C] == note
    assert again[0xFDE8] == "workflow:" + "x" * 90
    assert again[0xFDE9] == "prompt:" + "y" * 400


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"II*\0",
        b"XX*\0\x08\0\0\0\0\0",
        b"II*\0\x00\0\0\0\0\0\0\0\0\0",
        b"II*\0\xff\xff\xff\x7f\0\0",
        b"II*\0\x08\0\0\0\xff\xff",
        block("<", [(0x010F, 2, 500, struct.pack("<I", 26))]),
    ],
)
def test_broken(raw):
    with pytest.raises(exif.ExifError):
        exif.parse(raw)
    assert exif.orientation(raw) == 1


def test_what_can_be_read_of_the_orientation_is():
    raw = block(">", [(0x010F, 2, 500, struct.pack(">I", 26)), (0x0112, 3, 1, b"\0\6")])
    with pytest.raises(exif.ExifError):
        exif.parse(raw)
    assert exif.orientation(b"Exif\0\0" + raw) == 6


def test_overlapping_values_do_not_unfold():
    size = 60_000
    rows = [(0xC000 + i, 7, size, struct.pack("<I", 100)) for i in range(3000)]
    raw = block("<", rows, bytes(size))
    with pytest.raises(exif.ExifError, match="overlap"):
        exif.parse(raw)


def test_a_broken_directory_below_costs_only_itself():
    raw = block("<", [(0x010F, 2, 4, b"Zei\0"), (0x8769, 4, 1, b"\xff\xff\xff\x7f")])
    kept = exif.parse(raw)
    assert kept.main[0x010F].data == b"Zei\0"
    assert kept.exif == {}


def test_a_directory_that_contains_itself():
    raw = block("<", [(0x010F, 2, 4, b"Zei\0"), (0x8769, 4, 1, struct.pack("<I", 8))])
    assert exif.parse(raw).main[0x010F].data == b"Zei\0"


@pytest.mark.parametrize(
    ("unit", "want"), [(2, (300.0, 150.0)), (3, (762.0, 381.0)), (1, None), (None, (300.0, 150.0)), (99, None)]
)
def test_resolution(unit, want):
    source = Image.Exif()
    source[0x011A], source[0x011B] = 300.0, 150.0
    if unit is not None:
        source[0x0128] = unit
    found = exif.resolution(exif.parse(source.tobytes()))
    assert found == (pytest.approx(want) if want else None)


def test_nothing_to_say():
    assert not exif.Exif()
    assert exif.dump(exif.Exif()) == b""


@settings(deadline=None)
@given(noise=st.binary(max_size=400), order=st.sampled_from("<>"))
def test_noise_is_an_error_or_a_sound_block(noise, order):
    raw = block(order, [(0x0112, 3, 1, b"\1\1")])[:8] + noise
    exif.orientation(raw)
    try:
        kept = exif.parse(raw)
    except exif.ExifError:
        return
    out = exif.dump(exif.cleaned(exif.resized(kept, 3, 4)))
    assert len(out) <= 200_000
    if out:
        again = exif.parse(out)
        assert again.main.keys() == exif.cleaned(kept).main.keys()
        assert again.gps == kept.gps
