"""The benchmarks of the memory pool, dry: all but the GPU's own calls runs here, at sizes of a few hundred KiB."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

BENCH = Path(__file__).resolve().parent.parent / "bench"
KIB = 1024


@pytest.fixture
def bench(monkeypatch):
    """Import from bench/, as a script there would, and forget it afterwards."""
    before = set(sys.modules)
    monkeypatch.syspath_prepend(str(BENCH))
    yield __import__
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "x").parent == BENCH:
            del sys.modules[name]


@pytest.fixture
def gpu(bench):
    return bench("vram_gpu")


@pytest.fixture
def leases(bench):
    return bench("vram_leases")


@pytest.fixture
def job(gpu, bench, tmp_path):
    plain = bench("_networks").plain
    return gpu.Job([256 * KIB, 512 * KIB], 256 * KIB, tmp_path, 1000, {"plain": plain}, swaps=3, rounds=1)


def named(figures) -> dict[str, object]:
    return {figure.name: figure for figure in figures}


def test_every_figure_of_a_gpu_is_measured_dry(gpu, bench, job, tmp_path):
    hardware = bench("_hardware").DryHardware(8 * 2**20)
    figures = named(gpu.measure(hardware, job))
    assert job.skipped == []
    assert figures["host to device, one large copy, pageable"].value == pytest.approx(0.4)
    assert figures["host to device, one large copy, pinned"].value == pytest.approx(0.8)
    assert {"warm swap, plain, 8 storages", "plain of 0.000262 GB, cold", "plain of 0.000524 GB, warm"} <= set(figures)
    assert figures["  as simulated"].value > 0
    assert figures["copies to the host while demoting"].value == 0
    assert 0 < figures["most that was allocated, of the budget"].value <= 100
    assert figures["bytes left on the device"].value == 0
    assert "share of a promotion hidden by a plan" in figures
    assert list(tmp_path.iterdir()) == [], "no weight file stays"


def test_what_does_not_fit_is_left_out_and_said(gpu, bench, job):
    hardware = bench("_hardware").DryHardware(400 * KIB)
    job.families = {"plain": bench("_networks").plain}
    figures = named(gpu.measure(hardware, job))
    assert len(job.skipped) == 3
    assert "plain of 0.000524 GB: 0.00041 GB are free on the device, and it takes 0.000577" in job.skipped
    assert "plain of 0.000262 GB, warm" in figures
    assert not any("swap" in name for name in figures)


def test_without_a_gpu_it_says_so_and_is_done(gpu, tmp_path, monkeypatch, capsys):
    target = tmp_path / "out.json"
    monkeypatch.setattr(sys, "argv", ["vram_gpu.py", "--json", str(target)])
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    gpu.main()
    assert capsys.readouterr().out == "no GPU\n"
    assert json.loads(target.read_text())["figures"] == []


def test_the_simulator_is_asked_for_the_same_copies(gpu, bench):
    rates = bench("_hardware").Rates(pageable=1e6, pinned=2e6, latency_s=0.5)
    assert gpu.predicted_s([1000, 3000], rates) == pytest.approx(1.004)


@pytest.mark.parametrize("family", ["RRDBNet", "transformer", "U-Net"])
def test_networks_come_near_the_wanted_size(bench, family):
    networks = bench("_networks")
    build = networks.FAMILIES[family]
    with torch.device("meta"):
        n_bytes = networks.half_bytes(build(networks.blocks_for(build, 500 * 10**6)))
    assert 400e6 < n_bytes <= 500e6


def test_a_file_gives_the_weights_that_were_written(bench, tmp_path):
    networks = bench("_networks")
    path = tmp_path / "w.safetensors"
    n_bytes = networks.write(path, networks.plain, 3)
    assert n_bytes == 3 * 32 * KIB
    module = networks.from_file("m", path, networks.plain, 3, n_bytes).load()
    assert {tensor.dtype for tensor in module.parameters()} == {torch.float16}
    assert sum(tensor.nbytes for tensor in module.parameters()) == n_bytes
    assert all(0 < float(tensor.detach().float().std()) < 1 for tensor in module.parameters())


# -- leases -----------------------------------------------------------------------------------------------------------


def test_the_pools_own_figures_come_out_small_and_whole(leases):
    assert leases.hot_lease_us(repeats=1, times=10) > 0
    assert leases.contended_lease_us(threads=2, times=10) > 0
    assert leases.demote_ms(repeats=1) > 0
    assert leases.decision_ms(models=3, repeats=2) > 0
    assert leases.decision_ms(models=3, repeats=2, planned=True) > 0
    growth, swap_ms = leases.rss_slope_mb(40, warm_up=4, every=10)
    assert abs(growth) < 1e6
    assert swap_ms > 0


def test_random_operations_load_nothing_twice(leases):
    figures = named(leases.duplicates(4000))
    assert figures["duplicate loads in 4,000 random operations"].met
    assert figures["faults in the books after them"].met
    assert figures["  loads among them"].value >= 12


def test_a_duplicate_would_be_noticed(leases):
    source = leases.WatchfulSource("m", 1)
    first = source.load()
    assert source.duplicates == 0
    second = source.load()
    assert source.duplicates == 1, "the first is still in RAM"
    del first, second
    source.load()
    assert (source.loads, source.duplicates) == (3, 1)
    with source._loading:  # as if another thread were at it
        source.load()
    assert source.duplicates == 2


def test_waiting_for_weights_is_counted_and_so_are_the_transfers(leases):
    waited, busy = leases.stalls(1e-3, 1e-4, 4)
    assert waited >= 0
    assert busy >= 3e-3, "each model came once, and the first does not count"


def test_the_slope_is_that_of_a_line(leases):
    assert leases.slope([0.0, 1.0, 2.0], [5.0, 7.0, 9.0]) == pytest.approx(2)
