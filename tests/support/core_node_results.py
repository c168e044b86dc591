"""What a node returned, short enough to be kept and long enough that a difference can be explained."""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from pathlib import Path

_FEW = 48
_MANY = 512


def summary(value: Any, *, exact: bool = True) -> Any:
    """A plain value as it is; of a tensor its shape, some of its values, and a digest of them all if they are exact."""
    if not hasattr(value, "detach"):
        return {"value": value, "type": type(value).__name__}
    array = np.ascontiguousarray(value.detach().float().cpu().numpy()) + np.float32(0.0)  # of -0.0 this makes 0.0
    wanted = min(_FEW if exact else _MANY, array.size)
    places = np.linspace(0, array.size - 1, wanted).astype(np.int64)
    found: dict[str, Any] = {
        "shape": list(array.shape),
        "some": [round(float(each), 8) for each in array.reshape(-1)[places]],
        "mean": round(float(array.mean(dtype=np.float64)), 8),
    }
    if exact:
        found["sha256"] = hashlib.sha256(array.tobytes()).hexdigest()
    return found


def saved_files(folder: Path, shown: list[dict[str, str]]) -> list[dict[str, Any]]:
    """Each file that a node says it saved: what the editor is told, its metadata, mode and pixels."""
    from PIL import Image

    found = []
    for entry in shown:
        with Image.open(folder / entry["subfolder"] / entry["filename"]) as image:
            digest = hashlib.sha256(np.asarray(image).tobytes()).hexdigest()
            found.append({**entry, "texts": image.text, "mode": image.mode, "size": [*image.size], "sha256": digest})
    return found


def difference(ours: Any, theirs: Any, tolerance: float, *, exact: bool = True) -> str:
    """What differs between two summaries, or nothing.

    Args:
        ours: of our node.
        theirs: of the host's.
        tolerance: how far values may be off.
        exact: whether the digests have to be the same, where there are any.
    """
    if "shape" not in theirs:
        return "" if ours == theirs else f"{ours} instead of {theirs}"
    if ours.get("shape") != theirs["shape"]:
        return f"the shape {ours.get('shape')} instead of {theirs['shape']}"
    pairs = [(ours["mean"], theirs["mean"]), *zip(ours["some"], theirs["some"], strict=True)]
    off = max(abs(our - their) for our, their in pairs)
    if off > tolerance:
        return f"some values are off by up to {off:.3g}"
    if not exact or ours.get("sha256") == theirs.get("sha256"):
        return ""
    return f"values other than the {len(ours['some'])} kept"
