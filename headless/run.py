"""Execute a plan: in dependency order, each stage at most once, nothing that the store already holds.

A stage whose key is in the store is not run; its outputs are read only if a later stage that does run needs them. So
a run in which nothing changed reads no pixels, loads no weights and imports no torch. A stage that fails takes the
stages behind it with it and no others.
"""

from __future__ import annotations

import hashlib
import time
from contextlib import ExitStack
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from photokeep_nodes import host
from photokeep_nodes.errors import CacheError, NodeInputError, PhotokeepError, WeightsMissingError
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.peak_memory import PeakSampler

from . import artefact
from .call import call_node, file_error
from .events import Listener, RunResult, StageEnded, StageProgressed, StageResult, StageStarted, Warned
from .explanations import Explanations
from .fingerprint import explain, stage_key
from .foresight import Foresight, handle_of, is_model_stage
from .graph import Link
from .kept_files import KeptFiles
from .memory import PeakMemory
from .packs import by_class_type
from .parts import ALWAYS_NEW, HiddenInputs, model_digest, stage_parts
from .preflight import needed_models
from .store import Record, StoredFile, StoredOutput, short_text

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence
    from pathlib import Path

    from .events import RunStatus, StageStatus
    from .packs import Pack
    from .plan import Plan, Stage
    from .schema import NodeSchema
    from .store import Store

_REPORT = "report"  # name of the output that tells people what a stage did
_MOVED = "what it saved was moved or changed"


@dataclass(frozen=True)
class Forecast:
    """What would happen to a stage if the plan ran now.

    Attributes:
        will_run: False if its outputs are in the store; None if that depends on what an earlier stage returns, or on
            something that is not there.
        why: the reason in a few words.
        blocked: a model or a file that it needs is not there.
        last: what the store knows of the last time it ran: with these inputs, else with whatever inputs.
    """

    stage_id: str
    will_run: bool | None
    why: str
    blocked: bool = False
    last: Record | None = None


