"""A workflow file and the photos it is run over: from what the user typed to runs with their plans."""

from __future__ import annotations

import glob
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photokeep_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, host, weights
from photokeep_nodes.errors import PhotokeepError, PhotoReadError
from photokeep_nodes.photo_io.paths import EXTENSIONS

from .events import RunEnded, RunResult, RunStarted, Warned
from .overrides import apply_overrides, feed_photo
from .plan import Plan, make_plan
from .run import Forecast, Runner, required_models
from .schema import schemas_of
from .workflow import load_workflow, parse_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .events import Listener
    from .graph import Workflow
    from .schema import NodeSchema
    from .store import Store


def node_schemas() -> dict[str, NodeSchema]:
    """Schemas of the nodes of this pack, by class type."""
    return schemas_of(NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS)


def expand_inputs(patterns: Sequence[str]) -> list[Path]:
    """Photos that files, folders and globs stand for, in a stable order, each once.

    Args:
        patterns: a folder stands for the photos right in it.
    Raises:
        PhotoReadError: one of them stands for no photo.
    """
    found: dict[Path, None] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if path.is_dir():
            photos = sorted(p for p in path.iterdir() if _is_photo(p))
            if not photos:
                raise PhotoReadError(
                    f"the folder {pattern} holds no photos",
                    hint=f"Photos end in {', '.join(sorted(EXTENSIONS))}.",
                )
        elif path.exists() or not glob.has_magic(pattern):
            photos = [path]  # a name that is missing is refused when its run is planned, with a suggestion
        else:
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            photos = sorted(p for p in map(Path, matches) if _is_photo(p))
            if not photos:
                raise PhotoReadError(f"no photo matches {pattern}", hint="Put the pattern in quotes, and check it.")
        found |= dict.fromkeys(photos)
    return list(found)


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()


@dataclass(frozen=True)
class PlannedRun:
    """One photo's run, checked and ready.

    Attributes:
        photo: what ``-i`` named, or None if the workflow names its own.
        plan: what will run.
        settings: with the folders this photo may be read from.
    """

    photo: Path | None
    plan: Plan
    settings: host.Standalone


class Job:
    """A workflow over some photos.

    Args:
        workflow_path: the saved file.
        overrides: ``NODE.INPUT=VALUE`` each.
        inputs: photos, folders and globs; empty runs the workflow as it is saved.
        settings: output folder, device and memory budget.
        store: where stage outputs are kept, or None.
    Raises:
        WorkflowError: the file or an override is wrong; nothing has run.
        PhotoError: an input stands for no photo.
    """

    def __init__(
        self,
        workflow_path: Path,
        *,
        overrides: Sequence[str] = (),
        inputs: Sequence[str] = (),
        settings: host.Standalone,
        store: Store | None,
    ) -> None:
        self.workflow_path = workflow_path
        self.schemas: Mapping[str, NodeSchema] = node_schemas()
        self.store = store
        # A workflow finds its photos beside itself, as the shipped ones do, and in ./input, as in the editor.
        self._settings = replace(settings, input_dirs=(workflow_path.resolve().parent, Path("input").resolve()))
        parsed = parse_workflow(load_workflow(workflow_path), self.schemas)
        self._workflow = apply_overrides(parsed, list(overrides), self.schemas)
        self.photos: list[Path | None] = [*expand_inputs(inputs)] if inputs else [None]

    def planned(self, photo: Path | None) -> PlannedRun:
        """Plan the run over one photo.

        Raises:
            WorkflowInvalidError: the workflow cannot run, or the photo is not there.
            WeightsMissingError: a model it needs is not installed.
        """
        settings, workflow = self._settings, self._workflow
        if photo is not None:
            folder = photo.absolute().parent
            settings = replace(settings, input_dirs=(folder, *settings.input_dirs))
            workflow = feed_photo(workflow, photo.name, self.schemas)
        with host.standalone(settings):
            plan = make_plan(workflow, self.schemas)
            weights.require(required_models(plan, self.schemas))
        return PlannedRun(photo, plan, settings)

    def _runner(self, planned: PlannedRun, listener: Listener) -> Runner:
        workflow: Workflow = planned.plan.workflow
        prompt: dict[str, Any] = workflow.to_prompt()
        return Runner(
            planned.plan,
            self.schemas,
            planned.settings,
            store=self.store,
            prompt=prompt,
            extra_pnginfo=workflow.extra_pnginfo,
            listener=listener,
            identity=f"{self.workflow_path.resolve()}\n{planned.photo.absolute() if planned.photo else ''}",
        )

    def run(self, listener: Listener) -> Iterator[RunResult]:
        """Run photo by photo; a photo that fails does not keep the others from their turn.

        Everything that can be known beforehand is checked for the first photo before any work.
        """
        first = self.planned(self.photos[0])
        for problem in first.plan.warnings:
            listener(Warned(problem.line()))
        for index, photo in enumerate(self.photos):
            listener(RunStarted(photo, index + 1, len(self.photos)))
            try:
                planned = first if index == 0 else self.planned(photo)
                result = self._runner(planned, listener).run(photo)
            except PhotokeepError as error:
                if index == 0:
                    raise
                result = RunResult(photo, "failed", (), 0.0, error)
            listener(RunEnded(result))
            yield result
            if self.store is not None:
                self.store.evict()

    def forecast(self, photo: Path | None) -> tuple[Plan, list[Forecast]]:
        """What would happen to each stage of one photo's run."""
        planned = self.planned(photo)
        return planned.plan, self._runner(planned, lambda _event: None).forecast()
