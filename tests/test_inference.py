"""Running a model: device, dtype, tile size, and what happens when memory or numbers run out."""

from __future__ import annotations

import hashlib
import itertools
import threading
import time
import weakref
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import psutil
import pytest
import safetensors.torch
import torch
from torch import nn

from photokeep_nodes import host, inference, layer_progress, precision, tiled_inference, vram_manager
from photokeep_nodes.errors import NodeInputError, VramExhaustedError, WeightsCorruptError
from photokeep_nodes.model_spec import Download, Licence, ModelHandle, ModelSpec, WeightFile
from photokeep_nodes.models import catalogue

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Mapping
    from pathlib import Path

CPU = torch.device("cpu")
_ids = itertools.count()


pytestmark = pytest.mark.usefixtures("model_folder", "on_the_cpu")


@pytest.fixture(autouse=True)
def _nothing_stays_leased() -> Iterator[None]:
    yield
    assert leases() == []


def leases() -> list[dict[str, Any]]:
    return [lease for model in vram_manager.shared_pool().stats()["models"] for lease in model["leases"]]


@contextmanager
def ram_budget(n_bytes: int) -> Iterator[None]:
    """Let the pool have this much memory and nothing in it."""
    pool = vram_manager.shared_pool()
    pool.trim("ram", 2**62)
    pool.set_budget(CPU, n_bytes)
    try:
        yield
    finally:
        pool.set_budget(CPU, None)


@dataclass
class Behaviour:
    """What the network under test does beside convolving.

    Attributes:
        largest: it runs out of memory on tiles of more pixels.
        error: how it says so.
        shapes: (height, width) it was called with.
        dtypes: what its first layer computed in.
        overflow: types in which it returns NaN.
        attempts: the activations of each call, to see whether they were let go.
    """

    largest: int = 10**9
    error: Callable[[], BaseException] = lambda: torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB")
    shapes: list[tuple[int, int]] = field(default_factory=list)
    dtypes: list[torch.dtype] = field(default_factory=list)
    overflow: tuple[torch.dtype, ...] = ()
    attempts: list[weakref.ref[torch.Tensor]] = field(default_factory=list)
    alive_before: list[int] = field(default_factory=list)


class Net(nn.Module):
    """Two convolutions that leave the image as it is, with the behaviour asked for."""

    def __init__(self, behaviour: Behaviour) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.second = nn.Conv2d(3, 3, 3, padding=1, bias=False)
        self.behaviour = behaviour

    def forward(self, image: torch.Tensor, *extra: torch.Tensor) -> torch.Tensor:
        seen = self.behaviour
        seen.alive_before.append(sum(ref() is not None for ref in seen.attempts))
        seen.shapes.append((image.shape[2], image.shape[3]))
        activation = self.first(image)
        seen.dtypes.append(activation.dtype)
        seen.attempts.append(weakref.ref(activation))  # freed by counting; a cycle would keep it until a collection
        if image.shape[2] * image.shape[3] > seen.largest:
            raise seen.error()
        out: torch.Tensor = self.second(activation)
        if activation.dtype in seen.overflow:
            out = out * float("nan")
        for each in extra:
            out = out * each
        return out


def a_spec(tmp_path: Path, behaviour: Behaviour, **changes: Any) -> ModelSpec:
    """A model of its own id, with its weight file in the user's folder."""
    name = f"net-{next(_ids)}"
    identity = torch.zeros(3, 3, 3, 3)
    identity[range(3), range(3), 1, 1] = 1.0
    data = safetensors.torch.save({"first.weight": identity, "second.weight": identity.clone()})
    (tmp_path / "models" / f"{name}.safetensors").write_bytes(data)

    def build(state: Mapping[str, torch.Tensor]) -> nn.Module:
        net = Net(behaviour)
        net.load_state_dict(dict(state))
        return net

    spec = ModelSpec(
        id=name,
        title="Net",
        node_name="Net",
        role="denoise",
        architecture="Net",
        weights=(
            WeightFile(
                Download(f"{name}.safetensors", f"https://example.org/{name}"),
                len(data),
                hashlib.sha256(data).hexdigest(),
                Licence("MIT", commercial=True, url=""),
            ),
        ),
        build=build,
        weight_bytes=648,
        bytes_per_pixel=100,
        receptive_field=2,
        dtypes=("bfloat16", "float32"),
    )
    return replace(spec, **changes)


@pytest.fixture
def image() -> torch.Tensor:
    return torch.rand(1, 3, 150, 300, generator=torch.Generator().manual_seed(0))