class Runner:
    """Runs one plan over one photo.

    Args:
        plan: what to run.
        schemas: the node classes behind it.
        settings: folders, device and memory budget; progress and interruption are filled in here.
        store: where outputs are kept between runs, or None.
        prompt: the workflow in API form, for nodes that embed it in what they save.
        extra_pnginfo: the editor's own graph, likewise.
        listener: told what happens.
        identity: names the workflow and photo, so that a stage can be told why it runs again.
        more_photos: whether the same plan follows for another photo.
        packs: node packs of others that some of the classes come from.
    """

    def __init__(
        self,
        plan: Plan,
        schemas: Mapping[str, NodeSchema],
        settings: host.Standalone,
        *,
        store: Store | None,
        prompt: Mapping[str, Any],
        extra_pnginfo: Mapping[str, Any],
        listener: Listener,
        identity: str,
        more_photos: bool = False,
        packs: Sequence[Pack] = (),
    ) -> None:
        self._plan = plan
        self._packs = by_class_type(packs)
        self._schemas = schemas
        self._settings = replace(settings, progress=self._on_progress)
        self._store = store
        self._hidden = HiddenInputs(prompt, extra_pnginfo)
        self._listener = listener
        self._identity = identity
        self._foresight = Foresight(plan, schemas, job_id=f"{identity} {id(self)}", more_photos=more_photos)
        self._values: dict[str, dict[int, Any]] = {}
        self._digests: dict[str, tuple[str, ...]] = {}
        self._records: dict[str, Record] = {}
        self._results: dict[str, StageResult] = {}
        self._kept_files = KeptFiles(settings.output_dir)
        self._waiting = self._count_consumers()
        worth_showing = [i for i in plan.order if not is_model_stage(schemas[plan.stages[i].class_type])]
        self._position = {stage_id: position for position, stage_id in enumerate(worth_showing, start=1)}
        self._current = ""
        self._store_failed = False
        self._explained = Explanations(store, identity)
        self._sampler: PeakSampler | None = None
        self._under_way = ExitStack()

    def _count_consumers(self) -> dict[str, int]:
        waiting = dict.fromkeys(self._plan.order, 0)
        for stage in self._plan.stages.values():
            for source in {link.node_id for link in stage.links.values()}:
                waiting[source] += 1
        return waiting

    def _on_progress(self, done: float, total: int, unit: str) -> None:
        self._listener(StageProgressed(self._current, done, total, unit))

    # -- the run ------------------------------------------------------------------------------------------------

    def run(self, photo: Path | None = None) -> RunResult:
        """Run every stage that has to.

        An interruption (Ctrl-C) ends it early: the result then says so and holds the stages that were finished.

        Raises:
            PhotokeepError: before any work, if a model is not installed or cannot be used.
        """
        started = time.perf_counter()
        status: RunStatus = "done"
        with host.standalone(self._settings):
            needed_models(self._plan, self._schemas).require()
            try:
                with self._foresight, self._explained, self._under_way:
                    for stage_id in self._plan.order:
                        self._take(self._plan.stages[stage_id])
            except KeyboardInterrupt:
                status = "interrupted"
        results = tuple(
            self._results[stage_id]
            for stage_id in self._plan.order
            if stage_id in self._results and stage_id in self._position
        )
        if status == "done" and any(result.status == "failed" for result in results):
            status = "failed"
        return RunResult(photo, status, results, time.perf_counter() - started)

    def _take(self, stage: Stage) -> None:
        blocked = [
            link.node_id for link in stage.links.values() if self._results[link.node_id].status in {"failed", "skipped"}
        ]
        if blocked:
            cause = self._plan.stages[blocked[0]].title
            self._end(stage, "skipped", f"{cause} did not finish")
        else:
            try:
                self._take_ready(stage)
            except PhotokeepError as error:
                self._end(stage, "failed", error=error)
            except OSError as error:  # a photo that may not be read, a folder that went away
                self._end(stage, "failed", error=file_error(stage, error))
        for source in {link.node_id for link in stage.links.values()}:
            self._release(source)

    def _take_ready(self, stage: Stage) -> None:
        schema = self._schemas[stage.class_type]
        linked = {name: self._value(link) for name, link in stage.links.items()} if is_model_stage(schema) else {}
        if (handle := handle_of(stage, schema, **linked)) is not None:
            self._values[stage.id] = {0: handle}
            self._digests[stage.id] = (model_digest(handle),)
            self._end(stage, "ran")
            return
        parts, key, why = None, None, "the cache is off"
        if self._store is not None:
            parts = self._parts(stage)
            key, why = self._key_and_reason(stage, parts)
            record = self._store.get(key) if key is not None else None
            if key is not None and record is not None:
                files = self._kept_files.put_back(self._store, record)
                if files is not None:
                    self._records[stage.id] = record
                    self._digests[stage.id] = tuple(output.digest for output in record.outputs)
                    self._end(stage, "cached", files=files, report=self._kept_report(self._store, stage, record))
                    return
                why = _MOVED
        self._execute(stage, why, key, parts)

    def _execute(self, stage: Stage, why: str, key: str | None, parts: dict[str, Any] | None) -> None:
        schema = self._schemas[stage.class_type]
        inputs = {
            name: self._value(value) if isinstance(value, Link) else value for name, value in stage.inputs.items()
        }
        inputs |= self._hidden_inputs(stage, schema)
        self._current = stage.id
        self._listener(StageStarted(stage.id, stage.title, why, self._position[stage.id], len(self._position)))
        started = time.perf_counter()
        self._foresight.begin(stage.id)
        with PeakMemory(self._running_sampler()) as memory:
            outputs, saved = call_node(stage, schema, inputs)
        seconds = time.perf_counter() - started
        files = self._saved_paths(stage, saved)
        self._values[stage.id] = dict(enumerate(outputs))
        self._keep(stage, outputs, files, (seconds, memory.peak_bytes), key, parts)
        said = self._report_slot(stage)
        self._end(
            stage,
            "ran",
            why,
            seconds=seconds,
            peak_bytes=memory.peak_bytes,
            files=tuple(path for path, _ in files),
            report="" if said is None else str(outputs[said]),
        )
        for each in {stage.id, *(link.node_id for link in stage.links.values())}:
            self._drop_unwanted(each)

    def _running_sampler(self) -> PeakSampler:
        if self._sampler is None:
            self._sampler = self._under_way.enter_context(PeakSampler())
        return self._sampler

    def _report_slot(self, stage: Stage) -> int | None:
        """Which output holds what a stage says of its work, if one does."""
        schema = self._schemas[stage.class_type]
        name = getattr(schema.node_class, "REPORT_OUTPUT", _REPORT)
        return next((i for i, each in enumerate(schema.outputs) if each.name == name and each.type == "STRING"), None)

    def _kept_report(self, store: Store, stage: Stage, record: Record) -> str:
        slot = self._report_slot(stage)
        if slot is None:
            return ""
        output = record.outputs[slot]
        try:
            return str(artefact.decode(output.kind, store.value(output)))
        except CacheError:
            return ""  # whoever needs the value finds out, and makes it again

    def _end(self, stage: Stage, status: StageStatus, why: str = "", **facts: Any) -> None:
        pack = self._packs.get(stage.class_type)
        facts["pack"] = "" if pack is None else pack.name
        result = StageResult(stage.id, stage.title, stage.class_type, status, why, **facts)
        self._results[stage.id] = result
        if stage.id in self._position:
            self._listener(StageEnded(result))

    def _release(self, stage_id: str) -> None:
        """Drop a stage's outputs from memory once every stage that takes them has ended."""
        self._waiting[stage_id] -= 1
        self._drop_unwanted(stage_id)

    def _drop_unwanted(self, stage_id: str) -> None:
        # Handles weigh nothing, and a stage that has to be made again needs its model.
        if self._waiting[stage_id] <= 0 and not isinstance(self._values.get(stage_id, {}).get(0), ModelHandle):
            self._values.pop(stage_id, None)

    # -- values between stages ----------------------------------------------------------------------------------

    def _value(self, link: Link) -> Any:
        values = self._values.setdefault(link.node_id, {})
        if link.output_index not in values:
            record = self._records.get(link.node_id)
            try:
                if self._store is None or record is None:
                    raise CacheError("a stage's output was dropped")
                output = record.outputs[link.output_index]
                values[link.output_index] = artefact.decode(output.kind, self._store.value(output))
            except CacheError as error:
                self._listener(Warned(f"{self._plan.stages[link.node_id].title}: {error.message}; it runs again"))
                # What it made is taken before it is dropped: nobody else may be waiting for it any more.
                self._waiting[link.node_id] += 1
                self._rerun(self._plan.stages[link.node_id], error)
                self._waiting[link.node_id] -= 1
        return self._values[link.node_id][link.output_index]

    def _rerun(self, stage: Stage, error: CacheError) -> None:
        parts = self._parts(stage) if self._store is not None else None
        key = stage_key(parts) if parts is not None else None
        self._execute(stage, error.message, key, parts)

    def _hidden_inputs(self, stage: Stage, schema: NodeSchema) -> dict[str, Any]:
        return {
            name: stage.id if kind == "UNIQUE_ID" else self._hidden.values.get(kind)
            for name, kind in schema.hidden.items()
        }

    # -- keys and stored outputs --------------------------------------------------------------------------------

    def _parts(self, stage: Stage) -> dict[str, Any]:
        return stage_parts(
            stage,
            self._schemas[stage.class_type],
            digests=self._digests,
            hidden=self._hidden,
            device=self._settings.device,
            pack=self._packs.get(stage.class_type),
        )

    def _key_and_reason(self, stage: Stage, parts: dict[str, Any]) -> tuple[str | None, str]:
        if parts["outside"] == ALWAYS_NEW:
            return None, "its result may differ each time"
        return stage_key(parts), explain(self._explained.last(stage), parts)

    def _keep(
        self,
        stage: Stage,
        outputs: tuple[Any, ...],
        files: list[tuple[Path, str]],
        took: tuple[float, int],
        key: str | None,
        parts: dict[str, Any] | None,
    ) -> None:
        if self._store is None:
            return
        encoded = [_encoded(value) for value in outputs]
        blobs: dict[str, bytes] = {}
        stored = []
        for one in encoded:
            if one is None:
                # Nothing can be said about a value that is not stored, so what takes it always runs.
                self._digests[stage.id] = tuple(f"run {time.time_ns()} slot {i}" for i in range(len(outputs)))
                return
            blob = hashlib.sha256(one.data).hexdigest() if one.kind != "tensor" else one.digest
            text = short_text(one.data) if one.kind != "tensor" else None
            if text is None:
                blobs[blob] = one.data
            stored.append(StoredOutput(one.kind, one.digest, blob, len(one.data), text))
        self._digests[stage.id] = tuple(output.digest for output in stored)
        if key is None or parts is None:
            return
        kept = []
        for path, name in files:
            data = path.read_bytes()
            blob = hashlib.sha256(data).hexdigest()
            blobs[blob] = data
            kept.append(StoredFile(name, blob, len(data)))
        try:
            self._store.put(key, Record(tuple(stored), tuple(kept), *took), blobs)
        except CacheError as error:
            if not self._store_failed:
                self._listener(Warned(str(error)))
            self._store_failed = True
            return
        self._explained.remember(stage, parts)

    def _saved_paths(self, stage: Stage, saved: list[str]) -> list[tuple[Path, str]]:
        paths = [(self._settings.output_dir / name, name) for name in saved]
        if stage.class_type in self._packs:  # which may say what it likes
            return [(path, name) for path, name in paths if self._kept_files.holds(path) and path.is_file()]
        return paths

    # -- looking ahead ------------------------------------------------------------------------------------------

    def forecast(self) -> list[Forecast]:
        """Say for each stage, in order, whether it would run, without running any; models need not be installed."""
        result = []
        unusable: dict[str, str] = {}
        with host.standalone(self._settings):
            for stage_id in self._plan.order:
                stage = self._plan.stages[stage_id]
                schema = self._schemas[stage.class_type]
                if (handle := handle_of(stage, schema)) is None:
                    found = self._forecast(stage, unusable)
                    result.append(replace(found, last=found.last or self._last_record(stage)))
                elif not stage.links:  # else it is known when what they carry is
                    try:
                        self._digests[stage_id] = (model_digest(handle),)
                    except PhotokeepError as error:
                        missing = isinstance(error, WeightsMissingError)
                        unusable[stage_id] = f"{stage.title} {'is not installed' if missing else 'cannot be used'}"
        return result

    def _forecast(self, stage: Stage, unusable: Mapping[str, str]) -> Forecast:
        unknown = [link.node_id for link in stage.links.values() if link.node_id not in self._digests]
        if blockers := [unusable[source] for source in unknown if source in unusable]:
            return Forecast(stage.id, None, blockers[0], blocked=True)
        if unknown:
            return Forecast(stage.id, None, f"after {self._plan.stages[unknown[0]].title}")
        if self._store is None:
            return Forecast(stage.id, will_run=True, why="the cache is off")
        try:
            parts = self._parts(stage)
        except (PhotokeepError, OSError) as error:  # what it reads is not there, or not to be read
            return Forecast(stage.id, None, str(error).splitlines()[0], blocked=True)
        key, why = self._key_and_reason(stage, parts)
        record = self._store.get(key) if key is not None else None
        if record is None:
            return Forecast(stage.id, will_run=True, why=why)
        if not self._kept_files.can_be_put_back(self._store, record):
            return Forecast(stage.id, will_run=True, why=_MOVED)
        self._digests[stage.id] = tuple(output.digest for output in record.outputs)
        return Forecast(stage.id, will_run=False, why="unchanged", last=record)

    def _last_record(self, stage: Stage) -> Record | None:
        parts = self._explained.last(stage)
        if self._store is None or parts is None:
            return None
        try:
            key = stage_key(parts)
        except NodeInputError:  # the file was changed by somebody
            return None
        return self._store.get(key)


def _encoded(value: Any) -> artefact.Artefact | None:
    lent = artefact.lent_handle(value)
    return artefact.encode(value, model_digest=model_digest(lent) if lent is not None else "")
