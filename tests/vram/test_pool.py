"""The pool seen by one thread: what it holds, what it evicts, what it refuses. Names in brackets are the invariants."""

from __future__ import annotations

import gc
import importlib.util
import pickle
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from vram_rig import CPU, GPU, OTHER, UNIT, Rig, Source

from photokeep_nodes import vram_manager
from photokeep_nodes._vram import device as vram_device
from photokeep_nodes._vram.simulated import SimulatedDevice, audit
from photokeep_nodes.errors import (
    DeviceLostError,
    LeaseNestedError,
    LeaseReleasedError,
    PhotokeepError,
    PoolClosedError,
    VramError,
    VramExhaustedError,
)
from photokeep_nodes.vram_manager import LruPolicy, ModelSource, VramPool


def weights_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


# -- leasing ----------------------------------------------------------------------------------------------------------


def test_a_lease_gives_the_module_where_it_was_asked_for():
    rig, source = Rig(4), Source("a", 2)
    with rig.pool.lease(source, device=GPU) as lease:
        assert torch.equal(lease.module.weight, source.load().weight)
        assert lease.device == rig.gpu.device
        assert lease.active
        assert rig.gpu.live_bytes == 2 * UNIT
    assert not lease.active
    assert audit(rig.pool) == []


def test_a_second_lease_is_a_hit_and_loads_nothing():
    rig, source = Rig(4), Source("a")
    rig.touch(source)
    with rig.pool.lease(source, device=GPU) as first, rig.pool.lease(source, device=GPU) as second:
        assert first.module is second.module
    assert (source.loads, rig.hits, rig.promotions, rig.cold_loads) == (1, 2, 1, 1)


def test_a_set_comes_in_the_order_it_was_asked_for_and_unpacks():
    rig, a, b = Rig(4), Source("a"), Source("b", 2)
    with rig.pool.lease([b, a, b], device=GPU) as (first, second, third):
        assert first is third
        assert (first.weight.shape[0], second.weight.shape[0]) == (2, 1)
    with rig.pool.lease((a, b), device=GPU) as lease:
        assert len(lease.modules) == 2
        with pytest.raises(VramError, match="2 models"):
            _ = lease.module
    assert audit(rig.pool) == []


def test_what_a_released_lease_held_is_out_of_reach():  # I10
    rig = Rig(4)
    with rig.pool.lease(Source("a"), device=GPU) as lease:
        pass
    for use in (lambda: lease.module, lambda: lease.modules, lambda: lease.device, lambda: list(lease)):
        with pytest.raises(LeaseReleasedError, match="lease of a was released"):
            use()


def test_a_lease_that_was_not_entered_holds_nothing():
    rig, source = Rig(4), Source("a")
    lease = rig.pool.lease(source, device=GPU)
    with pytest.raises(LeaseReleasedError, match="not entered"):
        _ = lease.module
    lease.release()
    assert source.loads == 0


def test_a_second_release_is_counted_and_does_nothing():  # I10
    rig, source = Rig(4), Source("a")
    with rig.pool.lease(source, device=GPU), rig.pool.lease(source, device=GPU) as lease:
        lease.release()
        lease.release()
        assert rig.pool.trim("vram", UNIT) == 0, "the first lease still pins the model"
    assert rig.double_releases == 2
    assert audit(rig.pool) == []


def test_a_lease_is_entered_once():
    rig = Rig(4)
    with rig.pool.lease(Source("a"), device=GPU) as lease:
        pass
    with pytest.raises(VramError, match="only once"), lease:
        pass


@pytest.mark.parametrize("arguments", [{"sources": []}, {"sources": Source("a"), "working_bytes": -1}])
def test_a_senseless_request_is_refused(arguments):
    with pytest.raises(VramError, match="at least one ModelSource"):
        Rig(4).pool.lease(**arguments, device=GPU)


def test_a_lease_lost_without_release_is_taken_back():
    rig, a, b = Rig(2), Source("a", 2), Source("b", 2)
    lease = rig.pool.lease(a, device=GPU)
    lease.__enter__()
    del lease
    gc.collect()
    rig.touch(b, timeout_s=0)
    assert rig.lost_leases == 1
    assert audit(rig.pool) == []


