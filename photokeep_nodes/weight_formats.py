"""Readers of weight files: safetensors, restricted pickles, TorchScript and ncnn, each into a dict of tensors.

Nothing here trusts a file. Sizes are checked against the file before memory is asked for, pickles may hold nothing but
tensors and plain containers, and weights that are not finite are refused, because they turn a photo black without a
word. The ncnn reader itself is in ``ncnn.py``, and what takes only the tensors out of a TorchScript program, and runs
none of it, in ``torchscript_reader.py``.
"""

from __future__ import annotations

import errno
import pickle
import re
import struct
import tarfile
import zipfile
from typing import TYPE_CHECKING, Any, Literal

from .errors import WeightsFormatError
from .ncnn import NcnnLayer, read_ncnn, rrdbnet, srvgg
from .onnx_reader import read_graph
from .torchscript_reader import is_torchscript, read_torchscript

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence
    from pathlib import Path

    import torch

__all__ = ["finite", "read_ncnn", "read_pickle", "read_safetensors", "read_state_dict", "rrdbnet", "srvgg"]

MAX_FILE_BYTES = 16 * 2**30

_PIECE = 2**22
"""How many float8 weights are widened at once."""

_OLDEST_TORCH = (2, 10)
"""Older unpicklers can be made to run code or to write past their memory: CVE-2025-32434, CVE-2026-24747."""

_WRAPPERS = (
    "params_ema", "params-ema", "params", "g_ema", "state_dict", "model_state_dict", "model_state", "model", "net",
)  # fmt: skip
"""Keys under which trainers nest the tensors, preferred first: of two sets, the averaged one is meant to be used."""

KeyMap = Literal["rrdbnet", "srvgg"]
KEY_MAPS: dict[KeyMap, Callable[[Sequence[NcnnLayer]], dict[str, torch.Tensor]]] = {"rrdbnet": rrdbnet, "srvgg": srvgg}


def read_state_dict(
    path: Path, *, param_path: Path | None = None, key_map: KeyMap | None = None, suffix: str | None = None
) -> dict[str, torch.Tensor]:
    """Read any supported weight file.

    Args:
        path: a ``.safetensors``, an ncnn ``.bin`` (with ``param_path`` and ``key_map``), an ``.onnx``, whose bytes are
            returned as they are, or else a PyTorch checkpoint or a TorchScript archive.
        param_path: the ncnn network text that goes with an ncnn ``.bin``.
        key_map: how an ncnn network's tensors are to be named.
        suffix: of the name that counts, where the file still has another.
    Returns:
        Tensors by name, on the CPU, all finite. ncnn weights are widened to float32; others keep their type and may be
        backed by the file until copied.
    Raises:
        WeightsFormatError: unreadable, damaged, hostile, or not what ``key_map`` expects.
    """
    if param_path is not None or key_map is not None:
        if param_path is None or key_map is None:
            raise WeightsFormatError("an ncnn file needs both its .param text and a key map", path=str(path))
        return finite(KEY_MAPS[key_map](read_ncnn(param_path, path)), path)
    kind = (path.suffix if suffix is None else suffix).lower()
    if kind == ".safetensors":
        return finite(read_safetensors(path), path)
    if kind == ".onnx":
        return read_graph(path)
    return finite(read_pickle(path), path)


def read_safetensors(path: Path) -> dict[str, torch.Tensor]:
    """Read a safetensors file.

    Raises:
        WeightsFormatError: unreadable or damaged.
    """
    import safetensors
    import safetensors.torch

    _size_bytes(path)
    try:
        return safetensors.torch.load_file(path, device="cpu")
    except (safetensors.SafetensorError, OSError, ValueError, RuntimeError, KeyError) as error:
        raise _unreadable(path, error) from error


