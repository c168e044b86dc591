"""Short forms for what ``INPUT_TYPES`` says, spelled as the host's ``/object_info`` spells it."""

from __future__ import annotations

from typing import Any

Declared = tuple[Any, ...]

LARGEST_SIDE = 16384
"""The host's limit for sides and offsets, in pixels."""

RESAMPLING = ("nearest-exact", "bilinear", "area", "bicubic", "lanczos")
"""The host's ways to change a picture's size."""

IMAGE: Declared = ("IMAGE", {})
MASK: Declared = ("MASK", {})
TEXT: Declared = ("STRING", {"multiline": True})


def combo(*choices: str, **options: Any) -> Declared:
    """A list of choices, as the host's newer nodes declare it."""
    return ("COMBO", {"multiselect": False, "options": list(choices), **options})


def integer(default: int, low: int, high: int, **options: Any) -> Declared:
    """A whole number within limits."""
    return ("INT", {"default": default, "min": low, "max": high, **options})


def number(default: float, low: float, high: float, step: float, **options: Any) -> Declared:
    """A number within limits."""
    return ("FLOAT", {"default": default, "min": low, "max": high, "step": step, **options})


def side(default: int = 512, low: int = 1) -> Declared:
    """Width or height, in pixels."""
    return integer(default, low, LARGEST_SIDE, step=1)


def offset() -> Declared:
    """Distance from an edge, in pixels."""
    return integer(0, 0, LARGEST_SIDE, step=1)


def grown(inputs: dict[str, Any], name: str) -> list[Any]:
    """Values of an input that grows in the editor, such as ``images.image0`` and ``images.image1``, in that order.

    Args:
        inputs: flat names to values.
        name: of the input, such as "images".
    """
    prefix = f"{name}."
    found = [(key.removeprefix(prefix), value) for key, value in inputs.items() if key.startswith(prefix)]
    return [value for key, value in sorted(found, key=lambda each: _by_number(each[0])) if value is not None]


def _by_number(name: str) -> tuple[str, int]:
    """``image10`` comes after ``image9``."""
    letters = name.rstrip("0123456789")
    return letters, int(name[len(letters) :] or 0)
