"""Upscale models that cross the border between the host and the pack."""

from __future__ import annotations

import gc
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest
import small_networks
import spandrel
import torch
from skimage import data

from photokeep_nodes import exchange, inference, precision, vram_manager
from photokeep_nodes.errors import NodeInputError
from photokeep_nodes.exchange import LentUpscaler
from photokeep_nodes.model_spec import ModelHandle
from photokeep_nodes.nodes.as_upscale_model import AsUpscaleModel
from photokeep_nodes.nodes.upscale import Upscale

if TYPE_CHECKING:
    from pathlib import Path

COMPACT = ModelHandle("realesr-animevideov3")


pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


def photo(height: int = 40, width: int = 56) -> torch.Tensor:
    return torch.from_numpy(data.astronaut()[30 : 30 + height, 190 : 190 + width].copy())[None] / 255


def of_host(network: torch.nn.Module) -> Any:
    """What the host's loader of upscale models returns."""
    return spandrel.ModelLoader().load_from_state_dict(dict(network.state_dict())).eval()


def upscale(image: torch.Tensor, model: Any, scale: float = 2.0, **more: Any) -> torch.Tensor:
    (out,) = Upscale().run(image, model, scale, 0, **more)
    return out


def by_host(descriptor: Any, image: torch.Tensor) -> torch.Tensor:
    return descriptor(image.permute(0, 3, 1, 2)).clone().permute(0, 2, 3, 1)


def keys() -> set[str]:
    return {model["key"] for model in vram_manager.shared_pool().stats()["models"]}


# -- theirs, run by ours -------------------------------------------------------------------------------------------


def test_the_hosts_model_gives_the_hosts_result() -> None:
    descriptor = of_host(small_networks.compact(2))
    image = photo()
    torch.testing.assert_close(upscale(image, descriptor), by_host(descriptor, image), rtol=0, atol=1e-5)


def test_it_runs_in_our_tiles() -> None:
    descriptor = of_host(small_networks.compact(2))
    image = photo(40, 200)
    (tiled,) = Upscale().run(image, descriptor, 2.0, 140)
    torch.testing.assert_close(tiled, by_host(descriptor, image), rtol=0, atol=1e-5)
    assert torch.equal(upscale(image, descriptor, strength=0.0), upscale(image, COMPACT, strength=0.0))


def test_the_hosts_module_is_neither_moved_nor_emptied() -> None:
    descriptor = of_host(small_networks.compact(2))
    before = {name: (tensor.data_ptr(), tensor.clone()) for name, tensor in descriptor.model.state_dict().items()}
    upscale(photo(), descriptor)
    vram_manager.shared_pool().trim("ram", 2**62)
    for name, tensor in descriptor.model.state_dict().items():
        assert tensor.data_ptr() == before[name][0]
        assert torch.equal(tensor, before[name][1])
    upscale(photo(), descriptor)


def test_what_the_host_does_to_its_module_meanwhile_does_not_matter() -> None:
    descriptor = of_host(small_networks.compact(2))
    expected = upscale(photo(), descriptor)
    descriptor.model.to("meta")
    torch.testing.assert_close(upscale(photo(), descriptor), expected, rtol=0, atol=0)


def test_one_model_is_copied_once_and_two_are_two() -> None:
    one, other = of_host(small_networks.compact(2)), of_host(small_networks.compact(2))
    with torch.no_grad():
        next(other.model.parameters()).add_(1.0)
    assert exchange.borrowed(one) is exchange.borrowed(one)
    first, second = exchange.borrowed(one), exchange.borrowed(other)
    assert first.id != second.id
    assert first.network_id == second.network_id, "they take the same memory"
    assert not torch.equal(upscale(photo(), one), upscale(photo(), other))


def test_the_copy_goes_when_the_hosts_model_goes() -> None:
    descriptor = of_host(small_networks.compact(2))
    upscale(photo(), descriptor)
    mine = exchange.borrowed(descriptor).id
    assert any(key.startswith(f"{mine}:") for key in keys())
    del descriptor
    gc.collect()
    exchange.borrowed(of_host(small_networks.compact(4)))
    assert not any(key.startswith(f"{mine}:") for key in keys())


def test_a_model_that_is_gone_cannot_be_loaded() -> None:
    descriptor = of_host(small_networks.compact(2))
    spec = exchange.borrowed(descriptor)
    del descriptor
    gc.collect()
    with pytest.raises(NodeInputError, match="has dropped"):
        inference.run(spec, lambda _network: None, height=8, width=8)


def test_a_wrapper_with_nothing_but_a_model_and_a_scale() -> None:
    class Wrapper:
        def __init__(self) -> None:
            self.model = small_networks.compact(2)
            self.scale = 2

    wrapper = Wrapper()
    weight = next(wrapper.model.parameters())
    image = photo()
    with torch.no_grad():
        expected = wrapper.model(image.permute(0, 3, 1, 2)).permute(0, 2, 3, 1).clamp(0, 1)
    torch.testing.assert_close(upscale(image, wrapper), expected, rtol=0, atol=1e-5)
    vram_manager.shared_pool().trim("ram", 2**62)
    assert weight.numel()


def test_a_model_that_restores_without_enlarging_is_taken() -> None:
    """The host's loader knows no stages, so its models of factor 1 have no other place to go."""
    descriptor = of_host(small_networks.compact(1))
    image = photo()
    torch.testing.assert_close(upscale(image, descriptor, 1.0), by_host(descriptor, image), rtol=0, atol=1e-5)
    assert upscale(image, descriptor, 2.0).shape == (1, 80, 112, 3)


