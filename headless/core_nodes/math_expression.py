"""ComfyMathExpression: arithmetic on values that are linked in."""

from __future__ import annotations

import string
from typing import Any

from photokeep_nodes.errors import NodeInputError

from ._expression import evaluate

_LETTERS = list(string.ascii_lowercase)


class ComfyMathExpression:
    """Compute with numbers that are linked in as a, b, c and so on."""

    NODE_ID = "ComfyMathExpression"
    DISPLAY_NAME = "Math Expression"
    CATEGORY = "utilities"
    RETURN_TYPES = ("FLOAT", "INT", "BOOLEAN")
    RETURN_NAMES = ("FLOAT", "INT", "BOOL")
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        template = {"input": {"required": {"value": ("FLOAT,INT,BOOLEAN", {})}}, "names": _LETTERS, "min": 1}
        return {
            "required": {
                "expression": ("STRING", {"default": "a + b", "multiline": True}),
                "values": ("COMFY_AUTOGROW_V3", {"template": template}),
            }
        }

    def run(self, expression: str, **inputs: Any) -> tuple[float, int, bool]:
        """The value as a number, cut down to a whole one, and whether it is not 0.

        Args:
            expression: see ``_expression``.
            inputs: ``values.a`` and so on.
        Raises:
            NodeInputError: it cannot be computed, or an input is no number.
        """
        names = {
            letter: inputs[f"values.{letter}"] for letter in _LETTERS if inputs.get(f"values.{letter}") is not None
        }
        for letter, value in names.items():
            if not isinstance(value, (int, float)):
                raise NodeInputError(f"{letter} must be a number, not {type(value).__name__}", hint="Connect a number.")
        result = evaluate(expression, names)
        return float(result), int(result), bool(result)
