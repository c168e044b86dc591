"""The stage cache on disk: whole entries or none, whatever is killed, damaged, full or shared."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
import time
from contextlib import contextmanager, suppress
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from headless.store import SHORT_BYTES, Record, Store, StoredFile, StoredOutput, short_text
from photokeep_nodes.errors import CacheError
from photokeep_nodes.files import TEMPORARY_PREFIX

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ROOT = Path(__file__).resolve().parents[2]


def sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def entry(*contents: bytes, files: tuple[bytes, ...] = ()) -> tuple[Record, dict[str, bytes]]:
    outputs = tuple(StoredOutput("json", f"digest of {sha(data)[:4]}", sha(data), len(data)) for data in contents)
    stored = tuple(StoredFile(f"photo{i}.png", sha(data), len(data)) for i, data in enumerate(files))
    return Record(outputs, stored, seconds=1.5), {sha(data): data for data in (*contents, *files)}


def key(number: int) -> str:
    return sha(str(number).encode())


def keep(store: Store, number: int, *contents: bytes, used: float | None = None) -> None:
    """Put an entry; ``used`` sets when it was last used, in seconds before now."""
    store.put(key(number), *entry(*contents))
    if used is not None:
        set_used(record_path(store, number), used)


def set_used(path: Path, seconds_ago: float) -> None:
    then = time.time() - seconds_ago
    os.utime(path, (then, then))


def record_path(store: Store, number: int) -> Path:
    return store.root / "records" / key(number)[:2] / f"{key(number)}.json"


def blob_path(store: Store, data: bytes) -> Path:
    return store.root / "blobs" / sha(data)[:2] / sha(data)


def quarantined(store: Store) -> list[str]:
    return sorted(path.name.split(".")[0] for path in (store.root / "quarantine").glob("*"))


@pytest.fixture
def store(tmp_path: Path) -> Store:
    return Store(tmp_path / "stages")


# -- round trips -------------------------------------------------------------------------------------------------------


def test_what_is_put_is_got(store: Store) -> None:
    record, blobs = entry(b"one", b"two", files=(b"a photo",))
    assert store.get(key(1)) is None
    store.put(key(1), record, blobs)
    assert store.get(key(1)) == record
    assert {blob: store.read(blob) for blob in blobs} == blobs
    assert store.get(key(2)) is None
    assert Store(store.root).get(key(1)) == record, "another process sees it as well"


def test_an_entry_without_outputs(store: Store) -> None:
    record, blobs = entry()
    store.put(key(1), record, blobs)
    assert store.get(key(1)) == record


def test_an_entry_is_replaced(store: Store) -> None:
    keep(store, 1, b"old")
    keep(store, 1, b"new")
    found = store.get(key(1))
    assert found is not None
    assert store.read(found.outputs[0].blob) == b"new"


def test_equal_outputs_are_stored_once(store: Store) -> None:
    for number in range(5):
        keep(store, number, b"x" * 10_000)
    assert store.size_bytes() < 20_000


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_only_the_user_can_look_at_the_photos(tmp_path: Path) -> None:
    before = os.umask(0o002)
    try:
        store = Store(tmp_path / "made" / "stages")
        keep(store, 1, b"a face")
        store.remember_parts("s", {"1 Node": {"a": "b"}})
        shared = tmp_path / "shared"
        shared.mkdir(mode=0o755)
        keep(Store(shared), 1, b"a face")
    finally:
        os.umask(before)
    assert stat.S_IMODE(store.root.stat().st_mode) == 0o700
    for path in (*store.root.rglob("*"), *shared.rglob("*")):
        if path.is_file():
            assert stat.S_IMODE(path.stat().st_mode) == 0o600


# -- damage ------------------------------------------------------------------------------------------------------------


def test_a_record_outlives_its_blob(store: Store) -> None:
    keep(store, 1, b"one", b"two")
    blob_path(store, b"two").unlink()
    assert store.get(key(1)) is not None, "its digests are enough for what need not run"
    assert not store.has(sha(b"two"))
    with pytest.raises(CacheError, match="no longer there"):
        store.read(sha(b"two"))
    keep(store, 1, b"one", b"two")
    assert store.read(sha(b"two")) == b"two"


@pytest.mark.parametrize("damaged", [b"", b"on", b"one more"])
def test_a_blob_of_another_length_is_set_aside(store: Store, damaged: bytes) -> None:
    keep(store, 1, b"one")
    blob_path(store, b"one").write_bytes(damaged)
    with pytest.raises(CacheError, match="damaged"):
        store.read(sha(b"one"))
    assert quarantined(store) == [sha(b"one")]
    keep(store, 1, b"one")
    assert store.get(key(1)) is not None
    assert store.read(sha(b"one")) == b"one"


def test_a_flipped_bit_is_seen_when_it_is_read(store: Store) -> None:
    keep(store, 1, b"one")
    blob_path(store, b"one").write_bytes(b"ond")
    with pytest.raises(CacheError, match="damaged"):
        store.read(sha(b"one"))
    assert quarantined(store) == [sha(b"one")]
    with pytest.raises(CacheError, match="no longer there"):
        store.read(sha(b"one"))
    keep(store, 1, b"one")
    assert store.read(sha(b"one")) == b"one"


GOOD = json.loads(json.dumps(asdict(entry(b"one", files=(b"f",))[0])))


def with_output(**changes: Any) -> dict[str, Any]:
    return {**GOOD, "outputs": [{**GOOD["outputs"][0], **changes}]}


def test_records_of_earlier_versions_are_read(store):
    path = store.root / "records" / "ab" / f"{'ab' * 32}.json"
    path.parent.mkdir(parents=True)
    path.write_text(json.dumps({name: value for name, value in GOOD.items() if name != "peak_bytes"}))
    found = store.get("ab" * 32)
    assert found is not None
    assert found.peak_bytes == 0


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"{",
        b"\xff",
        b"[]",
        b"null",
        b"3",
        b"{}",
        b"[" * 100_000,
        json.dumps({**GOOD, "outputs": 3}).encode(),
        json.dumps({**GOOD, "outputs": [3]}).encode(),
        json.dumps({**GOOD, "outputs": None}).encode(),
        json.dumps({**GOOD, "seconds": "soon"}).encode(),
        json.dumps({**GOOD, "peak_bytes": float("inf")}).encode(),
        json.dumps({**GOOD, "files": [{"name": 1, "blob": sha(b"f"), "size_bytes": 1}]}).encode(),
        json.dumps(with_output(kind="pickle")).encode(),
        json.dumps(with_output(kind=["json"])).encode(),
        json.dumps(with_output(digest=5)).encode(),
        json.dumps(with_output(blob="../../../../etc/passwd")).encode(),
        json.dumps(with_output(blob=5)).encode(),
        json.dumps(with_output(size_bytes="3")).encode(),
        json.dumps(with_output(size_bytes=True)).encode(),
        json.dumps(with_output(more=1)).encode(),
    ],
    ids=lambda content: repr(content[-30:]),
)
def test_a_damaged_record_is_set_aside(store: Store, content: bytes) -> None:
    keep(store, 1, b"one")
    record_path(store, 1).write_bytes(content)
    assert store.get(key(1)) is None
    assert quarantined(store) == [key(1)]
    assert not record_path(store, 1).exists()
    keep(store, 1, b"one")
    assert store.get(key(1)) is not None


def test_the_good_record_of_these_is_read(store: Store) -> None:
    store.put(key(1), *entry(b"one", files=(b"f",)))
    record_path(store, 1).write_text(json.dumps(GOOD))
    assert store.get(key(1)) is not None


# -- kills and other processes -----------------------------------------------------------------------------------------

WRITER = """
import collections.abc, hashlib, pathlib, sys, time
from headless.store import SHORT_BYTES, Record, Store, StoredFile, StoredOutput, short_text

