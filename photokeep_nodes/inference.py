"""Run a model of the catalogue: the one place that decides device, dtype, memory layout and tile size.

Weights come through the shared pool as a lease, never earlier than the stage that needs them.
"""

from __future__ import annotations

import itertools
import threading
from contextlib import nullcontext
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

from . import host, layer_progress, vram_manager, weights
from .errors import NodeInputError, VramExhaustedError
from .host_memory import ComfyMemory
from .models import get

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from contextlib import AbstractContextManager

    import torch

    from .model_spec import ModelHandle, ModelSpec, Role

R = TypeVar("R")

_CPU_SHARE = 0.25  # of the free memory, so that the photo and other programs keep theirs
_GPU_SHARE = 0.6

_HOST_MEMORY = ComfyMemory()

_mixtures: dict[str, list[str]] = {}
_mixtures_lock = threading.Lock()


@dataclass(frozen=True)
class Network:
    """A leased model, ready to be called with float32 tensors from anywhere.

    Attributes:
        spec: what it is.
        module: the network on ``device``.
        dtype: what it computes in.
    """

    spec: ModelSpec
    module: torch.nn.Module
    device: torch.device
    dtype: torch.dtype

    def __call__(self, image: torch.Tensor, *arguments: torch.Tensor) -> torch.Tensor:
        """Run the network on (B, C, H, W).

        Returns:
            float32 on ``device``.
        """
        import torch

        from . import precision

        batch, _, height, width = image.shape
        holds = precision.stored(self.dtype)
        # Estimates are for one image; a call with several teaches nothing.
        learning = self.learning(height, width) if batch == 1 else nullcontext()
        # Not inference_mode: its tensors refuse in-place changes for the rest of their lives, in other nodes too.
        with torch.no_grad(), learning, precision.computing(self.device, self.dtype):
            # channels_last: oneDNN's and cuDNN's convolutions run in it without reordering each activation.
            image = image.to(self.device, holds).contiguous(memory_format=torch.channels_last)
            placed = [argument.to(self.device, holds) for argument in arguments]
            result: torch.Tensor = self.module(image, *placed)
            return result.float()

    def learning(self, height: int, width: int) -> AbstractContextManager[None]:
        """Have the body, one use of the network on inputs of this size, teach how much memory it takes."""
        return vram_manager.learning(
            vram_manager.shared_pool(),
            vram_manager.working_memory(),
            self.spec.network_id,
            (height, width),
            self.dtype,
            self.device,
            promised_bytes=working_bytes(self.spec, height, width, device=self.device, dtype=self.dtype),
        )


def spec_for(handle: ModelHandle, role: Role) -> ModelSpec:
    """The model that ``handle`` names, if it serves ``role``.

    Raises:
        NodeInputError: it is none, unknown, or made for another stage.
    """
    spec = get(handle)
    if spec.role != role:
        raise NodeInputError(
            f"{spec.title} is made for {spec.role.replace('_', ' ')}, not for {role.replace('_', ' ')}",
            hint=f"Connect a model whose output is of the type for {role.replace('_', ' ')}.",
        )
    return spec


def source_for(spec: ModelSpec, device: torch.device, dtype: torch.dtype | None = None) -> vram_manager.ModelSource:
    """What the pool has to know of a model.

    Args:
        spec: which model.
        device: where it will run.
        dtype: what it computes in; None lets ``precision`` decide.
    Raises:
        WeightsError: the weights are missing.
    """
    import torch

    from . import precision

    chosen = dtype or precision.choose(spec, device)
    content = f":{weights.digest(spec)[:16]}" if spec.copied is None else ""

    key = f"{spec.id}{content}:{chosen}"

    def load() -> torch.nn.Module:
        if spec.mixed_with is not None:
            _forget_older_mixtures(f"{spec.network_id}:{chosen}", key)
        built = weights.load_module(spec) if spec.copied is None else spec.copied()
        module = precision.prepare(built, chosen, *precision.example_of(spec))
        layer_progress.report_layers(module)
        for tensor in itertools.chain(module.parameters(), module.buffers()):
            if tensor.dim() == 4:  # ``module.to`` would also try, and fail, on those with five dimensions
                tensor.data = tensor.data.contiguous(memory_format=torch.channels_last)
        return module

    return vram_manager.ModelSource(
        key=key,
        load=load,
        weight_bytes=spec.weight_bytes * precision.stored(chosen).itemsize // torch.float32.itemsize,
    )


def _forget_older_mixtures(network: str, key: str) -> None:
    """Keep the mixture that is coming and the one before it: to the pool each step of a slider is another model."""
    with _mixtures_lock:
        kept = [each for each in _mixtures.get(network, ()) if each != key]
        _mixtures[network] = [*kept[-1:], key]
    for old in kept[:-1]:
        _pool().drop(old)


