"""What a stage's outputs depend on, by name: the parts its key is made of, and by which a rerun is explained."""

from __future__ import annotations

import inspect
import math
from typing import TYPE_CHECKING, Any

from photokeep_nodes import host, models, photo_io, weights
from photokeep_nodes.errors import PhotokeepError
from photokeep_nodes.files import sha256_of

from . import artefact
from .fingerprint import code_digest, device_class, digest_of, library_versions, precision_class
from .graph import Link

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

    from photokeep_nodes.model_spec import ModelHandle

    from .packs import Pack
    from .plan import Stage
    from .schema import NodeSchema

ALWAYS_NEW = "always new"
"""In place of a digest: nothing the stage returns may be kept."""


class HiddenInputs:
    """What hidden inputs hold, by kind. A whole workflow is digested once, not for each stage that embeds it.

    Args:
        prompt: the workflow in API form.
        extra_pnginfo: the editor's own graph.
    """

    def __init__(self, prompt: Mapping[str, Any], extra_pnginfo: Mapping[str, Any]) -> None:
        self.values = {"PROMPT": dict(prompt), "EXTRA_PNGINFO": dict(extra_pnginfo), "DYNPROMPT": dict(prompt)}
        self._digests: dict[str, str] = {}

    def digest(self, kind: str) -> str:
        """Digest of what inputs of a kind hold."""
        if kind not in self._digests:
            self._digests[kind] = digest_of(self.values[kind])
        return self._digests[kind]


def stage_parts(
    stage: Stage,
    schema: NodeSchema,
    *,
    digests: Mapping[str, tuple[str, ...]],
    hidden: HiddenInputs,
    device: str,
    pack: Pack | None = None,
) -> dict[str, Any]:
    """Everything the stage's outputs depend on; the values are digests or plain.

    Args:
        stage: the stage.
        schema: its class.
        digests: of the outputs of each stage before it, by stage id.
        hidden: what hidden inputs hold; kinds that are not there (the node's own id) change no output.
        device: "auto", "cpu" or "cuda:N".
        pack: the node pack of others that the class comes from.
    Raises:
        PhotoReadError: an input photo is not there.
        OSError: it cannot be read.
    """
    inputs: dict[str, Any] = {}
    for name, value in stage.inputs.items():
        if isinstance(value, Link):
            inputs[name] = digests[value.node_id][value.output_index]
        elif name in schema.file_inputs:
            path = input_file(schema, value)
            inputs[name] = digest_of({"name": path.name, "sha256": sha256_of(path)})
        else:
            inputs[name] = digest_of(value)
    for name, kind in schema.hidden.items():
        if kind in hidden.values:
            inputs[name] = hidden.digest(kind)
    precision = precision_class(device)
    return {
        "node": stage.class_type,
        "code": _code(schema, pack),
        "input": inputs,
        "outside": _outside(schema, stage, hidden.values, pack),
        "device": device_class(device),
        **({"precision": precision} if precision else {}),
        "library version": library_versions() | dict(pack.requires if pack is not None else ()),
    }


def always_new(schema: NodeSchema, stage: Stage) -> bool:
    """Whether nothing that a stage returns may be kept, as far as its node says so before it runs."""
    return _outside(schema, stage, {}, None) == ALWAYS_NEW


def input_file(schema: NodeSchema, name: str) -> Path:
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


def _code(schema: NodeSchema, pack: Pack | None) -> str:
    """Digest of a node's code: of all that it imports; of another pack's, which may hide what it imports, of all."""
    if pack is not None:
        return pack.code
    return code_digest(schema.node_class.__module__) if schema.node_class is not None else ""


def _outside(schema: NodeSchema, stage: Stage, hidden: Mapping[str, Any], pack: Pack | None) -> str:
    """Ask the node, as the host does, whether something outside its inputs has changed.

    Returns:
        What belongs into the key: the digest of what ``IS_CHANGED`` says, or ``ALWAYS_NEW``: for NaN, which differs
        from itself, for a node that cannot answer, and for what another pack's output node does, of which nothing is
        known but that it is done for its own sake.
    """
    if pack is not None and schema.output_node:
        return ALWAYS_NEW
    is_changed = getattr(schema.node_class, "IS_CHANGED", None)
    # Of our own nodes' files the content is a part of the key of its own.
    if is_changed is None or (schema.file_inputs and pack is None):
        return ""
    try:
        answer = _asked(is_changed, schema, stage, hidden)
    except PhotokeepError:
        raise
    except (Exception, SystemExit):  # noqa: BLE001 - as the host does with a stranger's code
        return ALWAYS_NEW
    if isinstance(answer, float) and math.isnan(answer):
        return ALWAYS_NEW
    return digest_of(str(answer))


def _asked(is_changed: Callable[..., Any], schema: NodeSchema, stage: Stage, hidden: Mapping[str, Any]) -> Any:
    """What ``IS_CHANGED`` says; a link's value is not told, as in the host."""
    wanted = inspect.signature(is_changed).parameters
    takes_all = any(p.kind is inspect.Parameter.VAR_KEYWORD for p in wanted.values())
    known = {name: None if isinstance(value, Link) else value for name, value in stage.inputs.items()}
    known |= {name: stage.id if kind == "UNIQUE_ID" else hidden.get(kind) for name, kind in schema.hidden.items()}
    told = {name: value for name, value in known.items() if takes_all or name in wanted}
    return is_changed(**({name: [value] for name, value in told.items()} if schema.input_is_list else told))
