"""What is tried when a model call does not fit, rung by rung, and what is left behind."""

from __future__ import annotations

import gc
import pickle
import weakref

import pytest
import torch
from vram_rig import CPU, GPU, OTHER, UNIT, Rig, Source

from photokeep_nodes._vram import failures
from photokeep_nodes._vram.simulated import audit
from photokeep_nodes.errors import DeviceLostError, LeaseTimeoutError, VramExhaustedError

OOM = torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB\nmore words")


class Work:
    """A model call that needs ``bytes_of(tile)`` on a device that has ``room`` beside the weights."""

    def __init__(self, rig: Rig, room: dict[torch.device, int], error: Exception = OOM) -> None:
        self.rig = rig
        self.room = room
        self.error = error
        self.tried: list[tuple[str, int]] = []
        self.alive: list[int] = []
        self.made: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, lease, tile: int) -> tuple[str, int, float]:
        self.alive.append(sum(ref() is not None for ref in self.made))
        activations = torch.zeros(8)
        self.made.append(weakref.ref(activations))
        self.tried.append((str(lease.place), tile))
        if tile > self.room.get(lease.place, -1):
            raise self.error
        return str(lease.place), tile, float(lease.module.weight.detach().sum())


def run(rig: Rig, work, source: Source, tiles=(8, 4, 2), **options):
    return rig.pool.run(lambda _device: source, work, tiles=tiles, **options)


def test_what_fits_is_called_once():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")
    work = Work(rig, {GPU: 8})
    assert run(rig, work, a) == ("cuda:0", 8, float(a.load().weight.detach().sum()))
    assert work.tried == [("cuda:0", 8)]
    assert (rig.memory_retries, rig.smaller_tiles, rig.moved_elsewhere) == (0, 0, 0)


def test_first_what_is_idle_goes_and_the_call_is_repeated():
    rig, a, idle = Rig(4, accelerators=[GPU]), Source("a"), Source("idle", 2)
    rig.touch(idle)
    work = Work(rig, {})

    def call(lease, tile):
        if rig.states()["idle"] == "hot":
            raise OOM
        return tile

    assert run(rig, call, a) == 8
    assert rig.states() == {"idle": "warm", "a": "hot"}, "the model itself stays"
    assert rig.gpu.emptied == 1
    assert (a.loads, rig.memory_retries, rig.smaller_tiles) == (1, 1, 0)
    assert work.tried == []
    assert audit(rig.pool) == []


def test_then_tiles_shrink_then_another_device_then_the_cpu():
    rig, a = Rig(4, accelerators=[GPU, OTHER]), Source("a")
    work = Work(rig, {CPU: 4})
    assert run(rig, work, a)[:2] == ("cpu", 4)
    on = [[tile for place, tile in work.tried if place == where] for where in ("cuda:0", "cuda:1", "cpu")]
    assert on == [[8, 8, 4, 2], [8, 8, 4, 2], [8, 8, 4]]
    assert (rig.memory_retries, rig.smaller_tiles, rig.moved_elsewhere) == (3, 5, 2)
    assert audit(rig.pool) == []


def test_a_failed_attempt_is_let_go_before_the_next():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")
    work = Work(rig, {CPU: 2})
    run(rig, work, a)
    assert len(work.alive) == 8
    assert set(work.alive) == {0}, "its tensors would be in the way of the next"


def test_the_budget_is_answered_with_smaller_tiles_at_once():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")
    work = Work(rig, {GPU: 99})
    assert run(rig, work, a, working_bytes=lambda _device, tile: tile * UNIT)[1] == 2
    assert work.tried == [("cuda:0", 2)], "nothing was called that could not be lent for"
    assert (rig.memory_retries, rig.smaller_tiles) == (0, 2)


def test_at_the_foot_is_a_typed_error_that_says_what_was_tried_and_who_holds_what():
    rig, a, held = Rig(4, accelerators=[GPU]), Source("a"), Source("held", 2)
    with rig.pool.lease(held, device=GPU, working_bytes=UNIT), pytest.raises(VramExhaustedError) as caught:
        run(rig, Work(rig, {}), a)
    error = caught.value
    assert error.message == "out of memory, even on cpu with tiles of 2 px: CUDA out of memory. Tried to allocate 2 GiB"
    assert [(each["device"], each["tile"]) for each in error.context["tried"]] == [
        *[("cuda:0", tile) for tile in (8, 8, 4, 2)],
        *[("cpu", tile) for tile in (8, 8, 4, 2)],
    ]
    assert "Close other programs" in error.hint
    assert [each["key"] for each in error.context["report"]["models"] if each["leases"]] == ["held"]
    assert str(pickle.loads(pickle.dumps(error))) == str(error)
    assert audit(rig.pool) == []


def test_the_report_of_an_error_names_the_working_memory_of_who_holds_it():
    rig, held = Rig(4, accelerators=[GPU]), Source("held", 2)
    with rig.pool.lease(held, device=GPU, working_bytes=UNIT), pytest.raises(VramExhaustedError) as caught:
        run(rig, Work(rig, {}), Source("a"), devices=[GPU])
    assert "held 2.0 KiB leased by MainThread for" in caught.value.hint
    assert "with 1.0 KiB of working memory" in caught.value.hint


