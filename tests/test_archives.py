"""Files that lie in an archive are fetched without the rest of it, and from no server or archive that lies."""

from __future__ import annotations

import hashlib
import io
import random
import re
import struct
import zipfile
import zlib
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from file_server import Act, FileServer, serving
from small_models import checkpoint, entry, spec_of
from transfer_notes import Notes

from photokeep_nodes import digests, downloads, fetching, importing, models, weights, zip_member
from photokeep_nodes.downloads import Patience, Wanted, download
from photokeep_nodes.errors import (
    UsageError,
    WeightsCorruptError,
    WeightsDownloadError,
    WeightsError,
    WeightsFormatError,
)
from photokeep_nodes.partial_file import kept_bytes
from photokeep_nodes.zip_member import ArchiveError

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelSpec

MEMBER = "checkpoints/detection/net.pth"
_RANDOM = random.Random(3)
BODY = b"".join(_RANDOM.randbytes(40) + bytes(20) for _ in range(8_000))
"""480 kB that deflate to about 320 kB."""
NEIGHBOUR = random.Random(4).randbytes(900_000)
QUICK = Patience(stall_s=0.3, attempts=2, backoff_s=0.0)
STORED, DEFLATED = zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED


def archive(body: bytes = BODY, *, method: int = DEFLATED, member: str = MEMBER, comment: bytes = b"") -> bytes:
    """An archive with the file between two larger ones."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as written:
        written.writestr("checkpoints/restoration/first.pth", NEIGHBOUR)
        written.writestr(zipfile.ZipInfo(member), body, method)
        written.writestr("checkpoints/restoration/last.pth", NEIGHBOUR)
        written.comment = comment
    return stream.getvalue()


def packed_bytes(whole: bytes) -> int:
    with zipfile.ZipFile(io.BytesIO(whole)) as read:
        return read.getinfo(MEMBER).compress_size


def data_start(whole: bytes) -> int:
    return zip_member.locate(lambda start, stop: whole[start:stop], len(whole), MEMBER).start


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


def wanted(tmp_path: Path, *urls: str, exact: bool = True, sha256: str | None = None) -> Wanted:
    digest = hashlib.sha256(BODY).hexdigest() if sha256 is None else sha256
    return Wanted(tmp_path / "net.pth", urls, len(BODY), digest, exact=exact, member=MEMBER)


def names(tmp_path: Path) -> list[str]:
    return sorted(path.name for path in tmp_path.iterdir())


def fetch(tmp_path: Path, *urls: str, **options: object) -> Notes:
    """Download, and check that exactly the published file is there."""
    notes = Notes(len(BODY))
    file = wanted(tmp_path, *urls, **options)  # type: ignore[arg-type]
    assert download(file, listener=notes, patience=QUICK) == hashlib.sha256(BODY).hexdigest()
    assert names(tmp_path) == ["net.pth"]
    assert file.target.read_bytes() == BODY
    return notes


def refused(tmp_path: Path, url: str, message: str, kind: type[WeightsError] = WeightsCorruptError) -> WeightsError:
    with pytest.raises(kind, match=message) as caught:
        download(wanted(tmp_path, url), patience=QUICK)
    return caught.value


# -- fetched -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_only_the_file_and_the_list_of_files_are_fetched(server: FileServer, tmp_path: Path, method: int) -> None:
    whole = archive(method=method)
    notes = fetch(tmp_path, server.publish("/all.zip", whole))
    assert notes.notes == []
    assert max(notes.steps) == len(BODY)
    assert server.sent() <= packed_bytes(whole) + 3 * (1 << 16) + 1
    assert server.sent() < len(whole) / 2
    assert all(re.fullmatch(r"bytes=\d+-\d+", each.range or "") for each in server.asked), "never from the end"


@pytest.mark.parametrize("comment", [b"c" * 300, b"PK\5\6" * 9, bytes(65_000)], ids=["short", "fake-end", "long"])
def test_a_comment_at_the_end_is_no_hindrance(server: FileServer, tmp_path: Path, comment: bytes) -> None:
    try:
        expected = bool(zipfile.ZipFile(io.BytesIO(archive(comment=comment))).getinfo(MEMBER))
    except zipfile.BadZipFile:
        expected = False
    url = server.publish("/all.zip", archive(comment=comment))
    if expected:
        fetch(tmp_path, url)
    else:
        refused(tmp_path, url, "sent another archive")


def test_what_stands_before_an_archive_is_no_hindrance(server: FileServer, tmp_path: Path) -> None:
    fetch(tmp_path, server.publish("/all.exe", b"#!/bin/sh\n" * 50 + archive()))


def test_archives_of_more_than_four_gigabytes_are_counted_right() -> None:
    """A list of files in the form of large archives, whose file lies behind 5 GB that nobody asks for."""
    before = 5 << 30
    extra = struct.pack("<HHQQQ", 1, 24, len(BODY), len(BODY), before)
    name = MEMBER.encode()
    local = struct.pack("<4s5H3I2H", b"PK\3\4", 45, 0, 0, 0, 0, 0, 2**32 - 1, 2**32 - 1, len(name), 0) + name
    entry_ = struct.pack(
        "<4s6H3I5H2I",
        b"PK\1\2",
        45,
        45,
        0,
        0,
        0,
        0,
        0,
        2**32 - 1,
        2**32 - 1,
        len(name),
        len(extra),
        0,
        0,
        0,
        0,
        2**32 - 1,
    )
    listed = entry_ + name + extra
    at = before + len(local) + len(BODY)
    end64 = struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, 1, 1, len(listed), at)
    locator = struct.pack("<4sIQI", b"PK\6\7", 0, at + len(listed), 1)
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, len(listed), 2**32 - 1, 0)
    tail = local + BODY + listed + end64 + locator + end
    asked: list[int] = []

    def read_at(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return bytes(max(0, before - start))[: stop - start] + tail[max(0, start - before) : max(0, stop - before)]

    place = zip_member.locate(read_at, before + len(tail), MEMBER)
    assert place == zip_member.Place(before + len(local), len(BODY), len(BODY), deflated=False)
    assert sum(asked) < 1 << 19


def test_an_archive_behind_a_redirect(server: FileServer, tmp_path: Path) -> None:
    server.publish("/real", archive())
    fetch(tmp_path, server.publish("/all.zip", b"", *[Act(status=302, headers={"Location": "/real"})] * 9))


# -- gone on with ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_what_is_kept_is_not_asked_for_again(server: FileServer, tmp_path: Path, method: int) -> None:
    """Stopped in the middle, as by Ctrl-C, and gone on with by another call."""
    whole = archive(method=method)
    url = server.publish("/all.zip", whole, etag='"one"')
    half = 200_000

    class Stopping(Notes):
        def reached(self, done: int, total: int) -> None:
            super().reached(done, total)
            if done >= half:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        download(wanted(tmp_path, url), listener=Stopping(len(BODY)), patience=QUICK)
    here = kept_bytes(tmp_path / "net.pth")
    assert 100_000 < here < packed_bytes(whole)
    server.asked.clear()
    fetch(tmp_path, url)
    last = server.asked[-1]
    assert last.range == f"bytes={data_start(whole) + here}-{data_start(whole) + packed_bytes(whole) - 1}"
    assert last.if_range == '"one"'
    assert last.sent == packed_bytes(whole) - here


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_a_transfer_that_breaks_off_or_stalls_is_gone_on_with(server: FileServer, tmp_path: Path, method: int) -> None:
    whole = archive(method=method)
    url = server.publish("/all.zip", whole)
    listing = list_requests(server, tmp_path, url)
    server.pages["/all.zip"].acts.extend([*[Act()] * listing, Act(send=100_000), Act(send=50_000, stall=True)])
    notes = fetch(tmp_path, url)
    assert notes.notes == ["the transfer ended early; trying again", "nothing came for 0.3 s; trying again"]
    starts = [int(each.range.split("=")[1].split("-")[0]) for each in server.asked[-2:] if each.range]
    assert [start - data_start(whole) for start in starts] == [100_000, 150_000]


def list_requests(server: FileServer, tmp_path: Path, url: str) -> int:
    """How many requests it takes to find the file."""
    fetch(tmp_path, url)
    (tmp_path / "net.pth").unlink()
    count = len(server.asked) - 1
    server.asked.clear()
    return count


def test_the_list_of_files_is_asked_for_again_too(server: FileServer, tmp_path: Path) -> None:
    busy = Act(status=503, headers={"Retry-After": "0"}, body=b"")
    url = server.publish("/all.zip", archive(), busy, Act(), Act(send=10), busy)
    notes = fetch(tmp_path, url)
    assert notes.notes == [
        "HTTP 503 Service Unavailable; trying again",
        "the transfer ended early; trying again",
        "HTTP 503 Service Unavailable; trying again",
    ]


def test_what_was_packed_but_not_unpacked_is_not_fetched_again(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The disk is full in the end."""
    whole = archive()
    url = server.publish("/all.zip", whole)
    with monkeypatch.context() as patch:
        patch.setattr(downloads.PartialFile, "append", full_at(packed_bytes(whole)))
        with pytest.raises(OSError, match="No space left"):
            download(wanted(tmp_path, url), patience=QUICK)
    assert names(tmp_path) == ["net.pth.packed.part"], "half of what is unpacked is of no use"
    server.asked.clear()
    fetch(tmp_path, url)
    assert all(each.sent <= 3 * (1 << 16) for each in server.asked), "only the list of files"


