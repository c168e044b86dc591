"""Writes that are whole or not at all."""

from __future__ import annotations

import hashlib
import os
import stat
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from photokeep_nodes.files import TEMPORARY_PREFIX, replacing, sha256_of, write_atomically

ROOT = Path(__file__).resolve().parents[1]


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


@pytest.mark.parametrize("size", [0, 1, (1 << 20) - 1, 1 << 20, (1 << 20) + 1])
def test_the_digest_is_of_every_byte(tmp_path: Path, size: int) -> None:
    data = os.urandom(size)
    (tmp_path / "a").write_bytes(data)
    assert sha256_of(tmp_path / "a") == hashlib.sha256(data).hexdigest()


def test_the_digest_of_nothing_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        sha256_of(tmp_path / "a")


def test_a_file_is_made_with_its_folders_and_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "c.bin"
    write_atomically(path, b"one")
    assert path.read_bytes() == b"one"
    write_atomically(path, b"two")
    assert path.read_bytes() == b"two"
    assert names(path.parent) == ["c.bin"]


def test_names_as_long_as_the_file_system_allows(tmp_path: Path) -> None:
    for name in ("n" * 255, "ä" * 127):
        write_atomically(tmp_path / name, b"x")
        assert (tmp_path / name).read_bytes() == b"x"


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
def test_new_files_have_the_usual_permissions(tmp_path: Path) -> None:
    """Results and shared model folders are read by others, too."""
    before = os.umask(0o027)
    try:
        write_atomically(tmp_path / "a", b"x")
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


@pytest.mark.skipif(os.name == "nt", reason="permissions of POSIX")
@pytest.mark.parametrize(("private", "expected"), [(False, 0o640), (True, 0o600)])
def test_a_file_that_the_body_replaces_has_them_too(tmp_path: Path, private: bool, expected: int) -> None:
    before = os.umask(0o027)
    try:
        with replacing(tmp_path / "a", private=private) as temporary:
            (tmp_path / "own").touch(0o600 if not private else 0o666)
            (tmp_path / "own").replace(temporary)
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == expected


def test_nothing_is_left_of_a_write_that_failed(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(OSError):
        write_atomically(tmp_path / "folder", b"x")
    (tmp_path / "file").write_bytes(b"in the way")
    with pytest.raises(OSError):
        write_atomically(tmp_path / "file" / "below", b"x")
    with pytest.raises(OSError):
        write_atomically(tmp_path / ("n" * 256), b"x")
    assert names(tmp_path) == ["file", "folder"]
    assert (tmp_path / "file").read_bytes() == b"in the way"


def test_an_interrupted_write_keeps_the_old_file_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")

    def interrupted(_handle: int) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "fsync", interrupted)
    with pytest.raises(KeyboardInterrupt):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert names(tmp_path) == ["a"]


def test_a_killed_write_keeps_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"old")
    code = (
        "import os, pathlib, signal\n"
        "from photokeep_nodes import files\n"
        "os.fsync = lambda _: os.kill(os.getpid(), signal.SIGKILL)\n"
        f"files.write_atomically(pathlib.Path({str(path)!r}), b'new')\n"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, timeout=60, check=False)
    assert done.returncode == -9
    assert path.read_bytes() == b"old"
    assert all(name == "a" or name.startswith(TEMPORARY_PREFIX) for name in names(tmp_path))


def test_readers_see_one_writer_or_the_other(tmp_path: Path) -> None:
    path = tmp_path / "a"
    contents = [bytes([i]) * 200_000 for i in range(4)]
    write_atomically(path, contents[0])
    seen: list[bytes] = []
    writers = [
        threading.Thread(target=lambda c=content: [write_atomically(path, c) for _ in range(10)])
        for content in contents
    ]
    for writer in writers:
        writer.start()
    while any(writer.is_alive() for writer in writers):
        seen.append(path.read_bytes())
    for writer in writers:
        writer.join()
    assert set(seen) <= set(contents)
    assert path.read_bytes() in contents
    assert names(tmp_path) == ["a"]


@pytest.mark.skipif(not Path("/dev/null").exists(), reason="needs device files")
def test_a_pipe_or_device_is_written_to_and_not_replaced(tmp_path: Path) -> None:
    fifo = tmp_path / "pipe"
    os.mkfifo(fifo)
    got: list[bytes] = []
    reader = threading.Thread(target=lambda: got.append(fifo.read_bytes()))
    reader.start()
    write_atomically(fifo, b"through")
    reader.join()
    assert got == [b"through"]
    assert fifo.is_fifo()
    assert names(tmp_path) == ["pipe"]
