"""The models of a plan: whether they are here, their terms, and what they take in memory as far as it was measured.

Imports no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes import models, vram_metrics, weights
from photokeep_nodes.errors import MissingExtraError, PhotokeepError, WeightsMissingError

from .pool_figures import last_run

if TYPE_CHECKING:
    from photokeep_nodes.model_spec import ModelHandle, ModelSpec

ModelState = Literal["installed", "missing", "corrupt", "unusable"]
Basis = Literal["measured", "at least", "estimate", ""]

_OWN_FILE = "file:"  # how ids of models begin that are files of the user's own; their terms are their publisher's


@dataclass(frozen=True)
class ModelPlan:
    """A model that a plan needs.

    Attributes:
        id: in the catalogue, or of the user's own file.
        title: as people write it.
        role: the stage it serves.
        file: name of its weight file; of a mixture's two files, both.
        size_bytes: of the file.
        licence: terms of the weights.
        commercial: whether they allow commercial use; None where nobody knows, as of a file of the user's own.
        state: "unusable" means that the file is there but does not make a model, or its network's code is not there.
        detail: what is wrong, where something is.
        install: command that gets what is missing; empty where nothing is, or where it cannot be got.
        weight_bytes: what the weights take in memory; measured in the last run, else computed.
        working_bytes: what a call takes beside them; None if nothing is known.
        working_is: where that figure comes from.
    """

    id: str
    title: str
    role: str
    file: str
    size_bytes: int
    licence: str
    commercial: bool | None
    state: ModelState
    detail: str = ""
    install: str = ""
    weight_bytes: int = 0
    working_bytes: int | None = None
    working_is: Basis = ""


class Figures:
    """What earlier runs have measured on devices of one kind.

    Args:
        device: "cpu", "cuda" or "mps".
    """

    def __init__(self, device: str) -> None:
        self._largest: dict[str, dict[str, Any]] = {}
        for row in vram_metrics.working_memory().listing():
            # A card is kept by its name.
            mine = row["device"] == device if row["device"] in {"cpu", "mps"} else device == "cuda"
            taken = max(row["peak_bytes"], row["refused_bytes"])
            if mine and taken >= self._largest.get(row["model"], {"taken": 1})["taken"]:
                self._largest[row["model"]] = row | {"taken": taken}
        in_memory = (last_run() or {}).get("models", ())
        self._resident = {model["key"]: model["n_bytes"] for model in in_memory if model["n_bytes"]}

    def weights(self, spec: ModelSpec) -> int:
        """Bytes of a model's weights in memory: as they were in the last run, else as they are in full precision."""
        found = [n_bytes for key, n_bytes in self._resident.items() if key.startswith(f"{spec.id}:")]
        return max(found, default=spec.weight_bytes)

    def working(self, spec: ModelSpec) -> tuple[int | None, Basis]:
        """The most that a call was seen to take; where none was, what the catalogue says, if inputs are of one size."""
        row = self._largest.get(spec.network_id)
        if row is not None:
            return row["taken"], "at least" if row["sampled"] else "measured"
        if spec.native_side:
            return spec.bytes_per_pixel * spec.native_side**2, "estimate"
        return None, ""


def model_plan(handle: ModelHandle, figures: Figures) -> ModelPlan:
    """Find out what there is to know of a model, whether or not it can be used."""
    try:
        spec = models.get(handle)
    except PhotokeepError as error:  # a file of the user's own that is gone, or makes no model
        role, name = models.own_file(handle)
        missing = isinstance(error, WeightsMissingError)
        detail = error.message.splitlines()[0]
        return ModelPlan(
            handle.model_id,
            name or handle.model_id,
            role,
            name,
            0,
            "",
            None,
            state="missing" if missing else "unusable",
            detail=f"{detail}. {error.hint}" if missing and error.hint else detail,
        )
    found = [(part, weights.status(part)) for part in spec.parts]
    files = [each.installed.file if each.installed is not None else part.weights[0] for part, each in found]
    state: ModelState = "installed"
    detail, install = "", ""
    amiss = [(part, each) for part, each in found if each.state != "installed"]
    if amiss:
        state, detail = amiss[0][1].state, amiss[0][1].detail
        install = " && ".join(weights.install_command(part) for part, _ in amiss)
    else:
        try:
            for part, _ in found:
                weights.require_code(part)
        except MissingExtraError as error:
            state, detail, install = "unusable", error.message, error.hint
    licences = list(dict.fromkeys(file.licence for file in files))
    working_bytes, basis = figures.working(spec)
    return ModelPlan(
        id=spec.id,
        title=spec.title,
        role=spec.role,
        file=", ".join(file.filename for file in files),
        size_bytes=sum(file.size_bytes for file in files),
        licence=", ".join(dict.fromkeys(licence.id for licence in licences)),
        commercial=None if spec.id.startswith(_OWN_FILE) else all(licence.commercial for licence in licences),
        state=state,
        detail=detail,
        install=install,
        weight_bytes=figures.weights(spec),
        working_bytes=working_bytes,
        working_is=basis,
    )
