"""What the memory pool makes of a real GPU: swaps, prefetch, cold against warm, against what the machine can do.

    python bench/vram_gpu.py [--sizes 2 4 8 12] [--swap-gb 2] [--folder DIR] [--json FILE]

Sizes are in GB of 10^9 bytes; weights are random, float16, in real architectures scaled to the size. What does not fit
on the device, in RAM or on the disk is left out, and said so. Without a GPU it says so and is done.
"""

from __future__ import annotations

import gc
import shutil
import statistics
import sys
import tempfile
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

import psutil
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import _networks
from _figures import Figure, argument_parser, at_least, at_most, report, save
from _hardware import CudaHardware, Hardware, Rates, calibrate
from _progress import steps

from photokeep_nodes._vram.simulated import SimulatedDevice
from photokeep_nodes.vram_manager import PlanStep, VramPool

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from torch import nn

    from photokeep_nodes.vram_manager import ModelSource

GB = 10**9
CPU = torch.device("cpu")
_SPARE = 1.1  # of a model's size, for what allocators round up to


@dataclass
class Job:
    """What to measure.

    Attributes:
        sizes: bytes of the models for cold against warm.
        swap_bytes: of the models that are swapped and prefetched.
        block_bytes: of the copy that the bus is calibrated with.
        families: builders by name.
        swaps: per family.
        rounds: of the prefetch.
        folder: for weight files.
        skipped: what was left out, and why.
    """

    sizes: list[int]
    swap_bytes: int
    folder: Path
    block_bytes: int = 2**30
    families: dict[str, Callable[[int], nn.Module]] = field(default_factory=lambda: dict(_networks.FAMILIES))
    swaps: int = 8
    rounds: int = 3
    skipped: list[str] = field(default_factory=list)


@contextmanager
def pool_on(hardware: Hardware, vram_bytes: int, ram_bytes: int) -> Iterator[VramPool]:
    """Yield a pool with these budgets; afterwards nothing of it is left."""
    pool = VramPool(
        vram_budgets={hardware.place: vram_bytes},
        ram_budget_bytes=ram_bytes,
        open_device=hardware.open,
        accelerators=(hardware.place,),
    )
    try:
        yield pool
    finally:
        if not pool.close(60):
            print("a pool could not be closed", file=sys.stderr)
        gc.collect()
        hardware.tidy()


def lease_s(pool: VramPool, source: ModelSource, place: torch.device) -> float:
    """Seconds until a lease is granted; what it copied is on the device then."""
    started = time.perf_counter()
    with pool.lease(source, device=place):
        return time.perf_counter() - started


# -- warm swaps -------------------------------------------------------------------------------------------------------


@dataclass
class Swapped:
    """Swaps of one family.

    Attributes:
        rate: bytes/s, the median.
        pinned: whether the pool keeps the weights in page-locked memory.
        predicted: bytes/s as the simulated device would have it.
        tensors: of one model.
        peak_share: most that was allocated, of the budget.
    """

    rate: float
    pinned: bool
    predicted: float
    tensors: int
    peak_share: float


def warm_swaps(hardware: Hardware, name: str, job: Job, rates: Rates) -> Swapped:
    """Lease two warm models in turn that do not fit together: each lease demotes one and promotes the other."""
    build = job.families[name]
    blocks = _networks.blocks_for(build, job.swap_bytes)
    sources = [_networks.in_memory(f"{name} {letter}", build, blocks) for letter in "ab"]
    n_bytes = sources[0].weight_bytes
    budget = int(n_bytes * 1.5)
    before = hardware.allocated_bytes()
    hardware.reset_peak()
    with pool_on(hardware, budget, 3 * n_bytes) as pool:
        for source in sources:
            lease_s(pool, source, CPU)
        lease_s(pool, sources[1], hardware.place)
        copied = pool.stats()["counters"]["bytes_to_device"]
        taken = [lease_s(pool, sources[turn % 2], hardware.place) for turn in range(job.swaps)]
        copied = pool.stats()["counters"]["bytes_to_device"] - copied
        master = pool._state.entries[sources[0].key].master
        if master is None or copied < 0.9 * n_bytes * job.swaps:
            raise RuntimeError(f"{name}: the models did not move")
        pinned = bool(master.views[0].is_pinned()) if torch.cuda.is_available() else False
        lone = Rates(rates.pinned, rates.pinned, rates.latency_s) if pinned else rates
        predicted = predicted_s([storage.nbytes() for storage in master.storages], lone)
        tensors = len(master.storages)
    peak = (hardware.peak_bytes() - before) / budget
    return Swapped(n_bytes / statistics.median(taken), pinned, n_bytes / predicted, tensors, peak)