def run(
    spec: ModelSpec,
    call: Callable[[Network], R],
    *,
    height: int,
    width: int,
    dtype: torch.dtype | None = None,
) -> R:
    """Call a model on inputs of one size, wherever they fit: an accelerator, another one, the CPU.

    Args:
        spec: which model.
        call: the work. It may be called again where memory runs out, so it must not build on an earlier call.
        height: of its largest input, in pixels.
        width: of the same.
        dtype: what it computes in; None lets ``precision`` decide.
    Raises:
        WeightsError: the weights are missing, damaged or of another architecture.
        VramError: no device can give the memory, or none works.
    """
    return run_on_ladder(spec, lambda network, _tile: call(network), (0,), lambda _tile: (height, width), dtype)


def run_on_ladder(
    spec: ModelSpec,
    call: Callable[[Network, int], R],
    tiles: Sequence[int],
    size_of: Callable[[int], tuple[int, int]],
    dtype: torch.dtype | None,
) -> R:
    """Call a model with the largest of ``tiles`` that fits, wherever it fits; see ``run``.

    Args:
        spec: which model.
        call: the work, given the network and the tile; it may be called again.
        tiles: sides to try on each device, largest first; a single 0 where the work has no tiles.
        size_of: height and width of the network's input for a tile.
        dtype: what it computes in; None lets ``precision`` decide.
    Raises:
        WeightsError, VramError: see ``run``.
    """
    from . import precision

    def with_network(lease: vram_manager.Lease, tile: int) -> R:
        place = lease.place or lease.device
        return call(Network(spec, lease.module, lease.device, dtype or precision.choose(spec, place)), tile)

    try:
        return _pool().run(
            lambda device: source_for(spec, device, dtype),
            with_network,
            tiles=tiles,
            working_bytes=lambda device, tile: working_bytes(spec, *size_of(tile), device=device, dtype=dtype),
            devices=host.compute_devices(),
            check_interrupted=host.check_interrupted,
        )
    except VramExhaustedError as error:
        tile = error.context.get("tile")
        even = f" even with tiles of {max(size_of(tile))} px" if tile else ""
        raise VramExhaustedError(
            f"{spec.title} does not fit in memory{even}: {error.context.get('why', error.message)}",
            hint=error.hint,
            **{**error.context, "model": spec.id},
        ) from None


def foresee(job_id: str, steps: Sequence[Sequence[ModelSpec]]) -> vram_manager.Plan:
    """Plan which models a job will use, so that the pool brings them ahead and keeps what is needed soonest.

    Args:
        job_id: names the job.
        steps: for each stage the models it may use, in any order.
    Returns:
        A context manager; its ``reach(index)`` says which step begins.
    Raises:
        WeightsError: the weights of one are missing.
    """
    # Whole, before threads that read models ahead need one part of it and a stage another: they would wait for each
    # other's half, which Python ends by handing out half a module.
    import torchvision  # noqa: F401

    devices = host.compute_devices()
    device = _pool().place() if devices is None else devices[0]
    several = devices is None and len(_pool().accelerators) > 1
    return _pool().plan(
        job_id,
        [
            vram_manager.PlanStep(tuple(source_for(spec, device) for spec in specs), device=None if several else device)
            for specs in steps
        ],
    )


def _pool() -> vram_manager.VramPool:
    pool = vram_manager.shared_pool(host_memory=_HOST_MEMORY if host.in_comfyui() else None)
    for device in {*pool.accelerators, *(host.compute_devices() or ())}:
        if device.type != "cpu":
            pool.set_budget(device, host.vram_budget_bytes())
    return pool


def free_bytes(spec: ModelSpec, device: torch.device) -> float:
    """Memory that a call may take on the device: a share of what is free now, within what the pool would lend."""
    import psutil
    import torch

    lendable = _pool().available_bytes(device) - spec.weight_bytes
    if device.type == "cuda":
        # What torch's allocator keeps for reuse is free for us, though not for the driver.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(lendable, (torch.cuda.mem_get_info(device)[0] + kept) * _GPU_SHARE)
    share = _CPU_SHARE if device.type == "cpu" else _GPU_SHARE
    return min(lendable, psutil.virtual_memory().available * share)


def working_bytes(
    spec: ModelSpec,
    height: int,
    width: int,
    *,
    device: torch.device | None = None,
    dtype: torch.dtype | None = None,
) -> int:
    """Estimate of the memory one call takes beside the weights: learnt from such calls, or from the model's entry.

    Args:
        spec: which model.
        height: of the tile, in pixels.
        width: of the tile, in pixels.
        device: None means the compute device.
        dtype: what it computes in; None lets ``precision`` decide.
    """
    from . import precision

    device = device or host.compute_device()
    return vram_manager.working_memory().estimate(
        spec.network_id,
        height,
        width,
        str(dtype or precision.choose(spec, device)).removeprefix("torch."),
        vram_manager.device_name(device),
        spec.bytes_per_pixel * height * width,
    )
