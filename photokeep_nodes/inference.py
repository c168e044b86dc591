"""Run a model of the catalogue: the one place that decides device, dtype, memory layout and tile size.

Weights come through the shared pool as a lease, never earlier than the stage that needs them.
"""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from . import host, vram_manager, weights
from .errors import NodeInputError, VramExhaustedError
from .host_memory import ComfyMemory
from .models import get

if TYPE_CHECKING:
    from collections.abc import Iterator

    import torch

    from .model_spec import DTypeName, ModelHandle, ModelSpec, Role

_CPU_TILE_SHARE = 0.25  # of the free memory, so that the photo and other programs keep theirs
_GPU_TILE_SHARE = 0.6
_LARGEST_TILE = 1024  # beyond this a tile gains nothing and a cancelled run waits for longer
_SMALLEST_TILE = 64

_HOST_MEMORY = ComfyMemory()

# What allocators say that have no exception of their own: torch's on the CPU, by system, MPS, and NVIDIA's libraries.
_OUT_OF_MEMORY = (
    "can't allocate memory",
    "not enough memory",
    "MPS backend out of memory",
    "CUDNN_STATUS_ALLOC_FAILED",
    "CUBLAS_STATUS_ALLOC_FAILED",
)


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

        # channels_last: oneDNN's and cuDNN's convolutions run in it without reordering each activation.
        image = image.to(self.device, self.dtype).contiguous(memory_format=torch.channels_last)
        placed = [argument.to(self.device, self.dtype) for argument in arguments]
        # Not inference_mode: its tensors refuse in-place changes for the rest of their lives, in other nodes too.
        with torch.no_grad():
            result: torch.Tensor = self.module(image, *placed)
        return result.float()


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


@contextmanager
def lease(spec: ModelSpec, *, working_bytes: int = 0, dtype: torch.dtype | None = None) -> Iterator[Network]:
    """Hold a model on the compute device for the duration of the body.

    Args:
        spec: which model.
        working_bytes: memory the computation itself needs on the device.
        dtype: None lets ``choose_dtype`` decide.
    Raises:
        WeightsError: the weights are missing, damaged or of another architecture.
        VramError: the pool cannot give the memory.
    """
    import torch

    device = host.compute_device()
    chosen = dtype or choose_dtype(spec, device)
    element_size = torch.empty((), dtype=chosen).element_size()

    def load() -> torch.nn.Module:
        module = weights.load_module(spec).to(chosen)
        _report_layers(module)
        return module.to(memory_format=torch.channels_last)

    source = vram_manager.ModelSource(
        key=f"{spec.id}:{weights.digest(spec)[:16]}:{chosen}",
        load=load,
        weight_bytes=spec.weight_bytes * element_size // 4,
    )
    with _pool(device).lease(
        source, device=device, working_bytes=working_bytes, check_interrupted=host.check_interrupted
    ) as held:
        yield Network(spec, held.module, device, chosen)


def _pool(device: torch.device) -> vram_manager.VramPool:
    pool = vram_manager.shared_pool(host_memory=_HOST_MEMORY if host.in_comfyui() else None)
    if device.type != "cpu":
        pool.set_budget(device, host.vram_budget_bytes())
    return pool


def _free_bytes(spec: ModelSpec, device: torch.device) -> float:
    """Memory that a tile may take on the device: a share of what is free now, within what the pool would lend."""
    import psutil
    import torch

    lendable = _pool(device).available_bytes(device) - spec.weight_bytes
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
    pixels = max(0.0, _free_bytes(spec, host.compute_device())) / max(1, spec.bytes_per_pixel)
    return max(smallest_tile(spec), min(_LARGEST_TILE, int(pixels**0.5), max(height, width)))


def working_bytes(spec: ModelSpec, height: int, width: int) -> int:
    """Estimate of the memory one tile's computation takes on the device, on the safe side: in float32."""
    return spec.bytes_per_pixel * height * width


