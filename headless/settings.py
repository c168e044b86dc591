"""What a user can set once for every run: ``PHOTOKEEP_*`` variables, read into one frozen object."""

from __future__ import annotations

import os
import re
from dataclasses import dataclass
from pathlib import Path

from photokeep_nodes import host
from photokeep_nodes.errors import PhotokeepError

_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}


class SettingError(PhotokeepError):
    """A setting cannot be understood."""

    exit_code = 2


def parse_size(text: str) -> int:
    """Bytes that a size such as "8G", "512 MiB" or "1000000" stands for; units are powers of 1024.

    Raises:
        SettingError: it is no size.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?)(?:i?b)?\s*", text, flags=re.IGNORECASE)
    if match is None or float(match[1]) <= 0:
        raise SettingError(f"{text!r} is no size", hint="Write it like 8G, 512M or 12.5GiB.")
    return int(float(match[1]) * _UNITS[match[2].lower()])


@dataclass(frozen=True)
class Settings:
    """Defaults that the command line can override.

    Attributes:
        device: PHOTOKEEP_DEVICE: "auto", "cpu" or "cuda:N".
        vram_budget_bytes: PHOTOKEEP_VRAM_BUDGET: cap on the pool of a GPU; None leaves it to the card.
        cache_dir: PHOTOKEEP_CACHE: converted weights and stage outputs.
        cache_limit_bytes: PHOTOKEEP_CACHE_LIMIT: the stage cache is kept below this.
        output_dir: PHOTOKEEP_OUTPUT: where results are written.
    """

    device: str
    vram_budget_bytes: int | None
    cache_dir: Path
    cache_limit_bytes: int
    output_dir: Path

    @classmethod
    def from_environment(cls) -> Settings:
        """Read the variables.

        Raises:
            SettingError: one of them cannot be understood.
        """
        budget = os.environ.get("PHOTOKEEP_VRAM_BUDGET")
        return cls(
            device=check_device(os.environ.get("PHOTOKEEP_DEVICE", "auto")),
            vram_budget_bytes=None if budget is None else parse_size(budget),
            cache_dir=host.cache_dir(),
            cache_limit_bytes=parse_size(os.environ.get("PHOTOKEEP_CACHE_LIMIT", "20G")),
            output_dir=Path(os.environ.get("PHOTOKEEP_OUTPUT", "output")),
        )


def check_device(name: str) -> str:
    """``name`` if it is a device name.

    Raises:
        SettingError: it is not.
    """
    if re.fullmatch(r"auto|cpu|mps|cuda(:\d+)?", name) is None:
        raise SettingError(f"{name!r} is no device", hint="Use auto, cpu, cuda or cuda:N.")
    return name
