"""Nodes that work on text."""

from __future__ import annotations

import json
import sys
from typing import Any

from photokeep_nodes.errors import NodeInputError

from ._checks import chosen
from ._declare import TEXT, combo

MAX_TEXT = 10_000_000
"""Longest text that a node makes, in characters: two replacements in a row can square its length."""

_CASE_SENSITIVE = ("BOOLEAN", {"advanced": True, "default": True})


def _checked(text: str) -> str:
    if len(text) > MAX_TEXT:
        raise NodeInputError(f"a text of {len(text):,} characters is too long", hint="Make it shorter.")
    return text


class StringConcatenate:
    """Two texts as one."""

    NODE_ID = "StringConcatenate"
    DISPLAY_NAME = "Concatenate Text"
    CATEGORY = "text"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        between = ("STRING", {"default": "", "multiline": False})
        return {"required": {"string_a": TEXT, "string_b": TEXT, "delimiter": between}}

    def run(self, string_a: str, string_b: str, delimiter: str) -> tuple[str]:
        """The first, the delimiter, the second."""
        return (_checked(f"{string_a}{delimiter}{string_b}"),)


class StringSubstring:
    """A part of a text."""

    NODE_ID = "StringSubstring"
    DISPLAY_NAME = "Substring"
    CATEGORY = "text"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT, "start": ("INT", {}), "end": ("INT", {})}}

    def run(self, string: str, start: int, end: int) -> tuple[str]:
        """From ``start`` up to, and without, ``end``; negative ones count from the back."""
        return (string[start:end],)


class StringLength:
    """How long a text is."""

    NODE_ID = "StringLength"
    DISPLAY_NAME = "Text Length"
    CATEGORY = "text"
    RETURN_TYPES = ("INT",)
    RETURN_NAMES = ("length",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT}}

    def run(self, string: str) -> tuple[int]:
        """In characters."""
        return (len(string),)


class CaseConverter:
    """Capital and small letters."""

    NODE_ID = "CaseConverter"
    DISPLAY_NAME = "Convert Text Case"
    CATEGORY = "text"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    _MODES = ("UPPERCASE", "lowercase", "Capitalize", "Title Case")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT, "mode": combo(*cls._MODES)}}

    def run(self, string: str, mode: str) -> tuple[str]:
        """The text in that case."""
        place = self._MODES.index(chosen(mode, self._MODES, "mode"))
        return ((str.upper, str.lower, str.capitalize, str.title)[place](string),)


class StringTrim:
    """Without blanks at the ends."""

    NODE_ID = "StringTrim"
    DISPLAY_NAME = "Trim Text"
    CATEGORY = "text"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    _MODES = ("Both", "Left", "Right")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT, "mode": combo(*cls._MODES)}}

    def run(self, string: str, mode: str) -> tuple[str]:
        """The text without blanks, tabs and line ends there."""
        place = self._MODES.index(chosen(mode, self._MODES, "mode"))
        return ((str.strip, str.lstrip, str.rstrip)[place](string),)


class StringReplace:
    """One text in place of another, wherever it stands."""

    NODE_ID = "StringReplace"
    DISPLAY_NAME = "Replace Text"
    CATEGORY = "text"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT, "find": TEXT, "replace": TEXT}}

    def run(self, string: str, find: str, replace: str) -> tuple[str]:
        """Of ``string``, with nothing else changed.

        Raises:
            NodeInputError: the result would be longer than ``MAX_TEXT``.
        """
        count = string.count(find)
        if len(string) + count * (len(replace) - len(find)) > MAX_TEXT:
            raise NodeInputError(f"{count:,} replacements make the text too long", hint="Make it shorter.")
        return (string.replace(find, replace),)


class StringContains:
    """Whether one text stands in another."""

    NODE_ID = "StringContains"
    DISPLAY_NAME = "Contains Text"
    CATEGORY = "text"
    RETURN_TYPES = ("BOOLEAN",)
    RETURN_NAMES = ("contains",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"string": TEXT, "substring": TEXT, "case_sensitive": _CASE_SENSITIVE}}

    def run(self, string: str, substring: str, case_sensitive: bool) -> tuple[bool]:
        """Whether it does."""
        return (substring in string if case_sensitive else substring.lower() in string.lower(),)


class StringCompare:
    """Whether two texts are equal, or one begins or ends with the other."""

    NODE_ID = "StringCompare"
    DISPLAY_NAME = "Compare Text"
    CATEGORY = "text"
    RETURN_TYPES = ("BOOLEAN",)
    FUNCTION = "run"
    _MODES = ("Starts With", "Ends With", "Equal")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "string_a": TEXT,
                "string_b": TEXT,
                "mode": combo(*cls._MODES),
                "case_sensitive": _CASE_SENSITIVE,
            }
        }

    def run(self, string_a: str, string_b: str, mode: str, case_sensitive: bool) -> tuple[bool]:
        """Whether ``string_a`` does what ``mode`` says with ``string_b``."""
        place = self._MODES.index(chosen(mode, self._MODES, "mode"))
        first, second = (string_a, string_b) if case_sensitive else (string_a.lower(), string_b.lower())
        return ((str.startswith, str.endswith, str.__eq__)[place](first, second),)


class PreviewAny:
    """Any value as text."""

    NODE_ID = "PreviewAny"
    DISPLAY_NAME = "Preview as Text"
    CATEGORY = "utilities"
    RETURN_TYPES = ("STRING",)
    FUNCTION = "run"
    REPORT_OUTPUT = "STRING"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"source": ("*", {})}}

    def run(self, source: Any = None) -> dict[str, Any]:
        """Text as it is, numbers as Python writes them, what JSON can hold as that, and anything else as it prints."""
        text = _as_text(source)
        return {"ui": {"text": (text,)}, "result": (text,)}


def _as_text(value: Any) -> str:
    if value is None or isinstance(value, (str, int, float)):
        return str(value)
    torch = sys.modules.get("torch")  # where it is not, nothing is a tensor
    if torch is not None and isinstance(value, torch.Tensor):
        torch.set_printoptions(edgeitems=6)  # as the host
        try:
            return str(value)
        finally:
            torch.set_printoptions(profile="default")
    try:
        return _checked(json.dumps(value, indent=4, ensure_ascii=False))
    except (TypeError, ValueError, RecursionError):
        return str(value)
