"""Colours as people type them."""

from __future__ import annotations

import re

from ..errors import NodeInputError

_HEX = re.compile(r"#(?:[0-9a-f]{3}|[0-9a-f]{6})", re.IGNORECASE)


def parse(text: str) -> tuple[float, float, float]:
    """Read "#rrggbb", "#rgb" or a name that CSS knows.

    Returns:
        sRGB in [0, 1].
    Raises:
        NodeInputError: it is none of these.
    """
    from PIL import ImageColor

    named = str(text).strip().lower()
    if _HEX.fullmatch(named) or named in ImageColor.colormap:
        red, green, blue = ImageColor.getrgb(named)[:3]
        return red / 255.0, green / 255.0, blue / 255.0
    raise NodeInputError(
        f"{text!r} is no colour", hint="Write it as #rrggbb, such as #c8a27a, or as a name, such as skyblue."
    )
