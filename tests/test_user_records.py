"""What the user agreed to, and what was seen first: kept whole, read with care."""

from __future__ import annotations

import json
import logging
import threading
from typing import TYPE_CHECKING

import pytest

from photokeep_nodes import licences
from photokeep_nodes.errors import WeightsError
from photokeep_nodes.model_spec import Licence
from photokeep_nodes.user_records import UserRecords

if TYPE_CHECKING:
    from pathlib import Path

NC = Licence("NC-1.0", commercial=False, url="https://example.org/nc")


@pytest.fixture(autouse=True)
def data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path / "home"))
    return tmp_path / "home" / "photokeep"


def test_entries_are_added_and_dropped(data: Path) -> None:
    records = UserRecords("a.json")
    assert records.all() == {}
    records.put({"x": {"sha256": "1"}})
    records.put({"y": {"sha256": "ü"}, "x": {"sha256": "2"}})
    assert json.loads((data / "a.json").read_text(encoding="utf-8")) == {"x": {"sha256": "2"}, "y": {"sha256": "ü"}}
    records.drop("x")
    records.drop("never there")
    assert records.get("x") is None
    assert records.get("y") == {"sha256": "ü"}


def test_those_who_write_at_once_lose_nothing(data: Path) -> None:
    names = [str(number) for number in range(12)]
    threads = [threading.Thread(target=UserRecords("a.json").put, args=({name: {"v": name}},)) for name in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(UserRecords("a.json").all()) == sorted(names)


@pytest.mark.parametrize(
    "content", ["", "{", "[]", "7", "[" * 100_000, "\ud800", " " * (17 << 20)], ids=lambda c: c[:3]
)
def test_a_damaged_file_counts_as_empty_and_is_mended(
    data: Path, content: str, caplog: pytest.LogCaptureFixture
) -> None:
    data.mkdir(parents=True)
    (data / "a.json").write_bytes(content.encode("utf-8", "surrogatepass"))
    with caplog.at_level(logging.WARNING):
        assert UserRecords("a.json").all() == {}
    assert "counts as empty" in caplog.text
    UserRecords("a.json").put({"x": {}})
    assert UserRecords("a.json").all() == {"x": {}}


def test_entries_that_are_none_are_left_out(data: Path) -> None:
    data.mkdir(parents=True)
    (data / "a.json").write_text(json.dumps({"a": {"b": 1}, "c": 3, "d": {"e": "f"}, "g": None}))
    assert UserRecords("a.json").all() == {"d": {"e": "f"}}


def test_a_consent_that_cannot_be_written_is_told(data: Path) -> None:
    data.parent.mkdir(parents=True)
    data.write_text("in the way of the folder")
    assert licences.accepted_at("NC-1.0") is None
    with pytest.raises(WeightsError, match=r"NC-1\.0 cannot be kept"):
        licences.accept(NC)
