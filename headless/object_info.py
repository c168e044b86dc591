"""Node schemas from a host's own description of its classes: what ``/object_info`` answers.

With it, files whose nodes are not ours can be converted and checked; they cannot be run. The description is as
untrusted as a workflow: limits come first, and a class it describes badly is an error that names the class.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from photokeep_nodes.errors import NodeDefinitionError, UsageError, WorkflowFormatError

from .graph import printable
from .json_text import Limits, read_json
from .schema import CUSTOM_COMBO, NodeSchema, input_schema, output_schemas

_MIB = 1 << 20
_LIMITS = Limits(file_bytes=64 * _MIB)
"""A host with hundreds of packs and thousands of model files answers with some ten MB."""

_TIMEOUT_S = 30.0

_UPLOADS = ("image_upload", "video_upload", "audio_upload", "file_upload", "animated_image_upload", "remote")
"""Options of inputs whose list of choices grows while the host runs: their classes check such values themselves."""

_HINT = "Save what http://HOST:8188/object_info answers, or name the host itself: --object-info http://HOST:8188"


def load_object_info(source: str | Path) -> dict[str, NodeSchema]:
    """Read the description from a file or from a running host.

    Args:
        source: path of a JSON file, or a http(s) URL; one without a path gets ``/object_info``.

    Raises:
        UsageError: it cannot be read, or the host does not answer.
        WorkflowFormatError: not JSON, or over a limit.
        NodeDefinitionError: not what a host answers.
    """
    name = str(source)
    data = _fetched(name) if name.startswith(("http://", "https://")) else _read(Path(source))
    try:
        info = read_json(data, _LIMITS, nan_as_null=True)
    except WorkflowFormatError as error:
        raise WorkflowFormatError(f"{printable(name)}: {error.message}", hint=_HINT, **error.context) from error
    try:
        return schemas_of_object_info(info)
    except NodeDefinitionError as error:
        raise NodeDefinitionError(f"{printable(name)}: {error.message}", hint=_HINT) from error


def schemas_of_object_info(info: Mapping[str, Any]) -> dict[str, NodeSchema]:
    """Schemas of the classes a host describes.

    Args:
        info: node id to description, as ``/object_info`` answers.

    Raises:
        NodeDefinitionError: a class is not described as a host would.
    """
    if not isinstance(info, Mapping) or not info:
        raise NodeDefinitionError("this describes no node classes", hint=_HINT)
    return {class_type: _schema(class_type, each) for class_type, each in info.items()}


def _schema(class_type: str, info: Any) -> NodeSchema:
    if not isinstance(info, Mapping) or not isinstance(info.get("input"), Mapping):
        raise NodeDefinitionError(f"{printable(class_type)} is not described as a host would", hint=_HINT)
    declared = {name: group for name, group in info["input"].items() if isinstance(group, Mapping)}
    order = info.get("input_order")
    inputs = []
    for group in ("required", "optional"):
        wanted = order.get(group) if isinstance(order, Mapping) else None
        specs = declared.get(group, {})
        named = [each for each in _list(wanted) if isinstance(each, str) and each in specs]
        names = dict.fromkeys((*named, *specs))
        inputs += [input_schema(class_type, name, specs[name], required=group == "required") for name in names]
    return NodeSchema(
        class_type=class_type,
        display_name=str(info.get("display_name") or class_type),
        inputs=tuple(inputs),
        hidden={name: str(kind[0] if isinstance(kind, list) and kind else kind) for name, kind in _hidden(declared)},
        outputs=output_schemas(
            _list(info.get("output")), _list(info.get("output_name")), _list(info.get("output_is_list"))
        ),
        output_node=bool(info.get("output_node")),
        category=str(info.get("category") or ""),
        input_is_list=bool(info.get("is_input_list")),
        accepts_all=bool(info.get("accept_all_inputs")) or class_type == CUSTOM_COMBO,  # which older hosts do not say
        deprecated=bool(info.get("deprecated")),
        validate_all=class_type == CUSTOM_COMBO,
        validate_args=frozenset(each.name for each in inputs if any(each.options.get(flag) for flag in _UPLOADS)),
    )


def _hidden(declared: Mapping[str, Mapping[str, Any]]) -> list[tuple[str, Any]]:
    return list(declared.get("hidden", {}).items())


def _list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else []


def _read(path: Path) -> bytes:
    try:
        if not path.is_file():
            raise UsageError(f"--object-info {printable(str(path), 200)}: no such file", hint=_HINT)
        with path.open("rb") as file:
            return file.read(_LIMITS.file_bytes + 1)
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise UsageError(f"--object-info {printable(str(path), 200)}: {reason}", hint=_HINT) from error


def _fetched(url: str) -> bytes:
    import requests
    from urllib3.util import parse_url

    try:
        address = parse_url(url)
        if address.path in {None, "", "/"}:
            url = address._replace(path="/object_info").url
        with requests.get(url, timeout=_TIMEOUT_S, stream=True) as answer:
            answer.raise_for_status()
            parts, size = [], 0
            for part in answer.iter_content(_MIB):
                parts.append(part)
                size += len(part)
                if size > _LIMITS.file_bytes:
                    break
            return b"".join(parts)
    except requests.HTTPError as error:
        answer = error.response
        what = f"{answer.status_code} {printable(answer.reason or '')}" if answer is not None else "with an error"
        raise UsageError(f"{printable(url, 200)} answers {what.rstrip()}", hint=_HINT) from error
    except requests.RequestException as error:
        raise UsageError(f"{printable(url, 200)} does not answer: {type(error).__name__}", hint=_HINT) from error
    except ValueError as error:
        raise UsageError(f"{printable(url, 200)} is no address: {error}", hint=_HINT) from error