def sha(data):
    return hashlib.sha256(data).hexdigest()

class Slow(collections.abc.Mapping):
    '''Hands out its blobs one by one, and hangs after {after} of them.'''
    def __init__(self, blobs):
        self.blobs = blobs
    def __getitem__(self, key):
        return self.blobs[key]
    def __len__(self):
        return len(self.blobs)
    def __iter__(self):
        for count, blob in enumerate([*self.blobs, None]):
            if count == {after}:
                print("now", flush=True)
                time.sleep(60)
            if blob is not None:
                yield blob

contents = [b"one", b"two", b"three"]
record = Record(tuple(StoredOutput("json", "d", sha(data), len(data)) for data in contents))
Store(pathlib.Path({root!r})).put({key!r}, record, Slow({{sha(data): data for data in contents}}))
"""


@contextmanager
def spawned(code: str) -> Iterator[subprocess.Popen[str]]:
    """A process that has said it is ready; killed at the end of the block."""
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            assert process.stdout.readline() == "now\n"
            yield process
        finally:
            process.kill()


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
@pytest.mark.parametrize("after", [0, 1, 3])
def test_a_writer_killed_before_the_record_leaves_no_half_entry(store: Store, after: int) -> None:
    with spawned(WRITER.format(after=after, root=str(store.root), key=key(1))) as writer:
        pass
    assert writer.returncode == -signal.SIGKILL
    assert len([path for path in (store.root / "blobs").rglob("*") if path.is_file()]) == after
    assert store.get(key(1)) is None
    keep(store, 1, b"one", b"two", b"three")
    assert store.get(key(1)) is not None


BUSY = """
import hashlib, itertools, pathlib
from headless.store import SHORT_BYTES, Record, Store, StoredFile, StoredOutput, short_text

