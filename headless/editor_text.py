"""Texts the editor changes on their way to the host: choices in prompts, and placeholders in file names."""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import WorkflowFormatError

from .graph import shown

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from datetime import datetime

_ESCAPED = re.compile(r"\\([{}|])")
_PLACEHOLDER = re.compile(r"%([^%]+)%")
_DATE_PART = re.compile(r"dd?|MM?|hh?|mm?|ss?|yyyy|yyy|yy")
_NOT_IN_NAMES = re.compile(r'[/?<>\\:*|"\x00-\x1f\x7f]')
_MARK = re.compile(r"\\.|[{}|]", re.DOTALL)
_DEEPEST = 100  # braces inside each other; more are left as they are
_MAX_FILLED = 1 << 16
"""Characters of a file name once placeholders are filled in; no host takes names that long."""


def with_choices_made(text: str) -> tuple[str, bool]:
    """A prompt without comments, one option taken of each ``{a|b|c}``.

    The editor takes one by chance at each run. Here the text itself decides, so that a run can be repeated.

    Args:
        text: as typed; an unclosed brace reaches to its end.

    Returns:
        The prompt, and whether there was anything to choose from.
    """
    text = _without_comments(text)
    seed = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
    parts: list[Any] = []  # texts, and lists of the same in place of each choice: nothing is copied at each level
    around: list[list[Any]] = []  # the parts before each open brace
    options: list[list[list[Any]]] = []  # and what was read of it
    position, chosen = 0, False

    def close(end: int) -> list[Any]:
        read, outer = options.pop(), around.pop()
        outer.append(read[_number(seed, end, len(read)) if len(read) > 1 else 0])
        return outer

    for match in _MARK.finditer(text):
        mark = match.group()
        if match.start() > position:
            parts.append(text[position : match.start()])
        position = match.end()
        if mark == "{" and len(options) < _DEEPEST:
            around.append(parts)
            options.append([[]])
            parts = options[-1][-1]
        elif mark == "|" and options:
            chosen = True
            options[-1].append([])
            parts = options[-1][-1]
        elif mark == "}" and options:
            parts = close(position)
        else:
            parts.append(mark)
    parts.append(text[position:])
    while options:
        parts = close(len(text))
    return _ESCAPED.sub(r"\1", "".join(_flat(parts))), chosen


def _flat(parts: list[Any]) -> Iterator[str]:
    waiting = [iter(parts)]
    while waiting:
        part = next(waiting[-1], None)
        if part is None:
            waiting.pop()
        elif isinstance(part, str):
            yield part
        else:
            waiting.append(iter(part))


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


def _number(seed: bytes, position: int, count: int) -> int:
    digest = hashlib.sha256(seed + position.to_bytes(8, "big")).digest()
    return int.from_bytes(digest[:8], "big") % count


def with_placeholders_filled(text: str, widget_value: Callable[[str, str], str | None], now: datetime) -> str:
    """A file name with ``%date:yyyy-MM-dd%`` and ``%Node.widget%`` filled in; ``%width%`` and the like are the host's.

    Args:
        text: as typed.
        widget_value: value of a node's widget by the names of both, None where there is no such widget.
        now: what dates are filled in with.

    Raises:
        WorkflowFormatError: it grows beyond what any name can be.
    """
    length = len(text)

    def filled(match: re.Match[str]) -> str:
        nonlocal length
        found = _filled(match.group(1), widget_value, now)
        if found is None:
            return match.group()
        length += len(found) - len(match.group())
        if length > max(_MAX_FILLED, len(text)):
            raise WorkflowFormatError(
                f"the name {shown(text)} grows to more than {_MAX_FILLED:,} characters",
                hint="Look at what its %Node.widget% placeholders stand for.",
            )
        return found

    return _PLACEHOLDER.sub(filled, text)


def _filled(name: str, widget_value: Callable[[str, str], str | None], now: datetime) -> str | None:
    parts = name.split(".")
    if len(parts) != 2:
        return _date(parts[0].removeprefix("date:"), now) if parts[0].startswith("date:") else None
    value = widget_value(*parts)
    return None if value is None else _NOT_IN_NAMES.sub("_", value)


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
