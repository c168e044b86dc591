"""Models whose weights are downloads compute what their authors' own code computes.

Weights are random, laid out as the published file is and read as that file would be; what the authors' code makes of
them is in ``tests/data/networks.npz`` (see the README there).
"""

from __future__ import annotations

import copy
import runpy
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import pytest
import torch
from published import LAYOUTS, TEMPLATES, layout_digest, photo, publish, random_weights

from photokeep_nodes import models, precision, tiled_inference, weights
from photokeep_nodes.model_spec import Download
from photokeep_nodes.models import _spandrel
from photokeep_nodes.ops import tiling

if TYPE_CHECKING:
    from collections.abc import Iterator

    from photokeep_nodes.model_spec import ModelSpec

    State = dict[str, torch.Tensor]

# spandrel's own constructors, called here by hand, call it the old way.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")

ROOT = Path(__file__).parents[2]
GOLDEN = np.load(ROOT / "tests" / "data" / "networks.npz")
CATALOGUE = models.catalogue()
COPIES = {"hat": 2}
"""Sets of weights in a published file, where it has more than one: HAT's has those before averaging too."""


LARGE = {"nafnet-sidd", "nafnet-gopro", "fbcnn-color", "fbcnn-gray"}
FIRST = {layout.network: model_id for model_id, layout in reversed(LAYOUTS.items())}
"""For each network the first model that is one."""

EACH_NETWORK = [
    pytest.param(model_id, id=model_id, marks=pytest.mark.slow if network in LARGE else ())
    for network, model_id in reversed(FIRST.items())
]


@pytest.fixture(scope="module", params=EACH_NETWORK)
def published(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[ModelSpec, State]]:
    """A model with its file installed where the user's would be, and the tensors in that file."""
    if CATALOGUE[request.param].requirement:
        pytest.importorskip("spandrel_extra_arches", reason="needs the noncommercial extra")
    state = random_weights(request.param)
    folder = tmp_path_factory.mktemp("models")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PHOTOKEEP_MODELS", str(folder))
        patch.setenv("PHOTOKEEP_CACHE", str(folder / "cache"))
        yield publish(CATALOGUE[request.param], state, folder), state
    shutil.rmtree(folder)


@pytest.fixture(scope="module")
def module(published: tuple[ModelSpec, State]) -> torch.nn.Module:
    """Read, built, and moved as the pool does."""
    return weights.load_module(published[0]).to(memory_format=torch.channels_last)


def test_the_file_is_laid_out_as_the_authors_code_writes_it(published: tuple[ModelSpec, State]) -> None:
    spec, state = published
    network = LAYOUTS[spec.id].network
    assert layout_digest(state) == str(GOLDEN[f"{network}/layout"])
    # A file's size tells its tensors: beside them it holds some hundred bytes for the name of each.
    copies = COPIES.get(network, 1)
    tensors = copies * sum(tensor.numel() * tensor.element_size() for tensor in state.values())
    for model_id, layout in LAYOUTS.items():
        if layout.network == network:
            assert 0 < CATALOGUE[model_id].weights[-1].size_bytes - tensors < 500 * copies * len(state), model_id


def test_it_is_the_authors_network(published: tuple[ModelSpec, State], module: torch.nn.Module) -> None:
    spec, _ = published
    layout = LAYOUTS[spec.id]
    image = photo(layout.height, layout.width, layout.channels).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        out = module(image)
    assert out.shape == (1, spec.channels, layout.height * spec.scale, layout.width * spec.scale)
    golden = GOLDEN[f"{layout.network}/blind"]
    spread = float(golden.std())
    assert 0.1 < spread < 20, "nothing is proved by a result that is flat or out of range"
    np.testing.assert_allclose(
        out[0, :, :: layout.step, :: layout.step].numpy(), golden, rtol=0, atol=1e-4 * max(1.0, spread)
    )