def is_out_of_memory(error: BaseException) -> bool:
    """Whether ``error`` is an allocator's refusal, on any device."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and any(words in str(error) for words in _OUT_OF_MEMORY)


def apply_tiled(
    spec: ModelSpec,
    image: torch.Tensor,
    *,
    tile: int = 0,
    arguments: tuple[torch.Tensor, ...] = (),
) -> torch.Tensor:
    """Run a whole-image model over a photo of any size.

    Out of memory, and a tile that the pool cannot lend memory for, is answered with tiles of half the side, down to
    ``smallest_tile``; a half-precision result that is not finite with a second run in float32. A black-and-white photo
    stays one: trained on colour, the networks would tint it, by up to 35 of 255 steps where it is noisy.

    Args:
        spec: the model.
        image: (B, 3, H, W) float32 in [0, 1].
        tile: side of a tile in pixels, raised to ``smallest_tile``; 0 chooses it from the free memory.
        arguments: what the network takes after the image, the same for each tile.
    Returns:
        (B, C, H * scale, W * scale) float32 on the CPU, not clamped.
    Raises:
        WeightsError: see ``lease``.
        VramExhaustedError: not even the smallest tile fits.
        NodeInputError: the photo or the result holds values that are not numbers.
    """
    import torch

    smallest = smallest_tile(spec)
    side = max(tile, smallest) if tile else auto_tile(spec, *image.shape[-2:])
    dtype: torch.dtype | None = None
    bar = host.Progress(1, "tiles")
    while True:
        height, width = (min(side, s) for s in image.shape[-2:])
        try:
            with lease(spec, working_bytes=working_bytes(spec, height, width), dtype=dtype) as network:
                result = _run_tiled(network, image, side, arguments, bar)
                computed_in = network.dtype
        except (RuntimeError, MemoryError, VramExhaustedError) as error:
            if not isinstance(error, VramExhaustedError) and not is_out_of_memory(error):
                raise
            whole = min(side, max(height, width))  # a photo smaller than the tile gains nothing from half of it
            smaller = max(smallest, whole // 2)
            if smaller >= whole:
                said = f": {error}".partition("\n")[0] if str(error) else ""
                raise VramExhaustedError(
                    f"{spec.title} does not fit in memory even with tiles of {whole} px{said}",
                    hint="Close other programs, or run with --device cpu.",
                    model=spec.id,
                    tile=whole,
                ) from error
            side = smaller  # tried outside this block: the error's frames hold the failed attempt's tensors
        else:
            if bool(torch.isfinite(result).all()):
                return _without_tint(image, result)
            if computed_in == torch.float32:
                raise _not_finite(spec, image)
            dtype = torch.float32


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
    with _Meter(bar, network.module) as meter:
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


_running = threading.local()
"""``meter``: the `_Meter` of this thread's run, if one is under way."""


def _report_layers(module: torch.nn.Module) -> None:
    """Have each layer tell the meter of the thread that runs it.

    Once and for all when the module is built, for a resident module may serve several threads, and its hooks must not
    change while one of them runs it.
    """
    import torch

    for layer in module.modules():
        if isinstance(layer, (torch.nn.Conv2d, torch.nn.Linear)):
            layer.register_forward_hook(_after_layer)


def _after_layer(*_: object) -> None:
    meter: _Meter | None = getattr(_running, "meter", None)
    if meter is not None:
        meter.after_layer()


class _Meter:
    """Moves a progress bar by tiles, and layer by layer inside a tile: on a CPU one tile can take a minute.

    Each step also lets the user interrupt.
    """

    def __init__(self, bar: host.Progress, module: torch.nn.Module) -> None:
        import torch

        self._bar = bar
        self._layers = sum(isinstance(m, (torch.nn.Conv2d, torch.nn.Linear)) for m in module.modules())
        self._tiles = 0
        self._seen = 0

    def __enter__(self) -> _Meter:
        _running.meter = self
        return self

    def __exit__(self, *_: object) -> None:
        _running.meter = None

    def after_tile(self, done: int, total: int) -> None:
        self._tiles, self._seen = done, 0
        self._bar.total = total
        self._bar.reach(done)

    def after_layer(self) -> None:
        self._seen += 1
        self._bar.reach(self._tiles + min(0.99, self._seen / self._layers))