def test_the_default_device_is_torchs():
    pool = VramPool(ram_budget_bytes=100 * UNIT)
    expected = torch.accelerator.current_accelerator(check_available=True) or CPU
    with pool.lease(Source("a")) as lease:
        assert lease.device.type == expected.type
    assert pool.close()


# -- budgets and eviction ---------------------------------------------------------------------------------------------


def test_the_least_recently_used_makes_room():
    rig, a, b, c = Rig(2, policy=LruPolicy()), Source("a"), Source("b"), Source("c")
    rig.touch(a)
    rig.touch(b)
    rig.touch(a)
    rig.touch(c)
    assert rig.states() == {"a": "hot", "b": "warm", "c": "hot"}
    assert (rig.evictions, rig.used()) == (1, 2)
    rig.touch(b)
    assert b.loads == 1, "it was warm"
    assert rig.states() == {"a": "warm", "b": "hot", "c": "hot"}


def test_a_small_victim_is_spared_where_a_large_one_suffices():
    rig = Rig(10)
    for source in (Source("small", 1), Source("large", 8)):
        rig.touch(source)
    rig.touch(Source("new", 8))
    assert rig.states() == {"small": "hot", "large": "warm", "new": "hot"}


def test_what_is_leased_is_never_evicted():  # I2
    rig, a, b, c = Rig(2), Source("a"), Source("b"), Source("c")
    with rig.pool.lease(a, device=GPU) as lease:
        kept = lease.module.weight.data_ptr()
        rig.touch(b)
        rig.touch(c)
        rig.pool.trim("vram", 100 * UNIT)
        rig.pool.trim("ram", 100 * UNIT)
        assert lease.module.weight.data_ptr() == kept
        assert torch.equal(lease.module.weight, a.load().weight)
    assert audit(rig.pool) == []


def test_working_bytes_count_against_the_budget():  # I1
    rig, a, b = Rig(4), Source("a"), Source("b")
    rig.touch(b)
    with rig.pool.lease(a, device=GPU, working_bytes=3 * UNIT):
        assert rig.states() == {"a": "hot", "b": "warm"}
        assert rig.used() == 4
    assert rig.used() == 1
    with rig.pool.lease(a, device=GPU, working_bytes=2 * UNIT):
        assert rig.used() == 3, "the quick path reserves too"
    rig.touch(b)
    rig.touch(a, working_bytes=3 * UNIT)  # hot, but b has to leave for the working bytes
    assert rig.states() == {"a": "hot", "b": "warm"}
    assert audit(rig.pool) == []


def test_the_budget_is_the_devices_where_none_was_set():
    device = SimulatedDevice(3 * UNIT)
    device.outside_bytes = UNIT
    pool = VramPool(ram_budget_bytes=100 * UNIT, open_device=lambda _: device)
    assert pool.available_bytes(GPU) == 2 * UNIT
    with pytest.raises(VramExhaustedError), pool.lease(Source("a", 3), device=GPU):
        pass


def test_more_than_the_budget_fails_at_once_with_a_report():
    rig, a, b = Rig(4), Source("a", 2), Source("b", 3)
    with rig.pool.lease(a, device=GPU), pytest.raises(VramExhaustedError) as caught:
        rig.touch(b, working_bytes=2 * UNIT)
    error = caught.value
    assert error.message == "b with 2.0 KiB of working memory needs 5.0 KiB on cuda:0, whose budget is 4.0 KiB"
    assert "smaller tiles" in error.hint
    assert "a 2.0 KiB leased by MainThread for" in error.hint
    [model] = error.context["report"]["models"]
    assert model["leases"][0]["thread"] == "MainThread"
    assert error.context["need_bytes"] == 5 * UNIT
    assert b.loads == 0
    again = pickle.loads(pickle.dumps(error))
    assert (type(again), again.message, again.context) == (type(error), error.message, error.context)
    assert audit(rig.pool) == []


def test_a_set_that_fits_only_one_by_one_is_refused():
    rig, a, b = Rig(3), Source("a", 2), Source("b", 2)
    with pytest.raises(VramExhaustedError, match=r"a, b with 0 B of working memory needs 4\.0 KiB"):
        rig.touch(a, b)
    assert (a.loads, b.loads) == (0, 0)