@pytest.mark.slow
def test_it_runs_in_the_half_precision_it_declares(published: tuple[ModelSpec, State], module: torch.nn.Module) -> None:
    spec, _ = published
    layout = LAYOUTS[spec.id]
    side = min(layout.height, layout.width)  # float16 is slow on a CPU
    image = photo(side, side, layout.channels).contiguous(memory_format=torch.channels_last)
    with torch.no_grad():
        exact = module(image)
        for name in spec.dtypes[:-1]:
            dtype = getattr(torch, name)
            prepared = precision.prepare(copy.deepcopy(module), dtype, *precision.example_of(spec))
            with precision.computing(torch.device("cpu"), dtype):
                out = prepared(image.to(precision.stored(dtype)))
            assert out.dtype == precision.stored(dtype)
            assert not torch.equal(out.float(), exact)
            assert (out.float() - exact).abs().mean() < 0.025 * exact.std()


def test_it_is_ready_for_the_pool(published: tuple[ModelSpec, State], module: torch.nn.Module) -> None:
    spec, _ = published
    tensors = [*module.parameters(), *module.buffers()]
    assert sum(tensor.numel() * tensor.element_size() for tensor in tensors) == spec.weight_bytes
    assert not any(tensor.requires_grad for tensor in tensors)
    assert not any(part.training for part in module.modules())


SEAMLESS = {"swinir-m": 0.01, "hat": 0.01, "scunet": 0.01, "fbcnn-color": 0.02, "dat2": 0.15}
"""Networks with attention, or that pool, and the most that a seam may add to the detail across it.

On random weights, whose context reaches further than that of trained ones. DAT's channel attention pools over the tile.
RealPLKSR, NAFNet and Restormer are not here: random ones see everything at once.
"""


