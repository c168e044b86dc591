"""Import a weight file of any supported format: checked, identified, and written as safetensors into a model folder.

The file is a stranger's: see `weight_formats` for what is not believed. A file that the catalogue knows by its digest
is put where the catalogue looks for it, as it is.
"""

from __future__ import annotations

import contextlib
import hashlib
import re
import shutil
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import digests, host, weights
from .errors import (
    NodeInputError,
    UsageError,
    WeightsCorruptError,
    WeightsError,
    WeightsFormatError,
    WeightsMissingError,
)
from .files import replacing
from .model_spec import Download, ModelSpec, WeightFile
from .models import _dropped_in, _network, catalogue
from .zip_member import ArchiveError, Place, extract, locate

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping

    import torch

SUFFIXES = (".safetensors", ".sft", ".pth", ".pt", ".ckpt", ".onnx", ".bin", ".param")
ARCHIVE_SUFFIX = ".zip"
PIN_PREFIX = "file:"
"""How the pins of imported files begin; their path follows."""

_WRITABLE = "Name a folder that can be written with --into, or with PHOTOKEEP_MODELS."
_NAME = re.compile(r"\w[\w.+ -]{0,120}")
_WRAPPERS = ("module.", "_orig_mod.")
"""What torch's own wrappers put before every name; no network has them."""

_OWNERS = (
    "net_g_ema.", "generator_ema.", "model_ema.", "ema_model.", "ema.", "model.", "net_g.", "netG.", "net.", "network.",
    "generator.",
)  # fmt: skip
"""What trainers keep the network under, the averaged weights first; some networks have these names themselves."""


@dataclass(frozen=True)
class Imported:
    """What came of an import.

    Attributes:
        path: where the weights are now.
        found_as: the name under which a Model File node has it, or the id of the model that it is; None where nothing
            looks for it there.
        spec: the model of the catalogue that the file is, or None; then the rest says what it was found to be.
        architecture: network family, as people write it.
        facts: what its network is.
        parameters: how many numbers the weights are.
    """

    path: Path
    found_as: str | None
    spec: ModelSpec | None = None
    architecture: str = ""
    facts: _network.Facts | None = None
    parameters: int = 0


def import_file(
    source: Path,
    *,
    param_path: Path | None = None,
    name: str | None = None,
    folder: Path | None = None,
    overwrite: bool = False,
    on_bytes: Callable[[int], None] | None = None,
) -> Imported:
    """Import one weight file.

    Args:
        source: a ``.safetensors``, PyTorch checkpoint, ``.onnx``, an ncnn ``.bin`` or ``.param``, or a ``.zip`` that a
            model of the catalogue is published in.
        param_path: the ncnn text, where it does not lie beside the ``.bin`` under the same name.
        name: of the new file, without suffix; None takes the source's. Published files keep their own.
        folder: where to; None takes the model folder for new files.
        overwrite: replace a file of that name.
        on_bytes: told how many more bytes of the source were hashed, as they are.
    Raises:
        UsageError: no such file, a name that is none, or one that is taken.
        WeightsFormatError: unreadable, hostile, or of no architecture that is known.
        WeightsError: it cannot be written.
    """
    if source.suffix.lower() == ARCHIVE_SUFFIX:
        return _import_archive(source, folder, overwrite=overwrite, on_bytes=on_bytes)
    source, param_path = _pair(source, param_path)
    with _explained(f"{source} cannot be read"):
        sha256 = digests.digest(source, on_bytes=on_bytes)
    if (known := _published(sha256)) is not None:
        return _place(source, *known, folder, overwrite=overwrite)
    with _explained(f"{source} cannot be read"):
        descriptor, state = _identified(_read(source, param_path), source)
    facts = _network.facts_of(descriptor)
    target = (folder or host.new_model_dir(_kind_of_folder(facts))) / f"{_file_name(source, name)}.safetensors"
    about = {
        "format": "pt",
        "source": source.name,
        "source_sha256": sha256,
        "architecture": facts.architecture,
        "scale": str(facts.scale),
        "input_channels": str(facts.input_channels),
        "output_channels": str(facts.output_channels),
        "photokeep_version": _version(),
    }
    with _explained(f"{source.name} could not be imported to {target}", hint=_WRITABLE):
        _require_free(target, overwrite=overwrite)
        _dropped_in.note(_write(state, target, about), facts)
    return Imported(
        target,
        _listed_as(target),
        architecture=descriptor.architecture.name,
        facts=facts,
        parameters=sum(tensor.numel() for tensor in state.values()),
    )


