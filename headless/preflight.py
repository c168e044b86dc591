"""What a plan needs of the model folders, and whether it is there: asked before any work, and said in one breath."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from photokeep_nodes import models, weights
from photokeep_nodes.errors import MissingExtraError, PhotokeepError, WeightsError, WeightsMissingError

from .foresight import handle_of

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from photokeep_nodes.model_spec import ModelSpec

    from .plan import Plan
    from .schema import NodeSchema


@dataclass(frozen=True)
class NeededModels:
    """The models whose nodes are stages of a plan, each once.

    Attributes:
        specs: those that are known, installed or not.
        unusable: what is wrong with each file of the user's own that does not make a model.
    """

    specs: tuple[ModelSpec, ...]
    unusable: tuple[PhotokeepError, ...]

    def require(self) -> None:
        """Check that every model can be used.

        Raises:
            WeightsMissingError: a file is not there; the message names whatever else is amiss, too.
            PhotokeepError: nothing is missing, but a file is damaged, is of a network that does not serve its stage, or
                the network's code is not installed.
        """
        published: WeightsError | None = None
        besides: list[PhotokeepError] = []
        try:
            weights.require(self.specs)
        except WeightsError as error:
            published = error
        for part in dict.fromkeys(part for spec in self.specs for part in spec.parts):
            try:
                weights.require_code(part)
            except MissingExtraError as error:
                besides.append(error)
        besides += self.unusable
        if published is not None or besides:
            raise _in_one(published, besides)


def needed_models(plan: Plan, schemas: Mapping[str, NodeSchema]) -> NeededModels:
    """Find the models of a plan; one that cannot be used does not hide the others."""
    handles = [handle_of(stage, schemas[stage.class_type]) for stage in plan.stages.values()]
    specs, unusable = [], []
    for handle in dict.fromkeys(handles):
        if handle is None:
            continue
        try:
            specs.append(models.get(handle))
        except PhotokeepError as error:
            unusable.append(error)
    return NeededModels(tuple(specs), tuple(unusable))


def _in_one(published: PhotokeepError | None, besides: Sequence[PhotokeepError]) -> PhotokeepError:
    """One error of all: missing files if any is missing, for then there is something to get; else the first's kind."""
    errors = [*([published] if published is not None else []), *besides]
    if len(errors) == 1:
        return errors[0]
    kind = next((type(error) for error in errors if isinstance(error, WeightsMissingError)), type(errors[0]))
    lines = ["  " + str(error).replace("\n", "\n    ") for error in besides]
    if published is not None:
        lines = [published.message, "And besides:", *lines]
    else:
        lines = [f"{len(besides)} models cannot be used:", *lines]
    lists = {
        name: [each for error in errors for each in error.context.get(name, ())] for name in ("missing", "corrupt")
    }
    return kind("\n".join(lines), hint=published.hint if published is not None else "", **lists)
