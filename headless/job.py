"""A workflow file and the photos it is run over: from what the user typed to runs with their plans."""

from __future__ import annotations

import glob
import shlex
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from photokeep_nodes import NODE_CLASS_MAPPINGS, NODE_DISPLAY_NAME_MAPPINGS, host
from photokeep_nodes.errors import PhotokeepError, UsageError, WeightsMissingError, WorkflowInvalidError
from photokeep_nodes.photo_io.paths import EXTENSIONS

from . import core_nodes
from .editor_rewrite import disagreement, graph_left_out
from .events import RunEnded, RunResult, RunStarted, Warned
from .graph import invalid
from .input_sizes import oversized_inputs
from .overrides import apply_overrides, feed_photo
from .packs import load_packs, schemas_of_packs
from .plan import Plan, make_plan
from .preflight import NeededModels, needed_models
from .run import Forecast, Runner
from .schema import schemas_of
from .workflow import errors_naming, load_workflow, parse_workflow

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

    from .events import Listener
    from .graph import Workflow
    from .schema import NodeSchema
    from .store import Store


def node_schemas() -> dict[str, NodeSchema]:
    """Schemas of the nodes that can be run: ComfyUI's own that are remade here, and those of this pack."""
    return schemas_of(
        {**core_nodes.node_classes(), **NODE_CLASS_MAPPINGS},
        {**core_nodes.display_names(), **NODE_DISPLAY_NAME_MAPPINGS},
    )


