"""Networks with shared masks compute what spandrel's compute; parity is in ``test_published_networks.py`` too."""

from __future__ import annotations

import copy
import threading

import pytest
import torch
from published import LAYOUTS, photo, random_state
from spandrel.architectures.DAT import DAT
from spandrel.architectures.SwinIR import SwinIR

from photokeep_nodes._arch import window_masks
from photokeep_nodes._arch.window_masks import MaskedNetwork, share_swinir_masks
from photokeep_nodes.models import _spandrel

# spandrel's own constructors, called here by hand, call it the old way.
pytestmark = pytest.mark.filterwarnings("ignore:torch.meshgrid:UserWarning")


def swinir() -> torch.nn.Module:
    return SwinIR(
        img_size=64, window_size=8, depths=[4, 2], num_heads=[2] * 2, embed_dim=12, upscale=4, upsampler="nearest+conv"
    )


def dat() -> torch.nn.Module:
    return DAT(
        img_size=64, split_size=[8, 32], depth=[6, 6], embed_dim=32, num_heads=[2] * 2, expansion_factor=2, upscale=4
    )


@pytest.fixture(scope="module", params=["SwinIR", "DAT"])
def networks(request: pytest.FixtureRequest) -> tuple[torch.nn.Module, MaskedNetwork]:
    """Spandrel's, and the same one with shared masks."""
    make, load = {"SwinIR": (swinir, _spandrel.load_swinir), "DAT": (dat, _spandrel.load_dat)}[request.param]
    plain = make().eval()
    state = random_state(plain.state_dict(), LAYOUTS["swinir-m-real"])
    plain.load_state_dict(state)
    ours = load(state, scale=4)
    assert isinstance(ours, MaskedNetwork)
    return plain, ours


# 64 px is the size whose mask lies in the weight file; 32 px is one window of DAT's, all of it at the edge.
@pytest.mark.parametrize("size", [(64, 64), (64, 32), (32, 96), (32, 32), (40, 70)])
def test_results_are_spandrels(networks: tuple[torch.nn.Module, MaskedNetwork], size: tuple[int, int]) -> None:
    plain, ours = networks
    image = photo(*size)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), plain(image), rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [(8, 16), (8, 8), (13, 30)])
def test_small_windows_take_small_photos(size: tuple[int, int]) -> None:
    plain = swinir().eval()
    image = photo(*size)
    with torch.no_grad():
        wanted = plain(image)
        torch.testing.assert_close(share_swinir_masks(plain)(image), wanted, rtol=0, atol=1e-5)


def test_masks_are_made_once_a_call_and_given_back(
    networks: tuple[torch.nn.Module, MaskedNetwork], monkeypatch: pytest.MonkeyPatch
) -> None:
    _, ours = networks
    made = []

    def counted(size, window, shift, *, like):
        made.append(tuple(window))
        return original(size, window, shift, like=like)

    original = window_masks.window_mask
    monkeypatch.setattr(window_masks, "window_mask", counted)
    with torch.no_grad():
        ours(photo(32, 96))
        assert len(made) == len(set(made)) > 0
        assert ours._masks._local.made == {}
        with pytest.raises(RuntimeError):
            ours(torch.zeros(1, 4, 32, 96))
    assert ours._masks._local.image is None


def test_copies_and_threads_have_masks_of_their_own(networks: tuple[torch.nn.Module, MaskedNetwork]) -> None:
    _, ours = networks
    other = copy.deepcopy(ours)
    asked = [block.calculate_mask for block in other.modules() if hasattr(block, "calculate_mask")]
    assert {getattr(masks, "__self__", masks) for masks in asked} == {other._masks} != {ours._masks}
    images = [photo(32, 96), photo(64, 32)]
    with torch.no_grad():
        expected = [other(image) for image in images]
    results: dict[int, torch.Tensor] = {}

    def work(index: int) -> None:
        with torch.no_grad():
            for _ in range(3):
                results[index] = ours(images[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        torch.testing.assert_close(results[index], expected[index], rtol=0, atol=1e-5)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_half_precision_is_no_error(networks: tuple[torch.nn.Module, MaskedNetwork], dtype: torch.dtype) -> None:
    _, ours = networks
    image = photo(32, 96)
    with torch.no_grad():
        out = copy.deepcopy(ours).to(dtype)(image.to(dtype))
        assert (out.float() - ours(image)).abs().mean() < 0.02
    assert out.dtype == dtype
