"""Models of any role made for a test, installed and loaded the way published ones are."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest
import torch

from photokeep_nodes import models, vram_manager
from photokeep_nodes.model_spec import Download, Licence, ModelHandle, ModelSpec, Role, WeightFile

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


class Installed:
    """A model in the test's own folder; ``loads`` counts how often it was built."""

    def __init__(self, spec: ModelSpec, loads: list[str]) -> None:
        self.spec = spec
        self.handle = ModelHandle(spec.id)
        self.loads = loads


Install = Callable[..., Installed]


@pytest.fixture
def install(model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Install]:
    """Save a module's weights as a file, enter it into the catalogue, and forget it after the test."""
    known = dict(models.catalogue())
    monkeypatch.setattr(models, "catalogue", lambda: known)
    made: list[ModelSpec] = []

    def install_(
        module: torch.nn.Module, role: Role, *, name: str = "for-a-test", present: bool = True, **more: Any
    ) -> Installed:
        path = model_folder / f"{name}.pth"
        torch.save(module.state_dict(), path)
        data = path.read_bytes()
        if not present:
            path.unlink()
        loads: list[str] = []

        def build(state: dict[str, torch.Tensor]) -> torch.nn.Module:
            loads.append(name)
            module.load_state_dict(state)
            return module

        spec = ModelSpec(
            id=name,
            title=name,
            node_name=name,
            role=role,
            architecture=type(module).__name__,
            weights=(
                WeightFile(
                    Download(path.name, "https://example.invalid/none"),
                    size_bytes=len(data),
                    sha256=hashlib.sha256(data).hexdigest(),
                    licence=Licence("MIT", commercial=True, url="https://example.invalid"),
                ),
            ),
            build=build,
            weight_bytes=4 * sum(t.numel() for t in module.state_dict().values()),
            bytes_per_pixel=100,
            **more,
        )
        known[name] = spec
        made.append(spec)
        return Installed(spec, loads)

    yield install_
    for spec in made:
        vram_manager.shared_pool().drop(f"{spec.id}:{spec.weights[0].sha256[:16]}:{torch.float32}")
