"""What a run tells the memory pool ahead: the models that the stages to come will use.

The pool then brings the next stage's model while the present one computes, and evicts last what is needed soonest. In
a batch the next photo's stages are told as well, so that its first models stay.
"""

from __future__ import annotations

from contextlib import suppress
from typing import TYPE_CHECKING, Any

from photokeep_nodes import models
from photokeep_nodes.errors import PhotokeepError

from .graph import Link

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from photokeep_nodes import vram_manager
    from photokeep_nodes.model_spec import ModelHandle, ModelSpec

    from .plan import Plan, Stage
    from .schema import NodeSchema


_OUR_PACKAGES = frozenset({"photokeep_nodes", "headless"})


def is_model_stage(schema: NodeSchema) -> bool:
    """Whether a stage only names a model: it costs nothing, is not cached, and is not worth a line to the user."""
    # By where it comes from as well: a node of another pack may call anything "handle".
    ours = getattr(schema.node_class, "__module__", "").partition(".")[0] in _OUR_PACKAGES
    return ours and hasattr(schema.node_class, "handle")


def handle_of(stage: Stage, schema: NodeSchema, **linked: Any) -> ModelHandle | None:
    """The handle that a model stage hands out, or None for any other stage.

    Args:
        stage: of the plan.
        schema: its node class.
        linked: values of its linked inputs; without them their defaults are assumed.
    """
    if not is_model_stage(schema):
        return None
    widgets = {name: value for name, value in stage.inputs.items() if not isinstance(value, Link)}
    handle: ModelHandle = schema.node_class.handle(**widgets, **linked)  # type: ignore[union-attr]
    return handle


def models_of(stage: Stage, plan: Plan, schemas: Mapping[str, NodeSchema]) -> tuple[ModelSpec, ...]:
    """The models whose handles a stage takes, but for those that are not there: the stage itself will say so."""
    sources = (plan.stages[link.node_id] for link in stage.links.values())
    handles = (handle_of(source, schemas[source.class_type]) for source in sources)
    found = []
    for handle in dict.fromkeys(handles):
        if handle is not None:
            with suppress(PhotokeepError):
                found.append(models.get(handle))
    return tuple(found)


class Foresight:
    """One photo's run as the pool sees it.

    Nothing is told before the first stage with a model really runs, so that a cached run imports no torch.

    Args:
        plan: what runs.
        schemas: the node classes behind it.
        job_id: names the run.
        more_photos: whether the same stages follow for another photo.
    """

    def __init__(self, plan: Plan, schemas: Mapping[str, NodeSchema], *, job_id: str, more_photos: bool) -> None:
        steps = [(stage_id, models_of(plan.stages[stage_id], plan, schemas)) for stage_id in plan.order]
        self._steps = [(stage_id, specs) for stage_id, specs in steps if specs]
        self._index = {stage_id: index for index, (stage_id, _) in enumerate(self._steps)}
        self._job_id = job_id
        self._more_photos = more_photos
        self._told: vram_manager.Plan | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self._told is not None:
            self._told.__exit__(kind, error, traceback)

    def begin(self, stage_id: str) -> None:
        """Say that a stage is about to run; those before it in the plan's order are over."""
        index = self._index.get(stage_id)
        if index is None:
            return
        if self._told is None:
            from photokeep_nodes import inference

            steps = [specs for _, specs in self._steps] * (2 if self._more_photos else 1)
            told = inference.foresee(self._job_id, steps)
            told.__enter__()
            self._told = told
        # A stage may run once more, out of order, where the cache lost what it had returned.
        self._told.reach(max(index, self._told.position))