def test_more_than_the_ram_budget_is_refused_by_name():
    rig = Rig(10, ram=3)
    with pytest.raises(VramExhaustedError, match=r"needs 4\.0 KiB on cpu") as caught:
        rig.touch(Source("a", 4))
    assert "RAM budget" in caught.value.hint


def test_a_nested_lease_that_would_have_to_wait_raises():  # I7
    rig, a, b = Rig(3), Source("a", 2), Source("b", 2)
    with rig.pool.lease(a, device=GPU):
        with pytest.raises(LeaseNestedError, match="lease of b inside another") as caught:
            rig.touch(b)
        assert "a 2.0 KiB leased by MainThread" in caught.value.hint
        assert audit(rig.pool) == []
    rig.touch(b)
    assert b.loads == 1


def test_lowering_the_budget_makes_room_now_and_as_leases_end():
    rig, a, b = Rig(4), Source("a", 2), Source("b", 2)
    with rig.pool.lease(a, device=GPU) as lease:
        rig.touch(b)
        rig.pool.set_budget(GPU, UNIT)
        assert rig.states() == {"a": "hot", "b": "warm"}
        assert lease.module.weight.sum() > 0
    assert rig.states() == {"a": "warm", "b": "warm"}
    rig.pool.set_budget(GPU, 4 * UNIT)
    rig.touch(a, b)
    assert audit(rig.pool) == []
    rig.pool.set_budget(GPU, None)
    assert rig.pool.available_bytes(GPU) == 1000 * UNIT, "the device's own"


def test_a_budget_may_be_set_before_the_device_is_used():
    rig = Rig(4)
    rig.pool.set_budget(GPU, 2 * UNIT)
    assert rig.pool.available_bytes(GPU) == 2 * UNIT


def test_available_bytes_counts_what_is_idle_and_not_what_is_pinned():
    rig, a, b = Rig(4), Source("a"), Source("b")
    rig.touch(b)
    with rig.pool.lease(a, device=GPU, working_bytes=UNIT):
        assert rig.pool.available_bytes(GPU) == 2 * UNIT
    assert rig.pool.available_bytes(GPU) == 4 * UNIT


def test_trimming_one_device_leaves_the_others_alone():
    rig, a, b = Rig(4), Source("a"), Source("b")
    rig.touch(a)
    rig.touch(b, device=OTHER)
    assert rig.pool.trim("vram", 100 * UNIT, OTHER) == UNIT
    assert rig.states() == {"a": "hot", "b": "warm"}
    assert rig.pool.trim("vram", 100 * UNIT) == UNIT
    assert rig.pool.trim("vram", 100 * UNIT) == 0


def test_a_policy_decides_who_leaves():
    class MostRecent:
        def choose(self, candidates, need_bytes, outlook):
            seen.extend(candidates)
            return sorted(candidates, key=lambda each: -each.last_used)[:1]

    seen: list[vram_manager.Candidate] = []
    rig = Rig(2, policy=MostRecent())
    for source in (Source("a"), Source("b"), Source("c")):
        rig.touch(source)
    assert rig.states() == {"a": "hot", "b": "warm", "c": "hot"}
    assert {(each.key, each.n_bytes, each.warm) for each in seen} == {("a", UNIT, True), ("b", UNIT, True)}


# -- the warm tier ----------------------------------------------------------------------------------------------------


def test_evicting_moves_no_bytes_and_brings_the_weights_back():  # I5, I9
    rig, a, b = Rig(2), Source("a", 2), Source("b", 2)
    with rig.pool.lease(a, device=GPU) as lease:
        module, before = lease.module, weights_of(lease.module)
        hot = module.weight.data_ptr()
        spoilt = module.weight.data
        spoilt.fill_(float("nan"))  # had eviction copied anything back, this would be found in RAM
        del spoilt
    copied = rig.gpu.bytes_copied
    rig.touch(b)
    assert rig.gpu.bytes_copied - copied == 2 * UNIT, "b's weights, one way"
    assert module.weight.data_ptr() != hot
    assert torch.equal(module.weight, before["weight"])
    assert rig.gpu.live_bytes == 2 * UNIT


