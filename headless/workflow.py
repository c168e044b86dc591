"""Read workflow files: the API ("prompt") format, the editor's own, and pictures that carry either.

The reader trusts nothing: limits come first, and whatever is not a workflow ends in ``WorkflowFormatError``. What can
be read but not run is left for ``plan.make_plan``, which lists every problem at once.
"""

from __future__ import annotations

import stat
from collections.abc import Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import WorkflowFormatError

from .graph import InactiveNode, Link, Problem, Workflow, WorkflowNode, printable, shown
from .json_text import DEFAULT_LIMITS, Limits, check_values, read_json
from .png_text import PNG_SIGNATURE, read_png_text
from .webp_text import RIFF_SIGNATURE, read_webp_text

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .schema import NodeSchema

__all__ = [
    "DEFAULT_LIMITS",
    "InactiveNode",
    "Limits",
    "Link",
    "Problem",
    "Workflow",
    "WorkflowNode",
    "load_workflow",
    "parse_workflow",
    "read_workflow",
]

_KEYWORDS = ("prompt", "workflow")
_EXPORT_HINT = "In ComfyUI, save with Workflow > Export (API) or Workflow > Save."
_OTHER_FILES = (
    (b"\xff\xd8\xff", "a JPEG picture"),
    (b"GIF8", "a GIF picture"),
    (b"II*\0", "a TIFF picture"),
    (b"MM\0*", "a TIFF picture"),
    (b"PK\x03\x04", "a ZIP archive"),
    (b"\x1f\x8b", "a gzip archive"),
)


def load_workflow(path: str | Path, limits: Limits = DEFAULT_LIMITS) -> dict[str, Any]:
    """Read a workflow file, without looking at what it means.

    A picture gives ``{"prompt": ..., "workflow": ...}`` with what it carries of the two.

    Args:
        path: a JSON file, or a PNG or WebP that ComfyUI wrote.
        limits: what is refused as too large.

    Returns:
        The JSON object, for ``parse_workflow``.

    Raises:
        WorkflowFormatError: missing, not a regular file, not readable, too large, not JSON or no object.
    """
    path = Path(path)
    with errors_naming(path):
        return _load(path, limits)


def read_workflow(
    source: str | Path | Mapping[str, Any], schemas: Mapping[str, NodeSchema], limits: Limits = DEFAULT_LIMITS
) -> Workflow:
    """Load and parse in one.

    Args:
        source: path of a file as in ``load_workflow``, or what was read from one.
        schemas: as in ``parse_workflow``.
        limits: what is refused as too large.

    Raises:
        WorkflowFormatError: see both; the message names the file.
    """
    if not isinstance(source, (str, Path)):
        return parse_workflow(source, schemas, limits=limits)
    raw = load_workflow(source, limits)
    with errors_naming(Path(source)):
        return parse_workflow(raw, schemas, limits=limits)


@contextmanager
def errors_naming(path: Path) -> Iterator[None]:
    """Have what the body finds wrong with a workflow name its file."""
    try:
        yield
    except WorkflowFormatError as error:
        message = f"{printable(str(path), 200)}: {error.message}"
        raise WorkflowFormatError(message, hint=error.hint, **{**error.context, "path": str(path)}) from error


def _load(path: Path, limits: Limits) -> dict[str, Any]:
    try:
        # Looked at before it is opened: opening a FIFO would wait for a writer.
        mode = path.stat().st_mode
        if stat.S_ISDIR(mode):
            raise WorkflowFormatError("this is a folder, not a workflow file", hint="Name a .json file in it.")
        if not stat.S_ISREG(mode):
            raise WorkflowFormatError("this is not a regular file")
        with path.open("rb") as file:
            head = file.read(len(PNG_SIGNATURE))
            file.seek(0)
            if head == PNG_SIGNATURE:
                return _from_texts(read_png_text(file, _KEYWORDS, limits.file_bytes), limits)
            if head.startswith(RIFF_SIGNATURE):
                return _from_texts(read_webp_text(file, _KEYWORDS, limits.file_bytes), limits)
            for signature, what in _OTHER_FILES:
                if head.startswith(signature):
                    raise WorkflowFormatError(f"this is {what}, not a workflow", hint=_EXPORT_HINT)
            return _object(read_json(file.read(limits.file_bytes + 1), limits))
    except FileNotFoundError:
        raise WorkflowFormatError("no such file", hint="Check the path of the workflow.") from None
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the path
        raise WorkflowFormatError(f"cannot be read: {getattr(error, 'strerror', None) or error}") from error


def _from_texts(texts: Mapping[str, str], limits: Limits) -> dict[str, Any]:
    if not texts:
        raise WorkflowFormatError("the picture carries no workflow", hint="Not every tool keeps a picture's text.")
    found: dict[str, Any] = {}
    damaged: WorkflowFormatError | None = None
    for key, text in texts.items():
        try:
            # Pictures hold NaN where a node said it always changes; the editor reads it as null too.
            found[key] = _object(read_json(text, limits, nan_as_null=True))
        except WorkflowFormatError as error:
            message = f"its text {key!r}: {error.message}"
            damaged = damaged or WorkflowFormatError(message, hint=error.hint, **error.context)
    if not found and damaged is not None:  # either of the two says all that is needed
        raise damaged
    return found


