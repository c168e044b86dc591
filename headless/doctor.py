"""What this machine offers: devices, memory, weights, versions. Plain data; printing is the command line's business."""

from __future__ import annotations

import os
import platform
import shutil
import sys
from importlib import metadata
from typing import Any

import psutil

from photokeep_nodes import host, vram_metrics
from photokeep_nodes.files import existing_parent

from .models_report import own_files_report, weights_report
from .pool_figures import last_run
from .settings import Settings

_DISTRIBUTIONS = (
    "photokeep", "torch", "torchvision", "spandrel", "safetensors", "numpy", "pillow", "imagecodecs", "tifffile",
    "networkx", "click", "nvidia-ml-py", "prometheus-client", "basicsr", "realesrgan", "gfpgan", "comfy-cli",
)  # fmt: skip


def version_of(distribution: str) -> str | None:
    """Installed version of a distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def nvidia_devices() -> list[dict[str, Any]]:
    """NVIDIA GPUs as the driver reports them, other processes' memory included; empty without a driver."""
    return vram_metrics.gauge.nvidia_devices()


def torch_report() -> dict[str, Any]:
    """What torch can compute on; imports it."""
    try:
        import torch

        from photokeep_nodes import precision
    except Exception as error:  # noqa: BLE001 - a broken installation fails in many ways, and this is who reports it
        return {"error": f"{type(error).__name__}: {error}"}
    device = host.compute_device()
    return {
        "version": str(torch.__version__),
        "cuda": torch.version.cuda,
        "cuda_available": torch.cuda.is_available(),
        "mps_available": torch.backends.mps.is_available(),
        "threads": torch.get_num_threads(),
        "device": str(device),
        "precisions": precision.offered(device),
    }


def vram_report() -> dict[str, Any]:
    """The memory pool: what it may use where, what it did in the last run, and what it has learnt."""
    return {
        "devices": _devices(),
        "last_run": last_run(),
        "learnt": vram_metrics.working_memory().listing(),
    }


def _devices() -> list[dict[str, Any]]:
    """Every device models can be on, with what the pool may use of it; empty where torch does not work."""
    try:
        from photokeep_nodes.vram_manager import memory_overview

        return memory_overview(Settings.from_environment().vram_budget_bytes)
    except Exception:  # noqa: BLE001 - a broken installation fails in many ways; `torch_report` says in which
        return []


def report() -> dict[str, Any]:
    """Everything `photokeep doctor` shows."""
    memory = psutil.virtual_memory()
    cache = host.cache_dir()
    return {
        "photokeep": version_of("photokeep") or "not installed as a package",
        "python": sys.version.split()[0],
        "platform": platform.platform(),
        "cpu_count": os.cpu_count(),
        "memory": {"total_bytes": memory.total, "available_bytes": memory.available},
        "nvidia": nvidia_devices(),
        "torch": torch_report(),
        "vram": vram_report(),
        "cache": {"path": str(cache), "free_bytes": shutil.disk_usage(existing_parent(cache)).free},
        "model_folders": [str(path) for path in host.user_model_dirs()],
        "comfyui_path": os.environ.get("COMFYUI_PATH"),
        "versions": {name: version_of(name) for name in _DISTRIBUTIONS},
        "weights": weights_report() + own_files_report(),
    }