def expand_inputs(patterns: Sequence[str]) -> list[Path]:
    """Photos that files, folders and globs stand for, in a stable order, each once.

    Args:
        patterns: a folder stands for the photos right in it.
    Raises:
        UsageError: one of them stands for no photo.
    """
    found: dict[Path, Path] = {}
    for pattern in patterns:
        path = Path(pattern).expanduser()
        if pattern and _exists(path) and path.is_dir():
            photos = sorted(p for p in path.iterdir() if _is_photo(p))
            if not photos:
                raise UsageError(
                    f"the folder {pattern} holds no photos",
                    hint=f"Photos end in {', '.join(sorted(EXTENSIONS))}.",
                )
        elif pattern and _exists(path):
            photos = [path]
        elif not glob.has_magic(pattern):
            raise UsageError(f"there is no photo {pattern!r}", hint="Check the path that follows -i.")
        else:
            matches = glob.glob(str(path), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
            photos = sorted(p for p in map(Path, matches) if _is_photo(p))
            if not photos:
                raise UsageError(f"no photo matches {pattern}", hint="Put the pattern in quotes, and check it.")
        for photo in photos:
            found.setdefault(photo.absolute(), photo)
    return list(found.values())


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError:  # longer than a name can be
        return False


def _is_photo(path: Path) -> bool:
    return path.suffix.lower() in EXTENSIONS and not path.name.startswith(".") and path.is_file()


def _agreeing(workflow: Workflow, schemas: Mapping[str, NodeSchema]) -> Workflow:
    """The same without the editor's graph, and with a warning, where that says something else than what is run."""
    place = disagreement(workflow, schemas)
    if place is None:
        return workflow
    node_id, name = place
    warning = graph_left_out(workflow.nodes[node_id], name)
    return replace(workflow, editor_graph=None, warnings=(*workflow.warnings, warning))


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
        packs: node packs of others, whose code is imported and run; no other is.
    Raises:
        WorkflowError: the file or an override is wrong; nothing has run.
        NodePackError: a node pack cannot be used.
        UsageError: an input stands for no photo.
    """

    def __init__(
        self,
        workflow_path: Path,
        *,
        overrides: Sequence[str] = (),
        inputs: Sequence[str] = (),
        settings: host.Standalone,
        store: Store | None,
        packs: Sequence[Path] = (),
    ) -> None:
        self.workflow_path = workflow_path
        content = load_workflow(workflow_path)
        ours = node_schemas()
        self.packs = load_packs(packs, reserved=ours)
        self.schemas: Mapping[str, NodeSchema] = {**schemas_of_packs(self.packs), **ours}
        self.store = store
        with errors_naming(workflow_path):
            parsed = _agreeing(parse_workflow(content, self.schemas), self.schemas)
        # A workflow finds its photos beside itself, as the shipped ones do, and in ./input, as in the editor.
        self._settings = replace(settings, input_dirs=(workflow_path.resolve().parent, Path("input").resolve()))
        self._workflow = apply_overrides(parsed, list(overrides), self.schemas)
        self.photos: list[Path | None] = [*expand_inputs(inputs)] if inputs else [None]

    def planned(self, photo: Path | None) -> PlannedRun:
        """Plan the run over one photo, with everything there that it needs.

        Raises:
            WorkflowInvalidError: the workflow cannot run, or the photo is not there or claims too many pixels.
            WeightsMissingError: a model it needs is not installed.
            PhotokeepError: a weight file it needs cannot be used.
        """
        planned = self.laid_out(photo)
        with host.standalone(planned.settings):
            if problems := oversized_inputs(planned.plan, self.schemas):
                raise invalid(problems)
        self.require_models(planned)
        return planned

    def laid_out(self, photo: Path | None) -> PlannedRun:
        """Plan the run over one photo; its models need not be installed.

        Raises:
            WorkflowInvalidError: the workflow cannot run, or the photo is not there.
        """
        settings, workflow = self._settings, self._workflow
        if photo is not None:
            folder = photo.absolute().parent
            settings = replace(settings, input_dirs=(folder, *settings.input_dirs))
            workflow = feed_photo(workflow, photo.name, self.schemas)
        with host.standalone(settings):
            plan = make_plan(workflow, self.schemas)
        return PlannedRun(photo, plan, settings)

    def require_models(self, planned: PlannedRun) -> None:
        """Check that a run's models are installed.

        Raises:
            WeightsMissingError: one is not; the hint has the command that gets what can be got.
            PhotokeepError: a weight file cannot be used.
        """
        with host.standalone(planned.settings):
            try:
                needed_models(planned.plan, self.schemas).require()
            except WeightsMissingError as error:
                raise self._with_command(error) from None

    def _with_command(self, error: WeightsMissingError) -> WeightsMissingError:
        """Add the one command that gets what is missing, where any of it can be got."""
        published = ["command" in each for each in error.context["missing"]]
        if not any(published):
            return error
        what = "All of them" if all(published) else "All but your own files"
        command = ["photokeep", "models", "get", "-w", str(self.workflow_path)]
        command += [word for pack in self.packs for word in ("--allow-pack", str(pack.path))]
        hint = f"{what}: {shlex.join(command)}\n{error.hint}"
        return WeightsMissingError(error.message, hint=hint, **error.context)

    def needed_models(self) -> NeededModels:
        """The models that a run needs, installed or not; the photos it would read need not be there.

        Raises:
            WorkflowInvalidError: the workflow cannot run, whatever the photos.
        """
        unchecked = {
            name: replace(schema, node_class=None) if schema.file_inputs else schema
            for name, schema in self.schemas.items()
        }
        return needed_models(make_plan(self._workflow, unchecked), self.schemas)

    def _runner(self, planned: PlannedRun, listener: Listener, *, more_photos: bool = False) -> Runner:
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
            more_photos=more_photos,
            packs=self.packs,
            identity=f"{self.workflow_path.resolve()}\n{planned.photo.absolute() if planned.photo else ''}",
        )

    def run(self, listener: Listener) -> Iterator[RunResult]:
        """Run photo by photo; a photo that fails does not keep the others from their turn.

        Everything that can be known beforehand is checked before any work. An interruption leaves the result of the
        photo in hand as the last one, and is then raised.
        """
        for pack in self.packs:
            for left_out in pack.left_out:
                listener(Warned(left_out))
        self.check(listener)
        for index, photo in enumerate(self.photos):
            listener(RunStarted(photo, index + 1, len(self.photos)))
            try:
                runner = self._runner(self.planned(photo), listener, more_photos=index + 1 < len(self.photos))
            except PhotokeepError as error:  # about this photo: the rest has been checked
                result = RunResult(photo, "failed", (), 0.0, error)
            else:
                result = runner.run(photo)
            listener(RunEnded(result))
            yield result
            if result.status == "interrupted":
                raise KeyboardInterrupt
            if self.store is not None:
                self.store.evict()

    def check(self, listener: Listener, *, need_models: bool = True) -> None:
        """Plan photos until one can be planned, to find what is wrong with the workflow itself.

        Args:
            listener: told what the user should know.
            need_models: whether the models have to be installed.
        Raises:
            PhotokeepError: the workflow cannot run, or no photo can be used; the first photo's error.
        """
        first_error: WorkflowInvalidError | None = None
        for photo in self.photos:
            try:
                plan = (self.planned if need_models else self.laid_out)(photo).plan
            except WorkflowInvalidError as error:
                first_error = first_error or error
                if any(problem["code"] != "custom_validation_failed" for problem in error.context["problems"]):
                    break
            else:
                for problem in plan.warnings:
                    listener(Warned(problem.line()))
                return
        if first_error is not None:
            raise first_error

    def forecast(self, planned: PlannedRun) -> list[Forecast]:
        """What would happen to each stage of a run; its models need not be installed."""
        return self._runner(planned, lambda _event: None).forecast()