def test_weights_stay_bitwise_the_same_over_a_hundred_swaps():  # I9
    rig, a, b = Rig(3), Source("a", 2), Source("b", 2)
    expected = {source.key: weights_of(source.load()) for source in (a, b)}
    a.loads = b.loads = 0
    for source in (a, b) * 100:
        with rig.pool.lease(source, device=GPU) as lease:
            assert torch.equal(lease.module.weight, expected[source.key]["weight"])
    assert (a.loads, b.loads, rig.evictions, rig.promotions) == (1, 1, 199, 200)
    assert rig.gpu.emptied == 0, "no empty_cache per swap"
    assert audit(rig.pool) == []


def test_ram_forgets_the_least_recently_used():
    rig, a, b, c = Rig(1, ram=2), Source("a"), Source("b"), Source("c")
    for source in (a, b, c):
        rig.touch(source)
    assert rig.states() == {"b": "warm", "c": "hot"}
    assert (rig.used("cpu"), rig.ram_evictions) == (2, 1)
    assert a.built() is None, "the module itself is gone"
    rig.touch(a)
    assert a.loads == 2
    assert audit(rig.pool) == []


def test_a_hot_model_does_without_its_master_where_ram_is_short():
    rig, a, b = Rig(4, ram=2, policy=LruPolicy()), Source("a", 2), Source("b", 2)
    with rig.pool.lease(a, device=GPU) as lease:
        rig.touch(b)
        assert torch.equal(lease.module.weight, a.load().weight)
        assert rig.used("cpu") == 2
        assert rig.states() == {"a": "hot", "b": "hot"}
    assert audit(rig.pool) == []
    rig.pool.trim("vram", 2 * UNIT)
    assert rig.states() == {"b": "hot"}, "without a master there was no way home"
    assert audit(rig.pool) == []


def test_a_set_may_shed_the_master_of_its_own_hot_model():
    rig, a, b = Rig(4, ram=2), Source("a", 2), Source("b", 2)
    rig.touch(a)
    rig.touch(a, b)
    assert rig.states() == {"a": "hot", "b": "hot"}
    assert audit(rig.pool) == []


def test_trimming_ram_keeps_hot_models_hot():
    rig, a, b = Rig(1), Source("a"), Source("b")
    rig.touch(a)
    rig.touch(b)
    assert rig.pool.trim("ram", 100 * UNIT) == 2 * UNIT
    assert rig.states() == {"b": "hot"}
    assert rig.used("cpu") == 0
    assert audit(rig.pool) == []


def test_on_the_cpu_hot_is_warm():
    rig, a = Rig(4, ram=4), Source("a", 2)
    with rig.pool.lease(a, device=CPU, working_bytes=UNIT) as lease:
        assert lease.device == CPU
        assert lease.module.weight.sum() > 0
        assert rig.used("cpu") == 3, "no second copy, no second charge"
        assert rig.pool.trim("ram", 100 * UNIT) == 0
    rig.touch(a, device=CPU)
    assert (a.loads, rig.hits, rig.used("cpu")) == (1, 1, 2)
    rig.touch(Source("b", 3), device=CPU)
    assert rig.states() == {"b": "warm"}
    assert audit(rig.pool) == []


def test_a_model_serves_two_devices_from_one_master():
    rig, a = Rig(4), Source("a", 2)
    with (
        rig.pool.lease(a, device=GPU) as one,
        rig.pool.lease(a, device=OTHER) as two,
        rig.pool.lease(a, device=CPU) as three,
    ):
        modules = {one.module, two.module, three.module}
        assert len(modules) == 3
        assert len({module.weight.data_ptr() for module in modules}) == 3
        assert all(torch.equal(module.weight, one.module.weight) for module in modules)
        assert (a.loads, rig.used("cpu"), rig.used("cuda:0"), rig.used("cuda:1")) == (1, 2, 2, 2)
    rig.pool.trim("vram", 100 * UNIT)
    assert rig.states() == {"a": "warm"}
    assert audit(rig.pool) == []
    rig.pool.trim("ram", 100 * UNIT)
    assert not any(module.weight.numel() for module in modules), "surplus modules hold nothing either"


