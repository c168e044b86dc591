from __future__ import annotations

import contextlib
import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from headless.json_text import Limits, check_values, read_json
from photokeep_nodes.errors import WorkflowFormatError

NUMBERS = st.integers(-(2**70), 2**70) | st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | NUMBERS | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)


@given(JSON)
def test_what_json_can_hold_is_read_unchanged(value):
    assert read_json(json.dumps(value)) == value
    assert read_json(json.dumps(value, ensure_ascii=False).encode("utf-8-sig")) == value


@given(st.text() | st.binary())
def test_any_other_text_is_refused_with_a_typed_error(source):
    try:
        json.loads(source)
    except (ValueError, RecursionError):
        with pytest.raises(WorkflowFormatError):
            read_json(source)


@given(st.text(alphabet='{}[]":,\\ 019eE-+.NaInfity\ntrue', max_size=40))
def test_text_that_is_nearly_json_is_read_or_refused(source):
    with contextlib.suppress(WorkflowFormatError):
        assert read_json(source) == json.loads(source)


@pytest.mark.parametrize(
    ("text", "line", "column", "says"),
    [
        ('{"a": NaN}', 1, 7, "NaN"),
        ('{"a":\n  [1, Infinity]}', 2, 7, "Infinity"),
        ('{"a": "NaN",\n "b": -Infinity}', 2, 7, "-Infinity"),
        ('{"NaN": 1,\n "b": 1e999}', 2, 7, "1e999"),
        ('{"a": -1e999}', 1, 7, "too large"),
        ('{"a": ' + "9" * 5000 + "}", 1, 7, "too large"),
        ('{"a": {"x": 1}, "b": {"x": 1,\n "x": 2}}', 2, 2, '"x" stands twice'),
        ('{"a": "\\"x\\":", "\\u0061": 2}', 1, 17, "stands twice"),
        ('{"a" 1}', 1, 6, "Expecting ':'"),
        ('{"a": 1,\n}', 2, 1, ""),
        ("{'a': 1}", 1, 2, ""),
    ],
)
def test_a_refusal_says_where(text, line, column, says):
    with pytest.raises(WorkflowFormatError) as caught:
        read_json(text)
    assert says in caught.value.message
    assert f"line {line}, column {column}" in caught.value.message
    assert (caught.value.context["line"], caught.value.context["column"]) == (line, column)
    assert caught.value.hint


def test_the_same_key_in_different_objects_is_no_duplicate():
    assert read_json('[{"x": 1}, {"x": {"x": 2}}]') == [{"x": 1}, {"x": {"x": 2}}]


def test_pictures_may_hold_nan_as_the_editor_reads_them():
    assert read_json('{"is_changed": [NaN, -Infinity]}', nan_as_null=True) == {"is_changed": [None, None]}
    with pytest.raises(WorkflowFormatError, match="twice"):
        read_json('{"n": NaN, "a": 1, "a": 2}', nan_as_null=True)


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32"])
def test_utf_16_and_32_are_named(encoding):
    with pytest.raises(WorkflowFormatError, match="UTF") as caught:
        read_json('{"nodes": []}'.encode(encoding))
    assert "UTF-8" in caught.value.hint


def test_a_byte_order_mark_is_skipped_in_bytes_and_in_text():
    assert read_json(b'\xef\xbb\xbf{"a": 1}') == read_json('\ufeff{"a": 1}') == {"a": 1}


def test_bytes_that_are_no_text_are_refused_with_their_place():
    with pytest.raises(WorkflowFormatError, match=r"0xFF \(line 2, byte 8\)"):
        read_json(b'{"a": 1,\n  "b": \xff}')


@pytest.mark.parametrize(
    ("text", "hint"),
    [
        ("", "Save"),
        (" \n ", "Save"),
        ("\ufeff", "Save"),
        ('{"nodes": [{"id": 1', "too early"),
        ('{"nodes": "abc', "too early"),
        ("<!DOCTYPE html><html>", "web page"),
        ("{} {}", "Save"),
    ],
)
def test_what_is_wrong_with_a_broken_file_is_guessed(text, hint):
    with pytest.raises(WorkflowFormatError) as caught:
        read_json(text)
    assert hint in caught.value.hint


@pytest.mark.parametrize("text", ["[" * 200 + "]" * 200, '{"a":' * 150_000, "[" * 2_000_000])
def test_deep_nesting_is_refused_not_a_crash(text):
    with pytest.raises(WorkflowFormatError):
        read_json(text)


def test_limits():
    limits = Limits(file_bytes=40, depth=3, string_chars=10)
    assert read_json('{"a": [[1]]}', limits) == {"a": [[1]]}
    for text, says in [
        ('{"a": [[[1]]]}', "nested"),
        ('{"a": "12345678901"}', "11 characters"),
        ('{"12345678901": 1}', "11 characters"),
        ('{"a": ' + " " * 40 + "1}", "bytes"),
    ]:
        with pytest.raises(WorkflowFormatError, match=says):
            read_json(text, limits)
        with pytest.raises(WorkflowFormatError, match=says):
            read_json(text.encode(), limits)


def test_half_a_character_is_refused():
    assert read_json('"\\ud83d\\ude00"') == "\U0001f600"
    with pytest.raises(WorkflowFormatError, match="U\\+D83D"):
        read_json('{"title": "\\ud83d"}')


@pytest.mark.parametrize("value", [{"a": float("nan")}, [float("inf")], {1: 2}, {"a": (1, 2)}, {"a": b"x"}, 10**200])
def test_a_value_that_json_cannot_hold_is_refused(value):
    with pytest.raises(WorkflowFormatError):
        check_values(value)


def test_a_value_that_holds_itself_is_refused():
    value: list = []
    value.append(value)
    with pytest.raises(WorkflowFormatError, match="nested"):
        check_values(value)
