"""Nodes that decide."""

from __future__ import annotations

from typing import Any

from photokeep_nodes.errors import NodeInputError

from ._declare import grown


class ComfySwitchNode:
    """One of two values; what the other one comes from need not run."""

    NODE_ID = "ComfySwitchNode"
    DISPLAY_NAME = "If/Else Switch"
    CATEGORY = "utilities/logic"
    RETURN_TYPES = ("COMFY_MATCHTYPE_V3",)
    RETURN_NAMES = ("output",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        side = ("COMFY_MATCHTYPE_V3", {"lazy": True, "template": {"template_id": "switch", "allowed_types": "*"}})
        return {"required": {"switch": ("BOOLEAN", {}), "on_false": side, "on_true": side}}

    @classmethod
    def check_lazy_status(cls, switch: bool, on_false: Any = None, on_true: Any = None) -> list[str]:
        """Which input has to be made before ``run``; none if it is there."""
        name, value = ("on_true", on_true) if switch else ("on_false", on_false)
        return [name] if value is None else []

    def run(self, switch: bool, on_false: Any = None, on_true: Any = None) -> tuple[Any]:
        """``on_true`` if ``switch``, else ``on_false``."""
        return (on_true if switch else on_false,)


class ComfyNotNode:
    """The opposite."""

    NODE_ID = "ComfyNotNode"
    DISPLAY_NAME = "Not"
    CATEGORY = "utilities/logic"
    RETURN_TYPES = ("BOOLEAN",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"value": ("*", {})}}

    def run(self, value: Any) -> tuple[bool]:
        """Whether ``value`` is 0, empty, or nothing."""
        return (not _truth(value),)


class _Several:
    """Base of the nodes that look at any number of values."""

    CATEGORY = "utilities/logic"
    RETURN_TYPES = ("BOOLEAN",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        template = {"input": {"required": {"value": ("*", {})}}, "prefix": "value", "min": 1, "max": 10}
        return {"required": {"values": ("COMFY_AUTOGROW_V3", {"template": template})}}


class ComfyAndNode(_Several):
    """Whether all hold."""

    NODE_ID = "ComfyAndNode"
    DISPLAY_NAME = "And"

    def run(self, **inputs: Any) -> tuple[bool]:
        """Of ``values.value0`` and so on."""
        return (all(_truth(value) for value in grown(inputs, "values")),)


class ComfyOrNode(_Several):
    """Whether any holds."""

    NODE_ID = "ComfyOrNode"
    DISPLAY_NAME = "Or"

    def run(self, **inputs: Any) -> tuple[bool]:
        """Of ``values.value0`` and so on."""
        return (any(_truth(value) for value in grown(inputs, "values")),)


def _truth(value: Any) -> bool:
    """What Python holds a value for; an image is neither true nor false.

    Raises:
        NodeInputError: it is neither.
    """
    try:
        return bool(value)
    except (RuntimeError, ValueError) as error:
        raise NodeInputError(
            f"{type(value).__name__} is neither true nor false", hint="Connect a number, a text or a yes or no."
        ) from error
