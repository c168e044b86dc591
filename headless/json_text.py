"""JSON from files that nobody vouches for: strict, limited, and every refusal says where.

Stricter than ``json.loads``: no NaN or infinity (1e999 included), no key twice in one object, no lone surrogates.
"""

from __future__ import annotations

import codecs
import json
import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

from photokeep_nodes.errors import WorkflowFormatError

if TYPE_CHECKING:
    from collections.abc import Callable

_MIB = 1 << 20
_MAX_DIGITS = 100
_MAX_BITS = 334  # of the largest number with that many digits, and a sign
_UTF16_HINT = "Save it as UTF-8 text."
_WIDE_MARKS = (codecs.BOM_UTF32_LE, codecs.BOM_UTF32_BE, codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)
_TOKEN = re.compile(r'"[^"\\]*(?:\\.[^"\\]*)*"|[{}\[\]:,]|[^\s"{}\[\]:,]+', re.DOTALL)


@dataclass(frozen=True)
class Limits:
    """What a workflow file may hold; larger ones are refused before anything is done with them.

    Attributes:
        file_bytes: size of the JSON text.
        nodes: nodes of the graph.
        depth: lists and objects inside one another.
        string_chars: length of one text.
    """

    file_bytes: int = 32 * _MIB
    nodes: int = 10_000
    depth: int = 100
    string_chars: int = 4 * _MIB


DEFAULT_LIMITS = Limits()


class _RefusedError(Exception):
    """A token that JSON does not have, met by a hook that cannot know its position."""


def read_json(source: str | bytes, limits: Limits = DEFAULT_LIMITS, *, nan_as_null: bool = False) -> Any:
    """Parse JSON text.

    Args:
        source: the text, or its bytes in UTF-8 with or without a byte order mark.
        limits: what is refused as too large.
        nan_as_null: read NaN and infinities as null, as the editor does with what pictures carry.

    Raises:
        WorkflowFormatError: not JSON, not UTF-8, or over a limit; ``context`` has line and column where they are known.
    """
    text = (_decoded(source, limits) if isinstance(source, bytes) else source).removeprefix("\ufeff")
    if len(text) > limits.file_bytes:
        _too_large(len(text), limits)
    if not text.strip():
        raise WorkflowFormatError("the file is empty", hint="Save the workflow again.")
    constant: Callable[[str], None] = (lambda _literal: None) if nan_as_null else _no_constant
    try:
        value = json.loads(
            text,
            object_pairs_hook=_object,
            parse_constant=constant,
            parse_float=_finite,
            parse_int=_integer,
        )
    except json.JSONDecodeError as error:
        raise _not_json(text, error) from None
    except _RefusedError:
        position, message, hint = _first_refused(text, nan_as_null=nan_as_null)
        line, column = _line_column(text, position)
        raise WorkflowFormatError(
            f"{message} (line {line}, column {column})", hint=hint, line=line, column=column
        ) from None
    except RecursionError:
        raise _too_deep(limits) from None
    check_values(value, limits)
    return value


def check_values(value: Any, limits: Limits = DEFAULT_LIMITS) -> None:
    """Hold an already parsed value to the limits and to what JSON can hold.

    Raises:
        WorkflowFormatError: too deep, too long a text, a number that is not finite, or something that is no JSON.
    """
    waiting: list[tuple[Any, int]] = [(value, 1)]
    while waiting:
        current, depth = waiting.pop()
        if isinstance(current, str):
            _check_text(current, limits)
        elif isinstance(current, (dict, list)):
            if depth > limits.depth:
                raise _too_deep(limits)
            if isinstance(current, list):
                waiting.extend((each, depth + 1) for each in current)
                continue
            for key, each in current.items():
                if not isinstance(key, str):
                    raise WorkflowFormatError(f"a key is {type(key).__name__}, not text")
                _check_text(key, limits)
                waiting.append((each, depth + 1))
        elif isinstance(current, float):
            if not math.isfinite(current):
                raise WorkflowFormatError(f"{current} is not a JSON value", hint="Give a finite number.")
        elif isinstance(current, int):
            if current.bit_length() > _MAX_BITS:
                raise WorkflowFormatError(f"a number of {current.bit_length():,} bits", hint="Give a smaller number.")
        elif current is not None:
            raise WorkflowFormatError(f"{type(current).__name__} is not a JSON value")


