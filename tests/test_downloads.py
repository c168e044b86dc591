"""Downloads against servers that stall, cut short, lie, and send something else."""

from __future__ import annotations

import hashlib
import os
import random
from typing import TYPE_CHECKING

import pytest
import requests
from file_server import Act, FileServer, serving
from transfer_notes import Notes

from photokeep_nodes.downloads import Patience, Wanted, download
from photokeep_nodes.errors import UsageError, WeightsCorruptError, WeightsDownloadError, WeightsFormatError
from photokeep_nodes.partial_file import kept_bytes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BODY = random.Random(3).randbytes(300_000)
HALF = 150_000
OTHER = random.Random(4).randbytes(300_000)
QUICK = Patience(stall_s=0.3, attempts=2, backoff_s=0.0)


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serving() as files:
        yield files


def wanted(tmp_path: Path, *urls: str, sha256: str | None = None, exact: bool = True) -> Wanted:
    digest = hashlib.sha256(BODY).hexdigest() if sha256 is None else sha256
    return Wanted(tmp_path / "net.pth", urls, len(BODY), digest, exact=exact)


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


def leave_part(tmp_path: Path, data: bytes) -> None:
    (tmp_path / "net.pth.part").write_bytes(data)


# -- a server that does what it should ---------------------------------------------------------------------------------


def test_one_request_brings_the_file(server: FileServer, tmp_path: Path) -> None:
    notes = fetch(tmp_path, server.publish("/net", BODY))
    assert notes.notes == []
    assert notes.steps[-1] == len(BODY)
    assert [(each.range, each.sent) for each in server.asked] == [(None, len(BODY))]


def test_a_redirect_is_followed(server: FileServer, tmp_path: Path) -> None:
    server.publish("/real", BODY)
    fetch(tmp_path, server.publish("/net", b"", Act(status=302, headers={"Location": "/real"})))
    assert [each.path for each in server.asked] == ["/net", "/real"]


