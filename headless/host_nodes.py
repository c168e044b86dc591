"""Node classes that are not ours: what to tell a user whose workflow has one."""

from __future__ import annotations

import difflib
import re
from typing import TYPE_CHECKING

from .graph import WorkflowNode, printable

if TYPE_CHECKING:
    from collections.abc import Iterable

# Those that core_nodes remakes are never asked about: they are known.
_NAMES = """
KSampler KSamplerAdvanced CheckpointLoaderSimple CLIPTextEncode CLIPSetLastLayer VAEDecode VAEEncode VAELoader
VAEEncodeForInpaint VAEDecodeTiled VAEEncodeTiled EmptyLatentImage LatentUpscale LatentUpscaleBy LoraLoader
LoraLoaderModelOnly UNETLoader CLIPLoader DualCLIPLoader ControlNetLoader ControlNetApply ControlNetApplyAdvanced
ImageQuantize SetLatentNoiseMask LoadVideo SaveVideo CreateVideo LoadAudio SaveAudio SaveImageWebsocket
SaveAnimatedWEBP SaveAnimatedPNG Canny InpaintModelConditioning DifferentialDiffusion FluxGuidance ModelSamplingFlux
"""

CORE_NODES = frozenset(_NAMES.split())
"""ComfyUI's own nodes that restoration workflows use, to tell them from those of other packs."""

_UUID = re.compile("[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
"""What the editor calls the classes of subgraphs."""

OUR_PREFIX = "Photokeep"
"""How the classes of Photokeep's own nodes begin."""

CORE_PACK = "comfy-core"
"""What the editor's files call ComfyUI itself where they name a node's pack."""


def unknown_class_hint(node: WorkflowNode, known: Iterable[str]) -> str:
    """What to do about a node whose class is not known here.

    Args:
        node: the node.
        known: ids of the classes that are.
    """
    known = list(known)
    if _UUID.fullmatch(node.class_type):
        return "It is a subgraph whose definition is not in the file. Open it where it was made, and save it again."
    if node.class_type.startswith(OUR_PREFIX):
        return "It is Photokeep's own: that ComfyUI does not have Photokeep's nodes, or not this version of them."
    if node.pack == CORE_PACK or node.class_type in CORE_NODES:
        return "It is one of ComfyUI's own nodes, and none of those that can be run without ComfyUI."
    if close := difflib.get_close_matches(node.class_type, known, n=3, cutoff=0.7):
        return f"Did you mean {' or '.join(close)}?"
    pack = f" ({printable(node.pack)})" if node.pack else ""
    allow = "If the pack needs no ComfyUI and you trust it, photokeep-run --allow-pack PATH runs its code."
    return f"It comes from another node pack{pack}, which is not part of Photokeep. {allow}"
