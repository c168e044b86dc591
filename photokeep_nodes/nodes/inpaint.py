"""Inpaint: fill what a mask marks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import NodeInputError
from ..model_spec import ModelHandle, socket_type

if TYPE_CHECKING:
    import torch

    from ..ops.inpaint import Method


class Inpaint:
    """Fill scratches and tears from what surrounds them."""

    NODE_ID = "PhotokeepInpaint"
    DISPLAY_NAME = "Inpaint"
    CATEGORY = "PhotoKeep/Restore"
    DESCRIPTION = (
        "Fills the marked parts of a photo from what surrounds them. Works without a model, which is enough for thin"
        " scratches and dust; large tears want one. Everything off the mask stays as it is, to the last bit."
    )
    RETURN_TYPES = ("IMAGE",)
    RETURN_NAMES = ("image",)
    OUTPUT_TOOLTIPS = ("The repaired photo, same size.",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {
            "required": {
                "image": ("IMAGE", {"tooltip": "The photo."}),
                "mask": ("MASK", {"tooltip": "White where to fill, such as from Find Scratches. Grays blend."}),
                "method": (
                    ["telea", "ns"],
                    {
                        "default": "telea",
                        "tooltip": "Without a model: telea is smoother, ns carries edges on. With one: not used.",
                    },
                ),
                "feather": (
                    "FLOAT",
                    {
                        "default": 2.0,
                        "min": 0.0,
                        "max": 64.0,
                        "step": 0.5,
                        "tooltip": "Width in pixels of the soft edge around the mask.",
                    },
                ),
                "grain": (
                    "FLOAT",
                    {
                        "default": 0.5,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "How much of the photo's own grain the filled parts get: without, they look waxy.",
                    },
                ),
                "strength": (
                    "FLOAT",
                    {
                        "default": 1.0,
                        "min": 0.0,
                        "max": 1.0,
                        "step": 0.05,
                        "tooltip": "0 keeps the photo, 1 fills the marked parts wholly.",
                    },
                ),
            },
            "optional": {
                "model": (socket_type("inpaint"), {"tooltip": "An inpainting model, such as LaMa."}),
            },
        }

    def run(
        self,
        image: torch.Tensor,
        mask: torch.Tensor,
        method: Method,
        feather: float,
        grain: float,
        strength: float,
        model: ModelHandle | None = None,
    ) -> tuple[torch.Tensor]:
        """Fill (B, H, W, C) in [0, 1] where (B, H, W) is above 0; see INPUT_TYPES."""
        import torch

        from .. import host, images, inference
        from ..ops import inpaint, masks

        spec = None if model is None else inference.spec_for(model, "inpaint")
        photo = images.to_bchw(image)
        marked = masks.fit(masks.from_host(mask), photo.shape[0], *photo.shape[-2:])
        if strength == 0.0 or not bool(marked.any()):
            return (image,)
        inpaint.check(photo, marked)
        marked = masks.feather(marked, feather, "outside") * strength
        if bool(inpaint.unknown_of(marked).flatten(1).all(1).any()):
            raise NodeInputError(
                "with its feather the mask covers the whole photo: there is nothing to fill from", hint="Lower feather."
            )
        host.check_interrupted()
        holes = [inpaint.unknown_of(one) for one in torch.split(marked, 1)]
        if spec is None:
            progress = host.Progress(sum(len(inpaint.classical_regions(one)) for one in holes), "parts")
            filled = inpaint.inpaint_classical(photo, marked, method, grain=grain, after_region=progress.advance)
            return (images.to_bhwc(filled),)
        rules = {"minimum": spec.minimum, "square_side": spec.native_side}
        total = sum(len(inpaint.network_regions(one, **rules)) for one in holes)
        sizes = [inpaint.input_side(one, multiple_of=spec.multiple_of, **rules) for one in holes]

        def fill(network: inference.Network) -> torch.Tensor:
            progress = host.Progress(total, "parts")
            return inpaint.inpaint_with(
                photo,
                marked,
                network,
                multiple_of=network.spec.multiple_of,
                grain=grain,
                after_region=progress.advance,
                **rules,
            )

        height, width = (max(side) for side in zip(*sizes, strict=True))
        return (images.to_bhwc(inference.run(spec, fill, height=height, width=width)),)