def read_pickle(path: Path) -> dict[str, torch.Tensor]:
    """Read a PyTorch checkpoint, or a TorchScript archive, without letting it run code.

    Wrappers that trainers add (``params_ema``, ``params``, ``g_ema``, ``state_dict``) are taken off.

    Raises:
        WeightsFormatError: unreadable, holds more than tensors, or tries to call something.
    """
    import torch

    _require_safe_torch(path)
    size_bytes = _size_bytes(path)
    in_zip = zipfile.is_zipfile(path)
    _check_beginning(path, size_bytes, in_zip=in_zip)
    if in_zip:
        members = _members(path)
        if is_torchscript(each.filename for each in members):
            return read_torchscript(path)
        _check_stored(members, path)
    try:
        if not in_zip:
            _check_legacy(path, size_bytes)
        # A zip archive is mapped, not read, so that 350 MB cost no second copy; the old format cannot be mapped.
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True if in_zip else None)
    except pickle.UnpicklingError as error:
        found = re.search(r"GLOBAL ([\w.]{1,80})", str(error))
        raise WeightsFormatError(
            f"{path.name} is refused: it is not a plain checkpoint of tensors, and may carry code"
            + (f" (it names {found[1]})" if found else ""),
            hint="Delete the file and get it again from where its publisher has it, as safetensors if there is one.",
            path=str(path),
            reason=str(error).splitlines()[0] if str(error) else "",
        ) from error
    # What a damaged archive makes the unpickler raise is not documented; nothing of it may reach the user untyped.
    except (
        EOFError, OSError, RuntimeError, MemoryError, ValueError, LookupError, TypeError, AttributeError,
        AssertionError, OverflowError, struct.error, tarfile.TarError,
    ) as error:  # fmt: skip
        raise _unreadable(path, error) from error
    return _unwrap(loaded, path)


def is_checkpoint(path: Path) -> bool:
    """Whether a file begins as PyTorch checkpoints do: a zip archive, or a pickle of protocol 2 and later."""
    with path.open("rb") as stream:
        head = stream.read(4)
    return head == b"PK\x03\x04" or (head[:1] == b"\x80" and head[1:2] in {b"\2", b"\3", b"\4", b"\5"})


def _check_beginning(path: Path, size_bytes: int, *, in_zip: bool) -> None:
    """Refuse what is no checkpoint at all by what it is, and an archive without its end as cut short."""
    try:
        with path.open("rb") as stream:
            head = stream.read(64)
    except OSError as error:
        raise _unreadable(path, error) from error
    if head.removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<"):
        raise WeightsFormatError(
            f"{path.name} is a web page and no weights",
            hint="The address led to a page about the file, or to an error. Download the file itself.",
            path=str(path),
        )
    if not head.strip(b"\0"):
        raise WeightsFormatError(
            f"{path.name} is filled with zeros: it was never written, or its download broke off",
            hint="Delete the file and get it again.",
            path=str(path),
        )
    if not in_zip and tarfile.is_tarfile(path):
        raise WeightsFormatError(
            f"{path.name} is a tar archive: PyTorch 0.1 wrote those, and nothing reads them safely",
            hint="Get the file as safetensors, or as a checkpoint of a later PyTorch.",
            path=str(path),
        )
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") <= size_bytes - 8:
        raise WeightsFormatError(
            f"{path.name} is a safetensors file and no checkpoint",
            hint=f"Rename it to {path.stem}.safetensors.",
            path=str(path),
        )
    if head.startswith(b"PK\x03\x04") and not in_zip:
        raise WeightsFormatError(
            f"{path.name} is cut short: it begins as a checkpoint, and its end is not there",
            hint="Delete the file and get it again.",
            path=str(path),
        )


def _require_safe_torch(path: Path) -> None:
    import torch

    match = re.match(r"(\d+)\.(\d+)", str(torch.__version__))
    if match is None or (int(match[1]), int(match[2])) < _OLDEST_TORCH:
        raise WeightsFormatError(
            f"{path.name} is a pickle, and torch {torch.__version__} cannot read those safely",
            hint="Update it: pip install 'torch>=2.10' (CVE-2025-32434, CVE-2026-24747), or use a safetensors file.",
            path=str(path),
        )


def _members(path: Path) -> list[zipfile.ZipInfo]:
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unreadable(path, error) from error


def _check_stored(members: Sequence[zipfile.ZipInfo], path: Path) -> None:
    """Refuse an archive whose members are compressed: PyTorch stores them as they are."""
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise WeightsFormatError(f"{path.name} is not a PyTorch checkpoint: its members are compressed", path=str(path))


def _check_legacy(path: Path, size_bytes: int) -> None:
    """Refuse a file of the old format with a tensor larger than the file: it would be given the memory first.

    Several tensors that together claim too much get memory that is never touched, and are refused when the file ends.
    """
    import torch
    from torch._subclasses.fake_tensor import FakeTensorMode

    with FakeTensorMode():  # the same unpickler, but tensors are only described
        described = torch.load(path, map_location="cpu", weights_only=True)
    # Not their sum: that they share memory does not show.
    if any(torch.Tensor.untyped_storage(tensor).nbytes() > size_bytes for tensor in _tensors(described)):
        raise WeightsFormatError(
            f"{path.name} holds a tensor larger than the file",
            hint="If the file is cut short, delete it and get it again.",
            path=str(path),
        )