def _check_text(text: str, limits: Limits) -> None:
    if len(text) > limits.string_chars:
        raise WorkflowFormatError(
            f"a text of {len(text):,} characters is longer than the {limits.string_chars:,} that are allowed",
            hint="Keep pictures and other data in files, not in the workflow.",
        )
    if text.isascii():
        return
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise WorkflowFormatError(
            f"a text holds half a character (U+{ord(text[error.start]):04X}), which cannot be written down",
            hint="Type the text again in the editor.",
        ) from None


def _decoded(data: bytes, limits: Limits) -> str:
    if len(data) > limits.file_bytes:
        _too_large(len(data), limits)
    if data.startswith(_WIDE_MARKS):
        raise WorkflowFormatError("the file is UTF-16 or UTF-32 text, JSON is UTF-8", hint=_UTF16_HINT)
    # JSON text never holds a NUL byte, but half of the bytes of Latin text in UTF-16 are.
    if b"\0" in data[:4]:
        raise WorkflowFormatError("the file is not UTF-8 text", hint=_UTF16_HINT)
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        column = error.start - data.rfind(b"\n", 0, error.start)
        raise WorkflowFormatError(
            f"not UTF-8 text: byte 0x{data[error.start]:02X} (line {line}, byte {column})",
            hint=_UTF16_HINT,
            line=line,
            column=column,
        ) from None


def _too_large(size: int, limits: Limits) -> NoReturn:
    raise WorkflowFormatError(
        f"the workflow has {size:,} bytes, more than the {limits.file_bytes:,} that are allowed",
        hint="A workflow is text of a few hundred kB; is this the right file?",
    )


def _too_deep(limits: Limits) -> WorkflowFormatError:
    return WorkflowFormatError(
        f"lists and objects are nested more than {limits.depth} deep", hint="No editor writes such a file."
    )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    made = dict(pairs)
    if len(made) != len(pairs):
        raise _RefusedError
    return made


def _no_constant(_literal: str) -> None:
    raise _RefusedError


def _finite(literal: str) -> float:
    number = float(literal)
    if not math.isfinite(number):
        raise _RefusedError
    return number


def _integer(literal: str) -> int:
    if len(literal) > _MAX_DIGITS:
        raise _RefusedError
    return int(literal)


def _first_refused(text: str, *, nan_as_null: bool) -> tuple[int, str, str]:
    """Position, message and hint of the first thing the hooks refuse.

    Linear, and only walked once a hook refused something: up to there the text is well-formed.
    """
    scopes: list[set[str] | None] = []
    last, last_start = "", 0
    for match in _TOKEN.finditer(text):
        part = match.group()
        if part in "{[":
            scopes.append(set() if part == "{" else None)
        elif part in "}]":
            scopes.pop()
        elif part == ":":
            key, scope = json.loads(last), scopes[-1]
            if scope is not None:
                if key in scope:
                    return last_start, f"the key {last[:60]} stands twice in one object", "Remove one of the two."
                scope.add(key)
        elif part[0] != '"' and part not in {",", "true", "false", "null"}:
            if part.lstrip("-") in {"NaN", "Infinity"}:
                if not nan_as_null:
                    return match.start(), f"{part} is not a JSON value", "Give a finite number."
            elif len(part) > _MAX_DIGITS or not math.isfinite(float(part)):
                return match.start(), f"{part[:40]} is too large a number", "Give a smaller one."
        last, last_start = part, match.start()
    return 0, "not JSON", ""


def _line_column(text: str, position: int) -> tuple[int, int]:
    return text.count("\n", 0, position) + 1, position - text.rfind("\n", 0, position)


def _not_json(text: str, error: json.JSONDecodeError) -> WorkflowFormatError:
    if text.lstrip().startswith("<"):
        hint = "This looks like a web page: download the workflow file itself."
    elif error.pos >= len(text.rstrip()) or error.msg.startswith("Unterminated string"):
        hint = "The file ends too early: save or copy it again."
    else:
        hint = "Save the workflow again from the editor."
    return WorkflowFormatError(
        f"not JSON: {error.msg} (line {error.lineno}, column {error.colno})",
        hint=hint,
        line=error.lineno,
        column=error.colno,
    )