def predicted_s(storages: list[int], rates: Rates) -> float:
    """Seconds that the simulated device's bus takes for copies of these sizes, at a machine's calibrated rate."""
    device = SimulatedDevice(2 * max(storages) + 2**20, bytes_per_s=rates.pageable, latency_s=rates.latency_s)
    for n_bytes in storages:
        device.copy(torch.UntypedStorage(n_bytes), device.allocate(n_bytes))
    return device.bus_s


# -- prefetch ---------------------------------------------------------------------------------------------------------


def prefetch_hidden(hardware: Hardware, job: Job, longer: float = 1.6) -> float:
    """Share of a promotion that a plan hides behind a computation on the default stream.

    What counts against it is both the wait that remains and what the computation is slowed down by.

    Args:
        hardware: with room for two models.
        job: what to measure.
        longer: the computation, in times of the copy.
    """
    name, build = next(iter(job.families.items()))
    blocks = _networks.blocks_for(build, job.swap_bytes)
    first, second = (_networks.in_memory(f"{name} {letter}", build, blocks) for letter in "cd")
    place = hardware.place
    shares = []
    with pool_on(hardware, 3 * first.weight_bytes, 3 * first.weight_bytes) as pool:
        for source in (first, second):
            lease_s(pool, source, CPU)
        lease_s(pool, first, place)
        for _ in range(job.rounds):
            lease_s(pool, second, place)
            pool.trim("vram", second.weight_bytes * 2)
            lease_s(pool, first, place)
            copy_s = lease_s(pool, second, place)
            alone_s = computed_s(hardware, copy_s * longer)
            pool.trim("vram", second.weight_bytes * 2)
            lease_s(pool, first, place)
            steps_ = [PlanStep((first,), place), PlanStep((second,), place)]
            with pool.lease(first, device=place), pool.plan("bench", steps_):
                beside_s = computed_s(hardware, copy_s * longer)
            stall_s = lease_s(pool, second, place)
            shares.append(1 - (stall_s + max(0.0, beside_s - alone_s)) / copy_s)
    return statistics.median(shares)


def computed_s(hardware: Hardware, seconds: float) -> float:
    """Seconds that a computation of about ``seconds`` takes."""
    started = time.perf_counter()
    hardware.compute(seconds)
    return time.perf_counter() - started


# -- cold and warm ----------------------------------------------------------------------------------------------------


def obstacle(hardware: Hardware, n_bytes: int, folder: Path | None = None) -> str:
    """Why models of this size in all cannot be measured here, or nothing.

    Args:
        hardware: where.
        n_bytes: of all of them.
        folder: for their files, if they have any.
    """
    need = n_bytes * _SPARE
    wanted = [
        ("the device", hardware.free_bytes(), 1),
        ("RAM", psutil.virtual_memory().available, 2),  # the file is read, and copied out of its mapping
    ]
    if folder is not None:
        wanted.append(("the disk", shutil.disk_usage(folder).free, 1))
    for what, there, times in wanted:
        if there < need * times:
            return f"{there / GB:.3g} GB are free on {what}, and it takes {need * times / GB:.3g}"
    return ""


@dataclass
class Times:
    """Of one model, in seconds.

    Attributes:
        cold: read from its file, built, moved.
        demote: back to RAM.
        warm: to the device again.
        to_host: copies from the device to the host while it was demoted; None where nothing can tell.
        peak_share: most that was allocated, of the budget.
    """

    cold: float
    demote: float
    warm: float
    to_host: int | None
    peak_share: float


def cold_and_warm(hardware: Hardware, name: str, n_bytes: int, job: Job) -> Times:
    """Lease a model for the first time, send it back to RAM, and lease it again."""
    build = job.families[name]
    blocks = _networks.blocks_for(build, n_bytes)
    path = job.folder / "weights.safetensors"
    real_bytes = _networks.write(path, build, blocks)
    source = _networks.from_file(f"{name} {n_bytes}", path, build, blocks, real_bytes)
    budget = int(real_bytes * _SPARE)
    before = hardware.allocated_bytes()
    hardware.reset_peak()
    try:
        with pool_on(hardware, budget, 2 * real_bytes) as pool:
            cold = lease_s(pool, source, hardware.place)
            started = time.perf_counter()
            pool.trim("vram", real_bytes)
            demote = time.perf_counter() - started
            warm = lease_s(pool, source, hardware.place)
            to_host = hardware.copies_to_host(lambda: pool.trim("vram", real_bytes))
            if pool.stats()["counters"]["evictions"] != 2 or pool.stats()["counters"]["cold_loads"] != 1:
                raise RuntimeError(f"{source.key} did not move as it should")
        peak = (hardware.peak_bytes() - before) / budget
    finally:
        path.unlink()
    return Times(cold, demote, warm, to_host, peak)