def _tensors(loaded: Any, depth: int = 4) -> Iterator[torch.Tensor]:
    import torch

    if isinstance(loaded, torch.Tensor):
        yield loaded
    elif isinstance(loaded, dict) and depth:
        for value in loaded.values():
            yield from _tensors(value, depth - 1)


def _unwrap(loaded: Any, path: Path) -> dict[str, torch.Tensor]:
    import torch

    for _ in range(2):
        if not isinstance(loaded, dict):
            break
        wrapper = next((key for key in _WRAPPERS if isinstance(loaded.get(key), dict)), None)
        if wrapper is None:
            break
        loaded = loaded[wrapper]
    if not isinstance(loaded, dict) or not loaded:
        raise WeightsFormatError(f"{path.name} holds no state dict, but {type(loaded).__name__}", path=str(path))
    state: dict[str, torch.Tensor] = {}
    for key, value in loaded.items():
        # A key of another type is not shown: nested in itself, its text could be of any length.
        shown = repr(key[:80]) if isinstance(key, str) else f"a key of type {type(key).__name__}"
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsFormatError(
                f"{path.name} holds no state dict: {shown} is {type(value).__name__}, not a tensor", path=str(path)
            )
        # By the class: a file can put attributes on its tensors, under the names of methods too. This has none of them.
        tensor = torch.Tensor.detach(value)
        # A view can claim far more elements than the file holds; whoever copies it would run out of memory.
        if tensor.layout != torch.strided or tensor.numel() * tensor.element_size() > path.stat().st_size:
            raise WeightsFormatError(f"{path.name} holds a tensor larger than the file: {shown}", path=str(path))
        if tensor.device.type != "cpu":
            raise WeightsFormatError(f"{path.name} holds a tensor without its values: {shown}", path=str(path))
        state[key] = tensor
    return state


def finite(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    """The weights, once it is known that all of them are real numbers.

    Raises:
        WeightsFormatError: some are complex, infinite or not a number, of a type torch cannot widen, or all of them are
            integers.
    """
    import torch

    for key, tensor in state.items():
        if tensor.is_complex() or tensor.dtype == getattr(torch, "float4_e2m1fn_x2", None):
            raise WeightsFormatError(
                f"{path.name} holds weights of type {_dtype_name(tensor)} (in {key}), which no network here takes",
                path=str(path),
                tensor=key,
            )
        if tensor.is_floating_point() and tensor.numel() and not _is_finite(tensor):
            raise WeightsFormatError(
                f"{path.name} holds weights that are not numbers (in {key})",
                hint="The file is damaged. Delete it and get it again.",
                path=str(path),
                tensor=key,
            )
    # Integers beside them are indices and counters.
    if state and not any(tensor.is_floating_point() for tensor in state.values()):
        types = ", ".join(sorted({_dtype_name(tensor) for tensor in state.values()}))
        raise WeightsFormatError(
            f"{path.name} holds no weights but {types}: it is quantised, or no network",
            hint="Get the file with floating-point weights of the same model.",
            path=str(path),
        )
    return state


def _is_finite(tensor: torch.Tensor) -> bool:
    import torch

    # Float8 can only be copied, so it is widened a piece at a time.
    pieces = (
        (tensor,) if tensor.element_size() > 1 else (each.float() for each in torch.split(tensor.reshape(-1), _PIECE))
    )
    # One pass without a mask as large as the weights; aminmax hands NaN through.
    return all(torch.isfinite(bound) for piece in pieces for bound in torch.aminmax(piece))


def _dtype_name(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _size_bytes(path: Path) -> int:
    try:
        size_bytes = path.stat().st_size
    except OSError as error:
        raise _unreadable(path, error) from error
    if not 0 < size_bytes <= MAX_FILE_BYTES:
        raise WeightsFormatError(f"{path.name} has {size_bytes} bytes: no weight file is like that", path=str(path))
    return size_bytes


def _unreadable(path: Path, error: Exception) -> WeightsFormatError:
    reason = str(error).splitlines()[0] if str(error) else type(error).__name__
    # What the unpickler of old files says of one that ends too early: it seeks to before the beginning, or unpacks air.
    if isinstance(error, (EOFError, struct.error)) or (isinstance(error, OSError) and error.errno == errno.EINVAL):
        reason = "it is cut short"
    elif "weights_only" in reason:  # torch then says how to have it read after all, which is no advice to give
        reason = "it is no plain checkpoint of tensors"
    elif isinstance(error, UnicodeError):
        reason = "its name is no text that can be handed on; rename it"
    return WeightsFormatError(
        f"{path.name} cannot be read as weights: {reason}",
        hint="If the file is damaged, delete it and get it again.",
        path=str(path),
    )
