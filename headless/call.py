"""Call a stage's node, and make of whatever comes out a result or a typed error."""

from __future__ import annotations

import asyncio
import contextvars
import inspect
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from photokeep_nodes.errors import PhotokeepError, StageFailedError

from .over_lists import calls, merged

if TYPE_CHECKING:
    from collections.abc import Awaitable

    from .plan import Stage
    from .schema import NodeSchema


def call_node(stage: Stage, schema: NodeSchema, inputs: dict[str, Any]) -> tuple[tuple[Any, ...], list[str]]:
    """Run a node, once for each value where an input holds several.

    Args:
        stage: whose node.
        schema: its class.
        inputs: values, or `Several` of them.
    Returns:
        Its outputs, and the names below the output folder of what it saved.
    Raises:
        PhotokeepError: what the node raised, wrapped in StageFailedError where it is not ours.
    """
    if schema.node_class is None:
        raise StageFailedError(f"{stage.title}: this node can only be described, not run, here", node_id=stage.id)
    results: list[tuple[Any, ...]] = []
    saved: list[str] = []
    try:
        work = getattr(schema.node_class(), schema.function)
        for arguments in calls(inputs, takes_lists=schema.input_is_list):
            answer = work(**arguments)
            if inspect.isawaitable(answer):
                answer = _waited_for(answer)
            saved += _saved(answer)
            results.append(_outputs(answer, stage, schema))
    except PhotokeepError:
        raise
    except MemoryError as error:
        raise StageFailedError(
            f"{stage.title}: out of memory", hint="Use a smaller photo or scale, or close other programs."
        ) from error
    except (Exception, SystemExit) as error:  # a node that ends the program ends its stage
        raise _failed(
            stage,
            f"{type(error).__name__}: {error}",
            hint="This is a fault in the node. Run again with -v for the details.",
        ) from error
    return merged(results, schema.outputs), saved


def _waited_for(answer: Awaitable[Any]) -> Any:
    """What a coroutine returns; in a thread of its own where a loop runs here already, as in a notebook."""
    try:
        asyncio.get_running_loop()
    except RuntimeError:
        return asyncio.run(_awaited(answer))
    context = contextvars.copy_context()  # a node's settings go with it
    with ThreadPoolExecutor(max_workers=1, thread_name_prefix="photokeep-node") as one:
        return one.submit(context.run, asyncio.run, _awaited(answer)).result()


async def _awaited(answer: Awaitable[Any]) -> Any:
    return await answer


def _failed(stage: Stage, what: str, *, hint: str) -> StageFailedError:
    return StageFailedError(f"{stage.title}: {what}", hint=hint, node_id=stage.id, class_type=stage.class_type)


def _saved(answer: Any) -> list[str]:
    """What one call says it saved below the output folder."""
    shown = answer.get("ui") if isinstance(answer, dict) else None
    images = shown.get("images") if isinstance(shown, dict) else None
    saved = []
    for image in images if isinstance(images, (list, tuple)) else ():
        if isinstance(image, dict) and image.get("type") == "output" and isinstance(image.get("filename"), str):
            folder = image.get("subfolder", "")
            saved.append(f"{folder}/{image['filename']}" if folder else image["filename"])
    return saved


def _outputs(answer: Any, stage: Stage, schema: NodeSchema) -> tuple[Any, ...]:
    """One call's outputs, as many as are declared."""
    if isinstance(answer, dict):
        if "expand" in answer:
            raise _failed(
                stage,
                "it builds more nodes while it runs (expand), which only ComfyUI can do",
                hint="Run this workflow in ComfyUI, or use another node.",
            )
        if "result" not in answer:  # shown, and handed to nobody; whoever takes it gets nothing, as in the host
            return tuple([] if output.is_list else None for output in schema.outputs)
        answer = answer["result"]
    if answer is None:
        answer = ()
    if not isinstance(answer, (tuple, list)):
        raise _failed(
            stage,
            f"it returned {type(answer).__name__} where a tuple of its outputs is due",
            hint="This is a fault in the node.",
        )
    if len(answer) != len(schema.outputs):
        raise StageFailedError(
            f"{stage.title} returned {len(answer)} outputs where {len(schema.outputs)} are declared",
            hint="This is a fault in the node.",
            node_id=stage.id,
            class_type=stage.class_type,
        )
    for value, output in zip(answer, schema.outputs, strict=True):
        if output.is_list and not isinstance(value, (list, tuple)):
            raise _failed(
                stage,
                f"its output {output.name} is {type(value).__name__} and not a list, as declared",
                hint="This is a fault in the node.",
            )
    return tuple(answer)


def file_error(stage: Stage, error: OSError) -> StageFailedError:
    """What a file that cannot be used means for a stage."""
    return StageFailedError(
        f"{error.filename or 'a file'} cannot be used: {error.strerror or error}",
        hint="Check that it is there and that you may read it.",
        node_id=stage.id,
        class_type=stage.class_type,
    )
