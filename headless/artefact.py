"""A stage output as bytes on disk, and back.

Images and masks are safetensors, everything else JSON. Nothing is ever pickled. A float image that holds only
multiples of 1/255 (``round(x * 255) / 255 == x``) is stored as uint8: a quarter of the bytes, and the same floats
back.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from photokeep_nodes.errors import CacheError
from photokeep_nodes.model_spec import ModelHandle

from .fingerprint import digest_of

if TYPE_CHECKING:
    import torch

Kind = Literal["tensor", "json", "model"]


@dataclass(frozen=True)
class Artefact:
    """One output, encoded.

    Attributes:
        kind: how ``data`` is read.
        data: the bytes.
        digest: sha256 of ``data``; for a model handle, of its name, weights and code.
    """

    kind: Kind
    data: bytes
    digest: str


def encode(value: Any, *, model_digest: str = "") -> Artefact | None:
    """Turn an output into bytes.

    Args:
        value: a tensor, a JSON value or a ModelHandle.
        model_digest: for a ModelHandle, the digest of its weights and code.
    Returns:
        None if the value is of a kind that is not stored; the stage then runs each time.
    """
    if isinstance(value, ModelHandle):
        data = json.dumps(value.model_id).encode()
        return Artefact("model", data, digest_of({"model": value.model_id, "content": model_digest}))
    if _is_json(value):
        data = json.dumps(value, sort_keys=True, ensure_ascii=False, allow_nan=False).encode()
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
        if kind == "model":
            return ModelHandle(json.loads(data))
        if kind == "json":
            return json.loads(data)
        return _decode_tensor(data)
    except Exception as error:
        raise CacheError(f"a stored {kind} cannot be read: {error}") from error


def _is_json(value: Any) -> bool:
    if value is None or isinstance(value, (str, bool, int)):
        return True
    if isinstance(value, float):
        return value == value and value not in {float("inf"), float("-inf")}  # noqa: PLR0124 - NaN is unequal to itself
    if isinstance(value, list):
        return all(_is_json(item) for item in value)
    return isinstance(value, dict) and all(isinstance(key, str) and _is_json(item) for key, item in value.items())


def _encode_tensor(value: torch.Tensor) -> Artefact:
    import safetensors.torch
    import torch

    tensor = value.detach().cpu().contiguous()
    metadata = {}
    if tensor.dtype == torch.float32 and tensor.numel():
        scaled = (tensor * 255.0).round_()
        if float(scaled.min()) >= 0.0 and float(scaled.max()) <= 255.0:
            small = scaled.to(torch.uint8)
            if torch.equal(small.float() / 255.0, tensor):
                tensor, metadata = small, {"scale": "255"}
    data = safetensors.torch.save({"data": tensor}, metadata=metadata)
    return Artefact("tensor", data, hashlib.sha256(data).hexdigest())


def _decode_tensor(data: bytes) -> torch.Tensor:
    import safetensors.torch

    tensor = safetensors.torch.load(data)["data"]
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    if header.get("__metadata__", {}).get("scale") == "255":
        return tensor.float() / 255.0
    return tensor