def test_only_the_devices_named_are_tried():
    rig = Rig(4, accelerators=[GPU, OTHER])
    work = Work(rig, {})
    with pytest.raises(VramExhaustedError):
        run(rig, work, Source("a"), tiles=(0,), devices=[OTHER])
    assert work.tried == [("cuda:1", 0)] * 2, "the second after all else was given up"


def test_no_device_at_all_is_said_so():
    rig = Rig(4)
    with pytest.raises(DeviceLostError, match="no device to compute on"):
        run(rig, Work(rig, {}), Source("a"), devices=[])


def test_other_errors_pass_at_once():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")
    for error in (RuntimeError("mat1 and mat2"), ValueError("CUDA error is only in the words"), LeaseTimeoutError("t")):
        work = Work(rig, {}, error)
        with pytest.raises(type(error)) as caught:
            run(rig, work, a)
        assert caught.value is error
        assert len(work.tried) == 1
    assert audit(rig.pool) == []


def test_an_interrupt_passes_and_leaves_nothing():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")

    def call(_lease, _tile):
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(rig, call, a)
    assert audit(rig.pool) == []
    assert rig.pool._prefetcher._holds == 0


def test_nothing_is_brought_ahead_while_memory_is_short():
    rig, a = Rig(4, accelerators=[GPU]), Source("a")
    held: list[int] = []

    def call(_lease, tile):
        held.append(rig.pool._prefetcher._holds)
        if tile > 4:
            raise OOM
        return tile

    assert run(rig, call, a) == 4
    assert held == [0, 1, 1]
    assert rig.pool._prefetcher._holds == 0


# -- devices that fail ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        torch.AcceleratorError("CUDA error: an illegal memory access was encountered"),
        RuntimeError("CUDA error: unspecified launch failure"),
        RuntimeError("HIP error: the operation cannot be performed"),
    ],
)
def test_a_device_that_fails_in_a_call_is_fenced_and_the_work_goes_on_elsewhere(error):
    rig, a = Rig(4, accelerators=[GPU, OTHER]), Source("a")
    rig.touch(a)

    def call(lease, _tile):
        if lease.place == GPU:
            raise error
        return str(lease.place)

    assert run(rig, call, a) == "cuda:1"
    assert rig.states() == {"a": "hot"}
    assert rig.pool.stats()["tiers"]["cuda:0"]["fenced"] == str(error)
    assert (a.loads, rig.devices_lost, rig.moved_elsewhere) == (1, 1, 1)
    assert run(rig, call, a) == "cuda:1", "it is not asked again"
    with pytest.raises(DeviceLostError, match="cuda:0 failed and is no longer used"):
        rig.touch(a)
    assert audit(rig.pool) == []


def test_if_every_device_fails_that_is_the_error():
    rig, a = Rig(4, accelerators=[GPU, OTHER]), Source("a")
    work = Work(rig, {}, RuntimeError("CUDA error: gone"))
    with pytest.raises(DeviceLostError, match="every device failed; the last was cuda:1") as caught:
        run(rig, work, a, devices=[GPU, OTHER])
    assert [each["device"] for each in caught.value.context["tried"]] == ["cuda:0", "cuda:1"]


def test_on_the_cpu_such_words_are_a_fault_like_any_other():
    rig = Rig(4, accelerators=[])
    with pytest.raises(RuntimeError, match="HIP error"):
        run(rig, Work(rig, {}, RuntimeError("HIP error")), Source("a"))


# -- telling errors apart ---------------------------------------------------------------------------------------------


def test_what_an_error_means():
    for error in (
        OOM,
        MemoryError(),
        RuntimeError("CUDA error: out of memory"),
        RuntimeError("CUDNN_STATUS_ALLOC_FAILED"),
    ):
        assert failures.is_out_of_memory(error)
        assert not failures.is_device_lost(error)
    for error in (torch.AcceleratorError("odd"), RuntimeError("device-side assert triggered")):
        assert failures.is_device_lost(error)
        assert not failures.is_out_of_memory(error)
    for error in (ValueError("out of memory"), RuntimeError("shape"), KeyError("CUDA error")):
        assert not failures.is_device_lost(error)
        assert not failures.is_out_of_memory(error)


def test_letting_go_of_an_error_empties_every_frame_of_its_chain():
    alive: list[weakref.ref[torch.Tensor]] = []

    def deep() -> None:
        tensor = torch.zeros(4)
        alive.append(weakref.ref(tensor))
        raise ValueError("first")

    def shallow() -> None:
        tensor = torch.zeros(4)
        alive.append(weakref.ref(tensor))
        try:
            deep()
        except ValueError as error:
            raise RuntimeError("second") from error

    try:
        shallow()
    except RuntimeError as error:
        error.__context__.__context__ = error  # a circle, as frameworks make them
        failures.let_go(error)
        gc.collect()
        assert [ref() for ref in alive] == [None, None]
