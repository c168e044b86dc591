"""Photos in and out: numpy arrays on this side, files on the other, no torch.

``read_photo`` takes any photo file to float32 sRGB and remembers what the file was; ``write_photo`` gives it back in
that form, atomically. ``find_photo`` and ``list_photos`` keep names inside the folders a user offered.

The names are resolved on first use: a plan only looks files up, and needs neither numpy nor Pillow for that.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .naming import expand_name
    from .paths import find_photo, list_photos
    from .read import Photo, PhotoInfo, read_photo
    from .size import check_size
    from .write import SavedPhoto, write_photo

__all__ = [
    "Photo",
    "PhotoInfo",
    "SavedPhoto",
    "check_size",
    "expand_name",
    "find_photo",
    "list_photos",
    "read_photo",
    "write_photo",
]

_HOMES = {
    "Photo": "read",
    "PhotoInfo": "read",
    "SavedPhoto": "write",
    "check_size": "size",
    "expand_name": "naming",
    "find_photo": "paths",
    "list_photos": "paths",
    "read_photo": "read",
    "write_photo": "write",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f".{_HOMES[name]}", __name__), name)
