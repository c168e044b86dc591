"""What stages that set themselves read off an analysis."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, TypeVar

from ..errors import NodeInputError

if TYPE_CHECKING:
    from collections.abc import Callable

    import torch

R = TypeVar("R")

ANALYSIS = "PHOTOKEEP_ANALYSIS"


def read(
    analysis: dict[str, Any], count: int, of_one: Callable[[dict[str, Any]], R], *, what: str, node: str
) -> list[R]:
    """Read one thing for each photo.

    Args:
        analysis: the output of Analyze.
        count: how many photos came in.
        of_one: reads it from the entry of one photo.
        what: the thing, for messages.
        node: title of the node that wants it.
    Raises:
        NodeInputError: it is no analysis, or one of another number of photos.
    """
    try:
        found = [of_one(entry) for entry in analysis["images"]]
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise NodeInputError(f"the analysis holds no {what}", hint="Connect the output of Analyze.") from error
    if len(found) != count:
        raise NodeInputError(
            f"the analysis is of {len(found)} images, but {count} came in",
            hint=f"Connect Analyze to the same image as {node}.",
        )
    return found


def recommended(entry: dict[str, Any], stage: str) -> dict[str, Any] | None:
    """What the analysis of one photo says of a stage, or None where it does not recommend it."""
    return next((each for each in entry["recommendation"] if each["stage"] == stage), None)


def chosen(
    image: torch.Tensor,
    when: str,
    analysis: dict[str, Any] | None,
    stage: Literal["remove_jpeg", "low_light", "deblur", "restore_colors"],
    *,
    node: str,
) -> list[bool]:
    """Which photos of a batch a stage is run on.

    Args:
        image: (B, H, W, C) in [0, 1].
        when: "always", or "auto": those that need it, by the analysis or, without one, by a look at the photo.
        analysis: the output of Analyze.
        stage: as the analysis names it.
        node: title of the node that asks.
    Raises:
        NodeInputError: see ``read``.
    """
    import torch

    if when == "always":
        return [True] * image.shape[0]
    if analysis is not None:
        return read(
            analysis,
            image.shape[0],
            lambda entry: recommended(entry, stage) is not None,
            what="recommendations",
            node=node,
        )
    from .. import images
    from ..ops.analysis import needs

    return [needs(stage, photo) for photo in torch.split(images.to_bchw(image), 1)]
