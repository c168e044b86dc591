"""Nodes that read picture files."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes import host
from photokeep_nodes.errors import PhotokeepError, PhotoReadError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.photo_io import find_photo, list_photos

from ._checks import chosen

if TYPE_CHECKING:
    from pathlib import Path

    import torch


def find_picture(name: str) -> Path:
    """The file that a name means: in an input folder, or where `` [input]`` or `` [output]`` behind it says.

    Raises:
        PhotoReadError: no such file, not a file, or outside its folder.
    """
    if not isinstance(name, str):
        return find_photo(name, host.input_dirs())  # which says what is wrong with it
    stem, _, folder = name.rpartition("[")
    if folder == "temp]":
        raise PhotoReadError(
            f"{name!r} is a preview of ComfyUI's, which are gone when it ends",
            hint="Save the picture into the input folder, and choose it.",
            photo=name,
        )
    if folder == "output]":
        return find_photo(stem.rstrip(" "), (host.output_dir(),))
    return find_photo(stem.rstrip(" ") if folder == "input]" else name, host.input_dirs())


class LoadImage:
    """A picture file, and what is transparent in it."""

    NODE_ID = "LoadImage"
    DISPLAY_NAME = "Load Image"
    CATEGORY = "image"
    RETURN_TYPES: tuple[str, ...] = ("IMAGE", "MASK")
    FUNCTION = "run"
    FILE_INPUTS: tuple[str, ...] = ("image",)

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"image": (list_photos(host.input_dirs()), {"image_upload": True})}}

    @classmethod
    def VALIDATE_INPUTS(cls, image: str | None = None) -> bool | str:
        """Whether the picture is there; taking ``image`` turns the check against the list of files off."""
        if image is None:  # comes from a link, known only when the graph runs
            return True
        try:
            cls.find_input(image)
        except PhotokeepError as error:
            return f"{error.message}. {error.hint}".rstrip()
        return True

    @classmethod
    def find_input(cls, image: str) -> Path:
        """The file that the widget names, whose content is a part of the stage's key."""
        return find_picture(image)

    @classmethod
    def IS_CHANGED(cls, image: str | None = None) -> str:
        """Digest of the file: another picture under the same name is another input."""
        return "" if image is None else sha256_of(cls.find_input(image))

    def run(self, image: str) -> tuple[torch.Tensor, ...]:
        """Read the file: (B, H, W, 3) and (B, H, W), or (B, 64, 64) zeros without transparency; see ``_decode``.

        Raises:
            PhotoReadError: not found, outside the input folders, no image, damaged, or too large.
        """
        import torch

        from ._decode import read_pictures

        pictures, masks = read_pictures(self.find_input(image))
        return torch.from_numpy(pictures), torch.from_numpy(masks)


class LoadImageMask(LoadImage):
    """One channel of a picture file, as a mask."""

    NODE_ID = "LoadImageMask"
    DISPLAY_NAME = "Load Image (as Mask)"
    RETURN_TYPES = ("MASK",)
    FILE_INPUTS = ()  # it goes with one photo: a batch of photos is not for it, and its content counts by IS_CHANGED
    _CHANNELS = ("alpha", "red", "green", "blue")

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        declared = super().INPUT_TYPES()
        return {"required": {**declared["required"], "channel": (list(cls._CHANNELS),)}}

    def run(self, image: str, channel: str = "alpha") -> tuple[torch.Tensor, ...]:
        """(B, H, W): a colour as it is, or 1 - alpha, (B, 64, 64) zeros without transparency."""
        place = self._CHANNELS.index(chosen(channel, self._CHANNELS, "channel"))
        pictures, masks = super().run(image)
        return (masks if not place else pictures[..., place - 1].clone(),)


class LoadImageOutput(LoadImage):
    """A picture file in the output folder."""

    NODE_ID = "LoadImageOutput"
    DISPLAY_NAME = "Load Image (from Outputs)"
    FILE_INPUTS = ()  # what was made before is no photo that is fed in

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        remote = {"route": "/internal/files/output", "refresh_button": True, "control_after_refresh": "first"}
        return {"required": {"image": ("COMBO", {"image_upload": True, "image_folder": "output", "remote": remote})}}
