"""One node per stage for weight files of the user's own: any that spandrel knows, put into a model folder."""

from __future__ import annotations

from typing import Any

from ..errors import NodeInputError, PhotokeepError
from ..model_spec import ROLE_TITLES, ModelHandle, Role, socket_type
from ..models import _dropped_in, _network

NOTHING = "(no model file found)"
"""What the list of files holds where there is none: the host needs something to show."""

_WHERE = (
    "ComfyUI's models/upscale_models or models/photokeep, the folder that PHOTOKEEP_MODELS names, or what"
    " `photokeep models path` shows"
)
_NODE_NAMES: dict[Role, str] = {
    "denoise": "Denoise",
    "deblur": "Deblur",
    "jpeg": "JPEG",
    "low_light": "LowLight",
    "upscale": "Upscale",
}


class _FileNode:
    """Base of the generated nodes: names a file, loads nothing."""

    FUNCTION = "run"
    ROLE: Role

    @classmethod
    def INPUT_TYPES(cls) -> dict[str, Any]:
        names = _dropped_in.names() or [NOTHING]
        tooltip = f"A weight file ({', '.join(_dropped_in.SUFFIXES)}) in {_WHERE}."
        return {"required": {"file": (names, {"default": names[0], "tooltip": tooltip})}}

    @classmethod
    def VALIDATE_INPUTS(cls, file: str | None = None) -> bool | str:
        """Whether it can be a file at all; taking ``file`` turns the host's check against the drop-down list off.

        A file that is not there is missing when it is needed, as the weights of any other model.
        """
        if file is None:  # comes from a link, known only when the graph runs
            return True
        try:
            if file == NOTHING:
                raise NodeInputError("no model file is chosen", hint=f"Put one into {_WHERE}, and reload the editor.")
            _dropped_in.check_name(file)
        except PhotokeepError as error:
            return f"{error.message}. {error.hint}"
        return True

    @classmethod
    def IS_CHANGED(cls, file: str | None = None) -> str:
        """Digest of the file: other weights under the same name are another model."""
        if file is None:  # comes from a link, whose value the host does not tell
            return ""
        try:
            return _dropped_in.digest_of(file)
        except (PhotokeepError, OSError) as error:
            return str(error)  # the stage that needs it says so

    @classmethod
    def handle(cls, file: str = "") -> ModelHandle:
        """Name the model that a node with this file stands for; the runner asks without running the node."""
        return _dropped_in.handle_for(cls.ROLE, file)

    def run(self, file: str) -> tuple[ModelHandle]:
        """Hand out the model's name."""
        return (self.handle(file),)


def node_for(role: Role) -> type[_FileNode]:
    """Node class of one stage."""
    title = ROLE_TITLES[role]
    name = f"PhotokeepModelFile{_NODE_NAMES[role]}"
    return type(
        name,
        (_FileNode,),
        {
            "__module__": __name__,
            "__doc__": f"A weight file of the user's own, for {title}.",
            "NODE_ID": name,
            "DISPLAY_NAME": f"Model File ({title})",
            "CATEGORY": f"PhotoKeep/Models/{title}",
            "DESCRIPTION": (
                f"Runs a weight file of your own in {title}, if its network is one that spandrel knows and makes an"
                f" image of an image. Put it into {_WHERE}. Its licence is what its publisher says."
            ),
            "RETURN_TYPES": (socket_type(role),),
            "RETURN_NAMES": ("model",),
            "OUTPUT_TOOLTIPS": (f"Connect to a {title} node. Weights load when that node runs.",),
            "ROLE": role,
        },
    )


NODES: list[type[Any]] = [node_for(role) for role in _network.ROLES]