# -- which model, which type -------------------------------------------------------------------------------------------


def test_the_role_has_to_fit() -> None:
    assert inference.spec_for(ModelHandle("ffdnet-color"), "denoise") is catalogue()["ffdnet-color"]
    with pytest.raises(NodeInputError, match="FFDNet colour is made for denoise, not for face restore") as caught:
        inference.spec_for(ModelHandle("ffdnet-color"), "face_restore")
    assert "face restore" in caught.value.hint
    with pytest.raises(NodeInputError, match="no model 'banana'"):
        inference.spec_for(ModelHandle("banana"), "denoise")
    with pytest.raises(NodeInputError, match="not str"):
        inference.spec_for("ffdnet-color", "denoise")  # type: ignore[arg-type]


@pytest.mark.parametrize("dtype", [None, torch.float32, torch.bfloat16])
def test_a_leased_network_takes_and_returns_float32(tmp_path: Path, dtype: torch.dtype | None) -> None:
    behaviour = Behaviour()
    image = torch.rand(1, 3, 8, 8)

    def call(network: inference.Network) -> torch.Tensor:
        assert network.dtype == (dtype or torch.float32)
        assert next(network.module.parameters()).dtype == precision.stored(network.dtype)
        assert len(leases()) == 1
        return network(image, torch.tensor(0.5))

    out = inference.run(a_spec(tmp_path, behaviour), call, height=8, width=8, dtype=dtype)
    tried = [torch.float32] if dtype == torch.bfloat16 else []  # to see which layer runs last
    assert behaviour.dtypes == [*tried, dtype or torch.float32]
    assert out.dtype == torch.float32
    assert not out.requires_grad
    out.mul_(2.0)  # not an inference tensor: other nodes may change it in place
    torch.testing.assert_close(out, image, rtol=0, atol=2**-8)


def test_types_do_not_share_a_resident(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour())

    def module(dtype: torch.dtype | None = None) -> nn.Module:
        return inference.run(spec, lambda network: network.module, height=8, width=8, dtype=dtype)

    assert module() is not module(torch.bfloat16)
    assert module() is module(), "loaded once"


def test_spoilt_weights_are_refused_at_the_lease(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour())
    path = tmp_path / "models" / spec.weights[0].filename
    data = bytearray(path.read_bytes())
    data[-1] ^= 1
    path.write_bytes(data)
    with pytest.raises(WeightsCorruptError):
        inference.run(spec, lambda network: network, height=8, width=8)


def test_moving_a_slider_does_not_fill_the_memory_with_mixtures(tmp_path: Path) -> None:
    """Each value is a model of its own to the pool; the last two stay warm, to compare."""
    one, other = a_spec(tmp_path, Behaviour()), a_spec(tmp_path, Behaviour())
    shares = (0.2, 0.4, 0.6, 0.2)
    for share in shares:
        mixture = replace(one, id=f"{one.id}+{share}*{other.id}", mixed_with=(other, share))
        inference.run(mixture, lambda network: network(torch.rand(1, 3, 8, 8)), height=8, width=8)
    held = [m["key"] for m in vram_manager.shared_pool().stats()["models"] if m["key"].startswith(one.id)]
    assert [key.partition(":")[0].partition("+")[2].partition("*")[0] for key in held] == ["0.6", "0.2"]


# -- tile sizes --------------------------------------------------------------------------------------------------------


def test_a_tile_is_no_larger_than_the_photo_the_memory_and_the_limit(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour(), bytes_per_pixel=1)
    assert tiled_inference.auto_tile(spec, 200, 300) == 300
    assert tiled_inference.auto_tile(spec, 20_000, 30_000) == 1024
    assert tiled_inference.auto_tile(spec, 10, 10) == 64
    hungry = replace(spec, bytes_per_pixel=2**40)
    assert tiled_inference.auto_tile(hungry, 200, 300) == 64