def parse_workflow(source: Any, schemas: Mapping[str, NodeSchema], *, limits: Limits = DEFAULT_LIMITS) -> Workflow:
    """Make a workflow of JSON text or of an object that was already read.

    Args:
        source: text, bytes or an object: a workflow in the API format, alone or under ``prompt``, or in the editor's
            own format.
        schemas: what is known of node classes; the editor's format cannot be read without.
        limits: what is refused as too large.

    Raises:
        WorkflowFormatError: not JSON, not a workflow, over a limit, or of a kind that cannot be converted.
    """
    if isinstance(source, (str, bytes)):
        raw = _object(read_json(source, limits))
    else:
        raw = _object(dict(source) if isinstance(source, Mapping) else source)
        check_values(raw, limits)
    graph = _editor_graph(raw)
    prompt = _wrapped_prompt(raw)
    if prompt is not None:
        return _from_prompt(prompt, graph, schemas, limits)
    if graph is not None:
        from .editor_format import convert

        return convert(graph, schemas, limits)
    if any(isinstance(each, dict) and "class_type" in each for each in raw.values()):
        return _from_prompt(raw, None, schemas, limits)
    raise WorkflowFormatError(f"this is JSON, but no ComfyUI workflow{_what_instead(raw)}", hint=_EXPORT_HINT)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        what = "a list" if isinstance(value, list) else shown(value)
        raise WorkflowFormatError(f"a workflow is a JSON object, this is {what}", hint=_EXPORT_HINT)
    return value


def _wrapped_prompt(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The API form under ``prompt``: what is posted to a host, and what pictures carry."""
    prompt = raw.get("prompt")
    if not isinstance(prompt, dict) or "class_type" in prompt or (not prompt and _editor_graph(raw) is not None):
        return None
    return None if isinstance(raw.get("nodes"), list) or isinstance(prompt.get("nodes"), list) else prompt


def _editor_graph(raw: Mapping[str, Any]) -> dict[str, Any] | None:
    """The editor's own form: the file itself, or what goes along with a prompt."""
    if isinstance(raw.get("nodes"), list):
        return dict(raw)
    extra: Any = raw.get("extra_data")
    for _ in range(2):
        if isinstance(extra, dict):
            extra = extra.get("extra_pnginfo", extra)
    holders = [each for each in (raw, extra) if isinstance(each, dict)]
    for graph in (*(each.get("workflow") for each in holders), raw.get("prompt")):
        if isinstance(graph, dict) and isinstance(graph.get("nodes"), list):
            return graph
    return None


def _what_instead(raw: Mapping[str, Any]) -> str:
    if not raw:
        return ": it is empty"
    keys = ", ".join(shown(key, 30) for key in list(raw)[:5])
    return f": it has {keys}{' and more' if len(raw) > 5 else ''}"


def _from_prompt(
    prompt: Mapping[str, Any], graph: Mapping[str, Any] | None, schemas: Mapping[str, NodeSchema], limits: Limits
) -> Workflow:
    if len(prompt) > limits.nodes:
        raise WorkflowFormatError(f"{len(prompt):,} nodes are more than the {limits.nodes:,} that are allowed")
    nodes: dict[str, WorkflowNode] = {}
    problems: list[Problem] = []
    for node_id, raw in prompt.items():
        node = _prompt_node(node_id, raw, schemas)
        nodes[node_id] = node
        if not node.class_type:
            problems.append(
                Problem.at(node, "missing_node_type", "the node names no class", hint='Give it a "class_type".')
            )
    return Workflow(nodes=nodes, source="api", editor_graph=graph, problems=tuple(problems))


def _prompt_node(node_id: str, raw: Any, schemas: Mapping[str, NodeSchema]) -> WorkflowNode:
    if not isinstance(raw, dict):
        raise WorkflowFormatError(f"node {printable(node_id)} is {shown(raw)}, not an object", hint=_EXPORT_HINT)
    inputs = raw.get("inputs", {})
    if not isinstance(inputs, dict):
        raise WorkflowFormatError(f"the inputs of node {printable(node_id)} are no object", hint=_EXPORT_HINT)
    class_type = raw.get("class_type")
    class_type = class_type if isinstance(class_type, str) else ""
    meta = raw.get("_meta")
    title = meta.get("title") if isinstance(meta, dict) else None
    if not isinstance(title, str) or not title:
        schema = schemas.get(class_type)
        title = schema.display_name if schema else class_type
    return WorkflowNode(
        id=node_id,
        class_type=class_type,
        title=title,
        inputs={name: _prompt_value(value) for name, value in inputs.items()},
    )


def _prompt_value(value: Any) -> Any:
    """A link where ``value`` has a link's form; another list stays as it is, for the planner to refuse."""
    if isinstance(value, list) and len(value) == 2:
        node_id, index = value
        if isinstance(node_id, int) and not isinstance(node_id, bool):
            node_id = str(node_id)
        if isinstance(node_id, str) and isinstance(index, int) and not isinstance(index, bool):
            return Link(node_id, index)
    return value
