"""SavePhoto: a picture out of the graph, as the photo it came from."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Any

from .. import host
from ..errors import NodeInputError, PhotoWriteError

if TYPE_CHECKING:
    import torch

_log = logging.getLogger(__name__)


class SavePhoto:
    """Write each picture of the batch into the output folder."""

    NODE_ID = "PhotokeepSavePhoto"
    DISPLAY_NAME = "Save Photo"
    CATEGORY = "PhotoKeep/Photo"
    DESCRIPTION = (
        "Saves as PNG, JPEG, WebP or TIFF. With photo_info connected, EXIF, colour profile, resolution, 16 bits and"
        " gray are kept as they were. The workflow is embedded in the file. Nothing is overwritten unless you say so."
    )
    RETURN_TYPES = ()
    RETURN_NAMES = ()
    OUTPUT_TOOLTIPS = ()
    FUNCTION = "run"
    OUTPUT_NODE = True

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The picture, or a batch of them."}),
                "filename": (
                    "STRING",
                    {
                        "default": "%photo%_restored",
                        "tooltip": "Name without extension, in the output folder; album/%photo% makes a folder. Known:"
                        " %photo% (the source's name), %date%, %time%, %width%, %height%, %batch_num%.",
                    },
                ),
                "format": (
                    ["png", "jpeg", "webp", "tiff"],
                    {"default": "png", "tooltip": "PNG and TIFF lose nothing and hold 16 bits."},
                ),
                "bit_depth": (
                    ["auto", "8", "16"],
                    {"default": "auto", "tooltip": "auto: 16 where the source had 16 and the format can hold them."},
                ),
                "quality": (
                    "INT",
                    {
                        "default": 95,
                        "min": 1,
                        "max": 100,
                        "step": 1,
                        "tooltip": "For JPEG and WebP. WebP at 100 loses nothing; JPEG keeps full colour from 90 on.",
                    },
                ),
                "if_exists": (
                    ["number", "overwrite", "refuse"],
                    {
                        "default": "number",
                        "tooltip": "When the name is taken: append a number, replace the file, or stop.",
                    },
                ),
            },
            "optional": {
                "photo_info": ("PHOTOKEEP_PHOTO_INFO", {"tooltip": "From Load Photo: what the photo was."}),
                "mask": ("MASK", {"tooltip": "What is to be transparent, as from Load Photo; scaled to the picture."}),
            },
            "hidden": {"prompt": "PROMPT", "extra_pnginfo": "EXTRA_PNGINFO"},
        }

    @classmethod
    def VALIDATE_INPUTS(cls, filename: str | None = None) -> bool | str:
        """Whether there can be a file of that name, asked before any work."""
        from ..photo_io import expand_name

        if filename is None:  # comes from a link, known only when the graph runs
            return True
        try:
            expand_name(filename)
        except PhotoWriteError as error:
            return f"{error.message}. {error.hint}"
        return True

    def run(
        self,
        image: torch.Tensor,
        filename: str,
        format: str,  # noqa: A002 - the input's name
        bit_depth: str,
        quality: int,
        if_exists: str,
        photo_info: dict[str, Any] | None = None,
        mask: torch.Tensor | None = None,
        prompt: Any = None,
        extra_pnginfo: dict[str, Any] | None = None,
    ) -> dict[str, Any]:
        """Save (B, H, W, C) pictures in [0, 1]; see INPUT_TYPES.

        Returns:
            The saved files as the editor shows them.

        Raises:
            PhotoWriteError: a file cannot be written; those before it are whole.
            NodeInputError: the mask's batch is not the image's.
        """
        from ..photo_io import write_photo

        if image.ndim != 4 or image.shape[-1] not in (1, 3, 4):
            raise NodeInputError(
                f"an image must be (batch, height, width, 1, 3 or 4 channels), not {tuple(image.shape)}",
                hint="Connect an IMAGE output here.",
            )
        covers = _covers(image, mask, photo_info)
        metadata = {"prompt": prompt, **(extra_pnginfo or {})} if host.embeds_metadata() else {}
        saved = []
        for index, picture in enumerate(image.detach().float().cpu().numpy()):
            host.check_interrupted()
            # Numbers find a name for each picture of a batch; the other choices would hit the first one again.
            alone = index == 0 or if_exists == "number" or "%batch_num%" in filename
            file = write_photo(
                picture[..., :3],
                host.output_dir(),
                filename if alone else f"{filename}_{index + 1}",
                format=format,
                info=photo_info,
                alpha=None if covers is None else covers[index % len(covers)],
                bit_depth=bit_depth,
                quality=quality,
                if_exists=if_exists,
                metadata=metadata,
                index=index,
            )
            for warning in file.warnings:
                _log.warning("%s: %s", file.filename, warning)
            saved.append({"filename": file.filename, "subfolder": file.subfolder, "type": "output"})
        return {"ui": {"images": saved}, "result": ()}


def _covers(image: torch.Tensor, mask: torch.Tensor | None, info: dict[str, Any] | None) -> Any:
    """Alpha of each picture, (B or 1, h, w) with 1 opaque; None if there is no transparency to save."""
    if mask is None:
        return image[..., 3].detach().float().cpu().numpy() if image.shape[-1] == 4 else None
    if mask.ndim == 2:
        mask = mask[None]
    if mask.ndim != 3 or mask.shape[0] not in (1, image.shape[0]):
        raise NodeInputError(
            f"a mask of the shape {tuple(mask.shape)} does not fit {image.shape[0]} pictures",
            hint="Connect the mask that belongs to the image, or none.",
        )
    if not mask.any() and not (info or {}).get("has_alpha"):
        return None  # Load Photo's way to say that there is none
    return 1.0 - mask.detach().float().cpu().numpy()
