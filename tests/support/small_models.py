"""Small models for the catalogue, for this process or, as ``python -m small_models``, for a command line of its own."""

from __future__ import annotations

import hashlib
import io
import json
import os
from typing import TYPE_CHECKING, Any

from photokeep_nodes.model_spec import Download, Licence, ModelSpec, WeightFile
from photokeep_nodes.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Mapping

    import torch

VARIABLE = "PHOTOKEEP_TEST_MODELS"
MIT = {"id": "MIT", "commercial": True, "url": "https://example.org/mit"}
NC = {"id": "NC-1.0", "commercial": False, "url": "https://example.org/nc", "note": "for research"}


def checkpoint(side: int = 4, *, seed: int = 0) -> bytes:
    """A PyTorch checkpoint of a square linear layer."""
    import torch

    torch.manual_seed(seed)
    stream = io.BytesIO()
    torch.save(torch.nn.Linear(side, side).state_dict(), stream)
    return stream.getvalue()


def entry(model_id: str, body: bytes, *urls: str, **changes: Any) -> dict[str, Any]:
    """What a model of the catalogue is made of, as JSON can carry it."""
    return {
        "id": model_id,
        "filename": f"{model_id}.pth",
        "urls": urls,
        "size_bytes": len(body),
        "sha256": hashlib.sha256(body).hexdigest(),
        "licence": MIT,
        "folder": "photokeep",
        "role": "upscale",
    } | changes


def spec_of(entry: Mapping[str, Any]) -> ModelSpec:
    origin = Download(entry["filename"], entry["urls"][0], tuple(entry["urls"][1:]), entry["folder"])
    file = WeightFile(origin, entry["size_bytes"], entry["sha256"], Licence(**entry["licence"]))
    return ModelSpec(
        id=entry["id"],
        title=entry["id"].title(),
        node_name=entry["id"].title(),
        role=entry["role"],
        architecture="Linear",
        weights=(file,),
        build=_build,
        weight_bytes=80,
        bytes_per_pixel=1,
    )


def _build(state: Mapping[str, torch.Tensor]) -> torch.nn.Module:
    import torch

    side = len(state["bias"])
    layer = torch.nn.Linear(side, side)
    layer.load_state_dict(dict(state))
    return layer


def main() -> None:
    """``photokeep`` with the models that the environment describes."""
    from headless.cli import main as photokeep

    for each in json.loads(os.environ[VARIABLE]):
        catalogue()[each["id"]] = spec_of(each)
    photokeep()


if __name__ == "__main__":
    main()
