"""One node per model of the catalogue, made from its SPEC."""

from __future__ import annotations

from typing import Any

from .. import weights
from ..model_spec import ROLE_TITLES, ModelHandle, ModelSpec, socket_type
from ..models import catalogue

_TILE = 512  # px a side, of the tile whose memory is told


def describe(spec: ModelSpec) -> str:
    """Role, licence, size, memory and where to get it, in one tooltip."""
    file = spec.weights[0]
    terms = f"{file.licence.id}, {'commercial use allowed' if file.licence.commercial else 'NON-COMMERCIAL'}"
    note = f" ({file.licence.note})" if file.licence.note else ""
    tile = min(_TILE, spec.best_tile or _TILE)
    memory = (spec.weight_bytes + spec.bytes_per_pixel * tile * tile) / 1e6
    code = f" The network's code comes apart: pip install '{spec.requirement}'." if spec.requirement else ""
    slider = f" {spec.blend.widget}: {spec.blend.tooltip}" if spec.blend is not None else ""
    return (
        f"{spec.description}{slider} Role: {ROLE_TITLES[spec.role]}. Licence: {terms}{note}."
        f" File: {file.size_bytes / 1e6:.1f} MB. About {memory:.0f} MB of memory on a {tile} px tile."
        f" Get it: {weights.install_command(spec)}.{code}"
    )


class _Description:
    """What the editor shows of a model: `describe`, and whether it can be used now, looked up each time it is read."""

    def __get__(self, _node: object, node_class: type[_ModelNode]) -> str:
        spec = node_class.SPEC
        installed = weights.status(spec).state == "installed"
        return f"{describe(spec)} Installed: {'yes' if installed else 'no'}."


class _ModelNode:
    """Base of the generated nodes: names a model, loads nothing."""

    DESCRIPTION = _Description()
    FUNCTION = "run"
    SPEC: ModelSpec

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        blend = cls.SPEC.blend
        if blend is None:
            return {"required": {}}
        slider = {"default": blend.default, "min": 0.0, "max": 1.0, "step": 0.05, "tooltip": blend.tooltip}
        return {"required": {}, "optional": {blend.widget: ("FLOAT", slider)}}

    @classmethod
    def handle(cls, **widgets: float) -> ModelHandle:
        """Name the model that a node with these widget values stands for; the runner asks without running the node."""
        blend = cls.SPEC.blend
        if blend is None:
            return ModelHandle(cls.SPEC.id)
        return ModelHandle(cls.SPEC.id, blend.share(float(widgets.get(blend.widget, blend.default))))

    def run(self, **widgets: float) -> tuple[ModelHandle]:
        """Hand out the model's name."""
        return (self.handle(**widgets),)


def node_for(spec: ModelSpec) -> type[_ModelNode]:
    """Node class of one model."""
    return type(
        f"PhotokeepModel{spec.node_name}",
        (_ModelNode,),
        {
            "__module__": __name__,
            "__doc__": spec.description,
            "NODE_ID": f"PhotokeepModel{spec.node_name}",
            "DISPLAY_NAME": f"{spec.title} ({ROLE_TITLES[spec.role]})",
            "CATEGORY": f"PhotoKeep/Models/{ROLE_TITLES[spec.role]}",
            "RETURN_TYPES": (socket_type(spec.role),),
            "RETURN_NAMES": ("model",),
            "OUTPUT_TOOLTIPS": (f"Connect to a {ROLE_TITLES[spec.role]} node. Weights load when that node runs.",),
            "SPEC": spec,
        },
    )


NODES: list[type[Any]] = [node_for(spec) for spec in catalogue().values()]