store = Store(pathlib.Path({root!r}))
print("now", flush=True)
for number in itertools.count():
    contents = [bytes([number % 256, each]) * 30_000 for each in range(3)]
    blobs = {{hashlib.sha256(data).hexdigest(): data for data in contents}}
    record = Record(tuple(StoredOutput("json", "d", blob, len(data)) for blob, data in blobs.items()))
    store.put(hashlib.sha256(str(number % {keys}).encode()).hexdigest(), record, blobs)
"""


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_whatever_a_killed_writer_left_is_whole(store: Store) -> None:
    for delay in (0.02, 0.05, 0.11):
        with spawned(BUSY.format(root=str(store.root), keys=1000)) as writer:
            while writer.poll() is None and not list((store.root / "records").rglob("*.json")):
                time.sleep(0.005)
            time.sleep(delay)
    found = [store.get(path.stem) for path in (store.root / "records").rglob("*.json")]
    assert found
    for record in found:
        assert record is not None
        for blob, size in record.blobs():
            assert len(store.read(blob)) == size
    assert quarantined(store) == []


@pytest.mark.skipif(os.name == "nt", reason="SIGKILL")
def test_two_processes_and_an_eviction_on_one_folder(store: Store) -> None:
    """Readers get whole entries or none, never an error that is not a CacheError."""
    store.limit_bytes = 600_000
    seen = 0
    code = BUSY.format(root=str(store.root), keys=4)
    with spawned(code) as one, spawned(code) as two:
        for turn in range(5000):
            for number in range(4):
                record = store.get(key(number))
                for blob, size in record.blobs() if record is not None else ():
                    with suppress(CacheError):  # evicted in between
                        assert len(store.read(blob)) == size
                        seen += 1
            store.evict()
            store.size_bytes()
            if turn >= 50 and seen:
                break
        assert one.poll() is None
        assert two.poll() is None
    assert seen
    assert quarantined(store) == []


# -- folders that cannot be used ---------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    for root in (tmp_path / "file", tmp_path / "file" / "stages"):
        with pytest.raises(CacheError, match="cannot be made") as caught:
            Store(root)
        assert "--cache-dir" in caught.value.hint
        assert "--no-cache" in caught.value.hint


@pytest.mark.parametrize("name", ["records", "blobs"])
def test_a_folder_that_cannot_be_written(store: Store, name: str) -> None:
    """A file in the way, because root may write everywhere."""
    (store.root / name).write_text("in the way")
    with pytest.raises(CacheError, match="cannot be written") as caught:
        keep(store, 1, b"one")
    assert "--cache-dir" in caught.value.hint
    assert store.get(key(1)) is None


def test_a_folder_that_cannot_keep_reasons_does_its_work(store: Store) -> None:
    (store.root / "stages").write_text("in the way")
    (store.root / "quarantine").write_text("in the way")
    store.remember_parts("run", {"1 Node": {"a": "b"}})
    assert store.last_parts("run") == {}
    keep(store, 1, b"one")
    record_path(store, 1).write_bytes(b"{")
    assert store.get(key(1)) is None


# -- reasons -----------------------------------------------------------------------------------------------------------


def test_parts_are_remembered_by_any_name(store: Store) -> None:
    name = "/some/where/über.json\n/photo.jpg" + "x" * 500
    assert store.last_parts(name) == {}
    store.remember_parts(name, {"12 Upscale": {"node": "A", "input": {"scale": "s"}}})
    assert store.last_parts(name) == {"12 Upscale": {"node": "A", "input": {"scale": "s"}}}
    store.remember_parts(name, {"12 Upscale": {"node": "B"}})
    assert store.last_parts(name) == {"12 Upscale": {"node": "B"}}
    assert store.last_parts(name + "y") == {}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"3", b"null", b"\xff", b"[" * 100_000, b'{"1 Node": 3}'])
def test_damaged_reasons_are_none(store: Store, content: bytes) -> None:
    store.remember_parts("run", {"1 Node": {"a": "b"}})
    (path,) = (store.root / "stages").iterdir()
    path.write_bytes(content)
    assert store.last_parts("run") == {}


# -- short outputs -----------------------------------------------------------------------------------------------------


def short(store: Store, data: bytes = b'"a report"') -> Record:
    output = StoredOutput("json", "d", hashlib.sha256(data).hexdigest(), len(data), short_text(data))
    store.put(key(1), Record((output,)), {})
    found = store.get(key(1))
    assert found is not None
    return found


def test_a_short_text_stands_in_its_record_and_needs_no_file(store: Store) -> None:
    found = short(store)
    assert store.value(found.outputs[0]) == b'"a report"'
    assert list(found.blobs()) == []
    assert [path.name for path in store.root.rglob("*") if path.is_file()] == [record_path(store, 1).name]


def test_what_is_long_or_no_text_is_a_file_of_its_own() -> None:
    assert short_text(b"x" * SHORT_BYTES) == "x" * SHORT_BYTES
    assert short_text(b"x" * (SHORT_BYTES + 1)) is None
    assert short_text(b"\xff\x00") is None


def test_a_short_text_that_was_changed_is_not_used(store: Store) -> None:
    short(store)
    path = record_path(store, 1)
    path.write_bytes(path.read_bytes().replace(b"a report", b"a lie..."))
    found = store.get(key(1))
    assert found is not None
    with pytest.raises(CacheError, match="damaged"):
        store.value(found.outputs[0])


def test_a_record_in_which_stands_no_text_is_set_aside(store: Store) -> None:
    short(store)
    raw = json.loads(record_path(store, 1).read_bytes())
    raw["outputs"][0]["text"] = 3
    record_path(store, 1).write_text(json.dumps(raw))
    assert store.get(key(1)) is None


# -- eviction ----------------------------------------------------------------------------------------------------------


def alive(store: Store, numbers: range | list[int]) -> list[int]:
    """Numbers of the entries that are there with all their blobs."""
    records = {number: store.get(key(number)) for number in numbers}
    return [n for n, record in records.items() if record and all(store.has(blob) for blob, _ in record.blobs())]


def content(number: int, size: int = 10_000) -> bytes:
    return bytes([number]) * size


def test_below_the_limit_nothing_is_deleted(store: Store) -> None:
    for number in range(5):
        keep(store, number, content(number))
    assert store.evict() == 0
    assert alive(store, range(5)) == [0, 1, 2, 3, 4]


def test_the_least_recently_used_go_first(store: Store) -> None:
    for number in range(10):
        keep(store, number, content(number), used=1000 - number)
    assert store.get(key(0)) is not None  # used just now
    store.limit_bytes = 60_000
    before = store.size_bytes()
    freed = store.evict()
    assert store.size_bytes() == before - freed <= 60_000
    left = alive(store, range(10))
    assert left[0] == 0
    assert left[1:] == list(range(10 - len(left) + 1, 10))
    assert 3 <= len(left) <= 5
    assert store.evict() == 0


def test_a_blob_that_others_need_stays(store: Store) -> None:
    shared = content(99, 20_000)
    for number in range(6):
        keep(store, number, shared, content(number), used=1000 - number)
    store.limit_bytes = 50_000
    store.evict()
    left = alive(store, range(6))
    assert left
    assert left[-1] == 5
    assert store.size_bytes() <= 50_000
    store.limit_bytes = 0
    store.evict()
    assert alive(store, range(6)) == []
    assert store.size_bytes() == 0


def test_what_is_set_aside_goes_before_anything_good(store: Store) -> None:
    keep(store, 1, content(1))
    keep(store, 2, content(2, 50_000))
    blob_path(store, content(2, 50_000)).write_bytes(content(2, 49_999))
    with pytest.raises(CacheError, match="damaged"):
        store.read(sha(content(2, 50_000)))
    store.limit_bytes = 40_000
    store.evict()
    assert alive(store, [1]) == [1]
    assert quarantined(store) == []


def test_what_belongs_to_no_record_goes_once_it_is_old(store: Store) -> None:
    keep(store, 1, content(1))
    old, young = blob_path(store, content(2)), blob_path(store, content(3))
    torn = store.root / "blobs" / f"{TEMPORARY_PREFIX}abc"
    for path in (old, young, torn):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(2) if path != young else content(3))
    set_used(old, 7200)
    set_used(torn, 7200)
    store.limit_bytes = 30_000
    store.evict()
    assert not old.exists()
    assert not torn.exists()
    assert young.exists(), "its record may be on its way"
    assert alive(store, [1]) == [1]


def test_a_blob_that_is_wanted_again_is_young_again(store: Store) -> None:
    keep(store, 1, content(1))
    set_used(blob_path(store, content(1)), 7200)
    record_path(store, 1).unlink()
    keep(store, 2, content(1))
    assert time.time() - blob_path(store, content(1)).stat().st_mtime < 600


def test_damaged_records_are_evicted_like_others(store: Store) -> None:
    for number in range(5):
        keep(store, number, content(number), used=1000 - number)
    record_path(store, 0).write_bytes(b"{")
    set_used(record_path(store, 0), 5000)
    store.limit_bytes = 1
    store.evict()
    assert not record_path(store, 0).exists()
    assert store.size_bytes() == 10_000  # its blob is too young to be called forgotten


def test_reasons_go_with_what_they_explain(store: Store) -> None:
    for number in range(5):
        keep(store, number, content(number), used=1000 - 100 * number)
        store.remember_parts(f"run {number}", {"1 Node": {"n": str(number)}})
    for path in (store.root / "stages").iterdir():
        number = int(json.loads(path.read_text())["1 Node"]["n"])
        set_used(path, 1000 - 100 * number)
    assert store.last_parts("run 0")  # asked for just now
    store.limit_bytes = 800
    store.evict()
    left = [number for number in range(5) if store.get(key(number)) is not None]
    assert left
    assert 3 <= left[0] <= 4
    assert store.last_parts("run 0")
    assert not store.last_parts("run 1")
    assert store.last_parts("run 4")


def test_an_empty_store(tmp_path: Path) -> None:
    store = Store(tmp_path / "s", limit_bytes=1)
    assert store.size_bytes() == 0
    assert store.evict() == 0


@pytest.mark.parametrize("lost", [Path.unlink, lambda path: path.write_bytes(b"")])
def test_a_file_that_vanishes_during_eviction(store: Store, lost: Callable[[Path], object]) -> None:
    for number in range(4):
        keep(store, number, content(number), used=1000 - number)
    lost(blob_path(store, content(0)))
    store.limit_bytes = 20_000
    assert store.evict() > 0
    assert store.size_bytes() <= 20_000


def test_records_say_when_they_were_made() -> None:
    record, _ = entry(b"one")
    assert abs(record.created - time.time()) < 600
    assert replace(record, files=()).files == ()
