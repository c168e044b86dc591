"""Nodes that name an upscale model and run it."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes import host, models
from photokeep_nodes.errors import NodeInputError, PhotokeepError
from photokeep_nodes.model_spec import ModelHandle

from ._checks import check_size, checked_image
from ._declare import IMAGE, combo

if TYPE_CHECKING:
    import torch

    from photokeep_nodes import inference
    from photokeep_nodes.model_spec import ModelSpec


class UpscaleModelLoader:
    """Name a weight file in the model folders; nothing is loaded before it is used."""

    NODE_ID = "UpscaleModelLoader"
    DISPLAY_NAME = "Load Upscale Model"
    CATEGORY = "model/loaders"
    RETURN_TYPES = ("UPSCALE_MODEL",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"model_name": combo(*models.file_names())}}

    @classmethod
    def VALIDATE_INPUTS(cls, model_name: str | None = None) -> bool | str:
        """Whether it can be a file at all; one that is not there is missing when it is needed, with what to do."""
        if model_name is None:  # comes from a link, known only when the graph runs
            return True
        try:
            models.check_file_name(model_name)
        except PhotokeepError as error:
            return f"{error.message}. {error.hint}"
        return True

    @classmethod
    def handle(cls, model_name: str | None = None) -> ModelHandle | None:
        """Name the model, for which the runner asks without running the node; None while a link has yet to say it."""
        return None if model_name is None else models.upscaler_named(model_name)

    def run(self, model_name: str) -> tuple[ModelHandle]:
        """Hand out the model's name."""
        return (models.upscaler_named(model_name),)


class ImageUpscaleWithModel:
    """Enlarge pictures with an upscale model."""

    NODE_ID = "ImageUpscaleWithModel"
    DISPLAY_NAME = "Upscale Image (using Model)"
    CATEGORY = "image/upscaling"
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "run"

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {"upscale_model": ("UPSCALE_MODEL", {}), "image": IMAGE}}

    def run(self, upscale_model: Any, image: torch.Tensor) -> tuple[torch.Tensor]:
        """Enlarge (B, H, W, 3) by the model's scale, in float32 and in the host's tiles; see ``_tiles``.

        Raises:
            WeightsError: the weights are missing, damaged or of another architecture.
            VramError: not even the smallest tile fits anywhere.
            NodeInputError: no such model, gray or transparent pictures, or a result that is not finite.
        """
        import torch

        from photokeep_nodes import inference
        from photokeep_nodes.images import to_bhwc

        from . import _tiles

        spec = _spec_of(upscale_model)
        image = checked_image(image)
        batch, height, width, channels = image.shape
        if channels != 3 or spec.channels != 3:
            raise NodeInputError(
                f"{spec.title} takes {spec.channels} channels, the picture has {channels}, and colour is run here",
                hint="Take transparency off with Split Image with Alpha; gray networks run in Photokeep's Upscale.",
            )
        check_size(batch, height * spec.scale, width * spec.scale)
        planes = image.movedim(-1, 1).float()  # BHWC -> BCHW
        bar = host.Progress(1, "tiles")

        def attempt(network: inference.Network, tile: int) -> torch.Tensor:
            bar.restart(batch * _tiles.count(height, width, tile))

            def run_tile(part: torch.Tensor) -> torch.Tensor:
                result = _enlarged(network, part)
                bar.advance()
                return result

            return torch.cat([_tiles.upscaled(each, run_tile, tile, spec.scale) for each in torch.split(planes, 1)])

        large = inference.run_on_ladder(
            spec, attempt, _tiles.SIDES, lambda tile: (min(tile, height), min(tile, width)), torch.float32
        )
        return (to_bhwc(large),)


def _spec_of(model: Any) -> ModelSpec:
    """The model behind what a node named, or what a Photokeep model was lent as."""
    if isinstance(model, ModelHandle):
        return models.get(model)
    from photokeep_nodes import exchange

    return exchange.borrowed(model)


def _enlarged(network: inference.Network, part: torch.Tensor) -> torch.Tensor:
    """One tile (1, 3, H, W) through the network, cut off at 0 and 1 and on the CPU."""
    import torch

    from . import _tiles

    spec = network.spec
    smallest, multiple = getattr(network.module, "smallest", (spec.minimum, spec.multiple_of))
    height, width = (each * spec.scale for each in part.shape[-2:])
    large = network(_tiles.padded(part, smallest, multiple))[..., :height, :width]
    if not bool(torch.isfinite(large).all()):
        raise NodeInputError(
            f"{spec.title} returned values that are not numbers", hint="Its weights do not suit this photo."
        )
    return large.clamp(0.0, 1.0).cpu()