def test_a_tile_takes_a_share_of_the_free_memory(tmp_path: Path) -> None:
    free = psutil.virtual_memory().available
    spec = a_spec(tmp_path, Behaviour(), bytes_per_pixel=free // 200**2)
    assert 64 < tiled_inference.auto_tile(spec, 1000, 1000) < 150  # a quarter of what 200 x 200 px take


def test_a_tile_stays_within_what_the_pool_may_use(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour(), bytes_per_pixel=10_000)
    with ram_budget(100 * 100 * 10_000):
        tile = tiled_inference.auto_tile(spec, 1000, 1000)
        assert 64 < tile <= 100
        out = tiled_inference.apply_tiled(spec, torch.rand(1, 3, 120, 40))
        assert out.shape == (1, 3, 120, 40)


def test_the_smallest_tile_is_not_all_margin(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour(), receptive_field=32, multiple_of=1)
    assert tiled_inference.smallest_tile(spec) == 128
    assert tiled_inference.smallest_tile(replace(spec, receptive_field=2)) == 64
    assert tiled_inference.smallest_tile(replace(spec, receptive_field=17, multiple_of=16)) == 80
    assert tiled_inference.auto_tile(replace(spec, bytes_per_pixel=2**40), 500, 500) == 128


def test_every_model_can_run_in_its_smallest_tile() -> None:
    from photokeep_nodes.ops import tiling

    for spec in catalogue().values():
        side = tiled_inference.smallest_tile(spec)
        tiling.spans(4 * side, side, spec.receptive_field, spec.multiple_of)


def test_a_tile_that_is_too_small_is_enlarged(tmp_path: Path, image: torch.Tensor) -> None:
    behaviour = Behaviour()
    spec = a_spec(tmp_path, behaviour, receptive_field=20)
    torch.testing.assert_close(tiled_inference.apply_tiled(spec, image, tile=8), image, rtol=0, atol=1e-6)
    assert 64 < max(max(shape) for shape in behaviour.shapes) <= 80


# -- out of memory -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "error",
    [
        lambda: torch.OutOfMemoryError("CUDA out of memory"),
        lambda: RuntimeError(
            "[enforce fail] DefaultCPUAllocator: can't allocate memory: you tried to allocate 9 bytes"
        ),
        lambda: RuntimeError("DefaultCPUAllocator: not enough memory: you tried to allocate 9 bytes."),
        lambda: RuntimeError("MPS backend out of memory (MPS allocated: 9 GB)"),
        lambda: RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"),
        MemoryError,
    ],
)
def test_out_of_memory_is_answered_with_smaller_tiles(
    tmp_path: Path, image: torch.Tensor, error: Callable[[], BaseException]
) -> None:
    behaviour = Behaviour(largest=100 * 100, error=error)
    steps: list[tuple[float, int]] = []
    with host.standalone(
        host.Standalone(device="cpu", progress=lambda done, total, _unit: steps.append((done, total)))
    ):
        out = tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image, tile=300)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-6)
    tried = [shape for i, shape in enumerate(behaviour.shapes) if i == 0 or shape != behaviour.shapes[i - 1]]
    assert tried[0] == (150, 300)
    assert tried[1][0] * tried[1][1] > 100 * 100
    assert max(tried[-1]) <= 75
    assert steps[-1][0] == steps[-1][1], "the bar ends full"


def test_the_failed_attempt_is_let_go_before_the_next(tmp_path: Path, image: torch.Tensor) -> None:
    """Its activations would be in the way of the smaller tile's."""
    behaviour = Behaviour(largest=100 * 100)
    tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image, tile=300)
    assert len(behaviour.alive_before) > 3
    assert set(behaviour.alive_before) == {0}


def test_the_smallest_tile_that_does_not_fit_is_a_typed_error(tmp_path: Path, image: torch.Tensor) -> None:
    behaviour = Behaviour(largest=10)
    spec = a_spec(tmp_path, behaviour)
    with pytest.raises(
        VramExhaustedError, match="Net does not fit in memory even with tiles of 64 px: CUDA out"
    ) as caught:
        tiled_inference.apply_tiled(spec, image)
    assert (caught.value.context["model"], caught.value.context["tile"]) == (spec.id, 64)
    assert [rung["tile"] for rung in caught.value.context["tried"]] == [300, 300, 150, 75, 64]
    assert "in use" in caught.value.hint, "who holds what"
    assert [max(shape) for shape in behaviour.shapes] == [300, 300, 150, 65, 55], "300 twice, then evened out"


def test_a_photo_smaller_than_a_tile_is_not_cut(tmp_path: Path) -> None:
    behaviour = Behaviour(largest=10)
    with pytest.raises(VramExhaustedError, match="tiles of 40 px"):
        tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), torch.rand(1, 3, 30, 40), tile=1024)
    assert behaviour.shapes == [(30, 40)] * 2, "the second after all else was given up"


