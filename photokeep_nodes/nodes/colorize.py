"""Colorize: colour a black-and-white photo."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch

_NET_SIZE = 256  # side at which the colour networks of the catalogue were trained


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
            }
        }

    def run(self, image: torch.Tensor, model: ModelHandle, strength: float, when: str) -> tuple[torch.Tensor]:
        """Colour (B, H, W, C) in [0, 1]; see INPUT_TYPES."""
        import torch

        from .. import host, images, inference
        from ..ops import colour

        spec = inference.spec_for(model, "colorize")
        photos = list(torch.split(images.to_bchw(image), 1))
        chosen = [i for i, photo in enumerate(photos) if when == "always" or colour.tones(photo)[0] != "colour"]
        if not chosen:
            return (image,)
        host.check_interrupted()

        def colour_all(network: inference.Network) -> dict[int, torch.Tensor]:
            progress = host.Progress(len(chosen), "photos")
            coloured = {}
            for i in chosen:
                coloured[i] = colour.colourise(photos[i], network, net_size=_NET_SIZE, strength=strength)
                progress.advance()
            return coloured

        coloured = inference.run(spec, colour_all, height=_NET_SIZE, width=_NET_SIZE)
        return (images.to_bhwc(torch.cat([coloured.get(i, photo) for i, photo in enumerate(photos)])),)