def test_a_module_kept_beyond_its_model_holds_no_memory():
    rig, a = Rig(4), Source("a", 2)
    with rig.pool.lease(a, device=GPU) as lease:
        module = lease.module
    rig.pool.drop("a")
    assert rig.gpu.live_bytes == 0
    assert module.weight.numel() == 0


# -- loading ----------------------------------------------------------------------------------------------------------


class Odd(Exception):
    def __init__(self, one: str, two: str) -> None:
        super().__init__(one)
        self.two = two


class Interrupt(BaseException):
    """Like the host's InterruptProcessingException."""


@pytest.mark.parametrize("error", [OSError("no such file"), Odd("one", "two"), Interrupt(), KeyboardInterrupt()])
def test_a_failed_load_leaves_no_trace(error):  # I6
    rig, a, b = Rig(4), Source("a", 2), Source("b")
    rig.touch(b)
    before = rig.pool.stats()
    a.error = error
    with pytest.raises(type(error)) as caught:
        rig.touch(b, a, working_bytes=UNIT)
    assert caught.value is error
    after = rig.pool.stats()
    assert after["tiers"]["cuda:0"] == before["tiers"]["cuda:0"] | {"peak_bytes": 4 * UNIT}
    assert [model["key"] for model in after["models"]] == ["b"]
    assert audit(rig.pool) == []
    a.error = None
    rig.touch(a)
    assert a.loads == 2


def test_a_set_whose_second_load_fails_keeps_nothing_pinned():
    rig, a, b = Rig(4), Source("a"), Source("b")
    b.error = OSError("broken")
    with pytest.raises(OSError, match="broken"):
        rig.touch(a, b)
    assert rig.states() == {"a": "hot"}
    assert audit(rig.pool) == []
    assert rig.pool.close()


def test_an_interrupt_in_the_body_gives_everything_back():
    rig, a = Rig(4), Source("a")
    with pytest.raises(Interrupt), rig.pool.lease(a, device=GPU, working_bytes=UNIT):
        raise Interrupt
    assert rig.used() == 1
    assert audit(rig.pool) == []


@pytest.mark.parametrize(("estimate", "units"), [(1, 3), (3, 1), (0, 2)])
def test_a_wrong_estimate_is_corrected(estimate, units):  # I1, I4
    rig, a, b = Rig(4, ram=4), Source("a", units, estimate), Source("b", 2)
    rig.touch(b)
    rig.touch(a)
    assert rig.states()["a"] == "hot"
    assert ("b" in rig.states()) == (max(estimate, units) <= 2)
    assert audit(rig.pool) == []
    tiers = rig.pool.stats()["tiers"].values()
    assert all(tier["peak_bytes"] <= tier["budget_bytes"] for tier in tiers)


def test_a_model_that_turns_out_too_large_for_the_device_fails_cleanly():
    rig, a = Rig(4), Source("a", 5, estimate=1)
    with pytest.raises(VramExhaustedError, match=r"needs 5\.0 KiB on cuda:0"):
        rig.touch(a)
    assert rig.states() == {"a": "warm"}
    assert audit(rig.pool) == []
    with pytest.raises(VramExhaustedError):
        rig.touch(a)
    assert a.loads == 1, "its size is known now"


def test_a_model_that_turns_out_too_large_for_ram_fails_cleanly():
    rig, a = Rig(10, ram=4), Source("a", 5, estimate=1)
    with pytest.raises(VramExhaustedError, match=r"needs 5\.0 KiB on cpu"):
        rig.touch(a)
    assert rig.states() == {}
    assert audit(rig.pool) == []
    assert rig.pool.available_bytes(CPU) == 4 * UNIT


def test_a_growing_model_next_to_a_pinned_one_asks_again_and_is_refused_as_nested():
    rig, a, b = Rig(4), Source("a", 2, estimate=1), Source("b", 3)
    with rig.pool.lease(b, device=GPU):
        with pytest.raises(LeaseNestedError):
            rig.touch(a)
        assert rig.states() == {"a": "warm", "b": "hot"}
    rig.touch(a)
    assert a.loads == 1
    assert audit(rig.pool) == []


