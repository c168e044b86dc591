"""Nodes that hold a value, for others to take."""

from __future__ import annotations

import math
from typing import Any, ClassVar

from photokeep_nodes.errors import NodeInputError

from ._declare import LARGEST_SIDE, combo, integer, number

_LARGEST = 2**63 - 1


class _Held:
    """Base of the nodes that return their one value."""

    CATEGORY = "utilities/primitive"
    RETURN_TYPES: ClassVar[tuple[str, ...]]
    FUNCTION = "run"
    _DECLARED: ClassVar[tuple[str, dict[str, Any]]]

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": cls._DECLARED}}

    def run(self, value: Any) -> tuple[Any]:
        """The value as it is."""
        return (value,)


class PrimitiveInt(_Held):
    """A whole number."""

    NODE_ID = "PrimitiveInt"
    DISPLAY_NAME = "Int"
    RETURN_TYPES = ("INT",)
    _DECLARED = ("INT", {"min": -_LARGEST, "max": _LARGEST, "control_after_generate": "fixed"})


class PrimitiveFloat(_Held):
    """A number."""

    NODE_ID = "PrimitiveFloat"
    DISPLAY_NAME = "Float"
    RETURN_TYPES = ("FLOAT",)
    _DECLARED = ("FLOAT", {"min": -_LARGEST, "max": _LARGEST, "step": 0.1})


class PrimitiveBoolean(_Held):
    """Yes or no."""

    NODE_ID = "PrimitiveBoolean"
    DISPLAY_NAME = "Boolean"
    RETURN_TYPES = ("BOOLEAN",)
    _DECLARED = ("BOOLEAN", {})


class PrimitiveString(_Held):
    """A line of text."""

    NODE_ID = "PrimitiveString"
    DISPLAY_NAME = "Text"
    RETURN_TYPES = ("STRING",)
    _DECLARED = ("STRING", {"multiline": False})


class PrimitiveStringMultiline(_Held):
    """Text."""

    NODE_ID = "PrimitiveStringMultiline"
    DISPLAY_NAME = "Text (Multiline)"
    RETURN_TYPES = ("STRING",)
    _DECLARED = ("STRING", {"multiline": True})


class PrimitiveBoundingBox:
    """A box, for Crop Image."""

    NODE_ID = "PrimitiveBoundingBox"
    DISPLAY_NAME = "Bounding Box"
    CATEGORY = "utilities/primitive"
    RETURN_TYPES = ("BOUNDING_BOX",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        corner, length = integer(0, 0, LARGEST_SIDE), integer(512, 1, LARGEST_SIDE)
        return {"required": {"x": corner, "y": corner, "width": length, "height": length}}

    def run(self, x: int, y: int, width: int, height: int) -> tuple[dict[str, int]]:
        """Corner and size, in pixels."""
        return ({"x": x, "y": y, "width": width, "height": height},)


class SeedNode:
    """A seed, for several nodes."""

    NODE_ID = "SeedNode"
    DISPLAY_NAME = "Seed"
    CATEGORY = "utilities"
    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("seed",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"seed": ("INT", {"min": 0, "max": _LARGEST, "control_after_generate": "fixed"})}}

    def run(self, seed: int) -> tuple[int]:
        """The seed as it is."""
        return (seed,)


class CustomCombo:
    """A choice from a list that the user has written; the editor saves the list beside it."""

    NODE_ID = "CustomCombo"
    DISPLAY_NAME = "Custom Combo"
    CATEGORY = "utilities"
    RETURN_TYPES = ("STRING", "INT")
    RETURN_NAMES = ("STRING", "INDEX")
    FUNCTION = "run"
    ACCEPT_ALL_INPUTS = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"choice": combo()}}

    @classmethod
    def VALIDATE_INPUTS(cls, **_inputs: Any) -> bool:
        """Always: the list is the user's, so that there is none to compare the choice with."""
        return True

    def run(self, choice: str, index: int = 0, **_options: Any) -> tuple[str, int]:
        """The choice, and its place in the list."""
        return choice, index


class ComfyNumberConvert:
    """A number of whatever says one."""

    NODE_ID = "ComfyNumberConvert"
    DISPLAY_NAME = "Convert Number"
    CATEGORY = "utilities"
    RETURN_TYPES = ("FLOAT", "INT")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("INT,FLOAT,STRING,BOOLEAN", {"display_name": "value"})}}

    def run(self, value: Any) -> tuple[float, int]:
        """The number, and the same cut down to a whole one.

        Raises:
            NodeInputError: it is no number, infinite, or too large.
        """
        text = value.strip() if isinstance(value, str) else value
        try:
            if not isinstance(text, (str, int, float)):
                raise TypeError
            exact = float(text)
            if not math.isfinite(exact):
                raise OverflowError
            whole = _whole(text, exact)
        except (TypeError, ValueError, OverflowError):
            raise NodeInputError(
                f"{str(value)[:80]!r} is no finite number", hint="Give a number, or text that is one."
            ) from None
        return exact, whole


def _whole(text: str | float, exact: float) -> int:
    """Text of a whole number as that number: a float would round it."""
    try:
        return int(text)
    except ValueError:  # "2.5"
        return int(exact)


class ResolutionSelector:
    """Width and height of so many megapixels in some proportions."""

    NODE_ID = "ResolutionSelector"
    DISPLAY_NAME = "Resolution Selector"
    CATEGORY = "utilities"
    RETURN_TYPES = ("INT", "INT")
    RETURN_NAMES = ("width", "height")
    FUNCTION = "run"
    _PROPORTIONS: ClassVar[dict[str, tuple[int, int]]] = {
        "1:1 (Square)": (1, 1),
        "2:3 (Portrait Photo)": (2, 3),
        "3:2 (Photo)": (3, 2),
        "3:4 (Portrait Standard)": (3, 4),
        "4:3 (Standard)": (4, 3),
        "9:16 (Portrait Widescreen)": (9, 16),
        "16:9 (Widescreen)": (16, 9),
        "21:9 (Ultrawide)": (21, 9),
    }

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "aspect_ratio": combo(*cls._PROPORTIONS, default="1:1 (Square)"),
                "megapixels": number(1.0, 0.1, 16.0, 0.1),
                "multiple": integer(8, 8, 128, step=4, advanced=True),
            }
        }

    def run(self, aspect_ratio: str, megapixels: float, multiple: int) -> tuple[int, int]:
        """Sides in pixels, multiples of ``multiple``; a megapixel is 1024 x 1024.

        Raises:
            NodeInputError: no such proportions, or no pixels.
        """
        if aspect_ratio not in self._PROPORTIONS or multiple < 1 or not (math.isfinite(megapixels) and megapixels > 0):
            raise NodeInputError(
                f"there is no size of {megapixels} megapixels in {str(aspect_ratio)[:80]!r}",
                hint=f"Choose one of: {', '.join(self._PROPORTIONS)}.",
            )
        wide, high = self._PROPORTIONS[aspect_ratio]
        unit = math.sqrt(megapixels * 1024 * 1024 / (wide * high))
        return round(wide * unit / multiple) * multiple, round(high * unit / multiple) * multiple
