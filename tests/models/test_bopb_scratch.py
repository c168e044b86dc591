"""The scratch detector's published weights are a download, so the exact architecture is proved on seeded random ones.

The golden output is that of the authors' own code (``Global/detection_models/networks.py``) with the weights of
tests/support/scratch_weights.py; tests/data/README.md. ``PHOTOKEEP_REAL_MODELS`` naming a folder with the published
file adds a check of it.
"""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
import torch
from published import layout_digest
from scratch_weights import LAYOUT, gray, publish, random_state, with_counters
from skimage import data

from photokeep_nodes import images, precision
from photokeep_nodes._arch.scratch_unet import FACTOR, RECEPTIVE_FIELD, ScratchUNet
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.files import sha256_of
from photokeep_nodes.models.bopb_scratch import SPEC
from photokeep_nodes.ops import tiling
from photokeep_nodes.weight_formats import read_state_dict

GOLDEN = Path(__file__).parents[1] / "data" / "bopb_scratch.npz"
REAL = os.environ.get("PHOTOKEEP_REAL_MODELS")


@pytest.fixture(scope="module")
def state() -> dict[str, torch.Tensor]:
    with torch.device("meta"):
        template = ScratchUNet().state_dict()
    return random_state(template)


@pytest.fixture(scope="module")
def module(state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return SPEC.build(state)


def run(module: torch.nn.Module, image: torch.Tensor) -> torch.Tensor:
    with torch.inference_mode():
        result: torch.Tensor = module(image)
    return result


def test_it_is_the_authors_network(module: torch.nn.Module, state: dict[str, torch.Tensor]) -> None:
    golden = np.load(GOLDEN)
    assert layout_digest(with_counters(state)) == str(golden["layout"]), "names, shapes and the blur"
    probability = run(module, gray())
    assert golden["probability"].std() > 0.1
    assert golden["probability"].max() < 0.99
    kept = probability[0, 0, :: LAYOUT.step, :: LAYOUT.step].numpy()
    np.testing.assert_allclose(kept, golden["probability"], atol=2e-5)


@pytest.mark.slow
def test_the_published_layout_is_read(state: dict[str, torch.Tensor], tmp_path: Path) -> None:
    """The file is in the old format, and two thirds of it are what its training left."""
    path = tmp_path / "FT_Epoch_latest.pt"
    publish(with_counters(state), path)
    # The rest is a pickle of names, and of what else its authors kept.
    assert abs(path.stat().st_size - SPEC.weights[0].size_bytes) < 20_000
    built = SPEC.build(read_state_dict(path))
    path.unlink()
    for name, tensor in built.state_dict().items():
        torch.testing.assert_close(tensor, state[name], rtol=0, atol=0)


def test_it_is_ready_for_the_pool(module: torch.nn.Module) -> None:
    tensors = [*module.parameters(), *module.buffers()]
    assert 4 * sum(tensor.numel() for tensor in tensors) == SPEC.weight_bytes
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not any(each.training for each in module.modules())
    assert not any(tensor.is_meta for tensor in tensors)
    assert (SPEC.multiple_of, SPEC.receptive_field) == (FACTOR, RECEPTIVE_FIELD)
    (smallest,) = precision.example_of(SPEC)
    assert run(module, smallest).shape == smallest.shape
    assert smallest.shape[-1] == SPEC.minimum


def test_what_an_output_pixel_depends_on() -> None:
    """Of a network in which nothing cancels out: the margin of tiles is exactly this."""
    network = ScratchUNet(widths=(1, 1, 1, 1, 1)).double().eval()
    with torch.no_grad():
        for name, tensor in network.state_dict().items():
            tensor.fill_(1.0 / tensor[0].numel() if tensor.dim() == 4 else float(not name.endswith(("bias", "mean"))))
    image = torch.full((FACTOR, 1, 400, 32), 0.6, dtype=torch.float64, requires_grad=True)
    places = range(192, 192 + FACTOR)
    result = network(image)[:, 0, :, 16]
    sum(result[index, at] for index, at in enumerate(places)).backward()
    rows = [row.nonzero().flatten() for row in image.grad[:, 0].abs().sum(2)]
    reach = max(max(at - int(row.min()), int(row.max()) - at) for at, row in zip(places, rows, strict=True))
    assert RECEPTIVE_FIELD - 8 <= reach <= RECEPTIVE_FIELD


def test_tiles_give_what_the_whole_photo_gives() -> None:
    torch.manual_seed(3)
    network = ScratchUNet(widths=(4, 6, 8, 8, 8)).eval()
    image = torch.rand(1, 1, 64, 1600)
    whole = run(network, image)
    assert whole.std() > 1e-4
    tiles: list[int] = []

    def noting(part: torch.Tensor) -> torch.Tensor:
        tiles.append(part.shape[-1])
        return run(network, part)

    tiled = tiling.run_tiled(noting, image, tile=640, margin=RECEPTIVE_FIELD, multiple=FACTOR, minimum=SPEC.minimum)
    assert len(tiles) > 2
    assert max(tiles) <= 640
    torch.testing.assert_close(tiled, whole, rtol=0, atol=1e-5)


def test_another_network_is_refused(state: dict[str, torch.Tensor]) -> None:
    with pytest.raises(WeightsFormatError, match="not those of the scratch detector"):
        SPEC.build({"banana": torch.zeros(3)})
    with pytest.raises(WeightsFormatError, match=r"last\.1\.weight is \(3, 64, 3, 3\)"):
        SPEC.build({**state, "last.1.weight": torch.zeros(3, 64, 3, 3)})
    with pytest.raises(WeightsFormatError, match=r"1 missing \(down_sample\.3\.4\.filt\)"):
        SPEC.build({name: tensor for name, tensor in state.items() if name != "down_sample.3.4.filt"})


@pytest.mark.slow
@pytest.mark.skipif(REAL is None, reason="needs PHOTOKEEP_REAL_MODELS to name a folder of published weight files")
def test_the_published_file_finds_a_scratch() -> None:
    path = Path(REAL) / SPEC.weights[0].filename
    if not path.is_file():
        pytest.skip(f"{path.name} is not in {REAL}")
    assert (path.stat().st_size, sha256_of(path)) == (SPEC.weights[0].size_bytes, SPEC.weights[0].sha256)
    real = SPEC.build(read_state_dict(path))
    pixels = torch.from_numpy(data.astronaut()[::2, ::2] / np.float32(255)).permute(2, 0, 1)[None]
    image = images.luminance(pixels)
    scratched = image.clone()
    scratched[..., 20:230, 60:62] = 1.0
    before, after = run(real, image), run(real, scratched)
    line = (..., slice(30, 220), slice(60, 62))
    assert (after[line] >= 0.4).float().mean() > 0.8
    assert (before[line] >= 0.4).float().mean() < 0.1
    assert (before >= 0.4).float().mean() < 0.1
