from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from photokeep_nodes.errors import PhotoReadError
from photokeep_nodes.photo_io import find_photo, list_photos

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def roots(tmp_path: Path) -> list[Path]:
    first, second = tmp_path / "input", tmp_path / "samples"
    for root in (first, second):
        (root / "album").mkdir(parents=True)
    (first / "a.jpg").write_bytes(b"first")
    (first / "album" / "b.PNG").write_bytes(b"b")
    (second / "a.jpg").write_bytes(b"second")
    (second / "c.tiff").write_bytes(b"c")
    (tmp_path / "secret.jpg").write_bytes(b"secret")
    return [first, second]


def refused(name: str, roots: list[Path]) -> PhotoReadError:
    with pytest.raises(PhotoReadError) as caught:
        find_photo(name, roots)
    assert caught.value.hint
    return caught.value


def test_the_first_root_wins(roots):
    assert find_photo("a.jpg", roots).read_bytes() == b"first"
    assert find_photo("a.jpg", roots[::-1]).read_bytes() == b"second"


def test_below_and_in_later_roots(roots):
    assert find_photo("album/b.PNG", roots).read_bytes() == b"b"
    assert find_photo("c.tiff", roots).read_bytes() == b"c"


def test_absolute_inside_a_root(roots):
    assert find_photo(str(roots[1] / "c.tiff"), roots).read_bytes() == b"c"


def test_a_root_may_be_a_link(tmp_path, roots):
    link = tmp_path / "link"
    link.symlink_to(roots[0], target_is_directory=True)
    assert find_photo("a.jpg", [link]).read_bytes() == b"first"
    assert find_photo(str(link / "a.jpg"), [link]).read_bytes() == b"first"
    assert "no photo" in refused(str(link / "none.jpg"), [link]).message


def test_a_link_to_another_root_is_fine(roots):
    (roots[0] / "elsewhere.tiff").symlink_to(roots[1] / "c.tiff")
    assert find_photo("elsewhere.tiff", roots).read_bytes() == b"c"


@pytest.mark.parametrize(
    "name", ["../secret.jpg", "album/../../secret.jpg", "album/../a.jpg", "..", "../samples/c.tiff"]
)
def test_climbing_out(roots, name):
    assert ".." in refused(name, roots).message


def test_absolute_outside(tmp_path, roots):
    there = refused(str(tmp_path / "secret.jpg"), roots)
    assert "outside" in there.message
    # No telling whether a file outside exists.
    missing = refused(str(tmp_path / "none.jpg"), roots)
    assert missing.message.replace("none", "secret") == there.message


def test_a_sibling_whose_name_begins_alike_is_outside(tmp_path, roots):
    sibling = tmp_path / "input2"
    sibling.mkdir()
    (sibling / "x.jpg").write_bytes(b"x")
    assert "outside" in refused(str(sibling / "x.jpg"), roots).message


def test_links_out(tmp_path, roots):
    (roots[0] / "out.jpg").symlink_to(tmp_path / "secret.jpg")
    (roots[0] / "up").symlink_to(tmp_path, target_is_directory=True)
    assert "outside" in refused("out.jpg", roots).message
    assert "outside" in refused("up/secret.jpg", roots).message


def test_a_link_out_does_not_hide_a_photo_in_a_later_root(tmp_path, roots):
    (roots[0] / "c.tiff").symlink_to(tmp_path / "secret.jpg")
    assert find_photo("c.tiff", roots).read_bytes() == b"c"


@pytest.mark.skipif(os.sep == "\\", reason="a backslash separates folders here")
def test_backslash(roots):
    assert "backslash" in refused("album\\b.PNG", roots).message


@pytest.mark.parametrize(
    "name", ["a.jpg [output]", "a.jpg [input]", "a.jpg [temp]", "a.jpg[output]", "a.jpg [output] "]
)
def test_host_suffixes(roots, name):
    assert "brackets" in refused(name, roots).message


def test_brackets_inside_a_name_are_fine(roots):
    (roots[0] / "scan [2].png").write_bytes(b"x")
    assert find_photo("scan [2].png", roots).name == "scan [2].png"


@pytest.mark.parametrize("name", ["", "   ", "a\0.jpg", None, 7])
def test_no_names(roots, name):
    refused(name, roots)


def test_folder_and_pipe(roots):
    assert "folder" in refused("album", roots).message
    os.mkfifo(roots[0] / "pipe.jpg")
    assert "pipe" in refused("pipe.jpg", roots).message


def test_missing_suggests_what_is_there(roots):
    assert "'a.jpg'" in refused("a.jpeg", roots).hint
    assert str(roots[0]) in refused("zzzzz.webp", roots).hint
    assert refused("a.jpg", []).hint


def test_a_name_too_long_for_the_system(roots):
    assert "no photo" in refused("x" * 5000 + ".jpg", roots).message


@settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    parts=st.lists(
        st.sampled_from(["..", "/", ".", "a", "a.jpg", "album", "up", "secret.jpg", "~", "\\", " "]), max_size=8
    )
)
def test_whatever_is_found_lies_inside(tmp_path, roots, parts):
    up = roots[0] / "up"
    if not up.is_symlink():
        up.symlink_to(tmp_path, target_is_directory=True)
    try:
        found = find_photo("".join(parts), roots)
    except PhotoReadError:
        return
    assert any(found.is_relative_to(root.resolve()) for root in roots)
    assert found.read_bytes() != b"secret"


def test_list(roots):
    (roots[0] / "notes.txt").write_bytes(b"")
    (roots[0] / ".hidden.jpg").write_bytes(b"")
    (roots[0] / "album" / "deep").mkdir()
    (roots[0] / "album" / "deep" / "d.jpg").write_bytes(b"")
    (roots[0] / "folder.jpg").mkdir()
    (roots[0] / "B.webp").write_bytes(b"")
    assert list_photos(roots) == ["a.jpg", "B.webp", "c.tiff", "album/b.PNG"]
    for name in list_photos(roots):
        find_photo(name, roots)


def test_list_of_nothing(tmp_path):
    assert list_photos([]) == []
    assert list_photos([tmp_path / "not there"]) == []
    (tmp_path / "file").write_bytes(b"")
    assert list_photos([tmp_path / "file"]) == []


def test_list_is_capped(tmp_path, monkeypatch):
    monkeypatch.setattr("photokeep_nodes.photo_io.paths._MAX_LISTED", 3)
    for i in range(6):
        (tmp_path / f"{i}.jpg").write_bytes(b"")
    assert len(list_photos([tmp_path])) == 3
