"""SaveImage: pictures out of the graph, as PNG files."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

from photokeep_nodes import host
from photokeep_nodes.errors import NodeInputError, PhotoWriteError

from ._checks import checked_image

if TYPE_CHECKING:
    from pathlib import Path

    import numpy as np
    import torch

_COMPRESSION = 4  # the host's
_MOST_TRIES = 1000


class SaveImage:
    """Write each picture of the batch into the output folder, as PNG with 8 bits."""

    NODE_ID = "SaveImage"
    DISPLAY_NAME = "Save Image"
    CATEGORY = "image"
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("images",)
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {"images": ("IMAGE", {}), "filename_prefix": ("STRING", {"default": "ComfyUI"})},
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename_prefix: str | None = None) -> bool:
        """Whether there can be a file of that name, asked before any work.

        Raises:
            PhotoWriteError: there cannot.
        """
        if filename_prefix is not None:  # else it comes from a link, known only when the graph runs
            _expanded(filename_prefix)
        return True

    def run(
        self,
        images: torch.Tensor,
        filename_prefix: str = "ComfyUI",
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Save (B, H, W, C) pictures in [0, 1] as ``PREFIX_00001_.png`` and so on.

        Args:
            images: what lies outside [0, 1] is cut off; values are cut, not rounded, to 8 bits, as in the host.
            filename_prefix: ``/`` makes folders; ``%width%``, ``%height%``, ``%year%`` to ``%second%`` and
                ``%batch_num%`` are filled in. Characters that some file systems do not take become ``_``.
            prompt: the workflow in API form, embedded.
            extra_pnginfo: the editor's workflow, embedded.
        Returns:
            The saved files as the editor shows them, and the pictures.
        Raises:
            PhotoWriteError: a file cannot be written, or its name leads out of the output folder; those before it are
                whole.
        """
        pictures = checked_image(images, "images").float().cpu().numpy()
        texts = _texts({"prompt": prompt, **(extra_pnginfo or {})}) if host.embeds_metadata() else {}
        saved, number = [], 0
        for index, picture in enumerate(pictures):
            host.check_interrupted()
            path, subfolder, number = _store(_png(picture, texts), filename_prefix, picture.shape, index, number + 1)
            saved.append({"filename": path.name, "subfolder": subfolder, "type": "output"})
        return {"ui": {"images": saved}, "result": (images,)}


def _texts(metadata: dict[str, Any]) -> dict[str, str]:
    """What the host embeds: JSON by name."""
    try:
        return {name: json.dumps(value) for name, value in metadata.items() if value is not None}
    except (TypeError, ValueError, RecursionError) as error:
        raise NodeInputError(f"the workflow cannot be embedded: {error}", hint="Save the workflow anew.") from error


def _png(picture: np.ndarray[Any, Any], texts: dict[str, str]) -> bytes:
    """(H, W, C) floats as a PNG file."""
    import io

    from PIL import Image
    from PIL.PngImagePlugin import PngInfo

    from ._resample import eight_bits

    info = PngInfo()
    for name, text in texts.items():
        info.add_text(name.encode("latin-1", "replace").decode("latin-1"), text)
    samples = eight_bits(picture)
    stream = io.BytesIO()
    image = Image.fromarray(samples[..., 0] if samples.shape[2] == 1 else samples)
    image.save(stream, "PNG", pnginfo=info, compress_level=_COMPRESSION)
    return stream.getvalue()


def _store(data: bytes, prefix: str, shape: tuple[int, ...], index: int, least: int) -> tuple[Path, str, int]:
    """Write a file under the next free number.

    Args:
        data: its bytes.
        prefix: the template of its name.
        shape: of the picture.
        index: of the picture in its batch.
        least: smallest number to give it.
    Returns:
        The file, its folder below the output folder, and its number.
    """
    from photokeep_nodes.photo_io.place import store

    folder, stem = _expanded(prefix, width=shape[1], height=shape[0], index=index)
    number = max(least, _highest(host.output_dir() / folder, stem) + 1)
    for _ in range(_MOST_TRIES):
        try:
            path = store(data, host.output_dir(), folder, f"{stem}_{number:05}_", ".png", "refuse")
        except PhotoWriteError as error:
            if "path" not in error.context:  # anything else than that the name was taken, by a faster process
                raise
            number += 1
        else:
            return path, folder, number
    raise PhotoWriteError(f"no free name for {stem!r} was found", hint="Choose another filename_prefix.")


def _expanded(prefix: str, *, width: int = 0, height: int = 0, index: int = 0) -> tuple[str, str]:
    """Folder and name of a picture, as the host would put it; see ``expand_name``."""
    from photokeep_nodes.photo_io import expand_name

    return expand_name(prefix.rstrip("/"), width=width, height=height, index=index, example="ComfyUI")


def _highest(folder: Path, stem: str) -> int:
    """The highest number that a file of this name has; 0 if there is none."""
    highest = 0
    start = f"{stem}_".casefold()
    try:
        names = [each.name for each in folder.iterdir()]
    except OSError:  # not there yet; whatever else is wrong shows when it is written to
        return 0
    for name in names:
        digits = name[len(start) :].split(".")[0].split("_")[0]
        if name.casefold().startswith(start) and digits.isdecimal() and len(digits) < 10:
            highest = max(highest, int(digits))
    return highest
