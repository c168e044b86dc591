"""A digest is remembered for the bytes it was taken of, and for no others."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import pytest

from photokeep_nodes import digests

if TYPE_CHECKING:
    from pathlib import Path

pytestmark = pytest.mark.usefixtures("own_folders")

GOOD, OTHER = b"good" * 2**19, b"evil" * 2**19


def of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def test_what_was_taken_is_known_until_the_file_changes(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(GOOD)
    assert digests.known(path) is None
    assert digests.digest(path) == of(GOOD)
    assert digests.known(path) == of(GOOD)
    path.write_bytes(OTHER + b"!")
    assert digests.known(path) is None
    path.unlink()
    assert digests.known(path) is None


def test_a_file_that_is_replaced_while_it_is_read_is_not_taken_for_the_one_before(tmp_path: Path) -> None:
    path = tmp_path / "a.pth"
    path.write_bytes(GOOD)

    def replace(_: int) -> None:
        if path.read_bytes() == GOOD:
            (tmp_path / "new").write_bytes(OTHER)
            (tmp_path / "new").replace(path)

    assert digests.digest(path, on_bytes=replace) == of(GOOD), "the open file is read to its end"
    assert digests.known(path) is None
    assert digests.digest(path) == of(OTHER)
