"""A stage output as bytes on disk, and back.

Images and masks are safetensors, everything else JSON; of a model, also one lent to the host's nodes, the name is kept.
Nothing is ever pickled. A float image that holds only multiples of 1/255 (``round(x * 255) / 255 == x``) is stored as
uint8: a quarter of the bytes, and the same floats, bit by bit, back.
"""

from __future__ import annotations

import hashlib
import json
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, get_args

from photokeep_nodes.errors import CacheError
from photokeep_nodes.model_spec import ModelHandle

from .fingerprint import digest_of
from .over_lists import Several
from .schema import LIVE_TYPES

if TYPE_CHECKING:
    import torch

_PIECE = 1 << 20  # elements
_LONGEST_INT = 10_000  # bits; Python refuses to write out longer decimals

Kind = Literal["tensor", "json", "model", "lent model", "several"]
KINDS: tuple[Kind, ...] = get_args(Kind)


@dataclass(frozen=True)
class Artefact:
    """One output, encoded.

    Attributes:
        kind: how ``data`` is read.
        data: the bytes.
        digest: sha256 of ``data``; for a model, of its name, weights and code.
    """

    kind: Kind
    data: bytes
    digest: str


def stored_type(type_name: str) -> bool:
    """Whether values of a node's output type are of a kind that is stored; of types nobody knows, they may be."""
    return type_name not in LIVE_TYPES


def encode(value: Any, *, model_digest: str = "") -> Artefact | None:
    """Turn an output into bytes.

    Args:
        value: a tensor, a JSON value, a ModelHandle, a model lent to the host's nodes, or `Several` of the first two.
        model_digest: for a model, the digest of its weights and code.
    Returns:
        None if the value is of a kind that is not stored; the stage then runs each time.
    """
    lent = lent_handle(value)
    handle = lent or value
    if isinstance(value, Several):
        return _encode_several(value)
    if isinstance(handle, ModelHandle):
        if not model_digest:
            return None  # a bare name says nothing about the weights behind it
        kind: Kind = "model" if lent is None else "lent model"
        data = json.dumps([handle.model_id, handle.blend]).encode()
        return Artefact(kind, data, digest_of({kind: handle.model_id, "content": model_digest}))
    if _is_json(value):
        # The order of names is kept, and ASCII can hold the lone surrogates of a file name that is not UTF-8.
        data = json.dumps(value, allow_nan=False).encode("ascii")
        # Type-tagged, so that an output of 1 and one of 1.0 are told apart downstream.
        return Artefact("json", data, digest_of(value))
    if type(value).__module__ == "torch" and hasattr(value, "detach"):
        return _encode_tensor(value)
    return None


def decode(kind: Kind, data: bytes) -> Any:
    """Turn bytes back into the value ``encode`` was given.

    Raises:
        CacheError: the bytes are not of that kind.
    """
    try:
        if kind in {"model", "lent model"}:
            name, blend = json.loads(data)
            if not isinstance(name, str) or not isinstance(blend, float):
                raise TypeError("it names no model")
            handle = ModelHandle(name, blend)
            return handle if kind == "model" else _lend(handle)
        if kind == "json":
            return json.loads(data)
        if kind == "several":
            return _decode_several(data)
        return _decode_tensor(data)
    except Exception as error:
        raise CacheError(f"a stored {kind} cannot be read: {error}") from error


def lent_handle(value: Any) -> ModelHandle | None:
    """Which model it is that a stage lent to the host's nodes, or None for any other value."""
    exchange = sys.modules.get("photokeep_nodes.exchange")  # it imports torch; where it is not, nothing was lent
    if exchange is None or not isinstance(value, exchange.LentUpscaler):
        return None
    handle: ModelHandle = value.handle
    return handle


def _lend(handle: ModelHandle) -> Any:
    from photokeep_nodes.exchange import LentUpscaler

    return LentUpscaler(handle)


def _is_json(value: Any) -> bool:
    if value is None or isinstance(value, (str, bool)):
        return True
    if isinstance(value, int):
        return value.bit_length() < _LONGEST_INT
    if isinstance(value, float):
        return value == value and value not in {float("inf"), float("-inf")}  # noqa: PLR0124 - NaN is unequal to itself
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return isinstance(value, dict) and all(isinstance(key, str) and _is_json(item) for key, item in value.items())


def _encode_several(values: Several) -> Artefact | None:
    """Several values in one blob: a line of JSON with kind and length of each, then their bytes."""
    each = [encode(value) for value in values]
    parts = [one for one in each if one is not None]
    if len(parts) < len(each):
        return None
    header = json.dumps([[one.kind, len(one.data)] for one in parts]).encode("ascii")
    digest = digest_of({"several": [one.digest for one in parts]})
    return Artefact("several", b"\n".join([header, b"".join(one.data for one in parts)]), digest)


def _decode_several(data: bytes) -> Several:
    header, _, content = data.partition(b"\n")
    values, at = Several(), 0
    for kind, length in json.loads(header):
        values.append(decode(kind, content[at : at + length]))
        at += length
    return values


def _encode_tensor(value: torch.Tensor) -> Artefact | None:
    import safetensors.torch
    import torch

    if value.layout != torch.strided or value.is_meta or value.dtype not in _stored_dtypes():
        return None
    tensor = value.detach().cpu().contiguous()
    metadata = {}
    if (small := _as_bytes(tensor)) is not None:
        tensor, metadata = small, {"scale": "255"}
    data = safetensors.torch.save({"data": tensor}, metadata=metadata)
    return Artefact("tensor", data, hashlib.sha256(data).hexdigest())


def _stored_dtypes() -> frozenset[torch.dtype]:
    import torch

    return frozenset(
        {
            torch.float64, torch.float32, torch.float16, torch.bfloat16,
            torch.int64, torch.int32, torch.int16, torch.int8, torch.uint8, torch.bool,
        }
    )  # fmt: skip


def _as_bytes(tensor: torch.Tensor) -> torch.Tensor | None:
    """The 8-bit values that ``tensor`` was made of, or None if they would not give back the very same bits."""
    import torch

    if tensor.dtype != torch.float32 or not tensor.numel():
        return None
    small = torch.empty(tensor.shape, dtype=torch.uint8)
    # Piece by piece: most images that are not of this kind show it in the first, and large ones need no large copies.
    for source, target in zip(torch.split(tensor.view(-1), _PIECE), torch.split(small.view(-1), _PIECE), strict=True):
        scaled = source * 255.0
        low, high = torch.aminmax(scaled)
        if not (low >= 0.0 and high <= 255.0):  # also where it is NaN
            return None
        target.copy_(scaled.round_())
        if not torch.equal((target.float() / 255.0).view(torch.int32), source.view(torch.int32)):  # -0.0 equals 0.0
            return None
    return small


def _decode_tensor(data: bytes) -> torch.Tensor:
    import safetensors.torch

    tensor = safetensors.torch.load(data)["data"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get("scale") == "255":
        return tensor.float() / 255.0
    return tensor
