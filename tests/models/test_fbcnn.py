"""FBCNN reads the JPEG quality from the photo, or is told it; parity is in ``test_published_networks.py`` too."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from published import LAYOUTS, photo, random_state
from spandrel.architectures.FBCNN import FBCNN

from photokeep_nodes import models
from photokeep_nodes.errors import WeightsFormatError
from photokeep_nodes.models.fbcnn_color import SPEC as COLOR
from photokeep_nodes.models.fbcnn_gray_double import SPEC as GRAY
from photokeep_nodes.ops import tiling

GOLDEN = np.load(Path(__file__).parents[1] / "data" / "networks.npz")
TOLD_QUALITY = 0.6  # as in make_networks.py


def small(channels: int = 3) -> dict[str, torch.Tensor]:
    """Weights of the same network, narrower; the heads that deal with the quality have one size only."""
    network = FBCNN(in_nc=channels, out_nc=channels, nc=[8, 8, 8, 512], nb=2)
    state = random_state(network.state_dict(), LAYOUTS["fbcnn-color"])
    # So that what is read differs from photo to photo as much as it does once trained.
    state["qf_pred.8.weight"] *= 20
    return state


@pytest.fixture(scope="module")
def network() -> torch.nn.Module:
    return COLOR.build(small())


@pytest.mark.slow
@pytest.mark.parametrize("model_id", ["fbcnn-color", "fbcnn-gray-double"])
def test_quality_read_and_told_are_the_authors(model_id: str) -> None:
    spec, layout = models.catalogue()[model_id], LAYOUTS[model_id]
    published = FBCNN(in_nc=layout.channels, out_nc=layout.channels).state_dict()
    module = spec.build(random_state(published, layout))
    image = photo(layout.height, layout.width, layout.channels)
    with torch.no_grad():
        quality = module.predict_quality(image)
        told = module(image, torch.tensor([TOLD_QUALITY]))
    np.testing.assert_allclose(quality.numpy(), GOLDEN[f"{layout.network}/quality"], rtol=0, atol=1e-5)
    golden = GOLDEN[f"{layout.network}/told"]
    np.testing.assert_allclose(told[0, :, :: layout.step, :: layout.step].numpy(), golden, rtol=0, atol=1e-4)
    assert np.abs(golden - GOLDEN[f"{layout.network}/blind"]).max() > 0.02, "being told must make a difference here"


def test_what_it_reads_is_what_it_goes_by(network: torch.nn.Module) -> None:
    image = photo(43, 37)
    with torch.no_grad():
        quality = network.predict_quality(image)
        torch.testing.assert_close(network(image, quality), network(image), rtol=0, atol=1e-5)
    assert quality.shape == (1,)
    assert 0 < float(quality) < 1


def test_quality_is_per_photo(network: torch.nn.Module) -> None:
    image = photo(24, 24)
    with torch.no_grad():
        both = network(image.repeat(2, 1, 1, 1), torch.tensor([0.1, 0.9]))
        poor, good = (network(image, torch.tensor([quality])) for quality in (0.1, 0.9))
    torch.testing.assert_close(both, torch.cat((poor, good)), rtol=0, atol=1e-5)
    assert (poor - good).abs().max() > 1e-3


def test_told_once_all_tiles_agree_with_the_whole_photo(network: torch.nn.Module) -> None:
    """Left to themselves, tiles of one photo find different qualities, and their seams show."""
    image = photo(112, 208)
    image[..., :, 104:] = torch.rand(image[..., :, 104:].shape, generator=torch.Generator().manual_seed(1))
    read: list[float] = []

    def blind(part: torch.Tensor) -> torch.Tensor:
        read.append(float(network.predict_quality(part)))
        return network(part)

    def tiled(run: tiling.Network) -> torch.Tensor:
        return tiling.run_tiled(run, image, tile=144, margin=48, multiple=COLOR.multiple_of)

    with torch.no_grad():
        quality = network.predict_quality(image)
        whole = network(image, quality)
        told = tiled(lambda part: network(part, quality))
        left_alone = tiled(blind)
    assert len(read) > 1
    assert max(read) - min(read) > 0.01
    assert (told - whole).abs().max() < 0.1 * (left_alone - whole).abs().max()


@pytest.mark.parametrize("size", [(8, 8), (1, 1), (13, 30)])
def test_any_size_is_kept(network: torch.nn.Module, size: tuple[int, int]) -> None:
    with torch.no_grad():
        assert network(torch.rand(2, 3, *size)).shape == (2, 3, *size)


def test_gray_takes_one_channel_and_refuses_weights_for_three() -> None:
    with torch.no_grad():
        assert GRAY.build(small(channels=1))(photo(16, 16, channels=1)).shape == (1, 1, 16, 16)
    with pytest.raises(WeightsFormatError, match="FBCNN x1 with 3 channels; FBCNN x1 with 1 was expected"):
        GRAY.build(small())
    with pytest.raises(WeightsFormatError, match="FBCNN x1 with 1 channels; FBCNN x1 with 3 was expected"):
        COLOR.build(small(channels=1))
