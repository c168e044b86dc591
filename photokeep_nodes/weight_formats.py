"""Readers of weight files: safetensors, restricted pickles and ncnn, each into a dict of tensors.

Nothing here trusts a file. Sizes are checked against the file before memory is asked for, pickles may hold nothing but
tensors and plain containers, and weights that are not finite are refused, because they turn a photo black without a
word. The ncnn reader itself is in ``ncnn.py``.
"""

from __future__ import annotations

import pickle
import zipfile
from typing import TYPE_CHECKING, Any, Literal

from .errors import WeightsFormatError
from .ncnn import NcnnLayer, read_ncnn, rrdbnet, srvgg

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path

    import torch

__all__ = ["read_ncnn", "read_pickle", "read_safetensors", "read_state_dict", "rrdbnet", "srvgg"]

MAX_FILE_BYTES = 16 * 2**30

_WRAPPERS = ("params_ema", "params", "g_ema", "state_dict", "model_state_dict")
"""Keys under which trainers nest the tensors, preferred first: of two sets, the averaged one is meant to be used."""

KeyMap = Literal["rrdbnet", "srvgg"]
_KEY_MAPS: dict[KeyMap, Callable[[Sequence[NcnnLayer]], dict[str, torch.Tensor]]] = {"rrdbnet": rrdbnet, "srvgg": srvgg}


def read_state_dict(
    path: Path, *, param_path: Path | None = None, key_map: KeyMap | None = None
) -> dict[str, torch.Tensor]:
    """Read any supported weight file.

    Args:
        path: a ``.safetensors``, an ncnn ``.bin`` (with ``param_path`` and ``key_map``), or else a PyTorch checkpoint.
        param_path: the ncnn network text that goes with an ncnn ``.bin``.
        key_map: how an ncnn network's tensors are to be named.
    Returns:
        Tensors by name, on the CPU, all finite. ncnn weights are widened to float32; others keep their type and may be
        backed by the file until copied.
    Raises:
        WeightsFormatError: unreadable, damaged, hostile, or not what ``key_map`` expects.
    """
    if param_path is not None or key_map is not None:
        if param_path is None or key_map is None:
            raise WeightsFormatError("an ncnn file needs both its .param text and a key map", path=str(path))
        return _finite(_KEY_MAPS[key_map](read_ncnn(param_path, path)), path)
    if path.suffix == ".safetensors":
        return _finite(read_safetensors(path), path)
    return _finite(read_pickle(path), path)


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
    """Read a PyTorch checkpoint without letting it run code.

    Wrappers that trainers add (``params_ema``, ``params``, ``g_ema``, ``state_dict``) are taken off.

    Raises:
        WeightsFormatError: unreadable, holds more than tensors, or tries to call something.
    """
    import torch

    _size_bytes(path)
    in_zip = zipfile.is_zipfile(path)
    if in_zip:
        _check_zip(path)
    try:
        # A zip archive is mapped, not read, so that 350 MB cost no second copy; the old format cannot be mapped.
        loaded: Any = torch.load(path, map_location="cpu", weights_only=True, mmap=True if in_zip else None)
    except pickle.UnpicklingError as error:
        raise WeightsFormatError(
            f"{path.name} is refused: it is not a plain checkpoint of tensors, and may carry code",
            hint="Delete the file and get it again from the address that `photokeep models list` shows.",
            path=str(path),
            reason=str(error).splitlines()[0] if str(error) else "",
        ) from error
    # What a damaged archive makes the unpickler raise is not documented; nothing of it may reach the user untyped.
    except (EOFError, OSError, RuntimeError, MemoryError, ValueError, LookupError, TypeError, AttributeError) as error:
        raise _unreadable(path, error) from error
    return _unwrap(loaded, path)


def _check_zip(path: Path) -> None:
    """Refuse archives whose members are compressed or larger than the file: PyTorch stores them as they are."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = archive.infolist()
    except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError) as error:
        raise _unreadable(path, error) from error
    stored = all(member.compress_type == zipfile.ZIP_STORED for member in members)
    if not stored or sum(member.file_size for member in members) > path.stat().st_size:
        raise WeightsFormatError(f"{path.name} is not a PyTorch checkpoint: its members are compressed", path=str(path))


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
        if not isinstance(key, str) or not isinstance(value, torch.Tensor):
            raise WeightsFormatError(
                f"{path.name} holds no state dict: {key!r} is {type(value).__name__}, not a tensor", path=str(path)
            )
        # A view can claim far more elements than the file holds; whoever copies it would run out of memory.
        if value.layout != torch.strided or value.numel() * value.element_size() > path.stat().st_size:
            raise WeightsFormatError(f"{path.name} holds a tensor larger than the file: {key!r}", path=str(path))
        state[key] = value.detach()
    return state


def _finite(state: dict[str, torch.Tensor], path: Path) -> dict[str, torch.Tensor]:
    import torch

    for key, tensor in state.items():
        if tensor.is_floating_point() and tensor.numel():
            # One pass without a mask as large as the weights; aminmax hands NaN through.
            low, high = torch.aminmax(tensor)
            if not (torch.isfinite(low) and torch.isfinite(high)):
                raise WeightsFormatError(
                    f"{path.name} holds weights that are not numbers (in {key})",
                    hint="The file is damaged. Delete it and get it again.",
                    path=str(path),
                    tensor=key,
                )
    return state


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
    return WeightsFormatError(
        f"{path.name} cannot be read as weights: {reason}",
        hint="If the file is damaged, delete it and get it again.",
        path=str(path),
    )
