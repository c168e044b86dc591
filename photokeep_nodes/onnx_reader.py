"""Readers of ONNX files: the weights embedded in one, or all its bytes, for who runs the graph itself.

Weights that an ONNX keeps in other files are refused: the path of such a file is the author's to choose.
"""

from __future__ import annotations

import math
from collections import Counter
from typing import TYPE_CHECKING, Any

from .errors import MissingExtraError, WeightsFormatError

if TYPE_CHECKING:
    from pathlib import Path

    import torch

MAX_ONNX_BYTES = 2**31 - 1  # what a protobuf message can be
MAX_GRAPH_BYTES = 64 * 2**20  # of a file that is kept as it is: what it holds cannot be moved off piece by piece

_GRAPH_FIELD = 7  # of ONNX's ModelProto
_LONGEST_VARINT = 10


def read_onnx(path: Path) -> dict[str, torch.Tensor]:
    """Read the initializers of an ONNX file, by their names.

    Constants that the exporter made up (``/up/Constant_output_0``, ``onnx::Resize_17``) are left out.

    Raises:
        MissingExtraError: the onnx package is not installed.
        WeightsFormatError: damaged, hostile, without embedded weights, or with weights whose names were lost.
    """
    model = _parsed(path)
    size_bytes = path.stat().st_size
    if model.graph.sparse_initializer:
        raise WeightsFormatError(f"{path.name} holds sparse weights, which are not supported", path=str(path))
    state: dict[str, torch.Tensor] = {}
    lost: list[str] = []
    for tensor in model.graph.initializer:
        if tensor.data_location or tensor.external_data:
            raise WeightsFormatError(
                f"{path.name} is refused: it keeps weights in another file ({_shown(tensor.name)})",
                hint="Export it again with the weights embedded.",
                path=str(path),
            )
        if tensor.name in state:
            raise WeightsFormatError(f"{path.name} names two tensors {_shown(tensor.name)}", path=str(path))
        if tensor.name.startswith("/") or "::" in tensor.name:
            if len(tensor.dims) > 1:
                lost.append(tensor.name)
            continue
        state[tensor.name] = _tensor(tensor, size_bytes, path)
    if lost or not state:
        raise _no_names(path, model, lost)
    return state


def read_graph(path: Path) -> dict[str, torch.Tensor]:
    """Read an ONNX file as it is, for a runtime that takes such files.

    Only its outermost layer is looked at, without the onnx package: whether it is whole, and has a graph.

    Returns:
        Its bytes, (N,) uint8, under the name ``onnx_file``.
    Raises:
        WeightsFormatError: unreadable, too large, cut short, or no ONNX file.
    """
    import numpy as np
    import torch

    try:
        size_bytes = path.stat().st_size
        if not 0 < size_bytes <= MAX_GRAPH_BYTES:
            raise WeightsFormatError(
                f"{path.name} has {size_bytes} bytes: no ONNX file here is like that", path=str(path)
            )
        content = path.read_bytes()
    except OSError as error:
        raise WeightsFormatError(f"{path.name} cannot be read: {error.strerror or error}", path=str(path)) from error
    if content.startswith(b"version https://git-lfs"):
        raise WeightsFormatError(
            f"{path.name} is a pointer to the file, and not the file",
            hint="Repositories that keep large files apart hand it out instead. Download the file itself.",
            path=str(path),
        )
    if _GRAPH_FIELD not in _fields(content):
        raise WeightsFormatError(
            f"{path.name} is no ONNX file, or cut short",
            hint="Delete the file and get it again.",
            path=str(path),
        )
    return {"onnx_file": torch.from_numpy(np.frombuffer(content, np.uint8).copy())}


def _fields(message: bytes) -> set[int]:
    """Numbers of the fields of a protobuf message; empty where its bytes are none."""
    fields, at = set(), 0
    while at < len(message):
        tag, at = _varint(message, at)
        kind = tag & 7
        if kind == 0:
            _, at = _varint(message, at)
        elif kind == 2:
            length, at = _varint(message, at)
            at += length
        else:
            at += {1: 8, 5: 4}.get(kind, len(message) + 1)
        fields.add(tag >> 3)
    return fields if at == len(message) else set()


def _varint(message: bytes, at: int) -> tuple[int, int]:
    """A number and where it ends: beyond the message where it does not end."""
    value = 0
    for place, byte in enumerate(message[at : at + _LONGEST_VARINT]):
        value |= (byte & 0x7F) << (7 * place)
        if byte < 0x80:
            return value, at + place + 1
    return 0, len(message) + 1


def _parsed(path: Path) -> Any:
    try:
        import google.protobuf.message
        import onnx
    except ImportError as error:
        raise MissingExtraError(
            "reading ONNX files needs the onnx package", hint="Get it with: pip install 'photokeep[onnx]'"
        ) from error
    try:
        size_bytes = path.stat().st_size
        if not 0 < size_bytes <= MAX_ONNX_BYTES:
            raise WeightsFormatError(f"{path.name} has {size_bytes} bytes: no ONNX file is like that", path=str(path))
        model = onnx.ModelProto()
        model.ParseFromString(path.read_bytes())
    except (OSError, google.protobuf.message.DecodeError) as error:
        raise WeightsFormatError(f"{path.name} cannot be read as ONNX: {error}", path=str(path)) from error
    return model


def _tensor(tensor: Any, size_bytes: int, path: Path) -> torch.Tensor:
    import numpy as np
    import torch
    from onnx import helper, numpy_helper

    try:
        kind = np.dtype(helper.tensor_dtype_to_np_dtype(tensor.data_type))
        # Looked at before memory is asked for: the shape is only what the file says.
        if any(side < 0 for side in tensor.dims) or math.prod(tensor.dims) * kind.itemsize > size_bytes:
            raise WeightsFormatError(
                f"{path.name} holds a tensor larger than the file: {_shown(tensor.name)}", path=str(path)
            )
        array = numpy_helper.to_array(tensor)
        if array.dtype.name not in {"float32", "float16", "float64", "int64", "int32", "uint8", "int8", "bool"}:
            array = array.astype(np.float32)  # such as bfloat16, which numpy knows by name only
        return torch.from_numpy(np.array(array))
    except (ValueError, TypeError, KeyError, RuntimeError) as error:
        raise WeightsFormatError(
            f"{path.name} holds a tensor that cannot be read: {_shown(tensor.name)}: {error}", path=str(path)
        ) from error


def _no_names(path: Path, model: Any, lost: list[str]) -> WeightsFormatError:
    kinds = Counter(node.op_type for node in model.graph.node)
    graph = ", ".join(f"{count} {_shown(kind)}" for kind, count in kinds.most_common(4)) or "an empty graph"
    if not lost:
        return WeightsFormatError(f"{path.name} embeds no weights that have a name; it holds {graph}", path=str(path))
    return WeightsFormatError(
        f"{path.name}: {len(lost)} of its weights have lost their names when it was exported, such as "
        f"{', '.join(_shown(name) for name in lost[:3])}; it holds {graph}",
        hint="Import the checkpoint it was made of (.pth or .safetensors), or export it without constant folding.",
        path=str(path),
    )


def _shown(text: str) -> str:
    return repr(text[:60])
