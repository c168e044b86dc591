"""ComfyUI's own nodes that restoration workflows use, for runs without a ComfyUI.

Each class declares what the host's ``/object_info`` says of it, since saved widget values go by position, and gives the
host's pixels; ``tests/headless/core_nodes`` holds them to both. Written from the host's behaviour (ComfyUI 0.33), not
from its code. They are the runner's alone: inside ComfyUI the host has its own.

A module here is a subject; modules with a leading underscore are helpers. Inputs that grow or unfold in the editor
arrive under their flat names, such as ``images.image0`` and ``resize_type.width``.
"""

from __future__ import annotations

import sys
from functools import cache
from typing import Any

from photokeep_nodes import discover


@cache
def node_classes() -> dict[str, type[Any]]:
    """The node classes, by the class type that workflow files name.

    Raises:
        RuntimeError: two classes share a class type.
    """
    return discover(sys.modules[__name__])


def display_names() -> dict[str, str]:
    """The titles that the editor gives new nodes, by class type."""
    return {class_type: cls.DISPLAY_NAME for class_type, cls in node_classes().items()}
