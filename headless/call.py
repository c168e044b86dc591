"""Call a stage's node, and make of whatever comes out a result or a typed error."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import PhotokeepError, StageFailedError

if TYPE_CHECKING:
    from .plan import Stage
    from .schema import NodeSchema


def call_node(stage: Stage, schema: NodeSchema, inputs: dict[str, Any]) -> tuple[tuple[Any, ...], list[str]]:
    """Run a node.

    Returns:
        Its outputs, and the names below the output folder of what it saved.
    Raises:
        PhotokeepError: what the node raised, wrapped in StageFailedError where it is not ours.
    """
    if schema.node_class is None:
        raise StageFailedError(f"{stage.title}: this node can only be described, not run, here", node_id=stage.id)
    try:
        answer = getattr(schema.node_class(), schema.function)(**inputs)
    except PhotokeepError:
        raise
    except MemoryError as error:
        raise StageFailedError(
            f"{stage.title}: out of memory", hint="Use a smaller photo or scale, or close other programs."
        ) from error
    except Exception as error:
        raise StageFailedError(
            f"{stage.title}: {type(error).__name__}: {error}",
            hint="This is a fault in the node. Run again with -v for the details.",
            node_id=stage.id,
            class_type=stage.class_type,
        ) from error
    saved: list[str] = []
    if isinstance(answer, dict):
        for image in answer.get("ui", {}).get("images", ()):
            if image.get("type") == "output":
                folder = image.get("subfolder", "")
                saved.append(f"{folder}/{image['filename']}" if folder else image["filename"])
        answer = answer.get("result", ())
    outputs = tuple(answer or ())
    if len(outputs) != len(schema.outputs):
        raise StageFailedError(
            f"{stage.title} returned {len(outputs)} outputs where {len(schema.outputs)} are declared",
            hint="This is a fault in the node.",
            node_id=stage.id,
            class_type=stage.class_type,
        )
    return outputs, saved


def file_error(stage: Stage, error: OSError) -> StageFailedError:
    """What a file that cannot be used means for a stage."""
    return StageFailedError(
        f"{error.filename or 'a file'} cannot be used: {error.strerror or error}",
        hint="Check that it is there and that you may read it.",
        node_id=stage.id,
        class_type=stage.class_type,
    )
