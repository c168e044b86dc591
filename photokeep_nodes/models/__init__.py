"""The catalogue: every module in this folder that has a ``SPEC`` is a model.

Reading the catalogue imports no torch.
"""

from __future__ import annotations

import importlib
import pkgutil
from dataclasses import replace
from functools import cache

from ..errors import NodeInputError, WeightsMissingError
from ..model_spec import Download, ModelHandle, ModelSpec
from . import _dropped_in

EXACT = "exact:"
"""How the ids in handles begin of models that are to compute in float32, whatever the device prefers."""

_modules: dict[str, str] = {}


@cache
def catalogue() -> dict[str, ModelSpec]:
    """Every model, by id, in the order of their module names.

    Raises:
        RuntimeError: two modules claim one id.
    """
    specs: dict[str, ModelSpec] = {}
    for module_info in pkgutil.iter_modules(__path__):
        module = importlib.import_module(f"{__name__}.{module_info.name}")
        spec: ModelSpec | None = getattr(module, "SPEC", None)
        if spec is None:
            continue
        if spec.id in specs:
            raise RuntimeError(f"two modules in {__name__} claim the model id {spec.id!r}")
        specs[spec.id] = spec
        _modules[spec.id] = module.__name__
    return specs


def module_of(model_id: str) -> str:
    """Name of the module that defines a model; its code is part of what the model computes."""
    if model_id.startswith(_dropped_in.PREFIX):
        return _dropped_in.__name__
    catalogue()
    return _modules[model_id]


def get(handle: ModelHandle) -> ModelSpec:
    """The model a handle names.

    Raises:
        NodeInputError: the handle is none, or names a model this version does not have.
        WeightsError: it names a file of the user's that is missing, damaged, or of no known architecture.
    """
    if not isinstance(handle, ModelHandle):
        raise NodeInputError(f"a model handle was expected, not {type(handle).__name__}", hint="Connect a model node.")
    if handle.model_id.startswith(EXACT):
        plain = replace(handle, model_id=handle.model_id.removeprefix(EXACT))
        return replace(get(plain), dtypes=("float32",))
    if handle.model_id.startswith(_dropped_in.PREFIX):
        return _dropped_in.get(handle.model_id)
    spec = catalogue().get(handle.model_id)
    if spec is None:
        raise NodeInputError(f"there is no model {handle.model_id!r} here", hint="See `photokeep models list`.")
    return spec if handle.blend == 0.0 else _mixture(spec, handle.blend)


def upscaler_named(filename: str) -> ModelHandle:
    """The handle of what the host's Load Upscale Model calls by a file's name, to be computed as the host does.

    A file in the model folders comes first; one that is not there may be known to the catalogue, which then has other
    files of the same weights, or can say where to get it.

    Args:
        filename: below a model folder.
    """
    handle = _dropped_in.handle_for("upscale", filename, any_scale=True)
    try:
        _dropped_in.find(filename)
    except WeightsMissingError:
        for spec in catalogue().values():
            names = {file.origin.filename for file in spec.weights if isinstance(file.origin, Download)}
            if spec.role == "upscale" and filename.rpartition("/")[2] in names:
                handle = ModelHandle(spec.id)
    except NodeInputError:
        pass  # said by whoever asks for the model
    return replace(handle, model_id=EXACT + handle.model_id)


def file_names() -> list[str]:
    """Names of the weight files in the model folders, for ``upscaler_named``."""
    return _dropped_in.names(with_published=True)


def own_file(handle: ModelHandle) -> tuple[str, str]:
    """The stage that a handle of the user's own file is to serve and the file's name; both empty for other handles."""
    model_id = handle.model_id.removeprefix(EXACT)
    return _dropped_in.parsed(model_id)[:2] if model_id.startswith(_dropped_in.PREFIX) else ("", "")


def check_file_name(filename: str) -> None:
    """Refuse what cannot be the name of a weight file.

    Raises:
        NodeInputError: it leads out of the model folders, or ends otherwise.
    """
    _dropped_in.check_name(filename)


def _mixture(spec: ModelSpec, share: float) -> ModelSpec:
    partner = catalogue().get(spec.blend.partner) if spec.blend is not None else None
    if partner is None or not 0.0 <= share <= 1.0:
        raise NodeInputError(f"{spec.title} cannot be mixed with {share:g} of another model")
    if share == 1.0:
        return partner
    return replace(spec, id=f"{spec.id}+{share:g}*{partner.id}", mixed_with=(partner, share))
