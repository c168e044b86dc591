"""Dense blocks with kept memory compute what spandrel's compute."""

from __future__ import annotations

import copy
import threading

import pytest
import torch

from photokeep_nodes import weights
from photokeep_nodes._arch.dense_blocks import DenseBlock, DenseNetwork, reuse_memory
from photokeep_nodes.models import _spandrel, catalogue


@pytest.fixture(scope="module")
def networks():
    spec = catalogue()["realesrgan-x4plus"]
    state = {key: value.float() for key, value in weights.load_state_dict(spec).items()}
    plain = _spandrel.load(state, architecture="ESRGAN", scale=4)
    return plain, weights.load_module(spec)


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("batch", [1, 2])
def test_results_are_spandrels(networks, memory_format, batch):
    plain, ours = networks
    image = torch.rand(batch, 3, 20, 17, generator=torch.Generator().manual_seed(1)).to(memory_format=memory_format)
    with torch.no_grad():
        torch.testing.assert_close(ours(image), plain(image), rtol=0, atol=1e-5)


def test_every_block_is_replaced_and_no_weight_is_lost(networks):
    plain, ours = networks
    assert sum(isinstance(module, DenseBlock) for module in ours.modules()) == 69
    assert not any(type(module).__name__ == "ResidualDenseBlock_5C" for module in ours.modules())
    assert sum(p.numel() for p in ours.parameters()) == sum(p.numel() for p in plain.parameters()) == 16_697_987


def test_memory_is_given_back_also_after_a_failure(networks):
    _, ours = networks
    assert isinstance(ours, DenseNetwork)
    with torch.no_grad():
        ours(torch.rand(1, 3, 8, 8))
        assert ours._scratch._local.buffer is None
        with pytest.raises(RuntimeError):
            ours(torch.rand(1, 4, 8, 8))
    assert ours._scratch._local.buffer is None


def test_threads_and_copies_do_not_share_buffers(networks):
    _, ours = networks
    other = copy.deepcopy(ours)
    assert other._scratch is not ours._scratch
    assert all(m._scratch is other._scratch for m in other.modules() if isinstance(m, DenseBlock))
    images = [torch.rand(1, 3, 12, 12) for _ in range(2)]
    with torch.no_grad():
        expected = [ours(image) for image in images]
    results = {}

    def work(index):
        with torch.no_grad():
            for _ in range(3):
                results[index] = ours(images[index])

    threads = [threading.Thread(target=work, args=(index,)) for index in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for index in range(2):
        torch.testing.assert_close(results[index], expected[index], rtol=0, atol=1e-6)


def test_a_network_without_dense_blocks_is_left_alone():
    network = torch.nn.Sequential(torch.nn.Conv2d(3, 3, 3, padding=1)).eval()
    image = torch.rand(1, 3, 5, 5)
    with torch.no_grad():
        torch.testing.assert_close(reuse_memory(network)(image), network(image))
