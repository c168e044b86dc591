"""What a run tells the memory pool ahead: the models that the stages to come will use.

The pool then brings the next stage's model while the present one computes, and evicts last what is needed soonest. In
a batch the next photo's stages are told as well, so that its first models stay.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from photokeep_nodes import models

if TYPE_CHECKING:
    from collections.abc import Mapping
    from types import TracebackType

    from typing_extensions import Self

    from photokeep_nodes import vram_manager
    from photokeep_nodes.model_spec import ModelSpec

    from .plan import Plan, Stage
    from .schema import NodeSchema


def models_of(stage: Stage, plan: Plan, schemas: Mapping[str, NodeSchema]) -> tuple[ModelSpec, ...]:
    """The models whose handles a stage takes."""
    catalogue = models.catalogue()
    sources = (plan.stages[link.node_id] for link in stage.links.values())
    ids = (getattr(schemas[source.class_type].node_class, "MODEL_ID", None) for source in sources)
    return tuple(catalogue[model_id] for model_id in dict.fromkeys(ids) if model_id is not None)


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