def test_dropping_an_idle_model_frees_it_now():
    rig, a = Rig(4), Source("a", 2)
    rig.touch(a)
    assert rig.pool.drop("a")
    assert not rig.pool.drop("a")
    assert (rig.states(), rig.gpu.live_bytes, rig.used("cpu")) == ({}, 0, 0)
    rig.touch(a)
    assert a.loads == 2


def test_dropping_a_leased_model_waits_for_its_last_release():
    rig, a = Rig(4), Source("a")
    with rig.pool.lease(a, device=GPU) as old:
        rig.pool.drop("a")
        assert old.module.weight.numel(), "still usable"
        [model] = rig.pool.stats()["models"]
        assert model["stale"]
        with rig.pool.lease(a, device=GPU) as new:
            assert new.module is not old.module
            assert rig.used() == 2, "both are charged"
    assert a.loads == 2
    assert rig.used() == 1
    assert audit(rig.pool) == []


# -- faults of the device ---------------------------------------------------------------------------------------------


def test_out_of_memory_evicts_what_is_idle_and_tries_once_more():
    rig = Rig(4)
    a, b = Source("a", 2), Source("b", 2)
    rig.touch(a)
    rig.gpu.failing_allocations = 1
    rig.touch(b)
    assert rig.states() == {"a": "warm", "b": "hot"}
    assert rig.gpu.emptied == 1
    assert audit(rig.pool) == []


def test_a_device_without_memory_ends_in_a_typed_error():
    rig, a = Rig(4), Source("a", 2)
    rig.gpu.failing_allocations = 2
    with pytest.raises(VramExhaustedError, match="cuda:0 ran out of memory while a moved there"):
        rig.touch(a)
    assert rig.states() == {"a": "warm"}
    assert audit(rig.pool) == []
    rig.touch(a)
    assert a.loads == 1


def test_a_failed_copy_frees_what_was_allocated():
    rig, a = Rig(4), Source("a", 2)
    rig.gpu.failing_copies = 1
    with pytest.raises(VramError, match="weights of a could not be copied") as caught:
        rig.touch(a)
    assert rig.gpu.live_bytes == 0, "although the traceback is still referenced"
    del caught
    assert rig.states() == {"a": "warm"}
    assert audit(rig.pool) == []


def test_a_device_that_cannot_be_opened_is_named():
    def refuse(device):
        raise AssertionError("Torch not compiled with CUDA enabled")

    pool = VramPool(open_device=refuse, ram_budget_bytes=UNIT)
    with (
        pytest.raises(VramError, match="cuda:0 cannot be used: Torch not compiled"),
        pool.lease(Source("a"), device=GPU),
    ):
        pass


def test_a_lost_device_does_not_keep_its_models():
    rig, a, b = Rig(2), Source("a", 2), Source("b", 2)
    rig.touch(a)
    rig.gpu.lost = True
    for _ in range(2):
        with pytest.raises(DeviceLostError, match="cuda:0 failed and is no longer used: simulated: the device was"):
            rig.touch(b)
    with pytest.raises(DeviceLostError):
        rig.touch(a)
    assert rig.devices_lost == 1
    assert rig.pool.available_bytes(GPU) == 0
    assert rig.states() == {"a": "warm", "b": "warm"}
    assert audit(rig.pool) == []
    rig.touch(a, device=OTHER)
    assert (a.loads, rig.states()["a"]) == (1, "hot")


@pytest.mark.parametrize(("written", "expected"), [("max\n", 5), (str(6 * UNIT), 3), (str(2**60), 5), (None, 5)])
def test_half_of_the_machines_memory_is_the_default_or_of_its_containers(monkeypatch, tmp_path, written, expected):
    class Memory:
        total = 10 * UNIT

    limit = tmp_path / "memory.max"
    if written is not None:
        limit.write_text(written)
    monkeypatch.setattr(vram_device, "_CGROUP_LIMIT", limit)
    monkeypatch.setattr(vram_device.psutil, "virtual_memory", Memory)
    pool = VramPool()
    assert pool.available_bytes(CPU) == expected * UNIT
    pool.set_budget(CPU, UNIT)
    assert pool.available_bytes(torch.device("cpu", 0)) == UNIT
    pool.set_budget(CPU, None)
    assert pool.available_bytes(CPU) == expected * UNIT


