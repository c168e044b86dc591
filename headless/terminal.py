"""Where to print for people."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console

_PIPED_WIDTH = 200


def open_console(*, stderr: bool = False) -> Console:
    """Return a console; in a file or a pipe, lines are long enough for paths to stay whole."""
    from rich.console import Console

    made = Console(stderr=stderr, highlight=False, soft_wrap=True)
    if not made.is_terminal and not os.environ.get("COLUMNS"):
        made.width = _PIPED_WIDTH
    return made