def test_what_the_pool_cannot_lend_is_answered_with_smaller_tiles(tmp_path: Path, image: torch.Tensor) -> None:
    behaviour = Behaviour()
    spec = a_spec(tmp_path, behaviour, bytes_per_pixel=10_000)
    with ram_budget(80 * 80 * 10_000):
        out = tiled_inference.apply_tiled(spec, image, tile=300)
        with pytest.raises(VramExhaustedError, match=r"even with tiles of 64 px.*budget"):
            tiled_inference.apply_tiled(replace(spec, bytes_per_pixel=10**6), image, tile=300)
    torch.testing.assert_close(out, image, rtol=0, atol=1e-6)
    assert max(max(shape) for shape in behaviour.shapes) <= 75


def test_other_errors_are_not_swallowed(tmp_path: Path, image: torch.Tensor) -> None:
    behaviour = Behaviour(largest=0, error=lambda: RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1 and mat2"):
        tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image)
    assert len(behaviour.shapes) == 1


# -- not a number ------------------------------------------------------------------------------------------------------


def test_half_precision_that_overflows_is_run_again_in_float32(
    tmp_path: Path, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "choose", lambda spec, device: torch.bfloat16)
    behaviour = Behaviour(overflow=(torch.bfloat16,))
    out = tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image)
    assert behaviour.dtypes[1:] == [torch.bfloat16, torch.float32]
    torch.testing.assert_close(out, image, rtol=0, atol=1e-6)


def test_half_precision_that_does_not_is_kept(
    tmp_path: Path, image: torch.Tensor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "choose", lambda spec, device: torch.bfloat16)
    behaviour = Behaviour()
    out = tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image)
    assert behaviour.dtypes[1:] == [torch.bfloat16]
    torch.testing.assert_close(out, image, rtol=0, atol=2**-8)


def test_nan_in_float32_is_a_typed_error(tmp_path: Path, image: torch.Tensor) -> None:
    behaviour = Behaviour(overflow=(torch.float32,))
    with pytest.raises(NodeInputError, match="Net returned values that are not numbers"):
        tiled_inference.apply_tiled(a_spec(tmp_path, behaviour), image)
    assert len(behaviour.dtypes) == 1


def test_a_photo_that_holds_nan_is_blamed_itself(tmp_path: Path, image: torch.Tensor) -> None:
    image[0, 0, 5, 5] = float("nan")
    with pytest.raises(NodeInputError, match="the photo holds values that are not numbers"):
        tiled_inference.apply_tiled(a_spec(tmp_path, Behaviour()), image)


# -- batches, arguments, progress, interrupts --------------------------------------------------------------------------


def test_every_image_of_a_batch_and_every_argument_counts(tmp_path: Path) -> None:
    images = torch.rand(3, 3, 70, 40)
    out = tiled_inference.apply_tiled(a_spec(tmp_path, Behaviour()), images, tile=64, arguments=(torch.tensor([0.25]),))
    torch.testing.assert_close(out, images * 0.25, rtol=0, atol=1e-6)


def test_a_photo_without_colour_gets_none(tmp_path: Path) -> None:
    spec = a_spec(tmp_path, Behaviour())
    tint = torch.tensor([1.0, 0.9, 0.5]).view(3, 1, 1)
    gray, coloured = torch.rand(1, 1, 40, 40).expand(1, 3, 40, 40), torch.rand(1, 3, 40, 40)
    out = tiled_inference.apply_tiled(spec, torch.cat([gray, coloured]), arguments=(tint,))
    torch.testing.assert_close(out[1:], coloured * tint, rtol=0, atol=1e-6)
    luma = 0.299 + 0.587 * 0.9 + 0.114 * 0.5
    torch.testing.assert_close(out[:1], gray * luma, rtol=0, atol=1e-6)


def test_progress_moves_inside_a_tile(tmp_path: Path) -> None:
    steps: list[tuple[float, int, str]] = []
    with host.standalone(host.Standalone(device="cpu", progress=lambda *step: steps.append(step))):
        tiled_inference.apply_tiled(a_spec(tmp_path, Behaviour()), torch.rand(1, 3, 100, 64), tile=64)
    done = [step[0] for step in steps if step[1] == 2]
    assert done == sorted(done)
    assert done[0] == 0
    assert done[-1] == 2
    assert 0.5 in done
    assert 1.5 in done
    assert {unit for _, _, unit in steps} == {"tiles"}


class StopError(BaseException):
    """What a host raises to stop; not an Exception, as in ComfyUI."""