def test_a_device_without_an_index_is_the_current_one():
    rig, a = Rig(4), Source("a")
    if torch.accelerator.is_available():
        pytest.skip("the current device is a real one here")
    rig.touch(a, device=torch.device("cuda"))
    rig.touch(a, device=GPU)
    assert (a.loads, rig.hits) == (1, 1)


# -- closing ----------------------------------------------------------------------------------------------------------


def test_a_closed_pool_holds_nothing_and_lends_nothing():  # I11
    rig, a, b = Rig(1), Source("a"), Source("b")
    rig.touch(a)
    rig.touch(b)
    assert rig.pool.close()
    assert rig.pool.closed
    assert (rig.gpu.live_bytes, rig.used("cpu"), rig.states()) == (0, 0, {})
    assert (a.built(), b.built()) == (None, None)
    with pytest.raises(PoolClosedError):
        rig.touch(a)


def test_a_lease_that_outlives_the_deadline_is_freed_at_its_end():  # I11
    rig, a = Rig(4), Source("a")
    with rig.pool.lease(a, device=GPU) as lease:
        assert not rig.pool.close(deadline_s=0)
        assert lease.module.weight.numel()
    assert (rig.gpu.live_bytes, rig.states()) == (0, {})


def test_a_forgotten_pool_is_collected():
    rig = Rig(4)
    rig.touch(Source("a"))
    gone = weakref.ref(rig.pool)
    device = rig.gpu
    del rig
    gc.collect()
    assert gone() is None
    assert device.live_bytes == 0


# -- one pool for the process -----------------------------------------------------------------------------------------


@pytest.fixture
def no_shared_pool(monkeypatch):
    monkeypatch.delitem(sys.modules, "_photokeep_vram_pool", raising=False)
    yield
    space = sys.modules.pop("_photokeep_vram_pool", None)
    if space is not None and hasattr(space.pool, "close"):
        space.pool.close()


@pytest.fixture
def second_copy(monkeypatch):
    """The package once more, under another name, as a clone beside a pip install would be."""
    folder = Path(vram_manager.__file__).parent
    name = "photokeep_second_copy"
    spec = importlib.util.spec_from_file_location(
        name, folder / "__init__.py", submodule_search_locations=[str(folder)]
    )
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, name, module)  # not executed: only its submodule is wanted
    copy = importlib.import_module(f"{name}.vram_manager")
    yield copy
    for each in [each for each in sys.modules if each.startswith(f"{name}.")]:
        del sys.modules[each]


def test_the_pool_is_one_per_process(no_shared_pool):
    pool = vram_manager.shared_pool()
    first, second = object(), object()
    assert vram_manager.shared_pool(host_memory=first) is pool
    assert pool.host_memory is first
    assert vram_manager.shared_pool(host_memory=second).host_memory is first, "what one host was told stays with it"
    assert pool.close()
    assert vram_manager.shared_pool() is not pool, "a closed one is replaced"


def test_a_second_copy_of_the_pack_shares_the_pool(no_shared_pool, second_copy):
    assert second_copy.VramPool is not VramPool
    pool = vram_manager.shared_pool()
    assert second_copy.shared_pool() is pool
    loads = []

    def load():
        loads.append(1)
        return nn.Linear(2, 2).eval()

    with pool.lease(ModelSource("shared", load, 24), device=CPU) as first:
        theirs = second_copy.ModelSource("shared", load, 24)
        with second_copy.shared_pool().lease(theirs, device=CPU) as second:
            assert first.module is second.module
    assert len(loads) == 1


@pytest.mark.parametrize("version", [(2, 0), (1, 0), (0, 9)])
def test_a_copy_that_speaks_another_version_is_refused(no_shared_pool, monkeypatch, version):
    pool = vram_manager.shared_pool()
    monkeypatch.setattr(VramPool, "api_version", version)
    with pytest.raises(VramError, match=rf"version {version[0]}\.{version[1]}.*needs 1\.1") as caught:
        vram_manager.shared_pool()
    assert "Keep one copy" in caught.value.hint
    assert pool.close()


def test_every_error_of_the_pool_is_a_photokeep_error():
    assert issubclass(VramError, PhotokeepError)
    for name in vram_manager.__all__:
        assert hasattr(vram_manager, name)