@pytest.mark.slow
def test_tiles_of_an_attention_network_show_no_seam(
    published: tuple[ModelSpec, State], module: torch.nn.Module
) -> None:
    spec, _ = published
    most = SEAMLESS.get(LAYOUTS[spec.id].network)
    if most is None:
        pytest.skip("convolutions alone, or nothing that random weights could show")
    step, tile = spec.multiple_of, tiled_inference.smallest_tile(spec)
    width = -(-int(1.6 * tile) // step) * step
    image = photo(-(-max(32, spec.minimum) // step) * step, width, spec.channels)
    with torch.no_grad():
        whole = module(image)
        tiled = tiling.run_tiled(
            module, image, tile=tile, margin=spec.receptive_field, scale=spec.scale, multiple=step, minimum=spec.minimum
        )
        half = -(-width // 2 // step) * step
        cut = torch.cat([module(image[..., :half]), module(image[..., half:])], -1)

    def seam(result: torch.Tensor) -> float:
        added = (result.diff(dim=3) - whole.diff(dim=3)).abs().mean(dim=(0, 1, 2))
        return float(added.max() / whole.diff(dim=3).abs().mean())

    assert seam(tiled) < most
    assert seam(cut) > 5 * seam(tiled), "tiles laid side by side have a seam that this measure sees"


def test_models_that_share_a_network_share_what_follows_from_it() -> None:
    """So that the proof of one is that of the others."""
    kept = (
        "build",
        "weight_bytes",
        "bytes_per_pixel",
        "scale",
        "channels",
        "multiple_of",
        "minimum",
        "receptive_field",
    )
    for model_id, layout in LAYOUTS.items():
        first = CATALOGUE[FIRST[layout.network]]
        assert [getattr(CATALOGUE[model_id], name) for name in kept] == [getattr(first, name) for name in kept]


def test_every_download_is_proved_here_or_elsewhere() -> None:
    elsewhere = {
        "arcface-ir-se50",
        "bisenet-parse",
        "bopb-scratch",
        "codeformer",
        "ddcolor-artistic",
        "ddcolor-modelscope",
        "ddcolor-tiny",
        "gfpgan-1.3",
        "gfpgan-1.4",
        "lama",
        "mat",
        "restoreformer",
        "restoreformer-plus-plus",
        "retinaface-r50",
        "siggraph17",
        "yunet",
    }
    downloads = {spec.id for spec in CATALOGUE.values() if isinstance(spec.weights[-1].origin, Download)}
    assert downloads - elsewhere == set(LAYOUTS)
    assert {layout.network for layout in LAYOUTS.values()} == set(TEMPLATES)


def test_types_are_those_spandrel_vouches_for(published: tuple[ModelSpec, State]) -> None:
    spec, state = published
    descriptor = _spandrel.identify(state, wanted=spec.id, extra_arches=bool(spec.requirement))
    if "float16" in spec.dtypes:
        assert descriptor.supports_half
    if "bfloat16" in spec.dtypes:
        assert descriptor.supports_bfloat16


@pytest.mark.parametrize("spec", [CATALOGUE[model_id] for model_id in LAYOUTS], ids=lambda spec: spec.id)
def test_tiles_have_room_for_their_margins_below_the_best_size(spec: ModelSpec) -> None:
    smallest = tiled_inference.smallest_tile(spec)
    assert smallest % spec.multiple_of == 0
    assert smallest >= spec.minimum
    assert spec.best_tile % spec.multiple_of == 0
    assert spec.best_tile == 0 or spec.best_tile >= tiling.smallest_tile(spec.receptive_field, spec.multiple_of) + 128


REFERENCES: dict[str, tuple[str, str, dict[str, object]]] = {
    "realesrgan-x4plus": ("rrdbnet_arch", "RRDBNet", {"num_in_ch": 3, "num_out_ch": 3, "scale": 4}),
    "realesrgan-x2plus": ("rrdbnet_arch", "RRDBNet", {"num_in_ch": 3, "num_out_ch": 3, "scale": 2}),
    "realesr-general-x4v3": (
        "srvgg_arch",
        "SRVGGNetCompact",
        {"num_in_ch": 3, "num_out_ch": 3, "num_feat": 64, "num_conv": 32, "upscale": 4},
    ),
    "swinir-m-real": (
        "swinir_arch",
        "SwinIR",
        {
            "upscale": 4,
            "img_size": 64,
            "window_size": 8,
            "depths": (6,) * 6,
            "embed_dim": 180,
            "num_heads": (6,) * 6,
            "mlp_ratio": 2,
            "upsampler": "nearest+conv",
        },
    ),
}


@pytest.mark.slow
@pytest.mark.parametrize("model_id", REFERENCES)
def test_basicsr_agrees(model_id: str) -> None:
    file, name, arguments = REFERENCES[model_id]
    runpy.run_path(str(ROOT / "bench" / "_basicsr_compat.py"))["install"]()
    module = pytest.importorskip(f"basicsr.archs.{file}", reason="needs the reference extra", exc_type=ImportError)
    network = getattr(module, name)(**arguments).eval()
    state = random_weights(model_id)
    network.load_state_dict(state)
    layout = LAYOUTS[model_id]
    image = photo(layout.height, layout.width)
    with torch.no_grad():
        theirs = network(image)
        torch.testing.assert_close(CATALOGUE[model_id].build(state)(image), theirs, rtol=0, atol=1e-4)
    assert theirs.std() > 0.1


@pytest.mark.slow
def test_through_the_pool_a_photo_of_any_size_comes_out_as_from_the_bare_network(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tables of integers, masks and windows included: SwinIR has all of them."""
    monkeypatch.setenv("PHOTOKEEP_MODELS", str(tmp_path))
    monkeypatch.setenv("PHOTOKEEP_CACHE", str(tmp_path / "cache"))
    spec = publish(CATALOGUE["swinir-m-real"], random_weights("swinir-m-real"), tmp_path)
    image = photo(21, 30)
    with torch.no_grad():
        wanted = weights.load_module(spec)(tiling.pad_to(image, 24, 32))[..., : 4 * 21, : 4 * 30]
    torch.testing.assert_close(tiled_inference.apply_tiled(spec, image), wanted, rtol=0, atol=1e-4)
