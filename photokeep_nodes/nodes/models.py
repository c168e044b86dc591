"""One node per model of the catalogue, made from its SPEC."""

from __future__ import annotations

from typing import Any

from .. import weights
from ..model_spec import ModelHandle, ModelSpec, socket_type
from ..models import catalogue

_ROLE_TITLES = {
    "denoise": "Denoise",
    "low_light": "Low Light",
    "upscale": "Upscale",
    "face_detect": "Face Detection",
    "face_restore": "Face Restore",
    "colorize": "Colorize",
}


def describe(spec: ModelSpec) -> str:
    """Role, licence, size and memory in one tooltip."""
    file = spec.weights[0]
    terms = f"{file.licence.id}, {'commercial use allowed' if file.licence.commercial else 'NON-COMMERCIAL'}"
    memory = spec.weight_bytes / 1e6 + spec.bytes_per_pixel * 512 * 512 / 1e6
    return (
        f"{spec.description} Role: {spec.role.replace('_', ' ')}. Licence: {terms}."
        f" File: {file.size_bytes / 1e6:.1f} MB. About {memory:.0f} MB of memory on a 512 px tile."
        f" Get it: {weights.install_command(spec)}"
    )


class _ModelNode:
    """Base of the generated nodes: names a model, loads nothing."""

    CATEGORY = "PhotoKeep/Models"
    FUNCTION = "run"
    MODEL_ID: str

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        return {"required": {}}

    def run(self) -> tuple[ModelHandle]:
        """Hand out the model's name."""
        return (ModelHandle(self.MODEL_ID),)


def node_for(spec: ModelSpec) -> type[_ModelNode]:
    """Node class of one model."""
    return type(
        f"PhotokeepModel{spec.node_name}",
        (_ModelNode,),
        {
            "__module__": __name__,
            "__doc__": spec.description,
            "NODE_ID": f"PhotokeepModel{spec.node_name}",
            "DISPLAY_NAME": f"{spec.title} ({_ROLE_TITLES[spec.role]})",
            "DESCRIPTION": describe(spec),
            "RETURN_TYPES": (socket_type(spec.role),),
            "RETURN_NAMES": ("model",),
            "OUTPUT_TOOLTIPS": (f"Connect to a {_ROLE_TITLES[spec.role]} node. Weights load when that node runs.",),
            "MODEL_ID": spec.id,
        },
    )


NODES: list[type[Any]] = [node_for(spec) for spec in catalogue().values()]
