"""The pool on a real CUDA device."""

from __future__ import annotations

import gc
import threading

import pytest
import torch
from torch import nn

from photokeep_nodes.errors import VramExhaustedError
from photokeep_nodes.vram_manager import ModelSource, VramPool

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]

GPU = torch.device("cuda", 0)
MIB = 2**20


def source(key: str, mib: int = 64) -> ModelSource:
    def load() -> nn.Module:
        generator = torch.Generator().manual_seed(sum(map(ord, key)))
        module = nn.Module()
        for index in range(mib):
            module.register_parameter(f"p{index}", nn.Parameter(torch.rand(MIB // 4, generator=generator)))
        return module.eval()

    return ModelSource(key, load, mib * MIB)


@pytest.fixture
def pool():
    gc.collect()
    torch.cuda.empty_cache()
    pool = VramPool(vram_budgets={GPU: 160 * MIB}, ram_budget_bytes=2**30)
    yield pool
    assert pool.close()


def weights_of(module: nn.Module) -> list[torch.Tensor]:
    return [parameter.detach().cpu().clone() for parameter in module.parameters()]


def test_weights_are_on_the_device_and_come_back_bitwise(pool):
    a, b, c = source("a"), source("b"), source("c")
    expected = {each.key: weights_of(each.load()) for each in (a, b, c)}
    for each in (a, b, c) * 5:
        with pool.lease(each, device=GPU) as lease:
            assert lease.device == GPU
            assert all(parameter.device == GPU for parameter in lease.module.parameters())
            assert all(map(torch.equal, weights_of(lease.module), expected[each.key]))
    assert pool.stats()["counters"]["cold_loads"] == 3
    assert pool.stats()["counters"]["evictions"] == 13


def test_the_charge_is_what_torch_allocated(pool):
    before = torch.cuda.memory_allocated(GPU)
    a, b, c = source("a"), source("b"), source("c")
    for each in (a, b, c):
        with pool.lease(each, device=GPU):
            pass
    assert torch.cuda.memory_allocated(GPU) - before == pool.stats()["tiers"]["cuda:0"]["used_bytes"] == 128 * MIB
    pool.trim("vram", 2**40)
    assert torch.cuda.memory_allocated(GPU) == before


def test_the_weights_are_not_freed_under_a_kernel_that_still_reads_them(pool):
    a, b = source("a", 100), source("b", 100)
    expected = float(weights_of(a.load())[0].double().sum())
    with pool.lease(a, device=GPU) as lease:
        weight = lease.module.p0
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            torch.cuda._sleep(200_000_000)
            total = weight.detach().double().sum()
        del weight
    with pool.lease(b, device=GPU):
        pass
    stream.synchronize()
    assert float(total) == pytest.approx(expected)


def test_a_budget_is_found_by_asking_the_device():
    pool = VramPool(ram_budget_bytes=2**30)
    free, total = torch.cuda.mem_get_info(GPU)
    assert 0 < pool.available_bytes(GPU) < total
    with pytest.raises(VramExhaustedError), pool.lease(source("a", 1), device=GPU, working_bytes=total):
        pass
    assert free > 0
    assert pool.close()


def test_two_threads_share_one_load(pool):
    loads = []
    real = source("a")

    def load() -> nn.Module:
        loads.append(threading.get_ident())
        return real.load()

    shared = ModelSource("a", load, real.weight_bytes)
    barrier = threading.Barrier(4)
    sums: list[float] = []

    def work() -> None:
        barrier.wait()
        with pool.lease(shared, device=GPU) as lease:
            sums.append(float(lease.module.p0.detach().sum()))

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(loads) == 1
    assert len(set(sums)) == 1
    assert len(sums) == 4


def test_out_of_memory_in_the_driver_is_survived(pool):
    a, b = source("a"), source("b")
    with pool.lease(a, device=GPU):
        pass
    free, _ = torch.cuda.mem_get_info(GPU)
    hog = torch.empty(free - 16 * MIB, dtype=torch.uint8, device=GPU)
    with pool.lease(b, device=GPU) as lease:  # a has to leave although the budget would hold both
        assert lease.module.p0.device == GPU
    assert [each["state"] for each in pool.stats()["models"]] == ["warm", "hot"]
    del hog
    torch.cuda.empty_cache()