def test_a_circle_of_redirects_ends(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/net", b"", *[Act(status=302, headers={"Location": "/net"})] * 200)
    with pytest.raises(WeightsDownloadError, match="redirects"):
        download(wanted(tmp_path, url), patience=QUICK)
    assert names(tmp_path) == []
    assert len(server.asked) == 31, "it is followed once"


# -- gone on with ------------------------------------------------------------------------------------------------------


def test_what_is_kept_is_not_asked_for_again(server: FileServer, tmp_path: Path) -> None:
    leave_part(tmp_path, BODY[:HALF])
    assert kept_bytes(tmp_path / "net.pth") == HALF
    fetch(tmp_path, server.publish("/net", BODY))
    assert [(each.range, each.sent) for each in server.asked] == [(f"bytes={HALF}-", len(BODY) - HALF)]


def test_a_whole_part_only_needs_its_name(server: FileServer, tmp_path: Path) -> None:
    leave_part(tmp_path, BODY)
    fetch(tmp_path, server.publish("/net", BODY))
    assert server.asked == []


@pytest.mark.parametrize("part", [OTHER, OTHER[:HALF], BODY + b"more", b""], ids=["whole", "half", "longer", "empty"])
def test_a_part_of_something_else_is_thrown_away(server: FileServer, tmp_path: Path, part: bytes) -> None:
    leave_part(tmp_path, part)
    fetch(tmp_path, server.publish("/net", BODY))
    assert server.asked[-1].range is None


def test_a_server_without_ranges_begins_anew(server: FileServer, tmp_path: Path) -> None:
    leave_part(tmp_path, BODY[:HALF])
    fetch(tmp_path, server.publish("/net", BODY, ranges=False))
    assert [each.range for each in server.asked] == [f"bytes={HALF}-"]


@pytest.mark.parametrize(
    "act",
    [
        Act(headers={"Content-Range": "bytes 0-299999/300000"}),
        Act(headers={"Content-Range": "bytes 150000-299999/999999"}),
        Act(headers={"Content-Range": "nonsense"}),
        Act(headers={"Content-Range": None}),
        Act(status=416, body=b""),
    ],
    ids=["start", "total", "nonsense", "none", "416"],
)
def test_a_part_that_was_not_asked_for_is_not_used(server: FileServer, tmp_path: Path, act: Act) -> None:
    leave_part(tmp_path, BODY[:HALF])
    notes = fetch(tmp_path, server.publish("/net", BODY, act))
    assert [each.range for each in server.asked] == [f"bytes={HALF}-", None]
    assert "beginning anew" in notes.notes[0]


def test_a_part_nobody_asked_for_is_no_file(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/net", BODY, Act(status=206))
    with pytest.raises(WeightsDownloadError, match="HTTP 206"):
        download(wanted(tmp_path, url), patience=QUICK)


def test_a_file_that_changed_on_the_server_is_not_mixed(server: FileServer, tmp_path: Path) -> None:
    """The server is told which version the kept half is of, and answers with the whole of the new one."""
    url = server.publish("/net", OTHER, Act(send=HALF), Act(status=404), etag='"old"')
    with pytest.raises(WeightsDownloadError, match="404"):
        download(wanted(tmp_path, url), patience=QUICK)
    server.publish("/net", BODY, etag='"new"')
    fetch(tmp_path, url)
    assert (server.asked[-1].range, server.asked[-1].if_range) == (f"bytes={HALF}-", '"old"')


@pytest.mark.parametrize("cut", [Act(send=HALF), Act(send=HALF, headers={"Content-Length": None})])
def test_a_transfer_that_breaks_off_is_gone_on_with(server: FileServer, tmp_path: Path, cut: Act) -> None:
    notes = fetch(tmp_path, server.publish("/net", BODY, cut))
    assert [each.range for each in server.asked] == [None, f"bytes={HALF}-"]
    assert notes.notes == ["the transfer ended early; trying again"]
    assert server.sent() == len(BODY)


def test_a_server_that_stalls_is_asked_again(server: FileServer, tmp_path: Path) -> None:
    notes = fetch(tmp_path, server.publish("/net", BODY, Act(send=HALF, stall=True)))
    assert notes.notes == ["nothing came for 0.3 s; trying again"]
    assert [each.range for each in server.asked] == [None, f"bytes={HALF}-"]


def test_a_server_that_always_stalls_is_given_up_and_its_bytes_kept(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/net", BODY, *[Act(send=50_000, stall=True)] * 9)
    with pytest.raises(WeightsDownloadError, match=r"nothing came for 0\.3 s") as caught:
        download(wanted(tmp_path, url), patience=QUICK)
    assert names(tmp_path) == ["net.pth.part"]
    assert kept_bytes(tmp_path / "net.pth") == caught.value.context["kept_bytes"] == 150_000
    assert "0.1 MB are kept" in caught.value.hint or "0.2 MB are kept" in caught.value.hint
    assert server.count("/net") == 1 + QUICK.attempts


def test_a_server_that_only_drips_stalls_too(server: FileServer, tmp_path: Path) -> None:
    notes = fetch(tmp_path, server.publish("/drip", BODY, Act(drip_s=0.02)), server.publish("/mirror", BODY))
    assert "next to nothing came for 0.3 s; trying again" in notes.notes


def chunked(body: bytes) -> bytes:
    return b"".join(
        b"%x\r\n%b\r\n" % (len(part), part) for part in (body[:70_000], body[70_000:HALF], body[HALF:], b"")
    )


@pytest.mark.parametrize("cut", [None, 100_000])
def test_a_body_that_comes_in_chunks(server: FileServer, tmp_path: Path, cut: int | None) -> None:
    act = Act(body=chunked(BODY), headers={"Content-Length": None, "Transfer-Encoding": "chunked"}, send=cut)
    fetch(tmp_path, server.publish("/net", BODY, act))
    assert len(server.asked) == (1 if cut is None else 2)


def test_encryption_is_not_given_up(server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    url = server.publish("/net", BODY)
    genuine = requests.Session.get
    monkeypatch.setattr(requests.Session, "get", lambda self, _url, **options: genuine(self, url, **options))
    with pytest.raises(WeightsDownloadError, match="leads to an address without encryption"):
        download(wanted(tmp_path, "https://example.org/net"), patience=QUICK)
    assert names(tmp_path) == []


def test_attempts_that_get_on_are_not_counted(server: FileServer, tmp_path: Path) -> None:
    body = random.Random(5).randbytes(6 << 20)
    url = server.publish("/net", body, *[Act(send=(1 << 20) + 5)] * 5)
    file = Wanted(tmp_path / "net.pth", (url,), len(body), hashlib.sha256(body).hexdigest())
    download(file, patience=QUICK)
    assert file.target.read_bytes() == body
    assert server.count("/net") == 6


@pytest.mark.parametrize("ranges", [True, False])
def test_a_server_that_is_wrong_in_every_way_is_left_in_the_end(
    server: FileServer, tmp_path: Path, ranges: bool
) -> None:
    """It gets on each time, and what it sends never fits together."""
    body = random.Random(5).randbytes(6 << 20)
    whole = {"Content-Range": f"bytes 0-{len(body) - 1}/{len(body)}"} if ranges else {}
    url = server.publish("/net", body, *[Act(send=3 << 20, headers=dict(whole))] * 60, ranges=ranges)
    file = Wanted(tmp_path / "net.pth", (url,), len(body), hashlib.sha256(b"other").hexdigest())
    with pytest.raises((WeightsDownloadError, WeightsCorruptError)):
        download(file, patience=QUICK)
    assert server.count("/net") < 20


# -- wrong bytes -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("act", "message"),
    [
        (Act(body=OTHER), "sent other bytes than the published file"),
        (Act(body=OTHER, headers={"Content-Length": None}), "sent other bytes than the published file"),
        (Act(body=b"<html>rate limited</html>"), "sent other bytes: 25, the published file has 300000"),
        (Act(body=BODY * 2), "sent other bytes: 600000"),
        (Act(body=BODY * 2, headers={"Content-Length": None}), "sent more than 300000 bytes"),
        (Act(headers={"Content-Length": "7"}), "sent other bytes: 7"),
    ],
    ids=["other", "other-unannounced", "page", "longer", "longer-unannounced", "lie"],
)
def test_other_bytes_are_not_kept(server: FileServer, tmp_path: Path, act: Act, message: str) -> None:
    with pytest.raises(WeightsCorruptError, match=message):
        download(wanted(tmp_path, server.publish("/net", BODY, act)), patience=QUICK)
    assert names(tmp_path) == []
    assert server.count("/net") == 1


def test_more_than_was_announced_is_not_read(server: FileServer, tmp_path: Path) -> None:
    fetch(tmp_path, server.publish("/net", BODY, Act(body=BODY + b"more", headers={"Content-Length": "300000"})))


def test_a_server_that_does_not_stop_is_left(server: FileServer, tmp_path: Path) -> None:
    """It would fill the disk."""
    endless = b"x" * (64 << 20)
    url = server.publish("/net", endless, Act(headers={"Content-Length": None}))
    with pytest.raises(WeightsCorruptError, match="more than"):
        download(wanted(tmp_path, url), patience=QUICK)
    assert names(tmp_path) == []
    assert server.sent() < len(endless)


def test_an_error_page_does_not_cost_what_is_kept(server: FileServer, tmp_path: Path) -> None:
    leave_part(tmp_path, BODY[:HALF])
    url = server.publish("/net", BODY, Act(status=200, body=b"<html>", headers={"Content-Range": None}), ranges=False)
    with pytest.raises(WeightsCorruptError):
        download(wanted(tmp_path, url), patience=QUICK)
    assert kept_bytes(tmp_path / "net.pth") == HALF


# -- mirrors -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "act", [Act(status=404), Act(status=403), Act(body=OTHER), Act(body=b"<html>")], ids=["404", "403", "other", "page"]
)
def test_a_mirror_helps_out(server: FileServer, tmp_path: Path, act: Act) -> None:
    first, second = server.publish("/net", BODY, act), server.publish("/mirror", BODY)
    notes = fetch(tmp_path, first, second)
    assert "trying the next address" in notes.notes[0]
    assert [each.path for each in server.asked] == ["/net", "/mirror"]


def test_a_mirror_goes_on_where_the_publisher_stopped(server: FileServer, tmp_path: Path) -> None:
    stalls = [Act(send=HALF, stall=True), *[Act(send=0, stall=True)] * 2]
    first = server.publish("/net", BODY, *stalls, etag='"publisher"')
    fetch(tmp_path, first, server.publish("/mirror", BODY, etag='"mirror"'))
    assert (server.asked[-1].range, server.asked[-1].if_range) == (f"bytes={HALF}-", None)
    assert server.sent() == len(BODY)


def test_a_half_that_was_wrong_is_fetched_anew_from_the_next(server: FileServer, tmp_path: Path) -> None:
    first = server.publish("/net", OTHER, Act(send=HALF), Act(status=404))
    fetch(tmp_path, first, server.publish("/mirror", BODY))
    assert [each.range for each in server.asked if each.path == "/mirror"] == [f"bytes={HALF}-", None]


def test_every_address_is_told_when_none_works(server: FileServer, tmp_path: Path) -> None:
    first, second = server.publish("/net", BODY, Act(status=404)), server.publish("/mirror", BODY, Act(body=OTHER))
    with pytest.raises(WeightsDownloadError) as caught:
        download(wanted(tmp_path, first, second, "http://127.0.0.1:9/net", "nonsense"), patience=QUICK)
    lines = caught.value.message.splitlines()
    assert [line.split(": ")[0] for line in lines] == [first, second, "http://127.0.0.1:9/net", "nonsense"]
    for text in ("HTTP 404", "other bytes", "no connection: [Errno", "no connection: Invalid URL 'nonsense'"):
        assert text in caught.value.message
    assert names(tmp_path) == []


# -- servers that are busy ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", [429, 500, 502, 503, 504])
def test_a_busy_server_is_asked_again(server: FileServer, tmp_path: Path, status: int) -> None:
    acts = [Act(status=status, headers={"Retry-After": "0"}, body=b""), Act(status=status, body=b"")]
    notes = fetch(tmp_path, server.publish("/net", BODY, *acts))
    assert len(notes.notes) == 2
    assert f"HTTP {status}" in notes.notes[0]


def test_how_long_to_wait_is_the_servers_to_say(
    server: FileServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []
    monkeypatch.setattr("urllib3.util.retry.time.sleep", slept.append)
    fetch(tmp_path, server.publish("/net", BODY, Act(status=429, headers={"Retry-After": "7"}, body=b"")))
    assert slept == [7]
    url = server.publish("/later", BODY, Act(status=429, headers={"Retry-After": "7200"}, body=b""))
    with pytest.raises(WeightsDownloadError, match=r"HTTP 429.*come back in 7200 s"):
        download(wanted(tmp_path, url), patience=QUICK)
    assert slept == [7]


def test_a_server_that_stays_busy_is_given_up(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/net", BODY, *[Act(status=503, body=b"")] * 9)
    with pytest.raises(WeightsDownloadError, match="HTTP 503"):
        download(wanted(tmp_path, url), patience=QUICK)
    assert server.count("/net") == 1 + QUICK.attempts


@pytest.mark.parametrize("status", [401, 403, 404, 410])
def test_a_file_that_is_not_there_is_not_asked_for_twice(server: FileServer, tmp_path: Path, status: int) -> None:
    url = server.publish("/net", BODY, Act(status=status))
    with pytest.raises(WeightsDownloadError, match=f"HTTP {status}"):
        download(wanted(tmp_path, url), patience=QUICK)
    assert server.count("/net") == 1


# -- no published digest -----------------------------------------------------------------------------------------------


def test_without_a_digest_the_size_is_only_about_right(server: FileServer, tmp_path: Path) -> None:
    file = Wanted(tmp_path / "net.pth", (server.publish("/net", BODY),), 290_000, "", exact=False)
    assert download(file, patience=QUICK) == hashlib.sha256(BODY).hexdigest()
    for length in ("900000000", None):
        url = server.publish("/net", b"x" * (4 << 20), Act(headers={"Content-Length": length}))
        file = Wanted(tmp_path / "other.pth", (url,), 290_000, "", exact=False)
        with pytest.raises(WeightsCorruptError, match="sent"):
            download(file, patience=QUICK)
    assert names(tmp_path) == ["net.pth"]


def test_without_a_digest_halves_are_joined_only_if_the_server_vouches(server: FileServer, tmp_path: Path) -> None:
    url = server.publish("/net", BODY, Act(send=HALF), etag='"one"')
    fetch(tmp_path, url, sha256="", exact=False)
    assert (server.asked[-1].range, server.asked[-1].if_range) == (f"bytes={HALF}-", '"one"')
    (tmp_path / "net.pth").unlink()
    for etag in ("", 'W/"weak"'):
        fetch(tmp_path, server.publish("/net", BODY, Act(send=HALF), etag=etag), sha256="", exact=False)
        assert server.asked[-1].range is None
        (tmp_path / "net.pth").unlink()


def test_what_the_check_refuses_is_not_kept(server: FileServer, tmp_path: Path) -> None:
    seen: list[bytes] = []

    def check(path: Path) -> None:
        seen.append(path.read_bytes())
        raise WeightsFormatError("not this")

    with pytest.raises(WeightsCorruptError, match="sent something else: not this"):
        download(wanted(tmp_path, server.publish("/net", BODY)), patience=QUICK, check=check)
    assert seen == [BODY]
    assert names(tmp_path) == []


# -- the disk ----------------------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="needs a folder that cannot be written")
def test_a_folder_that_cannot_be_written(server: FileServer, tmp_path: Path) -> None:
    folder = tmp_path / "locked"
    folder.mkdir(mode=0o500)
    with pytest.raises(OSError, match="denied"):
        download(Wanted(folder / "a", (server.publish("/net", BODY),), 1, "", exact=False), patience=QUICK)


def test_the_patience_is_a_setting(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Patience.from_environment().stall_s == 30
    monkeypatch.setenv("PHOTOKEEP_DOWNLOAD_STALL", "0.5")
    assert Patience.from_environment().stall_s == 0.5
    for text in ("soon", "0", "-1", "nan", "inf"):
        monkeypatch.setenv("PHOTOKEEP_DOWNLOAD_STALL", text)
        with pytest.raises(UsageError, match="PHOTOKEEP_DOWNLOAD_STALL"):
            Patience.from_environment()