@contextlib.contextmanager
def _explained(what: str, hint: str = "") -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise WeightsError(f"{what}: {error.strerror or error}", hint=hint) from error


def imported_files() -> dict[Path, str]:
    """Files that were imported and are still there, with the digest each was written with."""
    entries = digests.pins.all().items()
    paths = {Path(name[len(PIN_PREFIX) :]): entry["sha256"] for name, entry in entries if name.startswith(PIN_PREFIX)}
    return {path: sha256 for path, sha256 in paths.items() if path.is_file()}


def imported_named(name: str) -> list[Path]:
    """Imported files of that name, or the one at that path."""
    at = Path(name).absolute()
    return [path for path in imported_files() if path.name == name or path == at]


def trust(path: Path) -> None:
    """Take an imported file as it is now as the right one.

    Raises:
        WeightsFormatError: unreadable, hostile, or of no architecture that is known.
        WeightsError: it cannot be kept in mind.
    """
    try:
        _identified(_read(path, None), path)
        digests.repin(f"{PIN_PREFIX}{path}", digests.digest(path, rehash=True))
    except OSError as error:
        raise WeightsError(f"{path.name} cannot be trusted: {error.strerror or error}") from error


# -- read ------------------------------------------------------------------------------------------------------------


def _pair(source: Path, param_path: Path | None) -> tuple[Path, Path | None]:
    """The file with the weights, and the ncnn text that goes with it."""
    if source.suffix.lower() not in SUFFIXES:
        raise UsageError(f"{source.name}: weights are imported from {', '.join((*SUFFIXES, ARCHIVE_SUFFIX))}")
    if source.suffix.lower() == ".param":
        source, param_path = _beside(source, ".bin"), param_path or source
    text = _beside(source, ".param")
    if source.suffix.lower() == ".bin" and param_path is None and text.is_file():
        param_path = text
    for path in (source, param_path):
        if path is not None and not path.is_file():
            raise UsageError(f"there is no file {path}")
    return source, param_path


def _beside(path: Path, suffix: str) -> Path:
    """The file of the same name with another suffix, in small or in capital letters."""
    small, capital = path.with_suffix(suffix), path.with_suffix(suffix.upper())
    return capital if capital.is_file() and not small.is_file() else small


def _read(source: Path, param_path: Path | None) -> dict[str, torch.Tensor]:
    from . import weight_formats

    suffix = source.suffix.lower()
    if suffix == ".onnx":
        from .onnx_reader import read_onnx

        return weight_formats.finite(read_onnx(source), source)
    if param_path is not None:
        return _read_ncnn(source, param_path)
    if suffix == ".bin" and not weight_formats.is_checkpoint(source):
        raise UsageError(
            f"{source.name} is an ncnn file without its text {source.stem}.param",
            hint="Put that beside it, or name it with --param.",
        )
    return weight_formats.read_state_dict(source, suffix=".safetensors" if suffix == ".sft" else None)


