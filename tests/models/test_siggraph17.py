"""siggraph17's published weights are a download, so the exact architecture is proved on seeded random ones.

The golden outputs are those of the authors' own code (``colorizers/siggraph17.py`` of richzhang/colorization) with the
weights of ``random_state``; tests/data/README.md. ``PHOTOKEEP_SIGGRAPH17`` naming the published file adds a check of
it.
"""

from __future__ import annotations

import hashlib
import os
from pathlib import Path

import numpy as np
import pytest
import torch
from skimage import color, data

from photokeep_nodes._arch.siggraph17 import Siggraph17
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.siggraph17 import SPEC
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "siggraph17.npz"
REAL = os.environ.get("PHOTOKEEP_SIGGRAPH17")


def random_state(shapes: dict[str, tuple[int, ...]]) -> dict[str, torch.Tensor]:
    """Weights that keep activations in range, by name, the same on every machine: RandomState is frozen by numpy."""
    random = np.random.RandomState(17)
    state = {}
    for name in sorted(shapes):
        shape = shapes[name]
        values = random.standard_normal(shape) if shape else np.zeros(())
        if len(shape) == 4:
            fan_in = np.prod(shape) / max(shape[:2]) if "up." in name else np.prod(shape[1:])
            values *= np.sqrt(2 / fan_in) * (0.3 if name.startswith("model_out") else 1)
        elif name.endswith("running_var"):
            values = 1 + 0.3 * np.tanh(values)
        elif name.endswith(".weight"):
            values = 1 + 0.1 * values
        else:
            values *= 0.1
        state[name] = torch.from_numpy(np.asarray(values, dtype=np.float32))
    return state


def inputs() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Lightness of a photo, and two hints."""
    photo = data.astronaut()[60:124, 180:276:1][::2, ::2]
    lightness = torch.from_numpy(color.rgb2lab(photo)[..., :1].astype(np.float32)).permute(2, 0, 1)[None]
    hints, mask = torch.zeros(1, 2, *lightness.shape[-2:]), torch.zeros_like(lightness)
    hints[..., 8:14, 10:16] = torch.tensor([60.0, -35.0]).view(1, 2, 1, 1)
    mask[..., 8:14, 10:16] = 1
    return lightness, hints, mask


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        return random_state({name: tuple(t.shape) for name, t in Siggraph17().state_dict().items()})


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return SPEC.build(state)


def test_it_is_the_authors_network(module: torch.nn.Module) -> None:
    lightness, hints, mask = inputs()
    golden = np.load(GOLDEN)
    with torch.inference_mode():
        plain, hinted = module(lightness), module(lightness, hints, mask)
    assert plain.std() > 1
    assert (plain - hinted).abs().max() > 1
    np.testing.assert_allclose(plain.numpy(), golden["plain"], atol=0.02)
    np.testing.assert_allclose(hinted.numpy(), golden["hinted"], atol=0.02)


def test_hints_are_taken_in_cie_units_and_the_mask_as_it_is(module: torch.nn.Module) -> None:
    """Other ways to scale them, some of which relatives of this network want, are told from the authors' by far."""
    lightness, hints, mask = inputs()
    golden = np.load(GOLDEN)

    def away(of: str, *arguments: torch.Tensor) -> float:
        with torch.inference_mode():
            return float(np.abs(module(lightness, *arguments).numpy() - golden[of]).max())

    near = (slice(None), slice(None), slice(8, 14), slice(10, 16))
    assert np.abs(golden["hinted"] - golden["plain"])[near].mean() > 1
    assert away("hinted", hints, mask) < 0.02
    assert away("hinted", hints / 110, mask) > 1  # already divided
    assert away("hinted", hints * 1.1, mask) > 0.5  # divided by 100
    assert away("hinted", hints, mask - 0.5) > 1  # centred
    assert away("hinted", hints, 0 * mask) > 1  # not there
    assert away("plain", 0 * hints, 0 * mask) < 0.02


def test_it_says_at_which_size_it_wants_photos() -> None:
    assert SPEC.native_side == 256
    assert SPEC.native_side % SPEC.multiple_of == 0


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(t.numel() for t in tensors) == SPEC.weight_bytes
    # What the published file holds beside its tensors is a pickle of their names and shapes.
    assert 0 < SPEC.weights[0].size_bytes - SPEC.weight_bytes < 20_000
    assert not any(t.requires_grad for t in tensors)
    assert not any(m.training for m in module.modules())
    assert not any(t.is_meta for t in tensors)


def test_a_checkpoint_with_step_counters_is_read_too(
    module: torch.nn.Module, state: dict[str, torch.Tensor], tmp_path: Path
) -> None:
    counters = {n.replace("running_var", "num_batches_tracked"): torch.tensor(7) for n in state if "running_var" in n}
    path = tmp_path / "siggraph17-df00044c.pth"
    torch.save({**state, **counters}, path, _use_new_zipfile_serialization=False)
    built = SPEC.build(read_state_dict(path))
    for name, tensor in module.state_dict().items():
        torch.testing.assert_close(built.state_dict()[name], tensor, rtol=0, atol=0)


@pytest.mark.parametrize("size", [(1, 1), (8, 8), (17, 30)])
def test_any_size_is_kept(module: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.inference_mode():
        out = module(torch.full((1, 1, *size), 50.0))
    assert out.shape == (1, 2, *size)
    assert out.abs().max() <= 110


def test_another_network_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="not those of siggraph17"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match=r"model4\.0\.weight is \(512, 256, 1, 1\)"):
        SPEC.build({**state, "model4.0.weight": torch.zeros(512, 256, 1, 1)})


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="needs PHOTOKEEP_SIGGRAPH17 to name the published siggraph17-df00044c.pth")
def test_the_published_file_colours_a_photo() -> None:
    path = Path(REAL)
    assert hashlib.sha256(path.read_bytes()).hexdigest() == SPEC.weights[0].sha256
    real = SPEC.build(read_state_dict(path))
    lab = color.rgb2lab(data.astronaut()[::2, ::2]).astype(np.float32)
    with torch.inference_mode():
        ab = real(torch.from_numpy(lab[..., :1]).permute(2, 0, 1)[None])[0].permute(1, 2, 0).numpy()
    assert np.abs(ab).mean() > 3
    assert np.abs(ab - lab[..., 1:]).mean() < np.abs(lab[..., 1:]).mean()