def test_sizes_that_the_network_cannot_take_are_padded() -> None:
    descriptor = of_host(small_networks.nafnet())
    image = photo(33, 41)
    assert upscale(image, descriptor, 1.0).shape == image.shape


def test_a_face_model_is_refused() -> None:
    descriptor = of_host(small_networks.compact(2))
    descriptor._purpose = "FaceSR"
    with pytest.raises(NodeInputError, match="the host's model is Compact, which restores single faces"):
        upscale(photo(), descriptor)


@pytest.mark.parametrize("model", [None, 3, "model", SimpleNamespace(model=3, scale=2), SimpleNamespace(scale=2)])
def test_what_is_no_upscale_model_is_refused(model: Any) -> None:
    with pytest.raises(NodeInputError, match=f"not {type(model).__name__}"):
        upscale(photo(), model)


# -- ours, run by theirs -------------------------------------------------------------------------------------------


def test_a_lent_model_computes_what_ours_does() -> None:
    (lent,) = AsUpscaleModel().run(COMPACT)
    image = photo()
    out = lent(image.permute(0, 3, 1, 2))
    assert out.shape == (1, 3, 160, 224)
    torch.testing.assert_close(out.permute(0, 2, 3, 1), upscale(image, COMPACT, 4.0), rtol=0, atol=1e-5)
    assert 0.0 <= float(out.min()) <= float(out.max()) <= 1.0
    assert lent(image.permute(0, 3, 1, 2).half()).dtype == torch.float16


def test_a_lent_model_holds_no_weights() -> None:
    lent = LentUpscaler(COMPACT)
    assert lent.scale == 4
    assert lent.model.state_dict() == {}
    assert lent.to("cpu") is lent
    assert lent.to(torch.device("cpu"), torch.float16) is lent.eval()
    pool = vram_manager.shared_pool()
    pool.trim("ram", 2**62)
    assert not any(key.startswith("realesr-animevideov3") for key in keys())
    lent(torch.rand(1, 3, 8, 8))
    assert all(not model.get("leases") for model in pool.stats()["models"])


def test_a_lent_model_takes_the_sizes_its_network_does_not(model_folder: Path) -> None:
    from spandrel.architectures.ESRGAN import ESRGAN

    with torch.random.fork_rng():
        torch.manual_seed(0)
        network = ESRGAN(in_nc=12, out_nc=3, num_filters=4, num_blocks=1, scale=4, shuffle_factor=2)
    small_networks.save(network, model_folder / "x2.pth")
    lent = LentUpscaler(ModelHandle("file:upscale/x2.pth"))
    assert lent(torch.rand(2, 3, 9, 13)).shape == (2, 3, 18, 26)


def test_a_lent_model_comes_back_as_itself() -> None:
    assert exchange.borrowed(LentUpscaler(COMPACT)) is inference.spec_for(COMPACT, "upscale")


def test_only_upscale_models_for_colour_are_lent(model_folder: Path) -> None:
    with pytest.raises(NodeInputError, match="made for denoise"):
        LentUpscaler(ModelHandle("ffdnet-color"))
    small_networks.save(small_networks.compact(2, channels=1), model_folder / "gray.pth")
    with pytest.raises(NodeInputError, match="takes gray images only"):
        LentUpscaler(ModelHandle("file:upscale/gray.pth"))


def test_a_lent_model_is_given_what_its_network_takes() -> None:
    lent = LentUpscaler(COMPACT)
    image = photo().permute(0, 3, 1, 2)
    beyond = image * 3 - 1
    torch.testing.assert_close(lent(beyond), lent(beyond.clamp(0, 1)), rtol=0, atol=1e-6)


def test_a_lent_model_does_not_hand_on_what_is_no_number() -> None:
    image = photo().permute(0, 3, 1, 2).clone()
    image[0, 1, 5, 5] = float("nan")
    with pytest.raises(NodeInputError, match="not numbers"):
        LentUpscaler(COMPACT)(image)


def test_a_lent_model_that_overflows_in_half_precision_is_run_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo().permute(0, 3, 1, 2)
    expected = LentUpscaler(COMPACT)(image)
    call, types = inference.Network.__call__, []

    def overflowing(self: inference.Network, *arguments: torch.Tensor) -> torch.Tensor:
        types.append(self.dtype)
        result = call(self, *arguments)
        return result if self.dtype == torch.float32 else result * float("nan")

    monkeypatch.setattr(inference.Network, "__call__", overflowing)
    monkeypatch.setattr(precision, "choose", lambda *_: torch.bfloat16)
    torch.testing.assert_close(LentUpscaler(COMPACT)(image), expected, rtol=0, atol=1e-5)
    assert types == [torch.bfloat16, torch.float32]


def test_a_lent_model_out_of_memory_goes_on_in_smaller_tiles(monkeypatch: pytest.MonkeyPatch) -> None:
    image = photo(160, 200).permute(0, 3, 1, 2)
    expected = LentUpscaler(COMPACT)(image)
    call = inference.Network.__call__

    def small_only(self: inference.Network, part: torch.Tensor) -> torch.Tensor:
        if part.shape[-1] > 150:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
        return call(self, part)

    monkeypatch.setattr(inference.Network, "__call__", small_only)
    torch.testing.assert_close(LentUpscaler(COMPACT)(image), expected, rtol=0, atol=1 / 255)
