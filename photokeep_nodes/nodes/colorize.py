"""Colorize: colour a black-and-white photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch

    from ..ops.colourise import Hints

_PAINTED = 1.5 / 255  # a hint image without a mask counts where it differs from the photo by more than 8 bits round


class Colorize:
    """Predict colours at low resolution and lay them over the photo's own lightness."""

    NODE_ID = "PhotokeepColorize"
    DISPLAY_NAME = "Colorize"
    CATEGORY = "PhotoKeep/Colour"
    DESCRIPTION = (
        "Colours black-and-white and sepia photos. Lightness and detail stay as they are; only colour is added. Photos"
        " that have colour, however faded, pass unchanged unless when = always."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The coloured photo, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "model": (socket_type("colorize"), {"tooltip": "A colouring model, such as siggraph17."}),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 2.0,
                        "step": 0.05,
                        "tooltip": "Saturation: 0 is neutral black and white, 1 as the model sees it, 2 twice that.",
                    },
                ),
                "when": (
                    ["if_gray", "always"],
                    {
                        "default": "if_gray",
                        "tooltip": "if_gray: colour only black-and-white and sepia photos."
                        " always: replace the colours of any photo.",
                    },
                ),
            },
            "optional": {
                "neutralise": (
                    "BOOLEAN",
                    {
                        "default": True,
                        "tooltip": "Show the model a faded photo with the black and the white of a good print. The"
                        " photo's own lightness stays as it is either way.",
                    },
                ),
                "hint_image": (
                    "IMAGE",
                    {
                        "tooltip": "Colours that are known, from Color Hint, or painted on a copy of the photo. Their"
                        " place gets them whatever the model and strength; models that take hints, such as siggraph17,"
                        " colour the rest by them too."
                    },
                ),
                "hint_mask": (
                    "MASK",
                    {"tooltip": "Where the colours count. Without it: where hint_image differs from the photo."},
                ),
            },
        }

    def run(
        self,
        image: torch.Tensor,
        model: ModelHandle,
        strength: float,
        when: str,
        neutralise: bool = True,
        hint_image: torch.Tensor | None = None,
        hint_mask: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor]:
        """Colour (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import host, images, inference
        from ..ops import colour, colourise

        spec = inference.spec_for(model, "colorize")
        batch = images.to_bchw(image)
        hints = _hints(batch, hint_image, hint_mask)
        photos = list(torch.split(batch, 1))
        chosen = [i for i, photo in enumerate(photos) if when == "always" or colour.tones(photo)[0] != "colour"]
        if not chosen:
            return (image,)
        host.check_interrupted()
        side = spec.native_side

        def colour_all(network: inference.Network) -> dict[int, torch.Tensor]:
            progress = host.Progress(len(chosen), "photos")
            coloured = {}
            for i in chosen:
                coloured[i] = colourise.colourise(
                    photos[i],
                    network,
                    net_size=side,
                    strength=strength,
                    neutralise_for_network=neutralise,
                    hints=None if hints is None else hints.of(i),
                    takes_hints=spec.takes_hints,
                )
                progress.advance()
            return coloured

        coloured = inference.run(spec, colour_all, height=side, width=side)
        return (images.to_bhwc(torch.cat([coloured.get(i, photo) for i, photo in enumerate(photos)])),)


def _hints(photos: torch.Tensor, hint_image: torch.Tensor | None, hint_mask: torch.Tensor | None) -> Hints | None:
    """Bring the two inputs to (B, 3, H, W) and (B, 1, H, W).

    Raises:
        NodeInputError: a mask alone, another size or number than the photos'.
    """
    from .. import images
    from ..errors import NodeInputError
    from ..ops import colourise, masks

    if hint_image is None:
        if hint_mask is None:
            return None
        raise NodeInputError(
            "hint_mask says where, but nothing says which colour", hint="Connect hint_image too, as from Color Hint."
        )
    if hint_mask is not None and masks.is_empty_default(masks.from_host(hint_mask)):
        return None  # nobody painted
    painted = images.to_bchw(hint_image)
    count, _, height, width = photos.shape
    if painted.shape[-2:] != (height, width) or painted.shape[0] not in {1, count}:
        raise NodeInputError(
            f"hint_image is {painted.shape[0]} of {painted.shape[-1]} x {painted.shape[-2]} px,"
            f" the photos are {count} of {width} x {height} px",
            hint="Paint the hints on the photo that is coloured, at its size.",
        )
    if hint_mask is None:
        where = ((painted - photos).abs().amax(1, keepdim=True) > _PAINTED).float()
    else:
        where = masks.fit(masks.from_host(hint_mask), count, height, width)
    return colourise.Hints(painted, where)
