"""Where to print for people, and where to write for programs."""

from __future__ import annotations

import json
import os
import re
import sys
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Iterator

    from rich.console import Console
    from rich.text import Text

_PIPED_WIDTH = 200
_LONGEST = 200
_HALVES = re.compile("[\ud800-\udfff]")
_STEERING = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069]")
"""Characters that move a terminal's cursor, set its title, or turn the direction of what follows."""


def plain(text: str) -> str:
    """Text of whatever origin as it may be printed: titles, names and reports come from strangers' files."""
    return _STEERING.sub("?", text)


def one_line(text: str) -> str:
    """The same on one line, no longer than 200 characters: a title that goes on below could pass for ours."""
    line = " ".join(plain(text).split())
    return line if len(line) <= _LONGEST else f"{line[: _LONGEST - 3]}..."


def open_console(*, stderr: bool = False, file: IO[str] | None = None) -> Console:
    """Return a console that prints no character that steers a terminal but its own.

    In a file or a pipe, lines are long enough for paths to stay whole.
    """
    from rich.console import Console

    class PlainConsole(Console):
        def render_str(self, text: str, **options: Any) -> Text:  # every text but a progress bar's passes here
            return super().render_str(plain(text), **options)

    made = PlainConsole(stderr=stderr, file=file, highlight=False, soft_wrap=True, emoji=False)
    if not made.is_terminal and not os.environ.get("COLUMNS"):
        made.width = _PIPED_WIDTH
    return made


def as_json_text(data: Any) -> str:
    """Plain data as it is written; halves of characters, which have no bytes, and what steers terminals as escapes."""
    text = json.dumps(data, indent=2, ensure_ascii=False) + "\n"
    for odd in (_HALVES, _STEERING):
        text = odd.sub(lambda match: f"\\u{ord(match[0]):04x}", text)
    return text


def write_text(target: str, text: str) -> None:
    """Write a report to a file, whole or not at all, or to standard output for "-".

    Raises:
        PhotokeepError: the file cannot be written.
    """
    data = text.encode("utf-8", "backslashreplace")
    if target == "-":
        import click

        click.echo(data, nl=False)
        return
    from photokeep_nodes.errors import PhotokeepError
    from photokeep_nodes.files import write_atomically

    try:
        write_atomically(Path(target), data)
    except OSError as error:
        raise PhotokeepError(f"{target} cannot be written: {error.strerror or error}") from error


@contextmanager
def only_reports_on_stdout(*, wanted: bool = True) -> Iterator[None]:
    """Have what anybody prints in the body go to standard error: nodes of others print as they like."""
    if not wanted:
        yield
        return
    with redirect_stdout(sys.stderr):
        yield