def _read_ncnn(source: Path, param_path: Path) -> dict[str, torch.Tensor]:
    from . import weight_formats

    reasons = []
    for key_map in weight_formats.KEY_MAPS:
        try:
            return weight_formats.read_state_dict(source, param_path=param_path, key_map=key_map)
        except WeightsFormatError as error:
            reasons.append(error.message)
    raise WeightsFormatError(
        f"{source.name}: of ncnn networks only RRDBNet x4 and SRVGGNetCompact x4 can be imported: "
        + "; ".join(dict.fromkeys(reasons)),
        hint="Import the PyTorch checkpoint it was made of.",
        path=str(source),
    )


def _identified(state: Mapping[str, torch.Tensor], source: Path) -> tuple[Any, Mapping[str, torch.Tensor]]:
    """What the weights are, and those of them that belong to it."""
    misfit = ""
    for candidate in _candidates(state):
        try:
            return _network.identify(candidate, wanted="an architecture that spandrel knows"), candidate
        except WeightsFormatError as error:
            if "do not fit" in error.message:
                misfit = misfit or f" ({error.message[:200]})"
    names = ", ".join(repr(name[:60]) for name in list(state)[:3])
    raise WeightsFormatError(
        f"{source.name} is of no architecture that is known{misfit}. It holds {len(state)} tensors, such as {names}",
        hint=_network.UNKNOWN_HINT,
        path=str(source),
    )


def _candidates(state: Mapping[str, torch.Tensor], depth: int = 3) -> Iterator[Mapping[str, torch.Tensor]]:
    """The weights as they are, then what lies under each prefix that trainers add."""
    for wrapper in _WRAPPERS:
        if all(key.startswith(wrapper) for key in state):
            state = {key.removeprefix(wrapper): value for key, value in state.items()}
    yield state
    for owner in _OWNERS if depth else ():
        inner = {key.removeprefix(owner): value for key, value in state.items() if key.startswith(owner)}
        if inner:
            yield from _candidates(inner, depth - 1)


# -- written ---------------------------------------------------------------------------------------------------------


def _published(sha256: str) -> tuple[ModelSpec, WeightFile] | None:
    """The model whose published file has this digest, if it can be used, or put where it can."""
    for spec in catalogue().values():
        for file in spec.weights:
            if file.sha256 == sha256 and (isinstance(file.origin, Download) or weights.status(spec).installed):
                return spec, file
    return None


def _place(source: Path, spec: ModelSpec, file: WeightFile, folder: Path | None, *, overwrite: bool) -> Imported:
    """Copy a published file under its published name; one that comes with a package is there already."""
    if not isinstance(file.origin, Download):
        return Imported(weights.verify(spec).path, spec.id, spec)

    def copy(temporary: Path) -> None:
        shutil.copyfile(source, temporary)

    return _put(copy, source, spec, file, file.origin, folder, overwrite=overwrite)


def _put(
    write: Callable[[Path], None],
    source: Path,
    spec: ModelSpec,
    file: WeightFile,
    origin: Download,
    folder: Path | None,
    *,
    overwrite: bool,
) -> Imported:
    """Have a published file written under its published name, unless it is there."""
    target = (folder or host.new_model_dir(origin.folder)) / origin.filename
    with _explained(f"{source.name} could not be imported to {target}", hint=_WRITABLE):
        if not (target.is_file() and digests.digest(target) == file.sha256):
            _require_free(target, overwrite=overwrite)
            with replacing(target) as temporary:
                write(temporary)
    searched = {each.resolve() for each in host.user_model_dirs(origin.folder)}
    return Imported(target, spec.id if target.parent.resolve() in searched else None, spec)


