"""What a stage's outputs depend on, by name: the parts its key is made of, and by which a rerun is explained."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from photokeep_nodes import host, models, photo_io, weights
from photokeep_nodes.files import sha256_of

from . import artefact
from .fingerprint import code_digest, device_class, digest_of, library_versions, precision_class
from .graph import Link

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelHandle

    from .plan import Stage
    from .schema import NodeSchema

ALWAYS_NEW = "always new"
"""In place of a digest: nothing the stage returns may be kept."""


def stage_parts(
    stage: Stage,
    schema: NodeSchema,
    *,
    digests: Mapping[str, tuple[str, ...]],
    hidden: Mapping[str, Any],
    device: str,
) -> dict[str, Any]:
    """Everything the stage's outputs depend on; the values are digests or plain.

    Args:
        stage: the stage.
        schema: its class.
        digests: of the outputs of each stage before it, by stage id.
        hidden: what hidden inputs hold, by kind; those not here (the node's own id) change no output.
        device: "auto", "cpu" or "cuda:N".
    Raises:
        PhotoReadError: an input photo is not there.
        OSError: it cannot be read.
    """
    inputs: dict[str, Any] = {}
    for name, value in stage.inputs.items():
        if isinstance(value, Link):
            inputs[name] = digests[value.node_id][value.output_index]
        elif name in schema.file_inputs:
            path = _input_file(schema, value)
            inputs[name] = digest_of({"name": path.name, "sha256": sha256_of(path)})
        else:
            inputs[name] = digest_of(value)
    for name, kind in schema.hidden.items():
        if kind in hidden:
            inputs[name] = digest_of(hidden[kind])
    precision = precision_class(device)
    return {
        "node": stage.class_type,
        "code": code_digest(schema.node_class.__module__) if schema.node_class is not None else "",
        "input": inputs,
        "outside": _outside(schema, stage),
        "device": device_class(device),
        **({"precision": precision} if precision else {}),
        "library version": library_versions(),
    }


def _input_file(schema: NodeSchema, name: str) -> Path:
    """The photo that a widget names; a node class that understands more than names in the input folders finds it."""
    find = getattr(schema.node_class, "find_input", None)
    found: Path = find(name) if find is not None else photo_io.find_photo(name, host.input_dirs())
    return found


def model_digest(handle: ModelHandle) -> str:
    """Digest of a model stage's output: the name, the weights and the code behind a handle."""
    spec = models.get(handle)
    content = f"{weights.digest(spec)} {code_digest(models.module_of(spec.network_id))}"
    found = artefact.encode(handle, model_digest=content)
    return found.digest if found is not None else content


def _outside(schema: NodeSchema, stage: Stage) -> str:
    """Ask the node, as the host does, whether something outside its inputs has changed.

    Returns:
        What belongs into the key: the digest of what ``IS_CHANGED`` says, or ``ALWAYS_NEW`` for NaN, which differs
        from itself.
    """
    is_changed = getattr(schema.node_class, "IS_CHANGED", None)
    if is_changed is None or schema.file_inputs:  # the content of files is a part of the key of its own
        return ""
    wanted = inspect.signature(is_changed).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values())
    widgets = {n: v for n, v in stage.inputs.items() if not isinstance(v, Link) and (takes_all or n in wanted)}
    answer = is_changed(**widgets)
    if isinstance(answer, float) and math.isnan(answer):
        return ALWAYS_NEW
    return digest_of(str(answer))
