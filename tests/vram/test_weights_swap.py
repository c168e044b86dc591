"""Storages counted once, moved by pointer, refused where they cannot be moved."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.errors import VramError
from photokeep_nodes.vram_manager import ModelSource, VramPool

GPU = torch.device("cuda", 0)
OTHER = torch.device("cuda", 1)
CPU = torch.device("cpu")


class Knotty(nn.Module):
    """Tied weights, views, a non-persistent buffer, an empty tensor, mixed types and strides: 4 KiB + 512 B + 40 B."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(1)
        self.first = nn.Linear(32, 32, bias=False)
        self.first.weight = nn.Parameter(torch.rand(32, 32, generator=generator).t())  # strides (1, 32)
        self.tied = nn.Linear(32, 32, bias=False)
        self.tied.weight = self.first.weight
        self.row = nn.Parameter(self.first.weight.data[3:5, 1:])  # a view, with an offset
        self.register_buffer("table", torch.arange(64), persistent=False)
        self.register_buffer("halves", torch.rand(20, generator=generator).half())
        self.register_buffer("nothing", torch.empty(0))
        self.register_buffer("absent", None)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.tied(self.first(x))[:, 1:] @ self.row.t() + self.table.sum() + self.halves.float().sum()


KNOTTY_BYTES = 32 * 32 * 4 + 64 * 8 + 20 * 2


@pytest.fixture
def rig():
    devices = {place: SimulatedDevice(1 << 20) for place in (GPU, OTHER)}
    pool = VramPool(ram_budget_bytes=1 << 20, open_device=devices.__getitem__)
    yield pool, devices[GPU]
    assert pool.close()
    assert devices[GPU].live_bytes == 0


def source(build=Knotty) -> ModelSource:
    return ModelSource("m", lambda: build().eval(), KNOTTY_BYTES)


def test_shared_storages_are_counted_and_copied_once(rig):  # I4
    pool, device = rig
    with pool.lease(source(), device=GPU):
        assert device.bytes_copied == KNOTTY_BYTES
        assert device.live_bytes == KNOTTY_BYTES
        assert pool.stats()["tiers"]["cuda:0"]["used_bytes"] == KNOTTY_BYTES
        assert pool.stats()["tiers"]["cpu"]["used_bytes"] == KNOTTY_BYTES
    assert audit(pool) == []


def test_ties_views_and_strides_survive_the_move(rig):
    pool, _ = rig
    fresh = Knotty()
    for device in (GPU, CPU, OTHER, GPU):
        with pool.lease(source(), device=device) as lease:
            module = lease.module
            assert module.tied.weight is module.first.weight
            assert isinstance(module.row, nn.Parameter)
            assert module.row.untyped_storage().data_ptr() == module.first.weight.untyped_storage().data_ptr()
            assert module.first.weight.stride() == (1, 32)
            assert module.halves.dtype == torch.float16
            assert "table" not in module.state_dict()
            for (name, ours), (_, theirs) in zip(
                [*module.named_parameters(), *module.named_buffers()],
                [*fresh.named_parameters(), *fresh.named_buffers()],
                strict=True,
            ):
                assert torch.equal(ours, theirs), name
            x = torch.ones(2, 32)
            assert torch.equal(module(x), fresh(x))
        pool.trim("vram", 1)


def test_non_persistent_buffers_travel(rig):
    pool, _ = rig
    with pool.lease(source(), device=CPU) as lease:
        at_home = lease.module.table.data_ptr()
    with pool.lease(source(), device=GPU) as lease:
        assert lease.module.table.data_ptr() != at_home
    pool.trim("vram", 1)
    with pool.lease(source(), device=CPU) as lease:
        assert lease.module.table.data_ptr() == at_home


def test_a_twin_shares_the_master_and_keeps_its_own_ties(rig):
    pool, _ = rig
    with pool.lease(source(), device=GPU) as one, pool.lease(source(), device=CPU) as two:
        assert one.module is not two.module
        assert two.module.tied.weight is two.module.first.weight
        assert two.module.first.weight.data_ptr() != one.module.first.weight.data_ptr()
        assert not two.module.training
        x = torch.ones(2, 32)
        assert torch.equal(one.module(x), two.module(x))
        assert pool.stats()["tiers"]["cpu"]["used_bytes"] == KNOTTY_BYTES


def test_a_module_that_cannot_be_doubled_serves_one_device_at_a_time(rig):
    class Single(Knotty):
        def __deepcopy__(self, memo):
            raise TypeError("there is only one")

    pool, _ = rig
    with pool.lease(source(Single), device=GPU):
        with pytest.raises(VramError, match="second device at the same time: there is only one"):
            pool.lease(source(Single), device=OTHER).__enter__()
        assert audit(pool) == []
    with pool.lease(source(Single), device=OTHER) as lease:
        assert lease.module.first.weight.numel()
    with pool.lease(source(Single), device=OTHER):
        pass


def test_two_storages_over_the_same_memory_count_once(rig):
    def build() -> nn.Module:
        whole = torch.rand(64)
        module = nn.Module()
        module.one = nn.Parameter(whole)
        module.two = nn.Parameter(torch.empty(0).set_(whole.untyped_storage()[0 : 64 * 4], 0, (64,), (1,)))
        return module

    pool, device = rig
    with pool.lease(ModelSource("m", build, 0), device=GPU) as lease:
        assert device.live_bytes == 256
        assert torch.equal(lease.module.one, lease.module.two)


@pytest.mark.parametrize("outside", [True, False])
def test_inference_mode_around_a_lease_does_not_stick_to_the_weights(rig, outside):
    pool, _ = rig
    with torch.inference_mode(mode=outside), pool.lease(source(), device=GPU) as lease:
        assert not lease.module.row.is_inference()
        assert not lease.module.table.is_inference()
    pool.trim("vram", 1)
    with pool.lease(source(), device=GPU) as lease:
        loss = (lease.module.row * 2).sum()
        loss.backward()  # would raise if the weights had been born in inference mode
        assert lease.module.row.grad is not None


class Lazy(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.LazyLinear(2)


def with_buffer(make) -> nn.Module:
    module = nn.Module()
    module.register_buffer("odd", make())
    return module


@pytest.mark.filterwarnings("ignore::UserWarning", "ignore::DeprecationWarning")
@pytest.mark.parametrize(
    ("build", "why"),
    [
        (lambda: with_buffer(lambda: torch.empty(2, device="meta")), "on meta, not on the CPU"),
        (lambda: with_buffer(lambda: torch.eye(3).to_sparse()), "layout is torch.sparse_coo"),
        (lambda: with_buffer(lambda: torch.rand(2, dtype=torch.complex64).conj()), "lazy view"),
        (Lazy, "not initialised"),
    ],
)
def test_what_cannot_be_moved_is_refused_by_name(rig, build, why):
    pool, _ = rig
    with pytest.raises(VramError, match=why) as caught:
        pool.lease(ModelSource("m", build, 10), device=GPU).__enter__()
    assert "cannot move tensor" in caught.value.message
    assert pool.stats()["models"] == []
    assert audit(pool) == []


def test_a_model_without_weights_is_lent_all_the_same(rig):
    pool, device = rig
    with pool.lease(ModelSource("id", nn.Identity, 0), device=GPU) as lease:
        assert lease.module(torch.ones(1)) == 1
    assert device.bytes_copied == 0
