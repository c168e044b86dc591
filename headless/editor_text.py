"""Texts the editor changes on their way to the host: choices in prompts, and placeholders in file names."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from datetime import datetime

_ESCAPED = re.compile(r"\\([{}|])")
_PLACEHOLDER = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yyy|yy")
_NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
_MAX_DEPTH = 50


def with_choices_made(text: str) -> str:
    """A prompt without comments, one option taken of each ``{a|b|c}``.

    The editor takes one by chance at each run. Here the text itself decides, so that a run can be repeated.

    Args:
        text: as typed.
    """
    return _ESCAPED.sub(r"\1", _chosen(_without_comments(text), 0))


def _without_comments(text: str) -> str:
    """Drop ``/* ... */`` and ``// ...``; by searching, since a pattern would try each opening mark to the end."""
    line, block = _Finder(text, "//"), _Finder(text, "/*")
    end = _Finder(text, "*/")
    parts = []
    position = 0
    while True:
        at_line, at_block = line.at(position), block.at(position)
        closing = end.at(at_block + 2) if at_block < len(text) else len(text)
        if closing < len(text) and at_block < at_line:
            parts.append(text[position:at_block])
            position = closing + 2
        elif at_line < len(text):
            parts.append(text[position:at_line])
            position = text.find("\n", at_line)
            if position < 0:
                return "".join(parts)
        else:
            return "".join((*parts, text[position:]))


class _Finder:
    """Where a mark stands at or after a position that only grows; the length of the text where it does not."""

    def __init__(self, text: str, mark: str) -> None:
        self._text = text
        self._mark = mark
        self._found = -1

    def at(self, position: int) -> int:
        if self._found < position:
            found = self._text.find(self._mark, position)
            self._found = len(self._text) if found < 0 else found
        return self._found


def _chosen(text: str, depth: int) -> str:
    seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    made: list[str] = []
    position = 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            made.append(char + text[position : position + 1])
            position += 1
        elif char == "{":
            options, position = _options(text, position)
            option = options[_number(seed, position, len(options))]
            made.append(_chosen(option, depth + 1) if depth < _MAX_DEPTH else option)
        else:
            made.append(char)
    return "".join(made)


def _options(text: str, position: int) -> tuple[list[str], int]:
    """Options up to the brace that closes them, and where the text goes on."""
    options: list[str] = []
    start, depth = position, 0
    while position < len(text):
        char = text[position]
        position += 1
        if char == "\\":
            position += 1
        elif char == "{":
            depth += 1
        elif char == "}":
            if not depth:
                return [*options, text[start : position - 1]], position
            depth -= 1
        elif char == "|" and not depth:
            options.append(text[start : position - 1])
            start = position
    return [*options, text[start:]], position


def _number(seed: bytes, position: int, count: int) -> int:
    digest = hashlib.sha256(seed + position.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") % count


def with_placeholders_filled(text: str, widget_value: Callable[[str, str], str | None], now: datetime) -> str:
    """A file name with ``%date:yyyy-MM-dd%`` and ``%Node.widget%`` filled in; ``%width%`` and the like are the host's.

    Args:
        text: as typed.
        widget_value: value of a node's widget by the names of both, None where there is no such widget.
        now: what dates are filled in with.
    """

    def filled(match: re.Match[str]) -> str:
        parts = match.group(1).split(".")
        if len(parts) != 2:
            if parts[0].startswith("date:"):
                return _date(parts[0].removeprefix("date:"), now)
            return match.group()
        value = widget_value(*parts)
        return match.group() if value is None else _NOT_IN_NAMES.sub("_", value)

    return _PLACEHOLDER.sub(filled, text)


def _date(pattern: str, now: datetime) -> str:
    numbers = {"d": now.day, "M": now.month, "h": now.hour, "m": now.minute, "s": now.second}

    def part(match: re.Match[str]) -> str:
        text = match.group()
        if text == "yy":
            return f"{now.year % 100:02}"
        if text == "yyyy":
            return f"{now.year}"
        return str(numbers[text[0]]).zfill(len(text)) if text[0] in numbers else text

    return _DATE_PART.sub(part, pattern)
