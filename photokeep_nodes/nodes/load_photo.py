"""LoadPhoto: a photo file into the graph, with what it was."""

from __future__ import annotations

import hashlib
import logging
from typing import TYPE_CHECKING, Any

from .. import host
from ..errors import PhotokeepError
from ..photo_io import find_photo, list_photos

if TYPE_CHECKING:
    import torch

_SAMPLE = "old_portrait"
_log = logging.getLogger(__name__)


class LoadPhoto:
    """Read a photo upright, in sRGB, with its metadata beside it."""

    NODE_ID = "PhotokeepLoadPhoto"
    DISPLAY_NAME = "Load Photo"
    CATEGORY = "PhotoKeep/Photo"
    DESCRIPTION = (
        "Reads JPEG, PNG, TIFF, WebP, GIF and BMP with 8 or 16 bits. The photo comes upright and in sRGB; EXIF, colour"
        " profile, resolution and bit depth travel in photo_info, from which Save Photo restores them."
    )
    RETURN_TYPES = ("IMAGE", "MASK", "PHOTOKEEP_PHOTO_INFO")
    RETURN_NAMES = ("image", "mask", "photo_info")
    OUTPUT_TOOLTIPS = (
        "The photo.",
        "What is transparent: 1 where nothing is to be seen. Empty for photos without transparency.",
        "What the file was: connect it to Save Photo to keep metadata, colour profile, bit depth and name.",
    )
    FUNCTION = "run"
    FILE_INPUTS = ("photo",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = list_photos(host.input_dirs())
        options: dict[str, Any] = {"image_upload": True, "tooltip": "A photo in the input folder, or one you upload."}
        if sample := next((name for name in names if name.rsplit(".", 1)[0] == _SAMPLE), None):
            options["default"] = sample
        return {
            "required": {
                "photo": (names, options),
                "on_damage": (
                    ["refuse", "accept"],
                    {
                        "default": "refuse",
                        "tooltip": "What to do with a file that is cut off or broken: stop, or use what can be read.",
                    },
                ),
            }
        }

    @classmethod
    def VALIDATE_INPUTS(cls, photo: str | None = None) -> bool | str:
        """Whether the photo is there; taking ``photo`` turns the host's check against the drop-down list off."""
        if photo is None:  # comes from a link, known only when the graph runs
            return True
        try:
            find_photo(photo, host.input_dirs())
        except PhotokeepError as error:
            return f"{error.message}. {error.hint}".rstrip()
        return True

    @classmethod
    def IS_CHANGED(cls, photo: str, on_damage: str = "refuse") -> str:
        """Digest of the file: another photo under the same name is another input."""
        digest = hashlib.sha256()
        with find_photo(photo, host.input_dirs()).open("rb") as file:
            while chunk := file.read(1 << 20):
                digest.update(chunk)
        return digest.hexdigest()

    def run(self, photo: str, on_damage: str) -> tuple[torch.Tensor, torch.Tensor, dict[str, Any]]:
        """Read the photo: (1, H, W, 3) image, (1, H, W) mask or 64 x 64 zeros, and its info.

        Raises:
            PhotoReadError: not found, outside the input folders, no image, damaged, or too large.
        """
        import torch

        from ..photo_io import read_photo

        loaded = read_photo(find_photo(photo, host.input_dirs()), on_damage=on_damage)
        for warning in loaded.info["warnings"]:
            _log.warning("%s: %s", photo, warning)
        image = torch.from_numpy(loaded.pixels)[None]
        # 64 x 64 zeros are the host's way to say "no transparency".
        mask = torch.zeros(1, 64, 64) if loaded.alpha is None else 1.0 - torch.from_numpy(loaded.alpha)[None]
        return image, mask, dict(loaded.info)