def _import_archive(
    source: Path, folder: Path | None, *, overwrite: bool, on_bytes: Callable[[int], None] | None
) -> Imported:
    """Take out of an archive the one file that a model of the catalogue is."""
    if not source.is_file():
        raise UsageError(f"there is no file {source}")
    reasons: dict[str, None] = {}
    with _explained(f"{source} cannot be read"), source.open("rb") as stream:

        def read_at(start: int, stop: int) -> bytes:
            stream.seek(start)
            return stream.read(stop - start)

        for spec, file, origin in _archived():
            try:
                place = locate(read_at, source.stat().st_size, origin.member)
            except ArchiveError as error:
                reasons[str(error)] = None
                continue

            def take_out(
                temporary: Path, place: Place = place, spec: ModelSpec = spec, file: WeightFile = file
            ) -> None:
                _extract(stream, place, file, temporary, on_bytes, what=f"{source.name}: the file of {spec.title}")

            return _put(take_out, source, spec, file, origin, folder, overwrite=overwrite)
    raise WeightsFormatError(
        f"{source.name} is no archive that a model of the catalogue is published in: {'; '.join(reasons)}",
        hint="Unpack it, and import the weight file that it holds.",
        path=str(source),
    )


def _archived() -> Iterator[tuple[ModelSpec, WeightFile, Download]]:
    """The files that are published inside an archive."""
    for spec in catalogue().values():
        for file in spec.weights:
            if isinstance(file.origin, Download) and file.origin.member and file.sha256:
                yield spec, file, file.origin


def _extract(
    archive: BinaryIO,
    place: Place,
    file: WeightFile,
    target: Path,
    on_bytes: Callable[[int], None] | None,
    *,
    what: str,
) -> None:
    sha256 = hashlib.sha256()
    try:
        with target.open("wb") as stream:
            for piece in extract(archive, place, file.size_bytes):
                stream.write(piece)
                sha256.update(piece)
                if on_bytes is not None:
                    on_bytes(len(piece))
    except ArchiveError as error:
        raise WeightsCorruptError(f"{what}: {error}", hint="Download the archive again.") from error
    if sha256.hexdigest() != file.sha256:
        raise WeightsCorruptError(
            f"{what} in it has sha256 {sha256.hexdigest()}, the published one {file.sha256}",
            hint="Download the archive again, from where its publisher has it.",
        )


def _kind_of_folder(facts: _network.Facts) -> str:
    """Upscalers go where ComfyUI's own loader has them too, if it can use them: it hands colour photos to all."""
    shared = facts.purpose in {"SR", "Restoration"} and facts.input_channels == facts.output_channels == 3
    return "upscale_models" if shared else "photokeep"


def _listed_as(path: Path) -> str | None:
    """The name that Model File nodes have for a file; None where they do not look, or find another one first."""
    for folder in host.user_model_dirs():
        with contextlib.suppress(ValueError, NodeInputError, WeightsMissingError):
            name = path.resolve().relative_to(folder.resolve()).as_posix()
            if _dropped_in.find(name).samefile(path):
                return name
    return None


def _require_free(target: Path, *, overwrite: bool) -> None:
    if target.exists() and not overwrite:
        raise UsageError(f"{target} is there already", hint="Give another --name, or replace it with --force.")


def _file_name(source: Path, name: str | None) -> str:
    if name is None:
        return re.sub(r"[^\w.+ -]+", "_", source.stem).strip("._ ")[:120] or "imported"
    name = name.removesuffix(".safetensors")
    if _NAME.fullmatch(name) is None:
        raise UsageError(f"{name[:80]!r} is no file name", hint="Use letters, digits, and . _ + - between them.")
    return name


def _write(state: Mapping[str, torch.Tensor], target: Path, about: dict[str, str]) -> str:
    """Write safetensors; returns the digest of the new file, which is pinned."""
    import safetensors.torch
    import torch

    # Copies: tensors that share memory cannot be saved, and mapped ones would keep the source open.
    tensors = {key: tensor.detach().clone(memory_format=torch.contiguous_format) for key, tensor in state.items()}
    with replacing(target) as temporary:
        safetensors.torch.save_file(tensors, temporary, metadata=about)
    written = digests.digest(target, rehash=True)
    digests.pin(f"{PIN_PREFIX}{target.absolute()}", written)
    return written


def _version() -> str:
    try:
        return metadata.version("photokeep")
    except metadata.PackageNotFoundError:
        return "unknown"