def full_at(size: int) -> object:
    genuine = downloads.PartialFile.append
    written = 0

    def append(self: downloads.PartialFile, stream: io.BufferedWriter, chunk: bytes) -> None:
        nonlocal written
        written += len(chunk)
        if written > size + 100_000:
            raise OSError(28, "No space left on device")
        genuine(self, stream, chunk)

    return append


@pytest.mark.parametrize("part", [bytes(100_000), bytes(10_000_000)], ids=["other", "longer"])
@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_a_part_of_something_else_is_thrown_away(server: FileServer, tmp_path: Path, method: int, part: bytes) -> None:
    for name in ("net.pth.part", "net.pth.packed.part"):
        (tmp_path / name).write_bytes(part)
    fetch(tmp_path, server.publish("/all.zip", archive(method=method)))


def test_an_archive_that_changed_on_the_server_is_not_mixed(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/all.zip", archive(), etag='"old"')
    listing = list_requests(server, tmp_path, url)
    server.pages["/all.zip"].acts.extend([*[Act()] * listing, Act(send=100_000), Act(status=404)])
    refused(tmp_path, url, "404", WeightsDownloadError)
    server.publish("/all.zip", archive(comment=b"newer"), etag='"new"')
    notes = fetch(tmp_path, url)
    assert notes.notes == ["the server sent the whole archive, and not the part that was asked for; trying again"]
    assert [each.if_range for each in server.asked[-2:]] == ['"old"', None]


def test_without_a_digest_what_the_check_refuses_is_fetched_anew(server: FileServer, tmp_path: Path) -> None:
    """Neither unpacked nor packed is it kept."""
    file = wanted(tmp_path, server.publish("/all.zip", archive(), etag='"one"'), exact=False, sha256="")

    def check(_path: Path) -> None:
        raise WeightsFormatError("not this")

    with pytest.raises(WeightsCorruptError, match="sent something else: not this"):
        download(file, patience=QUICK, check=check)
    assert names(tmp_path) == []
    assert download(file, patience=QUICK) == hashlib.sha256(BODY).hexdigest()
    assert names(tmp_path) == ["net.pth"]


# -- servers that are not as they should be ----------------------------------------------------------------------------


def test_a_server_without_parts_is_said_to_be_one(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/all.zip", archive(), ranges=False)
    error = refused(tmp_path, url, "this server sends archives only as a whole", WeightsDownloadError)
    assert error.hint == ""
    assert names(tmp_path) == []
    assert server.count("/all.zip") == 1


def test_mirrors_have_the_file_itself(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/all.zip", archive(), ranges=False)
    notes = fetch(tmp_path, url, server.publish("/net.pth", BODY))
    assert "trying the next address" in notes.notes[0]


def test_a_mirror_goes_on_with_what_was_stored_in_the_archive(server: FileServer, tmp_path: Path) -> None:
    whole = archive(method=STORED)
    url = server.publish("/all.zip", whole)
    listing = list_requests(server, tmp_path, url)
    server.pages["/all.zip"].acts.extend([*[Act()] * listing, Act(send=300_000), Act(status=404)])
    fetch(tmp_path, url, server.publish("/net.pth", BODY))
    assert server.asked[-1].range == "bytes=300000-"


def test_what_a_broken_archive_left_goes_when_a_mirror_helped_out(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/all.zip", archive())
    listing = list_requests(server, tmp_path, url)
    server.pages["/all.zip"].acts.extend([*[Act()] * listing, Act(send=100_000), Act(status=404)])
    fetch(tmp_path, url, server.publish("/net.pth", BODY))


@pytest.mark.parametrize(
    "act",
    [
        Act(headers={"Content-Range": "bytes 5-5/999999"}),
        Act(headers={"Content-Range": "bytes 0-0/*"}),
        Act(headers={"Content-Range": None}),
        Act(headers={"Content-Range": "nonsense"}),
    ],
    ids=["start", "no-total", "none", "nonsense"],
)
def test_a_server_that_lies_about_parts_is_left(server: FileServer, tmp_path: Path, act: Act) -> None:
    refused(tmp_path, server.publish("/all.zip", archive(), act), "another part of the archive", WeightsDownloadError)
    assert names(tmp_path) == []


def test_an_archive_that_changes_while_it_is_listed(server: FileServer, tmp_path: Path) -> None:
    wrong = Act(headers={"Content-Range": f"bytes 0-0/{len(archive()) + 100}"})
    refused(tmp_path, server.publish("/all.zip", archive(), wrong), "another part of the archive", WeightsDownloadError)


def test_more_than_was_asked_for_is_not_taken(server: FileServer, tmp_path: Path) -> None:
    """Some servers send from the first byte that was asked for to the end."""
    whole = archive(method=STORED)
    url = server.publish("/all.zip", whole)
    listing = list_requests(server, tmp_path, url)
    start = data_start(whole)
    server.pages["/all.zip"].acts.extend([*[Act()] * listing, Act(body=whole[start:])])
    fetch(tmp_path, url)
    assert len(server.asked) == listing + 1


# -- archives that are not as they should be ---------------------------------------------------------------------------


def test_an_archive_without_the_file(server: FileServer, tmp_path: Path) -> None:
    refused(tmp_path, server.publish("/all.zip", archive(member="other.pth")), f"it holds no {MEMBER}")
    assert names(tmp_path) == []


@pytest.mark.parametrize(
    "body",
    [b"<html>rate limited</html>", bytes(100_000), b"PK\5\6", archive()[:-4_000], archive()[4_000:-60]],
    ids=["page", "zeros", "short", "cut", "no-end"],
)
def test_what_is_no_archive(server: FileServer, tmp_path: Path, body: bytes) -> None:
    refused(tmp_path, server.publish("/all.zip", body), "sent another archive")
    assert names(tmp_path) == []


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_a_file_of_other_bytes(server: FileServer, tmp_path: Path, method: int) -> None:
    other = BODY[:-1] + b"x"
    refused(tmp_path, server.publish("/all.zip", archive(other, method=method)), "sent other bytes than the published")
    assert names(tmp_path) == []


def test_a_file_of_another_size_is_not_even_fetched(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/all.zip", archive(BODY[:-1]))
    refused(tmp_path, url, f"its {MEMBER} has 479999 bytes, the published one 480000")
    assert server.sent() <= 3 * (1 << 16) + 1


@pytest.mark.parametrize("honest", [True, False])
def test_a_bomb_is_not_unpacked(server: FileServer, tmp_path: Path, honest: bool) -> None:
    """200 MB in 200 kB; it may give a size that is right, or the published one."""
    whole = bytearray(archive(bytes(200 << 20)))
    if not honest:
        size = struct.pack("<I", 200 << 20)
        at = -1
        for _ in range(2):
            at = whole.index(size, at + 1)
            whole[at : at + 4] = struct.pack("<I", len(BODY))
    message = "has 209715200 bytes" if honest else "it unpacks to more than 480000 bytes"
    refused(tmp_path, server.publish("/all.zip", bytes(whole)), message)
    assert names(tmp_path) == []


def test_damaged_data(server: FileServer, tmp_path: Path) -> None:
    whole = bytearray(archive())
    at = data_start(bytes(whole)) + 1_000
    whole[at : at + 600] = b"\xff" * 600
    refused(tmp_path, server.publish("/all.zip", bytes(whole)), "sent (something else: what is packed|other bytes)")
    assert names(tmp_path) == []


def changed(at_listing: int, new: bytes, *, local: int | None = None) -> bytes:
    """The archive with bytes of the file's entry in the list of files changed, and of its local header."""
    whole = bytearray(archive())
    name = MEMBER.encode()
    listed = whole.rindex(name) - 46
    whole[listed + at_listing : listed + at_listing + len(new)] = new
    if local is not None:
        header = whole.index(name) - 30
        whole[header + local : header + local + len(new)] = new
    return bytes(whole)


@pytest.mark.parametrize(
    ("whole", "message"),
    [
        (changed(8, struct.pack("<H", 1), local=6), "is encrypted"),
        (changed(10, struct.pack("<H", 12), local=8), r"a method that is not read \(12\)"),
        (changed(10, struct.pack("<H", 0), local=8), "contradicts itself"),
        (changed(20, struct.pack("<I", 2**31)), "contradicts itself"),
        (changed(20, struct.pack("<I", 0)), "contradicts itself"),
        (changed(42, struct.pack("<I", 77)), "is not where its list of files says"),
        (changed(42, struct.pack("<I", 2**31)), "is not where its list of files says"),
    ],
    ids=["encrypted", "method", "stored", "long", "empty", "elsewhere", "outside"],
)
def test_a_list_of_files_that_lies(server: FileServer, tmp_path: Path, whole: bytes, message: str) -> None:
    refused(tmp_path, server.publish("/all.zip", whole), message)
    assert names(tmp_path) == []


def test_a_list_of_files_without_end_is_not_taken_in() -> None:
    """The end of the archive says that a gigabyte of it is its list of files."""
    total = 2 << 30
    end = struct.pack("<4s4H2IH", b"PK\5\6", 0, 0, 1, 1, 1 << 30, total - 22 - (1 << 30), 0)
    asked: list[int] = []

    def read_at(start: int, stop: int) -> bytes:
        asked.append(stop - start)
        return (bytes(stop - start) + end)[-(stop - start) :] if stop == total else bytes(stop - start)

    with pytest.raises(ArchiveError, match="larger than any such list"):
        zip_member.locate(read_at, total, MEMBER)
    assert sum(asked) <= 8 << 20


def test_no_archive_makes_it_fail_otherwise() -> None:
    """Bytes of the list of files and of the end, changed at random."""
    whole = archive(BODY[:2_000])
    first = whole.rindex(b"checkpoints/restoration/first.pth") - 46
    chance = random.Random(7)
    for _ in range(1_500):
        spoilt = bytearray(whole)
        for _ in range(chance.randint(1, 4)):
            spoilt[chance.randrange(first, len(spoilt))] = chance.choice(
                [0, 1, 0x7F, 0x80, 0xFF, chance.randrange(256)]
            )
        data = bytes(spoilt)
        try:
            place = zip_member.locate(lambda start, stop, data=data: data[start:stop], len(data), MEMBER)
            unpacked = sum(map(len, zip_member.extract(io.BytesIO(data), place, 2_000)))
        except ArchiveError:
            continue
        assert place.start + place.packed_bytes <= len(data)
        assert unpacked <= 2_000


def test_unpacking_says_what_is_wrong() -> None:
    engine = zlib.compressobj(9, zlib.DEFLATED, -15)
    packed = engine.compress(BODY) + engine.flush()
    assert b"".join(zip_member.unpack([packed[i : i + 7] for i in range(0, len(packed), 7)], len(BODY))) == BODY
    assert b"".join(zip_member.unpack([packed, b"what comes behind"], len(BODY))) == BODY
    with pytest.raises(ArchiveError, match="ends too early"):
        list(zip_member.unpack([packed[:-9]], len(BODY)))
    with pytest.raises(ArchiveError, match="more than 479999"):
        list(zip_member.unpack([packed], len(BODY) - 1))


# -- models ------------------------------------------------------------------------------------------------------------


@pytest.fixture
def published(server: FileServer, own_folders: Path, monkeypatch: pytest.MonkeyPatch) -> ModelSpec:
    """A model of the catalogue that is published in an archive."""
    body = checkpoint()
    url = server.publish("/all.zip", archive(body, member="inner/small.pth"))
    spec = spec_of(entry("small", body, url))
    file = spec.weights[0]
    spec = replace(spec, weights=(replace(file, origin=replace(file.origin, member="inner/small.pth")),))  # type: ignore[type-var]
    monkeypatch.setitem(models.catalogue(), "small", spec)
    return spec


def test_a_model_is_fetched_out_of_its_archive(published: ModelSpec, own_folders: Path) -> None:
    (order,) = fetching.orders([published])
    assert fetching.fetch(order, patience=QUICK) == own_folders / "small.pth"
    assert names(own_folders) == ["small.pth"]
    assert weights.status(published).state == "installed"
    weights.load_module(published)


def test_without_parts_it_is_said_what_to_do(published: ModelSpec, server: FileServer) -> None:
    server.pages["/all.zip"].ranges = False
    (order,) = fetching.orders([published])
    with pytest.raises(WeightsDownloadError, match="sends archives only as a whole") as caught:
        fetching.fetch(order, patience=QUICK)
    assert caught.value.hint.endswith(
        f"Or get {server.url}/all.zip with a browser, then: photokeep models import all.zip"
    )


def test_how_much_is_kept_is_told(published: ModelSpec, own_folders: Path) -> None:
    own_folders.mkdir()
    (own_folders / "small.pth.packed.part").write_bytes(bytes(1_000))
    assert fetching.orders([published])[0].kept_bytes == 1_000


def as_file(tmp_path: Path, whole: bytes) -> Path:
    path = tmp_path / "all.ZIP"
    path.write_bytes(whole)
    return path


@pytest.mark.parametrize("method", [STORED, DEFLATED], ids=["stored", "deflated"])
def test_an_archive_can_be_imported(published: ModelSpec, tmp_path: Path, own_folders: Path, method: int) -> None:
    counted: list[int] = []
    path = as_file(tmp_path, archive(checkpoint(), method=method, member="inner/small.pth"))
    found = importing.import_file(path, on_bytes=counted.append)
    assert (found.path, found.found_as, found.spec) == (own_folders / "small.pth", "small", published)
    assert sum(counted) == len(checkpoint())
    assert names(own_folders) == ["small.pth"]
    assert weights.verify(published).path == own_folders / "small.pth"
    importing.import_file(path)
    (own_folders / "small.pth").write_bytes(b"mine")
    with pytest.raises(UsageError, match="is there already"):
        importing.import_file(path)
    importing.import_file(path, overwrite=True)
    assert digests.digest(own_folders / "small.pth") == published.weights[0].sha256


@pytest.mark.parametrize(
    ("whole", "kind", "message"),
    [
        (archive(), WeightsFormatError, "it holds no inner/small.pth"),
        (b"no archive", WeightsFormatError, "it is no zip archive"),
        (
            archive(checkpoint(seed=1), member="inner/small.pth"),
            WeightsCorruptError,
            "the file of Small in it has sha256",
        ),
        (
            archive(bytes(10_000_000), member="inner/small.pth"),
            WeightsCorruptError,
            "it holds 10000000 bytes, more than",
        ),
    ],
    ids=["without", "none", "other", "larger"],
)
@pytest.mark.usefixtures("published")
def test_an_archive_that_is_not_the_published_one(
    tmp_path: Path, own_folders: Path, whole: bytes, kind: type[WeightsError], message: str
) -> None:
    with pytest.raises(kind, match=message) as caught:
        importing.import_file(as_file(tmp_path, whole))
    assert caught.value.hint
    assert not own_folders.exists() or names(own_folders) == []


def test_an_archive_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no file"):
        importing.import_file(tmp_path / "all.zip")
