"""Run a model of the catalogue: the one place that decides device, dtype, memory layout and tile size.

Weights come through the shared pool as a lease, never earlier than the stage that needs them.
"""

from __future__ import annotations

import bisect
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

    from .model_spec import DTypeName, ModelHandle, ModelSpec, Role

R = TypeVar("R")

_CPU_TILE_SHARE = 0.25  # of the free memory, so that the photo and other programs keep theirs
_GPU_TILE_SHARE = 0.6
_LARGEST_TILE = 1024  # beyond this a tile gains nothing and a cancelled run waits for longer
_SMALLEST_TILE = 64

_HOST_MEMORY = ComfyMemory()


@dataclass(frozen=True)
class Network:
    """A leased model, ready to be called with float32 tensors from anywhere.

    Attributes:
        spec: what it is.
        module: the network on ``device`` in ``dtype``.
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

        batch, _, height, width = image.shape
        # Estimates are for one image; a call with several teaches nothing.
        learning = self.learning(height, width) if batch == 1 else nullcontext()
        # Not inference_mode: its tensors refuse in-place changes for the rest of their lives, in other nodes too.
        with torch.no_grad(), learning:
            # channels_last: oneDNN's and cuDNN's convolutions run in it without reordering each activation.
            image = image.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
            placed = [argument.to(self.device, self.dtype) for argument in arguments]
            result: torch.Tensor = self.module(image, *placed)
            return result.float()

    def learning(self, height: int, width: int) -> AbstractContextManager[None]:
        """Have the body, one use of the network on inputs of this size, teach how much memory it takes."""
        return vram_manager.learning(
            vram_manager.shared_pool(),
            vram_manager.working_memory(),
            self.spec.id,
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


def choose_dtype(spec: ModelSpec, device: torch.device) -> torch.dtype:
    """Fastest dtype in which both the architecture keeps its quality and the device computes well."""
    import torch

    by_name: dict[DTypeName, torch.dtype] = {
        "float32": torch.float32,
        "float16": torch.float16,
        "bfloat16": torch.bfloat16,
    }
    if device.type != "cuda":
        return torch.float32
    for name in spec.dtypes:
        if name != "bfloat16" or torch.cuda.is_bf16_supported():
            return by_name[name]
    return torch.float32


def source_for(spec: ModelSpec, device: torch.device, dtype: torch.dtype | None = None) -> vram_manager.ModelSource:
    """What the pool has to know of a model.

    Args:
        spec: which model.
        device: where it will run.
        dtype: None lets ``choose_dtype`` decide.
    Raises:
        WeightsError: the weights are missing.
    """
    import torch

    chosen = dtype or choose_dtype(spec, device)
    element_size = torch.empty((), dtype=chosen).element_size()

    def load() -> torch.nn.Module:
        module = weights.load_module(spec).to(chosen)
        layer_progress.report_layers(module)
        return module.to(memory_format=torch.channels_last)

    return vram_manager.ModelSource(
        key=f"{spec.id}:{weights.digest(spec)[:16]}:{chosen}",
        load=load,
        weight_bytes=spec.weight_bytes * element_size // 4,
    )


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
        dtype: None lets ``choose_dtype`` decide.
    Raises:
        WeightsError: the weights are missing, damaged or of another architecture.
        VramError: no device can give the memory, or none works.
    """
    return _run_on_ladder(spec, lambda network, _tile: call(network), (0,), lambda _tile: (height, width), dtype)


def _run_on_ladder(
    spec: ModelSpec,
    call: Callable[[Network, int], R],
    tiles: Sequence[int],
    size_of: Callable[[int], tuple[int, int]],
    dtype: torch.dtype | None,
) -> R:
    def with_network(lease: vram_manager.Lease, tile: int) -> R:
        place = lease.place or lease.device
        return call(Network(spec, lease.module, lease.device, dtype or choose_dtype(spec, place)), tile)

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


def _free_bytes(spec: ModelSpec, device: torch.device) -> float:
    """Memory that a tile may take on the device: a share of what is free now, within what the pool would lend."""
    import psutil
    import torch

    lendable = _pool().available_bytes(device) - spec.weight_bytes
    if device.type == "cuda":
        # What torch's allocator keeps for reuse is free for us, though not for the driver.
        kept = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return min(lendable, (torch.cuda.mem_get_info(device)[0] + kept) * _GPU_TILE_SHARE)
    share = _CPU_TILE_SHARE if device.type == "cpu" else _GPU_TILE_SHARE
    return min(lendable, psutil.virtual_memory().available * share)