# -- all of it --------------------------------------------------------------------------------------------------------


def measure(hardware: Hardware, job: Job) -> list[Figure]:
    """Measure everything that fits."""
    before = hardware.allocated_bytes()
    rates = calibrate(hardware, job.block_bytes)
    figures = [
        Figure("host to device, one large copy, pageable", rates.pageable / GB, "GB/s"),
        Figure("host to device, one large copy, pinned", rates.pinned / GB, "GB/s"),
        Figure("a copy of 4 KiB", rates.latency_s * 1e6, "us"),
    ]
    peaks: list[float] = []
    to_host: list[int | None] = []
    tasks: list[tuple[str, int]] = [(name, 0) for name in job.families]
    tasks += [(list(job.families)[number % len(job.families)], size) for number, size in enumerate(job.sizes)]
    for name, size in steps(tasks, "models", len(tasks)):
        n_bytes = size or job.swap_bytes * 2
        if why := obstacle(hardware, n_bytes, job.folder if size else None):
            job.skipped.append(f"{name} of {n_bytes / GB:.3g} GB: {why}")
            continue
        if size:
            times = cold_and_warm(hardware, name, size, job)
            figures += _as_figures(f"{name} of {size / GB:.3g} GB", times)
            peaks.append(times.peak_share)
            to_host.append(times.to_host)
        else:
            swapped = warm_swaps(hardware, name, job, rates)
            figures += _swap_figures(name, swapped, rates)
            peaks.append(swapped.peak_share)
    if why := obstacle(hardware, job.swap_bytes * 2):
        job.skipped.append(f"prefetch: {why}")
    else:
        figures.append(at_least("share of a promotion hidden by a plan", 100 * prefetch_hidden(hardware, job), "%", 80))
    if None in to_host:
        job.skipped.append("copies to the host while demoting: the profiler sees no copies here")
    elif to_host:
        figures.append(at_most("copies to the host while demoting", sum(map(int, filter(None, to_host))), "copies", 0))
    if peaks:
        figures.append(at_most("most that was allocated, of the budget", 100 * max(peaks), "%", 100))
    gc.collect()
    hardware.tidy()
    figures.append(at_most("bytes left on the device", hardware.allocated_bytes() - before, "B", 0))
    return figures


def _swap_figures(name: str, swapped: Swapped, rates: Rates) -> list[Figure]:
    kind, bus = ("pinned", rates.pinned) if swapped.pinned else ("pageable", rates.pageable)
    what = f"warm swap, {name}, {swapped.tensors} storages"
    return [
        Figure(what, swapped.rate / GB, "GB/s"),
        at_least(f"  of the rate of {kind} memory", 100 * swapped.rate / bus, "%", 85),
        Figure("  as simulated", swapped.predicted / GB, "GB/s"),
        at_most("  the simulation is off by", 100 * abs(swapped.predicted / swapped.rate - 1), "%", 15),
    ]


def _as_figures(what: str, times: Times) -> list[Figure]:
    return [
        Figure(f"{what}, cold", times.cold, "s"),
        Figure(f"{what}, demotion", times.demote, "s"),
        Figure(f"{what}, warm", times.warm, "s"),
        Figure(f"{what}, warm over cold", times.cold / times.warm, "x"),
    ]


def main() -> None:
    parser = argument_parser("What the memory pool makes of a real GPU.")
    parser.add_argument("--sizes", type=float, nargs="*", default=[2, 4, 8, 12], help="GB, for cold against warm")
    parser.add_argument("--swap-gb", type=float, default=2, help="GB of the models that are swapped (default 2)")
    parser.add_argument("--folder", type=Path, help="where to write weight files (default: a temporary folder)")
    options = parser.parse_args()
    if not torch.cuda.is_available():
        print("no GPU")
        if options.json is not None:
            save([], options.json)
        return
    hardware = CudaHardware()
    swap_bytes = min(int(options.swap_gb * GB), hardware.free_bytes() // 4)
    with tempfile.TemporaryDirectory(dir=options.folder) as folder:
        job = Job([int(size * GB) for size in options.sizes], swap_bytes, Path(folder))
        job.block_bytes = min(job.block_bytes, hardware.free_bytes() // 4)
        figures = measure(hardware, job)
    report(figures, options.json)
    for line in job.skipped:
        print(f"left out: {line}")


if __name__ == "__main__":
    main()