@pytest.mark.parametrize("how", ["progress", "check_interrupted"])
@pytest.mark.parametrize("after", [0, 1, 2, 3, 5])
def test_an_interrupt_leaves_no_meter_and_no_lease(tmp_path: Path, how: str, after: int) -> None:
    spec = a_spec(tmp_path, Behaviour())
    image = torch.rand(1, 3, 100, 64)
    calls = 0

    def stop(*_: object) -> None:
        nonlocal calls
        calls += 1
        if calls > after:
            raise StopError

    settings = host.Standalone(device="cpu", **{how: stop})
    with pytest.raises(StopError), host.standalone(settings):
        tiled_inference.apply_tiled(spec, image, tile=64)
    assert leases() == []
    assert layer_progress.running.meter is None
    torch.testing.assert_close(tiled_inference.apply_tiled(spec, image, tile=64), image, rtol=0, atol=1e-6)


def test_two_threads_share_a_module_and_see_their_own_progress(tmp_path: Path) -> None:
    behaviour = Behaviour()
    spec = a_spec(tmp_path, behaviour)
    steps: dict[int, list[float]] = {1: [], 3: []}
    results: dict[int, torch.Tensor] = {}
    photos = {count: torch.rand(1, 3, 64, 60 * count) for count in steps}
    gate = threading.Barrier(2)

    def work(count: int) -> None:
        def note(done: float, total: int, _unit: str) -> None:
            steps[count].append(done)

        with host.standalone(host.Standalone(device="cpu", progress=note)):
            gate.wait()
            for _ in range(5):
                results[count] = tiled_inference.apply_tiled(spec, photos[count], tile=64)

    threads = [threading.Thread(target=work, args=(count,)) for count in steps]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for count, photo in photos.items():
        torch.testing.assert_close(results[count], photo, rtol=0, atol=1e-6)
        # Bar at 0, tiles at 0, then two layers and the end of each tile: the other thread adds nothing.
        tiles = max(steps[count])
        assert len(steps[count]) == 5 * (2 + 3 * tiles)


class Hungry(nn.Module):
    """Holds on to memory while it runs, and leaves the image as it is."""

    def __init__(self, bytes_per_pixel: int) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.ones(1))
        self.bytes_per_pixel = bytes_per_pixel

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        held = torch.ones(image.shape[2] * image.shape[3] * self.bytes_per_pixel // 4)
        time.sleep(0.2)  # long enough to be sampled
        return image * self.scale + 0 * held[0]


def test_a_call_teaches_how_much_memory_it_takes(tmp_path):
    spec = a_spec(tmp_path, Behaviour(), bytes_per_pixel=100, build=lambda _state: Hungry(8000))
    assert inference.working_bytes(spec, 200, 200) == 200 * 200 * 100
    tiled_inference.apply_tiled(spec, torch.rand(1, 3, 200, 200))
    assert 200 * 200 * 7000 < inference.working_bytes(spec, 200, 200) < 200 * 200 * 40_000
    # What is known of one size tells about others, and sizes the tiles.
    assert inference.working_bytes(spec, 400, 400) > 4 * 200 * 200 * 7000
    with ram_budget(400 * 400 * 7000):
        assert tiled_inference.auto_tile(spec, 1000, 1000) < 400
    (row,) = vram_manager.working_memory().listing()
    assert (row["model"], row["height"], row["width"], row["dtype"], row["device"]) == (
        spec.id, 200, 200, "float32", "cpu",
    )  # fmt: skip


def test_the_next_run_begins_with_tiles_that_fit(tmp_path):
    behaviour = Behaviour(largest=100**2)
    spec = a_spec(tmp_path, behaviour, bytes_per_pixel=10_000)
    before = inference.working_bytes(spec, 200, 200)
    tiled_inference.apply_tiled(spec, torch.rand(1, 3, 200, 200), tile=200)
    assert inference.working_bytes(spec, 200, 200) == before * 3 // 2
    with ram_budget(before * 5 // 4):
        assert 64 <= tiled_inference.auto_tile(spec, 200, 200) < 200


def test_a_call_with_several_images_teaches_nothing(tmp_path):
    spec = a_spec(tmp_path, Behaviour())
    inference.run(spec, lambda network: network(torch.rand(2, 3, 64, 64)), height=64, width=64)
    assert vram_manager.working_memory().listing() == []
    inference.run(spec, lambda network: network(torch.rand(1, 3, 64, 64)), height=64, width=64)
    assert len(vram_manager.working_memory().listing()) == 1
