"""Photo restoration nodes for ComfyUI and for the headless runner.

The mappings are made on first use: whoever needs only the errors or the memory pool does not import every node.
"""

from __future__ import annotations

import importlib
import inspect
import pkgutil
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from types import ModuleType

__all__ = ["NODE_CLASS_MAPPINGS", "NODE_DISPLAY_NAME_MAPPINGS"]

NODE_CLASS_MAPPINGS: dict[str, type[Any]]
"""Node id to V1 node class, the name ComfyUI looks for."""

NODE_DISPLAY_NAME_MAPPINGS: dict[str, str]
"""Node id to the title people see."""


def _node_classes(module: ModuleType) -> list[type[Any]]:
    """Classes a file of ``nodes/`` offers: its ``NODES`` where it builds them, else those it defines with a NODE_ID."""
    if (built := getattr(module, "NODES", None)) is not None:
        return list(built)
    # Own __dict__ and own module: a base class's id or an imported class must not count twice.
    return [
        cls
        for cls in vars(module).values()
        if inspect.isclass(cls) and cls.__module__ == module.__name__ and "NODE_ID" in vars(cls)
    ]


def discover(package: ModuleType) -> dict[str, type[Any]]:
    """Collect the node classes of every module in ``package``; names with a leading underscore are helpers.

    Returns:
        Node id to class, in the order of the file names.
    Raises:
        RuntimeError: two classes share an id; the message names both.
    """
    found: dict[str, type[Any]] = {}
    for info in sorted(pkgutil.iter_modules(package.__path__), key=lambda entry: entry.name):
        if info.name.startswith("_"):
            continue
        for cls in _node_classes(importlib.import_module(f"{package.__name__}.{info.name}")):
            other = found.setdefault(cls.NODE_ID, cls)
            if other is not cls:
                raise RuntimeError(
                    f"two nodes have the id {cls.NODE_ID!r}: "
                    f"{other.__module__}.{other.__qualname__} and {cls.__module__}.{cls.__qualname__}"
                )
    return found


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    # Relative: ComfyUI loads a cloned pack under a name made from its path.
    classes = discover(importlib.import_module(".nodes", __name__))
    made = {
        "NODE_CLASS_MAPPINGS": classes,
        "NODE_DISPLAY_NAME_MAPPINGS": {node_id: cls.DISPLAY_NAME for node_id, cls in classes.items()},
    }
    globals().update(made)
    return made[name]