def smallest_tile(spec: ModelSpec) -> int:
    """Side of the smallest tile the model is run in, in pixels; of smaller ones more than three quarters is margin."""
    from .ops import tiling

    least = tiling.smallest_tile(spec.receptive_field, spec.multiple_of)
    side = max(_SMALLEST_TILE, 4 * spec.receptive_field, least)
    return -(-side // spec.multiple_of) * spec.multiple_of


def auto_tile(spec: ModelSpec, height: int, width: int) -> int:
    """Largest tile side whose working memory fits the device, no larger than the photo needs.

    Args:
        spec: gives bytes per pixel and the margin.
        height: of the photo, in pixels.
        width: of the photo, in pixels.
    """
    device = host.compute_device()
    free = _free_bytes(spec, device)
    smallest = smallest_tile(spec)
    sides = range(smallest, min(_LARGEST_TILE, max(height, width)) + 1)
    # What was learnt need not grow evenly with the side; even then the side found is one that fits.
    fitting = bisect.bisect_right(sides, free, key=lambda side: working_bytes(spec, side, side, device=device))
    return sides[fitting - 1] if fitting else smallest


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
        dtype: None lets ``choose_dtype`` decide.
    """
    device = device or host.compute_device()
    return vram_manager.working_memory().estimate(
        spec.id,
        height,
        width,
        str(dtype or choose_dtype(spec, device)).removeprefix("torch."),
        vram_manager.device_name(device),
        spec.bytes_per_pixel * height * width,
    )


def apply_tiled(
    spec: ModelSpec,
    image: torch.Tensor,
    *,
    tile: int = 0,
    arguments: tuple[torch.Tensor, ...] = (),
) -> torch.Tensor:
    """Run a whole-image model over a photo of any size.

    Out of memory, and a tile that the pool cannot lend memory for, is answered by giving up what is only kept for
    later, with tiles of half the side down to ``smallest_tile``, on another accelerator, and on the CPU; a
    half-precision result that is not finite with a second run in float32. A black-and-white photo stays one: trained
    on colour, the networks would tint it, by up to 35 of 255 steps where it is noisy.

    Args:
        spec: the model.
        image: (B, 3, H, W) float32 in [0, 1].
        tile: side of a tile in pixels, raised to ``smallest_tile``; 0 chooses it from the free memory.
        arguments: what the network takes after the image, the same for each tile.
    Returns:
        (B, C, H * scale, W * scale) float32 on the CPU, not clamped.
    Raises:
        WeightsError: see ``run``.
        VramExhaustedError: not even the smallest tile fits anywhere.
        NodeInputError: the photo or the result holds values that are not numbers.
    """
    import torch

    height, width = image.shape[-2:]
    bar = host.Progress(1, "tiles")

    def attempt(network: Network, side: int) -> tuple[torch.Tensor, torch.dtype]:
        return _run_tiled(network, image, side, arguments, bar), network.dtype

    tiles = _tile_ladder(spec, tile, height, width)
    dtype: torch.dtype | None = None
    while True:
        result, computed_in = _run_on_ladder(
            spec, attempt, tiles, lambda side: (min(side, height), min(side, width)), dtype
        )
        if bool(torch.isfinite(result).all()):
            return _without_tint(image, result)
        if computed_in == torch.float32:
            raise _not_finite(spec, image)
        dtype = torch.float32


def _tile_ladder(spec: ModelSpec, tile: int, height: int, width: int) -> list[int]:
    """Sides to try, largest first; a photo smaller than a tile gains nothing from half of that tile."""
    smallest = smallest_tile(spec)
    sides = [max(tile, smallest) if tile else auto_tile(spec, height, width)]
    while (whole := min(sides[-1], max(height, width))) > smallest:
        sides.append(max(smallest, whole // 2))
    return sides


def _without_tint(image: torch.Tensor, result: torch.Tensor) -> torch.Tensor:
    from . import images
    from .ops import colour

    if image.shape[1] == result.shape[1] == 3:
        for index, tone in enumerate(colour.tones(image)):
            if tone == "gray":
                result[index] = images.luminance(result[index : index + 1])[0]
    return result


def _not_finite(spec: ModelSpec, image: torch.Tensor) -> NodeInputError:
    import torch

    if not bool(torch.isfinite(image).all()):
        return NodeInputError(
            "the photo holds values that are not numbers", hint="Look at the node that this image comes from."
        )
    return NodeInputError(
        f"{spec.title} returned values that are not numbers", hint="Its weights do not suit this photo."
    )


def _run_tiled(
    network: Network,
    image: torch.Tensor,
    side: int,
    arguments: tuple[torch.Tensor, ...],
    bar: host.Progress,
) -> torch.Tensor:
    from .ops import tiling

    spec = network.spec
    with layer_progress.Meter(bar, network.module) as meter:
        return tiling.run_tiled(
            lambda part: network(part, *arguments),
            image,
            tile=side,
            margin=spec.receptive_field,
            scale=spec.scale,
            multiple=spec.multiple_of,
            minimum=spec.minimum,
            progress=meter.after_tile,
        )
